//! Cores of the guest's memory, written by QEMU: when the guest is reset, as after a panic, and on demand.
//!
//! If a core is requested, QEMU pauses a guest that resets or powers off, rather than ending it; the monitor's thread then
//! requests the core and ends QEMU.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use anyhow::{Result, anyhow};
use serde_json::{Value, json};

use super::monitor::send;
use refault_machine::debug::{dump, signals};

/// Ids of our requests, which QEMU's replies repeat.
const LAST: &str = "core-at-the-end";
const ON_DEMAND: &str = "core-on-demand";

/// Where cores go and what they contain.
#[derive(Clone, Debug)]
pub(super) struct CoreDump {
    pub(super) file: PathBuf,
    /// End of the guest-physical range from zero: all RAM, but no persistent memory, which is in files anyway.
    pub(super) end: u64,
}

impl CoreDump {
    /// Requests the core of a guest that has ended.
    pub(super) fn write_last(&self, monitor: &UnixStream) -> Result<()> {
        dump::announce(&self.file);
        self.write(monitor, LAST)
    }

    fn write(&self, monitor: &UnixStream, id: &str) -> Result<()> {
        let mut protocol = String::from("file:");
        protocol +=
            self.file.to_str().ok_or_else(|| anyhow!("--dump {:?}: this name is not UTF-8", self.file))?;
        let arguments = json!({ "paging": false, "protocol": protocol, "begin": 0, "length": self.end });
        send(monitor, &json!({ "execute": "dump-guest-memory", "arguments": arguments, "id": id }))
    }

    /// Handles a reply of QEMU: informs the user, and returns whether it was for the last core.
    pub(super) fn written(&self, answer: &Value) -> bool {
        let id = answer["id"].as_str();
        if !matches!(id, Some(LAST | ON_DEMAND)) {
            return false;
        }
        dump::conclude(&self.file, answer["error"]["desc"].as_str());
        id == Some(LAST)
    }

    /// Starts listening for the signals that request NMIs and cores.
    ///
    /// # Errors
    /// The signal handlers cannot be installed.
    pub(super) fn listen(&self, monitor: &UnixStream) -> Result<()> {
        let (core, stream) = (self.clone(), monitor.try_clone()?);
        let write = move || core.write(&stream, ON_DEMAND);
        let stream = monitor.try_clone()?;
        signals::listen(move || send(&stream, &json!({ "execute": "inject-nmi" })), write)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};

    use super::*;

    fn core() -> CoreDump {
        CoreDump { file: "/tmp/core".into(), end: 1 << 30 }
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
}
