//! Commands with wrong handles, sizes and states, and the records of objects.

use refault_abi::codes::{
    ACCESS_LOCAL_WRITE, ACCESS_REMOTE_ATOMIC, ACCESS_REMOTE_WRITE, AccessRights, CAUSE_NOT_MEMORY,
    WC_REM_ACCESS_ERR, WC_SUCCESS,
};
use refault_abi::command::{
    CMD_CREATE_CONTEXT, CMD_CREATE_CQ, CMD_CREATE_EQ, CMD_CREATE_MR, CMD_CREATE_PD, CMD_CREATE_QP,
    CMD_DESTROY_CONTEXT, CMD_DESTROY_CQ, CMD_DESTROY_EQ, CMD_DESTROY_MR, CMD_DESTROY_PD, CMD_DESTROY_QP,
    CMD_INVALIDATE_MR, CMD_QUERY_DEVICE, CMD_QUERY_QP, CMD_RESUME_FAULT, CMD_REVOKE_MR, CMD_STOP_CONTEXT,
    CommandOpcode, CommandStatus, CreateContext, CreateCq, CreateEq, CreateMr, CreateQp, DeviceCaps,
    MR_PASID, ObjectId, PageTable, STATUS_BAD_MEMORY, STATUS_BAD_OPCODE, STATUS_BAD_PARAMETER, STATUS_BUSY,
    STATUS_NO_OBJECT, STATUS_NO_RESOURCES,
};
use refault_abi::queue::CQE_SIZE;
use refault_nic::NicConfig;
use zerocopy::IntoBytes;

use crate::support::driver::*;
use crate::support::*;

fn create<Q: IntoBytes + zerocopy::Immutable>(
    bench: &Bench,
    opcode: CommandOpcode,
    command: &Q,
) -> Result<u32, CommandStatus> {
    bench.command::<_, ObjectId>(opcode, command).map(|object| object.id)
}

#[test]
fn opcodes_belong_to_their_lane() {
    let bench = Bench::default();
    let unknown = [0, 2, 0x7f, 0x84, 0xffff].map(CommandOpcode);
    for opcode in [CMD_REVOKE_MR, CMD_INVALIDATE_MR, CMD_RESUME_FAULT].into_iter().chain(unknown) {
        assert_eq!(bench.id_command(opcode, 0), Err(STATUS_BAD_OPCODE), "{opcode:?}");
    }
    for opcode in [CMD_QUERY_DEVICE, CMD_CREATE_PD, CMD_DESTROY_QP, CommandOpcode(0x84)] {
        assert_eq!(bench.urgent_command(opcode, 0), Err(STATUS_BAD_OPCODE), "{opcode:?}");
    }
}

#[test]
fn a_key_that_was_destroyed_names_nothing_for_a_long_time() {
    let bench = Bench::default();
    let pd = bench.pd(bench.context(Some(PASID)));
    let mut keys = std::collections::HashSet::new();
    for _ in 0..2000 {
        let key = bench.process(pd, AccessRights::NONE);
        assert!(keys.insert(key), "{key:#x} after {} others", keys.len());
        bench.id_command(CMD_DESTROY_MR, key).unwrap();
    }
}

#[test]
fn a_ring_works_all_the_way_round() {
    let bench = Bench::default();
    for _ in 0..11 {
        assert!(bench.command::<_, DeviceCaps>(CMD_QUERY_DEVICE, &[0u8; 0]).is_ok());
    }
    let tokens: Vec<u32> = (0..4).map(|_| bench.post_command(0, CMD_QUERY_DEVICE, &[])).collect();
    bench.settle();
    let answered: Vec<u32> = (11..15).map(|index| bench.response(0, index).token).collect();
    assert_eq!(answered, tokens);
}

