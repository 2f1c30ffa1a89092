//! The recorder as its users see it: events in, faults and counts out.

use std::sync::Arc;

use refault_bus::clock::{Clock, ManualClock};
use refault_bus::probe::{Probe, ProbeEvent, RequestEvent, Stage};
use refault_bus::{AddressSpace, Iova, Pasid, PrgIndex};

use super::*;

/// A recorder on a clock that the test advances.
struct Bench {
    clock: Arc<ManualClock>,
    recorder: Arc<Recorder>,
}

fn event(stage: Stage, group: u64, qpn: u32, page: u64) -> ProbeEvent {
    ProbeEvent {
        group: Some(PrgIndex::truncated(group)),
        qpn,
        write: true,
        ..ProbeEvent::new(stage, AddressSpace::Process(Pasid::truncated(5)), Iova(page << 12))
    }
}

impl Bench {
    fn new(bound: usize) -> Self {
        let clock = Arc::new(ManualClock::default());
        clock.advance(1_000_000);
        let recorder = Recorder::new(clock.clone(), bound);
        Self { clock, recorder }
    }

    /// `after` nanoseconds, then an event.
    fn then(&self, after: u64, stage: Stage, group: u64, qpn: u32, page: u64) -> &Self {
        self.clock.advance(after);
        self.recorder.record(&event(stage, group, qpn, page));
        self
    }

    /// Everything between a page request and its match, which takes 2000 ns.
    fn answered(&self, group: u64) -> &Self {
        self.then(100, Stage::Queued, group, 0, 0)
            .then(200, Stage::Interrupt, group, 0, 0)
            .then(1500, Stage::Response, group, 0, 0)
            .then(200, Stage::Matched, group, 0, 0)
    }

    fn fault(&self, group: u64, qpn: u32, page: u64) -> &Self {
        self.then(10, Stage::Miss, 0, qpn, page)
            .then(40, Stage::PageRequest, group, qpn, page)
            .answered(group)
            .then(60, Stage::Copied, group, qpn, page)
    }

    fn anomalies(&self) -> u64 {
        self.recorder.observed().anomalies.values().sum()
    }
}

#[test]
fn a_fault_has_the_time_of_each_stage() {
    let bench = Bench::new(64);
    bench.recorder.begin("steady", "4k");
    bench.fault(3, 17, 0x1234);
    let [fault] = bench.recorder.faults()[..] else { panic!("one fault") };
    assert_eq!((fault.scenario, fault.qpn, fault.iova, fault.write), (1, 17, Iova(0x123_4000), true));
    assert_eq!((fault.space.pasid(), fault.group), (Pasid::new(5), Some(PrgIndex::truncated(3))));
    assert_eq!((fault.outcome, fault.requests), (FaultOutcome::Copied, 1));
    let expected = StageTimes {
        miss: 10,
        round: 10,
        page_request: Some(50),
        queued: Some(150),
        interrupt: Some(350),
        response: Some(1850),
        matched: Some(2050),
        end: 2110,
        ..StageTimes::default()
    };
    assert_eq!(fault.times, expected);
    let summary = bench.recorder.scenario_summary("steady", "4k");
    assert_eq!((summary.faults, summary.page_requests, summary.fault_ns.max), (1, 1, 2100));
    let parts = summary.split;
    assert_eq!((parts.device_ns.max, parts.iommu_ns.max, parts.guest_ns.max), (100, 500, 1500));
    assert_eq!(bench.anomalies(), 0);
}

#[test]
fn groups_are_reused_while_their_faults_still_copy() {
    let bench = Bench::new(64);
    bench.then(0, Stage::Miss, 0, 1, 0xa).then(1, Stage::PageRequest, 7, 1, 0xa).answered(7);
    bench.then(0, Stage::Miss, 0, 2, 0xb).then(1, Stage::PageRequest, 7, 2, 0xb);
    bench.then(5, Stage::Copied, 7, 1, 0xa);
    bench.answered(7).then(5, Stage::Copied, 7, 2, 0xb);
    let totals: Vec<_> = bench.recorder.faults().iter().map(|fault| fault.times.total()).collect();
    assert_eq!(totals, [1 + 2000 + 6, 1 + 5 + 2000 + 5]);
    assert_eq!(bench.anomalies(), 0);
}

