//! A command lane: a ring of slots with request and response.

use std::sync::{Mutex, PoisonError};

use refault_abi::command::{CMD_SLOT_SIZE, CommandRequest, CommandResponse, STATUS_OK};
use refault_bus::Gpa;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::nic::Buffer;
use crate::registers::RegisterWindow;
use crate::{ModelError, Pause};

/// Bytes of a slot before the response.
const RESPONSE: u64 = 128;

/// The driver's side of one lane.
pub struct CommandLane {
    registers: RegisterWindow,
    doorbell: u64,
    ring: Buffer,
    slots: u32,
    pause: Pause,
    state: Mutex<LaneState>,
}

/// What was sent so far.
struct LaneState {
    producer: u32,
    /// Token of the command last put into each slot, zero if there was none.
    tokens: Vec<u32>,
}

/// A command that was sent.
#[derive(Clone, Copy, Debug)]
pub struct Ticket {
    opcode: u16,
    slot: u32,
    token: u32,
}

impl CommandLane {
    /// A lane over `ring`, which holds `1 << log` slots; its registers are set by the driver.
    pub(crate) fn new(
        registers: RegisterWindow,
        doorbell: u64,
        ring: Buffer,
        log: u32,
        pause: Pause,
    ) -> Self {
        let slots = 1 << log;
        let state = Mutex::new(LaneState { producer: 0, tokens: vec![0; 1 << log] });
        Self { registers, doorbell, ring, slots, pause, state }
    }

    /// Bytes of a ring of `1 << log` slots.
    pub(crate) fn ring_bytes(log: u32) -> u64 {
        u64::from(CMD_SLOT_SIZE) << log
    }

    /// Address of the ring for the device.
    pub(crate) fn base(&self) -> u64 {
        self.ring.iova().0
    }

    /// Sends a command without waiting. [`ModelError::Full`] if its slot still waits for an answer.
    pub fn send(&self, opcode: u16, body: &(impl IntoBytes + Immutable)) -> Result<Ticket, ModelError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = state.producer % self.slots;
        let before = state.tokens.get(slot as usize).copied().unwrap_or(0);
        if before != 0 && self.answered(slot)? != before {
            return Err(ModelError::Full("the command ring"));
        }
        // Unique within a lane's turn over its tokens, and never zero.
        let token = state.producer % 0xffff_fffe + 1;
        let mut request = CommandRequest { opcode, reserved: 0, token, body: [0; 15] };
        let bytes = body.as_bytes();
        request.body.as_mut_bytes()[..bytes.len()].copy_from_slice(bytes);
        self.ring.memory().dma().write(self.slot(slot), request.as_bytes())?;
        if let Some(known) = state.tokens.get_mut(slot as usize) {
            *known = token;
        }
        state.producer = state.producer.wrapping_add(1);
        self.registers.write32(self.doorbell, state.producer);
        Ok(Ticket { opcode, slot, token })
    }

    /// The answer to a command, if it is there.
    pub fn answer<T: FromBytes>(&self, ticket: &Ticket) -> Result<Option<T>, ModelError> {
        if self.answered(ticket.slot)? != ticket.token {
            return Ok(None);
        }
        let bytes = self.ring.memory().bytes(self.response(ticket.slot), size_of::<CommandResponse>())?;
        let response = CommandResponse::read_from_bytes(&bytes).unwrap_or_default();
        if response.status != STATUS_OK {
            return Err(ModelError::Command { opcode: ticket.opcode, status: response.status });
        }
        let answer = T::read_from_prefix(response.body.as_bytes());
        Ok(answer.ok().map(|(answer, _)| answer))
    }

    /// Sends a command and waits for its answer.
    pub fn execute<T: FromBytes>(
        &self,
        opcode: u16,
        body: &(impl IntoBytes + Immutable),
    ) -> Result<T, ModelError> {
        let ticket = self.pause.until("a free command slot", || match self.send(opcode, body) {
            Err(ModelError::Full(_)) => Ok(None),
            sent => sent.map(Some),
        })?;
        self.pause.until("the answer to a command", || self.answer(&ticket))
    }

    /// The doorbell, as a guest that lies about its producer index rings it.
    pub fn ring_raw(&self, producer: u32) {
        self.registers.write32(self.doorbell, producer);
    }

    /// Token of the last answer in a slot.
    fn answered(&self, slot: u32) -> Result<u32, ModelError> {
        Ok(self.ring.memory().dma().load_u32(self.response(slot))?)
    }

    fn slot(&self, slot: u32) -> Gpa {
        Gpa(self.ring.gpa().0 + u64::from(slot) * u64::from(CMD_SLOT_SIZE))
    }

    fn response(&self, slot: u32) -> Gpa {
        Gpa(self.slot(slot).0 + RESPONSE)
    }
}
