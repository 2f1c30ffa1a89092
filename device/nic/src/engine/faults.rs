//! Pages that are missing: asking for them, and waiting without being in anybody's way.

use std::sync::atomic::Ordering;

use refault_abi::codes::ACCESS_LOCAL_WRITE;
use refault_abi::queue::Sge;
use refault_bus::PrgIndex;
use refault_bus::pri::PageRequest;
use refault_bus::probe::{ProbeEvent, Stage};

use super::list::List;
use crate::Nic;
use crate::cause::Cause;
use crate::dma::{PageMiss, Port};
use crate::guard::lock;
use crate::pri::{Waiter, Wanted};
use crate::qp::{End, Faulted, PageTrouble, Requester, Wait};

/// Page requests without progress before the device waits between them.
const PROMPT: u32 = 4;
/// First and longest of these waits.
const BACK_OFF_NS: (u64, u64) = (10_000, 5_000_000);
/// Most groups one request remembers for its probes.
const MAX_FAULTED: usize = 256;

impl Nic {
    /// Pages behind the missing one that the active request will miss too.
    pub(super) fn pages_ahead(
        &self,
        port: &mut Port<'_>,
        requester: &Requester,
        end: End,
    ) -> Vec<(PageMiss, u32)> {
        let count = self.config.fault_window - 1;
        let Some(message) = requester.active.as_ref().filter(|message| count > 0 && message.length > 0x1000)
        else {
            return Vec::new();
        };
        let write = (end == End::Local) == message.operation.fetches();
        let local = List {
            pieces: message.sges(),
            pd: requester.setup.pd,
            rights: if write { ACCESS_LOCAL_WRITE } else { 0 },
            write,
            end,
        };
        if end == End::Local {
            return local.missing_behind(port, message.done, count);
        }
        let Some(peer) = self.qps.find(requester.attributes.dest_qpn()) else { return Vec::new() };
        let responder = lock(&peer.responder);
        let wqe = &message.wqe;
        let piece = [Sge { addr: wqe.remote_addr, length: message.length, lkey: wqe.rkey }];
        let receive = responder.current.map(|current| current.wqe.sge);
        let (pieces, rights) = match (message.operation.remote_rights(), &receive) {
            (0, Some(sges)) => (&sges[..], ACCESS_LOCAL_WRITE),
            (0, None) => return Vec::new(),
            (rights, _) => (&piece[..], rights),
        };
        List { pieces, pd: responder.setup.pd, rights, write, end }.missing_behind(port, message.done, count)
    }

    /// Asks for the page that is missing, and for those ahead, and parks the requester. The caller holds the
    /// requester, but no guard: the IOMMU may answer from inside.
    pub(super) fn ask_for_pages(
        &self,
        worker: usize,
        requester: &mut Requester,
        end: End,
        miss: PageMiss,
        ahead: Vec<(PageMiss, u32)>,
    ) -> Result<(), Cause> {
        if !self.fabric.endpoint.controls().pri() {
            return Err(Cause::Blocked);
        }
        if self.fabric.endpoint.pri_response_failure() {
            return Err(Cause::PageFailure);
        }
        if self.back_off(requester, end)? {
            return Ok(());
        }
        let qpn = requester.setup.qpn;
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        let deadline_ns = self.fabric.now_ns().saturating_add(self.config.page_request_timeout_ns);
        let waiter = Waiter { qpn, ticket };
        let at = requester.active.as_ref().map_or(0, |message| message.done);
        // Parked before the request leaves: the answer may be there before the call returns.
        requester.wait = Wait::Page { ticket };
        let wanted = self.pages.want(&self.fabric.endpoint, miss, waiter, deadline_ns);
        // A page foreseen by this very request was told of when it was.
        let own = |group| requester.faulted.iter().any(|fault| fault.group == group);
        let told =
            requester.trouble.noted == Some(miss) || matches!(wanted, Wanted::Joined(group) if own(group));
        if !told {
            self.record(Stage::Miss, None, miss, qpn);
        }
        requester.trouble.noted = None;
        match wanted {
            Wanted::New(group) => {
                self.send_page_request(worker, requester, (group, miss), at, deadline_ns);
            }
            Wanted::Joined(group) => note_fault(requester, group, miss, at),
            Wanted::NoCredit => {
                requester.trouble.noted = Some(miss);
                requester.wait = Wait::Credit { ticket, deadline_ns };
                lock(&self.workers[worker].timers).set(qpn, deadline_ns);
                return Ok(());
            }
        }
        for (miss, at) in ahead {
            let Some(group) = self.pages.foresee(&self.fabric.endpoint, miss, deadline_ns) else { continue };
            self.record(Stage::Miss, None, miss, qpn);
            self.send_page_request(worker, requester, (group, miss), at, deadline_ns);
        }
        Ok(())
    }

