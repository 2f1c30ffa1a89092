//! Checks that what the docs cite exists: the tests of docs/iommu-features.md, and every path. So a renamed or removed test
//! is noticed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Folders with tests that the page may cite.
const FOLDERS: [&str; 5] = ["iommu", "device", "guest-driver", "vmm", "tests"];

#[test]
fn every_test_that_the_iommu_page_cites_exists() {
    let page = read(&root().join("docs/iommu-features.md"));
    let sources: Vec<PathBuf> = FOLDERS.iter().flat_map(|folder| sources(&root().join(folder))).collect();
    let functions: BTreeSet<String> = sources.iter().flat_map(|path| functions(&read(path))).collect();
    let cited = cited(&page);
    assert!(cited.len() > 30, "the page cites tests, and they are recognised: {cited:?}");
    let exists = |name: &str| match name.strip_suffix(".rs") {
        Some(_) => sources.iter().any(|path| path.ends_with(name)),
        None => functions.contains(name),
    };
    let missing: Vec<&str> = cited.into_iter().filter(|name| !exists(name)).collect();
    assert!(missing.is_empty(), "docs/iommu-features.md cites what does not exist: {missing:#?}");
}

#[test]
fn every_path_that_the_docs_name_exists() {
    let mut pages = vec![root().join("README.md"), root().join("CONTRIBUTING.md")];
    for folder in ["docs", "docs/adr"] {
        let entries = std::fs::read_dir(root().join(folder)).expect("a readable folder");
        let pages_here = entries.map(|entry| entry.expect("a readable folder").path());
        pages.extend(pages_here.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    }
    let mut found = 0;
    for page in pages {
        let text = read(&page);
        for path in text.split('`').skip(1).step_by(2).filter(|name| is_path(name)) {
            found += 1;
            assert!(root().join(path).exists(), "{} names {path}, which does not exist", page.display());
        }
    }
    assert!(found > 100, "the docs name paths, and they are recognised: {found}");
}

/// Whether a text in backticks is a path of this repository. Paths of planned files do not count.
fn is_path(name: &str) -> bool {
    let of_ours = FOLDERS.iter().chain(&["docs"]).any(|folder| name.starts_with(&format!("{folder}/")));
    of_ours && !name.contains([' ', '*', '{', '<']) && name != "device/link"
}

#[test]
fn functions_and_files_are_cited_and_nothing_else() {
    let page =
        "`a_test_of_ours`, `other.rs` and `src/some.rs`; `cargo test`, `refault-iommu`, `one_word`, `FSTS`";
    assert_eq!(cited(page), BTreeSet::from(["a_test_of_ours", "other.rs", "src/some.rs"]));
    assert_eq!(functions("    fn a_test_of_ours() {\nfn generic<T>(\n"), ["a_test_of_ours", "generic"]);
}

/// The functions and Rust files that `page` names in backticks. A function is a name with two underscores or more,
/// which all tests are.
fn cited(page: &str) -> BTreeSet<&str> {
    let in_backticks = page.split('`').skip(1).step_by(2);
    in_backticks.filter(|name| name.ends_with(".rs") || is_function(name)).collect()
}

fn is_function(name: &str) -> bool {
    let all_lower = name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
    all_lower && name.matches('_').count() >= 2
}

/// Names of the functions that a source defines.
fn functions(source: &str) -> Vec<String> {
    let after_fn = source.lines().filter_map(|line| line.split_once("fn ")).map(|(_, rest)| rest);
    let names = after_fn.filter_map(|rest| rest.split_once(['(', '<'])).map(|(name, _)| name);
    names.map(str::to_owned).collect()
}

/// All Rust sources below `folder`.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the workspace").to_path_buf()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).expect("a readable file")
}
