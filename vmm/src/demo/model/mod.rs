//! `refault demo --model`: the demo's table on the model guest, in seconds, with nothing to download, no KVM, no root.
//!
//! The NIC and the IOMMU are the same code as in a real guest's machine. Kernel, filesystem and program are models
//! (`guest-driver/model`), time is virtual, and the delays are those of the made-up preset `example`. So the table's
//! bytes are a test of NIC and IOMMU, and its times are not a measurement.

mod actor;
mod ledger;
mod script;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use refault_bus::sync::lock;
use refault_nic::RemoteFaults;

use self::actor::FileActor;
use self::script::script;
use super::options::{DemoArgs, Mapping, Mode, SCENARIOS};
use super::protocol::{DemoEvent, GuestCounters, Subject};
use super::view::View;
use refault_lab::engine::{self, run_with_actor};
use refault_lab::outcome::ExperimentOutcome;
use refault_lab::scenario::{self, Arrival, Device, Guest, Load, Pattern, Scenario};
use refault_observe::numbers::whole;
use refault_observe::summary::RunResult as Verdict;
use refault_observe::trace::{FaultRecord, FaultSummary, Records, ScenarioSpan};
use refault_os::speed::Speed;
use refault_timing::{Preset, Timing};

/// Shown in place of a real guest's kernel release.
pub(super) const KERNEL: &str = "model";
/// The preset with the steps' delays.
const PRESET: &str = "example";
/// Pages of the file.
const PAGES: u64 = 1024;
/// Steps of a scenario; in `kill`, each is one run of the program.
const STEPS: f64 = 40.0;
/// Requests that a queue pair has in flight.
const DEPTH: u32 = 8;
/// More requests than any scenario posts; the script ends the scenario.
const REQUESTS: u64 = 1 << 40;
/// Faults of a scenario that are recorded individually.
const RECORDS: usize = 16 * 1024;

/// The results of the model's scenarios.
pub(super) struct ModelRun {
    /// The table.
    pub(super) view: View,
    /// All faults, one scenario after the other.
    pub(super) records: Records,
}

/// Runs all requested scenarios. The table goes to standard output, and is redrawn in place if `live`.
///
/// # Errors
/// A part of the model failed.
pub(super) fn run(args: &DemoArgs, live: bool) -> Result<ModelRun> {
    let mut view = View::of_model(live);
    let mut records = Records::empty(RECORDS * 2 * SCENARIOS.len());
    let subjects = subjects(args);
    ensure!(
        !subjects.is_empty(),
        "this mode has no such scenario: the model maps pages of 4 KiB, pinned is a mode of its own, and there is no wire \
         for remote and lossy"
    );
    view.show(
        DemoEvent::Plan {
            kernel: KERNEL.into(),
            file_bytes: PAGES * 4096,
            queue_pairs: args.queue_pairs,
            scale: scale(args),
            speed: Speed::default(),
            scenarios: subjects.clone(),
        },
        FaultSummary::default(),
    );
    let mut passed = true;
    for subject in subjects {
        view.show(DemoEvent::Begin(subject.clone()), FaultSummary::default());
        let row = one(args, &subject)?;
        passed &= row.problem.is_none();
        let result = if row.problem.is_none() { Verdict::Pass } else { Verdict::Fail };
        let faults = row.run.as_ref().map(|run| run.faults.clone()).unwrap_or_default();
        if let Some(run) = &row.run {
            append(&mut records, &subject, &run.outcome);
        }
        let reason = row.problem.unwrap_or(row.remark);
        view.show(DemoEvent::End { subject, result, reason, counters: row.counters }, faults);
    }
    view.show(
        DemoEvent::Done { result: if passed { Verdict::Pass } else { Verdict::Fail } },
        FaultSummary::default(),
    );
    view.finish();
    Ok(ModelRun { view, records })
}

/// The results of one row.
struct ModelRow {
    counters: GuestCounters,
    run: Option<engine::ActorRun>,
    problem: Option<String>,
    remark: String,
}

fn subjects(args: &DemoArgs) -> Vec<Subject> {
    let asked = |name: &str| args.scenario.is_empty() || args.scenario.iter().any(|wanted| wanted == name);
    let modes = [Mode::Pasid, Mode::Odp, Mode::Pinned];
    let modes: Vec<_> =
        modes.into_iter().filter(|mode| args.mode.is_empty() || args.mode.contains(mode)).collect();
    let of = |name: &str| {
        let fits = |mode: &&Mode| name != "pinned" || **mode == Mode::Pinned;
        let subject =
            |mode: &Mode| Subject { scenario: name.into(), mode: mode.name().into(), mapping: "4k".into() };
        modes.iter().filter(fits).map(subject).collect::<Vec<_>>()
    };
    // The model's filesystem maps pages of 4 KiB only.
    let small = args.mapping != Mapping::Large;
    SCENARIOS.into_iter().filter(|name| small && asked(name)).flat_map(of).collect()
}

