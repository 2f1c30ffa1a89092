//! The responder against scripted requests.

use refault_roce::{
    AtomicEth, Feth, Mtu, Nak, Opcode, Operation, Packet, Place, Psn, Reth, Service, Syndrome,
};
use refault_transport::{Action, Arrival, ReadReplay, Reply, Responder, ResponderConfig, Source};

use crate::Random;

const MTU: usize = 256;
const FIRST: Psn = Psn::new(0xff_fffe);

struct Script {
    responder: Responder,
}

fn config() -> ResponderConfig {
    ResponderConfig { max_dest_rd_atomic: 2, ..ResponderConfig::new(Mtu::SMALLEST, 0x11) }
}

fn packet(operation: Operation, place: Place, at: u32) -> Packet {
    let opcode = Opcode::new(Service::Rc, operation, place, false).unwrap();
    let mut packet = Packet::new(opcode, 0x12, FIRST.after(at));
    packet.ack_request = place.ends();
    packet
}

fn read(at: u32, address: u64, length: u32) -> Packet {
    Packet { reth: Reth { address, key: 9, length }, ..packet(Operation::ReadRequest, Place::Only, at) }
}

fn add(at: u32) -> Packet {
    let atomic = AtomicEth { address: 0x1000, key: 9, swap_or_add: 1, compare: 0 };
    Packet { atomic, ..packet(Operation::FetchAdd, Place::Only, at) }
}

fn flush(at: u32) -> Packet {
    let feth = Feth { persistent: true, ..Feth::default() };
    Packet { feth, ..packet(Operation::Flush, Place::Only, at) }
}

/// What a reply says, and its place in sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Ack(i32),
    NotReady(i32, u8),
    Nak(i32, Nak),
    Data(i32, Place, u64, u32),
    Original(i32, u64),
}

impl Script {
    fn new(config: ResponderConfig) -> Self {
        Self { responder: Responder::new(config, FIRST) }
    }

    /// A packet that is executed.
    fn execute(&mut self, packet: &Packet, length: usize) -> Action {
        let Arrival::Execute(step) = self.responder.receive(packet, length) else { panic!("{packet:?}") };
        match step.action {
            Action::CompareSwap { .. } | Action::FetchAdd { .. } => self.responder.done_atomic(77),
            _ => self.responder.done(),
        }
        step.action
    }

    /// A packet that is not.
    fn receive(&mut self, packet: &Packet, length: usize) -> Arrival {
        let arrival = self.responder.receive(packet, length);
        assert!(!matches!(arrival, Arrival::Execute(_)), "{packet:?}");
        arrival
    }

    fn replies(&mut self) -> Vec<Said> {
        let mut said = Vec::new();
        while let Some(reply) = self.responder.next_reply() {
            said.push(Said::of(&reply));
            self.responder.replied();
        }
        said
    }
}

impl Said {
    fn of(&Reply { packet, payload, .. }: &Reply) -> Self {
        let at = packet.psn.distance_from(FIRST);
        match (packet.opcode.operation(), packet.aeth.syndrome) {
            (Operation::ReadResponse, _) => {
                let Source { address, length, .. } = payload.unwrap_or_default();
                Self::Data(at, packet.opcode.place(), address, length)
            }
            (Operation::AtomicAcknowledge, _) => Self::Original(at, packet.original),
            (_, Syndrome::ReceiverNotReady(code)) => Self::NotReady(at, code),
            (_, Syndrome::Nak(nak)) => Self::Nak(at, nak),
            _ => Self::Ack(at),
        }
    }
}

#[test]
fn only_what_asks_for_it_is_acknowledged_and_in_one_go() {
    let mut script = Script::new(config());
    script.execute(&packet(Operation::Send, Place::First, 0), MTU);
    assert_eq!(script.replies(), []);
    script.execute(&packet(Operation::Send, Place::Last, 1), 1);
    script.execute(&packet(Operation::Send, Place::Only, 2), 0);
    let reply = script.responder.next_reply().unwrap();
    assert_eq!((Said::of(&reply), reply.packet.aeth.msn), (Said::Ack(2), 2));
}

