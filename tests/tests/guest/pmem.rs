//! Files behind persistent memory: their lock, their contents after a killed run, and the message if one is truncated.

use std::fs::{self, File};
use std::path::Path;

use crate::support::Refault;

/// The guest's script: writes and syncs a word, then reads without end.
const WORK: &str = "
    echo a lasting word | dd of=/dev/pmem0 bs=4096 conv=sync,fsync status=none
    echo ready
    while :; do dd if=/dev/pmem0 of=/dev/null bs=1M iflag=direct status=none; done";

fn pmem(file: &Path) -> String {
    format!("{},size=64M", file.display())
}

#[test]
fn a_file_is_locked_by_one_run_and_keeps_synced_data_when_that_is_killed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("disk");
    let spec = pmem(&file);
    let arguments = ["run", "--host", "nested", "--pmem", &spec, "--", "sh", "-c", WORK];
    let mut running = Refault::new(arguments).start();
    running.await_line("ready");
    let second = running.beside(["run", "--pmem", &spec, "--", "true"]);
    assert_eq!(second.status, 125, "{second:#?}");
    let said = &second.stderr;
    assert!(said.contains(&*file.to_string_lossy()) && said.contains("in use"), "{second:#?}");
    running.kill();
    assert!(fs::read(&file).expect("the file is there").starts_with(b"a lasting word\n"));
}

#[test]
fn a_file_that_is_truncated_under_the_guest_is_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("disk");
    let spec = pmem(&file);
    let mut running = Refault::new(["run", "--pmem", &spec, "--", "sh", "-c", WORK]).start();
    running.await_line("ready");
    File::options().write(true).open(&file).expect("the file is there").set_len(4096).expect("truncated");
    let said = running.end();
    assert_eq!(said.status, 125, "{said:#?}");
    let named = format!("persistent memory file {} was truncated", file.display());
    assert!(said.stderr.contains(&named) && said.stderr.contains("truncate -s 67108864"), "{said:#?}");
}
