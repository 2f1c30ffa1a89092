//! The guest's side of a fault: the page request thread, and the handlers behind it.

use std::sync::Arc;

use rand_pcg::Pcg64Mcg;
use refault_bus::pri::ResponseCode;
use refault_bus::probe::{Probe, ProbeEvent, Stage};
use refault_bus::{AddressSpace, Iova};
use refault_model::handlers::Handlers;
use refault_model::paging::PageSize;
use refault_model::vtd::{Answer, QueuedRequest, Unit};
use refault_model::{ModelError, Process};

use super::agenda::Event;
use super::dice::{Stream, dice, happens};
use super::world::World;
use crate::lab::outcome::HandlerOutcome;
use crate::lab::scenario::{Guest as Setup, Scenario};

/// The kernel, as far as faults concern it.
pub(super) struct Guest {
    world: Arc<World>,
    setup: Setup,
    unit: Arc<Unit>,
    process: Arc<Process>,
    probe: Arc<dyn Probe>,
    handlers: Handlers<Fault>,
    /// What each handler is at, and how long the part under the lock will take.
    phases: Vec<Phase>,
    dice: Pcg64Mcg,
    outcome: HandlerOutcome,
}

/// A fault that arrived at the handlers.
#[derive(Clone, Copy, Debug)]
struct Fault {
    request: QueuedRequest,
    arrived_ns: u64,
}

/// What a handler is at.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// The part of a fault that needs no lock; then comes the one that does.
    Open { locked_ns: u64 },
    /// The part that needs it.
    Locked,
}

impl Guest {
    pub(super) fn new(
        world: Arc<World>,
        scenario: &Scenario,
        unit: Arc<Unit>,
        process: Arc<Process>,
        probe: Arc<dyn Probe>,
    ) -> Self {
        let setup = scenario.guest;
        let count = setup.handlers as usize;
        Self {
            world,
            unit,
            process,
            probe,
            handlers: Handlers::new(count, setup.batch as usize),
            phases: vec![Phase::Locked; count],
            dice: dice(scenario.seed, Stream::Faults),
            outcome: HandlerOutcome::default(),
            setup,
        }
    }

    /// The page request thread takes what is in the queue, and hands it to the handlers.
    pub(super) fn thread(&mut self) -> Result<(), ModelError> {
        let Self { world, unit, handlers, probe, .. } = self;
        unit.service_page_requests(|request| {
            note(&**probe, Stage::Taken, request);
            handlers.arrive(Fault { request: *request, arrived_ns: world.now_ns() });
            Answer::Later
        })?;
        let outstanding = self.handlers.outstanding() as u64;
        self.outcome.most_outstanding = self.outcome.most_outstanding.max(outstanding);
        self.start();
        Ok(())
    }

    /// A handler is through with what it was doing.
    pub(super) fn handler(&mut self, handler: usize) -> Result<(), ModelError> {
        match self.phases[handler] {
            Phase::Open { locked_ns: 0 } => self.resolve(handler),
            Phase::Open { locked_ns } => {
                if self.handlers.acquire(handler) {
                    self.phases[handler] = Phase::Locked;
                    self.world.note(locked_ns, Event::Handler(handler));
                }
                Ok(())
            }
            Phase::Locked => {
                if let Some(next) = self.handlers.release()
                    && let Phase::Open { locked_ns } = self.phases[next]
                {
                    self.phases[next] = Phase::Locked;
                    self.world.note(locked_ns, Event::Handler(next));
                }
                self.resolve(handler)
            }
        }
    }

    /// What the handlers saw.
    pub(super) fn outcome(self) -> HandlerOutcome {
        self.outcome
    }

    /// Gives faults to handlers without work.
    fn start(&mut self) {
        while let Some(handler) = self.handlers.start() {
            self.handle(handler);
        }
    }

    /// A handler begins with the fault it has in hand.
    fn handle(&mut self, handler: usize) {
        let Some(fault) = self.handlers.current(handler) else { return };
        note(&*self.probe, Stage::Handling, &fault.request);
        let timing = &self.world.timing;
        let major = happens(&mut self.dice, self.setup.major_share);
        let takes = self.world.draw(if major { &timing.major } else { &timing.minor });
        let locked_ns = (takes as f64 * self.setup.locked_share) as u64;
        self.outcome.faults += 1;
        self.outcome.wait_ns += u128::from(self.world.now_ns() - fault.arrived_ns);
        self.outcome.busy_ns += u128::from(takes);
        self.phases[handler] = Phase::Open { locked_ns };
        self.world.note(takes - locked_ns, Event::Handler(handler));
    }

    /// The fault in hand is resolved: its page is mapped, and those ahead of it.
    fn resolve(&mut self, handler: usize) -> Result<(), ModelError> {
        let Some(Fault { request, .. }) = self.handlers.current(handler) else { return Ok(()) };
        let began = self.world.now_ns();
        let code = self.process.fault(&request);
        if code == ResponseCode::Success {
            self.prefetch(&request)?;
        }
        self.world.pass(&self.world.timing.table_update);
        note(&*self.probe, Stage::Handled, &request);
        if self.handlers.next(handler).is_some() {
            self.outcome.busy_ns += u128::from(self.world.now_ns() - began);
            self.handle(handler);
            return Ok(());
        }
        self.world.pass(&self.world.timing.response);
        self.outcome.busy_ns += u128::from(self.world.now_ns() - began);
        let mut result = Ok(());
        let Self { handlers, unit, .. } = self;
        handlers.finish(handler, |fault| {
            // Refused only if it is not the process' memory, which all of the load's requests are.
            let answered = unit.respond(&fault.request, ResponseCode::Success);
            result = std::mem::replace(&mut result, Ok(())).and(answered);
        });
        result?;
        self.start();
        Ok(())
    }

    /// Maps the pages behind a missing one that are missing too.
    fn prefetch(&mut self, request: &QueuedRequest) -> Result<(), ModelError> {
        let page = PageSize::Small.bytes();
        for ahead in 1..=u64::from(self.setup.prefetch) {
            let at = Iova(request.page.0 + ahead * page);
            match self.process.space.lookup(at)? {
                Some(leaf) if leaf.writable() || !request.write => continue,
                _ => {}
            }
            match self.process.fault_at(at, request.write) {
                Ok(_) => {
                    self.outcome.prefetched += 1;
                    self.world.pass(&self.world.timing.next_page);
                }
                // The end of the memory.
                Err(ModelError::NotMapped { .. }) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn note(probe: &dyn Probe, stage: Stage, request: &QueuedRequest) {
    let event = ProbeEvent::new(stage, AddressSpace::of(request.pasid), request.page);
    probe.record(&ProbeEvent { group: Some(request.group), write: request.write, ..event });
}
