//! The rings of a queue pair, at one place in memory however often the queue pair is destroyed and made again.

use std::mem::offset_of;

use refault_abi::codes::QpKind;
use refault_abi::command::{CMD_CREATE_QP, CMD_DESTROY_QP, CreateQp, ObjectId};
use refault_abi::doorbell::{DOORBELL_SQ, Doorbell};
use refault_abi::queue::{QpDoorbellRecord, RQ_WQE_SIZE, RqWqe, SQ_WQE_SIZE, SqWqe};
use refault_bus::Gpa;
use refault_model::nic::{Buffer, Driver, QueuePairSetup};
use zerocopy::IntoBytes;

/// log2 of the entries of both rings.
const LOG: u32 = 4;
const RQ_OFFSET: u32 = SQ_WQE_SIZE << LOG;
const RECORD_OFFSET: u32 = RQ_OFFSET + (RQ_WQE_SIZE << LOG);

/// A queue pair with its rings.
pub(super) struct Queue {
    pub(super) qpn: u32,
    pub(super) kind: QpKind,
    pub(super) srqn: u32,
    setup: QueuePairSetup,
    buffer: Buffer,
    sent: u32,
    received: u32,
}

impl Queue {
    /// A queue pair in RESET.
    pub(super) fn new(driver: &Driver, setup: QueuePairSetup, kind: QpKind, srqn: u32) -> Self {
        let bytes = u64::from(RECORD_OFFSET) + size_of::<QpDoorbellRecord>() as u64;
        let buffer = Buffer::new(driver.memory(), driver.domain(), bytes).expect("memory");
        let mut queue = Self { qpn: 0, kind, srqn, setup, buffer, sent: 0, received: 0 };
        assert!(queue.create(driver), "a queue pair");
        queue
    }

    /// Makes it again, after [`Self::destroy`]; `false` if the device refuses.
    pub(super) fn create(&mut self, driver: &Driver) -> bool {
        self.restart();
        let QueuePairSetup { pd, cqn, eqn, .. } = self.setup;
        let body = CreateQp {
            buffer: self.buffer.table(),
            rq_offset: RQ_OFFSET,
            record_offset: RECORD_OFFSET,
            pd,
            send_cq: cqn,
            recv_cq: cqn,
            eqn,
            log_sq: LOG as u8,
            log_rq: LOG as u8,
            kind: self.kind,
            srqn: self.srqn,
            ..CreateQp::default()
        };
        let made = driver.lane0().execute::<ObjectId>(CMD_CREATE_QP, &body);
        made.map(|object| self.qpn = object.id).is_ok()
    }

    /// Destroys it. Its rings stay.
    pub(super) fn destroy(&mut self, driver: &Driver) {
        if self.qpn != 0 {
            driver.destroy(CMD_DESTROY_QP, self.qpn).expect("it is there, and nothing uses it");
            self.qpn = 0;
        }
    }

    /// Empties the rings, as RESET does in the device.
    pub(super) fn restart(&mut self) {
        (self.sent, self.received) = (0, 0);
        self.write(u64::from(RECORD_OFFSET), QpDoorbellRecord::default().as_bytes());
    }

    pub(super) fn send(&mut self, driver: &Driver, request: &SqWqe) {
        let slot = u64::from(self.sent % (1 << LOG)) * u64::from(SQ_WQE_SIZE);
        self.write(slot, request.as_bytes());
        self.sent = self.sent.wrapping_add(1);
        self.publish(offset_of!(QpDoorbellRecord, sq_producer), self.sent);
        let value = Doorbell { kind: DOORBELL_SQ as u8, number: self.qpn, argument: 0 }.encode();
        driver.bar2().write64(u64::from(self.setup.context.id) << 12, value);
    }

    pub(super) fn receive(&mut self, request: &RqWqe) {
        let slot = u64::from(self.received % (1 << LOG)) * u64::from(RQ_WQE_SIZE);
        self.write(u64::from(RQ_OFFSET) + slot, request.as_bytes());
        self.received = self.received.wrapping_add(1);
        self.publish(offset_of!(QpDoorbellRecord, rq_producer), self.received);
    }

    fn publish(&self, field: usize, producer: u32) {
        let at = Gpa(self.buffer.gpa().0 + u64::from(RECORD_OFFSET) + field as u64);
        self.buffer.memory().dma().store_u32(at, producer).expect("memory");
    }

    fn write(&self, offset: u64, bytes: &[u8]) {
        self.buffer.memory().dma().write(Gpa(self.buffer.gpa().0 + offset), bytes).expect("memory");
    }
}
