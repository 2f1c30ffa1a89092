//! Atomics and ATOMIC WRITE: one aligned word of 8 bytes at the responder.

use std::ops::ControlFlow;

use refault_bus::Gpa;
use refault_bus::dma::{Exchange, MemoryError};

use super::outcome::{Outcome, Refusal, Step, step};
use super::responder::Delivery;
use crate::cause::Cause;
use crate::memory::access::Stopped;
use crate::memory::copy;
use crate::verbs::{End, Operation};

/// Tries at an atomic on a word that another processor keeps changing, before other queue pairs get their turn.
pub(super) const ATOMIC_TRIES: u32 = 1000;

impl Delivery<'_, '_> {
    /// Compare and swap, fetch and add (InfiniBand 1.4, 9.4.5): the remote word is changed once, after both ends
    /// were found.
    pub(super) fn atomic(&mut self) -> Step {
        self.check_local(true)?;
        self.check_aligned()?;
        self.check_resources()?;
        let piece = self.ends.message.request.remote();
        let word = self.ends.remote(&piece, true);
        self.check_remote(&word)?;
        let found = step(word.extents(self.port, 8))?;
        let result = step(self.ends.local(true).extents(self.port, 8))?;
        let Some(word_at) = found.first() else { return ControlFlow::Continue(()) };
        let mut old = step(self.port.fabric().memory.load_u64(word_at.gpa).map_err(not_memory))?;
        for _ in 0..ATOMIC_TRIES {
            // Before the word changes: a result that cannot be written must leave the word as it was.
            let written = copy::write_extents(self.port, &old.to_le_bytes(), &result);
            step(written.map_err(|error| Stopped { end: End::Local, error }))?;
            match self.change_word(word_at.gpa, old)? {
                Exchange::Stored => {
                    self.ends.message.done = 8;
                    return ControlFlow::Continue(());
                }
                Exchange::Found(other) => old = other,
            }
        }
        ControlFlow::Break(Outcome::Contended)
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

    /// Changes a word that was `old`, in one step that no processor of the guest can split, unless it has changed since.
    fn change_word(&self, at: Gpa, old: u64) -> Step<Exchange> {
        let new = match self.ends.message.request.operation {
            Operation::CompareSwap { expected, new } if expected == old => new,
            Operation::FetchAdd { addend } => old.wrapping_add(addend),
            // A comparison that failed changes nothing.
            _ => return ControlFlow::Continue(Exchange::Stored),
        };
        step(self.port.fabric().memory.compare_exchange_u64(at, old, new).map_err(not_memory))
    }
}

/// The remote word is not memory.
fn not_memory(_: MemoryError) -> Stopped {
    Stopped { end: End::Remote, error: Cause::NotMemory.into() }
}
