//! Decorators between the parts of the machine that let virtual time pass. The parts are those of a real guest's machine
//! and do not know about it.

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
use refault_nic::{COPY_CHUNK, Nic};

use super::agenda::SimEvent;
use super::timeline::Timeline;
use refault_observe::trace::Recorder;
use refault_rig::machine::Seams;

/// The seams of an experiment.
pub(super) struct TimedSeams(pub(super) Arc<Timeline>);

impl Seams for TimedSeams {
    fn agent(&self, iommu: Arc<Iommu>) -> Arc<dyn TranslationAgent> {
        Arc::new(TimedAgent { timeline: self.0.clone(), iommu })
    }

    fn endpoint(&self, nic: Arc<Nic>) -> Arc<dyn AtsEndpoint> {
        Arc::new(TimedEndpoint { timeline: self.0.clone(), nic })
    }

    fn memory(&self, memory: Arc<dyn DmaMemory>) -> Arc<dyn DmaMemory> {
        Arc::new(TimedMemory { timeline: self.0.clone(), memory })
    }
}

/// The IOMMU as the NIC sees it: a translation takes time, a page request becomes an event.
struct TimedAgent {
    timeline: Arc<Timeline>,
    iommu: Arc<Iommu>,
}

impl TranslationAgent for TimedAgent {
    fn translate(&self, request: &TranslationRequest) -> Result<Translation, TranslationError> {
        self.timeline.pass(&self.timeline.timing.translation);
        self.iommu.translate(request)
    }

    fn page_request(&self, request: PageRequest) {
        let Timeline { timing, .. } = &*self.timeline;
        let delay = self.timeline.draw(&timing.page_request) + self.timeline.draw(&timing.queue_write);
        self.timeline.schedule(delay, SimEvent::PageRequest(request));
    }
}

/// The NIC as the IOMMU sees it: a page group response becomes an event.
struct TimedEndpoint {
    timeline: Arc<Timeline>,
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
        if !self.timeline.is_live() {
            return self.nic.page_group_response(response);
        }
        self.timeline.schedule_after(&self.timeline.timing.response_message, SimEvent::Response(response));
    }
}

/// The probe of an experiment. It records stages, except those of untraced work. An invalidation takes its time between
/// its two stages, and a page fault event after its stage.
pub(super) struct TimedProbe {
    timeline: Arc<Timeline>,
    recorder: Arc<Recorder>,
}

impl TimedProbe {
    pub(super) fn new(timeline: Arc<Timeline>, recorder: Arc<Recorder>) -> Arc<Self> {
        Arc::new(Self { timeline, recorder })
    }
}

impl Probe for TimedProbe {
    fn record(&self, event: &ProbeEvent) {
        if self.timeline.is_untraced() {
            return;
        }
        self.recorder.record(event);
        if event.stage == Stage::PageRequest && event.space.key().is_some() {
            // A page fault of an on-demand region: the NIC itself writes the event into the driver's memory.
            self.timeline.pass(&self.timeline.timing.page_request);
            self.timeline.pass(&self.timeline.timing.queue_write);
        }
        if event.stage == Stage::Invalidate && self.timeline.is_live() {
            // The copies that it waits for were simulated already; only their remaining time passes here, at most that of
            // one chunk: the NIC copies no more under one guard.
            let chunk = COPY_CHUNK * 1000 / self.timeline.timing.bytes_per_us.max(1);
            self.timeline.clock.advance(self.timeline.copying_left_ns().min(chunk));
            self.timeline.pass(&self.timeline.timing.invalidation);
        }
    }
}

/// Memory as the NIC sees it: fetching a request and copying payload take time.
struct TimedMemory {
    timeline: Arc<Timeline>,
    memory: Arc<dyn DmaMemory>,
}

impl TimedMemory {
    fn copied(&self, bytes: u64, pieces: usize) {
        if !self.timeline.is_live() {
            return;
        }
        (0..pieces).for_each(|_| self.timeline.pass(&self.timeline.timing.copy));
        self.timeline.clock.advance(bytes * 1000 / self.timeline.timing.bytes_per_us.max(1));
        self.timeline.set_copying_until(self.timeline.now_ns());
    }
}

impl MemoryLayer for TimedMemory {
    fn behind(&self) -> &dyn DmaMemory {
        &*self.memory
    }

    fn read(&self, gpa: Gpa, buf: &mut [u8]) -> Result<(), MemoryError> {
        // A fetch of a send request: receive requests and commands have the same size, but experiments post no receive
        // requests, and commands run while no time passes.
        if buf.len() == SQ_WQE_SIZE as usize && self.timeline.is_working() {
            self.timeline.pass(&self.timeline.timing.fetch);
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
