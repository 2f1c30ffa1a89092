//! Threads: workers, an operating system that moves pages, and drivers that destroy things meanwhile.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use refault_abi::codes::{
    ACCESS_LOCAL_WRITE, FLUSH_PERSISTENT, OP_FLUSH, OP_RDMA_READ, QPS_RESET, QPS_RTS, QPT_UD,
    WC_REM_ACCESS_ERR, WC_SUCCESS,
};
use refault_abi::command::{
    CMD_DESTROY_MR, CMD_INVALIDATE_MR, CMD_MODIFY_CQ, CMD_MODIFY_QP, CMD_RESUME_FAULT, CommandOpcode,
    CommandResponse, CreateQp, FAULT_RESOLVED, InvalidateMr, ModifyCq, ModifyQp, ODP_PRESENT, ODP_WRITABLE,
    ObjectId, QP_ATTR_STATE, ResumeFault, STATUS_OK,
};
use refault_abi::doorbell::{DOORBELL_SQ, Doorbell};
use refault_abi::queue::{CQE_RECEIVE, SqWqe};
use refault_bus::pri::ResponseCode;
use refault_nic::{NicConfig, Worker};
use refault_pci::PciFunction;
use zerocopy::IntoBytes;

use crate::support::driver::*;
use crate::support::shared::*;
use crate::support::table::OnDemand;
use crate::support::*;

const HEAP: u64 = 0x7f00_0000_0000;

/// Runs the workers as a machine does, until `stop`.
fn spawn(workers: Vec<Worker>, stop: &Arc<AtomicBool>) -> Vec<thread::JoinHandle<()>> {
    let run = |mut worker: Worker| {
        let stop = stop.clone();
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let received = worker.receiver().recv_timeout(Duration::from_millis(1));
                if let Ok(work) = received {
                    worker.process(work);
                }
                worker.expire();
            }
        })
    };
    workers.into_iter().map(run).collect()
}

/// A test that has not seen enough after this has failed: far more than a slow machine needs.
const NET: Duration = Duration::from_secs(300);

/// The page a stream of writes goes to moves between two frames all the time. When an invalidation returns, no
/// write may land in the frame that was taken away, though the stream never stops.
#[test]
fn after_an_invalidation_nothing_lands_where_the_page_was() {
    let mut pair = Pair::new();
    let frames = [pair.bench.allocate(0x1_0000), pair.bench.allocate(0x1_0000)];
    let pages = 16;
    let map = |iommu: &crate::support::iommu::ScriptedIommu, frame: u64| {
        for page in 0..pages {
            iommu.map(PASID, HEAP + page * 0x1000, frame + page * 0x1000, true);
        }
    };
    map(&pair.bench.iommu, frames[0]);
    // Like the kernel's mmap lock: a fault handler does not map an address that is being unmapped.
    let current = Arc::new(Mutex::new(frames[0]));
    let faults = Arc::new(AtomicU64::new(0));
    let (now, count) = (current.clone(), faults.clone());
    pair.bench.iommu.handle(move |iommu, request| {
        count.fetch_add(1, Ordering::Relaxed);
        let frame = now.lock().unwrap();
        iommu.map(PASID, request.page.0, *frame + (request.page.0 & 0xffff), true);
        Some(ResponseCode::Success)
    });
    for _ in 0..8 {
        pair.a.prepare(&pair.bench, &pair.write(1, 0x1_0000, HEAP, pair.process));
    }
    let stop = Arc::new(AtomicBool::new(false));
    let threads = spawn(pair.bench.take_workers(), &stop);
    let deadline = Instant::now() + NET;
    let mut moves = 0;
    let marker = [0xee; 0x1_0000];
    while (moves < 100 || faults.load(Ordering::Relaxed) < 50) && Instant::now() < deadline {
        // Keep the stream going.
        if pair.cq_a.poll(&pair.bench).is_some_and(|entry| entry.status == WC_SUCCESS) {
            pair.a.send(&pair.bench, &pair.write(1, 0x1_0000, HEAP, pair.process));
        }
        pair.a.ring(&pair.bench);
        // As the kernel does: the new place first, then unmap, then wait for the device.
        let mut place = current.lock().unwrap();
        let old = *place;
        *place = if old == frames[0] { frames[1] } else { frames[0] };
        (0..pages).for_each(|page| pair.bench.iommu.unmap(PASID, HEAP + page * 0x1000));
        drop(place);
        pair.bench.fill(old, &marker);
        thread::yield_now();
        assert!(pair.bench.bytes(old, 0x1_0000) == marker, "a write landed in a page that was taken away");
        moves += 1;
    }
    stop.store(true, Ordering::Relaxed);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(moves >= 100 && faults.load(Ordering::Relaxed) >= 50, "{moves} moves, {faults:?} faults");
}

