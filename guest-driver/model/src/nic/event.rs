//! The driver's side of an event queue.

use refault_abi::event::{EQE_SIZE, Eqe};
use refault_abi::queue::OWNER_PHASE;
use refault_abi::regs::{EQ_ARM, REG_EQ_DOORBELL};
use refault_bus::Gpa;
use zerocopy::FromBytes;

use crate::ModelError;
use crate::nic::Buffer;
use crate::registers::RegisterWindow;

/// An event queue, with a ring of its own and an MSI-X vector.
pub struct EventQueue {
    pub(crate) eqn: u32,
    registers: RegisterWindow,
    ring: Buffer,
    log: u32,
    consumer: u32,
}

impl EventQueue {
    pub(crate) fn new(eqn: u32, registers: RegisterWindow, ring: Buffer, log: u32) -> Self {
        Self { eqn, registers, ring, log, consumer: 0 }
    }

    /// Bytes of a ring of `1 << log` events.
    pub(crate) fn ring_bytes(log: u32) -> u64 {
        u64::from(EQE_SIZE) << log
    }

    /// The EQ number.
    pub fn number(&self) -> u32 {
        self.eqn
    }

    /// Takes the next event. The device learns of it with [`Self::arm`] or [`Self::acknowledge`].
    ///
    /// # Errors
    ///
    /// [`ModelError::Memory`].
    pub fn poll(&mut self) -> Result<Option<Eqe>, ModelError> {
        let at = self.ring.gpa().0 + u64::from(self.consumer % (1 << self.log)) * u64::from(EQE_SIZE);
        let owner = Gpa(at + u64::from(EQE_SIZE) - 4);
        let phase = (self.consumer >> self.log & 1) ^ 1;
        // The device writes the owner word last: read it before the rest of the event.
        if self.ring.memory().dma().load_u32(owner)? & OWNER_PHASE != phase {
            return Ok(None);
        }
        let mut bytes = [0; EQE_SIZE as usize];
        self.ring.memory().dma().read(Gpa(at), &mut bytes)?;
        self.consumer = self.consumer.wrapping_add(1);
        Ok(Eqe::read_from_bytes(&bytes).ok())
    }

    /// Publishes the consumer index and requests an interrupt for the next event.
    pub fn arm(&self) {
        self.doorbell(EQ_ARM);
    }

    /// Publishes the consumer index without requesting an interrupt.
    pub fn acknowledge(&self) {
        self.doorbell(0);
    }

    fn doorbell(&self, arm: u32) {
        let value = self.consumer & !EQ_ARM | arm;
        self.registers.write32(REG_EQ_DOORBELL + u64::from(self.eqn) * 4, value);
    }
}
