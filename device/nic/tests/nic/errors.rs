//! Errors: what each does to its request, its queue pair and its peer.

use refault_abi::codes::{
    ACCESS_REMOTE_READ, CAUSE_ALIGNMENT, CAUSE_BLOCKED, CAUSE_BOUNDS, CAUSE_KEY, CAUSE_NONE,
    CAUSE_NOT_MEMORY, CAUSE_REVOKED, CAUSE_RIGHTS, OP_COMPARE_SWAP, OP_FETCH_ADD, OP_RDMA_READ,
    OP_RDMA_WRITE, OP_RDMA_WRITE_IMM, OP_SEND, OP_SEND_INVALIDATE, Opcode, QPS_ERR, QPS_RESET, QPS_RTR,
    QPS_RTS, WC_LOC_LEN_ERR, WC_LOC_PROT_ERR, WC_LOC_QP_OP_ERR, WC_REM_ACCESS_ERR, WC_REM_INV_REQ_ERR,
    WC_REM_OP_ERR, WC_RETRY_EXC_ERR, WC_RNR_RETRY_EXC_ERR, WC_SUCCESS, WC_WR_FLUSH_ERR, WcStatus,
};
use refault_abi::command::{CMD_DESTROY_CQ, CMD_DESTROY_MR, CMD_REVOKE_MR, ModifyQp};
use refault_abi::event::{
    EVENT_CQ_ERROR, EVENT_QP, QP_EVENT_ACCESS_ERROR, QP_EVENT_COMMUNICATION_ESTABLISHED, QP_EVENT_FATAL,
    QP_EVENT_REQUEST_ERROR,
};
use refault_abi::queue::{MAX_SGE, QpDoorbellRecord, SqWqe, WqeFlags};
use refault_bus::Gpa;
use refault_bus::dma::DmaMemory;

use crate::support::driver::*;
use crate::support::*;

impl Pair {
    /// Runs one request that must fail with `status` and `cause`, and leave A in ERR.
    fn fails(&mut self, wqe: &SqWqe, status: WcStatus, cause: u32) {
        self.run(wqe);
        let entry = self.cq_a.expect(&self.bench, status);
        assert_eq!((entry.wr_id, entry.vendor_error), (wqe.wr_id, cause), "{wqe:?}");
        assert_eq!(self.a.state(&self.bench), QPS_ERR);
    }
}

#[test]
fn a_remote_access_that_breaks_the_rules_fails_both_ends() {
    type Breach = fn(&Pair) -> (SqWqe, u32);
    let breaches: [Breach; 5] = [
        |pair| (pair.write(1, 8, pair.to, pair.rkey + 1), CAUSE_KEY),
        |pair| (pair.write(1, 8, pair.to, 0xffff_ff01), CAUSE_KEY),
        |pair| (pair.write(1, 8, pair.to + BUFFER - 7, pair.rkey), CAUSE_BOUNDS),
        |pair| (pair.write(1, 8, u64::MAX - 3, pair.rkey), CAUSE_BOUNDS),
        |pair| {
            let key = pair.bench.pinned(pair.pd, pair.to, pair.to, 64, ACCESS_REMOTE_READ);
            (pair.write(1, 8, pair.to, key), CAUSE_RIGHTS)
        },
    ];
    for breach in breaches {
        let mut pair = Pair::new();
        let (wqe, cause) = breach(&pair);
        pair.fails(&wqe, WC_REM_ACCESS_ERR, cause);
        assert_eq!(pair.b.state(&pair.bench), QPS_ERR);
        assert_eq!(pair.eq.drain(&pair.bench), [(EVENT_QP, QP_EVENT_ACCESS_ERROR.0, pair.b.qpn)]);
    }
}

#[test]
fn a_key_that_the_peer_cannot_invalidate_is_out_of_reach() {
    let mut pair = Pair::new();
    pair.b.receive(&pair.bench, 5, &[sge(pair.to, 100, pair.rkey)]);
    let send = SqWqe { imm: pair.rkey, ..request(OP_SEND_INVALIDATE, 1, &[pair.source(0, 100)]) };
    pair.fails(&send, WC_REM_ACCESS_ERR, CAUSE_KEY);
    assert_eq!(pair.b.state(&pair.bench), QPS_ERR);
}

