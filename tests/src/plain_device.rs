//! A device reduced to what the IOMMU sees of one: it requests pages, and keeps the responses and invalidations it gets.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use refault_bus::ats::{
    AtsEndpoint, InvalidationRequest, RequestKind, Translation, TranslationAgent, TranslationRequest,
};
use refault_bus::pri::{PageGroupResponse, PageRequest};
use refault_bus::{Bdf, Iova, Pasid, PrgIndex};
use refault_iommu::Iommu;

/// A function without a TLB, registers or rings.
pub struct PlainDevice {
    requester: Bdf,
    iommu: Arc<Iommu>,
    responses: Mutex<Vec<PageGroupResponse>>,
    invalidations: Mutex<Vec<InvalidationRequest>>,
}

impl PlainDevice {
    /// A device at `requester`, attached to `iommu`.
    pub fn attach(requester: Bdf, iommu: &Arc<Iommu>) -> Arc<Self> {
        let (responses, invalidations) = (Mutex::default(), Mutex::default());
        let device = Arc::new(Self { requester, iommu: iommu.clone(), responses, invalidations });
        let endpoint: Weak<dyn AtsEndpoint> = Arc::<Self>::downgrade(&device);
        iommu.attach(requester, endpoint);
        device
    }

    /// Requests the translation of `iova` for writing; an error counts as no rights.
    pub fn translate(&self, pasid: Option<Pasid>, iova: Iova) -> Translation {
        let kind = RequestKind::Translation;
        let request = TranslationRequest { requester: self.requester, pasid, iova, write: true, kind };
        self.iommu.translate(&request).unwrap_or(Translation::NONE)
    }

    /// Writes with an untranslated request, as a device without ATS does. Returns whether the write is allowed.
    pub fn writes_untranslated(&self, iova: Iova) -> bool {
        let kind = RequestKind::Untranslated;
        let request = TranslationRequest { requester: self.requester, pasid: None, iova, write: true, kind };
        self.iommu.translate(&request).is_ok()
    }

    /// Requests a page for writing.
    pub fn request_page(&self, pasid: Option<Pasid>, page: Iova, group: u16) {
        let group = PrgIndex::truncated(u64::from(group));
        let requester = self.requester;
        self.iommu.page_request(PageRequest {
            requester,
            pasid,
            page,
            read: true,
            write: true,
            last: true,
            group,
        });
    }

    /// Takes the responses so far.
    pub fn take_responses(&self) -> Vec<PageGroupResponse> {
        std::mem::take(&mut self.responses.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes the invalidations so far.
    pub fn take_invalidations(&self) -> Vec<InvalidationRequest> {
        std::mem::take(&mut self.invalidations.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl AtsEndpoint for PlainDevice {
    fn invalidate(&self, request: InvalidationRequest) {
        self.invalidations.lock().unwrap_or_else(PoisonError::into_inner).push(request);
    }

    fn drain(&self) {}

    fn page_group_response(&self, response: PageGroupResponse) {
        self.responses.lock().unwrap_or_else(PoisonError::into_inner).push(response);
    }
}
