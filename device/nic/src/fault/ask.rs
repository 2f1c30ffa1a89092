//! Claiming the pages of a request, and parking it. They are asked for when the guard is left: [`super::send`].

use refault_bus::PrgIndex;
use refault_bus::probe::{ProbeEvent, Stage};

use crate::cause::Cause;
use crate::config::NicConfig;
use crate::fabric::Fabric;
use crate::fault::Faults;
use crate::fault::waits::Claim;
use crate::memory::access::PageMiss;
use crate::memory::resolve::Ahead;
use crate::observe::Sampling;
use crate::qp::answer::{Half, Place, Waiter};
use crate::qp::stall::{Faulted, PageTrouble, Queued, Stall, Wait};
use crate::schedule::Workers;
use crate::verbs::End;

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
pub(crate) enum Means {
    /// By a page request to the IOMMU.
    Request,
    /// By an event to the driver, which answers with this token; bytes from the missing one on that are needed.
    Event { token: u32, bytes: u32 },
}

/// A claimed page that must be asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    pub(crate) means: Means,
    pub(crate) group: PrgIndex,
    pub(crate) miss: PageMiss,
    /// The queue pair that needs it.
    pub(crate) qpn: u32,
    /// The miss was not recorded before.
    pub(crate) is_new: bool,
}

/// Claims pages on behalf of a half of a queue pair.
///
/// The half is locked, and the guard under which the page was found missing is still held. So a command that forbids
/// further requests, and then passes the guards, finds every earlier one already claimed.
pub(crate) struct Asker<'a> {
    pub(crate) faults: &'a Faults,
    pub(crate) config: &'a NicConfig,
    pub(crate) fabric: &'a Fabric,
    pub(crate) workers: &'a Workers,
    pub(crate) worker: usize,
    pub(crate) qpn: u32,
    pub(crate) half: Half,
    /// Bytes of its message that are moved.
    pub(crate) done: u32,
    pub(crate) stall: &'a mut Stall,
    pub(crate) sampling: &'a mut Sampling,
}

