//! Output that users, scripts and drivers rely on, compared with the files of `tests/golden`: help texts, tables,
//! columns of CSV files, messages about mistakes, the C header.
//!
//! `REFAULT_BLESS=1 cargo test -p refault-tests --test golden` writes the files anew; the change is then read as a diff.

mod compare;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use compare::{Files, check};
use refault_tests::program::{refault, workspace};

/// Rows kept of a CSV file, its header included.
const ROWS: usize = 6;

const COMMANDS: [&str; 17] = [
    "",
    "run",
    "demo",
    "serve",
    "qemu",
    "guest",
    "guest build",
    "guest path",
    "guest clean",
    "report",
    "lab",
    "lab run",
    "lab sweep",
    "lab matrix",
    "lab presets",
    "lab scenarios",
    "doctor",
];

/// Command lines with a mistake, by the name of the file with the message.
const MISTAKES: [(&str, &[&str]); 5] = [
    ("unknown-scenario", &["lab", "run", "nosuch"]),
    ("unknown-key", &["lab", "run", "cold-4k", "--set", "device.credit=8"]),
    ("wrong-type", &["lab", "run", "cold-4k", "--set", "device.credits=many"]),
    ("unknown-preset", &["lab", "presets", "nosuch"]),
    ("not-a-run", &["report", "tests/golden"]),
];

/// Runs refault in the workspace's root, with an empty environment but for the width of help texts.
fn output(arguments: &[&str]) -> Output {
    let mut command = Command::new(refault());
    command.args(arguments).current_dir(workspace()).stdin(Stdio::null());
    command.env_clear().env("COLUMNS", "100").output().expect("refault starts")
}

/// Its standard output, if it succeeded.
fn stdout(arguments: &[&str]) -> String {
    let output = output(arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// Files of a run's folder; of long ones only the first rows.
fn files<const N: usize>(folder: &Path, names: [&str; N]) -> Files {
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).expect("a file of the run");
    let rows = |text: String| text.split_inclusive('\n').take(ROWS).collect();
    let short = |name: &str| if name.ends_with(".csv") { rows(read(name)) } else { read(name) };
    names.map(|name| (name.to_owned(), short(name))).into()
}

#[test]
fn help_texts() {
    let mut texts = Files::new();
    for command in COMMANDS {
        let arguments: Vec<_> = command.split_whitespace().chain(["--help"]).collect();
        let name = format!("{} help", command).trim().replace(' ', "-");
        texts.insert(name + ".txt", stdout(&arguments));
    }
    check("help", &texts);
}

#[test]
fn lists_and_tables_of_the_lab() {
    let commands: [(&str, &[&str]); 5] = [
        ("scenarios.txt", &["lab", "scenarios"]),
        ("scenario-cold-4k.toml", &["lab", "scenarios", "cold-4k"]),
        ("presets.txt", &["lab", "presets"]),
        ("preset-example.toml", &["lab", "presets", "example"]),
        ("matrix.txt", &["lab", "matrix"]),
    ];
    check("lab", &commands.map(|(name, arguments)| (name.to_owned(), stdout(arguments))).into());
}

#[test]
fn a_scenario_of_the_lab() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().to_str().expect("text");
    let said = stdout(&["lab", "run", "evict-random", "--out", out]).replace(out, "OUT");
    let mut run = files(
        folder.path(),
        ["faults.csv", "invalidations.csv", "requests.csv", "figures.json", "counters.json"],
    );
    run.insert("stdout.txt".to_owned(), said);
    check("lab-run-evict-random", &run);
}

#[test]
fn a_sweep_of_the_lab() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().to_str().expect("text");
    stdout(&["lab", "sweep", "batch-by-size", "--out", out]);
    check("lab-sweep-batch-by-size", &files(folder.path(), ["table.csv"]));
}

#[test]
fn the_demo_on_the_model_guest() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().to_str().expect("text");
    let scenarios = ["--scenario", "punch", "--scenario", "truncate", "--scenario", "pinned"];
    let table = stdout(&[&["demo", "--model", "--out", out], &scenarios[..]].concat());
    check("demo-model", &[("table.txt".to_owned(), table)].into());
}

#[test]
fn messages_about_mistakes() {
    let mut messages = Files::new();
    for (name, arguments) in MISTAKES {
        let output = output(arguments);
        let text = String::from_utf8(output.stderr).expect("text");
        let status = output.status.code().expect("refault was not killed");
        messages.insert(format!("{name}.txt"), format!("{text}exit status {status}\n"));
    }
    check("mistakes", &messages);
}

#[test]
fn the_c_header_of_the_nic() {
    check("abi", &[("refault_abi.h".to_owned(), refault_abi::c_header())].into());
}
