//! The state machine of a reliable-connected queue pair: which transitions there are, and which attributes
//! each must and may carry (InfiniBand 1.4, 10.3.1; the kernel's `ib_modify_qp_is_ok` holds the same table).

use refault_abi::codes::*;
use refault_abi::command::*;

/// Attributes of a transition besides the state itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Masks {
    required: u32,
    optional: u32,
}

const NOTHING: Masks = Masks { required: 0, optional: 0 };

/// What the transition takes, or `None` if there is none.
fn masks(from: u8, to: u8) -> Option<Masks> {
    const INIT: u32 = QP_ATTR_PKEY | QP_ATTR_PORT | QP_ATTR_ACCESS;
    let masks = match (from, to) {
        (QPS_RESET..=QPS_SQD | QPS_ERR, QPS_RESET | QPS_ERR) => NOTHING,
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

/// Whether a queue pair in state `from` may go to `to` with the attributes in `mask`.
pub(crate) fn may_change(from: u8, to: u8, mask: u32) -> bool {
    let given = mask & !QP_ATTR_STATE;
    masks(from, to).is_some_and(|Masks { required, optional }| {
        given & required == required && given & !(required | optional) == 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(!may_change(QPS_RTS, 7, 0) && !may_change(255, QPS_ERR, 0));
    }

    #[test]
    fn reset_and_error_are_reached_from_everywhere() {
        for from in [QPS_RESET, QPS_INIT, QPS_RTR, QPS_RTS, QPS_SQD, QPS_ERR] {
            for to in [QPS_RESET, QPS_ERR] {
                assert!(may_change(from, to, QP_ATTR_STATE), "{from} to {to}");
                assert!(!may_change(from, to, QP_ATTR_STATE | QP_ATTR_ACCESS), "{from} to {to}");
            }
        }
    }
}
