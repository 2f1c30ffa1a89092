//! Ethernet, IP and UDP around a packet: their layouts, and what is accepted of them.

use core::net::{Ipv4Addr, Ipv6Addr};

use zerocopy::big_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::dropped::{Dropped, take};
use crate::envelope::{Addresses, Envelope, UDP_PORT};

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct EthernetWire {
    dest: [u8; 6],
    source: [u8; 6],
    kind: U16,
}

/// RFC 791, without options.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Ipv4Wire {
    version_and_words: u8,
    traffic_class: u8,
    length: U16,
    identification: U16,
    fragment: U16,
    hop_limit: u8,
    protocol: u8,
    checksum: U16,
    source: [u8; 4],
    dest: [u8; 4],
}

/// RFC 8200, without extension headers.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Ipv6Wire {
    /// Version 31:28, traffic class 27:20, flow label 19:0.
    first: U32,
    length: U16,
    protocol: u8,
    hop_limit: u8,
    source: [u8; 16],
    dest: [u8; 16],
}

/// RFC 768.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct UdpWire {
    source: U16,
    dest: U16,
    length: U16,
    checksum: U16,
}

pub(crate) const IPV4_BYTES: usize = size_of::<Ipv4Wire>();
pub(crate) const IPV6_BYTES: usize = size_of::<Ipv6Wire>();
pub(crate) const UDP_BYTES: usize = size_of::<UdpWire>();

/// The same, as lengths are written in them.
const IPV4_LENGTH: u16 = 20;
const UDP_LENGTH: u16 = 8;
const _: () = assert!(IPV4_LENGTH as usize == IPV4_BYTES && UDP_LENGTH as usize == UDP_BYTES);

const KIND_VLAN: u16 = 0x8100;
const KIND_IPV4: u16 = 0x0800;
const KIND_IPV6: u16 = 0x86dd;
const PROTOCOL_UDP: u8 = 17;
/// Version 4, five words.
const VERSION_4: u8 = 0x45;
const VERSION_6: u32 = 6;
const DO_NOT_FRAGMENT: u16 = 1 << 14;
const FLOW_LABEL: u32 = 0xf_ffff;

/// Appends the headers for `length` bytes inside UDP. Returns where IP begins.
pub(crate) fn write(envelope: &Envelope, length: u16, to: &mut Vec<u8>) -> usize {
    let udp_length = UDP_LENGTH + length;
    let kind = match envelope.addresses {
        Addresses::V4 { .. } => KIND_IPV4,
        Addresses::V6 { .. } => KIND_IPV6,
    };
    let first_kind = if envelope.vlan.is_some() { KIND_VLAN } else { kind };
    let ethernet =
        EthernetWire { dest: envelope.dest_mac, source: envelope.source_mac, kind: first_kind.into() };
    to.extend_from_slice(ethernet.as_bytes());
    if let Some(tag) = envelope.vlan {
        to.extend_from_slice([U16::from(tag), U16::from(kind)].as_bytes());
    }
    let ip = to.len();
    match envelope.addresses {
        Addresses::V4 { source, dest } => {
            let mut header = Ipv4Wire {
                version_and_words: VERSION_4,
                traffic_class: envelope.traffic_class,
                length: (IPV4_LENGTH + udp_length).into(),
                identification: 0.into(),
                fragment: DO_NOT_FRAGMENT.into(),
                hop_limit: envelope.hop_limit,
                protocol: PROTOCOL_UDP,
                checksum: 0.into(),
                source: source.octets(),
                dest: dest.octets(),
            };
            header.checksum = checksum(header.as_bytes()).into();
            to.extend_from_slice(header.as_bytes());
        }
        Addresses::V6 { source, dest, flow_label } => {
            let class = u32::from(envelope.traffic_class) << 20;
            let header = Ipv6Wire {
                first: (VERSION_6 << 28 | class | flow_label & FLOW_LABEL).into(),
                length: udp_length.into(),
                protocol: PROTOCOL_UDP,
                hop_limit: envelope.hop_limit,
                source: source.octets(),
                dest: dest.octets(),
            };
            to.extend_from_slice(header.as_bytes());
        }
    }
    // No checksum: the ICRC is the better one, and rxe sends none either, by both versions of IP.
    let (source, dest) = (envelope.source_port.into(), UDP_PORT.into());
    let udp = UdpWire { source, dest, length: udp_length.into(), checksum: 0.into() };
    to.extend_from_slice(udp.as_bytes());
    ip
}

