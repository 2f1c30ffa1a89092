//! A machine with an Ethernet port, a queue pair of each kind, and a region of each mode; its peers are on the wire.

use core::net::Ipv6Addr;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use refault_abi::codes::{
    ACCESS_LOCAL_WRITE, AccessRights, QPS_INIT, QPS_RTR, QPS_RTS, QPT_ETHERNET, QPT_GSI, QPT_RC, QPT_UD,
};
use refault_abi::command::{
    CMD_CREATE_MR, CMD_SET_GID, CMD_SET_PORT, CreateMr, GID_NO_VLAN, MR_FAST, ModifyQp, ObjectId, PORT_UP,
    PageTable, QP_ATTR_ACCESS, QP_ATTR_AV, QP_ATTR_DEST_QPN, QP_ATTR_MAX_DEST_RD_ATOMIC,
    QP_ATTR_MAX_RD_ATOMIC, QP_ATTR_MIN_RNR_TIMER, QP_ATTR_PATH_MTU, QP_ATTR_PKEY, QP_ATTR_PORT, QP_ATTR_QKEY,
    QP_ATTR_RETRY, QP_ATTR_RNR_RETRY, QP_ATTR_RQ_PSN, QP_ATTR_SQ_PSN, QP_ATTR_STATE, QP_ATTR_TIMEOUT, SetGid,
    SetPort,
};
use refault_bus::sync::lock;
use refault_bus::wire::{EthernetFrame, Wire, WirePort};
use refault_bus::{Gpa, Iova, Pasid};
use refault_model::Process;
use refault_model::memory::FRAME;
use refault_model::nic::{Buffer, CompletionQueue, Driver, EventQueue, QueuePairSetup, SharedReceiveQueue};
use refault_model::paging::{PageSize, Rights};
use refault_roce::{MacAddress, Opcode, Operation, Packet, Place, Psn, Reth, Service, Syndrome, frame};

use super::super::World;
use super::queue::Queue;

pub(super) const MAC: MacAddress = [2, 0, 0, 0, 0, 1];
pub(super) const PEER_MAC: MacAddress = [2, 0, 0, 0, 0, 2];
/// VLAN of the second GID.
pub(super) const VLAN: u16 = 7;
pub(super) const QKEY: u32 = 0x1234;
/// Numbers that the peers' queue pairs have.
pub(super) const PEER_QPN: u32 = 0x77_0000;
/// Memory of the process that no peer may reach, and that it does not use itself.
pub(super) const SECRET: Iova = Iova(0x7f40_0000_0000);
pub(super) const SECRET_BYTE: u8 = 0xd7;
/// Where peers see the pinned region, and how many pages it has.
pub(super) const PINNED: Iova = Iova(0x10_0000_0000);
pub(super) const PINNED_PAGES: u64 = 2;
/// Where they see the region for fast registration.
pub(super) const FAST: Iova = Iova(0x20_0000_0000);

/// Frames that the NIC has sent.
#[derive(Default)]
pub(super) struct Cable(Mutex<Vec<Vec<u8>>>);

impl Wire for Cable {
    fn send(&self, frame: EthernetFrame) {
        lock(&self.0).push(frame.bytes);
    }
}

impl Cable {
    pub(super) fn take(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut lock(&self.0))
    }
}

/// A queue pair, and what its peer knows of it.
pub(super) struct End {
    pub(super) queue: Queue,
    /// Entry of the GID table that it sends from; the peer has the other address of that network.
    pub(super) gid: u16,
    /// The port itself is the peer.
    pub(super) is_here: bool,
    pub(super) mtu_code: u8,
    /// What it expects next, as far as replies say.
    pub(super) expected: Psn,
    /// The last requests that it has sent.
    pub(super) requests: VecDeque<Packet>,
    /// The last NAK that a packet is missing.
    pub(super) nak: Option<Psn>,
}

impl End {
    pub(super) fn mtu(&self) -> usize {
        128 << self.mtu_code
    }

    /// Forgets the connection before.
    pub(super) fn forget(&mut self, expected: Psn) {
        self.expected = expected;
        self.requests.clear();
        self.nak = None;
    }
}

/// An entry of the GID table.
#[derive(Clone, Copy)]
pub(super) struct Gid {
    pub(super) own: Ipv6Addr,
    pub(super) peer: Ipv6Addr,
    pub(super) vlan: Option<u16>,
}

pub(super) fn gid(index: u16) -> Gid {
    let v4 = |last| Ipv6Addr::from([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, last]);
    let v6 = |last| Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, last);
    if index == 1 {
        Gid { own: v4(1), peer: v4(2), vlan: None }
    } else {
        Gid { own: v6(1), peer: v6(2), vlan: Some(VLAN) }
    }
}

