//! The page-request unit: credits, group indices, who waits for which page.
//!
//! One page is one group with an index of its own, because kernels differ in what they answer to longer
//! groups. An index is free again when its answer came, never when the device lost patience: an answer may
//! still be under way, and must not be taken for another group's. Indices are given out in turn, so that
//! answers to what a reset forgot find no group either.
//!
//! The unit's lock is a leaf. It is never held while the IOMMU is called: an answer may come from inside.

use std::collections::VecDeque;
use std::sync::Mutex;

use refault_bus::pri::{PageGroupResponse, ResponseCode};
use refault_bus::{Pasid, PrgIndex};
use refault_pci::Endpoint;
use rustc_hash::FxHashMap;

use crate::cause::Cause;
use crate::dma::PageMiss;
use crate::guard::lock;
use crate::qp::PageAnswer;
use crate::queue::completion::slot_of;

/// Somebody who waits: the queue pair, and the ticket its answer must bear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waiter {
    pub(crate) qpn: u32,
    pub(crate) ticket: u64,
}

/// What came of wanting a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// A new group: its request must be sent now.
    New(PrgIndex),
    /// The page is asked for already.
    Joined(PrgIndex),
    /// No credit, or no index: the waiter is told when there is one again.
    NoCredit,
}

/// An answer for a waiter.
pub(crate) type Told = (Waiter, PageAnswer);

/// What became of a group.
#[derive(Debug)]
pub(crate) struct Closed {
    pub(crate) group: PrgIndex,
    pub(crate) miss: PageMiss,
    pub(crate) told: Vec<Told>,
}

/// One group index.
#[derive(Debug, Default)]
enum Group {
    #[default]
    Free,
    /// Asked, not answered.
    Open { miss: PageMiss, deadline_ns: u64, waiters: Vec<Waiter> },
    /// Given up; the answer may still come.
    Quarantined { miss: PageMiss },
}

/// Counts of the unit.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PageRequestStats {
    pub(crate) requests: u64,
    pub(crate) joined: u64,
    pub(crate) responses: u64,
    pub(crate) unexpected: u64,
    pub(crate) timeouts: u64,
}

struct State {
    groups: Box<[Group]>,
    /// Where the search for a free index goes on.
    next: usize,
    /// Open and quarantined groups: each holds a credit.
    outstanding: u32,
    /// Credits the operating system and the device agree on.
    credits: u32,
    by_page: FxHashMap<PageMiss, PrgIndex>,
    /// Who waits for a credit, in order.
    queue: VecDeque<Waiter>,
    stats: PageRequestStats,
}

/// The page-request unit.
pub(crate) struct PageRequests {
    state: Mutex<State>,
    capacity: u32,
}

impl PageRequests {
    /// A unit with at most `capacity` requests outstanding.
    pub(crate) fn new(capacity: u32) -> Self {
        let state = State {
            groups: (0..PrgIndex::COUNT).map(|_| Group::Free).collect(),
            next: 0,
            outstanding: 0,
            credits: capacity,
            by_page: FxHashMap::default(),
            queue: VecDeque::new(),
            stats: PageRequestStats::default(),
        };
        Self { state: Mutex::new(state), capacity }
    }

    /// Notes how many requests the operating system allows.
    pub(crate) fn set_allocation(&self, allocation: u32) {
        lock(&self.state).credits = allocation.clamp(1, self.capacity);
    }

    /// Whether the operating system owes an answer to a request of `pasid`.
    pub(crate) fn awaits_answer(&self, pasid: Pasid) -> bool {
        lock(&self.state).groups.iter().any(|group| match group {
            Group::Free => false,
            Group::Open { miss, .. } | Group::Quarantined { miss } => miss.pasid == pasid,
        })
    }

    /// `waiter` wants a page.
    pub(crate) fn want(
        &self,
        endpoint: &Endpoint,
        miss: PageMiss,
        waiter: Waiter,
        deadline_ns: u64,
    ) -> Wanted {
        let mut state = lock(&self.state);
        if let Some(&group) = state.by_page.get(&miss)
            && let Group::Open { waiters, .. } = &mut state.groups[usize::from(group.get())]
        {
            add(waiters, waiter);
            state.stats.joined += 1;
            return Wanted::Joined(group);
        }
        let index = if state.outstanding < state.credits { state.free_index() } else { None };
        let Some(index) = index else {
            state.queue.retain(|other| slot_of(other.qpn) != slot_of(waiter.qpn));
            state.queue.push_back(waiter);
            return Wanted::NoCredit;
        };
        Wanted::New(state.open(endpoint, index, miss, deadline_ns, vec![waiter]))
    }

    /// A page that will be wanted soon: asked for if it costs nobody a credit, and nobody waits.
    pub(crate) fn foresee(&self, endpoint: &Endpoint, miss: PageMiss, deadline_ns: u64) -> Option<PrgIndex> {
        let mut state = lock(&self.state);
        let spare = state.outstanding < state.credits / 2 && state.queue.is_empty();
        if !spare || state.by_page.contains_key(&miss) {
            return None;
        }
        let index = state.free_index()?;
        Some(state.open(endpoint, index, miss, deadline_ns, Vec::new()))
    }

