//! Packets on their way to a queue pair.

use std::collections::VecDeque;
use std::sync::Mutex;

use refault_bus::sync::lock;

use crate::qp::frames::Frame;

/// Most frames that wait for a queue pair. One more is dropped, as a port does whose buffer is full.
const MOST: usize = 1024;
/// From so many on a sender lets the receiver work first. Above what a requester's window lets through, so that it is the
/// responses to READs that wait.
const CROWDED: usize = 256;

/// What has arrived for a queue pair. The lock is a leaf.
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

    /// The next frame.
    pub(crate) fn take(&self) -> Option<Frame> {
        lock(&self.0).pop_front().inspect(Frame::end_wait)
    }

    /// Whether a sender should wait.
    pub(crate) fn is_crowded(&self) -> bool {
        lock(&self.0).len() >= CROWDED
    }

    /// Drops all frames.
    pub(crate) fn clear(&self) {
        std::mem::take(&mut *lock(&self.0)).iter().for_each(Frame::end_wait);
    }
}
