//! The state machines of queue pairs, connected and not: which transitions there are, and which attributes each
//! must and may carry (InfiniBand 1.4, 10.3.1; the kernel's `ib_modify_qp_is_ok` holds the same tables).

use refault_abi::codes::{
    QPS_ERR, QPS_INIT, QPS_RESET, QPS_RTR, QPS_RTS, QPS_SQD, QPS_SQE, QPT_ETHERNET, QPT_GSI, QPT_UD, QpKind,
    QpState,
};
use refault_abi::command::{
    QP_ATTR_ACCESS, QP_ATTR_AV, QP_ATTR_DEST_QPN, QP_ATTR_MAX_DEST_RD_ATOMIC, QP_ATTR_MAX_RD_ATOMIC,
    QP_ATTR_MIN_RNR_TIMER, QP_ATTR_PATH_MTU, QP_ATTR_PKEY, QP_ATTR_PORT, QP_ATTR_QKEY, QP_ATTR_RETRY,
    QP_ATTR_RNR_RETRY, QP_ATTR_RQ_PSN, QP_ATTR_SQ_PSN, QP_ATTR_STATE, QP_ATTR_TIMEOUT,
};

/// Attributes of a transition besides the state itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Masks {
    required: u32,
    optional: u32,
}

const NOTHING: Masks = Masks { required: 0, optional: 0 };

/// What the transition of a datagram queue pair takes, or `None` if there is none.
fn datagram_masks(from: QpState, to: QpState) -> Option<Masks> {
    const INIT: u32 = QP_ATTR_PKEY | QP_ATTR_PORT | QP_ATTR_QKEY;
    const QKEY: Masks = Masks { required: 0, optional: QP_ATTR_QKEY };
    const PKEY_AND_QKEY: Masks = Masks { required: 0, optional: QP_ATTR_PKEY | QP_ATTR_QKEY };
    let masks = match (from, to) {
        (QPS_RESET | QPS_INIT | QPS_RTR | QPS_RTS | QPS_SQD | QPS_SQE | QPS_ERR, QPS_RESET | QPS_ERR)
        | (QPS_RTS, QPS_SQD) => NOTHING,
        (QPS_RESET, QPS_INIT) => Masks { required: INIT, optional: 0 },
        (QPS_INIT, QPS_INIT) => Masks { required: 0, optional: INIT },
        (QPS_INIT, QPS_RTR) | (QPS_SQD, QPS_SQD) => PKEY_AND_QKEY,
        (QPS_RTR, QPS_RTS) => Masks { required: QP_ATTR_SQ_PSN, ..QKEY },
        (QPS_RTS | QPS_SQD | QPS_SQE, QPS_RTS) => QKEY,
        _ => return None,
    };
    Some(masks)
}

