//! The recorder with the real NIC and IOMMU: it must be able to assemble all of their events.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use refault_abi::codes::WC_SUCCESS;
use refault_bus::Iova;
use refault_bus::clock::Clock;
use refault_model::Process;
use refault_model::memory::FRAME;
use refault_model::nic::{QueuePair, work};
use refault_model::paging::{PageSize, Rights};
use refault_model::vtd::Answer;
use refault_nic::NicConfig;
use refault_observe::trace::{FaultOutcome, Recorder};
use refault_rig::clock::WallClock;
use refault_tests::machine::{Machine, MachineSetup};
use refault_tests::session::Session;
use refault_tests::threads;

const SOURCE: Iova = Iova(0x7f00_0000_0000);
const TARGET: Iova = Iova(0x7f80_0000_0000);
const AREA: u64 = 16 * FRAME;
/// Queue pairs that write at the same time.
const STREAMS: usize = 4;
/// Writes of each queue pair in one round.
const WRITES: u64 = 50;
/// Faults of a storm.
const FAULTS: u64 = 1000;
/// Bytes of each write: several pages.
const LENGTH: u32 = 5 * FRAME as u32 / 2;

/// A machine with a recorder, a process whose target has no page, and the clock of both.
fn recorded(nic: NicConfig) -> (Machine, Session, Arc<Recorder>, Arc<WallClock>) {
    let clock = Arc::new(WallClock::default());
    let recorder = Recorder::new(clock.clone(), 1 << 20);
    let machine = Machine::new(MachineSetup {
        nic,
        clock: Some(clock.clone()),
        probe: Some(recorder.clone()),
        ..MachineSetup::default()
    });
    let session = machine.open(1);
    session.process.map_area(SOURCE, AREA, Rights::Write, PageSize::Small);
    session.process.map_area(TARGET, AREA, Rights::Write, PageSize::Small);
    session.process.populate(SOURCE, AREA).unwrap();
    recorder.begin("storm", "4k");
    (machine, session, recorder, clock)
}

fn post(session: &Session, queue_pair: &mut QueuePair, id: u64) {
    let to = Iova(TARGET.0 + id.wrapping_mul(0x9e37_79b9) % (AREA - u64::from(LENGTH)));
    let key = session.region.key;
    let wqe = work::rdma_write(id, work::piece(SOURCE, LENGTH, key), to, key);
    queue_pair.post(&wqe).unwrap();
}

/// Runs every stream, one request at a time each, until all writes are done.
fn write_all(machine: &Machine, session: &mut Session, streams: &mut [QueuePair]) {
    let mut left = vec![WRITES; streams.len()];
    for stream in streams.iter_mut() {
        post(session, stream, WRITES);
    }
    while left.iter().any(|&left| left > 0) {
        let cqe = machine.driver.pause().until("a completion", || Ok(session.poll())).unwrap();
        assert_eq!(cqe.status, WC_SUCCESS);
        let index = streams.iter().position(|stream| stream.number() == cqe.qpn).unwrap();
        left[index] -= 1;
        if left[index] > 0 {
            post(session, &mut streams[index], left[index]);
        }
    }
}

/// Takes one page of the target after the other away until `stop` is set.
fn disturb(machine: &Machine, process: &Process, stop: &AtomicBool) {
    for step in 0u64.. {
        if stop.load(Ordering::Acquire) {
            break;
        }
        let page = Iova(TARGET.0 + step.wrapping_mul(0x85eb_ca6b) % (AREA / FRAME) * FRAME);
        if let Ok(leaf) = process.swap_out(page) {
            machine.memory.free(leaf.gpa, FRAME).unwrap();
        }
        if step % 4 == 0 {
            thread::yield_now();
        }
    }
}

