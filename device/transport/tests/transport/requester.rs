//! The requester against scripted responses.

use refault_roce::{
    Aeth, Feth, Mtu, Nak, Opcode, Operation, Packet, Place, Psn, Service, Syndrome, rnr_delay_ns,
};
use refault_transport::{Completion, Failure, Heard, Request, Requester, RequesterConfig, Verb};

const MTU: u32 = 256;
const FIRST: Psn = Psn::new(0xff_fffe);
const TIMEOUT_NS: u64 = 1_000_000;

struct Script {
    requester: Requester,
    now_ns: u64,
}

fn config() -> RequesterConfig {
    let mtu = Mtu::SMALLEST;
    RequesterConfig { timeout_ns: Some(TIMEOUT_NS), retry_count: 2, ..RequesterConfig::new(mtu, 0x12) }
}

fn request(verb: Verb, length: u32) -> Request {
    Request { verb, length, solicited: false, fence: false }
}

const SEND: Verb = Verb::Send { immediate: None };
const WRITE: Verb = Verb::Write { address: 0x1000, key: 9, immediate: None };
const READ: Verb = Verb::Read { address: 0x1000, key: 9 };
const ADD: Verb = Verb::FetchAdd { address: 0x1000, key: 9, add: 1 };

fn response(operation: Operation, place: Place, packet: u32, syndrome: Syndrome) -> Packet {
    let opcode = Opcode::new(Service::Rc, operation, place, false).unwrap();
    let mut packet = Packet::new(opcode, 0x11, FIRST.after(packet));
    packet.aeth = Aeth { syndrome, msn: 0 };
    packet
}

impl Script {
    fn new(config: RequesterConfig, requests: &[Request]) -> Self {
        let mut requester = Requester::new(config, FIRST);
        for request in requests {
            requester.post(*request).expect("room");
        }
        Self { requester, now_ns: 0 }
    }

    /// Sends all that may be sent: the packets' places in sequence.
    fn send(&mut self) -> Vec<u32> {
        self.send_packets().iter().map(|packet| packet.psn.distance_from(FIRST).try_into().unwrap()).collect()
    }

    fn send_packets(&mut self) -> Vec<Packet> {
        let mut packets = Vec::new();
        while let Some(outgoing) = self.requester.next(self.now_ns) {
            packets.push(outgoing.packet);
            self.requester.sent(self.now_ns);
        }
        packets
    }

    fn hear(&mut self, packet: &Packet, length: usize) -> Heard {
        let heard = self.requester.receive(packet, length, self.now_ns);
        if heard != Heard::Nothing {
            self.requester.placed(self.now_ns);
        }
        heard
    }

    fn ack(&mut self, packet: u32) {
        self.hear(&response(Operation::Acknowledge, Place::Only, packet, Syndrome::ACK), 0);
    }

    fn nak(&mut self, packet: u32, nak: Nak) {
        self.hear(&response(Operation::Acknowledge, Place::Only, packet, Syndrome::Nak(nak)), 0);
    }

    fn not_ready(&mut self, packet: u32, code: u8) {
        let syndrome = Syndrome::ReceiverNotReady(code);
        self.hear(&response(Operation::Acknowledge, Place::Only, packet, syndrome), 0);
    }

    fn data(&mut self, packet: u32, place: Place, length: usize) -> Heard {
        self.hear(&response(Operation::ReadResponse, place, packet, Syndrome::ACK), length)
    }

    /// Numbers of the requests that have succeeded since the last call.
    fn done(&mut self) -> Vec<u64> {
        let mut done = Vec::new();
        while let Some(Completion { id, result }) = self.requester.next_completion() {
            assert_eq!(result, Ok(()));
            done.push(id);
        }
        done
    }

    fn failure(&mut self) -> Option<Failure> {
        self.requester.next_completion().and_then(|completion| completion.result.err())
    }

    fn wait(&mut self, ns: u64) {
        self.now_ns += ns;
        self.requester.expire(self.now_ns);
    }
}

