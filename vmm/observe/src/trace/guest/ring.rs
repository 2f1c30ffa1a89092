//! Parses pages of the kernel's ring buffer, as read from `trace_pipe_raw` (kernel/trace/ring_buffer.c; the layout is also
//! in `events/header_page` and `events/header_event`). The guest may write anything there: the first invalid entry ends its
//! page.

/// Page size in bytes.
pub(super) const PAGE: usize = 4096;
/// Size of the page header: timestamp and length.
const HEADER: usize = 16;
/// Flag in the length: events were lost before this page.
const MISSED: u64 = 1 << 31;
/// Flag in the length: the number of lost events follows the last event.
const MISSED_STORED: u64 = 1 << 30;

/// Kinds of entries, in the low five bits of their first word. Smaller values are the length of an event's data in words; 0:
/// the length is in a word of its own.
const PADDING: u32 = 29;
const TIME_EXTEND: u32 = 30;
const TIME_STAMP: u32 = 31;
const KIND_BITS: u32 = 5;
/// Number of low time bits in the first word; the others are in the second.
const TIME_SHIFT: u32 = 27;
/// High bits that an absolute timestamp lacks; they are those of the time before.
const TIME_KEPT: u64 = 0xf8 << 56;

/// Calls `each` with the time and data of every event; returns the number of lost events that the pages record.
pub(super) fn read(bytes: &[u8], mut each: impl FnMut(u64, &[u8])) -> u64 {
    let lost = bytes.chunks_exact(PAGE).map(|page| read_page(page, &mut each));
    lost.fold(0, u64::saturating_add)
}

fn read_page(page: &[u8], each: &mut impl FnMut(u64, &[u8])) -> u64 {
    let (Some(mut time), Some(length)) = (long(page, 0), long(page, 8)) else { return 0 };
    let used = (length & 0xf_ffff) as usize;
    let Some(mut rest) = page.get(HEADER..).and_then(|data| data.get(..used)) else { return 0 };
    while let Some(event) = Event::first(rest, time) {
        time = event.time;
        if let Some(data) = event.data {
            each(time, data);
        }
        rest = event.behind;
    }
    match length & (MISSED | MISSED_STORED) {
        0 => 0,
        // At least one: the page had no room for the number.
        MISSED => 1,
        _ => long(page, HEADER + used).unwrap_or(1),
    }
}

/// One entry of a page.
struct Event<'a> {
    time: u64,
    /// `None` for an entry that only advances the time.
    data: Option<&'a [u8]>,
    behind: &'a [u8],
}

impl<'a> Event<'a> {
    fn first(bytes: &'a [u8], time: u64) -> Option<Self> {
        let head = word(bytes, 0)?;
        let (kind, delta) = (head & ((1 << KIND_BITS) - 1), u64::from(head >> KIND_BITS));
        let long_time = || word(bytes, 4).map(|high| (u64::from(high) << TIME_SHIFT) + delta);
        let (time, data, length) = match kind {
            // The end of the page.
            PADDING if delta == 0 => return None,
            // Discarded by its writer; its time delta does not count.
            PADDING => (time, None, 4 + word(bytes, 4)? as usize),
            TIME_EXTEND => (time.wrapping_add(long_time()?), None, 8),
            TIME_STAMP => (long_time()? & !TIME_KEPT | time & TIME_KEPT, None, 8),
            0 => {
                let length = word(bytes, 4)? as usize;
                (time.wrapping_add(delta), Some(bytes.get(8..4 + length)?), 4 + length)
            }
            words => {
                let length = 4 + 4 * words as usize;
                (time.wrapping_add(delta), Some(bytes.get(4..length)?), length)
            }
        };
        // Entries are aligned to words.
        let behind = bytes.get(length.next_multiple_of(4)..)?;
        Some(Self { time, data, behind })
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn page(time: u64, flags: u64, words: &[u32]) -> Vec<u8> {
        let mut page = Vec::with_capacity(PAGE);
        page.extend(time.to_le_bytes());
        page.extend(((4 * words.len() as u64) | flags).to_le_bytes());
        page.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        page.resize(PAGE, 0);
        page
    }

    fn all(bytes: &[u8]) -> (Vec<(u64, Vec<u8>)>, u64) {
        let mut events = Vec::new();
        let lost = read(bytes, |time, data| events.push((time, data.to_vec())));
        (events, lost)
    }

    #[test]
    fn times_add_up_over_every_kind_of_entry() {
        let words = [
            5 << 5 | 1,  // 5 ns on, one word of data
            7,           //
            1 << 5 | 30, // 2^27 + 1 ns on
            1,           //
            2 << 5,      // 2 ns on, four bytes of data with a length of their own
            8,           //
            9,           //
            9 << 5 | 29, // discarded: one word
            4,           //
            9 << 5 | 31, // the time is 9 from here on
            0,           //
            1 << 5 | 1,  //
            1,           //
            29,          // the end
            1 << 5 | 1,
        ];
        let (events, lost) = all(&page(100, 0, &words));
        let data = |word: u32| word.to_le_bytes().to_vec();
        let late = 100 + 5 + (1 << 27) + 1 + 2;
        assert_eq!(events, [(105, data(7)), (late, data(9)), (10, data(1))]);
        assert_eq!(lost, 0);
    }

    #[test]
    fn what_was_lost_is_counted() {
        let mut bytes = page(1, MISSED | MISSED_STORED, &[1 << 5 | 1, 7]);
        bytes[HEADER + 8] = 33;
        bytes.extend(page(2, MISSED, &[]));
        assert_eq!(all(&bytes).1, 34);
    }

    #[test]
    fn a_page_that_claims_to_have_lost_everything_adds_up_with_others() {
        let mut bytes = page(1, MISSED | MISSED_STORED, &[]);
        bytes[HEADER..HEADER + 8].fill(0xff);
        bytes.extend(page(2, MISSED, &[]));
        assert_eq!(all(&bytes).1, u64::MAX);
    }

    #[test]
    fn an_invalid_length_ends_the_page() {
        assert_eq!(all(&page(1, 0, &[1 << 5 | 28, 7])).0, []);
        assert_eq!(all(&page(1, 0, &[1 << 5, u32::MAX, 7])).0, []);
        assert_eq!(all(&page(1, 1 << 19, &[1 << 5 | 1, 7])).0, []);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_accepted(bytes in proptest::collection::vec(any::<u8>(), 0..2 * PAGE)) {
            all(&bytes);
        }
    }
}
