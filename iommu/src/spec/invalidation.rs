//! Invalidation queue descriptors (§6.5.2) and page group responses (§7.6.1), decoded.
//!
//! Reserved bits are refused, as the specification requires. Address masks are not checked against CAP.MAMV, and
//! addresses need not be canonical: Linux sends masks up to 51, and kernel addresses.

use refault_bus::ats::InvalidationRequest;
use refault_bus::bits::{high_u32, low_u8, low_u16};
use refault_bus::pri::{PageGroupResponse, ResponseCode};
use refault_bus::{Bdf, Gpa, Iova, Pasid, PrgIndex};
use thiserror::Error;

/// Size of a descriptor in bytes: 256 bits.
pub const DESCRIPTOR_BYTES: u32 = 32;

/// Why the queue stopped (IQEI, §11.4.9.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum QueueError {
    /// The tail is outside the queue.
    #[error("invalidation queue tail {tail:#x} is outside the queue")]
    Tail {
        /// IQT, an offset in bytes.
        tail: u32,
    },
    /// The descriptor could not be read.
    #[error("invalidation queue entry at {at} is not in memory")]
    Fetch {
        /// Guest-physical address of the descriptor.
        at: Gpa,
    },
    /// The type or granularity is not supported.
    #[error("invalidation descriptor {low:#018x} has an unknown type or granularity")]
    Type {
        /// First quadword of the descriptor.
        low: u64,
    },
    /// A reserved bit is set.
    #[error("invalidation descriptor {low:#018x} {high:#018x} has a reserved bit set")]
    Reserved {
        /// First quadword of the descriptor.
        low: u64,
        /// Second quadword of the descriptor.
        high: u64,
    },
    /// The queue has 128-bit descriptors, which scalable mode does not allow.
    #[error("invalidation queue is set up for 128-bit descriptors; scalable mode requires 256-bit ones")]
    Width,
    /// The tail is not a multiple of the descriptor size.
    #[error("invalidation queue tail {tail:#x} is not aligned to a descriptor")]
    Alignment {
        /// IQT, an offset in bytes.
        tail: u32,
    },
}

impl QueueError {
    /// The IQEI code of the error.
    pub const fn code(self) -> u8 {
        match self {
            Self::Tail { .. } => 1,
            Self::Fetch { .. } => 2,
            Self::Type { .. } => 3,
            Self::Reserved { .. } => 4,
            Self::Width => 5,
            Self::Alignment { .. } => 6,
        }
    }
}

/// One decoded descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidationDescriptor {
    /// Type 1: flush context entries of one device, or all.
    ContextCache {
        /// Requester ID, and a mask of the bits of it that must match. `None` for all: in scalable mode a
        /// domain-selective descriptor is performed as a global one (§6.5.2.1).
        device: Option<(Bdf, u16)>,
    },
    /// Type 2: flush translations of one domain, or all.
    Iotlb {
        /// Domain ID; `None` for all. A page-selective descriptor flushes the whole domain: its address is a second-stage
        /// one, which entries of first-stage translations do not have (§6.5.2.3).
        did: Option<u16>,
    },
    /// Types 3 and 8: flush translations in a device's TLB.
    DeviceTlb {
        /// Requester ID of the device.
        device: Bdf,
        /// The translations to flush.
        request: InvalidationRequest,
    },
    /// Type 5: report that all descriptors before this one are complete.
    Wait(InvalidationWait),
    /// Type 6: flush translations of one address space.
    PasidIotlb {
        /// Domain ID, half of the tag.
        did: u16,
        /// PASID, the other half.
        pasid: Pasid,
        /// First address of a naturally aligned block, and log2 of its size in bytes; `None` for all.
        block: Option<(Iova, u8)>,
    },
    /// Type 7: flush PASID entries.
    PasidCache(PasidCacheScope),
    /// Type 9: respond to a page request group.
    PageGroupResponse {
        /// Requester ID of the device.
        device: Bdf,
        /// The response to forward.
        response: PageGroupResponse,
    },
}

