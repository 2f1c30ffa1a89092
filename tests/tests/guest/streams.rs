//! Standard streams of a command in the guest.

use std::io::{Read, Write};
use std::process::Stdio;

use crate::support::Refault;

#[test]
fn streams_carry_any_bytes_and_messages_show_them() {
    let text = r"
        printf 'a\033[2Jb\n' >/dev/refault-control
        printf 'c\033[2Jd\n' >&2
        cat
        exit 3";
    let bytes: Vec<u8> = (0..1u32 << 18).map(|index| (index ^ (index >> 8)) as u8).collect();
    let mut refault = Refault::new(["run", "--timeout", "3000", "--", "sh", "-c", text]);
    let (theirs, mut ours) = std::io::pipe().expect("a pipe");
    refault.command().stdin(theirs);
    let input = bytes.clone();
    let feeding = std::thread::spawn(move || ours.write_all(&input));
    let said = refault.run_bytes();
    feeding.join().expect("no panic").expect("all was taken");
    let errors = String::from_utf8_lossy(&said.stderr);
    assert_eq!(said.status.code(), Some(3), "{errors}");
    assert!(said.stdout == bytes, "{} bytes came back, or others", said.stdout.len());
    assert!(
        errors.contains("refault: guest: a\\u{1b}[2Jb\n") && errors.contains("c\u{1b}[2Jd\n"),
        "{errors}"
    );
}

/// Both streams go to a reader that takes one word and stops, as in `refault run … 2>&1 | sleep 1000`.
#[test]
fn a_reader_that_stalls_does_not_keep_a_run_whose_time_is_up() {
    let mut refault = Refault::new(["run", "--timeout", "15", "--verbose", "--", "yes"]);
    let (mut ours, theirs) = std::io::pipe().expect("a pipe");
    refault.command().stdout(theirs.try_clone().expect("a file")).stderr(theirs).stdin(Stdio::null());
    let mut child = refault.spawn();
    ours.read_exact(&mut [0; 7]).expect("its first words");
    assert_eq!(child.wait().expect("it ends").code(), Some(124));
}
