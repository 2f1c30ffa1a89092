//! A capture of an experiment's wire, with the times of the virtual clock. The same scenario leaves the same bytes.

use std::io::{self, Write};

use refault_bus::wire::EthernetFrame;
use refault_link::{Capture, Direction, End, Sighting};
use refault_roce::{FlushIcrc, frame};

/// Where a capture goes, and how much of it.
pub struct CaptureTo {
    /// It is written here.
    pub to: Box<dyn Write + Send>,
    /// Bytes kept of each packet, at most.
    pub limit: usize,
}

/// The ports at the wire's ends: of requests, and of responses.
const PORTS: [&str; 2] = ["requester", "responder"];

pub(super) struct WireCapture {
    capture: Capture<Box<dyn Write + Send>>,
    /// Why nothing more is written.
    failed: Option<io::Error>,
}

impl WireCapture {
    pub(super) fn begin(CaptureTo { to, limit }: CaptureTo) -> io::Result<Self> {
        Ok(Self { capture: Capture::new(to, &PORTS, limit)?, failed: None })
    }

    /// Adds a frame that leaves or reaches the port at `end`.
    pub(super) fn add(
        &mut self,
        (end, direction): (End, Direction),
        time_ns: u64,
        frame: &EthernetFrame,
        comment: Option<&str>,
    ) {
        if self.failed.is_some() {
            return;
        }
        let mut bytes = frame.bytes.clone();
        if !frame.sealed {
            // The NIC sends nothing but packets of RoCE here.
            let _ = frame::seal(&mut bytes, FlushIcrc::Standard);
        }
        let port = u32::from(end == End::B);
        let comments = comment.as_slice();
        let added = self.capture.add(&Sighting { port, time_ns, direction, frame: &bytes, comments });
        self.failed = added.err();
    }

    pub(super) fn finish(self) -> io::Result<()> {
        match self.failed {
            Some(error) => Err(error),
            None => self.capture.finish().map(drop),
        }
    }
}
