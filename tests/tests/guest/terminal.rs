//! The user's terminal: a shell in the guest, and a job in the background.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::support::{binary, on_this_machine, workspace};

/// Timeout of each wait.
const TIMEOUT: Duration = Duration::from_secs(300);

/// A pseudoterminal, and its output so far.
struct Terminal {
    ours: File,
    theirs: File,
    output: Arc<(Mutex<String>, Condvar)>,
    seen: usize,
}

impl Terminal {
    fn new(columns: u16, rows: u16) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&ours).and_then(|()| unlockpt(&ours)).expect("its other end");
        let path = ptsname(&ours, Vec::new()).expect("its name");
        let flags = OFlags::RDWR | OFlags::NOCTTY;
        let theirs = rustix::fs::open(path, flags, rustix::fs::Mode::empty()).expect("its other end");
        let ours = File::from(ours);
        let output = Arc::<(Mutex<String>, Condvar)>::default();
        let (mut from, into) = (ours.try_clone().expect("a file"), Arc::clone(&output));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                let mut text = into.0.lock().expect("not poisoned");
                text.push_str(&String::from_utf8_lossy(&buffer[..count]));
                into.1.notify_all();
            }
        });
        let terminal = Self { ours, theirs: File::from(theirs), output, seen: 0 };
        terminal.resize(columns, rows);
        terminal
    }

    fn resize(&self, columns: u16, rows: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.ours, size).expect("a size");
    }

    /// Starts a program in a session of its own, with this terminal.
    fn start(&self, program: &Path, arguments: &[&str]) -> Child {
        let end = || self.theirs.try_clone().expect("a file");
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait"]).arg(program).args(arguments).current_dir(workspace());
        command.env("TERM", "xterm").stdin(end()).stdout(end()).stderr(end()).spawn().expect("setsid starts")
    }

    fn types(&mut self, keys: &str) {
        self.ours.write_all(keys.as_bytes()).expect("typed");
    }

    /// Waits for `text` in the output since the last such wait.
    fn wait_for(&mut self, text: &str) {
        let (output, changed) = &*self.output;
        let missing = |output: &mut String| !output[self.seen..].contains(text);
        let output = output.lock().expect("not poisoned");
        let (output, late) = changed.wait_timeout_while(output, TIMEOUT, missing).expect("not poisoned");
        assert!(!late.timed_out(), "no {text:?} in {:?}", &output[self.seen..]);
        self.seen += output[self.seen..].find(text).expect("it is there") + text.len();
    }

    fn is_raw(&self) -> bool {
        let modes = tcgetattr(&self.theirs).expect("modes").local_modes;
        !modes.intersects(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG)
    }
}

fn end_of(mut child: Child) -> ExitStatus {
    child.wait().expect("it ends")
}

#[test]
fn a_shell_has_the_terminals_size_and_keys() {
    let _machine = on_this_machine();
    let mut terminal = Terminal::new(100, 30);
    let shell = terminal.start(binary(), &["run", "--timeout", "3000"]);
    terminal.wait_for("# ");
    assert!(terminal.is_raw());
    terminal.types("stty size; trap 'size=$(stty size)' WINCH\r");
    terminal.wait_for("\r30 100\r");
    terminal.wait_for("# ");
    terminal.resize(111, 33);
    // Keys may overtake the new size. A trap runs between two commands, so the shell needs some commands to run.
    terminal.types("until [ \"$size\" ]; do sleep 0.1; done; echo \"<$size>\"\r");
    terminal.wait_for("\r<33 111>\r");
    terminal.types("echo $((20 + 3)) $HISTFILE\r");
    terminal.wait_for("\r23 /root/.bash_history\r");
    // Key up: the line before, once more.
    terminal.types("\x1b[A\r");
    terminal.wait_for("\r23 /root/.bash_history\r");
    terminal.types("exit 7\r");
    assert_eq!(end_of(shell).code(), Some(7));
    assert!(!terminal.is_raw());
}

#[test]
fn a_job_in_the_background_runs_and_has_the_keys_when_it_is_in_front() {
    let _machine = on_this_machine();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let to_front = folder.path().join("to-front");
    let text = format!(
        "set -m
        {} run --timeout 3000 -- sh -c 'echo up; read -r word; echo got $word; exit 7' &
        until [ -e {} ]; do sleep 0.1; done
        fg; echo status $?",
        binary().display(),
        to_front.display()
    );
    let mut terminal = Terminal::new(80, 25);
    let job = terminal.start(Path::new("bash"), &["-c", &text]);
    terminal.wait_for("up\r");
    File::create(&to_front).expect("a file");
    // In the background, the signal would have been the shell's.
    terminal.wait_for("run --timeout 3000");
    terminal.types("tea\r");
    terminal.wait_for("got tea\r");
    terminal.wait_for("status 7\r");
    assert!(end_of(job).success());
}
