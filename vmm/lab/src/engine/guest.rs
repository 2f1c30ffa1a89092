//! The guest's side of a fault: whoever takes it from its queue - the page request thread, or the NIC's driver - and the
//! handlers behind them.

use std::sync::Arc;

use rand_pcg::Pcg64Mcg;
use refault_abi::event::{Eqe, FAULT_WRITE};
use refault_bus::pri::ResponseCode;
use refault_bus::probe::{Probe, ProbeEvent, Stage};
use refault_bus::{AddressSpace, Iova, PrgIndex};
use refault_model::nic::{PageFaultQueue, Umem};
use refault_model::paging::PageSize;
use refault_model::process::FaultHandlers;
use refault_model::vtd::{Answer, QueuedRequest, RemappingUnit};
use refault_model::{ModelError, Process};

use super::agenda::Event;
use super::dice::{Stream, dice, happens};
use super::session::Session;
use super::world::World;
use crate::machine::Machine;
use crate::outcome::HandlerOutcome;
use crate::scenario::{Guest as Setup, Scenario};

/// The kernel, as far as faults concern it.
pub(super) struct Guest {
    world: Arc<World>,
    setup: Setup,
    unit: Arc<RemappingUnit>,
    events: Arc<PageFaultQueue>,
    probe: Arc<dyn Probe>,
    process: Arc<Process>,
    umem: Option<Arc<Umem>>,
    handlers: FaultHandlers<Fault>,
    /// What each handler is at, and how long the part under the lock will take.
    phases: Vec<Phase>,
    dice: Pcg64Mcg,
    outcome: HandlerOutcome,
}

/// A fault that arrived at the handlers.
#[derive(Clone, Copy, Debug)]
struct Fault {
    asked: Asked,
    arrived_ns: u64,
    /// It ends in an error.
    refused: bool,
}

