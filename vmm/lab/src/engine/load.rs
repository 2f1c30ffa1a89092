//! The program of an experiment: posts requests, sees completions.

use std::collections::VecDeque;
use std::sync::Arc;

use hdrhistogram::Histogram;
use rand_pcg::Pcg64Mcg;
use refault_abi::codes::WC_SUCCESS;
use refault_bus::Iova;
use refault_model::nic::work;
use refault_model::paging::{PageSize, Rights};
use refault_model::{ModelError, Process};

use super::EngineError;
use super::agenda::Event;
use super::dice::{Stream, dice, gap_ns};
use super::play::Play;
use super::requests::Requests;
use super::session::{Pair, SOURCE, Session, Slot, TARGET};
use super::world::World;
use crate::machine::Machine;
use crate::outcome::LoadOutcome;
use crate::scenario::{Arrival, Device, Load as Setup, Scenario};

/// Latencies are kept to three digits.
const DIGITS: u8 = 3;

/// The program.
pub(super) struct Load {
    world: Arc<World>,
    setup: Setup,
    device: Device,
    pub(super) session: Session,
    requests: Requests,
    arrivals: Pcg64Mcg,
    /// When requests arrived that found no room.
    waiting: VecDeque<u64>,
    /// Requests still to arrive.
    to_come: u64,
    /// Messages whose bytes have a place of their own: one, or each that may be under way.
    sources: u32,
    /// Whose the target is, if it is not the program's own.
    pub(super) play: Option<Box<dyn Play>>,
    outcome: LoadOutcome,
}

impl Load {
    /// Creates everything the program needs. Takes no time.
    pub(super) fn new(
        world: Arc<World>,
        machine: &Machine,
        scenario: &Scenario,
        mut play: Option<Box<dyn Play>>,
    ) -> Result<Self, EngineError> {
        let (setup, device) = (scenario.load.clone(), scenario.device);
        let sources = if play.is_some() { setup.queue_pairs * setup.depth } else { 1 };
        let session = start(machine, &setup, &device, play.as_deref_mut(), (0, sources))?;
        Ok(Self {
            requests: Requests::new(scenario),
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
            device,
            session,
            sources,
            play,
        })
    }

