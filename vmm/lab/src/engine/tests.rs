//! Experiments with known outcomes.

use super::run;
use crate::scenario::{
    Churn, ChurnOperation, Delay, Device, Guest, Load, Pattern, Scenario, Timing, TranslationMode, defaults,
};
use refault_observe::trace::FaultOutcome;

/// Cold sequential writes of a page each, one at a time; only copying takes time.
fn cold(requests: u64) -> Scenario {
    Scenario {
        load: Load { region_bytes: 4 << 20, cold_share: 1.0, ..defaults().load.clone() },
        device: Device { fault_window: 1, ..defaults().device },
        timing: Timing::instant(10_000),
        requests,
        ..defaults().clone()
    }
}

/// A distinct power of two for each step, so that a sum identifies its steps.
fn distinct() -> Timing {
    let mut timing = Timing::instant(1 << 40);
    for (power, step) in Timing::STEPS.iter().enumerate() {
        *timing.step_mut(step).unwrap() = Delay::Constant(1 << power);
    }
    timing
}

/// The sum of some steps of [`distinct`].
fn sum(steps: &[&str]) -> u64 {
    let place = |step: &&str| Timing::STEPS.iter().position(|known| known == step).expect("a step");
    steps.iter().map(|step| 1 << place(step)).sum()
}

#[test]
fn a_cold_write_takes_the_sum_of_its_steps() {
    let mut scenario = cold(2);
    scenario.timing = distinct();
    let outcome = run(&scenario).unwrap();
    let faults: Vec<_> = outcome.records.faults.iter().collect();
    assert_eq!(faults.len(), 2);
    let times = faults[1].times;
    assert_eq!(faults[1].outcome, FaultOutcome::Copied);
    let from = |at: Option<u64>, since: u64| at.unwrap() - since;
    assert_eq!(from(times.queued, times.page_request.unwrap()), sum(&["page_request", "queue_write"]));
    assert_eq!(from(times.taken, times.interrupt.unwrap()), sum(&["interrupt", "wake"]));
    assert_eq!(times.handling, times.taken);
    assert_eq!(from(times.handled, times.handling.unwrap()), sum(&["minor", "table_update"]));
    assert_eq!(from(times.response, times.handled.unwrap()), sum(&["response"]));
    assert_eq!(from(times.matched, times.response.unwrap()), sum(&["response_message"]));
    assert_eq!(times.end - times.matched.unwrap(), sum(&["device_wake", "translation", "copy"]));
    // Of the second write: by then the source and the rings are in the device TLB.
    let all = [
        "doorbell",
        "fetch",
        "translation",
        "page_request",
        "queue_write",
        "interrupt",
        "wake",
        "minor",
        "table_update",
        "response",
        "response_message",
        "device_wake",
        "translation",
        "copy",
        "completion",
    ];
    assert_eq!(outcome.load.latency_ns.min(), outcome.load.latency_ns.lowest_equivalent(sum(&all)));
}

#[test]
fn every_cold_request_faults_once() {
    let outcome = run(&cold(3000)).unwrap();
    assert_eq!((outcome.load.completed, outcome.load.failed), (3000, 0));
    assert_eq!(outcome.records.faults.iter().count(), 3000);
    assert_eq!((outcome.counters.nic.page_requests, outcome.counters.iommu.page_requests), (3000, 3000));
    assert_eq!(outcome.handlers.faults, 3000);
    assert_eq!(outcome.counters.observed.events_lost, 0);
}

#[test]
fn an_on_demand_region_faults_with_the_same_steps() {
    let mut scenario = cold(3);
    scenario.device.mode = TranslationMode::Odp;
    scenario.timing = distinct();
    let outcome = run(&scenario).unwrap();
    let faults: Vec<_> = outcome.records.faults.iter().collect();
    assert_eq!(faults.len(), 3);
    assert!(faults.iter().all(|fault| fault.space.key().is_some()));
    let times = faults[2].times;
    let from = |at: Option<u64>, since: u64| at.unwrap() - since;
    assert_eq!(from(times.queued, times.page_request.unwrap()), sum(&["page_request", "queue_write"]));
    assert_eq!(from(times.taken, times.interrupt.unwrap()), sum(&["interrupt", "wake"]));
    assert_eq!(from(times.handled, times.handling.unwrap()), sum(&["minor", "table_update"]));
    assert_eq!(from(times.response, times.handled.unwrap()), sum(&["response", "response_message"]));
    assert_eq!(times.end - times.matched.unwrap(), sum(&["device_wake", "copy"]));
    assert_eq!((outcome.counters.nic.page_faults, outcome.counters.nic.page_requests), (3, 0));
}

