//! What the threads of an outlet share.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use refault_bus::wire::{EthernetFrame, Wire};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::queue::Queue;

/// Longest frame that is taken from out there: 9000 bytes in IP, addresses, a VLAN's tag.
pub(crate) const FRAME_MAX: usize = 9018;
/// How long a frame from out there may wait for a wire that is busy.
const PATIENCE: u32 = 50;
const NAP: Duration = Duration::from_micros(100);
/// How often threads look whether the outlet ends.
pub(crate) const TICK: Duration = Duration::from_millis(50);
const TICK_SPEC: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// What the threads of an outlet share.
#[derive(Clone)]
pub(crate) struct Line {
    pub(crate) queue: Arc<Queue>,
    pub(crate) wire: Arc<dyn Wire>,
}

impl Line {
    /// The next frame to send; `None` when the outlet ends.
    pub(crate) fn next(&self) -> Option<Vec<u8>> {
        loop {
            match self.queue.frames().recv_timeout(TICK) {
                Ok(frame) => return Some(frame),
                Err(_) if self.queue.has_ended() => return None,
                Err(_) => {}
            }
        }
    }

    /// Waits until there is something to read, for a moment. `None` when the outlet ends.
    pub(crate) fn wait(&self, from: &impl AsFd) -> Option<bool> {
        if self.queue.has_ended() {
            return None;
        }
        let mut wanted = [PollFd::new(from, PollFlags::IN)];
        Some(poll(&mut wanted, Some(&TICK_SPEC)).is_ok_and(|ready| ready > 0))
    }

    /// Reads frames with `receive` until the outlet ends. What is longer than a frame is dropped, and so is what failed:
    /// the device may be down, or the other side not there yet.
    pub(crate) fn read(&self, from: &impl AsFd, mut receive: impl FnMut(&mut [u8]) -> io::Result<usize>) {
        self.wire.set_signal(true);
        let mut bytes = vec![0; FRAME_MAX + 1];
        while let Some(is_ready) = self.wait(from) {
            if !is_ready {
                continue;
            }
            match receive(&mut bytes) {
                Ok(length) if length <= FRAME_MAX => self.deliver(&bytes[..length]),
                Ok(_) | Err(_) => Queue::count(&self.queue.dropped),
            }
        }
    }

    /// Sends frames with `send` until the outlet ends.
    pub(crate) fn write(&self, mut send: impl FnMut(&[u8]) -> io::Result<usize>) {
        while let Some(frame) = self.next() {
            let is_sent = send(&frame).is_ok();
            Queue::count(if is_sent { &self.queue.sent } else { &self.queue.dropped });
        }
    }

    /// Hands a frame from out there to the wire, which may make it wait for a moment.
    pub(crate) fn deliver(&self, bytes: &[u8]) {
        for _ in 0..PATIENCE {
            if self.wire.is_ready() {
                break;
            }
            thread::sleep(NAP);
        }
        Queue::count(&self.queue.received);
        self.wire.send(EthernetFrame { bytes: bytes.to_vec(), sealed: true });
    }
}
