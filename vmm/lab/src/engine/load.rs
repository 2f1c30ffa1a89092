//! The load of an experiment: a program that posts requests and receives completions.

use std::collections::VecDeque;
use std::sync::Arc;

use hdrhistogram::Histogram;
use rand_pcg::Pcg64Mcg;
use refault_abi::codes::WC_SUCCESS;
use refault_bus::Iova;
use refault_bus::bits::low_u32;
use refault_model::nic::work;
use refault_model::paging::{PageSize, Rights};
use refault_model::{ModelError, Process};

use super::EngineError;
use super::actor::Actor;
use super::agenda::SimEvent;
use super::client::{Client, Connection, RequestSlot, SOURCE, TARGET};
use super::dice::{Stream, dice, gap_ns};
use super::requests::RequestStream;
use super::timeline::Timeline;
use crate::machine::LabMachine;
use crate::outcome::{DIGITS, LoadOutcome, RequestKind};
use crate::scenario::{Arrival, Device, Load, Scenario, Wire};

/// The program that generates the load.
pub(super) struct LoadGenerator {
    timeline: Arc<Timeline>,
    setup: Load,
    device: (Device, Option<Wire>),
    pub(super) client: Client,
    requests: RequestStream,
    arrivals: Pcg64Mcg,
    /// Arrival times of requests that wait for a free slot.
    waiting: VecDeque<u64>,
    /// Requests that have not arrived yet.
    to_come: u64,
    /// Source buffers: one for all requests, or one for each slot if an actor supplies payloads.
    sources: u32,
    /// The owner of the target, if it is not the program itself.
    pub(super) actor: Option<Box<dyn Actor>>,
    outcome: LoadOutcome,
}

impl LoadGenerator {
    /// Creates the program and its resources. Takes no virtual time.
    pub(super) fn new(
        timeline: Arc<Timeline>,
        machine: &LabMachine,
        scenario: &Scenario,
        mut actor: Option<Box<dyn Actor>>,
    ) -> Result<Self, EngineError> {
        let (setup, device) = (scenario.load.clone(), (scenario.device, scenario.wire.clone()));
        let sources = if actor.is_some() { setup.queue_pairs * setup.depth } else { 1 };
        let client = start(machine, &setup, &device, actor.as_deref_mut(), (0, sources))?;
        Ok(Self {
            requests: RequestStream::new(scenario),
            waiting: VecDeque::new(),
            to_come: scenario.requests,
            arrivals: dice(scenario.seed, Stream::Arrivals),
            outcome: LoadOutcome {
                completed: 0,
                failed: 0,
                bytes: 0,
                duration_ns: 0,
                latency_ns: Histogram::new(DIGITS).expect("digits from 0 to 5"),
                by_kind_ns: RequestKind::histograms(),
            },
            timeline,
            setup,
            device,
            client,
            sources,
            actor,
        })
    }

    /// Starts the first requests.
    pub(super) fn begin(&mut self) -> Result<(), ModelError> {
        match self.setup.arrival {
            Arrival::Closed => {
                for _ in 0..self.client.free.len() {
                    self.arrival()?;
                }
            }
            Arrival::Poisson { per_second } => {
                self.timeline.schedule(gap_ns(&mut self.arrivals, per_second), SimEvent::Arrival);
            }
        }
        Ok(())
    }

    /// A request arrives, unless all have.
    pub(super) fn arrival(&mut self) -> Result<(), ModelError> {
        if self.to_come == 0 {
            return Ok(());
        }
        self.to_come -= 1;
        self.waiting.push_back(self.timeline.now_ns());
        if let Arrival::Poisson { per_second } = self.setup.arrival
            && self.to_come > 0
        {
            self.timeline.schedule(gap_ns(&mut self.arrivals, per_second), SimEvent::Arrival);
        }
        self.post_waiting()
    }

    /// A doorbell reaches the NIC; ignored if its program was killed meanwhile.
    pub(super) fn doorbell(&self, client: u32, pair: usize) -> Result<(), ModelError> {
        if client == self.client.number { self.client.pairs[pair].sender.ring() } else { Ok(()) }
    }

