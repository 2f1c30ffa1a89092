//! The 256-bit descriptors that Linux submits to the invalidation queue (VT-d 6.5.2).

use refault_bus::pri::ResponseCode;
use refault_bus::{Bdf, Gpa, Iova, Pasid, PrgIndex};

/// A descriptor of four quadwords. Linux sets the first two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor(pub [u64; 4]);

/// Address field of a device-TLB invalidation of the whole address space; the size is encoded in its lowest clear bit.
const EVERYTHING: u64 = 0x7fff_ffff_ffff_f000;
/// log2 of the bytes from which on Linux invalidates the whole address space instead of a range (`MAX_AGAW_PFN_WIDTH`).
const WHOLE: u8 = 64;

impl Descriptor {
    const fn new(qw0: u64, qw1: u64) -> Self {
        Self([qw0, qw1, 0, 0])
    }

    /// Global context-cache invalidation.
    pub const fn contexts() -> Self {
        Self::new(1 | 1 << 4, 0)
    }

    /// Context-cache invalidation of one function.
    pub const fn context(requester: Bdf) -> Self {
        Self::new(1 | 3 << 4 | (requester.0 as u64) << 32, 0)
    }

    /// Global IOTLB invalidation, with drain of reads and writes.
    pub const fn iotlb() -> Self {
        Self::new(2 | 1 << 4 | 1 << 6 | 1 << 7, 0)
    }

    /// Global PASID-cache invalidation.
    pub const fn pasid_cache() -> Self {
        Self::new(7 | 3 << 4, 0)
    }

    /// PASID-cache invalidation of one PASID.
    pub const fn pasid_entry(domain: u16, pasid: Pasid) -> Self {
        Self::new(7 | 1 << 4 | (domain as u64) << 16 | (pasid.get() as u64) << 32, 0)
    }

    /// PASID-based IOTLB invalidation of a whole PASID.
    pub const fn pasid_iotlb(domain: u16, pasid: Pasid) -> Self {
        Self::new(6 | 2 << 4 | (domain as u64) << 16 | (pasid.get() as u64) << 32, 0)
    }

    /// PASID-based IOTLB invalidation of the `1 << shift` bytes at `iova`.
    pub const fn pasid_iotlb_block(domain: u16, pasid: Pasid, iova: Iova, shift: u8) -> Self {
        if shift >= WHOLE {
            return Self::pasid_iotlb(domain, pasid);
        }
        let order = (shift - 12) as u64;
        Self::new(6 | 3 << 4 | (domain as u64) << 16 | (pasid.get() as u64) << 32, iova.0 | order)
    }

    /// Device-TLB invalidation of the `1 << shift` bytes at `iova`, without a PASID.
    pub const fn device_tlb(requester: Bdf, iova: Iova, shift: u8) -> Self {
        Self::new(3 | (requester.0 as u64) << 32, sized(iova, shift, 1))
    }

    /// PASID-based device-TLB invalidation of the `1 << shift` bytes at `iova`.
    pub const fn pasid_device_tlb(requester: Bdf, pasid: Pasid, iova: Iova, shift: u8) -> Self {
        Self::new(8 | (requester.0 as u64) << 16 | (pasid.get() as u64) << 32, sized(iova, shift, 1 << 11))
    }

    /// Page group response.
    pub const fn page_group_response(
        requester: Bdf,
        pasid: Option<Pasid>,
        group: PrgIndex,
        code: ResponseCode,
    ) -> Self {
        // Linux uses its own numbering: 2 for response failure, where PCI Express has 15.
        let code = match code {
            ResponseCode::Success => 0,
            ResponseCode::InvalidRequest => 1,
            ResponseCode::ResponseFailure => 2,
        };
        let pasid = match pasid {
            Some(pasid) => 1 << 4 | (pasid.get() as u64) << 32,
            None => 0,
        };
        Self::new(9 | code << 12 | (requester.0 as u64) << 16 | pasid, (group.get() as u64) << 3)
    }

    /// A wait descriptor with only the fence flag: later descriptors wait for earlier ones.
    pub const fn fence() -> Self {
        Self::new(5 | 1 << 6 | (InFlight::DONE as u64) << 32, 0)
    }

