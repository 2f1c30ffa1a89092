//! Sweeps that are right, wrong, interrupted, and out of room.

use std::fs;
use std::sync::Mutex;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, UInt64Type};
use arrow_ipc::reader::FileReader;

use refault_lab::engine;
use refault_lab::figures::{FIGURES, Figures};
use refault_lab::shipped::no_files;
use refault_lab::sweep::PlanError;

use super::*;

/// 12 points: three values by two by two.
const SMALL: &str = r#"
[scenario]
requests = 50
preset = "example"
load.region = "1 MiB"
load.cold_share = 0.5
[[axis]]
key = "device.credits"
values = [1, 2, 8]
[[axis]]
keys = ["load.message", "guest.prefetch"]
values = [["4 KiB", 0], ["16 KiB", 3]]
[[axis]]
key = "seed"
from = 1
to = 2
step = 1
"#;

fn small() -> SweepPlan {
    SweepPlan::parse("small.toml", SMALL, &no_files).unwrap_or_else(|error| panic!("{error}"))
}

fn sweep_in(folder: &Path, jobs: usize) -> SweepResult {
    run(&small(), folder, jobs, |_| {}).unwrap_or_else(|error| panic!("{error}"))
}

fn bytes(folder: &Path) -> [Vec<u8>; 2] {
    [CSV, ARROW].map(|name| fs::read(folder.join(name)).unwrap())
}

#[test]
fn points_are_the_product_of_the_axes_and_the_last_varies_fastest() {
    let plan = small();
    assert_eq!(plan.len(), 12);
    assert_eq!(plan.columns(), ["device.credits", "load.message", "guest.prefetch", "seed"]);
    assert_eq!(plan.values(0), ["1", "4 KiB", "0", "1"]);
    assert_eq!(plan.values(1), ["1", "4 KiB", "0", "2"]);
    assert_eq!(plan.values(7), ["2", "16 KiB", "3", "2"]);
    let scenario = plan.scenario(11).unwrap();
    assert_eq!((scenario.device.credits, scenario.load.message_bytes, scenario.seed), (8, 16_384, 2));
    assert_eq!((scenario.guest.prefetch, scenario.requests), (3, 50));
}

fn axis(lines: &str) -> Result<Vec<String>, PlanError> {
    let text = format!("scenario = \"few-credits\"\n[[axis]]\n{lines}\n");
    let plan = SweepPlan::parse("s.toml", &text, &no_files)?;
    Ok((0..plan.len()).map(|point| plan.values(point).join(" ")).collect())
}

#[test]
fn ranges_are_linear_or_geometric_in_any_unit() {
    let cases: &[(&str, &[&str])] = &[
        ("key = \"seed\"\nfrom = 3\nto = 5\nstep = 1", &["3", "4", "5"]),
        ("key = \"device.credits\"\nfrom = 1\nto = 100\nfactor = 4", &["1", "4", "16", "64"]),
        ("key = \"load.message\"\nfrom = \"4K\"\nto = \"64K\"\nfactor = 4", &["4 KiB", "16 KiB", "64 KiB"]),
        (
            "key = \"timing.minor\"\nfrom = \"1 us\"\nto = \"2 us\"\nstep = \"500 ns\"",
            &["1 us", "1500 ns", "2 us"],
        ),
        // 0.1 is no binary fraction, and the end is reached all the same.
        ("key = \"guest.locked_share\"\nfrom = 0.0\nto = 0.3\nstep = 0.1", &["0", "0.1", "0.2", "0.3"]),
        // A small factor gives an integer once.
        ("key = \"device.credits\"\nfrom = 1\nto = 4\nfactor = 1.3", &["1", "2", "3", "4"]),
    ];
    for (lines, expected) in cases {
        assert_eq!(axis(lines).unwrap_or_else(|error| panic!("{lines}: {error}")), *expected, "{lines}");
    }
}

