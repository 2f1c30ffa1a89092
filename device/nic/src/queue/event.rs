//! Event queues: what the device tells the kernel driver, one ring for each interrupt vector.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use refault_abi::event::{EQE_SIZE, EVENT_PAGE_FAULT, Eqe, FAULT_WRITE};
use refault_abi::regs::MAX_EQS;
use refault_bus::probe::{ProbeEvent, Stage};
use refault_bus::{AddressSpace, Iova};
use rustc_hash::FxHashSet;
use zerocopy::IntoBytes;

use crate::ids::slot_of_token;
use crate::memory::guard::lock;
use crate::memory::page_table::Pages;
use crate::memory::port::{AccessError, Port};
use crate::queue::phase;

/// Consumer indices have 31 bits: bit 31 of their register arms.
const INDEX: u32 = !(1 << 31);

/// Something to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Event {
    /// EVENT_*.
    pub(crate) kind: u8,
    /// Code of the kind.
    pub(crate) code: u8,
    /// Object number.
    pub(crate) number: u32,
    /// Page faults: what is missing.
    pub(crate) address: u64,
    pub(crate) length: u32,
    pub(crate) token: u32,
}

impl Event {
    /// Something about an object.
    pub(crate) const fn of(kind: u8, code: u8, number: u32) -> Self {
        Self { kind, code, number, address: 0, length: 0, token: 0 }
    }

    /// What a probe is told of a page fault; `None` of other events.
    fn probed(&self, stage: Stage) -> Option<ProbeEvent> {
        let event = ProbeEvent::new(stage, AddressSpace::Region(self.number), Iova(self.address));
        let group = Some(slot_of_token(self.token));
        let event = ProbeEvent { group, write: self.code == FAULT_WRITE, ..event };
        (self.kind == EVENT_PAGE_FAULT).then_some(event)
    }
}

/// One event queue.
struct EventQueue {
    pages: Pages,
    log: u8,
    vector: u16,
    producer: u32,
    consumer: u32,
    armed: bool,
    /// The page fault written last, if no interrupt was sent since.
    unannounced: Option<ProbeEvent>,
    /// Events that found the ring full, in order, each once: no more than objects have kinds of events, and page
    /// faults can be outstanding.
    backlog: VecDeque<Event>,
    in_backlog: FxHashSet<Event>,
}

/// All event queues. Their locks come after those of completion queues.
pub(crate) struct EventQueues {
    queues: Box<[Mutex<Option<EventQueue>>]>,
    /// The memory of an event queue could not be written: the device has no way left to tell.
    broken: AtomicBool,
}

impl EventQueues {
    pub(crate) fn new() -> Self {
        let queues = (0..MAX_EQS).map(|_| Mutex::new(None)).collect();
        Self { queues, broken: AtomicBool::new(false) }
    }

    /// Whether an event was lost because its ring could not be written.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// Starts queue `eqn`, not armed.
    pub(crate) fn create(&self, eqn: u32, pages: Pages, log: u8, vector: u16) {
        if let Some(slot) = self.queues.get(eqn as usize) {
            let (backlog, in_backlog) = Default::default();
            *lock(slot) = Some(EventQueue {
                pages,
                log,
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
        let written = queue.write(port, event);
        self.checked(port, written);
        queue.fire(port);
    }

    /// The driver's doorbell: entries before `consumer` are free; `arm` asks for an interrupt with the next
    /// event, which is at once if there is one already.
    pub(crate) fn doorbell(&self, port: &mut Port<'_>, eqn: u32, consumer: u32, arm: bool) {
        let Some(slot) = self.queues.get(eqn as usize) else { return };
        let mut slot = lock(slot);
        let Some(queue) = slot.as_mut() else { return };
        if queue.producer.wrapping_sub(consumer) & INDEX <= 1 << queue.log {
            queue.consumer = consumer & INDEX;
        }
        queue.armed |= arm;
        let written = queue.send_backlog(port);
        self.checked(port, written);
        queue.fire(port);
    }

    /// Forgets what was kept about objects that are gone.
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
        self.unconsumed() >= 1 << self.log
    }

    fn write(&mut self, port: &mut Port<'_>, event: Event) -> Result<(), AccessError> {
        let Event { kind, code, number, address, length, token } = event;
        let timestamp_ns = port.fabric().now_ns();
        let entry = Eqe { kind, code, number, timestamp_ns, address, length, token, ..Eqe::default() };
        let at = u64::from(self.producer & ((1 << self.log) - 1)) * u64::from(EQE_SIZE);
        let bytes = &entry.as_bytes()[..EQE_SIZE as usize - 4];
        port.pages_publish(&self.pages, at, bytes, phase(self.producer, self.log))?;
        self.producer = self.producer.wrapping_add(1);
        port.shard().stats.events += 1;
        if let Some(queued) = event.probed(Stage::Queued) {
            port.fabric().record(queued);
            self.unannounced = Some(ProbeEvent { stage: Stage::Interrupt, ..queued });
        }
        Ok(())
    }

    fn send_backlog(&mut self, port: &mut Port<'_>) -> Result<(), AccessError> {
        while !self.is_full() {
            let Some(event) = self.backlog.pop_front() else { break };
            self.in_backlog.remove(&event);
            self.write(port, event)?;
        }
        Ok(())
    }

    /// Interrupts if armed and there is something to see; once for each arming.
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