#[test]
fn regions_of_another_domain_are_out_of_reach() {
    let mut pair = Pair::new();
    let other = pair.bench.pd(pair.context);
    let foreign = pair.bench.pinned(other, pair.to, pair.to, 64, ALL_RIGHTS);
    pair.fails(&pair.write(1, 8, pair.to, foreign), WC_REM_ACCESS_ERR, CAUSE_KEY);
    let mut pair = Pair::new();
    let other = pair.bench.pd(pair.context);
    let foreign = pair.bench.pinned(other, pair.to, pair.to, 64, ALL_RIGHTS);
    let wqe = request(OP_RDMA_WRITE, 1, &[sge(pair.to, 8, foreign)]);
    let wqe = SqWqe { remote_addr: pair.to, rkey: pair.rkey, ..wqe };
    pair.fails(&wqe, WC_LOC_PROT_ERR, CAUSE_KEY);
}

#[test]
fn a_local_access_that_breaks_the_rules_fails_its_own_end_alone() {
    let mut pair = Pair::new();
    let key = pair.bench.pinned(pair.pd, pair.from, pair.from, 64, ACCESS_REMOTE_READ);
    let wqe = request(OP_RDMA_READ, 4, &[sge(pair.from, 8, key)]);
    let wqe = SqWqe { remote_addr: pair.to, rkey: pair.rkey, ..wqe };
    pair.fails(&wqe, WC_LOC_PROT_ERR, CAUSE_RIGHTS);
    assert_eq!(pair.b.state(&pair.bench), QPS_RTS);
    assert!(pair.eq.drain(&pair.bench).is_empty());
}

#[test]
fn malformed_requests_fail_and_what_follows_is_flushed_in_order() {
    let mut pair = Pair::new();
    pair.a.prepare(&pair.bench, &SqWqe { opcode: Opcode(200), wr_id: 1, ..SqWqe::default() });
    for wr_id in 2..5 {
        pair.a.prepare(
            &pair.bench,
            &SqWqe { flags: WqeFlags::NONE, ..pair.write(wr_id, 8, pair.to, pair.rkey) },
        );
    }
    pair.a.receive(&pair.bench, 10, &[]);
    pair.a.receive(&pair.bench, 11, &[]);
    pair.a.ring(&pair.bench);
    pair.bench.settle();
    let seen: Vec<(u64, WcStatus)> =
        pair.cq_a.drain(&pair.bench).iter().map(|entry| (entry.wr_id, entry.status)).collect();
    let flushed = WC_WR_FLUSH_ERR;
    assert_eq!(
        seen,
        [(1, WC_LOC_QP_OP_ERR), (2, flushed), (3, flushed), (4, flushed), (10, flushed), (11, flushed)]
    );
    // What is posted later is flushed too; the send doorbell makes the device read both rings.
    pair.a.receive(&pair.bench, 12, &[]);
    pair.a.send(&pair.bench, &pair.write(13, 8, pair.to, pair.rkey));
    pair.bench.settle();
    let seen: Vec<u64> = pair.cq_a.drain(&pair.bench).iter().map(|entry| entry.wr_id).collect();
    assert_eq!(seen, [13, 12]);
    assert_eq!(pair.bench.bytes(pair.to, 8), [0; 8]);
}

#[test]
fn a_message_too_long_for_its_receive_request_fails_both_ends() {
    let mut pair = Pair::new();
    pair.b.receive(&pair.bench, 5, &[sge(pair.to, 63, pair.rkey)]);
    let wqe = request(OP_SEND, 1, &[pair.source(0, 64)]);
    pair.fails(&wqe, WC_REM_INV_REQ_ERR, CAUSE_NONE);
    assert_eq!(pair.cq_b.expect(&pair.bench, WC_LOC_LEN_ERR).wr_id, 5);
    assert_eq!(pair.b.state(&pair.bench), QPS_ERR);
    assert_eq!(pair.bench.bytes(pair.to, 64), [0; 64]);
}

