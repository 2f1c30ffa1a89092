//! Packets that have arrived for a queue pair.

use std::collections::VecDeque;
use std::sync::Mutex;

use refault_bus::sync::lock;

use crate::qp::frames::Frame;

/// Most frames that wait for a queue pair. One more is dropped, as a port does whose buffer is full.
const MOST: usize = 1024;
/// From so many on a sender lets the receiver work first. Above what a requester's window lets through, so that it is the
/// responses to READs that wait.
const CROWDED: usize = 256;

/// Frames that have arrived and not been taken. The lock is a leaf.
#[derive(Debug, Default)]
pub(crate) struct Inbox(Mutex<VecDeque<Frame>>);

impl Inbox {
    /// Adds a frame; `false` if there is no room, and it is dropped.
    pub(crate) fn put(&self, frame: Frame) -> bool {
        let mut frames = lock(&self.0);
        let has_room = frames.len() < MOST;
        if has_room {
            frame.begin_to_wait();
            frames.push_back(frame);
        }
        has_room
    }

    /// The frame that has waited longest.
    pub(crate) fn take(&self) -> Option<Frame> {
        lock(&self.0).pop_front().inspect(Frame::end_wait)
    }

    /// Whether a sender should wait: there is much that the receiver could do.
    pub(crate) fn is_crowded(&self) -> bool {
        lock(&self.0).len() >= CROWDED
    }

    /// Drops all frames, and returns how many there were.
    pub(crate) fn clear(&self) -> usize {
        let frames = std::mem::take(&mut *lock(&self.0));
        frames.iter().for_each(Frame::end_wait);
        frames.len()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::qp::frames::{FrameMemory, Source};

    #[test]
    fn a_receiver_is_crowded_before_its_inbox_is_full() {
        let memory = Arc::new(FrameMemory::new(1));
        let inbox = Inbox::default();
        let put = |source| inbox.put(memory.frame(0, Source::Own(source), None, Vec::new()).expect("room"));
        assert!((0..MOST).all(|number| put(u32::try_from(number).expect("few"))));
        assert!(inbox.is_crowded() && !put(1), "no room");
        let taken = std::iter::from_fn(|| inbox.take()).map(|frame| frame.source);
        assert!(taken.eq((0..1024).map(Source::Own)), "in order");
        assert!(!inbox.is_crowded() && memory.waiting() == 0);
    }
}
