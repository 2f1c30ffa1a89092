//! Whatever the wire does, each request is executed once and in order.

use refault_roce::{Mtu, Psn};
use refault_transport::{ReadReplay, RequesterConfig, ResponderConfig};

use crate::Random;
use crate::program::{MEMORY, execute, random_program};
use crate::wire::{Faults, Wire};
use crate::world::{Habits, World};

const QPN: u32 = 0x11;
const TIMEOUT_NS: u64 = 100_000;

/// Runs one program over one wire and checks what it did.
fn run(seed: u64, faults: Faults, habits: Habits) -> World {
    let mut random = Random(seed);
    let mtu = Mtu::from_code(1 + u8::try_from(random.below(5)).unwrap()).unwrap();
    let (at_once, window) = (1 + random.below(16), 1 + random.below(128));
    let at_once = u8::try_from(at_once).unwrap();
    let requester = RequesterConfig {
        window,
        timeout_ns: Some(TIMEOUT_NS),
        retry_count: u8::MAX,
        max_rd_atomic: at_once,
        resumes: habits.ready > 0 && random.chance(500),
        dams: habits.ready > 0 && random.chance(500),
        ..RequesterConfig::new(mtu, QPN)
    };
    let read_replay = if random.chance(500) { ReadReplay::First } else { ReadReplay::Middle };
    let responder =
        ResponderConfig { max_dest_rd_atomic: at_once, read_replay, ..ResponderConfig::new(mtu, QPN) };
    // Half of them wrap around.
    let first = Psn::new(random.below(1 << 24));
    let first = if random.chance(500) { Psn::new(0).after(u32::MAX - random.below(50)) } else { first };
    let requests = 1 + random.below(60) as usize;
    let program = random_program(&mut random, mtu, requests);
    let mut memory = vec![0; MEMORY];
    random.fill(&mut memory);
    let expected = execute(&program, memory.clone());
    let wire = Wire::new(faults, random.clone());
    let configs = (requester, responder);
    let mut world = World::new(configs, first, program, memory, (wire, habits, random));
    world.run();
    assert_eq!(world.effects, expected, "seed {seed}: {configs:?}");
    world
}

/// How many programs: `TRANSPORT_SEEDS`, or few enough for each run of the tests.
fn seeds() -> u64 {
    std::env::var("TRANSPORT_SEEDS").map_or(400, |text| text.parse().expect("TRANSPORT_SEEDS: a number"))
}

#[test]
fn a_good_wire_needs_no_repetition() {
    for seed in 0..seeds() {
        let world = run(seed, Faults::default(), Habits::default());
        let counters = world.requester.counters();
        assert_eq!((counters.repeated, counters.timeouts, counters.ignored), (0, 0, 0), "seed {seed}");
        assert_eq!(world.responder.counters(), Default::default(), "seed {seed}");
    }
}

#[test]
fn loss_of_one_in_a_thousand_to_one_in_five_changes_nothing() {
    let mut repeated = 0;
    for seed in 0..seeds() {
        let loss = [1, 10, 50, 200][usize::try_from(seed % 4).unwrap()];
        repeated +=
            run(seed, Faults { loss, ..Faults::default() }, Habits::default()).requester.counters().repeated;
    }
    assert!(repeated > seeds(), "only {repeated}");
}

#[test]
fn nothing_that_a_wire_does_changes_anything() {
    for seed in 0..seeds() {
        let faults = Faults { loss: 30, duplicate: 30, corrupt: 30, reorder: 30 };
        run(seed, faults, Habits::default());
    }
}

#[test]
fn receivers_that_are_not_ready_and_missing_pages_change_nothing() {
    let (mut not_ready, mut lost_responses) = (0, 0);
    for seed in 0..seeds() {
        let habits = Habits { not_ready: 200, drop: 30, drop_response: 30, ..Habits::default() };
        let faults = Faults { loss: if seed % 2 == 0 { 0 } else { 20 }, ..Faults::default() };
        let world = run(seed, faults, habits);
        not_ready += world.requester.counters().not_ready;
        lost_responses += world.requester.counters().lost_responses;
    }
    assert!(not_ready > seeds() && lost_responses > seeds() / 10, "{not_ready}, {lost_responses}");
}

#[test]
fn receivers_that_say_when_they_are_ready_change_nothing() {
    let (mut resumed, mut not_ready) = (0, 0);
    for seed in 0..seeds() {
        let habits = Habits { not_ready: 200, ready: 300, drop: 30, drop_response: 30 };
        let faults = Faults { loss: if seed % 2 == 0 { 0 } else { 20 }, ..Faults::default() };
        let world = run(seed, faults, habits);
        resumed += world.requester.counters().resumed;
        not_ready += world.requester.counters().not_ready;
    }
    assert!(resumed > seeds() / 10 && not_ready > seeds(), "{resumed}, {not_ready}");
}
