//! Regions for fast registration: requests make them valid and invalid.

use refault_abi::codes::{
    ACCESS_LOCAL_WRITE, ACCESS_REMOTE_WRITE, AccessRights, CAUSE_KEY, CAUSE_REVOKED, OP_LOCAL_INVALIDATE,
    OP_REGISTER, OP_SEND_INVALIDATE, WC_LOC_QP_OP_ERR, WC_REM_ACCESS_ERR, WC_SUCCESS, WcStatus,
};
use refault_abi::command::{
    CMD_CREATE_MR, CMD_DESTROY_MR, CreateMr, MR_FAST, ObjectId, PageTable, STATUS_BAD_PARAMETER,
};
use refault_abi::queue::{CQE_INVALIDATED, SqWqe};
use refault_bus::Gpa;
use refault_bus::dma::DmaMemory;

use crate::support::driver::*;
use crate::support::*;

const RIGHTS: AccessRights = ACCESS_LOCAL_WRITE.union(ACCESS_REMOTE_WRITE);
/// Where the peer sees the region.
const START: u64 = 0x1234_5678_0000_0123;
const LENGTH: u64 = 6000;

/// A region of B's for up to 8 pages, and its table.
struct Fast {
    key: u32,
    table: u64,
}

fn table(pair: &Pair, root: u64) -> PageTable {
    let _ = pair;
    PageTable { root, pages: 8, levels: 1, page_shift: 12, reserved: 0 }
}

fn command(pair: &Pair, root: u64) -> CreateMr {
    CreateMr { table: table(pair, root), pd: pair.pd, mode: MR_FAST, ..CreateMr::default() }
}

impl Fast {
    fn new(pair: &Pair) -> Self {
        let table = pair.bench.allocate(0x1000);
        let object: ObjectId = pair.bench.command(CMD_CREATE_MR, &command(pair, table)).unwrap();
        Self { key: object.id, table }
    }

    /// Registers pages of the target, in reverse order, as `variant` of the key.
    fn register(&self, pair: &Pair, variant: u32) -> SqWqe {
        for page in 0..8u64 {
            let entry = pair.to + (7 - page) * 0x1000;
            pair.bench.ram.store_u64(Gpa(self.table + page * 8), entry).unwrap();
        }
        SqWqe {
            rkey: self.key & !0xff | variant,
            remote_addr: START,
            compare_add: LENGTH,
            imm: RIGHTS.0,
            swap: 0x123,
            ..request(OP_REGISTER, 50, &[])
        }
    }
}

fn invalidate(key: u32) -> SqWqe {
    SqWqe { imm: key, ..request(OP_LOCAL_INVALIDATE, 51, &[]) }
}

impl Pair {
    fn b_does(&mut self, wqe: &SqWqe, status: WcStatus) {
        self.b.send(&self.bench, wqe);
        self.bench.settle();
        self.cq_b.expect(&self.bench, status);
    }

    fn a_does(&mut self, wqe: &SqWqe, status: WcStatus, cause: u32) {
        self.run(wqe);
        assert_eq!(self.cq_a.expect(&self.bench, status).vendor_error, cause);
    }
}

#[test]
fn a_region_is_valid_from_its_registration_to_its_invalidation() {
    let mut pair = Pair::new();
    let fast = Fast::new(&pair);
    let register = fast.register(&pair, 7);
    pair.b_does(&register, WC_SUCCESS);
    let write = pair.write(1, LENGTH as u32, START, register.rkey);
    pair.a_does(&write, WC_SUCCESS, 0);
    // Its first page is the eighth of the target, from 0x123 on, and the second one the seventh.
    let sent = pair.bench.bytes(pair.from, LENGTH as usize);
    let first = 0x1000 - 0x123;
    assert_eq!(pair.bench.bytes(pair.to + 0x7123, first), sent[..first]);
    assert_eq!(pair.bench.bytes(pair.to + 0x6000, LENGTH as usize - first), sent[first..]);
    pair.b_does(&invalidate(register.rkey), WC_SUCCESS);
    pair.a_does(&write, WC_REM_ACCESS_ERR, CAUSE_REVOKED);
}

