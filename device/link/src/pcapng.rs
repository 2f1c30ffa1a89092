//! Captures in the format pcapng (draft-ietf-opsawg-pcapng), which tshark and Wireshark read.

use std::io::{self, Write};

/// Which way a frame went, seen from its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The port received it.
    In,
    /// The port sent it.
    Out,
}

/// A frame that passed a port.
#[derive(Clone, Copy, Debug)]
pub struct Sighting<'a> {
    /// Index of the port in the list that the capture began with.
    pub port: u32,
    /// Time in nanoseconds, of the clock of the run.
    pub time_ns: u64,
    /// Which way it went.
    pub direction: Direction,
    /// Its bytes, from the MAC addresses on, without a checksum of Ethernet.
    pub frame: &'a [u8],
    /// Remarks, which tshark shows as comments of the packet.
    pub comments: &'a [&'a str],
}

/// A capture that is being written.
#[derive(Debug)]
pub struct Capture<W> {
    to: W,
    /// Most bytes kept of a frame.
    limit: usize,
    /// The block at hand: kept to save allocations.
    block: Vec<u8>,
}

pub(crate) const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
pub(crate) const PACKET: u32 = 6;

/// Tells the byte order of what follows, which is little endian here.
pub(crate) const BYTE_ORDER: u32 = 0x1a2b_3c4d;
const VERSION: [u16; 2] = [1, 0];
const LENGTH_UNKNOWN: u64 = u64::MAX;
const ETHERNET: u16 = 1;

/// Options of any block, of an interface, of a packet.
const OPT_END: u16 = 0;
const OPT_COMMENT: u16 = 1;
const IF_NAME: u16 = 2;
const IF_TIME_RESOLUTION: u16 = 9;
const PACKET_FLAGS: u16 = 2;

/// A clock that counts 10^-9 seconds.
const NANOSECONDS: u8 = 9;

impl<W: Write> Capture<W> {
    /// Begins a capture of `ports`, which go by these names, with at most `limit` bytes of each frame.
    ///
    /// # Errors
    ///
    /// Those of `to`.
    pub fn new(to: W, ports: &[&str], limit: usize) -> io::Result<Self> {
        let mut capture = Self { to, limit, block: Vec::new() };
        capture.write(SECTION_HEADER, |block| {
            block.extend(BYTE_ORDER.to_le_bytes());
            VERSION.iter().for_each(|part| block.extend(part.to_le_bytes()));
            block.extend(LENGTH_UNKNOWN.to_le_bytes());
        })?;
        let most = u32::try_from(limit).unwrap_or(0);
        for port in ports {
            capture.write(INTERFACE, |block| {
                block.extend(ETHERNET.to_le_bytes());
                block.extend([0; 2]);
                block.extend(most.to_le_bytes());
                option(block, IF_NAME, port.as_bytes());
                option(block, IF_TIME_RESOLUTION, &[NANOSECONDS]);
                option(block, OPT_END, &[]);
            })?;
        }
        Ok(capture)
    }

    /// Adds a frame.
    ///
    /// # Errors
    ///
    /// Those of the writer. What was begun may be in the file then; readers take it for a cut end.
    pub fn add(&mut self, sighting: &Sighting<'_>) -> io::Result<()> {
        let kept = &sighting.frame[..sighting.frame.len().min(self.limit)];
        let [high, low] = [sighting.time_ns >> 32, sighting.time_ns & u64::from(u32::MAX)];
        let flags: u32 = match sighting.direction {
            Direction::In => 1,
            Direction::Out => 2,
        };
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
        self.write(PACKET, |block| {
            block.extend(sighting.port.to_le_bytes());
            // Both are below 2^32.
            block.extend_from_slice(&high.to_le_bytes()[..4]);
            block.extend_from_slice(&low.to_le_bytes()[..4]);
            block.extend(length(kept));
            block.extend(length(sighting.frame));
            padded(block, kept);
            option(block, PACKET_FLAGS, &flags.to_le_bytes());
            for comment in sighting.comments {
                option(block, OPT_COMMENT, comment.as_bytes());
            }
            option(block, OPT_END, &[]);
        })
    }

