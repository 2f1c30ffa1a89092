//! Where virtual time passes: the pace of the machine's seams, and a probe. The parts of the machine are those of a real
//! guest's and do not know about it.

use std::sync::Arc;

use refault_abi::queue::WQE_HEAD_SIZE;
use refault_bus::ats::{AtsEndpoint, TranslationAgent, TranslationRequest};
use refault_bus::dma::DmaMemory;
use refault_bus::pri::{PageGroupResponse, PageRequest};
use refault_bus::probe::{Probe, ProbeEvent, Stage};
use refault_iommu::Iommu;
use refault_nic::{COPY_CHUNK, Nic};
use refault_observe::trace::Recorder;
use refault_rig::machine::Seams;
use refault_rig::paced::{Pace, PacedAgent, PacedEndpoint, PacedMemory};

use super::agenda::SimEvent;
use super::timeline::Timeline;

/// The seams of an experiment.
pub(super) struct TimedSeams(pub(super) Arc<Timeline>);

impl Seams for TimedSeams {
    fn agent(&self, iommu: Arc<Iommu>) -> Arc<dyn TranslationAgent> {
        Arc::new(PacedAgent::new(iommu, self.0.clone()))
    }

    fn endpoint(&self, nic: Arc<Nic>) -> Arc<dyn AtsEndpoint> {
        Arc::new(PacedEndpoint::new(nic, self.0.clone()))
    }

    fn memory(&self, memory: Arc<dyn DmaMemory>) -> Arc<dyn DmaMemory> {
        Arc::new(PacedMemory::new(memory, self.0.clone()))
    }
}

/// A step advances the clock, a message becomes an event.
impl Pace for Timeline {
    fn translation(&self, _: &TranslationRequest) {
        self.pass(&self.timing.translation);
    }

    fn page_request(&self, _: &Arc<dyn TranslationAgent>, request: PageRequest) {
        let delay = self.draw(&self.timing.page_request) + self.draw(&self.timing.queue_write);
        self.schedule(delay, SimEvent::PageRequest(request));
    }

    fn response(&self, nic: &Arc<dyn AtsEndpoint>, response: PageGroupResponse) {
        if !self.is_live() {
            return nic.page_group_response(response);
        }
        self.schedule_after(&self.timing.response_message, SimEvent::Response(response));
    }

    fn read(&self, bytes: usize) {
        // A fetch of a send request: the heads of receive requests and commands have the same size, but experiments post no
        // receive requests, and commands run while no time passes.
        if bytes == WQE_HEAD_SIZE as usize && self.is_working() {
            self.pass(&self.timing.fetch);
        }
    }

    fn copies(&self, _: u64, pieces: usize, bytes: u64) {
        if !self.is_live() {
            return;
        }
        (0..pieces).for_each(|_| self.pass(&self.timing.copy));
        self.clock.advance(bytes * 1000 / self.timing.bytes_per_us.max(1));
        self.set_copying_until(self.now_ns());
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
