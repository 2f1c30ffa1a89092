//! Delayed translations and page requests, between the NIC and the IOMMU.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use refault_bus::ats::{RequestKind, Translation, TranslationAgent, TranslationError, TranslationRequest};
use refault_bus::pri::PageRequest;

use super::delay_line::DelayLine;
use super::pace::{Pace, pause};

/// The IOMMU as the NIC reaches it, with delays.
pub(super) struct DelayedAgent {
    iommu: Arc<dyn TranslationAgent>,
    pace: Arc<Pace>,
    page_requests: DelayLine<PageRequest>,
}

impl DelayedAgent {
    pub(super) fn new(iommu: Arc<dyn TranslationAgent>, pace: Arc<Pace>) -> Result<Self> {
        let root = iommu.clone();
        let page_requests = DelayLine::new("requests", move |request| root.page_request(request))?;
        Ok(Self { iommu, pace, page_requests })
    }

    /// Discards page requests in flight: the device was reset.
    pub(super) fn clear(&self) {
        self.page_requests.clear();
    }
}

impl TranslationAgent for DelayedAgent {
    /// Waits first, then translates, so that the translation is current when it is used.
    fn translate(&self, request: &TranslationRequest) -> Result<Translation, TranslationError> {
        if request.kind == RequestKind::Translation {
            pause(Instant::now(), self.pace.of(|timing| &timing.translation));
        }
        self.iommu.translate(request)
    }

    /// One delay for both the message and the write of the queue entry: there is no seam between them.
    fn page_request(&self, request: PageRequest) {
        let way = self.pace.of(|timing| &timing.page_request);
        let written = self.pace.of(|timing| &timing.queue_write);
        self.page_requests.send(way.saturating_add(written), request);
    }
}
