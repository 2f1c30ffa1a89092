//! Options of several NICs, and of the links between them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use refault_bus::Bdf;
use refault_link::Impairments;
use refault_nic::{LinkLayer, NicConfig};
use refault_rig::cable::{CableOptions, CaptureTo};

/// Maximum number of NICs of a machine.
const NICS_MAX: usize = 8;
/// PCI device number of the first one; the others follow.
const FIRST_DEVICE: u8 = 3;
/// The first bytes of MAC addresses: locally administered, "RF".
const MAC_START: [u8; 4] = [0x02, 0x52, 0x46, 0x00];
/// The bit of a MAC address that is inverted in an EUI-64 (RFC 4291, appendix A).
const UNIVERSAL: u8 = 0x02;

/// What a function of the machine is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// An InfiniBand port that reaches itself alone.
    #[default]
    Ib,
    /// RoCE v2 on an Ethernet port.
    Roce,
    /// A network interface without RDMA, on which soft-RoCE can be stacked.
    Ether,
}

/// Options of the machine's ports.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "NICs and links")]
pub struct PortArgs {
    /// A NIC, nic0 and up; the first two on Ethernet are joined by a link, the next two by another [default: ib]
    #[arg(long = "nic", value_enum, value_name = "KIND")]
    kinds: Vec<Kind>,
    /// What happens to frames on links, or to those that nicN sends: loss=1%,delay=10us,drop=read_response_middle#3
    ///
    /// loss=RATE, delay=TIME, jitter=TIME, rate=BITS (in a second: 10G), queue=BYTES (that wait for that), reorder=RATE,
    /// hold=N (frames that pass a reordered one), duplicate=RATE, corrupt=RATE (one bit), down=TIME+TIME (when, how long),
    /// seed=N. To certain frames: drop=, duplicate=, corrupt=, reorder=FRAMES, down=FRAMES+TIME, where FRAMES is any, other
    /// (not RoCE), roce, or packets such as read_response_middle, write, ud_send_only, ack, nak, rnr or flush, then /QPN for
    /// those to one queue pair, then #3, #3-5 or #3- for some of them.
    #[arg(long = "wire", value_name = "[nicN:]SPEC")]
    wires: Vec<WireSpec>,
    /// Write the frames on links into this file, in the format pcapng
    #[arg(long, value_name = "FILE")]
    capture: Option<PathBuf>,
    /// Bytes to keep of each frame
    #[arg(long, value_name = "N", default_value_t = 65536, requires = "capture")]
    capture_bytes: u32,
}

/// `loss=1%`, or `nic1:loss=1%` for what that NIC sends.
#[derive(Clone, Debug, PartialEq, Eq)]
struct WireSpec {
    sender: Option<usize>,
    impairments: Impairments,
}

impl FromStr for WireSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (sender, items) = match text.split_once(':') {
            None => (None, text),
            Some((name, items)) => {
                let number = name.strip_prefix("nic").and_then(|number| number.parse().ok());
                let number =
                    number.ok_or_else(|| format!("`{name}` is no NIC: expected nic0, nic1 and so on"))?;
                (Some(number), items)
            }
        };
        let impairments = items.parse().map_err(|error: refault_link::SpecError| error.to_string())?;
        Ok(Self { sender, impairments })
    }
}

impl PortArgs {
    /// Checks what the options mean together.
    ///
    /// # Errors
    /// There are too many NICs, no link, or no such NIC.
    pub fn check(&self) -> Result<()> {
        ensure!(self.kinds.len() <= NICS_MAX, "--nic: a machine has {NICS_MAX} NICs at most");
        let joined = self.joined();
        if joined.is_empty() {
            let option = if self.wires.is_empty() { "--capture" } else { "--wire" };
            ensure!(
                self.wires.is_empty() && self.capture.is_none(),
                "{option}: there is no link; a link joins two NICs on Ethernet: add --nic roce --nic roce"
            );
        }
        for (at, WireSpec { sender, .. }) in self.wires.iter().enumerate() {
            let of = sender.map_or_else(|| "all links".into(), |number| format!("nic{number}"));
            let twice = self.wires[..at].iter().any(|before| before.sender == *sender);
            ensure!(!twice, "--wire: given twice for {of}; write one list, separated by commas");
            if let Some(number) = sender.filter(|number| !joined.contains(number)) {
                bail!("--wire: nic{number} is on no link; these are: {}", names(&joined));
            }
        }
        Ok(())
    }

