//! What varies in a sweep: keys of the scenario, and the values that they take.

use crate::lab::scenario::fields::{Fields, listed};
use crate::lab::scenario::text::{Place, TextError};
use crate::lab::scenario::tree::{Node, Value, key_path};
use crate::lab::scenario::units;

/// Most values of an axis.
const MAX_VALUES: usize = 100_000;

/// Keys that vary together, mostly one, and their values.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    /// The keys' names, as columns have them.
    pub(crate) names: Vec<String>,
    /// The same, in parts.
    pub(crate) keys: Vec<Vec<String>>,
    /// For each step, a value for each key.
    pub(crate) steps: Vec<Vec<Node>>,
}

impl Axis {
    /// Reads one `[[axis]]`.
    pub(crate) fn read(node: &Node) -> Result<Self, TextError> {
        let known = ["key", "keys", "values", "from", "to", "step", "factor"];
        let fields = Fields::top(node, &known)?;
        let names = names(&fields)?;
        let keys = names.iter().map(|(name, place)| key_path(name, place)).collect::<Result<_, _>>()?;
        let names: Vec<String> = names.into_iter().map(|(name, _)| name.to_owned()).collect();
        let steps = match fields.entry("values") {
            Some(entry) => {
                for key in ["from", "to", "step", "factor"] {
                    if fields.entry(key).is_some() {
                        return Err(fields.error(key, "stands beside values", "write one or the other"));
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

fn names<'a>(fields: &Fields<'a>) -> Result<Vec<(&'a str, &'a Place)>, TextError> {
    let key = if fields.entry("keys").is_some() { "keys" } else { "key" };
    if key == "keys" && fields.entry("key").is_some() {
        return Err(fields.error("key", "stands beside keys", "write one or the other"));
    }
    let names = fields.texts(key)?;
    if names.is_empty() {
        return Err(fields.missing("key", "write which key varies, such as key = \"device.credits\""));
    }
    Ok(names)
}

fn values(node: &Node, keys: usize) -> Result<Vec<Vec<Node>>, TextError> {
    let Value::List(items) = &node.value else {
        let what = format!("`values` is {}, not a list", node.value.kind());
        return Err(node.place.error(what, "write values = [1, 2, 3]"));
    };
    if keys == 1 {
        return Ok(items.iter().map(|item| vec![item.clone()]).collect());
    }
    let rows = items.iter().map(|item| match &item.value {
        Value::List(row) if row.len() == keys => Ok(row.clone()),
        _ => {
            let what = format!("this is no list of {keys} values, one for each of `keys`");
            Err(item.place.error(what, "write values = [[a, b], [c, d]]"))
        }
    });
    rows.collect()
}

/// A kind of quantity that a range can go through.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quantity {
    Integer,
    Real,
    Duration,
    Size,
}

impl Quantity {
    fn name(self) -> &'static str {
        match self {
            Self::Integer => "integers",
            Self::Real => "numbers",
            Self::Duration => "durations",
            Self::Size => "sizes",
        }
    }

    fn of(node: &Node) -> Option<(Self, f64)> {
        match &node.value {
            Value::Integer(number) => Some((Self::Integer, *number as f64)),
            Value::Float(number) if number.is_finite() => Some((Self::Real, *number)),
            Value::Text(text) => {
                let size = || units::size(text).map(|bytes| (Self::Size, bytes as f64));
                units::duration(text).map(|ns| (Self::Duration, ns)).or_else(size)
            }
            _ => None,
        }
    }

    fn value(self, number: f64) -> Value {
        match self {
            Self::Integer => Value::Integer(number.round() as i128),
            Self::Real => Value::Float(number),
            Self::Duration => Value::Text(units::show_duration(number.round() as u64)),
            Self::Size => Value::Text(units::show_size(number.round() as u64)),
        }
    }
}

/// `from`, `to` and either `step` or `factor`.
fn range(fields: &Fields<'_>) -> Result<Vec<Node>, TextError> {
    let wanted = |key: &str| {
        fields
            .entry(key)
            .map(|entry| &entry.node)
            .ok_or_else(|| fields.missing(key, "write values = [...], or from, to and step (or factor)"))
    };
    let place = wanted("from")?.place.clone();
    let (quantity, from) = numeric("from", wanted("from")?)?;
    let (of_end, to) = numeric("to", wanted("to")?)?;
    if quantity != of_end {
        let what = format!("goes from {} to {}", quantity.name(), of_end.name());
        return Err(fields.error("to", &what, "write both alike, such as from = \"4K\" and to = \"4M\""));
    }
    if from > to || from < 0.0 {
        let what = "is not a number from `from` up";
        return Err(fields.error("to", what, "write ranges from a low value, not negative, to a high one"));
    }
    let next: Box<dyn Fn(f64, u32) -> f64> = match (fields.entry("step"), fields.entry("factor")) {
        (Some(entry), None) => {
            let (of_step, step) = numeric("step", &entry.node)?;
            if of_step != quantity || step <= 0.0 {
                let what = format!("is no positive step of {}", quantity.name());
                return Err(fields.error("step", &what, "write it in the unit of from and to"));
            }
            Box::new(move |start, index| start + step * f64::from(index))
        }
        (None, Some(_)) => {
            let factor = fields.number("factor", 1.001..=1e6, 2.0)?;
            if from == 0.0 {
                return Err(fields.error(
                    "from",
                    "is 0, which no factor leads away from",
                    "start at 1, or write a step",
                ));
            }
            Box::new(move |start, index| start * libm::pow(factor, f64::from(index)))
        }
        _ => return Err(fields.missing("step", "write either step = 1 (linear) or factor = 2 (geometric)")),
    };
    // A step that is no binary fraction must still reach its end.
    let end = to * (1.0 + 1e-9);
    let numbers: Vec<f64> = (0..)
        .map(|index| next(from, index))
        .take_while(|number| *number <= end)
        .take(MAX_VALUES + 1)
        .collect();
    if numbers.len() > MAX_VALUES {
        return Err(fields.error(
            "from",
            &format!("begins more than {MAX_VALUES} values"),
            "write a larger step",
        ));
    }
    let mut nodes = Vec::with_capacity(numbers.len());
    let mut last = None;
    for number in numbers {
        let value = quantity.value(number);
        // A factor near 1 gives an integer twice.
        let shown = show(&value);
        if last.as_ref() != Some(&shown) {
            nodes.push(Node { place: place.clone(), value });
        }
        last = Some(shown);
    }
    Ok(nodes)
}

fn numeric(key: &str, node: &Node) -> Result<(Quantity, f64), TextError> {
    Quantity::of(node).ok_or_else(|| {
        let what = format!("`{key}` is {}, which cannot be counted through", show(&node.value));
        node.place.error(what, "write a number, a size or a duration; for anything else, values = [...]")
    })
}

/// A value as a cell of the table has it.
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
