//! `refault lab`: experiments from the command line.

use std::fmt::Write;
use std::fs::File;
use std::io::{self, BufWriter, IsTerminal};
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Error, Result, ensure};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

use refault_lab::engine::{self, CaptureTo};
use refault_lab::figures::Figures;
use refault_lab::scenario::shipped::SCENARIOS;
use refault_lab::scenario::{Draft, Scenario};
use refault_lab::sweep::SweepPlan;
use refault_lab::sweep::shipped::SWEEPS;
use refault_timing::{Preset, Timing};

use super::matrix::MatrixArgs;
use super::{folder, read_file, sweep};
use refault_observe::folder::RunFolder;
use refault_observe::report::verdicts::{Case, VerdictArgs};
use refault_observe::report::{self, SweepTable};

/// Where experiments write their folders by default.
const RUNS: &str = "target/refault/lab";
/// Where sweeps write their folders by default.
const SWEEP_FOLDER: &str = "target/refault/sweep";

/// Experiments with the NIC, the IOMMU and a model guest on a virtual clock
#[derive(Debug, Subcommand)]
pub enum LabCommand {
    /// Runs a scenario, prints a summary, and leaves a folder with all results
    Run(LabRunArgs),
    /// Runs a scenario at every point of a grid, and writes one table; resumes where it was interrupted
    Sweep(SweepArgs),
    /// Runs every policy for DMA into files that move under every file operation, and prints the table
    ///
    /// Exit status: 0, even if a policy loses bytes, which is what the table shows; 1 if refault itself misbehaved; 125
    /// if the table could not be made.
    Matrix(MatrixArgs),
    /// Lists the timings of published systems with their sources, or prints one
    Presets {
        /// Print this one: each step, the source of its figure, its certainty
        name: Option<String>,
    },
    /// Lists the scenarios and sweeps that come with refault, or prints one as a file to start from
    Scenarios {
        /// Print this one
        name: Option<String>,
    },
}

/// Options of `lab run`.
#[derive(Debug, Args)]
pub struct LabRunArgs {
    /// Name of a shipped scenario (see `refault lab scenarios`), or a file
    pub scenario: String,
    /// Seed of all random choices, overriding the scenario's
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Overrides a key of the scenario, such as device.credits=8
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// The folder for scenario, records and summary; files of an earlier run in it are replaced [default: a new one
    /// below target/refault/lab]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Writes all packets to this file, in the format pcapng for Wireshark; needs a scenario with a wire
    #[arg(long, value_name = "FILE")]
    pub capture: Option<PathBuf>,
    /// Bytes to keep of each packet
    #[arg(long, value_name = "N", default_value_t = 65536, requires = "capture")]
    pub capture_bytes: u32,
    /// The scenario is one test
    #[command(flatten)]
    pub verdicts: VerdictArgs,
}

/// Options of `lab sweep`.
#[derive(Debug, Args)]
pub struct SweepArgs {
    /// Name of a shipped sweep (see `refault lab scenarios`), or a file
    pub sweep: String,
    /// The folder for finished points and the table [default: target/refault/sweep/NAME]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Points to run at the same time [default: one per CPU]
    #[arg(long, value_name = "N")]
    pub jobs: Option<usize>,
    /// The sweep is one test
    #[command(flatten)]
    pub verdicts: VerdictArgs,
}

/// Runs the command and returns the exit status.
///
/// # Errors
/// An argument is wrong, or an experiment cannot run; the error says what to do.
pub fn execute(command: &LabCommand) -> Result<u8> {
    match command {
        LabCommand::Run(args) => judged(&args.verdicts, &args.scenario, || run(args))?,
        LabCommand::Sweep(args) => judged(&args.verdicts, &args.sweep, || run_sweep(args))?,
        LabCommand::Matrix(args) => return args.execute(),
        LabCommand::Presets { name: None } => print!("{}", preset_list()),
        LabCommand::Presets { name: Some(name) } => print!("{}", preset(name)?),
        LabCommand::Scenarios { name: None } => print!("{}", scenario_list()),
        LabCommand::Scenarios { name: Some(name) } => print!("{}", shipped_file(name)?),
    }
    Ok(0)
}

/// Runs something that counts as one test.
fn judged(verdicts: &VerdictArgs, name: &str, test: impl FnOnce() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    let result = test();
    let failure = result.as_ref().err().map(|error| format!("{error:#}"));
    verdicts.leave("refault lab", &[Case::new(name, failure)], start.elapsed(), &mut io::stdout())?;
    result
}

