//! Page requests: what was asked for through the Page Request Interface (PCIe 6.0, 10.4).
//!
//! Each page is a group of its own, because kernels differ in how they respond to longer groups.
//! The lock is a leaf.

use std::sync::{Mutex, MutexGuard};

use refault_bus::pri::{PageGroupResponse, ResponseCode};
use refault_bus::sync::lock;
use refault_bus::{AddressSpace, Pasid, PrgIndex};
use refault_pci::Endpoint;

use crate::cause::Cause;
use crate::fault::waits::{Claim, Closed, Outstanding, WaitStats};
use crate::memory::access::PageMiss;
use crate::qp::answer::{PageAnswer, Place, Waiter, Wakeup};

/// The page-request unit.
pub(crate) struct PageRequests {
    outstanding: Mutex<Outstanding>,
    capacity: u32,
}

impl PageRequests {
    /// A unit with at most `capacity` requests outstanding, shared among processes if there is a `quota`.
    pub(super) fn new(capacity: u32, quota: bool) -> Self {
        Self { outstanding: Mutex::new(Outstanding::new(capacity, quota)), capacity }
    }

    /// Notes how many requests the operating system allows.
    pub(super) fn set_allocation(&self, allocation: u32) {
        self.lock().set_credits(allocation.clamp(1, self.capacity));
    }

    /// Whether the operating system owes an answer to a request of `pasid`.
    pub(super) fn awaits_answer(&self, pasid: Pasid) -> bool {
        self.lock().awaits(|miss| miss.space == AddressSpace::Process(pasid))
    }

    /// Claims a page for `waiter`, or a place among those that wait for a credit.
    pub(super) fn claim(
        &self,
        endpoint: &Endpoint,
        miss: PageMiss,
        waiter: Waiter,
        place: Place,
        deadline_ns: Option<u64>,
    ) -> Claim {
        self.tracking_busy(endpoint, |outstanding| outstanding.claim(miss, waiter, place, deadline_ns))
    }

    /// Notes that the page of a claimed group is asked for now; `false` if that was called off.
    pub(super) fn ask(&self, group: PrgIndex) -> bool {
        self.lock().ask(group)
    }

    /// Calls off the requests that are still to be sent, of `pasid` or of all. Their waiters retry.
    pub(super) fn call_off(&self, endpoint: &Endpoint, pasid: Option<Pasid>) -> Vec<Wakeup> {
        let like = |miss: &PageMiss| pasid.is_none_or(|pasid| miss.space == AddressSpace::Process(pasid));
        self.tracking_busy(endpoint, |outstanding| outstanding.call_off(like))
    }

    /// Claims a page that will be needed soon, if credits are plentiful and no waiter needs one, for `asker` if it
    /// wants the answer.
    pub(super) fn prefetch(
        &self,
        endpoint: &Endpoint,
        miss: PageMiss,
        deadline_ns: Option<u64>,
        asker: Option<Waiter>,
    ) -> Option<PrgIndex> {
        self.tracking_busy(endpoint, |outstanding| outstanding.prefetch(miss, deadline_ns, asker))
    }

    /// Closes the group that a response names, by index and PASID; `None` if it names none.
    pub(super) fn answer(&self, endpoint: &Endpoint, response: &PageGroupResponse) -> Option<Closed> {
        let answer = match response.code {
            ResponseCode::Success => PageAnswer::Retry,
            ResponseCode::InvalidRequest => PageAnswer::Failed(Cause::PageRefused),
            ResponseCode::ResponseFailure => PageAnswer::Failed(Cause::PageFailure),
        };
        let fits = |miss: &PageMiss| miss.space.pasid() == response.pasid;
        self.tracking_busy(endpoint, |outstanding| outstanding.answer(response.group, answer, fits))
    }

    /// Gives up the groups whose deadline has passed. Also returns the next deadline.
    pub(super) fn expire(&self, now_ns: u64) -> (Vec<Closed>, Option<u64>) {
        self.lock().expire(now_ns)
    }

    /// Takes a waiter out of the queue for credits; `false` if it is not there.
    pub(super) fn leave_queue(&self, place: Place) -> bool {
        self.lock().leave_queue(place)
    }

    /// Wakes the next waiter for a credit, if there is a credit.
    pub(super) fn next_waiter(&self) -> Option<Wakeup> {
        self.lock().next_waiter()
    }

    /// Forgets every group and credit. All waiters retry.
    pub(super) fn reset(&self) -> Vec<Wakeup> {
        self.lock().reset()
    }

    pub(super) fn stats(&self) -> WaitStats {
        self.lock().stats
    }

    fn lock(&self) -> MutexGuard<'_, Outstanding> {
        lock(&self.outstanding)
    }

    /// Does `work`, which may change whether answers are outstanding, and keeps PRI status *stopped* up to date.
    fn tracking_busy<R>(&self, endpoint: &Endpoint, work: impl FnOnce(&mut Outstanding) -> R) -> R {
        let mut outstanding = self.lock();
        let before = outstanding.is_busy();
        let result = work(&mut outstanding);
        if outstanding.is_busy() != before {
            endpoint.set_pri_busy(!before);
        }
        result
    }
}