#[test]
fn handles_that_name_nothing_are_refused() {
    let pair = Pair::unconnected(Bench::default());
    let bench = &pair.bench;
    for id in [9999, u32::MAX, pair.a.qpn ^ 3 << 14, pair.rkey ^ 1] {
        for opcode in [
            CMD_DESTROY_EQ,
            CMD_DESTROY_CONTEXT,
            CMD_CREATE_PD,
            CMD_DESTROY_PD,
            CMD_DESTROY_MR,
            CMD_DESTROY_CQ,
            CMD_QUERY_QP,
            CMD_DESTROY_QP,
        ] {
            assert_eq!(bench.id_command(opcode, id), Err(STATUS_NO_OBJECT), "{opcode:?} {id:#x}");
        }
        assert_eq!(bench.urgent_command(CMD_REVOKE_MR, id), Err(STATUS_NO_OBJECT));
        assert_eq!(bench.urgent_command(CMD_STOP_CONTEXT, id), Err(STATUS_NO_OBJECT));
    }
    let good = Qp::command(bench, pair.pd, [pair.cq_a.cqn; 2], pair.eq.eqn, LOG);
    for bad in [
        CreateQp { pd: 77, ..good },
        CreateQp { send_cq: 77, ..good },
        CreateQp { recv_cq: 77, ..good },
        CreateQp { eqn: 63, ..good },
    ] {
        assert_eq!(create(bench, CMD_CREATE_QP, &bad), Err(STATUS_NO_OBJECT));
    }
    let good = Cq::command(bench, pair.context, pair.eq.eqn, 4);
    for bad in [CreateCq { context: 77, ..good }, CreateCq { eqn: 64, ..good }] {
        assert_eq!(create(bench, CMD_CREATE_CQ, &bad), Err(STATUS_NO_OBJECT));
    }
}

#[test]
fn sizes_and_offsets_out_of_range_are_refused() {
    let pair = Pair::unconnected(Bench::default());
    let bench = &pair.bench;
    let good = Qp::command(bench, pair.pd, [pair.cq_a.cqn; 2], pair.eq.eqn, LOG);
    let short = PageTable { pages: 1, ..good.buffer };
    for bad in [
        CreateQp { log_sq: 15, ..good },
        CreateQp { log_rq: 255, ..good },
        CreateQp { rq_offset: 64, ..good },
        CreateQp { rq_offset: good.rq_offset + 64, ..good },
        CreateQp { record_offset: good.rq_offset, ..good },
        CreateQp { record_offset: u32::MAX - 127, ..good },
        CreateQp { signal_all: 2, ..good },
        CreateQp { buffer: short, ..good },
        CreateQp { buffer: PageTable { levels: 4, ..good.buffer }, ..good },
        CreateQp { buffer: PageTable { page_shift: 13, ..good.buffer }, ..good },
        CreateQp { buffer: PageTable { root: good.buffer.root + 8, ..good.buffer }, ..good },
    ] {
        assert_eq!(create(bench, CMD_CREATE_QP, &bad), Err(STATUS_BAD_PARAMETER), "{bad:?}");
    }
    let good = Cq::command(bench, pair.context, pair.eq.eqn, 4);
    for bad in [
        CreateCq { log_size: 17, ..good },
        CreateCq { log_size: 255, ..good },
        CreateCq { record_offset: 1023, ..good },
        CreateCq { record_offset: 0, ..good },
        CreateCq { record_offset: 0x1000, ..good },
    ] {
        assert_eq!(create(bench, CMD_CREATE_CQ, &bad), Err(STATUS_BAD_PARAMETER), "{bad:?}");
    }
    let good = CreateEq { ring: bench.table(0x3000, 0x1000, 0), log_size: 7, ..CreateEq::default() };
    for bad in [
        CreateEq { log_size: 8, ..good },
        CreateEq { log_size: 17, ..good },
        CreateEq { log_size: 200, ..good },
        CreateEq { vector: 32, ..good },
    ] {
        assert_eq!(create(bench, CMD_CREATE_EQ, &bad), Err(STATUS_BAD_PARAMETER), "{bad:?}");
    }
}

#[test]
fn memory_that_cannot_be_reached_is_refused() {
    let pair = Pair::unconnected(Bench::default());
    let bench = &pair.bench;
    let nowhere = PageTable { root: 1 << 40, pages: 4, levels: 0, page_shift: 12, reserved: 0 };
    let lost = PageTable { levels: 2, ..nowhere };
    for table in [nowhere, lost] {
        let eq = CreateEq { ring: table, log_size: 4, ..CreateEq::default() };
        assert_eq!(create(bench, CMD_CREATE_EQ, &eq), Err(STATUS_BAD_MEMORY));
        let cq = CreateCq { buffer: table, ..Cq::command(bench, pair.context, pair.eq.eqn, 4) };
        assert_eq!(create(bench, CMD_CREATE_CQ, &cq), Err(STATUS_BAD_MEMORY));
        let qp = Qp::command(bench, pair.pd, [pair.cq_a.cqn; 2], pair.eq.eqn, LOG);
        assert_eq!(create(bench, CMD_CREATE_QP, &CreateQp { buffer: table, ..qp }), Err(STATUS_BAD_MEMORY));
        let mr = CreateMr { length: 0x4000, table, pd: pair.pd, ..CreateMr::default() };
        assert_eq!(create(bench, CMD_CREATE_MR, &mr), Err(STATUS_BAD_MEMORY));
    }
}

