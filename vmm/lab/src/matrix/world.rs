//! A machine with the programs on it, and the time that passes when somebody waits.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use refault_bus::clock::Clock;
use refault_model::scheduler::{Scheduler, WaitResult};

use super::machine::{Machine, OwnSpace};
use super::program::Program;

/// Nothing in a cell takes as long as this, in nanoseconds: an hour. Who waits longer waits for ever.
const FOR_EVER_NS: u64 = 3_600_000_000_000;

/// Machine, programs, and what went wrong in refault itself.
pub(super) struct World {
    pub(super) machine: Arc<Machine>,
    programs: Mutex<Vec<Weak<Program>>>,
    failures: Mutex<Vec<String>>,
}

impl World {
    pub(super) fn new(own: OwnSpace) -> anyhow::Result<Arc<Self>> {
        let machine = Arc::new(Machine::new(own)?);
        Ok(Arc::new(Self { machine, programs: Mutex::default(), failures: Mutex::default() }))
    }

    /// Lets a program act from now on, when it is its time.
    pub(super) fn adopt(&self, program: &Arc<Program>) {
        self.programs.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(program));
    }

    /// Notes what must not happen whatever the policy.
    pub(super) fn fail(&self, what: String) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    /// Takes what was noted.
    pub(super) fn take_failures(&self) -> Vec<String> {
        std::mem::take(&mut *self.failures.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lets everybody do what there is to do now.
    pub(super) fn act(&self) {
        let programs = self.programs();
        let mut acted = true;
        while acted {
            if let Err(error) = self.machine.settle() {
                return self.fail(format!("{error:#}"));
            }
            let now = self.now_ns();
            acted = programs.iter().any(|program| match program.tick(now) {
                Ok(acted) => acted,
                Err(error) => {
                    self.fail(format!("a program cannot let go: {error:#}"));
                    false
                }
            });
        }
    }

    /// When anybody has something to do next.
    fn next_ns(&self) -> Option<u64> {
        let due = self.programs().into_iter().filter_map(|program| program.due_ns());
        due.chain(self.machine.next_deadline_ns()).min()
    }

    fn programs(&self) -> Vec<Arc<Program>> {
        let programs = self.programs.lock().unwrap_or_else(PoisonError::into_inner);
        programs.iter().filter_map(Weak::upgrade).collect()
    }
}

impl Scheduler for World {
    fn now_ns(&self) -> u64 {
        self.machine.clock.now_ns()
    }

    fn wait(&self, deadline_ns: Option<u64>, ready: &mut dyn FnMut() -> bool) -> WaitResult {
        let give_up = self.now_ns() + FOR_EVER_NS;
        loop {
            self.act();
            if ready() {
                return WaitResult::Ready;
            }
            let now = self.now_ns();
            if deadline_ns.is_some_and(|deadline| deadline <= now) {
                return WaitResult::TimedOut;
            }
            let next = self.next_ns().filter(|&next| next > now);
            match next.into_iter().chain(deadline_ns).min() {
                Some(next) if next <= give_up => self.machine.pass_time_to(next),
                _ => return WaitResult::Deadlock,
            }
        }
    }
}
