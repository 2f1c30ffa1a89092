//! From a file's `preset` and `[timing]` to a [`Timing`].

use super::delay;
use super::fields::{Fields, listed};
use super::preset::{Preset, UNLIMITED_BYTES_PER_US, rate};
use super::text::TextError;
use super::timing::{Delay, Timing};
use super::tree::{Node, TomlTable, Value};

/// Top-level keys of a scenario file. [`timing_alone`] accepts such a file, too.
pub const FILE_KEYS: &[&str] =
    &["name", "seed", "requests", "preset", "load", "device", "guest", "churn", "wire", "timing"];

/// Reads only the timing of a file's root. A step that is not given takes no time.
///
/// # Errors
/// A key is unknown, there is no such preset, or a value is invalid.
pub fn timing_alone(root: &Node) -> Result<Timing, TextError> {
    let top = Fields::top(root, FILE_KEYS)?;
    let Value::Table(table) = &root.value else { return Err(top.missing("timing", "write [timing]")) };
    timing(table, root, &presets(&top)?, |_| false)
}

/// The presets that a file's `preset` names. For each step, the first one that has it applies.
///
/// # Errors
/// There is no such preset.
pub fn presets(top: &Fields<'_>) -> Result<Vec<&'static Preset>, TextError> {
    let found = top.texts("preset")?.into_iter().map(|(name, location)| {
        Preset::find(name).ok_or_else(|| {
            let what = format!("there is no preset {name:?}");
            location.error(what, format!("write one of {}", listed(&Preset::names())))
        })
    });
    found.collect()
}

/// Combines `[timing]` with the presets. A step that neither gives is an error if it is `needed`, and takes no time
/// otherwise. `node` is the root that `root` belongs to.
///
/// # Errors
/// A value is invalid, or a needed step is missing.
pub fn timing(
    root: &TomlTable,
    node: &Node,
    presets: &[&Preset],
    needed: impl Fn(&str) -> bool,
) -> Result<Timing, TextError> {
    let known: Vec<&str> = Timing::STEPS.iter().copied().chain(["bytes_per_us"]).collect();
    let fields = Fields::section(root, "timing", &known, &node.location)?;
    let default = presets.iter().map(|preset| preset.bytes_per_us).min().unwrap_or(UNLIMITED_BYTES_PER_US);
    let mut timing = Timing::instant(rate(&fields, "bytes_per_us", default)?);
    let mut missing = Vec::new();
    for step in Timing::STEPS {
        let delay = match fields.entry(step) {
            Some(entry) => Some(delay::read(&fields.name(step), &entry.node)?),
            None => presets.iter().find_map(|preset| preset.delay(step)),
        };
        if delay.is_none() && needed(step) {
            missing.push(*step);
        }
        if let Some(slot) = timing.step_mut(step) {
            *slot = delay.unwrap_or(Delay::NONE);
        }
    }
    if missing.is_empty() { Ok(timing) } else { Err(missing_steps(root, node, presets, &missing)) }
}

/// The error for needed steps without a delay.
fn missing_steps(root: &TomlTable, node: &Node, presets: &[&Preset], steps: &[&str]) -> TextError {
    let location = root.get("preset").map_or(&node.location, |entry| &entry.node.location);
    let all = listed(steps);
    if presets.is_empty() {
        let remedy = format!("write preset = \"NAME\" with one of {}", listed(&Preset::names()));
        return location.error(format!("without a preset, nothing says how long {all} take"), remedy);
    }
    let names: Vec<_> = presets.iter().map(|preset| format!("`{}`", preset.name)).collect();
    let what = format!("preset {} does not say how long {all} takes in this scenario", names.join(" with "));
    let lines: Vec<_> = steps.iter().map(|step| format!("{step} = \"...\"")).collect();
    let remedy = format!("write {} under [timing], or name a second preset that has it", lines.join(", "));
    location.error(what, remedy)
}
