//! The storms: DMA held against a ledger while the kernel takes its pages away in every way it has.

use std::collections::HashMap;

use crate::support::script;

/// What each storm must have brought about, by its own count.
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

/// Two nodes, so that pages can be moved from the one to the other.
const TWO_NODES: [&str; 2] = ["--append", "numa=fake=2"];

/// One line of the program, as names and values.
fn parse(line: &str) -> HashMap<&str, &str> {
    line.split_whitespace().filter_map(|pair| pair.split_once('=')).collect()
}

fn number(storm: &HashMap<&str, &str>, name: &str) -> u64 {
    let value = storm.get(name).unwrap_or_else(|| panic!("no {name} in {storm:?}"));
    value.parse().unwrap_or_else(|_| panic!("{name} is no number in {storm:?}"))
}

fn assert_passed(storm: &HashMap<&str, &str>) {
    assert_eq!(storm.get("result"), Some(&"pass"), "{storm:?}");
    for nothing in ["errors_unexpected", "words_wrong"] {
        assert_eq!(number(storm, nothing), 0, "{nothing}: {storm:?}");
    }
    for something in ["writes", "reads", "atomics", "cpu", "faults", "disturbances", "words_checked"] {
        assert!(number(storm, something) > 0, "no {something}: {storm:?}");
    }
}

/// Every storm by itself, then all of them at once; and once with a bit flipped, which must be found.
fn storms(mode: &str, cpus: u8) {
    let text = format!(
        "export REFAULT_ODP_MODE={mode}
        refault-storm --scale 0.5
        status=0
        refault-storm --sabotage --scale 0.1 dontneed >/tmp/sabotaged || status=$?
        test $status -eq 1
        grep -q words_wrong=1 /tmp/sabotaged
        echo all done"
    );
    let (said, _) = script(cpus, &TWO_NODES, &text);
    assert_eq!(said.status, 0, "{said:#?}");
    assert!(said.stdout.contains("all done"), "{said:#?}");
    let lines: Vec<_> = said.stdout.lines().map(parse).filter(|line| line.contains_key("storm")).collect();
    let names: Vec<_> = lines.iter().map(|line| line["storm"]).collect();
    let expected: Vec<_> = STORMS.iter().map(|(name, _)| *name).chain(["all"]).collect();
    assert_eq!(names, expected, "{said:#?}");
    lines.iter().for_each(assert_passed);
    for (storm, (_, effect)) in lines.iter().zip(STORMS) {
        assert!(number(storm, effect) > 0, "no {effect}: {storm:?}");
    }
    let refusing = ["mremap", "mprotect", "truncate", "all"];
    for storm in lines.iter().filter(|storm| refusing.contains(&storm["storm"])) {
        assert!(number(storm, "errors_expected") > 0, "{storm:?}");
    }
}

#[test]
fn storms_on_the_process_addresses_lose_nothing_with_one_cpu() {
    storms("pasid", 1);
}

#[test]
fn storms_on_the_process_addresses_lose_nothing_with_two_cpus() {
    storms("pasid", 2);
}
