//! Bodies of commands as a driver writes them.

use refault_abi::codes::{
    ACCESS_LOCAL_WRITE, ACCESS_REMOTE_ATOMIC, ACCESS_REMOTE_READ, ACCESS_REMOTE_WRITE, QPS_ERR, QPS_INIT,
    QPS_RESET, QPS_RTR, QPS_RTS, QPT_RC, QPT_UD,
};
use refault_abi::command::{
    ArmSrq, CMD_ARM_SRQ, CMD_CREATE_CONTEXT, CMD_CREATE_CQ, CMD_CREATE_EQ, CMD_CREATE_MR, CMD_CREATE_PD,
    CMD_CREATE_QP, CMD_CREATE_SRQ, CMD_DESTROY_CONTEXT, CMD_DESTROY_CQ, CMD_DESTROY_EQ, CMD_DESTROY_MR,
    CMD_DESTROY_PD, CMD_DESTROY_QP, CMD_DESTROY_SRQ, CMD_INVALIDATE_MR, CMD_MODIFY_CQ, CMD_MODIFY_QP,
    CMD_QUERY_DEVICE, CMD_QUERY_QP, CMD_QUERY_SRQ, CMD_RESUME_FAULT, CMD_REVOKE_MR, CMD_STOP_CONTEXT,
    CommandOpcode, CreateContext, CreateCq, CreateEq, CreateMr, CreateQp, CreateSrq, InvalidateMr, MR_ODP,
    MR_PASID, MR_PINNED, ModifyCq, ModifyQp, ObjectId, PageTable,
};
use refault_model::memory::FRAME;
use zerocopy::{Immutable, IntoBytes};

use crate::fuzz::feed::Feed;

/// All opcodes, and two that are none.
const OPCODES: &[CommandOpcode] = &[
    CMD_QUERY_DEVICE,
    CMD_CREATE_EQ,
    CMD_DESTROY_EQ,
    CMD_CREATE_CONTEXT,
    CMD_DESTROY_CONTEXT,
    CMD_CREATE_PD,
    CMD_DESTROY_PD,
    CMD_CREATE_MR,
    CMD_DESTROY_MR,
    CMD_CREATE_CQ,
    CMD_DESTROY_CQ,
    CMD_MODIFY_CQ,
    CMD_CREATE_QP,
    CMD_MODIFY_QP,
    CMD_QUERY_QP,
    CMD_DESTROY_QP,
    CMD_CREATE_SRQ,
    CMD_DESTROY_SRQ,
    CMD_ARM_SRQ,
    CMD_QUERY_SRQ,
    CMD_REVOKE_MR,
    CMD_STOP_CONTEXT,
    CMD_INVALIDATE_MR,
    CMD_RESUME_FAULT,
    CommandOpcode(0),
    CommandOpcode(0xff),
];

/// The body of a command: 15 longs.
pub(super) type Body = [u64; 15];

/// What a driver has for its commands.
pub(super) struct Driver {
    /// DMA address of memory for rings and tables, and how many frames.
    pub(super) buffer: u64,
    pub(super) frames: u64,
    /// Numbers of its objects.
    pub(super) pd: u32,
    pub(super) context: u32,
    pub(super) cqn: u32,
    pub(super) eqn: u32,
    pub(super) qpns: [u32; 2],
    pub(super) key: u32,
}

impl Driver {
    /// A command as a driver writes it, with up to three fields that are anything.
    pub(super) fn command(&self, feed: &mut Feed<'_>) -> (CommandOpcode, Body) {
        let opcode = feed.pick(OPCODES);
        let mut body = self.body(opcode, feed);
        for _ in 0..feed.below(6).saturating_sub(2) {
            let (word, half) = (feed.below(body.len()), 32 * feed.below(2));
            body[word] ^= feed.word() << half;
        }
        (opcode, body)
    }

