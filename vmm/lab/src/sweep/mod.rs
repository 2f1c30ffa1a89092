//! Sweeps: an experiment for each point of a grid. A row of the table depends only on the scenario of its point.

mod axis;
mod plan;
mod range;
pub mod shipped;

pub use self::plan::{MAX_POINTS, PlanError, SweepPlan};
use crate::engine;
use crate::figures::{Figure, Figures};

/// Runs the experiment of a point, and returns its figures separated by commas, in digits that read back exactly.
///
/// # Errors
/// The experiment cannot run; the string is the reason.
pub fn row(plan: &SweepPlan, point: usize) -> Result<String, String> {
    let scenario = plan.scenario(point).map_err(|error| error.to_string())?;
    let outcome = engine::run(&scenario).map_err(|error| error.to_string())?;
    let figures = Figures::of(&scenario, &outcome);
    let cells = figures.values().iter().map(|figure| match figure {
        Figure::Whole(value) => value.to_string(),
        Figure::Real(value) => value.to_string(),
    });
    Ok(cells.collect::<Vec<_>>().join(","))
}
