//! `refault run` as users run it.

use std::fs;

use crate::support::{Refault, script};

/// Each tool does some work, which needs all of its libraries.
#[test]
fn the_guest_has_its_tools_empty_input_ends_and_the_commands_status_is_refaults() {
    let text = r"
        ip -V; lsmod | grep -o ^refault_rdma; hostname
        strace -c -o /dev/null true; ndctl list -N | grep -o namespace0.0
        gdbserver --version | grep -o '^GNU gdbserver'; gdb -batch -ex 'print 6 * 7'
        fio --name=x --filename=/tmp/x --size=64K --rw=randwrite --verify=crc32c --minimal | cut -d ';' -f 3,5
        perf stat -e task-clock true 2>&1 | grep -o task-clock
        wc -c
        exit 3";
    let said = Refault::new(["run", "--timeout", "3000", "--", "bash", "-ec", text]).run();
    assert_eq!(said.status, 3, "{said:#?}");
    let (version, rest) = said.stdout.split_once('\n').expect("lines");
    assert!(version.starts_with("ip utility"), "{said:#?}");
    let wanted = "refault_rdma\nrefault\nnamespace0.0\nGNU gdbserver\n$1 = 42\nx;0\ntask-clock\n0\n";
    assert_eq!(rest, wanted, "{said:#?}");
}

#[test]
fn files_go_in_come_out_and_persist() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (input, output, pmem) =
        (folder.path().join("in"), folder.path().join("out"), folder.path().join("pmem"));
    fs::write(&input, "hello from the host\n").expect("written");
    let add = format!("{}:/tmp/greeting", input.display());
    let out = format!("/tmp/answer:{}", output.display());
    let file = format!("{},size=64M", pmem.display());
    let text = "
        cat /tmp/greeting
        echo to the error stream >/dev/stderr
        [ \"$(bash -c 'cat <(stat -c %a /tmp /root)' | xargs)\" = '1777 700' ]
        echo answer >/tmp/answer
        echo a lasting word | dd of=/dev/pmem1 bs=4096 conv=sync,fsync
        exit 7";
    let (said, _) = script(1, &["--add", &add, "--out", &out, "--pmem", &file], text);
    assert_eq!(said.status, 7, "{said:#?}");
    assert_eq!(said.stdout, "hello from the host\n");
    assert!(said.stderr.contains("to the error stream"), "{said:#?}");
    assert_eq!(fs::read_to_string(&output).expect("it came out"), "answer\n");
    let kept = fs::read(&pmem).expect("the file is there");
    assert_eq!(kept.len(), 64 << 20);
    assert!(kept.starts_with(b"a lasting word\n"));
}

#[test]
fn mistakes_are_named_before_anything_starts() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let odd = folder.path().join("odd");
    fs::write(&odd, [0; 1000]).expect("written");
    let odd = odd.display().to_string();
    let text = folder.path().join("text");
    fs::write(&text, "no kernel at all").expect("written");
    let text = text.display().to_string();
    let cases: &[(&[&str], i32, &str)] = &[
        (&["run", "--no-such-option"], 2, "--no-such-option"),
        (&["run", "--cpus", "0", "--", "true"], 125, "0 vCPUs"),
        (&["run", "--pmem", &odd, "--", "true"], 125, &odd),
        (&["run", "--kernel", "/no/such/kernel", "--", "true"], 125, "/no/such/kernel"),
        (&["run", "--kernel", &text, "--", "true"], 125, &text),
        (&["run", "--module", "/no/such/module.ko", "--", "true"], 125, "/no/such/module.ko"),
        (&["run", "--add", "/no/such/file:/tmp/x", "--", "true"], 125, "/no/such/file"),
        (&["report", "/no/such/run"], 125, "/no/such/run"),
    ];
    for (arguments, status, named) in cases {
        let said = Refault::new(*arguments).run();
        assert_eq!(said.status, *status, "{arguments:?}: {said:#?}");
        assert!(said.stderr.contains(named), "{arguments:?} does not name {named}: {said:#?}");
    }
}
