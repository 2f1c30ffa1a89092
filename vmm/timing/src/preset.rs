//! Timings of published systems: the duration of each step, its source, and its certainty.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use super::delay;
use super::fields::{Fields, listed};
use super::published::PublishedFigure;
use super::text::{Location, TextError};
use super::timing::{Delay, Timing};
use super::tree::{self, TomlTable, Value};

/// Names and files, in the order of the list.
const FILES: [(&str, &str); 14] = [
    ("none", include_str!("presets/none.toml")),
    ("example", include_str!("presets/example.toml")),
    ("npf-2017", include_str!("presets/npf-2017.toml")),
    ("npf-2017-tails", include_str!("presets/npf-2017-tails.toml")),
    ("part-2022", include_str!("presets/part-2022.toml")),
    ("np-rdma", include_str!("presets/np-rdma.toml")),
    ("np-rdma-odp", include_str!("presets/np-rdma-odp.toml")),
    ("vio-2025", include_str!("presets/vio-2025.toml")),
    ("apu-2016", include_str!("presets/apu-2016.toml")),
    ("mi300a-2025", include_str!("presets/mi300a-2025.toml")),
    ("gpu-far-2016", include_str!("presets/gpu-far-2016.toml")),
    ("gpu-far-2025", include_str!("presets/gpu-far-2025.toml")),
    ("uffd", include_str!("presets/uffd.toml")),
    ("pcie-rtt", include_str!("presets/pcie-rtt.toml")),
];

/// A copy rate, in bytes per microsecond, that is effectively unlimited: `"unlimited"` in files.
pub const UNLIMITED_BYTES_PER_US: u64 = 1 << 40;

/// A timing with its sources.
#[derive(Clone, Debug)]
pub struct Preset {
    /// The name that scenarios use.
    pub name: &'static str,
    /// One line that describes the system.
    pub title: String,
    /// The publication.
    pub source: String,
    /// Caveats: which step carries a total, and what was left out.
    pub note: String,
    /// The steps that take time.
    pub steps: Vec<PresetStep>,
    /// Steps with no time of their own: they are part of another step's figure.
    pub zero: Vec<String>,
    /// Steps that the publication does not cover: a scenario that needs one must give it.
    pub not_published: Vec<String>,
    /// Copy rate, as [`Timing::bytes_per_us`].
    pub bytes_per_us: u64,
    /// Published latencies of whole requests.
    pub published: Vec<PublishedFigure>,
}

/// The duration of one step in a preset.
#[derive(Clone, Debug)]
pub struct PresetStep {
    /// One of [`Timing::STEPS`].
    pub step: String,
    /// Its duration.
    pub delay: Delay,
    /// The certainty of the figure.
    pub certainty: Certainty,
    /// What the source says, and how the figure follows from it.
    pub from: String,
}

/// The certainty of a figure, the most certain first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Certainty {
    /// Fixed by the definition of the preset.
    Chosen,
    /// Read in the publication itself.
    Read,
    /// Read in another publication, or in an abstract, that cites it.
    SecondHand,
    /// Recalled from the publication, not checked.
    Recalled,
    /// Computed from published figures.
    Derived,
    /// Made up, for trying things out.
    Invented,
}

impl Certainty {
    /// Every value with its name in files.
    pub const ALL: [(&str, Self); 6] = [
        ("chosen", Self::Chosen),
        ("read in source", Self::Read),
        ("second-hand", Self::SecondHand),
        ("recalled", Self::Recalled),
        ("derived", Self::Derived),
        ("invented", Self::Invented),
    ];

    /// The name in files and tables.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, certainty)| *certainty == self).map_or("", |(name, _)| name)
    }
}

impl Preset {
    /// All presets, in the order of the list.
    pub fn all() -> &'static [Self] {
        static ALL: OnceLock<Vec<Preset>> = OnceLock::new();
        ALL.get_or_init(|| {
            let read = FILES.iter().map(|(name, text)| Self::read(name, text));
            read.collect::<Result<_, _>>()
                .unwrap_or_else(|error| panic!("a shipped preset is damaged: {error}"))
        })
    }

    /// Finds a preset by its name.
    pub fn find(name: &str) -> Option<&'static Self> {
        Self::all().iter().find(|preset| preset.name == name)
    }

    /// The names of all presets, in the order of the list.
    pub fn names() -> Vec<&'static str> {
        FILES.iter().map(|(name, _)| *name).collect()
    }

    /// The file that it was read from.
    pub fn text(&self) -> &'static str {
        FILES.iter().find(|(name, _)| *name == self.name).map_or("", |(_, text)| text)
    }

    /// The certainties of its figures, comma-separated, the least certain last.
    pub fn certainty(&self) -> String {
        let found: BTreeSet<_> = self.steps.iter().map(|step| step.certainty).collect();
        let names: Vec<_> = found.into_iter().map(Certainty::name).collect();
        if names.is_empty() { Certainty::Chosen.name().to_owned() } else { listed(&names) }
    }

    /// The duration of a step; `None` if it is not published.
    pub fn delay(&self, step: &str) -> Option<Delay> {
        let known = self.steps.iter().find(|known| known.step == step);
        let zero = || self.zero.iter().any(|name| name == step).then_some(Delay::NONE);
        known.map(|known| known.delay.clone()).or_else(zero)
    }

    fn read(name: &'static str, text: &str) -> Result<Self, TextError> {
        const KEYS: &[&str] =
            &["title", "source", "note", "steps", "zero", "not_published", "bytes_per_us", "published"];
        let root = tree::parse(&format!("presets/{name}.toml"), text)?;
        let fields = Fields::top(&root, KEYS)?;
        let word = |key| {
            let text = fields.text(key)?.filter(|text| !text.is_empty());
            text.map(str::to_owned).ok_or_else(|| fields.missing(key, "write a sentence"))
        };
        let names = |key| -> Result<Vec<String>, TextError> {
            fields.texts(key)?.into_iter().map(|(step, location)| known_step(step, location)).collect()
        };
        let preset = Self {
            name,
            title: word("title")?,
            source: word("source")?,
            note: word("note")?,
            steps: match &root.value {
                Value::Table(table) => read_steps(table, &root.location)?,
                _ => Vec::new(),
            },
            zero: names("zero")?,
            not_published: names("not_published")?,
            bytes_per_us: rate(&fields, "bytes_per_us", UNLIMITED_BYTES_PER_US)?,
            published: match &root.value {
                Value::Table(table) => PublishedFigure::read_all(table)?,
                _ => Vec::new(),
            },
        };
        preset.check(&root.location)?;
        Ok(preset)
    }

    /// Checks that every step is listed exactly once.
    fn check(&self, location: &Location) -> Result<(), TextError> {
        for step in Timing::STEPS {
            let figures = self.steps.iter().filter(|known| known.step == *step).count();
            let listed = self.zero.iter().chain(&self.not_published).filter(|name| name == step).count();
            if figures + listed != 1 {
                let what = format!("the preset lists `{step}` {} times", figures + listed);
                return Err(location.error(what, "name it once, in [steps], zero or not_published"));
            }
        }
        Ok(())
    }
}

