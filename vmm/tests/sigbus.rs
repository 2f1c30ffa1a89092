//! A file behind guest memory that its owner makes shorter ends the process, with a line that says why.
//!
//! Each test runs itself once more as a child, which is the one that ends.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};

use refault_vmm::config::{CpuModel, MachineConfig, PmemBacking, PmemConfig};
use refault_vmm::memory::{self, layout::Layout};
use refault_vmm::serve::Board;
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};

const SIZE: u64 = 2 << 20;
/// Set for the child.
const CHILD: &str = "REFAULT_TEST_SIGBUS_CHILD";

/// Runs `test` of this file as a child that does `victim`'s work; none in the child itself, should it live on.
fn child(test: &str, victim: impl FnOnce()) -> Option<Output> {
    if std::env::var_os(CHILD).is_some() {
        victim();
        return None;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    Some(command.args(["--exact", test, "--nocapture"]).env(CHILD, "1").output().unwrap())
}

fn assert_explained(output: &Output) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{said}");
    let lines: Vec<_> = said.lines().filter(|line| line.starts_with("refault: ")).collect();
    let [line] = lines[..] else { panic!("want one line, got: {said}") };
    assert!(
        line.contains("truncated") && line.contains("disk is full") && line.contains("start again"),
        "{line}"
    );
}

#[test]
fn a_persistent_memory_file_that_is_truncated_under_the_machine_is_named_as_the_cause() {
    let output =
        child("a_persistent_memory_file_that_is_truncated_under_the_machine_is_named_as_the_cause", || {
            let file = tempfile::NamedTempFile::new().unwrap();
            file.as_file().set_len(SIZE).unwrap();
            let config = MachineConfig {
                kernel: "vmlinuz".into(),
                initrds: Vec::new(),
                cmdline: String::new(),
                cpus: 1,
                memory: 64 << 20,
                pmem: vec![PmemConfig { backing: PmemBacking::Shared(file.path().into()), size: SIZE }],
                cpu_model: CpuModel::Baseline,
            };
            let layout = Layout::new(&config, 40).unwrap();
            let memory = memory::map(&config, &layout).unwrap();
            file.as_file().set_len(0).unwrap();
            let _ = memory.write_slice(&[1; 8], GuestAddress(layout.pmem[0].start));
        });
    output.iter().for_each(assert_explained);
}

#[test]
fn a_clients_memory_file_that_is_truncated_is_named_as_the_cause() {
    let output = child("a_clients_memory_file_that_is_truncated_is_named_as_the_cause", || {
        let _board = Board::new(false);
        let file = tempfile::tempfile().unwrap();
        file.set_len(SIZE).unwrap();
        let part = FileOffset::new(file.try_clone().unwrap(), 0);
        let regions = [(GuestAddress(0), SIZE as usize, Some(part))];
        let memory = GuestMemoryMmap::<()>::from_ranges_with_files(regions).unwrap();
        file.set_len(4096).unwrap();
        let _ = memory.write_slice(&[1; 8], GuestAddress(0));
        let _ = memory.read_slice(&mut [0; 8], GuestAddress(4096));
    });
    output.iter().for_each(assert_explained);
}

#[test]
fn a_signal_that_somebody_sends_ends_the_process_as_it_always_did() {
    let output = child("a_signal_that_somebody_sends_ends_the_process_as_it_always_did", || {
        let _board = Board::new(false);
        let _ = Command::new("kill").args(["-BUS", &std::process::id().to_string()]).status();
        std::thread::sleep(std::time::Duration::from_secs(20));
    });
    if let Some(output) = output {
        assert_eq!(output.status.signal(), Some(7));
        assert!(!String::from_utf8_lossy(&output.stderr).contains("truncated"));
    }
}
