//! What a responder makes of a peer's requests: those in sequence, those that come again, too early or malformed.

use refault_abi::codes::{WC_LOC_LEN_ERR, WC_SUCCESS};
use refault_roce::{AtomicEth, Nak, Operation::*, Place::*, Reth, Syndrome};

use super::peer::*;
use super::*;

const ACK: Syndrome = Syndrome::ACK;
const GAP: Syndrome = Syndrome::Nak(Nak::Sequence);

#[test]
fn a_gap_is_refused_once_and_all_behind_it_comes_again() {
    let script = Script::new();
    script.says(&script.write(Only, 9, 4), &[1; 4]);
    assert_eq!(script.syndromes(), [(9, ACK)]);
    for psn in [11, 12, 13] {
        script.says(&script.write(Only, psn, 4), &[psn as u8; 4]);
    }
    assert_eq!((script.syndromes(), script.target(0, 4)), (vec![(10, GAP)], vec![1; 4]));
    for psn in [10, 11] {
        script.says(&script.write(Only, psn, 4), &[psn as u8; 4]);
    }
    assert_eq!((script.syndromes(), script.target(0, 4)), (vec![(10, ACK), (11, ACK)], vec![11; 4]));
    script.says(&script.write(Only, 13, 4), &[13; 4]);
    assert_eq!(script.syndromes(), [(12, GAP)], "another gap");
}

#[test]
fn what_comes_again_is_answered_and_not_done_again() {
    let mut script = Script::new();
    script.receives(1, 0, 100);
    script.receives(2, 100, 100);
    script.says(&script.packet(Send, Only, 9), &[7; 8]);
    script.says(&script.packet(Send, Only, 9), &[8; 8]);
    assert_eq!(script.syndromes(), [(9, ACK), (9, ACK)]);
    assert_eq!((script.completions(), script.target(0, 8)), (vec![(1, WC_SUCCESS)], vec![7; 8]));

    script.says(&script.write(Only, 10, 8), &[0; 8]);
    script.says(&script.fetch_add(11), &[]);
    script.says(&script.write(Only, 10, 8), &[9; 8]);
    script.says(&script.fetch_add(11), &[]);
    let heard = script.heard();
    let answers = heard.iter().map(|heard| (heard.packet.opcode.operation(), heard.packet.psn.get()));
    let fetched = (AtomicAcknowledge, 11);
    // A WRITE is answered by the newest.
    let newest = (Acknowledge, 11);
    assert_eq!(answers.collect::<Vec<_>>(), [(Acknowledge, 10), fetched, newest, fetched]);
    assert!(heard.iter().all(|heard| heard.packet.original == 0), "{heard:?}");
    assert_eq!(script.target(0, 8), 1u64.to_le_bytes());

    let named = script.named(0);
    let swap = AtomicEth { address: named.address, key: named.key, compare: 1, swap_or_add: 0x55 };
    let swap = Packet { atomic: swap, ..script.packet(CompareSwap, Only, 12) };
    let store =
        Packet { reth: Reth { length: 8, ..script.named(8) }, ..script.packet(AtomicWrite, Only, 13) };
    for _ in 0..2 {
        script.says(&swap, &[]);
        script.says(&store, &[3; 8]);
        script.bench().fill(script.station.pair.to + 8, &[4; 8]);
    }
    let heard = script.heard();
    let answers = heard.iter().map(|heard| (heard.packet.opcode.operation(), heard.packet.psn.get()));
    let both = [(AtomicAcknowledge, 12), (ReadResponse, 13)];
    assert_eq!(answers.collect::<Vec<_>>(), [both, both].concat());
    assert_eq!([0, 2].map(|at: usize| heard[at].packet.original), [1, 1]);
    assert_eq!(script.target(0, 16), [&0x55u64.to_le_bytes()[..], &[4; 8]].concat());

    script.says(&script.read(14, 0, 8), &[]);
    script.bench().fill(script.station.pair.to, &[6; 8]);
    script.says(&script.read(14, 0, 8), &[]);
    let again = [(Only, 14, 0x55u64.to_le_bytes().to_vec()), (Only, 14, vec![6; 8])];
    assert_eq!(script.responses(), again, "a READ is read again");
    assert_eq!((script.state(), script.completions()), (QPS_RTS, vec![]));
}

#[test]
fn numbers_wrap() {
    let attributes = ModifyQp { rq_psn: 0xff_fffe, ..BUSY };
    let script = Script::with(config(1), attributes, QPS_RTS);
    script.says(&script.write(First, 0xff_fffe, 2500), &bytes(1, MTU));
    script.says(&script.write(Middle, 0xff_ffff, 2500), &bytes(2, MTU));
    script.says(&script.write(Last, 0, 2500), &bytes(3, 452));
    assert_eq!(script.syndromes(), [(0, ACK)]);
    let whole = [bytes(1, MTU), bytes(2, MTU), bytes(3, 452)].concat();
    assert_eq!(script.target(0, 2500), whole);
    script.says(&script.write(Only, 0xff_fffd, 4), &[9; 4]);
    script.says(&script.write(Last, 0xff_ffff, 4), &[9; 4]);
    assert_eq!((script.syndromes(), script.target(0, 4)), (vec![(0, ACK), (0, ACK)], whole[..4].to_vec()));
    script.says(&script.write(Only, 2, 4), &[9; 4]);
    assert_eq!(script.syndromes(), [(1, GAP)]);
}