/// An invalidation wait descriptor (type 5, §6.5.2.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidationWait {
    /// IF: send the completion event.
    pub interrupt: bool,
    /// SW: the address to write a status to, and the status.
    pub status: Option<(Gpa, u32)>,
    /// PD: page requests received before must be in the page request queue first.
    pub drain: bool,
}

/// What a PASID cache invalidation covers (type 7, §6.5.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasidCacheScope {
    /// All entries.
    Global,
    /// All PASIDs of a domain.
    Domain(u16),
    /// One PASID of a domain.
    Pasid(u16, Pasid),
}

/// Decodes one descriptor.
///
/// # Errors
///
/// [`QueueError::Type`] or [`QueueError::Reserved`].
pub fn decode(raw: [u64; 4]) -> Result<InvalidationDescriptor, QueueError> {
    let [low, high, ..] = raw;
    // Type [6:4] lies in bits 11:9.
    let kind = (low & 0xf) | (low >> 5 & 0x70);
    let layout = LAYOUTS.iter().find(|layout| layout.kind == kind).ok_or(QueueError::Type { low })?;
    if low & layout.reserved_low != 0 || high & layout.reserved_high != 0 || raw[2] != 0 || raw[3] != 0 {
        return Err(QueueError::Reserved { low, high });
    }
    (layout.decode)(low, high).ok_or(QueueError::Type { low })
}

/// One descriptor type: its reserved bits, and its decoder, which returns `None` for a reserved granularity.
struct Layout {
    kind: u64,
    reserved_low: u64,
    reserved_high: u64,
    decode: fn(u64, u64) -> Option<InvalidationDescriptor>,
}

/// PFSID is reserved in types 3 and 8, because ECAP.DIT is clear.
const LAYOUTS: [Layout; 8] = [
    Layout { kind: 1, reserved_low: 0xfffc_0000_0000_f1c0, reserved_high: !0, decode: context_cache },
    Layout { kind: 2, reserved_low: 0xffff_ffff_0000_f100, reserved_high: 0xf80, decode: iotlb },
    Layout { kind: 3, reserved_low: 0xffff_0000_ffe0_f1f0, reserved_high: 0xffe, decode: device_tlb },
    Layout { kind: 5, reserved_low: 0x0000_0000_ffff_f100, reserved_high: 0x3, decode: wait },
    Layout { kind: 6, reserved_low: 0xfff0_0000_0000_f1c0, reserved_high: 0xf80, decode: pasid_iotlb },
    Layout { kind: 7, reserved_low: 0xfff0_0000_0000_f1c0, reserved_high: !0, decode: pasid_cache },
    Layout { kind: 8, reserved_low: 0xfff0_0000_0000_f000, reserved_high: 0x7fe, decode: pasid_device_tlb },
    Layout { kind: 9, reserved_low: 0xfff0_0000_0000_01e0, reserved_high: !0xffc, decode: group_response },
];

/// Type 1, §6.5.2.1: G 5:4, DID 31:16, SID 47:32, FM 49:48.
fn context_cache(low: u64, _high: u64) -> Option<InvalidationDescriptor> {
    let device = match granularity(low) {
        1 | 2 => None,
        3 => {
            // FM masks the low bits of the function number: none, bit 2, bits 2:1, bits 2:0 (table 21).
            let masked = match low >> 48 & 3 {
                0 => 0,
                1 => 0b100,
                2 => 0b110,
                _ => 0b111,
            };
            Some((Bdf(low_u16(low >> 32)), !masked))
        }
        _ => return None,
    };
    Some(InvalidationDescriptor::ContextCache { device })
}

/// Type 2, §6.5.2.3: G 5:4, DW 6, DR 7, DID 31:16; AM 5:0, IH 6, address.
fn iotlb(low: u64, _high: u64) -> Option<InvalidationDescriptor> {
    match granularity(low) {
        1 => Some(InvalidationDescriptor::Iotlb { did: None }),
        2 | 3 => Some(InvalidationDescriptor::Iotlb { did: Some(domain(low)) }),
        _ => None,
    }
}

/// Type 3, §6.5.2.5: MIP 20:16, SID 47:32; S 0, address.
fn device_tlb(low: u64, high: u64) -> Option<InvalidationDescriptor> {
    let request = device_block(None, high, high & 1 != 0);
    Some(InvalidationDescriptor::DeviceTlb { device: Bdf(low_u16(low >> 32)), request })
}

