//! The seam between rings and their front end.
//!
//! Queues know what a ring means: indices that count freely, what is armed, what is lost. Where entries and
//! doorbell records lie, and what their bytes mean, only the front end knows.

use crate::memory::access::AccessError;
use crate::memory::page_table::Pages;
use crate::memory::port::Port;
use crate::queue::published;
use crate::verbs::{Completion, Event, ReceiveRequest, SendRequest};

/// A ring of `1 << log` entries, with a doorbell record if it has one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ring {
    pub(crate) pages: Pages,
    /// Byte offset of the doorbell record in the pages.
    pub(crate) record_offset: u32,
    pub(crate) log: u8,
}

/// The rings of a queue pair: both in one buffer, with one doorbell record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WorkRings {
    pub(crate) pages: Pages,
    /// Byte offset of the receive ring; the send ring is at the start.
    pub(crate) rq_offset: u32,
    pub(crate) record_offset: u32,
    pub(crate) log_sq: u8,
    pub(crate) log_rq: u8,
}

/// How a front end lays out its rings.
///
/// # Errors
///
/// All methods fail if the guest's memory cannot be reached.
pub(crate) trait RingLayout: Send + Sync {
    /// The driver's producer index of a send queue.
    fn send_producer(&self, port: &mut Port<'_>, rings: &WorkRings) -> Result<u32, AccessError>;

    /// How many send requests wait behind `consumer`.
    fn sends_waiting(
        &self,
        port: &mut Port<'_>,
        rings: &WorkRings,
        consumer: u32,
    ) -> Result<u32, AccessError> {
        Ok(published(self.send_producer(port, rings)?, consumer, rings.log_sq)?)
    }

    /// Reads send request `index`, once, into `request`, which may hold an earlier one of the queue pair. If the result is
    /// `false` it is malformed, and `request` has its identity and nothing else. A queue pair for datagrams takes other
    /// requests than a connected one.
    ///
    /// The request is filled in place because it is large, and this is done for every request.
    fn send_request(
        &self,
        port: &mut Port<'_>,
        rings: &WorkRings,
        index: u32,
        is_datagram: bool,
        request: &mut SendRequest,
    ) -> Result<bool, AccessError>;

    /// The driver's producer index of a receive queue.
    fn receive_producer(&self, port: &mut Port<'_>, rings: &WorkRings) -> Result<u32, AccessError>;

    /// Tells the driver that receive requests need a doorbell from now on. Those it has published are seen by a later
    /// look at its index.
    fn note_error(&self, port: &mut Port<'_>, rings: &WorkRings) -> Result<(), AccessError>;

    /// How many receive requests wait behind `consumer`.
    fn receives_waiting(
        &self,
        port: &mut Port<'_>,
        rings: &WorkRings,
        consumer: u32,
    ) -> Result<u32, AccessError> {
        Ok(published(self.receive_producer(port, rings)?, consumer, rings.log_rq)?)
    }

    /// Receive request `index`, read once.
    fn receive_request(
        &self,
        port: &mut Port<'_>,
        rings: &WorkRings,
        index: u32,
    ) -> Result<ReceiveRequest, AccessError>;

    /// The front end's own code of a message that arrived in packets: a SEND, or an RDMA WRITE with immediate data.
    fn arrived_opcode(&self, is_write: bool, has_immediate: bool) -> u8;

    /// The driver's producer index of a shared receive queue.
    fn shared_producer(&self, port: &mut Port<'_>, ring: &Ring) -> Result<u32, AccessError>;

    /// Takes receive request `index` of a shared receive queue: reads it once and gives its entry back.
    fn take_shared(
        &self,
        port: &mut Port<'_>,
        ring: &Ring,
        index: u32,
    ) -> Result<ReceiveRequest, AccessError>;

    /// The driver's consumer index of a completion queue.
    fn completion_consumer(&self, port: &mut Port<'_>, ring: &Ring) -> Result<u32, AccessError>;

    /// Writes completion `index`, its owner bit last.
    fn write_completion(
        &self,
        port: &mut Port<'_>,
        ring: &Ring,
        index: u32,
        completion: &Completion,
    ) -> Result<(), AccessError>;

    /// Writes event `index`, its owner bit last.
    fn write_event(
        &self,
        port: &mut Port<'_>,
        ring: &Ring,
        index: u32,
        event: &Event,
    ) -> Result<(), AccessError>;
}
