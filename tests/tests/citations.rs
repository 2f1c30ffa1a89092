//! Checks that what is cited exists: the tests of two pages, the paths in every page, and the rows of "One DMA" in
//! docs/architecture.md, which pages and comments cite by name. So whatever is renamed or removed is noticed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Folders with tests that the page may cite.
const FOLDERS: [&str; 5] = ["iommu", "device", "guest-driver", "vmm", "tests"];

/// Pages that say which test shows what, and how many they cite at least.
const PAGES: [(&str, usize); 2] = [("docs/iommu-features.md", 30), ("docs/threat-model.md", 15)];

#[test]
fn every_test_that_a_page_cites_exists() {
    let sources: Vec<PathBuf> = FOLDERS.iter().flat_map(|folder| sources(&root().join(folder))).collect();
    let functions: BTreeSet<String> = sources.iter().flat_map(|path| functions(&read(path))).collect();
    let exists = |name: &str| match name.strip_suffix(".rs") {
        Some(_) => sources.iter().any(|path| path.ends_with(name)),
        None => functions.contains(name),
    };
    for (name, least) in PAGES {
        let page = read(&root().join(name));
        let cited = cited(&page);
        assert!(cited.len() > least, "{name} cites tests, and they are recognised: {cited:?}");
        let missing: Vec<&str> = cited.into_iter().filter(|name| !exists(name)).collect();
        assert!(missing.is_empty(), "{name} cites what does not exist: {missing:#?}");
    }
}

#[test]
fn every_path_that_the_docs_name_exists() {
    let mut found = 0;
    for page in pages() {
        let text = read(&page);
        for path in text.split('`').skip(1).step_by(2).filter(|name| is_path(name)) {
            found += 1;
            assert!(root().join(path).exists(), "{} names {path}, which does not exist", page.display());
        }
    }
    assert!(found > 100, "the docs name paths, and they are recognised: {found}");
}

#[test]
fn every_row_of_one_dma_that_is_cited_exists() {
    let table = rows(&read(&root().join("docs/architecture.md")));
    let (path, other) = table.split_at(16);
    assert!(path.iter().map(|row| row.0).eq(1..=16), "the rows are numbered: {path:?}");
    let names: BTreeSet<&str> = path.iter().map(|row| &*row.1).collect();
    assert_eq!(names.len(), path.len(), "no two rows have one name");
    assert!(
        other.iter().all(|row| path.contains(row)),
        "the other way to fault has the same rows: {other:?}"
    );
    let mut found = 0;
    let files = FOLDERS.iter().flat_map(|folder| sources(&root().join(folder))).chain(pages());
    // The rows of that page are those of a test's table.
    for file in files.filter(|file| !file.ends_with("docs/iommu-features.md")) {
        for cited in cited_rows(&read(&file)) {
            found += 1;
            let known = names.contains(&*cited);
            assert!(known, "{} cites row {cited}; the table has the rows {names:?}", file.display());
        }
    }
    assert!(found > 40, "rows are cited, and recognised: {found}");
}

#[test]
fn rows_are_cited_by_name_one_or_several() {
    let table = "| 7 | lookup | the device TLB |\n| 9 | a name | no row: | 3 |\n| x | y | z |\n";
    assert_eq!(rows(table), [(7, "lookup".into())]);
    let text =
        "/// Rows *miss* to *hand-over*: of a row\n    /// *copy*, the *rows* and rows *walk* and *park*.";
    assert_eq!(cited_rows(text), ["miss", "hand-over", "copy", "walk", "park"]);
    assert_eq!(cited_rows(&format!("// In row {}, rows {}", 12, 3)), ["12", "3"]);
    assert!(cited_rows("arrows *a*, 2 rows, a row of 3, `row 1`s, rows: *b*").is_empty());
}

/// Number and name of each row of the tables of a path.
fn rows(page: &str) -> Vec<(u32, String)> {
    let cells = page.lines().map(|line| line.split(" | ").collect::<Vec<_>>());
    let row = |cells: Vec<&str>| match *cells {
        [number, name, _, ..] if is_row(name) => {
            Some((number.strip_prefix("| ")?.parse().ok()?, name.to_owned()))
        }
        _ => None,
    };
    cells.filter_map(row).collect()
}

fn is_row(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'-'))
}

/// The rows that a text cites, by name (row *copy*, rows *miss* to *match*), or by number, which no row has as its name.
fn cited_rows(text: &str) -> Vec<String> {
    let comment_or_blank = |character: char| character.is_whitespace() || matches!(character, '/' | '!');
    let lines: Vec<&str> = text.lines().map(|line| line.trim_matches(comment_or_blank)).collect();
    let words: Vec<&str> = lines.iter().flat_map(|line| line.split_whitespace()).collect();
    let is_word = |word: &str| matches!(word, "row" | "rows" | "Row" | "Rows");
    let after = |at: usize| words.get(at).and_then(|word| cited_row(word));
    let mut cited = Vec::new();
    for at in (0..words.len()).filter(|&at| is_word(words[at])) {
        cited.extend(after(at + 1));
        if words.get(at + 2).is_some_and(|word| matches!(*word, "to" | "and")) && after(at + 1).is_some() {
            cited.extend(after(at + 3));
        }
    }
    cited
}

/// The row that a word names, in asterisks, or numbers.
fn cited_row(word: &str) -> Option<String> {
    let word = word.trim_end_matches(['.', ',', ':', ';', ')', '"']);
    let name = word.strip_prefix('*').and_then(|rest| rest.strip_suffix('*')).filter(|name| is_row(name));
    let number = || word.parse::<u32>().ok().map(|_| word);
    name.or_else(number).map(str::to_owned)
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

/// The pages of the documentation.
fn pages() -> Vec<PathBuf> {
    let mut pages = vec![root().join("README.md"), root().join("CONTRIBUTING.md")];
    for folder in ["docs", "docs/adr"] {
        let entries = std::fs::read_dir(root().join(folder)).expect("a readable folder");
        let here = entries.map(|entry| entry.expect("a readable folder").path());
        pages.extend(here.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    }
    pages
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