/// What the transition of a connected queue pair takes, or `None` if there is none.
fn connected_masks(from: QpState, to: QpState) -> Option<Masks> {
    const INIT: u32 = QP_ATTR_PKEY | QP_ATTR_PORT | QP_ATTR_ACCESS;
    let masks = match (from, to) {
        (QPS_RESET | QPS_INIT | QPS_RTR | QPS_RTS | QPS_SQD | QPS_ERR, QPS_RESET | QPS_ERR) => NOTHING,
        (QPS_RESET, QPS_INIT) => Masks { required: INIT, optional: 0 },
        (QPS_INIT, QPS_INIT) => Masks { required: 0, optional: INIT },
        (QPS_INIT, QPS_RTR) => Masks {
            required: QP_ATTR_AV
                | QP_ATTR_PATH_MTU
                | QP_ATTR_DEST_QPN
                | QP_ATTR_RQ_PSN
                | QP_ATTR_MAX_DEST_RD_ATOMIC
                | QP_ATTR_MIN_RNR_TIMER,
            optional: QP_ATTR_ACCESS | QP_ATTR_PKEY,
        },
        (QPS_RTR, QPS_RTS) => Masks {
            required: QP_ATTR_TIMEOUT
                | QP_ATTR_RETRY
                | QP_ATTR_RNR_RETRY
                | QP_ATTR_SQ_PSN
                | QP_ATTR_MAX_RD_ATOMIC,
            optional: QP_ATTR_ACCESS | QP_ATTR_MIN_RNR_TIMER,
        },
        (QPS_RTS, QPS_RTS) | (QPS_SQD, QPS_RTS) => {
            Masks { required: 0, optional: QP_ATTR_ACCESS | QP_ATTR_MIN_RNR_TIMER }
        }
        (QPS_RTS, QPS_SQD) => NOTHING,
        (QPS_SQD, QPS_SQD) => Masks {
            required: 0,
            optional: QP_ATTR_PORT
                | QP_ATTR_AV
                | QP_ATTR_TIMEOUT
                | QP_ATTR_RETRY
                | QP_ATTR_RNR_RETRY
                | QP_ATTR_MAX_RD_ATOMIC
                | QP_ATTR_MAX_DEST_RD_ATOMIC
                | QP_ATTR_PKEY
                | QP_ATTR_ACCESS
                | QP_ATTR_MIN_RNR_TIMER,
        },
        _ => return None,
    };
    Some(masks)
}

/// What the transition of a queue pair for Ethernet frames takes, or `None` if there is none.
fn raw_masks(from: QpState, to: QpState) -> Option<Masks> {
    match (from, to) {
        (QPS_RESET, QPS_INIT) | (QPS_INIT, QPS_RTR) | (QPS_RTR, QPS_RTS) | (_, QPS_RESET | QPS_ERR) => {
            (from.0 <= QPS_ERR.0).then_some(NOTHING)
        }
        _ => None,
    }
}

/// Whether a queue pair of type `kind` in state `from` may go to `to` with the attributes in `mask`.
pub(crate) fn may_change(kind: QpKind, from: QpState, to: QpState, mask: u32) -> bool {
    let given = mask & !QP_ATTR_STATE;
    let masks = match kind {
        QPT_UD => datagram_masks(from, to),
        // ib_mad names no port.
        QPT_GSI => datagram_masks(from, to).map(|Masks { required, optional }| Masks {
            required: required & !QP_ATTR_PORT,
            optional: optional | QP_ATTR_PORT & required,
        }),
        QPT_ETHERNET => raw_masks(from, to),
        _ => connected_masks(from, to),
    };
    masks.is_some_and(|Masks { required, optional }| {
        given & required == required && given & !(required | optional) == 0
    })
}

#[cfg(test)]
mod tests {
    use refault_abi::codes::QPT_RC;

    use super::*;

    fn may_change(from: QpState, to: QpState, mask: u32) -> bool {
        super::may_change(QPT_RC, from, to, mask)
    }

    #[test]
    fn a_datagram_queue_pair_wants_its_key_and_knows_no_path() {
        let may = |from, to, mask| super::may_change(QPT_UD, from, to, mask);
        let init = QP_ATTR_PKEY | QP_ATTR_PORT | QP_ATTR_QKEY;
        assert!(may(QPS_RESET, QPS_INIT, init));
        assert!(!may(QPS_RESET, QPS_INIT, init & !QP_ATTR_QKEY));
        assert!(!may(QPS_RESET, QPS_INIT, init | QP_ATTR_ACCESS));
        assert!(may(QPS_INIT, QPS_RTR, 0) && may(QPS_INIT, QPS_RTR, QP_ATTR_QKEY));
        assert!(!may(QPS_INIT, QPS_RTR, QP_ATTR_AV) && !may(QPS_INIT, QPS_RTR, QP_ATTR_DEST_QPN));
        assert!(may(QPS_RTR, QPS_RTS, QP_ATTR_SQ_PSN) && !may(QPS_RTR, QPS_RTS, 0));
        assert!(!may(QPS_RTS, QPS_SQE, 0) && !may(QPS_SQE, QPS_SQE, 0) && !may(QPS_SQE, QPS_SQD, 0));
        assert!(may(QPS_SQE, QPS_RTS, QP_ATTR_QKEY) && !may(QPS_SQE, QPS_RTS, QP_ATTR_SQ_PSN));
        for from in (QPS_RESET.0..=QPS_ERR.0).map(QpState) {
            assert!(may(from, QPS_RESET, 0) && may(from, QPS_ERR, 0), "{from:?}");
        }
        assert!(!may(QpState(7), QPS_RESET, 0) && !may(QPS_ERR, QPS_RTS, 0));
    }