#[test]
fn a_page_that_is_gone_again_adds_a_round() {
    for misses_again in [true, false] {
        let bench = Bench::new(64);
        bench.recorder.begin("exchange", "2m");
        bench.then(0, Stage::Miss, 0, 1, 0xa).then(50, Stage::PageRequest, 7, 1, 0xa).answered(7);
        if misses_again {
            bench.then(20, Stage::Miss, 0, 1, 0xa);
        }
        bench.then(30, Stage::PageRequest, 8, 1, 0xa).answered(8).then(60, Stage::Copied, 8, 1, 0xa);
        let [fault] = bench.recorder.faults()[..] else { panic!("one fault") };
        assert_eq!(fault.requests, 2);
        assert_eq!(fault.times.split().again, if misses_again { 2070 } else { 2080 });
        let summary = bench.recorder.scenario_summary("exchange", "2m");
        assert_eq!((summary.faults, summary.page_requests), (1, 2));
        assert_eq!(bench.anomalies(), 0);
    }
}

#[test]
fn a_prefetched_page_misses_again_when_its_turn_comes() {
    let bench = Bench::new(64);
    bench.then(0, Stage::Miss, 0, 1, 0xa).then(50, Stage::PageRequest, 7, 1, 0xa);
    bench.then(500, Stage::Miss, 0, 1, 0xa).answered(7).then(60, Stage::Copied, 7, 1, 0xa);
    let [fault] = bench.recorder.faults()[..] else { panic!("one fault") };
    assert_eq!((fault.requests, fault.times.total(), fault.times.split().again), (1, 2610, 0));
    assert_eq!(bench.anomalies(), 0);
}

#[test]
fn rounds_that_report_their_own_end_are_one_fault() {
    let bench = Bench::new(64);
    bench.then(0, Stage::Miss, 0, 1, 0xa).then(50, Stage::PageRequest, 7, 1, 0xa).answered(7);
    bench.then(20, Stage::Miss, 0, 1, 0xa).then(30, Stage::PageRequest, 8, 1, 0xa).answered(8);
    bench.then(60, Stage::Copied, 7, 1, 0xa).then(0, Stage::Copied, 8, 1, 0xa);
    let [fault] = bench.recorder.faults()[..] else { panic!("one fault") };
    assert_eq!((fault.times.total(), bench.anomalies()), (4160, 0));
}

#[test]
fn a_late_response_does_not_belong_to_the_next_fault() {
    let bench = Bench::new(64);
    bench.then(0, Stage::Miss, 0, 1, 0xa).then(50, Stage::PageRequest, 7, 1, 0xa);
    bench.then(10, Stage::Queued, 7, 0, 0).then(60, Stage::Copied, 7, 1, 0xa);
    bench.then(0, Stage::Miss, 0, 1, 0xa).then(50, Stage::PageRequest, 8, 1, 0xa);
    bench.then(10, Stage::Response, 7, 0, 0).then(10, Stage::Matched, 7, 0, 0);
    bench.answered(8).then(60, Stage::Copied, 8, 1, 0xa);
    let totals: Vec<_> = bench.recorder.faults().iter().map(|fault| fault.times.total()).collect();
    assert_eq!((&totals[..], bench.anomalies()), (&[120, 2130][..], 0));
}

#[test]
fn waiting_for_a_credit_is_the_devices_time() {
    let bench = Bench::new(64);
    bench.then(0, Stage::Miss, 0, 1, 0xa).then(5000, Stage::Miss, 0, 1, 0xa);
    bench.then(50, Stage::PageRequest, 7, 1, 0xa).answered(7).then(60, Stage::Copied, 7, 1, 0xa);
    let [fault] = bench.recorder.faults()[..] else { panic!("one fault") };
    assert_eq!((fault.requests, fault.times.split().device, fault.times.split().again), (1, 5110, 0));
    assert_eq!(bench.anomalies(), 0);
}

#[test]
fn a_queue_pairs_next_owner_does_not_inherit_its_faults() {
    let bench = Bench::new(64);
    bench.then(0, Stage::Miss, 0, 1, 0xa).then(50, Stage::PageRequest, 7, 1, 0xa).answered(7);
    bench.recorder.begin("kill", "4k");
    bench.clock.advance(1_000_000);
    bench.fault(9, 1, 0xa);
    let outcomes: Vec<_> = bench.recorder.faults().iter().map(|f| (f.outcome, f.requests)).collect();
    assert_eq!(outcomes, [(FaultOutcome::Abandoned, 1), (FaultOutcome::Copied, 1)]);
    assert_eq!(bench.recorder.scenario_summary("kill", "4k").fault_ns.max, 2100);
}