/// Type 5, §6.5.2.9: IF 4, SW 5, FN 6, PD 7, data 63:32; status address. FN, the fence, is not decoded: descriptors are
/// executed one after the other anyway.
fn wait(low: u64, high: u64) -> Option<InvalidationDescriptor> {
    Some(InvalidationDescriptor::Wait(InvalidationWait {
        interrupt: low & 1 << 4 != 0,
        status: (low & 1 << 5 != 0).then_some((Gpa(high), high_u32(low))),
        drain: low & 1 << 7 != 0,
    }))
}

/// Type 6, §6.5.2.4: G 5:4, DID 31:16, PASID 51:32; AM 5:0, IH 6, address.
fn pasid_iotlb(low: u64, high: u64) -> Option<InvalidationDescriptor> {
    let block = match granularity(low) {
        2 => None,
        3 => {
            let shift = 12 + low_u8(high & 0x3f);
            Some(if shift >= 64 { (Iova(0), 64) } else { (Iova(high >> shift << shift), shift) })
        }
        _ => return None,
    };
    Some(InvalidationDescriptor::PasidIotlb { did: domain(low), pasid: pasid(low), block })
}

/// Type 7, §6.5.2.2: G 5:4, DID 31:16, PASID 51:32.
fn pasid_cache(low: u64, _high: u64) -> Option<InvalidationDescriptor> {
    let scope = match granularity(low) {
        0 => PasidCacheScope::Domain(domain(low)),
        1 => PasidCacheScope::Pasid(domain(low), pasid(low)),
        3 => PasidCacheScope::Global,
        _ => return None,
    };
    Some(InvalidationDescriptor::PasidCache(scope))
}

/// Type 8, §6.5.2.6: MIP 8:4, SID 31:16, PASID 51:32; GI 0, S 11, address.
fn pasid_device_tlb(low: u64, high: u64) -> Option<InvalidationDescriptor> {
    // GI: all address spaces of the device, which as a request is everything, without PASID.
    let request = if high & 1 != 0 {
        InvalidationRequest { pasid: None, iova: Iova(0), size_shift: 64 }
    } else {
        device_block(Some(pasid(low)), high, high & 1 << 11 != 0)
    };
    Some(InvalidationDescriptor::DeviceTlb { device: Bdf(low_u16(low >> 16)), request })
}

/// Type 9, §7.6.1: PP 4, RC 15:12, RID 31:16, PASID 51:32; ignored 2 (LPIG of older software), PRGI 11:3.
fn group_response(low: u64, high: u64) -> Option<InvalidationDescriptor> {
    let response = PageGroupResponse {
        pasid: (low & 1 << 4 != 0).then_some(pasid(low)),
        group: PrgIndex::truncated(high >> 3),
        code: ResponseCode::from_bits(low_u8(low >> 12 & 0xf)),
    };
    Some(InvalidationDescriptor::PageGroupResponse { device: Bdf(low_u16(low >> 16)), response })
}

/// The block of a device-TLB invalidation (PCIe 6.0, 10.3.4). Without S it is one page of 4 KiB. With S the lowest clear
/// address bit, counted from bit 12, encodes the size: bit 12 stands for 8 KiB, bit 13 for 16 KiB.
fn device_block(pasid: Option<Pasid>, high: u64, sized: bool) -> InvalidationRequest {
    let frame = high >> 12;
    let shift = if sized { 13 + low_u8(frame.trailing_ones().into()) } else { 12 };
    if shift >= 64 {
        return InvalidationRequest { pasid, iova: Iova(0), size_shift: 64 };
    }
    InvalidationRequest { pasid, iova: Iova(high >> shift << shift), size_shift: shift }
}

/// G, bits 5:4.
const fn granularity(low: u64) -> u64 {
    low >> 4 & 3
}

/// DID, bits 31:16.
const fn domain(low: u64) -> u16 {
    low_u16(low >> 16)
}

/// PASID, bits 51:32.
const fn pasid(low: u64) -> Pasid {
    Pasid::truncated(low >> 32)
}
