//! The Ethernet port: its addresses, its wire, and which queue pair takes what arrives.

use core::net::Ipv6Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use refault_bus::wire::{EthernetFrame, Wire};
use refault_roce::{Addresses, Envelope, MacAddress};

use crate::config::LinkLayer;
use crate::stats::FrameStats;
use crate::verbs::Path;

/// Entries of the GID table.
pub(crate) const GIDS: u8 = 64;
/// Longest frame: 9000 bytes in IP, addresses, a VLAN's tag.
pub(crate) const MAX_FRAME: u16 = 9018;

/// Hop limit of a path that names none.
const HOP_LIMIT: u8 = 64;
/// Bit of a MAC address that stands for several receivers.
const GROUP: u8 = 1;
/// Low bits of a VLAN's tag: its number.
pub(crate) const VLAN_ID: u16 = 0xfff;

/// An entry of the GID table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gid {
    pub(crate) address: Ipv6Addr,
    /// What is sent from it bears this MAC address.
    pub(crate) mac: MacAddress,
    pub(crate) vlan: Option<u16>,
}

/// What the driver sets of the port, but for the GIDs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PortSetting {
    pub(crate) mac: MacAddress,
    /// It sends and receives.
    pub(crate) up: bool,
    pub(crate) promiscuous: bool,
    /// Event queue that hears of the signal.
    pub(crate) eqn: u32,
}

/// What becomes of frames, counted.
#[derive(Debug, Default)]
pub(crate) struct FrameCounters {
    pub(crate) sent: AtomicU64,
    pub(crate) sent_bytes: AtomicU64,
    pub(crate) received: AtomicU64,
    pub(crate) received_bytes: AtomicU64,
    /// Packets of RoCE among them.
    pub(crate) packets_sent: AtomicU64,
    pub(crate) packet_bytes_sent: AtomicU64,
    pub(crate) packets_received: AtomicU64,
    pub(crate) packet_bytes_received: AtomicU64,
    /// Sent without a wire, a signal, or an address.
    pub(crate) unsent: AtomicU64,
    /// For another MAC address, or nothing takes such frames.
    pub(crate) unwanted: AtomicU64,
    /// No packet of RoCE, though it says so.
    pub(crate) malformed: AtomicU64,
    pub(crate) bad_icrc: AtomicU64,
    /// For no queue pair that listens, or from another than its peer.
    pub(crate) unexpected: AtomicU64,
    /// No room, or no receive request.
    pub(crate) overflow: AtomicU64,
}

