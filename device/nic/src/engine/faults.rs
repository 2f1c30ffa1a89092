//! Pages that are missing: asking for them, and waiting without being in anybody's way.

use std::sync::atomic::Ordering;

use refault_abi::codes::ACCESS_LOCAL_WRITE;
use refault_abi::event::{EVENT_PAGE_FAULT, FAULT_WRITE};
use refault_abi::queue::Sge;
use refault_bus::pri::PageRequest;
use refault_bus::probe::{ProbeEvent, Stage};
use refault_bus::{AddressSpace, PrgIndex};

use crate::Nic;
use crate::cause::Cause;
use crate::fault::waits::{Waiter, Wanted};
use crate::memory::guard::lock;
use crate::memory::list::End;
use crate::memory::list::{Ahead, List, Window};
use crate::memory::port::{PageMiss, Port};
use crate::memory::region::Backing;
use crate::qp::{Faulted, PageTrouble, Requester, Wait};
use crate::queue::event::Event;

/// Times a page is asked for without progress before the device waits between them.
const PROMPT: u32 = 4;
/// First and longest of these waits.
const BACK_OFF_NS: (u64, u64) = (10_000, 5_000_000);
/// Most pages one request remembers for its probes.
const MAX_FAULTED: usize = 256;
/// For how many it keeps the room when it is over: most have no more.
const KEPT_FAULTED: usize = 8;

/// A page to ask for, on whose behalf.
struct Asked {
    group: PrgIndex,
    miss: PageMiss,
    /// Byte of the message that is first on the page.
    at: u32,
    deadline_ns: Option<u64>,
}

impl Nic {
    /// What the active request wants behind the missing page.
    pub(super) fn pages_ahead(&self, port: &mut Port<'_>, requester: &Requester, end: End) -> Ahead {
        let count = self.config.fault_window - 1;
        let Some(message) = requester.active.as_ref() else { return Ahead::default() };
        let write = message.operation.writes(end);
        // Not those that were asked for already, again at every answer: the square of a wide message's pages.
        let asked = requester.faulted.iter().filter(|fault| fault.miss.write == write).map(|fault| fault.at);
        let window = Window { at: message.done, pages: count, asked: asked.max() };
        let local = List {
            pieces: message.sges(),
            pd: requester.setup.pd,
            rights: if write { ACCESS_LOCAL_WRITE } else { 0 },
            write,
            end,
        };
        if end == End::Local {
            return local.missing_behind(port, window);
        }
        // A datagram's few pages are asked for one by one.
        if requester.setup.is_datagram() {
            return Ahead::default();
        }
        let Some(peer) = self.qps.find(requester.attributes.dest_qpn()) else { return Ahead::default() };
        let responder = lock(&peer.responder);
        let wqe = &message.wqe;
        let piece = [Sge { addr: wqe.remote_addr, length: message.length, lkey: wqe.rkey }];
        let receive = responder.current.map(|current| (current.wqe.sge, current.pd));
        let (pieces, rights, pd) = match (message.remote_rights(), &receive) {
            (0, Some((sges, pd))) => (&sges[..], ACCESS_LOCAL_WRITE, *pd),
            (0, None) => return Ahead::default(),
            (rights, _) => (&piece[..], rights, responder.setup.pd),
        };
        List { pieces, pd, rights, write, end }.missing_behind(port, window)
    }

    /// Asks for the page that is missing, and for those ahead, and parks the requester. The caller holds the
    /// requester, but no guard: the IOMMU may answer from inside.
    pub(super) fn ask_for_pages(
        &self,
        worker: usize,
        requester: &mut Requester,
        end: End,
        miss: PageMiss,
        ahead: Ahead,
    ) -> Result<(), Cause> {
        let by_request = miss.space.pasid().is_some();
        if by_request && !self.fabric.endpoint.controls().pri() {
            return Err(Cause::Blocked);
        }
        if by_request && self.fabric.endpoint.pri_response_failure() {
            return Err(Cause::PageFailure);
        }
        let now_ns = self.fabric.now_ns();
        if self.back_off(requester, end, now_ns)? {
            return Ok(());
        }
        let qpn = requester.setup.qpn;
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        let deadline_ns = self.config.page_request_timeout_ns.map(|timeout| now_ns.saturating_add(timeout));
        let waiter = Waiter { qpn, ticket };
        let at = requester.active.as_ref().map_or(0, |message| message.done);
        // Parked before anybody is asked: the answer may be there before the call returns.
        requester.wait = Wait::Page { ticket };
        let (wanted, token) = match by_request {
            true => (self.pages.want(&self.fabric.endpoint, miss, waiter, deadline_ns), 0),
            false => self.faults.want(miss, waiter, deadline_ns),
        };
        self.tell_of_miss(requester, miss, wanted);
        match wanted {
            Wanted::New(group) => {
                let asked = Asked { group, miss, at, deadline_ns };
                match by_request {
                    true => self.send_page_request(worker, requester, &asked),
                    false => self.send_page_fault(worker, requester, &asked, token, &ahead),
                }
            }
            Wanted::Joined(group) => note_fault(requester, group, miss, at),
            Wanted::NoCredit => {
                // Nothing was asked for.
                requester.trouble.asked = requester.trouble.asked.saturating_sub(1);
                requester.trouble.noted = Some(miss);
                requester.wait = Wait::Credit { ticket, deadline_ns };
                if let Some(deadline_ns) = deadline_ns {
                    lock(&self.workers[worker].timers).qps.set(qpn, deadline_ns);
                }
                return Ok(());
            }
        }
        for (miss, at) in ahead.pages {
            let Some(group) = self.pages.foresee(&self.fabric.endpoint, miss, deadline_ns) else { continue };
            self.tell_of_new_miss(requester, miss);
            self.send_page_request(worker, requester, &Asked { group, miss, at, deadline_ns });
        }
        Ok(())
    }

