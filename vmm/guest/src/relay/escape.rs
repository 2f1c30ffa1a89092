//! The escape key of a guest that has the keyboard: Ctrl-A, then a letter.

use std::io::{self, Read, Write};

use refault_os::message::Stderr;

/// Ctrl-A.
const ESCAPE: u8 = 0x01;
/// In raw mode a line feed does not return to the first column.
const HELP: &str = "\r\nCtrl-A x  ends the guest\r\nCtrl-A h  prints this\r\nCtrl-A Ctrl-A  sends Ctrl-A\r\n";

/// A reader that filters escape sequences out of the keys for the guest.
pub struct Escape<R> {
    keys: R,
    escaped: bool,
    end: Box<dyn Fn() + Send>,
}

impl<R> Escape<R> {
    /// Filters `keys`; calls `end` when the user asks to end the guest.
    pub fn new(keys: R, end: impl Fn() + Send + 'static) -> Self {
        Self { keys, escaped: false, end: Box::new(end) }
    }

    /// The key that the guest gets for one key pressed, if any.
    fn key(&mut self, key: u8) -> Option<u8> {
        if !std::mem::take(&mut self.escaped) {
            self.escaped = key == ESCAPE;
            return (!self.escaped).then_some(key);
        }
        match key {
            ESCAPE => return Some(ESCAPE),
            b'x' | b'X' => (self.end)(),
            _ => drop(Stderr.write_all(HELP.as_bytes())),
        }
        None
    }
}

impl<R: Read> Read for Escape<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.keys.read(buffer)?;
            let mut kept = 0;
            for at in 0..count {
                let Some(key) = buffer.get(at).copied().and_then(|key| self.key(key)) else { continue };
                if let Some(place) = buffer.get_mut(kept) {
                    *place = key;
                }
                kept += 1;
            }
            // Zero bytes would mean the end of the input.
            if kept > 0 || count == 0 {
                return Ok(kept);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn only_escapes_are_kept_from_the_guest() {
        let ends = Arc::new(AtomicU32::new(0));
        let count = ends.clone();
        let keys = &b"\x01ab\x01\x01c\x01xd\x01"[..];
        let mut escape = Escape::new(keys, move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        let mut seen = Vec::new();
        escape.read_to_end(&mut seen).expect("never fails");
        assert_eq!((&*seen, ends.load(Ordering::Relaxed)), (&b"b\x01cd"[..], 1));
    }
}
