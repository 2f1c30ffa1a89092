//! Values of a table by their keys, each checked against what it may be.

use std::fmt::Display;
use std::ops::RangeInclusive;

use super::LONGEST_NS;
use super::text::{Place, TextError};
use super::tree::{Entry, Node, Table, Value};
use super::units::{self, DURATION_HELP, SIZE_HELP};

/// The keys of one section.
pub struct Fields<'a> {
    /// `""` for the top of a file.
    section: &'static str,
    table: Option<&'a Table>,
    /// Where to point if a key is missing.
    place: Place,
}

impl<'a> Fields<'a> {
    /// The keys of a whole file; any that is not `known` is an error.
    pub fn top(root: &'a Node, known: &[&str]) -> Result<Self, TextError> {
        Self::of(root, "", known)
    }

    /// The keys of a section, none if the file lacks it.
    pub fn section(
        root: &'a Table,
        section: &'static str,
        known: &[&str],
        place: &Place,
    ) -> Result<Self, TextError> {
        match root.get(section) {
            Some(entry) => Self::of(&entry.node, section, known),
            None => Ok(Self { section, table: None, place: place.clone() }),
        }
    }

    fn of(node: &'a Node, section: &'static str, known: &[&str]) -> Result<Self, TextError> {
        let Value::Table(table) = &node.value else {
            let what = format!("`{section}` is {}, not a section", node.value.kind());
            return Err(node.place.error(what, format!("write [{section}] and its keys below it")));
        };
        let fields = Self { section, table: Some(table), place: node.place.clone() };
        let unknown = table.entries.iter().filter(|(key, _)| !known.contains(&key.as_str()));
        match unknown.min_by_key(|(_, entry)| entry.key.span.start) {
            Some((key, entry)) => {
                let what = format!("there is no key `{}`", fields.name(key));
                Err(entry.key.error(what, suggestion(key, known)))
            }
            None => Ok(fields),
        }
    }

    /// The line of `key`, if it is written.
    pub fn entry(&self, key: &str) -> Option<&'a Entry> {
        self.table.and_then(|table| table.get(key))
    }

    /// Where `key` is written, or the section that lacks it.
    pub fn place(&self, key: &str) -> &Place {
        self.entry(key).map_or(&self.place, |entry| &entry.node.place)
    }

    /// The key's whole name.
    pub fn name(&self, key: &str) -> String {
        if self.section.is_empty() { key.to_owned() } else { format!("{}.{key}", self.section) }
    }

    /// The error that a key which has no default is missing.
    pub fn missing(&self, key: &str, remedy: &str) -> TextError {
        self.place.error(format!("`{}` is missing", self.name(key)), remedy)
    }

    /// The error that `key` cannot be what it is.
    pub fn error(&self, key: &str, what: &str, remedy: impl Into<String>) -> TextError {
        self.place(key).error(format!("`{}` {what}", self.name(key)), remedy)
    }

    /// An integer within `range`.
    pub fn integer(&self, key: &str, range: RangeInclusive<u64>, default: u64) -> Result<u64, TextError> {
        let Some(entry) = self.entry(key) else { return Ok(default) };
        integer(&self.name(key), &entry.node, range)
    }

    /// The same for what is counted in 32 bits; `range` keeps within them.
    pub fn count(&self, key: &str, range: RangeInclusive<u32>, default: u32) -> Result<u32, TextError> {
        let wide = u64::from(*range.start())..=u64::from(*range.end());
        self.integer(key, wide, u64::from(default)).map(|number| number as u32)
    }

    /// A number within `range`, with or without a fraction.
    pub fn number(&self, key: &str, range: RangeInclusive<f64>, default: f64) -> Result<f64, TextError> {
        let Some(entry) = self.entry(key) else { return Ok(default) };
        number(&self.name(key), &entry.node, range)
    }

    /// A number from 0 to 1.
    pub fn share(&self, key: &str, default: f64) -> Result<f64, TextError> {
        self.number(key, 0.0..=1.0, default)
    }

    /// True or false.
    pub fn flag(&self, key: &str, default: bool) -> Result<bool, TextError> {
        match self.entry(key).map(|entry| &entry.node.value) {
            None => Ok(default),
            Some(Value::Flag(flag)) => Ok(*flag),
            Some(other) => Err(self.error(
                key,
                &format!("is {}, not true or false", other.kind()),
                "write true or false",
            )),
        }
    }

    /// One of some words.
    pub fn choice<T: Copy>(&self, key: &str, words: &[(&str, T)], default: T) -> Result<T, TextError> {
        let Some(entry) = self.entry(key) else { return Ok(default) };
        let all = || {
            let quoted: Vec<_> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
            format!("write one of {}", quoted.join(", "))
        };
        let Value::Text(text) = &entry.node.value else {
            return Err(self.error(key, &format!("is {}, not a word", entry.node.value.kind()), all()));
        };
        let found = words.iter().find(|(word, _)| word == text).map(|(_, value)| *value);
        found.ok_or_else(|| self.error(key, &format!("cannot be {text:?}"), all()))
    }

    /// A duration of whole nanoseconds within `range`, if one is given.
    pub fn duration(&self, key: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, TextError> {
        let Some(entry) = self.entry(key) else { return Ok(None) };
        let ns = duration(&self.name(key), &entry.node)?;
        if range.contains(&ns) {
            return Ok(Some(ns));
        }
        let (least, most) = (units::show_duration(*range.start()), units::show_duration(*range.end()));
        let what = format!("is {}, out of range", units::show_duration(ns));
        Err(self.error(key, &what, format!("write a duration from \"{least}\" to \"{most}\"")))
    }

    /// Bytes within `range`.
    pub fn size(&self, key: &str, range: RangeInclusive<u64>, default: u64) -> Result<u64, TextError> {
        let Some(entry) = self.entry(key) else { return Ok(default) };
        let Value::Text(text) = &entry.node.value else {
            let what = format!("is {}, not a size with a unit", entry.node.value.kind());
            return Err(self.error(key, &what, SIZE_HELP));
        };
        let bytes = units::size(text);
        let bytes = bytes.ok_or_else(|| self.error(key, &format!("is {text:?}, not a size"), SIZE_HELP))?;
        if range.contains(&bytes) {
            return Ok(bytes);
        }
        let (least, most) = (units::show_size(*range.start()), units::show_size(*range.end()));
        let what = format!("is {}, out of range", units::show_size(bytes));
        Err(self.error(key, &what, format!("write a size from \"{least}\" to \"{most}\"")))
    }

    /// A string; `None` if it is not written.
    pub fn text(&self, key: &str) -> Result<Option<&'a str>, TextError> {
        match self.entry(key).map(|entry| &entry.node.value) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(other) => {
                Err(self.error(key, &format!("is {}, not a string", other.kind()), "write it in quotes"))
            }
        }
    }

    /// A list of strings; one string is a list of one.
    pub fn texts(&self, key: &str) -> Result<Vec<(&'a str, &'a Place)>, TextError> {
        let Some(entry) = self.entry(key) else { return Ok(Vec::new()) };
        let items = match &entry.node.value {
            Value::List(items) => items.as_slice(),
            _ => std::slice::from_ref(&entry.node),
        };
        let texts = items.iter().map(|item| match &item.value {
            Value::Text(text) => Ok((text.as_str(), &item.place)),
            other => {
                let what = format!("`{}` has {}, not a string", self.name(key), other.kind());
                Err(item.place.error(what, "write strings in quotes"))
            }
        });
        texts.collect()
    }
}