    /// Whether there are NICs besides the one that there always is.
    pub fn is_given(&self) -> bool {
        !self.kinds.is_empty()
    }

    /// Whether there is more than one NIC.
    pub fn are_several(&self) -> bool {
        self.kinds.len() > 1
    }

    /// Whether there is a NIC on Ethernet, which the guest must set up.
    pub fn has_ethernet(&self) -> bool {
        !self.ethernet().is_empty()
    }

    /// Whether the user wants to know what became of frames.
    pub fn reports(&self) -> bool {
        !self.wires.is_empty() || self.capture.is_some()
    }

    /// The file of the capture.
    pub fn capture(&self) -> Option<&Path> {
        self.capture.as_deref()
    }

    /// The first NIC and the others: `usual`, each in its place, on its link, under its own names.
    pub fn configs(&self, usual: &NicConfig) -> (NicConfig, Vec<NicConfig>) {
        let ethernet = self.ethernet();
        let config = |index: usize| {
            let number = u8::try_from(index).unwrap_or(u8::MAX);
            let own = NicConfig {
                bdf: Bdf::new(0, FIRST_DEVICE + number, 0),
                node_guid: usual.node_guid + u64::from(number),
                lid: usual.lid + u16::from(number),
                ..usual.clone()
            };
            let Some(at) = ethernet.iter().position(|other| *other == index) else { return own };
            let mac = mac(u8::try_from(at / 2).unwrap_or(u8::MAX), number);
            let roce = self.kinds.get(index) == Some(&Kind::Roce);
            NicConfig { link: LinkLayer::Ethernet { mac, roce }, node_guid: eui_64(mac), ..own }
        };
        (config(0), (1..self.kinds.len()).map(config).collect())
    }

    /// What happens on the links. Begins the capture, whose file must be open before the sandbox is entered.
    ///
    /// # Errors
    /// That file cannot be written.
    pub fn cables(&self) -> Result<CableOptions> {
        let spec = |number: Option<usize>| self.wires.iter().find(|spec| spec.sender == number);
        let sends = self.ethernet().into_iter().map(|number| spec(Some(number)).or_else(|| spec(None)));
        let sends = sends.map(|spec| spec.map(|spec| spec.impairments.clone()).unwrap_or_default());
        let capture = self.capture.as_ref().map(|path| {
            let file =
                File::create(path).with_context(|| format!("--capture: cannot write {}", path.display()))?;
            let limit = usize::try_from(self.capture_bytes)?;
            anyhow::Ok(CaptureTo { name: path.display().to_string(), to: Box::new(file), limit })
        });
        Ok(CableOptions { sends: sends.collect(), capture: capture.transpose()? })
    }

    /// What happens to frames, as it can be given again.
    pub fn lines(&self) -> Vec<String> {
        let who = |spec: &WireSpec| match spec.sender {
            Some(number) => format!("nic{number} sends"),
            None => "links".into(),
        };
        self.wires.iter().map(|spec| format!("{}: {}", who(spec), spec.impairments)).collect()
    }

    /// The numbers of the NICs on Ethernet.
    fn ethernet(&self) -> Vec<usize> {
        let numbered = self.kinds.iter().enumerate();
        numbered.filter(|(_, kind)| **kind != Kind::Ib).map(|(number, _)| number).collect()
    }

    /// Those of them that are on a link.
    fn joined(&self) -> Vec<usize> {
        let mut numbers = self.ethernet();
        numbers.truncate(numbers.len() / 2 * 2);
        numbers
    }
}

fn names(numbers: &[usize]) -> String {
    numbers.iter().map(|number| format!("nic{number}")).collect::<Vec<_>>().join(", ")
}

