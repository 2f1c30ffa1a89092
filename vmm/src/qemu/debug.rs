//! A core of the guest's memory, by QEMU's control channel: when the guest is reset, as it is by a panic, and on demand.
//!
//! With a core wanted, QEMU pauses a guest that is reset or powered off in place of ending it; whoever listens to the
//! channel has the memory written and then ends QEMU. Signals to this process ask for more: SIGUSR1 sends the guest an
//! NMI, which panics its kernel; SIGUSR2 writes a core and lets the guest go on.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow};
use libc::{SIGUSR1, SIGUSR2, c_int, c_void, siginfo_t};
use serde_json::{Value, json};
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::signal::register_signal_handler;

use super::monitor::send;
use crate::host::say::note;

/// Names the answers to our questions.
const LAST: &str = "core-at-the-end";
const ON_DEMAND: &str = "core-on-demand";

/// What the signals lead to, once somebody listens.
static NMI_WANTED: OnceLock<EventFd> = OnceLock::new();
static CORE_WANTED: OnceLock<EventFd> = OnceLock::new();

/// Where cores go and what is in them.
#[derive(Clone, Debug)]
pub(super) struct Core {
    pub(super) file: PathBuf,
    /// Bytes of guest-physical addresses from zero: all RAM, and no persistent memory, which is in files anyhow.
    pub(super) end: u64,
}

impl Core {
    /// Asks for the last one.
    pub(super) fn write_last(&self, monitor: &UnixStream) -> Result<()> {
        note(&format!("the guest was reset: writing its memory to {}", self.file.display()));
        self.write(monitor, LAST)
    }

    fn write(&self, monitor: &UnixStream, id: &str) -> Result<()> {
        let mut protocol = String::from("file:");
        protocol +=
            self.file.to_str().ok_or_else(|| anyhow!("--dump {:?}: this name is not UTF-8", self.file))?;
        let arguments = json!({ "paging": false, "protocol": protocol, "begin": 0, "length": self.end });
        send(monitor, &json!({ "execute": "dump-guest-memory", "arguments": arguments, "id": id }))
    }

    /// Takes an answer of QEMU's, tells the user, and says whether it was about the last core.
    pub(super) fn written(&self, answer: &Value) -> bool {
        let id = answer["id"].as_str();
        if !matches!(id, Some(LAST | ON_DEMAND)) {
            return false;
        }
        match answer["error"]["desc"].as_str() {
            Some(error) => note(&format!("no core in {}: {error}", self.file.display())),
            None => note(&format!("a core of the guest's memory is in {}", self.file.display())),
        }
        id == Some(LAST)
    }

    /// Listens to the signals from threads of its own.
    ///
    /// # Errors
    /// The signals cannot be had.
    pub(super) fn listen(&self, monitor: &UnixStream) -> Result<()> {
        let (core, stream) = (self.clone(), monitor.try_clone()?);
        on_signal(SIGUSR2, &CORE_WANTED, move || core.write(&stream, ON_DEMAND))?;
        let stream = monitor.try_clone()?;
        on_signal(SIGUSR1, &NMI_WANTED, move || {
            note("SIGUSR1: an NMI for the guest");
            send(&stream, &json!({ "execute": "inject-nmi" }))
        })?;
        let process = std::process::id();
        note(&format!("kill -USR1 {process} sends the guest an NMI, -USR2 writes a core and lets it go on"));
        Ok(())
    }
}

/// A place for the core can be written to: better to know that before the guest has crashed.
///
/// # Errors
/// It cannot.
pub fn check_place(file: &Path) -> Result<()> {
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    tempfile::tempfile_in(folder)
        .map(drop)
        .with_context(|| format!("--dump: cannot write to {}", folder.display()))
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

/// Only wakes who listens: nothing else may be done in a signal handler.
extern "C" fn handle(signal: c_int, _info: *mut siginfo_t, _context: *mut c_void) {
    let wanted = if signal == SIGUSR1 { &NMI_WANTED } else { &CORE_WANTED };
    if let Some(event) = wanted.get() {
        let _ = event.write(1);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};

    use super::*;

    fn core() -> Core {
        Core { file: "/tmp/core".into(), end: 1 << 30 }
    }

    #[test]
    fn the_core_has_ram_and_nothing_else() {
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        core().write_last(&ours).expect("sent");
        let line = BufReader::new(theirs).lines().next().expect("a line").expect("text");
        let sent: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(sent["execute"], "dump-guest-memory");
        assert_eq!(sent["arguments"]["protocol"], "file:/tmp/core");
        assert_eq!(sent["arguments"]["length"], 1 << 30);
    }

    #[test]
    fn only_the_last_core_ends_the_machine() {
        let core = core();
        assert!(core.written(&json!({ "return": {}, "id": LAST })));
        assert!(core.written(&json!({ "error": { "desc": "no space" }, "id": LAST })));
        assert!(!core.written(&json!({ "return": {}, "id": ON_DEMAND })));
        assert!(!core.written(&json!({ "return": {} })));
    }

    #[test]
    fn a_place_that_is_not_there_is_named() {
        let error = check_place(Path::new("/nonexistent/core")).expect_err("no folder").to_string();
        assert!(error.contains("/nonexistent"), "{error}");
        assert!(check_place(&std::env::temp_dir().join("core")).is_ok());
    }
}