    #[test]
    fn management_needs_no_port_and_frames_need_nothing() {
        let may = |kind, from, to, mask| super::may_change(kind, from, to, mask);
        let init = QP_ATTR_PKEY | QP_ATTR_QKEY;
        assert!(
            may(QPT_GSI, QPS_RESET, QPS_INIT, init) && may(QPT_GSI, QPS_RESET, QPS_INIT, init | QP_ATTR_PORT)
        );
        assert!(!may(QPT_GSI, QPS_RESET, QPS_INIT, QP_ATTR_PKEY));
        assert!(
            may(QPT_ETHERNET, QPS_RESET, QPS_INIT, QP_ATTR_STATE) && may(QPT_ETHERNET, QPS_RTR, QPS_RTS, 0)
        );
        assert!(!may(QPT_ETHERNET, QPS_RESET, QPS_RTS, 0) && !may(QPT_ETHERNET, QPS_RESET, QPS_INIT, init));
        assert!(may(QPT_ETHERNET, QPS_SQE, QPS_ERR, 0) && !may(QPT_ETHERNET, QpState(7), QPS_RESET, 0));
    }

    const TO_RTR: u32 = QP_ATTR_AV
        | QP_ATTR_PATH_MTU
        | QP_ATTR_DEST_QPN
        | QP_ATTR_RQ_PSN
        | QP_ATTR_MAX_DEST_RD_ATOMIC
        | QP_ATTR_MIN_RNR_TIMER;

    #[test]
    fn the_way_up_wants_its_attributes() {
        assert!(may_change(QPS_RESET, QPS_INIT, QP_ATTR_STATE | 0xe));
        assert!(!may_change(QPS_RESET, QPS_INIT, QP_ATTR_STATE | 0x6));
        assert!(may_change(QPS_INIT, QPS_RTR, TO_RTR));
        assert!(may_change(QPS_INIT, QPS_RTR, TO_RTR | QP_ATTR_ACCESS));
        assert!(!may_change(QPS_INIT, QPS_RTR, TO_RTR | QP_ATTR_TIMEOUT));
        assert!(!may_change(QPS_INIT, QPS_RTR, TO_RTR & !QP_ATTR_AV));
    }

    #[test]
    fn states_cannot_be_skipped_and_none_is_unknown() {
        assert!(!may_change(QPS_RESET, QPS_RTR, TO_RTR));
        assert!(!may_change(QPS_RESET, QPS_RTS, 0));
        assert!(!may_change(QPS_RTR, QPS_RTR, 0));
        assert!(!may_change(QPS_ERR, QPS_RTS, 0));
        assert!(!may_change(QPS_RTS, QPS_SQE, 0));
        assert!(!may_change(QPS_RTS, QpState(7), 0) && !may_change(QpState(255), QPS_ERR, 0));
    }

    #[test]
    fn reset_and_error_are_reached_from_everywhere() {
        for from in [QPS_RESET, QPS_INIT, QPS_RTR, QPS_RTS, QPS_SQD, QPS_ERR] {
            for to in [QPS_RESET, QPS_ERR] {
                assert!(may_change(from, to, QP_ATTR_STATE), "{from:?} to {to:?}");
                assert!(!may_change(from, to, QP_ATTR_STATE | QP_ATTR_ACCESS), "{from:?} to {to:?}");
            }
        }
    }
}