fn mac(link: u8, number: u8) -> [u8; 6] {
    let [a, b, c, d] = MAC_START;
    [a, b, c, d, link, number]
}

/// The EUI-64 that Linux makes of a MAC address.
fn eui_64([a, b, c, d, e, f]: [u8; 6]) -> u64 {
    u64::from_be_bytes([a ^ UNIVERSAL, b, c, 0xff, 0xfe, d, e, f])
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        ports: PortArgs,
    }

    fn parse(line: &str) -> PortArgs {
        let words = ["run"].into_iter().chain(line.split_whitespace());
        Line::try_parse_from(words).expect(line).ports
    }

    #[test]
    fn without_options_there_is_the_usual_nic() {
        let usual = NicConfig::default();
        assert_eq!(parse("").configs(&usual), (usual.clone(), vec![]));
        assert_eq!(parse("--nic ib").configs(&usual), (usual, vec![]));
        assert!(!parse("").has_ethernet() && parse("").check().is_ok());
    }

    #[test]
    fn ports_have_names_and_addresses_of_their_own() {
        let args = parse("--nic roce --nic ib --nic ether --nic roce");
        let (first, others) = args.configs(&NicConfig::default());
        let link = |config: &NicConfig| config.link;
        let ethernet = |mac, roce| LinkLayer::Ethernet { mac, roce };
        assert_eq!(link(&first), ethernet([2, 0x52, 0x46, 0, 0, 0], true));
        assert_eq!(link(&others[0]), LinkLayer::InfiniBand);
        assert_eq!(link(&others[1]), ethernet([2, 0x52, 0x46, 0, 0, 2], false));
        assert_eq!(link(&others[2]), ethernet([2, 0x52, 0x46, 0, 1, 3], true));
        assert_eq!(others[2].node_guid, 0x0052_46ff_fe00_0103);
        assert_eq!(others[1].bdf, Bdf::new(0, 5, 0));
        assert_eq!(args.joined(), [0, 2], "the last one is alone");
    }

    #[test]
    fn what_happens_is_for_all_links_or_for_a_sender() {
        let args = parse("--nic roce --nic roce --wire loss=1% --wire nic1:delay=1us,seed=4");
        args.check().expect("valid");
        let sends: Vec<_> = args.cables().expect("no file").sends.iter().map(ToString::to_string).collect();
        assert_eq!(sends, ["loss=1%,seed=1", "delay=1us,seed=4"]);
        assert_eq!(args.lines(), ["links: loss=1%,seed=1", "nic1 sends: delay=1us,seed=4"]);
    }

    #[test]
    fn what_has_no_link_is_refused() {
        for (line, part) in [
            ("--wire loss=1%", "--wire: there is no link"),
            ("--nic roce --wire loss=1%", "there is no link"),
            ("--nic ib --nic ib --capture x", "--capture: there is no link"),
            ("--nic roce --nic roce --nic roce --wire nic2:loss=1%", "these are: nic0, nic1"),
            ("--nic roce --nic roce --wire loss=1% --wire delay=1us", "given twice for all links"),
            (
                "--nic ib --nic ib --nic ib --nic ib --nic ib --nic ib --nic ib --nic ib --nic ib",
                "8 NICs at most",
            ),
        ] {
            let error = parse(line).check().expect_err(line).to_string();
            assert!(error.contains(part), "{line}: {error}");
        }
        for (line, part) in [
            ("--wire eth0:loss=1%", "expected nic0"),
            ("--wire los=1%", "choose from loss"),
            ("--capture-bytes 64", "--capture"),
            ("--nic token-ring", "ib, roce, ether"),
        ] {
            let words = ["run"].into_iter().chain(line.split_whitespace());
            let error = Line::try_parse_from(words).expect_err(line).to_string();
            assert!(error.contains(part), "{line}: {error}");
        }
    }

    #[test]
    fn a_capture_that_cannot_be_written_is_named() {
        let error = parse("--nic roce --nic roce --capture /nonexistent/x")
            .cables()
            .map(|_| ())
            .expect_err("no folder");
        assert!(error.to_string().contains("/nonexistent/x"), "{error}");
    }
}
