//! Any packet survives the wire, any bytes are survived, and another parser of IP reads what we write.

use etherparse::{NetHeaders, PacketHeaders, TransportHeader};
use proptest::collection::vec;
use proptest::prelude::*;
use refault_roce::{
    Addresses, Aeth, AtomicEth, Deth, Dropped, Envelope, Feth, FlushIcrc, Headers, Nak, Opcode, Packet, Psn,
    Reth, Syndrome, UDP_PORT, frame,
};

fn any_opcode() -> impl Strategy<Value = Opcode> {
    proptest::sample::select(Opcode::all().collect::<Vec<_>>())
}

fn any_syndrome() -> impl Strategy<Value = Syndrome> {
    prop_oneof![
        (0..32u8).prop_map(Syndrome::Ack),
        (0..32u8).prop_map(Syndrome::ReceiverNotReady),
        proptest::sample::select(vec![
            Nak::Sequence,
            Nak::InvalidRequest,
            Nak::RemoteAccess,
            Nak::RemoteOperation
        ])
        .prop_map(Syndrome::Nak),
    ]
}

prop_compose! {
    fn any_flags()(flags in any::<[bool; 5]>(), partition: u16) -> ([bool; 5], u16) {
        (flags, partition)
    }
}

prop_compose! {
    /// A packet whose opcode calls for no header has zeros there.
    fn any_packet()(
        opcode in any_opcode(),
        qpn in 0..1u32 << 24,
        psn: u32,
        (flags, partition) in any_flags(),
        q_key: u32,
        source_qpn in 0..1u32 << 24,
        feth in any::<[bool; 3]>(),
        (address, key, length) in any::<(u64, u32, u32)>(),
        (swap_or_add, compare, original) in any::<(u64, u64, u64)>(),
        syndrome in any_syndrome(),
        msn in 0..1u32 << 24,
        immediate: [u8; 4],
        invalidate: u32,
    ) -> Packet {
        let [solicited, migrated, ack_request, fecn, becn] = flags;
        let mut packet = Packet {
            partition, solicited, migrated, ack_request, fecn, becn, ..Packet::new(opcode, qpn, Psn::new(psn))
        };
        let headers = opcode.headers();
        if headers.has(Headers::DETH) {
            packet.deth = Deth { q_key, source_qpn };
        }
        if headers.has(Headers::FETH) {
            packet.feth = Feth { whole_region: feth[0], global: feth[1], persistent: feth[2] };
        }
        if headers.has(Headers::RETH) {
            packet.reth = Reth { address, key, length };
        }
        if headers.has(Headers::ATOMIC) {
            packet.atomic = AtomicEth { address, key, swap_or_add, compare };
        }
        if headers.has(Headers::AETH) {
            packet.aeth = Aeth { syndrome, msn };
        }
        if headers.has(Headers::ORIGINAL) {
            packet.original = original;
        }
        if headers.has(Headers::IMMEDIATE) {
            packet.immediate = immediate;
        }
        if headers.has(Headers::INVALIDATE) {
            packet.invalidate = invalidate;
        }
        packet
    }
}

fn any_addresses() -> impl Strategy<Value = Addresses> {
    let v4 = any::<([u8; 4], [u8; 4])>()
        .prop_map(|(source, dest)| Addresses::V4 { source: source.into(), dest: dest.into() });
    let v6 = (any::<([u8; 16], [u8; 16])>(), 0..1u32 << 20).prop_map(|((source, dest), flow_label)| {
        Addresses::V6 { source: source.into(), dest: dest.into(), flow_label }
    });
    prop_oneof![v4, v6]
}

prop_compose! {
    fn any_envelope()(
        source_mac: [u8; 6],
        dest_mac: [u8; 6],
        vlan: Option<u16>,
        addresses in any_addresses(),
        traffic_class: u8,
        hop_limit: u8,
        source_port: u16,
    ) -> Envelope {
        Envelope { source_mac, dest_mac, vlan, addresses, traffic_class, hop_limit, source_port }
    }
}

fn build(envelope: &Envelope, packet: &Packet, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let place = frame::begin(&mut bytes, envelope, packet, payload.len()).expect("a legal length");
    bytes[place].copy_from_slice(payload);
    frame::seal(&mut bytes, FlushIcrc::Standard).expect("our own frame");
    bytes
}

proptest! {
    #[test]
    fn any_packet_survives_the_wire(
        envelope in any_envelope(),
        packet in any_packet(),
        payload in vec(any::<u8>(), 0..64),
    ) {
        let bytes = build(&envelope, &packet, &payload);
        let received = frame::parse(&bytes).expect("our own frame");
        prop_assert_eq!(received.envelope, envelope);
        prop_assert_eq!(received.packet, packet);
        prop_assert_eq!(received.payload, &payload);
        prop_assert_eq!(frame::parse_unsealed(&bytes).expect("the same").packet, packet);
    }

    #[test]
    fn another_parser_reads_the_same_ip_and_udp(
        envelope in any_envelope(),
        packet in any_packet(),
        payload in vec(any::<u8>(), 0..64),
    ) {
        let bytes = build(&envelope, &packet, &payload);
        let other = PacketHeaders::from_ethernet_slice(&bytes).expect("a legal frame");
        match (envelope.addresses, other.net.expect("IP")) {
            (Addresses::V4 { source, dest }, NetHeaders::Ipv4(header, _)) => {
                prop_assert_eq!((source.octets(), dest.octets()), (header.source, header.destination));
                prop_assert_eq!(header.calc_header_checksum(), header.header_checksum);
                prop_assert!(header.dont_fragment && !header.more_fragments);
                prop_assert_eq!(header.time_to_live, envelope.hop_limit);
            }
            (Addresses::V6 { source, dest, flow_label }, NetHeaders::Ipv6(header, _)) => {
                prop_assert_eq!((source.octets(), dest.octets()), (header.source, header.destination));
                prop_assert_eq!(header.flow_label.value(), flow_label);
                prop_assert_eq!(header.traffic_class, envelope.traffic_class);
                prop_assert_eq!(header.hop_limit, envelope.hop_limit);
            }
            other => prop_assert!(false, "{other:?}"),
        }
        let Some(TransportHeader::Udp(udp)) = other.transport else { panic!("no UDP") };
        prop_assert_eq!((udp.source_port, udp.destination_port), (envelope.source_port, UDP_PORT));
        prop_assert_eq!(usize::from(udp.length), 8 + other.payload.slice().len());
    }

    #[test]
    fn any_bytes_are_survived(bytes in vec(any::<u8>(), 0..200)) {
        let _ = frame::parse(&bytes);
        let _ = frame::parse_unsealed(&bytes);
    }

    #[test]
    fn a_frame_with_wrong_bytes_is_read_within_itself_or_dropped(
        packet in any_packet(),
        changes in vec((0..100usize, any::<u8>()), 1..6),
        cut in 0..100usize,
    ) {
        let mut bytes = build(&Envelope::v4([10, 0, 0, 1].into(), [10, 0, 0, 2].into()), &packet, &[7; 21]);
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        bytes.truncate(bytes.len() - cut % bytes.len());
        let _ = frame::seal(&mut bytes.clone(), FlushIcrc::SoftRoce);
        match frame::parse_unsealed(&bytes) {
            Ok(received) => prop_assert!(received.payload.len() < bytes.len()),
            Err(error) => prop_assert_ne!(error, Dropped::Icrc),
        }
    }
}
