//! TOML as values that know where they stand, so that whatever is wrong with one can be said with its line.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::text::{Place, Source, TextError};

/// A value and its place.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where it stands.
    pub place: Place,
    /// The value itself.
    pub value: Value,
}

/// What TOML can say.
#[derive(Clone, Debug)]
pub enum Value {
    /// A string.
    Text(String),
    /// Wider than TOML promises: a seed has 64 bits without a sign.
    Integer(i128),
    /// A number with a fraction.
    Float(f64),
    /// `true` or `false`.
    Flag(bool),
    /// An array.
    List(Vec<Node>),
    /// A table.
    Table(Table),
    /// A date or a time, which no key of ours takes.
    Date,
}

/// Keys with their places and values.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// By key.
    pub entries: BTreeMap<String, Entry>,
}

/// One line of a table.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Where the key stands.
    pub key: Place,
    /// Its value.
    pub node: Node,
}

/// Reads a whole text.
pub fn parse(name: &str, text: &str) -> Result<Node, TextError> {
    let source = Arc::new(Source { name: name.to_owned(), text: text.to_owned() });
    match DeTable::parse(text) {
        Ok(table) => {
            let place = Place { source: source.clone(), span: table.span() };
            Ok(Node { place, value: Value::Table(convert_table(&source, table.into_inner())?) })
        }
        Err(error) => {
            let end = text.len();
            let place = Place { source, span: error.span().unwrap_or(end..end) };
            Err(place.error(format!("this is no TOML: {}", error.message()), "correct the line"))
        }
    }
}

/// Reads `KEY=VALUE` of a command line: the keys, and the value. A value that is no TOML is a string, as a shell takes
/// the quotes away.
pub fn parse_setting(option: &str, setting: &str) -> Result<(Vec<String>, Node), TextError> {
    let name = format!("{option} {setting}");
    let source = Arc::new(Source { name, text: setting.to_owned() });
    let whole = Place { source: source.clone(), span: 0..0 };
    let Some((key, text)) = setting.split_once('=') else {
        return Err(whole.error("there is no '=' in it", "write KEY=VALUE, such as device.credits=8"));
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
    Ok((keys, Node { place: Place { source, span: start..setting.len() }, value }))
}

/// `"device.credits"` as its parts.
pub fn key_path(key: &str, place: &Place) -> Result<Vec<String>, TextError> {
    let parts: Vec<String> = key.split('.').map(|part| part.trim().to_owned()).collect();
    if parts.iter().any(String::is_empty) {
        let what = format!("{key:?} names no key");
        return Err(place.error(what, "write SECTION.KEY, such as \"device.credits\""));
    }
    Ok(parts)
}

impl Table {
    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// Puts `node` where the keys lead, in place of what was there; tables on the way are made if missing.
    pub fn set(&mut self, keys: &[String], node: Node) -> Result<(), TextError> {
        let Some((first, rest)) = keys.split_first() else { return Ok(()) };
        let place = node.place.clone();
        if rest.is_empty() {
            self.entries.insert(first.clone(), Entry { key: place, node });
            return Ok(());
        }
        let entry = self.entries.entry(first.clone()).or_insert_with(|| Entry {
            key: place.clone(),
            node: Node { place: place.clone(), value: Value::Table(Self::default()) },
        });
        match &mut entry.node.value {
            Value::Table(inner) => inner.set(rest, node),
            _ => Err(place.error(format!("`{first}` has no keys below it"), "name a key of a section")),
        }
    }
}

impl Value {
    /// What it is, in a message.
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

fn convert_table(source: &Arc<Source>, table: DeTable<'_>) -> Result<Table, TextError> {
    let mut entries = BTreeMap::new();
    for (key, value) in table {
        let place = Place { source: source.clone(), span: key.span() };
        let node = convert_spanned(source, value)?;
        entries.insert(Cow::into_owned(key.into_inner()), Entry { key: place, node });
    }
    Ok(Table { entries })
}

fn convert_spanned(source: &Arc<Source>, value: Spanned<DeValue<'_>>) -> Result<Node, TextError> {
    let span = value.span();
    convert(source, span, value.into_inner())
}

fn convert(source: &Arc<Source>, span: Range<usize>, value: DeValue<'_>) -> Result<Node, TextError> {
    let place = Place { source: source.clone(), span };
    let unreadable = || place.error("this number has too many digits", "write a smaller one");
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
    Ok(Node { place, value })
}
