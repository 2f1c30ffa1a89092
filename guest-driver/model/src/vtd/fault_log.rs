//! Reading the fault recording registers, as `dmar_fault` does it.

use refault_bus::{Bdf, Iova, Pasid};

use crate::registers::RegisterWindow;
use crate::vtd::registers as reg;

/// One recorded fault (VT-d 11.4.7.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultRecord {
    /// Architectural reason code.
    pub reason: u8,
    /// Whose access it was.
    pub requester: Bdf,
    /// Its address space.
    pub pasid: Option<Pasid>,
    /// The page.
    pub page: Iova,
    /// A read; otherwise a write.
    pub read: bool,
}

/// Bytes of one fault recording register.
const RECORD: u64 = 16;
/// F: the record holds a fault. The same bit says, in the dword before, that a PASID is present.
const FAULT: u32 = 1 << 31;

/// Takes all recorded faults and clears the status. The flag says whether faults were lost.
pub(crate) fn drain(registers: &RegisterWindow) -> (Vec<FaultRecord>, bool) {
    let status = registers.read32(reg::FSTS);
    let mut faults = Vec::new();
    if status & reg::FSTS_PENDING == 0 {
        return (faults, status & reg::FSTS_OVERFLOW != 0);
    }
    let cap = registers.read64(reg::CAP);
    let (base, count) = ((cap >> 24 & 0x3ff) * RECORD, (cap >> 40 & 0xff) + 1);
    let mut index = u64::from(status >> 8 & 0xff);
    while let Some(fault) = read(registers, base + index % count * RECORD) {
        faults.push(fault);
        registers.write32(base + index % count * RECORD + 12, FAULT);
        index += 1;
    }
    let handled = reg::FSTS_OVERFLOW | reg::FSTS_PENDING | reg::FSTS_PAGE_REQUEST_OVERFLOW;
    registers.write32(reg::FSTS, handled);
    (faults, status & reg::FSTS_OVERFLOW != 0)
}

fn read(registers: &RegisterWindow, at: u64) -> Option<FaultRecord> {
    let high = registers.read32(at + 12);
    if high & FAULT == 0 {
        return None;
    }
    let source = registers.read32(at + 8);
    let page = registers.read64(at) & !0xfff;
    Some(FaultRecord {
        reason: high as u8,
        requester: Bdf(source as u16),
        pasid: (source & FAULT != 0).then(|| Pasid::truncated(u64::from(high >> 8))),
        page: Iova(page),
        read: high & 1 << 30 != 0,
    })
}
