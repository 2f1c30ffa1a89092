//! A guest that writes anything anywhere: the device neither panics nor hangs, and still serves the next one.

use proptest::collection::vec;
use proptest::prelude::*;
use refault_abi::codes::{Opcode, QPS_RTS, QPT_UD, WC_SUCCESS};
use refault_abi::command::{
    CMD_ARM_SRQ, CMD_CREATE_CONTEXT, CMD_CREATE_CQ, CMD_CREATE_EQ, CMD_CREATE_MR, CMD_CREATE_PD,
    CMD_CREATE_QP, CMD_CREATE_SRQ, CMD_DESTROY_CONTEXT, CMD_DESTROY_CQ, CMD_DESTROY_EQ, CMD_DESTROY_MR,
    CMD_DESTROY_PD, CMD_DESTROY_QP, CMD_DESTROY_SRQ, CMD_INVALIDATE_MR, CMD_MODIFY_CQ, CMD_MODIFY_QP,
    CMD_QUERY_DEVICE, CMD_QUERY_QP, CMD_QUERY_SRQ, CMD_RESUME_FAULT, CMD_REVOKE_MR, CMD_STOP_CONTEXT,
    CommandOpcode, CreateQp, ModifyCq, ModifyQp, ObjectId, QP_ATTR_STATE,
};
use refault_abi::queue::WqeFlags;
use refault_abi::regs::{MAGIC_VALUE, REG_MAGIC};
use refault_bus::pri::ResponseCode;
use refault_bus::{Pasid, PrgIndex};
use refault_pci::PciFunction;

use zerocopy::IntoBytes;

use crate::support::driver::*;
use crate::support::shared::*;
use crate::support::*;

/// One thing a guest does.
#[derive(Clone, Debug)]
enum Act {
    Command {
        lane: usize,
        opcode: CommandOpcode,
        body: Vec<u64>,
    },
    Send {
        opcode: u8,
        flags: u8,
        num_sge: u8,
        inline: u32,
        words: Vec<u64>,
        lengths: Vec<u32>,
    },
    Receive {
        addr: u64,
        length: u32,
        key: u32,
    },
    Doorbell {
        page: u32,
        kind: u64,
        number: u32,
        argument: u32,
    },
    Record {
        which: u8,
        value: u32,
    },
    Register {
        offset: u64,
        data: Vec<u8>,
    },
    Config {
        offset: u16,
        data: Vec<u8>,
    },
    Answer {
        group: u64,
        pasid: u32,
        code: u8,
    },
    Invalidate {
        pasid: Option<u32>,
        iova: u64,
        shift: u8,
    },
    Scribble {
        at: u64,
        bytes: Vec<u8>,
    },
    Map {
        page: u64,
        gpa: u64,
    },
    Time(u64),
    /// A driver that sets things right again: both queue pairs reset and connected.
    Revive,
}

