//! The agent inside the emulated machine: receives the job, runs it, and reports its exit status.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{PipeWriter, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use super::exports::mount_all;
use super::first_cpu::leave_first_cpu;
use super::start_cpus::start_cpus;
use super::terminal_sizes;
use refault_bus::sync::lock;
use refault_guest::relay::{Decoder, Frame, PAYLOAD_MAX};
use refault_os::message::note;

/// Exit status when the program cannot be started: that of refault's own failures.
const CANNOT_RUN: i32 = 125;

/// What to run: program, folder, environment, and where it may write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NestedJob {
    pub(super) folder: PathBuf,
    /// The program and its arguments.
    pub(super) arguments: Vec<OsString>,
    pub(super) environment: Vec<(OsString, OsString)>,
    /// Folders of the host that it may write, in the order of their shares.
    pub(super) writable: Vec<PathBuf>,
}

impl NestedJob {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, arguments: Vec::new(), environment: Vec::new(), writable: Vec::new() }
    }

    /// Encodes it as records that end with NUL, which no argument can contain; the first letter of each is its kind.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut record = |kind: u8, parts: &[&OsStr]| {
            bytes.push(kind);
            bytes.extend(parts.join(OsStr::new("=")).as_bytes());
            bytes.push(0);
        };
        record(b'd', &[self.folder.as_os_str()]);
        self.arguments.iter().for_each(|argument| record(b'a', &[argument]));
        self.environment.iter().for_each(|(name, value)| record(b'e', &[name, value]));
        self.writable.iter().for_each(|folder| record(b'w', &[folder.as_os_str()]));
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let mut job = Self::new(PathBuf::from("/"));
        for record in bytes.split(|byte| *byte == 0) {
            let text = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
            match record.split_first() {
                None => {}
                Some((b'd', folder)) => job.folder = text(folder).into(),
                Some((b'w', folder)) => job.writable.push(text(folder).into()),
                Some((b'a', argument)) => job.arguments.push(text(argument)),
                Some((b'e', pair)) => {
                    let mut parts = pair.splitn(2, |byte| *byte == b'=');
                    let (name, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
                    job.environment.push((text(name), text(value)));
                }
                Some((kind, _)) => bail!("a job with a record of unknown kind {kind:#04x}"),
            }
        }
        Ok(job)
    }
}

/// The channel to the host, for writing.
type Channel = Arc<Mutex<File>>;

/// Serves one job, reports its end, and waits until QEMU is ended from outside.
///
/// # Errors
/// There is no channel: this machine was not started by [`Nested`](super::Nested).
pub fn serve() -> Result<()> {
    let _settled = start_cpus();
    if let Err(error) = leave_first_cpu() {
        note(&format!("the emulated machine may fail: {error:#}"));
    }
    let path = port_path()?;
    let file = File::options().read(true).write(true).open(&path);
    let file = file.with_context(|| format!("cannot open the channel {}", path.display()))?;
    let mut incoming =
        Incoming { port: file.try_clone()?, decoder: Decoder::default(), frames: VecDeque::new() };
    let port = Arc::new(Mutex::new(file));
    let status = incoming.job().and_then(|job| run(&job, incoming, &port)).unwrap_or_else(|error| {
        emit(&port, &Frame::Errors(format!("refault: {error:#}\n").into_bytes()));
        CANNOT_RUN
    });
    // Data written to the host's files must be there before QEMU is ended.
    let _ = Command::new("sync").status();
    emit(&port, &Frame::Exit(status));
    loop {
        std::thread::park();
    }
}

fn port_path() -> Result<PathBuf> {
    let ports = std::fs::read_dir("/sys/class/virtio-ports").context("no channel to the host")?;
    ports
        .flatten()
        .find(|port| std::fs::read(port.path().join("name")).is_ok_and(|name| name == b"refault\n"))
        .map(|port| PathBuf::from("/dev").join(port.file_name()))
        .ok_or_else(|| anyhow!("no channel to the host"))
}

