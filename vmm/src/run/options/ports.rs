//! Options of several NICs, and of the links between them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use refault_bus::Bdf;
use refault_link::Impairments;
use refault_net::{Address, Outlet, Side};
use refault_nic::{LinkLayer, NicConfig};
use refault_os::message::note;
use refault_rig::cable::{CableOptions, CaptureTo, Port};

/// Maximum number of NICs of a machine.
const NICS_MAX: usize = 8;
/// PCI device number of the first one; the others follow.
const FIRST_DEVICE: u8 = 3;
/// The first bytes of MAC addresses: locally administered, "RF". The machine, the link and the NIC follow.
const MAC_START: [u8; 3] = [0x02, 0x52, 0x46];
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
    /// Where the link of the last NIC on Ethernet leads, if it is joined to no other: unix:PATH to another refault or to
    /// QEMU's `-netdev stream`, udp:LOCAL,REMOTE to another host, tap:NAME to the host's own network
    #[arg(long, value_name = "ADDRESS")]
    uplink: Option<Address>,
    /// Start the command when the machine at the other end of the uplink is there
    #[arg(long, requires = "uplink")]
    uplink_wait: bool,
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
    /// The usual NIC, and behind it two RoCE ports for each of `links`, to whose frames that happens.
    pub fn with_links(links: impl IntoIterator<Item = Impairments>) -> Self {
        let mut ports = Self { kinds: vec![Kind::Ib], ..Self::default() };
        for impairments in links {
            for _ in 0..2 {
                let sender = Some(ports.kinds.len());
                ports.wires.push(WireSpec { sender, impairments: impairments.clone() });
                ports.kinds.push(Kind::Roce);
            }
        }
        ports
    }

    /// Checks what the options mean together.
    ///
    /// # Errors
    /// There are too many NICs, no link, or no such NIC.
    pub fn check(&self) -> Result<()> {
        ensure!(self.kinds.len() <= NICS_MAX, "--nic: a machine has {NICS_MAX} NICs at most");
        ensure!(
            self.uplink.is_none() || self.ethernet().len() % 2 == 1,
            "--uplink: every NIC on Ethernet is joined to another one; add one that is not: --nic roce"
        );
        let joined = self.joined();
        if joined.is_empty() {
            let option = if self.wires.is_empty() { "--capture" } else { "--wire" };
            ensure!(
                self.wires.is_empty() && self.capture.is_none(),
                "{option}: there is no link; a link joins two NICs on Ethernet: add --nic roce --nic roce, or --uplink"
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

    /// Whether the command waits for the other end of the uplink.
    pub fn waits_for_uplink(&self) -> bool {
        self.uplink_wait
    }

    /// Checks what a nested machine, which has a network of its own, cannot serve.
    ///
    /// # Errors
    /// There is an uplink.
    pub fn check_nested(&self) -> Result<()> {
        ensure!(
            self.uplink.is_none(),
            "--uplink: a nested machine cannot reach this host's sockets and network: add --host qemu"
        );
        Ok(())
    }

    /// Whether the user asked for a count of frames.
    pub fn reports(&self) -> bool {
        !self.wires.is_empty() || self.capture.is_some()
    }

    /// The file of the capture.
    pub fn capture(&self) -> Option<&Path> {
        self.capture.as_deref()
    }

    /// Opens the address of the uplink: before the sandbox is entered.
    ///
    /// # Errors
    /// It is in use, or this process may not use it.
    pub fn open_uplink(&self) -> Result<Option<Arc<Outlet>>> {
        let outlet = self.uplink.as_ref().map(Outlet::open).transpose();
        outlet.context("--uplink")
    }

    /// The first NIC and the others: `usual`, each in its place, on its link, under its own names. Of two machines that meet
    /// at an uplink, each has its own addresses.
    pub fn configs(&self, usual: &NicConfig, side: Side) -> (NicConfig, Vec<NicConfig>) {
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
            let machine = u8::from(side == Side::Second);
            let mac = mac(machine, u8::try_from(at / 2).unwrap_or(u8::MAX), number);
            let roce = self.kinds.get(index) == Some(&Kind::Roce);
            NicConfig { link: LinkLayer::Ethernet { mac, roce }, node_guid: eui_64(mac), ..own }
        };
        (config(0), (1..self.kinds.len()).map(config).collect())
    }

    /// What happens on the links. Begins the capture, whose file must be open before the sandbox is entered.
    ///
    /// # Errors
    /// That file cannot be written.
    pub fn cables(&self, uplink: Option<Arc<Outlet>>) -> Result<CableOptions> {
        let spec = |number: Option<usize>| self.wires.iter().find(|spec| spec.sender == number);
        let sends = self.ethernet().into_iter().map(|number| spec(Some(number)).or_else(|| spec(None)));
        let sends = sends.map(|spec| spec.map(|spec| spec.impairments.clone()).unwrap_or_default());
        let capture = self.capture.as_ref().map(|path| {
            let file =
                File::create(path).with_context(|| format!("--capture: cannot write {}", path.display()))?;
            let limit = usize::try_from(self.capture_bytes)?;
            anyhow::Ok(CaptureTo { name: path.display().to_string(), to: Box::new(file), limit })
        });
        Ok(CableOptions { sends: sends.collect(), capture: capture.transpose()?, uplink: uplink.map(port) })
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
        if self.uplink.is_none() {
            numbers.truncate(numbers.len() / 2 * 2);
        }
        numbers
    }
}

/// The outlet as what the last NIC is joined to.
fn port(outlet: Arc<Outlet>) -> Port {
    let plugged = outlet.clone();
    let plug = move |wire| {
        if let Err(error) = plugged.start(wire) {
            note(&format!("--uplink: {error:#}; the guest goes on without it"));
        }
    };
    Port { name: "uplink".into(), port: outlet, plug: Box::new(plug) }
}

fn names(numbers: &[usize]) -> String {
    numbers.iter().map(|number| format!("nic{number}")).collect::<Vec<_>>().join(", ")
}

fn mac(machine: u8, link: u8, number: u8) -> [u8; 6] {
    let [a, b, c] = MAC_START;
    [a, b, c, machine, link, number]
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
        assert_eq!(parse("").configs(&usual, Side::First), (usual.clone(), vec![]));
        assert_eq!(parse("--nic ib").configs(&usual, Side::Second), (usual, vec![]));
        assert!(!parse("").has_ethernet() && parse("").check().is_ok());
    }

    #[test]
    fn ports_have_names_and_addresses_of_their_own() {
        let args = parse("--nic roce --nic ib --nic ether --nic roce");
        let (first, others) = args.configs(&NicConfig::default(), Side::First);
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
    fn an_uplink_is_the_other_end_of_the_last_nic() {
        let args = parse("--nic ib --nic roce --uplink unix:/tmp/wire --wire nic1:loss=1%");
        args.check().expect("valid");
        let (_, others) = args.configs(&NicConfig::default(), Side::Second);
        assert_eq!(others[0].link, LinkLayer::Ethernet { mac: [2, 0x52, 0x46, 1, 0, 1], roce: true });
        assert_eq!(args.cables(None).expect("no file").sends.len(), 1);
    }

    #[test]
    fn what_happens_is_for_all_links_or_for_a_sender() {
        let args = parse("--nic roce --nic roce --wire loss=1% --wire nic1:delay=1us,seed=4");
        args.check().expect("valid");
        let sends: Vec<_> =
            args.cables(None).expect("no file").sends.iter().map(ToString::to_string).collect();
        assert_eq!(sends, ["loss=1%,seed=1", "delay=1us,seed=4"]);
        assert_eq!(args.lines(), ["links: loss=1%,seed=1", "nic1 sends: delay=1us,seed=4"]);
    }

    #[test]
    fn what_has_no_link_is_refused() {
        for (line, part) in [
            ("--wire loss=1%", "--wire: there is no link"),
            ("--nic roce --wire loss=1%", "there is no link"),
            ("--nic ib --nic ib --capture x", "--capture: there is no link"),
            ("--nic roce --nic ether --uplink tap:tap0", "--uplink: every NIC on Ethernet is joined"),
            ("--uplink tap:tap0", "add one that is not"),
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
            ("--nic roce --uplink wire", "give unix:PATH"),
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
            .cables(None)
            .map(|_| ())
            .expect_err("no folder");
        assert!(error.to_string().contains("/nonexistent/x"), "{error}");
    }
}