#[test]
fn a_table_that_loops_costs_one_bounded_walk() {
    let mut pair = Pair::new();
    let table = pair.bench.allocate(0x1000);
    for entry in 0..512u64 {
        pair.bench.fill(table + entry * 8, &table.to_le_bytes());
    }
    let root = PageTable { root: table, pages: 1 << 27, levels: 3, page_shift: 12, reserved: 0 };
    let command =
        CreateMr { length: 1 << 39, table: root, pd: pair.pd, access: ALL_RIGHTS, ..CreateMr::default() };
    let key = create(&pair.bench, CMD_CREATE_MR, &command).unwrap();
    pair.run(&pair.write(1, 0x1000, 0x77_7777_7000, key));
    // The table itself is the page it names.
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    assert_eq!(pair.bench.bytes(table, 16), pair.bench.bytes(pair.from, 16));
    pair.run(&pair.write(2, 0x1000, 0x77_7777_8000, key));
    assert_eq!(pair.cq_a.expect(&pair.bench, WC_REM_ACCESS_ERR).vendor_error, CAUSE_NOT_MEMORY);
}

#[test]
fn a_region_from_address_zero_on_has_what_is_mapped_when_it_is_used() {
    let mut pair = Pair::new();
    let table = PageTable { root: 0, pages: u32::MAX, levels: 0, page_shift: 21, reserved: 0 };
    let length = u64::from(u32::MAX) << 21;
    let command = CreateMr { length, table, pd: pair.pd, access: ALL_RIGHTS, ..CreateMr::default() };
    let key = create(&pair.bench, CMD_CREATE_MR, &command).unwrap();
    let to = pair.bench.allocate(0x1000);
    pair.run(&pair.write(1, 0x1000, to, key));
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    assert_eq!(pair.bench.bytes(to, 16), pair.bench.bytes(pair.from, 16));
    pair.run(&pair.write(2, 0x1000, length - 0x1000, key));
    pair.cq_a.expect(&pair.bench, WC_REM_ACCESS_ERR);
}

#[test]
fn a_region_has_only_rights_that_the_device_knows() {
    let bench = Bench::default();
    let pd = bench.pd(bench.context(None));
    let table = bench.table(0x10_0000, 0x1000, 0);
    for bit in 0..u32::BITS {
        let right = AccessRights(1 << bit);
        let access = ACCESS_LOCAL_WRITE | right;
        let command = CreateMr { length: 0x1000, table, pd, access, ..CreateMr::default() };
        let known = (ALL_RIGHTS | FLUSH_RIGHTS).contains(right);
        assert_eq!(create(&bench, CMD_CREATE_MR, &command).is_ok(), known, "{right:?}");
    }
}

#[test]
fn regions_that_make_no_sense_are_refused() {
    let bench = Bench::default();
    let context = bench.context(None);
    let pd = bench.pd(context);
    let table = bench.table(0x10_0000, 0x2000, 1);
    let good =
        CreateMr { start: 0x123, length: 0x1000, table, first_offset: 0x123, pd, ..CreateMr::default() };
    assert!(create(&bench, CMD_CREATE_MR, &good).is_ok());
    for bad in [
        CreateMr { length: 0x1ede, ..good },
        CreateMr { first_offset: 0x1000, ..good },
        CreateMr { start: u64::MAX, ..good },
        CreateMr { access: AccessRights(1 << 4), ..good },
        CreateMr { access: ACCESS_REMOTE_WRITE, ..good },
        CreateMr { access: ACCESS_REMOTE_ATOMIC, ..good },
        CreateMr { mode: 3, ..good },
        CreateMr { mode: MR_PASID, ..good },
        CreateMr { table: PageTable { pages: 0, ..table }, ..good },
    ] {
        assert_eq!(create(&bench, CMD_CREATE_MR, &bad), Err(STATUS_BAD_PARAMETER), "{bad:?}");
    }
    let bad = CreateContext { pasid: 1 << 20, has_pasid: 1, reserved: 0 };
    assert_eq!(create(&bench, CMD_CREATE_CONTEXT, &bad), Err(STATUS_BAD_PARAMETER));
}

