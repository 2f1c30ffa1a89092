use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// UDP port of RoCE v2 (annex A17.4.4; IANA).
pub const UDP_PORT: u16 = 4791;

/// Address of an Ethernet port.
pub type MacAddress = [u8; 6];

/// Who sends a packet, and to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// By IPv4.
    V4 {
        /// The sender.
        source: Ipv4Addr,
        /// The receiver.
        dest: Ipv4Addr,
    },
    /// By IPv6.
    V6 {
        /// The sender.
        source: Ipv6Addr,
        /// The receiver.
        dest: Ipv6Addr,
        /// Flow label, 20 bits.
        flow_label: u32,
    },
}

impl Addresses {
    /// Both as IPv6 addresses, which is what GIDs are: an IPv4 address is mapped (::ffff:a.b.c.d), as Linux does.
    #[must_use]
    pub fn gids(&self) -> (Ipv6Addr, Ipv6Addr) {
        match *self {
            Self::V4 { source, dest } => (source.to_ipv6_mapped(), dest.to_ipv6_mapped()),
            Self::V6 { source, dest, .. } => (source, dest),
        }
    }

    /// Between two GIDs. `None` if one of them is an IPv4 address and the other one is not.
    #[must_use]
    pub fn from_gids(source: Ipv6Addr, dest: Ipv6Addr, flow_label: u32) -> Option<Self> {
        match (source.to_canonical(), dest.to_canonical()) {
            (IpAddr::V4(source), IpAddr::V4(dest)) => Some(Self::V4 { source, dest }),
            (IpAddr::V6(source), IpAddr::V6(dest)) => Some(Self::V6 { source, dest, flow_label }),
            _ => None,
        }
    }
}

/// What carries a packet: Ethernet, IP and UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// MAC address of the sender.
    pub source_mac: MacAddress,
    /// MAC address of the next hop.
    pub dest_mac: MacAddress,
    /// Tag of a VLAN: priority 15:13, drop eligible 12, identifier 11:0.
    pub vlan: Option<u16>,
    /// Who sends it, and to whom.
    pub addresses: Addresses,
    /// IPv4 type of service, or IPv6 traffic class. The low two bits are ECN.
    pub traffic_class: u8,
    /// IPv4 time to live, or IPv6 hop limit.
    pub hop_limit: u8,
    /// UDP port of the sender, which tells flows apart where paths are chosen.
    pub source_port: u16,
}

/// First of the source ports of RoCE (`IB_ROCE_UDP_ENCAP_VALID_PORT_MIN`).
const FIRST_PORT: u16 = 0xc000;
const HOP_LIMIT: u8 = 64;

impl Envelope {
    /// From `source` to `dest`, by IPv4, with MAC addresses of zero.
    #[must_use]
    pub fn v4(source: Ipv4Addr, dest: Ipv4Addr) -> Self {
        Self::new(Addresses::V4 { source, dest })
    }

    /// From `source` to `dest`, by IPv6, with MAC addresses of zero.
    #[must_use]
    pub fn v6(source: Ipv6Addr, dest: Ipv6Addr) -> Self {
        Self::new(Addresses::V6 { source, dest, flow_label: 0 })
    }

    fn new(addresses: Addresses) -> Self {
        Self {
            source_mac: [0; 6],
            dest_mac: [0; 6],
            vlan: None,
            addresses,
            traffic_class: 0,
            hop_limit: HOP_LIMIT,
            source_port: FIRST_PORT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gids_are_ipv6_addresses_or_mapped_ones() {
        let v4 = Envelope::v4([10, 0, 0, 1].into(), [10, 0, 0, 2].into()).addresses;
        let (source, dest) = v4.gids();
        assert_eq!(source.to_string(), "::ffff:10.0.0.1");
        assert_eq!(Addresses::from_gids(source, dest, 7), Some(v4));
        let v6 = "fe80::1".parse().unwrap();
        assert_eq!(Addresses::from_gids(v6, dest, 0), None);
        let both = Addresses::V6 { source: v6, dest: v6, flow_label: 7 };
        assert_eq!(Addresses::from_gids(v6, v6, 7), Some(both));
    }
}
