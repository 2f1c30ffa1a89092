//! A queue pair's attributes, and whether what a driver sets makes sense.

use refault_abi::codes::AccessRights;
use refault_abi::command::{
    QP_ATTR_ACCESS, QP_ATTR_AV, QP_ATTR_DEST_QPN, QP_ATTR_MAX_DEST_RD_ATOMIC, QP_ATTR_MAX_RD_ATOMIC,
    QP_ATTR_MIN_RNR_TIMER, QP_ATTR_PATH_MTU, QP_ATTR_PKEY, QP_ATTR_PORT, QP_ATTR_QKEY, QP_ATTR_RETRY,
    QP_ATTR_RNR_RETRY, QP_ATTR_RQ_PSN, QP_ATTR_SQ_PSN, QP_ATTR_TIMEOUT,
};

use crate::verbs::{Path, SUPPORTED_RIGHTS};

/// Attributes as set so far; all zero in RESET.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// ACCESS_REMOTE_* and ACCESS_FLUSH_* that incoming requests may use.
    pub(crate) access: AccessRights,
    pub(crate) pkey_index: u16,
    pub(crate) port: u8,
    /// Code: 1 is 256 bytes, 5 is 4096.
    pub(crate) path_mtu: u8,
    pub(crate) dest_lid: u16,
    pub(crate) dest_gid: [u8; 16],
    pub(crate) sgid_index: u8,
    /// 1 if the GID counts.
    pub(crate) has_grh: u8,
    /// Service level.
    pub(crate) sl: u8,
    pub(crate) dest_qpn: u32,
    /// PSN of the first packet received.
    pub(crate) rq_psn: u32,
    /// PSN of the first packet sent.
    pub(crate) sq_psn: u32,
    /// Local ACK timeout: 4.096 us * 2^n, zero for none.
    pub(crate) timeout: u8,
    pub(crate) retry_count: u8,
    /// 7 is without limit.
    pub(crate) rnr_retry: u8,
    /// Code of the delay in RNR NAKs.
    pub(crate) min_rnr_timer: u8,
    /// Reads and atomics in flight as requester.
    pub(crate) max_rd_atomic: u8,
    /// Reads and atomics in flight as responder.
    pub(crate) max_dest_rd_atomic: u8,
    pub(crate) qkey: u32,
    /// Ethernet only.
    pub(crate) path: Path,
    /// Its path leads to the port itself: set by the device.
    pub(crate) is_here: bool,
}

/// What the device has, for attributes to refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) pkeys: u16,
    pub(crate) gids: u8,
    /// A path must have a GID, as on Ethernet.
    pub(crate) needs_grh: bool,
    pub(crate) max_rd_atomic: u8,
}

/// 4.096 us: the unit of the local ACK timeout.
const TIMEOUT_UNIT_NS: u64 = 4096;

impl Attributes {
    /// Takes the fields of `change` that `mask` (QP_ATTR_*) names; `None` if one of them is out of range.
    pub(crate) fn with(mut self, change: &Self, mask: u32, limits: &Limits) -> Option<Self> {
        let set = &mut self;
        let named = |bit: u32| mask & bit != 0;
        let mut valid = true;
        macro_rules! take {
            ($($bit:ident => $($field:ident),+ if $check:expr;)+) => {$(
                if named($bit) {
                    valid &= $check;
                    $(set.$field = change.$field;)+
                }
            )+};
        }
        take! {
            QP_ATTR_ACCESS => access if SUPPORTED_RIGHTS.contains(change.access);
            QP_ATTR_PKEY => pkey_index if change.pkey_index < limits.pkeys;
            QP_ATTR_PORT => port if change.port == 1;
            QP_ATTR_PATH_MTU => path_mtu if (1..=5).contains(&change.path_mtu);
            QP_ATTR_AV => dest_lid, dest_gid, sgid_index, has_grh, sl, path
                if change.has_grh <= 1 && change.sl < 16 && change.sgid_index < limits.gids
                    && (!limits.needs_grh || change.has_grh == 1) && change.path.flow_label >> 20 == 0;
            QP_ATTR_DEST_QPN => dest_qpn if change.dest_qpn >> 24 == 0;
            QP_ATTR_RQ_PSN => rq_psn if change.rq_psn >> 24 == 0;
            QP_ATTR_SQ_PSN => sq_psn if change.sq_psn >> 24 == 0;
            QP_ATTR_TIMEOUT => timeout if change.timeout < 32;
            QP_ATTR_RETRY => retry_count if change.retry_count < 8;
            QP_ATTR_RNR_RETRY => rnr_retry if change.rnr_retry < 8;
            QP_ATTR_MIN_RNR_TIMER => min_rnr_timer if change.min_rnr_timer < 32;
            QP_ATTR_MAX_RD_ATOMIC => max_rd_atomic if change.max_rd_atomic <= limits.max_rd_atomic;
            QP_ATTR_QKEY => qkey if true;
            QP_ATTR_MAX_DEST_RD_ATOMIC => max_dest_rd_atomic
                if change.max_dest_rd_atomic <= limits.max_rd_atomic;
        }
        valid.then_some(self)
    }

    /// Retries after RNR NAKs; `None` is without limit.
    pub(crate) fn rnr_retry_limit(&self) -> Option<u8> {
        (self.rnr_retry != 7).then_some(self.rnr_retry)
    }

    /// The transport timer; `None` is without limit.
    pub(crate) fn timeout_ns(&self) -> Option<u64> {
        (self.timeout != 0).then_some(TIMEOUT_UNIT_NS << self.timeout)
    }

    /// Whether its path leads to the port with that LID and GID.
    pub(crate) fn leads_to(&self, lid: u16, gid: [u8; 16]) -> bool {
        self.dest_lid == lid && (self.has_grh == 0 || self.dest_gid == gid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { pkeys: 1, gids: 1, needs_grh: false, max_rd_atomic: 16 };

    #[test]
    fn only_named_fields_count() {
        let change = Attributes { timeout: 14, dest_qpn: 9, port: 77, ..Default::default() };
        let set = Attributes::default().with(&change, QP_ATTR_TIMEOUT, &LIMITS).unwrap();
        assert_eq!((set.timeout_ns(), set.dest_qpn, set.port), (Some(4096 << 14), 0, 0));
    }

    #[test]
    fn values_out_of_range_are_refused() {
        let all = u32::MAX;
        let good = Attributes { port: 1, path_mtu: 5, ..Default::default() };
        assert!(Attributes::default().with(&good, all, &LIMITS).is_some());
        for bad in [
            Attributes { port: 2, ..good },
            Attributes { path_mtu: 6, ..good },
            Attributes { timeout: 32, ..good },
            Attributes { retry_count: 8, ..good },
            Attributes { rnr_retry: 8, ..good },
            Attributes { min_rnr_timer: 32, ..good },
            Attributes { max_rd_atomic: 17, ..good },
            Attributes { dest_qpn: 1 << 24, ..good },
            Attributes { pkey_index: 1, ..good },
            Attributes { sgid_index: 1, ..good },
            Attributes { access: AccessRights(1 << 4), ..good },
        ] {
            assert!(Attributes::default().with(&bad, all, &LIMITS).is_none(), "{bad:?}");
        }
    }
}
