//! Two NICs on a wire: what the tests in the modules share.

mod busy;
mod connections;
mod datagrams;
mod ends;
mod peer;
mod policies;
mod port;
mod requester;
mod responder;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use refault_abi::codes::{
    FLUSH_GLOBAL, FLUSH_RANGE, OP_FLUSH, OP_RDMA_READ, OP_SEND, OP_SEND_INVALIDATE, QPS_ERR, QPS_INIT,
    QPS_RTR, QPS_RTS, QPT_ETHERNET, QPT_GSI, QPT_RC, QPT_UD, QpKind, WC_RETRY_EXC_ERR, WC_SUCCESS,
};
use refault_abi::command::{
    CAP_ETHERNET, CAP_ROCE, CMD_CREATE_QP, CMD_QUERY_COUNTERS, CMD_QUERY_DEVICE, CMD_SET_GID, CMD_SET_PORT,
    CreateQp, DeviceCaps, GID_NO_VLAN, ModifyQp, ObjectId, PORT_PROMISCUOUS, PORT_UP, PortCounters,
    QP_ATTR_PKEY, QP_ATTR_PORT, QP_ATTR_QKEY, QP_ATTR_SQ_PSN, QP_ATTR_STATE, STATUS_BAD_OPCODE,
    STATUS_BAD_PARAMETER, STATUS_BUSY, SetGid, SetPort,
};
use refault_abi::event::{EVENT_PORT, PORT_EVENT_DOWN, PORT_EVENT_UP};
use refault_abi::queue::{CQE_GRH, CQE_IPV4, CQE_RECEIVE, CQE_VLAN, SqWqe};
use refault_bus::pri::ResponseCode;
use refault_bus::sync::lock;
use refault_bus::wire::{EthernetFrame, Wire, WirePort};
use refault_nic::{FrameStats, LinkLayer, NicConfig};
use refault_roce::{FlushIcrc, Opcode, Operation, Packet, Place, Psn, Received, Service, frame};

use crate::support::driver::*;
use crate::support::shared::*;
use crate::support::*;

const QKEY: u32 = 0x1234;
const HEAP: u64 = 0x7f00_0000_0000;

/// Frames that were sent and have not been delivered.
#[derive(Default)]
struct Cable {
    frames: Mutex<VecDeque<EthernetFrame>>,
    /// The far end does not keep up.
    is_busy: AtomicBool,
}

impl Wire for Cable {
    fn send(&self, frame: EthernetFrame) {
        lock(&self.frames).push_back(frame);
    }

    fn is_ready(&self) -> bool {
        !self.is_busy.load(Ordering::Relaxed)
    }
}

impl Cable {
    fn take(&self) -> Option<EthernetFrame> {
        lock(&self.frames).pop_front()
    }
}

/// One machine, its port up and with a GID.
struct Station {
    pair: Pair,
    mac: [u8; 6],
    sends: Arc<Cable>,
}

fn mac(number: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, number]
}

/// `::ffff:10.0.0.number`
fn gid(number: u8) -> [u8; 16] {
    let mut gid = [0; 16];
    gid[10..].copy_from_slice(&[0xff, 0xff, 10, 0, 0, number]);
    gid
}

fn set_gid(index: u16, number: u8) -> SetGid {
    SetGid {
        index,
        present: 1,
        reserved0: 0,
        vlan: GID_NO_VLAN,
        mac: mac(number),
        reserved1: 0,
        gid: gid(number),
    }
}

fn config(number: u8) -> NicConfig {
    let link = LinkLayer::Ethernet { mac: mac(number), roce: true };
    NicConfig { link, fault_window: 1, ..NicConfig::default() }
}

impl Station {
    fn new(number: u8) -> Self {
        Self::of(config(number), number)
    }

    fn of(config: NicConfig, number: u8) -> Self {
        let pair = Pair::unconnected(Bench::new(config));
        let sends = Arc::new(Cable::default());
        pair.bench.nic.plug(sends.clone());
        pair.bench.nic.set_carrier(true);
        let station = Self { pair, mac: mac(number), sends };
        station.set_port(PORT_UP);
        station.set(CMD_SET_GID, &set_gid(1, number)).unwrap();
        station
    }