/// Who asked for a page.
#[derive(Clone, Copy, Debug)]
enum Asked {
    /// The IOMMU, for the device.
    PageRequest(QueuedRequest),
    /// The NIC, for a region with a table of its own.
    PageFault(Eqe),
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
        machine: &Machine,
        session: &Session,
        probe: Arc<dyn Probe>,
    ) -> Self {
        let setup = scenario.guest;
        let count = setup.handlers as usize;
        Self {
            world,
            unit: machine.unit.clone(),
            events: machine.faults.clone(),
            process: session.process.clone(),
            umem: session.umem(),
            probe,
            handlers: FaultHandlers::new(count, setup.batch as usize),
            phases: vec![Phase::Locked; count],
            dice: dice(scenario.seed, Stream::Faults),
            outcome: HandlerOutcome::default(),
            setup,
        }
    }

    /// Another program has taken the place of the one before.
    pub(super) fn serve(&mut self, session: &Session) {
        (self.process, self.umem) = (session.process.clone(), session.umem());
    }

    /// Refuses what is in the queue and what the handlers have; they have nothing to do afterwards.
    pub(super) fn refuse_all(&mut self) -> Result<(), ModelError> {
        self.unit.service_page_requests(|_| Answer::Now(ResponseCode::InvalidRequest))?;
        let count = self.setup.handlers as usize;
        let handlers = FaultHandlers::new(count, self.setup.batch as usize);
        for fault in std::mem::replace(&mut self.handlers, handlers).into_faults() {
            self.answer(&Fault { refused: true, ..fault })?;
        }
        Ok(())
    }

    /// The page request thread takes what is in the queue, and hands it to the handlers.
    pub(super) fn thread(&mut self) -> Result<(), ModelError> {
        let mut taken = Vec::new();
        self.unit.service_page_requests(|request| {
            taken.push(Asked::PageRequest(*request));
            Answer::Later
        })?;
        self.arrive(taken);
        Ok(())
    }

    /// The driver takes what is in its event queue, and hands it to the handlers.
    pub(super) fn driver(&mut self) -> Result<(), ModelError> {
        let taken = self.events.take()?.into_iter().map(Asked::PageFault).collect();
        self.arrive(taken);
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

    fn arrive(&mut self, taken: Vec<Asked>) {
        let arrived_ns = self.world.now_ns();
        for asked in taken {
            asked.note(Stage::Taken, &*self.probe);
            self.handlers.arrive(Fault { asked, arrived_ns, refused: false });
        }
        let outstanding = self.handlers.outstanding() as u64;
        self.outcome.most_outstanding = self.outcome.most_outstanding.max(outstanding);
        self.start();
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
        fault.asked.note(Stage::Handling, &*self.probe);
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
        let Some(Fault { asked, .. }) = self.handlers.current(handler) else { return Ok(()) };
        let began = self.world.now_ns();
        let found = self.bring(&asked, asked.page());
        if found {
            self.prefetch(&asked)?;
        } else if let Some(fault) = self.handlers.current_mut(handler) {
            fault.refused = true;
        }
        self.world.pass(&self.world.timing.table_update);
        asked.note(Stage::Handled, &*self.probe);
        if self.handlers.next(handler).is_some() {
            self.outcome.busy_ns += u128::from(self.world.now_ns() - began);
            self.handle(handler);
            return Ok(());
        }
        self.world.pass(&self.world.timing.response);
        let mut answered = Vec::new();
        self.handlers.finish(handler, |fault| answered.push(fault));
        answered.iter().try_for_each(|fault| self.answer(fault))?;
        self.outcome.busy_ns += u128::from(self.world.now_ns() - began);
        self.start();
        Ok(())
    }

    fn answer(&self, fault: &Fault) -> Result<(), ModelError> {
        match &fault.asked {
            Asked::PageRequest(request) => {
                let refused = ResponseCode::InvalidRequest;
                let code = if fault.refused { refused } else { ResponseCode::Success };
                self.unit.respond(request, code)
            }
            Asked::PageFault(event) => {
                // The command is a write to the device: it travels, and is executed when it arrives.
                self.world.pass(&self.world.timing.response_message);
                self.events.answer(event, !fault.refused)
            }
        }
    }

    /// Maps a page for whoever asked; whether it is one of the memory.
    fn bring(&self, asked: &Asked, at: Iova) -> bool {
        match (asked, &self.umem) {
            (Asked::PageRequest(_), _) => self.process.fault_at(at, asked.write()).is_ok(),
            (Asked::PageFault(event), Some(umem)) if umem.region().region().key == event.number => {
                umem.bring(at, asked.write()).is_ok()
            }
            // Of a region that is gone.
            (Asked::PageFault(_), _) => false,
        }
    }

    /// Maps the pages behind a missing one that are missing too.
    fn prefetch(&mut self, asked: &Asked) -> Result<(), ModelError> {
        let page = PageSize::Small.bytes();
        for ahead in 1..=u64::from(self.setup.prefetch).max(asked.wanted() - 1) {
            let at = Iova(asked.page().0 + ahead * page);
            if matches!(asked, Asked::PageRequest(_)) {
                match self.process.space.lookup(at)? {
                    Some(leaf) if leaf.writable() || !asked.write() => continue,
                    _ => {}
                }
            }
            if !self.bring(asked, at) {
                // The end of the memory.
                break;
            }
            self.outcome.prefetched += 1;
            self.world.pass(&self.world.timing.next_page);
        }
        Ok(())
    }
}

impl Asked {
    fn page(&self) -> Iova {
        match self {
            Self::PageRequest(request) => request.page,
            Self::PageFault(event) => Iova(event.address).align_down(PageSize::Small.shift()),
        }
    }

    fn write(&self) -> bool {
        match self {
            Self::PageRequest(request) => request.write,
            Self::PageFault(event) => event.code == FAULT_WRITE,
        }
    }

    /// Pages that are wanted, the missing one included.
    fn wanted(&self) -> u64 {
        match self {
            Self::PageRequest(_) => 1,
            Self::PageFault(event) => {
                let end = event.address + u64::from(event.length.max(1));
                (end - self.page().0).div_ceil(PageSize::Small.bytes())
            }
        }
    }

    fn note(&self, stage: Stage, probe: &dyn Probe) {
        let (space, group, at) = match self {
            Self::PageRequest(request) => (AddressSpace::of(request.pasid), request.group, request.page),
            Self::PageFault(event) => {
                // The slot is in the token's low bits.
                let slot = PrgIndex::truncated(u64::from(event.token));
                (AddressSpace::Region(event.number), slot, Iova(event.address))
            }
        };
        let event = ProbeEvent::new(stage, space, at);
        probe.record(&ProbeEvent { group: Some(group), write: self.write(), ..event });
    }
}
