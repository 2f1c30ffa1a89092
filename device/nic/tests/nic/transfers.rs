//! Every operation, and what its completions say.

use refault_abi::codes::{
    OP_COMPARE_SWAP, OP_FETCH_ADD, OP_RDMA_READ, OP_RDMA_WRITE, OP_RDMA_WRITE_IMM, OP_SEND, OP_SEND_IMM,
    QPS_RTS, WC_SUCCESS,
};
use refault_abi::command::{CMD_CREATE_MR, CreateMr, CreateQp, MR_PINNED, ObjectId};
use refault_abi::queue::{
    CQE_RECEIVE, CQE_SOLICITED, CQE_WITH_IMM, CqeFlags, MAX_INLINE, MAX_SGE, SqWqe, WQE_INLINE, WQE_SIGNALED,
    WQE_SOLICITED, WqeFlags,
};
use refault_bus::Gpa;
use refault_bus::dma::DmaMemory;
use zerocopy::IntoBytes;

use crate::support::driver::*;
use crate::support::*;

#[test]
fn a_write_lands_and_completes_once() {
    let mut pair = Pair::new();
    let wqe = pair.write(77, 5000, pair.to + 3, pair.rkey);
    pair.run(&wqe);
    let entry = pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    assert_eq!((entry.wr_id, entry.qpn, entry.wqe_index, entry.opcode), (77, pair.a.qpn, 0, OP_RDMA_WRITE));
    assert_eq!(pair.bench.bytes(pair.to + 3, 5000), pair.bench.bytes(pair.from, 5000));
    assert_eq!(pair.bench.bytes(pair.to + 5003, 8), [0; 8]);
    assert!(pair.cq_b.drain(&pair.bench).is_empty());
    assert!(pair.bench.interrupts.take().is_empty());
}

#[test]
fn a_send_fills_the_receive_request_and_completes_both() {
    let mut pair = Pair::new();
    let pieces = [sge(pair.to, 100, pair.rkey), sge(pair.to + 0x2000, 4000, pair.rkey)];
    pair.b.receive(&pair.bench, 5, &pieces);
    let sources = [pair.source(1, 60), pair.source(9000, 0), pair.source(5000, 1000)];
    let wqe = SqWqe { imm: 0xabcd, ..request(OP_SEND_IMM, 6, &sources) };
    pair.run(&SqWqe { flags: WQE_SIGNALED | WQE_SOLICITED, ..wqe });
    let sent = pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    let got = pair.cq_b.expect(&pair.bench, WC_SUCCESS);
    assert_eq!((sent.wr_id, sent.flags), (6, CqeFlags::NONE));
    assert_eq!((got.wr_id, got.qpn, got.src_qpn), (5, pair.b.qpn, pair.a.qpn));
    assert_eq!((got.byte_len, got.imm, got.opcode), (1060, 0xabcd, OP_SEND_IMM));
    assert_eq!(got.flags, CQE_RECEIVE | CQE_WITH_IMM | CQE_SOLICITED);
    let expected = [pair.bench.bytes(pair.from + 1, 60), pair.bench.bytes(pair.from + 5000, 1000)].concat();
    let arrived = [pair.bench.bytes(pair.to, 100), pair.bench.bytes(pair.to + 0x2000, 960)].concat();
    assert_eq!(arrived, expected);
}

#[test]
fn a_read_fetches_into_local_memory() {
    let mut pair = Pair::new();
    let wqe = request(OP_RDMA_READ, 1, &[sge(pair.to + 8, 9000, pair.rkey)]);
    pair.run(&SqWqe { remote_addr: pair.from + 100, rkey: pair.lkey, ..wqe });
    assert_eq!(pair.cq_a.expect(&pair.bench, WC_SUCCESS).byte_len, 9000);
    assert_eq!(pair.bench.bytes(pair.to + 8, 9000), pair.bench.bytes(pair.from + 100, 9000));
}

