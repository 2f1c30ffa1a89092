//! Where time passes: decorators between the parts of the machine. The parts themselves are those of a real guest's
//! machine, and know nothing of it.

use std::sync::Arc;

use refault_abi::queue::SQ_WQE_SIZE;
use refault_bus::ats::{AtsEndpoint, InvalidationRequest, Translation, TranslationAgent};
use refault_bus::ats::{TranslationError, TranslationRequest};
use refault_bus::dma::{CopyPiece, DmaMemory, MemoryError};
use refault_bus::layer::MemoryLayer;
use refault_bus::pri::{PageGroupResponse, PageRequest};
use refault_bus::probe::{Probe, ProbeEvent, Stage};
use refault_bus::{Bdf, Gpa};
use refault_iommu::Iommu;
use refault_nic::Nic;

use super::agenda::Event;
use super::world::World;
use refault_observe::trace::Recorder;
use refault_rig::machine::Seams;

/// Bytes that the NIC copies before an invalidation that waits has its turn (`CHUNK` of its engine).
const CHUNK: u64 = 64 << 10;

/// The seams of an experiment.
pub(super) struct TimedSeams(pub(super) Arc<World>);

impl Seams for TimedSeams {
    fn agent(&self, iommu: Arc<Iommu>) -> Arc<dyn TranslationAgent> {
        Arc::new(TimedAgent { world: self.0.clone(), iommu })
    }

    fn endpoint(&self, nic: Arc<Nic>) -> Arc<dyn AtsEndpoint> {
        Arc::new(TimedEndpoint { world: self.0.clone(), nic })
    }

    fn memory(&self, memory: Arc<dyn DmaMemory>) -> Arc<dyn DmaMemory> {
        Arc::new(TimedMemory { world: self.0.clone(), memory })
    }
}

/// The IOMMU as the NIC sees it: a translation is waited for, a page request is sent.
struct TimedAgent {
    world: Arc<World>,
    iommu: Arc<Iommu>,
}

impl TranslationAgent for TimedAgent {
    fn translate(&self, request: &TranslationRequest) -> Result<Translation, TranslationError> {
        self.world.pass(&self.world.timing.translation);
        self.iommu.translate(request)
    }

    fn page_request(&self, request: PageRequest) {
        let World { timing, .. } = &*self.world;
        let travels = self.world.draw(&timing.page_request) + self.world.draw(&timing.queue_write);
        self.world.note(travels, Event::PageRequest(request));
    }
}

/// The NIC as the IOMMU sees it: an answer is sent.
struct TimedEndpoint {
    world: Arc<World>,
    nic: Arc<Nic>,
}

impl AtsEndpoint for TimedEndpoint {
    fn requester(&self) -> Bdf {
        self.nic.requester()
    }

    fn invalidate(&self, request: InvalidationRequest) {
        self.nic.invalidate(request);
    }

    fn page_group_response(&self, response: PageGroupResponse) {
        if !self.world.is_live() {
            return self.nic.page_group_response(response);
        }
        self.world.note_after(&self.world.timing.response_message, Event::Response(response));
    }
}

/// Who hears of the stages: an invalidation takes its time between its arrival at the device and its end, and so does an
/// event to the driver. What is no part of the experiment is not told of.
pub(super) struct TimedProbe {
    world: Arc<World>,
    recorder: Arc<Recorder>,
}

impl TimedProbe {
    pub(super) fn new(world: Arc<World>, recorder: Arc<Recorder>) -> Arc<Self> {
        Arc::new(Self { world, recorder })
    }
}

impl Probe for TimedProbe {
    fn record(&self, event: &ProbeEvent) {
        if self.world.is_unseen() {
            return;
        }
        self.recorder.record(event);
        if event.stage == Stage::PageRequest && event.space.key().is_some() {
            // A page fault of a region: the NIC itself writes the event into the driver's memory.
            self.world.pass(&self.world.timing.page_request);
            self.world.pass(&self.world.timing.queue_write);
        }
        if event.stage == Stage::Invalidate && self.world.is_live() {
            // The copies that it waits for have been acted out already; what is left of them is their time.
            let chunk = CHUNK * 1000 / self.world.timing.bytes_per_us.max(1);
            self.world.clock.advance(self.world.copies_last_ns().min(chunk));
            self.world.pass(&self.world.timing.invalidation);
        }
    }
}

/// Memory as the NIC sees it: requests are fetched from it, and payload is copied in it.
struct TimedMemory {
    world: Arc<World>,
    memory: Arc<dyn DmaMemory>,
}

impl TimedMemory {
    fn copied(&self, bytes: u64, pieces: usize) {
        if !self.world.is_live() {
            return;
        }
        (0..pieces).for_each(|_| self.world.pass(&self.world.timing.copy));
        self.world.clock.advance(bytes * 1000 / self.world.timing.bytes_per_us.max(1));
        self.world.set_copying_until(self.world.now_ns());
    }
}

impl MemoryLayer for TimedMemory {
    fn behind(&self) -> &dyn DmaMemory {
        &*self.memory
    }

    fn read(&self, gpa: Gpa, buf: &mut [u8]) -> Result<(), MemoryError> {
        // Nothing else that a worker reads in one piece is as long as a request.
        if buf.len() == SQ_WQE_SIZE as usize && self.world.is_working() {
            self.world.pass(&self.world.timing.fetch);
        }
        self.memory.read(gpa, buf)
    }

    fn copy(&self, src: Gpa, dst: Gpa, len: u64) -> Result<(), MemoryError> {
        self.copied(len, 1);
        self.memory.copy(src, dst, len)
    }

    fn copy_all(&self, pieces: &[CopyPiece]) -> usize {
        let copied = self.memory.copy_all(pieces);
        self.copied(pieces[..copied].iter().map(|piece| piece.len).sum(), copied);
        copied
    }
}
