//! States and attributes of queue pairs.

use refault_abi::codes::{ACCESS_LOCAL_WRITE, AccessRights, QPS_INIT, QPS_RESET, QPS_RTR, QPS_RTS};
use refault_abi::command::{
    CMD_MODIFY_QP, CMD_QUERY_QP, ModifyQp, QP_ATTR_ACCESS, QP_ATTR_AV, QP_ATTR_DEST_QPN,
    QP_ATTR_MAX_DEST_RD_ATOMIC, QP_ATTR_MAX_RD_ATOMIC, QP_ATTR_MIN_RNR_TIMER, QP_ATTR_PATH_MTU, QP_ATTR_PKEY,
    QP_ATTR_PORT, QP_ATTR_QKEY, QP_ATTR_RETRY, QP_ATTR_RNR_RETRY, QP_ATTR_RQ_PSN, QP_ATTR_SQ_PSN,
    QP_ATTR_STATE, QP_ATTR_TIMEOUT, QpSnapshot,
};

use crate::ModelError;
use crate::nic::objects::object;
use crate::nic::{Driver, PortAddress, QueuePair};

impl Driver {
    /// Moves a queue pair from RESET to RTS, connected to queue pair `peer` of this NIC.
    ///
    /// # Errors
    ///
    /// If a command fails.
    pub fn connect(&self, qpn: u32, peer: u32) -> Result<(), ModelError> {
        self.raise(qpn, to_ready_to_receive(qpn, peer), (14, 7))
    }

    /// The same to queue pair `peer` behind another port. Both ends begin with packet number `psn`: one that was connected
    /// before should begin far ahead of what may still be on its way. `ack` is an ACK timeout, a code of InfiniBand's table,
    /// and a number of retries.
    ///
    /// # Errors
    ///
    /// If a command fails.
    pub fn connect_to(
        &self,
        qpn: u32,
        (port, peer): (&PortAddress, u32),
        psn: u32,
        ack: (u8, u8),
    ) -> Result<(), ModelError> {
        let mut ready = ModifyQp { rq_psn: psn, ..to_ready_to_receive(qpn, peer) };
        port.lead(&mut ready);
        self.raise(qpn, ready, ack)
    }

    fn raise(&self, qpn: u32, ready: ModifyQp, (timeout, retry_count): (u8, u8)) -> Result<(), ModelError> {
        self.modify(&to_init(qpn))?;
        self.modify(&ready)?;
        self.modify(&ModifyQp { timeout, retry_count, sq_psn: ready.rq_psn, ..to_ready_to_send(qpn) })
    }

    /// Moves a datagram queue pair from RESET to RTS. Datagrams for it must have this `qkey`.
    ///
    /// # Errors
    ///
    /// If a command fails.
    pub fn raise_datagram(&self, qpn: u32, qkey: u32) -> Result<(), ModelError> {
        let change = |state, mask| ModifyQp { qpn, mask, state, port: 1, qkey, ..ModifyQp::default() };
        let init = QP_ATTR_STATE | QP_ATTR_PKEY | QP_ATTR_PORT | QP_ATTR_QKEY;
        self.modify(&change(QPS_INIT, init))?;
        self.modify(&change(QPS_RTR, QP_ATTR_STATE))?;
        self.modify(&change(QPS_RTS, QP_ATTR_STATE | QP_ATTR_SQ_PSN))
    }

    /// Sets the RNR NAK timer field: the `code` for how long a peer waits before it retries a request that found no
    /// receive request.
    ///
    /// # Errors
    ///
    /// If the command fails.
    pub fn set_min_rnr_timer(&self, qpn: u32, code: u8) -> Result<(), ModelError> {
        let mask = QP_ATTR_MIN_RNR_TIMER;
        self.modify(&ModifyQp { qpn, mask, min_rnr_timer: code, ..ModifyQp::default() })
    }

    /// Moves a queue pair to RESET, and its rings with it.
    ///
    /// # Errors
    ///
    /// If the command fails.
    pub fn reset_queue_pair(&self, qp: &mut QueuePair) -> Result<(), ModelError> {
        let mask = QP_ATTR_STATE;
        self.modify(&ModifyQp { qpn: qp.number(), mask, state: QPS_RESET, ..ModifyQp::default() })?;
        qp.restart()
    }

    /// Modifies the attributes in `change.mask`.
    ///
    /// # Errors
    ///
    /// If the command fails.
    pub fn modify(&self, change: &ModifyQp) -> Result<(), ModelError> {
        self.lane0().execute::<[u8; 0]>(CMD_MODIFY_QP, change).map(drop)
    }

    /// Queries the attributes of a queue pair.
    ///
    /// # Errors
    ///
    /// If the command fails.
    pub fn query(&self, qpn: u32) -> Result<QpSnapshot, ModelError> {
        self.lane0().execute(CMD_QUERY_QP, &object(qpn))
    }
}

fn to_init(qpn: u32) -> ModifyQp {
    ModifyQp {
        qpn,
        mask: QP_ATTR_STATE | QP_ATTR_PKEY | QP_ATTR_PORT | QP_ATTR_ACCESS,
        state: QPS_INIT,
        port: 1,
        access: AccessRights::ALL.difference(ACCESS_LOCAL_WRITE),
        ..ModifyQp::default()
    }
}

fn to_ready_to_receive(qpn: u32, peer: u32) -> ModifyQp {
    ModifyQp {
        qpn,
        mask: QP_ATTR_STATE
            | QP_ATTR_AV
            | QP_ATTR_PATH_MTU
            | QP_ATTR_DEST_QPN
            | QP_ATTR_RQ_PSN
            | QP_ATTR_MAX_DEST_RD_ATOMIC
            | QP_ATTR_MIN_RNR_TIMER,
        state: QPS_RTR,
        path_mtu: 5,
        dest_lid: 1,
        dest_qpn: peer,
        max_dest_rd_atomic: 4,
        min_rnr_timer: 1,
        ..ModifyQp::default()
    }
}

fn to_ready_to_send(qpn: u32) -> ModifyQp {
    ModifyQp {
        qpn,
        mask: QP_ATTR_STATE
            | QP_ATTR_SQ_PSN
            | QP_ATTR_TIMEOUT
            | QP_ATTR_RETRY
            | QP_ATTR_RNR_RETRY
            | QP_ATTR_MAX_RD_ATOMIC,
        state: QPS_RTS,
        rnr_retry: 7,
        max_rd_atomic: 4,
        ..ModifyQp::default()
    }
}
