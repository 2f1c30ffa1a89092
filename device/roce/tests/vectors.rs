//! Frames whose ICRC is known: two that ConnectX-4 Lx adapters sent (published with scapy's tests), and others whose ICRC
//! was computed by a program of its own. Soft-RoCE's FLUSH is what its code computes.

use refault_roce::{
    Addresses, Aeth, Dropped, Envelope, Feth, FlushIcrc, Opcode, Operation, Packet, Place, Psn, Reth,
    Service, Syndrome, frame,
};

/// A frame around a packet that is given from its IP header on, spaces and all.
fn framed(hex: &str) -> Vec<u8> {
    let digits: Vec<_> = hex.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let text = |pair: &[u8]| String::from_utf8_lossy(pair).into_owned();
    let bytes = digits.chunks(2).map(|pair| u8::from_str_radix(&text(pair), 16).expect("hexadecimal"));
    let mut frame = vec![0; 12];
    frame.extend_from_slice(if hex.starts_with('4') { &[0x08, 0x00] } else { &[0x86, 0xdd] });
    frame.extend(bytes);
    frame
}

const CNP: &str = "45c2003c718c4000401191610a0011010a001201 000012b700280000 8100ffff4000011800000000
    00000000000000000000000000000000 82fd002a";
const UC_SEND: &str = "45010040047840004011b4d5c0a80007c0a80007 c00012b7002c0000 2460ffff000000d300cf1710
    4630818be28935d90e9a95505401be885e500000 78f353f3";
const ACK_V4: &str = "4500003000004000401126bb0a0000010a000002 c12312b7001c0000 1100ffff0000001100000abc
    1f000001 669ad7b1";
const ACK_V6: &str = "60000000001c1140fe80000000000000020052fffe460001fe80000000000000020052fffe460002
    c12312b7001c0000 1100ffff0000001100000abc 1f000001 e1a36a1e";
const WRITE: &str = "4500004400004000401126a70a0000010a000002 c12312b700300000 0a30ffff0000001180000abd
    00000000000010000000123400000005 68656c6c6f000000 858ff77a";
const FLUSH: &str = "4500004000004000401126ab0a0000010a000002 c12312b7002c0000 1c00ffff0000001180000abe
    00000002 00000000000010000000123400001000 6179f39c";

#[test]
fn frames_of_hardware_are_accepted() {
    let bytes = framed(CNP);
    let cnp = frame::parse(&bytes).unwrap();
    assert_eq!(cnp.packet.opcode, Opcode::CONGESTION);
    assert!(cnp.packet.becn && !cnp.packet.ack_request);
    assert_eq!((cnp.packet.dest_qpn, cnp.packet.psn, cnp.payload), (0x118, Psn::new(0), &[][..]));
    assert_eq!((cnp.envelope.traffic_class, cnp.envelope.source_port), (0xc2, 0));

    let bytes = framed(UC_SEND);
    let send = frame::parse(&bytes).unwrap();
    let only = Opcode::new(Service::Uc, Operation::Send, Place::Only, false).unwrap();
    assert_eq!(
        (send.packet.opcode, send.packet.dest_qpn, send.packet.psn),
        (only, 0xd3, Psn::new(0x00cf_1710))
    );
    assert_eq!(send.payload.len(), 18, "two of twenty bytes are padding");
    assert!(send.packet.migrated);
}

/// The packet of a vector, its envelope and payload.
fn build(envelope: Envelope, packet: Packet, payload: &[u8], flush: FlushIcrc) -> Vec<u8> {
    let mut frame = Vec::new();
    let place = frame::begin(&mut frame, &envelope, &packet, payload.len()).unwrap();
    frame[place].copy_from_slice(payload);
    frame::seal(&mut frame, flush).unwrap();
    frame
}

fn rc(operation: Operation, psn: u32) -> Packet {
    let opcode = Opcode::new(Service::Rc, operation, Place::Only, false).unwrap();
    Packet { migrated: false, ..Packet::new(opcode, 0x11, Psn::new(psn)) }
}

fn v4() -> Envelope {
    Envelope { source_port: 0xc123, ..Envelope::v4([10, 0, 0, 1].into(), [10, 0, 0, 2].into()) }
}

#[test]
fn what_is_built_equals_the_vectors() {
    let ack = Packet { aeth: Aeth { syndrome: Syndrome::ACK, msn: 1 }, ..rc(Operation::Acknowledge, 0xabc) };
    assert_eq!(build(v4(), ack, &[], FlushIcrc::Standard), framed(ACK_V4));
    let v6 = Envelope {
        addresses: Addresses::V6 {
            source: "fe80::200:52ff:fe46:1".parse().unwrap(),
            dest: "fe80::200:52ff:fe46:2".parse().unwrap(),
            flow_label: 0,
        },
        ..v4()
    };
    assert_eq!(build(v6, ack, &[], FlushIcrc::Standard), framed(ACK_V6));
    let reth = Reth { address: 0x1000, key: 0x1234, length: 5 };
    let write = Packet { reth, ack_request: true, ..rc(Operation::Write, 0xabd) };
    assert_eq!(build(v4(), write, b"hello", FlushIcrc::Standard), framed(WRITE));
}

