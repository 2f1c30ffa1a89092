//! Exit statuses are correct, whatever the guest does.

use std::process::Command;

use crate::support::{Refault, binary, script};

/// `git bisect run` must not take a kernel that panics for a good one.
#[test]
fn a_panic_under_an_initrd_is_no_success() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let initrd = folder.path().join("empty.cpio");
    // The trailer alone (Documentation/driver-api/early-userspace/buffer-format.rst).
    let fields = "0".repeat(88);
    let header = format!("070701{fields}0000000b00000000TRAILER!!!\0\0\0\0");
    std::fs::write(&initrd, header).expect("written");
    let image = Command::new(binary()).args(["guest", "path"]).output().expect("refault starts");
    let kernel = format!("{}/vmlinux", String::from_utf8_lossy(&image.stdout).trim());
    let initrd = initrd.to_str().expect("UTF-8");
    let said = Refault::new(["run", "--kernel", &kernel, "--initrd", initrd, "--timeout", "3000"]).run();
    assert_eq!(said.status, 123, "{said:#?}");
    assert!(said.stderr.contains("the guest's kernel panicked"), "{said:#?}");
}

#[test]
fn a_guest_that_halts_ends_the_run() {
    let (said, _) = script(1, &[], "halt; sleep 1000");
    assert_eq!(said.status, 123, "{said:#?}");
    assert!(said.stderr.contains("the guest was halted before the command ended"), "{said:#?}");
}

#[test]
fn a_warning_fails_a_run_on_request_and_no_program_can_imitate_init() {
    let text = r#"
        echo "exit 3" >/dev/refault-control
        echo "<4>WARNING: CPU: 0 at made/up.c:1" >/dev/kmsg"#;
    let said = Refault::new(["run", "--fail-on-warn", "--timeout", "3000", "--", "sh", "-ec", text]).run();
    assert_eq!(said.status, 121, "{said:#?}");
    assert!(said.stderr.contains("WARNING: CPU: 0 at made/up.c:1"), "{said:#?}");
    assert!(said.stderr.contains("guest: exit 3"), "{said:#?}");
}

/// The time that a guest takes to boot does not matter: the limit is doubled until the command has started.
#[test]
fn a_guest_at_its_time_limit_reports_what_it_waits_for() {
    let mut limit = 15;
    loop {
        let seconds = limit.to_string();
        let said =
            Refault::new(["run", "--timeout", &seconds, "--", "sh", "-c", "echo up; sleep 1000"]).run();
        assert_eq!(said.status, 124, "{said:#?}");
        let [cpus, blocked] = ["sysrq: Show backtrace of all active CPUs", "sysrq: Show Blocked State"]
            .map(|line| said.stderr.contains(line));
        if said.stdout == "up\n" && cpus && blocked {
            return;
        }
        assert!(limit < 1000, "{said:#?}");
        limit *= 2;
    }
}