#[test]
fn each_mistake_is_named_with_its_line() {
    let cases = [
        ("key = \"seed\"", 2, "`from` is missing"),
        ("values = [1]", 2, "`key` is missing"),
        ("key = \"seed\"\nvalues = []", 4, "`values` is empty"),
        ("key = \"seed\"\nvalues = 3", 4, "not a list"),
        ("key = \"seed\"\nvalues = [1]\nfrom = 2", 5, "cannot be combined with values"),
        ("key = \"seed\"\nfrom = 1\nto = 3", 2, "`step` is missing"),
        ("key = \"seed\"\nfrom = 1\nto = 3\nstep = 0", 6, "not a positive step"),
        ("key = \"seed\"\nfrom = 4\nto = 3\nstep = 1", 5, "less than `from`"),
        ("key = \"seed\"\nfrom = 0\nto = 3\nfactor = 2", 4, "so every multiple is 0"),
        (
            "key = \"load.message\"\nfrom = \"4K\"\nto = \"3 us\"\nfactor = 2",
            5,
            "goes from sizes to durations",
        ),
        ("key = \"seed\"\nfrom = true\nto = 3\nstep = 1", 4, "cannot start or end a range"),
        ("key = \"seed\"\nfrom = 1\nto = 1000000\nstep = 1", 4, "more than 100000 values"),
        ("keys = [\"seed\", \"requests\"]\nvalues = [[1, 2], [3]]", 4, "not a list of 2 values"),
        ("key = \"seed\"\nkeys = [\"requests\"]\nvalues = [1]", 3, "cannot be combined with keys"),
        ("key = \"seed\"\nvalues = [1]\n[[axis]]\nkey = \"seed\"\nvalues = [2]", 5, "varies on two axes"),
        ("key = \"..\"\nvalues = [1]", 3, "is not a key"),
        ("kee = \"seed\"\nvalues = [1]", 3, "no key `kee`"),
    ];
    for (lines, line, what) in cases {
        match axis(lines).expect_err(lines) {
            PlanError::Text(error) => {
                assert!(error.what.contains(what) && error.line == line, "{lines}\n{error}");
            }
            other => panic!("{lines}\n{other}"),
        }
    }
    let error = SweepPlan::parse("s.toml", "axis = []\n", &no_files).expect_err("no scenario").to_string();
    assert!(error.contains("`scenario` is missing"), "{error}");
    let error = SweepPlan::parse("s.toml", "scenario = \"nowhere\"\naxis = []\n", &no_files)
        .expect_err("unknown")
        .to_string();
    assert!(error.contains("nowhere") && error.contains("cold-4k"), "{error}");
}

#[test]
fn a_value_that_makes_no_scenario_is_named_with_its_point_before_anything_runs() {
    let error = axis("key = \"device.credits\"\nvalues = [1, 2, 0]").expect_err("no credits");
    let PlanError::Point { point, values, error } = error else { panic!("{error}") };
    assert_eq!((point, values.as_str()), (2, "device.credits = 0"));
    assert_eq!((error.file.as_str(), error.line, error.column), ("s.toml", 4, 17));
}

#[test]
fn settings_of_a_sweep_come_before_its_axes() {
    let text = "scenario = \"few-credits\"\n[set]\nrequests = 7\ndevice.workers = 3\n\
        timing.minor = { exponential = \"1 us\" }\n[[axis]]\nkey = \"seed\"\nvalues = [5]\n";
    let scenario = SweepPlan::parse("s.toml", text, &no_files).unwrap().scenario(0).unwrap();
    assert_eq!((scenario.requests, scenario.device.workers, scenario.seed), (7, 3, 5));
    assert_eq!((scenario.timing.minor.mean(), scenario.device.credits), (1000.0, 8));
}

#[test]
fn the_table_is_the_same_for_any_number_of_threads() {
    let folders: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    for (folder, jobs) in folders.iter().zip([1, 2, 7]) {
        let done = sweep_in(folder.path(), jobs);
        assert_eq!((done.points, done.resumed), (12, 0));
        assert_eq!(bytes(folder.path()), bytes(folders[0].path()), "{jobs} jobs");
    }
}

#[test]
fn a_row_is_what_the_point_alone_comes_to() {
    let folder = tempfile::tempdir().unwrap();
    sweep_in(folder.path(), 2);
    let scenario = small().scenario(5).unwrap();
    let figures = Figures::of(&scenario, &engine::run(&scenario).unwrap());
    let text = fs::read_to_string(folder.path().join(CSV)).unwrap();
    let line = text.lines().nth(1 + 5).unwrap();
    assert_eq!(line, format!("5,2,4 KiB,0,2,{}", row(&small(), 5).unwrap()));
    assert_eq!(figures.whole("completed"), 50);
    assert!(figures.whole("faults") > 0 && figures.real("fault_mean_ns") > 0.0);
}

#[test]
fn both_tables_hold_the_same() {
    let folder = tempfile::tempdir().unwrap();
    sweep_in(folder.path(), 2);
    let reader = FileReader::try_new(fs::File::open(folder.path().join(ARROW)).unwrap(), None).unwrap();
    let batches: Vec<_> = reader.map(|batch| batch.unwrap()).collect();
    let batch = &batches[0];
    let text = fs::read_to_string(folder.path().join(CSV)).unwrap();
    let mut lines = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let header = lines.next().unwrap();
    let names: Vec<_> = batch.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(
        (batches.len(), batch.num_rows(), names),
        (1, 12, header.iter().map(|name| (*name).into()).collect())
    );
    for (row, cells) in lines.enumerate() {
        for (column, cell) in batch.columns().iter().zip(cells) {
            let found = match column.data_type() {
                arrow_schema::DataType::Int64 => column.as_primitive::<Int64Type>().value(row).to_string(),
                arrow_schema::DataType::UInt64 => column.as_primitive::<UInt64Type>().value(row).to_string(),
                arrow_schema::DataType::Float64 => {
                    column.as_primitive::<Float64Type>().value(row).to_string()
                }
                _ => column.as_string::<i32>().value(row).to_owned(),
            };
            assert_eq!(found, cell);
        }
    }
}