#[test]
fn a_queue_pair_waits_for_several_pages_at_once() {
    let bench = Bench::new(64);
    for page in 0..4 {
        bench.then(1, Stage::Miss, 0, 1, page).then(1, Stage::PageRequest, page, 1, page);
    }
    for page in 0..4 {
        bench.answered(page);
    }
    for page in 0..4 {
        bench.then(1, Stage::Copied, page, 1, page);
    }
    assert_eq!((bench.recorder.faults().len(), bench.anomalies()), (4, 0));
}

#[test]
fn coalesced_faults_are_counted_separately() {
    let bench = Bench::new(64);
    bench.then(0, Stage::Miss, 0, 1, 0xa).then(1, Stage::PageRequest, 7, 1, 0xa);
    bench.then(1, Stage::Miss, 0, 2, 0xa).answered(7);
    bench.then(5, Stage::Copied, 7, 2, 0xa).then(5, Stage::Copied, 7, 1, 0xa);
    let outcomes: Vec<_> = bench.recorder.faults().iter().map(|fault| fault.outcome).collect();
    assert_eq!(outcomes, [FaultOutcome::Coalesced, FaultOutcome::Copied]);
    assert_eq!((bench.recorder.observed().coalesced, bench.anomalies()), (1, 0));
}

#[test]
fn a_refused_page_fails_its_fault_and_not_the_percentiles() {
    let bench = Bench::new(64);
    bench.recorder.begin("truncate", "4k");
    bench.then(0, Stage::Miss, 0, 1, 0xa).then(1, Stage::PageRequest, 7, 1, 0xa);
    bench.answered(7).then(5, Stage::Failed, 7, 1, 0xa);
    let summary = bench.recorder.scenario_summary("truncate", "4k");
    assert_eq!((summary.faults, summary.failed, summary.fault_ns.max), (0, 1, 0));
}

#[test]
fn a_device_that_gives_up_frees_the_group() {
    let bench = Bench::new(64);
    bench.then(0, Stage::Miss, 0, 1, 0xa).then(1, Stage::PageRequest, 7, 1, 0xa);
    bench.then(1, Stage::Queued, 7, 0, 0).then(900, Stage::Failed, 7, 1, 0xa);
    let [fault] = bench.recorder.faults()[..] else { panic!("one fault") };
    assert_eq!((fault.outcome, fault.times.split().guest), (FaultOutcome::Failed, 900));
    bench.fault(7, 1, 0xb);
    assert_eq!((bench.recorder.faults().len(), bench.anomalies()), (2, 0));
}

#[test]
fn a_full_store_still_counts() {
    let bench = Bench::new(40);
    bench.recorder.begin("fsync", "4k");
    for round in 0..100 {
        bench.fault(round, 1, round);
    }
    bench.recorder.begin("punch", "4k");
    bench.fault(0, 1, 1);
    let observed = bench.recorder.observed();
    assert_eq!((observed.faults_kept, observed.faults_dropped), (6, 95));
    assert_eq!(bench.recorder.scenario_summary("fsync", "4k").faults, 100);
    assert_eq!(bench.recorder.faults().last().map(|fault| fault.scenario), Some(2));
}

#[test]
fn invalidations_are_timed_by_their_block() {
    let bench = Bench::new(64);
    bench.then(0, Stage::Invalidate, 0, 0, 0xa).then(30, Stage::Invalidate, 0, 0, 0xb);
    bench.then(10, Stage::Invalidated, 0, 0, 0xa).then(10, Stage::Invalidated, 0, 0, 0xb);
    bench.then(10, Stage::Invalidated, 0, 0, 0xc);
    let durations: Vec<_> = bench.recorder.invalidations().iter().map(|one| one.duration).collect();
    assert_eq!(durations, [40, 20]);
    let observed = bench.recorder.observed();
    assert_eq!((observed.invalidations, observed.invalidation_ns.max, bench.anomalies()), (2, 40, 1));
}

#[test]
fn records_have_the_time_spans_of_scenarios() {
    let bench = Bench::new(64);
    bench.clock.advance(5);
    bench.recorder.begin("steady", "4k");
    bench.clock.advance(10);
    bench.recorder.end();
    bench.fault(1, 1, 1);
    let records = bench.recorder.records();
    assert_eq!((records.scenarios[1].begin, records.scenarios[1].end), (5, 15));
    assert_eq!(records.faults.iter().next().map(|fault| fault.scenario), Some(0));
}

/// Six stages of a fault without an interrupt.
const ANSWERED: [Stage; 6] =
    [Stage::Miss, Stage::PageRequest, Stage::Queued, Stage::Response, Stage::Matched, Stage::Copied];