    /// Tells the probe, once for each fault: a page foreseen by this very request was told of when it was, and one
    /// that had to wait for a credit too.
    fn tell_of_miss(&self, requester: &mut Requester, miss: PageMiss, wanted: Wanted) {
        let own = |group| requester.faulted.iter().any(|fault| fault.group == group && fault.miss == miss);
        let told =
            requester.trouble.noted == Some(miss) || matches!(wanted, Wanted::Joined(group) if own(group));
        if !told {
            self.tell_of_new_miss(requester, miss);
        }
        requester.trouble.noted = None;
    }

    fn tell_of_new_miss(&self, requester: &mut Requester, miss: PageMiss) {
        self.record(Stage::Miss, None, miss, requester.setup.qpn);
        requester.sampling.count_fault();
    }

    /// Counts how often pages were asked for without a byte moved since: source and destination may push one
    /// another out. `true` if the requester shall wait before it asks again.
    fn back_off(&self, requester: &mut Requester, end: End, now_ns: u64) -> Result<bool, Cause> {
        let trouble = &mut requester.trouble;
        trouble.end = end;
        if trouble.asked > self.config.page_retry_limit {
            return Err(Cause::PageRetries);
        }
        if trouble.asked >= PROMPT && !trouble.backed_off {
            trouble.backed_off = true;
            let doublings = (trouble.asked - PROMPT).min(20);
            let delay = (BACK_OFF_NS.0 << doublings).min(BACK_OFF_NS.1);
            self.wait_until(requester, now_ns.saturating_add(delay));
            return Ok(true);
        }
        trouble.asked += 1;
        trouble.backed_off = false;
        Ok(false)
    }

    fn send_page_request(&self, worker: usize, requester: &mut Requester, asked: &Asked) {
        let &Asked { group, miss, .. } = asked;
        let PageMiss { space, page, write } = miss;
        self.note_asked(worker, requester, asked);
        self.fabric.agent.page_request(PageRequest {
            requester: self.fabric.bdf,
            pasid: space.pasid(),
            page,
            read: true,
            write,
            last: true,
            group,
        });
    }

    /// Tells the driver of an on-demand region that a page of it is missing.
    fn send_page_fault(
        &self,
        worker: usize,
        requester: &mut Requester,
        asked: &Asked,
        token: u32,
        ahead: &Ahead,
    ) {
        let AddressSpace::Region(key) = asked.miss.space else { return };
        self.note_asked(worker, requester, asked);
        let backing = self.regions.find(key).filter(|region| !region.revoked).map(|region| region.backing);
        let Some(Backing::OnDemand { eqn, .. }) = backing else {
            // It went while nobody held the guard: whoever took it away may not have seen this fault.
            return self.tell_waiters(self.faults.forget(key));
        };
        let code = if asked.miss.write { FAULT_WRITE } else { 0 };
        let (address, length) = (asked.miss.page.0, ahead.bytes.max(1));
        let event = Event { kind: EVENT_PAGE_FAULT, code, number: key, address, length, token };
        self.events.raise(&mut self.port(worker), eqn, event);
    }

    fn note_asked(&self, worker: usize, requester: &mut Requester, asked: &Asked) {
        let &Asked { group, miss, at, deadline_ns } = asked;
        note_fault(requester, group, miss, at);
        if let Some(deadline_ns) = deadline_ns {
            lock(&self.workers[worker].timers).watch_page_requests(deadline_ns);
        }
        self.record(Stage::PageRequest, Some(group), miss, requester.setup.qpn);
    }

    /// Pages that were waited for and are now behind the request.
    pub(super) fn note_progress(&self, requester: &mut Requester) {
        requester.trouble = PageTrouble::default();
        let (Some(message), qpn) = (&requester.active, requester.setup.qpn) else { return };
        let done = message.done;
        requester.faulted.retain(|fault| {
            if fault.at < done {
                self.record(Stage::Copied, Some(fault.group), fault.miss, qpn);
            }
            fault.at >= done
        });
    }

    /// The request is over, well or not: so are its faults.
    pub(crate) fn settle_faults(&self, requester: &mut Requester, success: bool) {
        let stage = if success { Stage::Copied } else { Stage::Failed };
        let qpn = requester.setup.qpn;
        requester.faulted.drain(..).for_each(|fault| self.record(stage, Some(fault.group), fault.miss, qpn));
        requester.faulted.shrink_to(KEPT_FAULTED);
    }

    fn record(&self, stage: Stage, group: Option<PrgIndex>, miss: PageMiss, qpn: u32) {
        let event = ProbeEvent::new(stage, miss.space, miss.page);
        self.fabric.record(ProbeEvent { group, write: miss.write, qpn, ..event });
    }
}

fn note_fault(requester: &mut Requester, group: PrgIndex, miss: PageMiss, at: u32) {
    let known = requester.faulted.iter().any(|fault| fault.group == group && fault.miss.page == miss.page);
    if !known && requester.faulted.len() < MAX_FAULTED {
        requester.faulted.push(Faulted { group, miss, at });
    }
}
