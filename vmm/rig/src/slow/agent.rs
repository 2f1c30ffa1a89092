//! Slower translations and page requests: between the NIC and the IOMMU.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use refault_bus::ats::{RequestKind, Translation, TranslationAgent, TranslationError, TranslationRequest};
use refault_bus::pri::PageRequest;

use super::line::DelayLine;
use super::pace::{Pace, pause};

/// The IOMMU, further away.
pub(super) struct SlowAgent {
    iommu: Arc<dyn TranslationAgent>,
    pace: Arc<Pace>,
    page_requests: DelayLine<PageRequest>,
}

impl SlowAgent {
    pub(super) fn new(iommu: Arc<dyn TranslationAgent>, pace: Arc<Pace>) -> Result<Self> {
        let root = iommu.clone();
        let page_requests = DelayLine::new("requests", move |request| root.page_request(request))?;
        Ok(Self { iommu, pace, page_requests })
    }

    /// The device was reset: nothing of it is under way any more.
    pub(super) fn clear(&self) {
        self.page_requests.clear();
    }
}

impl TranslationAgent for SlowAgent {
    /// Waits first and translates then, so that the answer is new when it is used.
    fn translate(&self, request: &TranslationRequest) -> Result<Translation, TranslationError> {
        if request.kind == RequestKind::Translation {
            pause(Instant::now(), self.pace.of(|timing| &timing.translation));
        }
        self.iommu.translate(request)
    }

    /// The message's way and the entry's writing in one: the IOMMU shows no seam between them.
    fn page_request(&self, request: PageRequest) {
        let way = self.pace.of(|timing| &timing.page_request);
        let written = self.pace.of(|timing| &timing.queue_write);
        self.page_requests.send(way.saturating_add(written), request);
    }
}