/// The process and what it has of the NIC.
pub(super) struct Station {
    pub(super) process: Arc<Process>,
    pub(super) pasid: Pasid,
    pub(super) pd: u32,
    pub(super) eqn: u32,
    pub(super) completions: CompletionQueue,
    pub(super) shared: SharedReceiveQueue,
    /// Its own memory, which no peer may reach.
    pub(super) local: u32,
    pub(super) pinned: Buffer,
    /// The table of the region for fast registration.
    pub(super) fast_table: Buffer,
    pub(super) ends: Vec<End>,
    _events: EventQueue,
}

impl Station {
    /// Brings the port up, with queue pairs in RESET.
    pub(super) fn new(world: &World, cable: &Arc<Cable>) -> Self {
        let driver = &world.machine.driver;
        let (process, pasid) = world.process(1);
        process.map_area(SECRET, FRAME, Rights::Write, PageSize::Small);
        process.write(SECRET, &[SECRET_BYTE; FRAME as usize]).expect("memory");
        let context = driver.create_context(Some(pasid)).expect("a context");
        let pd = driver.create_pd(context).expect("a protection domain");
        let events = driver.create_event_queue(0, 6).expect("an event queue");
        let eqn = events.number();
        let completions = driver.create_completion_queue(context, eqn, 10).expect("a completion queue");
        let shared = driver.create_shared_receive_queue(pd, eqn, 4).expect("a shared receive queue");
        let setup = QueuePairSetup { pd, context, cqn: completions.number(), eqn, log_sq: 4, log_rq: 4 };
        let end = |kind, srqn, gid, is_here, mtu_code| End {
            queue: Queue::new(driver, setup, kind, srqn),
            gid,
            is_here,
            mtu_code,
            expected: Psn::new(0),
            requests: VecDeque::new(),
            nak: None,
        };
        let ends = vec![
            end(QPT_RC, 0, 1, false, 1),
            end(QPT_RC, shared.number(), 2, false, 3),
            end(QPT_RC, 0, 1, true, 5),
            end(QPT_UD, 0, 1, false, 5),
            end(QPT_GSI, 0, 2, false, 5),
            end(QPT_ETHERNET, 0, 1, false, 5),
        ];
        let local = driver.register_range(pd, Iova(0), u64::MAX, ACCESS_LOCAL_WRITE).expect("a region").key;
        let buffer = |bytes| Buffer::new(driver.memory(), driver.domain(), bytes).expect("memory");
        let (pinned, fast_table) = (buffer(PINNED_PAGES * FRAME), buffer(FRAME));
        world.machine.nic.plug(cable.clone());
        world.machine.nic.set_carrier(true);
        let mut station = Self {
            process,
            pasid,
            pd,
            eqn,
            completions,
            shared,
            local,
            pinned,
            fast_table,
            ends,
            _events: events,
        };
        station.set_port(driver, PORT_UP);
        (1..=2).for_each(|index| station.set_gid(driver, index, true));
        (0..station.ends.len()).for_each(|index| station.raise(driver, index, true));
        station
    }

    /// The pinned region, and one for fast registration of the same pages.
    pub(super) fn regions(&self, driver: &Driver) -> [u32; 2] {
        let length = PINNED_PAGES * FRAME;
        let pinned = driver.register_pinned(self.pd, PINNED, length, self.pinned.table()).expect("a region");
        for page in 0..PINNED_PAGES {
            let at = Gpa(self.fast_table.gpa().0 + 8 * page);
            let value = self.pinned.iova().0 + page * FRAME;
            self.fast_table.memory().dma().store_u64(at, value).expect("memory");
        }
        let table = PageTable {
            root: self.fast_table.iova().0,
            pages: PINNED_PAGES as u32,
            levels: 1,
            page_shift: 12,
            reserved: 0,
        };
        let body = CreateMr { table, pd: self.pd, mode: MR_FAST, ..CreateMr::default() };
        let fast = driver.lane0().execute::<ObjectId>(CMD_CREATE_MR, &body).expect("a region");
        [pinned.key, fast.id]
    }

    pub(super) fn set_port(&self, driver: &Driver, flags: u32) {
        let body = SetPort { mac: MAC, reserved0: 0, flags, eqn: self.eqn };
        driver.lane0().execute::<[u8; 0]>(CMD_SET_PORT, &body).expect("the port is Ethernet");
    }

