//! Lines that no healthy guest logs. A run whose guest's log has one of them has failed, whatever its
//! scenarios say.

/// Signs of trouble anywhere in a line, as the kernel spells them.
const TROUBLE: &[&str] = &[
    "BUG:",
    "kernel BUG at",
    "WARNING:",
    "Oops",
    "general protection fault",
    "Kernel panic",
    TRACE,
    "soft lockup",
    "hard LOCKUP",
    "stall",
    "blocked for more than",
    "scheduling while atomic",
    "refcount_t:",
    "corruption",
    "Corruption",
    "UBSAN:",
    "KASAN:",
    "KFENCE:",
    "unchecked MSR access error",
    "Out of memory",
    "invoked oom-killer",
    "segfault at",
    "I/O error",
    "Internal error",
    "Shutting down filesystem",
    "PRQ overflow",
    "Invalidation Queue Error",
    "Invalidation Time-out",
];

/// Signs of trouble in a line of the IOMMU's driver or of ours.
const COMPLAINTS: &[&str] = &[
    "error", "errors", "fault", "faults", "fail", "fails", "failed", "failure", "invalid", "timeout",
    "timed", "unable", "cannot", "can't",
];

/// Harmless parts of lines that contain such words.
const HARMLESS: &[&str] = &[
    // The kernel cannot know from the e820 type that the memory is persistent.
    "unable to guarantee persistence of writes",
];

const TRACE: &str = "Call Trace:";
/// How the kernel begins the report that `sysrq l` asks for.
const REPORT: &str = "sysrq: Show backtrace of all active CPUs";

/// Maximum number of lines that are kept.
const FOUND_MAX: usize = 100;

/// Lines of trouble in a guest's log, in their order and without repetitions; at most the first hundred.
pub fn findings(log: &str) -> Vec<String> {
    let mut watch = LogWatch::default();
    log.lines().for_each(|line| watch.look_at(line));
    watch.found
}

/// [`findings`] for a log that arrives line by line.
#[derive(Clone, Debug, Default)]
pub(super) struct LogWatch {
    /// The findings so far.
    pub(super) found: Vec<String>,
    /// A report of the guest's state has begun, as requested on a timeout: its call traces are not trouble.
    reporting: bool,
}

impl LogWatch {
    pub(super) fn look_at(&mut self, line: &str) {
        let line = line.trim();
        self.reporting |= line.contains(REPORT);
        let is_trace = self.reporting && line.contains(TRACE);
        let is_new = || !self.found.iter().any(|earlier| without_time(earlier) == without_time(line));
        if self.found.len() < FOUND_MAX && !is_trace && is_trouble(line) && is_new() {
            self.found.push(line.to_string());
        }
    }
}

fn is_trouble(line: &str) -> bool {
    let line = HARMLESS.iter().fold(line.to_string(), |line, harmless| line.replace(harmless, ""));
    TROUBLE.iter().any(|mark| line.contains(mark)) || (of_interest(&line) && complains(&line))
}

/// Whether a line comes from the IOMMU's driver or ours.
fn of_interest(line: &str) -> bool {
    ["DMAR", "iommu:", "IOMMU", "refault"].iter().any(|name| line.contains(name))
}

/// Matches whole words only, because of "default", "invalidation" and "refault".
fn complains(line: &str) -> bool {
    let line = line.to_lowercase();
    let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '\'');
    words.any(|word| COMPLAINTS.contains(&word))
}

/// A line without the kernel's time stamp, `[   12.345678] `.
fn without_time(line: &str) -> &str {
    match line.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        Some((time, rest)) if time.trim().parse::<f64>().is_ok() => rest,
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEALTHY: &str = "\
[    0.000000] Linux version 7.2.12+deb13-amd64
[    0.010000] [Firmware Bug]: TSC doesn't count with P0 frequency!
[    0.100000] DMAR: Host address width 48
[    0.100100] DMAR: DRHD base: 0x000000fed90000 flags: 0x1
[    0.100200] DMAR: dmar0: reg_base_addr fed90000 ver 1:0 cap 81d2008c222f0606 ecap 8d9a20f00f4e
[    0.200000] iommu: DMA domain TLB invalidation policy: lazy mode
[    0.300000] DMAR: No RMRR found
[    0.300100] DMAR: dmar0: Using Queued invalidation
[    0.300200] DMAR: Intel(R) Virtualization Technology for Directed I/O
[    1.500000] nd_pmem namespace0.0: unable to guarantee persistence of writes
[    2.000000] refault: loading out-of-tree module taints kernel.
[    3.000000] XFS (pmem0): Ending clean mount";

    #[test]
    fn a_requested_report_is_not_trouble() {
        let requested = format!("[ 1.0] {REPORT}\n[ 1.1] Call Trace:\n[ 1.2] BUG: one of its own\n");
        assert_eq!(findings(&requested), ["[ 1.2] BUG: one of its own"]);
        assert_eq!(findings(&format!("[ 0.5] Call Trace:\n{requested}")).len(), 2);
    }

    #[test]
    fn a_healthy_boot_has_no_findings() {
        assert_eq!(findings(HEALTHY), Vec::<String>::new());
    }

    #[test]
    fn every_kind_of_trouble_is_found() {
        for line in [
            "DMAR: DRHD: handling fault status reg 2",
            "DMAR: [DMA Write] Request device [00:01.0] PASID 1 fault addr 0x7f00 [fault reason 0x71]",
            "DMAR: VT-d detected Invalidation Queue Error: Reason 1",
            "DMAR: Device-TLB invalidation timed out",
            "page_request: IOMMU: dmar0: PRQ overflow detected",
            "WARNING: CPU: 1 PID: 77 at fs/dax.c:400 dax_insert_entry+0x1/0x2",
            "kernel BUG at fs/inode.c:777!",
            "BUG: kernel NULL pointer dereference, address: 0000000000000008",
            "rcu: INFO: rcu_preempt self-detected stall on CPU",
            "INFO: task refault-demo:77 blocked for more than 120 seconds.",
            "watchdog: BUG: soft lockup - CPU#0 stuck for 26s!",
            "XFS (pmem0): Corruption of in-memory data detected.  Shutting down filesystem",
            "refault 0000:00:01.0: command 7 timed out",
        ] {
            let log = format!("{HEALTHY}\n[    4.000000] {line}\n");
            assert_eq!(findings(&log), [format!("[    4.000000] {line}")]);
        }
    }

    #[test]
    fn a_line_that_comes_again_counts_once() {
        let log = "[    1.000000] DMAR: DRHD: handling fault status reg 2\n\
                   [    2.000000] DMAR: DRHD: handling fault status reg 2\n";
        assert_eq!(findings(log).len(), 1);
    }

    #[test]
    fn trouble_on_a_harmless_line_is_still_trouble() {
        assert_eq!(findings("refault: unable to guarantee persistence of writes: error 5").len(), 1);
    }
}
