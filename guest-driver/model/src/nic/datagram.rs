//! Datagram queue pairs, and event moderation of completion queues.

use refault_abi::codes::{QPS_INIT, QPS_RTR, QPS_RTS};
use refault_abi::command::*;

use crate::ModelError;
use crate::nic::{CompletionQueue, Driver};

impl Driver {
    /// Moves a datagram queue pair from RESET to RTS. Datagrams for it must have this `qkey`.
    ///
    /// # Errors
    ///
    /// As [`CommandLane::execute`](crate::nic::CommandLane::execute).
    pub fn raise_datagram(&self, qpn: u32, qkey: u32) -> Result<(), ModelError> {
        let change = |state, mask| ModifyQp { qpn, mask, state, port: 1, qkey, ..ModifyQp::default() };
        let init = QP_ATTR_STATE | QP_ATTR_PKEY | QP_ATTR_PORT | QP_ATTR_QKEY;
        self.modify(&change(QPS_INIT, init))?;
        self.modify(&change(QPS_RTR, QP_ATTR_STATE))?;
        self.modify(&change(QPS_RTS, QP_ATTR_STATE | QP_ATTR_SQ_PSN))
    }

    /// Moderates the events of a completion queue: when armed, it sends one after `count` completions, or `period_us`
    /// microseconds after the first.
    ///
    /// # Errors
    ///
    /// As [`CommandLane::execute`](crate::nic::CommandLane::execute).
    pub fn moderate(&self, queue: &CompletionQueue, count: u16, period_us: u16) -> Result<(), ModelError> {
        let body = ModifyCq { cqn: queue.number(), count, period_us, reserved: 0 };
        self.lane0().execute::<[u8; 0]>(CMD_MODIFY_CQ, &body).map(drop)
    }
}
