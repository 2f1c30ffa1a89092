//! Where in which file something stands, and what is wrong with it.

use std::fmt::{self, Display, Formatter};
use std::ops::Range;
use std::sync::Arc;

/// A text that was read, and what to call it in messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// A path, or what else tells a person where to look.
    pub name: String,
    /// All of it.
    pub text: String,
}

/// A stretch of a [`Source`].
#[derive(Clone, Debug)]
pub struct Place {
    /// The text.
    pub source: Arc<Source>,
    /// Bytes of the text.
    pub span: Range<usize>,
}

impl Place {
    /// The error that something is wrong here: what, and what to write instead.
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

/// Something is wrong in a scenario, a preset or a sweep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextError {
    /// The file, or the option of the command line.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Character in the line, from 1.
    pub column: usize,
    /// What is wrong.
    pub what: String,
    /// What to write instead.
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
        let place = |span: Range<usize>| Place { source: source.clone(), span };
        let at = |span| {
            let error = place(span).error("", "");
            (error.line, error.column)
        };
        assert_eq!([at(0..1), at(4..5), at(6..8), at(13..15)], [(1, 1), (1, 5), (2, 1), (2, 6)]);
        // The end of the file, where something is missing.
        assert_eq!(at(16..16), (3, 1));
        assert_eq!(place(0..1).error("no", "do").to_string(), "a.toml:1:1: no; do");
    }
}
