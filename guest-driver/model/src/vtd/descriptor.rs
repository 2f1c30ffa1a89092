//! The 256-bit descriptors that Linux puts into the invalidation queue (VT-d 6.5.2).

use refault_bus::pri::ResponseCode;
use refault_bus::{Bdf, Gpa, Iova, Pasid, PrgIndex};

/// One descriptor: four quadwords, of which Linux uses two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor(pub [u64; 4]);

/// Address with size that means everything, for both kinds of device-TLB invalidation.
const EVERYTHING: u64 = 0x7fff_ffff_ffff_f000;
/// Log2 of a range that Linux no longer names as a range (`MAX_AGAW_PFN_WIDTH` pages).
const WHOLE: u8 = 64;

impl Descriptor {
    const fn new(qw0: u64, qw1: u64) -> Self {
        Self([qw0, qw1, 0, 0])
    }

    /// Forget all context entries.
    pub const fn contexts() -> Self {
        Self::new(1 | 1 << 4, 0)
    }

    /// Forget the context entry of one function.
    pub const fn context(requester: Bdf) -> Self {
        Self::new(1 | 3 << 4 | (requester.0 as u64) << 32, 0)
    }

    /// Forget everything in the IOTLB.
    pub const fn iotlb() -> Self {
        Self::new(2 | 1 << 4 | 1 << 6 | 1 << 7, 0)
    }

    /// Forget all PASID entries.
    pub const fn pasid_cache() -> Self {
        Self::new(7 | 3 << 4, 0)
    }

    /// Forget one PASID entry.
    pub const fn pasid_entry(domain: u16, pasid: Pasid) -> Self {
        Self::new(7 | 1 << 4 | (domain as u64) << 16 | (pasid.get() as u64) << 32, 0)
    }

    /// Forget all translations of one PASID.
    pub const fn pasid_iotlb(domain: u16, pasid: Pasid) -> Self {
        Self::new(6 | 2 << 4 | (domain as u64) << 16 | (pasid.get() as u64) << 32, 0)
    }

    /// Forget the translations of one PASID in the `1 << shift` bytes at `iova`.
    pub const fn pasid_iotlb_block(domain: u16, pasid: Pasid, iova: Iova, shift: u8) -> Self {
        if shift >= WHOLE {
            return Self::pasid_iotlb(domain, pasid);
        }
        let order = (shift - 12) as u64;
        Self::new(6 | 3 << 4 | (domain as u64) << 16 | (pasid.get() as u64) << 32, iova.0 | order)
    }

    /// Tell the device to forget the `1 << shift` bytes at `iova` of its own space.
    pub const fn device_tlb(requester: Bdf, iova: Iova, shift: u8) -> Self {
        Self::new(3 | (requester.0 as u64) << 32, sized(iova, shift, 1))
    }

    /// Tell the device to forget the `1 << shift` bytes at `iova` of one PASID.
    pub const fn pasid_device_tlb(requester: Bdf, pasid: Pasid, iova: Iova, shift: u8) -> Self {
        Self::new(8 | (requester.0 as u64) << 16 | (pasid.get() as u64) << 32, sized(iova, shift, 1 << 11))
    }

    /// Answer one page request group.
    pub const fn page_group_response(
        requester: Bdf,
        pasid: Option<Pasid>,
        group: PrgIndex,
        code: ResponseCode,
    ) -> Self {
        // Linux passes its own numbers on: 2 for a failure, where PCI Express has 15.
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

    /// A fence that writes nothing.
    pub const fn fence() -> Self {
        Self::new(5 | 1 << 6 | (InFlight::DONE as u64) << 32, 0)
    }

    /// When all before it is done, write 2 to `status`; with `drain`, when the page requests
    /// received before it are in their queue, too.
    pub const fn wait(status: Gpa, drain: bool) -> Self {
        let drain = if drain { 1 << 7 } else { 0 };
        Self::new(5 | 1 << 5 | drain | (InFlight::DONE as u64) << 32, status.0)
    }

    /// The bytes in memory.
    pub fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (chunk, quadword) in bytes.chunks_exact_mut(8).zip(self.0) {
            chunk.copy_from_slice(&quadword.to_le_bytes());
        }
        bytes
    }
}

/// What Linux notes beside each slot of the queue.
pub(crate) struct InFlight;

impl InFlight {
    /// Not in use.
    pub(crate) const FREE: u32 = 0;
    /// Submitted.
    pub(crate) const BUSY: u32 = 1;
    /// The wait descriptor's status write.
    pub(crate) const DONE: u32 = 2;
    /// Submitted, but lost to a time-out.
    pub(crate) const ABORTED: u32 = 3;
}

/// Address, size and S bit of a device-TLB invalidation: the lowest clear address bit gives the size.
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

/// The smallest naturally aligned block that spans both addresses, as `calculate_psi_aligned_address` picks
/// it: its start and the log2 of its size, 64 meaning everything.
pub const fn covering_block(first: Iova, last: Iova) -> (Iova, u8) {
    let bits = 64 - (first.align_down(12).0 ^ last.0).leading_zeros() as u8;
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
    fn descriptors_are_those_that_linux_submits() {
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
