//! The decorators through which NIC, IOMMU and memory reach one another when their steps take time. A [`Pace`] says how
//! time passes: on a virtual clock, or by waiting.

use std::sync::Arc;

use refault_bus::Gpa;
use refault_bus::ats::{
    AtsEndpoint, InvalidationRequest, Translation, TranslationAgent, TranslationError, TranslationRequest,
};
use refault_bus::dma::{CopyPiece, DmaMemory, MemoryError};
use refault_bus::layer::MemoryLayer;
use refault_bus::pri::{PageGroupResponse, PageRequest};

/// How the steps between the parts take their time. A message is delivered later, and its sender does not wait. Every other
/// step has taken its time when the call returns.
pub trait Pace: Send + Sync + 'static {
    /// The current time, for the start of a step, in nanoseconds of the pace's own clock; zero if it needs none.
    fn start_ns(&self) -> u64 {
        0
    }

    /// The IOMMU is about to translate.
    fn translation(&self, request: &TranslationRequest);

    /// Sends a page request to the IOMMU.
    fn page_request(&self, iommu: &Arc<dyn TranslationAgent>, request: PageRequest);

    /// Sends a page group response to the NIC.
    fn response(&self, nic: &Arc<dyn AtsEndpoint>, response: PageGroupResponse);

    /// Delivers the page requests in flight.
    fn push_page_requests(&self) {}

    /// Delivers the page group responses in flight.
    fn push_responses(&self) {}

    /// The NIC has processed an invalidation that began at `start_ns`.
    fn invalidation(&self, start_ns: u64) {
        let _ = start_ns;
    }

    /// The NIC is about to read `bytes` that are not payload, such as a request.
    fn read(&self, bytes: usize) {
        let _ = bytes;
    }

    /// The NIC has copied `pieces` of `bytes` in total; the copy began at `start_ns`.
    fn copies(&self, start_ns: u64, pieces: usize, bytes: u64);
}

/// The IOMMU as the NIC reaches it.
pub struct PacedAgent<P> {
    iommu: Arc<dyn TranslationAgent>,
    pace: Arc<P>,
}

impl<P: Pace> PacedAgent<P> {
    /// `iommu`, at this pace.
    pub fn new(iommu: Arc<dyn TranslationAgent>, pace: Arc<P>) -> Self {
        Self { iommu, pace }
    }
}

impl<P: Pace> TranslationAgent for PacedAgent<P> {
    /// Waits first, then translates, so that the translation is current when it is used.
    fn translate(&self, request: &TranslationRequest) -> Result<Translation, TranslationError> {
        self.pace.translation(request);
        self.iommu.translate(request)
    }

    fn page_request(&self, request: PageRequest) {
        self.pace.page_request(&self.iommu, request);
    }
}

/// The NIC as the IOMMU reaches it.
pub struct PacedEndpoint<P> {
    nic: Arc<dyn AtsEndpoint>,
    pace: Arc<P>,
}

impl<P: Pace> PacedEndpoint<P> {
    /// `nic`, at this pace.
    pub fn new(nic: Arc<dyn AtsEndpoint>, pace: Arc<P>) -> Self {
        Self { nic, pace }
    }
}

impl<P: Pace> AtsEndpoint for PacedEndpoint<P> {
    /// On PCI Express an invalidation does not overtake responses, nor its completion page requests, and the kernel relies
    /// on that when it drains an address space: a request left in flight would be taken for one of the next owner. Single
    /// pages end no address space, and their invalidations, which are many, let delayed messages take their time.
    fn invalidate(&self, request: InvalidationRequest) {
        let start_ns = self.pace.start_ns();
        if request.everything() {
            self.pace.push_responses();
        }
        self.nic.invalidate(request);
        if request.everything() {
            self.pace.push_page_requests();
        }
        self.pace.invalidation(start_ns);
    }

    fn drain(&self) {
        self.nic.drain();
    }

    fn page_group_response(&self, response: PageGroupResponse) {
        self.pace.response(&self.nic, response);
    }
}

/// Memory as the NIC reaches it.
pub struct PacedMemory<P> {
    memory: Arc<dyn DmaMemory>,
    pace: Arc<P>,
}

impl<P: Pace> PacedMemory<P> {
    /// `memory`, at this pace.
    pub fn new(memory: Arc<dyn DmaMemory>, pace: Arc<P>) -> Self {
        Self { memory, pace }
    }
}

impl<P: Pace> MemoryLayer for PacedMemory<P> {
    fn behind(&self) -> &dyn DmaMemory {
        &*self.memory
    }

    fn read(&self, gpa: Gpa, buf: &mut [u8]) -> Result<(), MemoryError> {
        self.pace.read(buf.len());
        self.memory.read(gpa, buf)
    }

    fn copy(&self, src: Gpa, dst: Gpa, len: u64) -> Result<(), MemoryError> {
        let start_ns = self.pace.start_ns();
        self.memory.copy(src, dst, len)?;
        self.pace.copies(start_ns, 1, len);
        Ok(())
    }

    fn copy_all(&self, pieces: &[CopyPiece]) -> usize {
        let start_ns = self.pace.start_ns();
        let copied = self.memory.copy_all(pieces);
        let bytes = pieces.iter().take(copied).map(|piece| piece.len).sum();
        self.pace.copies(start_ns, copied, bytes);
        copied
    }
}