    fn set<Q: zerocopy::IntoBytes + zerocopy::Immutable>(
        &self,
        opcode: refault_abi::command::CommandOpcode,
        request: &Q,
    ) -> Result<(), refault_abi::command::CommandStatus> {
        self.pair.bench.command::<_, ObjectId>(opcode, request).map(|_| ())
    }

    fn set_port(&self, flags: u32) {
        let eqn = self.pair.eq.eqn;
        self.set(CMD_SET_PORT, &SetPort { mac: self.mac, reserved0: 0, flags, eqn }).unwrap();
    }

    fn counters(&self) -> PortCounters {
        self.pair.bench.command(CMD_QUERY_COUNTERS, &[0u8; 8]).unwrap()
    }

    fn frames(&self) -> FrameStats {
        self.pair.bench.nic.stats().frames
    }

    /// A queue pair of that kind in RTS, with completions on A's queue.
    fn queue_pair(&self, kind: QpKind) -> Qp {
        let Pair { bench, pd, cq_a, eq, context, .. } = &self.pair;
        let command = CreateQp { kind, ..Qp::command(bench, *pd, [cq_a.cqn; 2], eq.eqn, LOG) };
        let qp = Qp::create(bench, *context, &command);
        let to = |state, mask: u32| {
            let change =
                ModifyQp { mask: mask | QP_ATTR_STATE, state, port: 1, qkey: QKEY, ..ModifyQp::default() };
            qp.modify(bench, &change).unwrap();
        };
        let (init, send) = match kind {
            QPT_ETHERNET => (0, 0),
            QPT_GSI => (QP_ATTR_PKEY | QP_ATTR_QKEY, QP_ATTR_SQ_PSN),
            _ => (QP_ATTR_PKEY | QP_ATTR_QKEY | QP_ATTR_PORT, QP_ATTR_SQ_PSN),
        };
        to(QPS_INIT, init);
        to(QPS_RTR, 0);
        to(QPS_RTS, send);
        qp
    }
}

/// The path to a station.
fn path_to(number: u8) -> ModifyQp {
    ModifyQp {
        has_grh: 1,
        sgid_index: 1,
        dest_gid: gid(number),
        dmac: mac(number),
        hop_limit: 9,
        traffic_class: 0x28,
        source_port: 0xc0de,
        ..PATIENT
    }
}

/// The same for a datagram.
fn datagram_to(number: u8, wr_id: u64, qpn: u32, sges: &[refault_abi::queue::Sge]) -> SqWqe {
    let gid = gid(number);
    let half = |at: usize| u64::from_le_bytes(gid[at..at + 8].try_into().unwrap());
    let mut path = [0; 8];
    path[..6].copy_from_slice(&mac(number));
    (path[6], path[7]) = (1, 33);
    SqWqe {
        remote_addr: u64::from_le_bytes(path),
        has_grh: 1,
        compare_add: half(0),
        swap: half(8),
        source_port: 0xc001,
        rkey: 0x28 << 20,
        ..datagram(wr_id, sges, qpn, QKEY)
    }
}

/// Lets both work, and frames pass, until nothing moves. `pass` may keep or change a frame.
fn settle_with(stations: [&Station; 2], mut pass: impl FnMut(EthernetFrame) -> Option<EthernetFrame>) {
    for _ in 0..10_000 {
        stations.iter().for_each(|station| station.pair.bench.settle());
        let sent = [0, 1].map(|from| stations[from].sends.take());
        if sent.iter().all(Option::is_none) {
            return;
        }
        for (from, frame) in sent.into_iter().enumerate() {
            if let Some(frame) = frame.and_then(&mut pass) {
                stations[1 - from].pair.bench.nic.receive(frame);
            }
        }
    }
    panic!("the stations never come to rest");
}

fn settle(stations: [&Station; 2]) {
    settle_with(stations, Some);
}

/// Two stations whose queue pairs A are connected.
fn connected() -> (Station, Station) {
    let (one, two) = (Station::new(1), Station::new(2));
    one.pair.a.raise(&one.pair.bench, two.pair.a.qpn, QPS_RTS, path_to(2));
    two.pair.a.raise(&two.pair.bench, one.pair.a.qpn, QPS_RTS, path_to(1));
    (one, two)
}