impl Asker<'_> {
    /// Claims the page that is missing, and those ahead, and parks the half. Returns what must be asked for.
    ///
    /// # Errors
    ///
    /// The page will not come: the request fails with this cause.
    pub(crate) fn claim(mut self, end: End, miss: PageMiss, ahead: Ahead) -> Result<Vec<Ask>, Cause> {
        self.check_interface(miss)?;
        let now_ns = self.fabric.now_ns();
        if self.back_off(end, now_ns)? {
            return Ok(Vec::new());
        }
        let ticket = self.faults.ticket();
        let deadline_ns = self.deadline(now_ns);
        // Parked before the page is asked for: the answer may be there before the call returns.
        self.stall.wait = Wait::Page { ticket };
        let waiter = Waiter { qpn: self.qpn, half: self.half, ticket };
        let before = self.stall.trouble.queued.take();
        let before = before.filter(|queued| queued.miss == miss);
        let place = before.map_or(Place { owner: miss.owner, since: ticket }, |queued| queued.place);
        let (claim, means) = self.claim_page(miss, waiter, place, deadline_ns, ahead.bytes);
        let is_new = before.is_none() && self.is_new(miss, claim);
        if is_new {
            self.sampling.count_fault();
        }
        let at = self.done;
        let mut asks = Vec::new();
        match claim {
            Claim::New(group) => {
                self.note_claimed(group, miss, at, deadline_ns);
                asks.push(Ask { means, group, miss, qpn: waiter.qpn, is_new });
            }
            Claim::Joined(group) => {
                self.record_miss(miss, is_new);
                note_fault(self.stall, group, miss, at);
            }
            Claim::NoCredit => {
                self.record_miss(miss, is_new);
                self.wait_for_credit(ticket, Queued { miss, place }, deadline_ns);
                return Ok(asks);
            }
        }
        for (miss, at) in ahead.pages {
            asks.extend(self.prefetch(miss, at, deadline_ns));
        }
        Ok(asks)
    }

    /// Claims a page of a datagram's receiver, on the receiver's behalf, and parks neither end. If credits are short, it
    /// claims nothing: the next datagram tries again. Returns what must be asked for.
    ///
    /// # Errors
    ///
    /// The page will not come: the receive request fails with this cause.
    pub(crate) fn claim_for_receiver(
        mut self,
        miss: PageMiss,
        receiver: Waiter,
    ) -> Result<Option<Ask>, Cause> {
        self.check_interface(miss)?;
        let deadline_ns = self.deadline(self.fabric.now_ns());
        let found = self.prefetch_any(miss, deadline_ns, Some(receiver), 1);
        Ok(found.map(|(group, means)| self.new_ask(means, group, miss, 0, deadline_ns)))
    }

    /// Claims a page that its message will need from byte `at` on, and others behind it, and parks nothing. If credits are
    /// short, it claims fewer or none: the request itself asks when it gets there. Returns what must be asked for.
    pub(crate) fn claim_in_advance(mut self, miss: PageMiss, at: u32, ahead: Ahead) -> Vec<Ask> {
        if self.check_interface(miss).is_err() {
            return Vec::new();
        }
        let deadline_ns = self.deadline(self.fabric.now_ns());
        let found = self.prefetch_any(miss, deadline_ns, None, ahead.bytes.max(1));
        let first = found.map(|(group, means)| self.new_ask(means, group, miss, at, deadline_ns));
        let mut asks = Vec::from_iter(first);
        for (miss, at) in ahead.pages {
            asks.extend(self.prefetch(miss, at, deadline_ns));
        }
        asks
    }

    /// Claims a page of either kind, if credits are plentiful. An event is about so many bytes.
    fn prefetch_any(
        &self,
        miss: PageMiss,
        deadline_ns: Option<u64>,
        asker: Option<Waiter>,
        bytes: u32,
    ) -> Option<(PrgIndex, Means)> {
        let Faults { requests, events, .. } = self.faults;
        if miss.space.pasid().is_some() {
            let group = requests.prefetch(&self.fabric.endpoint, miss, deadline_ns, asker)?;
            return Some((group, Means::Request));
        }
        let (group, token) = events.prefetch(miss, deadline_ns, asker)?;
        Some((group, Means::Event { token, bytes }))
    }

    /// Whether the page can be asked for at all.
    fn check_interface(&self, miss: PageMiss) -> Result<(), Cause> {
        let endpoint = &self.fabric.endpoint;
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

    fn claim_page(
        &self,
        miss: PageMiss,
        waiter: Waiter,
        place: Place,
        deadline_ns: Option<u64>,
        bytes: u32,
    ) -> (Claim, Means) {
        let Faults { requests, events, .. } = self.faults;
        if miss.space.pasid().is_some() {
            (requests.claim(&self.fabric.endpoint, miss, waiter, place, deadline_ns), Means::Request)
        } else {
            let (claim, token) = events.claim(miss, waiter, place, deadline_ns);
            (claim, Means::Event { token, bytes: bytes.max(1) })
        }
    }

    fn prefetch(&mut self, miss: PageMiss, at: u32, deadline_ns: Option<u64>) -> Option<Ask> {
        let group = self.faults.requests.prefetch(&self.fabric.endpoint, miss, deadline_ns, None)?;
        Some(self.new_ask(Means::Request, group, miss, at, deadline_ns))
    }

    /// A claimed page whose miss was not recorded before.
    fn new_ask(
        &mut self,
        means: Means,
        group: PrgIndex,
        miss: PageMiss,
        at: u32,
        deadline_ns: Option<u64>,
    ) -> Ask {
        self.sampling.count_fault();
        self.note_claimed(group, miss, at, deadline_ns);
        Ask { means, group, miss, qpn: self.qpn, is_new: true }
    }

    /// The page could not be claimed: waits for a credit.
    fn wait_for_credit(&mut self, ticket: u64, queued: Queued, deadline_ns: Option<u64>) {
        let trouble = &mut self.stall.trouble;
        trouble.asked = trouble.asked.saturating_sub(1);
        trouble.queued = Some(queued);
        self.stall.wait = Wait::Credit { ticket, place: queued.place, deadline_ns };
        if let Some(deadline_ns) = deadline_ns {
            self.workers.wake_at(self.qpn, deadline_ns);
        }
    }

    /// Whether a fault is to be recorded: it was not if this request has prefetched the page.
    fn is_new(&self, miss: PageMiss, claim: Claim) -> bool {
        let faulted = &self.stall.faulted;
        let own = |group| faulted.iter().any(|fault| fault.group == group && fault.miss == miss);
        !matches!(claim, Claim::Joined(group) if own(group))
    }

    fn record_miss(&self, miss: PageMiss, is_new: bool) {
        if is_new {
            record(self.fabric, Stage::Miss, None, miss, self.qpn);
        }
    }

    /// Counts the requests for pages since the last byte was moved: source and destination may evict one another.
    /// `true` if the requester must wait before it asks again.
    fn back_off(&mut self, end: End, now_ns: u64) -> Result<bool, Cause> {
        let trouble = &mut self.stall.trouble;
        trouble.end = end;
        if trouble.asked > self.config.page_retry_limit {
            return Err(Cause::PageRetries);
        }
        if trouble.asked >= PROMPT && !trouble.backed_off {
            trouble.backed_off = true;
            let doublings = (trouble.asked - PROMPT).min(20);
            let delay = (BACK_OFF_NS.0 << doublings).min(BACK_OFF_NS.1);
            let deadline_ns = now_ns.saturating_add(delay);
            self.stall.wait = Wait::Until { deadline_ns };
            self.workers.wake_at(self.qpn, deadline_ns);
            return Ok(true);
        }
        trouble.asked += 1;
        trouble.backed_off = false;
        Ok(false)
    }

    fn note_claimed(&mut self, group: PrgIndex, miss: PageMiss, at: u32, deadline_ns: Option<u64>) {
        note_fault(self.stall, group, miss, at);
        if let Some(deadline_ns) = deadline_ns {
            self.workers.timers(self.worker, |timers| timers.watch_page_requests(deadline_ns));
        }
    }
}

