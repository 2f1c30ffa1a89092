//! Options of the NIC.

use anyhow::Result;
use refault_nic::{NicConfig, RemoteFaults};

use refault_rig::delays::NamedTiming;

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
    /// How long the guest may take to answer either, by the host's clock [default: as long as it takes]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    fault_timeout: Option<u64>,
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
            page_request_timeout_ns: self.fault_timeout.map(|seconds| seconds * 1_000_000_000),
            atc_entries: self.atc_entries as usize,
            sample_every: self.sample,
            ..NicConfig::default()
        }
    }
}

impl NicArgs {
    /// Seconds that the guest may take to answer a fault, if they are limited.
    pub fn fault_timeout(&self) -> Option<u64> {
        self.fault_timeout
    }

    /// How long the devices' steps are to take at least, if that was given.
    ///
    /// # Errors
    /// There is no such timing, or something in it is wrong.
    pub fn timing(&self) -> Result<Option<NamedTiming>> {
        self.timing.as_deref().map(NamedTiming::open).transpose()
    }

    /// What was given as the timing.
    pub fn timing_name(&self) -> Option<String> {
        self.timing.clone()
    }
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
            (RemoteFaults::Rnr, Some(2_000_000_000))
        );
    }
}
