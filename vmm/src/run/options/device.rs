//! Options of the NIC.

use anyhow::{Result, ensure};
use refault_nic::{DatagramFaults, FlushIcrc, Loopback, NicConfig, PacketConfig, RemoteFaults};

use refault_rig::delays::NamedTiming;

/// What a responder does when its memory is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Responder {
    /// It stalls the request until the page is present.
    #[default]
    Stall,
    /// It sends a receiver-not-ready NAK, and the requester retries.
    Rnr,
    /// It drops the packet, and the requester repeats it after its timeout; needs --loopback packets.
    Drop,
    /// As rnr, and another NAK when the page is there ends the wait; needs --loopback packets.
    ResumeNak,
}

impl From<Responder> for RemoteFaults {
    fn from(responder: Responder) -> Self {
        match responder {
            Responder::Stall => Self::Stall,
            Responder::Rnr => Self::Rnr,
            Responder::Drop => Self::Drop,
            Responder::ResumeNak => Self::ResumeNak,
        }
    }
}

/// What becomes of a datagram when its receiver's memory is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Receiver {
    /// It is dropped, and the page requested for the next one.
    #[default]
    Drop,
    /// Its sender waits until the page is present.
    Hold,
}

/// How reliable connections get to queue pairs of the same port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Own {
    /// Requester and responder meet in one step.
    #[default]
    Direct,
    /// In packets, as on a wire.
    Packets,
}

/// How the ICRC of a FLUSH is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum FlushChecksum {
    /// As the specification has it.
    #[default]
    Standard,
    /// As soft-RoCE does, which drops others.
    Rxe,
}

/// Options of the NIC.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "NIC")]
pub struct NicArgs {
    /// What a responder does when its memory is missing
    #[arg(long, value_enum, default_value_t)]
    remote_faults: Responder,
    /// With a message's first packet, request all of its pages that are missing; needs --loopback packets
    #[arg(long)]
    prefault: bool,
    /// What becomes of a datagram when its receiver's memory is missing
    #[arg(long, value_enum, default_value_t)]
    datagram_faults: Receiver,
    /// How reliable connections get to queue pairs of the same port
    #[arg(long, value_enum, default_value_t)]
    loopback: Own,
    /// How many of these packets are lost, out of a hundred
    #[arg(long, value_name = "PERCENT", value_parser = parts_per_million)]
    packet_loss: Option<u32>,
    /// How the ICRC of a FLUSH is computed that leaves an Ethernet port
    #[arg(long, value_enum, default_value_t)]
    flush_icrc: FlushChecksum,
    /// Page requests that can be outstanding
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=512))]
    page_requests: u32,
    /// Page faults of on-demand regions that can be outstanding
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=512))]
    page_faults: u32,
    /// Pages to request when one is missing, itself included
    #[arg(long, value_name = "PAGES", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=64))]
    fault_window: u32,
    /// How long the guest may take to answer either, by the host's clock [default: no limit]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    fault_timeout: Option<u64>,
    /// Translations the device TLB holds
    #[arg(long, value_name = "N", default_value_t = 8192, value_parser = clap::value_parser!(u32).range(1..=1048576))]
    atc_entries: u32,
    /// Sample one request in N of each queue pair, from doorbell to completion, in requests.csv; 0 for none
    #[arg(long, value_name = "N", default_value_t = 1024)]
    sample: u32,
    /// Make the steps of NIC and IOMMU take at least as long as a preset or a file says
    #[arg(long, value_name = "PRESET|FILE")]
    timing: Option<String>,
}

