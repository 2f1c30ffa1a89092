//! A machine to measure: its NIC has one worker, which the bench itself runs, on the wall clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use refault_abi::codes::WC_SUCCESS;
use refault_abi::queue::{WQE_SIGNALED, WqeFlags};
use refault_bus::clock::Clock;
use refault_bus::probe::{NoProbe, Probe};
use refault_bus::{Gpa, Iova};
use refault_iommu::IommuConfig;
use refault_model::nic::{QueuePair, work};
use refault_model::paging::{PageSize, Rights};
use refault_nic::{Loopback, NicConfig, Worker};
use refault_rig::clock::WallClock;

use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, VolatileSlice};

use crate::machine::{Machine, MachineSetup};
use crate::session::Session;

/// Address of the source.
pub const SOURCE: Iova = Iova(0x7f00_0000_0000);
/// Address of the target.
pub const TARGET: Iova = Iova(0x7f80_0000_0000);
/// Bytes of both areas.
pub const AREA: u64 = 16 << 20;

/// The machine, a process on it, and the NIC's only worker.
pub struct Rig {
    /// The machine.
    pub machine: Machine,
    /// A process with a source and a target area, both without pages.
    pub session: Session,
    /// The NIC's worker.
    pub worker: Worker,
    next: u64,
}

impl Rig {
    /// A machine whose caches hold `entries` translations each.
    pub fn new(entries: usize) -> Self {
        let every = NicConfig::default().sample_every;
        Self::probed(entries, every, Arc::new(WallClock::default()), Arc::new(NoProbe))
    }

    /// As [`Self::new`], with connections of that kind.
    pub fn connected(entries: usize, loopback: Loopback) -> Self {
        let nic = NicConfig { loopback, ..NicConfig::default() };
        Self::made(entries, nic, Arc::new(WallClock::default()), Arc::new(NoProbe))
    }

    /// As [`Self::new`], with a probe that one request in `sample_every` is reported to.
    pub fn probed(entries: usize, sample_every: u32, clock: Arc<dyn Clock>, probe: Arc<dyn Probe>) -> Self {
        Self::made(entries, NicConfig { sample_every, ..NicConfig::default() }, clock, probe)
    }

    fn made(entries: usize, nic: NicConfig, clock: Arc<dyn Clock>, probe: Arc<dyn Probe>) -> Self {
        let machine = Machine::new(MachineSetup {
            memory: 256 << 20,
            iommu: IommuConfig { iotlb_entries: entries, ..IommuConfig::default() },
            nic: NicConfig { workers: 1, atc_entries: entries, ..nic },
            probe: Some(probe),
            clock: Some(clock),
            ..MachineSetup::default()
        });
        let session = machine.open(1);
        for start in [SOURCE, TARGET] {
            session.process.map_area(start, AREA, Rights::Write, PageSize::Small);
        }
        let worker = machine.take_workers().pop().expect("one worker");
        Self { machine, session, worker, next: 0 }
    }

    /// Creates more queue pairs of the process, as connected pairs of sender and receiver. Commands need the worker,
    /// which runs on a thread of its own meanwhile.
    pub fn add_pairs(&mut self, count: usize) -> Vec<(QueuePair, QueuePair)> {
        let Self { machine, session, worker, .. } = self;
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Acquire) {
                    worker.poll();
                    thread::yield_now();
                }
            });
            let pairs = (0..count).map(|_| session.add_pair(&machine.driver)).collect();
            over.store(true, Ordering::Release);
            pairs
        })
    }

    /// One RDMA WRITE from post to completion, without a fault.
    pub fn write_warm(&mut self, from: Iova, to: Iova, length: u32) {
        self.post(from, to, length);
        while self.worker.poll() {}
        self.take_completion();
    }

    /// An RDMA WRITE of `length` at each offset, from area to area, with one doorbell; only the last one reports its
    /// completion.
    pub fn stream_warm(&mut self, offsets: impl ExactSizeIterator<Item = u64>, length: u32) {
        let last = offsets.len() - 1;
        for (offset, index) in offsets.zip(0..) {
            self.next += 1;
            let (key, id) = (self.session.region.key, self.next);
            let local = work::piece(Iova(SOURCE.0 + offset), length, key);
            let mut wqe = work::rdma_write(id, local, Iova(TARGET.0 + offset), key);
            wqe.flags = if index == last { WQE_SIGNALED } else { WqeFlags::NONE };
            self.session.sender.stage(&wqe).expect("the ring is memory");
        }
        self.session.sender.ring().expect("the ring is memory");
        while self.worker.poll() {}
        self.take_completion();
    }

    /// Posts one RDMA WRITE.
    pub fn post(&mut self, from: Iova, to: Iova, length: u32) {
        self.next += 1;
        self.session.write(self.next, from, to, length);
    }

    /// Takes the completion of the request posted last, which must have succeeded.
    pub fn take_completion(&mut self) {
        assert!(self.is_complete(), "the request is not done");
    }

    /// Takes the completion of the request posted last, if it has completed; it must be a success.
    pub fn is_complete(&mut self) -> bool {
        let Some(cqe) = self.session.poll() else { return false };
        assert_eq!((cqe.wr_id, cqe.status), (self.next, WC_SUCCESS));
        true
    }

    /// Maps `bytes` at `start` to frames, and returns these in order. With `gap`, no two of them are adjacent in
    /// memory; without, all are.
    pub fn map(&self, start: Iova, bytes: u64, gap: bool) -> Vec<Gpa> {
        let page = PageSize::Small.bytes();
        let stride = if gap { 2 * page } else { page };
        let memory = self.machine.memory.allocate(bytes / page * stride, 12).expect("frames");
        let frames: Vec<_> =
            (memory.0..).step_by(stride as usize).take((bytes / page) as usize).map(Gpa).collect();
        for (&frame, at) in frames.iter().zip((start.0..).step_by(page as usize)) {
            let mapped = self.session.process.space.map(Iova(at), frame, PageSize::Small, Rights::Write);
            mapped.expect("an empty page");
        }
        frames
    }
}

/// `bytes` of guest memory at `gpa`, as the host has it mapped.
pub fn slice(ram: &GuestMemoryMmap, gpa: Gpa, bytes: u64) -> VolatileSlice<'_> {
    ram.get_slice(GuestAddress(gpa.0), bytes as usize).expect("guest memory")
}
