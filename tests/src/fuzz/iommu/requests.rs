//! Page requests and responses, interleaved with invalidations: a device that does anything, under a kernel that keeps
//! the rules.
//!
//! **Invariant.** What the unit answers agrees with the page table at that moment. When the kernel has flushed what it
//! changed, the device's TLB holds nothing that the page table does not allow. A page that was granted is marked
//! accessed, and dirty if it was granted for writing. Every group gets one response, whatever happens in between.

use std::collections::{BTreeMap, BTreeSet};

use refault_bus::ats::{InvalidationRequest, RequestKind, Translation, TranslationAgent, TranslationRequest};
use refault_bus::pri::{PageRequest, ResponseCode};
use refault_bus::{Iova, PrgIndex};
use refault_iommu::spec::registers::offset as reg;
use refault_model::memory::FRAME;
use refault_model::vtd::{Answer, QueuedRequest};

use super::{AREA, DEVICE, Doing, Heard, PASID, WALK_MAX, World};
use crate::fuzz::OPERATIONS_MAX;
use crate::fuzz::feed::Feed;

/// Pages that the device asks for: those of the process, and some behind.
const PAGES: usize = 260;

/// Runs the target.
pub fn run(bytes: &[u8]) {
    let mut play = Play::new();
    let mut feed = Feed::new(bytes);
    for _ in 0..OPERATIONS_MAX {
        if feed.is_empty() {
            break;
        }
        play.operate(&mut feed);
        play.hear();
        play.check_cache();
    }
    play.end();
}

/// The device and the kernel.
struct Play {
    world: World,
    is_bound: bool,
    /// The device's TLB, by page.
    cache: BTreeMap<u64, Translation>,
    /// Groups without a response.
    open: BTreeSet<u16>,
    /// Requests that a handler has taken and not responded to.
    handled: Vec<QueuedRequest>,
}

impl Play {
    fn new() -> Self {
        let world = World::new();
        Self { world, is_bound: true, cache: BTreeMap::new(), open: BTreeSet::new(), handled: Vec::new() }
    }

    fn operate(&mut self, feed: &mut Feed<'_>) {
        let choice = feed.byte();
        let page = Iova(AREA.0 + (feed.below(PAGES) as u64) * FRAME);
        let process = &self.world.kernel.process;
        // The kernel now and then does several things to one page that is hot.
        let hot = Iova(AREA.0 + u64::from(choice >> 6) * FRAME);
        let at = if choice & 0x20 != 0 { page } else { hot };
        match choice & 0xf {
            0..=3 => self.translate(at, choice & 0x10 != 0),
            4..=6 => self.ask(at, choice & 0x10 != 0),
            7 => self.ask_many(feed.byte()),
            8 => self.serve(feed.byte()),
            9 => self.respond(feed.byte()),
            10 => drop(process.take_page(at)),
            11 => drop(process.move_page(at)),
            12 => drop(process.write_protect(at)),
            13 => drop(process.swap_out(at)),
            14 => drop(process.fault_at(at, choice & 0x10 != 0)),
            _ if self.is_bound => self.unbind(),
            _ => {
                process.bind(&self.world.kernel.function, PASID).expect("a free PASID");
                self.is_bound = true;
            }
        }
    }

    fn translate(&mut self, iova: Iova, write: bool) {
        let kind = RequestKind::Translation;
        let request = TranslationRequest { requester: DEVICE, pasid: Some(PASID), iova, write, kind };
        let found = self.world.translate(&request).unwrap_or(Translation::NONE);
        let leaf = self
            .world
            .kernel
            .process
            .space
            .lookup(iova)
            .expect("tables are memory")
            .filter(|_| self.is_bound);
        assert_eq!(found.read, leaf.is_some(), "{iova}");
        assert_eq!(found.write, write && leaf.is_some_and(|leaf| leaf.writable()), "{iova}");
        if let Some(leaf) = leaf {
            assert_eq!(found.gpa_of(iova), leaf.page_of(iova));
            assert!(leaf.accessed() && (leaf.dirty() || !found.write), "{leaf:?}");
            self.cache.insert(iova.0 >> 12, found);
        }
    }

