//! FLUSH on persistent memory: flushed data is in the file that backs it.

use crate::support::{script, workspace};

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