fn run(args: &LabRunArgs) -> Result<()> {
    let scenario = scenario(args)?;
    let outcome = match &args.capture {
        None => engine::run(&scenario),
        Some(path) => {
            let remedy = "--capture: without a section [wire] in the scenario there are no packets";
            ensure!(scenario.wire.is_some(), remedy);
            let file =
                File::create(path).with_context(|| format!("--capture: cannot write {}", path.display()))?;
            let limit = usize::try_from(args.capture_bytes)?;
            engine::run_captured(&scenario, CaptureTo { to: Box::new(BufWriter::new(file)), limit })
        }
    };
    let outcome = outcome.with_context(|| format!("scenario {:?}", scenario.name))?;
    let figures = Figures::of(&scenario, &outcome);
    let path = match &args.out {
        Some(path) => {
            std::fs::create_dir_all(path).with_context(|| format!("cannot create {}", path.display()))?;
            folder::write(path, &scenario, &outcome, &figures)?;
            path.clone()
        }
        None => {
            let run = RunFolder::create(Path::new(RUNS), SystemTime::now())?;
            folder::write(run.path(), &scenario, &outcome, &figures)?;
            run.finish()?
        }
    };
    args.verdicts.print(&summary(&scenario, &figures));
    args.verdicts.print(&path.display().to_string());
    Ok(())
}

fn scenario(args: &LabRunArgs) -> Result<Scenario> {
    let mut draft = Draft::open(&args.scenario, &read_file)?;
    for setting in &args.set {
        draft.set(setting)?;
    }
    if let Some(seed) = args.seed {
        draft.set(&format!("seed={seed}"))?;
    }
    Ok(draft.check()?)
}

/// What came out, for people.
fn summary(scenario: &Scenario, figures: &Figures) -> String {
    let presets = scenario.presets.iter().filter_map(|name| Preset::find(name));
    let timing: Vec<_> = presets.map(|preset| format!("{} ({})", preset.name, preset.certainty())).collect();
    let timing = if timing.is_empty() { "the scenario's own".into() } else { timing.join(", ") };
    let (name, seed) = (&scenario.name, scenario.seed);
    let mut text = format!("{name}, seed {seed}, timing: {timing}; times are the model's\n\n");
    requests(&mut text, figures);
    faults(&mut text, figures);
    handlers(&mut text, figures);
    text
}

fn requests(text: &mut String, figures: &Figures) {
    let _ = writeln!(
        text,
        "requests   {} in {}, {}/s, {:.1} MB/s; {} failed",
        figures.whole("completed"),
        time(figures.real("duration_ns")),
        rate(figures.real("requests_per_s")),
        figures.real("mb_per_s"),
        figures.whole("failed"),
    );
    let _ = writeln!(text, "latency    {}", quantiles(figures, "latency"));
}

fn faults(text: &mut String, figures: &Figures) {
    let faults = figures.whole("faults");
    let requests = figures.whole("completed") + figures.whole("failed");
    let _ = writeln!(
        text,
        "faults     {faults} ({:.3} per request), {:.2} in flight on average; {} coalesced, {} failed",
        faults as f64 / requests.max(1) as f64,
        figures.real("faults_open_mean"),
        figures.whole("faults_coalesced"),
        figures.whole("faults_failed"),
    );
    if faults > 0 {
        let parts = ["device", "iommu", "guest", "again"].map(|part| {
            let mean = figures.real(&format!("{part}_mean_ns"));
            let share = 100.0 * mean / figures.real("fault_mean_ns").max(1.0);
            let name = if part == "again" { "earlier rounds" } else { part };
            format!("{name} {} ({share:.0} %)", time(mean))
        });
        let _ = writeln!(text, "a fault    {}", quantiles(figures, "fault"));
        let _ = writeln!(text, "its mean   {}", parts.join(", "));
    }
}

fn handlers(text: &mut String, figures: &Figures) {
    let whole = |name: &str| figures.whole(name);
    let _ = writeln!(
        text,
        "handlers   {} faults, {} pages prefetched; busy {:.1} %, wait {} on average; at most {} outstanding",
        whole("handled"),
        whole("prefetched"),
        100.0 * figures.real("handler_utilisation"),
        time(figures.real("handler_wait_mean_ns")),
        whole("handler_most_outstanding"),
    );
    let (requests, invalidations) = (whole("page_requests"), whole("invalidations"));
    let _ = writeln!(text, "messages   {requests} page requests, {invalidations} invalidations");
    let dropped = whole("records_dropped");
    if dropped > 0 {
        let _ =
            writeln!(text, "{dropped} faults did not fit into the records and are in none of these figures");
    }
}

fn quantiles(figures: &Figures, of: &str) -> String {
    let parts = [("mean", "mean"), ("p50", "p50"), ("p99", "p99"), ("max", "max")];
    let shown = parts.map(|(name, key)| format!("{name} {}", time(figures.real(&format!("{of}_{key}_ns")))));
    shown.join(", ")
}

