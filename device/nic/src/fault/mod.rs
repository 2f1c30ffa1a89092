//! Page faults: pages that were asked for, and their waiters.
//!
//! For a page of a process, a page request goes to the IOMMU; for a page of an on-demand region, an event goes to the
//! driver. [`Faults`] owns both, so that an operation on all waiters cannot miss one kind.

pub(crate) mod ahead;
pub(crate) mod ask;
mod credits;
mod events;
mod requests;
pub(crate) mod send;
mod waits;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use refault_bus::Pasid;
use refault_bus::pri::PageGroupResponse;
use refault_bus::sync::lock;
use refault_pci::Endpoint;

use crate::config::NicConfig;
use crate::qp::answer::{PageAnswer, Place, Wakeup};
use crate::stats::NicStats;
use events::PageFaults;
use requests::PageRequests;
pub(crate) use waits::Closed;

/// All page faults of the device.
pub(crate) struct Faults {
    requests: PageRequests,
    events: PageFaults,
    /// One for each worker, held while it asks for a page.
    asking: Box<[Mutex<()>]>,
    /// Next ticket of a wait. Zero is none.
    tickets: AtomicU64,
}

impl Faults {
    /// Nothing outstanding.
    pub(crate) fn new(config: &NicConfig) -> Self {
        Self {
            requests: PageRequests::new(config.page_request_credits, config.credit_quota),
            events: PageFaults::new(config.page_fault_credits, config.credit_quota),
            asking: (0..config.workers).map(|_| Mutex::default()).collect(),
            tickets: AtomicU64::new(1),
        }
    }

    /// A ticket that no wait had before.
    pub(crate) fn ticket(&self) -> u64 {
        self.tickets.fetch_add(1, Ordering::Relaxed)
    }

    /// Limits page requests to as many as the operating system allows.
    pub(crate) fn set_allocation(&self, allocation: u32) {
        self.requests.set_allocation(allocation);
    }

    /// Whether the operating system owes an answer to a page request of `pasid`.
    pub(crate) fn awaits_answer(&self, pasid: Pasid) -> bool {
        self.requests.awaits_answer(pasid)
    }

    /// Calls off the page faults of a context, and the page requests of its process, that a worker is about to ask for.
    /// When this returns, none is in flight. The caller has made sure that no more are claimed. The waiters retry.
    pub(crate) fn call_off(&self, endpoint: &Endpoint, context: u32, pasid: Option<Pasid>) -> Vec<Wakeup> {
        let mut wakeups = self.events.call_off(context);
        if pasid.is_some() {
            wakeups.extend(self.requests.call_off(endpoint, pasid));
        }
        self.pass_askers();
        wakeups
    }

    /// Calls off all page requests that a worker is about to send, likewise.
    pub(crate) fn call_off_requests(&self, endpoint: &Endpoint) -> Vec<Wakeup> {
        let wakeups = self.requests.call_off(endpoint, None);
        self.pass_askers();
        wakeups
    }

    /// Waits until no worker is asking for a page that it began to ask for before.
    fn pass_askers(&self) {
        self.asking.iter().for_each(|worker| drop(lock(worker)));
    }

    /// Held while `worker` asks for a page.
    fn asking(&self, worker: usize) -> MutexGuard<'_, ()> {
        lock(&self.asking[worker])
    }

    /// Closes the page request that a response answers; `None` if there is none.
    pub(crate) fn answer_request(&self, endpoint: &Endpoint, response: &PageGroupResponse) -> Option<Closed> {
        self.requests.answer(endpoint, response)
    }

    /// Closes the page fault that a token names; `None` if it names none.
    pub(crate) fn answer_event(&self, token: u32, answer: PageAnswer) -> Option<Closed> {
        self.events.answer(token, answer)
    }

    /// Gives up what is overdue. Also returns the next deadline.
    pub(crate) fn expire(&self, now_ns: u64) -> (Vec<Closed>, Option<u64>) {
        let (mut closed, next_request) = self.requests.expire(now_ns);
        let (events, next_event) = self.events.expire(now_ns);
        closed.extend(events);
        (closed, next_request.into_iter().chain(next_event).min())
    }

    /// Takes a waiter out of the queues for credits; `false` if it is in neither.
    pub(crate) fn leave_queue(&self, place: Place) -> bool {
        self.requests.leave_queue(place) || self.events.leave_queue(place)
    }

    /// For each kind that has a free credit, wakes the next waiter for one.
    pub(crate) fn next_waiters(&self) -> impl Iterator<Item = Wakeup> {
        self.requests.next_waiter().into_iter().chain(self.events.next_waiter())
    }

    /// Forgets the faults of a region that is gone or revoked: the waiters retry, and fail.
    pub(crate) fn forget_region(&self, key: u32) -> Vec<Wakeup> {
        self.events.forget(key)
    }

    /// Forgets all page requests (PRI reset). All waiters retry; late responses are unexpected.
    pub(crate) fn reset_requests(&self) -> Vec<Wakeup> {
        self.requests.reset()
    }

    /// Forgets all page faults of on-demand regions. Their waiters are gone already.
    pub(crate) fn reset_events(&self) {
        self.events.reset();
    }

    /// Adds both kinds' counters.
    pub(crate) fn add_stats(&self, stats: &mut NicStats) {
        let (requests, events) = (self.requests.stats(), self.events.stats());
        stats.page_requests = requests.asked - requests.called_off;
        stats.page_waits_joined = requests.joined + events.joined;
        stats.page_responses = requests.answers;
        stats.page_responses_unexpected = requests.unexpected;
        stats.page_timeouts = requests.timeouts;
        stats.page_faults = events.asked - events.called_off;
        stats.page_fault_answers = events.answers;
        stats.page_fault_answers_unexpected = events.unexpected;
        stats.page_fault_timeouts = events.timeouts;
        stats.page_credit_waits = requests.credit_waits + events.credit_waits;
        stats.page_quota_waits = requests.quota_waits + events.quota_waits;
        stats.page_requests_called_off = requests.called_off + events.called_off;
    }
}
