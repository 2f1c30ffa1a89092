//! Queued invalidation (§6.5.2): the guest's commands, page group responses among them.
//!
//! A write of the tail register executes all descriptors up to the new tail before it returns, one after the other,
//! device-TLB invalidations included. So when a wait descriptor is reached, everything before it is complete, and the
//! fence flag needs no code.

use refault_bus::ats::InvalidationRequest;
use refault_bus::pri::PageGroupResponse;
use refault_bus::probe::{ProbeEvent, Stage};
use refault_bus::sync::lock;
use refault_bus::{AddressSpace, Bdf, Gpa, Iova};

use crate::cache::{Tag, is_named};
use crate::invalidation_queue::Ring;
use crate::spec::invalidation::{
    DESCRIPTOR_BYTES, InvalidationDescriptor, InvalidationWait, QueueError, decode,
};
use crate::unit::Iommu;

impl Iommu {
    /// Enables or disables the queue, after a change of GCMD.QIE. The head returns to zero. A queue that had stopped
    /// runs again although FSTS.IQE stays set: a kernel started by kexec enables the queue without reading FSTS.
    pub(crate) fn enable_queue(&self, ring: &mut Ring, enable: bool) {
        self.queue.enable(ring, enable);
        self.run_queue(ring);
    }

    /// Writes IQT, and executes up to it.
    pub(crate) fn set_queue_tail(&self, value: u32) {
        self.queue.set_tail(value);
        self.run_queue(&mut lock(&self.queue.ring));
    }

    /// Continues from the head, after software has repaired the descriptor there and cleared FSTS.IQE.
    pub(crate) fn resume_queue(&self) {
        let mut ring = lock(&self.queue.ring);
        ring.stopped = false;
        self.run_queue(&mut ring);
    }

    /// Executes descriptors from the head to the present tail. Their number is bounded by the ring, so a guest that
    /// keeps writing the tail on another vCPU cannot keep this one here.
    fn run_queue(&self, ring: &mut Ring) {
        if !self.queue.is_enabled() || ring.stopped {
            return;
        }
        if let Err(error) = self.run_ring(ring) {
            ring.stopped = true;
            self.report(error);
        }
    }

    /// Executes the queue, which is enabled and locked.
    ///
    /// # Errors
    ///
    /// The error that stops the queue. The head stays at the descriptor that caused it, for software to repair.
    fn run_ring(&self, ring: &Ring) -> Result<(), QueueError> {
        let tail = self.queue.tail();
        let mut head = self.queue.head();
        if head == tail {
            return Ok(());
        }
        if !ring.address.wide() {
            return Err(QueueError::Width);
        }
        if !tail.is_multiple_of(DESCRIPTOR_BYTES) {
            return Err(QueueError::Alignment { tail });
        }
        if tail >= ring.bytes() {
            return Err(QueueError::Tail { tail });
        }
        while head != tail {
            let descriptor = decode(self.fetch(ring, head)?)?;
            self.execute(descriptor);
            // Only now: the head never passes a descriptor whose invalidation has not completed.
            head = (head + DESCRIPTOR_BYTES) % ring.bytes();
            self.queue.set_head(head);
        }
        Ok(())
    }

    /// Reads the descriptor at byte `head` of the ring.
    fn fetch(&self, ring: &Ring, head: u32) -> Result<[u64; 4], QueueError> {
        let base = Gpa(ring.address.frame() << 12);
        let at = base.checked_add(u64::from(head)).ok_or(QueueError::Fetch { at: base })?;
        let mut bytes = [0; DESCRIPTOR_BYTES as usize];
        self.memory.read(at, &mut bytes).map_err(|_| QueueError::Fetch { at })?;
        let mut quads = [0; 4];
        for (quad, bytes) in quads.iter_mut().zip(bytes.as_chunks().0) {
            *quad = u64::from_le_bytes(*bytes);
        }
        Ok(quads)
    }

