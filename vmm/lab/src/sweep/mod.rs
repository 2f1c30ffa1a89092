//! Sweeps: an experiment for each point of a grid. A row depends on its point's scenario alone.

mod axis;
mod plan;
mod range;
pub mod shipped;

pub use self::plan::{MAX_POINTS, Plan, PlanError};
use crate::engine;
use crate::figures::{Figure, Figures};

/// Runs the experiment of a point. The row has its figures as a table's cells, separated by commas: numbers written such
/// that they read back as they were.
///
/// # Errors
/// The experiment cannot run; the text says why.
pub fn row(plan: &Plan, point: usize) -> Result<String, String> {
    let scenario = plan.scenario(point).map_err(|error| error.to_string())?;
    let outcome = engine::run(&scenario).map_err(|error| error.to_string())?;
    let figures = Figures::of(&scenario, &outcome);
    let cells = figures.values().iter().map(|figure| match figure {
        Figure::Whole(value) => value.to_string(),
        Figure::Real(value) => value.to_string(),
    });
    Ok(cells.collect::<Vec<_>>().join(","))
}
