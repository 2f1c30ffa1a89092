//! Reads captures again, those of this crate and of others that write little endian.

use thiserror::Error;

use crate::pcapng::{BYTE_ORDER, PACKET, SECTION_HEADER};

/// A frame in a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Captured<'a> {
    /// Index of the port in the capture's list.
    pub port: u32,
    /// Units of time of that port.
    pub time: u64,
    /// The bytes that were kept.
    pub frame: &'a [u8],
    /// Bytes of the whole frame.
    pub length: usize,
}

impl Captured<'_> {
    /// Whether all of the frame was kept.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.frame.len() == self.length
    }
}

/// Why a file is not a capture, or no longer one from here on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CaptureError {
    /// It does not begin as one.
    #[error("this is no pcapng file in little endian")]
    Format,
    /// A block does not have the length that it says.
    #[error("the block at byte {0} is cut or damaged")]
    Block(usize),
}

/// The frames of a capture, in the order of the file. After an error there is nothing more.
pub fn frames(file: &[u8]) -> impl Iterator<Item = Result<Captured<'_>, CaptureError>> {
    let is_ours = word(file, 0) == Some(SECTION_HEADER) && word(file, 8) == Some(BYTE_ORDER);
    let mut place = if is_ours { Ok(0) } else { Err(CaptureError::Format) };
    std::iter::from_fn(move || {
        loop {
            let at = match place {
                Ok(at) if at == file.len() => return None,
                Ok(at) => at,
                Err(error) => {
                    place = Ok(file.len());
                    return Some(Err(error));
                }
            };
            let Some((kind, body, next)) = block(file, at) else {
                place = Err(CaptureError::Block(at));
                continue;
            };
            place = Ok(next);
            if kind != PACKET {
                continue;
            }
            match packet(body) {
                Some(captured) => return Some(Ok(captured)),
                None => place = Err(CaptureError::Block(at)),
            }
        }
    })
}

/// Type and body of the block at `at`, and where the next one is.
fn block(file: &[u8], at: usize) -> Option<(u32, &[u8], usize)> {
    let length = usize::try_from(word(file, at + 4)?).ok()?;
    let whole = file.get(at..at.checked_add(length)?)?;
    let body = whole.get(8..length.checked_sub(4)?)?;
    let repeated = word(whole, length - 4)?;
    (length.is_multiple_of(4) && repeated as usize == length).then_some((word(whole, 0)?, body, at + length))
}

fn packet(body: &[u8]) -> Option<Captured<'_>> {
    let number = |index: usize| word(body, index * 4);
    let kept = usize::try_from(number(3)?).ok()?;
    Some(Captured {
        port: number(0)?,
        time: u64::from(number(1)?) << 32 | u64::from(number(2)?),
        frame: body.get(20..kept.checked_add(20)?)?,
        length: usize::try_from(number(4)?).ok()?,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Capture, Direction, Sighting};

    fn written(frames: &[Vec<u8>], limit: usize) -> Vec<u8> {
        let mut capture = Capture::new(Vec::new(), &["a", "b"], limit).unwrap();
        for (frame, number) in frames.iter().zip(0..) {
            let (time_ns, direction) = (u64::from(number) << 31, Direction::Out);
            capture.add(&Sighting { port: number % 2, time_ns, direction, frame, comments: &["c"] }).unwrap();
        }
        capture.finish().unwrap()
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(input in proptest::collection::vec(any::<Vec<u8>>(), 0..8), limit in 0..100usize) {
            let file = written(&input, limit);
            let read: Vec<_> = frames(&file).collect::<Result<_, _>>().unwrap();
            prop_assert_eq!(read.len(), input.len());
            for ((captured, frame), number) in read.iter().zip(&input).zip(0..) {
                prop_assert_eq!((captured.port, captured.time), (number % 2, u64::from(number) << 31));
                prop_assert_eq!((captured.frame, captured.length), (&frame[..frame.len().min(limit)], frame.len()));
            }
        }

        #[test]
        fn any_bytes_are_read_to_an_end(mut file in any::<Vec<u8>>(), begins: bool, cut: proptest::sample::Index) {
            if begins {
                let whole = written(&[file.clone()], 64);
                file = whole[..cut.index(whole.len())].to_vec();
            }
            prop_assert!(frames(&file).count() <= file.len() + 1);
        }
    }

    #[test]
    fn mistakes_are_named_once() {
        let errors = |file: &[u8]| frames(file).filter_map(Result::err).collect::<Vec<_>>();
        assert_eq!(errors(b"GIF89a"), [CaptureError::Format]);
        let file = written(&[vec![1; 60]], 64);
        assert_eq!(errors(&file[..file.len() - 4]).len(), 1);
        assert!(matches!(errors(&file[..file.len() - 4])[0], CaptureError::Block(_)));
    }
}
