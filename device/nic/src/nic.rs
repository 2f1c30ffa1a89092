//! The NIC: its parts, and how they are wired.
//!
//! Lock order, outermost first: control-plane objects; a requester; a worker's guard; a responder; a shared
//! receive queue or a completion queue, never both; an event queue. Leaves, held across no other lock of ours: registers, region slots,
//! timers, page requests. An invalidation takes guards alone, one after the other. While the IOMMU is called
//! with a page request, nothing but a requester is held; while it is asked for a translation, a guard may be.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crossbeam::channel::{Receiver, Sender, unbounded};
use refault_bus::ats::{AtsEndpoint, InvalidationRequest, TranslationAgent};
use refault_bus::clock::Clock;
use refault_bus::dma::DmaMemory;
use refault_bus::irq::MsiSink;
use refault_bus::pri::{PageGroupResponse, ResponseCode};
use refault_bus::probe::{Probe, ProbeEvent, Stage};
use refault_bus::{AddressSpace, Bdf};

use crate::config::NicConfig;
use crate::engine::{Task, Work, Worker};
use crate::fabric::Fabric;
use crate::fault::events::PageFaults;
use crate::fault::requests::PageRequests;
use crate::front::command::objects::Objects;
use crate::front::function;
use crate::front::regs::Registers;
use crate::memory::guard::{Guarded, lock};
use crate::memory::port::{Port, Shard};
use crate::memory::region::RegionTable;
use crate::qp::QueuePairs;
use crate::queue::completion::CompletionQueues;
use crate::queue::event::EventQueues;
use crate::queue::shared::SharedQueues;
use crate::stats::NicStats;
use crate::timers::Timers;
use refault_bus::warn::WarnLimit;

/// What belongs to one worker and is not under its guard.
pub(crate) struct WorkerCell {
    pub(crate) sender: Sender<Work>,
    pub(crate) receiver: Receiver<Work>,
    pub(crate) timers: Mutex<Timers>,
}

/// The RDMA-like NIC.
///
/// Register accesses only note things and queue work; the work is done by whoever owns the [`Worker`]s.
pub struct Nic {
    pub(crate) config: NicConfig,
    pub(crate) fabric: Fabric,
    pub(crate) registers: Registers,
    pub(crate) objects: Mutex<Objects>,
    /// One for each worker, and the last for register accesses.
    pub(crate) guards: Box<[Guarded<Shard>]>,
    pub(crate) workers: Box<[WorkerCell]>,
    /// To the worker that writes out persistent memory.
    pub(crate) persister: (Sender<Work>, Receiver<Work>),
    pub(crate) regions: RegionTable,
    pub(crate) qps: QueuePairs,
    pub(crate) cqs: CompletionQueues,
    pub(crate) srqs: SharedQueues,
    pub(crate) events: EventQueues,
    pub(crate) pages: PageRequests,
    pub(crate) faults: PageFaults,
    /// Commands are in worker 0's queue.
    pub(crate) commands_scheduled: AtomicBool,
    /// Next ticket of a page wait. Zero is none.
    pub(crate) tickets: AtomicU64,
    /// Next identity of a page table.
    pub(crate) identities: AtomicU64,
    invalidations: AtomicU64,
}

impl Nic {
    /// A NIC as after a reset. Values of `config` that it cannot serve are brought into range.
    pub fn new(
        config: NicConfig,
        memory: Arc<dyn DmaMemory>,
        agent: Arc<dyn TranslationAgent>,
        msi: Arc<dyn MsiSink>,
        clock: Arc<dyn Clock>,
        probe: Arc<dyn Probe>,
    ) -> Arc<Self> {
        let config = config.clamped();
        let endpoint = function::endpoint(&config, msi);
        let shares = config.workers;
        let worker = |_| {
            let (sender, receiver) = unbounded();
            WorkerCell { sender, receiver, timers: Mutex::default() }
        };
        let entries = config.atc_entries.div_ceil(shares);
        let nic = Self {
            fabric: Fabric {
                bdf: config.bdf,
                endpoint,
                memory,
                agent,
                clock,
                probe,
                ring_warnings: WarnLimit::default(),
            },
            registers: Registers::default(),
            objects: Mutex::new(Objects::new(&config)),
            guards: (0..=shares).map(|_| Guarded::new(Shard::new(entries))).collect(),
            workers: (0..shares).map(worker).collect(),
            persister: unbounded(),
            regions: RegionTable::new(config.max_mr),
            qps: QueuePairs::new(config.max_qp),
            cqs: CompletionQueues::new(config.max_cq),
            srqs: SharedQueues::new(config.max_srq),
            events: EventQueues::new(),
            pages: PageRequests::new(config.page_request_credits),
            faults: PageFaults::new(config.page_fault_credits),
            commands_scheduled: AtomicBool::new(false),
            tickets: AtomicU64::new(1),
            identities: AtomicU64::new(1),
            invalidations: AtomicU64::new(0),
            config,
        };
        Arc::new(nic)
    }