    /// A wait descriptor that writes 2 to `status` when all earlier descriptors have completed. With `drain`, page
    /// requests received before it are in their queue by then.
    pub const fn wait(status: Gpa, drain: bool) -> Self {
        let drain = if drain { 1 << 7 } else { 0 };
        Self::new(5 | 1 << 5 | drain | (InFlight::DONE as u64) << 32, status.0)
    }

    /// The descriptor as it is stored in memory.
    pub fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (chunk, quadword) in bytes.chunks_exact_mut(8).zip(self.0) {
            chunk.copy_from_slice(&quadword.to_le_bytes());
        }
        bytes
    }
}

/// The status word that Linux keeps for each slot of the queue (`QI_*`).
pub(crate) struct InFlight;

impl InFlight {
    /// The slot is free.
    pub(crate) const FREE: u32 = 0;
    /// The descriptor was submitted.
    pub(crate) const BUSY: u32 = 1;
    /// The wait descriptor has completed; the hardware writes this value.
    pub(crate) const DONE: u32 = 2;
    /// The wait descriptor was lost to a device-TLB timeout.
    pub(crate) const ABORTED: u32 = 3;
}

/// Address field and S bit of a device-TLB invalidation. With S, the lowest clear bit of the address encodes the size.
const fn sized(iova: Iova, shift: u8, size_bit: u64) -> u64 {
    if shift >= WHOLE {
        EVERYTHING | size_bit
    } else if shift <= 12 {
        iova.0 & !0xfff
    } else {
        let ones = (1 << (shift - 1)) - 0x1000;
        iova.align_down(shift).0 | ones | size_bit
    }
}

/// The smallest naturally aligned block that contains both addresses, as `calculate_psi_aligned_address` computes it.
/// Returns its start and the log2 of its size in bytes, at least 12; 64 is the whole address space.
pub const fn covering_block(first: Iova, last: Iova) -> (Iova, u8) {
    let [bits, ..] = (64 - (first.align_down(12).0 ^ last.0).leading_zeros()).to_le_bytes();
    match bits {
        0..=12 => (first.align_down(12), 12),
        13..=63 => (first.align_down(bits), bits),
        _ => (Iova(0), WHOLE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASID: Pasid = Pasid::truncated(1);
    const REQUESTER: Bdf = Bdf(0x100);

    /// Quadwords traced on an SVA-bound process of kernel 7.2.12.
    #[test]
    fn descriptors_equal_those_that_linux_submits() {
        let page = Iova(0x7f07_5d20_0000);
        assert_eq!(
            Descriptor::pasid_iotlb_block(1, PASID, page, 14).0[..2],
            [0x1_0001_0036, 0x7f07_5d20_0002]
        );
        assert_eq!(
            Descriptor::pasid_device_tlb(REQUESTER, PASID, page, 14).0[..2],
            [0x1_0100_0008, 0x7f07_5d20_1800]
        );
        assert_eq!(Descriptor::pasid_iotlb(1, PASID).0[..2], [0x1_0001_0026, 0]);
        assert_eq!(Descriptor::pasid_entry(1, PASID).0[..2], [0x1_0001_0017, 0]);
        assert_eq!(
            Descriptor::pasid_device_tlb(REQUESTER, PASID, Iova(0), 64).0[..2],
            [0x1_0100_0008, 0x7fff_ffff_ffff_f800]
        );
        assert_eq!(
            Descriptor::device_tlb(REQUESTER, Iova(0), 64).0[..2],
            [0x100_0000_0003, 0x7fff_ffff_ffff_f001]
        );
    }

    #[test]
    fn a_range_becomes_the_block_that_covers_it() {
        assert_eq!(covering_block(Iova(0x1000), Iova(0x1fff)), (Iova(0x1000), 12));
        assert_eq!(covering_block(Iova(0x1000), Iova(0x3fff)), (Iova(0), 14));
        assert_eq!(covering_block(Iova(0x1f_f000), Iova(0x20_1fff)), (Iova(0), 22));
        assert_eq!(covering_block(Iova(0), Iova(u64::MAX)), (Iova(0), 64));
        let kernel = covering_block(Iova(0xffff_8880_0000_0000), Iova(u64::MAX));
        assert_eq!(kernel, (Iova(0xffff_8000_0000_0000), 47));
    }
}
