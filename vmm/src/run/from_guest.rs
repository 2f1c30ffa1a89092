//! What a guest sends to a run, without a machine around it: its three serial ports, and the archive of its files. For
//! tests that send bytes of their own.

use std::fs::File;
use std::io::{Result, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use super::ControlListener;
use super::collect;
use super::options::parse::Out;
use super::output::{ANSWERS, ControlPort, INPUT_WINDOW, LogPort, PortState, StreamPort};
use refault_guest::relay::{Credit, Decoder};

/// Copies what `requested` names out of an archive that a guest has made, to each of its host paths.
///
/// # Errors
/// The archive is damaged, a requested path is not in it, or a file on the host cannot be written.
pub fn unpack(archive: &File, requested: &[Out]) -> anyhow::Result<()> {
    collect::unpack(archive, requested)
}

/// The serial ports of a guest with our init.
pub struct GuestPorts {
    state: Arc<PortState>,
    /// ttyS0: the kernel's log.
    log: LogPort,
    /// ttyS1: the command's streams.
    streams: StreamPort,
    /// ttyS2: control lines.
    control: ControlPort,
    /// Lines to be sent back.
    answers: Receiver<String>,
}

/// What a guest has reported, and what is kept of its log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuestReport {
    /// The ports are set up.
    pub ready: bool,
    /// The command's exit status.
    pub exit: Option<i32>,
    /// Files could not be collected.
    pub collect_failed: bool,
    /// Why the channel of the command's streams broke.
    pub broken: Option<String>,
    /// The end of the kernel's log.
    pub log: String,
    /// Lines of trouble in it.
    pub findings: Vec<String>,
}

impl GuestPorts {
    /// Ports of a guest whose init begins its lines with `token`. The command's streams go to `output`, other lines to
    /// `listener`.
    pub fn new(token: &str, output: Box<dyn Write + Send>, listener: ControlListener) -> Self {
        let (state, credit) = (Arc::<PortState>::default(), Arc::new(Credit::new(INPUT_WINDOW)));
        let (sender, answers) = sync_channel(ANSWERS);
        Self {
            log: LogPort::new(&state, Vec::new(), Box::new(|| {})),
            streams: StreamPort {
                state: Arc::clone(&state),
                decoder: Decoder::default(),
                credit: Arc::clone(&credit),
                output,
                errors: Box::new(std::io::sink()),
                stop: Box::new(|| {}),
            },
            control: ControlPort {
                state: Arc::clone(&state),
                line: Vec::new(),
                credit,
                listener,
                answers: sender,
                token: token.into(),
                notify: Box::new(|_| {}),
            },
            state,
            answers,
        }
    }

    /// The guest writes to a port: 0 is the log, 1 the streams, any other the control port.
    ///
    /// # Errors
    /// Never: a guest's mistakes end up in [`Self::report`].
    pub fn write(&mut self, port: u8, bytes: &[u8]) -> Result<()> {
        match port {
            0 => self.log.write_all(bytes),
            1 => self.streams.write_all(bytes),
            _ => self.control.write_all(bytes),
        }
    }

    /// The lines to be sent back since the last call.
    pub fn answers(&self) -> Vec<String> {
        self.answers.try_iter().collect()
    }

    /// What the guest has reported so far.
    pub fn report(&self) -> GuestReport {
        let status = self.state.status().clone();
        GuestReport {
            ready: status.ready,
            exit: status.exit,
            collect_failed: status.collect_failed,
            broken: status.broken,
            log: self.state.log(),
            findings: self.state.findings(),
        }
    }
}
