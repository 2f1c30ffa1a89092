//! The records and counters of a run's devices, and the folder they are written to.

use std::fs::create_dir_all;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use refault_iommu::Iommu;
use refault_nic::Nic;

use super::experiment::{GuestExperiment, limits};
use super::stages::Stages;
use crate::lab::folder::describe;
use refault_lab::counts::Counts;
use refault_lab::facts;
use refault_lab::figures::Figures;
use refault_observe::report::{self, DeviceCounters, FactGroup, TimeBase};
use refault_observe::save::save_atomically;
use refault_observe::trace::guest::GuestStages;
use refault_observe::trace::{Recorder, Records};
use refault_os::command_line;
use refault_os::message::note;
use refault_os::speed::Speed;
use refault_rig::delays::NamedTiming;

/// Counts that can be compared with the model's.
const COUNTS: &str = "counts.json";
/// Titles of a scenario's facts that apply to the model only begin with these words.
const OF_THE_MODEL: [&str; 2] = ["Guest", "Timing"];

/// What was recorded of a run's devices.
pub(crate) struct DeviceRecords {
    pub(crate) records: Records,
    counters: DeviceCounters,
    /// Minimum durations of the devices' steps, if delays were added.
    timing: Option<NamedTiming>,
    time: TimeBase,
}

impl DeviceRecords {
    /// Takes the records, merged with the guest's account of its fault handling if there is one.
    ///
    /// # Errors
    /// The guest's account cannot be read.
    pub(crate) fn take(
        (nic, iommu): (&Nic, &Iommu),
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
        let counters = DeviceCounters {
            nic: nic.stats(),
            iommu: iommu.statistics(),
            observed: records.observed.clone(),
            timing: timing.as_ref().map(|timing| timing.name.clone()),
        };
        Ok(Self { records, counters, timing, time })
    }

    /// Writes records, counters and report into `folder`, which is made if it is missing.
    ///
    /// # Errors
    /// The folder or a file in it cannot be written.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        make(folder)?;
        let experiment = report::ExperimentReport {
            version: env!("CARGO_PKG_VERSION").into(),
            title: "A program in a guest".into(),
            command: command_line(),
            time: self.time,
            facts: self.timing.as_ref().map(delays).into_iter().collect(),
            observed: self.records.observed.clone(),
            ..report::ExperimentReport::default()
        };
        report::write_experiment(folder, &self.records, &self.counters, &experiment)?;
        Ok(())
    }

    /// As [`Self::write`], with the scenario and the results of its program.
    ///
    /// # Errors
    /// The program left no results, or a file cannot be written.
    pub(super) fn write_experiment(self, folder: &Path, experiment: &GuestExperiment) -> Result<()> {
        make(folder)?;
        let scenario = &experiment.scenario;
        let outcome = experiment.outcome(self.records, self.counters)?;
        let counts = Counts::of(&outcome.records);
        let (path, text) = (folder.join(COUNTS), serde_json::to_string_pretty(&counts)? + "\n");
        save_atomically(&path, |out| out.write_all(text.as_bytes()))
            .with_context(|| format!("cannot write {}", path.display()))?;
        describe(folder, scenario, &Figures::of(scenario, &outcome))?;
        let mut shown = facts::experiment(scenario, &outcome);
        (shown.time, shown.command) = (self.time, command_line());
        shown.facts.retain(|group| !OF_THE_MODEL.iter().any(|words| group.title.starts_with(words)));
        shown.facts.push(FactGroup {
            title: "The real guest".into(),
            facts: vec![("differs from the scenario".into(), limits(scenario))],
        });
        shown.facts.extend(self.timing.as_ref().map(delays));
        let page = report::write_experiment(folder, &outcome.records, &outcome.counters, &shown)?;
        note(&format!("{}: {}; report: {}", scenario.name, counts.line(), page.display()));
        Ok(())
    }
}

/// The delays that were added, for the report.
fn delays(timing: &NamedTiming) -> FactGroup {
    let facts = [("to", timing.name.clone()), ("that is", timing.coverage())];
    let facts = facts.map(|(name, value)| (name.to_string(), value)).to_vec();
    FactGroup { title: "Devices slowed down".into(), facts }
}

fn make(folder: &Path) -> Result<()> {
    create_dir_all(folder).with_context(|| format!("cannot make folder {}", folder.display()))
}
