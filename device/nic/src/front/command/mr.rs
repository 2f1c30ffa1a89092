//! Memory regions.

use refault_abi::codes::{ACCESS_LOCAL_WRITE, ACCESS_REMOTE_ATOMIC, ACCESS_REMOTE_WRITE, AccessRights};
use refault_abi::command::{
    CreateMr, FAULT_REFUSED, FAULT_RESOLVED, InvalidateMr, MR_FAST, MR_ODP, MR_PASID, MR_PINNED, ResumeFault,
};
use refault_bus::sync::lock;

use super::objects::{MrRecord, Objects};
use super::reply::{DONE, Refused, Reply, created};
use crate::cause::Cause;
use crate::front::Front;
use crate::memory::on_demand::OnDemandTable;
use crate::memory::page_table::Pages;
use crate::memory::region::{Backing, Region};
use crate::qp::answer::PageAnswer;
use crate::verbs::SUPPORTED_RIGHTS;

/// Bytes before the start of an on-demand region that its table may cover: less than a large page.
const MOST_BEFORE: u32 = 2 << 20;

impl Front {
    pub(super) fn create_mr(&self, worker: usize, objects: &mut Objects, command: &CreateMr) -> Reply {
        let (id, context) = objects.context_of(command.pd)?;
        let CreateMr { start, length, access, pd, .. } = *command;
        let remote_change = access.intersects(ACCESS_REMOTE_WRITE | ACCESS_REMOTE_ATOMIC);
        let sound =
            SUPPORTED_RIGHTS.contains(access) && (!remote_change || access.contains(ACCESS_LOCAL_WRITE));
        // The end may be 2^64 itself.
        let fits = length == 0 || start.checked_add(length - 1).is_some();
        if !sound || !fits {
            return Err(Refused::BadParameter);
        }
        let backing = match command.mode {
            MR_PINNED => self.pinned(worker, command)?,
            MR_FAST => self.fast(command)?,
            MR_PASID if context.stopped => return Err(Refused::BadState),
            MR_PASID => Backing::Process(context.pasid.ok_or(Refused::BadParameter)?),
            MR_ODP if context.stopped => return Err(Refused::BadState),
            MR_ODP => self.on_demand(worker, objects, id, command)?,
            _ => return Err(Refused::BadParameter),
        };
        let eqn = match backing {
            Backing::OnDemand { eqn, .. } => Some(eqn),
            Backing::Pinned { .. } | Backing::Process(_) => None,
        };
        let key = objects.mrs.insert(MrRecord { pd, eqn })?;
        let is_fast = command.mode == MR_FAST;
        let region = Region { start, length, backing, key, pd, access, revoked: is_fast, is_fast };
        if !self.engine.memory.regions.put(region) {
            objects.mrs.remove(key)?;
            return Err(Refused::NoResources);
        }
        objects.pds.find(pd)?.users += 1;
        if let Some(eqn) = eqn {
            *objects.eqs.find(eqn)? += 1;
        }
        created(key)
    }

    fn on_demand(
        &self,
        worker: usize,
        objects: &mut Objects,
        context: u32,
        command: &CreateMr,
    ) -> Result<Backing, Refused> {
        let CreateMr { table, first_offset, fault_eqn: eqn, .. } = command;
        objects.eqs.find(*eqn)?;
        let identity = self.engine.memory.new_identity();
        let table = OnDemandTable::check(table, identity).ok_or(Refused::BadParameter)?;
        if *first_offset >= MOST_BEFORE {
            return Err(Refused::BadParameter);
        }
        self.engine.memory.port(worker).load_u64(None, table.root()).map_err(|_| Refused::BadMemory)?;
        let shift = u64::from(*first_offset).wrapping_sub(command.start);
        Ok(Backing::OnDemand { table, shift, eqn: *eqn, context })
    }

