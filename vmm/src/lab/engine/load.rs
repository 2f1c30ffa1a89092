//! The program of an experiment: posts requests, sees completions.

use std::collections::VecDeque;
use std::sync::Arc;

use hdrhistogram::Histogram;
use rand_pcg::Pcg64Mcg;
use refault_abi::codes::WC_SUCCESS;
use refault_bus::{Iova, Pasid};
use refault_model::nic::{CompletionQueue, Driver, QueuePair, QueuePairSetup, Region, work};
use refault_model::paging::{PageSize, Rights};
use refault_model::{ModelError, Process};

use super::agenda::Event;
use super::dice::{Stream, dice, gap_ns};
use super::requests::Requests;
use super::world::World;
use crate::lab::machine::Machine;
use crate::lab::outcome::LoadOutcome;
use crate::lab::scenario::{Arrival, Load as Setup, Scenario};

/// The program's PASID.
const PASID: Pasid = Pasid::truncated(1);
/// Where the bytes come from, or go to that are read.
const SOURCE: Iova = Iova(0x7f00_0000_0000);
/// The memory that is written and read.
pub(super) const TARGET: Iova = Iova(0x7f80_0000_0000);
/// Latencies are kept to three digits.
const DIGITS: u8 = 3;

/// The program.
pub(super) struct Load {
    world: Arc<World>,
    setup: Setup,
    /// Its addresses.
    pub(super) process: Arc<Process>,
    region: Region,
    pairs: Vec<Pair>,
    completions: CompletionQueue,
    requests: Requests,
    arrivals: Pcg64Mcg,
    /// Slots of queue pairs without a request, the one that was free longest first.
    room: VecDeque<u32>,
    /// When the request in each slot arrived.
    arrived: Vec<u64>,
    /// Requests that arrived and found no room.
    waiting: VecDeque<u64>,
    /// Requests still to arrive.
    to_come: u64,
    outcome: LoadOutcome,
}

/// A queue pair of the program, and the one that answers it.
struct Pair {
    sender: QueuePair,
    receiver: QueuePair,
    /// Requests under way.
    pending: u32,
    /// A request failed: no more are posted until all are back and it was connected again.
    broken: bool,
}

impl Load {
    /// Creates everything the program needs. Takes no time.
    pub(super) fn new(world: Arc<World>, machine: &Machine, scenario: &Scenario) -> Result<Self, ModelError> {
        let setup = scenario.load.clone();
        let process = machine.process(PASID)?;
        let size = if setup.large_pages { PageSize::Large } else { PageSize::Small };
        let source_bytes = u64::from(setup.message_bytes).next_multiple_of(PageSize::Large.bytes());
        process.map_area(SOURCE, source_bytes, Rights::Write, PageSize::Large);
        process.map_area(TARGET, setup.region_bytes.next_multiple_of(size.bytes()), Rights::Write, size);
        process.populate(SOURCE, source_bytes)?;
        if setup.warm {
            process.populate(TARGET, setup.region_bytes)?;
        }
        let driver = &machine.driver;
        let context = driver.create_context(Some(PASID))?;
        let pd = driver.create_pd(context)?;
        let region = driver.register_process(pd)?;
        let events = driver.create_event_queue(1, 6)?;
        let slots = setup.queue_pairs * setup.depth;
        let completions =
            driver.create_completion_queue(context, events.number(), log2(slots.saturating_mul(2)))?;
        let (cqn, eqn) = (completions.number(), events.number());
        let of_pair = QueuePairSetup { pd, context, cqn, eqn, log_sq: log2(setup.depth), log_rq: 1 };
        let pairs =
            (0..setup.queue_pairs).map(|_| Pair::create(driver, of_pair)).collect::<Result<_, _>>()?;
        Ok(Self {
            requests: Requests::new(scenario),
            // One of each queue pair, then another of each.
            room: (0..slots).map(|n| n % setup.queue_pairs * setup.depth + n / setup.queue_pairs).collect(),
            arrived: vec![0; slots as usize],
            waiting: VecDeque::new(),
            to_come: scenario.requests,
            arrivals: dice(scenario.seed, Stream::Arrivals),
            outcome: LoadOutcome {
                completed: 0,
                failed: 0,
                bytes: 0,
                duration_ns: 0,
                latency_ns: Histogram::new(DIGITS).expect("digits from 0 to 5"),
            },
            world,
            setup,
            process,
            region,
            pairs,
            completions,
        })
    }

    /// The first requests.
    pub(super) fn begin(&mut self) -> Result<(), ModelError> {
        match self.setup.arrival {
            Arrival::Closed => {
                for _ in 0..self.room.len() {
                    self.arrival()?;
                }
            }
            Arrival::Poisson { per_second } => {
                self.world.note(gap_ns(&mut self.arrivals, per_second), Event::Arrival);
            }
        }
        Ok(())
    }

    /// A request arrives, if any is to come.
    pub(super) fn arrival(&mut self) -> Result<(), ModelError> {
        if self.to_come == 0 {
            return Ok(());
        }
        self.to_come -= 1;
        self.waiting.push_back(self.world.now_ns());
        if let Arrival::Poisson { per_second } = self.setup.arrival
            && self.to_come > 0
        {
            self.world.note(gap_ns(&mut self.arrivals, per_second), Event::Arrival);
        }
        self.post_waiting()
    }

