//! Packets on the virtual clock: what must be, computed by hand, and what was published.

use std::io::Write;
use std::sync::{Arc, Mutex};

use refault_lab::engine::{CaptureTo, EngineError, run, run_captured};
use refault_lab::figures::Figures;
use refault_lab::scenario::{Draft, Scenario};
use refault_lab::shipped::no_files;
use refault_link::frames;
use refault_roce::{Addresses, frame};

const POLICIES: [&str; 4] = ["stall", "rnr", "drop", "resume-nak"];

/// A shipped scenario with settings.
fn scenario(name: &str, settings: &[&str]) -> Scenario {
    let mut draft = Draft::open(name, &no_files).expect("it is shipped");
    settings.iter().for_each(|setting| draft.set(setting).expect("a setting"));
    draft.check().expect("a scenario")
}

fn figures(name: &str, settings: &[&str]) -> Figures {
    let scenario = scenario(name, settings);
    Figures::of(&scenario, &run(&scenario).expect("it ends"))
}

/// One request at a time on an idle wire of 12.5 GB/s with 2 us one way, each with a page that takes 220 us.
fn alone(settings: &[&str]) -> Figures {
    let one = [
        "requests=50",
        "load.message=4K",
        "load.queue_pairs=1",
        "load.bystanders=0",
        "load.depth=1",
        "load.cold_share=1.0",
    ];
    figures("wire-faults", &[&one, settings].concat())
}

/// Nanoseconds of the wire's rate and delay.
fn wire_ns(bytes: u64) -> u64 {
    (bytes + 24) * 10 / 125 + 2000
}

/// A WRITE of a page: Ethernet, IPv6, UDP, BTH, RETH, payload, ICRC; and its acknowledgement.
fn round_trip_ns() -> u64 {
    wire_ns(14 + 40 + 8 + 12 + 16 + 4096 + 4) + wire_ns(14 + 40 + 8 + 12 + 4 + 4)
}

/// Within `permille` of what is expected.
fn near(found: u64, expected: u64, permille: u64) -> bool {
    found.abs_diff(expected) * 1000 <= expected * permille
}

#[test]
fn one_scenario_has_one_outcome_whatever_is_lost() {
    for policy in POLICIES {
        let policy = format!("device.remote_faults={policy}");
        let settings =
            [&policy, "wire.loss=0.01", "wire.prefault=true", "requests=600", "load.write_share=0.7"];
        let scenario = scenario("wire-faults", &settings);
        let [first, second] = [(); 2].map(|()| run(&scenario).expect("it ends"));
        let of = |outcome| Figures::of(&scenario, outcome);
        assert!(of(&first).whole("packets_lost") > 10, "{policy}");
        assert_eq!(of(&first), of(&second), "{policy}");
        assert_eq!(first.counters.nic, second.counters.nic, "{policy}");
        assert!(first.records.faults.iter().eq(second.records.faults.iter()), "{policy}");
    }
}

/// 64 KiB messages on a wire that loses nothing by chance.
const BUSY: [&str; 4] = ["load.message=64K", "wire.loss=0", "requests=300", "load.write_share=0.5"];

#[test]
fn a_rule_drops_the_packet_that_it_names() {
    let rule = "wire.impairments=drop=write_middle#3,drop=read_response_middle#7";
    let with = figures("wire-faults", &[&BUSY[..], &[rule, "device.remote_faults=resume-nak"]].concat());
    let without = figures("wire-faults", &[&BUSY[..], &["device.remote_faults=resume-nak"]].concat());
    assert_eq!(with.whole("packets_lost"), without.whole("packets_lost") + 2);
    assert_eq!((with.whole("completed"), with.whole("failed")), (300, 0));
    assert!(with.whole("packets_repeated") > 0);
}

#[test]
fn whatever_happens_to_packets_no_request_fails() {
    for what in
        ["reorder=2%,hold=5", "duplicate=5%", "corrupt=1%", "jitter=3us,reorder=1%,duplicate=1%,corrupt=1%"]
    {
        let impairments = format!("wire.impairments={what}");
        let figures = figures("wire-faults", &[&BUSY[..], &[&impairments]].concat());
        assert_eq!((figures.whole("completed"), figures.whole("failed")), (300, 0), "{what}");
    }
}

