//! Storms: the device writes on threads of its own while the kernel moves the pages under it, and gives every frame
//! that it takes to another owner at once.
//!
//! Two promises are checked: acknowledged data is in the frame that the page table names, and no byte lands in a frame
//! after it was taken. The amount of work is fixed, its duration is not.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use refault_abi::codes::WC_SUCCESS;
use refault_bus::clock::Clock;
use refault_bus::probe::Stage;
use refault_bus::{Gpa, Iova};
use refault_model::memory::FRAME;
use refault_model::nic::{QueuePair, work};
use refault_model::{GuestMemory, Process};
use refault_nic::NicConfig;
use refault_rig::clock::WallClock;
use refault_tests::machine::{Machine, MachineSetup};
use refault_tests::session::Session;
use refault_tests::threads;

use crate::support::*;

/// Queue pairs that write at the same time.
const STREAMS: usize = 4;
/// Pages that each of them writes to.
const PAGES: u64 = 24;
/// Writes of each.
const WRITES: u64 = 2000;
/// Frames that the other owner holds at a time.
const HELD: usize = 16;

fn storm_machine() -> (Machine, Session, Arc<WallClock>) {
    let clock = Arc::new(WallClock::default());
    // Here a page may be taken away again and again before the device has retried.
    let nic = NicConfig { workers: 2, page_retry_limit: u32::MAX, ..NicConfig::default() };
    let (machine, session) =
        ready(MachineSetup { nic, clock: Some(clock.clone()), ..MachineSetup::default() });
    (machine, session, clock)
}

/// The next owner of taken frames: fills them with a canary, and checks that it is intact before freeing them.
struct NextOwner<'a> {
    memory: &'a GuestMemory,
    held: VecDeque<(Gpa, u8)>,
    turn: u8,
}

impl<'a> NextOwner<'a> {
    fn new(memory: &'a GuestMemory) -> Self {
        Self { memory, held: VecDeque::new(), turn: 0 }
    }

    fn take(&mut self, frame: Gpa) {
        self.turn = self.turn.wrapping_add(1);
        self.memory.fill(frame, FRAME, self.turn).unwrap();
        self.held.push_back((frame, self.turn));
        if self.held.len() > HELD {
            self.give_back();
        }
    }

    fn give_back(&mut self) {
        let Some((frame, canary)) = self.held.pop_front() else { return };
        let bytes = self.memory.bytes(frame, FRAME as usize).unwrap();
        let foreign = bytes.iter().position(|&byte| byte != canary);
        assert_eq!(foreign, None, "a byte landed in {frame} after it was taken from its process");
        self.memory.free(frame, FRAME).unwrap();
    }

    fn leave(mut self) {
        while !self.held.is_empty() {
            self.give_back();
        }
    }
}

/// A queue pair that writes records over its own part of the target, with the bytes expected there.
struct Stream {
    queue_pair: QueuePair,
    start: Iova,
    expected: Vec<u8>,
    random: u64,
}

impl Stream {
    fn new(queue_pair: QueuePair, index: usize) -> Self {
        let bytes = PAGES * FRAME;
        let start = Iova(TARGET.0 + index as u64 * bytes);
        Self { queue_pair, start, expected: vec![0; bytes as usize], random: 77 + index as u64 }
    }

    fn random(&mut self, below: u64) -> u64 {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % below
    }

    /// Posts one write of 64 bytes to 24 KiB, anywhere in its part.
    fn post(&mut self, session: &Session, index: usize, id: u64) {
        let length = 64 + if self.random(4) == 0 { self.random(6 * FRAME) } else { self.random(2000) };
        let at = self.random(PAGES * FRAME - length);
        // Each stream has its own part of the source, so that no other write reads it half filled.
        let source = Iova(SOURCE.0 + index as u64 * 8 * FRAME);
        let record = pattern(length as usize, id << 8 | index as u64);
        session.process.write(source, &record).unwrap();
        self.expected[at as usize..][..record.len()].copy_from_slice(&record);
        let key = session.region.key;
        let wqe = work::rdma_write(id, work::piece(source, length as u32, key), Iova(self.start.0 + at), key);
        self.queue_pair.post(&wqe).unwrap();
    }
}

