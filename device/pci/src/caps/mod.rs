//! Capabilities, one file each: what a guest sees of one and which of its bits can be written.

pub mod ats;
pub mod express;
pub mod msix;
pub mod pasid;
pub mod power;
pub mod pri;

use crate::space::Register;

/// A capability structure. The builder gives it its place and its header's links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capability {
    pub(crate) id: CapabilityId,
    /// All its dwords. In the first, the bits of id and next pointer belong to the builder.
    pub(crate) registers: Vec<Register>,
}

/// Which capability it is, and in which of the two lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum CapabilityId {
    /// In the first 256 bytes.
    Standard(u8),
    /// Behind them, with its version.
    Extended(u16, u8),
}
