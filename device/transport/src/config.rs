use refault_roce::Mtu;

/// Packets in flight by default, as soft-RoCE has them (`RXE_MAX_UNACKED_PSNS`).
const WINDOW: u32 = 128;

/// How a requester sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequesterConfig {
    /// Most bytes in a packet.
    pub mtu: Mtu,
    /// Number of the responder's queue pair.
    pub dest_qpn: u32,
    /// Most packets that are sent and not acknowledged; at least 1. The responses to a READ are not counted.
    pub window: u32,
    /// Nanoseconds without progress after which all that is not acknowledged is sent again; `None` is never.
    pub timeout_ns: Option<u64>,
    /// How often that happens without progress, NAKs for lost packets included, before a request fails.
    pub retry_count: u8,
    /// How many receiver-not-ready delays are waited for without progress; `None` is without limit.
    pub rnr_retry: Option<u8>,
    /// READs, atomics, FLUSHes and ATOMIC WRITEs in flight; zero counts as one.
    pub max_rd_atomic: u8,
    /// A NAK for a lost packet ends a receiver-not-ready delay: the responder says so when it is ready. InfiniBand does not have
    /// this, and soft-RoCE sends such NAKs while it is not ready (`check_psn` in rxe_resp.c).
    pub resumes: bool,
    /// A bug, for experiments: after a receiver-not-ready delay only the refused message is sent again. What was posted behind it
    /// by then counts as sent, and waits for the timeout, or for a NAK for a lost packet.
    pub dams: bool,
}

impl RequesterConfig {
    /// No timeout, seven retries, receiver-not-ready delays without limit, 16 READs in flight.
    #[must_use]
    pub const fn new(mtu: Mtu, dest_qpn: u32) -> Self {
        Self {
            mtu,
            dest_qpn,
            window: WINDOW,
            timeout_ns: None,
            retry_count: 7,
            rnr_retry: None,
            max_rd_atomic: 16,
            resumes: false,
            dams: false,
        }
    }

    /// Packets after which an acknowledgement is requested in the middle of a message: early enough to keep the window
    /// moving.
    pub(crate) const fn packets_per_ack(&self) -> u32 {
        self.window / 2
    }
}

/// How the responses to a READ that is repeated from its middle begin. InfiniBand does not say it clearly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadReplay {
    /// With MIDDLE or LAST: soft-RoCE takes FIRST and ONLY at the request's first packet alone (`check_ack` in rxe_comp.c).
    #[default]
    Middle,
    /// With FIRST or ONLY, as for a new request.
    First,
}

/// How a responder answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponderConfig {
    /// Most bytes in a packet.
    pub mtu: Mtu,
    /// Number of the requester's queue pair.
    pub dest_qpn: u32,
    /// READs, atomics, FLUSHes and ATOMIC WRITEs that are kept for repetition. At zero READs and atomics are refused.
    pub max_dest_rd_atomic: u8,
    /// How a repeated READ is answered.
    pub read_replay: ReadReplay,
}

impl ResponderConfig {
    /// 16 READs and atomics.
    #[must_use]
    pub const fn new(mtu: Mtu, dest_qpn: u32) -> Self {
        Self { mtu, dest_qpn, max_dest_rd_atomic: 16, read_replay: ReadReplay::Middle }
    }
}
