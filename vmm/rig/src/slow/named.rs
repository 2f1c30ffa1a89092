//! `--timing`: a timing by the name of a preset, or out of a file.

use anyhow::{Context, Result};

use super::about;
use refault_timing::{Preset, Timing, timing_alone, tree};

/// A timing, and what it was called.
#[derive(Clone, Debug, PartialEq)]
pub struct Named {
    /// Preset or file, as it was given.
    pub name: String,
    /// What it says.
    pub timing: Timing,
}

impl Named {
    /// The timing of a preset, or of a file: that of a scenario, or one that has nothing but `preset` and `[timing]`.
    /// What neither says takes no time.
    ///
    /// # Errors
    /// There is neither, or something in the file is wrong.
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

    /// What of it can be had under a real guest, and what cannot.
    pub fn about(&self) -> String {
        about(&self.timing)
    }

    /// The same, as the run's first line.
    pub fn line(&self) -> String {
        format!("timing of the devices is {}: {}", self.name, self.about())
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
        let named = Named::open("pcie-rtt").unwrap();
        assert_eq!(named.timing.translation, Delay::Constant(330));
        assert_eq!(named.timing.page_request, Delay::NONE);
        assert!(named.line().contains("slowed down: translation, copy"), "{}", named.line());
        let guests = Named::open("npf-2017").unwrap().line();
        assert!(guests.contains("not: minor, next_page (the guest's own time)"), "{guests}");
    }

    #[test]
    fn a_file_needs_no_more_than_its_timing() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let name = file.path().to_str().unwrap();
        std::fs::write(name, "preset = \"example\"\n[timing]\npage_request = \"50 us\"\n").unwrap();
        let timing = Named::open(name).unwrap().timing;
        assert_eq!(
            (timing.page_request, timing.queue_write),
            (Delay::Constant(50_000), Delay::Constant(300))
        );
        std::fs::write(name, "[timing]\npage_requests = \"50 us\"\n").unwrap();
        let error = Named::open(name).unwrap_err().to_string();
        assert!(error.contains("page_requests") && error.contains('2'), "{error}");
    }

    #[test]
    fn what_is_neither_preset_nor_file_is_named_with_the_presets() {
        let error = format!("{:#}", Named::open("npf-2071").unwrap_err());
        assert!(error.contains("npf-2071") && error.contains("npf-2017"), "{error}");
    }
}
