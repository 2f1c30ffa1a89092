//! Checks the rules of docs/architecture.md: which crate may import which, and what the models must not use.

mod modules;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use modules::{Modules, circles};

/// Our crates, where they live, and which of ours each may import.
const CRATES: [(&str, &str, &[&str]); 23] = [
    ("refault-bus", "device/bus", &[]),
    ("refault-pci", "device/pci", &["bus"]),
    ("refault-roce", "device/roce", &[]),
    ("refault-link", "device/link", &["bus", "roce"]),
    ("refault-transport", "device/transport", &["roce"]),
    ("refault-nic", "device/nic", &["bus", "pci", "roce", "transport", "abi"]),
    ("refault-iommu", "iommu", &["bus"]),
    ("refault-abi", "guest-driver/abi", &[]),
    ("refault-model", "guest-driver/model", &["bus", "abi"]),
    ("refault-vfio", "guest-driver/vfio", &["bus", "abi", "model"]),
    ("refault-vfio-user", "vmm/vfio-user", &[]),
    ("refault-os", "vmm/os", &[]),
    ("refault-timing", "vmm/timing", &[]),
    ("refault-net", "vmm/net", &["bus", "roce", "os"]),
    (
        "refault-rig",
        "vmm/rig",
        &["bus", "pci", "roce", "link", "nic", "iommu", "abi", "model", "os", "timing"],
    ),
    ("refault-observe", "vmm/observe", &["bus", "nic", "iommu", "abi", "os", "rig"]),
    (
        "refault-lab",
        "vmm/lab",
        &["bus", "roce", "link", "nic", "iommu", "abi", "model", "timing", "rig", "observe"],
    ),
    ("refault-machine", "vmm/machine", &["bus", "pci", "abi", "os"]),
    ("refault-guest", "vmm/guest", &["abi", "os"]),
    (
        "refault-hosts",
        "vmm/hosts",
        &["bus", "pci", "iommu", "abi", "os", "rig", "machine", "guest", "vfio-user"],
    ),
    (
        "refault-vmm",
        "vmm",
        &[
            "bus", "link", "net", "nic", "iommu", "model", "os", "timing", "rig", "observe", "lab",
            "machine", "guest", "hosts",
        ],
    ),
    (
        "refault-tests",
        "tests",
        &[
            "bus", "pci", "roce", "link", "nic", "iommu", "abi", "model", "vmm", "os", "timing", "rig",
            "observe", "lab", "guest", "hosts",
        ],
    ),
    ("refault-models", "tests/models", &["bus", "abi"]),
];

/// Crates that only one of ours may use: the machine's own interfaces, and the one that gives a guest's programs a
/// device.
const MACHINE_CRATES: [(&str, &str); 4] = [
    ("kvm-ioctls", "refault-machine"),
    ("kvm-bindings", "refault-machine"),
    ("event-manager", "refault-machine"),
    ("vfio-ioctls", "refault-vfio"),
];

/// Crates whose code has no thread, no clock and no file: these come in through traits and functions.
const PURE: [&str; 10] = [
    "device/bus",
    "device/pci",
    "device/roce",
    "device/link",
    "device/transport",
    "device/nic",
    "iommu",
    "guest-driver/model",
    "vmm/timing",
    "vmm/lab",
];

/// Most files in a circle of imports inside the NIC.
const NIC_CIRCLE: usize = 5;

/// Paths that must not be in their code.
const IMPURE: [&str; 6] = ["std::thread", "std::time", "std::fs", "std::net", "std::process", "std::env"];

/// The places that may use `unsafe`: where the VMM meets KVM, mmap and processes, and where a program gives its memory
/// to a device.
const UNSAFE_ALLOWED: [&str; 6] = [
    "vmm/hosts/src/emulation.rs",
    "vmm/hosts/src/nested",
    "vmm/machine/src/kvm",
    "vmm/machine/src/memory",
    "vmm/os/src",
    "guest-driver/vfio/src",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace").to_path_buf()
}

/// Each workspace member's manifest as `cargo metadata` has it, by name.
fn members() -> BTreeMap<String, Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version=1", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let packages = metadata["packages"].as_array().expect("packages").clone();
    packages.into_iter().map(|package| (text(&package["name"]), package)).collect()
}

/// Names of the packages that a member depends on in any way, tests and build scripts included.
fn dependencies(package: &Value) -> Vec<String> {
    let all = package["dependencies"].as_array().expect("dependencies");
    all.iter().map(|dependency| text(&dependency["name"])).collect()
}

fn text(value: &Value) -> String {
    value.as_str().expect("a string").to_owned()
}

/// All Rust sources below `folder`.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The code of a file: without comments, string contents, and the unit tests at its end. Use trees are
/// spelled out, so that `use std::{fs, io};` reads `use std::fs; use std::io;`.
fn code(path: &Path) -> String {
    let source = std::fs::read_to_string(path).expect("a readable source");
    let source = source.split("\n#[cfg(test)]\n").next().unwrap_or_default();
    let mut code = String::new();
    for line in source.lines() {
        let pieces: Vec<&str> = line.split('"').step_by(2).collect();
        let line = pieces.join("\"\"");
        code.push_str(line.split("//").next().unwrap_or_default());
        code.push('\n');
    }
    code + &spelled_out(source)
}

/// The members of every `std::{…}` group, each with its path, one level deep.
fn spelled_out(source: &str) -> String {
    let mut all = String::new();
    for group in source.split("std::{").skip(1) {
        let group = group.split(';').next().unwrap_or_default();
        for name in group.split([',', '{', '}']) {
            all.push_str(&format!("std::{}\n", name.trim()));
        }
    }
    all
}

