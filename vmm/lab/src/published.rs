//! Which published figures apply to an experiment.

use refault_timing::{Preset, PublishedFigure};

use crate::scenario::Scenario;

/// Whether a published figure applies to an experiment: cold requests of the published size, one at a time, their pages
/// mapped as published, with the timing of the preset.
pub fn applies(figure: &PublishedFigure, preset: &Preset, scenario: &Scenario) -> bool {
    let (load, guest) = (&scenario.load, &scenario.guest);
    let pages = figure.message_bytes.div_ceil(4096);
    let mapped = if figure.at_once { u64::from(guest.prefetch) + 1 >= pages } else { guest.prefetch == 0 };
    let timed = preset.steps.iter().all(|step| scenario.timing.step(&step.step) == Some(&step.delay));
    u64::from(load.message_bytes) == figure.message_bytes
        && (load.queue_pairs, load.depth) == (1, 1)
        && load.cold_share == 1.0
        && !load.large_pages
        && scenario.churn.is_none()
        && guest.major_share == 0.0
        && (mapped || pages == 1)
        && (scenario.device.fault_window == 1 || pages == 1)
        && timed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::FIGURES;
    use crate::scenario::Draft;
    use crate::shipped::no_files;

    fn fitting(scenario: &str, settings: &[&str]) -> Vec<String> {
        let mut draft = Draft::open(scenario, &no_files).unwrap();
        settings.iter().for_each(|setting| draft.set(setting).unwrap());
        let scenario = draft.check().unwrap();
        let preset = Preset::find(&scenario.presets[0]).unwrap();
        preset
            .published
            .iter()
            .filter(|figure| applies(figure, preset, &scenario))
            .map(PublishedFigure::what)
            .collect()
    }

    #[test]
    fn a_published_figure_applies_only_to_experiments_of_its_kind() {
        assert_eq!(fitting("cold-4k", &[]), ["4 KiB message, cold: median"]);
        assert_eq!(fitting("batched-4m", &[]), ["4 MiB message, cold, all pages at once: median"]);
        assert_eq!(fitting("page-by-page-4m", &[]), ["4 MiB message, cold, one page at a time: median"]);
        for other in ["load.message=8K", "load.depth=2", "load.cold_share=0.5", "timing.minor=1 us"] {
            assert_eq!(fitting("cold-4k", &[other]), [""; 0], "{other}");
        }
    }

    #[test]
    fn every_published_figure_is_one_of_an_experiment() {
        for figure in Preset::all().iter().flat_map(|preset| &preset.published) {
            assert!(FIGURES.iter().any(|(known, ..)| *known == figure.figure), "{figure:?}");
        }
    }
}
