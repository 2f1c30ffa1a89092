//! Messages to the user on standard error. Text from the guest in them cannot move the cursor or change colours.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::output_queue::OutputQueue;
use super::terminal;

/// The queue, once there was a message. Errors are ignored: a closed standard error is no reason to stop.
static ERRORS: Mutex<Option<OutputQueue>> = Mutex::new(None);
static LIMITED: AtomicBool = AtomicBool::new(false);

/// Prints steps with the seconds elapsed since it was created.
#[derive(Clone, Debug)]
pub struct Progress {
    subject: String,
    start: Instant,
}

impl Progress {
    /// Starts the clock; every line begins with `subject`.
    pub fn new(subject: &str) -> Self {
        Self { subject: subject.to_string(), start: Instant::now() }
    }

    /// Prints one line with the elapsed seconds.
    pub fn step(&self, text: &str) {
        let seconds = self.start.elapsed().as_secs();
        print(&format!("{}: [{seconds:>3} s] {}\n", self.subject, visible(text)));
    }
}

/// Prints a message that belongs to no step; it may have several lines.
pub fn note(text: &str) {
    print(&format!("refault: {}\n", visible(text)));
}

/// From now on a stalled reader of standard error delays nothing.
pub fn limit_waits() {
    LIMITED.store(true, Ordering::Relaxed);
    errors().limit_waits();
}

/// Starts the thread that writes messages, before one needs it.
pub(crate) fn start() {
    drop(errors());
}

/// Ends that thread when all is written; the next message starts another.
pub(crate) fn end() {
    let queue = ERRORS.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(queue) = queue {
        queue.finish();
    }
}

fn errors() -> OutputQueue {
    let mut errors = ERRORS.lock().unwrap_or_else(PoisonError::into_inner);
    let new = || {
        let queue = OutputQueue::new(io::stderr(), |_| {});
        if LIMITED.load(Ordering::Relaxed) {
            queue.limit_waits();
        }
        queue
    };
    errors.get_or_insert_with(new).clone()
}

/// Escapes control characters, except tabs and line ends.
pub fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.replace("\r\n", "\n").chars() {
        if moves_text(character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

fn moves_text(character: char) -> bool {
    match character {
        '\n' | '\t' => false,
        // Bidirectional controls reorder the text around them.
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        character => character.is_control(),
    }
}

/// Prints text that is already escaped.
fn print(text: &str) {
    let text = if terminal::is_raw() { &text.replace('\n', "\r\n") } else { text };
    let _ = Stderr.write_all(text.as_bytes());
}

/// Standard error for callers that write whole messages: each write returns when its bytes are out.
pub struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut errors = errors();
        errors.write_all(bytes)?;
        errors.finish();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_a_guest_cannot_control_the_terminal() {
        assert_eq!(
            visible("a\tb\r\n\u{1b}[2Jc\rd\u{9b}1m\u{202e}é\0"),
            "a\tb\n\\u{1b}[2Jc\\rd\\u{9b}1m\\u{202e}é\\u{0}"
        );
    }
}
