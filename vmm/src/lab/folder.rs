//! The folder of an experiment: what it was, and everything that came out.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use refault_lab::facts;
use refault_lab::figures::{FIGURES, Figure, Figures};
use refault_lab::outcome::ExperimentOutcome;
use refault_lab::scenario::Scenario;
use refault_observe::report::{self, ExperimentReport};
use refault_observe::save::save_atomically;

/// Names of the files that only experiments have; the others are [`report::names`]'.
pub mod names {
    /// The scenario with every key: run it, and the same comes out.
    pub const SCENARIO: &str = "scenario.toml";
    /// The figures that a sweep's table would have.
    pub const FIGURES: &str = "figures.json";
}

/// Writes all files of an experiment into its folder.
///
/// # Errors
/// The file system refuses.
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

/// Writes what an experiment was, and its figures: the files that are not the report's.
///
/// # Errors
/// The file system refuses.
pub fn describe(folder: &Path, scenario: &Scenario, figures: &Figures) -> Result<()> {
    save(folder, names::SCENARIO, scenario.to_toml().as_bytes())?;
    save(folder, names::FIGURES, lines(figures).as_bytes())
}

/// One figure a line, in the order of the columns.
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