#[test]
fn another_registration_names_other_pages() {
    let mut pair = Pair::new();
    let fast = Fast::new(&pair);
    let first = fast.register(&pair, 1);
    pair.b_does(&first, WC_SUCCESS);
    let write = |pair: &Pair, key| pair.write(1, 64, START, key);
    let one = write(&pair, first.rkey);
    pair.a_does(&one, WC_SUCCESS, 0);
    pair.b_does(&invalidate(first.rkey), WC_SUCCESS);
    // The same variant again, of pages that lie elsewhere.
    let second = fast.register(&pair, 1);
    pair.bench.ram.store_u64(Gpa(fast.table), pair.to + 0x9000).unwrap();
    pair.b_does(&second, WC_SUCCESS);
    pair.a_does(&one, WC_SUCCESS, 0);
    let sent = pair.bench.bytes(pair.from, 64);
    assert_eq!(pair.bench.bytes(pair.to + 0x9123, 64), sent);
    pair.b_does(&invalidate(first.rkey), WC_SUCCESS);
    pair.b_does(&fast.register(&pair, 2), WC_SUCCESS);
    pair.a_does(&one, WC_REM_ACCESS_ERR, CAUSE_KEY);
    // Its number is that of its creation, whatever the key was last.
    pair.bench.id_command(CMD_DESTROY_MR, fast.key).unwrap();
}

#[test]
fn a_peer_may_invalidate_what_it_used() {
    let mut pair = Pair::new();
    let fast = Fast::new(&pair);
    let register = fast.register(&pair, 3);
    pair.b_does(&register, WC_SUCCESS);
    pair.b.receive(&pair.bench, 5, &[sge(pair.to, 100, pair.rkey)]);
    let send = SqWqe { imm: register.rkey, ..request(OP_SEND_INVALIDATE, 1, &[pair.source(0, 100)]) };
    pair.a_does(&send, WC_SUCCESS, 0);
    let got = pair.cq_b.expect(&pair.bench, WC_SUCCESS);
    assert_eq!((got.imm, got.byte_len, got.flags.contains(CQE_INVALIDATED)), (register.rkey, 100, true));
    let write = pair.write(1, 64, START, register.rkey);
    pair.a_does(&write, WC_REM_ACCESS_ERR, CAUSE_REVOKED);
}

#[test]
fn what_cannot_be_registered_or_invalidated_fails_its_request() {
    type Change = fn(&Pair, &Fast, &mut SqWqe);
    let bad: [Change; 7] = [
        |_, _, wqe| wqe.compare_add = 8 * 0x1000 - 0x122,
        |_, _, wqe| wqe.swap = 0x1000,
        |_, _, wqe| wqe.remote_addr = u64::MAX - 10,
        |_, _, wqe| wqe.imm = ACCESS_REMOTE_WRITE.0,
        |_, _, wqe| wqe.imm = 1 << 4,
        |pair, _, wqe| wqe.rkey = pair.rkey,
        |_, _, wqe| wqe.rkey = 0xffff_ff01,
    ];
    for change in bad {
        let mut pair = Pair::new();
        let fast = Fast::new(&pair);
        let mut wqe = fast.register(&pair, 3);
        change(&pair, &fast, &mut wqe);
        pair.b_does(&wqe, WC_LOC_QP_OP_ERR);
    }
    for key in [|pair: &Pair, _: &Fast| pair.rkey, |_: &Pair, fast: &Fast| fast.key, |_: &Pair, _: &Fast| 0] {
        let mut pair = Pair::new();
        let fast = Fast::new(&pair);
        pair.b_does(&invalidate(key(&pair, &fast)), WC_LOC_QP_OP_ERR);
    }
    // Twice, and another protection domain's.
    let mut pair = Pair::new();
    let fast = Fast::new(&pair);
    let register = fast.register(&pair, 3);
    pair.b_does(&register, WC_SUCCESS);
    pair.b_does(&register, WC_LOC_QP_OP_ERR);
    let mut pair = Pair::new();
    let other = pair.bench.pd(pair.context);
    let root = pair.bench.allocate(0x1000);
    let object: ObjectId =
        pair.bench.command(CMD_CREATE_MR, &CreateMr { pd: other, ..command(&pair, root) }).unwrap();
    let foreign = Fast { key: object.id, table: root };
    let register = foreign.register(&pair, 3);
    pair.b_does(&register, WC_LOC_QP_OP_ERR);
}

#[test]
fn a_region_that_is_malformed_is_not_made() {
    let pair = Pair::new();
    let good = command(&pair, 0x10_0000);
    for bad in [
        CreateMr { length: 1, ..good },
        CreateMr { access: ACCESS_LOCAL_WRITE, ..good },
        CreateMr { table: PageTable { levels: 0, ..good.table }, ..good },
        CreateMr { table: PageTable { levels: 4, ..good.table }, ..good },
        CreateMr { table: PageTable { page_shift: 21, ..good.table }, ..good },
        CreateMr { table: PageTable { pages: 0, ..good.table }, ..good },
    ] {
        let made = pair.bench.command::<_, ObjectId>(CMD_CREATE_MR, &bad);
        assert_eq!(made.unwrap_err(), STATUS_BAD_PARAMETER, "{bad:?}");
    }
}