/// Runs every stream, one request at a time each, until all writes are done.
fn write_all(machine: &Machine, session: &mut Session, streams: &mut [Stream]) {
    let by_number: Vec<_> = streams.iter().map(|stream| stream.queue_pair.number()).collect();
    let mut left = vec![WRITES; streams.len()];
    for (index, stream) in streams.iter_mut().enumerate() {
        stream.post(session, index, WRITES);
    }
    while left.iter().any(|&left| left > 0) {
        let cqe = machine.driver.pause().until("a completion", || Ok(session.poll())).unwrap();
        assert_eq!((cqe.status, cqe.vendor_error), (WC_SUCCESS, 0), "write {} of {:#x}", cqe.wr_id, cqe.qpn);
        let index = by_number.iter().position(|&number| number == cqe.qpn).unwrap();
        left[index] -= 1;
        if left[index] > 0 {
            streams[index].post(session, index, left[index]);
        }
    }
}

/// Runs the storm: `disturb` is called again and again with a page of the target while the streams write. Every
/// acknowledged byte must be in place at the end. Returns the numbers of page requests and of invalidations.
fn storm(disturb: impl Fn(&Process, Iova, &mut NextOwner<'_>) + Sync) -> (usize, usize) {
    let (machine, mut session, clock) = storm_machine();
    let pairs: Vec<_> = (0..STREAMS).map(|_| session.add_pair(&machine.driver)).collect();
    let mut streams: Vec<_> =
        pairs.into_iter().enumerate().map(|(index, (a, _))| Stream::new(a, index)).collect();
    let all_written = AtomicBool::new(false);
    let process = session.process.clone();
    threads::run(&machine, clock.as_ref() as &dyn Clock, || {
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut owner = NextOwner::new(&machine.memory);
                let mut random = Stream::new_random(3);
                while !all_written.load(Ordering::Acquire) {
                    let page = random(STREAMS as u64 * PAGES);
                    disturb(&process, Iova(TARGET.0 + page * FRAME), &mut owner);
                    thread::yield_now();
                }
                owner.leave();
            });
            let _ends = EndOnDrop(&all_written);
            write_all(&machine, &mut session, &mut streams);
        });
    });
    for stream in &streams {
        let found = bytes_at(&session, stream.start, stream.expected.len());
        let wrong = found.iter().zip(&stream.expected).position(|(found, expected)| found != expected);
        assert_eq!(wrong, None, "an acknowledged byte at {} is lost", stream.start);
    }
    assert!(machine.unit.page_requests.is_empty());
    (page_requests(&machine), machine.trace.count(Stage::Invalidated))
}

/// Ends the disturbance even if the streams panic: a scope waits for it.
struct EndOnDrop<'a>(&'a AtomicBool);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Stream {
    fn new_random(seed: u64) -> impl FnMut(u64) -> u64 {
        let mut state = seed;
        move |below| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        }
    }
}

#[test]
fn pages_move_while_the_device_writes_them() {
    let (_, invalidations) = storm(|process, page, owner| {
        if let Ok(frame) = process.move_page(page) {
            owner.take(frame);
        }
    });
    assert!(invalidations > 100, "the storm was a calm: {invalidations} invalidations");
}

#[test]
fn pages_are_swapped_out_while_the_device_writes_them() {
    let (requests, invalidations) = storm(|process, page, owner| {
        if let Ok(leaf) = process.swap_out(page) {
            owner.take(leaf.gpa);
        }
    });
    let calm = requests < 100 || invalidations < 100;
    assert!(!calm, "the storm was a calm: {requests} page requests, {invalidations} invalidations");
}

#[test]
fn pages_are_write_protected_while_the_device_writes_them() {
    let (requests, invalidations) = storm(|process, page, _| {
        // A page that is not present yet cannot be protected.
        let _ = process.write_protect(page);
    });
    let calm = requests < 100 || invalidations < 100;
    assert!(!calm, "the storm was a calm: {requests} page requests, {invalidations} invalidations");
}
