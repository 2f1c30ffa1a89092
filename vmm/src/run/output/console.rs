//! The guest's three serial ports: the kernel's log, the command's streams, the control lines.

use std::io::{self, Write};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard};

use refault_bus::sync::lock;

use crate::run::watchdog::RunEvent;
use crate::run::{ControlListener, guest_log};
use refault_guest::relay::{Credit, Decoder, Frame};
use refault_os::output_queue::OutputQueue;

/// Bytes of the kernel's log that are kept for error messages.
const LOG_KEPT: usize = 6 << 10;
/// Bytes of a line that are searched for trouble.
const LOG_LINE_MAX: usize = 1024;
/// The kernel's last line when it halts (kernel/reboot.c).
const HALTED: &str = "reboot: System halted";
/// Longest control line; longer ones are truncated.
const LINE_MAX: usize = 64 << 10;
/// Bytes of input in flight to the guest: its serial driver drops what does not fit its buffers.
pub(crate) const INPUT_WINDOW: usize = 4096;
/// Control lines that wait to be sent back; further ones are not.
pub(crate) const ANSWERS: usize = 16;

/// What the guest has reported on its control port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GuestStatus {
    /// The ports are set up. Before that, bytes on the streams' port are echoes of an unconfigured terminal.
    pub(crate) ready: bool,
    /// The command's exit status.
    pub(crate) exit: Option<i32>,
    /// Files to bring out could not be collected.
    pub(crate) collect_failed: bool,
    /// The channel of the command's streams broke.
    pub(crate) broken: Option<String>,
}

impl GuestStatus {
    /// Whether the streams' port carries frames.
    fn is_open(&self) -> bool {
        self.ready && self.broken.is_none()
    }
}

/// State shared between the ports' writers and the run.
#[derive(Debug, Default)]
pub(crate) struct PortState {
    status: Mutex<GuestStatus>,
    log: Mutex<Log>,
}

/// What is kept of the kernel's log.
#[derive(Debug, Default)]
struct Log {
    /// Its last bytes, at most twice [`LOG_KEPT`].
    tail: Vec<u8>,
    /// The incomplete last line.
    line: Vec<u8>,
    /// Lines of trouble.
    watch: guest_log::LogWatch,
}

impl PortState {
    pub(crate) fn status(&self) -> MutexGuard<'_, GuestStatus> {
        lock(&self.status)
    }

    /// The end of the kernel's log.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&self.log_kept().tail).into_owned()
    }

    /// Lines of trouble in the kernel's log.
    pub(crate) fn findings(&self) -> Vec<String> {
        self.log_kept().watch.found.clone()
    }

    fn log_kept(&self) -> MutexGuard<'_, Log> {
        lock(&self.log)
    }
}

impl Log {
    /// Takes bytes of the log. Returns whether they report that the guest has halted.
    fn take(&mut self, bytes: &[u8]) -> bool {
        self.tail.extend(bytes);
        if self.tail.len() > 2 * LOG_KEPT {
            let surplus = self.tail.len() - LOG_KEPT;
            self.tail.drain(..surplus);
        }
        let mut halted = false;
        for byte in bytes {
            match byte {
                b'\n' => {
                    let line = std::mem::take(&mut self.line);
                    let line = String::from_utf8_lossy(&line);
                    self.watch.look_at(&line);
                    halted |= line.trim_end().ends_with(HALTED);
                }
                byte if self.line.len() < LOG_LINE_MAX => self.line.push(*byte),
                _ => {}
            }
        }
        halted
    }
}

/// ttyS0: the kernel's log, kept, and copied to a file or to the user.
pub(crate) struct LogPort {
    state: Arc<PortState>,
    copies: Vec<OutputQueue>,
    halted: Box<dyn Fn() + Send>,
}

impl LogPort {
    /// Keeps the log in `state`. `halted` is called when the log reports a halt: halted CPUs cause no exit that would
    /// show it.
    pub(crate) fn new(
        state: &Arc<PortState>,
        copies: Vec<OutputQueue>,
        halted: Box<dyn Fn() + Send>,
    ) -> Self {
        Self { state: Arc::clone(state), copies, halted }
    }
}

