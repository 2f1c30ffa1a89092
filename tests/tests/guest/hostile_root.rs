//! A root in the guest that writes at random to the IOMMU, the NIC and configuration space harms its guest at most.

use std::process::Stdio;

use crate::support::{Refault, Running, Said};

/// Memory of the guest in MiB.
const MEMORY: u64 = 512;
/// What the process may hold besides the guest's memory and the files that it maps, in KiB.
const OWN: u64 = 256 << 10;
/// Lines of warnings. Those about the guest's mistakes come in about ten kinds, each at powers of two only.
const WARNINGS: usize = 300;

/// After a word the guest waits for the end of its input, so that the process can be looked at.
fn start(text: &str) -> Running {
    let memory = format!("{MEMORY}M");
    let options =
        ["run", "--cpus", "2", "--memory", &memory, "--timeout", "3000", "--append", "iomem=relaxed"];
    let mut refault = Refault::new(options.into_iter().chain(["--", "sh", "-ec", text]));
    refault.command().stdin(Stdio::piped());
    refault.start()
}

/// A value of the process' status, in KiB.
fn status(running: &Running, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", running.id())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
    line.trim_start_matches(':').trim_end_matches("kB").trim().parse().expect("a number")
}

fn assert_few_warnings(said: &Said) {
    let warnings = said.stderr.lines().filter(|line| line.contains(" WARN ")).count();
    assert!(warnings < WARNINGS, "{warnings} warnings: {said:#?}");
    assert!(!said.stderr.contains("panicked"), "{said:#?}");
}

const ATTACK: &str = "
    for mode in pasid odp; do
        REFAULT_ODP_MODE=$mode refault-hostile-root 25
    done
    echo over
    cat >/dev/null";

#[test]
fn a_root_that_writes_to_the_devices_deceives_no_process_and_costs_the_host_nothing() {
    let mut running = start(ATTACK);
    running.await_line("over");
    let (peak, anonymous) = (status(&running, "VmHWM"), status(&running, "RssAnon"));
    let said = running.end();
    assert_eq!(said.status, 0, "{said:#?}");
    assert_eq!(said.stdout.matches("rounds=25").count(), 2, "{said:#?}");
    assert!(!said.stdout.contains("right=0 "), "nothing was checked: {said:#?}");
    assert!(peak < (MEMORY << 10) + OWN && anonymous < OWN, "{peak} KiB at most, {anonymous} KiB anonymous");
    assert_few_warnings(&said);
}

/// Nothing is put back, so the guest is reset by sysrq or crashes. A CPU that waits for the invalidation queue for ever is
/// a stall to the kernel's RCU, which panics then. Should all of that fail, the time limit ends the run.
#[test]
fn a_root_that_ruins_its_own_guest_ends_no_more_than_that() {
    let kernel = "iomem=relaxed rcupdate.rcu_cpu_stall_timeout=10 sysctl.kernel.panic_on_rcu_stall=1";
    let command = ["--", "sh", "-c", "refault-hostile-root --ruthless 30; echo b >/proc/sysrq-trigger"];
    let options = ["run", "--cpus", "2", "--timeout", "300", "--append", kernel];
    let said = Refault::new(options.into_iter().chain(command)).run();
    assert!(matches!(said.status, 123 | 124), "{said:#?}");
    assert!(said.stdout.starts_with("seed "), "the attack did not begin: {said:#?}");
    assert_few_warnings(&said);
}