/// The same through an on-demand region's table: the driver fills holes from the event queue and takes pages away
/// with one command, all on one thread; no write may land in a frame after the command was answered.
#[test]
fn after_an_on_demand_invalidation_nothing_lands_where_the_page_was() {
    const PAGES: u64 = 16;
    let mut pair = Pair::new();
    let mut region = OnDemand::new(&pair.bench, pair.pd, HEAP, PAGES * 0x1000);
    let frames = [pair.bench.allocate(0x1_0000), pair.bench.allocate(0x1_0000)];
    // The tables are made once: later there is nothing but words to store.
    (0..PAGES).for_each(|page| region.put(&pair.bench, HEAP + page * 0x1000, 0));
    for _ in 0..8 {
        pair.a.prepare(&pair.bench, &pair.write(1, 0x1_0000, HEAP, region.key));
    }
    let stop = Arc::new(AtomicBool::new(false));
    let threads = spawn(pair.bench.take_workers(), &stop);
    let urgent = |opcode: CommandOpcode, body: &[u8]| {
        let token = pair.bench.post_command(1, opcode, body);
        let answered = || (0..4).map(|slot| pair.bench.response(1, slot)).find(|found| found.token == token);
        let deadline = Instant::now() + NET;
        while answered().is_none() {
            assert!(Instant::now() < deadline, "the lane that never waits does");
            thread::yield_now();
        }
        answered().map(|found| found.status)
    };
    let deadline = Instant::now() + NET;
    let (mut moves, mut faults, mut current) = (0, 0, 0);
    let marker = [0xaa; 0x1_0000];
    while (moves < 50 || faults < 100) && Instant::now() < deadline {
        // A page that is taken away again before the device retries is requested after a pause.
        pair.bench.clock.advance(1000);
        let before = faults;
        for fault in region.faults(&pair.bench) {
            faults += 1;
            let at = fault.address - HEAP;
            region.put(&pair.bench, fault.address, (frames[current] + at) | ODP_PRESENT | ODP_WRITABLE);
            let answer = ResumeFault { token: fault.token, answer: FAULT_RESOLVED, reserved: 0 };
            assert_eq!(urgent(CMD_RESUME_FAULT, answer.as_bytes()), Some(STATUS_OK));
        }
        if pair.cq_a.poll(&pair.bench).is_some_and(|entry| entry.status == WC_SUCCESS) {
            pair.a.send(&pair.bench, &pair.write(1, 0x1_0000, HEAP, region.key));
        }
        pair.a.ring(&pair.bench);
        // Time for the device to make use of what it was given.
        if before == faults {
            thread::yield_now();
            continue;
        }
        (0..PAGES).for_each(|page| region.put(&pair.bench, HEAP + page * 0x1000, 0));
        let zap = InvalidateMr { key: region.key, reserved: 0, start: HEAP, length: PAGES * 0x1000 };
        assert_eq!(urgent(CMD_INVALIDATE_MR, zap.as_bytes()), Some(STATUS_OK));
        let old = frames[current];
        current ^= 1;
        pair.bench.fill(old, &marker);
        thread::yield_now();
        assert!(pair.bench.bytes(old, 0x1_0000) == marker, "a write landed in a page that was taken away");
        moves += 1;
    }
    stop.store(true, Ordering::Relaxed);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(moves >= 50 && faults >= 100, "{moves} moves, {faults} faults");
}

/// Rounds in which a test's two sides must have met, and may fail to.
const MEETINGS: u32 = 5;

/// Repeats `round` until it has returned `true` often enough: what was to happen meanwhile did.
fn until_met(mut round: impl FnMut() -> bool) {
    let deadline = Instant::now() + NET;
    let mut met = 0;
    while met < MEETINGS {
        assert!(Instant::now() < deadline, "the two sides met {met} times in {NET:?}");
        met += u32::from(round());
    }
}

