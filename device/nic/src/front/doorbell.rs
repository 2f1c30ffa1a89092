//! BAR 2: doorbell pages, one for each context.

use refault_abi::doorbell::{DOORBELL_CQ_ARM, DOORBELL_CQ_ARM_SOLICITED, DOORBELL_SQ, Doorbell};
use refault_abi::regs::DOORBELL_PAGE_SIZE;

use super::Front;
use crate::engine::Engine;
use crate::queue::completion::{ArmDoorbell, TimerNeeded};

impl Front {
    /// A write to BAR 2. Doorbells of objects that do not exist, or belong to another page's context, are ignored.
    pub(super) fn doorbell_write(&self, offset: u64, data: &[u8]) {
        let Ok(value) = <[u8; 8]>::try_from(data) else { return };
        let Ok(context) = u32::try_from(offset / DOORBELL_PAGE_SIZE) else { return };
        if !offset.is_multiple_of(DOORBELL_PAGE_SIZE) {
            return;
        }
        let Engine { memory, workers, qps, cqs, events, .. } = &self.engine;
        let Doorbell { kind, number, argument } = Doorbell::decode(u64::from_le_bytes(value));
        match u64::from(kind) {
            DOORBELL_SQ => {
                if let Some(qp) = qps.find(number).filter(|qp| qp.context() == context) {
                    if qp.wants_rung() {
                        qp.note_rung(memory.fabric.now_ns());
                    }
                    workers.schedule(qp);
                }
            }
            kind @ (DOORBELL_CQ_ARM | DOORBELL_CQ_ARM_SOLICITED) => {
                let solicited = kind == DOORBELL_CQ_ARM_SOLICITED;
                let arm = ArmDoorbell { cqn: number, context, consumer: argument, solicited };
                if cqs.arm(&mut memory.front_port(), events, arm) == TimerNeeded::Yes {
                    workers.moderate(number);
                }
            }
            _ => {}
        }
    }
}
