//! The guest's side of a fault: the page request thread or the NIC's driver takes it from its queue, and a handler
//! resolves it.

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
use refault_observe::numbers::whole;

use super::agenda::SimEvent;
use super::client::Client;
use super::dice::{Stream, dice, happens};
use super::timeline::Timeline;
use crate::machine::LabMachine;
use crate::outcome::HandlerOutcome;
use crate::scenario::{Guest, Scenario};

/// The part of the guest kernel that handles faults.
pub(super) struct GuestKernel {
    timeline: Arc<Timeline>,
    setup: Guest,
    unit: Arc<RemappingUnit>,
    events: Arc<PageFaultQueue>,
    probe: Arc<dyn Probe>,
    process: Arc<Process>,
    umem: Option<Arc<Umem>>,
    handlers: FaultHandlers<Fault>,
    /// The phase of each handler.
    phases: Vec<Phase>,
    dice: Pcg64Mcg,
    outcome: HandlerOutcome,
}

/// A fault that has arrived at the handlers.
#[derive(Clone, Copy, Debug)]
struct Fault {
    source: FaultSource,
    arrived_ns: u64,
    /// It is answered with an error.
    refused: bool,
}

/// The message that reported the fault.
#[derive(Clone, Copy, Debug)]
enum FaultSource {
    /// A page request of the device, through the IOMMU.
    PageRequest(QueuedRequest),
    /// A page fault event of an on-demand region.
    PageFault(Eqe),
}

/// What a handler does.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// The part of the handling without the lock; the part under it takes `locked_ns`.
    Unlocked { locked_ns: u64 },
    /// The part under the lock.
    Locked,
}

impl GuestKernel {
    pub(super) fn new(
        timeline: Arc<Timeline>,
        scenario: &Scenario,
        machine: &LabMachine,
        client: &Client,
        probe: Arc<dyn Probe>,
    ) -> Self {
        let setup = scenario.guest;
        let count = setup.handlers as usize;
        Self {
            timeline,
            unit: machine.unit.clone(),
            events: machine.faults.clone(),
            process: client.process.clone(),
            umem: client.umem(),
            probe,
            handlers: FaultHandlers::new(count, setup.batch as usize),
            phases: vec![Phase::Locked; count],
            dice: dice(scenario.seed, Stream::Faults),
            outcome: HandlerOutcome::default(),
            setup,
        }
    }

    /// Serves a program that replaces the one before.
    pub(super) fn serve(&mut self, client: &Client) {
        (self.process, self.umem) = (client.process.clone(), client.umem());
    }

    /// Refuses all faults in the queue and at the handlers, which are idle afterwards.
    pub(super) fn refuse_all(&mut self) -> Result<(), ModelError> {
        self.unit.service_page_requests(|_| Answer::Now(ResponseCode::InvalidRequest))?;
        let count = self.setup.handlers as usize;
        let handlers = FaultHandlers::new(count, self.setup.batch as usize);
        for fault in std::mem::replace(&mut self.handlers, handlers).into_faults() {
            self.answer(&Fault { refused: true, ..fault })?;
        }
        Ok(())
    }

    /// The page request thread drains its queue and hands the requests to the handlers.
    pub(super) fn thread(&mut self) -> Result<(), ModelError> {
        let mut taken = Vec::new();
        self.unit.service_page_requests(|request| {
            taken.push(FaultSource::PageRequest(*request));
            Answer::Later
        })?;
        self.arrive(taken);
        Ok(())
    }

    /// The driver drains its event queue and hands the faults to the handlers.
    pub(super) fn driver(&mut self) -> Result<(), ModelError> {
        let taken = self.events.take()?.into_iter().map(FaultSource::PageFault).collect();
        self.arrive(taken);
        Ok(())
    }

    /// A handler has finished its phase.
    pub(super) fn handler(&mut self, handler: usize) -> Result<(), ModelError> {
        match self.phases[handler] {
            Phase::Unlocked { locked_ns: 0 } => self.resolve(handler),
            Phase::Unlocked { locked_ns } => {
                if self.handlers.acquire(handler) {
                    self.phases[handler] = Phase::Locked;
                    self.timeline.schedule(locked_ns, SimEvent::Handler(handler));
                }
                Ok(())
            }
            Phase::Locked => {
                if let Some(next) = self.handlers.release()
                    && let Phase::Unlocked { locked_ns } = self.phases[next]
                {
                    self.phases[next] = Phase::Locked;
                    self.timeline.schedule(locked_ns, SimEvent::Handler(next));
                }
                self.resolve(handler)
            }
        }
    }

    /// The handlers' statistics.
    pub(super) fn outcome(self) -> HandlerOutcome {
        self.outcome
    }