#[test]
fn atomics_change_the_word_and_fetch_what_was_there() {
    let mut pair = Pair::new();
    let word = pair.to + 0x1ff8;
    pair.bench.ram.store_u64(Gpa(word), 40).unwrap();
    let local = sge(pair.from + 8, 8, pair.lkey);
    let add =
        SqWqe { remote_addr: word, rkey: pair.rkey, compare_add: 2, ..request(OP_FETCH_ADD, 1, &[local]) };
    pair.run(&add);
    assert_eq!(pair.cq_a.expect(&pair.bench, WC_SUCCESS).byte_len, 8);
    assert_eq!(pair.bench.ram.load_u64(Gpa(word)), Ok(42));
    assert_eq!(pair.bench.ram.load_u64(Gpa(pair.from + 8)), Ok(40));
    for (expected, swap, after) in [(41, 7, 42), (42, 8, 8)] {
        let wqe = SqWqe { opcode: OP_COMPARE_SWAP, compare_add: expected, swap, ..add };
        pair.run(&wqe);
        pair.cq_a.expect(&pair.bench, WC_SUCCESS);
        assert_eq!(pair.bench.ram.load_u64(Gpa(word)), Ok(after));
        assert_eq!(pair.bench.ram.load_u64(Gpa(pair.from + 8)), Ok(42));
    }
}

#[test]
fn a_write_with_immediate_consumes_a_receive_request() {
    let mut pair = Pair::new();
    pair.b.receive(&pair.bench, 31, &[]);
    let wqe = pair.write(30, 64, pair.to, pair.rkey);
    pair.run(&SqWqe { opcode: OP_RDMA_WRITE_IMM, imm: 99, ..wqe });
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    let got = pair.cq_b.expect(&pair.bench, WC_SUCCESS);
    assert_eq!((got.wr_id, got.byte_len, got.imm, got.opcode), (31, 64, 99, OP_RDMA_WRITE_IMM));
    assert_eq!(pair.bench.bytes(pair.to, 64), pair.bench.bytes(pair.from, 64));
}

#[test]
fn inline_data_comes_from_the_request_itself() {
    let mut pair = Pair::new();
    let mut wqe = SqWqe {
        flags: WQE_SIGNALED | WQE_INLINE,
        inline_length: 20,
        remote_addr: pair.to + 0xff8,
        rkey: pair.rkey,
        ..request(OP_RDMA_WRITE, 1, &[])
    };
    wqe.sge[0] = sge(0x0807_0605_0403_0201, 0x0c0b_0a09, 0x100f_0e0d);
    wqe.sge[1] = sge(0x1413_1211, 0, 0);
    pair.run(&wqe);
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    assert_eq!(pair.bench.bytes(pair.to + 0xff8, 20), (1..=20).collect::<Vec<u8>>());
}

#[test]
fn requests_carry_as_many_pieces_and_inline_bytes_as_fit() {
    for pieces in [4, 5, 7, 8, MAX_SGE] {
        let mut pair = Pair::new();
        let apart = |index: u32| u64::from(index) * 0x1800 + 8;
        let targets: Vec<_> = (0..pieces).map(|index| sge(pair.to + apart(index), 100, pair.rkey)).collect();
        let sources: Vec<_> = (0..pieces).map(|index| pair.source(apart(index), 100)).collect();
        pair.b.receive(&pair.bench, 5, &targets);
        pair.run(&request(OP_SEND, 6, &sources));
        pair.cq_a.expect(&pair.bench, WC_SUCCESS);
        assert_eq!(pair.cq_b.expect(&pair.bench, WC_SUCCESS).byte_len, 100 * pieces);
        for index in 0..pieces {
            let (from, to) = (pair.from + apart(index), pair.to + apart(index));
            assert_eq!(pair.bench.bytes(to, 100), pair.bench.bytes(from, 100), "piece {index} of {pieces}");
        }
    }
    for length in [63, 64, 65, 128, MAX_INLINE] {
        let mut pair = Pair::new();
        let data: Vec<u8> = (0..length).map(|byte| byte as u8 ^ 0x5a).collect();
        let mut wqe = SqWqe {
            flags: WQE_SIGNALED | WQE_INLINE,
            inline_length: length,
            remote_addr: pair.to,
            rkey: pair.rkey,
            ..request(OP_RDMA_WRITE, 1, &[])
        };
        wqe.sge.as_mut_bytes()[..data.len()].copy_from_slice(&data);
        pair.run(&wqe);
        pair.cq_a.expect(&pair.bench, WC_SUCCESS);
        assert_eq!(pair.bench.bytes(pair.to, data.len() + 8), [&data[..], &[0; 8]].concat(), "{length}");
    }
}

