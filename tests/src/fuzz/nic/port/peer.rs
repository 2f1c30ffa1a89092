//! Frames as a peer may make them up: near what would be right.

use core::net::{Ipv4Addr, Ipv6Addr};

use refault_abi::codes::{QPT_ETHERNET, QPT_GSI, QPT_RC};
use refault_bus::wire::EthernetFrame;
use refault_roce::{
    Addresses, Aeth, AtomicEth, Deth, Envelope, Feth, FlushIcrc, Opcode, Operation, Packet, Place, Psn, Reth,
    Service, Syndrome, frame,
};

use super::station::{End, FAST, Gid, MAC, PEER_MAC, PEER_QPN, PINNED, QKEY, SECRET, gid};
use crate::fuzz::feed::Feed;
use crate::fuzz::nic::{READ_ONLY, SOURCE, TARGET};

/// Longest payload.
const PAYLOAD_MAX: usize = frame::PAYLOAD_MAX;

/// What a peer knows besides queue pairs: keys and addresses.
pub(super) struct Keys {
    /// Of the pinned region, the one for fast registration, the process' memory, its own alone, on demand.
    pub(super) keys: [u32; 5],
}

/// One frame to `ends[index]`.
pub(super) fn one(feed: &mut Feed<'_>, ends: &[End], index: usize, keys: &Keys) -> EthernetFrame {
    let end = &ends[index];
    let mut packet = match end.queue.kind {
        QPT_RC if feed.below(4) == 0 => response(feed, end),
        QPT_RC => request(feed, end, keys),
        kind => datagram(feed, end, kind == QPT_GSI),
    };
    if feed.below(16) == 0 {
        packet.dest_qpn = feed.word32() & 0xff_ffff;
    }
    if feed.below(32) == 0 {
        packet.partition = feed.half();
    }
    let length = length(feed, end, &packet);
    finish(feed, end, &packet, length)
}

/// The packets of a message to `ends[index]`, in order, of which the peer may lose or repeat some.
pub(super) fn message(feed: &mut Feed<'_>, ends: &[End], index: usize, keys: &Keys) -> Vec<EthernetFrame> {
    let end = &ends[index];
    let (mtu, count) = (end.mtu(), 1 + feed.below(6) as u32);
    let last = 1 + feed.below(mtu.min(256));
    let total = (count as usize - 1) * mtu + last;
    let operation = feed.pick(&[Operation::Send, Operation::Write, Operation::Write]);
    let reth = Reth { length: total as u32, ..place_of(feed, keys) };
    let (fates, immediate) = (feed.byte(), feed.flag());
    let mut frames = Vec::new();
    for at in 0..count {
        let place = Place::of(at, count);
        let opcode = Opcode::new(Service::Rc, operation, place, immediate && place.ends());
        let mut packet = Packet::new(opcode.expect("one of RC"), end.queue.qpn, end.expected.after(at));
        packet.ack_request = place.ends();
        packet.reth = if operation == Operation::Write && place.begins() { reth } else { Reth::default() };
        let length = if place.ends() { last } else { mtu };
        let bytes = build(&envelope(end), &packet, length, 0x40 | at as u8);
        let times = if fates >> at & 1 == 0 { 1 } else { feed.below(3) };
        frames.extend((0..times).map(|_| EthernetFrame { bytes: bytes.clone(), sealed: false }));
    }
    frames
}

/// The answers that `end` waits for, as an honest responder gives them.
pub(super) fn honest(end: &End) -> Vec<EthernetFrame> {
    let mut frames = Vec::new();
    for request in &end.requests {
        let mut answer = |operation, place, psn, length| {
            let opcode = Opcode::new(Service::Rc, operation, place, false).expect("one of RC");
            let mut packet = Packet::new(opcode, end.queue.qpn, psn);
            packet.aeth = Aeth { syndrome: Syndrome::ACK, msn: 0 };
            let bytes = build(&envelope(end), &packet, length, 0x3c);
            frames.push(EthernetFrame { bytes, sealed: false });
        };
        match request.opcode.operation() {
            Operation::ReadRequest => {
                let (total, mtu) = (request.reth.length as usize, end.mtu());
                let count = total.div_ceil(mtu).max(1);
                for at in 0..count {
                    let place = Place::of(at as u32, count as u32);
                    let length = (total - at * mtu).min(mtu);
                    answer(Operation::ReadResponse, place, request.psn.after(at as u32), length);
                }
            }
            Operation::CompareSwap | Operation::FetchAdd => {
                answer(Operation::AtomicAcknowledge, Place::Only, request.psn, 0);
            }
            Operation::Flush | Operation::AtomicWrite => {
                answer(Operation::ReadResponse, Place::Only, request.psn, 0);
            }
            _ => answer(Operation::Acknowledge, Place::Only, request.psn, 0),
        }
    }
    frames
}

