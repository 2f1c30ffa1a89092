//! Running an experiment: the agenda is worked off until the program has all its requests back.

mod agenda;
mod churn;
mod dice;
mod guest;
mod load;
pub mod requests;
mod seams;
mod sequence;
#[cfg(test)]
mod tests;
mod world;

use std::sync::{Arc, PoisonError};

use refault_bus::clock::Clock;
use refault_iommu::IommuConfig;
use refault_model::ModelError;
use refault_nic::{NicConfig, Worker};
use thiserror::Error;

use agenda::Event;
use churn::Churn;
use guest::Guest;
use load::Load;
use seams::{TimedProbe, TimedSeams};
use world::World;

use super::machine::platform::PAGE_REQUEST_VECTOR;
use super::machine::{Machine, MachineSetup};
use super::outcome::Outcome;
use super::scenario::{Mode, Scenario};
use crate::report::Counters;
use crate::trace::Recorder;

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
    /// What the scenario asks for is not there.
    #[error("{0}")]
    Unsupported(&'static str),
}

/// Runs an experiment to its end.
///
/// # Errors
/// The scenario asks for more than the machine has, or (a mistake of ours) it never ends.
pub fn run(scenario: &Scenario) -> Result<Outcome, EngineError> {
    Engine::new(scenario)?.run()
}

/// A machine and its program on virtual time.
struct Engine {
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
    fn new(scenario: &Scenario) -> Result<Self, EngineError> {
        if scenario.device.mode == Mode::Odp {
            return Err(EngineError::Unsupported("mode odp: the lab's model guest has no driver for it"));
        }
        let world = World::new(scenario.timing.clone(), scenario.seed);
        let clock: Arc<dyn Clock> = world.clock.clone();
        let recorder = Recorder::of_one(clock.clone(), records(scenario));
        let probe = TimedProbe::new(world.clone(), recorder.clone());
        let setup = machine_setup(scenario, clock, probe);
        let machine = Machine::new(setup, &TimedSeams(world.clone()))?;
        let interrupted = Arc::downgrade(&world);
        machine.interrupts.listen(move |vector| {
            if let Some(world) = interrupted.upgrade().filter(|world| world.is_live()) {
                world.note_after(&world.timing.interrupt, Event::Interrupt(vector));
            }
        });
        let load = Load::new(world.clone(), &machine, scenario)?;
        let unit = machine.unit.clone();
        let guest = Guest::new(world.clone(), scenario, unit, load.process.clone(), recorder.clone());
        let churn = Churn::new(world.clone(), scenario, load.process.clone());
        let workers = std::mem::take(&mut *machine.workers.lock().unwrap_or_else(PoisonError::into_inner));
        let station = |worker| Station { worker, busy_until: 0, expires: u64::MAX };
        let workers = workers.into_iter().map(station).collect();
        recorder.begin(&scenario.name, scenario.device.mode.name());
        Ok(Self { world, machine, recorder, workers, load, guest, churn })
    }

    fn run(mut self) -> Result<Outcome, EngineError> {
        self.world.set_live(true);
        self.load.begin()?;
        if let Some(churn) = &mut self.churn {
            churn.schedule();
        }
        while !self.load.is_over() {
            let Some(event) = self.world.next() else {
                let (at_ns, missing) = (self.world.now_ns(), self.load.missing());
                return Err(EngineError::Stuck { at_ns, missing });
            };
            self.act(event)?;
        }
        self.recorder.end();
        let records = self.recorder.take_records();
        let counters = Counters {
            nic: self.machine.nic.stats(),
            iommu: self.machine.iommu.statistics(),
            observed: records.observed.clone(),
            timing: None,
        };
        Ok(Outcome { records, counters, load: self.load.outcome(), handlers: self.guest.outcome() })
    }

    fn act(&mut self, event: Event) -> Result<(), EngineError> {
        match event {
            Event::Work(worker, work) => {
                let station = &mut self.workers[worker];
                if station.busy_until > self.world.now_ns() {
                    self.world.note_at(station.busy_until, Event::Work(worker, work));
                    return Ok(());
                }
                station.worker.process(work);
                self.worked(worker)?;
            }
            Event::Expire(worker) => {
                let station = &mut self.workers[worker];
                if station.expires <= self.world.now_ns() {
                    station.expires = u64::MAX;
                    station.worker.expire();
                    self.worked(worker)?;
                }
            }
            Event::Doorbell(pair) => {
                self.load.doorbell(pair)?;
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
            Event::Interrupt(_) => {}
            Event::Thread => self.guest.thread()?,
            Event::Handler(handler) => self.guest.handler(handler)?,
            Event::Response(response) => {
                use refault_bus::ats::AtsEndpoint;
                self.machine.nic.page_group_response(response);
                self.schedule(self.world.draw(&self.world.timing.device_wake));
            }
            Event::Arrival => self.load.arrival()?,
            Event::Completion(slot, success) => {
                self.load.completed(slot, success, &self.machine)?;
            }
            Event::Churn => self.churned()?,
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
            while let Ok(work) = station.worker.receiver().try_recv() {
                self.world.note(in_ns, Event::Work(index, work));
            }
            if let Some(at_ns) = station.worker.next_deadline_ns().filter(|&at| at < station.expires) {
                station.expires = at_ns;
                self.world.note_at(at_ns, Event::Expire(index));
            }
        }
    }
}

/// Room for a scenario's faults.
fn records(scenario: &Scenario) -> usize {
    let pages = u64::from(scenario.load.message_bytes).div_ceil(4096) + 1;
    let most = scenario.requests.saturating_mul(pages).saturating_mul(2);
    usize::try_from(most).unwrap_or(MAX_RECORDS).clamp(1024, MAX_RECORDS)
}

/// The machine of a scenario: memory for the target, its tables and all rings.
fn machine_setup(scenario: &Scenario, clock: Arc<dyn Clock>, probe: Arc<TimedProbe>) -> MachineSetup {
    let (load, device) = (&scenario.load, &scenario.device);
    let payload = load.region_bytes + u64::from(load.message_bytes);
    let rings = u64::from(load.queue_pairs) * (u64::from(load.depth) * 512 + (64 << 10));
    let memory = (payload + payload / 64 + rings + (64 << 20)).next_multiple_of(2 << 20);
    MachineSetup {
        memory,
        iommu: IommuConfig { iotlb_entries: device.iotlb_entries, ..IommuConfig::default() },
        nic: NicConfig {
            workers: device.workers,
            atc_entries: device.atc_entries,
            page_request_credits: device.credits,
            page_fault_credits: device.credits,
            page_request_timeout_ns: device.fault_timeout_ns,
            fault_window: device.fault_window,
            remote_faults: device.remote_faults,
            ..NicConfig::default()
        },
        page_request_order: device.page_request_order,
        clock,
        probe,
    }
}
