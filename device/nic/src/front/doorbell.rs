//! BAR 2: doorbell pages, one for each context.

use refault_abi::doorbell::*;
use refault_abi::regs::DOORBELL_PAGE_SIZE;

use crate::Nic;
use crate::queue::completion::ArmDoorbell;

impl Nic {
    /// A write to BAR 2. Doorbells of things that do not exist, or belong to another page's context, do
    /// nothing.
    pub(crate) fn doorbell_write(&self, offset: u64, data: &[u8]) {
        let Ok(value) = <[u8; 8]>::try_from(data) else { return };
        if !offset.is_multiple_of(DOORBELL_PAGE_SIZE) {
            return;
        }
        let context = (offset / DOORBELL_PAGE_SIZE) as u32;
        let Doorbell { kind, number, argument } = Doorbell::decode(u64::from_le_bytes(value));
        match u64::from(kind) {
            DOORBELL_SQ => {
                if let Some(qp) = self.qps.find(number).filter(|qp| qp.context() == context) {
                    if qp.wants_rung() {
                        qp.note_rung(self.fabric.now_ns());
                    }
                    self.schedule(qp);
                }
            }
            kind @ (DOORBELL_CQ_ARM | DOORBELL_CQ_ARM_SOLICITED) => {
                let solicited = kind == DOORBELL_CQ_ARM_SOLICITED;
                let arm = ArmDoorbell { cqn: number, context, consumer: argument, solicited };
                let needed = self.cqs.arm(&mut self.front_port(), &self.events, arm);
                self.moderate(number, needed);
            }
            _ => {}
        }
    }
}