#[test]
fn a_read_across_the_wrap_is_repeated_from_where_it_broke() {
    let script = Script::with(config(1), ModifyQp { rq_psn: 0xff_fffe, ..BUSY }, QPS_RTS);
    let content = bytes(5, 4000);
    script.bench().fill(script.station.pair.to, &content);
    script.says(&script.read(0xff_fffe, 0, 4000), &[]);
    let part = |at: usize| content[at * MTU..(at * MTU + MTU).min(4000)].to_vec();
    let all = [(First, 0xff_fffe), (Middle, 0xff_ffff), (Middle, 0), (Last, 1)];
    let expected: Vec<_> = all.iter().enumerate().map(|(at, &(place, psn))| (place, psn, part(at))).collect();
    assert_eq!(script.responses(), expected);
    // From the third packet on: as the middle of what was asked for.
    script.says(&script.read(0, 2048, 4000 - 2048), &[]);
    assert_eq!(script.responses(), expected[2..]);
    script.says(&script.read(0, 2048, 100), &[]);
    assert_eq!(script.responses(), [(Last, 0, content[2048..2148].to_vec())], "less of it");
    // What was not asked for is not read: more of it, another place, another key, a number behind it.
    let other_key = script.read(0, 2048, 100);
    let other_key = Packet { reth: Reth { key: script.station.pair.lkey, ..other_key.reth }, ..other_key };
    let asked = [script.read(0, 2048, 1953), script.read(0, 2047, 100), script.read(1, 2048, 100), other_key];
    for packet in asked {
        script.says(&packet, &[]);
        assert!(script.is_silent(), "{packet:?}");
    }
    assert_eq!(script.state(), QPS_RTS);
}

#[test]
fn a_receiver_that_is_not_ready_says_so_once_and_drops_what_is_behind() {
    let mut script = Script::new();
    for psn in [9, 10, 11] {
        script.leaves(&script.packet(Send, Only, psn), &[psn as u8; 8]);
    }
    script.bench().settle();
    assert_eq!(script.syndromes(), [(9, Syndrome::ReceiverNotReady(12))]);
    script.says(&script.packet(Send, Only, 10), &[10; 8]);
    assert!(script.is_silent(), "the peer knows");
    (1..=3).for_each(|id| script.receives(id, id * 16, 16));
    for psn in [9, 10, 11] {
        script.says(&script.packet(Send, Only, psn), &[psn as u8; 8]);
    }
    assert_eq!(script.syndromes(), [(9, ACK), (10, ACK), (11, ACK)]);
    assert_eq!(script.completions(), [(1, WC_SUCCESS), (2, WC_SUCCESS), (3, WC_SUCCESS)]);
    assert_eq!((script.target(16, 8), script.target(48, 8)), (vec![9; 8], vec![11; 8]));
}

#[test]
fn only_what_is_to_be_acknowledged_is_and_at_once_for_all() {
    let script = Script::new();
    let quiet = |psn| Packet { ack_request: false, ..script.write(Only, psn, 4) };
    (9..12).for_each(|psn| script.says(&quiet(psn), &[1; 4]));
    assert!(script.is_silent());
    script.leaves(&script.write(Only, 12, 4), &[1; 4]);
    script.leaves(&quiet(13), &[1; 4]);
    script.leaves(&script.write(Only, 14, 4), &[2; 4]);
    script.bench().settle();
    let acks = script.syndromes();
    assert!(acks.len() <= 2 && acks.last() == Some(&(14, ACK)), "{acks:?}");
    assert_eq!(script.target(0, 4), [2; 4]);
}