    /// A doorbell reaches the NIC.
    pub(super) fn doorbell(&self, pair: usize) -> Result<(), ModelError> {
        self.pairs[pair].sender.ring()
    }

    /// Notes when the program will see what the NIC has completed.
    pub(super) fn collect(&mut self) -> Result<(), ModelError> {
        while let Some(entry) = self.completions.poll()? {
            let seen = entry.timestamp_ns + self.world.draw(&self.world.timing.completion);
            let event = Event::Completion(entry.wr_id, entry.status == WC_SUCCESS);
            self.world.note_at(seen, event);
        }
        Ok(())
    }

    /// The program sees a completion.
    pub(super) fn completed(
        &mut self,
        slot: u64,
        success: bool,
        machine: &Machine,
    ) -> Result<(), ModelError> {
        let now = self.world.now_ns();
        let index = (slot as u32 / self.setup.depth) as usize;
        let latency = now - self.arrived[slot as usize];
        let outcome = &mut self.outcome;
        outcome.duration_ns = now;
        if success {
            outcome.completed += 1;
            outcome.bytes += u64::from(self.setup.message_bytes);
            // A histogram with automatic growth takes every value.
            let _ = outcome.latency_ns.record(latency);
        } else {
            outcome.failed += 1;
        }
        let pair = &mut self.pairs[index];
        pair.pending -= 1;
        pair.broken |= !success;
        self.room.push_back(slot as u32);
        if pair.broken && pair.pending == 0 {
            let world = self.world.clone();
            world.at_once(|| self.pairs[index].reconnect(&machine.driver))?;
        }
        match self.setup.arrival {
            Arrival::Closed => self.arrival(),
            Arrival::Poisson { .. } => self.post_waiting(),
        }
    }

    /// Whether every request is back.
    pub(super) fn is_over(&self) -> bool {
        self.to_come == 0 && self.waiting.is_empty() && self.room.len() == self.arrived.len()
    }

    /// Requests that are not back.
    pub(super) fn missing(&self) -> u64 {
        self.to_come + self.waiting.len() as u64 + (self.arrived.len() - self.room.len()) as u64
    }

    /// What the program saw.
    pub(super) fn outcome(self) -> LoadOutcome {
        self.outcome
    }

    /// Posts requests that wait, as long as queue pairs have room that may be used.
    fn post_waiting(&mut self) -> Result<(), ModelError> {
        let mut tried = 0;
        while tried < self.room.len() && !self.waiting.is_empty() {
            let Some(slot) = self.room.pop_front() else { break };
            let pair = (slot / self.setup.depth) as usize;
            if self.pairs[pair].broken {
                self.room.push_back(slot);
                tried += 1;
                continue;
            }
            let Some(arrived) = self.waiting.pop_front() else { break };
            self.arrived[slot as usize] = arrived;
            self.post(slot, pair)?;
        }
        Ok(())
    }

    fn post(&mut self, slot: u32, pair: usize) -> Result<(), ModelError> {
        let bytes = self.setup.message_bytes;
        let next = self.requests.next();
        let target = Iova(TARGET.0 + next.message * u64::from(bytes));
        if next.cold {
            self.world.clone().at_once(|| self.take_away(target, u64::from(bytes)))?;
        }
        let key = self.region.key;
        let local = work::piece(SOURCE, bytes, key);
        let id = u64::from(slot);
        let request = if next.write {
            work::rdma_write(id, local, target, key)
        } else {
            work::rdma_read(id, local, target, key)
        };
        let Pair { sender, pending, .. } = &mut self.pairs[pair];
        sender.stage(&request)?;
        *pending += 1;
        self.world.note_after(&self.world.timing.doorbell, Event::Doorbell(pair));
        Ok(())
    }

    /// Takes the pages of a message from memory, those that are there.
    fn take_away(&self, start: Iova, bytes: u64) -> Result<(), ModelError> {
        let end = start.0 + bytes;
        let mut at = start.align_down(PageSize::Small.shift()).0;
        while at < end {
            at = match self.process.take_page(Iova(at)) {
                Ok(leaf) => {
                    self.process.memory().free(leaf.gpa, leaf.size.bytes())?;
                    Iova(at).align_down(leaf.size.shift()).0 + leaf.size.bytes()
                }
                Err(ModelError::NotMapped { .. }) => at + PageSize::Small.bytes(),
                Err(error) => return Err(error),
            };
        }
        Ok(())
    }
}

impl Pair {
    fn create(driver: &Driver, setup: QueuePairSetup) -> Result<Self, ModelError> {
        let sender = driver.create_queue_pair(setup)?;
        let receiver = driver.create_queue_pair(setup)?;
        let pair = Self { sender, receiver, pending: 0, broken: false };
        pair.connect(driver)?;
        Ok(pair)
    }

    fn connect(&self, driver: &Driver) -> Result<(), ModelError> {
        driver.connect(self.receiver.number(), self.sender.number())?;
        driver.connect(self.sender.number(), self.receiver.number())
    }

    fn reconnect(&mut self, driver: &Driver) -> Result<(), ModelError> {
        driver.reset_queue_pair(&mut self.sender)?;
        driver.reset_queue_pair(&mut self.receiver)?;
        self.connect(driver)?;
        self.broken = false;
        Ok(())
    }
}

/// The smallest power of two that holds `count`.
fn log2(count: u32) -> u8 {
    count.max(2).next_power_of_two().trailing_zeros() as u8
}
