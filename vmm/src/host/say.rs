//! What the user is told while something takes long: one line per step, on standard error.

use std::io::Write;
use std::time::Instant;

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

    /// One line. A closed standard error is no reason to stop working.
    pub fn step(&self, text: &str) {
        let seconds = self.start.elapsed().as_secs();
        let _ = writeln!(std::io::stderr(), "{}: [{seconds:>3} s] {text}", self.subject);
    }
}

/// One line for the user that belongs to no step.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "refault: {text}");
}
