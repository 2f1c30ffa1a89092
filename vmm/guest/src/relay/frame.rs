//! The relay's frames: a type byte, a 16-bit little-endian length, and that many bytes.

/// Longest payload of a frame in bytes.
pub const PAYLOAD_MAX: usize = 4096;
const HEADER: usize = 3;

const JOB: u8 = 0x00;
const INPUT: u8 = 0x01;
const SIZE: u8 = 0x02;
const REPORT: u8 = 0x03;
const OUTPUT: u8 = 0x11;
const ERRORS: u8 = 0x12;
const TAKEN: u8 = 0x13;
const EXIT: u8 = 0x14;

/// One message. The first four go to the guest, the others come from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Part of the description of what to run; an empty one ends it.
    Job(Vec<u8>),
    /// Part of standard input; an empty one is its end.
    Input(Vec<u8>),
    /// New size of the command's terminal, in columns and rows.
    Size(u16, u16),
    /// The time limit has expired: the guest's kernel is to log what each CPU does, and which tasks are blocked.
    Report,
    /// Part of standard output.
    Output(Vec<u8>),
    /// Part of standard error.
    Errors(Vec<u8>),
    /// The command has consumed this many bytes of input, and as many more may be sent.
    Taken(u32),
    /// The command has ended with this exit status, and nothing follows.
    Exit(i32),
}

/// Why bytes are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The type is unknown.
    #[error("frame of unknown type {0:#04x}: the channel carries foreign data")]
    Type(u8),
    /// The length does not fit the type.
    #[error("frame of type {kind:#04x} with a length of {length}: the channel has lost bytes")]
    Length {
        /// The frame's type byte.
        kind: u8,
        /// The length in the header, in bytes.
        length: usize,
    },
}

impl Frame {
    /// Encodes the frame. Payloads longer than [`PAYLOAD_MAX`] must be split before.
    pub fn encode(&self) -> Vec<u8> {
        let number;
        let (kind, payload): (u8, &[u8]) = match self {
            Self::Job(bytes) => (JOB, bytes),
            Self::Input(bytes) => (INPUT, bytes),
            Self::Output(bytes) => (OUTPUT, bytes),
            Self::Errors(bytes) => (ERRORS, bytes),
            Self::Size(columns, rows) => {
                number = (u32::from(*rows) << 16 | u32::from(*columns)).to_le_bytes();
                (SIZE, &number)
            }
            Self::Report => (REPORT, &[]),
            Self::Taken(count) => {
                number = count.to_le_bytes();
                (TAKEN, &number)
            }
            Self::Exit(status) => {
                number = status.to_le_bytes();
                (EXIT, &number)
            }
        };
        debug_assert!(payload.len() <= PAYLOAD_MAX);
        let mut bytes = vec![kind];
        bytes.extend(u16::try_from(payload.len()).unwrap_or(u16::MAX).to_le_bytes());
        bytes.extend(payload);
        bytes
    }

    fn decode(kind: u8, payload: Vec<u8>) -> Result<Self, FrameError> {
        let wrong = || FrameError::Length { kind, length: payload.len() };
        let word = || <[u8; 4]>::try_from(payload.as_slice()).map_err(|_| wrong());
        Ok(match kind {
            JOB => Self::Job(payload),
            INPUT => Self::Input(payload),
            SIZE => {
                let [columns, more_columns, rows, more_rows] = word()?;
                Self::Size(u16::from_le_bytes([columns, more_columns]), u16::from_le_bytes([rows, more_rows]))
            }
            REPORT if payload.is_empty() => Self::Report,
            REPORT => return Err(wrong()),
            OUTPUT => Self::Output(payload),
            ERRORS => Self::Errors(payload),
            TAKEN => Self::Taken(u32::from_le_bytes(word()?)),
            EXIT => Self::Exit(i32::from_le_bytes(word()?)),
            unknown => return Err(FrameError::Type(unknown)),
        })
    }
}

/// Assembles frames from the pieces in which they arrive.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    pending: Vec<u8>,
}

impl Decoder {
    /// Adds received bytes and appends the frames that they complete to `frames`.
    ///
    /// # Errors
    /// The bytes are not a frame: the channel cannot be used any further. Frames before them are appended all the same.
    pub fn push(&mut self, bytes: &[u8], frames: &mut impl Extend<Frame>) -> Result<(), FrameError> {
        self.pending.extend(bytes);
        let mut rest = self.pending.as_slice();
        while let Some((&[kind, low, high], behind)) = rest.split_first_chunk::<HEADER>() {
            let length = usize::from(u16::from_le_bytes([low, high]));
            if length > PAYLOAD_MAX {
                return Err(FrameError::Length { kind, length });
            }
            let Some((payload, behind)) = behind.split_at_checked(length) else { break };
            frames.extend([Frame::decode(kind, payload.to_vec())?]);
            rest = behind;
        }
        self.pending = rest.to_vec();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_kind() -> Vec<Frame> {
        vec![
            Frame::Job(b"a\0b".to_vec()),
            Frame::Input(vec![0xff; PAYLOAD_MAX]),
            Frame::Input(Vec::new()),
            Frame::Size(300, 50),
            Frame::Report,
            Frame::Output(b"out".to_vec()),
            Frame::Errors(b"err".to_vec()),
            Frame::Taken(70_000),
            Frame::Exit(-1),
        ]
    }

    #[test]
    fn frames_survive_any_fragmentation() {
        let bytes: Vec<u8> = every_kind().iter().flat_map(Frame::encode).collect();
        for size in [1, 2, 3, 5, 64, bytes.len()] {
            let mut decoder = Decoder::default();
            let mut frames = Vec::new();
            bytes.chunks(size).for_each(|chunk| decoder.push(chunk, &mut frames).expect("valid"));
            assert_eq!(frames, every_kind(), "in pieces of {size}");
        }
    }

    #[test]
    fn invalid_frames_are_refused() {
        let refused = |bytes: &[u8]| Decoder::default().push(bytes, &mut Vec::new());
        assert_eq!(refused(&[0x7f, 0, 0]), Err(FrameError::Type(0x7f)));
        let long = FrameError::Length { kind: INPUT, length: 0xffff };
        assert_eq!(refused(&[INPUT, 0xff, 0xff]), Err(long));
        let short = FrameError::Length { kind: EXIT, length: 1 };
        assert_eq!(refused(&[EXIT, 1, 0, 7]), Err(short));
    }

    #[test]
    fn a_frame_before_an_invalid_one_is_not_lost() {
        let mut frames = Vec::new();
        let error = Decoder::default().push(&[OUTPUT, 1, 0, b'x', 0x7f, 0, 0], &mut frames);
        assert_eq!((error, frames), (Err(FrameError::Type(0x7f)), vec![Frame::Output(b"x".to_vec())]));
    }
}
