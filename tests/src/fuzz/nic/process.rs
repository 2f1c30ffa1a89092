//! A process that does anything with the NIC that a process can, under a kernel that keeps the rules, beside a process
//! that must notice nothing.

use std::sync::Arc;

use refault_abi::codes::{
    ACCESS_LOCAL_WRITE, ACCESS_REMOTE_ATOMIC, ACCESS_REMOTE_READ, ACCESS_REMOTE_WRITE, AccessRights,
    WC_SUCCESS,
};
use refault_abi::command::{CMD_INVALIDATE_MR, CMD_RESUME_FAULT, InvalidateMr, ResumeFault};
use refault_abi::queue::RqWqe;
use refault_bus::pri::ResponseCode;
use refault_bus::{Gpa, Iova, Pasid};
use refault_model::memory::FRAME;
use refault_model::nic::{OnDemandRegion, PageFaultQueue, Umem, work};
use refault_model::paging::Leaf;
use refault_model::vtd::{Answer, QueuedRequest};
use refault_model::{ModelError, Process};
use refault_rig::machine::OwnSpace;

use super::frames::{Frames, Owner};
use super::request::{Names, page};
use super::{READ_ONLY, READ_ONLY_PAGES, SOURCE, SOURCE_PAGES, TARGET, TARGET_PAGES, World, works};
use crate::fuzz::OPERATIONS_MAX;
use crate::fuzz::feed::Feed;
use crate::fuzz::watch::How;
use crate::session::Session;

/// Bytes that the other process has in its memory.
const CANARY: u8 = 0xc5;
/// Addresses of table words that are kept.
const WORDS_MAX: usize = 16;

/// The process that drives the NIC, and all around it.
pub(super) struct Play {
    world: World,
    frames: Frames,
    session: Session,
    other: Session,
    /// Its on-demand region, and where the faults of it arrive.
    on_demand: Option<(Arc<Umem>, Arc<PageFaultQueue>)>,
    names: Names,
    /// Requests that a handler has taken and not responded to.
    handled: Vec<QueuedRequest>,
    /// Words of the driver's tables that the NIC has read.
    words: Vec<Gpa>,
}

impl Play {
    /// The machine with both processes. With `on_demand` the first has an on-demand region too.
    pub(super) fn new(own_space: OwnSpace, on_demand: bool) -> Self {
        let world = World::new(own_space);
        let (session, other) = (world.open(1), world.open(2));
        other.process.populate(TARGET, FRAME).expect("memory");
        other.process.write(TARGET, &[CANARY; FRAME as usize]).expect("memory");
        let on_demand = on_demand.then(|| on_demand_region(&world, session.pd, &session.process));
        let own = on_demand.as_ref().map_or(session.region, |(umem, _)| umem.region().region());
        let end = world.machine.memory.frame().expect("a frame");
        let mut play = Self {
            frames: Frames::new(end),
            names: Names {
                keys: [session.region.key, own.key, other.region.key, 0],
                numbers: [
                    session.sender.number(),
                    session.receiver.number(),
                    session.completions.number(),
                    other.sender.number(),
                    other.completions.number(),
                ],
            },
            world,
            session,
            other,
            on_demand,
            handled: Vec::new(),
            words: Vec::new(),
        };
        play.give_all(SOURCE, SOURCE_PAGES);
        play.take_from_other(Owner::Other);
        play
    }

    /// The driver's tables may hold anything from now on, and lead the NIC to all that the driver has mapped.
    pub(super) fn open_driver(&mut self) {
        self.frames.is_driver_open = true;
    }

    /// Runs the operations of an input.
    pub(super) fn run(&mut self, feed: &mut Feed<'_>) {
        for _ in 0..OPERATIONS_MAX {
            if feed.is_empty() {
                break;
            }
            self.operate(feed);
            self.rest();
        }
    }

    fn operate(&mut self, feed: &mut Feed<'_>) {
        match feed.below(32) {
            0..=3 => {
                let request = self.names.request(feed);
                self.session.post(&request);
            }
            20.. => self.transfer(feed),
            5 => {
                let mut receive = RqWqe { wr_id: 1, num_sge: feed.below(6) as u32, ..RqWqe::default() };
                receive.sge.iter_mut().for_each(|piece| *piece = self.names.piece(feed));
                self.session.receiver.post_receive(&receive).expect("the ring is memory");
            }
            6 => {
                let (page, value) = (feed.below(8) as u64, self.names.doorbell(feed));
                self.world.machine.driver.bar2().write64(page << 12, value);
            }
            7 => {
                self.session.sender.set_sq_producer(feed.word32()).expect("the ring is memory");
                self.session.sender.doorbell();
            }
            8..=10 => self.serve(feed.byte()),
            11 => self.respond(feed.byte()),
            12 => self.fault_in(feed),
            13..=16 => self.take_away(feed),
            17 => drop(self.world.pass_time()),
            18 => self.revive(),
            _ => self.on_demand_command(feed),
        }
    }

