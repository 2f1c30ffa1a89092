//! Standard input on its way to the command, no faster than the command takes it.

use std::io::Read;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::frame::{Frame, PAYLOAD_MAX};

/// How many bytes may be on their way: a slow reader must not fill queues that drop what does not fit.
#[derive(Debug)]
pub struct Credit {
    left: Mutex<Option<usize>>,
    changed: Condvar,
}

impl Credit {
    /// Starts with `window` bytes.
    pub fn new(window: usize) -> Self {
        Self { left: Mutex::new(Some(window)), changed: Condvar::new() }
    }

    /// The other side has taken `count` bytes.
    pub fn give(&self, count: usize) {
        if let Some(left) = self.lock().as_mut() {
            *left = left.saturating_add(count);
        }
        self.changed.notify_all();
    }

    /// Nobody takes anything any more: whoever waits goes home.
    pub fn close(&self) {
        *self.lock() = None;
        self.changed.notify_all();
    }

    /// Waits until something may be sent; how much, at most `wanted`. None when closed.
    fn take(&self, wanted: usize) -> Option<usize> {
        let mut left = self.lock();
        while *left == Some(0) {
            left = self.changed.wait(left).unwrap_or_else(PoisonError::into_inner);
        }
        let granted = left.as_mut()?;
        let count = (*granted).min(wanted);
        *granted -= count;
        Some(count)
    }

    fn lock(&self) -> MutexGuard<'_, Option<usize>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads `input` to its end and hands it to `send` in frames, and its end too. Returns early when the credit is
/// closed or `send` refuses.
pub fn pump_input(mut input: impl Read, credit: &Credit, mut send: impl FnMut(&Frame) -> bool) {
    let mut buffer = [0u8; PAYLOAD_MAX];
    loop {
        let count = match input.read(&mut buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            // An input that cannot be read has nothing more to say.
            Err(_) => 0,
        };
        if count == 0 {
            send(&Frame::Input(Vec::new()));
            return;
        }
        let mut rest = buffer.get(..count).unwrap_or_default();
        while !rest.is_empty() {
            let Some(granted) = credit.take(rest.len()) else { return };
            let (now, later) = rest.split_at(granted);
            if !send(&Frame::Input(now.to_vec())) {
                return;
            }
            rest = later;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_more_than_the_credit_is_on_its_way() {
        let input = vec![7u8; 10_000];
        let credit = Credit::new(1000);
        let (mut sent, mut largest, mut ended) = (0, 0, false);
        pump_input(input.as_slice(), &credit, |frame| {
            let Frame::Input(bytes) = frame else { return false };
            largest = largest.max(bytes.len());
            sent += bytes.len();
            ended = bytes.is_empty();
            credit.give(bytes.len());
            true
        });
        assert_eq!((sent, largest, ended), (10_000, 1000, true));
    }

    #[test]
    fn a_closed_credit_ends_the_pump() {
        let credit = Credit::new(10);
        credit.close();
        let mut frames = 0;
        pump_input([1u8; 20].as_slice(), &credit, |_| {
            frames += 1;
            true
        });
        assert_eq!(frames, 0);
    }

    #[test]
    fn a_waiting_pump_is_woken_by_the_end() {
        let credit = Credit::new(5);
        std::thread::scope(|scope| {
            scope.spawn(|| pump_input([1u8; 20].as_slice(), &credit, |_| true));
            std::thread::sleep(std::time::Duration::from_millis(20));
            credit.close();
        });
    }
}