    fn arrive(&mut self, taken: Vec<FaultSource>) {
        let arrived_ns = self.timeline.now_ns();
        for source in taken {
            source.record(Stage::Taken, &*self.probe);
            self.handlers.arrive(Fault { source, arrived_ns, refused: false });
        }
        let outstanding = self.handlers.outstanding() as u64;
        self.outcome.most_outstanding = self.outcome.most_outstanding.max(outstanding);
        self.start();
    }

    /// Gives waiting faults to idle handlers.
    fn start(&mut self) {
        while let Some(handler) = self.handlers.start() {
            self.handle(handler);
        }
    }

    /// A handler starts on its current fault.
    fn handle(&mut self, handler: usize) {
        let Some(fault) = self.handlers.current(handler) else { return };
        fault.source.record(Stage::Handling, &*self.probe);
        let timing = &self.timeline.timing;
        let major = happens(&mut self.dice, self.setup.major_share);
        let duration = self.timeline.draw(if major { &timing.major } else { &timing.minor });
        let locked_ns = whole(duration as f64 * self.setup.locked_share);
        self.outcome.faults += 1;
        self.outcome.wait_ns += u128::from(self.timeline.now_ns() - fault.arrived_ns);
        self.outcome.busy_ns += u128::from(duration);
        self.phases[handler] = Phase::Unlocked { locked_ns };
        self.timeline.schedule(duration - locked_ns, SimEvent::Handler(handler));
    }

    /// Maps the page of the current fault, and the pages to prefetch.
    fn resolve(&mut self, handler: usize) -> Result<(), ModelError> {
        let Some(Fault { source, .. }) = self.handlers.current(handler) else { return Ok(()) };
        let began = self.timeline.now_ns();
        let mapped = self.map(&source, source.page());
        if mapped {
            self.prefetch(&source)?;
        } else if let Some(fault) = self.handlers.current_mut(handler) {
            fault.refused = true;
        }
        self.timeline.pass(&self.timeline.timing.table_update);
        source.record(Stage::Handled, &*self.probe);
        if self.handlers.next(handler).is_some() {
            self.outcome.busy_ns += u128::from(self.timeline.now_ns() - began);
            self.handle(handler);
            return Ok(());
        }
        self.timeline.pass(&self.timeline.timing.response);
        let mut answered = Vec::new();
        self.handlers.finish(handler, |fault| answered.push(fault));
        answered.iter().try_for_each(|fault| self.answer(fault))?;
        self.outcome.busy_ns += u128::from(self.timeline.now_ns() - began);
        self.start();
        Ok(())
    }

    fn answer(&self, fault: &Fault) -> Result<(), ModelError> {
        match &fault.source {
            FaultSource::PageRequest(request) => {
                let refused = ResponseCode::InvalidRequest;
                let code = if fault.refused { refused } else { ResponseCode::Success };
                self.unit.respond(request, code)
            }
            FaultSource::PageFault(event) => {
                // The resume command is an MMIO write: the device executes it when it arrives.
                self.timeline.pass(&self.timeline.timing.response_message);
                self.events.answer(event, !fault.refused)
            }
        }
    }

    /// Maps a page for the source of a fault; `false` if the address is not mapped memory.
    fn map(&self, source: &FaultSource, at: Iova) -> bool {
        match (source, &self.umem) {
            (FaultSource::PageRequest(_), _) => self.process.fault_at(at, source.write()).is_ok(),
            (FaultSource::PageFault(event), Some(umem)) if umem.region().region().key == event.number => {
                umem.bring(at, source.write()).is_ok()
            }
            // The region is gone.
            (FaultSource::PageFault(_), _) => false,
        }
    }

    /// Maps missing pages after the faulting one.
    fn prefetch(&mut self, source: &FaultSource) -> Result<(), ModelError> {
        let page = PageSize::Small.bytes();
        for ahead in 1..=u64::from(self.setup.prefetch).max(source.pages() - 1) {
            let at = Iova(source.page().0 + ahead * page);
            if matches!(source, FaultSource::PageRequest(_)) {
                match self.process.space.lookup(at)? {
                    Some(leaf) if leaf.writable() || !source.write() => continue,
                    _ => {}
                }
            }
            if !self.map(source, at) {
                // The end of the mapped memory.
                break;
            }
            self.outcome.prefetched += 1;
            self.timeline.pass(&self.timeline.timing.next_page);
        }
        Ok(())
    }
}

impl FaultSource {
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

    /// Pages that the fault asks for, the missing one included.
    fn pages(&self) -> u64 {
        match self {
            Self::PageRequest(_) => 1,
            Self::PageFault(event) => {
                let end = event.address + u64::from(event.length.max(1));
                (end - self.page().0).div_ceil(PageSize::Small.bytes())
            }
        }
    }

    fn record(&self, stage: Stage, probe: &dyn Probe) {
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
