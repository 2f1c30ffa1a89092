//! Frames into an Ethernet port with live queue pairs of each kind, mixed with what the guest does meanwhile: requests of
//! its own, commands, page faults, pages and rights that the kernel takes away.
//!
//! **Invariant.** That of the queues for memory: the NIC moves bytes between pages of the process only, never without the
//! right, and what no region lets peers reach does not leave. What is kept of frames is bounded, and at rest none waits. A
//! frame that fails a check (ICRC, addresses, VLAN, partition, number, service, state) is not answered, a gap gets one NAK,
//! and each packet goes to a peer. After a reset the port works.

mod guest;
mod judge;
mod peer;
mod queue;
mod station;

use std::sync::Arc;

use refault_abi::codes::{AccessRights, QPT_RC};
use refault_bus::pri::ResponseCode;
use refault_bus::wire::{EthernetFrame, WirePort};
use refault_bus::{Gpa, Iova};
use refault_model::memory::FRAME;
use refault_model::nic::{PageFaultQueue, Umem};
use refault_model::vtd::Answer;
use refault_nic::{LinkLayer, NicConfig, RemoteFaults};
use refault_rig::machine::OwnSpace;

use self::judge::PortState;
use self::peer::Keys;
use self::station::{Cable, MAC, PINNED_PAGES, SECRET, Station};
use super::frames::{Frames, Owner};
use super::process::{give, handle, on_demand_region};
use super::request::page;
use super::{READ_ONLY, READ_ONLY_PAGES, SOURCE, SOURCE_PAGES, TARGET, TARGET_PAGES, World, config};
use crate::fuzz::OPERATIONS_MAX;
use crate::fuzz::feed::Feed;
use crate::fuzz::watch::How;

/// Most frames that one operation may cause: 256 READs of all of the target that were kept, in packets of 256 bytes.
const SENT_MAX: usize = 70_000;
/// Most bytes of requests that are kept for pages: as many as a queue pair keeps, of the longest, for three connections.
const HELD_MAX: u64 = 3 * 257 * 10_000;
/// Longest write to the driver's memory: a response to a command. What is longer is a payload.
const DRIVER_WRITE_MAX: u64 = 128;

/// Runs the target.
pub fn run(bytes: &[u8]) {
    let mut feed = Feed::new(bytes);
    let own_space = if feed.flag() { OwnSpace::Translated } else { OwnSpace::PassThrough };
    let policies = [RemoteFaults::Stall, RemoteFaults::Rnr, RemoteFaults::Drop, RemoteFaults::ResumeNak];
    let mut play = Play::new(own_space, feed.pick(&policies));
    for _ in 0..OPERATIONS_MAX {
        if feed.is_empty() {
            break;
        }
        play.operate(&mut feed);
        play.rest();
    }
    play.end();
}

struct Play {
    world: World,
    station: Station,
    cable: Arc<Cable>,
    frames: Frames,
    keys: Keys,
    port: PortState,
    /// Its handler and notifier are held weakly.
    _umem: Arc<Umem>,
    faults: Arc<PageFaultQueue>,
}

impl Play {
    fn new(own_space: OwnSpace, remote_faults: RemoteFaults) -> Self {
        let link = LinkLayer::Ethernet { mac: MAC, roce: true };
        let world = World::with(own_space, NicConfig { link, remote_faults, ..config() });
        let cable = Arc::new(Cable::default());
        let station = Station::new(&world, &cable);
        let driver = &world.machine.driver;
        let [pinned, fast] = station.regions(driver);
        let range =
            driver.register_range(station.pd, TARGET, 2 * (READ_ONLY.0 - TARGET.0), AccessRights::ALL);
        let (umem, faults) = on_demand_region(&world, station.pd, &station.process);
        let keys = [pinned, fast, range.expect("a region").key, station.local, umem.region().region().key];
        let mut frames = Frames::new(world.machine.memory.frame().expect("a frame"));
        for page in 0..PINNED_PAGES {
            let at = Gpa(station.pinned.gpa().0 + page * FRAME);
            frames.give(at, Owner::Process { write: true });
        }
        let secret = station.process.space.lookup(SECRET).expect("tables are memory").expect("present");
        frames.give(secret.gpa, Owner::Other);
        let resumes = remote_faults == RemoteFaults::ResumeNak;
        let port = PortState { up: true, gids: [true; 2], resumes };
        let mut play = Self { world, station, cable, frames, keys: Keys { keys }, port, _umem: umem, faults };
        play.give_present();
        play
    }

