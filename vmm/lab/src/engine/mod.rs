//! Running an experiment: the agenda is worked off until the program has all its requests back.

mod agenda;
mod churn;
mod dice;
mod guest;
mod load;
pub mod play;
pub mod requests;
mod seams;
mod sequence;
mod session;
#[cfg(test)]
mod tests;
mod world;

use std::sync::Arc;

use refault_bus::clock::Clock;
use refault_model::ModelError;
use refault_model::dax::FsError;
use refault_nic::Worker;
use thiserror::Error;

use agenda::Event;
use churn::Churn;
use guest::Guest;
use load::Load;
use play::{Play, Wish};
use seams::{TimedProbe, TimedSeams};
use world::World;

use super::outcome::Outcome;
use super::scenario::Scenario;
use refault_observe::report::Counters;
use refault_observe::trace::{FaultSummary, Recorder};
use refault_rig::machine::MachineSetup;
use refault_rig::machine::platform::PAGE_REQUEST_VECTOR;
use refault_rig::machine::platform::Platform;

use crate::machine::{Machine, PAGE_FAULT_VECTOR};

/// log2 of the page faults that can be outstanding: more than the NIC has credits for.
const LOG_PAGE_FAULTS: u8 = 10;
/// Faults that an experiment keeps one by one; those beyond count in the histograms only.
pub const MAX_RECORDS: usize = 16 << 20;

/// Why an experiment came to no end.
#[derive(Debug, Error)]
pub enum EngineError {
    /// The model guest could not do something: mostly, memory is full.
    #[error("the model guest failed: {0}")]
    Model(#[from] ModelError),
    /// Nothing more happens, and requests are missing.
    #[error("nothing more happens at {at_ns} ns, and {missing} requests are not back")]
    Stuck {
        /// The virtual time.
        at_ns: u64,
        /// How many.
        missing: u64,
    },
    /// A play could not go on.
    #[error("the play failed: {0}")]
    Play(FsError),
}

/// Runs an experiment to its end.
///
/// # Errors
/// The scenario asks for more than the machine has, or (a mistake of ours) it never ends.
pub fn run(scenario: &Scenario) -> Result<Outcome, EngineError> {
    Engine::new(scenario, None)?.run().map(|played| played.outcome)
}

/// What came of an experiment with a play.
pub struct Played {
    /// As without one.
    pub outcome: Outcome,
    /// What all the faults come to.
    pub faults: FaultSummary,
    /// What was wrong in the end that must not be, for people.
    pub problems: Vec<String>,
}

/// Runs an experiment with somebody else's memory as the target.
///
/// # Errors
/// As [`run`]; or the play failed.
pub fn run_play(scenario: &Scenario, play: Box<dyn Play>) -> Result<Played, EngineError> {
    Engine::new(scenario, Some(play))?.run()
}

/// A machine and its program on virtual time.
struct Engine {
    /// The scenario's name and mode, as records have them.
    name: String,
    mode: String,
    world: Arc<World>,
    machine: Machine,
    recorder: Arc<Recorder>,
    workers: Vec<Station>,
    load: Load,
    guest: Guest,
    churn: Option<Churn>,
}

/// A worker of the NIC.
struct Station {
    worker: Worker,
    /// Until when it is at work.
    busy_until: u64,
    /// When it is to look at the time next, as far as it is noted.
    expires: u64,
}

impl Engine {
    fn new(scenario: &Scenario, play: Option<Box<dyn Play>>) -> Result<Self, EngineError> {
        let world = World::new(scenario.timing.clone(), scenario.seed);
        let clock: Arc<dyn Clock> = world.clock.clone();
        let recorder = Recorder::of_one(clock.clone(), records(scenario));
        let probe = TimedProbe::new(world.clone(), recorder.clone());
        let of_play = play.as_ref().map_or(0, |play| play.memory_bytes()).next_multiple_of(2 << 20);
        let iommu = scenario.device.iommu();
        let platform = Platform::new(memory_bytes(scenario) + of_play, iommu, probe.clone())?;
        let page_request_order = scenario.device.page_request_order;
        let setup =
            MachineSetup { page_request_order, ..MachineSetup::new(scenario.device.nic(), clock, probe) };
        let machine = Machine::new(platform, setup, &TimedSeams(world.clone()), LOG_PAGE_FAULTS)?;
        let interrupted = Arc::downgrade(&world);
        machine.interrupts.listen(move |vector| {
            if let Some(world) = interrupted.upgrade().filter(|world| world.is_live()) {
                world.note_after(&world.timing.interrupt, Event::Interrupt(vector));
            }
        });
        let load = Load::new(world.clone(), &machine, scenario, play)?;
        let guest = Guest::new(world.clone(), scenario, &machine, &load.session, recorder.clone());
        let churn = Churn::new(world.clone(), scenario, load.session.process.clone());
        let workers = machine.workers.take();
        let station = |worker| Station { worker, busy_until: 0, expires: u64::MAX };
        let workers = workers.into_iter().map(station).collect();
        let (name, mode) = (scenario.name.clone(), scenario.device.mode.name().to_owned());
        recorder.begin(&name, &mode);
        Ok(Self { name, mode, world, machine, recorder, workers, load, guest, churn })
    }

