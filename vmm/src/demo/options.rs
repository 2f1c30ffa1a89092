//! Options of `refault demo`, and the guest's command line for them.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::builder::PossibleValuesParser;
use refault_link::Impairments;

use crate::run::options::device::NicArgs;
use crate::run::options::host::HostArgs;
use crate::run::options::parse::Size;
use crate::run::sandbox::SandboxArgs;

/// Folder of the runs, below the current one.
pub const RUNS: &str = "target/refault";

/// All scenarios, in the order in which they run (guest-driver/workload/demo/main.c).
pub const SCENARIOS: [&str; 8] =
    ["steady", "reflink-cow", "exchange", "punch", "truncate", "fsync", "kill", "pinned"];

/// Parses a number of seconds or a factor that the guest's program accepts.
fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| *number > 0.0 && *number < 1e6);
    number.ok_or_else(|| "expected a number above 0 and below 1000000".into())
}

/// How the device translates addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// By the process's address space, which the IOMMU translates.
    Pasid,
    /// By the NIC's own table, which its driver fills.
    Odp,
    /// By pinned pages: the kernel refuses that for the file.
    Pinned,
    /// As pasid, and the writer is another NIC on the other end of a wire.
    Remote,
    /// The same, over a wire that loses frames.
    Lossy,
}

impl Mode {
    /// Its name, on the command line and in the table.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pasid => "pasid",
            Self::Odp => "odp",
            Self::Pinned => "pinned",
            Self::Remote => "remote",
            Self::Lossy => "lossy",
        }
    }
}

/// Size of the file's mappings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Mapping {
    /// 4 KiB.
    #[value(name = "4k")]
    Small,
    /// 2 MiB.
    #[value(name = "2m")]
    Large,
    /// Both, 4 KiB first.
    #[default]
    Both,
}

/// Options of `refault demo`.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoArgs {
    /// Scenario to run [default: all]
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(SCENARIOS))]
    pub scenario: Vec<String>,
    /// How the device translates, and where the writer is; may be repeated [default: all; remote and lossy with one
    /// size of mappings]
    #[arg(long, value_enum)]
    pub mode: Vec<Mode>,
    /// Size of the file's mappings
    #[arg(long, value_enum, default_value_t)]
    pub mapping: Mapping,
    /// Multiplies each scenario's goals: operations, blocks moved, faults, kills [default: 1, less on a slow
    /// machine]
    #[arg(long, value_name = "X", value_parser = positive)]
    pub scale: Option<f64>,
    /// Size of the file that is written into
    #[arg(long, value_name = "SIZE", default_value = "64M")]
    pub size: Size,
    /// Minimum time for each scenario, in the guest
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0, value_parser = positive)]
    pub seconds: f64,
    /// Time for all scenarios, divided among them; one that cannot do enough in its share is slow, which is not a failure
    #[arg(long, value_name = "SECONDS", default_value_t = 540.0, value_parser = positive)]
    pub budget: f64,
    /// Queue pairs that write at the same time
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(2..=16))]
    pub queue_pairs: u32,
    /// What happens to frames on the wire of mode lossy, as `refault run --wire` takes it
    #[arg(long, value_name = "SPEC", default_value = "loss=1%,reorder=0.5%,seed=1")]
    pub wire: Impairments,
    /// Seed of all random choices
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Number of guest CPUs
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..))]
    pub cpus: u8,
    /// Guest memory
    #[arg(long, value_name = "SIZE", default_value = "768M")]
    pub memory: Size,
    /// Persistent memory for the filesystem, lost when the guest ends
    #[arg(long, value_name = "SIZE", default_value = "512M")]
    pub pmem: Size,
    /// Folder in which the run's folder is created
    #[arg(long, value_name = "DIR", default_value = RUNS)]
    pub out: PathBuf,
    /// Run the scenarios on the model guest instead: in seconds, without a download, KVM or root
    #[arg(long)]
    pub model: bool,
    /// Record the guest's part of the faults too, which costs the guest some time; leaves out modes remote and lossy
    #[arg(long)]
    pub guest_stages: bool,
    /// The NIC
    #[command(flatten)]
    pub nic: NicArgs,
    /// What runs the guest
    #[command(flatten)]
    pub host: HostArgs,
    /// What the process may do
    #[command(flatten)]
    pub sandbox: SandboxArgs,
    /// Consider the run hung, and stop it, after this time [default: four budgets and ten minutes]
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
    /// Write verdicts as JUnit XML into this file, a test for each scenario in each mode
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
}