    fn operate(&mut self, feed: &mut Feed<'_>) {
        let end = feed.below(self.station.ends.len());
        match feed.below(40) {
            0..=11 => {
                let frame = peer::one(feed, &self.station.ends, end, &self.keys);
                self.deliver(frame);
            }
            12..=17 if self.station.ends[end].queue.kind == QPT_RC => {
                for frame in peer::message(feed, &self.station.ends, end, &self.keys) {
                    self.deliver(frame);
                }
            }
            18..=19 => {
                let frame = peer::anything(feed, &self.station.ends[end]);
                self.deliver(frame);
            }
            20 => self.flood(feed, end),
            21..=23 => {
                for frame in peer::honest(&self.station.ends[end]) {
                    self.deliver(frame);
                }
                self.station.ends[end].requests.clear();
            }
            24..=27 => self.post(feed, end),
            28 | 29 => self.receive(feed, end),
            30..=32 => self.serve(feed.byte()),
            33 => self.take_away(feed),
            34 => drop(self.world.pass_time()),
            35 => self.change_queue_pair(feed, end),
            36 => self.change_port(feed),
            37 => self.change_region(feed),
            38 => self.registration(feed, end),
            _ => self.revive(end),
        }
    }

    /// A frame arrives while the NIC is at rest, so that what it sends is its answer.
    fn deliver(&mut self, frame: EthernetFrame) {
        self.rest();
        let may_answer = self.port.may_answer(&self.world.machine.driver, &self.station.ends, &frame);
        self.world.machine.nic.receive(frame.clone());
        let sent = self.rest();
        assert!(may_answer || sent == 0, "{sent} frames answer one that failed a check: {frame:02x?}");
    }

    /// The same frame again and again, without a pause.
    fn flood(&mut self, feed: &mut Feed<'_>, end: usize) {
        let frame = peer::one(feed, &self.station.ends, end, &self.keys);
        for _ in 0..feed.below(5) * 300 {
            self.world.machine.nic.receive(frame.clone());
        }
    }

    /// Lets the NIC work, and checks where and what it sends. Returns how many frames that was.
    fn rest(&mut self) -> usize {
        let frames = &self.frames;
        self.world.rest(|accesses| {
            frames.check(accesses);
            for access in accesses {
                let is_payload = access.how == How::Write && access.len > DRIVER_WRITE_MAX;
                assert!(!is_payload || !frames.is_driver(access.at), "{access:x?} is to the driver's memory");
            }
        });
        let sent = self.cable.take();
        assert!(sent.len() <= SENT_MAX, "{} frames for one operation", sent.len());
        self.port.check(&mut self.station.ends, &sent);
        while self.station.completions.poll().expect("the ring is memory").is_some() {}
        assert!(self.world.machine.nic.has_room(), "frames wait, though the NIC is at rest");
        let held = self.world.machine.nic.stats().held_bytes_peak;
        assert!(held <= HELD_MAX, "{held} bytes of frames are kept");
        sent.len()
    }

    /// The kernel's and the driver's threads for page faults.
    fn serve(&mut self, choices: u8) {
        let Self { world, frames, station, faults, .. } = self;
        let mut turn = 0;
        let served = world.machine.unit.service_page_requests(|request| {
            turn = (turn + 1) % 8;
            let code = match choices >> turn & 1 {
                0 if turn > 4 => ResponseCode::InvalidRequest,
                _ => handle(frames, (&station.process, station.pasid), request),
            };
            Answer::Now(code)
        });
        served.expect("the queue is served");
        let faults = faults.clone();
        for fault in faults.take().unwrap_or_default() {
            let resolved = faults.resolve(&fault);
            self.give_present();
            // The region may be gone by now.
            let _ = faults.answer(&fault, resolved && choices != 1);
        }
    }

    /// The kernel takes a page or a right away.
    fn take_away(&mut self, feed: &mut Feed<'_>) {
        let (choice, at) = (feed.below(4), page(feed));
        let process = &self.station.process;
        let before = process.space.lookup(at).expect("tables are memory");
        let taken = match choice {
            0 => process.take_page(at).map(drop),
            1 => process.swap_out(at).map(drop),
            2 => process.move_page(at).map(drop),
            _ => process.write_protect(at).map(drop),
        };
        self.frames.check(&self.world.watched.take());
        if taken.is_ok() {
            if let Some(leaf) = before {
                self.frames.give(leaf.page_of(at), Owner::Other);
            }
            if let Some(leaf) = process.space.lookup(at).expect("tables are memory") {
                give(&mut self.frames, &leaf);
            }
        }
    }

    fn give_present(&mut self) {
        let areas = [(SOURCE, SOURCE_PAGES), (TARGET, TARGET_PAGES), (READ_ONLY, READ_ONLY_PAGES)];
        for (start, pages) in areas {
            for at in (0..pages).map(|page| Iova(start.0 + page * FRAME)) {
                let leaf = self.station.process.space.lookup(at).expect("tables are memory");
                leaf.iter().for_each(|leaf| give(&mut self.frames, leaf));
            }
        }
    }

    /// Nothing has leaked, and the port works after a reset.
    fn end(mut self) {
        for _ in 0..4 {
            self.serve(0xff);
            self.world.pass_time();
            self.rest();
        }
        let mut bytes = [0; FRAME as usize];
        self.station.process.read(SECRET, &mut bytes).expect("memory");
        assert!(
            bytes.iter().all(|&byte| byte == station::SECRET_BYTE),
            "memory that no peer may reach changed"
        );
        // What the first kernel has is dropped after that.
        station::works_again(self.world, &self.cable);
    }
}