#[test]
fn a_receive_request_with_bad_memory_or_shape_fails_both_ends() {
    let mut pair = Pair::new();
    pair.b.receive(&pair.bench, 5, &[sge(pair.to, 64, 0x7700)]);
    pair.fails(&request(OP_SEND, 1, &[pair.source(0, 8)]), WC_REM_OP_ERR, CAUSE_NONE);
    assert_eq!(pair.cq_b.expect(&pair.bench, WC_LOC_PROT_ERR).vendor_error, CAUSE_KEY);
    let mut pair = Pair::new();
    pair.b.receive(&pair.bench, 5, &[]);
    pair.bench.ram.store_u32(Gpa(pair.b.gpa + pair.b.rq_offset + 8), MAX_SGE + 1).unwrap();
    pair.fails(&request(OP_SEND, 1, &[]), WC_REM_OP_ERR, CAUSE_NONE);
    pair.cq_b.expect(&pair.bench, WC_LOC_QP_OP_ERR);
}

#[test]
fn no_byte_moves_if_a_later_piece_of_the_sender_is_refused() {
    let bad = |pair: &Pair| sge(pair.from, 8, 0x7700);
    let mut pair = Pair::new();
    let pieces = [pair.source(0, 8), bad(&pair)];
    let write = SqWqe { remote_addr: pair.to, rkey: pair.rkey, ..request(OP_RDMA_WRITE, 1, &pieces) };
    pair.fails(&write, WC_LOC_PROT_ERR, CAUSE_KEY);
    assert_eq!(pair.bench.bytes(pair.to, 8), [0; 8]);
    let mut pair = Pair::new();
    pair.b.receive(&pair.bench, 5, &[sge(pair.to, 64, pair.rkey)]);
    pair.fails(&request(OP_SEND, 1, &[pair.source(0, 8), bad(&pair)]), WC_LOC_PROT_ERR, CAUSE_KEY);
    assert_eq!(pair.bench.bytes(pair.to, 8), [0; 8]);
}

/// A receive list is checked piece by piece, as the message reaches them.
#[test]
fn no_byte_moves_beyond_a_bad_piece_of_the_receiver() {
    for first in [8, 0x2_0000] {
        let mut pair = Pair::new();
        let behind = pair.to + u64::from(first);
        let pieces =
            [sge(pair.to, first, pair.rkey), sge(behind, 8, 0x7700), sge(behind + 0x1000, 8, pair.rkey)];
        pair.b.receive(&pair.bench, 5, &pieces);
        let request = request(OP_SEND, 1, &[pair.source(0, first + 16)]);
        pair.fails(&request, WC_REM_OP_ERR, CAUSE_NONE);
        let entry = pair.cq_b.expect(&pair.bench, WC_LOC_PROT_ERR);
        assert_eq!((entry.wr_id, entry.vendor_error), (5, CAUSE_KEY));
        assert_eq!(pair.b.state(&pair.bench), QPS_ERR);
        // What came before may be there, in part; nothing else is.
        let written = pair.bench.bytes(pair.to, first as usize);
        let sent = pair.bench.bytes(pair.from, first as usize);
        assert!(written.iter().zip(&sent).all(|(written, sent)| written == sent || *written == 0));
        assert!(pair.bench.bytes(behind, 0x2000).iter().all(|byte| *byte == 0));
    }
}

#[test]
fn a_queue_pair_takes_only_what_its_access_flags_allow() {
    let mut pair = Pair::with(ModifyQp { access: ACCESS_REMOTE_READ, ..PATIENT });
    pair.fails(&pair.write(1, 8, pair.to, pair.rkey), WC_REM_INV_REQ_ERR, CAUSE_RIGHTS);
    assert_eq!(pair.eq.drain(&pair.bench), [(EVENT_QP, QP_EVENT_REQUEST_ERROR.0, pair.b.qpn)]);
    assert_eq!(pair.b.state(&pair.bench), QPS_ERR);
}

#[test]
fn a_misaligned_atomic_is_refused() {
    let mut pair = Pair::new();
    let wqe = request(OP_FETCH_ADD, 1, &[sge(pair.from, 8, pair.lkey)]);
    let wqe = SqWqe { remote_addr: pair.to + 4, rkey: pair.rkey, ..wqe };
    pair.fails(&wqe, WC_REM_INV_REQ_ERR, CAUSE_ALIGNMENT);
}

