//! The driver's side of a completion queue.

use refault_abi::doorbell::{DOORBELL_CQ_ARM, DOORBELL_CQ_ARM_SOLICITED};
use refault_abi::queue::{CQE_SIZE, Cqe, OWNER_PHASE};
use refault_bus::Gpa;
use zerocopy::FromBytes;

use crate::ModelError;
use crate::nic::Buffer;
use crate::nic::objects::DoorbellPage;

/// A completion queue. Polling an empty one only reads memory.
pub struct CompletionQueue {
    pub(crate) cqn: u32,
    page: DoorbellPage,
    buffer: Buffer,
    log: u32,
    consumer: u32,
}

impl CompletionQueue {
    pub(crate) fn new(cqn: u32, page: DoorbellPage, buffer: Buffer, log: u32) -> Self {
        Self { cqn, page, buffer, log, consumer: 0 }
    }

    /// Bytes from the start of the buffer to the doorbell record.
    pub(crate) fn record_offset(log: u32) -> u32 {
        CQE_SIZE << log
    }

    /// The CQ number.
    pub fn number(&self) -> u32 {
        self.cqn
    }

    /// Takes the next completion, and publishes the new consumer index.
    ///
    /// # Errors
    ///
    /// [`ModelError::Memory`].
    pub fn poll(&mut self) -> Result<Option<Cqe>, ModelError> {
        let at = self.buffer.gpa().0 + u64::from(self.consumer % (1 << self.log)) * u64::from(CQE_SIZE);
        let dma = self.buffer.memory().dma();
        let phase = (self.consumer >> self.log & 1) ^ 1;
        // The device writes the owner word last: read it before the rest of the entry.
        if dma.load_u32(Gpa(at + u64::from(CQE_SIZE) - 4))? & OWNER_PHASE != phase {
            return Ok(None);
        }
        let mut bytes = [0; CQE_SIZE as usize];
        dma.read(Gpa(at), &mut bytes)?;
        self.consumer = self.consumer.wrapping_add(1);
        let record = self.buffer.gpa().0 + u64::from(Self::record_offset(self.log));
        dma.store_u32(Gpa(record), self.consumer)?;
        Ok(Cqe::read_from_bytes(&bytes).ok())
    }

    /// Unmaps the ring from the function's address space while the device uses it. For tests of a buggy driver.
    ///
    /// # Errors
    ///
    /// As [`crate::nic::DmaDomain::unmap`].
    pub fn unmap_ring(&self) -> Result<(), ModelError> {
        self.buffer.unmap_early()
    }

    /// Requests an event for the next completion.
    pub fn arm(&self) {
        self.doorbell(DOORBELL_CQ_ARM);
    }

    /// Requests an event for the next solicited or failed completion.
    pub fn arm_solicited(&self) {
        self.doorbell(DOORBELL_CQ_ARM_SOLICITED);
    }

    fn doorbell(&self, kind: u64) {
        self.page.ring(kind, self.cqn, self.consumer);
    }
}
