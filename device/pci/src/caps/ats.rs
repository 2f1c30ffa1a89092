//! Address Translation Services (PCIe 6.0, 10.5.1).

use super::{Capability, CapabilityId};
use crate::space::Register;

pub(crate) const ID: CapabilityId = CapabilityId::Extended(0x0f, 1);

/// Dword of capability (low half) and control (high half).
pub(crate) const CONTROL: usize = 1;
/// Translation requests are allowed.
pub(crate) const ENABLE: u32 = 1 << 31;

/// Untranslated addresses in requests and invalidations are 4 KiB aligned; Linux enables nothing without it.
const PAGE_ALIGNED: u32 = 1 << 5;
/// Smallest translation unit, log2 of 4 KiB pages.
const STU: u32 = 0x1f << 16;

/// The capability, for a device that takes `queue_depth` invalidations at once: 1 to 32.
pub fn address_translation(queue_depth: u8) -> Capability {
    // 32 is written as zero.
    let depth = u32::from(queue_depth.clamp(1, 32)) & 0x1f;
    let registers =
        vec![Register::default(), Register::constant(depth | PAGE_ALIGNED).writable(STU | ENABLE)];
    Capability { id: ID, registers }
}