#[test]
fn an_address_that_is_not_memory_fails_at_its_own_end() {
    let mut pair = Pair::new();
    pair.bench.iommu.map(PASID, 0x5000, 1 << 40, true);
    pair.fails(&pair.write(1, 8, 0x5000, pair.process), WC_REM_ACCESS_ERR, CAUSE_NOT_MEMORY);
    let mut pair = Pair::new();
    pair.bench.iommu.map(PASID, 0x5000, 1 << 40, true);
    let wqe = request(OP_RDMA_WRITE, 1, &[sge(0x5000, 8, pair.process)]);
    let wqe = SqWqe { remote_addr: pair.to, rkey: pair.rkey, ..wqe };
    pair.fails(&wqe, WC_LOC_PROT_ERR, CAUSE_NOT_MEMORY);
}

#[test]
fn a_pinned_page_that_the_iommu_blocks_is_an_error_and_no_fault() {
    let mut pair = Pair::new();
    pair.bench.iommu.block(pair.to + 0x1000);
    pair.fails(&pair.write(1, 0x2000, pair.to, pair.rkey), WC_REM_ACCESS_ERR, CAUSE_BLOCKED);
    assert!(pair.bench.iommu.take_requests().is_empty());
}

#[test]
fn without_a_receive_request_the_sender_waits_for_the_receiver_s_timer_and_gives_up_after_rnr_retry() {
    let impatient = ModifyQp { rnr_retry: 2, min_rnr_timer: 1, ..PATIENT };
    let mut pair = Pair::with(impatient);
    pair.run(&request(OP_SEND, 1, &[pair.source(0, 8)]));
    for _ in 0..2 {
        assert!(pair.cq_a.drain(&pair.bench).is_empty());
        pair.bench.advance(9_999);
        assert!(pair.cq_a.drain(&pair.bench).is_empty());
        pair.bench.advance(1);
    }
    assert_eq!(pair.cq_a.expect(&pair.bench, WC_RNR_RETRY_EXC_ERR).wr_id, 1);
    assert_eq!(pair.b.state(&pair.bench), QPS_RTS);
    assert_eq!(pair.bench.nic.stats().rnr_waits, 2);
}

#[test]
fn a_doorbell_does_not_end_a_wait_for_a_receive_request() {
    let impatient = ModifyQp { rnr_retry: 1, min_rnr_timer: 1, ..PATIENT };
    // B gets ready when A is so already.
    let mut pair = Pair::with(impatient);
    pair.run(&request(OP_SEND, 1, &[pair.source(0, 8)]));
    pair.run(&request(OP_SEND, 2, &[pair.source(0, 8)]));
    assert_eq!((pair.bench.nic.stats().rnr_waits, pair.cq_a.drain(&pair.bench).len()), (1, 0));
    for id in 0..2 {
        pair.b.receive(&pair.bench, id, &[sge(pair.to, 8, pair.rkey)]);
    }
    pair.bench.advance(10_000);
    let statuses: Vec<_> = pair.cq_a.drain(&pair.bench).iter().map(|entry| entry.status).collect();
    assert_eq!(statuses, [WC_SUCCESS; 2]);
}

#[test]
fn a_receive_request_in_time_ends_the_wait_and_rnr_retry_7_waits_forever() {
    let mut pair = Pair::new();
    pair.run(&request(OP_SEND, 1, &[pair.source(0, 8)]));
    for _ in 0..50 {
        pair.bench.advance(640_000);
    }
    assert!(pair.cq_a.drain(&pair.bench).is_empty());
    pair.b.receive(&pair.bench, 5, &[sge(pair.to, 8, pair.rkey)]);
    pair.bench.advance(640_000);
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    pair.cq_b.expect(&pair.bench, WC_SUCCESS);
}

