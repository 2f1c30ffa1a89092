//! Address Translation Services (PCIe 6.0, 10.5.1).

use super::{Capability, CapabilityId};
use crate::space::Register;

pub(crate) const ID: CapabilityId = CapabilityId::Extended(0x0f, 1);

/// Dword of capability (low half) and control (high half).
pub(crate) const CONTROL: usize = 1;
/// Translation requests are allowed.
pub(crate) const ENABLE: u32 = 1 << 31;

/// Page Aligned Request: untranslated addresses are aligned to 4 KiB. Linux does not enable ATS without it.
const PAGE_ALIGNED: u32 = 1 << 5;
/// Smallest Translation Unit: log2 of a number of 4 KiB pages.
const STU: u32 = 0x1f << 16;

/// The capability of a device that accepts `queue_depth` outstanding invalidations, 1 to 32.
pub fn address_translation(queue_depth: u8) -> Capability {
    // The field has five bits: zero stands for 32.
    let depth = u32::from(queue_depth.clamp(1, 32)) & 0x1f;
    let registers =
        vec![Register::default(), Register::constant(depth | PAGE_ALIGNED).writable(STU | ENABLE)];
    Capability { id: ID, registers }
}