    /// Reports an error that stopped the queue: FSTS.IQE, IQERCD and the fault event.
    fn report(&self, error: QueueError) {
        self.counters.queue_errors.increment();
        if let Some(count) = self.warnings.queue.admit() {
            tracing::warn!(
                count,
                "guest invalidation queue stopped: {error}; it waits for FSTS.IQE to be cleared"
            );
        }
        lock(&self.faults).queue_stopped(error, &*self.msi);
    }

    fn execute(&self, descriptor: InvalidationDescriptor) {
        match descriptor {
            InvalidationDescriptor::ContextCache { device } => {
                self.counters.context_invalidations.increment();
                self.flush_contexts(device);
            }
            InvalidationDescriptor::PasidCache(scope) => {
                self.counters.pasid_cache_invalidations.increment();
                self.remapping.interrupt(|tables| tables.flush_pasid_entries(scope));
            }
            InvalidationDescriptor::Iotlb { did } => {
                self.counters.iotlb_invalidations.increment();
                self.flush_domain(did);
            }
            InvalidationDescriptor::PasidIotlb { did, pasid, block } => {
                self.counters.pasid_iotlb_invalidations.increment();
                let tag = Tag { did, pasid };
                let users = self.remapping.interrupt(|tables| tables.flush_tag(tag, block));
                self.drain(&users);
            }
            InvalidationDescriptor::DeviceTlb { device, request } => {
                self.counters.device_tlb_invalidations.increment();
                self.invalidate(device, request);
            }
            InvalidationDescriptor::Wait(wait) => self.complete(wait),
            InvalidationDescriptor::PageGroupResponse { device, response } => self.respond(device, response),
        }
    }

    /// Context-cache invalidation of all devices, or of those that equal one in the bits of a mask. Entries that a
    /// device's cached translations came through may be gone, so the device is emptied.
    pub(crate) fn flush_contexts(&self, device: Option<(Bdf, u16)>) {
        self.remapping.interrupt(|tables| tables.flush_contexts(device));
        self.empty_devices(|requester| is_named(device, requester));
    }

    /// IOTLB invalidation of one domain or of all.
    pub(crate) fn flush_domain(&self, did: Option<u16>) {
        let users = self.remapping.interrupt(|tables| tables.flush_domain(did));
        self.drain(&users);
    }

    /// Has the device invalidate, and waits for it. A device that is not attached has nothing cached: complete at once.
    fn invalidate(&self, device: Bdf, request: InvalidationRequest) {
        if let Some(endpoint) = self.endpoints.find(device) {
            endpoint.invalidate(request);
        }
    }

    /// Completes a wait descriptor (§6.5.2.9).
    fn complete(&self, wait: InvalidationWait) {
        self.counters.waits.increment();
        if wait.drain {
            // PD: page requests received so far must be in their queue before the status is written (§6.5.2.9). A request
            // keeps one of these locks, taken in this order, from its check to its entry.
            self.remapping.interrupt(|_| ());
            drop(self.page_requests.lock());
        }
        // The status after all effects: store_u32 releases, so a vCPU that sees the status sees them.
        if let Some((at, data)) = wait.status
            && let Err(error) = self.memory.store_u32(at, data)
            && let Some(count) = self.warnings.queue.admit()
        {
            tracing::warn!(count, "invalidation wait status lost: {error}");
        }
        if wait.interrupt {
            lock(&self.completion).complete(&*self.msi);
        }
    }

    /// Forwards a page group response to the device.
    fn respond(&self, device: Bdf, response: PageGroupResponse) {
        self.counters.page_group_responses.increment();
        let event = ProbeEvent::new(Stage::Response, AddressSpace::of(response.pasid), Iova(0));
        self.probe.record(&ProbeEvent { group: Some(response.group), ..event });
        match self.endpoints.find(device) {
            Some(endpoint) => endpoint.page_group_response(response),
            None => self.counters.page_group_responses_lost.increment(),
        }
    }
}
