//! What a link does to frames.

use proptest::prelude::*;
use refault_bus::wire::EthernetFrame;
use refault_link::{Counters, End, Event, Fate, Impairments, Link, Loss};
use refault_roce::{Envelope, FlushIcrc, Opcode, Operation, Packet, Place, Psn, Service, frame};

fn link(sends: &str) -> Link {
    Link::new([sends.parse().unwrap(), Impairments::default()], 0)
}

/// Not RoCE, recognised by its number.
fn plain(number: u32) -> EthernetFrame {
    let mut bytes = vec![0; 60];
    bytes[20..24].copy_from_slice(&number.to_le_bytes());
    EthernetFrame { bytes, sealed: true }
}

fn packet(operation: Operation, place: Place, queue_pair: u32, psn: u32) -> EthernetFrame {
    let opcode = Opcode::new(Service::Rc, operation, place, false).unwrap();
    let envelope = Envelope::v4([10, 77, 0, 1].into(), [10, 77, 0, 2].into());
    let mut bytes = Vec::new();
    let place =
        frame::begin(&mut bytes, &envelope, &Packet::new(opcode, queue_pair, Psn::new(psn)), 8).unwrap();
    bytes[place].copy_from_slice(b"8 bytes.");
    EthernetFrame { bytes, sealed: false }
}

/// Sends a frame from end A. Returns its fate, and it, if it arrived at once.
fn send(link: &mut Link, frame: EthernetFrame, now_ns: u64) -> (Fate, Option<EthernetFrame>) {
    let fate = link.decide(End::A, &frame, now_ns);
    let arrived = link.carry(End::A, frame, &fate);
    (fate, arrived)
}

/// What happens up to the end of time, at the earliest moments.
fn rest(link: &mut Link) -> Vec<(u64, Event)> {
    let mut events = Vec::new();
    while let Some(at_ns) = link.next_due() {
        events.extend(std::iter::from_fn(|| link.due(at_ns)).map(|event| (at_ns, event)));
    }
    events
}

fn arrivals(link: &mut Link) -> Vec<EthernetFrame> {
    let frame = |(_, event)| match event {
        Event::Frame { frame, .. } => Some(frame),
        Event::Carrier(_) => None,
    };
    rest(link).into_iter().filter_map(frame).collect()
}

/// Sends these frames, one each microsecond, and returns what arrives.
fn all(link: &mut Link, frames: Vec<EthernetFrame>) -> Vec<EthernetFrame> {
    let mut arrived = Vec::new();
    for (frame, now_ns) in frames.into_iter().zip((0..).step_by(1000)) {
        arrived.extend(send(link, frame, now_ns).1);
        while let Some(event) = link.due(now_ns) {
            if let Event::Frame { frame, .. } = event {
                arrived.push(frame);
            }
        }
    }
    arrived.extend(arrivals(link));
    arrived
}

#[test]
fn a_perfect_link_delivers_within_the_call_without_a_copy() {
    let mut link = Link::new(Default::default(), 0);
    let frame = plain(1);
    let bytes = frame.bytes.as_ptr();
    let (fate, arrived) = send(&mut link, frame, 5);
    assert_eq!((fate.comment(), link.next_due()), (None, None));
    assert_eq!(arrived.unwrap().bytes.as_ptr(), bytes);
    let counters = Counters { sent: 1, sent_bytes: 60, delivered: 1, ..Counters::default() };
    assert_eq!(link.counters(End::A), counters);
}

#[test]
fn each_direction_has_its_own_impairments() {
    let mut link = link("loss=100%");
    assert_eq!(send(&mut link, plain(1), 0).0.comment().unwrap(), "dropped by the link: by chance");
    let fate = link.decide(End::B, &plain(2), 0);
    assert_eq!(link.carry(End::B, plain(2), &fate), Some(plain(2)));
}

#[test]
fn a_delay_keeps_the_order_even_with_jitter() {
    let mut link = link("delay=10us,jitter=100us,seed=3");
    let frames: Vec<_> = (0..200).map(plain).collect();
    assert_eq!(all(&mut link, frames.clone()), frames);
    let mut link = Link::new(["delay=10us".parse().unwrap(), Impairments::default()], 0);
    send(&mut link, plain(1), 7);
    assert_eq!(link.due(10_006), None);
    assert_eq!(link.due(10_007), Some(Event::Frame { to: End::B, frame: plain(1) }));
}

#[test]
fn a_rate_makes_frames_wait_and_drops_what_finds_no_room() {
    // 84 bytes with what is around them: 672 ns at 1 Gbit/s.
    let mut link = link("rate=1G,queue=150");
    let fates: Vec<_> = (0..4).map(|number| send(&mut link, plain(number), 0).0).collect();
    let arrivals: Vec<_> = fates.iter().map(|fate| (fate.loss, fate.arrives_ns)).collect();
    let full = (Some(Loss::QueueFull), 0);
    assert_eq!(arrivals, [(None, 672), (None, 1344), full, full]);
    assert_eq!(send(&mut link, plain(4), 1344).0.arrives_ns, 2016);
    assert_eq!(link.counters(End::A).overflown, 2);
}

