//! The invalidation queue: 256 descriptors of 32 bytes, submitted in batches that each end in a wait
//! descriptor, as `qi_submit_sync` does it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use refault_bus::Gpa;

use crate::registers::RegisterWindow;
use crate::vtd::Descriptor;
use crate::vtd::descriptor::InFlight;
use crate::vtd::registers as reg;
use crate::{GuestMemory, ModelError, Pause};

/// Descriptors in the ring.
const LENGTH: u32 = 256;
/// log2 of a descriptor's bytes.
const SHIFT: u32 = 5;
/// IQA: descriptors are 256 bits wide, and the ring is two pages.
const WIDE: u64 = 1 << 11 | 1;

/// The driver's side of the queue.
pub struct InvalidationQueue {
    registers: RegisterWindow,
    memory: Arc<GuestMemory>,
    pause: Pause,
    ring: Gpa,
    /// One 32-bit word per descriptor: what the wait descriptors write to.
    status: Gpa,
    slots: Mutex<Slots>,
}

/// Which slots of the ring are in use: from `tail` up to `head`.
struct Slots {
    head: u32,
    tail: u32,
    free: u32,
}

/// How a submission ended.
#[derive(PartialEq, Eq)]
enum Submission {
    Done,
    /// Lost to a time-out: to be submitted again.
    Aborted,
}

impl InvalidationQueue {
    /// Allocates the ring and tells the unit where it is; switching it on is the unit's.
    pub fn new(
        registers: RegisterWindow,
        memory: Arc<GuestMemory>,
        pause: Pause,
    ) -> Result<Self, ModelError> {
        let ring = memory.allocate(u64::from(LENGTH) << SHIFT, 13)?;
        let status = memory.frame()?;
        registers.write32(reg::IQT, 0);
        registers.write64(reg::IQA, ring.0 | WIDE);
        let slots = Mutex::new(Slots { head: 0, tail: 0, free: LENGTH });
        Ok(Self { registers, memory, pause, ring, status, slots })
    }

    /// Submits `batch` and waits until all of it is done. With `drain`, page requests that the unit received
    /// before are then in their queue.
    pub fn submit(&self, batch: &[Descriptor], drain: bool) -> Result<(), ModelError> {
        while self.submit_once(batch, drain)? == Submission::Aborted {}
        Ok(())
    }

    /// Writes descriptors and moves the tail, without a wait descriptor and without waiting: what no sane
    /// driver does. Gives the index of the first one.
    pub fn submit_raw(&self, batch: &[Descriptor]) -> Result<u32, ModelError> {
        let mut slots = self.lock();
        let first = slots.head;
        for (&descriptor, index) in batch.iter().zip(first..) {
            self.write(index, descriptor)?;
        }
        slots.head = (first + batch.len() as u32) % LENGTH;
        slots.tail = slots.head;
        self.registers.write32(reg::IQT, slots.head << SHIFT);
        Ok(first)
    }

    fn submit_once(&self, batch: &[Descriptor], drain: bool) -> Result<Submission, ModelError> {
        let count = batch.len() as u32;
        let first = self.pause.until("room in the invalidation queue", || {
            let mut slots = self.lock();
            // The wait descriptor takes one more, and a full ring would look empty.
            if slots.free < count + 2 { Ok(None) } else { self.put(&mut slots, batch, drain).map(Some) }
        })?;
        let wait = (first + count) % LENGTH;
        let outcome = self.pause.until("an invalidation wait descriptor", || {
            if self.state(wait)? == InFlight::DONE {
                return Ok(Some(Ok(Submission::Done)));
            }
            let slots = self.lock();
            self.check_faults(&slots, first, wait)
        })?;
        let mut slots = self.lock();
        for index in first..=first + count {
            self.set_state(index, InFlight::FREE)?;
        }
        self.reclaim(&mut slots)?;
        outcome
    }

