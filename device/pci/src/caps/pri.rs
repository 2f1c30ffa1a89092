//! Page Request Interface (PCIe 6.0, 10.5.2).

use super::{Capability, CapabilityId};
use crate::space::Register;

pub(crate) const ID: CapabilityId = CapabilityId::Extended(0x13, 1);

/// Dword of control (low half) and status (high half).
pub(crate) const CONTROL: usize = 1;
/// Page requests are allowed.
pub(crate) const ENABLE: u32 = 1 << 0;
/// Written as one while disabled: outstanding requests and credits are void. Reads as zero.
pub(crate) const RESET: u32 = 1 << 1;
/// Status: a page response said that the operating system failed.
pub(crate) const RESPONSE_FAILURE: u32 = 1 << 16;
/// Status: a page response named a group that was not open.
pub(crate) const UNEXPECTED_GROUP: u32 = 1 << 17;
/// Status: disabled, with no request outstanding. Linux refuses to enable an interface that is not stopped.
pub(crate) const STOPPED: u32 = 1 << 24;
/// Status: page responses carry the PASID if the requests did. Linux refuses interfaces without it.
const RESPONSE_PASID: u32 = 1 << 31;

/// Dword of the number of outstanding requests that the operating system allows.
pub(crate) const ALLOCATION: usize = 3;

/// The capability of a device that can have `capacity` requests outstanding.
pub fn page_requests(capacity: u32) -> Capability {
    let registers = vec![
        Register::default(),
        Register::constant(STOPPED | RESPONSE_PASID)
            .writable(ENABLE)
            .cleared_by_ones(RESPONSE_FAILURE | UNEXPECTED_GROUP),
        Register::constant(capacity),
        Register::constant(0).writable(u32::MAX),
    ];
    Capability { id: ID, registers }
}