/// A frame's headers, and what IP carries.
pub(crate) struct Opened<'a> {
    pub(crate) envelope: Envelope,
    /// Where in the frame the IP header begins.
    pub(crate) ip_start: usize,
    /// From the IP header to the end of UDP: bytes that Ethernet pads a frame with are cut off.
    pub(crate) ip: &'a [u8],
    /// Bytes of the IP header.
    pub(crate) ip_header: usize,
}

/// Reads the headers of a frame.
pub(crate) fn read(frame: &[u8]) -> Result<Opened<'_>, Dropped> {
    let mut rest = frame;
    let ethernet: EthernetWire = take(&mut rest)?;
    let mut kind = ethernet.kind.get();
    let mut vlan = None;
    if kind == KIND_VLAN {
        let [tag, inner]: [U16; 2] = take(&mut rest)?;
        vlan = Some(tag.get());
        kind = inner.get();
    }
    let mut envelope = Envelope {
        source_mac: ethernet.source,
        dest_mac: ethernet.dest,
        vlan,
        ..Envelope::v4(Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED)
    };
    let ip_start = frame.len() - rest.len();
    let (ip_header, ip_length) = match kind {
        KIND_IPV4 => read_ipv4(rest, &mut envelope)?,
        KIND_IPV6 => read_ipv6(rest, &mut envelope)?,
        _ => return Err(Dropped::NotRoce),
    };
    let ip = rest.get(..ip_length).ok_or(Dropped::Short)?;
    let mut inside = ip.get(ip_header..).ok_or(Dropped::Short)?;
    let udp: UdpWire = take(&mut inside)?;
    if udp.dest.get() != UDP_PORT {
        return Err(Dropped::NotRoce);
    }
    envelope.source_port = udp.source.get();
    let end = ip_header + usize::from(udp.length.get());
    let ip = ip.get(..end).filter(|_| end >= ip_header + UDP_BYTES).ok_or(Dropped::Short)?;
    Ok(Opened { envelope, ip_start, ip, ip_header })
}

/// Bytes of the header, and of all of it.
fn read_ipv4(mut rest: &[u8], envelope: &mut Envelope) -> Result<(usize, usize), Dropped> {
    let header: Ipv4Wire = take(&mut rest)?;
    let is_whole = header.fragment.get() & !DO_NOT_FRAGMENT == 0;
    if header.version_and_words != VERSION_4 || !is_whole || header.protocol != PROTOCOL_UDP {
        return Err(Dropped::NotRoce);
    }
    if checksum(header.as_bytes()) != 0 {
        return Err(Dropped::IpChecksum);
    }
    envelope.addresses =
        Addresses::V4 { source: Ipv4Addr::from(header.source), dest: Ipv4Addr::from(header.dest) };
    envelope.traffic_class = header.traffic_class;
    envelope.hop_limit = header.hop_limit;
    Ok((IPV4_BYTES, usize::from(header.length.get())))
}

/// Bytes of the header, and of all of it.
fn read_ipv6(mut rest: &[u8], envelope: &mut Envelope) -> Result<(usize, usize), Dropped> {
    let header: Ipv6Wire = take(&mut rest)?;
    let first = header.first.get();
    if first >> 28 != VERSION_6 || header.protocol != PROTOCOL_UDP {
        return Err(Dropped::NotRoce);
    }
    envelope.addresses = Addresses::V6 {
        source: Ipv6Addr::from(header.source),
        dest: Ipv6Addr::from(header.dest),
        flow_label: first & FLOW_LABEL,
    };
    let [high, low, ..] = first.to_be_bytes();
    envelope.traffic_class = high << 4 | low >> 4;
    envelope.hop_limit = header.hop_limit;
    Ok((IPV6_BYTES, IPV6_BYTES + usize::from(header.length.get())))
}

/// The ones' complement sum of an IPv4 header, complemented (RFC 1071): of a header with the right one it is 0.
fn checksum(header: &[u8]) -> u16 {
    let words = header.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let [_, _, high, low] = (folded + (folded >> 16)).to_be_bytes();
    !u16::from_be_bytes([high, low])
}
