//! The user's terminal: its size, and raw mode, in which every key goes to the guest.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::getpgrp;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetpgrp, tcgetwinsize, tcsetattr};

use super::signals;
use super::syscalls::{ThreadKind, confine};

/// The settings from before raw mode; `None` outside it.
static SAVED: Mutex<Option<Termios>> = Mutex::new(None);
/// Interval at which a background job checks whether it has come to the foreground.
const FOREGROUND_POLL: Duration = Duration::from_millis(200);

/// Columns and rows of the terminal on standard input; `None` if there is no terminal or it does not know them.
pub fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(io::stdin()).ok()?;
    (size.ws_col != 0 && size.ws_row != 0).then_some((size.ws_col, size.ws_row))
}

/// Sends each new size of the terminal, as columns and rows; `known` is the current one. Call it before there are other
/// threads. The thread that waits for the changes also restores raw mode when a shell brings us back to the foreground.
///
/// # Errors
/// Signals cannot be blocked.
pub fn sizes(mut known: (u16, u16)) -> io::Result<Receiver<(u16, u16)>> {
    signals::block()?;
    let (sender, sizes) = sync_channel(1);
    std::thread::spawn(move || {
        confine(ThreadKind::Other);
        loop {
            if signals::wait(&[libc::SIGWINCH, libc::SIGCONT]) == libc::SIGCONT && is_raw() && in_foreground()
            {
                let _ = set_raw();
            }
            let Some(size) = size().filter(|size| *size != known) else { continue };
            known = size;
            if sender.send(size).is_err() {
                return;
            }
        }
    });
    Ok(sizes)
}

/// Raw mode until it is dropped.
#[derive(Debug)]
pub struct RawMode(());

impl RawMode {
    /// Enters raw mode; `None` if standard input is not a terminal. In the background this waits for the foreground, as for
    /// every program that changes the terminal.
    pub fn enter() -> Option<Self> {
        *saved() = Some(tcgetattr(io::stdin()).ok()?);
        set_raw().ok()?;
        Some(Self(()))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

/// Leaves raw mode if it was entered: for code that ends the process. In the background the terminal belongs to another job
/// and is left alone.
pub fn restore() {
    let before = saved().take();
    if let Some(before) = before.filter(|_| in_foreground()) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &before);
    }
}

/// Whether messages go to a terminal in raw mode, where a line feed does not return to the first column.
pub(super) fn is_raw() -> bool {
    saved().is_some() && io::stderr().is_terminal()
}

fn set_raw() -> io::Result<()> {
    let mut raw = tcgetattr(io::stdin())?;
    raw.make_raw();
    Ok(tcsetattr(io::stdin(), OptionalActions::Now, &raw)?)
}

/// Whether we are in the terminal's foreground, or there is no terminal.
fn in_foreground() -> bool {
    tcgetpgrp(io::stdin()).is_ok_and(|group| group == getpgrp()) || !io::stdin().is_terminal()
}

fn saved() -> MutexGuard<'static, Option<Termios>> {
    SAVED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Standard input, unbuffered. Reading the terminal in the background would stop the process; we wait for the foreground in
/// place of that, since the command may need no input.
#[derive(Debug)]
pub struct Keys {
    input: File,
    ready: bool,
}

impl Keys {
    /// Opens a handle of its own.
    ///
    /// # Errors
    /// Standard input cannot be duplicated.
    pub fn new() -> io::Result<Self> {
        Ok(Self { input: File::from(io::stdin().as_fd().try_clone_to_owned()?), ready: false })
    }
}

impl Read for Keys {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !std::mem::replace(&mut self.ready, true) {
            // Blocked in the thread that reads, whichever it is.
            signals::block_background_reads()?;
        }
        loop {
            match self.input.read(buffer) {
                Err(error) if error.raw_os_error() == Some(libc::EIO) && !in_foreground() => {
                    std::thread::sleep(FOREGROUND_POLL);
                }
                read => return read,
            }
        }
    }
}