#[test]
fn an_entry_may_have_its_halves_in_pages_that_lie_apart() {
    let mut pair = Pair::unconnected(Bench::default());
    let (near, far) = (pair.bench.allocate(0x2000), pair.bench.allocate(0x1000));
    // The receive ring begins in the middle of an entry's size, so that its last entry crosses the page.
    let (rq_offset, record_offset) = (0x880, 0x1080);
    let command = CreateQp {
        buffer: pair.bench.table_of(&[near, far], 1),
        rq_offset,
        record_offset,
        ..Qp::command(&pair.bench, pair.pd, [pair.cq_b.cqn; 2], pair.eq.eqn, 3)
    };
    pair.b = Qp::create(&pair.bench, pair.context, &command);
    pair.b.record = far + 0x80;
    pair.a.raise(&pair.bench, pair.b.qpn, QPS_RTS, PATIENT);
    pair.b.raise(&pair.bench, pair.a.qpn, QPS_RTS, PATIENT);
    let apart = |index: u32| u64::from(index) * 0x1800;
    let targets: Vec<_> = (0..MAX_SGE).map(|index| sge(pair.to + apart(index), 8, pair.rkey)).collect();
    for id in 0..8 {
        pair.b.receive(&pair.bench, id, &targets);
    }
    let second_half = pair.bench.bytes(near + 0x1000, 0x80);
    pair.bench.fill(far, &second_half);
    pair.bench.fill(near + 0x1000, &[0xff; 0x80]);
    for id in 0..8 {
        pair.run(&request(OP_SEND, id, &[pair.source(id * 96, 96)]));
        assert_eq!(pair.cq_b.expect(&pair.bench, WC_SUCCESS).wr_id, id);
        let arrived: Vec<_> =
            (0..MAX_SGE).flat_map(|index| pair.bench.bytes(pair.to + apart(index), 8)).collect();
        assert_eq!(arrived, pair.bench.bytes(pair.from + id * 96, 96), "receive request {id}");
    }
}

#[test]
fn unsignaled_requests_are_retired_by_the_next_completion() {
    let mut pair = Pair::new();
    for wr_id in 0..5 {
        let wqe = pair.write(wr_id, 64, pair.to, pair.rkey);
        pair.a.prepare(
            &pair.bench,
            &SqWqe { flags: if wr_id == 3 { WQE_SIGNALED } else { WqeFlags::NONE }, ..wqe },
        );
    }
    pair.a.ring(&pair.bench);
    pair.bench.settle();
    let entry = pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    assert_eq!((entry.wr_id, entry.wqe_index), (3, 3));
    assert_eq!(pair.a.query(&pair.bench).sq_consumer, 5);
}

#[test]
fn signal_all_reports_every_request() {
    let mut pair = Pair::unconnected(Bench::default());
    let command = Qp::command(&pair.bench, pair.pd, [pair.cq_a.cqn; 2], pair.eq.eqn, LOG);
    pair.a = Qp::create(&pair.bench, pair.context, &CreateQp { signal_all: 1, ..command });
    pair.a.raise(&pair.bench, pair.b.qpn, QPS_RTS, PATIENT);
    pair.b.raise(&pair.bench, pair.a.qpn, QPS_RTS, PATIENT);
    let wqe = pair.write(1, 64, pair.to, pair.rkey);
    pair.run(&SqWqe { flags: WqeFlags::NONE, ..wqe });
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
}

