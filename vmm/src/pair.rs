//! `refault pair`: two machines on a wire, each a `refault run` of its own.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use refault_os::FAILED;
use refault_os::message::note;
use refault_os::process::spawn;
use refault_os::scratch::Scratch;

/// What separates the two machines' arguments.
const AND: &str = "and";
/// How long the server may go on without its client.
const PATIENCE: Duration = Duration::from_secs(10);
const TICK: Duration = Duration::from_millis(20);

/// Arguments of `refault pair`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct PairArgs {
    /// Arguments of `refault run` for the server, the word "and", and those for the client
    #[arg(value_name = "ARGUMENTS", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    _arguments: Vec<OsString>,
}

/// Runs both machines, and returns the client's exit status, or the server's if only that failed.
///
/// # Errors
/// An argument is missing, or a machine cannot be started.
pub(crate) fn execute() -> Result<u8> {
    // As given: clap takes the first "--" for its own.
    let arguments: Vec<_> = std::env::args_os().skip(2).collect();
    let (server, client) = split(&arguments)?;
    let scratch = Scratch::new().context("cannot make a temporary folder")?;
    let socket = scratch.path().join("wire");
    let mut server = Machine::start("server", &socket, server)?;
    // It listens, and so has the first address.
    while !socket.exists() && server.ended()?.is_none() {
        thread::sleep(TICK);
    }
    let mut client = Machine::start("client", &socket, client)?;
    let mut left = None;
    loop {
        let (server_ended, client_ended) = (server.ended()?, client.ended()?);
        match (server_ended, client_ended) {
            (Some(server), Some(client)) => {
                return Ok(if client.success() { status(server) } else { status(client) });
            }
            (None, Some(client)) => {
                let since = *left.get_or_insert_with(Instant::now);
                if since.elapsed() > PATIENCE {
                    note("the client has ended: the server is stopped");
                    server.stop();
                    return Ok(status(client));
                }
            }
            _ => {}
        }
        thread::sleep(TICK);
    }
}

/// The arguments of both.
fn split(arguments: &[OsString]) -> Result<(&[OsString], &[OsString])> {
    let middle = arguments.iter().position(|word| word == OsStr::new(AND));
    let middle = middle.with_context(|| {
        format!("pair: give arguments of `refault run` for both machines, with \"{AND}\" between them")
    })?;
    let (server, client) = (&arguments[..middle], &arguments[middle + 1..]);
    for (name, arguments) in [("server", server), ("client", client)] {
        ensure!(!arguments.is_empty(), "pair: the {name} has no arguments; give it a command: -- COMMAND");
    }
    Ok((server, client))
}

fn status(ended: ExitStatus) -> u8 {
    ended.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(FAILED)
}

/// One of the two.
struct Machine {
    child: Child,
    readers: Vec<JoinHandle<()>>,
}

impl Machine {
    fn start(name: &'static str, socket: &Path, arguments: &[OsString]) -> Result<Self> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut uplink = OsString::from("unix:");
        uplink.push(socket);
        let mut command = Command::new(program);
        command.args(["run", "--nic", "roce", "--uplink-wait", "--uplink"]).arg(uplink).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = spawn(&mut command)?;
        let mut readers = Vec::new();
        if let Some(output) = child.stdout.take() {
            readers.push(relay(name, output, std::io::stdout()));
        }
        if let Some(errors) = child.stderr.take() {
            readers.push(relay(name, errors, std::io::stderr()));
        }
        Ok(Self { child, readers })
    }

    /// How it ended, if it did and all it said was shown.
    fn ended(&mut self) -> Result<Option<ExitStatus>> {
        let ended = self.child.try_wait().context("cannot wait for a machine")?;
        if ended.is_some() {
            self.readers.drain(..).for_each(|reader| drop(reader.join()));
        }
        Ok(ended)
    }

    fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.readers.drain(..).for_each(|reader| drop(reader.join()));
    }
}

/// Shows what a machine says, each line with its name in front.
fn relay<W: Write + Send + 'static>(
    name: &'static str,
    from: impl Read + Send + 'static,
    mut to: W,
) -> JoinHandle<()> {
    static CLOSED: AtomicBool = AtomicBool::new(false);
    thread::spawn(move || {
        let mut lines = BufReader::new(from);
        let mut line = Vec::new();
        loop {
            line.clear();
            // A line of any length: what a guest says goes through, in pieces of a bounded size.
            let read = (&mut lines).take(64 << 10).read_until(b'\n', &mut line);
            if !matches!(read, Ok(1..)) {
                return;
            }
            let end: &[u8] = if line.ends_with(b"\n") { b"" } else { b"\n" };
            let text = [name.as_bytes(), b": ", &line, end].concat();
            if !CLOSED.load(Ordering::Relaxed) && to.write_all(&text).and_then(|()| to.flush()).is_err() {
                // The machines go on to their end.
                CLOSED.store(true, Ordering::Relaxed);
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn each_machine_has_its_arguments() {
        let line = words("--pmem size=1G -- serve and -- connect");
        let (server, client) = split(&line).expect("both");
        assert_eq!((server, client), (&words("--pmem size=1G -- serve")[..], &words("-- connect")[..]));
    }

    #[test]
    fn one_machine_is_no_pair() {
        for (line, part) in
            [("-- a", "for both machines"), ("and -- a", "the server has"), ("-- a and", "the client has")]
        {
            let error = split(&words(line)).expect_err(line).to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
