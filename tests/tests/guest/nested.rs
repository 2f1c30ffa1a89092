//! Our own VMM where there is no KVM: one level down. The other tests run on what the machine has, which is QEMU then;
//! so these are few, and each asks for what only our VMM has to do with.

use crate::support::{Refault, script};

#[test]
fn our_vmm_boots_runs_a_command_and_tells_its_status() {
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