/// Executes a command while the workers run on their threads.
fn execute(bench: &Bench, opcode: CommandOpcode, body: &[u8]) -> CommandResponse {
    let token = bench.post_command(0, opcode, body);
    let deadline = Instant::now() + NET;
    loop {
        let mut responses = (0..4).map(|slot| bench.response(0, slot));
        if let Some(answer) = responses.find(|response| response.token == token) {
            return answer;
        }
        assert!(Instant::now() < deadline, "no answer to {opcode:?}");
        thread::yield_now();
    }
}

/// A pair in whose ring 16 writes of 64 KiB were begun, and its workers' threads.
fn stream(stop: &Arc<AtomicBool>) -> (Pair, Vec<thread::JoinHandle<()>>) {
    let mut pair = Pair::new();
    for id in 0..1 << LOG {
        pair.a.prepare(&pair.bench, &pair.write(id, 0x1_0000, pair.to, pair.rkey));
    }
    let threads = spawn(pair.bench.take_workers(), stop);
    pair.a.ring(&pair.bench);
    let deadline = Instant::now() + NET;
    while pair.cq_a.poll(&pair.bench).is_none() {
        assert!(Instant::now() < deadline, "the first write takes for ever");
        thread::yield_now();
    }
    (pair, threads)
}

/// Destroying a region while writes go through it: when the command is answered, nothing more lands.
#[test]
fn a_destroyed_region_is_silent_when_the_command_is_answered() {
    until_met(|| {
        let stop = Arc::new(AtomicBool::new(false));
        let (mut pair, threads) = stream(&stop);
        let key = ObjectId { id: pair.rkey, reserved: 0 };
        assert_eq!(execute(&pair.bench, CMD_DESTROY_MR, key.as_bytes()).status, STATUS_OK);
        let marker = [0xdd; 0x1_0000];
        pair.bench.fill(pair.to, &marker);
        // All that is left of the stream ends.
        let deadline = Instant::now() + NET;
        let mut ends = Vec::new();
        while ends.len() + 1 < 1 << LOG && Instant::now() < deadline {
            ends.extend(pair.cq_a.drain(&pair.bench).into_iter().map(|entry| entry.status));
            thread::yield_now();
        }
        assert_eq!(ends.len() + 1, 1 << LOG);
        assert!(pair.bench.bytes(pair.to, 0x1_0000) == marker);
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        ends.contains(&WC_REM_ACCESS_ERR)
    });
}