/// An answer to a connection that has ended belongs to no request of the next one.
#[test]
fn nothing_completes_if_every_request_is_given_up_before_its_answer_can_come() {
    let failed = |settings: &[&str]| {
        let figures = alone(&[&["load.cold_share=0", "requests=400"], settings].concat());
        assert_eq!((figures.whole("completed"), figures.whole("failed")), (0, 400), "{settings:?}");
    };
    for share in ["load.write_share=1", "load.write_share=0"] {
        failed(&["wire.ack_timeout=5", "wire.retries=1", "wire.delay=1 ms", "load.depth=4", share]);
    }
    // The answer comes 16, 32 and more connections later.
    for delay in ["65 us", "131 us", "262 us", "1048 us"] {
        failed(&["wire.ack_timeout=1", "wire.retries=0", &format!("wire.delay={delay}")]);
    }
}

#[test]
fn requests_that_waited_for_a_broken_queue_pair_are_posted_in_the_end() {
    let settings =
        ["requests=200", "load.cold_share=0", "load.write_share=1", "wire.loss=0.05", "wire.retries=1"];
    let figures = figures("wire-faults", &settings);
    assert_eq!(figures.whole("completed") + figures.whole("failed"), 200);
    assert!(figures.whole("failed") > 0);
}

#[test]
fn a_wire_that_stops_keeps_little_and_holds_up_everybody() {
    let of = |pause: &str| {
        let pause = format!("wire.pause={pause}");
        figures(
            "wire-faults",
            &["device.remote_faults=stall", "requests=1500", "wire.ack_timeout=14", &pause],
        )
    };
    let [goes_on, stops] = ["1 GiB", "16 KiB"].map(of);
    for figures in [&goes_on, &stops] {
        let all = ["completed", "failed", "packets_lost"].map(|name| figures.whole(name));
        assert_eq!(all, [1500, 0, 0]);
    }
    let [more, less] = [&goes_on, &stops].map(|figures| figures.whole("held_peak_bytes"));
    assert!(less * 4 < more, "{less} of {more}");
    let [before, after] = [&goes_on, &stops].map(|figures| figures.whole("bystander_p99_ns"));
    assert!(after > 2 * before && after > 220_000, "{before} and {after}");
}

/// A file that a test can look at.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no writer panicked").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_capture_has_every_packet_and_one_scenario_has_one() {
    const RULE: &str = "drop=write_middle#3";
    const DROPPED: &[u8] = b"dropped by the link";
    let setting = format!("wire.impairments={RULE},reorder=1%");
    let settings = [&BUSY[..], &[&setting]].concat();
    let scenario = scenario("wire-faults", &settings);
    let run_with = |limit: usize| {
        let file = Shared::default();
        let to = CaptureTo { to: Box::new(file.clone()), limit };
        let outcome = run_captured(&scenario, to).expect("it ends");
        let bytes = file.0.lock().expect("no writer panicked").clone();
        (outcome.counters.nic.packets, bytes)
    };
    let [first, second] = [usize::MAX; 2].map(run_with);
    assert_eq!(first, second);
    let (packets, bytes) = first;
    let captured: Vec<_> = frames(&bytes).map(|captured| captured.expect("our own file")).collect();
    let mut sent = 0;
    for captured in &captured {
        let packet = frame::parse(captured.frame).expect("its ICRC is right");
        let Addresses::V6 { source, dest, .. } = packet.envelope.addresses else { panic!("IPv6") };
        let is_response = packet.packet.opcode.is_response();
        assert_eq!(source > dest, is_response, "responses come from the second address");
        sent += u64::from((captured.port == 1) == is_response);
    }
    assert_eq!(sent, packets);
    assert!(captured.is_sorted_by_key(|captured| captured.time));
    let comments = bytes.windows(DROPPED.len()).filter(|bytes| *bytes == DROPPED);
    assert_eq!(comments.count(), 1);
    let (_, short) = run_with(100);
    let short: Vec<_> = frames(&short).map(|captured| captured.expect("our own file").frame.len()).collect();
    assert_eq!(short.len(), captured.len());
    assert_eq!(short.iter().max(), Some(&100));
}

#[test]
fn without_a_wire_there_is_no_capture() {
    let scenario = scenario("cold-4k", &[]);
    let result = run_captured(&scenario, CaptureTo { to: Box::new(Shared::default()), limit: 64 });
    assert!(matches!(result, Err(EngineError::NoWire)));
}

