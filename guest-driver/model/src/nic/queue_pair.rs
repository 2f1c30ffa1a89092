//! The driver's side of a queue pair: two rings and their doorbell record.

use std::mem::offset_of;

use refault_abi::doorbell::DOORBELL_SQ;
use refault_abi::queue::{QpDoorbellRecord, RQ_WQE_SIZE, RqWqe, SQ_WQE_SIZE, Sge, SqWqe, WQE_HEAD_SIZE};
use refault_bus::Gpa;
use zerocopy::IntoBytes;

use crate::ModelError;
use crate::nic::Buffer;
use crate::nic::objects::DoorbellPage;

/// A queue pair. It does not track free slots: a caller must not post more requests than a ring holds before it has
/// polled their completions, or it overwrites requests in flight.
pub struct QueuePair {
    pub(crate) qpn: u32,
    page: DoorbellPage,
    buffer: Buffer,
    layout: RingLayout,
    sq_producer: u32,
    rq_producer: u32,
}

/// Layout of a queue pair's buffer: send ring, receive ring, doorbell record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RingLayout {
    pub(crate) log_sq: u32,
    pub(crate) log_rq: u32,
}

impl RingLayout {
    pub(crate) fn rq_offset(self) -> u32 {
        SQ_WQE_SIZE << self.log_sq
    }

    pub(crate) fn record_offset(self) -> u32 {
        self.rq_offset() + (RQ_WQE_SIZE << self.log_rq)
    }

    pub(crate) fn bytes(self) -> u64 {
        u64::from(self.record_offset()) + size_of::<QpDoorbellRecord>() as u64
    }
}

impl QueuePair {
    pub(crate) fn new(qpn: u32, page: DoorbellPage, buffer: Buffer, layout: RingLayout) -> Self {
        Self { qpn, page, buffer, layout, sq_producer: 0, rq_producer: 0 }
    }

    /// The QP number.
    pub fn number(&self) -> u32 {
        self.qpn
    }

    /// Posts a send request and rings the doorbell. Returns the free-running index of the request.
    ///
    /// # Errors
    ///
    /// [`ModelError::Memory`].
    pub fn post(&mut self, wqe: &SqWqe) -> Result<u32, ModelError> {
        let index = self.stage(wqe)?;
        self.ring()?;
        Ok(index)
    }

    /// Writes a send request to the ring without publishing it. Returns the free-running index of the request.
    ///
    /// # Errors
    ///
    /// [`ModelError::Memory`].
    pub fn stage(&mut self, wqe: &SqWqe) -> Result<u32, ModelError> {
        let index = self.sq_producer;
        let slot = u64::from(index % (1 << self.layout.log_sq)) * u64::from(SQ_WQE_SIZE);
        self.write(slot, used(wqe))?;
        self.sq_producer = index.wrapping_add(1);
        Ok(index)
    }

    /// Publishes all staged requests and rings the doorbell.
    ///
    /// # Errors
    ///
    /// [`ModelError::Memory`].
    pub fn ring(&self) -> Result<(), ModelError> {
        self.set_sq_producer(self.sq_producer)?;
        self.doorbell();
        Ok(())
    }

    /// Rings the doorbell without publishing anything.
    pub fn doorbell(&self) {
        self.page.ring(DOORBELL_SQ, self.qpn, 0);
    }

    /// Posts a receive request, which needs no doorbell. Returns the free-running index of the request.
    ///
    /// # Errors
    ///
    /// [`ModelError::Memory`].
    pub fn post_receive(&mut self, wqe: &RqWqe) -> Result<u32, ModelError> {
        let index = self.rq_producer;
        let slot = u64::from(index % (1 << self.layout.log_rq)) * u64::from(RQ_WQE_SIZE);
        self.write(u64::from(self.layout.rq_offset()) + slot, wqe.as_bytes())?;
        self.rq_producer = index.wrapping_add(1);
        let at = u64::from(self.layout.record_offset()) + offset_of!(QpDoorbellRecord, rq_producer) as u64;
        self.buffer.memory().dma().store_u32(self.at(at), self.rq_producer)?;
        Ok(index)
    }

    /// Writes the producer index of the send ring, which tests may choose freely.
    ///
    /// # Errors
    ///
    /// [`ModelError::Memory`].
    pub fn set_sq_producer(&self, producer: u32) -> Result<(), ModelError> {
        let at = u64::from(self.layout.record_offset()) + offset_of!(QpDoorbellRecord, sq_producer) as u64;
        Ok(self.buffer.memory().dma().store_u32(self.at(at), producer)?)
    }

    /// Resets all indices to zero, as the device does in RESET.
    ///
    /// # Errors
    ///
    /// [`ModelError::Memory`].
    pub fn restart(&mut self) -> Result<(), ModelError> {
        (self.sq_producer, self.rq_producer) = (0, 0);
        self.write(u64::from(self.layout.record_offset()), QpDoorbellRecord::default().as_bytes())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), ModelError> {
        Ok(self.buffer.memory().dma().write(self.at(offset), bytes)?)
    }

    fn at(&self, offset: u64) -> Gpa {
        Gpa(self.buffer.gpa().0 + offset)
    }
}

/// The bytes of a request that the device reads.
fn used(wqe: &SqWqe) -> &[u8] {
    let list = usize::from(wqe.num_sge) * size_of::<Sge>();
    let end = offset_of!(SqWqe, sge) + list.max(wqe.inline_length as usize);
    let bytes = wqe.as_bytes();
    bytes.get(..end.max(WQE_HEAD_SIZE as usize)).unwrap_or(bytes)
}