    /// The operating system's answer; `None` if it answers nothing.
    pub(crate) fn answer(&self, endpoint: &Endpoint, response: &PageGroupResponse) -> Option<Closed> {
        let mut state = lock(&self.state);
        let slot = usize::from(response.group.get());
        let matches = match &state.groups[slot] {
            Group::Free => false,
            Group::Open { miss, .. } | Group::Quarantined { miss } => Some(miss.pasid) == response.pasid,
        };
        if !matches {
            state.stats.unexpected += 1;
            return None;
        }
        state.stats.responses += 1;
        let answer = match response.code {
            ResponseCode::Success => PageAnswer::LookAgain,
            ResponseCode::InvalidRequest => PageAnswer::Failed(Cause::PageRefused),
            ResponseCode::ResponseFailure => PageAnswer::Failed(Cause::PageFailure),
        };
        let closed = match std::mem::take(&mut state.groups[slot]) {
            Group::Open { miss, waiters, .. } => {
                state.by_page.remove(&miss);
                let told = waiters.into_iter().map(|waiter| (waiter, answer)).collect();
                Closed { group: response.group, miss, told }
            }
            Group::Quarantined { miss } => Closed { group: response.group, miss, told: Vec::new() },
            Group::Free => return None,
        };
        Some(state.credit_back(endpoint, closed))
    }

    /// Gives up the groups whose time is over. Also says when the next one's is.
    pub(crate) fn expire(&self, now_ns: u64) -> (Vec<Closed>, Option<u64>) {
        let mut state = lock(&self.state);
        let State { groups, by_page, stats, .. } = &mut *state;
        let (mut closed, mut next) = (Vec::new(), None);
        for (group, index) in groups.iter_mut().zip(0u64..) {
            let Group::Open { miss, deadline_ns, waiters } = group else { continue };
            if *deadline_ns > now_ns {
                next = Some(next.map_or(*deadline_ns, |next: u64| next.min(*deadline_ns)));
                continue;
            }
            let miss = *miss;
            let failed = PageAnswer::Failed(Cause::PageTimeout);
            let told = waiters.drain(..).map(|waiter| (waiter, failed)).collect();
            by_page.remove(&miss);
            stats.timeouts += 1;
            *group = Group::Quarantined { miss };
            closed.push(Closed { group: PrgIndex::truncated(index), miss, told });
        }
        (closed, next)
    }

    /// Takes a waiter out of the queue for credits; `false` if it is not there (any more).
    pub(crate) fn leave_queue(&self, ticket: u64) -> bool {
        let mut state = lock(&self.state);
        let before = state.queue.len();
        state.queue.retain(|waiter| waiter.ticket != ticket);
        state.queue.len() != before
    }

    /// The next in the queue for credits, if there is one to give.
    pub(crate) fn pass_on(&self) -> Option<Told> {
        let mut state = lock(&self.state);
        if state.outstanding >= state.credits {
            return None;
        }
        state.queue.pop_front().map(|waiter| (waiter, PageAnswer::LookAgain))
    }

    /// Forgets every group and credit; who waited is to look again.
    pub(crate) fn reset(&self) -> Vec<Told> {
        let mut state = lock(&self.state);
        let mut told: Vec<Told> =
            state.queue.drain(..).map(|waiter| (waiter, PageAnswer::LookAgain)).collect();
        for group in state.groups.iter_mut() {
            if let Group::Open { waiters, .. } = std::mem::take(group) {
                told.extend(waiters.into_iter().map(|waiter| (waiter, PageAnswer::LookAgain)));
            }
        }
        state.by_page.clear();
        state.outstanding = 0;
        told
    }

    pub(crate) fn stats(&self) -> PageRequestStats {
        lock(&self.state).stats
    }
}

/// Adds a waiter. A queue pair waits once: whatever its slot waited for before is over.
fn add(waiters: &mut Vec<Waiter>, waiter: Waiter) {
    match waiters.iter_mut().find(|other| slot_of(other.qpn) == slot_of(waiter.qpn)) {
        Some(before) => *before = waiter,
        None => waiters.push(waiter),
    }
}

impl State {
    /// The next free index in turn.
    fn free_index(&mut self) -> Option<usize> {
        let count = self.groups.len();
        let found = (self.next..self.next + count)
            .map(|index| index % count)
            .find(|&index| matches!(self.groups[index], Group::Free))?;
        self.next = found + 1;
        Some(found)
    }

    fn open(
        &mut self,
        endpoint: &Endpoint,
        index: usize,
        miss: PageMiss,
        deadline_ns: u64,
        waiters: Vec<Waiter>,
    ) -> PrgIndex {
        let group = PrgIndex::truncated(index as u64);
        self.groups[index] = Group::Open { miss, deadline_ns, waiters };
        self.by_page.insert(miss, group);
        self.outstanding += 1;
        self.stats.requests += 1;
        if self.outstanding == 1 {
            endpoint.set_pri_busy(true);
        }
        group
    }

    /// The group's credit is back: whoever waited longest for one may look again.
    fn credit_back(&mut self, endpoint: &Endpoint, mut closed: Closed) -> Closed {
        self.outstanding -= 1;
        if self.outstanding == 0 {
            endpoint.set_pri_busy(false);
        }
        closed.told.extend(self.queue.pop_front().map(|waiter| (waiter, PageAnswer::LookAgain)));
        closed
    }
}
