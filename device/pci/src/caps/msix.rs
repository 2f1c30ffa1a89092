//! MSI-X (PCIe 6.0, 7.7.2): the capability; table and pending bits are [`crate::MsixTable`].

use super::{Capability, CapabilityId};
use crate::MsixLayout;
use crate::space::Register;

pub(crate) const ID: CapabilityId = CapabilityId::Standard(0x11);

/// In the first dword: all vectors are masked.
pub(crate) const FUNCTION_MASK: u32 = 1 << 30;
/// In the first dword: MSI-X is enabled.
pub(crate) const ENABLE: u32 = 1 << 31;

/// The capability of a table at `layout`; [`crate::EndpointBuilder::msix`] adds it.
pub(crate) fn msix(layout: MsixLayout) -> Capability {
    let size = u32::from(layout.vectors.saturating_sub(1)) << 16;
    let bar = u32::from(layout.bar);
    let registers = vec![
        Register::constant(size).writable(FUNCTION_MASK | ENABLE),
        Register::constant(layout.table | bar),
        Register::constant(layout.pending | bar),
    ];
    Capability { id: ID, registers }
}