/// The request has moved `done` bytes: its faults before them are over.
pub(crate) fn note_progress(fabric: &Fabric, stall: &mut Stall, qpn: u32, done: u32) {
    stall.trouble = PageTrouble::default();
    stall.faulted.retain(|fault| {
        if fault.at < done {
            record(fabric, Stage::Copied, Some(fault.group), fault.miss, qpn);
        }
        fault.at >= done
    });
}

/// The request is over, and so are its faults.
#[inline]
pub(crate) fn settle(fabric: &Fabric, stall: &mut Stall, qpn: u32, success: bool) {
    // Most requests have none.
    if stall.faulted.is_empty() && stall.faulted.capacity() <= KEPT_FAULTED {
        return;
    }
    let stage = if success { Stage::Copied } else { Stage::Failed };
    stall.faulted.drain(..).for_each(|fault| record(fabric, stage, Some(fault.group), fault.miss, qpn));
    stall.faulted.shrink_to(KEPT_FAULTED);
}

/// Records a stage of a fault.
pub(super) fn record(fabric: &Fabric, stage: Stage, group: Option<PrgIndex>, miss: PageMiss, qpn: u32) {
    let event = ProbeEvent::new(stage, miss.space, miss.page);
    fabric.record(ProbeEvent { group, write: miss.write, qpn, ..event });
}

fn note_fault(stall: &mut Stall, group: PrgIndex, miss: PageMiss, at: u32) {
    let known = stall.faulted.iter().any(|fault| fault.group == group && fault.miss.page == miss.page);
    if !known && stall.faulted.len() < MAX_FAULTED {
        stall.faulted.push(Faulted { group, miss, at });
    }
}