/// Virtual time is the same on all machines: no goal is lowered for a slow one.
fn scale(args: &DemoArgs) -> f64 {
    args.scale.unwrap_or(1.0)
}

fn one(args: &DemoArgs, subject: &Subject) -> Result<ModelRow> {
    if subject.mode == Mode::Pinned.name() {
        let remark = "the model's kernel refuses to pin pages of a DAX file, as Linux does (EOPNOTSUPP)";
        return Ok(ModelRow {
            counters: GuestCounters::default(),
            run: None,
            problem: None,
            remark: remark.into(),
        });
    }
    let steps = u32::try_from(whole((STEPS * scale(args)).ceil().max(2.0))).unwrap_or(u32::MAX);
    let script = script(&subject.scenario, steps).context("no script for that scenario")?;
    let board = Arc::new(Mutex::new(GuestCounters::default()));
    let actor = FileActor::new(script, PAGES, board.clone());
    let scenario = scenario_of(args, subject)?;
    let run = run_with_actor(&scenario, Box::new(actor)).with_context(|| subject.scenario.clone())?;
    let mut counters = *lock(&board);
    counters.seconds = run.outcome.load.duration_ns as f64 / 1e9;
    let problem = match (counters.bytes_wrong, run.problems.first()) {
        (0, None) if counters.writes == 0 => Some("the device wrote nothing".into()),
        (0, None) => None,
        (0, Some(problem)) => Some(problem.clone()),
        (wrong, _) => Some(format!("{wrong} bytes are wrong")),
    };
    Ok(ModelRow { counters, run: Some(run), problem, remark: String::new() })
}

fn scenario_of(args: &DemoArgs, subject: &Subject) -> Result<Scenario> {
    let nic = args.nic.config();
    let preset = Preset::find(PRESET).context("the preset with the delays is missing")?;
    let mut timing = Timing::instant(preset.bytes_per_us);
    for name in Timing::STEPS {
        if let (Some(step), Some(delay)) = (timing.step_mut(name), preset.delay(name)) {
            *step = delay;
        }
    }
    let odp = subject.mode == Mode::Odp.name();
    Ok(Scenario {
        name: subject.scenario.clone(),
        seed: args.seed,
        load: Load {
            pattern: Pattern::Random,
            message_bytes: 4096,
            region_bytes: PAGES * 4096,
            queue_pairs: args.queue_pairs,
            depth: DEPTH,
            arrival: Arrival::Closed,
            write_share: 1.0,
            cold_share: 0.0,
            bystanders: 0,
            warm: false,
            large_pages: false,
        },
        device: Device {
            mode: if odp { scenario::TranslationMode::Odp } else { scenario::TranslationMode::Pasid },
            credits: nic.page_request_credits,
            page_request_order: 4,
            atc_entries: nic.atc_entries,
            iotlb_entries: 8192,
            workers: 1,
            fault_window: nic.fault_window,
            remote_faults: RemoteFaults::Stall,
            min_rnr_timer: 1,
            fault_timeout_ns: nic.page_request_timeout_ns,
        },
        guest: Guest { handlers: 2, locked_share: 0.2, batch: 1, prefetch: 0, major_share: 0.0 },
        churn: None,
        wire: None,
        presets: vec![PRESET.into()],
        timing,
        requests: REQUESTS,
    })
}

/// Appends a scenario's faults to those of earlier ones, on one timeline.
fn append(records: &mut Records, subject: &Subject, outcome: &ExperimentOutcome) {
    let origin = records.scenarios.last().map_or(0, |span| span.end);
    let scenario = u16::try_from(records.scenarios.len()).unwrap_or(u16::MAX);
    let (name, mode) = (subject.scenario.clone(), subject.label());
    let end = origin + outcome.load.duration_ns;
    records.scenarios.push(ScenarioSpan { name, mode, begin: origin, end });
    for (fault, index) in outcome.records.faults.iter().zip(0..) {
        let fault = FaultRecord { scenario, times: fault.times.later_by(origin), ..fault };
        if index < RECORDS && records.faults.push(&fault) {
            records.observed.faults_kept += 1;
        } else {
            records.observed.faults_dropped += 1;
        }
    }
}
