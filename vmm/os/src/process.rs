//! Child processes that never outlive this one.
#![expect(unsafe_code, reason = "a child asks the kernel to end it with its parent, between fork and exec")]

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::message::Progress;
use super::signals;

/// Interval between messages that a child is still running.
const QUIET_TIME: Duration = Duration::from_secs(10);
/// Bytes of a log quoted in an error message.
const TAIL: u64 = 2000;

/// Makes the child receive `signal` when the thread that starts it ends, even by `SIGKILL`. The child gets a process group
/// of its own, so the terminal's signals reach only us, and starts with an empty signal mask.
pub fn die_with_parent(command: &mut Command, signal: i32) -> &mut Command {
    let parent = std::process::id();
    command.process_group(0);
    // SAFETY: the closure runs in the forked child and calls prctl, getppid and pthread_sigmask only, which are
    // async-signal-safe, and it touches no memory but its own.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, signal) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            // The parent may have died before prctl took effect.
            if u32::try_from(libc::getppid()) != Ok(parent) {
                return Err(std::io::Error::from_raw_os_error(libc::ESRCH));
            }
            signals::unblock();
            Ok(())
        })
    }
}

/// Runs programs with their output in one log file, the end of which error messages quote.
#[derive(Clone, Debug)]
pub struct Logged {
    log: PathBuf,
    progress: Progress,
}

impl Logged {
    /// Appends output to `log`.
    pub fn new(log: &Path, progress: &Progress) -> Self {
        Self { log: log.to_path_buf(), progress: progress.clone() }
    }

    /// The progress lines shown to the user.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Runs the program to its end.
    ///
    /// # Errors
    /// The program is missing or exits with a status other than 0; the message quotes the end of its output.
    pub fn run(&self, command: &mut Command) -> Result<()> {
        let log = self.open()?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let start = self.log.metadata().map_or(0, |meta| meta.len());
        let child = spawn(command)?;
        self.wait(child, &name(command), start)
    }

    /// Runs the program to its end and returns what it wrote to standard output.
    ///
    /// # Errors
    /// As for [`Logged::run`], or the output is not UTF-8.
    pub fn output(&self, command: &mut Command) -> Result<String> {
        String::from_utf8(self.bytes(command)?)
            .with_context(|| format!("{} printed something that is not text", name(command)))
    }

    /// As [`Logged::output`], for programs whose output is not text.
    ///
    /// # Errors
    /// As for [`Logged::run`].
    pub fn bytes(&self, command: &mut Command) -> Result<Vec<u8>> {
        let start = self.log.metadata().map_or(0, |meta| meta.len());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(self.open()?);
        let mut child = spawn(command)?;
        let mut bytes = Vec::new();
        if let Some(mut pipe) = child.stdout.take() {
            pipe.read_to_end(&mut bytes)?;
        }
        self.wait(child, &name(command), start)?;
        Ok(bytes)
    }

    fn open(&self) -> Result<File> {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("cannot write the log {}", self.log.display()))
    }

    fn wait(&self, mut child: Child, name: &str, start: u64) -> Result<()> {
        let mut reported = Instant::now();
        let mut pause = Duration::from_millis(1);
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if reported.elapsed() > QUIET_TIME {
                reported = Instant::now();
                self.progress.step(&format!("  still running: {}", last_line(&tail(&self.log, start))));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(100));
        };
        if !status.success() {
            let said = tail(&self.log, start);
            bail!(
                "{name} failed ({status}); its output ends with:\n{said}\n(whole log: {})",
                self.log.display()
            );
        }
        Ok(())
    }
}

/// Starts a child that ends with us.
///
/// # Errors
/// It cannot be started; the error names the program.
pub fn spawn(command: &mut Command) -> Result<Child> {
    die_with_parent(command, libc::SIGTERM)
        .spawn()
        .with_context(|| format!("cannot start {}", command.get_program().display()))
}

fn name(command: &Command) -> String {
    let first = command.get_args().next().map(OsStr::to_string_lossy).unwrap_or_default();
    format!("{} {first}", command.get_program().display())
}

/// The end of what was logged since byte `start`.
fn tail(log: &Path, start: u64) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let from = file.metadata()?.len().saturating_sub(TAIL).max(start);
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).trim().to_string()
}

fn last_line(text: &str) -> &str {
    text.rsplit(['\n', '\r']).map(str::trim).find(|line| !line.is_empty()).unwrap_or("(no output yet)")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(folder: &tempfile::TempDir) -> Logged {
        Logged::new(&folder.path().join("log"), &Progress::new("test"))
    }

    #[test]
    fn a_failing_program_is_quoted() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let error = logged(&folder)
            .run(Command::new("sh").args(["-c", "echo no space left >&2; exit 3"]))
            .expect_err("exit 3 is a failure");
        assert!(error.to_string().contains("no space left"), "{error}");
    }

    #[test]
    fn a_missing_program_is_named() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let error = logged(&folder).run(&mut Command::new("/nonexistent/tool")).expect_err("there is none");
        assert!(error.to_string().contains("/nonexistent/tool"), "{error}");
    }

    #[test]
    fn output_and_log_are_separate() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let output = logged(&folder).output(Command::new("sh").args(["-c", "echo out; echo err >&2"]));
        assert_eq!(output.expect("it succeeds"), "out\n");
        let log = std::fs::read_to_string(folder.path().join("log")).expect("a log");
        assert_eq!(log, "err\n");
    }
}