#[test]
fn a_gap_is_reported_once_until_it_is_filled() {
    let mut script = Script::new(config());
    for at in 1..4 {
        assert_eq!(script.receive(&packet(Operation::Send, Place::Only, at), 1), Arrival::OutOfSequence);
    }
    assert_eq!(script.replies(), [Said::Nak(0, Nak::Sequence)]);
    script.execute(&packet(Operation::Send, Place::Only, 0), 1);
    script.receive(&packet(Operation::Send, Place::Only, 2), 1);
    assert_eq!(script.replies(), [Said::Ack(0), Said::Nak(1, Nak::Sequence)]);
    assert_eq!(script.responder.counters().out_of_sequence, 4);
}

#[test]
fn a_receiver_that_is_not_ready_does_not_complain_about_what_follows() {
    let mut script = Script::new(config());
    assert!(matches!(
        script.responder.receive(&packet(Operation::Send, Place::Only, 0), 1),
        Arrival::Execute(_)
    ));
    script.responder.not_ready(12);
    script.receive(&packet(Operation::Send, Place::Only, 1), 1);
    assert_eq!(script.replies(), [Said::NotReady(0, 12)]);
    assert_eq!((script.responder.counters().not_ready, script.responder.has_failed()), (1, false));
    script.execute(&packet(Operation::Send, Place::Only, 0), 1);
    assert_eq!(script.replies(), [Said::Ack(0)]);
}

#[test]
fn a_receiver_that_gets_ready_says_so_unless_the_packet_has_come() {
    let mut script = Script::new(config());
    let first = packet(Operation::Send, Place::Only, 0);
    script.responder.receive(&first, 1);
    script.responder.not_ready(12);
    assert_eq!(script.replies(), [Said::NotReady(0, 12)]);
    script.responder.ready();
    script.receive(&packet(Operation::Send, Place::Only, 1), 1);
    assert_eq!(script.replies(), [Said::Nak(0, Nak::Sequence)]);
    script.execute(&first, 1);
    script.responder.ready();
    assert_eq!(script.replies(), [Said::Ack(0)]);
    // What says less is not sent at all.
    script.responder.receive(&packet(Operation::Send, Place::Only, 1), 1);
    script.responder.not_ready(12);
    script.responder.ready();
    assert_eq!(script.replies(), [Said::Nak(1, Nak::Sequence)]);
}

#[test]
fn what_was_executed_is_acknowledged_again_and_not_executed() {
    let mut script = Script::new(config());
    for at in 0..3 {
        script.execute(&packet(Operation::Send, Place::Only, at), 1);
    }
    script.replies();
    assert_eq!(script.receive(&packet(Operation::Send, Place::Only, 0), 1), Arrival::OutOfSequence);
    script.receive(&packet(Operation::Write, Place::Middle, 1), MTU);
    assert_eq!(script.replies(), [Said::Ack(2)]);
    assert_eq!(script.responder.counters().duplicates, 2);
}

#[test]
fn atomics_and_flushes_are_answered_again_from_what_is_kept() {
    let mut script = Script::new(config());
    script.execute(&add(0), 0);
    script.execute(&flush(1), 0);
    let both = [Said::Original(0, 77), Said::Data(1, Place::Only, 0, 0)];
    assert_eq!(script.replies(), both);
    for _ in 0..3 {
        script.receive(&add(0), 0);
        script.receive(&flush(1), 0);
    }
    assert_eq!(script.replies(), both, "however often they were repeated");
    // Two are kept.
    script.execute(&add(2), 0);
    script.replies();
    script.receive(&add(0), 0);
    script.receive(&add(1), 0);
    assert_eq!(
        (script.replies(), script.responder.counters().forgotten),
        (vec![], 2),
        "and that was a FLUSH"
    );
}

#[test]
fn a_read_is_answered_before_what_follows_it() {
    let mut script = Script::new(config());
    script.execute(&read(0, 0x1000, 600), 0);
    script.execute(&packet(Operation::Send, Place::Only, 3), 1);
    let data = [
        Said::Data(0, Place::First, 0x1000, 256),
        Said::Data(1, Place::Middle, 0x1100, 256),
        Said::Data(2, Place::Last, 0x1200, 88),
        Said::Ack(3),
    ];
    assert_eq!(script.replies(), data);
}

