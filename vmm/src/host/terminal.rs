//! The user's terminal: its size, and raw mode, in which every key goes to the guest.

use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// How it was before raw mode.
static SAVED: Mutex<Option<String>> = Mutex::new(None);

/// Columns and rows of the terminal on standard input, if there is one.
pub fn size() -> Option<(u16, u16)> {
    let text = stty(&["size"])?;
    let (rows, columns) = text.trim().split_once(' ')?;
    Some((columns.parse().ok()?, rows.parse().ok()?))
}

/// Raw mode until this is dropped.
#[derive(Debug)]
pub struct Raw(());

impl Raw {
    /// Enters raw mode; none if standard input is no terminal.
    pub fn enter() -> Option<Self> {
        let saved = stty(&["-g"])?.trim().to_string();
        *SAVED.lock().unwrap_or_else(PoisonError::into_inner) = Some(saved);
        stty(&["raw", "-echo"])?;
        Some(Self(()))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

/// Leaves raw mode, if it was entered: for code that ends the process.
pub fn restore() {
    let saved = SAVED.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(saved) = saved {
        stty(&[&saved]);
    }
}

/// What stty says about standard input; none if it fails, as it does without a terminal.
fn stty(arguments: &[&str]) -> Option<String> {
    let output =
        Command::new("stty").args(arguments).stdin(Stdio::inherit()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
