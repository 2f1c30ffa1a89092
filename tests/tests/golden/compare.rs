//! Compares output with the files of `tests/golden`, or writes them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use refault_tests::program::workspace;

/// Environment variable: set to 1, it makes the tests write the files instead of comparing them.
const BLESS: &str = "REFAULT_BLESS";
const BLESS_COMMAND: &str = "REFAULT_BLESS=1 cargo test -p refault-tests --test golden";

/// Most lines of a difference that are printed.
const SHOWN: usize = 40;
/// Equal lines printed before a difference.
const CONTEXT: usize = 2;

/// Output by the name of its file.
pub(crate) type Files = BTreeMap<String, String>;

/// Compares the files of `tests/golden/FOLDER` with what the program printed; a file without output fails, too.
pub(crate) fn check(folder: &str, actual: &Files) {
    let root = workspace().join("tests/golden").join(folder);
    let expected = read_all(&root);
    if std::env::var_os(BLESS).is_some_and(|value| value == "1") {
        return bless(&root, &expected, actual);
    }
    let mut report = String::new();
    for name in expected.keys().filter(|name| !actual.contains_key(*name)) {
        report += &format!("\ntests/golden/{folder}/{name}: no test prints this\n");
    }
    for (name, actual) in actual {
        let expected = expected.get(name).map_or("", String::as_str);
        if expected != actual {
            report += &format!("\ntests/golden/{folder}/{name}\n{}", difference(expected, actual));
        }
    }
    assert!(report.is_empty(), "output has changed:\n{report}\nIf that is wanted: {BLESS_COMMAND}");
}

fn bless(root: &Path, expected: &Files, actual: &Files) {
    for name in expected.keys().filter(|name| !actual.contains_key(*name)) {
        fs::remove_file(root.join(name)).expect("a file that can be removed");
    }
    fs::create_dir_all(root).expect("a folder that can be made");
    for (name, text) in actual {
        fs::write(root.join(name), text).expect("a file that can be written");
    }
}

fn read_all(root: &PathBuf) -> Files {
    let Ok(entries) = fs::read_dir(root) else { return Files::new() };
    let paths = entries.map(|entry| entry.expect("a readable folder").path());
    paths
        .map(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            (name, fs::read_to_string(&path).expect("a text file"))
        })
        .collect()
}

/// The lines between the first and the last that differ: `-` expected, `+` printed.
fn difference(expected: &str, actual: &str) -> String {
    let (old, new): (Vec<_>, Vec<_>) = (expected.lines().collect(), actual.lines().collect());
    let equal = |(old, new): &(&&str, &&str)| old == new;
    let head = old.iter().zip(&new).take_while(equal).count();
    let tail = old[head..].iter().rev().zip(new[head..].iter().rev()).take_while(equal).count();
    let lines = |sign, lines: &[&str]| lines.iter().map(|line| format!("{sign}{line}\n")).collect::<Vec<_>>();
    let mut shown = vec![format!("@@ line {} @@\n", head + 1)];
    shown.extend(lines(' ', &old[head.saturating_sub(CONTEXT)..head]));
    shown.extend(lines('-', &old[head..old.len() - tail]));
    shown.extend(lines('+', &new[head..new.len() - tail]));
    let hidden = shown.len().saturating_sub(SHOWN);
    shown.truncate(SHOWN);
    if hidden > 0 {
        shown.push(format!("({hidden} more lines)\n"));
    }
    shown.concat()
}

#[test]
fn a_difference_shows_the_lines_that_changed_and_those_before() {
    let shown = difference("a\nb\nc\nd\ne\n", "a\nb\nc\nD\nE\ne\n");
    assert_eq!(shown, "@@ line 4 @@\n b\n c\n-d\n+D\n+E\n");
    assert_eq!(difference("", "a\n"), "@@ line 1 @@\n+a\n");
}
