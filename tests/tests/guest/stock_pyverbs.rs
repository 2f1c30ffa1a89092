//! rdma-core's own tests of its Python bindings, of the version that the guest has.

use crate::stock::{Outcome, Skip, Suite, Verdict, explained, judge};
use crate::support::script;

/// The modules that apply to this device, each a suite of the table.
const MODULES: &[&str] = &[
    "test_device",
    "test_pd",
    "test_mr",
    "test_cq",
    "test_cq_events",
    "test_cqex",
    "test_qp",
    "test_qpex",
    "test_srq",
    "test_addr",
    "test_atomic",
    "test_odp",
    "test_parent_domain",
    "test_fork",
    "test_relaxed_ordering",
    "test_shared_pd",
];

/// One run of the suite for each way of translating on-demand regions. The second way concerns one module only.
const RUN: &str = r#"
echo 32 >/proc/sys/vm/nr_hugepages
cd /tmp
run() {
    mode=$1
    shift
    echo "mode $mode"
    set -- $(for module; do echo tests.$module; done)
    REFAULT_ODP_MODE=$mode timeout 2000 python3 /usr/share/rdma-core/tests/run_tests.py --dev refault_0 -v "$@" 2>&1 ||
        echo "ended with status $?"
}
"#;

/// What the suite skips here. docs/stock-suites.md says why.
const SKIPS: &[Skip] = &[
    Skip {
        because: "Device memory is not supported",
        tests: &[
            "test_device.DMTest.*",
            "test_device.SharedDMTest.*",
            "test_mr.DeviceMemoryAPITest.*",
            "test_mr.DeviceMemoryTest.*",
        ],
    },
    Skip {
        because: "Device /dev/dri/renderD128 is not present",
        tests: &["test_mr.DmaBufMRTest.*", "test_mr.DmaBufTestCase.*"],
    },
    Skip {
        because: "All gid indices populated",
        tests: &["test_device.DeviceTest.test_query_gid_ex_bad_flow"],
    },
    Skip { because: "Rereg MR is not supported", tests: &["test_mr.MRTest.test_mr_rereg_*"] },
    Skip { because: "Reg MR with MW access is not supported", tests: &["test_mr.MWTest.*"] },
    Skip {
        because: "Create memory window of type 3 is not supported",
        tests: &["test_mr.MWTest.test_reg_mw_wrong_type"],
    },
    Skip {
        because: "Create XRCD is not supported",
        tests: &[
            "test_cqex.CqExTestCase.test_xrc_traffic_cq_ex",
            "test_atomic.AtomicTest.test_xrc_*",
            "test_qpex.QpExTestCase.test_qp_ex_xrc_*",
            "test_odp.OdpTestCase.test_odp_xrc_traffic",
            "test_relaxed_ordering.RoTestCase.test_ro_xrc_traffic",
        ],
    },
    Skip {
        because: "To Create RAW QP must be done by root on Ethernet link layer",
        tests: &[
            "test_qp.QPTest.test_create_raw_qp_ex_*",
            "test_qp.QPTest.test_create_raw_qp_no_attr",
            "test_qp.QPTest.test_create_raw_qp_with_attr",
            "test_qp.QPTest.test_query_raw_qp",
        ],
    },
    Skip {
        because: "Create UC QP",
        tests: &["test_qp.QPTest.test_create_uc_qp_*", "test_qp.QPTest.test_query_uc_qp"],
    },
    Skip { because: "Link layer of port=1 is InfiniBand", tests: &["test_addr.AHTest.test_create_ah_roce"] },
    Skip {
        because: "Parent Domain is not supported on this device",
        tests: &["test_parent_domain.ParentDomainTrafficTest.*"],
    },
    Skip { because: "Resize CQ is not supported", tests: &["test_cq.CQTest.test_resize_cq"] },
    Skip { because: "SRQ resize is not supported", tests: &["test_srq.SrqTestCase.test_resize_srq"] },
    Skip {
        because: "Create custom mr with additional access flags 18 is not supported",
        tests: &["test_qpex.QpExTestCase.test_qp_ex_rc_bind_mw"],
    },
    Skip {
        because: "Importing a device is not supported",
        tests: &["test_shared_pd.SharedPDTestCase.test_imported_rc_ex_rdma_write"],
    },
];

#[test]
fn the_stock_python_suite_passes_in_both_modes() {
    judge(&run(&[], &[("pasid", MODULES), ("odp", &["test_odp"])]), SKIPS);
}

/// Without the tests of on-demand regions: in packets a requester gives up a responder that waits for a page for half a second,
/// which is longer than a page takes on most machines, but not on all. Storms with a longer timeout test them there.
#[test]
fn the_stock_python_suite_passes_in_packets_too() {
    let modules: Vec<_> = MODULES.iter().copied().filter(|&module| module != "test_odp").collect();
    for suite in run(&["--loopback", "packets"], &[("pasid", &modules)]) {
        suite.assert_none_failed();
    }
}

