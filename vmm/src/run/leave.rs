//! What a run leaves behind: what was recorded of the faults, all counters, and of a scenario what came of it.

use std::path::Path;

use anyhow::{Context, Result};

use super::experiment::{Experiment, limits};
use super::stages::Stages;
use crate::lab::folder::describe;
use refault_lab::counts::Counts;
use refault_lab::facts;
use refault_lab::figures::Figures;
use refault_observe::report::{self, Counters, FactGroup, TimeBase};
use refault_observe::trace::guest::GuestStages;
use refault_observe::trace::{Recorder, Records};
use refault_os::command_line;
use refault_os::message::note;
use refault_os::speed::Speed;
use refault_rig::delays::NamedTiming;
use refault_rig::wiring::Wired;

/// What can be compared with the model's.
const COUNTS: &str = "counts.json";
/// Facts of a scenario that are the model's alone begin with these words.
const OF_THE_MODEL: [&str; 2] = ["Guest", "Timing"];

/// What was seen of the devices.
pub(crate) struct Seen {
    records: Records,
    counters: Counters,
    /// What the devices were slowed down to.
    timing: Option<NamedTiming>,
    time: TimeBase,
}

impl Seen {
    /// Takes the records, with the guest's part of the faults if it was asked to tell it.
    ///
    /// # Errors
    /// What the guest told cannot be read.
    pub(crate) fn of(
        wired: &Wired,
        recorder: &Recorder,
        stages: Option<&Stages>,
        timing: Option<NamedTiming>,
        time: TimeBase,
    ) -> Result<Self> {
        let mut records = recorder.records();
        records.observed.machine = Some(Speed::measure());
        if let Some(stages) = stages {
            stages.merge(recorder, &mut records)?;
            note(&records.observed.guest.as_ref().map(GuestStages::line).unwrap_or_default());
        }
        let counters = Counters {
            nic: wired.nic.stats(),
            iommu: wired.iommu.statistics(),
            observed: records.observed.clone(),
            timing: timing.as_ref().map(|timing| timing.name.clone()),
        };
        Ok(Self { records, counters, timing, time })
    }

    /// Writes it into a folder.
    ///
    /// # Errors
    /// The folder or a file in it cannot be written.
    pub(crate) fn leave(&self, folder: &Path) -> Result<()> {
        make(folder)?;
        let experiment = report::Experiment {
            version: env!("CARGO_PKG_VERSION").into(),
            title: "A program in a guest".into(),
            command: command_line(),
            time: self.time,
            facts: self.timing.as_ref().map(slowed).into_iter().collect(),
            observed: self.records.observed.clone(),
            ..report::Experiment::default()
        };
        report::write_experiment(folder, &self.records, &self.counters, &experiment)?;
        Ok(())
    }

    /// The same with the scenario and what its program saw.
    ///
    /// # Errors
    /// The program left no results, or a file cannot be written.
    pub(super) fn leave_experiment(self, folder: &Path, experiment: &Experiment) -> Result<()> {
        make(folder)?;
        let scenario = &experiment.scenario;
        let outcome = experiment.outcome(self.records, self.counters)?;
        let counts = Counts::of(&outcome.records);
        let path = folder.join(COUNTS);
        std::fs::write(&path, serde_json::to_string_pretty(&counts)? + "\n")
            .with_context(|| format!("cannot write {}", path.display()))?;
        describe(folder, scenario, &Figures::of(scenario, &outcome))?;
        let mut told = facts::experiment(scenario, &outcome);
        (told.time, told.command) = (self.time, command_line());
        told.facts.retain(|group| !OF_THE_MODEL.iter().any(|words| group.title.starts_with(words)));
        told.facts.push(FactGroup {
            title: "The real guest".into(),
            facts: vec![("does its own way".into(), limits(scenario))],
        });
        told.facts.extend(self.timing.as_ref().map(slowed));
        let page = report::write_experiment(folder, &outcome.records, &outcome.counters, &told)?;
        note(&format!("{}: {}; report: {}", scenario.name, counts.line(), page.display()));
        Ok(())
    }
}

/// That the devices were slowed down, for the report.
fn slowed(timing: &NamedTiming) -> FactGroup {
    let facts = [("to", timing.name.clone()), ("that is", timing.coverage())];
    let facts = facts.map(|(name, value)| (name.to_string(), value)).to_vec();
    FactGroup { title: "Devices slowed down".into(), facts }
}

fn make(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make folder {}", folder.display()))
}
