//! A machine with its programs, and the virtual time that passes while one waits.

use std::sync::{Arc, Mutex, Weak};

use refault_bus::clock::Clock;
use refault_bus::sync::lock;
use refault_model::scheduler::{Scheduler, WaitResult};

use super::machine::{CellMachine, OwnSpace};
use super::program::CellProgram;

/// A wait of an hour, in nanoseconds, counts as endless: nothing in a cell takes as long.
const FOREVER_NS: u64 = 3_600_000_000_000;

/// Machine, programs, and errors of refault itself.
pub(super) struct Simulation {
    pub(super) machine: Arc<CellMachine>,
    programs: Mutex<Vec<Weak<CellProgram>>>,
    failures: Mutex<Vec<String>>,
}

impl Simulation {
    pub(super) fn new(own: OwnSpace) -> anyhow::Result<Arc<Self>> {
        let machine = Arc::new(CellMachine::new(own)?);
        Ok(Arc::new(Self { machine, programs: Mutex::default(), failures: Mutex::default() }))
    }

    /// Runs a program's timed actions from now on.
    pub(super) fn add_program(&self, program: &Arc<CellProgram>) {
        lock(&self.programs).push(Arc::downgrade(program));
    }

    /// Records an error that must not occur under any policy.
    pub(super) fn fail(&self, what: String) {
        lock(&self.failures).push(what);
    }

    /// Takes the recorded errors.
    pub(super) fn take_failures(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.failures))
    }

    /// Runs machine and programs until nothing is left to do now.
    pub(super) fn act(&self) {
        let programs = self.programs();
        let mut acted = true;
        while acted {
            if let Err(error) = self.machine.run_until_idle() {
                return self.fail(format!("{error:#}"));
            }
            let now = self.now_ns();
            acted = programs.iter().any(|program| match program.tick(now) {
                Ok(acted) => acted,
                Err(error) => {
                    self.fail(format!("a program cannot release its region: {error:#}"));
                    false
                }
            });
        }
    }

    /// The next time at which a program or the NIC has something to do.
    fn next_ns(&self) -> Option<u64> {
        let due = self.programs().into_iter().filter_map(|program| program.due_ns());
        due.chain(self.machine.next_deadline_ns()).min()
    }

    fn programs(&self) -> Vec<Arc<CellProgram>> {
        let programs = lock(&self.programs);
        programs.iter().filter_map(Weak::upgrade).collect()
    }
}

impl Scheduler for Simulation {
    fn now_ns(&self) -> u64 {
        self.machine.clock.now_ns()
    }

    fn wait(&self, deadline_ns: Option<u64>, ready: &mut dyn FnMut() -> bool) -> WaitResult {
        let limit = self.now_ns() + FOREVER_NS;
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
                Some(next) if next <= limit => self.machine.pass_time_to(next),
                _ => return WaitResult::Deadlock,
            }
        }
    }
}
