//! Descriptors as Linux writes them (drivers/iommu/intel/iommu.h, qi_desc_*).

use refault_bus::{Bdf, Iova, Pasid};

/// A descriptor: four quadwords.
pub(crate) type Raw = [u64; 4];

/// Address of a device-TLB invalidation of everything.
pub(crate) const EVERYTHING: u64 = 0x7fff_ffff_ffff_f000;

pub(crate) fn context_global() -> Raw {
    [0x11, 0, 0, 0]
}

pub(crate) fn context_device(device: Bdf, function_mask: u64) -> Raw {
    [0x31 | u64::from(device.0) << 32 | function_mask << 48, 0, 0, 0]
}

pub(crate) fn pasid_cache_global() -> Raw {
    [0x37, 0, 0, 0]
}

pub(crate) fn pasid_cache_domain(did: u16) -> Raw {
    [0x07 | u64::from(did) << 16, 0, 0, 0]
}

pub(crate) fn pasid_cache(did: u16, pasid: Pasid) -> Raw {
    [0x17 | u64::from(did) << 16 | u64::from(pasid.get()) << 32, 0, 0, 0]
}

/// Drains reads and writes.
pub(crate) fn iotlb_global() -> Raw {
    [0xd2, 0, 0, 0]
}

pub(crate) fn iotlb_domain(did: u16) -> Raw {
    [0xe2 | u64::from(did) << 16, 0, 0, 0]
}

pub(crate) fn piotlb_all(did: u16, pasid: Pasid) -> Raw {
    [0x26 | u64::from(did) << 16 | u64::from(pasid.get()) << 32, 0, 0, 0]
}

pub(crate) fn piotlb(did: u16, pasid: Pasid, iova: Iova, mask: u64) -> Raw {
    [0x36 | u64::from(did) << 16 | u64::from(pasid.get()) << 32, iova.0 | mask, 0, 0]
}

/// Without PASID: S is bit 0.
pub(crate) fn device_tlb(device: Bdf, address: u64, sized: bool) -> Raw {
    [0x3 | u64::from(device.0) << 32, address | u64::from(sized), 0, 0]
}

/// With PASID: S is bit 11.
pub(crate) fn device_tlb_pasid(device: Bdf, pasid: Pasid, address: u64, sized: bool) -> Raw {
    [0x8 | u64::from(device.0) << 16 | u64::from(pasid.get()) << 32, address | u64::from(sized) << 11, 0, 0]
}

/// A wait that writes the status 2.
pub(crate) fn wait(status: u64) -> Raw {
    [0x2_0000_0025, status, 0, 0]
}

/// A wait that is only a fence, the first one of a drain.
pub(crate) fn fence() -> Raw {
    [0x2_0000_0045, 0, 0, 0]
}

/// A wait that writes the status 2 after page requests are drained.
pub(crate) fn wait_drain(status: u64) -> Raw {
    [0x2_0000_00a5, status, 0, 0]
}

/// Response to a group with PASID, without LPIG, as Linux 7.2 writes it.
pub(crate) fn group_response(device: Bdf, pasid: Pasid, group: u64, code: u64) -> Raw {
    [0x19 | code << 12 | u64::from(device.0) << 16 | u64::from(pasid.get()) << 32, group << 3, 0, 0]
}
