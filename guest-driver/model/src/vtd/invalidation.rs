//! The invalidation queue: 256 descriptors of 32 bytes, submitted in batches that each end in a wait descriptor, as in
//! `qi_submit_sync`.

use std::sync::{Arc, Mutex, MutexGuard};

use refault_bus::Gpa;
use refault_bus::sync::lock;

use crate::registers::RegisterWindow;
use crate::vtd::Descriptor;
use crate::vtd::descriptor::InFlight;
use crate::vtd::registers as reg;
use crate::{GuestMemory, ModelError, Pause};

/// Number of descriptors in the ring.
const LENGTH: u32 = 256;
/// log2 of the bytes of a descriptor.
const SHIFT: u32 = 5;
/// IQA: 256-bit descriptors (DW), a ring of two pages (QS).
const WIDE: u64 = 1 << 11 | 1;

/// The driver's side of the queue.
pub struct InvalidationQueue {
    registers: RegisterWindow,
    memory: Arc<GuestMemory>,
    pause: Pause,
    ring: Gpa,
    /// One 32-bit status word per slot, to which the wait descriptors write.
    status: Gpa,
    slots: Mutex<Slots>,
}

/// The slots in use are those from `tail` up to `head`, as in Linux: there, head is where the driver submits.
struct Slots {
    head: u32,
    tail: u32,
    free: u32,
}

/// How a submission ended.
#[derive(PartialEq, Eq)]
enum Submission {
    Done,
    /// Lost to a device-TLB timeout, and to be submitted again.
    Aborted,
}

impl InvalidationQueue {
    /// Allocates the ring and programs its address. [`RemappingUnit::bring_up`](crate::vtd::RemappingUnit::bring_up) enables it.
    ///
    /// # Errors
    ///
    /// [`ModelError::OutOfMemory`].
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

    /// Submits `batch` and waits until it has completed. With `drain`, page requests that the IOMMU received before are
    /// in their queue by then.
    ///
    /// # Errors
    ///
    /// [`ModelError::BadDescriptor`] if the IOMMU rejects the first descriptor; [`ModelError::Stuck`] on a timeout.
    pub fn submit(&self, batch: &[Descriptor], drain: bool) -> Result<(), ModelError> {
        while self.submit_once(batch, drain)? == Submission::Aborted {}
        Ok(())
    }

    /// Submits descriptors without a wait descriptor, and does not wait. Returns the index of the first. For tests of a
    /// buggy driver.
    ///
    /// # Errors
    ///
    /// [`ModelError::Memory`].
    pub fn submit_raw(&self, batch: &[Descriptor]) -> Result<u32, ModelError> {
        let mut slots = self.lock();
        let first = slots.head;
        for (&descriptor, index) in batch.iter().zip(first..) {
            self.write(index, descriptor)?;
            slots.head = (index + 1) % LENGTH;
        }
        slots.tail = slots.head;
        self.registers.write32(reg::IQT, slots.head << SHIFT);
        Ok(first)
    }

    fn submit_once(&self, batch: &[Descriptor], drain: bool) -> Result<Submission, ModelError> {
        let count = u32::try_from(batch.len()).unwrap_or(LENGTH);
        let first = self.pause.until("room in the invalidation queue", || {
            let mut slots = self.lock();
            // One more for the wait descriptor, and one that stays free: a full ring would look empty.
            if slots.free < count + 2 {
                Ok(None)
            } else {
                self.put(&mut slots, batch, count, drain).map(Some)
            }
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

    /// Writes the `count` descriptors of a batch and its wait descriptor to the ring, and advances the tail register.
    /// Returns the index of the first.
    fn put(
        &self,
        slots: &mut Slots,
        batch: &[Descriptor],
        count: u32,
        drain: bool,
    ) -> Result<u32, ModelError> {
        let first = slots.head;
        let wait = first + count;
        for (&descriptor, index) in batch.iter().zip(first..) {
            self.write(index, descriptor)?;
            self.set_state(index, InFlight::BUSY)?;
        }
        self.set_state(wait, InFlight::BUSY)?;
        self.write(wait, Descriptor::wait(self.state_at(wait), drain))?;
        slots.head = (wait + 1) % LENGTH;
        slots.free -= count + 1;
        self.registers.write32(reg::IQT, slots.head << SHIFT);
        Ok(first)
    }

    /// `qi_check_fault`. Returns `Some` to end the wait.
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
            // Replace the bad descriptor by a valid one, so that the queue proceeds when the error is cleared.
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

    /// After a timeout the hardware has dropped the wait descriptors in the ring: marks them as aborted, so that their
    /// submitters submit again.
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

    /// Advances the tail past slots that are free again.
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
        lock(&self.slots)
    }
}
