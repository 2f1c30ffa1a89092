//! A sweep's file: a scenario, and the axes along which it varies.

use std::path::Path;

use sha2::{Digest, Sha256};
use thiserror::Error;

use super::axis::{SweepAxis, show};
use super::shipped::SWEEPS;
use crate::figures::FIGURES;
use crate::scenario::{Draft, Scenario, ScenarioError};
use crate::shipped::ReadFile;
use refault_timing::fields::Fields;
use refault_timing::text::TextError;
use refault_timing::tree::{self, Node, TomlTable, Value};

/// Most points that a sweep may have.
pub const MAX_POINTS: usize = 100_000;

/// A sweep cannot be opened.
#[derive(Debug, Error)]
pub enum PlanError {
    /// There is no such file, and no shipped sweep of that name.
    #[error("there is no sweep {name:?}: {reason}; give a file, or one of {}", SWEEPS.names().join(", "))]
    Missing {
        /// The requested name or path.
        name: String,
        /// Why the file cannot be read.
        reason: std::io::Error,
    },
    /// The file has an error.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The scenario it names cannot be opened.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// A point is not a valid scenario.
    #[error("point {point} ({values}): {error}")]
    Point {
        /// Index of the point.
        point: usize,
        /// The values of the axes at the point.
        values: String,
        /// The error in its scenario.
        error: TextError,
    },
}

/// A sweep all of whose points are valid.
#[derive(Debug)]
pub struct SweepPlan {
    name: String,
    base: Draft,
    axes: Vec<SweepAxis>,
    identity: String,
}

impl SweepPlan {
    /// Reads a shipped sweep by its name, or a file by its path.
    ///
    /// # Errors
    /// There is neither, or it or one of its points has an error.
    pub fn open(name: &str, read: ReadFile<'_>) -> Result<Self, PlanError> {
        if let Some(text) = SWEEPS.text(name) {
            return Self::parse(&format!("{name}.toml"), text, read);
        }
        let text = read(name).map_err(|reason| PlanError::Missing { name: name.to_owned(), reason })?;
        Self::parse(name, &text, read)
    }

    /// Reads a text. `file` is its name in messages, and the base of relative scenario paths.
    ///
    /// # Errors
    /// It or one of its points has an error.
    pub fn parse(file: &str, text: &str, read: ReadFile<'_>) -> Result<Self, PlanError> {
        let root = tree::parse(file, text)?;
        let fields = Fields::top(&root, &["name", "scenario", "set", "axis"])?;
        let stem = Path::new(file).file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let name = fields.text("name")?.map_or(stem, str::to_owned);
        let mut base = base(&fields, file, read)?;
        if let Some(Value::Table(settings)) = fields.entry("set").map(|entry| &entry.node.value) {
            put_all(&mut base, &mut Vec::new(), settings)?;
        }
        let axes = axes(&fields)?;
        let mut plan = Self { name, base, axes, identity: String::new() };
        plan.identity = plan.checked()?;
        Ok(plan)
    }

    /// The name of the sweep.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Number of points: the product of the axes.
    pub fn len(&self) -> usize {
        self.axes.iter().map(|axis| axis.steps.len()).product()
    }

    /// Whether there are no points; never the case.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A digest of all points and columns: sweeps with the same identity have the same table.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Names of the varying keys: the first columns of the table.
    pub fn columns(&self) -> Vec<&str> {
        self.axes.iter().flat_map(|axis| &axis.names).map(String::as_str).collect()
    }

    /// Values of the varying keys at a point. The last axis varies fastest.
    pub fn values(&self, point: usize) -> Vec<String> {
        self.nodes(point).map(|(_, node)| show(&node.value)).collect()
    }

