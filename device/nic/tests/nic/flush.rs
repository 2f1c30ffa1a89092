//! FLUSH and ATOMIC WRITE: what is persistent, which rights are needed, and what is refused.

use std::fs::File;
use std::os::unix::fs::FileExt;

use refault_abi::codes::{
    ACCESS_FLUSH_GLOBAL, ACCESS_FLUSH_PERSISTENT, ACCESS_LOCAL_WRITE, ACCESS_REMOTE_ATOMIC,
    ACCESS_REMOTE_READ, ACCESS_REMOTE_WRITE, AccessRights, CAUSE_ALIGNMENT, CAUSE_BOUNDS, CAUSE_NONE,
    CAUSE_NOT_PERSISTENT, CAUSE_REVOKED, CAUSE_RIGHTS, FLUSH_GLOBAL, FLUSH_PERSISTENT, FLUSH_RANGE,
    OP_ATOMIC_WRITE, OP_FLUSH, QPS_ERR, QPS_RESET, QPS_RTS, WC_REM_ACCESS_ERR, WC_REM_INV_REQ_ERR,
    WC_SUCCESS, WC_WR_FLUSH_ERR,
};
use refault_abi::command::{
    CAP_FLUSH_PERSISTENT, CMD_CREATE_MR, CMD_QUERY_DEVICE, CMD_REVOKE_MR, CreateMr, DeviceCaps,
    FAULT_RESOLVED, MR_PASID, ModifyQp, ODP_PRESENT, ObjectId,
};
use refault_abi::event::{EVENT_QP, QP_EVENT_ACCESS_ERROR};
use refault_abi::queue::{SqWqe, WQE_INLINE, WQE_SIGNALED, WqeFlags};
use refault_bus::Gpa;
use refault_bus::dma::DmaMemory;
use refault_bus::pri::ResponseCode;
use refault_nic::NicConfig;

use crate::support::driver::*;
use crate::support::table::*;
use crate::support::*;

const HEAP: u64 = 0x7f00_0000_0000;
/// Where the persistent memory is.
const DISK: u64 = MEMORY;
const REMOTE: AccessRights =
    ACCESS_REMOTE_WRITE.union(ACCESS_REMOTE_READ).union(ACCESS_REMOTE_ATOMIC).union(FLUSH_RIGHTS);
/// Queue pairs that take FLUSH too.
const OPEN: ModifyQp = ModifyQp { access: REMOTE, ..PATIENT };

/// A pair on a machine with persistent memory, and a region over the first 64 KiB of it.
fn pair() -> (Pair, File, u32) {
    let file = tempfile::tempfile().unwrap();
    let pair = Pair::on(Bench::with_file(NicConfig::default(), &file), OPEN);
    let key = pair.bench.pinned(pair.pd, DISK, DISK, 1 << 16, ALL_RIGHTS | FLUSH_RIGHTS);
    (pair, file, key)
}

fn flush(imm: u32, remote_addr: u64, length: u64, rkey: u32) -> SqWqe {
    SqWqe { imm, remote_addr, rkey, compare_add: length, ..request(OP_FLUSH, 9, &[]) }
}

fn persist(remote_addr: u64, length: u64, rkey: u32) -> SqWqe {
    flush(FLUSH_PERSISTENT | FLUSH_RANGE, remote_addr, length, rkey)
}

fn region(pair: &Pair, start: u64, length: u64, access: AccessRights) -> u32 {
    let command = CreateMr { start, length, pd: pair.pd, access, mode: MR_PASID, ..CreateMr::default() };
    pair.bench.command::<_, ObjectId>(CMD_CREATE_MR, &command).unwrap().id
}

#[test]
fn what_was_written_is_in_the_file_when_the_flush_is_complete() {
    let (mut pair, file, key) = pair();
    pair.a.prepare(&pair.bench, &SqWqe { flags: WqeFlags::NONE, ..pair.write(1, 5000, DISK + 100, key) });
    pair.a.prepare(&pair.bench, &persist(DISK + 100, 5000, key));
    pair.a.prepare(&pair.bench, &pair.write(2, 8, pair.to, pair.rkey));
    pair.a.ring(&pair.bench);
    // Without the worker for persistent memory, the other two cannot complete the FLUSH.
    for _ in 0..4 {
        (0..2).for_each(|worker| pair.bench.settle_worker(worker));
    }
    assert!(pair.cq_a.drain(&pair.bench).is_empty());
    pair.bench.settle_worker(2);
    pair.bench.settle();
    let entries = pair.cq_a.drain(&pair.bench);
    assert_eq!(
        entries.iter().map(|e| (e.wr_id, e.status)).collect::<Vec<_>>(),
        [(9, WC_SUCCESS), (2, WC_SUCCESS)]
    );
    assert_eq!((entries[0].opcode, entries[0].byte_len, entries[0].imm), (OP_FLUSH, 0, 0));
    let mut stored = vec![0; 5000];
    file.read_exact_at(&mut stored, 100).unwrap();
    assert_eq!(stored, pair.bench.bytes(pair.from, 5000));
}

