//! The NIC and its workers: the public interface.
//!
//! Lock order, outermost first: a command lane, lane 0 first; control-plane objects; a requester; a worker's guard;
//! a responder; a shared receive queue or a completion queue, never both; an event queue. Leaves, under which no
//! other lock is taken: registers, region slots, timers, page requests and page faults, what waits for storage.
//! Only a reset waits for a requester with the objects locked: a command does not, so that lane 1 need not wait for
//! data. An invalidation takes guards alone, one after the other. While the IOMMU is called with a page request,
//! nothing is held but a requester and the worker's own lock for asking, which comes before its guard; while it is
//! asked for a translation, a guard may be.

use std::sync::Arc;

use crossbeam::channel::Receiver;
use refault_bus::Bdf;
use refault_bus::ats::{AtsEndpoint, InvalidationRequest, TranslationAgent};
use refault_bus::clock::Clock;
use refault_bus::dma::DmaMemory;
use refault_bus::irq::MsiSink;
use refault_bus::pri::PageGroupResponse;
use refault_bus::probe::Probe;
use refault_bus::warn::WarnLimit;
use refault_bus::wire::{EthernetFrame, Wire, WirePort};
use refault_pci::{ConfigEffect, Endpoint, PciFunction};

use crate::config::NicConfig;
use crate::fabric::Fabric;
use crate::front::{Front, endpoint};
use crate::schedule::{Task, Work};
use crate::stats::NicStats;
use crate::storage::StorageStats;

/// The RDMA-like NIC.
///
/// A register access records state and queues work, which the owners of the [`Worker`]s do. Resets, commands of lane 1,
/// and doorbells of completion and event queues are served within the access.
pub struct Nic {
    front: Front,
}

impl Nic {
    /// A NIC in the state after a reset. Values of `config` that are out of range are clamped.
    pub fn new(
        config: NicConfig,
        memory: Arc<dyn DmaMemory>,
        agent: Arc<dyn TranslationAgent>,
        msi: Arc<dyn MsiSink>,
        clock: Arc<dyn Clock>,
        probe: Arc<dyn Probe>,
    ) -> Arc<Self> {
        let config = config.clamped();
        let fabric = Fabric {
            bdf: config.bdf,
            endpoint: endpoint(&config, msi),
            memory,
            agent,
            clock,
            probe,
            ring_warnings: WarnLimit::default(),
        };
        Arc::new(Self { front: Front::new(config, fabric) })
    }

    /// Connects the port of an Ethernet NIC, once. Frames to the NIC go to its [`WirePort`].
    pub fn plug(&self, wire: Arc<dyn Wire>) {
        if let Some(port) = &self.front.engine.ethernet {
            port.plug(wire);
        }
    }

    /// The worker with that number, modulo the number of workers. Each must have one owner.
    pub fn worker(self: &Arc<Self>, index: usize) -> Worker {
        let index = index % self.worker_count();
        let receiver = self.front.engine.workers.receiver(index).clone();
        Worker { nic: self.clone(), index, receiver }
    }

    /// How many workers there are: each needs an owner. With persistent memory there is one more than configured,
    /// which waits for the host's storage so that the others need not.
    pub fn worker_count(&self) -> usize {
        let engine = &self.front.engine;
        engine.workers.count() + usize::from(engine.memory.fabric.memory.has_persistent())
    }

    /// Counters since the NIC was made.
    pub fn stats(&self) -> NicStats {
        let mut stats = NicStats::default();
        self.front.engine.faults.add_stats(&mut stats);
        self.front.engine.memory.add_stats(&mut stats);
        stats.held_bytes_peak = self.front.engine.held_bytes_peak();
        let StorageStats { writes, joined, abandoned } = self.front.engine.workers.storage.stats();
        (stats.flush_writes, stats.flushes_joined, stats.flushes_abandoned) = (writes, joined, abandoned);
        if let Some(port) = &self.front.engine.ethernet {
            stats.frames = port.counters.stats();
        }
        stats
    }
}

/// One worker, which serves a share of the queue pairs. If there is persistent memory, the last worker serves none: it
/// writes that memory out.
///
/// It has no thread of its own. Its owner waits for [`Self::receiver`] or [`Self::next_deadline_ns`], whichever comes
/// first, and calls [`Self::process`] or [`Self::expire`].
pub struct Worker {
    nic: Arc<Nic>,
    index: usize,
    receiver: Receiver<Work>,
}

impl Worker {
    /// Whether this is the worker that writes persistent memory out.
    pub fn is_for_storage(&self) -> bool {
        self.index >= self.nic.front.engine.workers.count()
    }

    /// Where work arrives. Only work and the deadline wake a worker.
    pub fn receiver(&self) -> &Receiver<Work> {
        &self.receiver
    }

    /// Does one piece of work; commands and timers that are due come first. Never blocks for long, because copies are
    /// bounded and no page is waited for. The worker for persistent memory is the exception: it waits for the host's
    /// storage.
    pub fn process(&mut self, work: Work) {
        self.expire();
        let front = &self.nic.front;
        if work.0 == Task::Commands {
            front.unqueue_commands();
        }
        if self.index == 0 {
            front.serve_commands(self.index);
        }
        match work.0 {
            Task::QueuePair(slot) => front.engine.turn(self.index, slot),
            Task::Commands => {}
            Task::Moderate(cqn) => front.engine.start_moderation(self.index, cqn),
            Task::Persist => front.engine.persist(),
        }
    }

    /// Does one piece of work, if there is one: for owners of several workers on one thread.
    pub fn poll(&mut self) -> bool {
        let work = self.receiver.try_recv();
        work.map(|work| self.process(work)).is_ok()
    }

    /// When [`Self::expire`] has something to do, in nanoseconds of the NIC's clock.
    pub fn next_deadline_ns(&self) -> Option<u64> {
        self.nic.front.engine.workers.next_deadline_ns(self.index)
    }

    /// Serves timers that are due: queues requests that waited for a deadline, gives up overdue page requests and
    /// page faults.
    pub fn expire(&mut self) {
        let engine = &self.nic.front.engine;
        if self.index < engine.workers.count() {
            engine.expire(self.index);
        }
    }
}

impl PciFunction for Nic {
    fn bdf(&self) -> Bdf {
        self.front.engine.config.bdf
    }

    fn endpoint(&self) -> &Endpoint {
        &self.front.engine.memory.fabric.endpoint
    }

    fn config_changed(&self, effect: &ConfigEffect) {
        self.front.config_changed(effect);
    }

    fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]) {
        self.front.bar_read(bar, offset, data);
    }

    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]) {
        self.front.bar_write(bar, offset, data);
    }

    fn reset(&self) {
        self.front.reset();
    }
}

impl WirePort for Nic {
    fn receive(&self, frame: EthernetFrame) {
        self.front.engine.frame_arrived(frame);
    }

    fn set_carrier(&self, up: bool) {
        self.front.engine.carrier_changed(up);
    }

    fn has_room(&self) -> bool {
        self.front.engine.has_room_for_frames()
    }
}

impl AtsEndpoint for Nic {
    fn invalidate(&self, request: InvalidationRequest) {
        self.front.engine.memory.invalidate(&request);
    }

    fn drain(&self) {
        self.front.engine.memory.pass_guards();
    }

    fn page_group_response(&self, response: PageGroupResponse) {
        self.front.engine.answer_request(&response);
    }
}