    /// Polls completions, and schedules the times at which the program sees them.
    pub(super) fn collect(&mut self) -> Result<(), ModelError> {
        while let Some(entry) = self.client.completions.poll()? {
            let seen = entry.timestamp_ns + self.timeline.draw(&self.timeline.timing.completion);
            let (client, slot) = (self.client.number, low_u32(entry.wr_id));
            let success = entry.status == WC_SUCCESS;
            self.timeline.schedule_at(seen, SimEvent::Completion { client, slot, success });
        }
        Ok(())
    }

    /// The program sees a completion; ignored if it was killed meanwhile. Returns a queue pair that must be reconnected.
    pub(super) fn completed(&mut self, client: u32, slot: u32, success: bool) -> Option<usize> {
        if client != self.client.number {
            return None;
        }
        self.count_completion(slot, success);
        let index = (slot / self.setup.depth) as usize;
        let pair = &mut self.client.pairs[index];
        pair.pending -= 1;
        pair.broken |= !success;
        let reconnect = pair.broken && pair.pending == 0;
        self.client.free.push_back(slot);
        reconnect.then_some(index)
    }

    /// Reconnects a queue pair after an error.
    pub(super) fn reconnect(&mut self, pair: usize, machine: &LabMachine) -> Result<(), ModelError> {
        self.client.pairs[pair].reconnect(&machine.driver)
    }

    /// Posts a request after a slot became free.
    pub(super) fn post_next(&mut self) -> Result<(), ModelError> {
        if self.setup.arrival == Arrival::Closed {
            self.arrival()?;
        }
        // Some may wait since their queue pair broke, even if none is to come.
        self.post_waiting()
    }

    /// Kills the program and starts another; requests in flight count as failed.
    pub(super) fn kill(
        &mut self,
        machine: &LabMachine,
        refuse: &mut dyn FnMut() -> Result<(), ModelError>,
    ) -> Result<(), EngineError> {
        // Completions that the program has not seen yet count as lost, too.
        let lost = (self.client.slots.len() - self.client.free.len()) as u64;
        self.outcome.failed += lost;
        if let Some(actor) = &mut self.actor {
            actor.program_killed();
        }
        let number = self.client.number + 1;
        // Only one client can have the PASID, so the old one is torn down first.
        let Self { client, setup, device, actor, sources, .. } = self;
        client.kill(machine, refuse)?;
        if let Some(actor) = actor {
            actor.program_released()?;
        }
        *client = start(machine, setup, device, actor.as_deref_mut(), (number, *sources))?;
        self.waiting.clear();
        if self.setup.arrival == Arrival::Closed {
            for _ in 0..self.client.free.len() {
                self.arrival()?;
            }
        }
        Ok(())
    }

    /// Stops arrivals and drops waiting requests.
    pub(super) fn end(&mut self) {
        self.to_come = 0;
        self.waiting.clear();
    }

    /// Whether all requests have completed.
    pub(super) fn is_over(&self) -> bool {
        self.to_come == 0 && self.waiting.is_empty() && self.client.free.len() == self.client.slots.len()
    }

    /// Requests that have not completed.
    pub(super) fn missing(&self) -> u64 {
        let in_flight = self.client.slots.len() - self.client.free.len();
        self.to_come + (self.waiting.len() + in_flight) as u64
    }

    /// The program's statistics.
    pub(super) fn outcome(self) -> LoadOutcome {
        self.outcome
    }