#[test]
fn a_whole_region_is_flushed_without_saying_how_long_it_is() {
    let (mut pair, file, key) = pair();
    pair.run(&pair.write(1, 16, DISK + 0xfff0, key));
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    pair.run(&flush(FLUSH_PERSISTENT | FLUSH_GLOBAL, 0, 0, key));
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    let mut stored = [0; 16];
    file.read_exact_at(&mut stored, 0xfff0).unwrap();
    assert_eq!(stored[..], pair.bench.bytes(pair.from, 16));
    // The whole of a process is more than one request can name.
    let process = region(&pair, 0, u64::MAX, FLUSH_RIGHTS);
    pair.run(&flush(FLUSH_GLOBAL, 0, 0, process));
    assert_eq!(pair.cq_a.expect(&pair.bench, WC_REM_ACCESS_ERR).vendor_error, CAUSE_BOUNDS);
}

#[test]
fn memory_that_does_not_survive_says_so_and_is_visible_at_once() {
    let (mut pair, _file, _) = pair();
    let key = pair.bench.pinned(pair.pd, pair.to, pair.to, BUFFER, ALL_RIGHTS | FLUSH_RIGHTS);
    pair.run(&flush(FLUSH_GLOBAL | FLUSH_RANGE, pair.to, BUFFER, key));
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    pair.run(&persist(pair.to, 8, key));
    assert_eq!(pair.cq_a.expect(&pair.bench, WC_REM_ACCESS_ERR).vendor_error, CAUSE_NOT_PERSISTENT);
    assert_eq!(pair.eq.drain(&pair.bench), [(EVENT_QP, QP_EVENT_ACCESS_ERROR.0, pair.b.qpn)]);
}

#[test]
fn the_device_says_whether_there_is_anything_that_survives() {
    let features =
        |bench: &Bench| bench.command::<_, DeviceCaps>(CMD_QUERY_DEVICE, &[0u8; 0]).unwrap().features;
    let (pair, ..) = pair();
    assert_ne!(features(&pair.bench) & CAP_FLUSH_PERSISTENT, 0);
    assert_eq!(features(&Bench::default()) & CAP_FLUSH_PERSISTENT, 0);
    assert_eq!((pair.bench.nic.worker_count(), Bench::default().nic.worker_count()), (3, 2));
}

#[test]
fn a_flush_needs_the_right_of_region_and_queue_pair() {
    let cases = [
        (ACCESS_FLUSH_GLOBAL, REMOTE, (WC_REM_ACCESS_ERR, CAUSE_RIGHTS)),
        (ACCESS_FLUSH_PERSISTENT, REMOTE, (WC_SUCCESS, CAUSE_NONE)),
        (FLUSH_RIGHTS, REMOTE.difference(ACCESS_FLUSH_PERSISTENT), (WC_REM_INV_REQ_ERR, CAUSE_RIGHTS)),
        (ALL_RIGHTS, REMOTE, (WC_REM_ACCESS_ERR, CAUSE_RIGHTS)),
    ];
    for (access, open, expected) in cases {
        let file = tempfile::tempfile().unwrap();
        let bench = Bench::with_file(NicConfig::default(), &file);
        let mut pair = Pair::on(bench, ModifyQp { access: open, ..PATIENT });
        let key = pair.bench.pinned(pair.pd, DISK, DISK, 1 << 16, access);
        pair.run(&persist(DISK, 64, key));
        let entry = pair.cq_a.expect(&pair.bench, expected.0);
        assert_eq!(entry.vendor_error, expected.1, "{access:?} {open:?}");
    }
}

#[test]
fn flushing_an_empty_range_succeeds_and_one_outside_the_region_fails() {
    let (mut pair, _file, key) = pair();
    pair.run(&persist(0, 0, 0));
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    pair.run(&persist(DISK + 0xffff, 2, key));
    assert_eq!(pair.cq_a.expect(&pair.bench, WC_REM_ACCESS_ERR).vendor_error, CAUSE_BOUNDS);
}