fn run(job: &NestedJob, incoming: Incoming, port: &Channel) -> Result<i32> {
    mount_all(&job.writable)?;
    let (program, arguments) =
        job.arguments.split_first().ok_or_else(|| anyhow!("a job without a program"))?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(job.environment.iter().cloned()).current_dir(&job.folder);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let (theirs, sizes) = terminal_sizes::lend(&mut command).context("no pipe for the terminal's size")?;
    let mut child = command.spawn().with_context(|| format!("cannot run {}", program.display()))?;
    drop(theirs);
    if let Some(stdin) = child.stdin.take() {
        let port = Arc::clone(port);
        std::thread::spawn(move || feed(incoming, stdin, sizes, &port));
    }
    let outputs = [
        child.stdout.take().map(|pipe| pump(pipe, port, Frame::Output)),
        child.stderr.take().map(|pipe| pump(pipe, port, Frame::Errors)),
    ];
    let status = child.wait()?;
    // A grandchild may hold the pipes open; its later output is not the program's.
    for output in outputs.into_iter().flatten() {
        let _ = output.join();
    }
    Ok(status_number(status))
}

/// As in a shell: 128 plus the signal's number for a program that was killed.
fn status_number(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

/// Forwards a pipe until its end.
fn pump(
    mut pipe: impl Read + Send + 'static,
    port: &Channel,
    frame: impl Fn(Vec<u8>) -> Frame + Send + 'static,
) -> JoinHandle<()> {
    let port = Arc::clone(port);
    std::thread::spawn(move || {
        let mut buffer = [0u8; PAYLOAD_MAX];
        while let Ok(count @ 1..) = pipe.read(&mut buffer) {
            emit(&port, &frame(buffer.get(..count).unwrap_or_default().to_vec()));
        }
    })
}

/// Writes standard input to the program. Once it no longer reads, further input is acknowledged and dropped.
fn feed(mut incoming: Incoming, stdin: ChildStdin, mut sizes: PipeWriter, port: &Channel) {
    let mut stdin = Some(stdin);
    while let Ok(frame) = incoming.next() {
        if let Frame::Size(columns, rows) = frame {
            // Fails for a program that has no terminal and does not read sizes.
            let _ = writeln!(sizes, "{columns} {rows}");
        }
        let Frame::Input(bytes) = frame else { continue };
        if bytes.is_empty() || stdin.as_mut().is_some_and(|pipe| pipe.write_all(&bytes).is_err()) {
            stdin = None;
        }
        emit(port, &Frame::Taken(u32::try_from(bytes.len()).unwrap_or(u32::MAX)));
    }
}

fn emit(port: &Channel, frame: &Frame) {
    // Without the host there is no reader for the error.
    let _ = lock(port).write_all(&frame.encode());
}

/// Frames received from the host.
struct Incoming {
    port: File,
    decoder: Decoder,
    frames: VecDeque<Frame>,
}

impl Incoming {
    fn next(&mut self) -> Result<Frame> {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return Ok(frame);
            }
            let mut buffer = [0u8; 32 << 10];
            let count = self.port.read(&mut buffer).context("cannot read the channel")?;
            if count == 0 {
                // The host's end is not connected yet.
                std::thread::sleep(Duration::from_millis(1));
            }
            self.decoder.push(buffer.get(..count).unwrap_or_default(), &mut self.frames)?;
        }
    }

    fn job(&mut self) -> Result<NestedJob> {
        let mut bytes = Vec::new();
        loop {
            match self.next()? {
                Frame::Job(piece) if piece.is_empty() => return NestedJob::decode(&bytes),
                Frame::Job(piece) => bytes.extend(piece),
                frame => bail!("expected a job, not {frame:?}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_arrives_as_it_was_sent() {
        let mut job = NestedJob::new("/some where".into());
        job.arguments = vec!["/bin/x".into(), "".into(), "a=b c\n".into(), OsString::from_vec(vec![0xff, 1])];
        job.environment = vec![("A".into(), "1=2".into()), ("B".into(), "".into())];
        job.writable = vec!["/some where".into()];
        assert_eq!(NestedJob::decode(&job.encode()).expect("valid"), job);
    }

    #[test]
    fn a_killed_program_has_the_status_that_a_shell_gives_it() {
        assert_eq!(status_number(ExitStatus::from_raw(3 << 8)), 3);
        assert_eq!(status_number(ExitStatus::from_raw(9)), 137);
    }
}