/// Whether `word` stands in `code` on its own.
fn has_word(code: &str, word: &str) -> bool {
    let part_of_word = |character: char| character.is_alphanumeric() || character == '_';
    code.match_indices(word).any(|(at, _)| {
        !code[..at].ends_with(part_of_word) && !code[at + word.len()..].starts_with(part_of_word)
    })
}

#[test]
fn every_member_has_a_rule() {
    let members: Vec<_> = members().into_keys().collect();
    let mut ruled: Vec<_> = CRATES.iter().map(|(name, ..)| (*name).to_owned()).collect();
    ruled.sort();
    assert_eq!(members, ruled, "the table in this file and the workspace's members differ");
}

#[test]
fn crates_import_only_what_their_layer_may() {
    let members = members();
    for (name, _, allowed) in CRATES {
        for dependency in dependencies(&members[name]) {
            if let Some(ours) = dependency.strip_prefix("refault-") {
                assert!(allowed.contains(&ours), "{name} imports {dependency}, which its layer may not");
            }
        }
    }
}

#[test]
fn each_interface_of_the_machine_has_one_user() {
    for (name, package) in members() {
        for dependency in dependencies(&package) {
            let owner = MACHINE_CRATES.iter().find(|(reserved, _)| *reserved == dependency);
            let ours = owner.is_none_or(|(_, owner)| name == *owner);
            assert!(ours, "{name} imports {dependency}, which is {owner:?}'s");
        }
    }
}

#[test]
fn models_have_no_thread_no_clock_and_no_file() {
    for folder in PURE {
        let files = sources(&root().join(folder).join("src"));
        assert!(!files.is_empty(), "{folder} has no sources: is the table out of date?");
        for file in files {
            let code = code(&file);
            for path in IMPURE {
                assert!(!has_word(&code, path), "{} uses {path}; let it come in by a trait", file.display());
            }
        }
    }
}

#[test]
fn unsafe_stays_where_the_vmm_meets_the_machine() {
    let root = root();
    for (_, folder, _) in CRATES {
        for part in ["src", "tests", "benches", "examples"] {
            for file in sources(&root.join(folder).join(part)) {
                let place = file.strip_prefix(&root).expect("below the root");
                let allowed = UNSAFE_ALLOWED.iter().any(|allowed| place.starts_with(allowed));
                assert!(allowed || !has_word(&code(&file), "unsafe"), "{} uses unsafe", place.display());
            }
        }
    }
}

#[test]
fn the_search_finds_what_it_looks_for() {
    let file = std::env::temp_dir().join(format!("refault-layering-{}.rs", std::process::id()));
    let source = concat!(
        "use std::{io, thread};\n// std::time\nlet a = \"std::net\";\n#[allow(unsafe_code)]\n",
        "fn f() { std::fs::read(p) }\n#[cfg(test)]\nmod tests { unsafe {} }\n",
    );
    std::fs::write(&file, source).expect("a writable temporary folder");
    let code = code(&file);
    std::fs::remove_file(&file).expect("the file just written");
    assert!(has_word(&code, "std::thread") && has_word(&code, "std::fs"));
    assert!(!has_word(&code, "std::time") && !has_word(&code, "std::net") && !has_word(&code, "unsafe"));
}

#[test]
fn top_modules_of_a_crate_form_no_circle() {
    for (name, folder, _) in CRATES {
        let uses = Modules::of(&root().join(folder).join("src")).uses(1);
        assert!(
            uses.values().any(|used| !used.is_empty()) || uses.len() < 4,
            "{name}: no imports were found"
        );
        let circles = circles(&uses);
        assert!(circles.is_empty(), "{name}: modules that import each other: {circles:?}");
    }
}

#[test]
fn files_of_the_nic_form_small_circles_only() {
    let circles = circles(&Modules::of(&root().join("device/nic/src")).uses(usize::MAX));
    for circle in circles {
        assert!(circle.len() <= NIC_CIRCLE, "{} files that import each other: {circle:?}", circle.len());
    }
}

#[test]
fn the_lab_builds_without_kvm() {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "-p", "refault-vmm", "--no-default-features", "--edges", "normal", "--offline"])
        .args(["--prefix", "none"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(tree.contains("refault-lab"), "{tree}");
    for (reserved, _) in MACHINE_CRATES {
        assert!(!tree.contains(reserved), "`refault lab` alone builds with {reserved}");
    }
}

#[test]
fn a_planted_import_closes_a_circle() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let plant = |file: &str, text: &str| {
        let path = folder.path().join(file);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        std::fs::write(path, text).expect("a file");
    };
    plant("lib.rs", "mod low; mod middle; mod high; pub use high::Highest;");
    plant("low.rs", "// use crate::high;\n#[cfg(test)] mod tests { use crate::high::Highest; }");
    plant("middle/mod.rs", "mod inner; pub use inner::Inner; use super::low::Low;");
    plant("middle/inner.rs", "use crate::{low::{self, Low as L}, Unknown}; pub struct Inner;");
    plant("high.rs", "fn high() { assert!(crate::middle::Inner::new()); } pub struct Highest;");
    let circle = || circles(&Modules::of(folder.path()).uses(1));
    assert!(circle().is_empty(), "{:?}", circle());
    for planted in ["use crate::Highest;", "fn low() { vec![crate::high::f()] }", "use super::middle::Inner;"]
    {
        plant("low.rs", planted);
        assert_eq!(circle().len(), 1, "{planted}");
    }
}
