//! Receive queues: fetching of receive requests.

use refault_abi::queue::{RQ_WQE_SIZE, RqWqe, Sge};
use zerocopy::{FromZeros, IntoBytes};

use crate::memory::port::{AccessError, Port};
use crate::qp::Setup;
use crate::queue::published;

/// Byte offset of the receive producer index in the doorbell record.
const RQ_PRODUCER: u64 = 64;

/// The elements of a receive request in use; `None` if there are more than there can be.
pub(crate) fn sges(wqe: &RqWqe) -> Option<&[Sge]> {
    wqe.sge.get(..wqe.num_sge as usize)
}

impl Port<'_> {
    /// How many receive requests wait behind `consumer`.
    pub(crate) fn receive_requests(&mut self, setup: &Setup, consumer: u32) -> Result<u32, AccessError> {
        let at = u64::from(setup.record_offset) + RQ_PRODUCER;
        let producer = self.pages_load_u32(&setup.pages, at)?;
        published(producer, consumer, setup.log_rq).map_err(AccessError::Denied)
    }

    /// One receive request, read once.
    pub(crate) fn receive_request(&mut self, setup: &Setup, index: u32) -> Result<RqWqe, AccessError> {
        let slot = u64::from(index & ((1 << setup.log_rq) - 1));
        let at = u64::from(setup.rq_offset) + slot * u64::from(RQ_WQE_SIZE);
        let mut wqe = RqWqe::new_zeroed();
        self.pages_read(&setup.pages, at, wqe.as_mut_bytes())?;
        Ok(wqe)
    }
}
