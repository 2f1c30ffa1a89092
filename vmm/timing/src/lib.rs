//! How long each step takes: distributions, timings made of them, the presets that come with refault, and how all of
//! these are read from TOML with errors that name file and line.

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

pub use preset::{Preset, PresetStep, Sureness, UNLIMITED_BYTES_PER_US};
pub use published::PublishedFigure;
pub use read::{FILE_KEYS, presets, timing, timing_alone};
pub use sample::{LONGEST_NS, unit};
pub use text::TextError;
pub use timing::{Delay, Timing};
