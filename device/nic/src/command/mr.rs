//! Memory regions.

use refault_abi::codes::*;
use refault_abi::command::{CreateMr, MR_PASID, MR_PINNED};

use super::objects::Objects;
use super::{DONE, Refused, Reply, created};
use crate::Nic;
use crate::region::{Backing, Region};

const RIGHTS: u32 = ACCESS_LOCAL_WRITE | ACCESS_REMOTE_WRITE | ACCESS_REMOTE_READ | ACCESS_REMOTE_ATOMIC;

impl Nic {
    pub(super) fn create_mr(&self, worker: usize, objects: &mut Objects, command: &CreateMr) -> Reply {
        let (_, context) = objects.context_of(command.pd)?;
        let CreateMr { start, length, access, pd, .. } = *command;
        let remote_change = access & (ACCESS_REMOTE_WRITE | ACCESS_REMOTE_ATOMIC) != 0;
        let sound = access & !RIGHTS == 0 && (!remote_change || access & ACCESS_LOCAL_WRITE != 0);
        // The end may be 2^64 itself.
        let fits = length == 0 || start.checked_add(length - 1).is_some();
        if !sound || !fits {
            return Err(Refused::BadParameter);
        }
        let backing = match command.mode {
            MR_PINNED => self.pinned(worker, command)?,
            MR_PASID if context.stopped => return Err(Refused::BadState),
            MR_PASID => Backing::Process(context.pasid.ok_or(Refused::BadParameter)?),
            _ => return Err(Refused::BadParameter),
        };
        let key = objects.mrs.insert(pd)?;
        if !self.regions.put(Region { start, length, backing, key, pd, access, revoked: false }) {
            objects.mrs.remove(key)?;
            return Err(Refused::NoResources);
        }
        objects.pds.find(pd)?.users += 1;
        created(key)
    }

    fn pinned(&self, worker: usize, command: &CreateMr) -> Result<Backing, Refused> {
        let CreateMr { length, table, first_offset, .. } = command;
        let bytes = u64::from(*first_offset).checked_add(*length).ok_or(Refused::BadParameter)?;
        if table.page_shift >= 32 || u64::from(*first_offset) >> table.page_shift != 0 {
            return Err(Refused::BadParameter);
        }
        let write = command.access & ACCESS_LOCAL_WRITE != 0;
        let ends = [0, bytes.saturating_sub(1)];
        let pages = self.reachable_pages(worker, table, bytes, &ends, write)?;
        Ok(Backing::Pinned { pages, shift: u64::from(*first_offset).wrapping_sub(command.start) })
    }

    /// When this is answered no access through the region is under way.
    pub(super) fn destroy_mr(&self, objects: &mut Objects, key: u32) -> Reply {
        let pd = objects.mrs.remove(key)?;
        self.regions.update(key, |_| None);
        self.pass_guards(|shard| shard.regions.forget(key));
        objects.pds.find(pd)?.users -= 1;
        DONE
    }

    /// When this is answered no access through the region is under way, and none will succeed.
    pub(super) fn revoke_mr(&self, key: u32) -> Reply {
        let revoked = |region| Some(Region { revoked: true, ..region });
        self.regions.update(key, revoked).ok_or(Refused::NoObject)?;
        self.pass_guards(|shard| shard.regions.forget(key));
        DONE
    }
}
