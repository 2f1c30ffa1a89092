//! The machine of an experiment: that of the rig, with a driver that serves page faults of on-demand regions.

use std::ops::Deref;
use std::sync::Arc;

use refault_abi::command::{
    CMD_DESTROY_CONTEXT, CMD_DESTROY_CQ, CMD_DESTROY_EQ, CMD_DESTROY_MR, CMD_DESTROY_PD,
};
use refault_model::ModelError;
use refault_model::nic::{PageFaultQueue, PortAddress};
use refault_rig::machine::platform::Platform;
use refault_rig::machine::{ModelMachine, ModelMachineSetup, NIC_VECTOR, Seams};

/// MSI-X vector of page faults of on-demand regions.
const PAGE_FAULTS: u16 = 1;
/// Interrupt vector of the NIC's MSI-X vector for them.
pub const PAGE_FAULT_VECTOR: u8 = NIC_VECTOR + 1;

/// The NIC's port, if it is on Ethernet.
pub(crate) const NEAR_END: PortAddress = address(1);
/// The port that all connections lead to then.
pub(crate) const FAR_END: PortAddress = address(2);

const fn address(number: u8) -> PortAddress {
    PortAddress {
        mac: [2, 0, 0, 0, 0, number],
        gid: [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, number],
    }
}

/// A machine that has been brought up.
pub struct LabMachine {
    machine: ModelMachine,
    /// Event queue of page faults of on-demand regions.
    pub faults: Arc<PageFaultQueue>,
}

impl LabMachine {
    /// Brings up a machine on which 2^`log_faults` page faults can be outstanding.
    ///
    /// # Errors
    /// Memory is full.
    pub(crate) fn new(
        platform: Platform,
        setup: ModelMachineSetup,
        seams: &dyn Seams,
        log_faults: u8,
    ) -> Result<Self, ModelError> {
        let machine = ModelMachine::new(platform, setup, seams)?;
        let faults = PageFaultQueue::new(&machine.driver, PAGE_FAULTS, log_faults)?;
        Ok(Self { machine, faults })
    }

    /// Destroys what a program has left when its queue pairs are gone, each object before those that it refers to: the NIC
    /// refuses to destroy an object in use.
    ///
    /// # Errors
    /// An object is still in use.
    pub(crate) fn destroy(&self, objects: &ProgramObjects) -> Result<(), ModelError> {
        let &ProgramObjects { mr, cq, eq, pd, context } = objects;
        self.driver.destroy(CMD_DESTROY_MR, mr)?;
        self.driver.destroy(CMD_DESTROY_CQ, cq)?;
        self.driver.destroy(CMD_DESTROY_EQ, eq)?;
        self.driver.destroy(CMD_DESTROY_PD, pd)?;
        self.driver.destroy(CMD_DESTROY_CONTEXT, context)
    }
}

/// The objects of a program beside its queue pairs: number or key of each.
pub(crate) struct ProgramObjects {
    pub(crate) mr: u32,
    pub(crate) cq: u32,
    pub(crate) eq: u32,
    pub(crate) pd: u32,
    pub(crate) context: u32,
}

impl Deref for LabMachine {
    type Target = ModelMachine;

    fn deref(&self) -> &ModelMachine {
        &self.machine
    }
}
