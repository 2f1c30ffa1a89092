//! QEMU's control channel (QMP): lines of JSON. It reports why a machine ended.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::Value;

use super::debug::CoreDump;
use refault_machine::config::ExitReason;
use refault_machine::control::Exit;

/// The channel, after the handshake.
pub(super) struct Monitor {
    stream: UnixStream,
}

impl Monitor {
    /// Performs the handshake, and reads events on a thread until QEMU closes the channel. The end of the machine is
    /// reported to `exit`; after a core, the thread ends QEMU itself.
    ///
    /// # Errors
    /// The other end does not speak QMP.
    pub(super) fn start(stream: UnixStream, exit: Arc<Exit>, core: Option<CoreDump>) -> Result<Self> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let greeting = lines.next().context("QEMU closed its control channel")??;
        anyhow::ensure!(greeting.contains("QMP"), "QEMU greets with {greeting:?}");
        let monitor = Self { stream };
        monitor.execute("qmp_capabilities")?;
        if let Some(core) = &core {
            core.listen(&monitor.stream)?;
        }
        let answers = monitor.stream.try_clone()?;
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let end = match &core {
                    Some(core) => end_with_core(core, &line, &answers),
                    None => end_of(&line),
                };
                if let Some(reason) = end {
                    exit.request(reason);
                    if core.is_some() {
                        let _ = send(&answers, &serde_json::json!({ "execute": "quit" }));
                    }
                }
            }
        });
        Ok(monitor)
    }

    /// Sends a command without waiting for the reply.
    ///
    /// # Errors
    /// QEMU has ended.
    pub(super) fn execute(&self, command: &str) -> Result<()> {
        send(&self.stream, &serde_json::json!({ "execute": command }))
    }
}

/// Sends one command as a line of JSON.
pub(super) fn send(mut stream: &UnixStream, command: &Value) -> Result<()> {
    stream.write_all(format!("{command}\n").as_bytes()).context("QEMU accepts no more commands")
}

/// As [`end_of`], except that a machine that is reset ends when its memory has been written.
fn end_with_core(core: &CoreDump, line: &str, monitor: &UnixStream) -> Option<ExitReason> {
    match end_of(line) {
        Some(ExitReason::Reset) => core.write_last(monitor).is_err().then_some(ExitReason::Reset),
        Some(reason) => Some(reason),
        None => core.written(&serde_json::from_str(line).ok()?).then_some(ExitReason::Reset),
    }
}

/// Why the machine ended, if this line reports that.
fn end_of(line: &str) -> Option<ExitReason> {
    let event: Value = serde_json::from_str(line).ok()?;
    if event["event"] != "SHUTDOWN" {
        return None;
    }
    match event["data"]["reason"].as_str()? {
        "guest-shutdown" => Some(ExitReason::PowerOff),
        "guest-reset" | "guest-panic" | "subsystem-reset" => Some(ExitReason::Reset),
        _ => Some(ExitReason::Stopped),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_shutdown_event_ends_the_machine() {
        let end = |reason: &str| {
            end_of(&format!(r#"{{"event":"SHUTDOWN","data":{{"guest":true,"reason":"{reason}"}}}}"#))
        };
        assert_eq!(end("guest-shutdown"), Some(ExitReason::PowerOff));
        assert_eq!(end("guest-reset"), Some(ExitReason::Reset));
        assert_eq!(end("host-qmp-quit"), Some(ExitReason::Stopped));
        for other in [r#"{"return":{}}"#, r#"{"event":"RESET"}"#, "garbage", ""] {
            assert_eq!(end_of(other), None, "{other}");
        }
    }
}