#[test]
fn a_flush_is_accepted_with_both_crcs() {
    let flush = Packet {
        feth: Feth { persistent: true, ..Feth::default() },
        reth: Reth { address: 0x1000, key: 0x1234, length: 0x1000 },
        ack_request: true,
        ..rc(Operation::Flush, 0xabe)
    };
    let standard = build(v4(), flush, &[], FlushIcrc::Standard);
    assert_eq!(standard, framed(FLUSH));
    assert_eq!(frame::parse(&standard).unwrap().icrc, Some(FlushIcrc::Standard));
    let soft_roce = build(v4(), flush, &[], FlushIcrc::SoftRoce);
    assert_eq!(soft_roce, framed(&FLUSH.replace("6179f39c", "d81fd7c2")));
    assert_eq!(frame::parse(&soft_roce).unwrap().icrc, Some(FlushIcrc::SoftRoce));
}

#[test]
fn only_a_flush_has_two_crcs() {
    let write = Packet { reth: Reth::default(), ..rc(Operation::Write, 1) };
    let standard = build(v4(), write, b"hello", FlushIcrc::Standard);
    assert_eq!(build(v4(), write, b"hello", FlushIcrc::SoftRoce), standard);
}

#[test]
fn what_routers_change_is_not_covered() {
    let mut frame = framed(WRITE);
    let ip = 14;
    // Type of service, and time to live with the checksum that a router makes of it.
    frame[ip + 1] = 0x03;
    frame[ip + 8] = 0x3f;
    let sum: u32 = (ip..ip + 20)
        .step_by(2)
        .filter(|&at| at != ip + 10)
        .map(|at| u32::from(frame[at]) << 8 | u32::from(frame[at + 1]))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    frame[ip + 10..ip + 12].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    // A UDP checksum, FECN.
    frame[ip + 26..ip + 28].copy_from_slice(&[0x12, 0x34]);
    frame[ip + 32] |= 0x80;
    let received = frame::parse(&frame).unwrap();
    assert!(received.packet.fecn);
    assert_eq!((received.envelope.hop_limit, received.envelope.traffic_class), (0x3f, 3));
}

#[test]
fn each_bit_of_the_payload_and_the_transport_is_covered() {
    let good = framed(WRITE);
    let (bth, end) = (14 + 20 + 8, good.len());
    for bit in bth * 8..end * 8 {
        let mut frame = good.clone();
        frame[bit / 8] ^= 0x80 >> (bit % 8);
        // FECN, BECN and six reserved bits beside them are not.
        let is_free = bit / 8 == bth + 4;
        assert_eq!(frame::parse(&frame).is_ok(), is_free, "bit {bit}");
    }
}

#[test]
fn what_is_wrong_has_a_name() {
    let good = framed(WRITE);
    let with = |at: usize, byte: u8| {
        let mut frame = good.clone();
        frame[at] = byte;
        frame::parse(&frame).map(|_| ()).unwrap_err()
    };
    let (ip, udp, bth) = (14, 34, 42);
    assert_eq!(with(12, 0x86), Dropped::NotRoce, "another protocol");
    assert_eq!(with(ip + 6, 0x20), Dropped::NotRoce, "a fragment");
    assert_eq!(with(ip, 0x46), Dropped::NotRoce, "options");
    assert_eq!(with(ip + 9, 6), Dropped::NotRoce, "TCP");
    assert_eq!(with(udp + 3, 0xb8), Dropped::NotRoce, "another port");
    assert_eq!(with(ip + 15, 9), Dropped::IpChecksum);
    assert_eq!(with(udp + 4, 9), Dropped::Short, "more than IP carries");
    assert_eq!(with(bth, 0x15), Dropped::Opcode(0x15));
    assert_eq!(with(bth + 1, 0x31), Dropped::Version(1));
    assert_eq!(with(good.len() - 1, 0), Dropped::Icrc);
    for length in 0..good.len() {
        assert!(frame::parse(&good[..length]).is_err());
    }
}

#[test]
fn bytes_behind_the_ip_packet_are_ignored() {
    let mut frame = framed(ACK_V4);
    frame.extend_from_slice(&[0xee; 7]);
    assert!(frame::parse(&frame).is_ok());
}

#[test]
fn a_payload_beyond_the_largest_mtu_is_refused() {
    let (mut frame, packet) = (Vec::new(), rc(Operation::Send, 1));
    assert!(frame::begin(&mut frame, &v4(), &packet, frame::PAYLOAD_MAX).is_some());
    assert_eq!(frame::begin(&mut frame, &v4(), &packet, frame::PAYLOAD_MAX + 1), None);
}
