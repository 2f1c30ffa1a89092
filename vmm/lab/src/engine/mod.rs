//! Runs an experiment: simulates events in the order of time until all requests of the program have completed.

pub mod actor;
mod agenda;
mod churn;
mod client;
mod dice;
mod kernel;
mod load;
pub mod requests;
mod seams;
mod sequence;
#[cfg(test)]
mod tests;
mod timeline;
mod wire;

use std::io;
use std::sync::Arc;

use refault_bus::clock::Clock;

use refault_model::ModelError;
use refault_model::dax::FsError;
use refault_nic::{FrameStats, NicStats, Work, Worker};
use thiserror::Error;

use actor::{Actor, Next};
use agenda::SimEvent;
use churn::ChurnThread;
use kernel::GuestKernel;
use load::LoadGenerator;
use seams::{TimedProbe, TimedSeams};
use timeline::Timeline;
use wire::LabWire;

pub use wire::CaptureTo;

use super::outcome::ExperimentOutcome;
use super::scenario::{NO_PAUSE, Scenario};
use crate::machine::{LabMachine, PAGE_FAULT_VECTOR};
use refault_observe::report::DeviceCounters;
use refault_observe::trace::{FaultSummary, Recorder};
use refault_rig::machine::ModelMachineSetup;
use refault_rig::machine::platform::PAGE_REQUEST_VECTOR;
use refault_rig::machine::platform::Platform;

/// log2 of the page faults that can be outstanding: more than the NIC has credits for.
const LOG_PAGE_FAULTS: u8 = 10;
/// Most faults of which an experiment keeps a record; further faults count in the histograms only.
pub const MAX_RECORDS: usize = 16 << 20;

/// An experiment could not be finished.
#[derive(Debug, Error)]
pub enum EngineError {
    /// The model guest failed; usually its memory is full.
    #[error("the model guest failed: {0}")]
    Model(#[from] ModelError),
    /// No event is left, but requests are outstanding.
    #[error(
        "no event is left at {at_ns} ns, but {missing} requests are outstanding; without an ACK timeout what is lost is not \
         sent again"
    )]
    Stuck {
        /// Virtual time in nanoseconds.
        at_ns: u64,
        /// Requests that have not completed.
        missing: u64,
    },
    /// The actor failed.
    #[error("the actor failed: {0}")]
    Actor(FsError),
    /// A capture of a scenario that has no wire.
    #[error("there are no packets to capture: the scenario has no section [wire]")]
    NoWire,
    /// The capture cannot be written.
    #[error("cannot write the capture")]
    Capture(#[from] io::Error),
}

/// Runs an experiment to its end.
///
/// # Errors
/// The machine's memory is too small for the scenario, or (a bug) requests never complete.
pub fn run(scenario: &Scenario) -> Result<ExperimentOutcome, EngineError> {
    Engine::new(scenario, None)?.run().map(|run| run.outcome)
}

/// The same, with a capture of all packets in the format pcapng.
///
/// # Errors
/// As [`run`], or the scenario has no wire, or the capture cannot be written.
pub fn run_captured(scenario: &Scenario, to: CaptureTo) -> Result<ExperimentOutcome, EngineError> {
    let engine = Engine::new(scenario, None)?;
    engine.wire.as_ref().ok_or(EngineError::NoWire)?.capture(to)?;
    engine.run().map(|run| run.outcome)
}

/// The result of an experiment with an [`Actor`].
pub struct ActorRun {
    /// The result as without an actor.
    pub outcome: ExperimentOutcome,
    /// A summary of all faults.
    pub faults: FaultSummary,
    /// What [`Actor::finish`] found.
    pub problems: Vec<String>,
}

/// Runs an experiment whose target memory belongs to an actor.
///
/// # Errors
/// As [`run`], or the actor failed.
pub fn run_with_actor(scenario: &Scenario, actor: Box<dyn Actor>) -> Result<ActorRun, EngineError> {
    Engine::new(scenario, Some(actor))?.run()
}