/// Runs modules in one guest, in each mode those given.
fn run(extra: &[&str], runs: &[(&str, &[&str])]) -> Vec<Suite> {
    let lines: String =
        runs.iter().map(|(mode, modules)| format!("run {mode} {}\n", modules.join(" "))).collect();
    let (said, _) = script(2, extra, &format!("{RUN}\n{lines}"));
    assert_eq!(said.status, 0, "{said:#?}");
    let mut suites = Vec::new();
    for (run, (mode, modules)) in said.stdout.split("mode ").skip(1).zip(runs) {
        let (_, text) = run.split_once('\n').expect("a run's first line is its mode");
        let outcomes = outcomes(text);
        let of_module = |module: &str| -> Vec<Outcome> {
            let start = format!("{module}.");
            outcomes.iter().filter(|outcome| outcome.test.starts_with(&start)).cloned().collect()
        };
        for module in *modules {
            let outcomes = of_module(module);
            assert!(!outcomes.is_empty(), "nothing of {module} ran:\n{text}");
            suites.push(Suite::new(&format!("pyverbs {module}, {mode}"), outcomes));
        }
        assert_eq!(outcomes.len(), announced(text), "a verdict was missed:\n{text}");
        assert!(!text.contains("ended with status"), "{text}");
    }
    assert_eq!(suites.len(), runs.iter().map(|(_, modules)| modules.len()).sum::<usize>(), "{said:#?}");
    suites
}

#[test]
fn every_skip_of_the_python_suite_is_explained() {
    explained(SKIPS, MODULES);
}

/// The verdicts in the verbose output of Python's unittest: a line with the test's name and class, perhaps one with
/// its description, perhaps anything that the test itself prints, and at the end of one of these lines the verdict.
fn outcomes(text: &str) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    let mut current: Option<String> = None;
    for line in text.lines() {
        let rest = match name(line) {
            Some((test, rest)) => {
                current = Some(test);
                rest
            }
            None => line,
        };
        if let Some(verdict) = verdict(rest)
            && let Some(test) = current.take()
        {
            outcomes.push(Outcome { test, verdict });
        }
    }
    outcomes
}

/// `test_odp.OdpTestCase.test_odp_rc_traffic` and what follows, of a line that begins with
/// `test_odp_rc_traffic (tests.test_odp.OdpTestCase.test_odp_rc_traffic)`. A class that is skipped whole has the
/// name `setUpClass`, and no test of that name in the brackets.
fn name(line: &str) -> Option<(String, &str)> {
    let (method, rest) = line.split_once(" (tests.")?;
    let (path, rest) = rest.split_once(')')?;
    let plain = |text: &str| text.chars().all(|c| c.is_alphanumeric() || "_.".contains(c));
    let whole = if path.ends_with(method) { path.to_string() } else { format!("{path}.{method}") };
    (plain(method) && plain(path)).then_some((whole, rest))
}

fn verdict(line: &str) -> Option<Verdict> {
    let last = line.rsplit_once(" ... ").map_or(line, |(_, last)| last).trim();
    if let Some(reason) = last.strip_prefix("skipped ") {
        return Some(Verdict::Skipped(reason.trim_matches(['\'', '"']).to_string()));
    }
    match last {
        "ok" => Some(Verdict::Passed),
        "FAIL" | "ERROR" | "expected failure" | "unexpected success" => {
            Some(Verdict::Failed(last.to_string()))
        }
        _ => None,
    }
}

/// How many tests unittest says it ran.
fn announced(text: &str) -> usize {
    let count = |line: &str| line.strip_prefix("Ran ")?.split_once(" test")?.0.parse::<usize>().ok();
    text.lines().filter_map(count).sum()
}

#[test]
fn verdicts_are_found_behind_descriptions_and_noise() {
    let text = "test_a (tests.test_odp.Case.test_a) ... ok\n\
        test_b (tests.test_odp.Case.test_b)\nDescribes it. ... skipped 'No such thing'\n\
        test_c (tests.test_mr.Case.test_c) ... Traceback (most recent call last):\n  File \"x\"\nok\n\
        test_d (tests.test_mr.Case.test_d) ... ERROR\n\n\
        ======\nERROR: test_d (tests.test_mr.Case.test_d)\n------\nRan 4 tests in 0.1s\n";
    let outcome = |test: &str, verdict| Outcome { test: test.to_string(), verdict };
    let expected = [
        outcome("test_odp.Case.test_a", Verdict::Passed),
        outcome("test_odp.Case.test_b", Verdict::Skipped("No such thing".into())),
        outcome("test_mr.Case.test_c", Verdict::Passed),
        outcome("test_mr.Case.test_d", Verdict::Failed("ERROR".into())),
    ];
    assert_eq!(outcomes(text), expected);
    assert_eq!(announced(text), 4);
}

/// On an Ethernet port, connections to itself: three of the ten need multicast, which is not offered.
#[test]
fn connection_management_works_on_an_ethernet_port() {
    let text = "cd /tmp
        python3 /usr/share/rdma-core/tests/run_tests.py --dev refault_0 -v tests.test_rdmacm 2>&1";
    let (said, _) = script(2, &["--nic", "roce", "--nic", "roce"], text);
    let count = |verdict: &str| {
        said.stdout.lines().filter(|line| line.starts_with("test_") && line.contains(verdict)).count()
    };
    assert_eq!(said.status, 0, "{said:#?}");
    assert_eq!((count(" ... ok"), count("Multicast is not supported on this device")), (7, 3), "{said:#?}");
}
