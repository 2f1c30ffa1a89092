//! The devices of a machine, our own or QEMU's.

use anyhow::Result;
use refault_machine::{Devices, MachineParts};
use refault_rig::wiring::{self, DeviceOptions, Wired};

/// Builds IOMMU and NICs from what a machine lends them. The machine gets the first part, and the caller keeps the second
/// for as long as the machine lives.
///
/// # Errors
/// A thread cannot be started.
pub fn build(parts: &MachineParts, options: DeviceOptions) -> Result<(Devices, Wired)> {
    let wired = wiring::devices(parts.ram.clone(), parts.msi.clone(), options)?;
    let devices = Devices { iommu: Some(wired.registers.clone()), functions: wired.functions.clone() };
    Ok((devices, wired))
}
