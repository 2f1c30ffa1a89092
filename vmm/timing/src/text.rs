//! Locations in a text, and errors that name them.

use std::fmt::{self, Display, Formatter};
use std::ops::Range;
use std::sync::Arc;

/// A text and its name in messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// A path, or the option of the command line.
    pub name: String,
    /// The whole text.
    pub text: String,
}

/// A range of a [`Source`].
#[derive(Clone, Debug)]
pub struct Location {
    /// The text that [`Self::span`] is part of.
    pub source: Arc<Source>,
    /// Byte offsets.
    pub span: Range<usize>,
}

impl Location {
    /// An error at this location: what is wrong, and what to write instead.
    pub fn error(&self, what: impl Into<String>, remedy: impl Into<String>) -> TextError {
        let before = self.source.text.get(..self.span.start).unwrap_or(&self.source.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        TextError {
            file: self.source.name.clone(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            what: what.into(),
            remedy: remedy.into(),
        }
    }
}

/// An error in a scenario, a preset or a sweep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextError {
    /// The file, or the option of the command line.
    pub file: String,
    /// Line, counted from 1.
    pub line: usize,
    /// Character in the line, counted from 1.
    pub column: usize,
    /// The error itself.
    pub what: String,
    /// How to correct it.
    pub remedy: String,
}

impl Display for TextError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, what, remedy } = self;
        write!(f, "{file}:{line}:{column}: {what}; {remedy}")
    }
}

impl std::error::Error for TextError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_count_from_one_in_characters() {
        let source = Arc::new(Source { name: "a.toml".into(), text: "x = 1\nµé = 22\n".into() });
        let location = |span: Range<usize>| Location { source: source.clone(), span };
        let at = |span| {
            let error = location(span).error("", "");
            (error.line, error.column)
        };
        assert_eq!([at(0..1), at(4..5), at(6..8), at(13..15)], [(1, 1), (1, 5), (2, 1), (2, 6)]);
        // The end of the file, where something is missing.
        assert_eq!(at(16..16), (3, 1));
        assert_eq!(location(0..1).error("no", "do").to_string(), "a.toml:1:1: no; do");
    }
}
