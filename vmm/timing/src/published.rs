//! Figures that were published of whole requests, to be shown beside an experiment's own.

use super::fields::{Fields, duration};
use super::text::TextError;
use super::tree::{Table, Value};
use super::units::{show_size, size};

/// What a publication says about requests of one kind: cold, one at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedFigure {
    /// Bytes of the request.
    pub message_bytes: u64,
    /// One fault brings all pages of the request; else each page has a fault of its own.
    pub at_once: bool,
    /// Which figure it is, a column of a sweep's table that is a time.
    pub figure: String,
    /// What was published, in nanoseconds.
    pub ns: u64,
}

impl PublishedFigure {
    /// Reads the `[[published]]` of a preset.
    pub(crate) fn read_all(root: &Table) -> Result<Vec<Self>, TextError> {
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
        if !figure.ends_with("_ns") {
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
