//! The whole of a report, made from runs that never happened.

use std::path::Path;

use super::synthetic::{Shape, Synthetic};
use super::*;

fn page_of(synthetic: &Synthetic) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), &synthetic.records(), &synthetic.summary()).unwrap();
    std::fs::read_to_string(path).unwrap()
}

/// Elements that HTML never closes.
const VOID: [&str; 3] = ["meta", "input", "br"];

/// Walks the page's tags: each closes the one that was opened last.
fn assert_well_formed(page: &str) {
    let (before, script) = page.split_once("<script>").unwrap();
    let mut page = before.to_owned() + script.split_once("</script>").unwrap().1;
    while let Some((before, style)) = page.split_once("<style>") {
        page = before.to_owned() + style.split_once("</style>").unwrap().1;
    }
    let mut open: Vec<&str> = Vec::new();
    for piece in page.split('<').skip(1) {
        let (tag, _) = piece.split_once('>').expect("a tag that ends");
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "</{name}> closes another element");
        } else if !tag.ends_with('/') && !tag.starts_with('!') && !VOID.contains(&name) {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "never closed: {open:?}");
}

#[test]
fn every_kind_of_run_makes_a_well_formed_page() {
    for shape in Shape::ALL {
        for faults in [0, 1, 2, 500] {
            assert_well_formed(&page_of(&Synthetic::new(shape, faults)));
        }
    }
}

#[test]
fn the_page_needs_nothing_but_itself() {
    let page = page_of(&Synthetic::new(Shape::Mixed, 300));
    for outside in ["://", "src=", "@import", "url(", "xlink"] {
        let found = page.replace("chrome://tracing", "").find(outside);
        assert_eq!(found, None, "{outside}");
    }
    let links: Vec<_> = page.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!(links, [names::SUMMARY, names::FAULTS, names::TRACE, names::SERIAL, names::OUTPUT]);
}

#[test]
fn the_same_records_make_the_same_page() {
    let folder = tempfile::tempdir().unwrap();
    let synthetic = Synthetic::new(Shape::Mixed, 200);
    let path = write(folder.path(), &synthetic.records(), &synthetic.summary()).unwrap();
    let first = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::remove_file(folder.path().join(names::TRACE)).unwrap();
    assert_eq!(std::fs::read(regenerate(folder.path()).unwrap()).unwrap(), first);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 4, "nothing else is left behind");
}

#[test]
fn no_number_goes_wrong_in_an_empty_or_failing_run() {
    for (shape, faults) in [(Shape::Mixed, 0), (Shape::Uniform, 1), (Shape::Failing, 50)] {
        let page = page_of(&Synthetic::new(shape, faults));
        assert!(!page.contains("NaN") && !page.contains("inf"), "{shape:?}");
    }
}

#[test]
fn what_a_guest_wrote_is_shown_and_not_obeyed() {
    let synthetic = Synthetic::new(Shape::Uniform, 3);
    let mut summary = synthetic.summary();
    summary.guest_log = vec!["DMAR: <script>alert(1)</script> {{body}}".into()];
    summary.scenarios[0].reason = "<b>".into();
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), &synthetic.records(), &summary).unwrap();
    let page = std::fs::read_to_string(path).unwrap();
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt; {{body}}"));
    assert_eq!(page.matches("<script>").count(), 1);
    assert_well_formed(&page);
}

#[test]
fn losses_are_on_the_page() {
    let synthetic = Synthetic::new(Shape::Uniform, 3);
    let mut summary = synthetic.summary();
    summary.observed.events_lost = 12_345;
    summary.observed.anomalies.insert("match of no open group".into(), 7);
    let table = csv::FaultTable::default();
    let page = page::render(&summary, &table);
    assert!(page.contains("12\u{202f}345\u{a0}events were not recorded"));
    assert!(page.contains("7\u{a0}events did not fit: match of no open group"));
}

/// An error with its causes, as the command line prints it.
fn in_words<T>(result: Result<T, ReportError>) -> String {
    match result {
        Ok(_) => panic!("no error"),
        Err(error) => format!("{:#}", anyhow::Error::new(error)),
    }
}

#[test]
fn errors_name_the_file_and_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let error = || in_words(regenerate(folder.path()));
    assert!(error().contains("summary.json; give the folder of a run"), "{}", error());
    std::fs::write(folder.path().join(names::SUMMARY), "{}").unwrap();
    assert!(error().contains("make the run again: missing field"), "{}", error());
    let synthetic = Synthetic::new(Shape::Uniform, 3);
    write(folder.path(), &synthetic.records(), &synthetic.summary()).unwrap();
    std::fs::write(folder.path().join(names::FAULTS), "something else").unwrap();
    assert!(error().contains("faults.csv is damaged") && error().contains("no column"), "{}", error());
    let nowhere = in_words(write(Path::new("/nonexistent"), &synthetic.records(), &synthetic.summary()));
    assert!(nowhere.starts_with("cannot write /nonexistent/summary.json: No such file"), "{nowhere}");
}

#[test]
fn a_million_faults_are_reported_in_seconds() {
    let synthetic = Synthetic::new(Shape::Mixed, 1_000_000);
    let folder = tempfile::tempdir().unwrap();
    let started = std::time::Instant::now();
    let path = write(folder.path(), &synthetic.records(), &synthetic.summary()).unwrap();
    println!("a report of a million faults: {:?}", started.elapsed());
    let size = std::fs::metadata(path).unwrap().len();
    assert!(size < 4 << 20, "the page stays small: {size} bytes");
}
