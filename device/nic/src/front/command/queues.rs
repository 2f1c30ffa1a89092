//! Event and completion queues.

use refault_abi::command::{CreateCq, CreateEq, ModifyCq};
use refault_abi::event::{EQE_SIZE, MAX_LOG_EQES};
use refault_abi::queue::{CQE_SIZE, MAX_LOG_CQES};

use super::objects::{CqRecord, Objects};
use super::pages::RingShape;
use super::reply::{DONE, Refused, Reply, created};
use crate::front::Front;
use crate::queue::completion::CqSetup;
use crate::queue::layout::Ring;
use crate::queue::moderation::Moderation;
use crate::verbs::Event;

const RING: RingShape = RingShape { entry: CQE_SIZE, max_log: MAX_LOG_CQES, record: 64 };

impl Front {
    pub(super) fn create_eq(&self, worker: usize, objects: &mut Objects, command: &CreateEq) -> Reply {
        let CreateEq { ring, log_size, vector, .. } = command;
        if u32::from(*log_size) > MAX_LOG_EQES || *vector >= self.engine.config.vectors {
            return Err(Refused::BadParameter);
        }
        let bytes = u64::from(EQE_SIZE) << log_size;
        let pages = self.reachable_pages(worker, ring, bytes, &[0, bytes - 1], true)?;
        let eqn = objects.eqs.insert(0)?;
        let ring = Ring { pages, record_offset: 0, log: *log_size };
        self.engine.events.create(eqn, ring, *vector);
        created(eqn)
    }

    pub(super) fn destroy_eq(&self, objects: &mut Objects, eqn: u32) -> Reply {
        if *objects.eqs.find(eqn)? > 0 {
            return Err(Refused::Busy);
        }
        objects.eqs.remove(eqn);
        self.engine.events.destroy(eqn);
        DONE
    }

    pub(super) fn create_cq(&self, worker: usize, objects: &mut Objects, command: &CreateCq) -> Reply {
        let CreateCq { buffer, record_offset, context, eqn, log_size: log, .. } = *command;
        objects.contexts.find(context)?;
        objects.eqs.find(eqn)?;
        let ring = self.ring(worker, &buffer, (record_offset, log), &RING)?;
        let cqn = objects.cqs.insert(CqRecord { context, eqn, users: 0 })?;
        if !self.engine.cqs.create(CqSetup { cqn, ring, context, eqn }) {
            objects.cqs.remove(cqn)?;
            return Err(Refused::NoResources);
        }
        objects.contexts.find(context)?.users += 1;
        *objects.eqs.find(eqn)? += 1;
        created(cqn)
    }

    /// Completions that wait under the old rule are reported at once.
    pub(super) fn modify_cq(&self, worker: usize, command: &ModifyCq) -> Reply {
        let ModifyCq { cqn, count, period_us, .. } = *command;
        let rule = Moderation { count, period_us };
        let engine = &self.engine;
        let known = engine.cqs.moderate(&mut engine.memory.port(worker), &engine.events, cqn, rule);
        if known { DONE } else { Err(Refused::NoObject) }
    }

    pub(super) fn destroy_cq(&self, objects: &mut Objects, cqn: u32) -> Reply {
        if objects.cqs.find(cqn)?.users > 0 {
            return Err(Refused::Busy);
        }
        let CqRecord { context, eqn, .. } = objects.cqs.remove(cqn)?;
        self.engine.cqs.destroy(cqn);
        let about = |event: &Event| matches!(event, Event::Completion { cqn: of } | Event::CqError { cqn: of } if *of == cqn);
        self.engine.events.forget(eqn, about);
        objects.contexts.find(context)?.users -= 1;
        *objects.eqs.find(eqn)? -= 1;
        DONE
    }
}
