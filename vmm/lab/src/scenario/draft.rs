//! A scenario file before validation: keys may still be overridden.

use std::path::Path;
use std::sync::OnceLock;

use thiserror::Error;

use super::shipped::SCENARIOS;
use super::{Scenario, read};
use crate::shipped::ReadFile;
use refault_timing::text::TextError;
use refault_timing::tree::{self, Node, Value};

/// A scenario cannot be opened.
#[derive(Debug, Error)]
pub enum ScenarioError {
    /// There is no such file, and no shipped scenario of that name.
    #[error("there is no scenario {name:?}: {reason}; give a file, or one of {}", SCENARIOS.names().join(", "))]
    Missing {
        /// The requested name or path.
        name: String,
        /// Why the file cannot be read.
        reason: std::io::Error,
    },
    /// The file has an error.
    #[error(transparent)]
    Text(#[from] TextError),
}

/// A parsed scenario file that has not been validated.
#[derive(Clone, Debug)]
pub struct Draft {
    root: Node,
    /// The scenario's name if the file does not give one.
    name: String,
}

impl Draft {
    /// Reads a shipped scenario by its name, or a file by its path.
    ///
    /// # Errors
    /// There is neither, or it is not TOML.
    pub fn open(name: &str, read: ReadFile<'_>) -> Result<Self, ScenarioError> {
        if let Some(text) = SCENARIOS.text(name) {
            return Ok(Self::parse(&format!("{name}.toml"), text)?);
        }
        let text = read(name).map_err(|reason| ScenarioError::Missing { name: name.to_owned(), reason })?;
        Ok(Self::parse(name, &text)?)
    }

    /// Reads a text. `file` is its name in messages; its stem is the default name of the scenario.
    ///
    /// # Errors
    /// It is not TOML.
    pub fn parse(file: &str, text: &str) -> Result<Self, TextError> {
        Ok(Self::of(file, tree::parse(file, text)?))
    }

    /// A scenario that is part of another file.
    pub(crate) fn of(file: &str, root: Node) -> Self {
        let stem = Path::new(file).file_stem().unwrap_or_default();
        Self { root, name: stem.to_string_lossy().into_owned() }
    }

    /// Applies a setting such as `device.credits=8`, overriding the file.
    ///
    /// # Errors
    /// `setting` is not `KEY=VALUE`.
    pub fn set(&mut self, setting: &str) -> Result<(), TextError> {
        let (keys, node) = tree::parse_setting("--set", setting)?;
        self.put(&keys, node)
    }

    /// Sets the value at the path `keys`.
    pub(crate) fn put(&mut self, keys: &[String], node: Node) -> Result<(), TextError> {
        match &mut self.root.value {
            Value::Table(table) => table.set(keys, node),
            _ => Ok(()),
        }
    }

    /// Validates the scenario.
    ///
    /// # Errors
    /// The first invalid key, and what to write instead.
    pub fn check(&self) -> Result<Scenario, TextError> {
        read::scenario(&self.root, &self.name)
    }
}

impl Scenario {
    /// Reads and checks a shipped scenario by its name, or a file by its path.
    ///
    /// # Errors
    /// There is neither, or it has an error.
    pub fn open(name: &str, read: ReadFile<'_>) -> Result<Self, ScenarioError> {
        Ok(Draft::open(name, read)?.check()?)
    }

    /// Reads and checks a text. `file` is its name in messages.
    ///
    /// # Errors
    /// It has an error.
    pub fn from_toml(file: &str, text: &str) -> Result<Self, TextError> {
        Draft::parse(file, text)?.check()
    }
}

/// The scenario with the default of every key.
pub fn defaults() -> &'static Scenario {
    static DEFAULTS: OnceLock<Scenario> = OnceLock::new();
    DEFAULTS.get_or_init(|| {
        let text = "requests = 1\npreset = \"none\"\n";
        Scenario::from_toml("defaults", text)
            .unwrap_or_else(|error| panic!("the defaults are wrong: {error}"))
    })
}
