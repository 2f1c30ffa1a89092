//! Invalidation queue descriptors (§6.5.2) and page group responses (§7.6.1), decoded.
//!
//! Reserved bits are refused as the specification asks. Address masks are not limited by CAP.MAMV and
//! addresses not by their canonical half: Linux sends masks up to 51 and kernel addresses.

use refault_bus::ats::InvalidationRequest;
use refault_bus::pri::{PageGroupResponse, ResponseCode};
use refault_bus::{Bdf, Gpa, Iova, Pasid, PrgIndex};
use thiserror::Error;

/// Size of a descriptor: 256 bits.
pub const DESCRIPTOR_BYTES: u64 = 32;

/// Why the queue stopped: IQEI codes (§11.4.9.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum QueueError {
    /// The tail lies outside the queue.
    #[error("invalidation queue tail {tail:#x} is outside the queue")]
    Tail {
        /// Tail register.
        tail: u32,
    },
    /// The descriptor could not be read.
    #[error("invalidation queue entry at {at} is not in memory")]
    Fetch {
        /// Its address.
        at: Gpa,
    },
    /// The type is not one that is supported.
    #[error("invalidation descriptor {low:#018x} has an unknown type or granularity")]
    Type {
        /// First quadword.
        low: u64,
    },
    /// A reserved bit is set.
    #[error("invalidation descriptor {low:#018x} {high:#018x} has a reserved bit set")]
    Reserved {
        /// First quadword.
        low: u64,
        /// Second quadword.
        high: u64,
    },
    /// The queue holds 128-bit descriptors, which scalable mode does not know.
    #[error("invalidation queue is set up for 128-bit descriptors; scalable mode wants 256")]
    Width,
    /// The tail is not a multiple of the descriptor size.
    #[error("invalidation queue tail {tail:#x} is not aligned to a descriptor")]
    Alignment {
        /// Tail register.
        tail: u32,
    },
}

impl QueueError {
    /// The IQEI code.
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
    /// Type 1: forget context entries of the requesters that match `source` in the bits of `mask`, or all.
    ContextCache {
        /// Requester and the bits that count; `None` for all (domain-selective ones are global too in
        /// scalable mode, §6.5.2.1).
        device: Option<(Bdf, u16)>,
    },
    /// Type 2: forget translations of one domain, or all.
    Iotlb {
        /// The domain; `None` for all. Page-selective ones flush the domain: first-stage entries are tagged
        /// so that they must (§6.5.2.3).
        did: Option<u16>,
    },
    /// Types 3 and 8: have a device forget.
    DeviceTlb {
        /// The device.
        device: Bdf,
        /// What to forget.
        request: InvalidationRequest,
    },
    /// Type 5: everything before this is done.
    Wait(InvalidationWait),
    /// Type 6: forget translations of one address space.
    PasidIotlb {
        /// Domain.
        did: u16,
        /// Address space.
        pasid: Pasid,
        /// Block and log2 of its size; `None` for all.
        block: Option<(Iova, u8)>,
    },
    /// Type 7: forget PASID entries.
    PasidCache(PasidCacheScope),
    /// Type 9: answer a page request group.
    PageGroupResponse {
        /// The device.
        device: Bdf,
        /// The answer.
        response: PageGroupResponse,
    },
}

/// An invalidation wait descriptor (type 5, §6.5.2.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidationWait {
    /// IF: send the completion event.
    pub interrupt: bool,
    /// SW: where to write what.
    pub status: Option<(Gpa, u32)>,
    /// PD: page requests received so far must be visible first.
    pub drain: bool,
}

/// What a PASID cache invalidation covers (type 7, §6.5.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasidCacheScope {
    /// Everything.
    Global,
    /// All PASIDs of a domain.
    Domain(u16),
    /// One PASID of a domain.
    Pasid(u16, Pasid),
}

/// Decodes one descriptor.
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

/// One descriptor type: its reserved bits, and its decoder, which knows no reserved granularity.
struct Layout {
    kind: u64,
    reserved_low: u64,
    reserved_high: u64,
    decode: fn(u64, u64) -> Option<InvalidationDescriptor>,
}

/// PFSID is reserved in types 3 and 8, for ECAP.DIT is clear.
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
            let masked = [0, 0b100, 0b110, 0b111][(low >> 48 & 3) as usize];
            Some((Bdf((low >> 32) as u16), !masked))
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
    Some(InvalidationDescriptor::DeviceTlb { device: Bdf((low >> 32) as u16), request })
}

/// Type 5, §6.5.2.9: IF 4, SW 5, FN 6, PD 7, data 63:32; status address. FN needs nothing: descriptors are
/// executed one after the other.
fn wait(low: u64, high: u64) -> Option<InvalidationDescriptor> {
    Some(InvalidationDescriptor::Wait(InvalidationWait {
        interrupt: low & 1 << 4 != 0,
        status: (low & 1 << 5 != 0).then_some((Gpa(high), (low >> 32) as u32)),
        drain: low & 1 << 7 != 0,
    }))
}

/// Type 6, §6.5.2.4: G 5:4, DID 31:16, PASID 51:32; AM 5:0, IH 6, address.
fn pasid_iotlb(low: u64, high: u64) -> Option<InvalidationDescriptor> {
    let block = match granularity(low) {
        2 => None,
        3 => {
            let shift = 12 + (high & 0x3f) as u8;
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
    // A global invalidation is about every address space; the message for that is "all, without PASID".
    let request = if high & 1 != 0 {
        InvalidationRequest { pasid: None, iova: Iova(0), size_shift: 64 }
    } else {
        device_block(Some(pasid(low)), high, high & 1 << 11 != 0)
    };
    Some(InvalidationDescriptor::DeviceTlb { device: Bdf((low >> 16) as u16), request })
}

/// Type 9, §7.6.1: PP 4, RC 15:12, RID 31:16, PASID 51:32; ignored 2 (LPIG of older software), PRGI 11:3.
fn group_response(low: u64, high: u64) -> Option<InvalidationDescriptor> {
    let response = PageGroupResponse {
        pasid: (low & 1 << 4 != 0).then_some(pasid(low)),
        group: PrgIndex::truncated(high >> 3),
        code: ResponseCode::from_bits((low >> 12 & 0xf) as u8),
    };
    Some(InvalidationDescriptor::PageGroupResponse { device: Bdf((low >> 16) as u16), response })
}

/// The block a device-TLB invalidation names (PCIe 6.0, 10.3.4): with S, the lowest clear bit from 12 on
/// tells the size.
fn device_block(pasid: Option<Pasid>, high: u64, sized: bool) -> InvalidationRequest {
    let frame = high >> 12;
    let shift = if sized { 13 + frame.trailing_ones() as u8 } else { 12 };
    if shift >= 64 {
        return InvalidationRequest { pasid, iova: Iova(0), size_shift: 64 };
    }
    InvalidationRequest { pasid, iova: Iova(high >> shift << shift), size_shift: shift }
}

const fn granularity(low: u64) -> u64 {
    low >> 4 & 3
}

const fn domain(low: u64) -> u16 {
    (low >> 16) as u16
}

const fn pasid(low: u64) -> Pasid {
    Pasid::truncated(low >> 32)
}
