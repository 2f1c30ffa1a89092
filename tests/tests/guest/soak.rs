//! Everything at once, again and again: storms with both ways to translate, hostile processes, and programs killed with
//! faults in flight. Nothing may be left over, in the guest or on the host, however long that goes on.
//!
//! `REFAULT_SOAK=7200` makes it two hours; without it there are two short rounds.

use std::collections::HashMap;
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use crate::processes::{Held, held_by};
use crate::support::{Refault, assert_clean};

/// One round of it. The storms that set global knobs, or format persistent memory, run once at a time.
const SCRIPT: &str = r#"
now() { cut -d. -f1 /proc/uptime; }
field() { awk "/^$1:/ { print \$2 }" /proc/meminfo; }
some="dontneed mremap mprotect fork migrate"
storms() {
    REFAULT_ODP_MODE=$1 refault-storm --seed $round --scale $scale all >/tmp/all &
    all=$!
    REFAULT_ODP_MODE=$2 refault-storm --seed $round --scale $scale $some >/tmp/some &
    some_of_them=$!
    REFAULT_ODP_MODE=$2 refault-hostile $hostile $round
    wait $all
    wait $some_of_them
    cat /tmp/all /tmp/some
    : | tee /tmp/all >/tmp/some
}
# What they printed, should one of them fail.
trap 'cat /tmp/all /tmp/some' EXIT
: | tee /tmp/all >/tmp/some
# Waits until the dead processes' objects are gone, then prints what the kernel holds.
settle() {
    for tries in $(seq 600); do
        test -z "$(rdma resource show mr)$(rdma resource show qp | grep -v kernel)" && break
        sleep 0.1
    done
    test -z "$(rdma resource show mr)"
    sync
    echo 3 >/proc/sys/vm/drop_caches
    sleep 1
    echo "round=$round at=$(now) available=$(field MemAvailable) slab=$(field SUnreclaim)" \
        "page_tables=$(field PageTables) iommu_tables=$(field SecPageTables) percpu=$(field Percpu)"
    # Until the host has looked, too.
    read looked
}
echo 0 >/proc/sys/debug/exception-trace
end=$(($(now) + SECONDS_TO_GO))
round=0
while test $round -lt 2 || test $(now) -lt $end; do
    round=$((round + 1))
    test $((round % 2)) = 0 && storms pasid odp || storms odp pasid
    refault-demo --pmem /dev/pmem1 --scenario kill --mode pasid --mode odp --scale $kills --budget 100000 --seed $round
    settle
done
rmmod refault_rdma
echo all done
"#;

/// KiB of a guest's memory that may be missing at the end: less than 10,000 page tables or kernel stacks.
const GUEST_ALLOWANCE: i64 = 24 << 10;

/// KiB by which our processes may grow, without the guest's memory: in 101 minutes they grew by 3 MiB.
const HOST_ALLOWANCE: i64 = 32 << 10;

#[test]
fn storms_kills_and_hostile_processes_leave_nothing_however_often() {
    let seconds =
        std::env::var("REFAULT_SOAK").map_or(0, |text| text.parse().expect("REFAULT_SOAK: seconds"));
    let (scale, kills, hostile) = if seconds == 0 { ("0.05", "0.1", 2) } else { ("0.3", "1", 10) };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let log = folder.path().join("serial.log");
    let text = format!("set -e\nscale={scale} kills={kills} hostile={hostile}\n{SCRIPT}")
        .replace("SECONDS_TO_GO", &seconds.to_string());
    let limit = (seconds * 2 + 3000).to_string();
    let log_path = log.display().to_string();
    let arguments = [
        "run",
        "--cpus",
        "2",
        "--append",
        "numa=fake=2",
        "--pmem",
        "size=512M",
        "--pmem",
        "size=512M",
        "--timeout",
        &limit,
        "--serial-log",
        &log_path,
        "--",
        "sh",
        "-c",
        &text,
    ];
    let mut command = Refault::new(arguments);
    command.command().stdin(Stdio::piped());
    let mut run = command.start();
    let mut go_on = run.stdin();
    let mut rounds: Vec<(HashMap<String, i64>, Held)> = Vec::new();
    while let Some(line) = run.line() {
        println!("{line}");
        if line.starts_with("round=") {
            let guest = line.split(' ').filter_map(|pair| pair.split_once('='));
            let guest =
                guest.map(|(name, value)| (name.to_owned(), value.parse().expect("a number"))).collect();
            // What ends with the last process ends a moment later.
            std::thread::sleep(Duration::from_millis(500));
            let host = held_by(run.id());
            println!("{host:?}");
            rounds.push((guest, host));
            go_on.write_all(b"\n").expect("the guest reads");
        }
    }
    let said = run.end();
    assert_clean(&std::fs::read_to_string(&log).unwrap_or_default(), &said);
    assert_eq!(said.status, 0, "{said:#?}");
    assert!(said.stdout.contains("all done"), "{said:#?}");
    assert!(!said.stdout.contains("NOT OK") && !said.stdout.contains("result=fail"), "{said:#?}");
    let [(early, early_host), .., (late, late_host)] = &rounds[..] else {
        panic!("too few rounds: {rounds:?}")
    };
    for name in ["slab", "page_tables", "iommu_tables", "percpu"] {
        assert!(late[name] - early[name] < GUEST_ALLOWANCE, "{name}: {rounds:?}");
    }
    assert!(early["available"] - late["available"] < GUEST_ALLOWANCE, "available: {rounds:?}");
    assert_eq!(early_host.files, late_host.files, "open files: {rounds:?}");
    assert_eq!(early_host.threads, late_host.threads, "threads: {rounds:?}");
    assert!(late_host.kib - early_host.kib < HOST_ALLOWANCE, "memory: {rounds:?}");
}
