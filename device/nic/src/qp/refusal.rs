//! Why a responder refuses a request.

use refault_abi::codes::{WC_LOC_LEN_ERR, WC_REM_ACCESS_ERR, WC_REM_INV_REQ_ERR, WC_REM_OP_ERR, WcStatus};
use refault_roce::Nak;

use crate::cause::Cause;

/// Why a responder refuses a request (NAK codes: InfiniBand 1.4, 9.7.5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Remote access error: the request broke the protection rules.
    Access(Cause),
    /// Invalid request: this queue pair does not take it.
    Request(Cause),
    /// The receive request fails, with this status of its own.
    Receive(WcStatus, Option<Cause>),
    /// The receive queue is lost.
    Broken,
}

impl Refusal {
    /// Status and cause of the requester's completion.
    pub(crate) fn seen_by_requester(self) -> (WcStatus, Option<Cause>) {
        match self {
            Self::Access(cause) => (WC_REM_ACCESS_ERR, Some(cause)),
            Self::Request(cause) => (WC_REM_INV_REQ_ERR, Some(cause)),
            Self::Receive(WC_LOC_LEN_ERR, _) => (WC_REM_INV_REQ_ERR, None),
            Self::Receive(..) | Self::Broken => (WC_REM_OP_ERR, None),
        }
    }

    /// What a packet says of it.
    pub(crate) fn nak(self) -> Nak {
        match self {
            Self::Access(_) => Nak::RemoteAccess,
            Self::Request(_) | Self::Receive(WC_LOC_LEN_ERR, _) => Nak::InvalidRequest,
            Self::Receive(..) | Self::Broken => Nak::RemoteOperation,
        }
    }

    /// The cause that the requester's completion bears.
    pub(crate) fn cause(self) -> Option<Cause> {
        self.seen_by_requester().1
    }
}
