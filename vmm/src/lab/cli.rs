//! `refault lab`: experiments from the command line.

use std::fmt::Write;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Error, Result};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

use refault_lab::engine;
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

/// Where experiments leave their folders if nothing else is said.
const RUNS: &str = "target/refault/lab";
/// The same for sweeps.
const SWEEP_FOLDER: &str = "target/refault/sweep";

/// Experiments with the NIC, the IOMMU and a model guest on a virtual clock
#[derive(Debug, Subcommand)]
pub enum LabCommand {
    /// Runs a scenario, says what came out, and leaves a folder with everything
    Run(RunArgs),
    /// Runs a scenario at every point of a grid, and ends in one table; goes on where it was interrupted
    Sweep(SweepArgs),
    /// Plays every policy for DMA into files that move under every file operation, and prints the table
    ///
    /// Exit status: 0, even if a policy loses bytes - that is its lesson -, 1 if refault itself did what it must not, 125
    /// if the table could not be made.
    Matrix(MatrixArgs),
    /// Lists the timings of published systems with their sources, or prints one
    Presets {
        /// Print this one: each step, where its figure comes from, how sure it is
        name: Option<String>,
    },
    /// Lists the scenarios and sweeps that come with refault, or prints one as a file to start from
    Scenarios {
        /// Print this one
        name: Option<String>,
    },
}

/// What `lab run` takes.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Name of a shipped scenario (see `refault lab scenarios`), or a file
    pub scenario: String,
    /// Of all random choices, in place of the scenario's
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// A key in place of the scenario's, such as device.credits=8
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// The folder for scenario, records and summary; files of an earlier run in it are replaced [default: a new one
    /// below target/refault/lab]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// The scenario is one test
    #[command(flatten)]
    pub verdicts: VerdictArgs,
}

/// What `lab sweep` takes.
#[derive(Debug, Args)]
pub struct SweepArgs {
    /// Name of a shipped sweep (see `refault lab scenarios`), or a file
    pub sweep: String,
    /// The folder for finished points and the table [default: target/refault/sweep/NAME]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Points at the same time [default: one for each CPU]
    #[arg(long, value_name = "N")]
    pub jobs: Option<usize>,
    /// The sweep is one test
    #[command(flatten)]
    pub verdicts: VerdictArgs,
}

/// Does what the command says, and gives the exit status.
///
/// # Errors
/// Something that was given is wrong, or an experiment cannot run; the text says what to do.
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

/// Does something that is one test by its own.
fn judged(verdicts: &VerdictArgs, name: &str, test: impl FnOnce() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    let result = test();
    let failure = result.as_ref().err().map(|error| format!("{error:#}"));
    verdicts.leave("refault lab", &[Case::new(name, failure)], start.elapsed(), &mut io::stdout())?;
    result
}

fn run(args: &RunArgs) -> Result<()> {
    let scenario = scenario(args)?;
    let outcome = engine::run(&scenario).with_context(|| format!("scenario {:?}", scenario.name))?;
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

fn scenario(args: &RunArgs) -> Result<Scenario> {
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
    let mut text = format!("{name}, seed {seed}, timing: {timing}; times are of the model\n\n");
    requests(&mut text, figures);
    faults(&mut text, figures);
    handlers(&mut text, figures);
    text
}

fn requests(text: &mut String, figures: &Figures) {
    let _ = writeln!(
        text,
        "requests   {} in {}, {} a second, {:.1} MB/s; {} failed",
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
        "faults     {faults}, {:.3} of the requests, {:.2} under way in the mean; {} waited for another's, {} failed",
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
        "handlers   {} faults, {} pages ahead; busy {:.1} %, wait {} in the mean; at most {} at one time",
        whole("handled"),
        whole("prefetched"),
        100.0 * figures.real("handler_utilisation"),
        time(figures.real("handler_wait_mean_ns")),
        whole("handler_most_outstanding"),
    );
    let (asked, invalidations) = (whole("page_requests"), whole("invalidations"));
    let _ = writeln!(text, "messages   {asked} page requests, {invalidations} invalidations");
    let dropped = whole("records_dropped");
    if dropped > 0 {
        let _ = writeln!(text, "{dropped} faults had no room in the records, and are in no figure here");
    }
}

fn quantiles(figures: &Figures, of: &str) -> String {
    let parts = [("mean", "mean"), ("p50", "p50"), ("p99", "p99"), ("max", "max")];
    let shown = parts.map(|(name, key)| format!("{name} {}", time(figures.real(&format!("{of}_{key}_ns")))));
    shown.join(", ")
}

/// A duration with four digits and its unit.
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
            // What an earlier run finished says nothing about how long the rest takes.
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

/// Draws the table.
fn sweep_page(plan: &SweepPlan, folder: &Path, table: &Path) -> Result<PathBuf> {
    let text = std::fs::read_to_string(table).with_context(|| format!("cannot read {}", table.display()))?;
    let read = SweepTable::from_csv(plan.name(), &text, &plan.columns());
    let read = read.map_err(Error::msg).with_context(|| table.display().to_string())?;
    Ok(report::write_sweep(folder, &read)?)
}

/// On standard error, if that is a terminal.
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
        "\nThe second column is how sure the least sure figure is. `refault lab presets NAME` prints one.\n",
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

/// Words in lines of at most `width` characters.
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
        format!("nothing that is shipped is called {name:?}; write one of {names}")
    })
}
