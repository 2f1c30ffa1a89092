//! The register page: widths, halves, and commands that are not supported.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crate::support::descriptors as d;
use crate::support::*;

/// Writes of a race, which goes on until there were so many. A write in two halves is seen torn within a few thousand.
const WRITES: u64 = 100_000;

/// Ends the other thread of a race when it is dropped, also by a failed assertion.
struct Finish<'a>(&'a AtomicBool);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `check` again and again while another vCPU writes the two values to a register in turn.
fn while_written(guest: &Guest, register: u64, values: [u64; 2], check: impl Fn()) {
    guest.write64(register, values[0]);
    let (done, writes) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let _finish = Finish(&done);
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                values.iter().for_each(|&value| guest.write64(register, value));
                writes.fetch_add(1, Ordering::Relaxed);
            }
        });
        while writes.load(Ordering::Relaxed) < WRITES {
            check();
        }
    });
}

#[test]
fn a_64_bit_write_is_seen_whole() {
    for register in [reg::RTADDR, reg::IQA, reg::PQA] {
        let guest = Guest::powered();
        let values = [0x1_0010_0000, 0x2_0020_0000];
        while_written(&guest, register, values, || {
            let seen = guest.read64(register);
            assert!(values.contains(&seen), "register {register:#x}: {seen:#x}");
        });
    }
}

#[test]
fn commands_that_are_not_supported_are_ignored_and_never_shown_as_done() {
    let guest = Guest::booted();
    guest.map_user(VA, 0x8000);
    let on = reg::TE | reg::QIE;
    // CFI, SIRTP, IRE, WBF, EAFL, SFL, and bits that are reserved.
    for bit in (0..=25).chain(27..=29) {
        guest.write32(reg::GCMD, on | 1 << bit);
        assert_eq!(guest.read32(reg::GSTS), on | reg::SRTP, "bit {bit}");
        assert!(guest.ats(VA, true).unwrap().write && guest.submit(&[d::iotlb_global()]), "bit {bit}");
    }
}

#[test]
fn setting_the_root_table_empties_every_cache() {
    type Change = fn(&Guest);
    // What is changed behind the back of each cache, the highest level last.
    let changes: [(&str, Change); 3] = [
        ("IOTLB", |guest| {
            guest.map_user(VA, 0x9000);
        }),
        ("PASID cache", |guest| guest.store(pasid_entry_at(guest, PASID.get()), 0)),
        ("context cache", |guest| guest.store(context_entry_at(guest, NIC), 0)),
    ];
    for (cache, change) in changes {
        let guest = Guest::booted();
        guest.map_user(VA, 0x8000);
        let before = guest.ats(VA, true);
        change(&guest);
        assert_eq!(guest.ats(VA, true), before, "it comes from the {cache}");
        guest.set_root();
        assert_ne!(guest.ats(VA, true), before, "{cache}");
    }
}

#[test]
fn invalidation_by_register_is_global_at_every_granularity_but_the_reserved_one() {
    // Register, position of the requested granularity and of the performed one.
    for (register, requested, performed) in [(reg::CCMD, 61, 59), (reg::IOTLB, 60, 57)] {
        for (granularity, queue) in [0u64, 1, 2, 3].into_iter().flat_map(|g| [(g, true), (g, false)]) {
            let guest = Guest::booted();
            assert_eq!(guest.read64(register), 0, "after reset");
            if !queue {
                guest.clear_command(reg::QIE);
            }
            guest.map_user(VA, 0x8000);
            let before = guest.ats(VA, true);
            if register == reg::CCMD {
                guest.store(context_entry_at(&guest, NIC), 0);
            } else {
                guest.map_user(VA, 0x9000);
            }
            let done = u64::from(granularity != 0);
            // The command bit is in the upper half, which is written last.
            guest.write32(register, 0x1234);
            guest.write32(register + 4, (1 << 31) | (granularity << (requested - 32)) as u32);
            assert_eq!(guest.ats(VA, true) != before, granularity != 0, "{register:#x}, {granularity}");
            let shown = granularity << requested | done << performed | 0x1234;
            assert_eq!(guest.read64(register), shown, "{register:#x}, {granularity}");
            // Without the command bit nothing is performed.
            guest.write64(register, 3 << requested);
            assert_eq!(guest.read64(register), 3 << requested);
        }
    }
}