#[test]
fn immediate_data_waits_for_a_receive_request_without_writing_twice() {
    // A packet that needs a receive request is not executed without one.
    if IN_PACKETS {
        return;
    }
    let mut pair = Pair::new();
    pair.run(&SqWqe { opcode: OP_RDMA_WRITE_IMM, ..pair.write(1, 8, pair.to, pair.rkey) });
    assert_eq!(pair.bench.bytes(pair.to, 8), pair.bench.bytes(pair.from, 8));
    pair.bench.fill(pair.to, &[0x55; 8]);
    pair.b.receive(&pair.bench, 5, &[]);
    pair.bench.advance(640_000);
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    pair.cq_b.expect(&pair.bench, WC_SUCCESS);
    assert_eq!(pair.bench.bytes(pair.to, 8), [0x55; 8]);
}

#[test]
fn a_peer_that_does_not_answer_is_tried_retry_count_times_more() {
    // The first time is no retry.
    if IN_PACKETS {
        return;
    }
    let impatient = ModifyQp { timeout: 1, retry_count: 2, ..PATIENT };
    let mut pair = Pair::unconnected(Bench::default());
    pair.a.raise(&pair.bench, pair.b.qpn, QPS_RTS, impatient);
    pair.run(&pair.write(1, 8, pair.to, pair.rkey));
    for _ in 0..2 {
        pair.bench.advance(8192);
        assert!(pair.cq_a.drain(&pair.bench).is_empty());
    }
    pair.bench.advance(8192);
    pair.cq_a.expect(&pair.bench, WC_RETRY_EXC_ERR);
    assert_eq!(pair.bench.nic.stats().transport_retries, 3);
}

#[test]
fn a_path_to_another_lid_has_no_responder() {
    let elsewhere = ModifyQp { timeout: 1, retry_count: 0, dest_lid: 9, ..PATIENT };
    let mut pair = Pair::with(elsewhere);
    pair.run(&pair.write(1, 8, pair.to, pair.rkey));
    pair.bench.advance(8192);
    pair.cq_a.expect(&pair.bench, WC_RETRY_EXC_ERR);
    assert_eq!(pair.bench.bytes(pair.to, 8), [0; 8]);
}

#[test]
fn a_peer_that_gets_ready_is_noticed_at_once() {
    // No packet says so.
    if IN_PACKETS {
        return;
    }
    let forever = ModifyQp { timeout: 0, ..PATIENT };
    let mut pair = Pair::unconnected(Bench::default());
    pair.a.raise(&pair.bench, pair.b.qpn, QPS_RTS, forever);
    pair.run(&pair.write(1, 8, pair.to, pair.rkey));
    pair.bench.advance(u64::MAX / 2);
    assert!(pair.cq_a.drain(&pair.bench).is_empty());
    assert_eq!(pair.bench.next_deadline_ns(), None);
    pair.b.raise(&pair.bench, pair.a.qpn, QPS_RTR, forever);
    pair.bench.settle();
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    assert_eq!(pair.eq.drain(&pair.bench), [(EVENT_QP, QP_EVENT_COMMUNICATION_ESTABLISHED.0, pair.b.qpn)]);
}

#[test]
fn a_peer_connected_to_another_queue_pair_does_not_answer() {
    let mut pair = Pair::unconnected(Bench::default());
    let impatient = ModifyQp { timeout: 1, retry_count: 0, ..PATIENT };
    pair.a.raise(&pair.bench, pair.b.qpn, QPS_RTS, impatient);
    pair.b.raise(&pair.bench, pair.b.qpn, QPS_RTS, impatient);
    pair.run(&pair.write(1, 8, pair.to, pair.rkey));
    pair.bench.advance(8192);
    pair.cq_a.expect(&pair.bench, WC_RETRY_EXC_ERR);
}