impl DemoArgs {
    /// Checks that the file's layout allows its size, and that the filesystem is large enough: three reflink copies may
    /// no longer share any block with the file, and XFS needs at least 300 MB, and room for a log.
    ///
    /// # Errors
    /// A size does not fit; the error says what to do.
    pub fn check(&self) -> Result<()> {
        let (unit, least_size, most_size) = (4 << 20, 16 << 20, 16 << 30);
        ensure!(
            self.size.0.is_multiple_of(unit) && (least_size..=most_size).contains(&self.size.0),
            "--size must be a multiple of 4M, from 16M to 16G"
        );
        ensure!(
            !self.guest_stages || !self.mode.iter().any(|mode| matches!(mode, Mode::Remote | Mode::Lossy)),
            "--guest-stages records the faults of a single NIC: not with --mode remote or lossy"
        );
        let least = self.size.0.saturating_mul(4).saturating_add(256 << 20);
        ensure!(
            self.pmem.0 >= least,
            "--pmem is too small for a file of {} MiB and its copies: expected {}M or more",
            self.size.0 >> 20,
            least.div_ceil(1 << 20)
        );
        Ok(())
    }

    /// Time after which the run counts as hung. Scenarios keep to the budget by themselves, and waits in the guest that
    /// end at all end within minutes, so even a slow machine stays far below it.
    pub fn hang_timeout(&self) -> Duration {
        let derived = || Duration::from_secs_f64(self.budget * 4.0 + 600.0);
        self.timeout.map_or_else(derived, Duration::from_secs)
    }

    /// The guest's command, its name first.
    pub fn command(&self) -> Vec<OsString> {
        let mapping = match self.mapping {
            Mapping::Small => "4k",
            Mapping::Large => "2m",
            Mapping::Both => "both",
        };
        let mut words: Vec<String> =
            ["refault-demo", "--control", "/dev/refault-control", "--mapping", mapping]
                .map(Into::into)
                .into();
        let mut option = |name: &str, value: String| words.extend([name.to_string(), value]);
        if let Some(scale) = self.scale {
            option("--scale", scale.to_string());
        }
        option("--seconds", self.seconds.to_string());
        option("--budget", self.budget.to_string());
        option("--file-size", self.size.0.to_string());
        option("--qps", self.queue_pairs.to_string());
        option("--seed", self.seed.to_string());
        for (name, pair) in super::wires::devices(self) {
            option(name, pair);
        }
        self.mode.iter().for_each(|mode| option("--mode", mode.name().into()));
        self.scenario.iter().for_each(|name| option("--scenario", name.clone()));
        words.into_iter().map(OsString::from).collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        demo: DemoArgs,
    }

    #[test]
    fn too_little_persistent_memory_is_refused_with_the_size_needed() {
        let check = |line: &[&str]| Line::try_parse_from(line).expect("valid").demo.check();
        check(&["demo"]).expect("the defaults fit");
        check(&["demo", "--size", "128M", "--pmem", "768M"]).expect("just enough");
        let error = check(&["demo", "--size", "128M"]).expect_err("too little");
        assert!(error.to_string().contains("768M"), "{error}");
        for size in ["9999999T", "0", "15M", "18M"] {
            check(&["demo", "--size", size]).expect_err(size);
        }
    }

    #[test]
    fn values_that_the_guest_would_refuse_are_refused_before_it_starts() {
        for name in ["--budget", "--scale", "--seconds"] {
            for value in ["0", "-1", "nan", "1e308", "inf"] {
                let line = format!("{name}={value}");
                assert!(Line::try_parse_from(["demo", &line]).is_err(), "{line}");
            }
        }
        for line in ["--scenario=typo", "--queue-pairs=1", "--queue-pairs=17", "--cpus=0"] {
            assert!(Line::try_parse_from(["demo", line]).is_err(), "{line}");
        }
    }

    #[test]
    fn the_hang_timeout_is_far_beyond_the_budget_unless_it_was_given() {
        let hang_timeout = |line: &[&str]| Line::try_parse_from(line).expect("valid").demo.hang_timeout();
        assert_eq!(hang_timeout(&["demo"]), Duration::from_secs(2760));
        assert_eq!(hang_timeout(&["demo", "--budget", "1000"]), Duration::from_secs(4600));
        assert_eq!(hang_timeout(&["demo", "--budget", "1000", "--timeout", "7"]), Duration::from_secs(7));
    }

    #[test]
    fn the_guest_gets_the_options_that_were_given() {
        let line = [
            "demo",
            "--mode",
            "odp",
            "--mapping",
            "2m",
            "--scenario",
            "kill",
            "--scenario",
            "punch",
            "--size",
            "128M",
        ];
        let command = Line::try_parse_from(line).expect("valid").demo.command();
        let text = command.join(&OsString::from(" ")).into_string().expect("UTF-8");
        assert!(text.contains("--mapping 2m") && text.contains("--file-size 134217728"), "{text}");
        assert!(text.ends_with("--mode odp --scenario kill --scenario punch"), "{text}");
    }
}
