//! All vCPUs of a machine, and which of them may run: they can be paused, to inspect and change them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use vmm_sys_util::signal::{Killable, SIGRTMIN};

use super::Vcpu;
use crate::debug::traps::{StopListener, VcpuStop};
use refault_bus::sync::lock;

/// How often the kick is repeated for a thread that does not leave the guest. A signal just before the guest is entered
/// does not keep it out, so one may not be enough.
const KICK_AGAIN: Duration = Duration::from_millis(1);

/// Which vCPUs a debugger lets run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Runnable {
    /// Every vCPU may run.
    #[default]
    All,
    /// No vCPU may run.
    None,
    /// Only the vCPU with this number may run.
    Only(u8),
}

/// The vCPUs of a machine.
pub struct Cpus {
    vcpus: Vec<Mutex<Vcpu>>,
    /// Set for a vCPU that is to leave its guest.
    leave: Vec<AtomicBool>,
    gate: Mutex<Gate>,
    changed: Condvar,
    threads: Mutex<Vec<JoinHandle<()>>>,
    listener: Mutex<Option<StopListener>>,
}

/// Which vCPUs may be in the guest, and which are.
struct Gate {
    pauses: usize,
    runnable: Runnable,
    stop: bool,
    inside: Vec<bool>,
}

impl Gate {
    fn may_enter(&self, index: usize) -> bool {
        let runnable = match self.runnable {
            Runnable::All => true,
            Runnable::None => false,
            Runnable::Only(only) => usize::from(only) == index,
        };
        self.pauses == 0 && runnable && !self.stop
    }

    /// Whether a vCPU is in its guest that should not be.
    fn is_crowded(&self) -> bool {
        self.inside.iter().enumerate().any(|(index, inside)| *inside && !self.may_enter(index))
    }
}

/// While this is alive, no vCPU runs.
pub struct Paused<'a>(&'a Cpus);

impl Cpus {
    /// vCPUs without threads yet.
    pub fn new(vcpus: Vec<Vcpu>) -> Self {
        let count = vcpus.len();
        let gate = Gate { pauses: 0, runnable: Runnable::All, stop: false, inside: vec![false; count] };
        Self {
            vcpus: vcpus.into_iter().map(Mutex::new).collect(),
            leave: (0..count).map(|_| AtomicBool::new(false)).collect(),
            gate: Mutex::new(gate),
            changed: Condvar::new(),
            threads: Mutex::default(),
            listener: Mutex::default(),
        }
    }

    /// Number of vCPUs.
    pub fn count(&self) -> u8 {
        u8::try_from(self.vcpus.len()).unwrap_or(u8::MAX)
    }

    /// Waits until a vCPU is out of its guest and returns it; `None` if there is no such vCPU.
    pub fn vcpu(&self, index: u8) -> Option<MutexGuard<'_, Vcpu>> {
        Some(lock(self.vcpus.get(usize::from(index))?))
    }

    /// Waits until no vCPU is in its guest, and keeps them out. Must not be called from a vCPU's thread, which would wait
    /// for itself.
    pub fn pause(&self) -> Paused<'_> {
        self.change(|gate| gate.pauses += 1);
        self.clear();
        Paused(self)
    }

    /// Lets only the `runnable` vCPUs run, and waits until no other is in its guest. Must not be called from a vCPU's thread,
    /// which would wait for itself.
    pub fn set_runnable(&self, runnable: Runnable) {
        self.change(|gate| gate.runnable = runnable);
        self.clear();
    }

    /// Sets the listener for debugger stops; without one a vCPU does not stop.
    pub fn listen(&self, listener: Option<StopListener>) {
        *lock(&self.listener) = listener;
    }

    /// Waits until all vCPUs have left their guests for good and their threads have ended.
    pub(super) fn stop(&self) {
        self.change(|gate| gate.stop = true);
        self.clear();
        let threads = std::mem::take(&mut *lock(&self.threads));
        threads.into_iter().for_each(|thread| drop(thread.join()));
    }

    pub(super) fn add_thread(&self, thread: JoinHandle<()>) {
        lock(&self.threads).push(thread);
    }

    /// For a vCPU's thread: waits until it may run. False if the machine ends.
    pub(super) fn enter(&self, index: u8) -> bool {
        let index = usize::from(index);
        let mut gate = lock(&self.gate);
        set(&mut gate.inside, index, false);
        self.changed.notify_all();
        while !gate.may_enter(index) && !gate.stop {
            gate = self.changed.wait(gate).unwrap_or_else(PoisonError::into_inner);
        }
        let goes = !gate.stop;
        set(&mut gate.inside, index, goes);
        goes
    }

    /// For a vCPU's thread: it has left its guest.
    pub(super) fn leave(&self, index: u8) {
        set(&mut lock(&self.gate).inside, usize::from(index), false);
        self.changed.notify_all();
    }

    /// For a vCPU's thread: whether it must leave its guest.
    pub(super) fn must_leave(&self, index: u8) -> bool {
        self.leave.get(usize::from(index)).is_some_and(|leave| leave.load(Ordering::Acquire))
    }

    /// For a vCPU's thread: it stopped for the debugger, which then decides which vCPUs run. False if no debugger is
    /// attached any more.
    pub(super) fn trapped(&self, stop: VcpuStop) -> bool {
        let listener = lock(&self.listener);
        let Some(notify) = &*listener else { return false };
        self.change(|gate| gate.runnable = Runnable::None);
        notify(stop);
        true
    }

    fn change(&self, change: impl FnOnce(&mut Gate)) {
        let mut gate = lock(&self.gate);
        change(&mut gate);
        for (index, leave) in self.leave.iter().enumerate() {
            leave.store(!gate.may_enter(index), Ordering::Release);
        }
        self.changed.notify_all();
    }

    /// Interrupts vCPUs that should not be in the guest, until there are none.
    fn clear(&self) {
        let mut gate = lock(&self.gate);
        while gate.is_crowded() {
            for (thread, inside) in lock(&self.threads).iter().zip(&gate.inside) {
                if *inside {
                    // Fails only for a thread that has just ended.
                    let _ = thread.kill(SIGRTMIN());
                }
            }
            let waited = self.changed.wait_timeout(gate, KICK_AGAIN);
            gate = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        self.0.change(|gate| gate.pauses -= 1);
    }
}

fn set(flags: &mut [bool], index: usize, value: bool) {
    if let Some(flag) = flags.get_mut(index) {
        *flag = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(pauses: usize, runnable: Runnable, stop: bool) -> Gate {
        Gate { pauses, runnable, stop, inside: vec![true, true] }
    }

    #[test]
    fn a_vcpu_runs_unless_paused_held_or_stopped() {
        let may = |gate: Gate| [gate.may_enter(0), gate.may_enter(1)];
        assert_eq!(may(gate(0, Runnable::All, false)), [true, true]);
        assert_eq!(may(gate(0, Runnable::Only(1), false)), [false, true]);
        assert_eq!(may(gate(0, Runnable::None, false)), [false, false]);
        assert_eq!(may(gate(1, Runnable::All, false)), [false, false], "a core is written");
        assert_eq!(may(gate(0, Runnable::All, true)), [false, false], "the machine ends");
    }

    #[test]
    fn a_pause_begins_when_every_other_vcpu_has_left_its_guest() {
        assert!(gate(1, Runnable::All, false).is_crowded());
        assert!(!gate(0, Runnable::All, false).is_crowded());
        let mut stepping = gate(0, Runnable::Only(1), false);
        assert!(stepping.is_crowded());
        stepping.inside[0] = false;
        assert!(!stepping.is_crowded());
    }
}