#[test]
fn a_held_frame_is_passed_by_three() {
    let mut link = link("reorder=other#2");
    let arrived = all(&mut link, (0..6).map(plain).collect());
    assert_eq!(arrived, [0, 2, 3, 4, 1, 5].map(plain));
    assert_eq!(link.counters(End::A).reordered, 1);
}

#[test]
fn a_held_frame_does_not_wait_forever() {
    let mut link = link("reorder=100%,hold=9");
    let (fate, arrived) = send(&mut link, plain(1), 500);
    assert_eq!((fate.comment().as_deref(), arrived), (Some("held until 9 more have passed"), None));
    assert_eq!(rest(&mut link), [(10_000_500, Event::Frame { to: End::B, frame: plain(1) })]);
}

#[test]
fn a_duplicate_follows_its_frame() {
    let mut link = link("duplicate=other#1");
    assert_eq!(all(&mut link, vec![plain(1), plain(2)]), [1, 1, 2].map(plain));
    assert_eq!(link.counters(End::A).delivered, 3);
}

#[test]
fn a_rule_names_one_packet_of_one_queue_pair() {
    let mut link = link("drop=read_response_middle/17#3");
    let middle = |queue_pair, psn| packet(Operation::ReadResponse, Place::Middle, queue_pair, psn);
    let mut lost = Vec::new();
    for psn in 0..10 {
        for frame in [middle(17, psn), middle(18, psn), packet(Operation::Write, Place::Only, 17, psn)] {
            if send(&mut link, frame.clone(), 0).0.loss == Some(Loss::Rule) {
                lost.push(frame);
            }
        }
    }
    assert_eq!(lost, [middle(17, 2)]);
    assert_eq!(link.counters(End::A).dropped, 1);
}

#[test]
fn a_flipped_bit_is_noticed_by_the_icrc() {
    let mut link = link("corrupt=100%");
    for psn in 0..500 {
        let sent = packet(Operation::Write, Place::Middle, 17, psn);
        let (fate, arrived) = send(&mut link, sent.clone(), 0);
        let arrived = arrived.unwrap();
        assert!(arrived.sealed && fate.flipped_bit.is_some());
        let mut whole = sent.bytes.clone();
        frame::seal(&mut whole, FlushIcrc::Standard).unwrap();
        let changed = whole.iter().zip(&arrived.bytes).map(|(was, is)| (was ^ is).count_ones()).sum::<u32>();
        assert_eq!(changed, 1);
        // A bit that the ICRC does not cover is none that a queue pair would look at.
        if let Ok(received) = frame::parse(&arrived.bytes) {
            assert_eq!(received.payload, b"8 bytes.");
        }
    }
    let (fate, _) = send(&mut link, plain(1), 0);
    assert_eq!(fate.loss, Some(Loss::Corrupt), "nothing would notice it");
}

#[test]
fn nothing_passes_while_the_link_is_down() {
    let mut link = link("delay=1us,down=10us+5us");
    send(&mut link, plain(1), 9_500);
    assert_eq!(send(&mut link, plain(2), 12_000).0.loss, Some(Loss::Down));
    assert_eq!(link.due(12_000), Some(Event::Carrier(false)));
    assert_eq!(link.due(12_000), None, "what was on its way is lost, too");
    assert_eq!(rest(&mut link), [(15_000, Event::Carrier(true))]);
    assert_eq!(send(&mut link, plain(3), 15_000).0.loss, None);
    assert_eq!(link.counters(End::A).down, 2);
}

#[test]
fn ports_hear_even_of_an_outage_that_is_over() {
    let mut link = link("down=10us+5us");
    let events: Vec<_> = std::iter::from_fn(|| link.due(1_000_000)).collect();
    assert_eq!(events, [Event::Carrier(false), Event::Carrier(true)]);
    assert_eq!(link.next_due(), None);
}

#[test]
fn a_packet_can_take_the_link_down_in_both_directions() {
    let mut link = link("down=write_only#2+3us");
    let write = |psn| packet(Operation::Write, Place::Only, 17, psn);
    assert_eq!(send(&mut link, write(0), 100).0.loss, None);
    assert_eq!(send(&mut link, write(1), 200).0.loss, Some(Loss::Down));
    assert_eq!(link.decide(End::B, &plain(1), 300).loss, Some(Loss::Down));
    assert_eq!(rest(&mut link), [(300, Event::Carrier(false)), (3_200, Event::Carrier(true))]);
}

#[test]
fn what_never_arrives_takes_a_bounded_memory() {
    let mut link = link("delay=1000s");
    let frame = EthernetFrame { bytes: vec![0; 4096], sealed: true };
    let lost =
        (0..20_000).filter(|_| send(&mut link, frame.clone(), 0).0.loss == Some(Loss::TooMuch)).count();
    assert!(lost > 1000, "{lost}");
}

