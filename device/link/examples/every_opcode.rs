//! Writes a capture with a packet of each opcode, to see what tshark makes of them:
//!
//! ```text
//! cargo run -p refault-link --example every_opcode -- /tmp/opcodes.pcapng && tshark -V -r /tmp/opcodes.pcapng
//! ```

use std::fs::File;
use std::io::{self, BufWriter};

use refault_link::{Capture, Direction, Sighting};
use refault_roce::{Envelope, FlushIcrc, Opcode, Operation, Packet, Psn, frame};

fn main() -> io::Result<()> {
    let path =
        std::env::args().nth(1).ok_or_else(|| io::Error::other("the path of the capture is missing"))?;
    let mut capture = Capture::new(BufWriter::new(File::create(path)?), &["left", "right"], 65536)?;
    let right = Envelope::v4([10, 77, 0, 1].into(), [10, 77, 0, 2].into());
    let left = Envelope::v4([10, 77, 0, 2].into(), [10, 77, 0, 1].into());
    let mut bytes = Vec::new();
    for (opcode, psn) in Opcode::all().zip(1..) {
        let packet = Packet::new(opcode, 0x11, Psn::new(psn));
        let (port, envelope) = if opcode.is_response() { (1, left) } else { (0, right) };
        let payload: &[u8] = match opcode.operation() {
            Operation::Send | Operation::SendInvalidate | Operation::Write | Operation::ReadResponse => {
                &[0x55; 66]
            }
            Operation::AtomicWrite => b"8 bytes.",
            _ => b"",
        };
        let place = frame::begin(&mut bytes, &envelope, &packet, payload.len()).expect("it is short");
        bytes[place].copy_from_slice(payload);
        frame::seal(&mut bytes, FlushIcrc::Standard).expect("our own frame");
        let comment = format!("opcode {:#04x}", opcode.to_byte());
        let time_ns = u64::from(psn) * 1000;
        let (direction, comments) = (Direction::Out, &[comment.as_str()][..]);
        capture.add(&Sighting { port, time_ns, direction, frame: &bytes, comments })?;
    }
    capture.finish().map(drop)
}
