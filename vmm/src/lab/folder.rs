//! The folder of an experiment: its scenario and all its results.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use refault_lab::facts;
use refault_lab::figures::{FIGURES, Figure, Figures};
use refault_lab::outcome::ExperimentOutcome;
use refault_lab::scenario::Scenario;
use refault_observe::report::{self, ExperimentReport};
use refault_observe::save::save_atomically;

/// Names of the files that only experiments have; for the others see [`report::names`].
pub mod names {
    /// The scenario with every key: running it gives the same results.
    pub const SCENARIO: &str = "scenario.toml";
    /// The figures, as in a sweep's table.
    pub const FIGURES: &str = "figures.json";
}

/// Writes all files of an experiment into its folder.
///
/// # Errors
/// A file cannot be written.
pub fn write(
    folder: &Path,
    scenario: &Scenario,
    outcome: &ExperimentOutcome,
    figures: &Figures,
) -> Result<()> {
    describe(folder, scenario, figures)?;
    let paper = facts::paper(scenario, figures);
    let experiment = ExperimentReport { paper, ..facts::experiment(scenario, outcome) };
    report::write_experiment(folder, &outcome.records, &outcome.counters, &experiment)?;
    Ok(())
}

/// Writes the scenario and the figures: the files that are not part of the report.
///
/// # Errors
/// A file cannot be written.
pub fn describe(folder: &Path, scenario: &Scenario, figures: &Figures) -> Result<()> {
    save(folder, names::SCENARIO, scenario.to_toml().as_bytes())?;
    save(folder, names::FIGURES, lines(figures).as_bytes())
}

/// JSON with one figure per line, in the order of a sweep's columns.
fn lines(figures: &Figures) -> String {
    let lines = FIGURES.iter().zip(figures.values()).map(|((name, ..), figure)| match figure {
        Figure::Whole(value) => format!("  \"{name}\": {value}"),
        Figure::Real(value) => format!("  \"{name}\": {value}"),
    });
    format!("{{\n{}\n}}\n", lines.collect::<Vec<_>>().join(",\n"))
}

fn save(folder: &Path, name: &str, content: &[u8]) -> Result<()> {
    let path = folder.join(name);
    let saved = save_atomically(&path, |out| out.write_all(content));
    saved.with_context(|| format!("cannot write {}", path.display()))
}