    fn count_completion(&mut self, slot: u32, success: bool) {
        let RequestSlot { arrived_ns, writes, cold } = self.client.slots[slot as usize];
        let now = self.timeline.now_ns();
        let outcome = &mut self.outcome;
        outcome.duration_ns = now;
        if success {
            outcome.completed += 1;
            outcome.bytes += u64::from(self.setup.message_bytes);
            // An auto-resizing histogram accepts every value.
            let _ = outcome.latency_ns.record(now - arrived_ns);
            let kind = match () {
                () if cold => RequestKind::Faulting,
                () if slot / self.setup.depth < faulting_pairs(&self.setup) => RequestKind::Neighbour,
                () => RequestKind::Bystander,
            };
            let _ = outcome.by_kind_ns[kind as usize].record(now - arrived_ns);
        } else {
            outcome.failed += 1;
        }
        if let Some(actor) = self.actor.as_mut().filter(|_| writes) {
            actor.written(slot, success);
        }
    }

    /// Posts waiting requests while there are free slots on working queue pairs.
    fn post_waiting(&mut self) -> Result<(), ModelError> {
        let mut tried = 0;
        while tried < self.client.free.len() && !self.waiting.is_empty() {
            let Some(slot) = self.client.free.pop_front() else { break };
            if self.client.pairs[(slot / self.setup.depth) as usize].broken {
                self.client.free.push_back(slot);
                tried += 1;
                continue;
            }
            let Some(arrived_ns) = self.waiting.pop_front() else { break };
            self.post(slot, arrived_ns)?;
        }
        Ok(())
    }

    fn post(&mut self, slot: u32, arrived_ns: u64) -> Result<(), ModelError> {
        let bytes = self.setup.message_bytes;
        let mut next = self.requests.next();
        next.cold &= slot / self.setup.depth < faulting_pairs(&self.setup);
        let target = Iova(TARGET.0 + next.message * u64::from(bytes));
        if next.cold {
            let process = &self.client.process;
            self.timeline.untraced(|| evict(process, target, u64::from(bytes)))?;
        }
        let writes = next.write;
        let source = Iova(SOURCE.0 + u64::from(slot % self.sources) * u64::from(bytes));
        if let Some(actor) = self.actor.as_mut().filter(|_| writes) {
            self.client.process.write(source, &actor.payload(slot, next.message))?;
        }
        let client = &mut self.client;
        let (local, rkey) = (work::piece(source, bytes, client.local_key()), client.remote_key());
        let request = match writes {
            true => work::rdma_write(u64::from(slot), local, target, rkey),
            false => work::rdma_read(u64::from(slot), local, target, rkey),
        };
        client.slots[slot as usize] = RequestSlot { arrived_ns, writes, cold: next.cold };
        let pair = (slot / self.setup.depth) as usize;
        let Connection { sender, pending, .. } = &mut client.pairs[pair];
        sender.stage(&request)?;
        *pending += 1;
        let event = SimEvent::Doorbell { client: client.number, pair };
        self.timeline.schedule_after(&self.timeline.timing.doorbell, event);
        Ok(())
    }
}

/// Queue pairs that are no bystanders: the first ones.
fn faulting_pairs(setup: &Load) -> u32 {
    setup.queue_pairs - setup.bystanders
}

/// Starts a program with the target mapped.
fn start(
    machine: &LabMachine,
    setup: &Load,
    device: &(Device, Option<Wire>),
    actor: Option<&mut (dyn Actor + 'static)>,
    numbers: (u32, u32),
) -> Result<Client, EngineError> {
    let process = Process::new(machine.memory.clone())?;
    match actor {
        Some(actor) => actor.map(machine, &process, TARGET)?,
        None => {
            let size = if setup.large_pages { PageSize::Large } else { PageSize::Small };
            let bytes = setup.region_bytes.next_multiple_of(size.bytes());
            process.map_area(TARGET, bytes, Rights::Write, size);
        }
    }
    if setup.warm {
        process.populate(TARGET, setup.region_bytes)?;
    }
    Ok(Client::open(machine, setup, (&device.0, device.1.as_ref()), process, numbers)?)
}

/// Evicts the present pages of a message.
fn evict(process: &Process, start: Iova, bytes: u64) -> Result<(), ModelError> {
    let taken = process.take_range(start, bytes)?;
    taken.iter().try_for_each(|leaf| process.memory().free(leaf.gpa, leaf.size.bytes()))
}