    /// The first requests.
    pub(super) fn begin(&mut self) -> Result<(), ModelError> {
        match self.setup.arrival {
            Arrival::Closed => {
                for _ in 0..self.session.room.len() {
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

    /// A doorbell reaches the NIC, if its program still lives.
    pub(super) fn doorbell(&self, session: u32, pair: usize) -> Result<(), ModelError> {
        if session == self.session.number { self.session.pairs[pair].sender.ring() } else { Ok(()) }
    }

    /// Notes when the program will see what the NIC has completed.
    pub(super) fn collect(&mut self) -> Result<(), ModelError> {
        while let Some(entry) = self.session.completions.poll()? {
            let seen = entry.timestamp_ns + self.world.draw(&self.world.timing.completion);
            let (session, slot) = (self.session.number, entry.wr_id as u32);
            let success = entry.status == WC_SUCCESS;
            self.world.note_at(seen, Event::Completion { session, slot, success });
        }
        Ok(())
    }

    /// The program sees a completion, if it still lives. Gives the queue pair that must be connected again now.
    pub(super) fn completed(&mut self, session: u32, slot: u32, success: bool) -> Option<usize> {
        if session != self.session.number {
            return None;
        }
        self.note_completion(slot, success);
        let index = (slot / self.setup.depth) as usize;
        let pair = &mut self.session.pairs[index];
        pair.pending -= 1;
        pair.broken |= !success;
        let reconnect = pair.broken && pair.pending == 0;
        self.session.room.push_back(slot);
        reconnect.then_some(index)
    }

    /// Connects a queue pair again.
    pub(super) fn reconnect(&mut self, pair: usize, machine: &Machine) -> Result<(), ModelError> {
        self.session.pairs[pair].reconnect(&machine.driver)
    }

    /// There is room for another request.
    pub(super) fn go_on(&mut self) -> Result<(), ModelError> {
        match self.setup.arrival {
            Arrival::Closed => self.arrival(),
            Arrival::Poisson { .. } => self.post_waiting(),
        }
    }

    /// The program is killed, and another takes its place; requests that were under way come to nothing.
    pub(super) fn kill(
        &mut self,
        machine: &Machine,
        refuse: &mut dyn FnMut() -> Result<(), ModelError>,
    ) -> Result<(), EngineError> {
        // What the NIC has completed the program would have seen; it is dead.
        let lost = (self.session.slots.len() - self.session.room.len()) as u64;
        self.outcome.failed += lost;
        if let Some(play) = &mut self.play {
            play.killed();
        }
        let number = self.session.number + 1;
        // Of two sessions only one may have the PASID: the old one goes first.
        let Self { session, setup, device, play, sources, .. } = self;
        session.kill(machine, refuse)?;
        if let Some(play) = play {
            play.buried()?;
        }
        *session = start(machine, setup, device, play.as_deref_mut(), (number, *sources))?;
        self.waiting.clear();
        if self.setup.arrival == Arrival::Closed {
            for _ in 0..self.session.room.len() {
                self.arrival()?;
            }
        }
        Ok(())
    }

    /// No more requests arrive.
    pub(super) fn end(&mut self) {
        self.to_come = 0;
        self.waiting.clear();
    }

    /// Whether every request is back.
    pub(super) fn is_over(&self) -> bool {
        self.to_come == 0 && self.waiting.is_empty() && self.session.room.len() == self.session.slots.len()
    }

    /// Requests that are not back.
    pub(super) fn missing(&self) -> u64 {
        let under_way = self.session.slots.len() - self.session.room.len();
        self.to_come + (self.waiting.len() + under_way) as u64
    }

    /// What the program saw.
    pub(super) fn outcome(self) -> LoadOutcome {
        self.outcome
    }

    fn note_completion(&mut self, slot: u32, success: bool) {
        let Slot { arrived_ns, writes } = self.session.slots[slot as usize];
        let now = self.world.now_ns();
        let outcome = &mut self.outcome;
        outcome.duration_ns = now;
        if success {
            outcome.completed += 1;
            outcome.bytes += u64::from(self.setup.message_bytes);
            // A histogram with automatic growth takes every value.
            let _ = outcome.latency_ns.record(now - arrived_ns);
        } else {
            outcome.failed += 1;
        }
        if let Some(play) = self.play.as_mut().filter(|_| writes) {
            play.written(slot, success);
        }
    }

    /// Posts requests that wait, as long as queue pairs have room that may be used.
    fn post_waiting(&mut self) -> Result<(), ModelError> {
        let mut tried = 0;
        while tried < self.session.room.len() && !self.waiting.is_empty() {
            let Some(slot) = self.session.room.pop_front() else { break };
            if self.session.pairs[(slot / self.setup.depth) as usize].broken {
                self.session.room.push_back(slot);
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
        let next = self.requests.next();
        let target = Iova(TARGET.0 + next.message * u64::from(bytes));
        if next.cold {
            let process = &self.session.process;
            self.world.unseen(|| take_away(process, target, u64::from(bytes)))?;
        }
        let writes = next.write;
        let source = Iova(SOURCE.0 + u64::from(slot % self.sources) * u64::from(bytes));
        if let Some(play) = self.play.as_mut().filter(|_| writes) {
            self.session.process.write(source, &play.payload(slot, next.message))?;
        }
        let session = &mut self.session;
        let (local, rkey) = (work::piece(source, bytes, session.local_key()), session.remote_key());
        let request = match writes {
            true => work::rdma_write(u64::from(slot), local, target, rkey),
            false => work::rdma_read(u64::from(slot), local, target, rkey),
        };
        session.slots[slot as usize] = Slot { arrived_ns, writes };
        let pair = (slot / self.setup.depth) as usize;
        let Pair { sender, pending, .. } = &mut session.pairs[pair];
        sender.stage(&request)?;
        *pending += 1;
        let event = Event::Doorbell { session: session.number, pair };
        self.world.note_after(&self.world.timing.doorbell, event);
        Ok(())
    }
}

/// A program with the target mapped.
fn start(
    machine: &Machine,
    setup: &Setup,
    device: &Device,
    play: Option<&mut (dyn Play + 'static)>,
    numbers: (u32, u32),
) -> Result<Session, EngineError> {
    let process = Process::new(machine.memory.clone())?;
    match play {
        Some(play) => play.map(machine, &process, TARGET)?,
        None => {
            let size = if setup.large_pages { PageSize::Large } else { PageSize::Small };
            let bytes = setup.region_bytes.next_multiple_of(size.bytes());
            process.map_area(TARGET, bytes, Rights::Write, size);
        }
    }
    if setup.warm {
        process.populate(TARGET, setup.region_bytes)?;
    }
    Ok(Session::open(machine, setup, device, process, numbers)?)
}

/// Takes the pages of a message from memory, those that are there.
fn take_away(process: &Process, start: Iova, bytes: u64) -> Result<(), ModelError> {
    let taken = process.take_range(start, bytes)?;
    taken.iter().try_for_each(|leaf| process.memory().free(leaf.gpa, leaf.size.bytes()))
}