    fn run(mut self) -> Result<Played, EngineError> {
        self.world.begin();
        self.load.begin()?;
        if let Some(churn) = &mut self.churn {
            churn.schedule();
        }
        self.schedule_play();
        while !self.load.is_over() {
            let Some(event) = self.world.next() else {
                let (at_ns, missing) = (self.world.now_ns(), self.load.missing());
                return Err(EngineError::Stuck { at_ns, missing });
            };
            self.act(event)?;
        }
        self.recorder.end();
        let faults = self.recorder.scenario_summary(&self.name, &self.mode);
        let records = self.recorder.take_records();
        let counters = Counters {
            nic: self.machine.nic.stats(),
            iommu: self.machine.iommu.statistics(),
            observed: records.observed.clone(),
            timing: None,
        };
        let problems = self.load.play.as_mut().map_or(Ok(Vec::new()), |play| play.finish())?;
        let outcome =
            Outcome { records, counters, load: self.load.outcome(), handlers: self.guest.outcome() };
        Ok(Played { outcome, faults, problems })
    }

    fn act(&mut self, event: Event) -> Result<(), EngineError> {
        match event {
            Event::Work(worker, work) => {
                let station = &mut self.workers[worker];
                if station.busy_until > self.world.now_ns() {
                    self.world.note_at(station.busy_until, Event::Work(worker, work));
                    return Ok(());
                }
                self.world.work(|| station.worker.process(work));
                self.worked(worker)?;
            }
            Event::Expire(worker) => {
                let station = &mut self.workers[worker];
                if station.expires <= self.world.now_ns() {
                    station.expires = u64::MAX;
                    self.world.work(|| station.worker.expire());
                    self.worked(worker)?;
                }
            }
            Event::Doorbell { session, pair } => {
                self.load.doorbell(session, pair)?;
                self.schedule(0);
            }
            Event::PageRequest(request) => {
                use refault_bus::ats::TranslationAgent;
                self.machine.iommu.page_request(request);
            }
            Event::Interrupt(PAGE_REQUEST_VECTOR) => {
                self.machine.interrupts.take(PAGE_REQUEST_VECTOR);
                self.world.note_after(&self.world.timing.wake, Event::Thread);
            }
            Event::Interrupt(PAGE_FAULT_VECTOR) => {
                self.machine.interrupts.take(PAGE_FAULT_VECTOR);
                self.world.note_after(&self.world.timing.wake, Event::Driver);
            }
            Event::Interrupt(_) => {}
            Event::Thread => self.guest.thread()?,
            Event::Driver => self.guest.driver()?,
            Event::Handler(handler) => {
                self.guest.handler(handler)?;
                // Answers to page faults are commands, which the NIC has executed by now.
                self.schedule(self.world.draw(&self.world.timing.device_wake));
            }
            Event::Response(response) => {
                use refault_bus::ats::AtsEndpoint;
                self.machine.nic.page_group_response(response);
                self.schedule(self.world.draw(&self.world.timing.device_wake));
            }
            Event::Arrival => self.load.arrival()?,
            Event::Completion { session, slot, success } => {
                if let Some(pair) = self.load.completed(session, slot, success) {
                    self.at_once(|load, _, _, machine| load.reconnect(pair, machine))?;
                }
                if session == self.load.session.number {
                    self.load.go_on()?;
                }
            }
            Event::Churn => self.churned()?,
            Event::Play => self.play()?,
        }
        Ok(())
    }

