//! Machines whose CPUs QEMU emulates: the CPU model, and the frequency of their time stamp counter.
#![expect(unsafe_code, reason = "reading the counter is an intrinsic that the language calls unsafe")]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::{Duration, Instant};

/// The CPU model for QEMU to emulate: everything that it supports, without five-level page tables, which refault's IOMMU
/// does not walk, and without fast string instructions. Those are emulated byte by byte; a kernel and a C library that do
/// not use them copy memory four times as fast.
pub const EMULATED_CPU: &str = "max,la57=off,erms=off,fsrm=off,fzrm=off,fsrs=off,fsrc=off";

/// QEMU's own filters for system calls: none that starts a program, raises privileges or is obsolete. A guest needs none of
/// these, whatever devices it has.
pub(crate) const SANDBOX: [&str; 2] = ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny"];

/// Long enough that the time for reading both clocks, some 100 ns, does not matter.
const INTERVAL: Duration = Duration::from_millis(20);
/// Attempts to read both clocks without an interruption in between.
const TRIES: usize = 20;

/// A comma inside a value of a `key=value` option must be doubled.
pub(crate) fn doubled_commas(text: &OsStr) -> OsString {
    let doubled =
        text.as_bytes().iter().flat_map(|byte| std::iter::repeat_n(*byte, if *byte == b',' { 2 } else { 1 }));
    OsString::from_vec(doubled.collect())
}

/// The frequency of this machine's time stamp counter in kHz; `None` if there is no such counter.
///
/// An emulated machine has the same counter, but its kernel would measure it against an emulated timer. On a busy host the
/// result is wrong by a factor, and so is every duration in the guest.
pub(crate) fn tsc_khz() -> Option<u64> {
    let start = read_both()?;
    std::thread::sleep(INTERVAL);
    let end = read_both()?;
    khz(end.1.checked_sub(start.1)?, end.0.duration_since(start.0))
}

fn khz(ticks: u64, time: Duration) -> Option<u64> {
    let khz = u128::from(ticks) * 1_000_000 / time.as_nanos().max(1);
    u64::try_from(khz).ok().filter(|khz| *khz > 0)
}

/// Reads both clocks at the same moment, as nearly as possible.
fn read_both() -> Option<(Instant, u64)> {
    let read = || {
        let before = Instant::now();
        let ticks = counter()?;
        let took = before.elapsed();
        Some((took, (before + took / 2, ticks)))
    };
    (0..TRIES).filter_map(|_| read()).min_by_key(|(took, _)| *took).map(|(_, both)| both)
}

#[cfg(target_arch = "x86_64")]
fn counter() -> Option<u64> {
    // SAFETY: every x86-64 CPU has the instruction, and Linux allows programs to use it.
    Some(unsafe { core::arch::x86_64::_rdtsc() })
}

#[cfg(not(target_arch = "x86_64"))]
fn counter() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_in_a_millisecond() {
        assert_eq!(khz(2_500_000, Duration::from_millis(1)), Some(2_500_000));
        assert_eq!(khz(0, Duration::from_millis(1)), None);
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn two_measurements_agree_even_on_a_busy_machine() {
        let (one, two) = (tsc_khz().expect("a counter"), tsc_khz().expect("a counter"));
        assert!(one.abs_diff(two) * 200 < one, "{one} kHz, then {two} kHz");
    }
}
