//! The Page Request Interface: page requests to the operating system, and its responses (PCIe 6.0, 10.4).

use crate::{Bdf, Iova, Pasid, PrgIndex};

/// A request that a page be made present. refault's NIC sends groups of one request, because kernels differ in how
/// they respond to longer ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// Requester ID of the function.
    pub requester: Bdf,
    /// The address space, or `None` for the function's own.
    pub pasid: Option<Pasid>,
    /// First address of the page, 4 KiB aligned.
    pub page: Iova,
    /// Read permission is wanted.
    pub read: bool,
    /// Write permission is wanted.
    pub write: bool,
    /// Last request of its group: the only one that is responded to.
    pub last: bool,
    /// Index of the page request group.
    pub group: PrgIndex,
}

impl PageRequest {
    /// Whether this is a stop marker (PCIe 6.0, 10.4.1.2): the last message for a PASID that the device stops to use. It asks
    /// for no page and gets no response.
    pub const fn is_stop_marker(&self) -> bool {
        self.last && !self.read && !self.write && self.pasid.is_some()
    }
}

/// The operating system's response to one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageGroupResponse {
    /// The address space of the group, or `None` for the function's own.
    pub pasid: Option<Pasid>,
    /// Index of the page request group.
    pub group: PrgIndex,
    /// Success, or why not.
    pub code: ResponseCode,
}

/// Response codes (PCIe 6.0, table 10-15).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResponseCode {
    /// The pages were handled. It does not promise that they are present: the device translates again.
    Success,
    /// At least one page does not exist or does not allow the access.
    InvalidRequest,
    /// The operating system failed; the interface is unusable until it is reset. The specification's code is 0xf,
    /// Linux sends 2: all codes but 0 and 1 decode to this.
    ResponseFailure,
}

impl ResponseCode {
    /// Decodes the response code in bits 3:0 of `bits`.
    pub const fn from_bits(bits: u8) -> Self {
        match bits & 0xf {
            0 => Self::Success,
            1 => Self::InvalidRequest,
            _ => Self::ResponseFailure,
        }
    }
}
