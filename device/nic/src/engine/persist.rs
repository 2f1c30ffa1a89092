//! FLUSH (InfiniBand 1.5, annex A19): makes what was written to a region globally visible, or persistent.
//!
//! Memory that this device writes is visible at once, so global visibility needs nothing but order. Persistence takes
//! as long as the host's storage: the range is translated, and faulted in, under the guard like that of a read, a few
//! pages in each turn; then the queue pair is parked while a worker that holds no guard writes the memory out.

use std::ops::ControlFlow;

use refault_bus::bits::low_u32;
use refault_bus::dma::GpaRange;

use super::Engine;
use super::outcome::{Outcome, Refusal, Step, step};
use super::responder::Delivery;
use super::turn::Turn;
use crate::cause::Cause;
use crate::memory::resolve::Resolve;
use crate::qp::answer::{Half, PageAnswer, Waiter};
use crate::qp::requester::Message;
use crate::qp::stall::Wait;
use crate::verbs::{End, Flush, MAX_MESSAGE};

/// What a page that was looked up costs of a turn, in bytes, however large it is: as much as copying a small one.
const PAGE_COST: u32 = 4 << 10;

impl Delivery<'_, '_> {
    /// One step of a FLUSH.
    pub(super) fn flush(&mut self, flush: Flush) -> Step {
        if !self.ends.message.checked && flush.whole_region {
            self.name_whole_region()?;
        }
        let piece = self.ends.message.request.remote();
        let range = self.ends.remote(&piece, false);
        self.check_remote(&range)?;
        let Message { done, unwritten, request, .. } = &mut *self.ends.message;
        let mut cursor = range.at(*done);
        let (most, mut pages, mut over) = ((self.room / PAGE_COST).max(1), 0, false);
        while *done < request.length && pages < most && (pages == 0 || !self.port.is_wanted()) {
            let extent = match cursor.extent(self.port) {
                Ok(extent) => extent,
                Err(stopped) if pages == 0 => return ControlFlow::Break(stopped.into()),
                Err(_) => break,
            };
            if flush.persistent {
                let found = self.port.fabric().memory.persistent_region(extent.gpa, extent.bytes);
                let found = step(found.ok_or(Refusal::Access(Cause::NotPersistent)))?;
                // A queue pair waits for one region at a time.
                over = *unwritten.get_or_insert(found) != found;
                if over {
                    break;
                }
            }
            cursor.advance(extent.bytes);
            *done += low_u32(extent.bytes);
            pages += 1;
        }
        if let Some(region) = unwritten.filter(|_| over || *done == request.length) {
            return ControlFlow::Break(Outcome::Persist(region));
        }
        if *done < request.length {
            return ControlFlow::Break(Outcome::Moved(pages * PAGE_COST));
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

impl Turn<'_, '_> {
    /// Parks the requester until this region, which has parts of its FLUSH, is persistent.
    pub(super) fn wait_for_persistence(&mut self, region: GpaRange) {
        let ticket = self.engine.faults.ticket();
        // If it fails, the responder's memory has failed.
        self.requester.stall.trouble.end = End::Remote;
        self.requester.stall.wait = Wait::Persistence { ticket };
        let waiter = Waiter { qpn: self.requester.setup.qpn, half: Half::Requester, ticket };
        self.engine.workers.persist(waiter, region);
    }
}

impl Engine {
    /// Writes out the region whose turn it is, and wakes all that wait for it. No lock is held, because this may take
    /// long.
    pub(crate) fn persist(&self) {
        let Some((region, waiters)) = self.workers.storage.next() else { return };
        let answer = match self.memory.fabric.memory.persist(&[region]) {
            Ok(()) => PageAnswer::Retry,
            Err(error) => {
                if let Some(number) = self.memory.fabric.ring_warnings.admit() {
                    tracing::warn!(number, %error, "persistent memory cannot be written out");
                }
                PageAnswer::Failed(Cause::NotPersistent)
            }
        };
        self.workers.wake(&self.qps, waiters.into_iter().map(|waiter| (waiter, answer)));
    }
}
