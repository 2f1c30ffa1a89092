//! Two machines on a wire: a client of one writes into a file of the other, whose file system moves the blocks.

use std::path::Path;

use crate::support::{Refault, assert_clean, workspace};

/// The arguments of one of the two machines.
fn arguments(folder: &Path, name: &str, more: &[&str], script: &str) -> Vec<String> {
    let at = |file: &str| folder.join(file).display().to_string();
    let program =
        format!("{}:/usr/bin/machines.py", workspace().join("tests/tests/guest/machines.py").display());
    let uplink = format!("unix:{}", at("wire"));
    let log = at(&format!("{name}.log"));
    let fixed = [
        "run",
        "--cpus",
        "1",
        "--memory",
        "512M",
        "--timeout",
        "3000",
        "--nic",
        "roce",
        "--uplink",
        &uplink,
        "--serial-log",
        &log,
        "--add",
        &program,
    ];
    let command = ["--", "sh", "-ec", script];
    fixed.iter().chain(more).chain(&command).map(|&word| word.to_owned()).collect()
}

#[test]
fn a_client_writes_into_a_file_that_another_machine_moves_and_survives_that_machine() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = "
        mkfs.xfs -q /dev/pmem0
        mkdir /mnt/files
        mount -o dax=always /dev/pmem0 /mnt/files
        refault-net wait
        python3 /usr/bin/machines.py server /mnt/files/target";
    let client = "
        refault-net wait
        python3 /usr/bin/machines.py client 10.77.0.1";
    // The first to come listens, and has the first address.
    let mut one = Refault::new(arguments(folder.path(), "server", &["--pmem", "size=512M"], server)).start();
    while !folder.path().join("wire").exists() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let mut two = Refault::beside_another(arguments(folder.path(), "client", &[], client)).start();
    two.await_line("writing on");
    let verdict = one.line().expect("the server's verdict");
    assert!(verdict.ends_with("0 wrong bytes, moved: True"), "{verdict}");
    one.kill();
    let said = two.end();
    assert_eq!(said.status, 0, "{said:#?}");
    let wanted = "the server is gone: retries exceeded, not before their time; carrier 0";
    assert!(said.stdout.contains(wanted), "{said:#?}");
    for name in ["server", "client"] {
        let log = std::fs::read_to_string(folder.path().join(format!("{name}.log"))).unwrap_or_default();
        assert_clean(&log, &said);
    }
}
