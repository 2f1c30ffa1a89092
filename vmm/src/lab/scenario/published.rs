//! Figures that were published of whole requests, to be shown beside an experiment's own.

use super::fields::{Fields, duration};
use super::text::TextError;
use super::tree::{Table, Value};
use super::units::{show_size, size};
use super::{Preset, Scenario};
use crate::lab::figures::FIGURES;

/// What a publication says about requests of one kind: cold, one at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedFigure {
    /// Bytes of the request.
    pub message_bytes: u64,
    /// One fault brings all pages of the request; else each page has a fault of its own.
    pub at_once: bool,
    /// Which figure it is, one of [`FIGURES`] that is a time.
    pub figure: String,
    /// What was published, in nanoseconds.
    pub ns: u64,
}

impl PublishedFigure {
    /// Reads the `[[published]]` of a preset.
    pub(super) fn read_all(root: &Table) -> Result<Vec<Self>, TextError> {
        match root.get("published").map(|entry| (&entry.key, &entry.node.value)) {
            None => Ok(Vec::new()),
            Some((_, Value::List(items))) => {
                let read = items
                    .iter()
                    .map(|item| Self::read(&Fields::top(item, &["message", "at_once", "figure", "value"])?));
                read.collect()
            }
            Some((key, _)) => Err(key.error("`published` is no list", "write [[published]]")),
        }
    }

    fn read(fields: &Fields<'_>) -> Result<Self, TextError> {
        let missing = |key| fields.missing(key, "write message, figure and value");
        let message = fields.text("message")?.and_then(size).ok_or_else(|| missing("message"))?;
        let figure = fields.text("figure")?.ok_or_else(|| missing("figure"))?;
        if !figure.ends_with("_ns") || !FIGURES.iter().any(|(known, ..)| *known == figure) {
            return Err(fields.error(
                "figure",
                "is no time of an experiment",
                "write such as \"latency_p50_ns\"",
            ));
        }
        let value = fields.entry("value").ok_or_else(|| missing("value"))?;
        Ok(Self {
            message_bytes: message,
            at_once: fields.flag("at_once", false)?,
            figure: figure.to_owned(),
            ns: duration("value", &value.node)?,
        })
    }

    /// Whether an experiment is of that kind: cold requests of that size, one at a time, their pages brought as
    /// published, in the times of the preset.
    pub fn fits(&self, preset: &Preset, scenario: &Scenario) -> bool {
        let (load, guest) = (&scenario.load, &scenario.guest);
        let pages = self.message_bytes.div_ceil(4096);
        let brought = if self.at_once { u64::from(guest.prefetch) + 1 >= pages } else { guest.prefetch == 0 };
        let timed = preset.steps.iter().all(|step| scenario.timing.step(&step.step) == Some(&step.delay));
        u64::from(load.message_bytes) == self.message_bytes
            && (load.queue_pairs, load.depth) == (1, 1)
            && load.cold_share == 1.0
            && !load.large_pages
            && scenario.churn.is_none()
            && guest.major_share == 0.0
            && (brought || pages == 1)
            && (scenario.device.fault_window == 1 || pages == 1)
            && timed
    }

    /// What it is, in words.
    pub fn what(&self) -> String {
        let quantity = match self.figure.trim_end_matches("_ns").rsplit_once('_') {
            Some((_, "mean")) => "mean",
            Some((_, "p50")) => "median",
            Some((_, "p95")) => "95 %",
            Some((_, "p99")) => "99 %",
            Some((_, "p999")) => "99.9 %",
            _ => "longest",
        };
        let pages = match (self.message_bytes > 4096, self.at_once) {
            (true, true) => ", all pages at once",
            (true, false) => ", one page after the other",
            (false, _) => "",
        };
        format!("{} message, cold{pages}: {quantity}", show_size(self.message_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::scenario::Draft;

    fn fitting(scenario: &str, settings: &[&str]) -> Vec<String> {
        let mut draft = Draft::open(scenario).unwrap();
        settings.iter().for_each(|setting| draft.set(setting).unwrap());
        let scenario = draft.check().unwrap();
        let preset = Preset::find(&scenario.presets[0]).unwrap();
        preset
            .published
            .iter()
            .filter(|figure| figure.fits(preset, &scenario))
            .map(PublishedFigure::what)
            .collect()
    }

    #[test]
    fn a_published_figure_stands_beside_experiments_of_its_kind_only() {
        assert_eq!(fitting("cold-4k", &[]), ["4 KiB message, cold: median"]);
        assert_eq!(fitting("batched-4m", &[]), ["4 MiB message, cold, all pages at once: median"]);
        assert_eq!(
            fitting("page-by-page-4m", &[]),
            ["4 MiB message, cold, one page after the other: median"]
        );
        for other in ["load.message=8K", "load.depth=2", "load.cold_share=0.5", "timing.minor=1 us"] {
            assert_eq!(fitting("cold-4k", &[other]), [""; 0], "{other}");
        }
    }
}
