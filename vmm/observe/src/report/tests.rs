//! Whole reports of made-up runs.

use std::path::Path;

use std::sync::LazyLock;

use hdrhistogram::Histogram;

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

/// A made-up experiment, with its program's statistics.
fn experiment(faults: usize) -> (Records, DeviceCounters, ExperimentReport) {
    let records = Synthetic::new(Shape::Mixed, faults).records();
    let mut latency_ns = Histogram::new(3).unwrap();
    for fault in records.faults.iter() {
        latency_ns.record(fault.times.total() + 700).unwrap();
    }
    let counters = DeviceCounters {
        nic: NicStats { page_requests: faults as u64, ..NicStats::default() },
        iommu: Statistics::default(),
        observed: records.observed.clone(),
        timing: None,
    };
    let load = [("target", "64 MiB, zipf, theta 0.99"), ("arrival", "Poisson, 12.5 k a second (open loop)")];
    let facts = load.map(|(name, value)| (name.into(), value.into())).to_vec();
    let experiment = ExperimentReport {
        title: "cold <4k>".into(),
        time: TimeBase::Virtual,
        facts: vec![FactGroup { title: "Load".into(), facts }],
        requests: Some(RequestFigures {
            completed: faults as u64,
            failed: 3,
            bytes: faults as u64 * 4096,
            duration_ns: 50_000_000,
            latency_ns: RequestFigures::recorded(&latency_ns),
        }),
        handlers: Some(HandlerFigures {
            handlers: 4,
            faults: faults as u64,
            prefetched: 5,
            mean_wait_ns: 700,
            busy_ns: 38_000_000,
            most_outstanding: 9,
        }),
        paper: PAPER.clone(),
        observed: records.observed.clone(),
        ..ExperimentReport::default()
    };
    (records, counters, experiment)
}

static PAPER: LazyLock<Vec<Published>> = LazyLock::new(|| {
    vec![Published {
        what: "4 KiB message, cold".into(),
        published_ns: 220_000,
        source: "Lesokhin et al., ASPLOS 2017; read second-hand".into(),
        measured_ns: 221_100,
    }]
});

fn write_lab(folder: &Path, faults: usize) -> PathBuf {
    let (records, counters, experiment) = experiment(faults);
    write_experiment(folder, &records, &counters, &experiment).unwrap()
}

fn lab_page(faults: usize) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = write_lab(folder.path(), faults);
    let page = std::fs::read_to_string(&path).unwrap();
    assert_eq!(std::fs::read_to_string(regenerate(folder.path()).unwrap()).unwrap(), page);
    page
}

/// A sweep over some of these axes.
fn sweep(axes: &[(&str, &[&str])]) -> SweepTable {
    let mut table = SweepTable {
        name: "how many handlers".into(),
        about: vec![("guest".into(), "a <model>".into())],
        axes: axes
            .iter()
            .map(|(name, values)| Axis {
                name: (*name).into(),
                values: values.iter().map(|value| (*value).into()).collect(),
            })
            .collect(),
        figures: ["fault_p50_ns", "fault_p99_ns", "requests_per_s", "handler_utilisation"]
            .map(Into::into)
            .into(),
        rows: Vec::new(),
    };
    let points: usize = axes.iter().map(|(_, values)| values.len()).product();
    for number in 0..points {
        let mut rest = number;
        let point: Vec<usize> = axes
            .iter()
            .map(|(_, values)| {
                let place = rest % values.len();
                rest /= values.len();
                place
            })
            .collect();
        let load = 1.0 + point.iter().sum::<usize>() as f64;
        let p50 = (number != 1).then_some(40_000.0 * load);
        let figures = vec![p50, Some(90_000.0 * load * load), Some(1.2e6 / load), Some(1.0 - 0.9 / load)];
        table.rows.push(SweepRow { point, figures });
    }
    table
}

fn sweep_page(axes: &[(&str, &[&str])]) -> String {
    let folder = tempfile::tempdir().unwrap();
    std::fs::read_to_string(write_sweep(folder.path(), &sweep(axes)).unwrap()).unwrap()
}

const HANDLERS: (&str, &[&str]) = ("guest.handlers", &["1", "2", "4", "8", "16"]);
const CREDITS: (&str, &[&str]) = ("device.credits", &["1", "16", "256"]);
const MODES: (&str, &[&str]) = ("device.mode", &["pasid", "odp"]);