#[test]
fn a_completion_queue_that_overruns_takes_its_queue_pairs_with_it() {
    let mut pair = Pair::unconnected(Bench::default());
    let small = Cq::new(&pair.bench, pair.context, pair.eq.eqn, 1);
    let cqs = [small.cqn, pair.cq_a.cqn];
    pair.a = Qp::create(&pair.bench, pair.context, &Qp::command(&pair.bench, pair.pd, cqs, pair.eq.eqn, LOG));
    pair.a.raise(&pair.bench, pair.b.qpn, QPS_RTS, PATIENT);
    pair.b.raise(&pair.bench, pair.a.qpn, QPS_RTS, PATIENT);
    for wr_id in 0..5 {
        pair.a.prepare(&pair.bench, &pair.write(wr_id, 8, pair.to, pair.rkey));
    }
    pair.a.ring(&pair.bench);
    pair.bench.settle();
    assert_eq!(pair.a.state(&pair.bench), QPS_ERR);
    assert_eq!(pair.b.state(&pair.bench), QPS_RTS);
    let events = pair.eq.drain(&pair.bench);
    assert_eq!(events, [(EVENT_CQ_ERROR, 0, small.cqn), (EVENT_QP, QP_EVENT_FATAL.0, pair.a.qpn)]);
    // It takes nothing more, and can be destroyed with its queue pair.
    pair.a.destroy(&pair.bench).unwrap();
    pair.bench.id_command(CMD_DESTROY_CQ, small.cqn).unwrap();
}

#[test]
fn rings_that_cannot_be_read_lose_the_queue_pair_and_say_so() {
    let mut pair = Pair::new();
    pair.bench.iommu.block(pair.a.gpa);
    pair.bench.iommu.invalidate(None, 0, 64);
    pair.run(&pair.write(1, 8, pair.to, pair.rkey));
    pair.a.ring(&pair.bench);
    pair.bench.settle();
    assert_eq!(pair.eq.drain(&pair.bench), [(EVENT_QP, QP_EVENT_FATAL.0, pair.a.qpn)]);
    assert_eq!(pair.a.state(&pair.bench), QPS_ERR);
}

#[test]
fn producer_indices_out_of_range_lose_the_queue_pair() {
    let mut pair = Pair::new();
    pair.bench.ram.store_u32(Gpa(pair.a.record), 17).unwrap();
    pair.a.ring(&pair.bench);
    pair.bench.settle();
    assert_eq!(pair.eq.drain(&pair.bench), [(EVENT_QP, QP_EVENT_FATAL.0, pair.a.qpn)]);
    let mut pair = Pair::new();
    pair.bench.ram.store_u32(Gpa(pair.b.record + 64), u32::MAX).unwrap();
    pair.run(&request(OP_SEND, 1, &[]));
    pair.cq_a.expect(&pair.bench, WC_REM_OP_ERR);
    assert_eq!(pair.eq.drain(&pair.bench), [(EVENT_QP, QP_EVENT_FATAL.0, pair.b.qpn)]);
}

#[test]
fn a_revoked_or_destroyed_region_fails_what_is_half_way_through() {
    for revoke in [true, false] {
        let mut pair = Pair::new();
        pair.map_page(0x10_0000, true);
        pair.run(&pair.write(1, 0x2000, 0x10_0000, pair.process));
        let asked = pair.bench.iommu.take_requests()[0];
        if revoke {
            pair.bench.urgent_command(CMD_REVOKE_MR, pair.process).unwrap();
        } else {
            pair.bench.id_command(CMD_DESTROY_MR, pair.process).unwrap();
        }
        pair.bench.iommu.answer(&asked, refault_bus::pri::ResponseCode::Success);
        pair.bench.settle();
        let cause = if revoke { CAUSE_REVOKED } else { CAUSE_KEY };
        assert_eq!(pair.cq_a.expect(&pair.bench, WC_REM_ACCESS_ERR).vendor_error, cause);
    }
}

/// A READ, a COMPARE AND SWAP and a FETCH AND ADD of 8 bytes.
fn fetches(pair: &Pair) -> [SqWqe; 3] {
    [OP_RDMA_READ, OP_COMPARE_SWAP, OP_FETCH_ADD].map(|opcode| {
        let wqe = request(opcode, 1, &[sge(pair.from, 8, pair.lkey)]);
        SqWqe { remote_addr: pair.to, rkey: pair.rkey, compare_add: 0, swap: 9, ..wqe }
    })
}

