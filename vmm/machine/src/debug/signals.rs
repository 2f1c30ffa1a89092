//! Signals to this process: SIGUSR1 sends the guest an NMI, which makes its kernel panic; SIGUSR2 writes a core and lets
//! the guest continue.

use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow};
use libc::{SIGUSR1, SIGUSR2, c_int, c_void, siginfo_t};
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::signal::register_signal_handler;

use refault_os::message::note;

/// Events that the signal handler triggers, once a thread listens.
static NMI_WANTED: OnceLock<EventFd> = OnceLock::new();
static CORE_WANTED: OnceLock<EventFd> = OnceLock::new();

/// Starts threads that call `nmi` for each SIGUSR1 and `core` for each SIGUSR2, until the call fails.
///
/// # Errors
/// The signal handlers cannot be installed.
pub fn listen(
    nmi: impl Fn() -> Result<()> + Send + 'static,
    core: impl Fn() -> Result<()> + Send + 'static,
) -> Result<()> {
    on_signal(SIGUSR2, &CORE_WANTED, core)?;
    on_signal(SIGUSR1, &NMI_WANTED, move || {
        note("SIGUSR1: an NMI for the guest");
        nmi()
    })?;
    let process = std::process::id();
    note(&format!(
        "kill -USR1 {process} sends the guest an NMI, -USR2 writes a core and lets the guest continue"
    ));
    Ok(())
}

fn on_signal(
    signal: c_int,
    wanted: &'static OnceLock<EventFd>,
    act: impl Fn() -> Result<()> + Send + 'static,
) -> Result<()> {
    if wanted.get().is_none() {
        let _ = wanted.set(EventFd::new(0).context("cannot create an event")?);
    }
    register_signal_handler(signal, handle)
        .map_err(|error| anyhow!("cannot take signal {signal}: {error}"))?;
    std::thread::spawn(
        move || while wanted.get().is_some_and(|event| event.read().is_ok()) && act().is_ok() {},
    );
    Ok(())
}

/// Only wakes the listening thread: little else is allowed in a signal handler.
extern "C" fn handle(signal: c_int, _info: *mut siginfo_t, _context: *mut c_void) {
    let wanted = if signal == SIGUSR1 { &NMI_WANTED } else { &CORE_WANTED };
    if let Some(event) = wanted.get() {
        let _ = event.write(1);
    }
}
