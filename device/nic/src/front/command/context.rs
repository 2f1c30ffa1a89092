//! Contexts and protection domains.

use refault_abi::command::CreateContext;
use refault_bus::Pasid;
use refault_bus::sync::lock;

use super::objects::{Context, Objects, Pd};
use super::reply::{DONE, Refused, Reply, created};
use crate::engine::Engine;
use crate::front::Front;

impl Front {
    pub(super) fn create_context(&self, objects: &mut Objects, command: &CreateContext) -> Reply {
        let pasid = match command.has_pasid {
            0 => None,
            1 => Some(Pasid::new(command.pasid).ok_or(Refused::BadParameter)?),
            _ => return Err(Refused::BadParameter),
        };
        created(objects.contexts.insert(Context { pasid, stopped: false, users: 0 })?)
    }

    /// The last context of a PASID stays until every page request of the PASID is answered: as with a PASID
    /// stop request (PCIe 6.0, 6.20.1), the operating system may forget the process when this is done.
    pub(super) fn destroy_context(&self, objects: &mut Objects, id: u32) -> Reply {
        let Context { pasid, users, .. } = *objects.contexts.find(id)?;
        let last = |pasid| objects.contexts.iter().filter(|other| other.pasid == Some(pasid)).count() == 1;
        let owed = pasid.is_some_and(|pasid| last(pasid) && self.engine.faults.awaits_answer(pasid));
        if users > 0 || owed {
            return Err(Refused::Busy);
        }
        objects.contexts.remove(id);
        DONE
    }

    /// Everything of the context stops: its queue pairs go to ERR, and when this is answered no access of
    /// theirs, or to their memory, is in flight. Page requests that were sent stay open until answered; those that
    /// a worker was about to send are called off.
    pub(super) fn stop_context(&self, id: u32) -> Reply {
        let pasid = {
            let mut objects = lock(&self.objects);
            let context = objects.contexts.find(id)?;
            context.stopped = true;
            context.pasid
        };
        let Engine { memory, qps, .. } = &self.engine;
        qps.iter().filter(|qp| qp.context() == id).for_each(|qp| self.engine.fail_qp(qp, false));
        // Pages are claimed under a guard: afterwards no more are claimed.
        memory.pass_guards();
        self.engine.call_off_faults(id, pasid);
        DONE
    }

    pub(super) fn create_pd(&self, objects: &mut Objects, context: u32) -> Reply {
        let owner = objects.contexts.find(context)?;
        owner.users += 1;
        let pd = objects.pds.insert(Pd { context, users: 0 });
        if pd.is_err() {
            objects.contexts.find(context)?.users -= 1;
        }
        created(pd?)
    }

    pub(super) fn destroy_pd(&self, objects: &mut Objects, id: u32) -> Reply {
        let Pd { context, users } = *objects.pds.find(id)?;
        if users > 0 {
            return Err(Refused::Busy);
        }
        objects.pds.remove(id);
        objects.contexts.find(context)?.users -= 1;
        DONE
    }
}