#[test]
fn a_message_is_cut_at_the_mtu_and_its_numbers_wrap_around() {
    let immediate = Some([1, 2, 3, 4]);
    let verb = Verb::Write { address: 0x1000, key: 9, immediate };
    let mut script = Script::new(config(), &[request(verb, 2 * MTU + 1)]);
    let packets = script.send_packets();
    let places: Vec<_> = packets.iter().map(|packet| packet.opcode.place()).collect();
    assert_eq!(places, [Place::First, Place::Middle, Place::Last]);
    assert_eq!(packets.iter().map(|packet| packet.psn.get()).collect::<Vec<_>>(), [0xff_fffe, 0xff_ffff, 0]);
    assert_eq!((packets[0].reth.length, packets[1].reth.length), (2 * MTU + 1, 0));
    assert_eq!(packets.iter().map(|packet| packet.ack_request).collect::<Vec<_>>(), [false, false, true]);
    assert!(packets[2].opcode.has_immediate() && packets[2].immediate == [1, 2, 3, 4]);
}

#[test]
fn an_acknowledgement_is_for_all_that_was_sent_before() {
    let mut script = Script::new(config(), &[request(SEND, 1), request(WRITE, 2 * MTU), request(SEND, 0)]);
    assert_eq!(script.send(), [0, 1, 2, 3]);
    script.ack(1);
    assert_eq!(script.done(), [0], "the second one has a packet more");
    assert_eq!(script.requester.oldest(), 1);
    script.ack(3);
    assert_eq!((script.done(), script.requester.oldest()), (vec![1, 2], 3));
    assert!(script.requester.is_idle() && script.requester.deadline_ns().is_none());
}

#[test]
fn an_acknowledgement_of_what_was_not_sent_is_ignored() {
    let mut script = Script::new(RequesterConfig { window: 1, ..config() }, &[request(SEND, 2 * MTU)]);
    assert_eq!(script.send(), [0]);
    script.ack(1);
    script.ack(0xff_ffff);
    assert_eq!((script.done(), script.requester.counters().ignored), (vec![], 2));
}

#[test]
fn the_window_is_kept_and_asks_for_its_acknowledgement() {
    let mut script = Script::new(RequesterConfig { window: 4, ..config() }, &[request(SEND, 100 * MTU)]);
    let packets = script.send_packets();
    assert_eq!(
        packets.iter().map(|packet| packet.ack_request).collect::<Vec<_>>(),
        [false, true, false, true]
    );
    script.ack(1);
    assert_eq!(script.send(), [4, 5]);
}

#[test]
fn a_lost_packet_is_sent_again_with_all_behind_it_and_once() {
    let mut script = Script::new(config(), &[request(SEND, 4 * MTU), request(SEND, 1)]);
    assert_eq!(script.send(), [0, 1, 2, 3, 4]);
    script.nak(2, Nak::Sequence);
    assert_eq!(script.send(), [2, 3, 4]);
    script.nak(2, Nak::Sequence);
    assert_eq!(script.send(), [0; 0], "the same loss");
    script.ack(2);
    script.nak(3, Nak::Sequence);
    assert_eq!(script.send(), [3, 4], "another one");
    assert_eq!(script.requester.counters().sequence_errors, 2);
}

#[test]
fn without_an_answer_all_is_repeated_as_often_as_agreed_on() {
    let mut script = Script::new(config(), &[request(SEND, 2 * MTU), request(SEND, 1)]);
    assert_eq!(script.send(), [0, 1, 2]);
    script.ack(0);
    for _ in 0..2 {
        script.wait(TIMEOUT_NS - 1);
        assert_eq!(script.send(), [0; 0]);
        script.wait(1);
        assert_eq!(script.send(), [1, 2]);
    }
    assert!(!script.requester.has_failed() && !script.requester.is_idle());
    script.wait(TIMEOUT_NS);
    let counters = script.requester.counters();
    assert_eq!((counters.sent, counters.repeated, counters.timeouts), (7, 4, 3));
    assert_eq!(script.failure(), Some(Failure::RetriesExceeded));
    assert_eq!((script.send(), script.failure()), (vec![], None), "nothing comes after that");
}

