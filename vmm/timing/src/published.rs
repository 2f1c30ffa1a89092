//! Published latencies of whole requests, shown beside those of an experiment.

use super::fields::{Fields, duration};
use super::text::TextError;
use super::tree::{TomlTable, Value};
use super::units::{show_size, size};

/// A published latency of cold requests, one at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedFigure {
    /// Size of the request.
    pub message_bytes: u64,
    /// One fault maps all pages of the request; otherwise each page faults on its own.
    pub at_once: bool,
    /// The figure: a column of a sweep's table that ends in `_ns`.
    pub figure: String,
    /// The published value, in nanoseconds.
    pub ns: u64,
}

impl PublishedFigure {
    /// Reads the `[[published]]` tables of a preset.
    pub(crate) fn read_all(root: &TomlTable) -> Result<Vec<Self>, TextError> {
        match root.get("published").map(|entry| (&entry.key, &entry.node.value)) {
            None => Ok(Vec::new()),
            Some((_, Value::List(items))) => {
                let read = items
                    .iter()
                    .map(|item| Self::read(&Fields::top(item, &["message", "at_once", "figure", "value"])?));
                read.collect()
            }
            Some((key, _)) => Err(key.error("`published` is not a list", "write [[published]]")),
        }
    }

    fn read(fields: &Fields<'_>) -> Result<Self, TextError> {
        let missing = |key| fields.missing(key, "write message, figure and value");
        let message = fields.text("message")?.and_then(size).ok_or_else(|| missing("message"))?;
        let figure = fields.text("figure")?.ok_or_else(|| missing("figure"))?;
        if !figure.ends_with("_ns") {
            return Err(fields.error(
                "figure",
                "is not a time in nanoseconds",
                "write a column of times, such as \"latency_p50_ns\"",
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

    /// A description such as `4 KiB message, cold: median`.
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
            (true, false) => ", one page at a time",
            (false, _) => "",
        };
        format!("{} message, cold{pages}: {quantity}", show_size(self.message_bytes))
    }
}
