//! FLUSH: what was written to a region is visible, or survives the machine.
//!
//! Memory of this device is visible to everybody as soon as it is written, so the first is a matter of order alone.
//! The second takes as long as the host's disk: the range is translated, and faulted, like a read, under the
//! guard; then the queue pair is parked while a worker of its own, which holds no guard, has it written out.

use std::sync::atomic::Ordering;

use refault_abi::codes::{FLUSH_PERSISTENT, FLUSH_RANGE};

use refault_bus::dma::GpaRange;

use super::requester::{Outcome, Waited};
use super::responder::{Delivery, Refusal};
use super::{Task, Work};
use crate::Nic;
use crate::cause::Cause;
use crate::memory::list::End;
use crate::memory::port::{Extent, Port};
use crate::qp::answer::PageAnswer;
use crate::qp::{Requester, Wait};
use crate::queue::send::MAX_MESSAGE;

/// Most bytes and most pieces of memory of one step.
const STEP: u32 = 64 << 20;
const PIECES: usize = 256;

/// Memory that is to survive the machine, and who waits for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Persist {
    qpn: u32,
    ticket: u64,
    ranges: Vec<GpaRange>,
}

impl Delivery<'_> {
    /// One step of a FLUSH.
    pub(super) fn flush(&mut self, port: &mut Port<'_>) -> Result<Outcome, Outcome> {
        if !self.message.checked && self.message.wqe.imm & FLUSH_RANGE == 0 {
            self.name_whole_region(port)?;
        }
        let piece = self.remote_piece();
        let range = self.remote(std::slice::from_ref(&piece), false);
        self.check_remote(port, &range)?;
        let persistent = self.message.wqe.imm & FLUSH_PERSISTENT != 0;
        let (done, length) = (self.message.done, self.message.length);
        let mut cursor = range.at(done);
        let (mut bytes, mut extents) = (0, Vec::new());
        while bytes < (length - done).min(STEP) && (bytes == 0 || !port.is_wanted()) {
            let extent = match cursor.extent(port) {
                Ok(extent) => extent,
                Err(stopped) if bytes == 0 => return Err(Outcome::Stopped(stopped)),
                Err(_) => break,
            };
            if persistent && !port.fabric().memory.is_persistent(extent.gpa, extent.bytes) {
                return Err(Outcome::Refused(Refusal::Access(Cause::NotPersistent)));
            }
            if persistent && !add(&mut extents, extent) {
                break;
            }
            cursor.advance(extent.bytes);
            bytes += extent.bytes as u32;
        }
        if persistent && bytes > 0 {
            return Ok(Outcome::Persist(bytes, extents.into()));
        }
        self.message.done += bytes;
        Ok(if self.message.done < length { Outcome::Moved(bytes) } else { Outcome::Done })
    }

    /// A FLUSH of a whole region is one of the range that the region is.
    fn name_whole_region(&mut self, port: &Port<'_>) -> Result<(), Outcome> {
        let refused = |cause| Outcome::Refused(Refusal::Access(cause));
        let region = port.regions.find(self.message.wqe.rkey);
        let region = region.filter(|region| region.pd == self.responder.setup.pd);
        let region = region.ok_or_else(|| refused(Cause::Key))?;
        if region.length > MAX_MESSAGE {
            return Err(refused(Cause::Bounds));
        }
        self.message.wqe.remote_addr = region.start;
        self.message.length = region.length as u32;
        Ok(())
    }
}

/// Adds a piece of memory, joined to the one before if they are neighbours; `false` if there is no room.
fn add(extents: &mut Vec<Extent>, extent: Extent) -> bool {
    if let Some(last) = extents.last_mut()
        && last.after(last.bytes) == extent.gpa
    {
        last.bytes += extent.bytes;
        return true;
    }
    let room = extents.len() < PIECES;
    if room {
        extents.push(extent);
    }
    room
}

impl Nic {
    /// Parks the requester until what it found of its FLUSH survives the machine.
    pub(super) fn wait_for_durable(&self, requester: &mut Requester, bytes: u32, extents: &[Extent]) {
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        // If it fails, it is the region's memory that failed.
        requester.trouble.end = End::Remote;
        requester.wait = Wait::Durable { ticket, bytes };
        let ranges = extents.iter().map(|extent| GpaRange { base: extent.gpa, len: extent.bytes }).collect();
        let task = Persist { qpn: requester.setup.qpn, ticket, ranges };
        // The receiver lives as long as the NIC.
        let _ = self.persister.0.send(Work(Task::Persist(task)));
    }

    /// What became of the wait: if it is over, so many bytes more are done with.
    pub(super) fn durable(&self, requester: &mut Requester, waited: Waited, bytes: u32) -> Waited {
        if let (Waited::Over, Some(message)) = (waited, &mut requester.active) {
            message.done += bytes;
        }
        waited
    }

    /// Has memory written out, and tells who waits. No lock is held: it takes as long as it takes.
    pub(super) fn persist(&self, task: Persist) {
        let Persist { qpn, ticket, ranges } = task;
        let answer = match self.fabric.memory.persist(&ranges) {
            Ok(()) => PageAnswer::LookAgain,
            Err(error) => {
                if let Some(number) = self.fabric.ring_warnings.admit() {
                    tracing::warn!(number, %error, "persistent memory cannot be written out");
                }
                PageAnswer::Failed(Cause::NotPersistent)
            }
        };
        if let Some(qp) = self.qps.find(qpn) {
            qp.leave_answer(ticket, answer);
            self.schedule(qp);
        }
    }
}

#[cfg(test)]
mod tests {
    use refault_bus::Gpa;

    use super::*;

    #[test]
    fn neighbours_are_one_piece_and_pieces_are_bounded() {
        let mut extents = Vec::new();
        let page = |number: u64| Extent { gpa: Gpa(number << 12), bytes: 0x1000 };
        assert!(add(&mut extents, page(1)) && add(&mut extents, page(2)) && add(&mut extents, page(9)));
        assert_eq!(extents, [Extent { gpa: Gpa(0x1000), bytes: 0x2000 }, page(9)]);
        let added = (0..1000).filter(|&number| add(&mut extents, page(20 + 2 * number))).count();
        assert_eq!((added, extents.len()), (PIECES - 2, PIECES));
    }
}
