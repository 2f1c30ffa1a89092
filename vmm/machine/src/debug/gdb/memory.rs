//! Guest memory by guest-virtual address, one page at a time.

use super::DebuggedGuest;

const PAGE: u64 = 4096;

/// Reads from `address` through the page tables of `cpu`. Returns the number of bytes before the first that is unmapped or
/// not memory.
pub(super) fn read(guest: &dyn DebuggedGuest, cpu: u8, address: u64, data: &mut [u8]) -> usize {
    let mut done = 0;
    for (at, size) in pieces(address, data.len()) {
        let Some(piece) = data.get_mut(done..done + size) else { break };
        if !guest.translate(cpu, at).is_some_and(|physical| guest.read(physical, piece)) {
            break;
        }
        done += size;
    }
    done
}

/// Writes `data` up to the first byte that is unmapped or not memory; returns whether that was all.
pub(super) fn write(guest: &dyn DebuggedGuest, cpu: u8, address: u64, data: &[u8]) -> bool {
    let mut rest = data;
    for (at, size) in pieces(address, data.len()) {
        let Some((piece, behind)) = rest.split_at_checked(size) else { return false };
        if !guest.translate(cpu, at).is_some_and(|physical| guest.write(physical, piece)) {
            return false;
        }
        rest = behind;
    }
    true
}

/// The parts of a range, each on one page: address and size.
fn pieces(address: u64, size: usize) -> impl Iterator<Item = (u64, usize)> {
    let (mut at, mut left) = (address, size as u64);
    std::iter::from_fn(move || {
        let size = left.min(PAGE - at % PAGE);
        let piece = (at, usize::try_from(size).ok()?);
        at = at.wrapping_add(size);
        left -= size;
        (size > 0).then_some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::super::commands::tests::Fake;
    use super::*;

    #[test]
    fn bytes_are_found_through_the_page_tables() {
        let guest = Fake::default();
        // Two pages that are adjacent in virtual, but not in physical memory.
        guest.map(0xffff_8000_0000_0000, 0x3000);
        guest.map(0xffff_8000_0000_1000, 0x1000);
        assert!(write(&guest, 0, 0xffff_8000_0000_0ffe, b"abcd"));
        assert_eq!(guest.physical(0x3ffe, 2), b"ab");
        assert_eq!(guest.physical(0x1000, 2), b"cd");
        let mut back = [0; 4];
        assert_eq!(read(&guest, 0, 0xffff_8000_0000_0ffe, &mut back), 4);
        assert_eq!(&back, b"abcd");
    }

    #[test]
    fn unmapped_memory_is_not_read() {
        let guest = Fake::default();
        guest.map(0x5000, 0x1000);
        // Mapped, but not to memory.
        guest.map(0x7000, 0x100_0000);
        let mut data = [0; 8];
        assert_eq!(read(&guest, 0, 0x5ffc, &mut data), 4);
        assert_eq!(read(&guest, 0, 0x7000, &mut data), 0);
        assert_eq!(read(&guest, 0, 0x9000, &mut data), 0);
        assert!(!write(&guest, 0, 0x5ffc, &data) && !write(&guest, 0, 0x7000, &data));
    }

    #[test]
    fn an_access_at_the_end_of_the_address_space_does_not_wrap() {
        assert_eq!(pieces(u64::MAX - 3, 8).collect::<Vec<_>>(), [(u64::MAX - 3, 4), (0, 4)]);
        assert_eq!(pieces(0x1234, 0).count(), 0);
    }
}