#[test]
fn a_revoked_region_is_not_flushed() {
    let (mut pair, _file, key) = pair();
    pair.bench.urgent_command(CMD_REVOKE_MR, key).unwrap();
    pair.run(&flush(FLUSH_PERSISTENT, 0, 0, key));
    assert_eq!(pair.cq_a.expect(&pair.bench, WC_REM_ACCESS_ERR).vendor_error, CAUSE_REVOKED);
}

#[test]
fn pages_of_a_process_are_faulted_in_like_a_read() {
    let (mut pair, file, _) = pair();
    let key = region(&pair, HEAP, 0x3000, FLUSH_RIGHTS);
    pair.bench.iommu.map(PASID, HEAP, DISK + 0x8000, false);
    pair.bench.iommu.map(PASID, HEAP + 0x2000, DISK + 0x4000, false);
    pair.bench.fill(DISK + 0x4000, b"refault");
    pair.run(&flush(FLUSH_PERSISTENT, 0, 0, key));
    let requests = pair.bench.iommu.take_requests();
    assert_eq!((requests.len(), requests[0].page.0, requests[0].write), (1, HEAP + 0x1000, false));
    assert!(pair.cq_a.drain(&pair.bench).is_empty());
    pair.bench.iommu.map(PASID, HEAP + 0x1000, DISK + 0x1000, false);
    pair.bench.iommu.answer(&requests[0], ResponseCode::Success);
    pair.bench.settle();
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    let mut stored = [0; 7];
    file.read_exact_at(&mut stored, 0x4000).unwrap();
    assert_eq!(&stored, b"refault");
}

#[test]
fn flushing_a_hole_of_an_on_demand_region_raises_a_page_fault() {
    let (mut pair, _file, _) = pair();
    let eq = Eq::new(&pair.bench, 4, 2);
    let command = OnDemand::command(&pair.bench, pair.pd, eq.eqn, HEAP, 0x2000);
    let command = CreateMr { access: FLUSH_RIGHTS, ..command };
    let mut table = OnDemand::of(&pair.bench, &command, eq);
    table.put(&pair.bench, HEAP, DISK | ODP_PRESENT);
    pair.run(&flush(FLUSH_PERSISTENT, 0, 0, table.key));
    let fault = table.fault(&pair.bench);
    assert_eq!((fault.address, fault.code), (HEAP + 0x1000, 0));
    table.put(&pair.bench, HEAP + 0x1000, (DISK + 0x7000) | ODP_PRESENT);
    resume(&pair.bench, fault.token, FAULT_RESOLVED).unwrap();
    pair.bench.settle();
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
}

#[test]
fn a_queue_pair_that_fails_does_not_wait_for_the_disk() {
    let (mut pair, _file, key) = pair();
    pair.a.send(&pair.bench, &persist(DISK, 64, key));
    for _ in 0..4 {
        (0..2).for_each(|worker| pair.bench.settle_worker(worker));
    }
    pair.a.to(&pair.bench, QPS_ERR);
    pair.bench.settle();
    let entries = pair.cq_a.drain(&pair.bench);
    assert_eq!(entries.iter().map(|e| e.status).collect::<Vec<_>>(), [WC_WR_FLUSH_ERR]);
    assert_eq!(pair.b.state(&pair.bench), QPS_RTS);
}

/// Queue pairs connected to themselves, each with a FLUSH that waits for the worker of the storage.
fn flushing(pair: &Pair, key: u32, count: usize) -> Vec<(Qp, Cq)> {
    let qp = |_| {
        let cq = Cq::new(&pair.bench, pair.context, pair.eq.eqn, 4);
        let command = Qp::command(&pair.bench, pair.pd, [cq.cqn; 2], pair.eq.eqn, LOG);
        let mut qp = Qp::create(&pair.bench, pair.context, &command);
        qp.raise(&pair.bench, qp.qpn, QPS_RTS, OPEN);
        qp.send(&pair.bench, &persist(DISK, 64, key));
        pair.bench.settle();
        (qp, cq)
    };
    (0..count).map(qp).collect()
}

#[test]
fn flushes_of_one_file_share_a_write_out() {
    const MANY: usize = 20;
    let (pair, _file, key) = pair();
    let mut storage = pair.bench.take_storage();
    let mut qps = flushing(&pair, key, MANY);
    while storage.poll() {}
    pair.bench.settle();
    assert_eq!(pair.bench.hooks.write_outs(), 1);
    for (_, cq) in &mut qps {
        cq.expect(&pair.bench, WC_SUCCESS);
    }
    let stats = pair.bench.nic.stats();
    assert_eq!((stats.flush_writes, stats.flushes_joined), (1, MANY as u64 - 1));
}