#[test]
fn a_page_costs_what_the_policy_says() {
    let fault = 220_000;
    let trip = round_trip_ns();
    let warm = alone(&["load.cold_share=0.0"]).whole("latency_p50_ns");
    assert!(near(warm, trip, 10), "{warm} of {trip}");
    let cost = |settings: &[&str]| alone(settings).whole("latency_p50_ns");
    let stall = cost(&["device.remote_faults=stall"]);
    assert!(near(stall, trip + fault, 5), "{stall}");
    // The NAK and the packet once more.
    let resumed = cost(&["device.remote_faults=resume-nak"]);
    assert!(near(resumed, 2 * trip + fault, 5), "{resumed}");
    // The delay begins when the RNR NAK arrives: code 9 is 240 us, code 8 is 160 us, which takes two.
    for (code, delays) in [("9", 240_000), ("8", 2 * 160_000)] {
        let timer = format!("device.min_rnr_timer={code}");
        let rnr = cost(&["device.remote_faults=rnr", &timer]);
        let trips = 1 + delays / if code == "9" { 240_000 } else { 160_000 };
        assert!(near(rnr, trips * trip + delays, 10), "{code}: {rnr}");
    }
    // Code 9 is 2.1 ms.
    let dropped = cost(&["device.remote_faults=drop"]);
    assert!(near(dropped, (4096 << 9) + trip, 10), "{dropped}");
}

#[test]
fn all_policies_deliver_everything_and_bystanders_hardly_notice() {
    for policy in POLICIES {
        let figures = figures("wire-faults", &[&format!("device.remote_faults={policy}"), "requests=1000"]);
        assert_eq!((figures.whole("completed"), figures.whole("failed")), (1000, 0), "{policy}");
        let (faulting, bystander) = (figures.whole("faulting_p50_ns"), figures.whole("bystander_p99_ns"));
        assert!(faulting > 4 * bystander, "{policy}: {faulting} and {bystander}");
        let held = figures.whole("held_peak_bytes");
        assert_eq!(held > 0, policy == "stall", "{policy}: {held}");
    }
}

/// 4 MiB in one batch take 350 us where 4 KiB take 220 us (Lesokhin et al., ASPLOS 2017; second-hand): on a wire, too, if
/// the responder asks for all pages with the first packet.
#[test]
fn a_batch_costs_on_a_wire_what_was_published() {
    for policy in ["stall", "rnr", "resume-nak"] {
        let policy = format!("device.remote_faults={policy}");
        let batch = |settings: &[&str]| {
            figures("wire-batched-4m", &[&[policy.as_str(), "requests=8"], settings].concat())
        };
        let small = batch(&["load.message=4K", "guest.prefetch=0"]);
        let large = batch(&[]);
        assert!(near(small.whole("latency_p50_ns"), 220_000, 100), "{policy}: {small:?}");
        // From miss to copy: the published figure has no wire.
        assert!(near(large.whole("fault_p50_ns"), 350_000, 100), "{policy}: {large:?}");
        // The bytes take their time on the wire, but for a window of them that is sent meanwhile.
        let packet = wire_ns(14 + 40 + 8 + 12 + 4096 + 4) - 2000;
        let expected = 350_000 + (1024 - 128) * packet;
        assert!(near(large.whole("latency_p50_ns"), expected, 100), "{policy}: {expected}: {large:?}");
        assert_eq!(large.whole("faults"), 8, "{policy}: one for each message");
    }
}

/// Two READs at once, both without their pages: the first is refused, and repeated alone after the RNR delay. The second takes
/// as long as the ACK timeout (Fukuoka et al., ISPASS 2021; recalled), and then its own delay. Without the bug it takes the
/// delays alone.
#[test]
fn behind_a_dam_a_request_takes_as_long_as_the_ack_timeout() {
    for code in [11u32, 14, 17] {
        let timeout = format!("wire.ack_timeout={code}");
        let of = |damming| {
            let damming = format!("wire.damming={damming}");
            figures("packet-damming", &[&timeout, &damming])
        };
        let (with, without) = (of(true), of(false));
        let delays = 2 * 1_280_000;
        assert!(near(with.whole("latency_max_ns"), (4096 << code) + delays, 20), "{code}: {with:?}");
        assert!(near(without.whole("latency_max_ns"), delays, 20), "{code}: {without:?}");
        assert_eq!((with.whole("ack_timeouts"), without.whole("ack_timeouts")), (1, 0), "{code}");
    }
    // One at a time there is nothing behind.
    let alone = figures("packet-damming", &["load.depth=1"]);
    assert_eq!(alone.whole("ack_timeouts"), 0);
}

/// A request that comes later reveals to the responder that one is missing, and its NAK breaks the dam.
#[test]
fn the_next_request_breaks_a_dam() {
    let steady = [
        "requests=500",
        "load.depth=64",
        "load.arrival=poisson",
        "load.rate=1000.0",
        "load.cold_share=0.2",
        "load.write_share=1.0",
    ];
    let figures = figures("packet-damming", &steady);
    assert!(figures.whole("rnr_naks") > 20, "{figures:?}");
    assert!(figures.whole("latency_p99_ns") < 20_000_000, "far below the timeout of 537 ms: {figures:?}");
}
