//! How long each step of a page fault takes: distributions ([`Delay`]), a distribution for every step ([`Timing`]), and
//! published timings ([`Preset`]). All are read from TOML, with errors that name file, line and column.
//!
//! ```
//! use refault_timing::{Delay, Preset, timing_alone, tree};
//!
//! let file = "preset = \"npf-2017\"\n[timing]\nminor = { uniform = [\"10 us\", \"30 us\"] }\n";
//! let timing = timing_alone(&tree::parse("fast.toml", file)?)?;
//! // A step that the file does not give comes from the preset.
//! assert_eq!(timing.minor, Delay::Uniform { low: 10_000, high: 30_000 });
//! assert_eq!(timing.minor.mean(), 20_000.0);
//! assert_eq!(timing.next_page, Delay::Constant(127));
//!
//! let preset = Preset::find("npf-2017").ok_or("no such preset")?;
//! assert_eq!(preset.delay("minor"), Some(Delay::Constant(220_000)));
//!
//! let error = tree::parse("bad.toml", "[timing]\nminor = 220\n").and_then(|root| timing_alone(&root)).unwrap_err();
//! assert_eq!(error.to_string().split(';').next(), Some("bad.toml:2:9: `timing.minor` is an integer, not a duration with a unit"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![cfg_attr(not(test), warn(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_lossless))]

pub mod delay;
pub mod fields;
mod preset;
mod published;
mod read;
pub mod sample;
pub mod text;
pub mod timing;
pub mod tree;
pub mod units;

pub use preset::{Certainty, Preset, PresetStep, UNLIMITED_BYTES_PER_US, rate};
pub use published::PublishedFigure;
pub use read::{FILE_KEYS, presets, timing, timing_alone};
pub use sample::{LONGEST_NS, unit_interval};
pub use text::TextError;
pub use timing::{Delay, Timing};