#[test]
fn a_queue_pair_without_room_for_reads_and_atomics_sends_none() {
    for which in 0..3 {
        let mut pair = Pair::unconnected(Bench::default());
        pair.a.raise(&pair.bench, pair.b.qpn, QPS_RTS, ModifyQp { max_rd_atomic: 0, ..PATIENT });
        pair.b.raise(&pair.bench, pair.a.qpn, QPS_RTS, PATIENT);
        pair.run(&pair.write(7, 8, pair.to + 64, pair.rkey));
        pair.cq_a.expect(&pair.bench, WC_SUCCESS);
        let wqe = fetches(&pair)[which];
        pair.fails(&wqe, WC_LOC_QP_OP_ERR, CAUSE_NONE);
        assert_eq!(pair.b.state(&pair.bench), QPS_RTS);
        assert_eq!(pair.bench.bytes(pair.to, 8), [0; 8]);
    }
}

#[test]
fn a_queue_pair_without_room_for_reads_and_atomics_takes_none() {
    for which in 0..3 {
        let mut pair = Pair::unconnected(Bench::default());
        pair.a.raise(&pair.bench, pair.b.qpn, QPS_RTS, PATIENT);
        pair.b.raise(&pair.bench, pair.a.qpn, QPS_RTS, ModifyQp { max_dest_rd_atomic: 0, ..PATIENT });
        let wqe = fetches(&pair)[which];
        pair.fails(&wqe, WC_REM_INV_REQ_ERR, CAUSE_RIGHTS);
        assert_eq!(pair.eq.drain(&pair.bench), [(EVENT_QP, QP_EVENT_REQUEST_ERROR.0, pair.b.qpn)]);
        assert_eq!(pair.bench.bytes(pair.to, 8), [0; 8]);
    }
}

#[test]
fn an_atomic_whose_result_has_no_memory_leaves_the_word_as_it_was() {
    // The responder has executed it when the result arrives.
    if IN_PACKETS {
        return;
    }
    for opcode in [OP_FETCH_ADD, OP_COMPARE_SWAP] {
        let mut pair = Pair::new();
        pair.bench.iommu.map(PASID, 0x5000, 1 << 40, true);
        let wqe = request(opcode, 1, &[sge(0x5000, 8, pair.process)]);
        let wqe = SqWqe { remote_addr: pair.to, rkey: pair.rkey, compare_add: 0, swap: 9, ..wqe };
        pair.bench.ram.store_u64(Gpa(pair.to), 0).unwrap();
        let wqe = if opcode == OP_FETCH_ADD { SqWqe { compare_add: 5, ..wqe } } else { wqe };
        pair.fails(&wqe, WC_LOC_PROT_ERR, CAUSE_NOT_MEMORY);
        assert_eq!(pair.bench.ram.load_u64(Gpa(pair.to)).unwrap(), 0);
    }
}

#[test]
fn the_record_of_a_receiver_whose_peer_broke_it_asks_for_doorbells() {
    let mut pair = Pair::new();
    let word = Gpa(pair.b.record + std::mem::offset_of!(QpDoorbellRecord, in_error) as u64);
    let in_error = |pair: &Pair| pair.bench.ram.load_u32(word).unwrap();
    pair.b.receive(&pair.bench, 5, &[]);
    pair.run(&pair.write(1, 8, pair.to, pair.rkey));
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    assert_eq!(in_error(&pair), 0);
    pair.fails(&pair.write(1, 8, pair.to, pair.rkey ^ 2), WC_REM_ACCESS_ERR, CAUSE_KEY);
    // What was posted before needs no doorbell, what is posted from now on does.
    assert_eq!((pair.cq_b.expect(&pair.bench, WC_WR_FLUSH_ERR).wr_id, in_error(&pair)), (5, 1));
    pair.b.receive(&pair.bench, 6, &[]);
    pair.b.ring(&pair.bench);
    pair.bench.settle();
    assert_eq!(pair.cq_b.expect(&pair.bench, WC_WR_FLUSH_ERR).wr_id, 6);
    // The word is written once: in RESET the record is the driver's again.
    pair.b.to(&pair.bench, QPS_RESET);
    pair.bench.ram.write(Gpa(pair.b.record), &[0; 128]).unwrap();
    pair.b.received = 0;
    pair.a.to(&pair.bench, QPS_RESET);
    pair.b.raise(&pair.bench, pair.a.qpn, QPS_RTS, PATIENT);
    assert_eq!(in_error(&pair), 0);
    pair.b.to(&pair.bench, QPS_ERR);
    assert_eq!(in_error(&pair), 1);
}