impl Write for LogPort {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let halted = self.state.log_kept().take(bytes);
        if halted {
            (self.halted)();
        }
        for copy in &mut self.copies {
            copy.write_all(bytes)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// ttyS1: the command's standard streams.
pub(crate) struct StreamPort {
    pub(crate) state: Arc<PortState>,
    pub(crate) decoder: Decoder,
    pub(crate) credit: Arc<Credit>,
    pub(crate) output: Box<dyn Write + Send>,
    pub(crate) errors: Box<dyn Write + Send>,
    /// Called when the output cannot be written any more, or the channel is broken.
    pub(crate) stop: Box<dyn Fn() + Send>,
}

impl StreamPort {
    fn take(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut frames = Vec::new();
        let pushed = self.decoder.push(bytes, &mut frames);
        for frame in frames {
            let written = match frame {
                Frame::Output(bytes) => self.output.write_all(&bytes).and_then(|()| self.output.flush()),
                Frame::Errors(bytes) => self.errors.write_all(&bytes).and_then(|()| self.errors.flush()),
                Frame::Taken(count) => {
                    self.credit.give(count as usize);
                    Ok(())
                }
                Frame::Job(_) | Frame::Input(_) | Frame::Size(..) | Frame::Report | Frame::Exit(_) => Ok(()),
            };
            written.map_err(|error| format!("the command's output cannot be written: {error}"))?;
        }
        pushed.map_err(|error| error.to_string())
    }
}

impl Write for StreamPort {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let is_open = self.state.status().is_open();
        if is_open && let Err(why) = self.take(bytes) {
            self.state.status().broken = Some(why);
            (self.stop)();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// ttyS2: lines. Init's are handled here, others are passed to the listener.
pub(crate) struct ControlPort {
    pub(crate) state: Arc<PortState>,
    pub(crate) line: Vec<u8>,
    pub(crate) credit: Arc<Credit>,
    pub(crate) listener: ControlListener,
    /// Lines that the listener wants sent back. Another thread sends them: the port cannot be written while it is read.
    pub(crate) answers: SyncSender<String>,
    /// Prefix of init's own lines, which no other program knows.
    pub(crate) token: String,
    /// Called when the guest has booted, and when it has reported the exit status.
    pub(crate) notify: Box<dyn Fn(RunEvent) + Send>,
}

impl ControlPort {
    fn take(&mut self, line: &str) {
        let ours = line.strip_prefix(&*self.token).and_then(|rest| rest.strip_prefix(' '));
        match ours {
            Some(ours) => self.take_own(ours),
            None if line.is_empty() => {}
            None if (self.listener)(line) => {
                // Full only if the guest does not read what it asked for.
                let _ = self.answers.try_send(line.to_owned());
            }
            None => {}
        }
    }

    fn take_own(&mut self, line: &str) {
        if line == "ready" {
            self.state.status().ready = true;
            self.credit.open();
            (self.notify)(RunEvent::Ready);
        } else if line == "collect-failed" {
            self.state.status().collect_failed = true;
        } else if let Some(text) = line.strip_prefix("say ") {
            refault_os::message::note(&format!("guest: {text}"));
        } else if let Some(status) = line.strip_prefix("exit ").and_then(|text| text.parse().ok()) {
            self.state.status().exit = Some(status);
            (self.notify)(RunEvent::CommandEnded);
        }
    }
}

impl Write for ControlPort {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            match byte {
                b'\n' => {
                    let line = std::mem::take(&mut self.line);
                    self.take(String::from_utf8_lossy(&line).trim_end_matches('\r'));
                }
                byte if self.line.len() < LINE_MAX => self.line.push(*byte),
                _ => {}
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::sync_channel;

    use super::*;

    fn control(
        state: &Arc<PortState>,
        lines: &Arc<Mutex<Vec<String>>>,
        ended: &Arc<AtomicUsize>,
    ) -> ControlPort {
        let (lines, ended) = (Arc::clone(lines), Arc::clone(ended));
        ControlPort {
            state: Arc::clone(state),
            line: Vec::new(),
            credit: Arc::new(Credit::new(0)),
            listener: Box::new(move |line| {
                lines.lock().expect("not poisoned").push(line.to_string());
                line.ends_with('?')
            }),
            answers: sync_channel(ANSWERS).0,
            token: "7f".into(),
            notify: Box::new(move |event| {
                ended.fetch_add(usize::from(event == RunEvent::CommandEnded), Ordering::Relaxed);
            }),
        }
    }

    #[test]
    fn control_lines_may_arrive_byte_by_byte() {
        let (state, lines, ended) = (Arc::default(), Arc::default(), Arc::default());
        let mut port = control(&state, &lines, &ended);
        for byte in b"^@\n7f ready\n{\"scenario\":1}\r\nexit 3\n8f exit 3\n7f collect-failed\n7f exit 42\n" {
            port.write_all(&[*byte]).expect("never fails");
        }
        assert_eq!(*lines.lock().expect("not poisoned"), ["^@", "{\"scenario\":1}", "exit 3", "8f exit 3"]);
        assert!(state.status().ready);
        assert_eq!(state.status().exit, Some(42));
        assert!(state.status().collect_failed);
        assert_eq!(ended.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_line_is_sent_back_once_it_is_handled_if_its_program_waits() {
        let (state, ended) = (Arc::default(), Arc::default());
        let (lines, (answers, answered)) = (Arc::default(), sync_channel(ANSWERS));
        let mut port = ControlPort { answers, ..control(&state, &lines, &ended) };
        port.write_all(b"begin?\nprogress\n7f ready?\nend?\n").expect("never fails");
        assert_eq!(answered.try_iter().collect::<Vec<_>>(), ["begin?", "end?"]);
        assert_eq!(*lines.lock().expect("not poisoned"), ["begin?", "progress", "end?"]);
    }

    #[test]
    fn a_guest_that_reads_no_answers_delays_nothing() {
        let (state, lines, ended) = (Arc::default(), Arc::default(), Arc::default());
        let (answers, answered) = sync_channel(ANSWERS);
        let mut port = ControlPort { answers, ..control(&state, &lines, &ended) };
        port.write_all(&b"begin?\n".repeat(10 * ANSWERS)).expect("never fails");
        assert_eq!(lines.lock().expect("not poisoned").len(), 10 * ANSWERS);
        assert_eq!(answered.try_iter().count(), ANSWERS);
    }

    #[test]
    fn an_endless_line_is_truncated() {
        let (state, lines, ended) = (Arc::default(), Arc::default(), Arc::default());
        let mut port = control(&state, &lines, &ended);
        port.write_all(&vec![b'x'; 3 * LINE_MAX]).expect("never fails");
        assert_eq!(port.line.len(), LINE_MAX);
    }

    #[test]
    fn a_broken_stream_stops_the_run_once() {
        let (state, stops) = (Arc::<PortState>::default(), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&stops);
        let mut port = StreamPort {
            state: Arc::clone(&state),
            decoder: Decoder::default(),
            credit: Arc::new(Credit::new(0)),
            output: Box::new(io::sink()),
            errors: Box::new(io::sink()),
            stop: Box::new(move || {
                count.fetch_add(1, Ordering::Relaxed);
            }),
        };
        port.write_all(b"^@").expect("never fails");
        assert!(state.status().broken.is_none(), "the port is not set up yet");
        state.status().ready = true;
        port.write_all(b"garbage").expect("never fails");
        port.write_all(b"more").expect("never fails");
        assert!(state.status().broken.is_some());
        assert_eq!(stops.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn the_log_keeps_its_end() {
        let state = Arc::<PortState>::default();
        let mut port = LogPort::new(&state, Vec::new(), Box::new(|| {}));
        for index in 0..10_000 {
            port.write_all(format!("line {index}\n").as_bytes()).expect("never fails");
        }
        assert!(state.log().ends_with("line 9999\n") && state.log().len() <= 2 * LOG_KEPT);
    }
}
