//! What a queue pair is made with.

use refault_abi::codes::{QPT_ETHERNET, QPT_GSI, QPT_RC, QPT_UD, QpKind};

use crate::queue::layout::WorkRings;

/// Number of the general services interface in packets (InfiniBand 1.4, 3.9.5).
pub(crate) const GSI_QPN: u32 = 1;

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
        matches!(self.kind, QPT_UD | QPT_GSI)
    }

    /// Whether it sends and receives Ethernet frames as they are.
    pub(crate) fn is_raw(&self) -> bool {
        self.kind == QPT_ETHERNET
    }

    /// Whether it is one end of a connection.
    pub(crate) fn is_connected(&self) -> bool {
        self.kind == QPT_RC
    }

    /// Its number in packets.
    pub(crate) fn wire_qpn(&self) -> u32 {
        if self.kind == QPT_GSI { GSI_QPN } else { self.qpn }
    }
}