impl NicArgs {
    /// The configuration of the device model.
    pub fn config(&self) -> NicConfig {
        NicConfig {
            remote_faults: self.remote_faults.into(),
            packets: PacketConfig { prefault: self.prefault, ..PacketConfig::default() },
            datagram_faults: match self.datagram_faults {
                Receiver::Drop => DatagramFaults::Drop,
                Receiver::Hold => DatagramFaults::Hold,
            },
            loopback: match self.loopback {
                Own::Direct => Loopback::Direct,
                Own::Packets => Loopback::Packets { loss_ppm: self.packet_loss.unwrap_or(0) },
            },
            flush_icrc: match self.flush_icrc {
                FlushChecksum::Standard => FlushIcrc::Standard,
                FlushChecksum::Rxe => FlushIcrc::SoftRoce,
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

    /// Checks what the options mean together.
    ///
    /// # Errors
    /// Packets are to be lost or dropped, or their message's pages requested, and none are made.
    pub fn check(&self) -> Result<()> {
        ensure!(
            self.packet_loss.is_none() || self.loopback == Own::Packets,
            "--packet-loss loses packets, and there are none: add --loopback packets"
        );
        let is_direct = self.loopback == Own::Direct;
        ensure!(
            !is_direct || matches!(self.remote_faults, Responder::Stall | Responder::Rnr),
            "--remote-faults drop and resume-nak are about packets, and there are none: add --loopback packets"
        );
        ensure!(
            !is_direct || !self.prefault,
            "--prefault is about a message's first packet, and there are none: add --loopback packets"
        );
        Ok(())
    }

    /// Limit on the guest's answer to a fault, in seconds.
    pub fn fault_timeout(&self) -> Option<u64> {
        self.fault_timeout
    }

    /// Minimum durations of the devices' steps, if given.
    ///
    /// # Errors
    /// There is no such preset or file, or the file is not valid.
    pub fn timing(&self) -> Result<Option<NamedTiming>> {
        self.timing.as_deref().map(NamedTiming::open).transpose()
    }

    /// The preset or file of --timing, as given.
    pub fn timing_name(&self) -> Option<String> {
        self.timing.clone()
    }
}

/// "0.5", out of a hundred, is 5000 out of a million.
fn parts_per_million(text: &str) -> Result<u32, String> {
    let percent = text.parse::<f64>().ok().filter(|percent| (0.0..=100.0).contains(percent));
    let percent = percent.ok_or("give a number from 0 to 100, such as 1 or 0.1")?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to a million")]
    let parts = (percent * 10_000.0).round() as u32;
    Ok(parts)
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
    fn without_options_the_nic_has_its_default_configuration() {
        let line = Line::try_parse_from(["run"]).expect("valid");
        assert_eq!(line.nic.config(), NicConfig::default());
    }

    #[test]
    fn packets_are_lost_only_where_there_are_some() {
        let of = |line: &[&str]| {
            let line = Line::try_parse_from([&["run"], line].concat());
            line.map(|line| line.nic.config().loopback).map_err(|error| error.to_string())
        };
        assert_eq!(of(&["--loopback", "packets"]), Ok(Loopback::Packets { loss_ppm: 0 }));
        let lossy = of(&["--loopback", "packets", "--packet-loss", "0.1"]);
        assert_eq!(lossy, Ok(Loopback::Packets { loss_ppm: 1000 }));
        for bad in [
            &["--packet-loss", "1"][..],
            &["--loopback", "direct", "--packet-loss", "0"],
            &["--remote-faults", "drop"],
            &["--remote-faults", "resume-nak"],
            &["--prefault"],
        ] {
            let line = Line::try_parse_from([&["run"], bad].concat()).expect("valid apart");
            assert!(line.nic.check().unwrap_err().to_string().contains("--loopback packets"));
        }
        for bad in ["101", "-1", "many", "NaN"] {
            let error = of(&["--loopback", "packets", "--packet-loss", bad]).unwrap_err();
            assert!(bad == "-1" || error.contains("from 0 to 100"), "{error}");
        }
    }

    #[test]
    fn a_flush_may_leave_as_soft_roce_takes_it() {
        let line = Line::try_parse_from(["run", "--flush-icrc", "rxe"]).expect("valid");
        assert_eq!(line.nic.config().flush_icrc, FlushIcrc::SoftRoce);
    }

    #[test]
    fn values_that_the_device_does_not_support_are_refused() {
        for line in [["--page-faults", "0"], ["--page-faults", "513"], ["--remote-faults", "bounce"]] {
            assert!(Line::try_parse_from(["run", line[0], line[1]]).is_err(), "{line:?}");
        }
        let line = ["run", "--remote-faults", "resume-nak", "--prefault", "--loopback", "packets"];
        let config = Line::try_parse_from(line).expect("valid").nic.config();
        assert_eq!((config.remote_faults, config.packets.prefault), (RemoteFaults::ResumeNak, true));
        let line = ["run", "--remote-faults", "rnr", "--datagram-faults", "hold", "--fault-timeout", "2"];
        let config = Line::try_parse_from(line).expect("valid").nic.config();
        assert_eq!(
            (config.remote_faults, config.datagram_faults, config.page_request_timeout_ns),
            (RemoteFaults::Rnr, DatagramFaults::Hold, Some(2_000_000_000))
        );
    }
}
