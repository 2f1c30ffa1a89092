//! The model's table passes, and a wrong byte fails it.

use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    demo: DemoArgs,
}

fn args(line: &[&str]) -> DemoArgs {
    Line::try_parse_from([&["demo", "--model", "--scale", "0.2"], line].concat()).expect("valid").demo
}

#[test]
fn every_scenario_passes_in_every_mode() {
    let run = run(&args(&[]), false).unwrap();
    let scenarios = run.view.board.scenarios();
    assert_eq!(scenarios.len(), 3 * 7 + 1);
    for row in &scenarios {
        let what = format!("{} {}: {}", row.name, row.mode, row.reason);
        assert_eq!(row.result, Verdict::Pass, "{what}");
        assert_eq!(row.bytes_wrong, 0, "{what}");
        if row.mode == "pinned" {
            assert!(row.reason.contains("EOPNOTSUPP"), "{what}");
            continue;
        }
        assert!(row.faults > 0 && row.writes > 0 && row.bytes_verified >= PAGES * 4096, "{what}");
        let moves = matches!(row.name.as_str(), "reflink-cow" | "exchange");
        assert!(!moves || row.blocks_moved > 0, "{what}: nothing moved");
    }
    assert_eq!(run.records.observed.faults_kept, run.records.faults.len() as u64);
    let last = run.records.faults.iter().last().expect("faults");
    assert_eq!(usize::from(last.scenario) + 1, run.records.scenarios.len());
}

#[test]
fn a_seed_determines_the_table() {
    let faults = |seed| {
        let run = run(&args(&["--seed", seed, "--scenario", "punch", "--mode", "odp"]), false).unwrap();
        run.records.faults.iter().collect::<Vec<_>>()
    };
    assert_eq!(faults("1"), faults("1"));
    assert_ne!(faults("1"), faults("2"));
}

/// A script that changes the file without recording it.
struct Saboteur;

impl script::Script for Saboteur {
    fn act(&mut self, stage: &mut actor::Stage) -> actor::Result<refault_lab::engine::actor::Next> {
        stage.counters.operations += 1;
        Ok(refault_lab::engine::actor::Next::Stop)
    }

    fn end(&mut self, stage: &mut actor::Stage) -> actor::Result<()> {
        stage.fs.write(stage.target, 7, 100, &[0xff])
    }
}

#[test]
fn one_wrong_byte_is_found() {
    let subject = Subject { scenario: "steady".into(), mode: "pasid".into(), mapping: "4k".into() };
    let board = Arc::new(Mutex::new(GuestCounters::default()));
    let actor = FileActor::new(Box::new(Saboteur), PAGES, board.clone());
    run_with_actor(&scenario_of(&args(&[]), &subject).unwrap(), Box::new(actor)).unwrap();
    assert_eq!(board.lock().unwrap().bytes_wrong, 1);
}