    fn ask(&mut self, page: Iova, write: bool) {
        let Some(group) = (0..512).find(|group| !self.open.contains(group)) else { return };
        self.open.insert(group);
        let request = PageRequest {
            requester: DEVICE,
            pasid: Some(PASID),
            page,
            read: true,
            write,
            last: true,
            group: PrgIndex::truncated(group.into()),
        };
        let (tail, queue) = (self.world.read64(reg::PQT), self.world.read64(reg::PQA));
        self.world.watch(Doing::PageRequest(queue), WALK_MAX, || self.world.iommu.page_request(request));
        self.hear();
        let is_queued = self.world.read64(reg::PQT) != tail;
        assert_eq!(is_queued, self.open.contains(&group), "a request is queued or responded to");
    }

    /// More than the queue holds, now and then.
    fn ask_many(&mut self, count: u8) {
        (0..count).for_each(|page| self.ask(Iova(AREA.0 + u64::from(page) * FRAME), true));
    }

    /// The page request thread. `choices` has the handler's answers.
    fn serve(&mut self, choices: u8) {
        let (unit, process) = (&self.world.kernel.unit, &self.world.kernel.process);
        let handled = &mut self.handled;
        let mut turn = 0;
        let served = unit.service_page_requests(|request| {
            turn = (turn + 2) % 8;
            match choices >> turn & 3 {
                0 => {
                    handled.push(*request);
                    Answer::Later
                }
                1 => Answer::Now(ResponseCode::InvalidRequest),
                _ => Answer::Now(process.fault(request)),
            }
        });
        served.expect("the queue is served");
    }

    /// Handlers end, in any order.
    fn respond(&mut self, count: u8) {
        for _ in 0..count {
            let Some(at) = usize::from(count).checked_rem(self.handled.len()) else { return };
            let request = self.handled.swap_remove(at);
            let code = self.world.kernel.process.fault(&request);
            self.world.kernel.unit.respond(&request, code).expect("the queue runs");
        }
    }

    fn unbind(&mut self) {
        self.is_bound = false;
        let kernel = &self.world.kernel;
        let handled = &mut self.handled;
        let mut service = || {
            kernel.unit.service_page_requests(|request| Answer::Now(kernel.process.fault(request)))?;
            // The kernel waits for its handlers.
            handled
                .drain(..)
                .try_for_each(|request| kernel.unit.respond(&request, ResponseCode::InvalidRequest))
        };
        kernel.process.unbind(&kernel.function, PASID, &mut service).expect("the unbind ends");
        self.hear();
        assert!(self.open.is_empty(), "an unbind drains the requests: {:?}", self.open);
        assert!(self.cache.is_empty(), "an unbind flushes the device");
    }

    /// The device takes its messages.
    fn hear(&mut self) {
        for heard in self.world.ear.take() {
            match heard {
                Heard::Invalidation(request) => self.cache.retain(|&page, _| !covers(&request, page << 12)),
                Heard::Response(response) => {
                    assert_eq!(response.pasid, Some(PASID));
                    assert!(self.open.remove(&response.group.get()), "no such group is open: {response:?}");
                }
                Heard::Drain => {}
            }
        }
    }

    /// Between two operations of the kernel, all that is cached is in the page table.
    fn check_cache(&self) {
        for (&page, cached) in &self.cache {
            let iova = Iova(page << 12);
            let leaf = self.world.kernel.process.space.lookup(iova).expect("tables are memory");
            let leaf = leaf.unwrap_or_else(|| panic!("{iova} is cached and gone"));
            assert_eq!(cached.gpa_of(iova), leaf.page_of(iova), "{iova} is cached and has moved");
            assert!(!cached.write || leaf.writable(), "{iova} is cached with a right that it has lost");
        }
    }

    /// The kernel answers all that is left.
    fn end(mut self) {
        for _ in 0..4 {
            self.serve(0xff);
            self.respond(255);
            self.respond(255);
            self.hear();
        }
        assert!(self.open.is_empty(), "groups without a response: {:?}", self.open);
        if self.is_bound {
            self.unbind();
        }
        self.world.recovers();
    }
}

fn covers(request: &InvalidationRequest, iova: u64) -> bool {
    let same_space = request.pasid == Some(PASID) || request.everything() && request.pasid.is_none();
    same_space && (request.everything() || request.iova.0 >> request.size_shift == iova >> request.size_shift)
}