/// Any request of a connection.
fn request(feed: &mut Feed<'_>, end: &End, keys: &Keys) -> Packet {
    use Operation::{AtomicWrite, CompareSwap, FetchAdd, Flush, ReadRequest, Send, SendInvalidate, Write};
    let operation = feed.pick(&[
        Write,
        Send,
        ReadRequest,
        Write,
        FetchAdd,
        CompareSwap,
        AtomicWrite,
        SendInvalidate,
        Flush,
        ReadRequest,
    ]);
    let place = feed.pick(&[Place::Only, Place::Only, Place::First, Place::Middle, Place::Last]);
    let immediate = feed.below(4) == 0;
    let opcode = Opcode::new(Service::Rc, operation, place, immediate)
        .or_else(|| Opcode::new(Service::Rc, operation, Place::Only, false))
        .expect("each operation has a packet by itself");
    let psn = near(feed, end.expected);
    let mut packet = Packet::new(opcode, end.queue.qpn, psn);
    let place = place_of(feed, keys);
    packet.reth = Reth { length: total(feed, end), ..place };
    packet.atomic = AtomicEth { address: place.address, key: place.key, swap_or_add: 1, compare: 0 };
    packet.feth = Feth { whole_region: feed.flag(), global: feed.flag(), persistent: feed.flag() };
    packet.invalidate = feed.pick(&keys.keys);
    packet.ack_request = feed.below(4) != 0;
    packet.solicited = feed.flag();
    packet
}

/// Any response: near one that `end` may wait for.
fn response(feed: &mut Feed<'_>, end: &End) -> Packet {
    use Operation::{Acknowledge, AtomicAcknowledge, ReadResponse};
    let operation = feed.pick(&[Acknowledge, ReadResponse, AtomicAcknowledge]);
    let place = feed.pick(&[Place::Only, Place::First, Place::Middle, Place::Last]);
    let opcode = Opcode::new(Service::Rc, operation, place, false)
        .or_else(|| Opcode::new(Service::Rc, operation, Place::Only, false))
        .expect("each operation has a packet by itself");
    let asked = end.requests.get(feed.below(end.requests.len())).map_or(end.expected, |packet| packet.psn);
    let mut packet = Packet::new(opcode, end.queue.qpn, near(feed, asked));
    let code = feed.below(32) as u8;
    let syndrome = match feed.below(6) {
        0 => Syndrome::ReceiverNotReady(code),
        1 => Syndrome::Nak(refault_roce::Nak::Sequence),
        2 => Syndrome::Nak(refault_roce::Nak::RemoteAccess),
        _ => Syndrome::Ack(code),
    };
    packet.aeth = Aeth { syndrome, msn: feed.half().into() };
    packet.original = 0x4444_4444;
    packet
}

fn datagram(feed: &mut Feed<'_>, end: &End, is_management: bool) -> Packet {
    let opcode = Opcode::new(Service::Ud, Operation::Send, Place::Only, feed.flag()).expect("one of UD");
    let number = if is_management && feed.below(4) != 0 { 1 } else { end.queue.qpn };
    let mut packet = Packet::new(opcode, number, Psn::new(feed.half().into()));
    let key = if is_management { 0x8001_0000 } else { QKEY };
    packet.deth = Deth { q_key: if feed.below(8) == 0 { feed.word32() } else { key }, source_qpn: PEER_QPN };
    packet
}

/// A number near `base`.
fn near(feed: &mut Feed<'_>, base: Psn) -> Psn {
    let away = [0, 0, 0, 0, 0, 0, 1, 2, 5, 130, 1 << 23, (1 << 23) - 1];
    match feed.below(18) {
        choice @ 0..12 => base.after(away[choice]),
        choice @ 12..17 => base.after((choice as u32 - 11).wrapping_neg()),
        _ => Psn::new(feed.word32()),
    }
}

/// Memory that a request names: mostly inside a region, and of that region's key.
fn place_of(feed: &mut Feed<'_>, keys: &Keys) -> Reth {
    let choice = feed.byte();
    let region = usize::from(choice & 7) % 6;
    let start = [PINNED, FAST, TARGET, SECRET, TARGET, READ_ONLY][region];
    let key = keys.keys[[0, 1, 2, 3, 4, 2][region]];
    let offset = match choice >> 3 & 7 {
        0 => feed.word(),
        1 => 0x1000 - u64::from(feed.byte()),
        _ => u64::from(feed.byte()) << 5 & !7,
    };
    let key = match choice >> 6 {
        0 if feed.below(4) == 0 => key ^ 1 << feed.below(32),
        1 if feed.below(4) == 0 => feed.pick(&keys.keys),
        _ => key,
    };
    let start = if feed.below(64) == 0 { SOURCE } else { start };
    Reth { address: start.0.wrapping_add(offset), key, length: 0 }
}