/// A queue pair writes to another one, which is reset and connected anew again and again. Its requests wait for the peer
/// without a limit, so it must notice each time that the peer is ready.
#[test]
fn a_peer_that_is_reset_again_and_again_is_noticed_each_time() {
    // No packet says that the peer is ready again.
    if IN_PACKETS {
        return;
    }
    const WRITES: usize = 8;
    let config = NicConfig { workers: 3, ..NicConfig::default() };
    let forever = ModifyQp { timeout: 0, ..PATIENT };
    let mut pair = Pair::on(Bench::new(config), forever);
    let reset = ModifyQp { qpn: pair.b.qpn, mask: QP_ATTR_STATE, state: QPS_RESET, ..ModifyQp::default() };
    let changes = [vec![reset], pair.b.steps(pair.a.qpn, QPS_RTS, forever)].concat();
    let stop = Arc::new(AtomicBool::new(false));
    let threads = spawn(pair.bench.take_workers(), &stop);
    for _ in 0..20 {
        until_met(|| {
            for id in 0..WRITES as u64 {
                pair.a.prepare(&pair.bench, &pair.write(id, 0x1_0000, pair.to, pair.rkey));
            }
            pair.a.ring(&pair.bench);
            assert_eq!(execute(&pair.bench, CMD_MODIFY_QP, changes[0].as_bytes()).status, STATUS_OK);
            let mut done = pair.cq_a.drain(&pair.bench).len();
            let was_busy = done < WRITES;
            for change in &changes[1..] {
                assert_eq!(execute(&pair.bench, CMD_MODIFY_QP, change.as_bytes()).status, STATUS_OK);
            }
            let deadline = Instant::now() + NET;
            while done < WRITES {
                assert!(Instant::now() < deadline, "the peer was not noticed");
                let entries = pair.cq_a.drain(&pair.bench);
                assert!(entries.iter().all(|entry| entry.status == WC_SUCCESS), "{entries:?}");
                done += entries.len();
                thread::yield_now();
            }
            was_busy
        });
    }
    stop.store(true, Ordering::Relaxed);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// Queue pairs that write to each other from several workers, in both directions.
#[test]
fn peers_on_different_workers_do_not_block_one_another() {
    let config = NicConfig { workers: 3, fault_window: 1, ..NicConfig::default() };
    let mut pair = Pair::on(Bench::new(config), ModifyQp { timeout: 1, ..PATIENT });
    let stop = Arc::new(AtomicBool::new(false));
    let threads = spawn(pair.bench.take_workers(), &stop);
    let mut done = 0;
    let deadline = Instant::now() + NET;
    while done < 2000 && Instant::now() < deadline {
        for _ in 0..4 {
            pair.a.prepare(&pair.bench, &pair.write(1, 4096, pair.to, pair.rkey));
            let back = request(OP_RDMA_READ, 2, &[sge(pair.to + 0x8000, 4096, pair.rkey)]);
            pair.b.prepare(&pair.bench, &SqWqe { remote_addr: pair.from, rkey: pair.lkey, ..back });
        }
        pair.a.ring(&pair.bench);
        pair.b.ring(&pair.bench);
        let mut round = 0;
        while round < 8 && Instant::now() < deadline {
            let entries = [pair.cq_a.drain(&pair.bench), pair.cq_b.drain(&pair.bench)].concat();
            assert!(entries.iter().all(|entry| entry.status == WC_SUCCESS), "{entries:?}");
            round += entries.len();
        }
        done += round;
    }
    stop.store(true, Ordering::Relaxed);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(done >= 2000, "{done} requests in {NET:?}");
}

/// Queue pairs of all workers send datagrams to each other, all receives from one shared queue: every receive request
/// is completed at most once, and none is lost.
#[test]
fn a_shared_queue_gives_each_request_to_one_queue_pair() {
    const QKEY: u32 = 5;
    const SENDERS: usize = 6;
    let config = NicConfig { workers: 3, ..NicConfig::default() };
    let pair = Pair::unconnected(Bench::new(config));
    let bench = &pair.bench;
    let mut srq = Srq::new(bench, pair.pd, pair.eq.eqn, 6);
    let mut cq = Cq::new(bench, pair.context, pair.eq.eqn, 12);
    let mut qps: Vec<Qp> = (0..SENDERS)
        .map(|_| {
            let command = Qp::command(bench, pair.pd, [cq.cqn; 2], pair.eq.eqn, 6);
            let command = CreateQp { srqn: srq.srqn, kind: QPT_UD, ..command };
            let qp = Qp::create(bench, pair.context, &command);
            raise_datagram(bench, &qp, QKEY);
            qp
        })
        .collect();
    let numbers: Vec<u32> = qps.iter().map(|qp| qp.qpn).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let threads = spawn(bench.take_workers(), &stop);
    let (mut posted, mut free) = (0u64, 64usize);
    let mut completed = std::collections::HashSet::new();
    let mut credits = [32usize; SENDERS];
    let (mut sent, mut answered) = (0, 0);
    let deadline = Instant::now() + Duration::from_secs(30);
    while answered < 6000 && Instant::now() < deadline {
        while srq.posted.wrapping_sub(srq.consumer(bench)) < 64 && free > 0 {
            posted += 1;
            free -= 1;
            srq.post(bench, posted, &[sge(pair.to, 256, pair.rkey)]);
        }
        for (index, qp) in qps.iter_mut().enumerate() {
            while credits[index] > 0 {
                credits[index] -= 1;
                sent += 1;
                let to = numbers[sent % SENDERS];
                qp.prepare(bench, &datagram(1 << 32, &[pair.source(0, 64)], to, QKEY));
            }
            qp.ring(bench);
        }
        for entry in cq.drain(bench) {
            assert_eq!(entry.status, WC_SUCCESS, "{entry:?}");
            if !entry.flags.contains(CQE_RECEIVE) {
                let index = numbers.iter().position(|&qpn| qpn == entry.qpn).unwrap();
                credits[index] += 1;
                answered += 1;
            } else {
                assert!(completed.insert(entry.wr_id), "request {} was completed twice", entry.wr_id);
                free += 1;
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(answered >= 6000, "{answered} datagrams in 30 s");
    // What was completed between the last look and the end.
    let received = cq.drain(bench).into_iter().filter(|entry| entry.flags.contains(CQE_RECEIVE));
    received.for_each(|entry| assert!(completed.insert(entry.wr_id)));
    assert!(completed.len() > 100, "{} arrived", completed.len());
    // What was posted is completed, still in the ring, or held by one of the queue pairs.
    let in_ring = u64::from(srq.posted.wrapping_sub(srq.consumer(bench)));
    let held = posted - completed.len() as u64 - in_ring;
    assert!(held <= SENDERS as u64, "{posted} posted, {} completed, {in_ring} left", completed.len());
}

/// Everything the NIC has is destroyed while datagrams, a shared queue, moderated events and a FLUSH are in flight.
#[test]
fn a_reset_under_all_kinds_of_traffic_ends_and_nothing_lands_afterwards() {
    let file = tempfile::tempfile().unwrap();
    let config = NicConfig { workers: 3, ..NicConfig::default() };
    let open = ModifyQp { access: ALL_RIGHTS.difference(ACCESS_LOCAL_WRITE) | FLUSH_RIGHTS, ..PATIENT };
    for _ in 0..20 {
        let mut pair = Pair::on(Bench::with_file(config.clone(), &file), open);
        let bench = &pair.bench;
        let disk = bench.pinned(pair.pd, MEMORY, MEMORY, 1 << 20, ALL_RIGHTS | FLUSH_RIGHTS);
        let mut srq = Srq::new(bench, pair.pd, pair.eq.eqn, 6);
        let command = Qp::command(bench, pair.pd, [pair.cq_b.cqn; 2], pair.eq.eqn, LOG);
        let command = CreateQp { srqn: srq.srqn, kind: QPT_UD, ..command };
        let mut speaker = Qp::create(bench, pair.context, &command);
        raise_datagram(bench, &speaker, 1);
        (0..64).for_each(|id| srq.post(bench, id, &[sge(pair.to, 4200, pair.rkey)]));
        srq.arm(bench, 60).unwrap();
        let rule = ModifyCq { cqn: pair.cq_b.cqn, count: 3, period_us: 50, reserved: 0 };
        bench.command::<_, ObjectId>(CMD_MODIFY_CQ, &rule).unwrap();
        pair.cq_b.arm(bench, false);
        for _ in 0..8 {
            pair.a.prepare(bench, &pair.write(1, 0x1_0000, MEMORY, disk));
            let flush = SqWqe { imm: FLUSH_PERSISTENT, rkey: disk, ..request(OP_FLUSH, 2, &[]) };
            pair.a.prepare(bench, &flush);
            speaker.prepare(bench, &datagram(3, &[pair.source(0, 4096)], speaker.qpn, 1));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let threads = spawn(bench.take_workers(), &stop);
        pair.a.ring(bench);
        speaker.ring(bench);
        thread::yield_now();
        bench.nic.reset();
        let marker = [0xcc; 0x1_0000];
        bench.fill(pair.to, &marker);
        bench.fill(MEMORY, &marker);
        let posted = srq.consumer(bench);
        thread::sleep(Duration::from_millis(5));
        assert!(bench.bytes(pair.to, 0x1_0000) == marker && bench.bytes(MEMORY, 0x1_0000) == marker);
        assert_eq!(srq.consumer(bench), posted);
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

/// A function-level reset while a worker is busy, and doorbells ring on another thread.
#[test]
fn a_reset_under_load_ends_and_nothing_lands_afterwards() {
    until_met(|| {
        let stop = Arc::new(AtomicBool::new(false));
        let (mut pair, threads) = stream(&stop);
        let value = Doorbell { kind: DOORBELL_SQ as u8, number: pair.a.qpn, argument: 0 }.encode();
        thread::scope(|scope| {
            let nic = &pair.bench.nic;
            let page = u64::from(pair.context) << 12;
            scope.spawn(move || (0..1000).for_each(|_| nic.bar_write(2, page, &value.to_le_bytes())));
            nic.reset();
        });
        let marker = [0xcc; 0x1_0000];
        pair.bench.fill(pair.to, &marker);
        let done = 1 + pair.cq_a.drain(&pair.bench).len();
        // As long as what was under way would take at the least.
        thread::sleep(Duration::from_millis(5));
        assert!(pair.bench.bytes(pair.to, 0x1_0000) == marker);
        assert!(pair.cq_a.drain(&pair.bench).is_empty(), "a completion after the reset");
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        done < 1 << LOG
    });
}