    /// Puts the batch and its wait descriptor into the ring and moves the tail.
    fn put(&self, slots: &mut Slots, batch: &[Descriptor], drain: bool) -> Result<u32, ModelError> {
        let first = slots.head;
        let wait = first + batch.len() as u32;
        for (&descriptor, index) in batch.iter().zip(first..) {
            self.write(index, descriptor)?;
            self.set_state(index, InFlight::BUSY)?;
        }
        self.set_state(wait, InFlight::BUSY)?;
        self.write(wait, Descriptor::wait(self.state_at(wait), drain))?;
        slots.head = (wait + 1) % LENGTH;
        slots.free -= batch.len() as u32 + 1;
        self.registers.write32(reg::IQT, slots.head << SHIFT);
        Ok(first)
    }

    /// `qi_check_fault`: `Some` ends the wait.
    fn check_faults(
        &self,
        _held: &Slots,
        first: u32,
        wait: u32,
    ) -> Result<Option<Result<Submission, ModelError>>, ModelError> {
        if self.state(wait)? == InFlight::ABORTED {
            return Ok(Some(Ok(Submission::Aborted)));
        }
        let fault = self.registers.read32(reg::FSTS);
        if fault & reg::FSTS_QUEUE_ERROR != 0 && self.registers.read32(reg::IQH) >> SHIFT == first {
            let [qw0, qw1, ..] = self.read(first)?.0;
            let replacement = self.read(wait)?;
            self.write(first, replacement)?;
            self.registers.write32(reg::FSTS, reg::FSTS_QUEUE_ERROR);
            return Ok(Some(Err(ModelError::BadDescriptor { index: first, qw0, qw1 })));
        }
        if fault & reg::FSTS_TIME_OUT != 0 {
            self.abort_waits()?;
        }
        if fault & reg::FSTS_COMPLETION_ERROR != 0 {
            self.registers.write32(reg::FSTS, reg::FSTS_COMPLETION_ERROR);
        }
        Ok(None)
    }

    /// After a time-out, marks every wait that is still in the ring as aborted.
    fn abort_waits(&self) -> Result<(), ModelError> {
        let before = |index: u32| (index + LENGTH - 1) % LENGTH;
        let mut index = before(self.registers.read32(reg::IQH) >> SHIFT);
        let last = before(self.registers.read32(reg::IQT) >> SHIFT);
        self.registers.write32(reg::FSTS, reg::FSTS_TIME_OUT);
        loop {
            if self.state(index)? == InFlight::BUSY {
                self.set_state(index, InFlight::ABORTED)?;
            }
            index = before(index);
            if index == last {
                return Ok(());
            }
        }
    }

    /// Gives back the slots at the tail that nobody uses any more.
    fn reclaim(&self, slots: &mut Slots) -> Result<(), ModelError> {
        while slots.tail != slots.head && self.state(slots.tail)? == InFlight::FREE {
            slots.tail = (slots.tail + 1) % LENGTH;
            slots.free += 1;
        }
        Ok(())
    }

    fn write(&self, index: u32, descriptor: Descriptor) -> Result<(), ModelError> {
        Ok(self.memory.dma().write(self.slot_at(index), &descriptor.to_bytes())?)
    }

    fn read(&self, index: u32) -> Result<Descriptor, ModelError> {
        let at = self.slot_at(index);
        let mut quadwords = [0; 4];
        for (quadword, offset) in quadwords.iter_mut().zip((0..).step_by(8)) {
            *quadword = self.memory.dma().load_u64(Gpa(at.0 + offset))?;
        }
        Ok(Descriptor(quadwords))
    }

    fn slot_at(&self, index: u32) -> Gpa {
        Gpa(self.ring.0 + (u64::from(index % LENGTH) << SHIFT))
    }

    fn state_at(&self, index: u32) -> Gpa {
        Gpa(self.status.0 + u64::from(index % LENGTH) * 4)
    }

    fn state(&self, index: u32) -> Result<u32, ModelError> {
        Ok(self.memory.dma().load_u32(self.state_at(index))?)
    }

    fn set_state(&self, index: u32, state: u32) -> Result<(), ModelError> {
        Ok(self.memory.dma().store_u32(self.state_at(index), state)?)
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
