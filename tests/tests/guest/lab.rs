//! The lab on another machine: an emulated CPU, another C library.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{Refault, binary};

/// A scenario with every kind of floating point computation.
const SCENARIO: &str = r#"
seed = 11
requests = 1500
[load]
pattern = "zipf"
theta = 0.9
region = "4 MiB"
queue_pairs = 4
arrival = "poisson"
rate = 20000.0
write_share = 0.7
cold_share = 0.1
[guest]
handlers = 2
locked_share = 0.3
major_share = 0.05
[churn]
operation = "move"
rate = 2000.0
[timing]
minor = { log_normal = "30 us", sigma = 0.5 }
major = { exponential = "90 us" }
wake = { uniform = ["1 us", "9 us"] }
page_request = { table = [[0, "200 ns"], [0.6, "700 ns"], [1, "3 us"]] }
"#;

#[test]
fn the_same_seed_gives_the_same_bytes_on_another_machine() {
    let folder = tempfile::tempdir().expect("a folder");
    let scenario = folder.path().join("mixed.toml");
    fs::write(&scenario, SCENARIO.replacen("seed", "preset = \"example\"\nseed", 1)).expect("room");
    let (here, there) = (folder.path().join("here"), folder.path().join("there"));
    let run = ["lab", "run"].map(OsStr::new).into_iter().chain([scenario.as_os_str()]);
    let status = Command::new(binary()).args(run).arg("--out").arg(&here).status().expect("it was built");
    assert!(status.success());
    let pass = |from: &Path, to: &str| format!("{}:{to}", from.display());
    let said = Refault::new([
        "run",
        "--add",
        &pass(binary(), "/usr/bin/refault"),
        "--add",
        &pass(&scenario, "/mixed.toml"),
        "--out",
        &format!("/lab:{}", there.display()),
        "--",
        "refault",
        "lab",
        "run",
        "/mixed.toml",
        "--out",
        "/lab",
    ])
    .run();
    assert_eq!(said.status, 0, "{said:#?}");
    let mut files = 0;
    for entry in fs::read_dir(&here).expect("it was made") {
        let name = entry.expect("it was made").file_name();
        let read = |folder: &Path| fs::read(folder.join(&name)).expect("each has the same files");
        assert!(read(&here) == read(&there), "{name:?} differs");
        files += 1;
    }
    assert!(files >= 5, "scenario, faults, trace, counters, figures");
}
