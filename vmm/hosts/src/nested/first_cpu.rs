//! Keeps guests off the first CPU of the emulated machine.
//!
//! When a CPU restores its x87 state, QEMU clears a flag of the *first* CPU by reading, changing and writing back a word
//! that also says whether that CPU runs a guest, translates nested and takes interrupts (`cpu_clear_ignne` in
//! target/i386/tcg/sysemu/fpu_helper.c; seen in QEMU 7.2 and 10.0). If the first CPU enters or leaves a guest in between,
//! its change is lost, and the machine soon crashes in one of many ways. So the first CPU does the machine's own work, and
//! guests run on the others, whose word no other CPU writes.
#![expect(unsafe_code, reason = "the standard library cannot bind a thread to CPUs")]

use std::io;

use anyhow::{Context, Result, ensure};

/// Binds the calling thread, and all programs it starts, to the CPUs after the first.
///
/// # Errors
/// There is no other CPU, or the kernel refuses.
pub(super) fn leave_first_cpu() -> Result<()> {
    // SAFETY: a CPU set is an array of integers, for which zero is a valid value.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    let size = size_of_val(&set);
    // SAFETY: the kernel writes at most `size` bytes to `set`, which has that size and is alive.
    check(unsafe { libc::sched_getaffinity(0, size, &raw mut set) })?;
    // SAFETY: zero is less than the number of CPUs in a set; both calls only access the set.
    let others = unsafe {
        libc::CPU_CLR(0, &mut set);
        libc::CPU_COUNT(&set)
    };
    ensure!(others > 0, "the emulated machine has a single CPU");
    // SAFETY: the kernel reads `size` bytes of `set`, which has that size.
    check(unsafe { libc::sched_setaffinity(0, size, &raw const set) })
}

fn check(result: libc::c_int) -> Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()).context("cannot choose the CPUs for guests"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_leaves_the_first_cpu_for_good() {
        let all = std::thread::available_parallelism().map_or(1, usize::from);
        let left = std::thread::spawn(|| {
            leave_first_cpu().and_then(|()| Ok(std::thread::available_parallelism().map(usize::from)?))
        });
        match left.join().expect("no panic") {
            // The first CPU may have been excluded from the start.
            Ok(left) => assert!(left == all - 1 || left == all, "{left} of {all} CPUs are left"),
            Err(error) => assert_eq!(all, 1, "{error:#}"),
        }
    }
}