#[test]
fn a_repeated_read_may_begin_later_and_end_earlier_and_not_elsewhere() {
    for (read_replay, places) in
        [(ReadReplay::Middle, [Place::Middle, Place::Last]), (ReadReplay::First, [Place::First, Place::Last])]
    {
        let mut script = Script::new(ResponderConfig { read_replay, ..config() });
        script.execute(&read(0, 0x1000, 1024), 0);
        script.replies();
        script.receive(&read(2, 0x1200, 512), 0);
        let replies = script.replies();
        let expected = [Said::Data(2, places[0], 0x1200, 256), Said::Data(3, places[1], 0x1300, 256)];
        assert_eq!(replies, expected);
        script.receive(&read(0, 0x1000, 8), 0);
        assert_eq!(script.replies(), [Said::Data(0, Place::Only, 0x1000, 8)]);
        for wrong in [read(2, 0x1000, 512), read(2, 0x1200, 513), read(3, 0x1200, 8)] {
            script.receive(&wrong, 0);
        }
        let other_key = Packet { reth: Reth { key: 8, ..read(0, 0x1000, 8).reth }, ..read(0, 0x1000, 8) };
        script.receive(&other_key, 0);
        assert_eq!((script.replies(), script.responder.counters().forgotten), (vec![], 4));
    }
}

#[test]
fn a_read_that_is_repeated_while_it_is_answered_is_answered_once_from_there() {
    let mut script = Script::new(config());
    script.execute(&read(0, 0x1000, 1024), 0);
    script.responder.replied();
    script.responder.replied();
    for _ in 0..100 {
        script.receive(&read(1, 0x1100, 768), 0);
    }
    let places = script.replies();
    assert_eq!(places.len(), 3, "{places:?}");
    assert_eq!(places[0], Said::Data(1, Place::Middle, 0x1100, 256));
}

#[test]
fn wrong_lengths_and_wrong_places_are_invalid() {
    let write = |place, at, length| Packet {
        reth: Reth { address: 0, key: 9, length },
        ..packet(Operation::Write, place, at)
    };
    let atomic_write = |address, length| Packet {
        reth: Reth { address, key: 9, length },
        ..packet(Operation::AtomicWrite, Place::Only, 0)
    };
    let single = [
        (packet(Operation::Send, Place::First, 0), MTU - 1),
        (packet(Operation::Send, Place::First, 0), MTU + 1),
        (packet(Operation::Send, Place::Only, 0), MTU + 1),
        (packet(Operation::Send, Place::Middle, 0), MTU),
        (packet(Operation::Send, Place::Last, 0), 1),
        (write(Place::Only, 0, 8), 9),
        (write(Place::Only, 0, 8), 7),
        (write(Place::First, 0, 256), MTU),
        (write(Place::First, 0, (1 << 31) + 1), MTU),
        (read(0, 0, (1 << 31) + 1), 0),
        (read(0, 0, 8), 1),
        (add(0), 8),
        (flush(0), 4),
        (atomic_write(0, 8), 4),
        (atomic_write(0, 4), 4),
    ];
    for (bad, length) in single {
        let mut script = Script::new(config());
        assert_eq!(script.receive(&bad, length), Arrival::Invalid, "{bad:?} {length}");
        assert_eq!(script.replies(), [Said::Nak(0, Nak::InvalidRequest)]);
        assert_eq!(script.receive(&packet(Operation::Send, Place::Only, 0), 1), Arrival::Ignored);
    }
    let second = [
        (packet(Operation::Send, Place::First, 1), MTU),
        (packet(Operation::Send, Place::Only, 1), 1),
        (packet(Operation::Send, Place::Last, 1), 0),
        (packet(Operation::Write, Place::Middle, 1), MTU),
        (read(1, 0, 8), 0),
    ];
    for (bad, length) in second {
        let mut script = Script::new(config());
        script.execute(&packet(Operation::Send, Place::First, 0), MTU);
        assert_eq!(script.receive(&bad, length), Arrival::Invalid, "{bad:?} {length}");
        assert_eq!(script.replies(), [Said::Nak(1, Nak::InvalidRequest)]);
    }
}

#[test]
fn without_resources_reads_and_atomics_are_invalid_and_flushes_are_not() {
    let none = ResponderConfig { max_dest_rd_atomic: 0, ..config() };
    for bad in [read(0, 0, 8), add(0)] {
        assert_eq!(Script::new(none).receive(&bad, 0), Arrival::Invalid);
    }
    let mut script = Script::new(none);
    script.execute(&flush(0), 0);
    assert_eq!(script.replies(), [Said::Data(0, Place::Only, 0, 0)]);
}

