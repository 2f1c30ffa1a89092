//! Asking for the pages that were claimed, outside the guard.

use refault_bus::AddressSpace;
use refault_bus::pri::PageRequest;
use refault_bus::probe::Stage;

use crate::fabric::Fabric;
use crate::fault::Faults;
use crate::fault::ask::{Ask, Means, record};
use crate::memory::Memory;
use crate::memory::access::PageMiss;
use crate::qp::answer::Wakeup;
use crate::queue::event::EventQueues;
use crate::verbs::{Event, PageFault};

/// Asks for pages.
///
/// The requester may be locked, but no guard is held: the IOMMU may answer from inside a page request.
pub(crate) struct Sender<'a> {
    pub(crate) faults: &'a Faults,
    pub(crate) memory: &'a Memory,
    pub(crate) events: &'a EventQueues,
    pub(crate) worker: usize,
}

impl Sender<'_> {
    /// Asks for a page, unless that was called off. Returns waiters to wake.
    pub(crate) fn send(&self, ask: &Ask) -> Vec<Wakeup> {
        let &Ask { means, group, miss, qpn, is_new } = ask;
        let fabric = &self.memory.fabric;
        if is_new {
            record(fabric, Stage::Miss, None, miss, qpn);
        }
        // Held until the page was asked for: a caller that calls pages off waits for it.
        let _asking = self.faults.asking(self.worker);
        match means {
            Means::Request if !may_request(fabric) => {
                // The switch was turned off after the claim: all are called off.
                let wakeups = self.faults.requests.call_off(&fabric.endpoint, None);
                self.faults.requests.ask(group);
                return wakeups;
            }
            Means::Request if self.faults.requests.ask(group) => {
                record(fabric, Stage::PageRequest, Some(group), miss, qpn);
                let PageMiss { space, page, write, .. } = miss;
                fabric.agent.page_request(PageRequest {
                    requester: fabric.bdf,
                    pasid: space.pasid(),
                    page,
                    read: true,
                    write,
                    last: true,
                    group,
                });
            }
            Means::Event { token, bytes } if self.faults.events.ask(group) => {
                record(fabric, Stage::PageRequest, Some(group), miss, qpn);
                return self.raise(miss, token, bytes);
            }
            Means::Request | Means::Event { .. } => {}
        }
        Vec::new()
    }

    /// Sends the event of a page fault. Returns waiters to wake.
    fn raise(&self, miss: PageMiss, token: u32, bytes: u32) -> Vec<Wakeup> {
        let AddressSpace::Region(key) = miss.space else { return Vec::new() };
        let Some(eqn) = self.memory.regions.fault_queue(key) else {
            // The region went while no guard was held: its destruction may not have seen this fault.
            return self.faults.forget_region(key);
        };
        let fault = PageFault { key, address: miss.page.0, length: bytes, write: miss.write, token };
        self.events.raise(&mut self.memory.port(self.worker), eqn, Event::PageFault(fault));
        Vec::new()
    }
}

/// Whether the switches of the function let page requests out.
fn may_request(fabric: &Fabric) -> bool {
    let controls = fabric.endpoint.controls();
    controls.bus_master() && controls.ats() && controls.pri() && controls.pasid()
}
