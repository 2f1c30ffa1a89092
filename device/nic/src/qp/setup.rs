//! What a queue pair is made with.

use refault_abi::codes::{QPT_UD, QpKind};

use crate::queue::layout::WorkRings;

/// What stays the same while a queue pair lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Setup {
    pub(crate) qpn: u32,
    pub(crate) pd: u32,
    pub(crate) context: u32,
    pub(crate) send_cq: u32,
    pub(crate) recv_cq: u32,
    pub(crate) eqn: u32,
    pub(crate) rings: WorkRings,
    /// Every request is signaled.
    pub(crate) signal_all: bool,
    /// QPT_*.
    pub(crate) kind: QpKind,
    /// Shared receive queue, zero if it has its own.
    pub(crate) srqn: u32,
}

impl Setup {
    /// Whether it sends datagrams.
    pub(crate) fn is_datagram(&self) -> bool {
        self.kind == QPT_UD
    }
}
