//! TOML values with their locations, so that every error can name a line.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::text::{Location, Source, TextError};

/// A value with its location.
#[derive(Clone, Debug)]
pub struct Node {
    /// The location of the value.
    pub location: Location,
    /// The parsed value.
    pub value: Value,
}

/// A TOML value.
#[derive(Clone, Debug)]
pub enum Value {
    /// A string.
    Text(String),
    /// Wider than TOML's 64 signed bits: a seed may use all 64 unsigned bits.
    Integer(i128),
    /// A number with a fraction.
    Float(f64),
    /// `true` or `false`.
    Flag(bool),
    /// An array.
    List(Vec<Node>),
    /// A table.
    Table(TomlTable),
    /// A date or a time; no key accepts one.
    Date,
}

/// A table: entries by key.
#[derive(Clone, Debug, Default)]
pub struct TomlTable {
    /// The entries, by key.
    pub entries: BTreeMap<String, TomlEntry>,
}

/// A key of a table with its value.
#[derive(Clone, Debug)]
pub struct TomlEntry {
    /// The location of the key.
    pub key: Location,
    /// The value with its location.
    pub node: Node,
}

/// Parses a file. `name` is its name in messages.
///
/// # Errors
/// `text` is not TOML, or a number in it has too many digits.
pub fn parse(name: &str, text: &str) -> Result<Node, TextError> {
    let source = Arc::new(Source { name: name.to_owned(), text: text.to_owned() });
    match DeTable::parse(text) {
        Ok(table) => {
            let location = Location { source: source.clone(), span: table.span() };
            Ok(Node { location, value: Value::Table(convert_table(&source, table.into_inner())?) })
        }
        Err(error) => {
            let end = text.len();
            let location = Location { source, span: error.span().unwrap_or(end..end) };
            Err(location.error(format!("not valid TOML: {}", error.message()), "correct the line"))
        }
    }
}

/// Parses a `KEY=VALUE` argument into the parts of the key and the value. A value that is not TOML is taken as a string,
/// because the shell removes quotes.
///
/// # Errors
/// There is no `=`, the key has an empty part, or a number has too many digits.
pub fn parse_setting(option: &str, setting: &str) -> Result<(Vec<String>, Node), TextError> {
    let name = format!("{option} {setting}");
    let source = Arc::new(Source { name, text: setting.to_owned() });
    let whole = Location { source: source.clone(), span: 0..0 };
    let Some((key, text)) = setting.split_once('=') else {
        return Err(whole.error("it has no '='", "write KEY=VALUE, such as device.credits=8"));
    };
    let start = key.len() + 1;
    let value = match DeValue::parse(text.trim()) {
        Ok(value) => {
            let span = value.span();
            let indent = start + text.len() - text.trim_start().len();
            convert(&source, span.start + indent..span.end + indent, value.into_inner())?.value
        }
        Err(_) => Value::Text(text.trim().to_owned()),
    };
    let keys = key_path(key, &whole)?;
    Ok((keys, Node { location: Location { source, span: start..setting.len() }, value }))
}

/// Splits a key such as `"device.credits"` into its parts.
///
/// # Errors
/// A part is empty.
pub fn key_path(key: &str, location: &Location) -> Result<Vec<String>, TextError> {
    let parts: Vec<String> = key.split('.').map(|part| part.trim().to_owned()).collect();
    if parts.iter().any(String::is_empty) {
        let what = format!("{key:?} is not a key");
        return Err(location.error(what, "write SECTION.KEY, such as \"device.credits\""));
    }
    Ok(parts)
}

impl TomlTable {
    /// The entry of `key`.
    pub fn get(&self, key: &str) -> Option<&TomlEntry> {
        self.entries.get(key)
    }

    /// Sets the value at the path `keys`, replacing an earlier one; missing tables on the path are created.
    ///
    /// # Errors
    /// A key on the path has a value that is not a table.
    pub fn set(&mut self, keys: &[String], node: Node) -> Result<(), TextError> {
        let Some((first, rest)) = keys.split_first() else { return Ok(()) };
        let location = node.location.clone();
        if rest.is_empty() {
            self.entries.insert(first.clone(), TomlEntry { key: location, node });
            return Ok(());
        }
        let entry = self.entries.entry(first.clone()).or_insert_with(|| TomlEntry {
            key: location.clone(),
            node: Node { location: location.clone(), value: Value::Table(Self::default()) },
        });
        match &mut entry.node.value {
            Value::Table(inner) => inner.set(rest, node),
            _ => Err(location.error(format!("`{first}` is not a section"), "write a key of a section")),
        }
    }
}

impl Value {
    /// The name of the type in messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a number",
            Self::Flag(_) => "true or false",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Date => "a date",
        }
    }
}

fn convert_table(source: &Arc<Source>, table: DeTable<'_>) -> Result<TomlTable, TextError> {
    let mut entries = BTreeMap::new();
    for (key, value) in table {
        let location = Location { source: source.clone(), span: key.span() };
        let node = convert_spanned(source, value)?;
        entries.insert(Cow::into_owned(key.into_inner()), TomlEntry { key: location, node });
    }
    Ok(TomlTable { entries })
}

fn convert_spanned(source: &Arc<Source>, value: Spanned<DeValue<'_>>) -> Result<Node, TextError> {
    let span = value.span();
    convert(source, span, value.into_inner())
}

fn convert(source: &Arc<Source>, span: Range<usize>, value: DeValue<'_>) -> Result<Node, TextError> {
    let location = Location { source: source.clone(), span };
    let unreadable = || location.error("this number has too many digits", "write a smaller one");
    let value = match value {
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Integer(number) => {
            let read = i128::from_str_radix(number.as_str(), number.radix());
            Value::Integer(read.map_err(|_| unreadable())?)
        }
        DeValue::Float(number) => Value::Float(number.as_str().parse().map_err(|_| unreadable())?),
        DeValue::Boolean(flag) => Value::Flag(flag),
        DeValue::Datetime(_) => Value::Date,
        DeValue::Array(items) => {
            let nodes = items.into_iter().map(|item| convert_spanned(source, item));
            Value::List(nodes.collect::<Result<_, _>>()?)
        }
        DeValue::Table(table) => Value::Table(convert_table(source, table)?),
    };
    Ok(Node { location, value })
}