#[test]
fn a_queue_of_every_size_is_used_to_its_end_and_no_further() {
    for size in 0..8 {
        let guest = Guest::booted();
        let (base, bytes, status) = (guest.pages(1 << size), 0x1000u32 << size, guest.page());
        guest.clear_command(reg::QIE);
        guest.write32(reg::IQT, 0);
        guest.write64(reg::IQA, base | 1 << 11 | size);
        guest.set_command(reg::QIE);
        // Fences up to the last descriptor, which is a wait; then the tail wraps.
        let last = u64::from(bytes) - 32;
        (0..last).step_by(32).for_each(|at| guest.store(base + at, d::fence()[0]));
        (0..2).for_each(|quad| guest.store(base + last + quad * 8, d::wait(status)[quad as usize]));
        guest.write32(reg::IQT, last as u32);
        assert_eq!((guest.read32(reg::IQH), guest.load(status)), (last as u32, 0), "size {size}");
        guest.write32(reg::IQT, 0);
        assert_eq!((guest.read32(reg::IQH), guest.load(status)), (0, 2), "size {size}");
        // The largest size uses every bit of the register.
        if size < 7 {
            guest.write32(reg::IQT, bytes);
            assert_eq!((guest.read32(reg::IQH), guest.read64(reg::IQER) & 0xf), (0, 1), "size {size}");
        }
    }
}

#[test]
fn the_registers_of_an_event_read_as_written_but_for_the_reserved_bits() {
    let guest = Guest::powered();
    for (control, seed) in [(reg::FECTL, 0x1000), (reg::IECTL, 0x2000), (reg::PECTL, 0x3000)] {
        let [data, address, upper] = [seed | 0x21, 0xfee0_0007 | seed, seed | 1];
        for (offset, value) in [(4, data), (8, address), (12, upper)] {
            guest.write32(control + offset, value);
        }
        let halves = [0, 4, 8, 12].map(|offset| guest.read32(control + offset));
        assert_eq!(halves, [1 << 31, data, address & !3, upper], "{control:#x}");
        let quads = [0, 8].map(|offset| guest.read64(control + offset));
        let whole = |low, high| u64::from(high) << 32 | u64::from(low);
        assert_eq!(quads, [whole(halves[0], halves[1]), whole(halves[2], halves[3])], "{control:#x}");
        // Both halves at once.
        guest.write64(control + 8, whole(0xfee0_1000, upper + 1));
        assert_eq!(guest.read64(control + 8), whole(0xfee0_1000, upper + 1), "{control:#x}");
    }
}

#[test]
fn a_status_is_cleared_by_a_one_in_its_own_bit_and_by_nothing_else() {
    let guest = Guest::booted();
    // A completion, an overflowing queue of page requests, a fault, and a descriptor that stops the queue.
    guest.submit_raw(&[[0x15, 0, 0, 0]]);
    guest.write64(reg::PQA, guest.layout.requests);
    (0..128).for_each(|_| guest.ask(VA, true, 1));
    guest.dma(None, VA, false).unwrap_err();
    guest.submit_raw(&[[0; 4]]);
    let standing = |guest: &Guest| {
        [reg::ICS, reg::PRS, reg::FSTS, reg::FRCD + 12].map(|register| guest.read32(register))
    };
    let before = standing(&guest);
    assert_eq!((before[0], before[1], before[2], before[3] >> 31), (1, 0b11, 1 << 4 | 0b10, 1));
    for (register, own) in [(reg::ICS, 1), (reg::PRS, 0b11), (reg::FSTS, 1 << 4), (reg::FRCD + 12, 1 << 31)] {
        guest.write32(register, 0);
        guest.write32(register, !own);
    }
    // Nor by the bit of F in another word of the record.
    (0..3).for_each(|word| guest.write32(reg::FRCD + word * 4, !0));
    assert_eq!(standing(&guest), before);
    // PPR and PRO are cleared one by one.
    for (bit, left) in [(0b01, 0b10), (0b10, 0)] {
        guest.write32(reg::PRS, bit);
        assert_eq!(guest.read32(reg::PRS), left);
    }
}
