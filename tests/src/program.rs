//! Programs of the workspace, built by cargo when a test first needs them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The workspace's root.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The program `refault`, built with the profile of the tests.
///
/// Builds everything that `cargo test` builds, so that nothing is built twice: for fewer packages cargo would choose
/// other features of their dependencies.
pub fn refault() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| built(&["test", "--workspace", "--no-run"], "refault"))
}

/// The program of the package `name`, which has the same name.
pub fn program(name: &str) -> PathBuf {
    built(&["build", "--package", name, "--bin", name], name)
}

/// Runs cargo, and finds the executable `name` in its messages.
fn built(arguments: &[&str], name: &str) -> PathBuf {
    let built = Command::new(env!("CARGO"))
        .args(arguments)
        .args(["--message-format", "json"])
        .current_dir(workspace())
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo starts");
    assert!(built.status.success(), "{name} does not build");
    String::from_utf8_lossy(&built.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == name && message["target"]["kind"][0] == "bin")
        .filter(|message| message["profile"]["test"] == false)
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .next_back()
        .expect("cargo names the executable")
}
