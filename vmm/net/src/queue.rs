//! Frames on their way out.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use refault_bus::wire::EthernetFrame;
use refault_roce::{FlushIcrc, frame};

/// Frames that wait to be sent; one more is dropped.
const MOST: usize = 1024;
/// From so many on the wire is said to be busy.
const BUSY: usize = MOST / 2;

/// Frames to send, and counters of those already handled.
#[derive(Debug)]
pub(crate) struct Queue {
    sender: Sender<Vec<u8>>,
    receiver: Receiver<Vec<u8>>,
    pub(crate) sent: AtomicU64,
    pub(crate) received: AtomicU64,
    pub(crate) dropped: AtomicU64,
    /// The near end gives a signal.
    carrier: AtomicBool,
    ended: AtomicBool,
}

impl Queue {
    pub(crate) fn new() -> Self {
        let (sender, receiver) = bounded(MOST);
        let none = || AtomicU64::new(0);
        Self {
            sender,
            receiver,
            sent: none(),
            received: none(),
            dropped: none(),
            carrier: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        }
    }

    /// Takes a frame, its checksums computed, or drops it.
    pub(crate) fn put(&self, mut frame: EthernetFrame) {
        if !frame.sealed {
            // What is no packet of RoCE has no checksum that is missing.
            let _ = frame::seal(&mut frame.bytes, FlushIcrc::Standard);
        }
        match self.sender.try_send(frame.bytes) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => Self::count(&self.dropped),
        }
    }

    pub(crate) fn has_room(&self) -> bool {
        self.sender.len() < BUSY
    }

    /// Where frames are taken.
    pub(crate) fn frames(&self) -> &Receiver<Vec<u8>> {
        &self.receiver
    }

    pub(crate) fn set_carrier(&self, up: bool) {
        self.carrier.store(up, Ordering::Release);
    }

    pub(crate) fn has_carrier(&self) -> bool {
        self.carrier.load(Ordering::Acquire)
    }

    /// The outlet ends.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Drops what waits.
    pub(crate) fn clear(&self) {
        while self.receiver.try_recv().is_ok() {
            Self::count(&self.dropped);
        }
    }

    pub(crate) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