fn total(feed: &mut Feed<'_>, end: &End) -> u32 {
    let mtu = end.mtu() as u32;
    match feed.below(12) {
        0 => feed.word32(),
        1 => mtu,
        2 => 2 * mtu + 3,
        3 => 0,
        4 => 20_000,
        5..=8 => 8,
        _ => feed.byte().into(),
    }
}

/// Bytes of payload for a packet: for the most part what it should have.
fn length(feed: &mut Feed<'_>, end: &End, packet: &Packet) -> usize {
    use Operation::{AtomicWrite, ReadResponse, Send, SendInvalidate, Write};
    let mtu = end.mtu();
    let right = match (packet.opcode.operation(), packet.opcode.place()) {
        (AtomicWrite, _) => 8,
        (Write, Place::Only) => (packet.reth.length as usize).min(mtu),
        (Send | SendInvalidate | Write | ReadResponse, Place::First | Place::Middle) => mtu,
        (Send | SendInvalidate | Write | ReadResponse, _) => 1 + usize::from(feed.byte()),
        _ => 0,
    };
    match feed.below(12) {
        0 => 0,
        1 => (right + 1).min(PAYLOAD_MAX),
        2 => right.saturating_sub(1),
        3 => PAYLOAD_MAX,
        _ => right.min(PAYLOAD_MAX),
    }
}

/// What carries packets from the peer of `end`.
pub(super) fn envelope(end: &End) -> Envelope {
    let Gid { own, peer, vlan } = gid(end.gid);
    let addresses = Addresses::from_gids(peer, own, 0).expect("both of one kind");
    let base = Envelope::v6(Ipv6Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED);
    Envelope { source_mac: PEER_MAC, dest_mac: MAC, vlan, addresses, ..base }
}

pub(super) fn build(envelope: &Envelope, packet: &Packet, length: usize, byte: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let place = frame::begin(&mut bytes, envelope, packet, length).expect("it is short enough");
    bytes[place].fill(byte);
    bytes
}

/// The frame, with addresses, ICRC and bytes right for the most part.
fn finish(feed: &mut Feed<'_>, end: &End, packet: &Packet, length: usize) -> EthernetFrame {
    let mut envelope = envelope(end);
    match feed.below(24) {
        0 => envelope.addresses = other_addresses(feed),
        1 => envelope.vlan = Some(feed.half()),
        2 => envelope.dest_mac = [0xff; 6],
        3 => envelope.dest_mac[5] = feed.byte(),
        4 => envelope.vlan = None,
        _ => {}
    }
    let mut bytes = build(&envelope, packet, length, feed.byte() & 0x7f);
    let choice = feed.below(12);
    match choice {
        0..4 => {}
        4 => frame::seal(&mut bytes, FlushIcrc::SoftRoce).expect("our own frame"),
        _ => frame::seal(&mut bytes, FlushIcrc::Standard).expect("our own frame"),
    }
    for _ in 0..feed.below(12).saturating_sub(8) {
        let at = usize::from(feed.half()) % bytes.len();
        bytes[at] ^= feed.byte();
    }
    match feed.below(32) {
        0 => bytes.truncate(usize::from(feed.byte())),
        1 => bytes.resize(bytes.len() + usize::from(feed.byte()), 0x7e),
        _ => {}
    }
    // Half of those that were not sealed say that they were.
    EthernetFrame { bytes, sealed: choice >= 2 }
}

fn other_addresses(feed: &mut Feed<'_>) -> Addresses {
    let last = feed.byte();
    match feed.below(3) {
        0 => Addresses::V4 { source: Ipv4Addr::new(10, 0, 0, last), dest: Ipv4Addr::new(10, 0, 0, 1) },
        1 => Addresses::V4 { source: Ipv4Addr::new(10, 0, 0, 2), dest: Ipv4Addr::new(10, 0, 0, last) },
        _ => {
            let (source, dest) = (gid(2).peer, Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, last.into()));
            Addresses::V6 { source, dest, flow_label: last.into() }
        }
    }
}

/// A frame that is no packet: anything, to the port, to a group, or to another.
pub(super) fn anything(feed: &mut Feed<'_>, end: &End) -> EthernetFrame {
    let dest = feed.pick(&[MAC, [0xff; 6], PEER_MAC]);
    let mut bytes = dest.to_vec();
    bytes.extend_from_slice(feed.bytes(255));
    if end.queue.kind == QPT_ETHERNET && feed.below(8) == 0 {
        bytes.resize(usize::from(feed.half()), 0x55);
    }
    EthernetFrame { bytes, sealed: true }
}