impl FrameCounters {
    pub(crate) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn stats(&self) -> FrameStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        FrameStats {
            sent: read(&self.sent),
            sent_bytes: read(&self.sent_bytes),
            received: read(&self.received),
            received_bytes: read(&self.received_bytes),
            packets_sent: read(&self.packets_sent),
            packet_bytes_sent: read(&self.packet_bytes_sent),
            packets_received: read(&self.packets_received),
            packet_bytes_received: read(&self.packet_bytes_received),
            unsent: read(&self.unsent),
            unwanted: read(&self.unwanted),
            malformed: read(&self.malformed),
            bad_icrc: read(&self.bad_icrc),
            unexpected: read(&self.unexpected),
            overflow: read(&self.overflow),
        }
    }

    pub(crate) fn count_sent(&self, bytes: usize) {
        Self::count(&self.sent);
        self.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn count_received(&self, bytes: usize) {
        Self::count(&self.received);
        self.received_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn count_packet_sent(&self, bytes: usize) {
        Self::count(&self.packets_sent);
        self.packet_bytes_sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn count_packet_received(&self, bytes: usize) {
        Self::count(&self.packets_received);
        self.packet_bytes_received.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// What changes while the port works.
#[derive(Debug)]
struct State {
    setting: PortSetting,
    carrier: bool,
    gids: [Option<Gid>; GIDS as usize],
    /// The queue pairs for management and for frames; zero: none.
    gsi: u32,
    raw: u32,
}

impl State {
    fn is_own(&self, mac: MacAddress) -> bool {
        mac == self.setting.mac || self.gids.iter().flatten().any(|gid| gid.mac == mac)
    }
}

/// An Ethernet port. Its lock is a leaf, and is not held while a frame is sent.
pub(crate) struct EthernetPort {
    /// As made: a reset brings it back.
    mac: MacAddress,
    pub(crate) has_roce: bool,
    wire: OnceLock<Arc<dyn Wire>>,
    state: RwLock<State>,
    pub(crate) counters: FrameCounters,
}

/// Who takes a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listener {
    /// The queue pair for frames as they are; zero: none.
    Raw(u32),
    /// RoCE: the queue pair that the packet names.
    Named,
}

impl EthernetPort {
    /// The port of a configuration, without a wire and down; `None` for InfiniBand.
    pub(crate) fn new(link: LinkLayer) -> Option<Self> {
        let LinkLayer::Ethernet { mac, roce } = link else { return None };
        let state = State {
            setting: PortSetting { mac, up: false, promiscuous: false, eqn: 0 },
            carrier: false,
            gids: [None; GIDS as usize],
            gsi: 0,
            raw: 0,
        };
        Some(Self {
            mac,
            has_roce: roce,
            wire: OnceLock::new(),
            state: RwLock::new(state),
            counters: FrameCounters::default(),
        })
    }

    fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Connects the port, unless it is connected.
    pub(crate) fn plug(&self, wire: Arc<dyn Wire>) {
        let _ = self.wire.set(wire);
    }

    /// As it was made, but for its wire and the signal on it.
    pub(crate) fn reset(&self) {
        self.set_signal(false);
        let mac = self.mac;
        self.change(|state| {
            state.setting = PortSetting { mac, up: false, promiscuous: false, eqn: 0 };
            state.gids = [None; GIDS as usize];
            (state.gsi, state.raw) = (0, 0);
        });
    }

    /// Whether frames to `mac` are for the port itself.
    pub(crate) fn has_mac(&self, mac: MacAddress) -> bool {
        self.read(|state| state.is_own(mac))
    }

    pub(crate) fn has_carrier(&self) -> bool {
        self.read(|state| state.carrier)
    }

    /// Notes whether there is a signal. Returns the event queue that is to hear of it, if that is news and the driver
    /// has set the port up.
    pub(crate) fn set_carrier(&self, carrier: bool) -> Option<u32> {
        self.change(|state| {
            let is_news = std::mem::replace(&mut state.carrier, carrier) != carrier;
            Some(state.setting.eqn).filter(|_| is_news && state.setting.up)
        })
    }

    pub(crate) fn set(&self, setting: PortSetting) {
        self.change(|state| state.setting = setting);
        self.set_signal(setting.up);
    }

    fn set_signal(&self, on: bool) {
        if let Some(wire) = self.wire.get() {
            wire.set_signal(on);
        }
    }

    /// Sets or empties an entry of the GID table; `false` if there is none of that number.
    pub(crate) fn set_gid(&self, index: u16, gid: Option<Gid>) -> bool {
        self.change(|state| state.gids.get_mut(usize::from(index)).map(|entry| *entry = gid).is_some())
    }

    pub(crate) fn gid(&self, index: u8) -> Option<Gid> {
        self.read(|state| *state.gids.get(usize::from(index))?)
    }

    /// Makes `qpn` the queue pair for management, or the one for frames; `false` if there is one.
    pub(crate) fn take_role(&self, is_raw: bool, qpn: u32) -> bool {
        self.change(|state| {
            let role = if is_raw { &mut state.raw } else { &mut state.gsi };
            let is_free = *role == 0;
            if is_free {
                *role = qpn;
            }
            is_free
        })
    }

    /// Queue pair `qpn` is gone.
    pub(crate) fn leave_role(&self, qpn: u32) {
        self.change(|state| {
            for role in [&mut state.gsi, &mut state.raw] {
                if *role == qpn {
                    *role = 0;
                }
            }
        });
    }

    /// The queue pair for management; zero: none.
    pub(crate) fn gsi(&self) -> u32 {
        self.read(|state| state.gsi)
    }

    /// Who takes a frame to `dest`, and whether that may be RoCE; `None` if the port does not want it.
    pub(crate) fn listener(&self, dest: MacAddress) -> Option<(Listener, u32)> {
        self.read(|state| {
            let PortSetting { up, promiscuous, .. } = state.setting;
            let is_own = state.is_own(dest);
            let is_wanted = up && (is_own || promiscuous || dest[0] & GROUP != 0);
            let listener = if is_own && self.has_roce { Listener::Named } else { Listener::Raw(state.raw) };
            is_wanted.then_some((listener, state.raw))
        })
    }

    /// Whether what arrived in `envelope` is for entry `index` of the GID table, or with `None` for any.
    pub(crate) fn is_for(&self, envelope: &Envelope, index: Option<u8>) -> bool {
        let (_, dest) = envelope.addresses.gids();
        let vlan = envelope.vlan.map(|tag| tag & VLAN_ID).filter(|&id| id != 0);
        let fits = |gid: &Gid| gid.address == dest && gid.vlan == vlan;
        self.read(|state| match index {
            Some(index) => state.gids.get(usize::from(index)).and_then(Option::as_ref).is_some_and(fits),
            None => state.gids.iter().flatten().any(fits),
        })
    }

    /// Whether a path leads to this port itself.
    pub(crate) fn is_own(&self, path: &Path, dest: Ipv6Addr) -> bool {
        self.read(|state| {
            let vlan = state.gids.get(usize::from(path.sgid_index)).copied().flatten().map(|gid| gid.vlan);
            let is_here = |gid: &Gid| gid.address == dest && gid.mac == path.dmac && Some(gid.vlan) == vlan;
            state.gids.iter().flatten().any(is_here)
        })
    }

    /// What carries a packet along a path to `dest`; `None` if its own GID is not there, or of the other version of IP.
    pub(crate) fn envelope(&self, path: &Path, dest: Ipv6Addr) -> Option<Envelope> {
        let own = self.gid(path.sgid_index)?;
        Some(Envelope {
            source_mac: own.mac,
            dest_mac: path.dmac,
            vlan: own.vlan,
            addresses: Addresses::from_gids(own.address, dest, path.flow_label)?,
            traffic_class: path.traffic_class,
            hop_limit: if path.hop_limit == 0 { HOP_LIMIT } else { path.hop_limit },
            source_port: path.source_port,
        })
    }

    /// Whether a frame may be sent: else it waits, because the far end is busy.
    pub(crate) fn is_ready(&self) -> bool {
        self.wire.get().is_none_or(|wire| wire.is_ready())
    }

    /// Sends a frame, or drops it if there is no signal. No lock of the NIC but requesters and guards may be held.
    pub(crate) fn send(&self, frame: EthernetFrame) -> bool {
        let may_send = self.read(|state| state.setting.up && state.carrier);
        let Some(wire) = self.wire.get().filter(|_| may_send && frame.bytes.len() <= MAX_FRAME.into()) else {
            FrameCounters::count(&self.counters.unsent);
            return false;
        };
        self.counters.count_sent(frame.bytes.len());
        wire.send(frame);
        true
    }
}

#[cfg(test)]
mod tests {
    use refault_roce::MacAddress;

    use super::*;

    const MAC: MacAddress = [2, 0, 0, 0, 0, 1];
    const PEER: MacAddress = [2, 0, 0, 0, 0, 2];

    fn port() -> EthernetPort {
        let port = EthernetPort::new(LinkLayer::Ethernet { mac: MAC, roce: true }).unwrap();
        port.set(PortSetting { mac: MAC, up: true, promiscuous: false, eqn: 3 });
        port
    }

    #[test]
    fn a_port_wants_what_is_for_it_and_for_groups() {
        let port = port();
        assert!(port.take_role(true, 9) && !port.take_role(true, 10));
        assert_eq!(port.listener(MAC), Some((Listener::Named, 9)));
        assert_eq!(port.listener([0xff; 6]), Some((Listener::Raw(9), 9)));
        assert_eq!(port.listener(PEER), None);
        port.set(PortSetting { mac: MAC, up: true, promiscuous: true, eqn: 3 });
        assert_eq!(port.listener(PEER), Some((Listener::Raw(9), 9)));
        port.leave_role(9);
        assert!(port.take_role(true, 10));
        port.reset();
        assert_eq!(port.listener(MAC), None, "it is down");
    }

    #[test]
    fn news_of_the_signal_go_to_the_queue_that_asked() {
        let port = port();
        assert_eq!(port.set_carrier(false), None, "as it was");
        assert_eq!(port.set_carrier(true), Some(3));
        port.reset();
        assert_eq!(port.set_carrier(false), None, "nothing is set up");
    }

    #[test]
    fn a_path_goes_out_from_its_own_gid() {
        let port = port();
        let address = |text: &str| text.parse::<Ipv6Addr>().unwrap();
        let path = Path { dmac: PEER, sgid_index: 1, source_port: 0xc123, ..Path::NONE };
        assert_eq!(port.envelope(&path, address("::ffff:10.0.0.2")), None, "there is no such GID");
        let own = Gid { address: address("::ffff:10.0.0.1"), mac: MAC, vlan: Some(7) };
        assert!(port.set_gid(1, Some(own)) && !port.set_gid(GIDS.into(), Some(own)));
        let envelope = port.envelope(&path, address("::ffff:10.0.0.2")).unwrap();
        assert_eq!((envelope.source_mac, envelope.dest_mac, envelope.vlan), (MAC, PEER, Some(7)));
        assert_eq!((envelope.hop_limit, envelope.source_port), (HOP_LIMIT, 0xc123));
        assert_eq!(port.envelope(&path, address("fe80::2")), None, "the other version of IP");
        let back =
            Envelope { vlan: Some(7 | 5 << 13), ..Envelope::v4([10, 0, 0, 2].into(), [10, 0, 0, 1].into()) };
        assert!(port.is_for(&back, None) && port.is_for(&back, Some(1)) && !port.is_for(&back, Some(0)));
        assert!(!port.is_for(&Envelope { vlan: None, ..back }, None), "another VLAN");
        assert!(!port.is_own(&path, own.address), "it goes to another MAC address");
        assert!(port.is_own(&Path { dmac: MAC, ..path }, own.address));
    }
}