    /// Counts how often pages were asked for without a byte moved since: source and destination may push one
    /// another out. `true` if the requester shall wait before it asks again.
    fn back_off(&self, requester: &mut Requester, end: End) -> Result<bool, Cause> {
        let trouble = &mut requester.trouble;
        trouble.end = end;
        if trouble.asked > self.config.page_retry_limit {
            return Err(Cause::PageRetries);
        }
        if trouble.asked >= PROMPT && !trouble.backed_off {
            trouble.backed_off = true;
            let doublings = (trouble.asked - PROMPT).min(20);
            let delay = (BACK_OFF_NS.0 << doublings).min(BACK_OFF_NS.1);
            self.wait_until(requester, self.fabric.now_ns().saturating_add(delay));
            return Ok(true);
        }
        trouble.asked += 1;
        trouble.backed_off = false;
        Ok(false)
    }

    fn send_page_request(
        &self,
        worker: usize,
        requester: &mut Requester,
        (group, miss): (PrgIndex, PageMiss),
        at: u32,
        deadline_ns: u64,
    ) {
        note_fault(requester, group, miss, at);
        lock(&self.workers[worker].timers).watch_page_requests(deadline_ns);
        self.record(Stage::PageRequest, Some(group), miss, requester.setup.qpn);
        let PageMiss { pasid, page, write } = miss;
        self.fabric.agent.page_request(PageRequest {
            requester: self.fabric.bdf,
            pasid: Some(pasid),
            page,
            read: true,
            write,
            last: true,
            group,
        });
    }

    /// Pages that were waited for and are now behind the request.
    pub(super) fn note_progress(&self, requester: &mut Requester) {
        requester.trouble = PageTrouble::default();
        let (Some(message), qpn) = (&requester.active, requester.setup.qpn) else { return };
        let done = message.done;
        requester.faulted.retain(|fault| {
            if fault.at < done {
                self.record(Stage::Copied, Some(fault.group), fault.miss(), qpn);
            }
            fault.at >= done
        });
    }

    /// The request is over, well or not: so are its faults.
    pub(crate) fn settle_faults(&self, requester: &mut Requester, success: bool) {
        let stage = if success { Stage::Copied } else { Stage::Failed };
        for fault in std::mem::take(&mut requester.faulted) {
            self.record(stage, Some(fault.group), fault.miss(), requester.setup.qpn);
        }
    }

    fn record(&self, stage: Stage, group: Option<PrgIndex>, miss: PageMiss, qpn: u32) {
        let event = ProbeEvent::new(stage, Some(miss.pasid), miss.page);
        self.fabric.record(ProbeEvent { group, write: miss.write, qpn, ..event });
    }
}

impl Faulted {
    fn miss(&self) -> PageMiss {
        PageMiss { pasid: self.pasid, page: self.page, write: self.write }
    }
}

fn note_fault(requester: &mut Requester, group: PrgIndex, miss: PageMiss, at: u32) {
    let PageMiss { pasid, page, write } = miss;
    let known = requester.faulted.iter().any(|fault| fault.group == group && fault.page == page);
    if !known && requester.faulted.len() < MAX_FAULTED {
        requester.faulted.push(Faulted { group, pasid, page, write, at });
    }
}