fn read_steps(root: &TomlTable, location: &Location) -> Result<Vec<PresetStep>, TextError> {
    let section = Fields::section(root, "steps", Timing::STEPS, location)?;
    let written = Timing::STEPS.iter().filter_map(|step| Some((step, section.entry(step)?)));
    let read = written.map(|(step, entry)| {
        let fields = Fields::top(&entry.node, &["value", "certainty", "from"])?;
        let value = fields.entry("value").ok_or_else(|| fields.missing("value", "write the delay"))?;
        let from = fields.text("from")?.ok_or_else(|| fields.missing("from", "write its source"))?;
        if fields.entry("certainty").is_none() {
            return Err(fields.missing("certainty", "write how certain the figure is"));
        }
        Ok(PresetStep {
            step: (*step).to_owned(),
            delay: delay::read(step, &value.node)?,
            certainty: fields.choice("certainty", &Certainty::ALL, Certainty::Invented)?,
            from: from.to_owned(),
        })
    });
    read.collect()
}

fn known_step(step: &str, location: &Location) -> Result<String, TextError> {
    if Timing::STEPS.contains(&step) {
        return Ok(step.to_owned());
    }
    let what = format!("there is no step `{step}`");
    Err(location.error(what, format!("the steps are {}", listed(Timing::STEPS))))
}

/// Reads a rate in bytes per microsecond: a number, or `"unlimited"`, which is [`UNLIMITED_BYTES_PER_US`].
///
/// # Errors
/// It is neither.
pub fn rate(fields: &Fields<'_>, key: &str, default: u64) -> Result<u64, TextError> {
    let written = fields.entry(key).map(|entry| &entry.node.value);
    if matches!(written, Some(Value::Text(text)) if text == "unlimited") {
        return Ok(UNLIMITED_BYTES_PER_US);
    }
    fields.integer(key, 1..=UNLIMITED_BYTES_PER_US, default).map_err(|error| TextError {
        remedy: "write bytes per microsecond (1000 is 1 GB/s), or \"unlimited\"".into(),
        ..error
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_preset_reads_and_names_its_source() {
        assert_eq!(Preset::all().len(), FILES.len());
        for preset in Preset::all() {
            assert!(!preset.source.is_empty() && !preset.note.is_empty(), "{}", preset.name);
            assert!(preset.steps.iter().all(|step| !step.from.is_empty()), "{}", preset.name);
        }
    }

    #[test]
    fn only_the_example_preset_is_invented() {
        for preset in Preset::all() {
            let invented = preset.steps.iter().any(|step| step.certainty == Certainty::Invented);
            assert_eq!(invented, preset.name == "example", "{}", preset.name);
        }
    }

    #[test]
    fn published_totals_come_out_of_the_steps() {
        let total = |name: &str, pages_ahead: f64| {
            let preset = Preset::find(name).expect("it is shipped");
            let mean = |step: &str| preset.delay(step).map_or(0.0, |delay| delay.mean());
            let path =
                Timing::STEPS.iter().filter(|step| !["major", "next_page", "invalidation"].contains(step));
            path.map(|step| mean(step)).sum::<f64>() + pages_ahead * mean("next_page")
        };
        assert_eq!(total("npf-2017", 0.0), 220_000.0);
        assert!((total("npf-2017", 1023.0) / 350_000.0 - 1.0).abs() < 0.001);
        assert_eq!([total("part-2022", 0.0), total("vio-2025", 0.0)], [38_000.0, 700_000.0]);
        assert_eq!([total("uffd", 0.0), total("gpu-far-2025", 0.0)], [10_200.0, 31_800.0]);
        assert_eq!(total("none", 0.0), 0.0);
    }

    #[test]
    fn every_step_must_be_listed_once_even_if_unpublished() {
        let text = Preset::find("npf-2017").expect("it is shipped").text();
        let without = text.replace("\"doorbell\", ", "");
        let error = Preset::read("npf-2017", &without).expect_err("doorbell is nowhere");
        assert!(error.what.contains("lists `doorbell` 0 times"), "{error}");
        let twice = text.replace("not_published = [", "not_published = [\"doorbell\", ");
        assert!(Preset::read("npf-2017", &twice).expect_err("twice").what.contains("2 times"));
    }
}
