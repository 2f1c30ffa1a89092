//! `--timing`: a timing by the name of a preset, or from a file.

use anyhow::{Context, Result};

use super::coverage;
use refault_timing::{Preset, Timing, timing_alone, tree};

/// A timing and its name.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedTiming {
    /// The preset or file, as given.
    pub name: String,
    /// The steps' durations.
    pub timing: Timing,
}

impl NamedTiming {
    /// Opens a preset, or a file: a scenario, or one that has only `preset` and `[timing]`. Steps that are not given take
    /// no time.
    ///
    /// # Errors
    /// There is no such preset or file, or the file is not valid.
    pub fn open(name: &str) -> Result<Self> {
        let timing = match Preset::find(name) {
            Some(preset) => of_preset(preset),
            None => {
                let missing = || {
                    let presets = Preset::names().join(", ");
                    format!("there is no timing {name:?}; give a file, or one of {presets}")
                };
                let text = std::fs::read_to_string(name).with_context(missing)?;
                timing_alone(&tree::parse(name, &text)?)?
            }
        };
        Ok(Self { name: name.to_owned(), timing })
    }

    /// One-line summary of which of its steps can be emulated with a real guest.
    pub fn coverage(&self) -> String {
        coverage(&self.timing)
    }

    /// Its name and [`Self::coverage`], for the start of a run.
    pub fn line(&self) -> String {
        format!("timing of the devices is {}: {}", self.name, self.coverage())
    }
}

fn of_preset(preset: &Preset) -> Timing {
    let mut timing = Timing::instant(preset.bytes_per_us);
    for name in Timing::STEPS {
        if let (Some(step), Some(delay)) = (timing.step_mut(name), preset.delay(name)) {
            *step = delay;
        }
    }
    timing
}

#[cfg(test)]
mod tests {
    use super::*;
    use refault_timing::Delay;

    #[test]
    fn a_preset_gives_what_is_published_and_nothing_else() {
        let named = NamedTiming::open("pcie-rtt").unwrap();
        assert_eq!(named.timing.translation, Delay::Constant(330));
        assert_eq!(named.timing.page_request, Delay::NONE);
        assert!(named.line().contains("slowed down: translation, copy"), "{}", named.line());
        let guests = NamedTiming::open("npf-2017").unwrap().line();
        assert!(guests.contains("not: minor, next_page (the guest's own time)"), "{guests}");
    }

    #[test]
    fn a_file_needs_no_more_than_its_timing() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let name = file.path().to_str().unwrap();
        std::fs::write(name, "preset = \"example\"\n[timing]\npage_request = \"50 us\"\n").unwrap();
        let timing = NamedTiming::open(name).unwrap().timing;
        assert_eq!(
            (timing.page_request, timing.queue_write),
            (Delay::Constant(50_000), Delay::Constant(300))
        );
        std::fs::write(name, "[timing]\npage_requests = \"50 us\"\n").unwrap();
        let error = NamedTiming::open(name).unwrap_err().to_string();
        assert!(error.contains("page_requests") && error.contains('2'), "{error}");
    }

    #[test]
    fn what_is_neither_preset_nor_file_is_named_with_the_presets() {
        let error = format!("{:#}", NamedTiming::open("npf-2071").unwrap_err());
        assert!(error.contains("npf-2071") && error.contains("npf-2017"), "{error}");
    }
}