/// Two folders with runs in them, and the page that compares them.
fn comparison_page() -> String {
    let folder = tempfile::tempdir().unwrap();
    let runs = ["one", "two"].map(|name| folder.path().join(name));
    for (run, faults) in runs.iter().zip([300, 900]) {
        std::fs::create_dir(run).unwrap();
        let synthetic = Synthetic::new(Shape::Mixed, faults);
        write(run, &synthetic.records(), &synthetic.summary()).unwrap();
    }
    let lab = folder.path().join("lab");
    std::fs::create_dir(&lab).unwrap();
    write_lab(&lab, 400);
    let all: Vec<_> = runs.into_iter().chain([lab]).collect();
    let page = compare(&all, &folder.path().join("comparison.html")).unwrap();
    std::fs::read_to_string(page).unwrap()
}

/// A page of every kind.
fn every_page() -> Vec<String> {
    let mut pages = vec![
        page_of(&Synthetic::new(Shape::Mixed, 300)),
        lab_page(300),
        lab_page(0),
        comparison_page(),
        sweep_page(&[]),
    ];
    pages.extend(
        [&[HANDLERS][..], &[MODES], &[HANDLERS, CREDITS], &[MODES, HANDLERS, CREDITS]].map(sweep_page),
    );
    pages
}

/// Ids of a page's sections.
fn sections(page: &str) -> Vec<&str> {
    page.split("<section id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect()
}

#[test]
fn every_page_is_well_formed_and_self_contained() {
    for page in every_page() {
        assert_well_formed(&page);
        assert_needs_nothing(&page);
        assert!(!page.contains("NaN") && !page.contains("inf\""));
        assert!(page.contains("<p class=\"time\"><b>Times: "), "every page says whose time it is about");
    }
}

#[test]
fn a_page_has_every_section() {
    let demo = [
        "run",
        "path",
        "scenarios",
        "stages",
        "latency",
        "time",
        "invalidations",
        "log",
        "losses",
        "again",
        "files",
    ];
    assert_eq!(sections(&page_of(&Synthetic::new(Shape::Mixed, 300))), demo);
    let lab = [
        "run",
        "paper",
        "requests",
        "path",
        "stages",
        "latency",
        "time",
        "invalidations",
        "losses",
        "counters",
        "again",
        "files",
    ];
    assert_eq!(sections(&lab_page(300)), lab);
    let comparison = ["runs", "percentiles", "curves", "stages", "segments", "scenarios"];
    assert_eq!(sections(&comparison_page()), comparison);
    assert_eq!(sections(&sweep_page(&[HANDLERS, CREDITS])), ["sweep", "figures", "files"]);
}

#[test]
fn every_recorded_segment_has_a_histogram_and_a_row() {
    let page = lab_page(400);
    for name in crate::trace::SEGMENTS.iter().skip(1) {
        let row = format!("<tr><th scope=\"row\">{name}</th>");
        assert!(page.contains(&row), "{name} in the table");
        assert!(page.contains(&format!(">{name}</text>")), "{name} in the chart");
    }
    for column in ["p50", "p95", "p99", "p99.9", "max"] {
        assert!(page.contains(&format!(">{column}</th>")), "{column}");
    }
}

#[test]
fn a_lab_page_describes_the_run_and_its_virtual_time() {
    let page = lab_page(200).replace('\u{a0}', " ");
    for said in [
        "Times: virtual time of the model",
        "cold &lt;4k&gt;",
        "zipf, theta 0.99",
        "Poisson, 12.5 k a second",
        "+0.5 %",
        "Lesokhin",
    ] {
        assert!(page.contains(said), "{said}");
    }
}

#[test]
fn a_comparison_has_ratios_to_the_first_run_and_names_different_clocks() {
    let page = comparison_page();
    assert!(page.contains("Times: of different clocks"));
    for name in ["one", "two", "lab"] {
        assert!(page.contains(&format!("</span>{name}</th>")), "{name}");
    }
    assert!(page.contains("<small>× "));
    let too_many = vec![PathBuf::from("run"); MAX_RUNS + 1];
    assert!(matches!(compare(&too_many, Path::new("x")), Err(ReportError::TooMany(17))));
}

#[test]
fn a_sweep_has_a_map_for_each_combination_and_lines_for_one_axis() {
    let maps = |axes: &[(&str, &[&str])]| sweep_page(axes).matches("<svg class=\"chart heat\"").count();
    assert_eq!((maps(&[HANDLERS]), maps(&[HANDLERS, CREDITS]), maps(&[MODES, HANDLERS, CREDITS])), (0, 4, 8));
    assert_eq!(sweep_page(&[HANDLERS]).matches("<svg class=\"chart half\"").count(), 3, "one for each unit");
    assert!(sweep_page(&[HANDLERS, CREDITS]).contains("All 15\u{a0}points are finished"));
    let mut table = sweep(&[HANDLERS, CREDITS]);
    table.rows.truncate(11);
    let page = pages::sweep::render(&table);
    assert!(page.contains("<b>4 of 15\u{a0}points are not finished</b>"));
}

#[test]
fn a_run_of_an_earlier_version_still_has_a_page() {
    let folder = tempfile::tempdir().unwrap();
    write_lab(folder.path(), 50);
    std::fs::remove_file(folder.path().join(names::EXPERIMENT)).unwrap();
    std::fs::remove_file(folder.path().join(names::INVALIDATIONS)).unwrap();
    let page = std::fs::read_to_string(regenerate(folder.path()).unwrap()).unwrap();
    assert!(page.contains("was not recorded") && page.contains("All counters"));
    assert_well_formed(&page);
}

#[test]
fn every_kind_of_run_makes_a_well_formed_page() {
    for shape in Shape::ALL {
        for faults in [0, 1, 2, 500] {
            assert_well_formed(&page_of(&Synthetic::new(shape, faults)));
        }
    }
}

/// No reference to anything but the files of the run's own folder.
fn assert_needs_nothing(page: &str) {
    for outside in ["://", "src=", "@import", "url(", "xlink"] {
        let found = page.replace("chrome://tracing", "").find(outside);
        assert_eq!(found, None, "{outside}");
    }
    let own = [
        names::FAULTS,
        names::INVALIDATIONS,
        names::REQUESTS,
        names::TRACE,
        names::SUMMARY,
        names::SERIAL,
        names::OUTPUT,
        names::EXPERIMENT,
        names::COUNTERS,
        "table.csv",
    ];
    let links = page.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next());
    links.for_each(|link| assert!(own.contains(&link), "{link}"));
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
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 5, "nothing else is left behind");
}

