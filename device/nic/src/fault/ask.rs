//! Asking for the pages of a request, and parking it.

use refault_bus::pri::PageRequest;
use refault_bus::probe::{ProbeEvent, Stage};
use refault_bus::{AddressSpace, PrgIndex};

use crate::cause::Cause;
use crate::config::NicConfig;
use crate::fabric::Fabric;
use crate::fault::Faults;
use crate::fault::waits::Claim;
use crate::memory::Memory;
use crate::memory::access::PageMiss;
use crate::memory::resolve::Ahead;
use crate::qp::answer::{Half, Waiter, Wakeup};
use crate::qp::requester::{Faulted, PageTrouble, Queued, Requester, Wait};
use crate::queue::event::EventQueues;
use crate::schedule::Workers;
use crate::verbs::{End, Event, PageFault};

/// Requests for a page without progress before the device pauses between them.
const PROMPT: u32 = 4;
/// First and longest of these pauses.
const BACK_OFF_NS: (u64, u64) = (10_000, 5_000_000);
/// Most pages one request remembers for its probes.
const MAX_FAULTED: usize = 256;
/// Room for pages that is kept when a request is over; most requests need no more.
const KEPT_FAULTED: usize = 8;

/// How a page is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    /// By a page request to the IOMMU.
    Request,
    /// By an event to the driver, which answers with this token.
    Event { token: u32 },
}

/// A page to ask for.
#[derive(Clone, Copy, Debug)]
struct Asked {
    group: PrgIndex,
    miss: PageMiss,
    /// Byte of the message that is first on the page.
    at: u32,
    deadline_ns: Option<u64>,
}

/// Asks for pages on behalf of a requester.
///
/// The requester is locked, but no guard is held: the IOMMU may answer from inside a page request.
pub(crate) struct Asker<'a> {
    pub(crate) faults: &'a Faults,
    pub(crate) config: &'a NicConfig,
    pub(crate) memory: &'a Memory,
    pub(crate) events: &'a EventQueues,
    pub(crate) workers: &'a Workers,
    pub(crate) worker: usize,
    pub(crate) requester: &'a mut Requester,
}

