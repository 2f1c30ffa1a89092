//! The user's terminal: its size, and raw mode, in which every key goes to the guest.

use std::process::{Command, Stdio};

/// Columns and rows of the terminal on standard input, if there is one.
pub fn size() -> Option<(u16, u16)> {
    let text = stty(&["size"])?;
    let (rows, columns) = text.trim().split_once(' ')?;
    Some((columns.parse().ok()?, rows.parse().ok()?))
}

/// Raw mode until this is dropped.
#[derive(Debug)]
pub struct Raw {
    saved: String,
}

impl Raw {
    /// Enters raw mode; none if standard input is no terminal.
    pub fn enter() -> Option<Self> {
        let saved = stty(&["-g"])?.trim().to_string();
        stty(&["raw", "-echo"])?;
        Some(Self { saved })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        stty(&[&self.saved]);
    }
}

/// What stty says about standard input; none if it fails, as it does without a terminal.
fn stty(arguments: &[&str]) -> Option<String> {
    let output =
        Command::new("stty").args(arguments).stdin(Stdio::inherit()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
