//! What the user is told, on standard error. Text of the guest's in it moves no cursor and changes no colour.

use std::io::{self, Write};
use std::sync::LazyLock;
use std::time::Instant;

use super::outlet::Outlet;
use super::terminal;

/// A closed standard error is no reason to stop working.
static ERRORS: LazyLock<Outlet> = LazyLock::new(|| Outlet::new(io::stderr(), |_| {}));

/// Prints steps with the seconds passed since the first one.
#[derive(Clone, Debug)]
pub struct Progress {
    subject: String,
    start: Instant,
}

impl Progress {
    /// Starts the clock; `subject` stands in front of every line.
    pub fn new(subject: &str) -> Self {
        Self { subject: subject.to_string(), start: Instant::now() }
    }

    /// One line.
    pub fn step(&self, text: &str) {
        let seconds = self.start.elapsed().as_secs();
        print(&format!("{}: [{seconds:>3} s] {}\n", self.subject, visible(text)));
    }
}

/// A line for the user that belongs to no step, or several.
pub fn note(text: &str) {
    print(&format!("refault: {}\n", visible(text)));
}

/// From now on a standard error without a reader delays nothing.
pub fn hurry() {
    ERRORS.hurry();
}

/// Text with its control characters, but for tabs and line ends, spelled out.
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
        // They turn the direction of what is around them.
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        character => character.is_control(),
    }
}

/// As it is.
fn print(text: &str) {
    let text = if terminal::is_raw() { &text.replace('\n', "\r\n") } else { text };
    let _ = Messages.write_all(text.as_bytes());
}

/// Standard error, for whoever writes whole messages: each is out when its write returns.
pub struct Messages;

impl Write for Messages {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut errors = ERRORS.clone();
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
    fn what_a_guest_says_is_only_shown() {
        assert_eq!(
            visible("a\tb\r\n\u{1b}[2Jc\rd\u{9b}1m\u{202e}é\0"),
            "a\tb\n\\u{1b}[2Jc\\rd\\u{9b}1m\\u{202e}é\\u{0}"
        );
    }
}
