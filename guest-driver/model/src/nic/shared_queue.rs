//! The driver's side of a shared receive queue.

use std::mem::offset_of;

use refault_abi::command::{ArmSrq, CMD_ARM_SRQ, CMD_CREATE_SRQ, CMD_QUERY_SRQ, CreateSrq, SrqState};
use refault_abi::queue::{RQ_WQE_SIZE, RqWqe, SrqDoorbellRecord};
use refault_bus::Gpa;
use zerocopy::IntoBytes;

use crate::ModelError;
use crate::nic::objects::object;
use crate::nic::{Buffer, Driver};

/// A shared receive queue.
pub struct SharedReceiveQueue {
    srqn: u32,
    buffer: Buffer,
    log: u32,
    producer: u32,
}

impl SharedReceiveQueue {
    /// Bytes from the start of the buffer to the doorbell record.
    fn record_offset(log: u32) -> u32 {
        RQ_WQE_SIZE << log
    }

    /// The SRQ number.
    pub fn number(&self) -> u32 {
        self.srqn
    }

    /// Posts a receive request.
    ///
    /// # Errors
    ///
    /// [`ModelError::Full`] until the device has consumed a request.
    pub fn post(&mut self, wqe: &RqWqe) -> Result<(), ModelError> {
        if self.producer.wrapping_sub(self.consumer()?) >= 1 << self.log {
            return Err(ModelError::Full("the shared receive queue"));
        }
        let slot = u64::from(self.producer % (1 << self.log)) * u64::from(RQ_WQE_SIZE);
        let dma = self.buffer.memory().dma();
        dma.write(Gpa(self.buffer.gpa().0 + slot), wqe.as_bytes())?;
        self.producer = self.producer.wrapping_add(1);
        Ok(dma.store_u32(self.record(offset_of!(SrqDoorbellRecord, producer)), self.producer)?)
    }

    /// The device's free-running consumer index.
    ///
    /// # Errors
    ///
    /// [`ModelError::Memory`].
    pub fn consumer(&self) -> Result<u32, ModelError> {
        Ok(self.buffer.memory().dma().load_u32(self.record(offset_of!(SrqDoorbellRecord, consumer)))?)
    }

    fn record(&self, field: usize) -> Gpa {
        Gpa(self.buffer.gpa().0 + u64::from(Self::record_offset(self.log)) + field as u64)
    }
}

impl Driver {
    /// Creates a shared receive queue of `1 << log` entries.
    ///
    /// # Errors
    ///
    /// [`ModelError::OutOfMemory`], or the command fails.
    pub fn create_shared_receive_queue(
        &self,
        pd: u32,
        eqn: u32,
        log: u8,
    ) -> Result<SharedReceiveQueue, ModelError> {
        let record_offset = SharedReceiveQueue::record_offset(u32::from(log));
        let buffer = self.buffer(u64::from(record_offset) + size_of::<SrqDoorbellRecord>() as u64)?;
        let table = buffer.table();
        let body = CreateSrq { buffer: table, record_offset, pd, eqn, log_size: log, ..CreateSrq::default() };
        let srqn = self.create(CMD_CREATE_SRQ, &body)?;
        Ok(SharedReceiveQueue { srqn, buffer, log: u32::from(log), producer: 0 })
    }

    /// Requests an event for when fewer than `limit` requests are left.
    ///
    /// # Errors
    ///
    /// If the command fails.
    pub fn arm_shared_receive_queue(&self, queue: &SharedReceiveQueue, limit: u32) -> Result<(), ModelError> {
        let body = ArmSrq { srqn: queue.srqn, limit };
        self.lane0().execute::<[u8; 0]>(CMD_ARM_SRQ, &body).map(drop)
    }

    /// Queries the attributes of a shared receive queue.
    ///
    /// # Errors
    ///
    /// If the command fails.
    pub fn query_shared_receive_queue(&self, queue: &SharedReceiveQueue) -> Result<SrqState, ModelError> {
        self.lane0().execute(CMD_QUERY_SRQ, &object(queue.srqn))
    }
}