    /// The scenario of a point.
    ///
    /// # Errors
    /// It is not valid; not after [`Self::parse`], which checks all points.
    pub fn scenario(&self, point: usize) -> Result<Scenario, PlanError> {
        let mut draft = self.base.clone();
        let put = self.nodes(point).try_for_each(|(keys, node)| draft.put(keys, node.clone()));
        put.and_then(|()| draft.check()).map_err(|error| {
            let names = self.columns();
            let values: Vec<_> = names
                .iter()
                .zip(self.values(point))
                .map(|(name, value)| format!("{name} = {value}"))
                .collect();
            PlanError::Point { point, values: values.join(", "), error }
        })
    }

    /// Keys and values of a point.
    fn nodes(&self, point: usize) -> impl Iterator<Item = (&Vec<String>, &Node)> {
        let mut below = self.len();
        self.axes.iter().flat_map(move |axis| {
            below /= axis.steps.len();
            let step = point / below % axis.steps.len();
            axis.keys.iter().zip(&axis.steps[step])
        })
    }

    /// Checks every point, and returns the digest of all.
    fn checked(&self) -> Result<String, PlanError> {
        let mut digest = Sha256::new();
        digest.update(env!("CARGO_PKG_VERSION"));
        for (name, ..) in FIGURES {
            digest.update(name);
        }
        for point in 0..self.len() {
            digest.update(self.values(point).join(","));
            digest.update(self.scenario(point)?.to_toml());
        }
        Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// The scenario: a table in the sweep, a name, or a path relative to the sweep's file.
fn base(fields: &Fields<'_>, file: &str, read: ReadFile<'_>) -> Result<Draft, PlanError> {
    let remedy = "write scenario = \"NAME\", or [scenario] and its keys below it";
    let entry = fields.entry("scenario").ok_or_else(|| fields.missing("scenario", remedy))?;
    match &entry.node.value {
        Value::Table(_) => Ok(Draft::of(file, entry.node.clone())),
        Value::Text(name) => {
            let beside = Path::new(file).parent().map(|folder| folder.join(name));
            let path = beside.filter(|path| path.is_file()).map(|path| path.to_string_lossy().into_owned());
            Ok(Draft::open(path.as_deref().unwrap_or(name), read)?)
        }
        other => {
            let what = format!("`scenario` is {}, neither a name nor a section", other.kind());
            Err(entry.node.location.error(what, remedy).into())
        }
    }
}

/// Sets every key of `[set]`, at any depth.
fn put_all(base: &mut Draft, keys: &mut Vec<String>, settings: &TomlTable) -> Result<(), TextError> {
    for (key, entry) in &settings.entries {
        keys.push(key.clone());
        match &entry.node.value {
            // Keys are two levels deep: a table below is a distribution.
            Value::Table(inner) if keys.len() < 2 => put_all(base, keys, inner)?,
            _ => base.put(keys, entry.node.clone())?,
        }
        keys.pop();
    }
    Ok(())
}

fn axes(fields: &Fields<'_>) -> Result<Vec<SweepAxis>, TextError> {
    let Some(entry) = fields.entry("axis") else {
        return Err(
            fields.missing("axis", "write [[axis]] with key = \"device.credits\" and values = [4, 8]")
        );
    };
    let Value::List(items) = &entry.node.value else {
        return Err(entry.key.error("`axis` is not a list", "write [[axis]], in double brackets"));
    };
    let mut axes: Vec<SweepAxis> = Vec::with_capacity(items.len());
    let mut points = 1usize;
    for item in items {
        let axis = SweepAxis::read(item)?;
        let mut taken = axes.iter().flat_map(|axis| &axis.names);
        if let Some(twice) = taken.find(|name| axis.names.contains(name)) {
            let what = format!("`{twice}` varies on two axes");
            return Err(item.location.error(what, "remove one of them"));
        }
        points = points.saturating_mul(axis.steps.len());
        if points > MAX_POINTS {
            let what = format!("with this axis, the sweep has more than {MAX_POINTS} points");
            return Err(item.location.error(what, "write fewer values"));
        }
        axes.push(axis);
    }
    if axes.is_empty() {
        return Err(entry.key.error("`axis` is empty", "write at least one [[axis]]"));
    }
    Ok(axes)
}
