//! Event and completion queues.

use refault_abi::command::{CreateCq, CreateEq, ModifyCq};
use refault_abi::event::{EQE_SIZE, EVENT_COMPLETION, EVENT_CQ_ERROR, MAX_LOG_EQES};
use refault_abi::queue::{CQE_SIZE, MAX_LOG_CQES};

use super::objects::{CqRecord, Objects};
use super::{DONE, Refused, Reply, created};
use crate::Nic;
use crate::queue::completion::CqSetup;
use crate::queue::moderation::Moderation;

/// Alignment and size of a completion queue's doorbell record.
const RECORD: u32 = 64;

impl Nic {
    pub(super) fn create_eq(&self, worker: usize, objects: &mut Objects, command: &CreateEq) -> Reply {
        let CreateEq { ring, log_size, vector, .. } = command;
        if u32::from(*log_size) > MAX_LOG_EQES || *vector >= self.config.vectors {
            return Err(Refused::BadParameter);
        }
        let bytes = u64::from(EQE_SIZE) << log_size;
        let pages = self.reachable_pages(worker, ring, bytes, &[0, bytes - 1], true)?;
        let eqn = objects.eqs.insert(0)?;
        self.events.create(eqn, pages, *log_size, *vector);
        created(eqn)
    }

    pub(super) fn destroy_eq(&self, objects: &mut Objects, eqn: u32) -> Reply {
        if *objects.eqs.find(eqn)? > 0 {
            return Err(Refused::Busy);
        }
        objects.eqs.remove(eqn);
        self.events.destroy(eqn);
        DONE
    }

    pub(super) fn create_cq(&self, worker: usize, objects: &mut Objects, command: &CreateCq) -> Reply {
        let CreateCq { buffer, record_offset, context, eqn, log_size: log, .. } = *command;
        objects.contexts.find(context)?;
        objects.eqs.find(eqn)?;
        let ring = u64::from(CQE_SIZE) << log.min(31);
        let sound = u32::from(log) <= MAX_LOG_CQES
            && record_offset.is_multiple_of(RECORD)
            && u64::from(record_offset) >= ring;
        if !sound {
            return Err(Refused::BadParameter);
        }
        let bytes = u64::from(record_offset) + u64::from(RECORD);
        let pages = self.reachable_pages(worker, &buffer, bytes, &[0, u64::from(record_offset)], true)?;
        let cqn = objects.cqs.insert(CqRecord { context, eqn, users: 0 })?;
        if !self.cqs.create(CqSetup { cqn, pages, record_offset, context, eqn, log }) {
            objects.cqs.remove(cqn)?;
            return Err(Refused::NoResources);
        }
        objects.contexts.find(context)?.users += 1;
        *objects.eqs.find(eqn)? += 1;
        created(cqn)
    }

    /// What waits to be told of is told of at once: it was promised under the rule before.
    pub(super) fn modify_cq(&self, worker: usize, command: &ModifyCq) -> Reply {
        let ModifyCq { cqn, count, period_us, .. } = *command;
        let rule = Moderation { count, period_us };
        let known = self.cqs.moderate(&mut self.port(worker), &self.events, cqn, rule);
        if known { DONE } else { Err(Refused::NoObject) }
    }

    pub(super) fn destroy_cq(&self, objects: &mut Objects, cqn: u32) -> Reply {
        if objects.cqs.find(cqn)?.users > 0 {
            return Err(Refused::Busy);
        }
        let CqRecord { context, eqn, .. } = objects.cqs.remove(cqn)?;
        self.cqs.destroy(cqn);
        self.events.forget(eqn, |event| {
            event.number == cqn && matches!(event.kind, EVENT_COMPLETION | EVENT_CQ_ERROR)
        });
        objects.contexts.find(context)?.users -= 1;
        *objects.eqs.find(eqn)? -= 1;
        DONE
    }
}
