//! What a capture says of a link: packets of each opcode that each end sent and received, and that each of them is right.

use std::collections::BTreeMap;
use std::path::Path;

use refault_link::frames;
use refault_roce::{Dropped, FlushIcrc, Operation, Received, frame};

/// Where the source's MAC address has the NIC's number.
const SENDER: usize = 11;

/// Frames in one direction at one port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Frames {
    /// Packets of RoCE, by the byte of their opcode.
    pub(crate) packets: BTreeMap<u8, u64>,
    /// Frames that are something else.
    pub(crate) others: u64,
    /// Packets of RoCE in a VLAN.
    pub(crate) tagged: u64,
    /// How the ICRC of each FLUSH was computed.
    pub(crate) flushes: Vec<FlushIcrc>,
}

/// All that passed a link of two ports.
#[derive(Debug, Default)]
pub(crate) struct Passed {
    pub(crate) sent: [Frames; 2],
    pub(crate) received: [Frames; 2],
}

impl Frames {
    /// All packets of RoCE.
    pub(crate) fn roce(&self) -> u64 {
        self.packets.values().sum()
    }

    /// All frames.
    pub(crate) fn all(&self) -> u64 {
        self.roce() + self.others
    }

    fn add(&mut self, bytes: &[u8]) {
        match frame::parse(bytes) {
            Ok(Received { envelope, packet, icrc, .. }) => {
                self.tagged += u64::from(envelope.vlan.is_some());
                *self.packets.entry(packet.opcode.to_byte()).or_default() += 1;
                if packet.opcode.operation() == Operation::Flush {
                    self.flushes.extend(icrc);
                }
            }
            Err(Dropped::NotRoce) => self.others += 1,
            Err(error) => panic!("{error}: {bytes:02x?}"),
        }
    }
}

/// Reads a capture of a link between NIC 0 and NIC 1. Fails if a packet in it is malformed or has a wrong ICRC.
pub(crate) fn passed(path: &Path) -> Passed {
    let file = std::fs::read(path).expect("the capture");
    let mut passed = Passed::default();
    for captured in frames(&file) {
        let captured = captured.expect("a capture");
        assert!(captured.is_whole(), "a frame was cut to {} bytes", captured.frame.len());
        let port = captured.port as usize;
        let is_own = usize::from(captured.frame[SENDER]) == port;
        let [sent, received] = [&mut passed.sent[port], &mut passed.received[port]];
        if is_own { sent } else { received }.add(captured.frame);
    }
    passed
}
