//! What a requester makes of a peer's answers: late ones, lost ones, refusals, and those that do not fit.

use refault_abi::codes::{
    OP_FETCH_ADD, WC_REM_ACCESS_ERR, WC_REM_OP_ERR, WC_RETRY_EXC_ERR, WC_RNR_RETRY_EXC_ERR, WC_SUCCESS,
};
use refault_roce::{Nak, Operation::*, Place::*, Syndrome};

use super::peer::*;
use super::*;

/// Where the peer has memory, and its key.
const THERE: (u64, u32) = (0x1234_5000, 0x99);
/// The delay of timer code 12.
const DELAY_NS: u64 = 640_000;

impl Script {
    /// The station writes `length` bytes of its source.
    fn posts_write(&mut self, wr_id: u64, length: u32) {
        let write = self.station.pair.write(wr_id, length, THERE.0, THERE.1);
        self.posts(&write);
    }

    /// The station reads `length` bytes into its target.
    fn posts_read(&mut self, wr_id: u64, length: u32) {
        let Pair { to, rkey, .. } = self.station.pair;
        let read = request(OP_RDMA_READ, wr_id, &[sge(to, length, rkey)]);
        self.posts(&SqWqe { remote_addr: THERE.0, rkey: THERE.1, ..read });
    }

    fn responds(&self, place: Place, psn: u32, payload: &[u8]) {
        self.says(&self.answer(ReadResponse, place, psn, Syndrome::ACK), payload);
    }

    /// What the only request that was sent asks to be read: number, address behind the start, length.
    fn asked(&self) -> (u32, u64, u32) {
        let heard = self.heard();
        assert_eq!((heard.len(), heard[0].packet.opcode.operation()), (1, ReadRequest), "{heard:?}");
        let reth = heard[0].packet.reth;
        (heard[0].packet.psn.get(), reth.address - THERE.0, reth.length)
    }
}

#[test]
fn what_is_not_acknowledged_is_sent_again_and_completes_once() {
    let mut script = Script::new();
    script.posts_write(1, 2000);
    let first = script.heard();
    assert_eq!(first.iter().map(|heard| heard.packet.psn.get()).collect::<Vec<_>>(), [9, 10]);
    script.bench().advance(TIMEOUT_NS - 1);
    assert!(script.is_silent());
    script.bench().advance(1);
    assert_eq!(script.heard(), first, "the same again");
    script.acknowledges(10);
    script.acknowledges(10);
    assert_eq!(script.completions(), [(1, WC_SUCCESS)]);
    script.bench().advance(10 * TIMEOUT_NS);
    assert!(script.is_silent());
    assert_eq!(script.bench().nic.stats().packets_repeated, 2);
}

#[test]
fn a_response_that_is_lost_is_asked_for_again_and_no_more_than_that() {
    let parts = [bytes(1, MTU), bytes(2, MTU), bytes(3, 452)];
    for lost in 0..3 {
        let mut script = Script::new();
        script.posts_read(1, 2500);
        assert_eq!(script.asked(), (9, 0, 2500));
        for (at, part) in (0u32..).zip(&parts) {
            if at != lost {
                script.responds(Place::of(at, 3), 9 + at, part);
            }
        }
        if lost == 2 {
            assert!(script.is_silent(), "nothing shows that it is lost");
            script.bench().advance(TIMEOUT_NS);
        }
        assert_eq!(script.asked(), (9 + lost, u64::from(lost) * 1024, 2500 - lost * 1024), "{lost}");
        assert_eq!(script.completions(), []);
        for at in lost..3 {
            // As soft-RoCE begins again: in the middle.
            let place = if at == 2 { Last } else { Middle };
            script.responds(place, 9 + at, &parts[at as usize]);
        }
        assert_eq!(script.completions(), [(1, WC_SUCCESS)], "{lost}");
        assert_eq!(script.target(0, 2500), parts.concat(), "{lost}");
        assert!(script.is_silent());
    }
}

#[test]
fn an_acknowledgement_is_no_answer_to_a_read() {
    let mut script = Script::new();
    script.posts_read(1, 8);
    script.posts_write(2, 8);
    assert_eq!(script.requests(), [9, 10]);
    script.acknowledges(10);
    // The READ's answer is missing: it is asked for once, with what was sent behind it.
    assert_eq!((script.requests(), script.completions()), (vec![9, 10], vec![]));
    script.acknowledges(10);
    assert!(script.is_silent());
    script.responds(Only, 9, &[5; 8]);
    script.acknowledges(10);
    assert_eq!(script.completions(), [(1, WC_SUCCESS), (2, WC_SUCCESS)]);
}

#[test]
fn one_refusal_takes_it_back_once() {
    let mut script = Script::new();
    (1..=3).for_each(|id| script.posts_write(id, 8));
    assert_eq!(script.requests(), [9, 10, 11]);
    script.refuses(10, Nak::Sequence);
    assert_eq!((script.requests(), script.completions()), (vec![10, 11], vec![(1, WC_SUCCESS)]));
    script.refuses(10, Nak::Sequence);
    assert!(script.is_silent(), "of the same loss");
    script.acknowledges(10);
    script.refuses(11, Nak::Sequence);
    assert_eq!(script.requests(), [11], "of another one");
    script.acknowledges(11);
    assert_eq!(script.completions(), [(2, WC_SUCCESS), (3, WC_SUCCESS)]);
}