    pub(super) fn set_gid(&self, driver: &Driver, index: u16, present: bool) {
        let Gid { own, vlan, .. } = gid(index);
        let body = SetGid {
            index,
            present: u8::from(present),
            reserved0: 0,
            vlan: vlan.unwrap_or(GID_NO_VLAN),
            mac: MAC,
            reserved1: 0,
            gid: own.octets(),
        };
        driver.lane0().execute::<[u8; 0]>(CMD_SET_GID, &body).expect("the port has RoCE");
    }

    /// Takes queue pair `index` from RESET to RTR, or on to RTS.
    pub(super) fn raise(&mut self, driver: &Driver, index: usize, sends: bool) {
        let End { queue, gid, is_here, mtu_code, .. } = &self.ends[index];
        let first = Psn::new(0xff_fffd + index as u32);
        let network = super::station::gid(*gid);
        let (peer, dmac) = if *is_here { (network.own, MAC) } else { (network.peer, PEER_MAC) };
        let common = ModifyQp {
            qpn: queue.qpn,
            port: 1,
            qkey: QKEY,
            access: AccessRights::ALL.difference(ACCESS_LOCAL_WRITE),
            path_mtu: *mtu_code,
            has_grh: 1,
            sgid_index: *gid as u8,
            dest_gid: peer.octets(),
            dmac,
            dest_qpn: if *is_here { queue.qpn } else { PEER_QPN + index as u32 },
            rq_psn: first.get(),
            sq_psn: first.get(),
            max_rd_atomic: 2,
            max_dest_rd_atomic: 2,
            min_rnr_timer: 1,
            timeout: 8,
            retry_count: 3,
            rnr_retry: 5,
            source_port: 0xc000,
            ..ModifyQp::default()
        };
        let connected = [
            (QPS_INIT, QP_ATTR_PKEY | QP_ATTR_PORT | QP_ATTR_ACCESS),
            (
                QPS_RTR,
                QP_ATTR_AV
                    | QP_ATTR_PATH_MTU
                    | QP_ATTR_DEST_QPN
                    | QP_ATTR_RQ_PSN
                    | QP_ATTR_MAX_DEST_RD_ATOMIC
                    | QP_ATTR_MIN_RNR_TIMER,
            ),
            (
                QPS_RTS,
                QP_ATTR_SQ_PSN | QP_ATTR_TIMEOUT | QP_ATTR_RETRY | QP_ATTR_RNR_RETRY | QP_ATTR_MAX_RD_ATOMIC,
            ),
        ];
        let unconnected =
            [(QPS_INIT, QP_ATTR_PKEY | QP_ATTR_PORT | QP_ATTR_QKEY), (QPS_RTR, 0), (QPS_RTS, QP_ATTR_SQ_PSN)];
        let raw = [(QPS_INIT, 0), (QPS_RTR, 0), (QPS_RTS, 0)];
        let steps = match queue.kind {
            QPT_RC => connected,
            QPT_ETHERNET => raw,
            _ => unconnected,
        };
        for (state, mask) in steps.into_iter().take(if sends { 3 } else { 2 }) {
            // A queue pair of a context that was stopped stays where it is.
            let _ = driver.modify(&ModifyQp { state, mask: mask | QP_ATTR_STATE, ..common });
        }
        self.ends[index].forget(first);
    }
}

/// After a reset the port works for the next kernel: a packet is executed and answered.
pub(super) fn works_again(world: World, cable: &Arc<Cable>) {
    let next = world.rebooted();
    let station = Station::new(&next, cable);
    let [pinned, _] = station.regions(&next.machine.driver);
    cable.take();
    let mut packet = Packet::new(
        Opcode::new(Service::Rc, Operation::Write, Place::Only, false).expect("one of RC"),
        station.ends[0].queue.qpn,
        station.ends[0].expected,
    );
    packet.ack_request = true;
    packet.reth = Reth { address: PINNED.0 + 8, key: pinned, length: 5 };
    let bytes = super::peer::build(&super::peer::envelope(&station.ends[0]), &packet, 5, 0x2a);
    next.machine.nic.receive(EthernetFrame { bytes, sealed: false });
    next.rest(|_| {});
    let written = station.pinned.memory().bytes(station.pinned.gpa(), 16).expect("memory");
    assert_eq!(written, [&[0; 8][..], &[0x2a; 5], &[0; 3]].concat());
    let answers = cable.take();
    assert_eq!(answers.len(), 1, "{answers:02x?}");
    let answer = frame::parse_unsealed(&answers[0]).expect("our own frame").packet;
    assert_eq!((answer.psn, answer.aeth.syndrome), (packet.psn, Syndrome::ACK));
}