/// What a guest may write: small numbers, which name objects, page addresses, keys, and sometimes any number.
fn word() -> impl Strategy<Value = u64> {
    prop_oneof![
        3 => 0..20u64,
        2 => (0..12_000u64).prop_map(|page| page << 12),
        1 => any::<u64>(),
        2 => (0..8u64, 0..4u64).prop_map(|(slot, variant)| slot << 8 | variant),
        2 => (0..4u64, 0..3u64).prop_map(|(slot, variant)| variant << 14 | slot),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let opcode = prop::sample::select(vec![
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
        CMD_CREATE_QP,
        CMD_MODIFY_QP,
        CMD_QUERY_QP,
        CMD_DESTROY_QP,
        CMD_MODIFY_CQ,
        CMD_CREATE_SRQ,
        CMD_DESTROY_SRQ,
        CMD_ARM_SRQ,
        CMD_QUERY_SRQ,
        CMD_INVALIDATE_MR,
        CMD_RESUME_FAULT,
        CMD_REVOKE_MR,
        CMD_STOP_CONTEXT,
        CommandOpcode(0xff),
    ]);
    let narrow = || word().prop_map(|word| word as u32);
    prop_oneof![
        4 => (0..2usize, opcode, vec(word(), 15))
            .prop_map(|(lane, opcode, body)| Act::Command { lane, opcode, body }),
        6 => (0..11u8, 0..16u8, 0..14u8, 0..200u32, vec(word(), 26), vec(0..200_000u32, 12)).prop_map(
            |(opcode, flags, num_sge, inline, words, lengths)| Act::Send {
                opcode, flags, num_sge, inline, words, lengths
            }
        ),
        2 => (word(), narrow(), narrow())
            .prop_map(|(addr, length, key)| Act::Receive { addr, length, key }),
        2 => (0..4u32, 0..5u64, narrow(), narrow())
            .prop_map(|(page, kind, number, argument)| Act::Doorbell { page, kind, number, argument }),
        1 => (0..8u8, narrow()).prop_map(|(which, value)| Act::Record { which, value }),
        1 => (0..0x240u64, vec(any::<u8>(), 1..9))
            .prop_map(|(offset, data)| Act::Register { offset, data }),
        1 => (0..0x180u16, vec(any::<u8>(), 1..5)).prop_map(|(offset, data)| Act::Config { offset, data }),
        2 => (0..4u64, 0x32..0x35u32, 0..4u8)
            .prop_map(|(group, pasid, code)| Act::Answer { group, pasid, code }),
        1 => (prop::option::of(0x32..0x35u32), word(), 12..65u8)
            .prop_map(|(pasid, iova, shift)| Act::Invalidate { pasid, iova, shift }),
        1 => (0x10_0000..0x20_0000u64, vec(any::<u8>(), 1..64))
            .prop_map(|(at, bytes)| Act::Scribble { at, bytes }),
        2 => (0..12_000u64, word()).prop_map(|(page, gpa)| Act::Map { page: page << 12, gpa: gpa & !0xfff }),
        1 => (0..40_000_000u64).prop_map(Act::Time),
        2 => Just(Act::Revive),
    ]
}

fn play(pair: &mut Pair, srq: &mut Option<Srq>, act: &Act) {
    let bench = &pair.bench;
    match act {
        Act::Command { lane, opcode, body } => {
            let bytes: Vec<u8> = body.iter().flat_map(|word| word.to_le_bytes()).collect();
            bench.post_command(*lane, *opcode, &bytes);
        }
        Act::Send { opcode, flags, num_sge, inline, words, lengths } => {
            let mut wqe = request(Opcode(*opcode), 1, &[]);
            (wqe.flags, wqe.num_sge, wqe.inline_length) = (WqeFlags(*flags), *num_sge, *inline);
            (wqe.remote_addr, wqe.rkey) = (words[0], words[1] as u32);
            if words[10] % 2 == 0 {
                (wqe.remote_addr, wqe.rkey) = (pair.to + words[0] % BUFFER, pair.rkey);
            }
            for ((slot, pair_of), length) in wqe.sge.iter_mut().zip(words[2..].chunks(2)).zip(lengths) {
                *slot = sge(pair_of[0], *length, pair_of[1] as u32);
                if pair_of[0] % 3 != 0 {
                    *slot = sge(pair.from, *length, pair.lkey);
                }
            }
            // Further meanings of the same words: FLUSH, and where a datagram goes.
            (wqe.imm, wqe.compare_add, wqe.swap) = (words[11] as u32, words[9], words[8]);
            (wqe.dest_qpn, wqe.dest_lid) = (pair.b.qpn, 1);
            (wqe.qkey, wqe.sl, wqe.has_grh) = ([QKEY, words[7] as u32][*inline as usize % 2], 3, 0);
            if words[10] % 5 == 0 {
                (wqe.dest_qpn, wqe.sl, wqe.has_grh) = (words[6] as u32, *flags, *num_sge);
            }
            pair.a.send(&pair.bench, &wqe);
        }
        Act::Receive { addr, length, key } => {
            let piece = match length % 2 {
                0 => sge(*addr, *length, *key),
                _ => sge(pair.to, 4200, pair.rkey),
            };
            match srq {
                Some(srq) => srq.post(bench, 1, &[piece]),
                None => pair.b.receive(bench, 1, &[piece]),
            }
        }
        Act::Doorbell { page, kind, number, argument } => bench.doorbell(*page, *kind, *number, *argument),
        Act::Record { which, value } => {
            let records = [
                pair.a.record,
                pair.a.record + 64,
                pair.b.record,
                pair.b.record + 64,
                pair.cq_a.record,
                pair.cq_b.record,
                srq.as_ref().map_or(pair.b.record, Srq::record),
                srq.as_ref().map_or(pair.b.record, Srq::record) + 64,
            ];
            bench.fill(records[usize::from(*which)], &value.to_le_bytes());
        }
        Act::Register { offset, data } => bench.nic.bar_write(0, *offset, data),
        Act::Config { offset, data } => drop(bench.nic.config_write(*offset, data)),
        Act::Answer { group, pasid, code } => {
            let group = PrgIndex::truncated(*group);
            bench.iommu.respond(Pasid::new(*pasid), group, ResponseCode::from_bits(*code));
        }
        Act::Invalidate { pasid, iova, shift } => bench.iommu.invalidate(*pasid, *iova, *shift),
        Act::Scribble { at, bytes } => bench.fill(*at, bytes),
        Act::Map { page, gpa } => bench.iommu.map(PASID, *page, *gpa, true),
        Act::Time(ns) => bench.advance(*ns),
        Act::Revive => revive(pair, srq.is_some()),
    }
    pair.bench.settle();
}

const QKEY: u32 = 7;

/// Two datagram queue pairs in place of the connected ones, with a shared receive queue, and a completion queue with
/// moderation.
fn speakers() -> (Pair, Option<Srq>) {
    let mut pair = Pair::new();
    let bench = &pair.bench;
    let srq = Srq::new(bench, pair.pd, pair.eq.eqn, 3);
    let rule = ModifyCq { cqn: pair.cq_a.cqn, count: 3, period_us: 9, reserved: 0 };
    bench.command::<_, ObjectId>(CMD_MODIFY_CQ, &rule).unwrap();
    pair.cq_a.arm(bench, false);
    let create = |cqn: u32| {
        let command = Qp::command(bench, pair.pd, [cqn; 2], pair.eq.eqn, LOG);
        let qp = Qp::create(bench, pair.context, &CreateQp { srqn: srq.srqn, kind: QPT_UD, ..command });
        raise_datagram(bench, &qp, QKEY);
        qp
    };
    (pair.a, pair.b) = (create(pair.cq_a.cqn), create(pair.cq_b.cqn));
    (pair, Some(srq))
}

/// What a driver does; whether it works depends on what the guest did before.
fn revive(pair: &mut Pair, datagrams: bool) {
    let bench = &pair.bench;
    bench.switch_on();
    let peers = [pair.b.qpn, pair.a.qpn];
    for (qp, peer) in [&mut pair.a, &mut pair.b].into_iter().zip(peers) {
        (qp.sent, qp.received) = (0, 0);
        bench.fill(qp.record, &[0; 128]);
        let change = ModifyQp { mask: QP_ATTR_STATE, qpn: qp.qpn, ..ModifyQp::default() };
        bench.post_command(0, CMD_MODIFY_QP, change.as_bytes());
        bench.settle();
        let connected = qp.steps(peer, QPS_RTS, PATIENT);
        let steps = if datagrams { datagram_steps(qp.qpn, QKEY).to_vec() } else { connected };
        for change in steps {
            bench.post_command(0, CMD_MODIFY_QP, change.as_bytes());
            bench.settle();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        max_shrink_iters: 2000,
        failure_persistence: None,
        ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_guest_writes_the_device_comes_to_rest_and_serves_the_next(
        acts in vec(act(), 1..120),
        datagrams in any::<bool>(),
    ) {
        let (mut pair, mut srq) = if datagrams { speakers() } else { (Pair::new(), None) };
        for act in &acts {
            play(&mut pair, &mut srq, act);
        }
        // Sanity: after a reset of everything it works as new.
        let bench = &pair.bench;
        bench.nic.reset();
        bench.nic.endpoint().reset();
        bench.iommu.unblock_all();
        bench.settle();
        bench.fill(0x1000, &[0; 0x2000]);
        bench.switch_on();
        bench.enable();
        let mut next = Pair::on(pair.bench, PATIENT);
        next.run(&next.write(1, 5000, next.to, next.rkey));
        next.cq_a.expect(&next.bench, WC_SUCCESS);
    }

    #[test]
    fn any_register_reads_at_any_width(offset in 0..0x1010u64, width in 1..9usize, bar in 0..6u8) {
        let bench = Bench::default();
        let mut data = vec![0; width];
        bench.nic.bar_read(bar, offset, &mut data);
        prop_assert_eq!(bench.read32(REG_MAGIC), MAGIC_VALUE);
    }
}
