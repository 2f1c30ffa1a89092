//! The receiving half of a queue pair.

use refault_abi::codes::AccessRights;

use crate::qp::setup::Setup;
use crate::queue::shared::Taken;

/// A receive request being filled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Receiving {
    pub(crate) taken: Taken,
    /// Datagrams: identifies it; else zero.
    pub(crate) ticket: u64,
}

/// The receiving half.
#[derive(Debug, Default)]
pub(crate) struct Responder {
    pub(crate) setup: Setup,
    pub(crate) peer_qpn: u32,
    /// ACCESS_REMOTE_* and ACCESS_FLUSH_* that incoming requests may use.
    pub(crate) access: AccessRights,
    pub(crate) min_rnr_timer: u8,
    /// Reads and atomics in flight that it takes: it does them one by one, if any.
    pub(crate) max_dest_rd_atomic: u8,
    /// UD: the Q_Key that datagrams must have.
    pub(crate) qkey: u32,
    /// Index of the next receive request.
    pub(crate) consumer: u32,
    /// Requests known to wait behind `consumer`.
    pub(crate) known: u32,
    pub(crate) current: Option<Receiving>,
    /// A message has arrived since the queue pair was reset.
    pub(crate) established: bool,
}