/// Most pages that one piece of work looks up, while a queue pair flushes `pages` pages of a process. Write-outs are
/// counted, too.
fn most_looked_up(imm: u32, pages: u64) -> (u64, u64) {
    let file = tempfile::tempfile().unwrap();
    let config = NicConfig { workers: 1, fault_window: 1, ..NicConfig::default() };
    let mut pair = Pair::on(Bench::with_file(config, &file), OPEN);
    let key = region(&pair, HEAP, pages << 12, FLUSH_RIGHTS);
    (0..pages << 12).step_by(0x1000).for_each(|at| pair.bench.iommu.map(PASID, HEAP + at, DISK + at, false));
    // Another queue pair has work all the time, so that no turn follows another at once.
    let other = Cq::new(&pair.bench, pair.context, pair.eq.eqn, 4);
    let command = Qp::command(&pair.bench, pair.pd, [other.cqn; 2], pair.eq.eqn, LOG);
    let other = Qp::create(&pair.bench, pair.context, &command);
    other.raise(&pair.bench, other.qpn, QPS_RTS, OPEN);
    pair.a.send(&pair.bench, &flush(imm, 0, 0, key));
    let (mut before, mut most) = (pair.bench.iommu.translations(), 0);
    let entry = loop {
        other.ring(&pair.bench);
        assert!(pair.bench.poll(0), "nothing to do, and not done");
        let translations = pair.bench.iommu.translations();
        most = most.max(translations - before);
        before = translations;
        pair.bench.poll(1);
        if let Some(entry) = pair.cq_a.poll(&pair.bench) {
            break entry;
        }
    };
    assert_eq!(entry.status, WC_SUCCESS);
    (most, pair.bench.hooks.write_outs())
}

#[test]
fn a_turn_of_a_flush_looks_up_a_few_pages_and_all_are_written_out_at_once() {
    const PAGES: u64 = 1000;
    // What the rings and the regions of the driver take, besides.
    const RINGS: u64 = 8;
    for (imm, write_outs) in [(FLUSH_GLOBAL, 0), (FLUSH_PERSISTENT, 1)] {
        let (most, written) = most_looked_up(imm, PAGES);
        assert!(most <= 16 + RINGS, "{most} pages in one turn");
        assert_eq!(written, write_outs);
    }
}

/// Two files lie side by side, and so do their pages in the region.
#[test]
fn a_flush_across_two_files_writes_both_out() {
    let files = [tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap()];
    let bench = Bench::with_files(NicConfig::default(), &[&files[0], &files[1]]);
    let mut pair = Pair::on(bench, OPEN);
    let border = DISK + PERSISTENT;
    let start = border - 0x8000;
    let key = pair.bench.pinned(pair.pd, start, start, 1 << 16, ALL_RIGHTS | FLUSH_RIGHTS);
    pair.run(&pair.write(1, 1 << 16, start, key));
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    pair.run(&flush(FLUSH_PERSISTENT, 0, 0, key));
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    assert_eq!(pair.bench.hooks.write_outs(), 2);
    let mut stored = vec![0; 0x8000];
    for (file, at) in files.iter().zip([PERSISTENT - 0x8000, 0]) {
        file.read_exact_at(&mut stored, at).unwrap();
        let offset = if at == 0 { 0x8000 } else { 0 };
        assert_eq!(stored, pair.bench.bytes(pair.from + offset, 0x8000));
    }
}

#[test]
fn a_queue_pair_that_is_reset_again_and_again_holds_up_no_flush() {
    // The responder does not know that the requester was reset.
    if IN_PACKETS {
        return;
    }
    const RESETS: u64 = 100;
    let (mut pair, _file, key) = pair();
    let mut storage = pair.bench.take_storage();
    for _ in 0..RESETS {
        pair.run(&persist(DISK, 64, key));
        pair.a.to(&pair.bench, QPS_RESET);
        pair.a.sent = 0;
        pair.bench.fill(pair.a.record, &[0; 128]);
        pair.a.raise(&pair.bench, pair.b.qpn, QPS_RTS, OPEN);
    }
    assert!(storage.receiver().len() <= 1, "{} wait", storage.receiver().len());
    let (_, mut cq) = flushing(&pair, key, 1).remove(0);
    storage.poll();
    pair.bench.settle();
    cq.expect(&pair.bench, WC_SUCCESS);
    while storage.poll() {}
    assert_eq!((pair.bench.hooks.write_outs(), pair.bench.nic.stats().flushes_abandoned), (1, RESETS));
    assert!(pair.cq_a.drain(&pair.bench).is_empty());
}