#[test]
fn progress_begins_the_count_of_repetitions_again() {
    let mut script = Script::new(config(), &[request(SEND, 3 * MTU)]);
    script.send();
    for packet in 0..3 {
        script.wait(TIMEOUT_NS);
        script.send();
        script.wait(TIMEOUT_NS);
        script.send();
        script.ack(packet);
    }
    assert_eq!(script.done(), [0]);
}

#[test]
fn a_receiver_that_is_not_ready_is_left_alone_for_as_long_as_it_says() {
    let mut script = Script::new(config(), &[request(SEND, 1), request(SEND, 1), request(SEND, 1)]);
    script.send();
    script.not_ready(1, 12);
    assert_eq!(script.done(), [0]);
    // What was sent behind the refused packet causes these.
    script.nak(1, Nak::Sequence);
    script.not_ready(1, 12);
    script.wait(rnr_delay_ns(12) - 1);
    assert_eq!(script.send(), [0; 0]);
    let over = script.now_ns + 1;
    assert!(script.requester.next(over).is_some(), "whether the timer was served or not");
    script.wait(1);
    assert_eq!(script.send(), [1, 2]);
    let counters = script.requester.counters();
    assert_eq!((counters.not_ready, counters.sequence_errors, counters.timeouts), (1, 0, 0));
}

#[test]
fn a_receiver_that_says_when_it_is_ready_is_heard_at_once_if_that_is_wanted() {
    let mut script =
        Script::new(RequesterConfig { resumes: true, ..config() }, &[request(SEND, 1), request(SEND, 1)]);
    script.send();
    for _ in 0..5 {
        script.not_ready(0, 12);
        script.wait(10);
        assert_eq!(script.send(), [0; 0]);
        script.nak(0, Nak::Sequence);
        assert_eq!(
            script.send(),
            [0, 1],
            "that is no repetition for a loss: there is no limit but that of delays"
        );
    }
    let counters = script.requester.counters();
    assert_eq!((counters.not_ready, counters.resumed, counters.sequence_errors), (5, 5, 0));
    script.ack(1);
    assert_eq!(script.done(), [0, 1]);
}

#[test]
fn the_end_of_a_delay_that_nothing_follows_is_a_timeout() {
    let mut script = Script::new(RequesterConfig { resumes: true, ..config() }, &[request(SEND, 1)]);
    script.send();
    script.not_ready(0, 12);
    script.nak(0, Nak::Sequence);
    assert_eq!(script.send(), [0]);
    script.wait(TIMEOUT_NS);
    assert_eq!((script.send(), script.requester.counters().timeouts), (vec![0], 1));
}

#[test]
fn a_dam_holds_what_is_behind_the_refused_message_until_the_timeout() {
    let long = request(SEND, 2 * MTU);
    let mut script = Script::new(RequesterConfig { dams: true, ..config() }, &[long, request(SEND, 1)]);
    assert_eq!(script.send(), [0, 1, 2]);
    script.not_ready(0, 12);
    script.requester.post(request(SEND, 1)).expect("room");
    script.wait(rnr_delay_ns(12));
    assert_eq!(script.send(), [0, 1], "neither what was sent before the delay, nor what was posted in it");
    script.ack(1);
    script.wait(TIMEOUT_NS - 1);
    assert_eq!(script.send(), [0; 0]);
    script.wait(1);
    assert_eq!(script.send(), [2, 3]);
    script.ack(3);
    assert_eq!((script.done(), script.requester.counters().timeouts), (vec![0, 1, 2], 1));
}

#[test]
fn a_dam_breaks_when_a_later_request_reveals_the_loss() {
    let mut script =
        Script::new(RequesterConfig { dams: true, ..config() }, &[request(SEND, 1), request(SEND, 1)]);
    script.send();
    script.not_ready(0, 12);
    script.wait(rnr_delay_ns(12));
    assert_eq!(script.send(), [0]);
    script.requester.post(request(SEND, 1)).expect("room");
    assert_eq!(script.send(), [2]);
    script.nak(1, Nak::Sequence);
    assert_eq!(script.send(), [1, 2]);
}