#[test]
fn both_translation_modes_take_the_same_faults() {
    let faults = |mode| {
        let mut scenario = cold(500);
        scenario.device.mode = mode;
        scenario.load.pattern = Pattern::Random;
        scenario.load.cold_share = 0.3;
        scenario.load.queue_pairs = 4;
        let outcome = run(&scenario).unwrap();
        assert_eq!((outcome.load.completed, outcome.load.failed), (500, 0));
        outcome.records.faults.iter().filter(|fault| fault.outcome == FaultOutcome::Copied).count()
    };
    assert_eq!(faults(TranslationMode::Pasid), faults(TranslationMode::Odp));
}

#[test]
fn fault_timeouts_fail_requests_but_not_the_experiment() {
    for mode in [TranslationMode::Pasid, TranslationMode::Odp] {
        let mut scenario = cold(20);
        scenario.device.mode = mode;
        scenario.device.fault_timeout_ns = Some(1_000_000);
        scenario.timing.minor = Delay::Constant(3_000_000);
        let outcome = run(&scenario).unwrap();
        assert_eq!(outcome.load.completed + outcome.load.failed, 20);
        assert!(outcome.load.failed > 0, "{mode:?}: nothing timed out");
    }
}

#[test]
fn few_credits_are_shared_fairly() {
    for mode in [TranslationMode::Pasid, TranslationMode::Odp] {
        let mut scenario = cold(3000);
        scenario.device.mode = mode;
        scenario.device.credits = 2;
        scenario.load.queue_pairs = 32;
        scenario.timing = Timing::instant(1 << 40);
        scenario.timing.minor = Delay::Constant(1000);
        let outcome = run(&scenario).unwrap();
        let longest = outcome.records.faults.iter().map(|fault| fault.times.total()).max().unwrap();
        // One handler: a round of all 32 queue pairs takes 32 us.
        assert!(longest <= 2 * 32_000, "{mode:?}: a fault of 1000 ns took {longest} ns");
    }
}

#[test]
fn handlers_run_in_parallel_except_under_the_lock() {
    let mean = |handlers, locked_share, batch| {
        let mut scenario = cold(2000);
        scenario.load.queue_pairs = 16;
        scenario.guest = Guest { handlers, locked_share, batch, prefetch: 0, major_share: 0.0 };
        scenario.timing = Timing::instant(1 << 40);
        scenario.timing.minor = Delay::Constant(1000);
        run(&scenario).unwrap().load.duration_ns as f64 / 2000.0
    };
    assert!((mean(1, 0.0, 1) - 1000.0).abs() < 20.0, "one handler serializes faults");
    assert!((mean(4, 0.0, 1) - 250.0).abs() < 20.0, "four handlers run in parallel");
    assert!((mean(4, 1.0, 1) - 1000.0).abs() < 20.0, "the lock serializes all handling");
    assert!((mean(4, 0.5, 1) - 500.0).abs() < 20.0, "the lock is the bottleneck");
    assert!((mean(1, 0.0, 8) - 1000.0).abs() < 20.0, "a batch saves no work");
}

#[test]
fn prefetched_pages_do_not_fault() {
    for mode in [TranslationMode::Pasid, TranslationMode::Odp] {
        let mut scenario = cold(1);
        scenario.device.mode = mode;
        scenario.load.message_bytes = 1 << 20;
        scenario.guest.prefetch = 255;
        let outcome = run(&scenario).unwrap();
        assert_eq!((outcome.handlers.faults, outcome.handlers.prefetched), (1, 255), "{mode:?}");
        scenario.guest.prefetch = 0;
        assert_eq!(run(&scenario).unwrap().handlers.faults, 256, "{mode:?}");
    }
}

#[test]
fn a_seed_determines_the_outcome() {
    let scenario = |seed| {
        let mut scenario = cold(2000);
        scenario.seed = seed;
        scenario.load.queue_pairs = 16;
        scenario.load.pattern = Pattern::Random;
        scenario.load.cold_share = 0.5;
        scenario.timing.minor = Delay::Exponential { mean: 5000.0 };
        scenario.timing.translation = Delay::Uniform { low: 100, high: 900 };
        scenario.churn = Some(Churn { operation: ChurnOperation::Move, per_second: 50_000.0, pages: 3 });
        let outcome = run(&scenario).unwrap();
        let faults: Vec<_> = outcome.records.faults.iter().collect();
        (faults, outcome.load.latency_ns, outcome.handlers)
    };
    assert_eq!(scenario(1), scenario(1));
    assert_ne!(scenario(1).0, scenario(2).0);
}