#[test]
fn nothing_is_written_out_once_there_is_no_waiter() {
    // The responder does not know that the requester has failed.
    if IN_PACKETS {
        return;
    }
    let (mut pair, _file, key) = pair();
    let mut storage = pair.bench.take_storage();
    pair.run(&persist(DISK, 64, key));
    pair.a.to(&pair.bench, QPS_ERR);
    pair.bench.settle();
    while storage.poll() {}
    assert_eq!(pair.bench.hooks.write_outs(), 0);
    pair.cq_a.expect(&pair.bench, WC_WR_FLUSH_ERR);
}

#[test]
fn an_atomic_write_puts_a_word_in_one_piece() {
    let mut pair = Pair::new();
    let word = pair.to + 0xff8;
    let to_word = |wqe: SqWqe| SqWqe { remote_addr: word, rkey: pair.rkey, ..wqe };
    // Gathered from two pieces across a page, or carried in the request.
    let pieces = [pair.source(0xfff, 3), pair.source(0x2000, 5)];
    let gathered = to_word(request(OP_ATOMIC_WRITE, 1, &pieces));
    let expected = [pair.bench.bytes(pair.from + 0xfff, 3), pair.bench.bytes(pair.from + 0x2000, 5)].concat();
    let mut inline = to_word(request(OP_ATOMIC_WRITE, 2, &[]));
    (inline.flags, inline.inline_length) = (WQE_SIGNALED | WQE_INLINE, 8);
    zerocopy::IntoBytes::as_mut_bytes(&mut inline.sge)[..8].copy_from_slice(b"refault!");
    pair.run(&gathered);
    let entry = pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    assert_eq!((entry.opcode, entry.byte_len), (OP_ATOMIC_WRITE, 0));
    assert_eq!(pair.bench.bytes(word, 8), expected);
    pair.run(&inline);
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    assert_eq!(pair.bench.ram.load_u64(Gpa(word)), Ok(u64::from_le_bytes(*b"refault!")));
    pair.run(&SqWqe { remote_addr: word + 4, ..inline });
    assert_eq!(pair.cq_a.expect(&pair.bench, WC_REM_INV_REQ_ERR).vendor_error, CAUSE_ALIGNMENT);
}

#[test]
fn an_atomic_write_is_a_remote_write() {
    for (access, expected) in
        [(ACCESS_REMOTE_READ | ACCESS_REMOTE_ATOMIC, WC_REM_INV_REQ_ERR), (REMOTE, WC_SUCCESS)]
    {
        let mut pair = Pair::with(ModifyQp { access, ..PATIENT });
        let wqe = request(OP_ATOMIC_WRITE, 1, &[pair.source(0, 8)]);
        pair.run(&SqWqe { remote_addr: pair.to, rkey: pair.rkey, ..wqe });
        pair.cq_a.expect(&pair.bench, expected);
    }
    let mut pair = Pair::new();
    let key = pair.bench.pinned(pair.pd, pair.to, pair.to, 8, ACCESS_LOCAL_WRITE | ACCESS_REMOTE_ATOMIC);
    let wqe = request(OP_ATOMIC_WRITE, 1, &[pair.source(0, 8)]);
    pair.run(&SqWqe { remote_addr: pair.to, rkey: key, ..wqe });
    assert_eq!(pair.cq_a.expect(&pair.bench, WC_REM_ACCESS_ERR).vendor_error, CAUSE_RIGHTS);
}

#[test]
fn an_atomic_write_waits_for_its_page() {
    let mut pair = Pair::new();
    let wqe = request(OP_ATOMIC_WRITE, 1, &[pair.source(8, 8)]);
    pair.run(&SqWqe { remote_addr: HEAP + 16, rkey: pair.process, ..wqe });
    let request = pair.bench.iommu.take_requests()[0];
    assert!(request.write);
    let gpa = pair.map_page(HEAP, true);
    pair.bench.iommu.answer(&request, ResponseCode::Success);
    pair.bench.settle();
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    assert_eq!(pair.bench.bytes(gpa + 16, 8), pair.bench.bytes(pair.from + 8, 8));
}
