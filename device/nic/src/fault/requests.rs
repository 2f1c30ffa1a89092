//! Page requests: what was asked for through the Page Request Interface.
//!
//! One page is one group with an index of its own, because kernels differ in what they answer to longer groups.
//! The lock is a leaf.

use std::sync::{Mutex, MutexGuard};

use refault_bus::pri::{PageGroupResponse, ResponseCode};
use refault_bus::{AddressSpace, Pasid, PrgIndex};
use refault_pci::Endpoint;

use crate::cause::Cause;
use crate::fault::waits::{Closed, Outstanding, Told, WaitStats, Waiter, Wanted};
use crate::memory::guard::lock;
use crate::memory::port::PageMiss;
use crate::qp::answer::PageAnswer;

/// The page-request unit.
pub(crate) struct PageRequests {
    outstanding: Mutex<Outstanding>,
    capacity: u32,
}

impl PageRequests {
    /// A unit with at most `capacity` requests outstanding.
    pub(crate) fn new(capacity: u32) -> Self {
        Self { outstanding: Mutex::new(Outstanding::new(capacity)), capacity }
    }

    /// Notes how many requests the operating system allows.
    pub(crate) fn set_allocation(&self, allocation: u32) {
        self.lock().credits = allocation.clamp(1, self.capacity);
    }

    /// Whether the operating system owes an answer to a request of `pasid`.
    pub(crate) fn awaits_answer(&self, pasid: Pasid) -> bool {
        self.lock().awaits(|miss| miss.space == AddressSpace::Process(pasid))
    }

    /// `waiter` wants a page.
    pub(crate) fn want(
        &self,
        endpoint: &Endpoint,
        miss: PageMiss,
        waiter: Waiter,
        deadline_ns: Option<u64>,
    ) -> Wanted {
        self.telling(endpoint, |outstanding| outstanding.want(miss, waiter, deadline_ns))
    }

    /// A page that will be wanted soon: to be asked for if it costs nobody a credit, and nobody waits.
    pub(crate) fn foresee(
        &self,
        endpoint: &Endpoint,
        miss: PageMiss,
        deadline_ns: Option<u64>,
    ) -> Option<PrgIndex> {
        self.telling(endpoint, |outstanding| outstanding.foresee(miss, deadline_ns))
    }

    /// The operating system's answer; `None` if it answers nothing. A group is matched by index and PASID.
    pub(crate) fn answer(&self, endpoint: &Endpoint, response: &PageGroupResponse) -> Option<Closed> {
        let answer = match response.code {
            ResponseCode::Success => PageAnswer::LookAgain,
            ResponseCode::InvalidRequest => PageAnswer::Failed(Cause::PageRefused),
            ResponseCode::ResponseFailure => PageAnswer::Failed(Cause::PageFailure),
        };
        let fits = |miss: &PageMiss| miss.space.pasid() == response.pasid;
        self.telling(endpoint, |outstanding| outstanding.answer(response.group, answer, fits))
    }

    /// Gives up the groups whose time is over. Also says when the next one's is.
    pub(crate) fn expire(&self, now_ns: u64) -> (Vec<Closed>, Option<u64>) {
        self.lock().expire(now_ns)
    }

    /// Takes a waiter out of the queue for credits; `false` if it is not there (any more).
    pub(crate) fn leave_queue(&self, ticket: u64) -> bool {
        self.lock().leave_queue(ticket)
    }

    /// The next in the queue for credits, if there is one to give.
    pub(crate) fn pass_on(&self) -> Option<Told> {
        self.lock().pass_on()
    }

    /// Forgets every group and credit; who waited is to look again.
    pub(crate) fn reset(&self) -> Vec<Told> {
        self.lock().reset()
    }

    pub(crate) fn stats(&self) -> WaitStats {
        self.lock().stats
    }

    fn lock(&self) -> MutexGuard<'_, Outstanding> {
        lock(&self.outstanding)
    }

    /// Does something that may change whether answers are owed: PRI status *stopped* says so.
    fn telling<R>(&self, endpoint: &Endpoint, work: impl FnOnce(&mut Outstanding) -> R) -> R {
        let mut outstanding = self.lock();
        let before = outstanding.is_busy();
        let result = work(&mut outstanding);
        if outstanding.is_busy() != before {
            endpoint.set_pri_busy(!before);
        }
        result
    }
}