#[test]
fn concurrent_threads_lose_no_events() {
    let recorder = Recorder::new(Arc::new(refault_rig::clock::WallClock::new()), 1 << 16);
    recorder.begin("steady", "4k");
    std::thread::scope(|scope| {
        for thread in 0..4u32 {
            let recorder = &recorder;
            scope.spawn(move || {
                for round in 0..600u64 {
                    let group = u64::from(thread) * 100 + round % 100;
                    for stage in ANSWERED {
                        recorder.record(&event(stage, group, thread, round));
                    }
                }
            });
        }
    });
    let observed = recorder.observed();
    assert_eq!((observed.events_lost, observed.anomalies.len()), (0, 0), "{observed:?}");
    assert_eq!(recorder.scenario_summary("steady", "4k").faults, 2400);
    for fault in recorder.faults() {
        assert!(fault.times.miss <= fault.times.end);
    }
}

#[test]
fn events_beyond_the_queue_are_counted_as_lost() {
    let bench = Bench::new(64);
    bench.recorder.while_busy(|| {
        for page in 0..20_000 {
            bench.then(1, Stage::Miss, 0, 1, page);
        }
    });
    let observed = bench.recorder.observed();
    assert_eq!(observed.events_lost, 20_000 - 16 * 1024);
}

proptest::proptest! {
    /// Any events in any order cause no panic, and every miss is counted exactly once afterwards.
    #[test]
    fn any_order_of_events_is_survived(events in proptest::collection::vec((0u8..10, 0u64..3, 0u32..3, 0u64..3, 0u32..3), 0..300)) {
        use Stage::*;
        const STAGES: [Stage; 10] = [
            Miss, PageRequest, Queued, Interrupt, Response, Matched, Copied, Failed, Invalidate, Invalidated,
        ];
        let clock = Arc::new(ManualClock::default());
        let recorder = Recorder::new(clock.clone(), 4000);
        for (stage, group, qpn, page, pasid) in events {
            clock.advance(1);
            let group = (group > 0).then_some(PrgIndex::truncated(group));
            let space = match pasid {
                2 => AddressSpace::Region(0x101),
                pasid => AddressSpace::Process(Pasid::truncated(u64::from(pasid))),
            };
            recorder.record(&ProbeEvent { group, qpn, ..ProbeEvent::new(STAGES[usize::from(stage)], space, Iova(page << 12)) });
        }
        let faults = recorder.faults();
        for fault in &faults {
            let split = fault.times.split();
            proptest::prop_assert_eq!(split.device + split.iommu + split.guest + split.again, fault.times.total());
            proptest::prop_assert!(fault.times.end <= clock.now_ns());
        }
        let observed = recorder.observed();
        proptest::prop_assert_eq!((observed.faults_kept, observed.faults_dropped), (faults.len() as u64, 0));
        proptest::prop_assert!(observed.faults_open <= 18);
    }
}

/// A sampled request of queue pair `qpn` between two moments of the bench's clock, which begins at a millisecond.
fn request(qpn: u32, fetched: u64, end: u64) -> RequestEvent {
    let at = |ns: u64| 1_000_000 + ns;
    RequestEvent { qpn, fetched_ns: at(fetched), end_ns: at(end), ..RequestEvent::default() }
}

#[test]
fn a_sampled_request_belongs_to_its_scenario() {
    let bench = Bench::new(64);
    bench.recorder.begin("steady", "4k");
    bench.recorder.request(&request(17, 5, 2500));
    bench.fault(3, 17, 0x1234).fault(4, 18, 0x1234);
    let [request] = bench.recorder.requests()[..] else { panic!("one request") };
    assert_eq!((request.scenario, request.begin(), request.event.end_ns), (1, 5, 2500));
    // Queue pair 17 had a fault meanwhile; that of 18 belongs to another request.
    let own = bench.recorder.faults().iter().filter(|fault| request.has(fault)).count();
    assert_eq!(own, 1);
}

#[test]
fn sampled_requests_are_kept_up_to_a_bound_and_losses_are_counted() {
    let bench = Bench::new(64 * 8);
    bench.recorder.begin("steady", "4k");
    for at in 0..100 {
        bench.recorder.request(&request(1, at, at));
    }
    let Observed { requests_kept, requests_dropped, .. } = bench.recorder.observed();
    // An eighth of them: other scenarios are still to come.
    assert_eq!((requests_kept, requests_dropped), (8, 92));
    bench.recorder.while_busy(|| (0..2000).for_each(|at| bench.recorder.request(&request(1, at, at))));
    let observed = bench.recorder.observed();
    assert_eq!(observed.requests_lost, 2000 - 1024);
    assert_eq!(observed.requests_kept + observed.requests_dropped, 100 + 1024);
}
