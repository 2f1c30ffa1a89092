//! As many objects as there can be.

use std::collections::HashSet;

use refault_abi::codes::{QPS_ERR, QPS_RTS, WC_REM_ACCESS_ERR, WC_SUCCESS};
use refault_abi::command::{
    CMD_CREATE_MR, CMD_DESTROY_MR, CMD_QUERY_DEVICE, CMD_STOP_CONTEXT, CreateMr, DeviceCaps, MR_PASID,
    ObjectId, STATUS_NO_RESOURCES,
};

use crate::support::driver::*;
use crate::support::*;

#[test]
fn every_key_can_be_allocated() {
    const KEYS: usize = 1 << 20;
    let mut pair = Pair::new();
    let caps: DeviceCaps = pair.bench.command(CMD_QUERY_DEVICE, &[0u8; 0]).unwrap();
    assert_eq!(caps.max_mr as usize, KEYS);
    pair.map_page(0, true);
    let command =
        CreateMr { length: 0x1000, pd: pair.pd, access: ALL_RIGHTS, mode: MR_PASID, ..CreateMr::default() };
    let create = || pair.bench.command::<_, ObjectId>(CMD_CREATE_MR, &command).map(|object| object.id);
    let own = [pair.lkey, pair.rkey, pair.process];
    let mut keys: HashSet<u32> = own.into_iter().collect();
    for _ in own.len()..KEYS {
        keys.insert(create().unwrap());
    }
    assert_eq!(keys.len(), KEYS, "no key is given out twice");
    assert_eq!(create(), Err(STATUS_NO_RESOURCES));
    let last = *keys.iter().max().unwrap();
    pair.bench.id_command(CMD_DESTROY_MR, last).unwrap();
    let next = create().unwrap();
    assert!(!keys.contains(&next) && create() == Err(STATUS_NO_RESOURCES));
    pair.run(&pair.write(1, 8, 16, next));
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    pair.run(&pair.write(2, 8, 16, last));
    pair.cq_a.expect(&pair.bench, WC_REM_ACCESS_ERR);
}

#[test]
fn ten_thousand_queue_pairs_live_side_by_side() {
    let pair = Pair::unconnected(Bench::default());
    let caps: DeviceCaps = pair.bench.command(CMD_QUERY_DEVICE, &[0u8; 0]).unwrap();
    assert!(caps.max_qp >= 10_000 && caps.max_srq >= 10_000 && caps.max_cq >= 10_000);
    // One buffer for all: only the last one is used.
    let command = Qp::command(&pair.bench, pair.pd, [pair.cq_a.cqn; 2], pair.eq.eqn, 0);
    let qps: Vec<Qp> = (0..10_000).map(|_| Qp::create(&pair.bench, pair.context, &command)).collect();
    let numbers: HashSet<u32> = qps.iter().map(|qp| qp.qpn).collect();
    assert_eq!(numbers.len(), qps.len());
    let mut pair = pair;
    (pair.a, pair.b) = (qps.into_iter().next_back().unwrap(), pair.b);
    pair.a.raise(&pair.bench, pair.b.qpn, QPS_RTS, PATIENT);
    pair.b.raise(&pair.bench, pair.a.qpn, QPS_RTS, PATIENT);
    pair.run(&pair.write(1, 8, pair.to, pair.rkey));
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    pair.bench.urgent_command(CMD_STOP_CONTEXT, pair.context).unwrap();
    assert_eq!(pair.a.state(&pair.bench), QPS_ERR);
}