#[test]
fn messages_without_data_are_messages() {
    let mut pair = Pair::new();
    pair.run(&SqWqe { remote_addr: 1, rkey: 2, ..request(OP_RDMA_WRITE, 1, &[]) });
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    pair.b.receive(&pair.bench, 5, &[]);
    pair.run(&request(OP_SEND, 2, &[]));
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    assert_eq!(pair.cq_b.expect(&pair.bench, WC_SUCCESS).byte_len, 0);
}

#[test]
fn rings_wrap_and_requests_stay_in_order() {
    let mut pair = Pair::new();
    let mut next = 0;
    for burst in 0..40 {
        for wr_id in 0..=burst % 16 {
            let wqe = pair.write(burst * 100 + wr_id, 64, pair.to + 64 * wr_id, pair.rkey);
            pair.a.prepare(&pair.bench, &wqe);
        }
        pair.a.ring(&pair.bench);
        pair.bench.settle();
        for (entry, wr_id) in pair.cq_a.drain(&pair.bench).into_iter().zip(0..) {
            assert_eq!((entry.wr_id, entry.status), (burst * 100 + wr_id, WC_SUCCESS));
            assert_eq!(entry.wqe_index, next);
            next += 1;
        }
    }
    assert_eq!(next, pair.a.sent);
}

#[test]
fn a_queue_pair_connected_to_itself_works() {
    let mut pair = Pair::unconnected(Bench::default());
    pair.a.raise(&pair.bench, pair.a.qpn, QPS_RTS, PATIENT);
    pair.a.receive(&pair.bench, 9, &[sge(pair.to, 4096, pair.rkey)]);
    let wqe = request(OP_SEND, 8, &[pair.source(0, 4096)]);
    pair.run(&wqe);
    let ids: Vec<u64> = pair.cq_a.drain(&pair.bench).iter().map(|entry| entry.wr_id).collect();
    assert_eq!(ids, [9, 8]);
    assert_eq!(pair.bench.bytes(pair.to, 4096), pair.bench.bytes(pair.from, 4096));
}

#[test]
fn regions_with_scattered_pages_and_an_offset_are_one_range() {
    let mut pair = Pair::new();
    let pages = [pair.to + 0x5000, pair.to + 0x1000, pair.to + 0x3000];
    let command = CreateMr {
        start: 0x7000_0123,
        length: 0x2800,
        table: pair.bench.table_of(&pages, 3),
        first_offset: 0x123,
        pd: pair.pd,
        access: ALL_RIGHTS,
        mode: MR_PINNED,
        ..CreateMr::default()
    };
    let key = pair.bench.command::<_, ObjectId>(CMD_CREATE_MR, &command).unwrap().id;
    pair.run(&pair.write(1, 0x2800, 0x7000_0123, key));
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    let arrived = [
        pair.bench.bytes(pages[0] + 0x123, 0xedd),
        pair.bench.bytes(pages[1], 0x1000),
        pair.bench.bytes(pages[2], 0x2800 - 0x1edd),
    ];
    assert_eq!(arrived.concat(), pair.bench.bytes(pair.from, 0x2800));
}

#[test]
fn a_copy_crosses_neighbouring_pieces_of_memory() {
    let mut pair = Pair::new();
    let border = 40 << 20;
    let key = pair.bench.pinned(pair.pd, border - 0x2000, border - 0x2000, 0x4000, ALL_RIGHTS);
    pair.run(&pair.write(1, 0x3000, border - 0x1800, key));
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    let arrived = [pair.bench.bytes(border - 0x1800, 0x1800), pair.bench.bytes(border, 0x1800)].concat();
    assert_eq!(arrived, pair.bench.bytes(pair.from, 0x3000));
}
