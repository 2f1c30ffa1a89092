//! Streams of events as a guest leaves them, intact and damaged.

use refault_bus::{AddressSpace, Iova, Pasid, PrgIndex};

use super::event::{GuestEvent, GuestStep};
use super::load::Reading;
use super::*;
use crate::trace::{FaultOutcome, FaultRecord, FaultStore, Observed, Records, ScenarioSpan, StageTimes};

/// The device's clock when the recorder started.
const ORIGIN: u64 = 5_000;
const SPACE: AddressSpace = AddressSpace::Process(Pasid::truncated(9));

/// A sequence of faults, and the guest's events about them.
struct Run {
    records: Records,
    trace: GuestTrace,
    /// The stages as they were, in the recorder's time.
    truth: Vec<[u64; 3]>,
}

/// The guest's clock at a time of the recorder.
fn guest(at: u64, drift: f64) -> u64 {
    (at as f64 * (1.0 + drift)) as u64 + 3_000_000_000
}

/// Delays that look random and are the same every time.
fn delay(index: u64, step: u64) -> u64 {
    2_000 + (index * 7_919 + step * 104_729) % 60_000
}

fn run(faults: u64, drift: f64) -> Run {
    let mut store = FaultStore::new(faults as usize);
    let (mut events, mut truth) = (Vec::new(), Vec::new());
    for index in 0..faults {
        let requested = 1_000_000 + index * 400_000;
        let taken = requested + delay(index, 1);
        let handling = taken + delay(index, 2);
        let handled = handling + delay(index, 3);
        let response = handled + delay(index, 4);
        let page = 0x7f00_0000_0000 + index % 16 * 4096;
        let group = PrgIndex::truncated(index % 4);
        store.push(&FaultRecord {
            scenario: 0,
            qpn: 7,
            space: SPACE,
            iova: Iova(page),
            write: true,
            group: Some(group),
            requests: 1,
            outcome: FaultOutcome::Copied,
            times: StageTimes {
                miss: requested - 500,
                round: requested - 500,
                page_request: Some(requested),
                queued: Some(requested + 300),
                interrupt: Some(requested + 800),
                response: Some(response),
                matched: Some(response + 100),
                end: response + 900,
                ..StageTimes::default()
            },
        });
        let event =
            |at, thread, step, fault, page| GuestEvent { at: guest(at, drift), thread, step, fault, page };
        let key = Some((SPACE, group));
        // One thread takes entries, and one of two handlers has the fault.
        let handler = 20 + index as u32 % 2;
        events.push(event(taken, 10, GuestStep::Taken, key, Some(page)));
        events.push(event(handling, handler, GuestStep::Handling, None, None));
        events.push(event(handled, handler, GuestStep::Handled, key, Some(page)));
        events.push(event(response - 1_500, handler, GuestStep::Submitted, key, None));
        truth.push([taken, handling, handled]);
    }
    let reading = |at: u64| Reading {
        before: guest(at - 20_000, drift),
        device: at + ORIGIN,
        after: guest(at + 15_000, drift),
    };
    let readings = vec![reading(100_000), reading(1_000_000 + faults * 400_000)];
    let records = Records {
        scenarios: vec![ScenarioSpan::default()],
        faults: store,
        invalidations: Vec::new(),
        requests: Vec::new(),
        observed: Observed::default(),
    };
    Run { records, trace: GuestTrace { events, readings, ..GuestTrace::default() }, truth }
}

/// Asserts that every merged stage is right within the promised uncertainty. Returns the number of faults with all three.
fn check(run: &Run, stages: &GuestStages) -> usize {
    let within = stages.clocks.expect("aligned").uncertainty_ns + 3;
    let mut whole = 0;
    for (fault, truth) in run.records.faults.iter().zip(&run.truth) {
        let times = fault.times;
        let reported = [times.taken, times.handling, times.handled];
        for (reported, truth) in reported.iter().zip(truth) {
            assert!(
                reported.is_none_or(|reported| reported.abs_diff(*truth) <= within),
                "{reported:?} is not {truth}"
            );
        }
        let path = [times.page_request, times.taken, times.handling, times.handled, times.response];
        let seen: Vec<_> = path.into_iter().flatten().collect();
        assert!(seen.is_sorted(), "{fault:?}");
        whole += usize::from(reported.iter().all(Option::is_some));
    }
    whole
}

