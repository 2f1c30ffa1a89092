//! Shared receive queues.

use refault_abi::command::{ArmSrq, CreateSrq, SrqState};
use refault_abi::queue::{MAX_LOG_WQES, RQ_WQE_SIZE};

use super::objects::{Objects, SrqRecord};
use super::pages::RingShape;
use super::reply::{DONE, Refused, Reply, created, reply};
use crate::front::Front;
use crate::queue::shared::SrqSetup;
use crate::verbs::Event;

const RING: RingShape = RingShape { entry: RQ_WQE_SIZE, max_log: MAX_LOG_WQES, record: 128 };

impl Front {
    pub(super) fn create_srq(&self, worker: usize, objects: &mut Objects, command: &CreateSrq) -> Reply {
        let CreateSrq { buffer, record_offset, pd, eqn, log_size: log, .. } = *command;
        objects.pds.find(pd)?;
        objects.eqs.find(eqn)?;
        let ring = self.ring(worker, &buffer, (record_offset, log), &RING)?;
        let srqn = objects.srqs.insert(SrqRecord { pd, eqn, users: 0 })?;
        if !self.engine.srqs.create(SrqSetup { srqn, ring, pd, eqn }) {
            objects.srqs.remove(srqn)?;
            return Err(Refused::NoResources);
        }
        objects.pds.find(pd)?.users += 1;
        *objects.eqs.find(eqn)? += 1;
        created(srqn)
    }

    pub(super) fn destroy_srq(&self, objects: &mut Objects, srqn: u32) -> Reply {
        if objects.srqs.find(srqn)?.users > 0 {
            return Err(Refused::Busy);
        }
        let SrqRecord { pd, eqn, .. } = objects.srqs.remove(srqn)?;
        self.engine.srqs.destroy(srqn);
        self.engine
            .events
            .forget(eqn, |event| matches!(event, Event::SharedQueue { srqn: of, .. } if *of == srqn));
        objects.pds.find(pd)?.users -= 1;
        *objects.eqs.find(eqn)? -= 1;
        DONE
    }

    pub(super) fn arm_srq(&self, worker: usize, command: &ArmSrq) -> Reply {
        let ArmSrq { srqn, limit } = *command;
        let engine = &self.engine;
        match engine.srqs.arm(&mut engine.memory.port(worker), &engine.events, srqn, limit) {
            None => Err(Refused::NoObject),
            Some(false) => Err(Refused::BadParameter),
            Some(true) => DONE,
        }
    }

    pub(super) fn query_srq(&self, srqn: u32) -> Reply {
        let (limit, consumer) = self.engine.srqs.state(srqn).ok_or(Refused::NoObject)?;
        reply(&SrqState { limit, consumer, reserved: 0 })
    }
}
