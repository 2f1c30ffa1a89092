//! Event queues: events for the kernel driver, one ring for each interrupt vector.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use refault_abi::regs::MAX_EQS;
use refault_bus::probe::{ProbeEvent, Stage};
use refault_bus::sync::lock;
use refault_bus::{AddressSpace, Iova};
use rustc_hash::FxHashSet;

use crate::ids::slot_of_token;
use crate::memory::access::AccessError;
use crate::memory::port::Port;
use crate::queue::layout::{Ring, RingLayout};
use crate::verbs::{Event, PageFault};

/// Consumer indices have 31 bits: bit 31 of their register arms.
const INDEX: u32 = !(1 << 31);

/// One event queue.
struct EventQueue {
    ring: Ring,
    vector: u16,
    producer: u32,
    consumer: u32,
    armed: bool,
    /// The page fault written last, if no interrupt was sent since; recorded when one is sent.
    unannounced: Option<ProbeEvent>,
    /// Events that found the ring full, in order, each once. So their number is bounded, by the objects and their kinds
    /// of events, and by the outstanding page faults.
    backlog: VecDeque<Event>,
    in_backlog: FxHashSet<Event>,
}

/// All event queues. Their locks come after those of completion queues.
pub(crate) struct EventQueues {
    queues: Box<[Mutex<Option<EventQueue>>]>,
    layout: &'static dyn RingLayout,
    /// The memory of an event queue could not be written: an event is lost.
    broken: AtomicBool,
}

impl EventQueues {
    pub(crate) fn new(layout: &'static dyn RingLayout) -> Self {
        let queues = (0..MAX_EQS).map(|_| Mutex::new(None)).collect();
        Self { queues, layout, broken: AtomicBool::new(false) }
    }

    /// Whether an event was lost because its ring could not be written.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// Starts queue `eqn`, not armed.
    pub(crate) fn create(&self, eqn: u32, ring: Ring, vector: u16) {
        if let Some(slot) = self.queues.get(eqn as usize) {
            let (backlog, in_backlog) = Default::default();
            *lock(slot) = Some(EventQueue {
                ring,
                vector,
                producer: 0,
                consumer: 0,
                armed: false,
                unannounced: None,
                backlog,
                in_backlog,
            });
        }
    }

    /// Ends queue `eqn`.
    pub(crate) fn destroy(&self, eqn: u32) {
        if let Some(slot) = self.queues.get(eqn as usize) {
            *lock(slot) = None;
        }
    }

    /// Ends all queues.
    pub(crate) fn clear(&self) {
        self.queues.iter().for_each(|slot| *lock(slot) = None);
        self.broken.store(false, Ordering::Release);
    }

    /// Writes an event, or keeps it until the ring has room.
    pub(crate) fn raise(&self, port: &mut Port<'_>, eqn: u32, event: Event) {
        let Some(slot) = self.queues.get(eqn as usize) else { return };
        let mut slot = lock(slot);
        let Some(queue) = slot.as_mut() else { return };
        if queue.is_full() || !queue.backlog.is_empty() {
            if queue.in_backlog.insert(event) {
                queue.backlog.push_back(event);
            }
            return;
        }
        let written = queue.write(port, self.layout, event);
        self.checked(port, written);
        queue.fire(port);
    }

    /// Serves the driver's doorbell: entries before `consumer` are free; `arm` asks for an interrupt with the next
    /// event, or at once if there is one already.
    pub(crate) fn doorbell(&self, port: &mut Port<'_>, eqn: u32, consumer: u32, arm: bool) {
        let Some(slot) = self.queues.get(eqn as usize) else { return };
        let mut slot = lock(slot);
        let Some(queue) = slot.as_mut() else { return };
        if queue.producer.wrapping_sub(consumer) & INDEX <= 1 << queue.ring.log {
            queue.consumer = consumer & INDEX;
        }
        queue.armed |= arm;
        let written = queue.send_backlog(port, self.layout);
        self.checked(port, written);
        queue.fire(port);
    }

    /// Drops backlogged events of objects that are gone.
    pub(crate) fn forget(&self, eqn: u32, gone: impl Fn(&Event) -> bool) {
        let Some(slot) = self.queues.get(eqn as usize) else { return };
        if let Some(queue) = lock(slot).as_mut() {
            queue.backlog.retain(|event| !gone(event));
            queue.in_backlog.retain(|event| !gone(event));
        }
    }

    fn checked(&self, port: &Port<'_>, result: Result<(), AccessError>) {
        let Err(error) = result else { return };
        self.broken.store(true, Ordering::Release);
        if let Some(number) = port.fabric().ring_warnings.admit() {
            tracing::warn!(number, ?error, "an event queue cannot be written; the device stops until reset");
        }
    }
}

impl EventQueue {
    fn unconsumed(&self) -> u32 {
        self.producer.wrapping_sub(self.consumer) & INDEX
    }

    fn is_full(&self) -> bool {
        self.unconsumed() >= 1 << self.ring.log
    }

    fn write(
        &mut self,
        port: &mut Port<'_>,
        layout: &dyn RingLayout,
        event: Event,
    ) -> Result<(), AccessError> {
        layout.write_event(port, &self.ring, self.producer, &event)?;
        self.producer = self.producer.wrapping_add(1);
        port.shard().stats.events += 1;
        if let Event::PageFault(fault) = event {
            port.fabric().record(probed(&fault, Stage::Queued));
            self.unannounced = Some(probed(&fault, Stage::Interrupt));
        }
        Ok(())
    }

    fn send_backlog(&mut self, port: &mut Port<'_>, layout: &dyn RingLayout) -> Result<(), AccessError> {
        while !self.is_full() {
            let Some(event) = self.backlog.pop_front() else { break };
            self.in_backlog.remove(&event);
            self.write(port, layout, event)?;
        }
        Ok(())
    }

    /// Interrupts if armed and there are events to see; once for each arming.
    fn fire(&mut self, port: &mut Port<'_>) {
        if self.armed && self.unconsumed() != 0 {
            self.armed = false;
            port.shard().stats.interrupts += 1;
            if let Some(interrupt) = self.unannounced.take() {
                port.fabric().record(interrupt);
            }
            port.fabric().endpoint.notify(self.vector);
        }
    }
}

/// A stage of a page fault.
fn probed(fault: &PageFault, stage: Stage) -> ProbeEvent {
    let &PageFault { key, address, write, token, .. } = fault;
    let event = ProbeEvent::new(stage, AddressSpace::Region(key), Iova(address));
    ProbeEvent { group: Some(slot_of_token(token)), write, ..event }
}