    fn pinned(&self, worker: usize, command: &CreateMr) -> Result<Backing, Refused> {
        let CreateMr { length, table, first_offset, .. } = command;
        let bytes = u64::from(*first_offset).checked_add(*length).ok_or(Refused::BadParameter)?;
        if table.page_shift >= 32 || u64::from(*first_offset) >> table.page_shift != 0 {
            return Err(Refused::BadParameter);
        }
        let write = command.access.contains(ACCESS_LOCAL_WRITE);
        let ends = [0, bytes.saturating_sub(1)];
        // From address zero on, it is for a kernel that names memory by DMA addresses: what can be reached changes.
        let is_all = table.levels == 0 && table.root == 0;
        let ends = if is_all { &[][..] } else { &ends[..] };
        let pages = self.reachable_pages(worker, table, bytes, ends, write)?;
        Ok(Backing::Pinned { pages, shift: u64::from(*first_offset).wrapping_sub(command.start) })
    }

    /// Tables that are filled later: nothing is read now.
    fn fast(&self, command: &CreateMr) -> Result<Backing, Refused> {
        let CreateMr { start, length, first_offset, access, table, .. } = command;
        let is_empty = (*start, *length, *first_offset, *access) == (0, 0, 0, AccessRights::NONE);
        let pages = Pages::check(table, self.engine.memory.new_identity()).ok_or(Refused::BadParameter)?;
        if !is_empty || table.levels == 0 || table.page_shift != 12 {
            return Err(Refused::BadParameter);
        }
        Ok(Backing::Pinned { pages, shift: 0 })
    }

    /// When this is answered no access through the region is in flight.
    pub(super) fn destroy_mr(&self, key: u32) -> Reply {
        let MrRecord { pd, eqn } = *lock(&self.objects).mrs.find(key)?;
        // The key of a region for fast registration may be another variant by now.
        self.engine.memory.regions.empty_slot(key);
        self.engine.memory.forget_region(key);
        let mut objects = lock(&self.objects);
        objects.mrs.remove(key)?;
        objects.pds.find(pd)?.users -= 1;
        if let Some(eqn) = eqn {
            self.engine.forget_faults(key, eqn);
            *objects.eqs.find(eqn)? -= 1;
        }
        DONE
    }

    /// When this is answered no access through the region is in flight, and none will succeed.
    pub(super) fn revoke_mr(&self, key: u32) -> Reply {
        let revoked = |region| Some(Region { revoked: true, ..region });
        let region = self.engine.memory.regions.update(key, revoked).ok_or(Refused::NoObject)?;
        self.engine.memory.forget_region(key);
        if let Backing::OnDemand { eqn, .. } = region.backing {
            self.engine.forget_faults(key, eqn);
        }
        DONE
    }

    /// When this is answered no access is in flight that used what the region's table said of the range before.
    pub(super) fn invalidate_mr(&self, command: &InvalidateMr) -> Reply {
        let region = self.engine.memory.regions.find(command.key).ok_or(Refused::NoObject)?;
        let Backing::OnDemand { table, shift, .. } = region.backing else {
            return Err(Refused::BadParameter);
        };
        let end = |start: u64, length: u64| start.saturating_add(length.saturating_sub(1));
        let first = command.start.max(region.start);
        let last = end(command.start, command.length).min(end(region.start, region.length));
        if command.length == 0 || first > last {
            return DONE;
        }
        self.engine.memory.invalidate_on_demand(command.key, &table, (first, last), shift);
        DONE
    }

    /// The driver's answer to a page fault.
    pub(super) fn resume_fault(&self, command: &ResumeFault) -> Reply {
        let answer = match command.answer {
            FAULT_RESOLVED => PageAnswer::Retry,
            FAULT_REFUSED => PageAnswer::Failed(Cause::PageRefused),
            _ => return Err(Refused::BadParameter),
        };
        if self.engine.answer_fault(command.token, answer) { DONE } else { Err(Refused::NoObject) }
    }
}
