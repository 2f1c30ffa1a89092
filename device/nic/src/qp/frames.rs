//! Frames in flight, and the memory that they take.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::cause::Cause;
use crate::ids::slot_of;

/// Bytes of all frames that are sent and not taken, and of those that are kept for a page.
const MOST: usize = 256 << 20;

/// What frames take: of all together, and of each context that sends some. A context may have as much as it leaves free, so
/// that one whose receivers are all stalled leaves half to the others.
#[derive(Debug)]
pub(crate) struct FrameMemory {
    all: AtomicUsize,
    /// Of the frames that are kept for a page, and the most that ever was.
    held: AtomicUsize,
    held_peak: AtomicUsize,
    by_context: Box<[AtomicUsize]>,
    /// Frames that wait in inboxes.
    waiting: AtomicUsize,
}

impl FrameMemory {
    /// Nothing is taken, by any of so many contexts.
    pub(crate) fn new(contexts: u32) -> Self {
        let zero = || AtomicUsize::new(0);
        let by_context = (0..contexts).map(|_| zero()).collect();
        Self { all: zero(), held: zero(), held_peak: zero(), by_context, waiting: zero() }
    }

    /// How many frames wait in inboxes.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Bytes that are kept for a page.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Most bytes that were kept for a page at one time.
    pub(crate) fn held_peak(&self) -> usize {
        self.held_peak.load(Ordering::Relaxed)
    }

    /// A frame of `context`, unless that has its share.
    pub(crate) fn frame(
        self: &Arc<Self>,
        context: u32,
        source: Source,
        cause: Option<Cause>,
        bytes: Vec<u8>,
    ) -> Option<Frame> {
        let context = slot_of(context);
        let own = self.by_context.get(context as usize)?;
        let size = bytes.capacity();
        let held = own.load(Ordering::Relaxed) + size;
        // Others may take some at the same time: the sum may exceed the limit by a frame of each worker.
        if held > MOST.saturating_sub(self.all.load(Ordering::Relaxed) + size) {
            return None;
        }
        own.fetch_add(size, Ordering::Relaxed);
        self.all.fetch_add(size, Ordering::Relaxed);
        Some(Frame { memory: self.clone(), context, source, cause, held: false, bytes })
    }
}

/// Where a frame came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// From that queue pair of this device. A packet does not say so, but the device knows, and lets none pretend to be
    /// another.
    Own(u32),
    /// From the wire: only addresses tell.
    Wire,
}

/// An Ethernet frame that has arrived. Its ICRC was checked, or not computed.
#[derive(Debug)]
pub(crate) struct Frame {
    memory: Arc<FrameMemory>,
    /// Slot of the sender's context; of what came by the wire, the receiver's.
    context: u32,
    pub(crate) source: Source,
    /// Why it is a refusal, more precisely than a NAK can say.
    pub(crate) cause: Option<Cause>,
    /// It counts among those that are kept for a page.
    held: bool,
    pub(crate) bytes: Vec<u8>,
}

impl Frame {
    /// It waits in an inbox from now on.
    pub(crate) fn begin_to_wait(&self) {
        self.memory.waiting.fetch_add(1, Ordering::Relaxed);
    }

    /// It is taken from its inbox.
    pub(crate) fn end_wait(&self) {
        self.memory.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// It is kept for a page.
    pub(crate) fn hold(&mut self) {
        if !std::mem::replace(&mut self.held, true) {
            let size = self.bytes.len();
            let held = self.memory.held.fetch_add(size, Ordering::Relaxed) + size;
            self.memory.held_peak.fetch_max(held, Ordering::Relaxed);
        }
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        if self.held {
            self.memory.held.fetch_sub(self.bytes.len(), Ordering::Relaxed);
        }
        let size = self.bytes.capacity();
        self.memory.all.fetch_sub(size, Ordering::Relaxed);
        self.memory.by_context[self.context as usize].fetch_sub(size, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_has_what_it_leaves_free_and_gets_it_back() {
        let memory = Arc::new(FrameMemory::new(3));
        let take = |context| memory.frame(context, Source::Wire, None, Vec::with_capacity(1 << 20));
        let count = |context| std::iter::from_fn(|| take(context)).collect::<Vec<_>>();
        let first = count(0);
        assert_eq!(first.len(), MOST >> 21, "half");
        assert_eq!(count(1).len(), MOST >> 22, "half of the rest, given back at once");
        drop(first);
        assert_eq!(count(2).len(), MOST >> 21, "as if there had been no other");
        assert_eq!(memory.all.load(Ordering::Relaxed), 0);
        assert!(take(3).is_none(), "no such context");
    }

    #[test]
    fn what_is_kept_is_counted_once_and_the_most_of_it_remembered() {
        let memory = Arc::new(FrameMemory::new(1));
        let frame = |size| memory.frame(0, Source::Wire, None, vec![0; size]).expect("room");
        let (mut first, mut second) = (frame(100), frame(30));
        first.hold();
        second.hold();
        first.hold();
        drop(first);
        frame(50).hold();
        assert_eq!((memory.held_peak(), memory.held.load(Ordering::Relaxed)), (130, 30));
    }
}
