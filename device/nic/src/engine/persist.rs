//! FLUSH (InfiniBand 1.5, annex A19): makes what was written to a region globally visible, or persistent.
//!
//! Memory that this device writes is visible at once, so global visibility needs nothing but order. Persistence takes
//! as long as the host's storage: the range is translated, and faulted in, under the guard like that of a read; then
//! the queue pair is parked while a worker that holds no guard writes the memory out.

use std::ops::ControlFlow;

use refault_bus::bits::low_u32;
use refault_bus::dma::GpaRange;

use super::Engine;
use super::outcome::{Outcome, Refusal, Step, step};
use super::responder::Delivery;
use super::turn::Turn;
use crate::cause::Cause;
use crate::memory::access::Extent;
use crate::memory::resolve::Resolve;
use crate::qp::answer::{Half, PageAnswer, Waiter};
use crate::qp::requester::Wait;
use crate::schedule::Persist;
use crate::verbs::{End, Flush, MAX_MESSAGE};

/// Most bytes and most pieces of memory of one step.
const STEP: u32 = 64 << 20;
const PIECES: usize = 256;

impl Delivery<'_, '_> {
    /// One step of a FLUSH.
    pub(super) fn flush(&mut self, flush: Flush) -> Step {
        if !self.ends.message.checked && flush.whole_region {
            self.name_whole_region()?;
        }
        let piece = self.ends.message.request.remote();
        let range = self.ends.remote(&piece, false);
        self.check_remote(&range)?;
        let (done, length) = (self.ends.message.done, self.ends.message.request.length);
        let mut cursor = range.at(done);
        let (mut bytes, mut extents) = (0, Vec::new());
        while bytes < (length - done).min(STEP) && (bytes == 0 || !self.port.is_wanted()) {
            let extent = match cursor.extent(self.port) {
                Ok(extent) => extent,
                Err(stopped) if bytes == 0 => return ControlFlow::Break(stopped.into()),
                Err(_) => break,
            };
            if flush.persistent {
                if !self.port.fabric().memory.is_persistent(extent.gpa, extent.bytes) {
                    return ControlFlow::Break(Refusal::Access(Cause::NotPersistent).into());
                }
                if !add(&mut extents, extent) {
                    break;
                }
            }
            cursor.advance(extent.bytes);
            bytes += low_u32(extent.bytes);
        }
        if flush.persistent && bytes > 0 {
            return ControlFlow::Break(Outcome::Persist(bytes, extents.into()));
        }
        self.ends.message.done += bytes;
        if self.ends.message.done < length {
            return ControlFlow::Break(Outcome::Moved(bytes));
        }
        ControlFlow::Continue(())
    }

    /// A FLUSH of a whole region becomes one of the region's range.
    fn name_whole_region(&mut self) -> Step {
        let request = &mut self.ends.message.request;
        let region = self.port.range_of(request.rkey, self.ends.responder.setup.pd);
        let (start, length) = step(region.ok_or(Refusal::Access(Cause::Key)))?;
        if length > MAX_MESSAGE {
            return ControlFlow::Break(Refusal::Access(Cause::Bounds).into());
        }
        request.remote_addr = start;
        request.length = low_u32(length);
        ControlFlow::Continue(())
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

impl Turn<'_, '_> {
    /// Parks the requester until these parts of its FLUSH are persistent.
    pub(super) fn wait_for_persistence(&mut self, bytes: u32, extents: &[Extent]) {
        let ticket = self.engine.faults.ticket();
        // If it fails, the responder's memory has failed.
        self.requester.trouble.end = End::Remote;
        self.requester.wait = Wait::Persistence { ticket, bytes };
        let range = |extent: &Extent| GpaRange { base: extent.gpa, len: extent.bytes };
        let ranges: Vec<GpaRange> = extents.iter().map(range).collect();
        self.engine.workers.persist(Persist { qpn: self.requester.setup.qpn, ticket, ranges });
    }
}

impl Engine {
    /// Writes memory out, and wakes the queue pair that waits for it. No lock is held, because this may take long.
    pub(crate) fn persist(&self, task: Persist) {
        let Persist { qpn, ticket, ranges } = task;
        let answer = match self.memory.fabric.memory.persist(&ranges) {
            Ok(()) => PageAnswer::Retry,
            Err(error) => {
                if let Some(number) = self.memory.fabric.ring_warnings.admit() {
                    tracing::warn!(number, %error, "persistent memory cannot be written out");
                }
                PageAnswer::Failed(Cause::NotPersistent)
            }
        };
        self.workers.wake(&self.qps, [(Waiter { qpn, half: Half::Requester, ticket }, answer)]);
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