#[test]
fn a_receiver_that_is_never_ready_fails_the_request() {
    let mut script = Script::new(RequesterConfig { rnr_retry: Some(1), ..config() }, &[request(SEND, 1)]);
    script.send();
    script.not_ready(0, 1);
    script.wait(rnr_delay_ns(1));
    assert_eq!(script.send(), [0]);
    script.not_ready(0, 1);
    assert_eq!(script.failure(), Some(Failure::NotReadyRetriesExceeded));
}

#[test]
fn refusals_fail_the_request_they_name_and_complete_those_before() {
    for (nak, failure) in [
        (Nak::InvalidRequest, Failure::InvalidRequest),
        (Nak::RemoteAccess, Failure::RemoteAccess),
        (Nak::RemoteOperation, Failure::RemoteOperation),
    ] {
        let mut script =
            Script::new(config(), &[request(SEND, 1), request(WRITE, 3 * MTU), request(SEND, 1)]);
        script.send();
        script.nak(2, nak);
        assert_eq!(script.requester.next_completion(), Some(Completion { id: 0, result: Ok(()) }));
        assert_eq!(script.requester.next_completion(), Some(Completion { id: 1, result: Err(failure) }));
        assert_eq!((script.requester.next_completion(), script.requester.has_failed()), (None, true));
        assert_eq!(script.requester.post(request(SEND, 1)), None);
    }
}

#[test]
fn a_read_takes_the_numbers_of_its_responses() {
    let mut script = Script::new(config(), &[request(READ, 2 * MTU + 8), request(SEND, 1)]);
    let packets = script.send_packets();
    assert_eq!(packets.iter().map(|packet| packet.psn.distance_from(FIRST)).collect::<Vec<_>>(), [0, 3]);
    assert_eq!(script.data(0, Place::First, 256), Heard::Data { id: 0, at: 0 });
    assert_eq!(script.data(1, Place::Middle, 256), Heard::Data { id: 0, at: MTU });
    assert_eq!(script.data(2, Place::Last, 8), Heard::Data { id: 0, at: 2 * MTU });
    assert_eq!(script.done(), [0]);
    script.ack(3);
    assert_eq!(script.done(), [1]);
}

#[test]
fn a_lost_response_is_asked_for_again_from_where_it_is_missing() {
    let mut script = Script::new(config(), &[request(READ, 4 * MTU), request(SEND, 1)]);
    script.send();
    script.data(0, Place::First, 256);
    assert_eq!(script.data(2, Place::Middle, 256), Heard::Nothing);
    assert_eq!(script.data(3, Place::Last, 256), Heard::Nothing);
    let packets = script.send_packets();
    assert_eq!(packets.iter().map(|packet| packet.psn.distance_from(FIRST)).collect::<Vec<_>>(), [1, 4]);
    let reth = packets[0].reth;
    assert_eq!((reth.address, reth.length), (0x1000 + u64::from(MTU), 3 * MTU));
    // A responder may begin the repetition either way.
    assert_eq!(script.data(1, Place::First, 256), Heard::Data { id: 0, at: MTU });
    assert_eq!(script.data(2, Place::Middle, 256), Heard::Data { id: 0, at: 2 * MTU });
    assert_eq!(script.data(3, Place::Last, 256), Heard::Data { id: 0, at: 3 * MTU });
    assert_eq!((script.done(), script.requester.counters().lost_responses), (vec![0], 1));
}

#[test]
fn an_acknowledgement_does_not_stand_for_a_response() {
    for verb in [READ, ADD] {
        let mut script = Script::new(config(), &[request(verb, 8), request(SEND, 1)]);
        assert_eq!(script.send(), [0, 1]);
        script.ack(1);
        assert_eq!((script.done(), script.send()), (vec![], vec![0, 1]));
    }
}

#[test]
fn a_response_that_is_not_placed_is_asked_for_again() {
    let mut script = Script::new(config(), &[request(READ, 2 * MTU)]);
    script.send();
    let first = response(Operation::ReadResponse, Place::First, 0, Syndrome::ACK);
    assert_eq!(script.requester.receive(&first, 256, 0), Heard::Data { id: 0, at: 0 });
    assert_eq!(script.data(1, Place::Last, 256), Heard::Nothing);
    assert_eq!(script.send(), [0]);
}

