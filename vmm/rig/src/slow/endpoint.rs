//! Slower answers and invalidations: between the IOMMU and the NIC.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use refault_bus::Bdf;
use refault_bus::ats::{AtsEndpoint, InvalidationRequest};
use refault_bus::pri::PageGroupResponse;

use super::line::DelayLine;
use super::pace::{Pace, pause};

/// The NIC, further away.
pub(super) struct SlowEndpoint {
    nic: Arc<dyn AtsEndpoint>,
    pace: Arc<Pace>,
    responses: DelayLine<PageGroupResponse>,
}

impl SlowEndpoint {
    pub(super) fn new(nic: Arc<dyn AtsEndpoint>, pace: Arc<Pace>) -> Result<Self> {
        let device = nic.clone();
        let responses = DelayLine::new("responses", move |response| device.page_group_response(response))?;
        Ok(Self { nic, pace, responses })
    }

    /// The device was reset: nothing to it is under way any more.
    pub(super) fn clear(&self) {
        self.responses.clear();
    }
}

impl AtsEndpoint for SlowEndpoint {
    fn requester(&self) -> Bdf {
        self.nic.requester()
    }

    /// The guest waits for it with interrupts off, on the spot, and so do we.
    fn invalidate(&self, request: InvalidationRequest) {
        let begun = Instant::now();
        self.nic.invalidate(request);
        pause(begun, self.pace.of(|timing| &timing.invalidation));
    }

    /// The message's way and the wake-up of the queue pair in one: the NIC shows no seam between them.
    fn page_group_response(&self, response: PageGroupResponse) {
        let way = self.pace.of(|timing| &timing.response_message);
        let wake = self.pace.of(|timing| &timing.device_wake);
        self.responses.send(way.saturating_add(wake), response);
    }
}
