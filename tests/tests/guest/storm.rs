//! The storms: DMA checked against a ledger while the kernel takes its pages away in every possible way.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::script;

/// The counter of each storm that must not be zero at its end.
const STORMS: [(&str, &str); 9] = [
    ("dontneed", "pages_inherited"),
    ("mremap", "blocks_moved"),
    ("mprotect", "refused_while_protected"),
    ("fork", "words_in_children"),
    ("thp", "collapses"),
    ("migrate", "pages_migrated"),
    ("swap", "pages_swapped"),
    ("ksm", "pages_merged"),
    ("truncate", "refused_while_cut"),
];

/// Each storm by itself, then all of them at once; and one with a bit flipped, which must be found. Their size
/// depends on the speed of a first small one.
const SCRIPT: &str = r#"
now() { cut -d. -f1 /proc/uptime; }
begin=$(now)
refault-storm --scale 0.1 dontneed | sed s/^storm=/trial=/
took=$(($(now) - begin))
scale=0.5
test $took -gt 3 && scale=0.2
test $took -gt 10 && scale=0.1
echo "the trial took $took s: scale $scale"
refault-storm --scale $scale
status=0
refault-storm --sabotage --scale 0.1 dontneed >/tmp/sabotaged || status=$?
test $status -eq 1
grep -q words_wrong=1 /tmp/sabotaged
sed s/^storm=/sabotaged=/ /tmp/sabotaged
echo all done
"#;

/// Programs killed in the middle of a storm; a forked child may outlive its parent by a moment, with the device open.
const KILLS: &str = r#"
for mode in pasid odp; do
    for storm in dontneed mremap fork thp; do
        REFAULT_ODP_MODE=$mode refault-storm --scale 1000 $storm &
        sleep 2
        kill -9 $!
        wait $! || true
    done
done
for tries in $(seq 100); do
    test -z "$(rdma resource show mr)$(rdma resource show qp | grep -v kernel)" && break
    sleep 0.2
done
test -z "$(rdma resource show mr)"
refault-storm --scale 0.2 dontneed
echo all done
"#;

/// One line of the program, as names and values.
type Line<'a> = HashMap<&'a str, &'a str>;

fn parse(line: &str) -> Line<'_> {
    line.split_whitespace().filter_map(|pair| pair.split_once('=')).collect()
}

fn number(line: &Line<'_>, name: &str) -> u64 {
    let value = line.get(name).unwrap_or_else(|| panic!("no {name} in {line:?}"));
    value.parse().unwrap_or_else(|_| panic!("{name} is no number in {line:?}"))
}

fn sum(lines: &[Line<'_>], name: &str) -> u64 {
    lines.iter().map(|line| number(line, name)).sum()
}

fn assert_passed(storm: &Line<'_>) {
    assert_eq!(storm.get("result"), Some(&"pass"), "{storm:?}");
    for nothing in ["errors_unexpected", "words_wrong"] {
        assert_eq!(number(storm, nothing), 0, "{nothing}: {storm:?}");
    }
    for something in ["writes", "reads", "atomics", "cpu", "faults", "disturbances", "words_checked"] {
        assert!(number(storm, something) > 0, "no {something}: {storm:?}");
    }
    let refusing = ["mremap", "mprotect", "truncate", "all"].contains(&storm["storm"]);
    assert!(!refusing || number(storm, "errors_expected") > 0, "{storm:?}");
}

fn assert_each_passed(lines: &[Line<'_>]) {
    let storms: Vec<_> = lines.iter().filter(|line| line.contains_key("storm")).collect();
    let names: Vec<_> = storms.iter().map(|storm| storm["storm"]).collect();
    let expected: Vec<_> = STORMS.iter().map(|(name, _)| *name).chain(["all"]).collect();
    assert_eq!(names, expected);
    for (storm, (_, effect)) in storms.iter().zip(STORMS) {
        assert!(number(storm, effect) > 0, "no {effect}: {storm:?}");
    }
    storms.into_iter().for_each(assert_passed);
}

/// The guest's kernel and the device must have counted the same.
fn assert_counters_agree(mode: &str, lines: &[Line<'_>], trace: &Path) {
    let counters = fs::read_to_string(trace.join("counters.json")).expect("counters");
    let counters: Value = serde_json::from_str(&counters).expect("JSON");
    let nic = |name: &str| counters["nic"][name].as_u64().unwrap_or_else(|| panic!("no {name}: {counters}"));
    let faults = sum(lines, "faults");
    let (requested, answered, others) = match mode {
        "odp" => (nic("page_faults"), nic("page_fault_answers"), nic("page_requests")),
        _ => (nic("page_requests"), nic("page_responses"), nic("page_faults")),
    };
    assert_eq!((requested, answered, others), (faults, faults, 0), "{counters}");
    let iommu =
        |name: &str| counters["iommu"][name].as_u64().unwrap_or_else(|| panic!("no {name}: {counters}"));
    let from_iommu = iommu("device_tlb_invalidations") + iommu("device_tlbs_emptied");
    let from_driver = nic("invalidations") - from_iommu;
    // The driver also invalidates when it frees an empty piece of the table, and between the last reading of the
    // counters and the end of the regions.
    assert!(sum(lines, "invalidations") <= from_driver, "{counters}");
    assert_eq!(from_driver > 0, mode == "odp", "{counters}");
    assert!(sum(lines, "pages_invalidated") <= sum(lines, "pages_faulted"), "{counters}");
}

fn storms(mode: &str, cpus: u8, append: &str) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let trace = folder.path().display().to_string();
    let text = format!("export REFAULT_ODP_MODE={mode}\n{SCRIPT}");
    // Two nodes, so that pages can be moved from the one to the other.
    let append = format!("numa=fake=2 {append}");
    let extra = ["--append", &append, "--trace", &trace];
    let (said, _) = script(cpus, &extra, &text);
    assert_eq!(said.status, 0, "{said:#?}");
    assert!(said.stdout.contains("all done"), "{said:#?}");
    let lines: Vec<_> = said.stdout.lines().map(parse).filter(|line| line.contains_key("faults")).collect();
    assert_each_passed(&lines);
    assert_counters_agree(mode, &lines, folder.path());
}

#[test]
fn storms_on_the_process_addresses_lose_nothing_with_one_cpu() {
    storms("pasid", 1, "");
}

#[test]
fn storms_on_the_process_addresses_lose_nothing_with_two_cpus() {
    storms("pasid", 2, "");
}

#[test]
fn storms_on_tables_of_the_regions_lose_nothing_with_one_cpu() {
    storms("odp", 1, "");
}

#[test]
fn storms_on_tables_of_the_regions_lose_nothing_with_two_cpus() {
    storms("odp", 2, "");
}

/// Pages have the addresses of memory then, so a page used too long is another owner's at once. Unmapping does nothing.
#[test]
fn storms_without_an_iommu_lose_nothing() {
    storms("odp", 2, "intel_iommu=off");
}

#[test]
fn programs_killed_in_a_storm_leave_nothing_behind() {
    let (said, _) = script(2, &[], KILLS);
    assert_eq!(said.status, 0, "{said:#?}");
    assert!(said.stdout.contains("all done"), "{said:#?}");
    assert_eq!(said.stdout.matches("result=pass").count(), 1, "{said:#?}");
}