#[test]
fn no_number_goes_wrong_in_an_empty_or_failing_run() {
    for (shape, faults) in [(Shape::Mixed, 0), (Shape::Uniform, 1), (Shape::Failing, 50)] {
        let page = page_of(&Synthetic::new(shape, faults));
        assert!(!page.contains("NaN") && !page.contains("inf"), "{shape:?}");
    }
}

#[test]
fn guest_output_is_escaped() {
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
    let page = pages::demo::render(&summary, &digest::Digest::new());
    assert!(page.contains("12\u{202f}345\u{a0}events were lost"));
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
    assert!(error().contains("repeat the run: missing field"), "{}", error());
    let synthetic = Synthetic::new(Shape::Uniform, 3);
    write(folder.path(), &synthetic.records(), &synthetic.summary()).unwrap();
    std::fs::write(folder.path().join(names::FAULTS), "something else").unwrap();
    assert!(error().contains("faults.csv is damaged") && error().contains("no column"), "{}", error());
    let nowhere = in_words(write(Path::new("/nonexistent"), &synthetic.records(), &synthetic.summary()));
    assert!(nowhere.starts_with("cannot write /nonexistent/summary.json: No such file"), "{nowhere}");
}

#[test]
fn the_page_of_a_million_faults_stays_small() {
    let synthetic = Synthetic::new(Shape::Mixed, 1_000_000);
    let folder = tempfile::tempdir().unwrap();
    let started = std::time::Instant::now();
    let path = write(folder.path(), &synthetic.records(), &synthetic.summary()).unwrap();
    println!("a report of a million faults: {:?}", started.elapsed());
    let size = std::fs::metadata(path).unwrap().len();
    assert!(size < 4 << 20, "the page stays small: {size} bytes");
}