/// Cuts the points' file after `length` bytes, as a kill or a crash might.
fn cut(folder: &Path, length: u64) {
    fs::OpenOptions::new().write(true).open(folder.join(POINTS)).unwrap().set_len(length).unwrap();
    for name in [CSV, ARROW] {
        fs::remove_file(folder.join(name)).unwrap();
    }
}

#[test]
fn a_sweep_goes_on_wherever_its_file_was_cut() {
    let whole = tempfile::tempdir().unwrap();
    sweep_in(whole.path(), 2);
    let text = fs::read(whole.path().join(POINTS)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    sweep_in(folder.path(), 1);
    // Within the header, at its end, within a line, at the end of one, at the end of all.
    let lines: Vec<u64> =
        text.iter().zip(1u64..).filter(|(byte, _)| **byte == b'\n').map(|(_, at)| at).collect();
    for length in [0, 5, lines[0], lines[0] + 1, lines[3] - 1, lines[3], lines[3] + 9, text.len() as u64 - 1]
    {
        cut(folder.path(), length);
        let before = fs::read(folder.path().join(POINTS)).unwrap();
        let complete = before.iter().filter(|byte| **byte == b'\n').count().saturating_sub(1);
        assert_eq!(sweep_in(folder.path(), 2).resumed, complete, "cut at {length}");
        assert_eq!(bytes(folder.path()), bytes(whole.path()), "cut at {length}");
    }
}

#[test]
fn a_damaged_line_is_computed_again() {
    let folder = tempfile::tempdir().unwrap();
    sweep_in(folder.path(), 1);
    let before = bytes(folder.path());
    let path = folder.path().join(POINTS);
    let mut text = fs::read(&path).unwrap();
    let at = text.len() - 40;
    text[at] ^= 1;
    fs::write(&path, text).unwrap();
    assert_eq!(sweep_in(folder.path(), 1).resumed, 11);
    assert_eq!(bytes(folder.path()), before);
}

#[test]
fn only_missing_points_are_run() {
    let folder = tempfile::tempdir().unwrap();
    let ran = Mutex::new(Vec::new());
    let figures = vec!["0"; FIGURES.len()].join(",");
    let failing = |point: usize| {
        ran.lock().unwrap().push(point);
        if point == 5 { Err("it is 5".into()) } else { Ok(figures.clone()) }
    };
    let error = run_with(&small(), folder.path(), 1, |_| {}, &failing).expect_err("5 fails");
    let SweepError::Point { point, values, kept, .. } = &error else { panic!("{error}") };
    assert_eq!((*point, values.as_str()), (5, "2, 4 KiB, 0, 2"));
    assert!(*kept >= 5 && error.to_string().contains("it is 5"), "{error}");
    let kept = *kept;
    let first = std::mem::take(&mut *ran.lock().unwrap());
    assert!(first.len() <= kept + 1);
    let mending = |point: usize| {
        ran.lock().unwrap().push(point);
        Ok(figures.clone())
    };
    let mut heard = Vec::new();
    let done = run_with(&small(), folder.path(), 3, |points| heard.push(points), &mending).unwrap();
    assert_eq!((done.resumed, done.points), (kept, 12));
    assert_eq!((heard.first(), heard.last()), (Some(&kept), Some(&12)));
    assert_eq!(ran.lock().unwrap().len(), 12 - kept);
}

#[test]
fn a_point_that_panics_is_an_error_with_its_number() {
    let folder = tempfile::tempdir().unwrap();
    let error =
        run_with(&small(), folder.path(), 2, |_| {}, &|point| panic!("at {point}")).expect_err("it panics");
    assert!(error.to_string().contains("panicked"), "{error}");
}

#[test]
fn a_folder_belongs_to_one_sweep() {
    let folder = tempfile::tempdir().unwrap();
    sweep_in(folder.path(), 1);
    let before = fs::read(folder.path().join(POINTS)).unwrap();
    let other =
        SweepPlan::parse("other.toml", &SMALL.replace("requests = 50", "requests = 51"), &no_files).unwrap();
    let error = run(&other, folder.path(), 1, |_| {}).expect_err("another's").to_string();
    assert!(error.contains("another sweep, \"small\"") && error.contains("--out"), "{error}");
    assert_eq!(fs::read(folder.path().join(POINTS)).unwrap(), before);
    fs::write(folder.path().join(POINTS), "my notes\n").unwrap();
    let error = run(&small(), folder.path(), 1, |_| {}).expect_err("no sweep's").to_string();
    assert!(error.contains("something else"), "{error}");
}

#[test]
fn two_processes_do_not_share_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), &small()).unwrap();
    let error = run(&small(), folder.path(), 1, |_| {}).expect_err("it is locked");
    assert!(matches!(error, SweepError::Busy { .. }), "{error}");
    drop(store);
    sweep_in(folder.path(), 1);
}
