//! Options of the NIC, and what it and the IOMMU leave behind.

use std::path::PathBuf;

use anyhow::{Context, Result};
use refault_nic::{NicConfig, RemoteFaults};

use super::stages::Stages;
use crate::accel::inside;
use crate::demo::session::command_line;
use crate::host::say::note;
use crate::report::{self, Counters, Experiment, FactGroup, TimeBase};
use crate::slow::Named;
use crate::trace::Recorder;
use crate::trace::guest::GuestStages;
use crate::wiring::Wired;

/// What a responder does whose memory is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Responder {
    /// It keeps the request until the page is there.
    #[default]
    Stall,
    /// It answers receiver-not-ready, and the requester comes again.
    Rnr,
}

/// How the NIC is made.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "NIC")]
pub struct NicArgs {
    /// What a responder does whose memory is not there
    #[arg(long, value_enum, default_value_t)]
    remote_faults: Responder,
    /// Page requests that can be outstanding
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=512))]
    page_requests: u32,
    /// Page faults of on-demand regions that can be outstanding
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=512))]
    page_faults: u32,
    /// Pages wanted when one is missing, itself included
    #[arg(long, value_name = "PAGES", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=64))]
    fault_window: u32,
    /// How long the guest may take to answer either
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    fault_timeout: u64,
    /// Translations the device TLB holds
    #[arg(long, value_name = "N", default_value_t = 8192, value_parser = clap::value_parser!(u32).range(1..=1048576))]
    atc_entries: u32,
    /// Watch one request in N of each queue pair from doorbell to completion: requests.csv; 0 for none
    #[arg(long, value_name = "N", default_value_t = 1024)]
    sample: u32,
    /// Have the steps of NIC and IOMMU take at least as long as a preset or a file says
    #[arg(long, value_name = "PRESET|FILE")]
    timing: Option<String>,
}

impl NicArgs {
    /// As the device model takes it.
    pub fn config(&self) -> NicConfig {
        NicConfig {
            remote_faults: match self.remote_faults {
                Responder::Stall => RemoteFaults::Stall,
                Responder::Rnr => RemoteFaults::Rnr,
            },
            page_request_credits: self.page_requests,
            page_fault_credits: self.page_faults,
            fault_window: self.fault_window,
            page_request_timeout_ns: self.fault_timeout * 1_000_000_000,
            atc_entries: self.atc_entries as usize,
            sample_every: self.sample,
            ..NicConfig::default()
        }
    }
}

impl NicArgs {
    /// How long the devices' steps are to take at least, if that was given.
    ///
    /// # Errors
    /// There is no such timing, or something in it is wrong.
    pub fn timing(&self) -> Result<Option<Named>> {
        self.timing.as_deref().map(Named::open).transpose()
    }

    /// What was given as the timing.
    pub fn timing_name(&self) -> Option<String> {
        self.timing.clone()
    }
}

/// Writes what was recorded of the faults, and all counters, into a folder.
///
/// # Errors
/// The folder or a file in it cannot be written.
pub(super) fn leave_trace(
    folder: &PathBuf,
    wired: &Wired,
    recorder: &Recorder,
    stages: Option<&Stages>,
    timing: Option<&Named>,
) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make folder {}", folder.display()))?;
    let mut records = recorder.records();
    if let Some(stages) = stages {
        stages.merge(recorder, &mut records)?;
        note(&records.observed.guest.as_ref().map(GuestStages::line).unwrap_or_default());
    }
    let counters = Counters {
        nic: wired.nic.stats(),
        iommu: wired.iommu.statistics(),
        observed: records.observed.clone(),
        timing: timing.map(|timing| timing.name.clone()),
    };
    let experiment = Experiment {
        version: env!("CARGO_PKG_VERSION").into(),
        title: "A program in a guest".into(),
        command: command_line(),
        time: if inside() { TimeBase::Emulated } else { TimeBase::Real },
        facts: timing.map(slowed).into_iter().collect(),
        observed: records.observed.clone(),
        ..Experiment::default()
    };
    report::write_experiment(folder, &records, &counters, &experiment)?;
    Ok(())
}

/// That the devices were slowed down, for the report.
fn slowed(timing: &Named) -> FactGroup {
    let facts = [("to", timing.name.clone()), ("that is", timing.about())];
    let facts = facts.map(|(name, value)| (name.to_string(), value)).to_vec();
    FactGroup { title: "Devices slowed down".into(), facts }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        nic: NicArgs,
    }

    #[test]
    fn without_options_the_nic_is_the_model_s_own_default() {
        let line = Line::try_parse_from(["run"]).expect("valid");
        assert_eq!(line.nic.config(), NicConfig::default());
    }

    #[test]
    fn what_the_device_cannot_be_is_refused() {
        for line in [["--page-faults", "0"], ["--page-faults", "513"], ["--remote-faults", "drop"]] {
            assert!(Line::try_parse_from(["run", line[0], line[1]]).is_err(), "{line:?}");
        }
        let line = ["run", "--remote-faults", "rnr", "--fault-timeout", "2"];
        let config = Line::try_parse_from(line).expect("valid").nic.config();
        assert_eq!(
            (config.remote_faults, config.page_request_timeout_ns),
            (RemoteFaults::Rnr, 2_000_000_000)
        );
    }
}
