//! Records how far the guest's kernel has found the IOMMU since its machine was reset, and warns the user if it has not.

use std::sync::atomic::{AtomicBool, Ordering};

/// Shared by all functions of a machine.
#[derive(Debug, Default)]
pub(super) struct IommuDiscovery {
    /// DMAR in guest memory has the address of the registers.
    table: AtomicBool,
    /// A register was accessed.
    registers: AtomicBool,
    warned: AtomicBool,
}

impl IommuDiscovery {
    /// The table was found and updated.
    pub(super) fn see_table(&self) {
        self.table.store(true, Ordering::Relaxed);
    }

    /// A register was read or written.
    pub(super) fn see_registers(&self) {
        self.registers.store(true, Ordering::Relaxed);
    }

    /// Whether a register was accessed.
    pub(super) fn has_registers(&self) -> bool {
        self.registers.load(Ordering::Relaxed)
    }

    /// Resets to the power-on state.
    pub(super) fn forget(&self) {
        for seen in [&self.table, &self.registers, &self.warned] {
            seen.store(false, Ordering::Relaxed);
        }
    }

    /// A NIC was allowed to send requests: returns a warning, once, if the kernel that allowed it has not accessed the
    /// IOMMU.
    pub(super) fn warning(&self) -> Option<&'static str> {
        if self.has_registers() || self.warned.swap(true, Ordering::Relaxed) {
            return None;
        }
        Some(if self.table.load(Ordering::Relaxed) {
            "the guest uses the NIC but has not accessed the IOMMU that is in its DMAR table: was the kernel built with \
             CONFIG_INTEL_IOMMU, and is acpi=off not on its command line?"
        } else {
            "the guest uses the NIC without the IOMMU: no DMAR table was found in its memory; give QEMU the -acpitable \
             that was printed, and the firmware that it has by default (SeaBIOS)"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_misses_the_iommu_causes_one_warning() {
        let discovery = IommuDiscovery::default();
        assert!(discovery.warning().is_some_and(|text| text.contains("-acpitable")));
        assert_eq!(discovery.warning(), None, "once");
        discovery.forget();
        discovery.see_table();
        assert!(discovery.warning().is_some_and(|text| text.contains("CONFIG_INTEL_IOMMU")));
        discovery.forget();
        discovery.see_registers();
        assert_eq!(discovery.warning(), None);
    }
}
