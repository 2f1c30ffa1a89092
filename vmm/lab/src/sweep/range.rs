//! The values of an axis from one number, size or duration to another.

use super::axis::show;
use refault_observe::numbers::{integer, whole};
use refault_timing::fields::Fields;
use refault_timing::text::TextError;
use refault_timing::tree::{Node, Value};
use refault_timing::units;

/// Most values of an axis.
const MAX_VALUES: usize = 100_000;

/// A kind of quantity that ranges can have.
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
            Self::Integer => Value::Integer(integer(number.round())),
            Self::Real => Value::Float(decimal(number)),
            Self::Duration => Value::Text(units::show_duration(whole(number.round()))),
            Self::Size => Value::Text(units::show_size(whole(number.round()))),
        }
    }
}

/// The relation of a value to the one before.
#[derive(Clone, Copy)]
enum Progress {
    /// A constant difference.
    Linear(f64),
    /// A constant factor.
    Geometric(f64),
}

impl Progress {
    fn value(self, from: f64, index: u32) -> f64 {
        match self {
            Self::Linear(step) => from + step * f64::from(index),
            Self::Geometric(factor) => from * libm::pow(factor, f64::from(index)),
        }
    }
}

/// Reads `from`, `to` and either `step` or `factor`, and returns all values.
pub(super) fn range(fields: &Fields<'_>) -> Result<Vec<Node>, TextError> {
    let (quantity, from, to) = ends(fields)?;
    let progress = progress(fields, quantity, from)?;
    // Steps that are not exact in binary must still reach the end.
    let end = to * (1.0 + 1e-9);
    let all = (0..).map(|index| progress.value(from, index)).take_while(|number| *number <= end);
    let values: Vec<Value> = all.take(MAX_VALUES + 1).map(|number| quantity.value(number)).collect();
    if values.len() > MAX_VALUES {
        let what = format!("starts a range of more than {MAX_VALUES} values");
        return Err(fields.error("from", &what, "write a larger step"));
    }
    let mut nodes: Vec<Node> = Vec::with_capacity(values.len());
    for value in values {
        // A factor near 1 can repeat an integer.
        if nodes.last().is_none_or(|last| show(&last.value) != show(&value)) {
            nodes.push(Node { location: fields.location("from").clone(), value });
        }
    }
    Ok(nodes)
}

/// The kind of quantity, the start and the end of the range.
fn ends(fields: &Fields<'_>) -> Result<(Quantity, f64, f64), TextError> {
    let end = |key: &str| {
        let remedy = "write values = [...], or from, to and step (or factor)";
        let entry = fields.entry(key).ok_or_else(|| fields.missing(key, remedy))?;
        numeric(key, &entry.node)
    };
    let ((quantity, from), (of_end, to)) = (end("from")?, end("to")?);
    if quantity != of_end {
        let what = format!("goes from {} to {}", quantity.name(), of_end.name());
        return Err(fields.error(
            "to",
            &what,
            "use one kind for both, such as from = \"4K\" and to = \"4M\"",
        ));
    }
    if from > to || from < 0.0 {
        let what = "is less than `from`, or `from` is negative";
        return Err(fields.error("to", what, "write a range from a low value of at least 0 to a high one"));
    }
    Ok((quantity, from, to))
}

fn progress(fields: &Fields<'_>, quantity: Quantity, from: f64) -> Result<Progress, TextError> {
    match (fields.entry("step"), fields.entry("factor")) {
        (Some(entry), None) => {
            let (of_step, step) = numeric("step", &entry.node)?;
            if of_step == quantity && step > 0.0 {
                return Ok(Progress::Linear(step));
            }
            let what = format!("is not a positive step of {}", quantity.name());
            Err(fields.error("step", &what, "write the same kind as from and to"))
        }
        (None, Some(_)) if from == 0.0 => {
            let what = "is 0, so every multiple is 0";
            Err(fields.error("from", what, "start at 1, or write a step"))
        }
        (None, Some(_)) => Ok(Progress::Geometric(fields.number("factor", 1.001..=1e6, 2.0)?)),
        _ => Err(fields.missing("step", "write either step = 1 (linear) or factor = 2 (geometric)")),
    }
}

fn numeric(key: &str, node: &Node) -> Result<(Quantity, f64), TextError> {
    Quantity::of(node).ok_or_else(|| {
        let what = format!("`{key}` is {}, which cannot start or end a range", show(&node.value));
        node.location.error(what, "write a number, a size or a duration; for anything else, values = [...]")
    })
}

/// Rounds away binary noise: 0.3, not 0.30000000000000004.
fn decimal(number: f64) -> f64 {
    format!("{number:.11e}").parse().unwrap_or(number)
}
