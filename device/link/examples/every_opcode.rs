//! Writes a capture with packets of each opcode, by IPv4 and IPv6, with a VLAN's tag and without, to see what tshark makes of
//! them:
//!
//! ```text
//! cargo run -p refault-link --example every_opcode -- /tmp/opcodes.pcapng && tshark -V -r /tmp/opcodes.pcapng
//! ```

use std::fs::File;
use std::io::{self, BufWriter, Write};

use refault_link::{Capture, Direction, Sighting};
use refault_roce::{
    Aeth, AtomicEth, Deth, Envelope, Feth, FlushIcrc, Opcode, Operation, Packet, Psn, Reth, Syndrome, frame,
};

fn main() -> io::Result<()> {
    let path =
        std::env::args().nth(1).ok_or_else(|| io::Error::other("the path of the capture is missing"))?;
    write(BufWriter::new(File::create(path)?))
}

/// Writes the capture.
///
/// # Errors
///
/// Those of `to`.
pub(crate) fn write(to: impl Write) -> io::Result<()> {
    let mut capture = Capture::new(to, &["left", "right"], 65536)?;
    let mut psn = 0;
    for opcode in Opcode::all() {
        for envelope in envelopes() {
            psn += 1;
            let bytes = frame_of(opcode, psn, &envelope);
            let comment = format!("opcode {:#04x}", opcode.to_byte());
            let sighting = Sighting {
                port: u32::from(opcode.is_response()),
                time_ns: u64::from(psn) * 1000,
                direction: Direction::Out,
                frame: &bytes,
                comments: &[comment.as_str()],
            };
            capture.add(&sighting)?;
        }
    }
    capture.finish().map(drop)
}

/// The ways to carry a packet.
fn envelopes() -> [Envelope; 4] {
    let v4 = Envelope::v4([10, 77, 0, 1].into(), [10, 77, 0, 2].into());
    let v6 = Envelope::v6("fe80::1".parse().expect("an address"), "fe80::2".parse().expect("an address"));
    [v4, Envelope { vlan: Some(7), ..v4 }, v6, Envelope { vlan: Some(7 | 3 << 13), ..v6 }]
}

/// A packet with headers as they may be.
fn frame_of(opcode: Opcode, psn: u32, envelope: &Envelope) -> Vec<u8> {
    let payload: &[u8] = match opcode.operation() {
        Operation::Send | Operation::SendInvalidate | Operation::Write | Operation::ReadResponse => {
            &[0x55; 66]
        }
        Operation::AtomicWrite => b"8 bytes.",
        _ => b"",
    };
    let mut packet = Packet::new(opcode, 0x11, Psn::new(psn));
    packet.ack_request = !opcode.is_response() && opcode.place().ends();
    packet.deth = Deth { q_key: 0x1234, source_qpn: 0x12 };
    packet.reth = Reth { address: 0x7f00_0000_1000, key: 0x1_0001, length: 66 };
    packet.atomic = AtomicEth { address: 0x7f00_0000_1000, key: 0x1_0001, swap_or_add: 2, compare: 1 };
    packet.feth = Feth { whole_region: false, global: true, persistent: true };
    packet.aeth = Aeth { syndrome: Syndrome::ACK, msn: psn };
    packet.original = 1;
    packet.immediate = *b"imm!";
    packet.invalidate = 0x1_0001;
    if opcode.operation() == Operation::AtomicWrite {
        packet.reth.length = 8;
    }
    let mut bytes = Vec::new();
    let place = frame::begin(&mut bytes, envelope, &packet, payload.len()).expect("it is short");
    bytes[place].copy_from_slice(payload);
    frame::seal(&mut bytes, FlushIcrc::Standard).expect("our own frame");
    bytes
}
