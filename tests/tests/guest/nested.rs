//! Our own VMM where there is no KVM: one level down. All other tests then run in QEMU; these are few, and each tests
//! what only our VMM does.

use std::os::unix::fs::MetadataExt;

use crate::support::{Refault, script};

#[test]
fn our_vmm_boots_runs_a_command_and_returns_its_status() {
    let said =
        Refault::new(["run", "--host", "nested", "--cpus", "2", "--", "sh", "-c", "nproc; exit 7"]).run();
    assert_eq!((said.status, &*said.stdout), (7, "2\n"), "{said:#?}");
    assert!(said.stderr.contains("host nested"), "{said:#?}");
}

#[test]
fn devices_in_our_vmm_fault_in_both_modes_and_lose_nothing() {
    let text = "
        for mode in pasid odp; do
            REFAULT_ODP_MODE=$mode refault-storm --scale 0.1 dontneed
        done";
    let (said, _) = script(2, &["--host", "nested"], text);
    assert_eq!(said.status, 0, "{said:#?}");
    assert_eq!(said.stdout.matches("result=pass").count(), 2, "{said:#?}");
}

#[test]
fn a_panic_in_our_vmm_leaves_a_core_with_vmcoreinfo() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("core");
    let path = file.to_str().expect("UTF-8");
    let crash = "echo c > /proc/sysrq-trigger";
    let host = ["run", "--host", "nested", "--cpus", "2", "--memory", "256M", "--dump", path, "--"];
    let said = Refault::new(host.into_iter().chain(["sh", "-c", crash])).run();
    assert_eq!(said.status, 123, "{said:#?}");
    assert!(said.stderr.contains("a core of the guest's memory is in"), "{said:#?}");
    let core = std::fs::read(&file).expect("a core");
    let contains = |words: &[u8]| core[..1 << 16].windows(words.len()).any(|window| window == words);
    assert!(core.starts_with(b"\x7fELF") && contains(b"VMCOREINFO\0") && contains(b"OSRELEASE="));
    let meta = std::fs::metadata(&file).expect("metadata");
    assert!(meta.len() > 256 << 20 && meta.blocks() * 512 < meta.len() * 3 / 4, "{meta:?}");
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1, "something is left");
}