/// A duration with its unit, to about four digits.
fn time(ns: f64) -> String {
    let (value, unit) = match ns {
        _ if ns >= 1e9 => (ns / 1e9, "s"),
        _ if ns >= 1e6 => (ns / 1e6, "ms"),
        _ if ns >= 1e3 => (ns / 1e3, "us"),
        _ => (ns, "ns"),
    };
    let digits = if value >= 100.0 { 1 } else { 2 };
    format!("{value:.digits$} {unit}")
}

fn rate(per_second: f64) -> String {
    if per_second >= 1e6 { format!("{:.3} million", per_second / 1e6) } else { format!("{per_second:.0}") }
}

fn run_sweep(args: &SweepArgs) -> Result<()> {
    let plan = SweepPlan::open(&args.sweep, &read_file)?;
    let folder = args.out.clone().unwrap_or_else(|| Path::new(SWEEP_FOLDER).join(plan.name()));
    let jobs = args.jobs.unwrap_or_else(|| available_parallelism().map_or(1, usize::from));
    let bar = progress_bar(plan.len());
    let mut first = true;
    let done = sweep::run(&plan, &folder, jobs, |points| {
        bar.set_position(points as u64);
        if std::mem::take(&mut first) {
            // Points of an earlier run took no time now, and would make the estimate too short.
            bar.reset_eta();
        }
    });
    bar.finish_and_clear();
    let done = done?;
    let resumed = match done.resumed {
        0 => String::new(),
        points => format!(" ({points} of them finished earlier)"),
    };
    let page = sweep_page(&plan, &folder, &done.table)?;
    let (table, page) = (done.table.display(), page.display());
    args.verdicts.print(&format!("{} points{resumed}\n{table}\n{page}", done.points));
    Ok(())
}

/// Makes the page that charts the table.
fn sweep_page(plan: &SweepPlan, folder: &Path, table: &Path) -> Result<PathBuf> {
    let text = std::fs::read_to_string(table).with_context(|| format!("cannot read {}", table.display()))?;
    let read = SweepTable::from_csv(plan.name(), &text, &plan.columns());
    let read = read.map_err(Error::msg).with_context(|| table.display().to_string())?;
    Ok(report::write_sweep(folder, &read)?)
}

/// A progress bar on standard error, if that is a terminal.
fn progress_bar(points: usize) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(points as u64);
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} points, {elapsed}, {eta} to go");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn preset_list() -> String {
    let mut text = String::new();
    for preset in Preset::all() {
        let _ = writeln!(text, "{:<15} {:<21} {}", preset.name, preset.certainty(), preset.title);
        let _ = writeln!(text, "{:<37} {}", "", preset.source);
    }
    text.push_str(
        "\nThe second column is the certainty of the least certain figure. `refault lab presets NAME` prints one.\n",
    );
    text
}

fn preset(name: &str) -> Result<String> {
    let names = || format!("there is no preset {name:?}; write one of {}", Preset::names().join(", "));
    let preset = Preset::find(name).with_context(names)?;
    let mut text = format!("{}: {}\n{}\n\n", preset.name, preset.title, preset.source);
    let _ = writeln!(text, "{}\n", wrapped(&preset.note, 100));
    for step in Timing::STEPS {
        if let Some(known) = preset.steps.iter().find(|known| known.step == *step) {
            let _ = writeln!(text, "{step:<17} {:<16} {}", known.certainty.name(), known.delay);
            let _ = writeln!(text, "{:<34} {}", "", known.from);
        } else if preset.zero.iter().any(|zero| zero == step) {
            let _ = writeln!(text, "{step:<17} {:<16} 0 ns", "zero");
        } else {
            let _ = writeln!(text, "{step:<17} {:<16} -", "not published");
        }
    }
    Ok(text)
}

/// Wraps words into lines of at most `width` characters.
fn wrapped(text: &str, width: usize) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.len() + 1 + word.len() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}

fn scenario_list() -> String {
    let mut text = String::from("Scenarios, for `refault lab run`:\n");
    for (name, title) in SCENARIOS.titles() {
        let _ = writeln!(text, "  {name:<20} {title}");
    }
    text.push_str("\nSweeps, for `refault lab sweep`:\n");
    for (name, title) in SWEEPS.titles() {
        let _ = writeln!(text, "  {name:<20} {title}");
    }
    text
}

fn shipped_file(name: &str) -> Result<&'static str> {
    SCENARIOS.text(name).or_else(|| SWEEPS.text(name)).with_context(|| {
        let names = [SCENARIOS.names(), SWEEPS.names()].concat().join(", ");
        format!("there is no shipped scenario or sweep {name:?}; write one of {names}")
    })
}
