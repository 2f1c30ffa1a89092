//! Prepares a nested machine for guests before its other CPUs are started.
//!
//! QEMU before 8.1 may keep a stale translation when one CPU rewrites code that another is about to run: the kernel then
//! hits a breakpoint that it removed long ago. Linux rewrites its scheduler when the first VM is created and when the last
//! one is destroyed, and KVM's interrupt code as interrupt controllers are switched on and off. So one VM that never runs,
//! with its controller off, is created before the second CPU starts, and stays.

use std::fs;
use std::path::{Path, PathBuf};

use refault_machine::kvm::IdleVm;
use refault_os::message::note;

/// Where the kernel lists CPUs and switches them on.
const CPUS: &str = "/sys/devices/system/cpu";

/// Keeps KVM's code unchanged while it is alive.
pub(super) struct IdleVmGuard {
    _vm: Option<IdleVm>,
}

/// Creates the VM, then switches the other CPUs on. If either fails, guests still run, so it is only reported.
pub(super) fn start_cpus() -> IdleVmGuard {
    let vm = IdleVm::new().inspect_err(|error| note(&format!("KVM in the emulated machine: {error:#}"))).ok();
    for switch in offline(Path::new(CPUS)) {
        if let Err(error) = fs::write(&switch, "1") {
            note(&format!("cannot start a CPU, {}: {error}", switch.display()));
        }
    }
    IdleVmGuard { _vm: vm }
}

/// The switches of CPUs that are present but offline, in order.
fn offline(cpus: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(cpus).into_iter().flatten().flatten();
    let off = |switch: &PathBuf| fs::read_to_string(switch).is_ok_and(|state| state.trim() == "0");
    let mut switches: Vec<_> = entries.map(|entry| entry.path().join("online")).filter(off).collect();
    switches.sort();
    switches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_cpus_that_are_off_are_switched_on() {
        let folder = tempfile::tempdir().expect("temporary folder");
        for (cpu, state) in [("cpu1", "1\n"), ("cpu2", "0\n"), ("cpu3", "0\n")] {
            fs::create_dir(folder.path().join(cpu)).expect("folder");
            fs::write(folder.path().join(cpu).join("online"), state).expect("file");
        }
        // The first CPU cannot be switched off, so it has no switch.
        fs::create_dir(folder.path().join("cpu0")).expect("folder");
        let expected = ["cpu2", "cpu3"].map(|cpu| folder.path().join(cpu).join("online"));
        assert_eq!(offline(folder.path()), expected);
    }
}
