//! Fault handlers as servers: independent faults at random times must wait as long as queueing theory says.
//!
//! The closed forms are those of Kleinrock, Queueing Systems, volume 1: M/M/1 (3.2), M/G/1 for M/D/1 (5.6), M/M/m
//! for Erlang C (3.5). Every step but the handling takes no time, so a handler's wait is the queue's.

use refault_lab::engine::run;
use refault_lab::scenario::{Arrival, Delay, Device, Guest, Load, Pattern, Scenario, Timing, defaults};

/// Mean time to handle a fault.
const SERVICE_NS: f64 = 20_000.0;
/// Runs over which the mean is taken, each with a seed of its own.
const SEEDS: u64 = 10;
/// Faults of each run.
const FAULTS: u64 = 60_000;

/// Faults that arrive at random, each with its own queue pair and page, so that they wait only for a handler.
fn faults(seed: u64, load: f64, handlers: u32, service: Delay) -> Scenario {
    let mut timing = Timing::instant(1 << 40);
    timing.minor = service;
    Scenario {
        seed,
        load: Load {
            pattern: Pattern::Strided { stride_bytes: 4096 },
            message_bytes: 64,
            region_bytes: 2 << 20,
            queue_pairs: 512,
            arrival: Arrival::Poisson { per_second: load * f64::from(handlers) * 1e9 / SERVICE_NS },
            cold_share: 1.0,
            ..defaults().load.clone()
        },
        device: Device { credits: 512, page_request_order: 7, fault_window: 1, ..defaults().device },
        guest: Guest { handlers, ..defaults().guest },
        timing,
        requests: FAULTS,
        ..defaults().clone()
    }
}

/// Mean wait over all seeds, in units of the mean service time.
fn mean_wait(load: f64, handlers: u32, service: &Delay) -> f64 {
    let (mut waited, mut handled) = (0, 0);
    for seed in 1..=SEEDS {
        let outcome = run(&faults(seed, load, handlers, service.clone())).expect("the experiment ends");
        assert_eq!(outcome.handlers.faults, FAULTS, "each request faults once");
        assert_eq!(outcome.load.failed, 0);
        waited += outcome.handlers.wait_ns;
        handled += u128::from(outcome.handlers.faults);
    }
    waited as f64 / handled as f64 / SERVICE_NS
}

/// Probability that a fault finds all of `handlers` busy: Erlang's C formula.
fn erlang_c(load: f64, handlers: u32) -> f64 {
    let offered = load * f64::from(handlers);
    // Erlang B by its recurrence, then C from B.
    let blocked = (1..=handlers).fold(1.0, |b, n| offered * b / (f64::from(n) + offered * b));
    blocked / (1.0 - load * (1.0 - blocked))
}

fn assert_within(what: &str, found: f64, expected: f64, share: f64) {
    let off = found / expected - 1.0;
    println!(
        "{what}: mean wait {found:.4} of a service time, {expected:.4} by theory, {:+.2} %",
        off * 100.0
    );
    assert!(off.abs() <= share, "{what}: {found} is not within {} % of {expected}", share * 100.0);
}

#[test]
fn constant_service_waits_as_an_m_d_1_queue() {
    for load in [0.3, 0.6] {
        let found = mean_wait(load, 1, &Delay::Constant(SERVICE_NS as u64));
        assert_within(&format!("M/D/1 at {load}"), found, load / (2.0 * (1.0 - load)), 0.02);
    }
}

#[test]
fn exponential_service_waits_as_an_m_m_1_queue() {
    for load in [0.3, 0.6] {
        let found = mean_wait(load, 1, &Delay::Exponential { mean: SERVICE_NS });
        assert_within(&format!("M/M/1 at {load}"), found, load / (1.0 - load), 0.02);
    }
}

#[test]
fn several_handlers_wait_as_erlang_says() {
    for (handlers, load) in [(2, 0.6), (4, 0.7)] {
        let found = mean_wait(load, handlers, &Delay::Exponential { mean: SERVICE_NS });
        let expected = erlang_c(load, handlers) / (f64::from(handlers) * (1.0 - load));
        assert_within(&format!("M/M/{handlers} at {load}"), found, expected, 0.03);
    }
}