#[test]
fn a_storm_of_faults_fits_together() {
    let nic = NicConfig { workers: 2, page_retry_limit: u32::MAX, sample_every: 5, ..NicConfig::default() };
    let (machine, mut session, recorder, clock) = recorded(nic);
    let mut streams: Vec<_> = (0..STREAMS).map(|_| session.add_pair(&machine.driver).0).collect();
    let (process, stop) = (session.process.clone(), AtomicBool::new(false));
    threads::run(&machine, clock.as_ref() as &dyn Clock, || {
        thread::scope(|scope| {
            scope.spawn(|| disturb(&machine, &process, &stop));
            while recorder.scenario_summary("storm", "4k").faults < FAULTS {
                write_all(&machine, &mut session, &mut streams);
            }
            stop.store(true, Ordering::Release);
        });
    });
    let (observed, sum) = (recorder.observed(), recorder.scenario_summary("storm", "4k"));
    assert_eq!((observed.events_lost, observed.faults_open, sum.abandoned, sum.failed), (0, 0, 0, 0));
    assert!(observed.anomalies.is_empty(), "{observed:?}");
    assert!(sum.page_requests >= sum.faults && observed.invalidations >= FAULTS, "{sum:?} {observed:?}");
    let copied = recorder.faults().into_iter().filter(|fault| fault.outcome == FaultOutcome::Copied);
    let whole = copied.filter(|fault| {
        let times = fault.times;
        let path = [times.page_request, times.queued, times.response, times.matched];
        let seen: Vec<_> = path.into_iter().flatten().collect();
        assert!(times.miss <= times.round && times.round <= times.end, "{fault:?}");
        assert!(times.response.is_none_or(|at| times.page_request < Some(at)), "{fault:?}");
        seen.len() == path.len()
    });
    // For the others the page was present before their own answer came: another request had brought it in.
    assert!(whole.count() as u64 * 2 > sum.faults, "{sum:?}");
    check_requests(&recorder);
}

/// Sampled requests have their rows in order, and their faults lie inside them.
fn check_requests(recorder: &Recorder) {
    let (requests, faults, observed) = (recorder.requests(), recorder.faults(), recorder.observed());
    assert_eq!((observed.requests_lost, observed.requests_dropped), (0, 0), "{observed:?}");
    // A fifth of the requests of each stream in one round.
    assert!(requests.len() as u64 >= STREAMS as u64 * WRITES / 5, "{}", requests.len());
    for request in &requests {
        let event = &request.event;
        let rows = [Some(event.fetched_ns), event.translated_ns, event.landed_ns, event.written_ns];
        assert!(rows.iter().all(Option::is_some) && rows.is_sorted(), "{event:?}");
        assert!(request.begin() <= event.fetched_ns && event.written_ns <= Some(event.end_ns), "{event:?}");
        assert_eq!((event.status, event.bytes, event.index % 5), (WC_SUCCESS.0, LENGTH, 0), "{event:?}");
        let own = faults.iter().filter(|fault| request.has(fault)).count() as u32;
        // A page that was gone again at the retry is one fault, but missing twice.
        assert!(own <= event.faults && (own > 0) == (event.faults > 0), "{own} faults of {event:?}");
    }
    assert!(requests.iter().any(|request| request.event.faults > 0));
}

#[test]
fn a_refused_page_is_one_failed_fault() {
    let (machine, mut session, recorder, _) = recorded(NicConfig { workers: 1, ..NicConfig::default() });
    session.write(1, SOURCE, Iova(TARGET.0 + AREA), 64);
    machine.settle();
    let [fault] = recorder.faults()[..] else { panic!("{:?}", recorder.faults()) };
    assert_eq!((fault.outcome, fault.iova), (FaultOutcome::Failed, Iova(TARGET.0 + AREA)));
    assert!(fault.times.response.is_some() && fault.times.matched.is_some(), "{fault:?}");
    assert!(recorder.observed().anomalies.is_empty(), "{:?}", recorder.observed());
}

#[test]
fn a_queue_pair_destroyed_in_the_middle_leaves_no_fault_open() {
    let (machine, mut session, recorder, _) = recorded(NicConfig { workers: 1, ..NicConfig::default() });
    session.write(1, SOURCE, TARGET, 64);
    machine.settle_with(|_| Answer::Later);
    assert_eq!(recorder.observed().faults_open, 1);
    session.reconnect(&machine.driver);
    machine.settle();
    let observed = recorder.observed();
    assert_eq!((observed.faults_open, observed.failed), (0, 1), "{observed:?}");
}