    /// A request as programs make them. If it faults, the page comes for the most part.
    fn transfer(&mut self, feed: &mut Feed<'_>) {
        if self.session.drain().iter().any(|completion| completion.status != WC_SUCCESS) {
            self.revive();
        }
        let (choice, at, near) = (feed.byte(), page(feed), Iova(SOURCE.0 + u64::from(feed.byte())));
        let (key, length) =
            (self.names.keys[usize::from(choice & 1)], [8, 64, 4000, 8192][usize::from(choice >> 1 & 3)]);
        let local = work::piece(near, length, self.names.keys[0]);
        let request = match choice >> 3 & 3 {
            0 => work::rdma_read(1, local, at, key),
            1 => work::fetch_add(1, work::piece(near, 8, self.names.keys[0]), at, key, 1),
            _ => work::rdma_write(1, local, at, key),
        };
        self.session.post(&request);
        self.rest();
        if choice & 0xe0 != 0 {
            self.serve(0xff);
        }
    }

    /// The kernel's part of recovery after an error. A driver whose rings are damaged cannot.
    fn revive(&mut self) {
        if !self.frames.is_driver_open {
            self.session.reconnect(&self.world.machine.driver);
            self.session.drain();
        }
    }

    /// Lets the NIC work, and checks where.
    fn rest(&mut self) {
        let (frames, words) = (&self.frames, &mut self.words);
        self.world.rest(|accesses| {
            frames.check(accesses);
            let loads = accesses.iter().filter(|access| access.how == How::Load && access.len == 8);
            words.extend(loads.map(|access| access.at));
            let surplus = words.len().saturating_sub(WORDS_MAX);
            words.drain(..surplus);
        });
    }

    /// The page request thread and the driver's thread for page faults. `choices` has the handlers' answers.
    fn serve(&mut self, choices: u8) {
        let Self { world, frames, session, handled, .. } = self;
        let mut turn = 0;
        let served = world.machine.unit.service_page_requests(|request| {
            turn = (turn + 2) % 8;
            match choices >> turn & 3 {
                0 => {
                    handled.push(*request);
                    Answer::Later
                }
                1 => Answer::Now(ResponseCode::InvalidRequest),
                _ => Answer::Now(handle(frames, (&session.process, session.pasid), request)),
            }
        });
        served.expect("the queue is served");
        let Some((_, faults)) = self.on_demand.clone() else { return };
        for fault in faults.take().unwrap_or_default() {
            let resolved = faults.resolve(&fault);
            // The answer resumes the request, which uses the page at once.
            self.give_present();
            let answered = faults.answer(&fault, resolved && choices != 1);
            assert!(self.frames.is_driver_open || answered.is_ok(), "{answered:?}");
        }
    }

    /// A handler ends.
    fn respond(&mut self, choice: u8) {
        let Some(at) = usize::from(choice).checked_rem(self.handled.len()) else { return };
        let request = self.handled.swap_remove(at);
        let Self { frames, session, .. } = self;
        let code = handle(frames, (&session.process, session.pasid), &request);
        self.world.machine.unit.respond(&request, code).expect("the queue runs");
    }

    /// The process touches its memory.
    fn fault_in(&mut self, feed: &mut Feed<'_>) {
        let (at, write) = (page(feed), feed.flag());
        if let Ok(leaf) = self.session.process.fault_at(at, write) {
            give(&mut self.frames, &leaf);
        }
    }

    /// The kernel takes a page or a right away. When it returns, the NIC must not use it any more.
    fn take_away(&mut self, feed: &mut Feed<'_>) {
        let (choice, at) = (feed.below(4), page(feed));
        let process = &self.session.process;
        let before = process.space.lookup(at).expect("tables are memory");
        let taken = match choice {
            0 => process.take_page(at).map(drop),
            1 => process.swap_out(at).map(drop),
            2 => process.move_page(at).map(drop),
            _ => process.write_protect(at).map(drop),
        };
        // What the NIC did meanwhile, it did before the flush ended: with the page as it was.
        self.frames.check(&self.world.watched.take());
        match taken {
            Ok(()) => {
                if let Some(leaf) = before {
                    self.frames.give(leaf.page_of(at), Owner::Other);
                }
                if let Some(leaf) = process.space.lookup(at).expect("tables are memory") {
                    give(&mut self.frames, &leaf);
                }
            }
            Err(ModelError::NotMapped { .. }) => {}
            Err(error) => assert!(self.frames.is_driver_open, "{error}"),
        }
    }