impl Asker<'_> {
    /// Asks for the page that is missing, and for those ahead, and parks the requester. Returns waiters to wake.
    ///
    /// # Errors
    ///
    /// The page will not come: the request fails with this cause.
    pub(crate) fn ask(mut self, end: End, miss: PageMiss, ahead: Ahead) -> Result<Vec<Wakeup>, Cause> {
        self.check_interface(miss)?;
        let now_ns = self.memory.fabric.now_ns();
        if self.back_off(end, now_ns)? {
            return Ok(Vec::new());
        }
        let ticket = self.faults.ticket();
        let deadline_ns = self.deadline(now_ns);
        // Parked before the page is asked for: the answer may be there before the call returns.
        self.requester.wait = Wait::Page { ticket };
        let waiter = Waiter { qpn: self.requester.setup.qpn, half: Half::Requester, ticket };
        let before = self.requester.trouble.queued.filter(|queued| queued.miss == miss);
        let place = before.map_or(ticket, |queued| queued.place);
        let (claim, ask) = self.claim(miss, waiter, place, deadline_ns);
        self.record_miss(miss, claim);
        let at = self.requester.active.as_ref().map_or(0, |message| message.done);
        let wakeups = match claim {
            Claim::New(group) => self.send(ask, &Asked { group, miss, at, deadline_ns }, &ahead),
            Claim::Joined(group) => {
                note_fault(self.requester, group, miss, at);
                Vec::new()
            }
            Claim::NoCredit => {
                self.wait_for_credit(ticket, Queued { miss, place }, deadline_ns);
                return Ok(Vec::new());
            }
        };
        for (miss, at) in ahead.pages {
            self.prefetch(miss, at, deadline_ns);
        }
        Ok(wakeups)
    }

    /// Asks for a page of a datagram's receiver, on the receiver's behalf, and parks nobody. If credits are short it does
    /// not: the next datagram asks again. Returns waiters to wake.
    ///
    /// # Errors
    ///
    /// The page will not come: the receive request fails with this cause.
    pub(crate) fn ask_for_receiver(mut self, miss: PageMiss, receiver: Waiter) -> Result<Vec<Wakeup>, Cause> {
        self.check_interface(miss)?;
        let deadline_ns = self.deadline(self.memory.fabric.now_ns());
        let Faults { requests, events, .. } = self.faults;
        let found = if miss.space.pasid().is_some() {
            let group = requests.prefetch(&self.memory.fabric.endpoint, miss, deadline_ns, Some(receiver));
            group.map(|group| (group, Ask::Request))
        } else {
            let fault = events.prefetch(miss, deadline_ns, receiver);
            fault.map(|(group, token)| (group, Ask::Event { token }))
        };
        let Some((group, ask)) = found else { return Ok(Vec::new()) };
        self.record_new_miss(miss);
        Ok(self.send(ask, &Asked { group, miss, at: 0, deadline_ns }, &Ahead::default()))
    }

    /// Whether the page can be asked for at all.
    fn check_interface(&self, miss: PageMiss) -> Result<(), Cause> {
        let endpoint = &self.memory.fabric.endpoint;
        match miss.space.pasid() {
            Some(_) if !endpoint.controls().pri() => Err(Cause::Blocked),
            Some(_) if endpoint.pri_response_failure() => Err(Cause::PageFailure),
            _ => Ok(()),
        }
    }

    /// When a page that is asked for now is given up.
    fn deadline(&self, now_ns: u64) -> Option<u64> {
        self.config.page_request_timeout_ns.map(|timeout| now_ns.saturating_add(timeout))
    }

    fn claim(&self, miss: PageMiss, waiter: Waiter, place: u64, deadline_ns: Option<u64>) -> (Claim, Ask) {
        let Faults { requests, events, .. } = self.faults;
        if miss.space.pasid().is_some() {
            (requests.claim(&self.memory.fabric.endpoint, miss, waiter, place, deadline_ns), Ask::Request)
        } else {
            let (claim, token) = events.claim(miss, waiter, place, deadline_ns);
            (claim, Ask::Event { token })
        }
    }

    fn send(&mut self, ask: Ask, asked: &Asked, ahead: &Ahead) -> Vec<Wakeup> {
        match ask {
            Ask::Request => {
                self.send_request(asked);
                Vec::new()
            }
            Ask::Event { token } => self.send_event(asked, token, ahead),
        }
    }

    fn prefetch(&mut self, miss: PageMiss, at: u32, deadline_ns: Option<u64>) {
        let endpoint = &self.memory.fabric.endpoint;
        let Some(group) = self.faults.requests.prefetch(endpoint, miss, deadline_ns, None) else { return };
        self.record_new_miss(miss);
        self.send_request(&Asked { group, miss, at, deadline_ns });
    }

    /// The page could not be asked for: waits for a credit.
    fn wait_for_credit(&mut self, ticket: u64, queued: Queued, deadline_ns: Option<u64>) {
        let trouble = &mut self.requester.trouble;
        trouble.asked = trouble.asked.saturating_sub(1);
        trouble.queued = Some(queued);
        self.requester.wait = Wait::Credit { ticket, place: queued.place, deadline_ns };
        if let Some(deadline_ns) = deadline_ns {
            self.workers.wake_at(self.requester.setup.qpn, deadline_ns);
        }
    }

    /// Records the miss, once for each fault. It was recorded before if this request prefetched the page, or had to
    /// wait for a credit.
    fn record_miss(&mut self, miss: PageMiss, claim: Claim) {
        let queued = self.requester.trouble.queued.take();
        let faulted = &self.requester.faulted;
        let own = |group| faulted.iter().any(|fault| fault.group == group && fault.miss == miss);
        let recorded = queued.is_some_and(|queued| queued.miss == miss)
            || matches!(claim, Claim::Joined(group) if own(group));
        if !recorded {
            self.record_new_miss(miss);
        }
    }

    fn record_new_miss(&mut self, miss: PageMiss) {
        record(&self.memory.fabric, Stage::Miss, None, miss, self.requester.setup.qpn);
        self.requester.sampling.count_fault();
    }

    /// Counts the requests for pages since the last byte was moved: source and destination may evict one another.
    /// `true` if the requester must wait before it asks again.
    fn back_off(&mut self, end: End, now_ns: u64) -> Result<bool, Cause> {
        let trouble = &mut self.requester.trouble;
        trouble.end = end;
        if trouble.asked > self.config.page_retry_limit {
            return Err(Cause::PageRetries);
        }
        if trouble.asked >= PROMPT && !trouble.backed_off {
            trouble.backed_off = true;
            let doublings = (trouble.asked - PROMPT).min(20);
            let delay = (BACK_OFF_NS.0 << doublings).min(BACK_OFF_NS.1);
            let deadline_ns = now_ns.saturating_add(delay);
            self.requester.wait = Wait::Until { deadline_ns };
            self.workers.wake_at(self.requester.setup.qpn, deadline_ns);
            return Ok(true);
        }
        trouble.asked += 1;
        trouble.backed_off = false;
        Ok(false)
    }

    fn send_request(&mut self, asked: &Asked) {
        let &Asked { group, miss, .. } = asked;
        let PageMiss { space, page, write } = miss;
        self.note_asked(asked);
        self.memory.fabric.agent.page_request(PageRequest {
            requester: self.memory.fabric.bdf,
            pasid: space.pasid(),
            page,
            read: true,
            write,
            last: true,
            group,
        });
    }

    /// Sends the event of a page fault. Returns waiters to wake.
    fn send_event(&mut self, asked: &Asked, token: u32, ahead: &Ahead) -> Vec<Wakeup> {
        let AddressSpace::Region(key) = asked.miss.space else { return Vec::new() };
        self.note_asked(asked);
        let Some(eqn) = self.memory.regions.fault_queue(key) else {
            // The region went while no guard was held: its destruction may not have seen this fault.
            return self.faults.forget_region(key);
        };
        let fault = PageFault {
            key,
            address: asked.miss.page.0,
            length: ahead.bytes.max(1),
            write: asked.miss.write,
            token,
        };
        self.events.raise(&mut self.memory.port(self.worker), eqn, Event::PageFault(fault));
        Vec::new()
    }

    fn note_asked(&mut self, asked: &Asked) {
        let &Asked { group, miss, at, deadline_ns } = asked;
        note_fault(self.requester, group, miss, at);
        if let Some(deadline_ns) = deadline_ns {
            self.workers.timers(self.worker, |timers| timers.watch_page_requests(deadline_ns));
        }
        record(&self.memory.fabric, Stage::PageRequest, Some(group), miss, self.requester.setup.qpn);
    }
}

