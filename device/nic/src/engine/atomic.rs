//! Atomics and ATOMIC WRITE: one aligned word of 8 bytes at the responder.

use std::ops::ControlFlow;

use refault_bus::Gpa;
use refault_bus::dma::Exchange;

use super::outcome::{Outcome, Refusal, Step, step};
use super::responder::Delivery;
use crate::cause::Cause;
use crate::memory::access::Stopped;
use crate::memory::copy;
use crate::verbs::{End, Operation};

/// Tries at an atomic on a word that another processor keeps changing, before other queue pairs get their turn.
const ATOMIC_TRIES: u32 = 1000;

impl Delivery<'_, '_> {
    /// Compare and swap, fetch and add (InfiniBand 1.4, 9.4.5): the remote word is changed once, after both ends
    /// were found.
    pub(super) fn atomic(&mut self) -> Step {
        self.check_local(true)?;
        self.check_aligned()?;
        let piece = self.ends.message.request.remote();
        let word = self.ends.remote(&piece, true);
        self.check_remote(&word)?;
        let found = step(word.extents(self.port, 8))?;
        let result = step(self.ends.local(true).extents(self.port, 8))?;
        let Some(word_at) = found.first() else { return ControlFlow::Continue(()) };
        let old = self.change_word(word_at.gpa)?;
        let written = copy::write_extents(self.port, &old.to_le_bytes(), &result);
        step(written.map_err(|error| Stopped { end: End::Local, error }))?;
        self.ends.message.done = 8;
        ControlFlow::Continue(())
    }

    /// ATOMIC WRITE (InfiniBand 1.5, annex A19): a reader sees all of the word or nothing of it.
    pub(super) fn atomic_write(&mut self) -> Step {
        self.check_local(false)?;
        self.check_aligned()?;
        let piece = self.ends.message.request.remote();
        let word = self.ends.remote(&piece, true);
        self.check_remote(&word)?;
        let mut value = [0; 8];
        match self.ends.message.request.inline() {
            Some(bytes) => value.copy_from_slice(bytes),
            None => {
                let local = self.ends.local(false);
                let found = step(local.extents(self.port, 8))?;
                let read = copy::read_extents(self.port, &mut value, &found);
                step(read.map_err(|error| local.stopped(error)))?;
            }
        }
        let found = step(word.extents(self.port, 8))?;
        let Some(at) = found.first() else { return ControlFlow::Continue(()) };
        let stored = self.port.fabric().memory.store_u64(at.gpa, u64::from_le_bytes(value));
        step(stored.map_err(|error| word.stopped(error)))?;
        self.ends.message.done = 8;
        ControlFlow::Continue(())
    }

    /// The word's address must be a multiple of 8.
    fn check_aligned(&self) -> Step {
        if self.ends.message.request.remote_addr & 7 != 0 {
            return ControlFlow::Break(Refusal::Request(Cause::Alignment).into());
        }
        ControlFlow::Continue(())
    }

    /// Changes a word in one step that no processor of the guest can split. Returns the old value.
    fn change_word(&self, at: Gpa) -> Step<u64> {
        let memory = &self.port.fabric().memory;
        let not_memory = |_| Stopped { end: End::Remote, error: Cause::NotMemory.into() };
        let addend = match self.ends.message.request.operation {
            Operation::CompareSwap { expected, new } => {
                let seen = step(memory.compare_exchange_u64(at, expected, new).map_err(not_memory))?;
                return ControlFlow::Continue(match seen {
                    Exchange::Stored => expected,
                    Exchange::Found(other) => other,
                });
            }
            Operation::FetchAdd { addend } => addend,
            _ => 0,
        };
        let mut current = step(memory.load_u64(at).map_err(not_memory))?;
        for _ in 0..ATOMIC_TRIES {
            let sum = current.wrapping_add(addend);
            match step(memory.compare_exchange_u64(at, current, sum).map_err(not_memory))? {
                Exchange::Stored => return ControlFlow::Continue(current),
                Exchange::Found(other) => current = other,
            }
        }
        ControlFlow::Break(Outcome::Contended)
    }
}