/// A machine and its program on the virtual clock.
struct Engine {
    /// The scenario's name and mode, as records have them.
    name: String,
    mode: String,
    timeline: Arc<Timeline>,
    machine: LabMachine,
    recorder: Arc<Recorder>,
    workers: Vec<Station>,
    load: LoadGenerator,
    guest: GuestKernel,
    churn: Option<ChurnThread>,
    wire: Option<Arc<LabWire>>,
}

/// A worker of the NIC.
struct Station {
    worker: Worker,
    /// Virtual time at which it is idle again.
    busy_until: u64,
    /// Virtual time of its next scheduled [`SimEvent::Expire`].
    expires: u64,
}

impl Engine {
    fn new(scenario: &Scenario, actor: Option<Box<dyn Actor>>) -> Result<Self, EngineError> {
        let timeline = Timeline::new(scenario.timing.clone(), scenario.seed);
        let clock: Arc<dyn Clock> = timeline.clock.clone();
        let recorder = Recorder::single_threaded(clock.clone(), record_count(scenario));
        let probe = TimedProbe::new(timeline.clone(), recorder.clone());
        let of_actor = actor.as_ref().map_or(0, |actor| actor.memory_bytes()).next_multiple_of(2 << 20);
        let device = &scenario.device;
        let platform = Platform::new(memory_bytes(scenario) + of_actor, device.iommu(), probe.clone())?;
        let page_request_order = device.page_request_order;
        let setup =
            ModelMachineSetup { page_request_order, ..ModelMachineSetup::new(scenario.nic(), clock, probe) };
        let machine = LabMachine::new(platform, setup, &TimedSeams(timeline.clone()), LOG_PAGE_FAULTS)?;
        let interrupted = Arc::downgrade(&timeline);
        machine.interrupts.listen(move |vector| {
            if let Some(timeline) = interrupted.upgrade().filter(|timeline| timeline.is_live()) {
                timeline.schedule_after(&timeline.timing.interrupt, SimEvent::Interrupt(vector));
            }
        });
        let wire = scenario.wire.as_ref().map(|wire| {
            let sends = wire.impairments(scenario.seed);
            LabWire::plug(timeline.clone(), &machine, (&sends, wire.pause_bytes != NO_PAUSE))
        });
        let wire = wire.transpose()?;
        let load = LoadGenerator::new(timeline.clone(), &machine, scenario, actor)?;
        let guest = GuestKernel::new(timeline.clone(), scenario, &machine, &load.client, recorder.clone());
        let churn = ChurnThread::new(timeline.clone(), scenario, load.client.process.clone());
        let workers = machine.workers.take();
        let station = |worker| Station { worker, busy_until: 0, expires: u64::MAX };
        let workers = workers.into_iter().map(station).collect();
        let (name, mode) = (scenario.name.clone(), scenario.device.mode.name().to_owned());
        recorder.begin(&name, &mode);
        Ok(Self { name, mode, timeline, machine, recorder, workers, load, guest, churn, wire })
    }

    fn run(mut self) -> Result<ActorRun, EngineError> {
        self.timeline.begin();
        self.load.begin()?;
        if let Some(churn) = &mut self.churn {
            churn.schedule();
        }
        self.schedule_actor();
        while !self.load.is_over() {
            let Some(event) = self.timeline.next() else {
                let (at_ns, missing) = (self.timeline.now_ns(), self.load.missing());
                return Err(EngineError::Stuck { at_ns, missing });
            };
            self.simulate(event)?;
        }
        self.recorder.end();
        self.wire.as_ref().map_or(Ok(()), |wire| wire.end_capture())?;
        let faults = self.recorder.scenario_summary(&self.name, &self.mode);
        let records = self.recorder.take_records();
        let counters = DeviceCounters {
            nic: self.nic_counters(),
            iommu: self.machine.iommu.statistics(),
            observed: records.observed.clone(),
            timing: None,
        };
        let problems = self.load.actor.as_mut().map_or(Ok(Vec::new()), |actor| actor.finish())?;
        let outcome = ExperimentOutcome {
            records,
            counters,
            load: self.load.outcome(),
            handlers: self.guest.outcome(),
        };
        Ok(ActorRun { outcome, faults, problems })
    }