/// The active request has moved bytes: its faults before them are over.
pub(crate) fn note_progress(fabric: &Fabric, requester: &mut Requester) {
    requester.trouble = PageTrouble::default();
    let (Some(message), qpn) = (&requester.active, requester.setup.qpn) else { return };
    let done = message.done;
    requester.faulted.retain(|fault| {
        if fault.at < done {
            record(fabric, Stage::Copied, Some(fault.group), fault.miss, qpn);
        }
        fault.at >= done
    });
}

/// The active request is over, and so are its faults.
#[inline]
pub(crate) fn settle(fabric: &Fabric, requester: &mut Requester, success: bool) {
    // Most requests have none.
    if requester.faulted.is_empty() && requester.faulted.capacity() <= KEPT_FAULTED {
        return;
    }
    let stage = if success { Stage::Copied } else { Stage::Failed };
    let qpn = requester.setup.qpn;
    requester.faulted.drain(..).for_each(|fault| record(fabric, stage, Some(fault.group), fault.miss, qpn));
    requester.faulted.shrink_to(KEPT_FAULTED);
}

fn record(fabric: &Fabric, stage: Stage, group: Option<PrgIndex>, miss: PageMiss, qpn: u32) {
    let event = ProbeEvent::new(stage, miss.space, miss.page);
    fabric.record(ProbeEvent { group, write: miss.write, qpn, ..event });
}

fn note_fault(requester: &mut Requester, group: PrgIndex, miss: PageMiss, at: u32) {
    let known = requester.faulted.iter().any(|fault| fault.group == group && fault.miss.page == miss.page);
    if !known && requester.faulted.len() < MAX_FAULTED {
        requester.faulted.push(Faulted { group, miss, at });
    }
}