#[derive(Clone, Debug)]
struct Step {
    from: End,
    frame: EthernetFrame,
    pause_ns: u64,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let frame = prop_oneof![
        (0..1000u32).prop_map(plain),
        (0..1000u32).prop_map(|psn| packet(Operation::Write, Place::Only, 3, psn)),
        (0..1000u32).prop_map(|psn| packet(Operation::ReadResponse, Place::Middle, 4, psn)),
        proptest::collection::vec(any::<u8>(), 0..90)
            .prop_map(|bytes| EthernetFrame { bytes, sealed: false }),
    ];
    let step = (any::<bool>(), frame, 0..50_000u64).prop_map(|(is_a, frame, pause_ns)| Step {
        from: if is_a { End::A } else { End::B },
        frame,
        pause_ns,
    });
    proptest::collection::vec(step, 0..60)
}

fn impairments() -> impl Strategy<Value = Impairments> {
    let items = [
        "loss=20%",
        "delay=30us",
        "jitter=20us",
        "rate=50M",
        "queue=1K",
        "reorder=10%",
        "hold=2",
        "duplicate=20%",
        "corrupt=10%",
        "down=100us+50us",
        "drop=write#2-3",
        "reorder=read_response",
        "down=any#9+20us",
    ];
    (proptest::sample::subsequence(items.to_vec(), 0..items.len()), any::<u64>())
        .prop_map(|(items, seed)| [items, vec![&format!("seed={seed}")]].concat().join(",").parse().unwrap())
}

type Outcome = (Vec<Fate>, Vec<(u64, Event)>, [Counters; 2]);

/// Plays the steps as a caller does that sleeps until something is due.
fn play(sends: &[Impairments; 2], steps: &[Step]) -> Outcome {
    let mut link = Link::new(sends.clone(), 0);
    let (mut fates, mut events, mut now_ns) = (Vec::new(), Vec::new(), 0);
    for step in steps {
        let until_ns = now_ns + step.pause_ns;
        while let Some(at_ns) = link.next_due().filter(|at_ns| *at_ns <= until_ns) {
            now_ns = now_ns.max(at_ns);
            events.extend(std::iter::from_fn(|| link.due(now_ns)).map(|event| (now_ns, event)));
        }
        now_ns = until_ns;
        let fate = link.decide(step.from, &step.frame, now_ns);
        let arrived = link.carry(step.from, step.frame.clone(), &fate);
        events.extend(arrived.map(|frame| (now_ns, Event::Frame { to: step.from.other(), frame })));
        fates.push(fate);
    }
    events.extend(rest(&mut link));
    (fates, events, End::BOTH.map(|end| link.counters(end)))
}

proptest! {
    #[test]
    fn the_same_frames_have_the_same_outcome(a in impairments(), b in impairments(), steps in steps()) {
        let sends = [a, b];
        prop_assert_eq!(play(&sends, &steps), play(&sends, &steps));
    }

    #[test]
    fn each_frame_arrives_once_or_is_counted(a in impairments(), b in impairments(), steps in steps()) {
        let (fates, events, counters) = play(&[a, b], &steps);
        for end in End::BOTH {
            let counted = counters[end.index()];
            let sent = steps.iter().filter(|step| step.from == end).count() as u64;
            let arrived = events.iter().filter(|(_, event)| matches!(event, Event::Frame { to, .. } if *to != end));
            prop_assert_eq!((counted.sent, counted.delivered), (sent, arrived.count() as u64));
            let fates = fates.iter().zip(&steps).filter(|(_, step)| step.from == end).map(|(fate, _)| fate);
            let without_checksum = fates.filter(|fate| fate.loss == Some(Loss::Corrupt)).count() as u64;
            let lost = counted.lost + counted.dropped + counted.overflown + counted.down + without_checksum;
            prop_assert_eq!(sent + counted.duplicated, counted.delivered + lost);
        }
    }

    #[test]
    fn what_is_neither_lost_nor_held_keeps_its_order(seed: u64, count in 0..80u32) {
        let text = format!("delay=5us,jitter=50us,rate=100M,loss=10%,seed={seed}");
        let arrived = all(&mut link(&text), (0..count).map(plain).collect());
        let numbers: Vec<_> = arrived.iter().map(|frame| frame.bytes[20..24].to_vec()).collect();
        let mut sorted = numbers.clone();
        sorted.sort_by_key(|bytes| u32::from_le_bytes(bytes[..].try_into().unwrap()));
        prop_assert_eq!(numbers, sorted);
    }

    #[test]
    fn one_impairment_does_not_change_the_chances_of_another(seed: u64) {
        let lost = |more: &str| {
            let mut link = link(&format!("loss=30%{more},seed={seed}"));
            (0..100).map(|number| send(&mut link, plain(number), 0).0.loss == Some(Loss::Chance)).collect::<Vec<_>>()
        };
        prop_assert_eq!(lost(""), lost(",duplicate=50%,reorder=20%"));
    }
}
