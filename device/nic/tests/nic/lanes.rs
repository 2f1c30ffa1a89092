//! The two command lanes: which goes first, and that lane 1 waits for nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use refault_abi::codes::{AccessRights, OP_RDMA_WRITE};
use refault_abi::command::{
    CMD_DESTROY_MR, CMD_DESTROY_QP, CMD_QUERY_QP, CMD_RESUME_FAULT, CMD_REVOKE_MR, CMD_STOP_CONTEXT,
    CommandRequest, ObjectId, STATUS_NO_OBJECT, STATUS_OK,
};
use refault_bus::Gpa;
use refault_nic::NicConfig;
use zerocopy::IntoBytes;

use crate::support::driver::*;
use crate::support::*;

/// Far more than a slow machine needs for a command.
const NET: Duration = Duration::from_secs(60);

#[test]
fn lane_1_is_served_by_its_doorbell_before_older_commands_of_lane_0() {
    let pair = Pair::new();
    let key = ObjectId { id: pair.rkey, reserved: 0 };
    pair.bench.post_command(0, CMD_DESTROY_MR, key.as_bytes());
    let token = pair.bench.post_command(1, CMD_REVOKE_MR, key.as_bytes());
    // No worker has run.
    let response = pair.bench.response(1, 0);
    assert_eq!((response.token, response.status), (token, STATUS_OK));
    pair.bench.settle();
}

#[test]
fn a_worker_finishes_lane_1_before_it_goes_on_with_lane_0() {
    const COMMANDS: u32 = 40;
    let bench = Bench::cold(NicConfig::default());
    bench.switch_on();
    bench.enable_with_long_lane(1);
    let pd = bench.pd(bench.context(None));
    let key = ObjectId { id: bench.pinned(pd, 0x10_0000, 0x10_0000, 64, AccessRights::NONE), reserved: 0 };
    let destroyed = bench.post_command(0, CMD_DESTROY_MR, key.as_bytes());
    // More with one doorbell than the device executes within it; the last one needs the region.
    for _ in 1..COMMANDS {
        bench.prepare_command(1, CMD_RESUME_FAULT, &[]);
    }
    let token = bench.prepare_command(1, CMD_REVOKE_MR, key.as_bytes());
    bench.ring_lane(1)();
    assert_ne!(bench.response(1, COMMANDS - 1).token, token, "nothing was left for the worker");
    bench.settle();
    let last = bench.response(1, COMMANDS - 1);
    assert_eq!((last.token, last.status), (token, STATUS_OK));
    assert!((0..4).any(|slot| bench.response(0, slot).token == destroyed));
}

/// A worker copies, with the requester locked; another serves a command of lane 0 that needs this requester, and waits.
/// Commands of lane 1 are served meanwhile: neither the copy nor lane 0 holds what they need.
#[test]
fn lane_1_does_not_wait_for_a_command_that_waits_for_a_copy() {
    for opcode in [CMD_QUERY_QP, CMD_DESTROY_QP] {
        let mut pair = Pair::on(Bench::new(NicConfig { workers: 2, ..NicConfig::default() }), PATIENT);
        // Lane 0 belongs to worker 0, so worker 1 must be the one that copies.
        let sender = if pair.a.qpn % 2 == 1 { &mut pair.a } else { &mut pair.b };
        let bench = &pair.bench;
        let source = sge(pair.from, 0x1_0000, pair.lkey);
        let write = request(OP_RDMA_WRITE, 1, &[source]);
        sender.send(bench, &refault_abi::queue::SqWqe { remote_addr: pair.to, rkey: pair.rkey, ..write });
        let token = bench.post_command(0, opcode, ObjectId { id: sender.qpn, reserved: 0 }.as_bytes());
        let lane_0 = (0..4).find(|&slot| {
            let mut request = CommandRequest::default();
            let at = Gpa(bench.command_at(0, slot));
            refault_bus::dma::DmaMemory::read(&bench.ram, at, request.as_mut_bytes()).unwrap();
            request.token == token
        });
        let lane_0 = bench.command_at(0, lane_0.unwrap());
        bench.hooks.watch(Gpa(lane_0));
        let unknown = ObjectId { id: 9999, reserved: 0 };
        for opcode in [CMD_STOP_CONTEXT, CMD_RESUME_FAULT, CMD_REVOKE_MR] {
            bench.prepare_command(1, opcode, unknown.as_bytes());
        }
        let (served, ring) = (Arc::new(AtomicBool::new(false)), bench.ring_lane(1));
        let mut workers = bench.take_workers();
        let (mut copies, mut commands) = (workers.remove(1), workers.remove(0));
        let (in_time, hooks) = (served.clone(), bench.hooks.clone());
        bench.hooks.before_copy(move || {
            thread::spawn(move || while commands.poll() {});
            while !hooks.was_read() {
                thread::yield_now();
            }
            let (done, rung) = mpsc::channel();
            thread::spawn(move || {
                ring();
                let _ = done.send(());
            });
            in_time.store(rung.recv_timeout(NET).is_ok(), Ordering::Release);
        });
        while copies.poll() {}
        assert!(served.load(Ordering::Acquire), "lane 1 waited for {opcode:?} on lane 0");
        assert_eq!(bench.response(1, 2).status, STATUS_NO_OBJECT);
    }
}
