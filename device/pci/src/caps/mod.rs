//! Capabilities, one file each: their registers, and which bits a guest can write.

pub mod ats;
pub mod express;
pub mod msix;
pub mod pasid;
pub mod power;
pub mod pri;

use crate::space::Register;

/// A capability structure. The builder chooses its place and links its header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capability {
    pub(crate) id: CapabilityId,
    /// All its dwords. The ID and next pointer in the first are left to the builder.
    pub(crate) registers: Vec<Register>,
}

/// ID of a capability, in one of the two lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum CapabilityId {
    /// In the list of the first 256 bytes.
    Standard(u8),
    /// In the list of extended capabilities, with its version.
    Extended(u16, u8),
}