    fn body(&self, opcode: CommandOpcode, feed: &mut Feed<'_>) -> Body {
        match opcode {
            CMD_CREATE_EQ => {
                body(&CreateEq { ring: self.pages(feed, 1), log_size: 4, vector: 2, ..CreateEq::default() })
            }
            CMD_CREATE_CONTEXT => {
                body(&CreateContext { pasid: 1, has_pasid: u32::from(feed.flag()), reserved: 0 })
            }
            CMD_CREATE_MR => body(&self.region(feed)),
            CMD_CREATE_CQ => body(&CreateCq {
                buffer: self.pages(feed, 1),
                record_offset: 64 << 4,
                context: self.context,
                eqn: self.eqn,
                log_size: 4,
                ..CreateCq::default()
            }),
            CMD_CREATE_SRQ => body(&CreateSrq {
                buffer: self.pages(feed, 1),
                record_offset: 128 << 3,
                pd: self.pd,
                eqn: self.eqn,
                log_size: 3,
                ..CreateSrq::default()
            }),
            CMD_CREATE_QP => body(&CreateQp {
                buffer: self.pages(feed, 1),
                rq_offset: 128 << 3,
                record_offset: 128 << 4,
                pd: self.pd,
                send_cq: self.cqn,
                recv_cq: self.cqn,
                eqn: self.eqn,
                log_sq: 3,
                log_rq: 3,
                kind: if feed.flag() { QPT_RC } else { QPT_UD },
                srqn: feed.below(3) as u32,
                ..CreateQp::default()
            }),
            CMD_MODIFY_CQ => body(&ModifyCq { cqn: self.cqn, count: 2, period_us: 9, reserved: 0 }),
            CMD_MODIFY_QP => body(&self.change(feed)),
            CMD_ARM_SRQ => body(&ArmSrq { srqn: 1, limit: feed.byte().into() }),
            CMD_INVALIDATE_MR => {
                body(&InvalidateMr { key: self.key, reserved: 0, start: feed.word(), length: feed.word() })
            }
            _ => body(&ObjectId { id: self.number(feed), reserved: 0 }),
        }
    }

    fn region(&self, feed: &mut Feed<'_>) -> CreateMr {
        let access = ACCESS_LOCAL_WRITE
            .union(ACCESS_REMOTE_WRITE)
            .union(ACCESS_REMOTE_READ)
            .union(ACCESS_REMOTE_ATOMIC);
        let region = CreateMr { pd: self.pd, access, ..CreateMr::default() };
        match feed.below(3) {
            0 => CreateMr { length: u64::MAX, mode: MR_PASID, ..region },
            1 => {
                let table = PageTable { pages: 0, levels: 1 + feed.below(4) as u8, ..self.pages(feed, 1) };
                CreateMr { length: 8 * FRAME, table, mode: MR_ODP, fault_eqn: self.eqn, ..region }
            }
            _ => {
                let pages = 1 + feed.below(4) as u32;
                let table = PageTable { levels: feed.below(3) as u8, ..self.pages(feed, pages) };
                CreateMr { length: u64::from(pages) * FRAME, table, mode: MR_PINNED, ..region }
            }
        }
    }

    /// Any attributes, to a state that is near.
    fn change(&self, feed: &mut Feed<'_>) -> ModifyQp {
        ModifyQp {
            qpn: self.number(feed),
            mask: if feed.flag() { u32::from(feed.half()) << 1 | 1 } else { feed.word32() },
            state: feed.pick(&[QPS_RESET, QPS_INIT, QPS_RTR, QPS_RTS, QPS_ERR]),
            path_mtu: 3,
            timeout: feed.byte() & 31,
            retry_count: 7,
            rnr_retry: feed.byte() & 7,
            dest_qpn: feed.pick(&self.qpns),
            dest_lid: 1,
            port: 1,
            max_rd_atomic: 1,
            max_dest_rd_atomic: 1,
            ..ModifyQp::default()
        }
    }

    fn pages(&self, feed: &mut Feed<'_>, pages: u32) -> PageTable {
        let root = self.buffer + (u64::from(feed.byte()) % self.frames) * FRAME;
        PageTable { root, pages, levels: 0, page_shift: 12, reserved: 0 }
    }

    /// The number of an object: one of the first, or one that the session has.
    fn number(&self, feed: &mut Feed<'_>) -> u32 {
        let known = [self.pd, self.context, self.cqn, self.eqn, self.qpns[0], self.qpns[1], self.key];
        match feed.below(16) {
            0..8 => feed.word32(),
            choice => known[(choice - 8) % known.len()],
        }
    }
}

fn body(command: &(impl IntoBytes + Immutable)) -> Body {
    let mut body = Body::default();
    body.as_mut_bytes()[..size_of_val(command)].copy_from_slice(command.as_bytes());
    body
}