    /// Flushes what was written.
    ///
    /// # Errors
    ///
    /// Those of the writer.
    pub fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }

    /// Flushes what was written, and returns where it went.
    ///
    /// # Errors
    ///
    /// Those of the writer.
    pub fn finish(mut self) -> io::Result<W> {
        self.to.flush()?;
        Ok(self.to)
    }

    /// Writes one block at once: its type, its length before and after it, and what `fill` puts in between.
    fn write(&mut self, kind: u32, fill: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let block = &mut self.block;
        block.clear();
        block.extend(kind.to_le_bytes());
        block.extend([0; 4]);
        fill(block);
        let length = u32::try_from(block.len() + 4).map_err(io::Error::other)?.to_le_bytes();
        block[4..8].copy_from_slice(&length);
        block.extend(length);
        self.to.write_all(block)
    }
}

/// Appends an option. A value of more than 65,535 bytes is cut.
fn option(block: &mut Vec<u8>, code: u16, value: &[u8]) {
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
    block.extend(code.to_le_bytes());
    block.extend(length.to_le_bytes());
    padded(block, &value[..usize::from(length)]);
}

/// Appends bytes, and zeros up to a multiple of four.
fn padded(block: &mut Vec<u8>, bytes: &[u8]) {
    block.extend_from_slice(bytes);
    block.resize(block.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Blocks of a capture: type and body.
    fn blocks(mut file: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let word = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let mut blocks = Vec::new();
        while !file.is_empty() {
            let length = word(file, 4) as usize;
            assert_eq!((length % 4, word(file, length - 4) as usize), (0, length));
            blocks.push((word(file, 0), file[8..length - 4].to_vec()));
            file = &file[length..];
        }
        blocks
    }

    fn sighting<'a>(frame: &'a [u8], comments: &'a [&'a str]) -> Sighting<'a> {
        Sighting { port: 1, time_ns: 0x1_0000_0002, direction: Direction::Out, frame, comments }
    }

    #[test]
    fn a_capture_begins_with_its_ports() {
        let capture = Capture::new(Vec::new(), &["nic0", "nic1"], 65536).unwrap();
        let blocks = blocks(&capture.finish().unwrap());
        let kinds: Vec<_> = blocks.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [SECTION_HEADER, INTERFACE, INTERFACE]);
        assert!(blocks[2].1.windows(4).any(|text| text == b"nic1"));
    }

    #[test]
    fn a_frame_has_its_time_its_lengths_and_its_comments() {
        let mut capture = Capture::new(Vec::new(), &["a", "b"], 8).unwrap();
        capture.add(&sighting(b"0123456789", &["dropped", "again"])).unwrap();
        let blocks = blocks(&capture.finish().unwrap());
        let body = &blocks[3].1;
        let words: Vec<_> =
            body[..20].chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect();
        assert_eq!(words, [1, 1, 2, 8, 10], "port, time, kept, length");
        assert_eq!(&body[20..28], b"01234567");
        assert_eq!(&body[28..36], [2, 0, 4, 0, 2, 0, 0, 0], "it was sent");
        assert_eq!(&body[36..48], b"\x01\0\x07\0dropped\0");
        assert_eq!(&body[48..60], b"\x01\0\x05\0again\0\0\0");
        assert_eq!(&body[60..], [0; 4]);
    }

    proptest! {
        #[test]
        fn any_frames_are_whole_blocks(
            frames in proptest::collection::vec((any::<Vec<u8>>(), any::<String>()), 0..8),
            limit in 0..100usize,
        ) {
            let mut capture = Capture::new(Vec::new(), &["a"], limit).unwrap();
            for (frame, comment) in &frames {
                capture.add(&sighting(frame, &[comment])).unwrap();
            }
            prop_assert_eq!(blocks(&capture.finish().unwrap()).len(), 2 + frames.len());
        }
    }
}
