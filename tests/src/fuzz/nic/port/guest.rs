//! What the guest does with the port: requests of its program, and commands of its driver.

use refault_abi::codes::{
    ACCESS_LOCAL_WRITE, ACCESS_REMOTE_READ, ACCESS_REMOTE_WRITE, OP_LOCAL_INVALIDATE, OP_REGISTER, OP_SEND,
    Opcode, QPS_ERR, QPS_RESET, QPS_RTS, QPS_SQD, QPT_ETHERNET, QPT_RC,
};
use refault_abi::command::{CMD_DESTROY_MR, ModifyQp, PORT_PROMISCUOUS, PORT_UP, QP_ATTR_STATE};
use refault_abi::queue::{RqWqe, Sge, SqWqe, WQE_SIGNALED};
use refault_bus::Iova;
use refault_bus::wire::WirePort;
use refault_model::memory::FRAME;
use refault_model::nic::{MemoryRegion, work};

use super::super::SOURCE;
use super::super::request::page;
use super::Play;
use super::station::{FAST, PEER_MAC, PEER_QPN, PINNED_PAGES, QKEY, gid};
use crate::fuzz::feed::Feed;

impl Play {
    /// A request of the guest's program.
    pub(super) fn post(&mut self, feed: &mut Feed<'_>, index: usize) {
        let end = &mut self.station.ends[index];
        let near = Iova(SOURCE.0 + u64::from(feed.byte()) * 8);
        let local = work::piece(near, feed.pick(&[8, 64, 700, 5000, 9000]), self.station.local);
        let word = work::piece(near, 8, self.station.local);
        let (remote, key) = (Iova(0x5000), 0x99);
        let request = match (end.queue.kind, feed.below(7)) {
            (QPT_ETHERNET, _) => work::send(1, local),
            (QPT_RC, 0) => work::rdma_write(1, local, remote, key),
            (QPT_RC, 1 | 2) => work::rdma_read(1, local, remote, key),
            (QPT_RC, 3) => work::fetch_add(1, word, remote, key, 1),
            (QPT_RC, 4) => work::atomic_write(1, word, remote, key),
            (QPT_RC, 5) => work::flush(1, 1, remote, 100, key),
            (QPT_RC, _) => work::send(1, local),
            _ => datagram(local, end.gid, feed.flag()),
        };
        end.queue.send(&self.world.machine.driver, &request);
    }

    pub(super) fn receive(&mut self, feed: &mut Feed<'_>, index: usize) {
        let at = page(feed);
        let length = feed.pick(&[0, 64, 300, 5000, 9018]);
        let request: RqWqe = work::receive(1, work::piece(at, length, self.station.local));
        let queue = &mut self.station.ends[index].queue;
        if queue.srqn == 0 {
            queue.receive(&request);
        } else {
            // It may be full.
            let _ = self.station.shared.post(&request);
        }
    }

    pub(super) fn change_queue_pair(&mut self, feed: &mut Feed<'_>, index: usize) {
        let driver = &self.world.machine.driver;
        let (choice, end) = (feed.below(8), &mut self.station.ends[index]);
        let to = |state| {
            let change = ModifyQp { qpn: end.queue.qpn, mask: QP_ATTR_STATE, state, ..ModifyQp::default() };
            // Not every state leads to every other one.
            let _ = driver.modify(&change);
        };
        match choice {
            0 => to(QPS_ERR),
            1 => to(QPS_SQD),
            2 => to(QPS_RTS),
            3 => to(QPS_RESET),
            _ => end.queue.destroy(driver),
        }
        if choice >= 4 && end.queue.create(driver) {
            self.station.raise(driver, index, choice & 1 == 0);
        }
    }

    /// The kernel's part of recovery after an error.
    pub(super) fn revive(&mut self, index: usize) {
        let driver = &self.world.machine.driver;
        let queue = &mut self.station.ends[index].queue;
        let change =
            ModifyQp { qpn: queue.qpn, mask: QP_ATTR_STATE, state: QPS_RESET, ..ModifyQp::default() };
        if driver.modify(&change).is_ok() {
            queue.restart();
            self.station.raise(driver, index, true);
        }
    }

    pub(super) fn change_port(&mut self, feed: &mut Feed<'_>) {
        let (driver, choice) = (&self.world.machine.driver, feed.below(8));
        match choice {
            0..=2 => {
                let flags = [0, PORT_UP, PORT_UP | PORT_PROMISCUOUS][choice];
                self.station.set_port(driver, flags);
                self.port.up = flags != 0;
            }
            3 | 4 => self.world.machine.nic.set_carrier(choice == 4),
            _ => {
                let (index, present) = (feed.below(2), feed.flag());
                self.station.set_gid(driver, index as u16 + 1, present);
                self.port.gids[index] = present;
            }
        }
    }

    pub(super) fn change_region(&mut self, feed: &mut Feed<'_>) {
        let driver = &self.world.machine.driver;
        let region = MemoryRegion { key: feed.pick(&self.keys.keys[..2]) };
        // It may be gone already.
        let _ = if feed.flag() { driver.revoke(region) } else { driver.destroy(CMD_DESTROY_MR, region.key) };
        if let [pinned, fast] = self.keys.keys[..2]
            && feed.flag()
        {
            let _ = driver.destroy(CMD_DESTROY_MR, pinned);
            let _ = driver.destroy(CMD_DESTROY_MR, fast);
            self.keys.keys[..2].copy_from_slice(&self.station.regions(driver));
        }
    }

    /// Makes the region for fast registration valid or invalid.
    pub(super) fn registration(&mut self, feed: &mut Feed<'_>, index: usize) {
        let key = self.keys.keys[1];
        let request = |opcode: Opcode| SqWqe { opcode, flags: WQE_SIGNALED, wr_id: 1, ..SqWqe::default() };
        let request = if feed.below(4) == 0 {
            SqWqe { imm: key, ..request(OP_LOCAL_INVALIDATE) }
        } else {
            let rights = ACCESS_LOCAL_WRITE.union(ACCESS_REMOTE_WRITE).union(ACCESS_REMOTE_READ);
            let offset = u64::from(feed.byte());
            SqWqe {
                rkey: key,
                remote_addr: FAST.0,
                compare_add: PINNED_PAGES * FRAME - offset,
                imm: rights.0,
                ..request(OP_REGISTER)
            }
        };
        self.station.ends[index].queue.send(&self.world.machine.driver, &request);
    }
}

/// A datagram to a peer.
fn datagram(local: Sge, index: u16, to_management: bool) -> SqWqe {
    let half = |at: usize| {
        let octets = gid(index).peer.octets();
        u64::from_le_bytes(octets[at..at + 8].try_into().unwrap_or_default())
    };
    let mut path = [0; 8];
    path[..6].copy_from_slice(&PEER_MAC);
    (path[6], path[7]) = (index as u8, 64);
    SqWqe {
        opcode: OP_SEND,
        dest_qpn: if to_management { 1 } else { PEER_QPN },
        qkey: QKEY,
        has_grh: 1,
        remote_addr: u64::from_le_bytes(path),
        compare_add: half(0),
        swap: half(8),
        ..work::send(1, local)
    }
}
