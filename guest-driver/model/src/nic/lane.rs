//! A command lane: a ring of slots, each with a request and its response.

use std::sync::Mutex;

use refault_abi::command::{CMD_SLOT_SIZE, CommandOpcode, CommandRequest, CommandResponse, STATUS_OK};
use refault_bus::Gpa;
use refault_bus::sync::lock;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::nic::Buffer;
use crate::registers::RegisterWindow;
use crate::{ModelError, Pause};

/// Offset of the response in a slot.
const RESPONSE: u64 = 128;

/// The driver's side of a command lane.
pub struct CommandLane {
    registers: RegisterWindow,
    doorbell: u64,
    ring: Buffer,
    slots: u32,
    pause: Pause,
    state: Mutex<LaneState>,
}

/// The commands sent so far.
struct LaneState {
    producer: u32,
    /// Token of the last command in each slot, zero for none.
    tokens: Vec<u32>,
}

/// Identifies a command that was sent.
#[derive(Clone, Copy, Debug)]
pub struct Ticket {
    opcode: CommandOpcode,
    slot: u32,
    token: u32,
}

impl CommandLane {
    /// A lane with a `ring` of `1 << log` slots. The caller writes the lane's registers.
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

    /// Bytes of a ring with `1 << log` slots.
    pub(crate) fn ring_bytes(log: u32) -> u64 {
        u64::from(CMD_SLOT_SIZE) << log
    }

    /// DMA address of the ring.
    pub(crate) fn base(&self) -> u64 {
        self.ring.iova().0
    }

    /// Sends a command and does not wait for its response.
    ///
    /// # Errors
    ///
    /// [`ModelError::Full`] if the previous command in the slot is outstanding.
    ///
    /// # Panics
    ///
    /// If `body` is longer than a request.
    pub fn send(
        &self,
        opcode: CommandOpcode,
        body: &(impl IntoBytes + Immutable),
    ) -> Result<Ticket, ModelError> {
        let mut state = lock(&self.state);
        let slot = state.producer % self.slots;
        let before = state.tokens.get(slot as usize).copied().unwrap_or(0);
        if before != 0 && self.answered(slot)? != before {
            return Err(ModelError::Full("the command ring"));
        }
        // Counts through all values but zero, so that no two outstanding commands share a token.
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

    /// Returns the response to a command, or `None` if the command is outstanding.
    ///
    /// # Errors
    ///
    /// [`ModelError::Command`] if the command failed.
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

    /// Sends a command and waits for its response.
    ///
    /// # Errors
    ///
    /// [`ModelError::Command`] if the command failed; [`ModelError::Stuck`] on a timeout.
    pub fn execute<T: FromBytes>(
        &self,
        opcode: CommandOpcode,
        body: &(impl IntoBytes + Immutable),
    ) -> Result<T, ModelError> {
        let ticket = self.pause.until("a free command slot", || match self.send(opcode, body) {
            Err(ModelError::Full(_)) => Ok(None),
            sent => sent.map(Some),
        })?;
        self.pause.until("the response to a command", || self.answer(&ticket))
    }

    /// Rings the doorbell with a producer index of the caller's choice. For tests of a hostile guest.
    pub fn ring_raw(&self, producer: u32) {
        self.registers.write32(self.doorbell, producer);
    }

    /// Token of the last response in a slot.
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
