//! Truncating a file behind guest memory ends the process, with one line that says why.
//!
//! Each test runs itself once more as a child, which is the process that ends.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use refault_machine::config::{CpuModel, MachineConfig, PmemBacking, PmemConfig};
use refault_machine::memory::{self, layout::Layout};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const SIZE: u64 = 2 << 20;
/// Set in the child, to the path that it gets.
const CHILD: &str = "REFAULT_TEST_SIGBUS_CHILD";

/// Runs `test` of this file as a child that calls `victim` with a path; returns `None` in the child itself, should it
/// survive.
fn child(test: &str, victim: impl FnOnce(), path: &Path) -> Option<Output> {
    if std::env::var_os(CHILD).is_some() {
        victim();
        return None;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    Some(command.args(["--exact", test, "--nocapture"]).env(CHILD, path).output().unwrap())
}

/// Guest memory with a persistent region backed by `file`, and the region's address.
fn memory_on(file: &Path) -> (Arc<GuestMemoryMmap>, GuestAddress) {
    let config = MachineConfig {
        kernel: "vmlinuz".into(),
        initrds: Vec::new(),
        cmdline: String::new(),
        cpus: 1,
        memory: 64 << 20,
        pmem: vec![PmemConfig { backing: PmemBacking::Shared(file.into()), size: SIZE }],
        cpu_model: CpuModel::Baseline,
    };
    let layout = Layout::new(&config, 40).unwrap();
    (memory::map(&config, &layout).unwrap(), GuestAddress(layout.pmem[0].start))
}

#[test]
fn a_truncated_persistent_memory_file_is_named_as_the_cause() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("disk");
    let output = child(
        "a_truncated_persistent_memory_file_is_named_as_the_cause",
        || {
            let file = std::env::var(CHILD).unwrap();
            let (memory, region) = memory_on(Path::new(&file));
            std::fs::File::options().write(true).open(file).unwrap().set_len(0).unwrap();
            let _ = memory.write_slice(&[1; 8], region);
        },
        &file,
    );
    let Some(output) = output else { return };
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{said}");
    let lines: Vec<_> = said.lines().filter(|line| line.starts_with("refault: ")).collect();
    let [line] = lines[..] else { panic!("expected one line, got: {said}") };
    assert!(line.contains(&format!("{} was truncated", file.display())), "{line}");
    assert!(line.contains("disk is full") && line.contains("start again"), "{line}");
}

#[test]
fn a_sigbus_sent_by_kill_has_its_default_effect() {
    let folder = tempfile::tempdir().unwrap();
    let victim = || {
        let _memory = memory_on(Path::new(&std::env::var(CHILD).unwrap()));
        let _ = Command::new("kill").args(["-BUS", &std::process::id().to_string()]).status();
        std::thread::sleep(std::time::Duration::from_secs(20));
    };
    let test = "a_sigbus_sent_by_kill_has_its_default_effect";
    if let Some(output) = child(test, victim, &folder.path().join("disk")) {
        assert_eq!(output.status.signal(), Some(7));
        assert!(!String::from_utf8_lossy(&output.stderr).contains("truncated"));
    }
}