    fn churned(&mut self) -> Result<(), EngineError> {
        if let Some(churn) = &mut self.churn {
            churn.strike()?;
            churn.schedule();
        }
        Ok(())
    }

    fn schedule_play(&mut self) {
        if let Some(play) = &mut self.load.play {
            self.world.note(play.gap_ns(), Event::Play);
        }
    }

    /// The play acts, and what it wishes is done.
    fn play(&mut self) -> Result<(), EngineError> {
        let Some(play) = &mut self.load.play else { return Ok(()) };
        match play.act()? {
            Wish::GoOn => {}
            Wish::Kill => {
                self.at_once(|load, guest, world, machine| {
                    let mut refuse = || refuse(guest, world, machine);
                    load.kill(machine, &mut refuse)
                })?;
                self.guest.serve(&self.load.session);
            }
            Wish::End => {
                self.load.end();
                return Ok(());
            }
        }
        self.schedule(0);
        self.schedule_play();
        Ok(())
    }

    /// Does something in no time that needs the NIC to work meanwhile: commands.
    fn at_once<R>(&mut self, work: impl FnOnce(&mut Load, &mut Guest, &World, &Machine) -> R) -> R {
        let Self { world, machine, load, guest, workers: stations, .. } = self;
        let times: Vec<_> = stations.iter().map(|station| (station.busy_until, station.expires)).collect();
        let lend = stations.drain(..).map(|station| station.worker).collect();
        machine.workers.put_back(lend);
        let result = world.at_once(|| work(load, guest, world, machine));
        let back = machine.workers.take();
        let station = |(worker, (busy_until, expires))| Station { worker, busy_until, expires };
        stations.extend(back.into_iter().zip(times).map(station));
        result
    }

    /// A worker has worked: it was busy until now, others may have work from it, and requests may be complete.
    fn worked(&mut self, worker: usize) -> Result<(), EngineError> {
        self.workers[worker].busy_until = self.world.now_ns();
        self.schedule(0);
        self.load.collect()?;
        Ok(())
    }

    /// Notes what the NIC has to do now as events, `in_ns` from now.
    fn schedule(&mut self, in_ns: u64) {
        for (index, station) in self.workers.iter_mut().enumerate() {
            // Looking is cheaper than trying, and there is nothing mostly.
            let receiver = station.worker.receiver();
            while !receiver.is_empty()
                && let Ok(work) = receiver.try_recv()
            {
                self.world.note(in_ns, Event::Work(index, work));
            }
            if let Some(at_ns) = station.worker.next_deadline_ns().filter(|&at| at < station.expires) {
                station.expires = at_ns;
                self.world.note_at(at_ns, Event::Expire(index));
            }
        }
    }
}

/// Refuses every page that the device has asked for and has no answer to: whoever wanted it is dead.
fn refuse(guest: &mut Guest, world: &World, machine: &Machine) -> Result<(), ModelError> {
    use refault_bus::ats::{AtsEndpoint, TranslationAgent};
    for event in world.take_traffic() {
        match event {
            Event::PageRequest(request) => machine.iommu.page_request(request),
            Event::Response(response) => machine.nic.page_group_response(response),
            // What the handlers have in hand is refused with the rest.
            _ => {}
        }
    }
    guest.refuse_all()
}

/// Room for a scenario's faults.
fn records(scenario: &Scenario) -> usize {
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
