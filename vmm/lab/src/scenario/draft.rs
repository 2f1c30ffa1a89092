//! A scenario as its file has it: keys may still be set, and nothing is checked.

use std::path::Path;
use std::sync::OnceLock;

use thiserror::Error;

use super::shipped::SCENARIOS;
use super::{Scenario, read};
use crate::shipped::ReadFile;
use refault_timing::text::TextError;
use refault_timing::tree::{self, Node, Value};

/// Why there is no scenario.
#[derive(Debug, Error)]
pub enum ScenarioError {
    /// The file cannot be read, and no shipped scenario has that name.
    #[error("there is no scenario {name:?}: {reason}; give a file, or one of {}", SCENARIOS.names().join(", "))]
    Missing {
        /// What was asked for.
        name: String,
        /// Why it is no file.
        reason: std::io::Error,
    },
    /// Something in it is wrong.
    #[error(transparent)]
    Text(#[from] TextError),
}

/// A scenario that was read, before it is checked.
#[derive(Clone, Debug)]
pub struct Draft {
    root: Node,
    /// The name of a scenario that has none of its own.
    name: String,
}

impl Draft {
    /// Reads a shipped scenario by its name, or a file by its path.
    ///
    /// # Errors
    /// There is neither, or it is no TOML.
    pub fn open(name: &str, read: ReadFile<'_>) -> Result<Self, ScenarioError> {
        if let Some(text) = SCENARIOS.text(name) {
            return Ok(Self::parse(&format!("{name}.toml"), text)?);
        }
        let text = read(name).map_err(|reason| ScenarioError::Missing { name: name.to_owned(), reason })?;
        Ok(Self::parse(name, &text)?)
    }

    /// Reads a text; `file` is what to call it in messages, and its stem what the scenario is called if it does not say.
    ///
    /// # Errors
    /// It is no TOML.
    pub fn parse(file: &str, text: &str) -> Result<Self, TextError> {
        Ok(Self::of(file, tree::parse(file, text)?))
    }

    /// A scenario within another file.
    pub(crate) fn of(file: &str, root: Node) -> Self {
        let stem = Path::new(file).file_stem().unwrap_or_default();
        Self { root, name: stem.to_string_lossy().into_owned() }
    }

    /// Sets a key as `device.credits=8` says, over what the file has.
    ///
    /// # Errors
    /// It is no such setting.
    pub fn set(&mut self, setting: &str) -> Result<(), TextError> {
        let (keys, node) = tree::parse_setting("--set", setting)?;
        self.put(&keys, node)
    }

    /// Sets the key to which `keys` lead.
    pub(crate) fn put(&mut self, keys: &[String], node: Node) -> Result<(), TextError> {
        match &mut self.root.value {
            Value::Table(table) => table.set(keys, node),
            _ => Ok(()),
        }
    }

    /// The scenario, if everything in it may be so.
    ///
    /// # Errors
    /// The first thing that is wrong, and what to write instead.
    pub fn check(&self) -> Result<Scenario, TextError> {
        read::scenario(&self.root, &self.name)
    }
}

impl Scenario {
    /// Reads and checks a shipped scenario by its name, or a file by its path.
    ///
    /// # Errors
    /// There is neither, or something in it is wrong.
    pub fn open(name: &str, read: ReadFile<'_>) -> Result<Self, ScenarioError> {
        Ok(Draft::open(name, read)?.check()?)
    }

    /// Reads and checks a text; `file` is what to call it in messages.
    ///
    /// # Errors
    /// Something in it is wrong.
    pub fn from_toml(file: &str, text: &str) -> Result<Self, TextError> {
        Draft::parse(file, text)?.check()
    }
}

/// The scenario that a file which says nothing would be: where defaults are, for the reference.
pub fn defaults() -> &'static Scenario {
    static DEFAULTS: OnceLock<Scenario> = OnceLock::new();
    DEFAULTS.get_or_init(|| {
        let text = "requests = 1\npreset = \"none\"\n";
        Scenario::from_toml("defaults", text)
            .unwrap_or_else(|error| panic!("the defaults are wrong: {error}"))
    })
}
