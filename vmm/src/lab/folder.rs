//! The folder of an experiment: what it was, and everything that came out.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};

use super::figures::{FIGURES, Figure, Figures};
use super::outcome::Outcome;
use super::scenario::{Preset, Scenario};
use crate::report::{self, Published};

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
pub fn write(folder: &Path, scenario: &Scenario, outcome: &Outcome) -> Result<()> {
    describe(folder, scenario, outcome)?;
    report::write_lab(folder, scenario, outcome, &paper(scenario, outcome))?;
    Ok(())
}

/// Writes what an experiment was, and its figures: the files that are not the report's.
///
/// # Errors
/// The file system refuses.
pub fn describe(folder: &Path, scenario: &Scenario, outcome: &Outcome) -> Result<()> {
    save(folder, names::SCENARIO, scenario.to_toml().as_bytes())?;
    save(folder, names::FIGURES, figures(scenario, outcome).as_bytes())
}

/// What was published of such an experiment, and what it came to here.
fn paper(scenario: &Scenario, outcome: &Outcome) -> Vec<Published> {
    let figures = Figures::of(scenario, outcome);
    let presets = scenario.presets.iter().filter_map(|name| Preset::find(name));
    let fitting = presets.flat_map(|preset| {
        let fits = preset.published.iter().filter(|figure| figure.fits(preset, scenario));
        fits.map(move |figure| (preset, figure))
    });
    let beside = fitting.map(|(preset, figure)| Published {
        what: figure.what(),
        published_ns: figure.ns,
        source: format!("{} ({})", preset.source, preset.sureness()),
        measured_ns: figures.real(&figure.figure).round() as u64,
    });
    beside.collect()
}

/// One figure a line, in the order of the columns.
fn figures(scenario: &Scenario, outcome: &Outcome) -> String {
    let figures = Figures::of(scenario, outcome);
    let lines = FIGURES.iter().zip(figures.values()).map(|((name, ..), figure)| match figure {
        Figure::Whole(value) => format!("  \"{name}\": {value}"),
        Figure::Real(value) => format!("  \"{name}\": {value}"),
    });
    format!("{{\n{}\n}}\n", lines.collect::<Vec<_>>().join(",\n"))
}

/// Writes a file and only then gives it its name.
fn save(folder: &Path, name: &str, content: &[u8]) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join(name);
    let attempt = || -> std::io::Result<()> {
        let readable = std::fs::Permissions::from_mode(0o644);
        let mut file = tempfile::Builder::new().permissions(readable).tempfile_in(folder)?;
        file.write_all(content)?;
        file.persist(&path).map_err(|error| error.error)?;
        Ok(())
    };
    attempt().with_context(|| format!("cannot write {}", path.display()))
}
