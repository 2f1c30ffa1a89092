//! Runs the `refault` command as a user does.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub(crate) use refault_tests::program::{program, refault as binary, workspace};
use refault_vmm::run::guest_log;

/// Most guests at once; otherwise one for each processor. The limit is for the machine's memory.
const MOST_GUESTS: usize = 4;
static RUNNING: Mutex<usize> = Mutex::new(0);
static LEFT: Condvar = Condvar::new();

/// A place for a guest on this machine.
pub(crate) struct Place(());

/// Waits for a place, and keeps it until that is dropped.
pub(crate) fn on_this_machine() -> Place {
    let places = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_GUESTS);
    let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut running =
        LEFT.wait_while(running, |running| *running >= places).unwrap_or_else(PoisonError::into_inner);
    *running += 1;
    Place(())
}

impl Drop for Place {
    fn drop(&mut self) {
        *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        LEFT.notify_one();
    }
}

/// A command line of refault that is about to run.
pub(crate) struct Refault {
    command: Command,
    _place: Option<Place>,
}

/// Its output and exit status.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Refault {
    /// `refault ARGUMENTS`, in the workspace's root. Waits for a place for its guest.
    pub(crate) fn new<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(arguments: I) -> Self {
        Self::at(Some(on_this_machine()), arguments)
    }

    /// The same for the second of two machines, which share a place: two tests that wait for a second one could wait for
    /// each other.
    pub(crate) fn beside_another<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(arguments: I) -> Self {
        Self::at(None, arguments)
    }

    fn at<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(place: Option<Place>, arguments: I) -> Self {
        let mut command = Command::new(binary());
        command.args(arguments).current_dir(workspace()).stdin(Stdio::null());
        Self { command, _place: place }
    }

    /// The command, to change its streams.
    pub(crate) fn command(&mut self) -> &mut Command {
        &mut self.command
    }

    /// Starts it with these streams. The place is taken as long as this lives.
    pub(crate) fn spawn(&mut self) -> Child {
        self.command.spawn().expect("refault starts")
    }

    /// Runs it to its end, and prints how long that took.
    pub(crate) fn run(self) -> Said {
        said(self.run_bytes())
    }

    /// As [`Self::run`], for output that is not text.
    pub(crate) fn run_bytes(mut self) -> Output {
        let start = Instant::now();
        let output = self.command.output().expect("refault starts");
        // The command holds ends of pipes, too: closes them.
        self.command.stdin(Stdio::null());
        took(start);
        output
    }

    /// Starts it, with its output in pipes.
    pub(crate) fn start(mut self) -> Running {
        let command = self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("refault starts");
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let start = Instant::now();
        Running { child, stdout, seen: String::new(), start, _place: self._place }
    }
}

/// A run that has not ended.
pub(crate) struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
    seen: String,
    start: Instant,
    _place: Option<Place>,
}

impl Running {
    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its standard input, which must be a pipe.
    pub(crate) fn stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().expect("a pipe")
    }

    /// The next line of its output; `None` at the end of it.
    pub(crate) fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.stdout.read_line(&mut line).expect("output is text");
        self.seen += &line;
        (read > 0).then(|| line.trim_end().to_owned())
    }

    /// Waits for a line of its output.
    pub(crate) fn await_line(&mut self, wanted: &str) {
        while let Some(line) = self.line() {
            if line == wanted {
                return;
            }
        }
        panic!("it ended without the line {wanted}: {}", self.seen);
    }

    /// Runs another command meanwhile, which must end before it starts a machine.
    pub(crate) fn beside<const N: usize>(&self, arguments: [&str; N]) -> Said {
        said(
            Command::new(binary()).args(arguments).current_dir(workspace()).output().expect("refault starts"),
        )
    }

    /// Sends SIGKILL, and waits for the end.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it was running");
        self.child.wait().expect("it is a child");
        took(self.start);
    }

    /// Sends SIGSTOP, and SIGCONT after `a_while`.
    pub(crate) fn stand_still(&self, a_while: Duration) {
        let pid = self.child.id().to_string();
        let signal = |name: &str| {
            let sent = Command::new("kill").args([name, &pid]).status();
            assert!(sent.expect("kill is there").success());
        };
        signal("-STOP");
        std::thread::sleep(a_while);
        signal("-CONT");
    }

    /// Closes its input, if that is a pipe, and waits for its end.
    pub(crate) fn end(mut self) -> Said {
        drop(self.child.stdin.take());
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).expect("output is text");
        let mut said = said(self.child.wait_with_output().expect("it is a child"));
        said.stdout = self.seen + &rest;
        took(self.start);
        said
    }
}

/// Prints how long a run took, for the table of `.ci/run`. Not by a macro, whose output the test harness swallows.
fn took(start: Instant) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or_default();
    let _ = writeln!(std::io::stderr(), "guest: {:6.1} s {test}", start.elapsed().as_secs_f64());
}

fn said(Output { status, stdout, stderr }: Output) -> Said {
    Said {
        status: status.code().expect("refault was not killed"),
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    }
}

/// Runs a shell script in a guest with `cpus` CPUs and 512 MiB of persistent memory. Returns its output and its kernel's
/// log, which must be clean.
pub(crate) fn script(cpus: u8, extra: &[&str], text: &str) -> (Said, String) {
    script_in_trouble(cpus, extra, text, &[])
}

/// The same, of a script that makes trouble on purpose: lines of the log with one of these texts are expected.
pub(crate) fn script_in_trouble(cpus: u8, extra: &[&str], text: &str, expected: &[&str]) -> (Said, String) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let log = folder.path().join("serial.log");
    let cpus = cpus.to_string();
    let fixed = ["run", "--cpus", &cpus, "--pmem", "size=512M", "--timeout", "3000", "--serial-log"];
    let arguments = fixed.iter().map(OsStr::new).chain([log.as_os_str()]).chain(extra.iter().map(OsStr::new));
    let command = ["--", "sh", "-ec", text].map(OsStr::new);
    let said = Refault::new(arguments.chain(command)).run();
    let log = std::fs::read_to_string(&log).unwrap_or_default();
    let is_expected = |line: &&str| expected.iter().any(|text| line.contains(text));
    let rest: Vec<_> = log.lines().filter(|line| !is_expected(line)).collect();
    assert_clean(&rest.join("\n"), &said);
    (said, log)
}

/// Asserts that a guest's log has no line of trouble.
pub(crate) fn assert_clean(log: &str, said: &Said) {
    let findings = guest_log::findings(log);
    assert!(findings.is_empty(), "the guest's log has trouble:\n{}\n{said:#?}", findings.join("\n"));
    assert!(log.contains("refault_rdma: loading"), "no kernel log, or no driver in it: {said:#?}");
}
