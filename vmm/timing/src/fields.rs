//! Typed access to the keys of a TOML table, with range checks.

use std::fmt::Display;
use std::ops::RangeInclusive;

use super::LONGEST_NS;
use super::text::{Location, TextError};
use super::tree::{Node, TomlEntry, TomlTable, Value};
use super::units::{self, DURATION_HELP, SIZE_HELP};

/// The keys of one section.
pub struct Fields<'a> {
    /// `""` for the top of a file.
    section: &'static str,
    table: Option<&'a TomlTable>,
    /// The location of errors about missing keys.
    location: Location,
}

impl<'a> Fields<'a> {
    /// The keys of a whole file.
    ///
    /// # Errors
    /// `root` is not a table, or has a key that is not `known`.
    pub fn top(root: &'a Node, known: &[&str]) -> Result<Self, TextError> {
        Self::of(root, "", known)
    }

    /// The keys of a section; none if the file lacks the section.
    ///
    /// # Errors
    /// It is not a table, or has a key that is not `known`.
    pub fn section(
        root: &'a TomlTable,
        section: &'static str,
        known: &[&str],
        location: &Location,
    ) -> Result<Self, TextError> {
        match root.get(section) {
            Some(entry) => Self::of(&entry.node, section, known),
            None => Ok(Self { section, table: None, location: location.clone() }),
        }
    }

    fn of(node: &'a Node, section: &'static str, known: &[&str]) -> Result<Self, TextError> {
        let Value::Table(table) = &node.value else {
            let what = format!("`{section}` is {}, not a section", node.value.kind());
            return Err(node.location.error(what, format!("write [{section}] and its keys below it")));
        };
        let fields = Self { section, table: Some(table), location: node.location.clone() };
        let unknown = table.entries.iter().filter(|(key, _)| !known.contains(&key.as_str()));
        match unknown.min_by_key(|(_, entry)| entry.key.span.start) {
            Some((key, entry)) => {
                let what = format!("there is no key `{}`", fields.name(key));
                Err(entry.key.error(what, suggestion(key, known)))
            }
            None => Ok(fields),
        }
    }

    /// The entry of `key`, if the file has it.
    pub fn entry(&self, key: &str) -> Option<&'a TomlEntry> {
        self.table.and_then(|table| table.get(key))
    }

    /// The location of `key`, or of the section that lacks it.
    pub fn location(&self, key: &str) -> &Location {
        self.entry(key).map_or(&self.location, |entry| &entry.node.location)
    }

    /// The full name of a key, such as `device.credits`.
    pub fn name(&self, key: &str) -> String {
        if self.section.is_empty() { key.to_owned() } else { format!("{}.{key}", self.section) }
    }

    /// An error about a missing key that has no default.
    pub fn missing(&self, key: &str, remedy: &str) -> TextError {
        self.location.error(format!("`{}` is missing", self.name(key)), remedy)
    }

    /// An error about the value of `key`.
    pub fn error(&self, key: &str, what: &str, remedy: impl Into<String>) -> TextError {
        self.location(key).error(format!("`{}` {what}", self.name(key)), remedy)
    }

    /// An integer within `range`.
    ///
    /// # Errors
    /// The value is not an integer within `range`.
    pub fn integer(&self, key: &str, range: RangeInclusive<u64>, default: u64) -> Result<u64, TextError> {
        let Some(entry) = self.entry(key) else { return Ok(default) };
        integer(&self.name(key), &entry.node, range)
    }

    /// As [`Self::integer`], in 32 bits.
    ///
    /// # Errors
    /// The value is not an integer within `range`.
    pub fn count(&self, key: &str, range: RangeInclusive<u32>, default: u32) -> Result<u32, TextError> {
        let wide = u64::from(*range.start())..=u64::from(*range.end());
        let number = self.integer(key, wide, u64::from(default))?;
        u32::try_from(number).map_err(|_| self.error(key, "is out of range", "write a smaller number"))
    }

    /// A number within `range`, with or without a fraction.
    ///
    /// # Errors
    /// The value is not a number within `range`.
    pub fn number(&self, key: &str, range: RangeInclusive<f64>, default: f64) -> Result<f64, TextError> {
        let Some(entry) = self.entry(key) else { return Ok(default) };
        number(&self.name(key), &entry.node, range)
    }

    /// A number from 0 to 1.
    ///
    /// # Errors
    /// The value is not a number from 0 to 1.
    pub fn share(&self, key: &str, default: f64) -> Result<f64, TextError> {
        self.number(key, 0.0..=1.0, default)
    }

    /// A boolean.
    ///
    /// # Errors
    /// The value is neither true nor false.
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

    /// One of `words`, each with the value that it stands for.
    ///
    /// # Errors
    /// The value is none of them.
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

    /// A duration in whole nanoseconds within `range`; `None` if the key is missing.
    ///
    /// # Errors
    /// The value is not a duration within `range`.
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

    /// A size in bytes within `range`.
    ///
    /// # Errors
    /// The value is not a size within `range`.
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

    /// A string; `None` if the key is missing.
    ///
    /// # Errors
    /// The value is not a string.
    pub fn text(&self, key: &str) -> Result<Option<&'a str>, TextError> {
        match self.entry(key).map(|entry| &entry.node.value) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(other) => {
                Err(self.error(key, &format!("is {}, not a string", other.kind()), "write it in quotes"))
            }
        }
    }

    /// A list of strings with their locations; a single string is a list of one.
    ///
    /// # Errors
    /// An item is not a string.
    pub fn texts(&self, key: &str) -> Result<Vec<(&'a str, &'a Location)>, TextError> {
        let Some(entry) = self.entry(key) else { return Ok(Vec::new()) };
        let items = match &entry.node.value {
            Value::List(items) => items.as_slice(),
            _ => std::slice::from_ref(&entry.node),
        };
        let texts = items.iter().map(|item| match &item.value {
            Value::Text(text) => Ok((text.as_str(), &item.location)),
            other => {
                let what = format!("`{}` has {}, not a string", self.name(key), other.kind());
                Err(item.location.error(what, "write strings in quotes"))
            }
        });
        texts.collect()
    }
}

