//! FLUSH on persistent memory: flushed data is in the file that backs it, even if the machine is killed.

use crate::support::{Refault, script, workspace};

#[test]
fn what_was_flushed_is_in_the_file_that_backs_the_memory() {
    const TEXT: &str = "flushed by the NIC";
    let folder = tempfile::tempdir().expect("a temporary folder");
    let pmem = folder.path().join("pmem");
    let file = format!("{},size=512M", pmem.display());
    let program = format!("{}:/usr/bin/flush.py", workspace().join("tests/tests/guest/flush.py").display());
    let text = format!(
        "
        mkfs.xfs -q /dev/pmem1
        mkdir /mnt/files
        mount -o dax=always /dev/pmem1 /mnt/files
        python3 /usr/bin/flush.py /mnt/files/record '{TEXT}'"
    );
    let (said, _) = script(2, &["--add", &program, "--pmem", &file], &text);
    assert_eq!(said.status, 0, "{said:#?}");
    for line in
        ["odp: written and flushed", "pasid: written and flushed", "memory that does not survive: refused"]
    {
        assert!(said.stdout.contains(line), "no {line:?} in {said:#?}");
    }
    let bytes = std::fs::read(&pmem).expect("the file is there");
    for mode in ["odp", "pasid"] {
        let wanted = format!("{TEXT} {mode}").into_bytes();
        let found = bytes.chunks(4096).any(|block| block.starts_with(&wanted));
        assert!(found, "what was flushed in mode {mode} is not in the file");
    }
}

/// Blocks of the file that `remote_flush.py` writes to; each record has its own.
const BLOCKS: usize = 1024;

/// Records before the machine is killed: more than there are blocks, so that some were written twice.
const RECORDS: usize = 1500;

/// The number of the record that a block holds, if any.
fn record_in(block: &[u8]) -> Option<usize> {
    let text = block.strip_prefix(b"record ")?;
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&text[..digits]).ok()?.parse().ok()
}

/// The writer is another device, and the file's blocks move between its records. Each is FLUSHed before the next one is
/// written, so when the machine is killed, all that it said was durable must be in the file on the host.
#[test]
fn what_a_remote_writer_flushed_is_there_after_the_machine_was_killed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let pmem = folder.path().join("pmem");
    let file = format!("{},size=512M", pmem.display());
    let program = workspace().join("tests/tests/guest/remote_flush.py");
    let program = format!("{}:/usr/bin/remote_flush.py", program.display());
    let text = "
        mkfs.xfs -q /dev/pmem0 && mkdir -p /mnt/files && mount -o dax=always /dev/pmem0 /mnt/files &&
        exec python3 /usr/bin/remote_flush.py /mnt/files/records";
    let nics =
        ["run", "--nic", "roce", "--nic", "roce", "--add", &program, "--pmem", &file, "--", "sh", "-c", text];
    let mut running = Refault::new(nics).start();
    running.await_line(&format!("flushed {}", RECORDS - 1));
    running.kill();

    let bytes = std::fs::read(&pmem).expect("the file is there");
    let mut newest = [None; BLOCKS];
    for number in bytes.chunks(4096).filter_map(record_in) {
        newest[number % BLOCKS] = newest[number % BLOCKS].max(Some(number));
    }
    // The machine may have written later ones before it was killed.
    let missing: Vec<_> =
        (RECORDS - BLOCKS..RECORDS).filter(|number| newest[number % BLOCKS] < Some(*number)).collect();
    assert!(missing.is_empty(), "FLUSHed, and not in the file: {missing:?}");
}