#[test]
fn every_fault_is_split_for_any_clocks_and_order_of_events() {
    for drift in [0.0, 4e-5, -3e-4] {
        let mut run = run(500, drift);
        run.trace.events.reverse();
        let stages = run.trace.clone().merge(ORIGIN, &mut run.records);
        assert_eq!((stages.faults, stages.split, stages.requests_unmatched), (500, 500, 0), "{stages:?}");
        assert_eq!(check(&run, &stages), 500);
        let clocks = stages.clocks.expect("aligned");
        assert!(clocks.uncertainty_ns < 10_000, "{clocks:?}");
        let names: Vec<_> = stages.segments.iter().map(|segment| segment.name.as_str()).collect();
        assert_eq!(names, ["guest wakes", "wait for a handler", "map the page", "guest responds"]);
    }
}

#[test]
fn lost_events_cost_only_their_own_faults() {
    let mut run = run(400, 1e-5);
    let mut index = 0u64;
    run.trace.events.retain(|_| {
        index += 1;
        !(index * 2_654_435_761).is_multiple_of(11)
    });
    run.trace.lost = 1600 - run.trace.events.len() as u64;
    let stages = run.trace.clone().merge(ORIGIN, &mut run.records);
    assert!(stages.events_lost > 50 && stages.not_split.is_none(), "{stages:?}");
    let whole = check(&run, &stages);
    assert!(whole > 250 && whole < 400, "{whole}");
    assert!(stages.line().contains("lost"), "{}", stages.line());
}

#[test]
fn unmatched_faults_and_requests_are_counted() {
    let mut run = run(100, 0.0);
    // The guest reported nothing of the last ten, and the first ten have no record.
    let from = guest(1_000_000 + 90 * 400_000, 0.0);
    run.trace.events.retain(|event| event.at < from);
    let mut kept = FaultStore::new(100);
    run.records.faults.iter().skip(10).for_each(|fault| assert!(kept.push(&fault)));
    run.records.faults = kept;
    let stages = run.trace.merge(ORIGIN, &mut run.records);
    assert_eq!((stages.faults, stages.split, stages.requests_unmatched), (90, 80, 10));
}

#[test]
fn contradicting_clocks_split_nothing() {
    let mut run = run(100, 0.0);
    for event in &mut run.trace.events {
        // Later than any response that the recorder saw, and still within the range that the readings allow.
        event.at += 17_000;
    }
    for index in 0..100u64 {
        let event = &mut run.trace.events[4 * index as usize + 3];
        event.at += delay(index, 4);
    }
    let before: Vec<_> = run.records.faults.iter().collect();
    let stages = run.trace.merge(ORIGIN, &mut run.records);
    assert!(stages.not_split.as_ref().is_some_and(|why| why.contains("contradict")), "{stages:?}");
    assert_eq!(run.records.faults.iter().collect::<Vec<_>>(), before);
}

#[test]
fn without_a_reading_of_both_clocks_nothing_is_split() {
    let mut run = run(10, 0.0);
    run.trace.readings.clear();
    let stages = run.trace.merge(ORIGIN, &mut run.records);
    assert!(stages.not_split.is_some() && stages.split == 0);
    assert!(stages.line().contains("not split"), "{}", stages.line());
}

#[test]
fn a_segment_shorter_than_the_uncertainty_says_so() {
    let mut run = run(50, 0.0);
    // Only the readings remain, 35 us apart; the guest wakes in less.
    run.records.faults.update(|fault| fault.times.response = fault.times.response.map(|at| at + 100_000));
    let stages = run.trace.clone().merge(ORIGIN, &mut run.records);
    let uncertainty = stages.clocks.expect("aligned").uncertainty_ns;
    let wakes = &stages.segments[0];
    assert!(wakes.crosses_clocks && wakes.below_uncertainty > 0, "{stages:?}");
    let short = run.records.faults.iter().filter(|fault| {
        fault.times.segments().any(|part| part.name == wakes.name && part.to - part.from < uncertainty)
    });
    assert_eq!(wakes.below_uncertainty, short.count() as u64);
}
