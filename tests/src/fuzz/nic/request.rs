//! Requests and doorbells as a process may make them up.

use refault_abi::codes::Opcode;
use refault_abi::doorbell::Doorbell;
use refault_abi::queue::{Sge, SqWqe, WqeFlags};
use refault_bus::Iova;
use refault_model::memory::FRAME;

use super::{READ_ONLY, SOURCE, TARGET, TARGET_PAGES};
use crate::fuzz::feed::Feed;

/// What a process can name.
pub(super) struct Names {
    /// Keys of regions: two of its own, the other process', none.
    pub(super) keys: [u32; 4],
    /// Its sender, receiver and completion queue, then those of the other process.
    pub(super) numbers: [u32; 5],
}

impl Names {
    /// A request of the process: any opcode, with pieces that are mostly in its memory.
    pub(super) fn request(&self, feed: &mut Feed<'_>) -> SqWqe {
        let shape = feed.byte();
        let mut request = SqWqe {
            opcode: Opcode(feed.below(11) as u8),
            flags: WqeFlags(1 | shape & 0xf),
            num_sge: shape >> 4 & 7,
            wr_id: u64::from(shape),
            remote_addr: address(feed),
            rkey: self.key(feed),
            dest_qpn: self.numbers[1],
            dest_lid: 1,
            ..SqWqe::default()
        };
        for piece in request.sge.iter_mut().take(usize::from(request.num_sge)) {
            *piece = self.piece(feed);
        }
        if shape & 8 != 0 {
            request.inline_length = feed.byte().into();
        }
        if shape & 0x80 != 0 {
            (request.imm, request.compare_add, request.swap) = (feed.word32(), feed.word(), feed.word());
        }
        request
    }

    pub(super) fn piece(&self, feed: &mut Feed<'_>) -> Sge {
        let length = match feed.below(8) {
            0 => feed.word32(),
            1 | 2 => feed.half().into(),
            choice => [8, 64, 4096, 5000, 40_000][choice - 3],
        };
        Sge { addr: address(feed), length, lkey: self.key(feed) }
    }

    fn key(&self, feed: &mut Feed<'_>) -> u32 {
        match feed.below(8) {
            0 => self.keys[2],
            1 => feed.word32(),
            2 => self.keys[1] ^ 1 << feed.below(32),
            choice => self.keys[choice & 1],
        }
    }

    pub(super) fn doorbell(&self, feed: &mut Feed<'_>) -> u64 {
        let number = if feed.flag() { feed.word32() } else { feed.pick(&self.numbers) };
        let kind = (feed.below(5)) as u8;
        Doorbell { kind, number, argument: feed.word32() }.encode()
    }
}

/// A page of the process.
pub(super) fn page(feed: &mut Feed<'_>) -> Iova {
    let choice = feed.below(32) as u64;
    match choice {
        0..4 => Iova(SOURCE.0 + choice * FRAME),
        4..8 => Iova(READ_ONLY.0 + (choice - 4) * FRAME),
        _ => Iova(TARGET.0 + choice % TARGET_PAGES * FRAME),
    }
}

/// An address: mostly in the process' memory.
fn address(feed: &mut Feed<'_>) -> u64 {
    let choice = feed.byte();
    let offset = u64::from(feed.byte()) << 4 | u64::from(choice >> 4);
    match choice & 0xf {
        0 => feed.word(),
        1 => offset << 12,
        2..=4 => SOURCE.0 + offset,
        5 | 6 => READ_ONLY.0 + offset,
        page => TARGET.0 + u64::from(page) * FRAME / 2 * 3 + (offset & !7),
    }
}