    /// What only the driver of an on-demand region can do wrong.
    fn on_demand_command(&mut self, feed: &mut Feed<'_>) {
        if self.on_demand.is_none() {
            return;
        }
        let lane = self.world.machine.driver.lane1();
        match feed.below(3) {
            0 => {
                let answer = ResumeFault { token: feed.word32(), answer: feed.word32(), reserved: 0 };
                let _ = lane.execute::<[u8; 0]>(CMD_RESUME_FAULT, &answer);
            }
            1 => {
                let start = page(feed).0;
                let range = InvalidateMr { key: self.names.keys[1], reserved: 0, start, length: feed.word() };
                let _ = lane.execute::<[u8; 0]>(CMD_INVALIDATE_MR, &range);
            }
            _ if self.frames.is_driver_open => {
                let Some(&word) = self.words.get(feed.below(WORDS_MAX)) else { return };
                let value = if feed.flag() { feed.word() } else { self.near(word) ^ 1 << feed.below(64) };
                let _ = self.world.machine.memory.dma().store_u64(word, value);
            }
            _ => {}
        }
    }

    fn near(&self, word: Gpa) -> u64 {
        self.world.machine.memory.dma().load_u64(word).unwrap_or(0)
    }

    fn give_all(&mut self, start: Iova, pages: u64) {
        for page in 0..pages {
            let leaf =
                self.session.process.space.lookup(Iova(start.0 + page * FRAME)).expect("tables are memory");
            leaf.iter().for_each(|leaf| give(&mut self.frames, leaf));
        }
    }

    fn give_present(&mut self) {
        for (start, pages) in [(SOURCE, SOURCE_PAGES), (TARGET, TARGET_PAGES), (READ_ONLY, READ_ONLY_PAGES)] {
            self.give_all(start, pages);
        }
    }

    fn take_from_other(&mut self, owner: Owner) {
        for (start, pages) in [(SOURCE, SOURCE_PAGES), (TARGET, 1)] {
            for page in 0..pages {
                let at = Iova(start.0 + page * FRAME);
                let leaf = self.other.process.space.lookup(at).expect("tables are memory").expect("present");
                self.frames.give(leaf.gpa, owner);
            }
        }
    }

    /// The other process has noticed nothing, and the NIC works for it.
    pub(super) fn end(mut self) {
        for _ in 0..8 {
            self.serve(0xff);
            self.respond(0);
            self.world.pass_time();
            self.rest();
        }
        let mut bytes = [0; FRAME as usize];
        self.other.process.read(TARGET, &mut bytes).expect("memory");
        assert!(bytes.iter().all(|&byte| byte == CANARY), "the other process' memory changed");
        if !self.frames.is_driver_open {
            works(&self.world, &mut self.other);
        }
        self.world.recovers();
    }
}

pub(super) fn on_demand_region(
    world: &World,
    pd: u32,
    process: &Arc<Process>,
) -> (Arc<Umem>, Arc<PageFaultQueue>) {
    const ALL: AccessRights =
        ACCESS_LOCAL_WRITE.union(ACCESS_REMOTE_WRITE).union(ACCESS_REMOTE_READ).union(ACCESS_REMOTE_ATOMIC);
    let driver = &world.machine.driver;
    let faults = PageFaultQueue::new(driver, 1, 6).expect("an event queue");
    let range = (TARGET, TARGET_PAGES * FRAME);
    let region = OnDemandRegion::create(driver, pd, range, ALL, &faults).expect("a region");
    (Umem::begin(region, process, &faults), faults)
}

/// The handler of a page request. A page that it brings in may be used from now on.
pub(super) fn handle(
    frames: &mut Frames,
    (process, pasid): (&Arc<Process>, Pasid),
    request: &QueuedRequest,
) -> ResponseCode {
    if request.pasid != Some(pasid) {
        return ResponseCode::InvalidRequest;
    }
    match process.fault_at(request.page, request.write) {
        Ok(leaf) => {
            give(frames, &leaf);
            ResponseCode::Success
        }
        Err(_) => ResponseCode::InvalidRequest,
    }
}

pub(super) fn give(frames: &mut Frames, leaf: &Leaf) {
    frames.give(leaf.gpa, Owner::Process { write: leaf.writable() });
}
