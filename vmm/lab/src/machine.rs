//! The machine of an experiment: that of the rig, with a driver that serves page faults of on-demand regions.

use std::ops::Deref;
use std::sync::Arc;

use refault_model::ModelError;
use refault_model::nic::PageFaultQueue;
use refault_rig::machine::platform::Platform;
use refault_rig::machine::{self as rig, MachineSetup, NIC_VECTOR, Seams};

/// MSI-X vector of page faults of on-demand regions.
const PAGE_FAULTS: u16 = 1;
/// Interrupt vector of the NIC's MSI-X vector for them.
pub const PAGE_FAULT_VECTOR: u8 = NIC_VECTOR + 1;

/// A machine that has been brought up.
pub struct Machine {
    machine: rig::Machine,
    /// Event queue of page faults of on-demand regions.
    pub faults: Arc<PageFaultQueue>,
}

impl Machine {
    /// Brings up a machine on which 2^`log_faults` page faults can be outstanding.
    ///
    /// # Errors
    /// Memory is full.
    pub(crate) fn new(
        platform: Platform,
        setup: MachineSetup,
        seams: &dyn Seams,
        log_faults: u8,
    ) -> Result<Self, ModelError> {
        let machine = rig::Machine::new(platform, setup, seams)?;
        let faults = PageFaultQueue::new(&machine.driver, PAGE_FAULTS, log_faults)?;
        Ok(Self { machine, faults })
    }
}

impl Deref for Machine {
    type Target = rig::Machine;

    fn deref(&self) -> &rig::Machine {
        &self.machine
    }
}