/// Requests that cannot be, each the first of its connection but for those before it.
#[test]
fn what_cannot_be_is_refused_and_writes_nothing() {
    let invalid = |name: &str, script: &Script, packets: &[(Packet, usize)], nak: Nak| {
        let last = packets.len() as u32 - 1;
        for (packet, length) in packets {
            script.says(packet, &vec![0xee; *length]);
        }
        let refusals = script.syndromes();
        assert_eq!(refusals, [(FIRST + last, Syndrome::Nak(nak))], "{name}");
        assert_eq!(script.state(), QPS_ERR, "{name}");
        script.says(&script.write(Only, FIRST + last + 1, 4), &[0xee; 4]);
        script.says(&script.write(Only, FIRST + last, 4), &[0xee; 4]);
        assert!(script.is_silent(), "{name}: it has failed");
    };
    let unchanged = |name: &str, build: &dyn Fn(&Script) -> (Packet, usize), nak| {
        let script = Script::new();
        invalid(name, &script, &[build(&script)], nak);
        assert_eq!(script.target(0, 5000), vec![0; 5000], "{name}");
    };
    let request = Nak::InvalidRequest;
    unchanged("a first packet that is short", &|script| (script.write(First, 9, 3000), 1000), request);
    unchanged("more than an MTU", &|script| (script.write(Only, 9, 1025), 1025), request);
    unchanged("less than the header says", &|script| (script.write(Only, 9, 8), 4), request);
    unchanged("more than the header says", &|script| (script.write(Only, 9, 4), 8), request);
    unchanged("a first packet that is all", &|script| (script.write(First, 9, 1024), MTU), request);
    unchanged("a middle without a first", &|script| (script.write(Middle, 9, 0), MTU), request);
    unchanged("a last without a first", &|script| (script.packet(Send, Last, 9), 5), request);
    unchanged("a READ with a payload", &|script| (script.read(9, 0, 4), 4), request);
    unchanged("a READ of more than 2 GiB", &|script| (script.read(9, 0, (1 << 31) + 1), 0), request);
    unchanged("an atomic with a payload", &|script| (script.fetch_add(9), 4), request);
    let store = |length| {
        move |script: &Script| {
            let reth = Reth { length, ..script.named(0) };
            (Packet { reth, ..script.packet(AtomicWrite, Only, 9) }, length as usize)
        }
    };
    unchanged("an ATOMIC WRITE of four bytes", &store(4), request);
    unchanged("an ATOMIC WRITE of sixteen", &store(16), request);
    let at = |offset: u64, key: u32| {
        move |script: &Script| {
            let named = script.named(offset);
            (
                Packet {
                    reth: Reth { length: 8, key: named.key ^ key, ..named },
                    ..script.write(Only, 9, 8)
                },
                8,
            )
        }
    };
    unchanged("another key", &at(0, 1), Nak::RemoteAccess);
    unchanged("no such region", &at(0, 0x7700), Nak::RemoteAccess);
    unchanged("across the end", &at(BUFFER - 4, 0), Nak::RemoteAccess);
    unchanged("before the start", &at(u64::MAX - 7, 0), Nak::RemoteAccess);
    unchanged(
        "an odd address",
        &|script| {
            let packet = script.fetch_add(9);
            let atomic = AtomicEth { address: packet.atomic.address + 4, ..packet.atomic };
            (Packet { atomic, ..packet }, 0)
        },
        request,
    );

    let script = Script::new();
    let begun = [(script.write(First, 9, 3000), MTU), (script.packet(Send, Last, 10), 5)];
    invalid("another message before the end", &script, &begun, request);
    let script = Script::new();
    let begun = [(script.write(First, 9, 3000), MTU), (script.write(Last, 10, 0), 5)];
    invalid("an end that comes too early", &script, &begun, request);
    assert_eq!(script.target(MTU as u64, 5), [0; 5]);
    let script = Script::new();
    let begun = [(script.write(First, 9, 1500), MTU), (script.write(Middle, 10, 0), MTU)];
    invalid("a middle beyond the end", &script, &begun, request);
    assert_eq!(script.target(MTU as u64, MTU), vec![0; MTU]);
}

#[test]
fn a_message_that_is_too_long_for_its_receiver_ends_both() {
    let mut script = Script::new();
    script.receives(1, 0, 1500);
    script.says(&script.packet(Send, First, 9), &[1; MTU]);
    script.says(&script.packet(Send, Last, 10), &[2; 477]);
    assert_eq!(script.syndromes(), [(10, Syndrome::Nak(Nak::InvalidRequest))]);
    assert_eq!(script.completions(), [(1, WC_LOC_LEN_ERR)]);
    assert_eq!((script.target(0, MTU), script.target(1024, 600)), (vec![1; MTU], vec![0; 600]));
}

#[test]
fn before_rts_requests_are_taken_and_responses_are_not() {
    let script = Script::with(config(1), BUSY, QPS_RTR);
    script.says(&script.write(Only, 9, 4), &[1; 4]);
    assert_eq!((script.syndromes(), script.target(0, 4)), (vec![(9, ACK)], vec![1; 4]));
    script.acknowledges(9);
    script.refuses(9, Nak::RemoteAccess);
    script.says(&script.answer(ReadResponse, Only, 9, ACK), &[7; 8]);
    assert!(script.is_silent());
    assert_eq!(script.state(), QPS_RTR);
    script.says(&script.read(10, 0, 4), &[]);
    assert_eq!(script.responses(), [(Only, 10, vec![1; 4])]);

    let early = Script::with(config(1), BUSY, QPS_INIT);
    early.says(&early.write(Only, 9, 4), &[1; 4]);
    assert!(early.is_silent() && early.station.frames().unexpected == 1);
    assert_eq!(early.target(0, 4), [0; 4]);
}
