//! Delayed page group responses and invalidations, between the IOMMU and the NIC.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use refault_bus::Bdf;
use refault_bus::ats::{AtsEndpoint, InvalidationRequest};
use refault_bus::pri::PageGroupResponse;

use super::delay_line::DelayLine;
use super::pace::{Pace, pause};

/// The NIC as the IOMMU reaches it, with delays.
pub(super) struct DelayedEndpoint {
    nic: Arc<dyn AtsEndpoint>,
    pace: Arc<Pace>,
    responses: DelayLine<PageGroupResponse>,
}

impl DelayedEndpoint {
    pub(super) fn new(nic: Arc<dyn AtsEndpoint>, pace: Arc<Pace>) -> Result<Self> {
        let device = nic.clone();
        let responses = DelayLine::new("responses", move |response| device.page_group_response(response))?;
        Ok(Self { nic, pace, responses })
    }

    /// Discards responses in flight: the device was reset.
    pub(super) fn clear(&self) {
        self.responses.clear();
    }
}

impl AtsEndpoint for DelayedEndpoint {
    fn requester(&self) -> Bdf {
        self.nic.requester()
    }

    /// Waits in place, because the guest waits for the invalidation too, with interrupts off.
    fn invalidate(&self, request: InvalidationRequest) {
        let begun = Instant::now();
        self.nic.invalidate(request);
        pause(begun, self.pace.of(|timing| &timing.invalidation));
    }

    /// One delay for both the message and the wake of the queue pair: there is no seam between them.
    fn page_group_response(&self, response: PageGroupResponse) {
        let way = self.pace.of(|timing| &timing.response_message);
        let wake = self.pace.of(|timing| &timing.device_wake);
        self.responses.send(way.saturating_add(wake), response);
    }
}
