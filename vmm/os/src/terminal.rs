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

/// How it was before raw mode.
static SAVED: Mutex<Option<Termios>> = Mutex::new(None);
/// How often a job in the background looks whether it is in front.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Columns and rows of the terminal on standard input, if there is one that knows them.
pub fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(io::stdin()).ok()?;
    (size.ws_col != 0 && size.ws_row != 0).then_some((size.ws_col, size.ws_row))
}

/// Sizes that it changes to, `known` being the first. To be called before there are other threads. The thread that listens
/// also enters raw mode again when a shell has brought us back to the front.
///
/// # Errors
/// Signals cannot be held back.
pub fn sizes(mut known: (u16, u16)) -> io::Result<Receiver<(u16, u16)>> {
    signals::hold()?;
    let (sender, sizes) = sync_channel(1);
    std::thread::spawn(move || {
        loop {
            if signals::wait(&[libc::SIGWINCH, libc::SIGCONT]) == libc::SIGCONT && is_raw() && in_front() {
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

/// Raw mode until this is dropped.
#[derive(Debug)]
pub struct Raw(());

impl Raw {
    /// Enters raw mode; none if standard input is no terminal. In the background this waits for the foreground, as every
    /// program does that wants the terminal.
    pub fn enter() -> Option<Self> {
        *saved() = Some(tcgetattr(io::stdin()).ok()?);
        set_raw().ok()?;
        Some(Self(()))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

/// Leaves raw mode, if it was entered: for code that ends the process. In the background the terminal is somebody else's,
/// and as they want it.
pub fn restore() {
    let before = saved().take();
    if let Some(before) = before.filter(|_| in_front()) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &before);
    }
}

/// Whether messages go to a terminal that does not go back to the left by itself.
pub(super) fn is_raw() -> bool {
    saved().is_some() && io::stderr().is_terminal()
}

fn set_raw() -> io::Result<()> {
    let mut raw = tcgetattr(io::stdin())?;
    raw.make_raw();
    Ok(tcsetattr(io::stdin(), OptionalActions::Now, &raw)?)
}

/// Whether we are in the terminal's foreground, or there is no terminal.
fn in_front() -> bool {
    tcgetpgrp(io::stdin()).is_ok_and(|group| group == getpgrp()) || !io::stdin().is_terminal()
}

fn saved() -> MutexGuard<'static, Option<Termios>> {
    SAVED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Standard input, without a buffer. Whoever reads the terminal in the background is stopped by it; we wait until we are in
/// front, for the command may not want any input.
#[derive(Debug)]
pub struct Keys {
    input: File,
    ready: bool,
}

impl Keys {
    /// A hand of our own on it.
    ///
    /// # Errors
    /// The system refuses.
    pub fn new() -> io::Result<Self> {
        Ok(Self { input: File::from(io::stdin().as_fd().try_clone_to_owned()?), ready: false })
    }
}

impl Read for Keys {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !std::mem::replace(&mut self.ready, true) {
            // Of the thread that reads.
            signals::hold_background_reads()?;
        }
        loop {
            match self.input.read(buffer) {
                Err(error) if error.raw_os_error() == Some(libc::EIO) && !in_front() => {
                    std::thread::sleep(LOOK_AGAIN);
                }
                read => return read,
            }
        }
    }
}
