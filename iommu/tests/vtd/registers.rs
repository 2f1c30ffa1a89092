//! The register page: widths, halves, and commands that are not supported.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

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