    fn simulate(&mut self, event: SimEvent) -> Result<(), EngineError> {
        match event {
            SimEvent::Work(worker, work) => self.work(worker, work)?,
            SimEvent::Expire(worker) => self.expire(worker)?,
            SimEvent::Doorbell { client, pair } => {
                self.load.doorbell(client, pair)?;
                self.schedule_work(0);
            }
            SimEvent::PageRequest(request) => {
                use refault_bus::ats::TranslationAgent;
                self.machine.iommu.page_request(request);
            }
            SimEvent::Interrupt(vector) => self.interrupt(vector),
            SimEvent::Thread => self.guest.thread()?,
            SimEvent::Driver => self.guest.driver()?,
            SimEvent::Handler(handler) => {
                self.guest.handler(handler)?;
                // Resume commands are executed at once, so the woken queue pairs are runnable now.
                self.schedule_work(self.timeline.draw(&self.timeline.timing.device_wake));
            }
            SimEvent::Response(response) => {
                use refault_bus::ats::AtsEndpoint;
                self.machine.nic.page_group_response(response);
                self.schedule_work(self.timeline.draw(&self.timeline.timing.device_wake));
            }
            SimEvent::Sent(frame) => self.wire(|wire| wire.sent(frame)),
            SimEvent::Arrivals => self.wire(LabWire::arrive),
            SimEvent::Left => self.wire(LabWire::left),
            SimEvent::Arrival => self.load.arrival()?,
            SimEvent::Completion { client, slot, success } => self.completion(client, slot, success)?,
            SimEvent::Churn => self.churn()?,
            SimEvent::Actor => self.actor()?,
        }
        Ok(())
    }

    /// Lets the wire act, and then the NIC, to which frames may have come.
    fn wire(&mut self, act: impl FnOnce(&LabWire)) {
        if let Some(wire) = &self.wire {
            act(wire);
            self.schedule_work(0);
        }
    }

    /// The NIC's counters, which know nothing of what the wire lost.
    fn nic_counters(&self) -> NicStats {
        let mut stats = self.machine.nic.stats();
        if let Some(wire) = &self.wire {
            let lost = wire.counters().map(|sends| sends.lost + sends.dropped + sends.overflown + sends.down);
            let FrameStats { bad_icrc, malformed, unwanted, overflow, .. } = stats.frames;
            stats.packets_lost += lost.iter().sum::<u64>() + bad_icrc + malformed + unwanted + overflow;
        }
        stats
    }

    fn work(&mut self, worker: usize, work: Work) -> Result<(), ModelError> {
        let station = &mut self.workers[worker];
        if station.busy_until > self.timeline.now_ns() {
            self.timeline.schedule_at(station.busy_until, SimEvent::Work(worker, work));
            return Ok(());
        }
        self.timeline.work(|| station.worker.process(work));
        self.worked(worker)
    }

    fn expire(&mut self, worker: usize) -> Result<(), ModelError> {
        let station = &mut self.workers[worker];
        if station.expires > self.timeline.now_ns() {
            // Superseded by an earlier deadline.
            return Ok(());
        }
        station.expires = u64::MAX;
        self.timeline.work(|| station.worker.expire());
        self.worked(worker)
    }

    fn interrupt(&self, vector: u8) {
        let woken = match vector {
            PAGE_REQUEST_VECTOR => SimEvent::Thread,
            PAGE_FAULT_VECTOR => SimEvent::Driver,
            _ => return,
        };
        self.machine.interrupts.take(vector);
        self.timeline.schedule_after(&self.timeline.timing.wake, woken);
    }

    fn completion(&mut self, client: u32, slot: u32, success: bool) -> Result<(), ModelError> {
        if let Some(pair) = self.load.completed(client, slot, success) {
            self.at_once(|load, _, _, machine| load.reconnect(pair, machine))?;
        }
        if client == self.load.client.number { self.load.post_next() } else { Ok(()) }
    }

    fn churn(&mut self) -> Result<(), ModelError> {
        if let Some(churn) = &mut self.churn {
            churn.change_pages()?;
            churn.schedule();
        }
        Ok(())
    }

