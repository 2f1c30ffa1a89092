//! Packets on their way to a queue pair.

use std::collections::VecDeque;
use std::sync::Mutex;

use refault_bus::sync::lock;

use crate::qp::frames::Frame;

/// Most frames that wait for a queue pair. One more is dropped, as a port does whose buffer is full.
const MOST: usize = 1024;
/// The same with those that are still on the wire, if packets take time.
const MOST_ON_THE_WIRE: usize = 1 << 16;
/// From so many on a sender lets the receiver work first. Above what a requester's window lets through, so that it is the
/// responses to READs that wait.
const CROWDED: usize = 256;

/// What is on its way to a queue pair, in the order of its arrival. The lock is a leaf.
#[derive(Debug, Default)]
pub(crate) struct Inbox(Mutex<VecDeque<Frame>>);

impl Inbox {
    /// Adds a frame at `now_ns`; `false` if there is no room, and it is dropped.
    pub(crate) fn put(&self, frame: Frame, now_ns: u64) -> bool {
        let mut frames = lock(&self.0);
        let has_room =
            frames.len() < MOST || frames.len() < MOST_ON_THE_WIRE && arrived(&frames, now_ns) < MOST;
        if has_room {
            frame.begin_to_wait();
            // Requests and responses may take turns on the wire; those of one kind stay in order.
            let place = frames.iter().rposition(|other| other.due_ns <= frame.due_ns).map_or(0, |at| at + 1);
            frames.insert(place, frame);
        }
        has_room
    }

    /// The next frame that has arrived.
    pub(crate) fn take(&self, now_ns: u64) -> Option<Frame> {
        let mut frames = lock(&self.0);
        if frames.front()?.due_ns > now_ns {
            return None;
        }
        frames.pop_front().inspect(Frame::end_wait)
    }

    /// When the next frame arrives or has arrived.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        lock(&self.0).front().map(|frame| frame.due_ns)
    }

    /// Whether a sender should wait: there is much that the receiver could do.
    pub(crate) fn is_crowded(&self, now_ns: u64) -> bool {
        let frames = lock(&self.0);
        frames.len() >= CROWDED && frames[CROWDED - 1].due_ns <= now_ns
    }

    /// Drops all frames, and returns how many there were.
    pub(crate) fn clear(&self) -> usize {
        let frames = std::mem::take(&mut *lock(&self.0));
        frames.iter().for_each(Frame::end_wait);
        frames.len()
    }
}

/// How many have arrived.
fn arrived(frames: &VecDeque<Frame>, now_ns: u64) -> usize {
    frames.partition_point(|frame| frame.due_ns <= now_ns)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::qp::frames::{FrameMemory, Source};

    #[test]
    fn frames_are_taken_when_they_are_due_and_in_that_order() {
        let memory = Arc::new(FrameMemory::new(1));
        let inbox = Inbox::default();
        for (source, due_ns) in [(1, 30), (2, 10), (3, 30), (4, 20)] {
            inbox.put(memory.frame(0, Source::Own(source), None, (Vec::new(), due_ns)).expect("room"), 0);
        }
        assert_eq!((inbox.take(9).map(|frame| frame.source), inbox.next_ns()), (None, Some(10)));
        let order: Vec<_> = std::iter::from_fn(|| inbox.take(30)).map(|frame| frame.source).collect();
        assert_eq!(order, [2, 4, 1, 3].map(Source::Own));
    }

    #[test]
    fn a_receiver_is_crowded_by_what_has_arrived_and_not_by_what_is_on_the_wire() {
        let memory = Arc::new(FrameMemory::new(1));
        let inbox = Inbox::default();
        for _ in 0..MOST {
            assert!(inbox.put(memory.frame(0, Source::Wire, None, (Vec::new(), 10)).expect("room"), 0));
        }
        assert!(!inbox.is_crowded(9) && inbox.is_crowded(10));
        assert!(
            inbox.put(memory.frame(0, Source::Wire, None, (Vec::new(), 10)).expect("room"), 9),
            "on the wire"
        );
        assert!(
            !inbox.put(memory.frame(0, Source::Wire, None, (Vec::new(), 10)).expect("room"), 10),
            "no room"
        );
    }
}