#[test]
fn a_step_that_is_refused_ends_the_connection_after_the_replies_before_it() {
    let mut script = Script::new(config());
    script.execute(&add(0), 0);
    let step = script.responder.receive(&read(1, 0, 8), 0);
    assert!(matches!(step, Arrival::Execute(_)));
    script.responder.refuse(Nak::RemoteAccess);
    assert_eq!(script.replies(), [Said::Original(0, 77), Said::Nak(1, Nak::RemoteAccess)]);
    assert!(script.responder.has_failed());
}

#[test]
fn memory_that_cannot_be_read_any_more_ends_the_responses_with_a_refusal() {
    let mut script = Script::new(config());
    script.execute(&read(0, 0x1000, 1024), 0);
    script.execute(&add(4), 0);
    script.responder.replied();
    script.responder.refuse_reply(Nak::RemoteAccess);
    assert_eq!(script.replies(), [Said::Nak(1, Nak::RemoteAccess)]);
    assert!(script.responder.has_failed());
}

#[test]
fn responses_are_no_requests_and_a_step_that_was_dropped_comes_again() {
    let mut script = Script::new(config());
    let ack = packet(Operation::Acknowledge, Place::Only, 0);
    assert_eq!(script.receive(&ack, 0), Arrival::Ignored);
    let send = packet(Operation::Send, Place::Only, 0);
    assert!(matches!(script.responder.receive(&send, 1), Arrival::Execute(_)));
    // Dropped; so this one is not expected yet.
    script.receive(&packet(Operation::Send, Place::Only, 1), 1);
    script.responder.done();
    assert_eq!(script.replies(), [Said::Nak(0, Nak::Sequence)]);
    script.execute(&send, 1);
    assert_eq!(script.replies(), [Said::Ack(0)]);
}

#[test]
fn arbitrary_packets_make_nothing_grow() {
    let opcodes: Vec<_> = Opcode::all().collect();
    let mut random = Random(1);
    let (mut script, mut since, mut executed, mut longest) = (Script::new(config()), FIRST, 0, 0);
    for _ in 0..200_000 {
        let opcode = opcodes[random.below(u32::try_from(opcodes.len()).unwrap()) as usize];
        let at = since.after(random.below(12).wrapping_sub(8));
        let mut packet = Packet::new(opcode, 0x12, at);
        packet.ack_request = random.chance(500);
        packet.reth.length = [0, 8, 256, 700][random.below(4) as usize];
        let length = [0, 0, 0, 1, 8, 256, 257][random.below(7) as usize];
        match script.responder.receive(&packet, length) {
            Arrival::Execute(_) if random.chance(20) => script.responder.refuse(Nak::RemoteAccess),
            Arrival::Execute(_) if random.chance(50) => script.responder.not_ready(3),
            Arrival::Execute(_) => {
                executed += 1;
                script.responder.done();
                script.responder.done_atomic(1);
                since = at.after(1);
            }
            _ => {}
        }
        // What could have been sent was not, until now.
        if script.responder.has_failed() {
            longest = longest.max(script.replies().len());
            (script, since) = (Script::new(config()), FIRST);
        }
    }
    assert!(executed > 2000 && (3..40).contains(&longest), "{executed} executed, {longest} replies");
}

#[test]
fn a_flood_makes_the_queue_no_longer() {
    let mut script = Script::new(config());
    script.execute(&packet(Operation::Send, Place::Only, 0), 1);
    script.execute(&add(1), 0);
    for _ in 0..1000 {
        script.receive(&packet(Operation::Send, Place::Only, 0), 1);
        script.receive(&add(1), 0);
        let expected = script.responder.receive(&packet(Operation::Send, Place::Only, 2), 1);
        assert!(matches!(expected, Arrival::Execute(_)));
        script.responder.not_ready(1);
    }
    assert_eq!(script.replies(), [Said::Original(1, 77), Said::Ack(1), Said::NotReady(2, 1)]);
}

#[test]
fn limits_may_change_and_the_mtu_may_not() {
    let mut script = Script::new(ResponderConfig { max_dest_rd_atomic: 0, ..config() });
    script
        .responder
        .configure(ResponderConfig { max_dest_rd_atomic: 1, ..ResponderConfig::new(Mtu::LARGEST, 0x13) });
    script.execute(&read(0, 0x1000, 300), 0);
    assert_eq!(script.responder.next_reply().unwrap().packet.dest_qpn, 0x13);
    assert_eq!(script.replies().len(), 2, "the MTU is that of the beginning");
}