#[test]
fn a_delay_is_waited_for_whatever_else_is_said() {
    let mut script = Script::new();
    script.posts_write(1, 8);
    script.posts_write(2, 8);
    assert_eq!(script.requests(), [9, 10]);
    script.says(&script.answer(Acknowledge, Only, 9, Syndrome::ReceiverNotReady(12)), &[]);
    // As soft-RoCE does for what was sent behind it.
    script.refuses(9, Nak::Sequence);
    script.posts_write(3, 8);
    script.bench().advance(DELAY_NS - 1);
    assert!(script.is_silent());
    script.bench().advance(1);
    assert_eq!(script.requests(), [9, 10, 11]);
    script.acknowledges(11);
    assert_eq!(script.completions(), [(1, WC_SUCCESS), (2, WC_SUCCESS), (3, WC_SUCCESS)]);
    assert_eq!(script.bench().nic.stats().rnr_waits, 1);
}

#[test]
fn a_peer_that_is_gone_costs_as_many_timeouts_as_were_agreed_on() {
    let mut script = Script::with(config(1), ModifyQp { retry_count: 2, ..BUSY }, QPS_RTS);
    script.posts_write(1, 8);
    script.posts_write(2, 8);
    for _ in 0..2 {
        assert_eq!(script.requests(), [9, 10]);
        script.bench().advance(TIMEOUT_NS);
    }
    assert_eq!((script.requests(), script.state()), (vec![9, 10], QPS_RTS));
    script.bench().advance(TIMEOUT_NS);
    let flushed = refault_abi::codes::WC_WR_FLUSH_ERR;
    assert_eq!(script.completions(), [(1, WC_RETRY_EXC_ERR), (2, flushed)]);
    script.acknowledges(9);
    script.bench().advance(10 * TIMEOUT_NS);
    assert!(script.is_silent() && script.completions().is_empty() && script.state() == QPS_ERR);
}

#[test]
fn a_peer_that_is_never_ready_costs_as_many_delays_as_were_agreed_on() {
    let mut script = Script::with(config(1), ModifyQp { rnr_retry: 2, ..BUSY }, QPS_RTS);
    script.posts_write(1, 8);
    for _ in 0..3 {
        assert_eq!(script.requests(), [9]);
        script.says(&script.answer(Acknowledge, Only, 9, Syndrome::ReceiverNotReady(12)), &[]);
        script.bench().advance(DELAY_NS);
    }
    assert_eq!(script.completions(), [(1, WC_RNR_RETRY_EXC_ERR)]);
    assert!(script.is_silent());
}

#[test]
fn what_was_never_sent_cannot_be_answered() {
    let mut script = Script::new();
    script.posts_write(1, 8);
    assert_eq!(script.requests(), [9]);
    for psn in [10, 11, 8, 0, 9 + (1 << 23)] {
        script.acknowledges(psn);
        script.refuses(psn, Nak::RemoteAccess);
        script.responds(Only, psn, &[9; 8]);
    }
    assert!(script.completions().is_empty() && script.is_silent());
    script.acknowledges(9);
    assert_eq!(script.completions(), [(1, WC_SUCCESS)]);
}

#[test]
fn a_response_of_another_length_fails_its_request_and_is_written_nowhere() {
    for (length, place) in [(9, Only), (7, Only), (0, Only), (MTU, First), (4096, Only)] {
        let mut script = Script::new();
        script.posts_read(1, 8);
        assert_eq!(script.requests(), [9]);
        script.responds(place, 9, &vec![9; length]);
        assert_eq!(script.completions(), [(1, WC_REM_OP_ERR)], "{length}");
        assert_eq!(script.target(0, 5000), vec![0; 5000], "{length}");
    }
    let mut script = Script::new();
    script.posts_write(1, 8);
    script.heard();
    script.responds(Only, 9, &[]);
    assert_eq!(script.completions(), [(1, WC_REM_OP_ERR)], "to a WRITE");
}

#[test]
fn an_atomic_that_is_sent_again_brings_one_value() {
    let mut script = Script::new();
    let Pair { to, rkey, .. } = script.station.pair;
    let add = request(OP_FETCH_ADD, 1, &[sge(to, 8, rkey)]);
    let add = SqWqe { remote_addr: THERE.0, rkey: THERE.1, compare_add: 1, ..add };
    script.posts(&add);
    script.bench().advance(TIMEOUT_NS);
    assert_eq!(script.requests(), [9, 9]);
    let value =
        |value| Packet { original: value, ..script.answer(AtomicAcknowledge, Only, 9, Syndrome::ACK) };
    let (first, second) = (value(0x77), value(0x78));
    script.says(&first, &[]);
    script.says(&second, &[]);
    assert_eq!(script.completions(), [(1, WC_SUCCESS)]);
    assert_eq!(script.target(0, 8), 0x77u64.to_le_bytes());
}

#[test]
fn numbers_wrap_in_both_directions() {
    let mut script = Script::with(config(1), ModifyQp { sq_psn: 0xff_fffe, ..BUSY }, QPS_RTS);
    script.posts_write(1, 3000);
    assert_eq!(script.requests(), [0xff_fffe, 0xff_ffff, 0]);
    script.refuses(0xff_ffff, Nak::Sequence);
    assert_eq!(script.requests(), [0xff_ffff, 0]);
    script.acknowledges(0);
    assert_eq!(script.completions(), [(1, WC_SUCCESS)]);
    script.posts_write(2, 8);
    script.refuses(1, Nak::RemoteAccess);
    assert_eq!(script.completions(), [(2, WC_REM_ACCESS_ERR)]);
}