    /// The worker with that number, modulo the number of workers. Each is to be owned once.
    pub fn worker(self: &Arc<Self>, index: usize) -> Worker {
        Worker::new(self.clone(), index)
    }

    /// How many workers there are: each wants an owner. With persistent memory there is one more than configured,
    /// which waits for the host's disk so that no other does.
    pub fn worker_count(&self) -> usize {
        self.workers.len() + usize::from(self.fabric.memory.has_persistent())
    }

    /// What the NIC did so far.
    pub fn stats(&self) -> NicStats {
        let (pages, faults) = (self.pages.stats(), self.faults.stats());
        let mut stats = NicStats {
            page_requests: pages.asked,
            page_waits_joined: pages.joined + faults.joined,
            page_responses: pages.answers,
            page_responses_unexpected: pages.unexpected,
            page_timeouts: pages.timeouts,
            page_faults: faults.asked,
            page_fault_answers: faults.answers,
            page_fault_answers_unexpected: faults.unexpected,
            page_fault_timeouts: faults.timeouts,
            invalidations: self.invalidations.load(Ordering::Relaxed),
            ..NicStats::default()
        };
        for guard in &self.guards {
            guard.interrupt(|shard| stats.add(&shard.stats));
        }
        stats
    }

    /// GID 0: link-local prefix and node GUID.
    pub(crate) fn gid(&self) -> [u8; 16] {
        let mut gid = [0; 16];
        gid[..2].copy_from_slice(&[0xfe, 0x80]);
        gid[8..].copy_from_slice(&self.config.node_guid.to_be_bytes());
        gid
    }

    /// Access to memory for register accesses.
    pub(crate) fn front_port(&self) -> Port<'_> {
        self.port(self.workers.len())
    }

    /// Passes through every guard: afterwards no copy is under way that did not see what the caller changed
    /// before.
    pub(crate) fn pass_guards(&self, mut work: impl FnMut(&mut Shard)) {
        for guard in &self.guards {
            guard.interrupt(&mut work);
        }
    }

    /// Has worker 0 look at the command lanes.
    pub(crate) fn schedule_commands(&self) {
        if !self.commands_scheduled.swap(true, Ordering::SeqCst) {
            self.send(0, Task::Commands);
        }
    }

    /// Destroys every object. Nothing is in flight afterwards but page requests that were sent; their answers, and
    /// those to page faults, will meet nobody.
    pub(crate) fn destroy_everything(&self) {
        let mut objects = lock(&self.objects);
        self.registers.reset();
        for qp in self.qps.iter() {
            self.empty_qp(qp);
        }
        self.cqs.clear();
        self.srqs.clear();
        self.events.clear();
        self.regions.clear();
        *objects = Objects::new(&self.config);
        self.pass_guards(|shard| {
            shard.atc.flush();
            shard.regions.forget_all();
        });
        self.faults.reset();
    }

    /// Has every worker forget what `work` takes away. When it returns no copy that used it is under way.
    pub(crate) fn serve_invalidation(
        &self,
        event: impl Fn(Stage) -> ProbeEvent,
        work: impl FnMut(&mut Shard),
    ) {
        self.fabric.record(event(Stage::Invalidate));
        self.pass_guards(work);
        self.invalidations.fetch_add(1, Ordering::Relaxed);
        self.fabric.record(event(Stage::Invalidated));
    }
}

impl AtsEndpoint for Nic {
    fn requester(&self) -> Bdf {
        self.config.bdf
    }

    fn invalidate(&self, request: InvalidationRequest) {
        let event = |stage| {
            let event = ProbeEvent::new(stage, AddressSpace::of(request.pasid), request.iova);
            ProbeEvent { size_shift: request.size_shift, ..event }
        };
        self.serve_invalidation(event, |shard| shard.atc.invalidate(&request));
    }

    fn page_group_response(&self, response: PageGroupResponse) {
        let endpoint = &self.fabric.endpoint;
        let Some(closed) = self.pages.answer(endpoint, &response) else {
            endpoint.set_pri_unexpected_group();
            return;
        };
        if response.code == ResponseCode::ResponseFailure {
            endpoint.set_pri_response_failure();
        }
        self.tell_answer(closed);
    }
}