#[test]
fn responses_that_do_not_fit_fail_the_request() {
    let bad: [(Verb, Packet, usize); 4] = [
        (READ, response(Operation::ReadResponse, Place::Only, 0, Syndrome::ACK), 7),
        (READ, response(Operation::AtomicAcknowledge, Place::Only, 0, Syndrome::ACK), 0),
        (ADD, response(Operation::ReadResponse, Place::Only, 0, Syndrome::ACK), 8),
        (SEND, response(Operation::ReadResponse, Place::Only, 0, Syndrome::ACK), 8),
    ];
    for (verb, packet, length) in bad {
        let mut script = Script::new(config(), &[request(verb, 8)]);
        script.send();
        script.hear(&packet, length);
        assert_eq!(script.failure(), Some(Failure::BadResponse), "{verb:?}");
    }
}

#[test]
fn only_so_many_reads_and_atomics_are_in_flight() {
    let config = RequesterConfig { max_rd_atomic: 2, ..config() };
    let flush = Verb::Flush { address: 0x1000, key: 9, flush: Feth { global: true, ..Feth::default() } };
    let requests = [request(READ, 2 * MTU), request(ADD, 8), request(flush, 64), request(SEND, 1)];
    let mut script = Script::new(config, &requests);
    assert_eq!(script.send(), [0, 2]);
    script.data(0, Place::First, 256);
    assert_eq!(script.send(), [0; 0]);
    script.data(1, Place::Last, 256);
    assert_eq!(script.send(), [3, 4]);
    let original =
        Packet { original: 5, ..response(Operation::AtomicAcknowledge, Place::Only, 2, Syndrome::ACK) };
    assert_eq!(script.hear(&original, 0), Heard::Original { id: 1, value: 5 });
    script.data(3, Place::Only, 0);
    assert_eq!(script.done(), [0, 1, 2]);
}

#[test]
fn a_fence_waits_for_responses_and_not_for_acknowledgements() {
    let fenced = Request { fence: true, ..request(SEND, 1) };
    let mut script = Script::new(config(), &[request(SEND, 1), fenced, request(READ, 8), fenced]);
    assert_eq!(script.send(), [0, 1, 2]);
    script.data(2, Place::Only, 8);
    assert_eq!(script.send(), [3]);
}

#[test]
fn what_is_too_long_or_too_much_is_not_taken() {
    let mut requester = Requester::new(config(), FIRST);
    assert_eq!(requester.post(request(READ, u32::MAX)), None, "2^24 packets of 256 bytes");
    assert_eq!(requester.post(request(READ, (1 << 31) - 256)), Some(0));
    assert_eq!(requester.post(request(SEND, 1)), None, "no numbers are left");
    let mut requester = Requester::new(config(), FIRST);
    let taken = (0..10_000).take_while(|_| requester.post(request(SEND, 1)).is_some()).count();
    assert_eq!(taken, 256);
}

#[test]
fn limits_may_change_and_the_mtu_may_not() {
    let mut script = Script::new(RequesterConfig { max_rd_atomic: 1, ..config() }, &[]);
    let other =
        RequesterConfig { retry_count: 0, max_rd_atomic: 2, ..RequesterConfig::new(Mtu::LARGEST, 0x13) };
    script.requester.configure(RequesterConfig { timeout_ns: Some(7), ..other });
    for verb in [READ, ADD, SEND] {
        script.requester.post(request(verb, 8)).expect("room");
    }
    script.requester.post(request(SEND, 2 * MTU)).expect("room");
    let packets = script.send_packets();
    assert_eq!(packets.len(), 5, "the MTU is that of the beginning, and two READs or atomics are in flight");
    assert!(packets.iter().all(|packet| packet.dest_qpn == 0x13));
    script.wait(7);
    assert_eq!(script.failure(), Some(Failure::RetriesExceeded));
}
