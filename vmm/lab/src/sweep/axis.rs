//! An axis of a sweep: keys of the scenario, and the values that they take.

use super::range::range;
use refault_timing::fields::{Fields, listed};
use refault_timing::text::{Location, TextError};
use refault_timing::tree::{Node, Value, key_path};

/// Keys that vary together, usually just one, and their values.
#[derive(Clone, Debug)]
pub(crate) struct SweepAxis {
    /// Names of the keys, as in the table's columns.
    pub(crate) names: Vec<String>,
    /// The keys as paths.
    pub(crate) keys: Vec<Vec<String>>,
    /// For each step, one value per key.
    pub(crate) steps: Vec<Vec<Node>>,
}

impl SweepAxis {
    /// Reads one `[[axis]]`.
    pub(crate) fn read(node: &Node) -> Result<Self, TextError> {
        let known = ["key", "keys", "values", "from", "to", "step", "factor"];
        let fields = Fields::top(node, &known)?;
        let names = names(&fields)?;
        let keys = names.iter().map(|(name, location)| key_path(name, location)).collect::<Result<_, _>>()?;
        let names: Vec<String> = names.into_iter().map(|(name, _)| name.to_owned()).collect();
        let steps = match fields.entry("values") {
            Some(entry) => {
                for key in ["from", "to", "step", "factor"] {
                    if fields.entry(key).is_some() {
                        return Err(fields.error(
                            key,
                            "cannot be combined with values",
                            "write one or the other",
                        ));
                    }
                }
                values(&entry.node, names.len())?
            }
            None if names.len() == 1 => range(&fields)?.into_iter().map(|node| vec![node]).collect(),
            None => return Err(fields.missing("values", "write a list of values for each step")),
        };
        if steps.is_empty() {
            return Err(fields.error("values", "is empty", "write at least one value"));
        }
        Ok(Self { names, keys, steps })
    }
}

fn names<'a>(fields: &Fields<'a>) -> Result<Vec<(&'a str, &'a Location)>, TextError> {
    let key = if fields.entry("keys").is_some() { "keys" } else { "key" };
    if key == "keys" && fields.entry("key").is_some() {
        return Err(fields.error("key", "cannot be combined with keys", "write one or the other"));
    }
    let names = fields.texts(key)?;
    if names.is_empty() {
        return Err(fields.missing("key", "write the key that varies, such as key = \"device.credits\""));
    }
    Ok(names)
}

fn values(node: &Node, keys: usize) -> Result<Vec<Vec<Node>>, TextError> {
    let Value::List(items) = &node.value else {
        let what = format!("`values` is {}, not a list", node.value.kind());
        return Err(node.location.error(what, "write values = [1, 2, 3]"));
    };
    if keys == 1 {
        return Ok(items.iter().map(|item| vec![item.clone()]).collect());
    }
    let rows = items.iter().map(|item| match &item.value {
        Value::List(row) if row.len() == keys => Ok(row.clone()),
        _ => {
            let what = format!("this is not a list of {keys} values, one for each of `keys`");
            Err(item.location.error(what, "write values = [[a, b], [c, d]]"))
        }
    });
    rows.collect()
}

/// Formats a value for a cell of the table.
pub(crate) fn show(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Flag(flag) => flag.to_string(),
        Value::List(items) => {
            let items: Vec<_> = items.iter().map(|item| show(&item.value)).collect();
            format!("[{}]", listed(&items))
        }
        Value::Table(table) => {
            let entries: Vec<_> = table
                .entries
                .iter()
                .map(|(key, entry)| format!("{key} = {}", show(&entry.node.value)))
                .collect();
            format!("{{{}}}", listed(&entries))
        }
        Value::Date => "date".into(),
    }
}
