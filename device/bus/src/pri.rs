//! The Page Request Interface: asking the operating system for a page, and its answer (PCIe 6.0, 10.4).

use crate::{Bdf, Iova, Pasid, PrgIndex};

/// A request that a page be made present. refault's device closes every group with its first request:
/// one page is one group, because kernels differ in what they answer to longer ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// Who asks.
    pub requester: Bdf,
    /// The address space.
    pub pasid: Option<Pasid>,
    /// The page: 4 KiB aligned.
    pub page: Iova,
    /// Read permission is wanted.
    pub read: bool,
    /// Write permission is wanted.
    pub write: bool,
    /// Last request of its group.
    pub last: bool,
    /// The group.
    pub group: PrgIndex,
}

/// The operating system's answer to one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageGroupResponse {
    /// The address space of the group.
    pub pasid: Option<Pasid>,
    /// The group.
    pub group: PrgIndex,
    /// What became of it.
    pub code: ResponseCode,
}

/// Response codes (PCIe 6.0, table 10-15).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResponseCode {
    /// The pages were handled; it says "look again", not "it is there".
    Success,
    /// At least one page does not exist or does not allow the access.
    InvalidRequest,
    /// The operating system failed; the interface is unusable until reset. Linux sends 2 for it, the
    /// specification says 0xf: every other code counts as this one.
    ResponseFailure,
}

impl ResponseCode {
    /// Decodes the four bits of a response descriptor.
    pub const fn from_bits(bits: u8) -> Self {
        match bits & 0xf {
            0 => Self::Success,
            1 => Self::InvalidRequest,
            _ => Self::ResponseFailure,
        }
    }
}