    fn schedule_actor(&mut self) {
        if let Some(actor) = &mut self.load.actor {
            self.timeline.schedule(actor.gap_ns(), SimEvent::Actor);
        }
    }

    /// Calls the actor, and does what it asks for.
    fn actor(&mut self) -> Result<(), EngineError> {
        let Some(actor) = &mut self.load.actor else { return Ok(()) };
        match actor.act()? {
            Next::Continue => {}
            Next::Kill => {
                self.at_once(|load, guest, timeline, machine| {
                    let mut refuse = || refuse(guest, timeline, machine);
                    load.kill(machine, &mut refuse)
                })?;
                self.guest.serve(&self.load.client);
            }
            Next::Stop => {
                self.load.end();
                return Ok(());
            }
        }
        self.schedule_work(0);
        self.schedule_actor();
        Ok(())
    }

    /// Does work that takes no virtual time but needs a running NIC, such as commands: lends the workers to the machine.
    fn at_once<R>(
        &mut self,
        work: impl FnOnce(&mut LoadGenerator, &mut GuestKernel, &Timeline, &LabMachine) -> R,
    ) -> R {
        let Self { timeline, machine, load, guest, workers: stations, .. } = self;
        let times: Vec<_> = stations.iter().map(|station| (station.busy_until, station.expires)).collect();
        let lend = stations.drain(..).map(|station| station.worker).collect();
        machine.workers.put_back(lend);
        let result = timeline.at_once(|| work(load, guest, timeline, machine));
        let back = machine.workers.take();
        let station = |(worker, (busy_until, expires))| Station { worker, busy_until, expires };
        stations.extend(back.into_iter().zip(times).map(station));
        result
    }

    /// A worker was busy until now; it may have produced completions, and work for others.
    fn worked(&mut self, worker: usize) -> Result<(), ModelError> {
        self.workers[worker].busy_until = self.timeline.now_ns();
        if let Some(wire) = &self.wire {
            wire.go_on();
        }
        self.schedule_work(0);
        self.load.collect()
    }

    /// Schedules the NIC's pending work `in_ns` nanoseconds from now, and its deadlines.
    fn schedule_work(&mut self, in_ns: u64) {
        for (index, station) in self.workers.iter_mut().enumerate() {
            // `is_empty` is cheaper than `try_recv`, and the queue is usually empty.
            let receiver = station.worker.receiver();
            while !receiver.is_empty()
                && let Ok(work) = receiver.try_recv()
            {
                self.timeline.schedule(in_ns, SimEvent::Work(index, work));
            }
            if let Some(at_ns) = station.worker.next_deadline_ns().filter(|&at| at < station.expires) {
                station.expires = at_ns;
                self.timeline.schedule_at(at_ns, SimEvent::Expire(index));
            }
        }
    }
}

/// Refuses all outstanding page requests: the program that faulted is dead.
fn refuse(guest: &mut GuestKernel, timeline: &Timeline, machine: &LabMachine) -> Result<(), ModelError> {
    use refault_bus::ats::{AtsEndpoint, TranslationAgent};
    for event in timeline.take_traffic() {
        match event {
            SimEvent::PageRequest(request) => machine.iommu.page_request(request),
            SimEvent::Response(response) => machine.nic.page_group_response(response),
            // The handlers' current faults are refused below.
            _ => {}
        }
    }
    guest.refuse_all()
}

/// Records to reserve for a scenario's faults.
fn record_count(scenario: &Scenario) -> usize {
    let pages = u64::from(scenario.load.message_bytes).div_ceil(4096) + 1;
    let most = scenario.requests.saturating_mul(pages).saturating_mul(2);
    usize::try_from(most).unwrap_or(MAX_RECORDS).clamp(1024, MAX_RECORDS)
}

/// Bytes of memory that a machine needs for the load, its rings, and tables.
fn memory_bytes(scenario: &Scenario) -> u64 {
    let load = &scenario.load;
    let payload = load.region_bytes + u64::from(load.message_bytes);
    let rings = u64::from(load.queue_pairs) * (u64::from(load.depth) * 512 + (64 << 10));
    (payload + payload / 64 + rings + (64 << 20)).next_multiple_of(2 << 20)
}
