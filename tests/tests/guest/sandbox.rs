//! Real runs are in the sandbox: the kernel says so for every thread of refault, and for QEMU.

use std::fs;
use std::path::{Path, PathBuf};

use refault_os::sandbox::Support;

use crate::support::{Refault, Running};

/// Filters of a thread that has no kind of its own, and of one that has.
const PROCESS: u32 = 1;
const KIND: u32 = PROCESS + 2;

/// A run whose command waits, as long as its input is open, on the host that runs the devices in this process.
fn waiting(more: &[&str]) -> Running {
    let first = ["run", "--pmem", "size=16M"];
    let command = ["--", "sh", "-c", "echo ready; sleep 3000"];
    let mut running = Refault::new(first.iter().chain(more).chain(&command)).start();
    running.await_line("ready");
    running
}

/// Folders in /proc: one for each thread, and for each child process.
fn threads(pid: u32) -> Vec<PathBuf> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    tasks.map(|task| task.expect("a thread").path()).collect()
}

fn children(pid: u32) -> Vec<u32> {
    let of = |task: &PathBuf| fs::read_to_string(task.join("children")).unwrap_or_default();
    let all: Vec<_> = threads(pid).iter().map(of).collect();
    all.iter().flat_map(|line| line.split_whitespace()).map(|pid| pid.parse().expect("a number")).collect()
}

/// A number of /proc/PID/status.
fn status(thread: &Path, name: &str) -> u32 {
    let text = fs::read_to_string(thread.join("status")).expect("it runs");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|value| value.trim().parse().ok()).expect("the kernel knows it")
}

fn name(thread: &Path) -> String {
    fs::read_to_string(thread.join("comm")).expect("it runs").trim().to_owned()
}

#[test]
fn every_thread_of_a_run_and_its_qemu_are_confined() {
    if let Some(missing) = Support::of_this_kernel().missing() {
        eprintln!("skipped: {missing}");
        return;
    }
    let running = waiting(&[]);
    let all = threads(running.id());
    let filters = |thread: &Path| status(thread, "Seccomp_filters");
    for thread in &all {
        assert!(filters(thread) > PROCESS, "{}: {}", name(thread), filters(thread));
        assert_eq!(status(thread, "NoNewPrivs"), 1, "{}", name(thread));
    }
    let workers: Vec<_> = all.iter().filter(|thread| name(thread).starts_with("nic-")).collect();
    assert!(workers.len() > 1 && workers.iter().all(|worker| filters(worker) >= KIND), "{workers:?}");
    for qemu in children(running.id()) {
        for thread in threads(qemu) {
            // One of ours, and its own.
            assert!(filters(&thread) > 1, "{}: {}", name(&thread), filters(&thread));
        }
        let limits = fs::read_to_string(format!("/proc/{qemu}/limits")).expect("it runs");
        let cores = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a limit");
        assert_eq!(cores.split_whitespace().nth(4), Some("0"), "{cores}");
    }
    running.kill();
    let running = waiting(&["--no-sandbox"]);
    let free = threads(running.id());
    assert!(free.iter().all(|thread| filters(thread) == 0 && status(thread, "NoNewPrivs") == 0));
    running.kill();
}
