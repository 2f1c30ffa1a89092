//! From a file's `preset` and `[timing]` to a [`Timing`].

use super::delay;
use super::fields::{Fields, listed};
use super::preset::{Preset, UNLIMITED_BYTES_PER_US, copy_rate};
use super::text::TextError;
use super::timing::{Delay, Timing};
use super::tree::{Node, Table, Value};

/// Keys at the top of a scenario's file. A timing alone may be read from such a file too.
pub const FILE_KEYS: &[&str] =
    &["name", "seed", "requests", "preset", "load", "device", "guest", "churn", "timing"];

/// The timing of a file's root and nothing else of it; a step that is not given takes no time.
///
/// # Errors
/// A key is unknown, or a value is wrong.
pub fn timing_alone(root: &Node) -> Result<Timing, TextError> {
    let top = Fields::top(root, FILE_KEYS)?;
    let Value::Table(table) = &root.value else { return Err(top.missing("timing", "write [timing]")) };
    timing(table, root, &presets(&top)?, |_| false)
}

/// The presets by their names, in the order in which they are asked.
///
/// # Errors
/// There is no such preset.
pub fn presets(top: &Fields<'_>) -> Result<Vec<&'static Preset>, TextError> {
    let found = top.texts("preset")?.into_iter().map(|(name, place)| {
        Preset::find(name).ok_or_else(|| {
            let what = format!("there is no preset {name:?}");
            place.error(what, format!("write one of {}", listed(&Preset::names())))
        })
    });
    found.collect()
}

/// The timing that `[timing]` and the presets give. A step that neither gives is an error if it is `needed`, and takes no
/// time otherwise.
///
/// # Errors
/// A value is wrong, or a needed step is missing.
pub fn timing(
    root: &Table,
    node: &Node,
    presets: &[&Preset],
    needed: impl Fn(&str) -> bool,
) -> Result<Timing, TextError> {
    let known: Vec<&str> = Timing::STEPS.iter().copied().chain(["bytes_per_us"]).collect();
    let fields = Fields::section(root, "timing", &known, &node.place)?;
    let rate = presets.iter().map(|preset| preset.bytes_per_us).min().unwrap_or(UNLIMITED_BYTES_PER_US);
    let mut timing = Timing::instant(copy_rate(&fields, rate)?);
    let mut lacking = Vec::new();
    for step in Timing::STEPS {
        let delay = match fields.entry(step) {
            Some(entry) => Some(delay::read(&fields.name(step), &entry.node)?),
            None => presets.iter().find_map(|preset| preset.delay(step)),
        };
        if delay.is_none() && needed(step) {
            lacking.push(*step);
        }
        if let Some(place) = timing.step_mut(step) {
            *place = delay.unwrap_or(Delay::NONE);
        }
    }
    if lacking.is_empty() { Ok(timing) } else { Err(lacks(root, node, presets, &lacking)) }
}

/// The error for needed steps without a delay.
fn lacks(root: &Table, node: &Node, presets: &[&Preset], steps: &[&str]) -> TextError {
    let place = root.get("preset").map_or(&node.place, |entry| &entry.node.place);
    let all = listed(steps);
    if presets.is_empty() {
        let remedy = format!("write preset = \"NAME\" with one of {}", listed(&Preset::names()));
        return place.error(format!("without a preset, nothing says how long {all} take"), remedy);
    }
    let names: Vec<_> = presets.iter().map(|preset| format!("`{}`", preset.name)).collect();
    let what = format!("preset {} does not say how long {all} takes in this scenario", names.join(" with "));
    let lines: Vec<_> = steps.iter().map(|step| format!("{step} = \"...\"")).collect();
    let remedy = format!("write {} under [timing], or name a second preset that has it", lines.join(", "));
    place.error(what, remedy)
}