/// An integer within `range`. `name` is the key's full name in messages.
///
/// # Errors
/// `node` is not an integer within `range`.
pub fn integer(name: &str, node: &Node, range: RangeInclusive<u64>) -> Result<u64, TextError> {
    let remedy = || format!("write an integer from {} to {}", range.start(), range.end());
    match &node.value {
        Value::Integer(number) => u64::try_from(*number)
            .ok()
            .filter(|number| range.contains(number))
            .ok_or_else(|| node.location.error(format!("`{name}` is {number}, out of range"), remedy())),
        other => {
            Err(node.location.error(format!("`{name}` is {}, not an integer", described(other)), remedy()))
        }
    }
}

/// A number within `range`. `name` is the key's full name in messages.
///
/// # Errors
/// `node` is not a number within `range`.
pub fn number(name: &str, node: &Node, range: RangeInclusive<f64>) -> Result<f64, TextError> {
    let remedy = || format!("write a number from {} to {}", range.start(), range.end());
    let number = match &node.value {
        Value::Integer(number) => *number as f64,
        Value::Float(number) => *number,
        other => {
            return Err(node
                .location
                .error(format!("`{name}` is {}, not a number", described(other)), remedy()));
        }
    };
    if range.contains(&number) {
        // Turns -0.0 into 0.0: equal values must write equal scenario files.
        return Ok(number + 0.0);
    }
    Err(node.location.error(format!("`{name}` is {number}, out of range"), remedy()))
}

/// A mean or median in nanoseconds, possibly with a fraction.
///
/// # Errors
/// `node` is not a duration from zero to [`LONGEST_NS`].
pub fn fractional_duration(name: &str, node: &Node) -> Result<f64, TextError> {
    let Value::Text(text) = &node.value else {
        let what = format!("`{name}` is {}, not a duration with a unit", described(&node.value));
        return Err(node.location.error(what, DURATION_HELP));
    };
    let read = units::duration(text);
    let ns = read
        .ok_or_else(|| node.location.error(format!("`{name}` is {text:?}, not a duration"), DURATION_HELP))?;
    if ns < 0.0 {
        let what = format!("`{name}` is {text}, which is negative");
        return Err(node.location.error(what, "write a duration of at least zero"));
    }
    if ns > LONGEST_NS as f64 {
        let what = format!("`{name}` is {text}, longer than an hour");
        return Err(node.location.error(what, "write at most \"3600 s\""));
    }
    Ok(ns)
}

/// A duration in whole nanoseconds.
///
/// # Errors
/// `node` is not a duration from zero to [`LONGEST_NS`], or has a fraction.
pub fn duration(name: &str, node: &Node) -> Result<u64, TextError> {
    let ns = fractional_duration(name, node)?;
    let whole = ns.round();
    // Decimal fractions of a unit are not exact in binary, so allow for rounding.
    if (ns - whole).abs() > 1e-3 {
        let what = format!("`{name}` is {ns} ns, finer than the clock's resolution");
        return Err(node.location.error(what, "write whole nanoseconds"));
    }
    Ok(units::saturated(whole))
}

fn described(value: &Value) -> String {
    match value {
        Value::Text(text) => format!("the string {text:?}"),
        Value::Float(number) => number.to_string(),
        other => other.kind().to_owned(),
    }
}

/// Suggests the nearest known key, or lists all of them.
fn suggestion(key: &str, known: &[&str]) -> String {
    let near = known.iter().map(|candidate| (distance(key, candidate), candidate)).min();
    match near {
        Some((steps, candidate)) if steps <= 2.max(key.len() / 3) => format!("did you mean `{candidate}`?"),
        _ => format!("the keys here are {}", listed(known)),
    }
}

/// Joins words with commas.
pub fn listed<T: Display>(words: &[T]) -> String {
    words.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

/// Levenshtein distance, in characters.
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
    fn the_distance_counts_edits() {
        let pairs = [("credits", "credits"), ("credit", "credits"), ("creidts", "credits"), ("", "abc")];
        assert_eq!(pairs.map(|(from, to)| distance(from, to)), [0, 1, 2, 3]);
    }

    #[test]
    fn a_typo_gets_a_suggestion_and_another_word_the_list() {
        let known = ["credits", "workers"];
        assert_eq!(suggestion("credit", &known), "did you mean `credits`?");
        assert_eq!(suggestion("flux_capacity", &known), "the keys here are credits, workers");
    }
}