#[test]
fn what_is_in_use_stays_and_what_is_free_goes() {
    let pair = Pair::unconnected(Bench::default());
    let bench = &pair.bench;
    assert_eq!(bench.id_command(CMD_DESTROY_CONTEXT, pair.context), Err(STATUS_BUSY));
    assert_eq!(bench.id_command(CMD_DESTROY_PD, pair.pd), Err(STATUS_BUSY));
    assert_eq!(bench.id_command(CMD_DESTROY_CQ, pair.cq_a.cqn), Err(STATUS_BUSY));
    assert_eq!(bench.id_command(CMD_DESTROY_EQ, pair.eq.eqn), Err(STATUS_BUSY));
    pair.empty_context();
    bench.id_command(CMD_DESTROY_CONTEXT, pair.context).unwrap();
    bench.id_command(CMD_DESTROY_EQ, pair.eq.eqn).unwrap();
}

#[test]
fn queue_pairs_use_completion_queues_of_their_own_context() {
    let pair = Pair::unconnected(Bench::default());
    let other = pair.bench.context(None);
    let foreign = Cq::new(&pair.bench, other, pair.eq.eqn, 4);
    let command = Qp::command(&pair.bench, pair.pd, [foreign.cqn, pair.cq_a.cqn], pair.eq.eqn, LOG);
    assert_eq!(create(&pair.bench, CMD_CREATE_QP, &command), Err(STATUS_BAD_PARAMETER));
}

#[test]
fn limits_hold_and_nothing_leaks() {
    let config =
        NicConfig { max_qp: 4, max_cq: 2, max_mr: 3, max_pd: 2, max_context: 2, ..NicConfig::default() };
    let bench = Bench::new(config);
    for _ in 0..3 {
        let eq = Eq::new(&bench, 4, 0);
        let contexts = [bench.context(None), bench.context(None)];
        let none = CreateContext::default();
        assert_eq!(create(&bench, CMD_CREATE_CONTEXT, &none), Err(STATUS_NO_RESOURCES));
        let pds = [bench.pd(contexts[0]), bench.pd(contexts[1])];
        assert_eq!(bench.id_command(CMD_CREATE_PD, contexts[0]), Err(STATUS_NO_RESOURCES));
        let cqs = [0, 0].map(|_| Cq::new(&bench, contexts[0], eq.eqn, 2));
        let full = Cq::command(&bench, contexts[0], eq.eqn, 2);
        assert_eq!(create(&bench, CMD_CREATE_CQ, &full), Err(STATUS_NO_RESOURCES));
        let qp = || Qp::command(&bench, pds[0], [cqs[0].cqn, cqs[1].cqn], eq.eqn, 0);
        let qps = [0; 4].map(|_| Qp::create(&bench, contexts[0], &qp()));
        assert_eq!(create(&bench, CMD_CREATE_QP, &qp()), Err(STATUS_NO_RESOURCES));
        let keys = [0; 3].map(|_| bench.pinned(pds[0], 0x10_0000, 0x10_0000, 64, AccessRights::NONE));
        let mr =
            CreateMr { length: 64, table: bench.table(0x10_0000, 64, 0), pd: pds[0], ..CreateMr::default() };
        assert_eq!(create(&bench, CMD_CREATE_MR, &mr), Err(STATUS_NO_RESOURCES));
        qps.iter().for_each(|qp| qp.destroy(&bench).unwrap());
        keys.iter().for_each(|&key| bench.id_command(CMD_DESTROY_MR, key).unwrap());
        cqs.iter().for_each(|cq| bench.id_command(CMD_DESTROY_CQ, cq.cqn).unwrap());
        pds.iter().for_each(|&pd| bench.id_command(CMD_DESTROY_PD, pd).unwrap());
        contexts.iter().for_each(|&id| bench.id_command(CMD_DESTROY_CONTEXT, id).unwrap());
        bench.id_command(CMD_DESTROY_EQ, eq.eqn).unwrap();
    }
    assert_eq!(CQE_SIZE, 64);
}
