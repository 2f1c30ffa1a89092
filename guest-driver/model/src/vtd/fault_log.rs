//! Reading the fault recording registers, as `dmar_fault` does.

use refault_bus::{Bdf, Iova, Pasid};

use crate::registers::RegisterWindow;
use crate::vtd::registers as reg;

/// A primary fault, as a fault recording register holds it (VT-d 11.4.7.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrimaryFault {
    /// Fault reason (VT-d table 30).
    pub reason: u8,
    /// Requester id of the faulting request.
    pub requester: Bdf,
    /// PASID of the request, if it had one.
    pub pasid: Option<Pasid>,
    /// Address of the request, rounded down to 4 KiB.
    pub page: Iova,
    /// Whether the request was a read, and not a write.
    pub read: bool,
}

/// Bytes of a fault recording register.
const RECORD: u64 = 16;
/// F, in the last dword: the record holds a fault. In the dword before, the same bit is PP: a PASID is present.
const FAULT: u32 = 1 << 31;

/// Takes all recorded faults and clears the status. Also returns whether faults were lost.
pub(crate) fn drain(registers: &RegisterWindow) -> (Vec<PrimaryFault>, bool) {
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

fn read(registers: &RegisterWindow, at: u64) -> Option<PrimaryFault> {
    let high = registers.read32(at + 12);
    if high & FAULT == 0 {
        return None;
    }
    let source = registers.read32(at + 8);
    let page = registers.read64(at) & !0xfff;
    let ([reason, ..], [low, middle, ..]) = (high.to_le_bytes(), source.to_le_bytes());
    Some(PrimaryFault {
        reason,
        requester: Bdf(u16::from_le_bytes([low, middle])),
        pasid: (source & FAULT != 0).then(|| Pasid::truncated(u64::from(high >> 8))),
        page: Iova(page),
        read: high & 1 << 30 != 0,
    })
}