/// An integer within `range`.
pub fn integer(name: &str, node: &Node, range: RangeInclusive<u64>) -> Result<u64, TextError> {
    let remedy = || format!("write an integer from {} to {}", range.start(), range.end());
    match &node.value {
        Value::Integer(number) => u64::try_from(*number)
            .ok()
            .filter(|number| range.contains(number))
            .ok_or_else(|| node.place.error(format!("`{name}` is {number}, out of range"), remedy())),
        other => Err(node.place.error(format!("`{name}` is {}, not an integer", described(other)), remedy())),
    }
}

/// A number within `range`.
pub fn number(name: &str, node: &Node, range: RangeInclusive<f64>) -> Result<f64, TextError> {
    let remedy = || format!("write a number from {} to {}", range.start(), range.end());
    let number = match &node.value {
        Value::Integer(number) => *number as f64,
        Value::Float(number) => *number,
        other => {
            return Err(node
                .place
                .error(format!("`{name}` is {}, not a number", described(other)), remedy()));
        }
    };
    if range.contains(&number) {
        // Not -0.0: two spellings of one value must not be two scenarios.
        return Ok(number + 0.0);
    }
    Err(node.place.error(format!("`{name}` is {number}, out of range"), remedy()))
}

/// Nanoseconds, perhaps with a fraction, of a mean or median.
pub fn fractional_duration(name: &str, node: &Node) -> Result<f64, TextError> {
    let Value::Text(text) = &node.value else {
        let what = format!("`{name}` is {}, not a duration with a unit", described(&node.value));
        return Err(node.place.error(what, DURATION_HELP));
    };
    let read = units::duration(text);
    let ns =
        read.ok_or_else(|| node.place.error(format!("`{name}` is {text:?}, not a duration"), DURATION_HELP))?;
    if ns < 0.0 {
        let what = format!("`{name}` is {text}, less than nothing");
        return Err(node.place.error(what, "write a duration that is not negative"));
    }
    if ns > LONGEST_NS as f64 {
        let what = format!("`{name}` is {text}, longer than an hour");
        return Err(node.place.error(what, "write at most \"3600 s\""));
    }
    Ok(ns)
}

/// Whole nanoseconds.
pub fn duration(name: &str, node: &Node) -> Result<u64, TextError> {
    let ns = fractional_duration(name, node)?;
    let whole = ns.round();
    // Decimal fractions of a unit are not exact in binary.
    if (ns - whole).abs() > 1e-3 {
        let what = format!("`{name}` is {ns} ns, finer than the clock");
        return Err(node.place.error(what, "write whole nanoseconds"));
    }
    Ok(whole as u64)
}

fn described(value: &Value) -> String {
    match value {
        Value::Text(text) => format!("the string {text:?}"),
        Value::Float(number) => number.to_string(),
        other => other.kind().to_owned(),
    }
}

/// The known key that was probably meant, or all of them.
fn suggestion(key: &str, known: &[&str]) -> String {
    let near = known.iter().map(|candidate| (distance(key, candidate), candidate)).min();
    match near {
        Some((steps, candidate)) if steps <= 2.max(key.len() / 3) => format!("did you mean `{candidate}`?"),
        _ => format!("the keys here are {}", listed(known)),
    }
}

/// Words with commas between them.
pub fn listed<T: Display>(words: &[T]) -> String {
    words.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

/// Least insertions, removals and replacements of a character that make one word the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_as_far_as_the_letters_that_differ() {
        let pairs = [("credits", "credits"), ("credit", "credits"), ("creidts", "credits"), ("", "abc")];
        assert_eq!(pairs.map(|(from, to)| distance(from, to)), [0, 1, 2, 3]);
    }

    #[test]
    fn a_typing_mistake_is_told_from_a_wrong_word() {
        let known = ["credits", "workers"];
        assert_eq!(suggestion("credit", &known), "did you mean `credits`?");
        assert_eq!(suggestion("flux_capacity", &known), "the keys here are credits, workers");
    }
}
