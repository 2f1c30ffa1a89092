//! Sizes of the user's terminal, sent by the agent in a nested machine to the program that it runs: lines of columns, a
//! space, and rows, in a pipe.

use std::fs::File;
use std::io::{self, BufRead, BufReader, PipeReader, PipeWriter};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};

use rustix::io::{FdFlags, fcntl_setfd};

/// Variable with the number of the pipe's file descriptor.
const VARIABLE: &str = "REFAULT_SIZES";

/// Passes the reading end to `command`; it must stay open until the command has started.
pub(super) fn lend(command: &mut Command) -> io::Result<(PipeReader, PipeWriter)> {
    let (theirs, ours) = io::pipe()?;
    fcntl_setfd(&theirs, FdFlags::empty())?;
    command.env(VARIABLE, theirs.as_raw_fd().to_string());
    Ok((theirs, ours))
}

/// Receives the sizes, in columns and rows, in the program.
///
/// # Errors
/// There is no such pipe.
pub fn terminal_sizes() -> io::Result<Receiver<(u16, u16)>> {
    let number = std::env::var(VARIABLE).map_err(|_| io::Error::from(io::ErrorKind::NotFound))?;
    let lines = BufReader::new(File::open(format!("/proc/self/fd/{number}"))?).lines();
    let (sender, sizes) = channel();
    std::thread::spawn(move || {
        let sizes = lines.map_while(Result::ok).filter_map(|line| parse(&line));
        for size in sizes {
            if sender.send(size).is_err() {
                return;
            }
        }
    });
    Ok(sizes)
}

fn parse(line: &str) -> Option<(u16, u16)> {
    let (columns, rows) = line.split_once(' ')?;
    Some((columns.parse().ok()?, rows.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::Stdio;

    use super::*;

    #[test]
    fn a_program_gets_its_sizes_through_the_file_in_its_environment() {
        let mut command = Command::new("sh");
        command.args(["-c", "cat <&$REFAULT_SIZES"]).stdout(Stdio::piped());
        let (theirs, mut ours) = lend(&mut command).expect("a pipe");
        let program = command.spawn().expect("a shell");
        drop(theirs);
        writeln!(ours, "300 50").expect("it reads");
        drop(ours);
        let said = program.wait_with_output().expect("it ends").stdout;
        assert_eq!(parse(String::from_utf8_lossy(&said).trim_end()), Some((300, 50)));
    }
}
