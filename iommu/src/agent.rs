//! The unit as devices see it: translations and page requests.

use refault_bus::AddressSpace;
use refault_bus::ats::{RequestKind, Translation, TranslationAgent, TranslationError, TranslationRequest};
use refault_bus::pri::{PageGroupResponse, PageRequest, ResponseCode};
use refault_bus::probe::{ProbeEvent, Stage};
use refault_bus::sync::lock;

use crate::fault::{AtsAnswer, FaultReason, Recorded, RemappingFault};
use crate::page_request::Enqueued;
use crate::remapping::RemappingError;
use crate::unit::Iommu;
use crate::walk::WalkFault;

impl TranslationAgent for Iommu {
    fn translate(&self, request: &TranslationRequest) -> Result<Translation, TranslationError> {
        self.counters.translations.increment();
        let translated = self.remapping.enter().translate(&*self.memory, request);
        match translated {
            Ok(translation) => Ok(translation),
            Err(RemappingError::Disabled) => Err(unsupported(request)),
            Err(RemappingError::Fault(fault)) => self.refuse(request, fault),
        }
    }

    fn page_request(&self, request: PageRequest) {
        self.counters.page_requests.increment();
        let enqueued = match self.enqueue(&request) {
            Ok(enqueued) => enqueued,
            Err(error) => return self.refuse_page(&request, error),
        };
        match enqueued {
            Enqueued::Queued { .. } => self.counters.page_requests_queued.increment(),
            Enqueued::Overflow { .. } => {
                self.counters.page_requests_overflowed.increment();
                if let Some(count) = self.warnings.overflow.admit() {
                    tracing::warn!(count, "page request queue overflow: {} must retry", request.requester);
                }
                // The request is lost, yet the response is Success (table 31): the device translates again, still finds
                // no page, and sends another request. Any other code would fail the access.
                self.respond_at_once(&request, ResponseCode::Success);
            }
            Enqueued::Unusable => {
                self.counters.page_requests_refused.increment();
                if let Some(count) = self.warnings.no_queue.admit() {
                    tracing::warn!(
                        count,
                        "page request of {} refused: no queue in guest memory",
                        request.requester
                    );
                }
                self.respond_at_once(&request, ResponseCode::InvalidRequest);
            }
        }
    }
}

impl Iommu {
    /// The completion of a translation that the tables do not allow (§7.1.3).
    fn refuse(
        &self,
        request: &TranslationRequest,
        fault: WalkFault,
    ) -> Result<Translation, TranslationError> {
        let record = RemappingFault::of_translation(request, fault.reason);
        if request.kind == RequestKind::Untranslated {
            self.record(fault, &record);
            let TranslationRequest { requester, pasid, iova, .. } = *request;
            return Err(TranslationError::Blocked { requester, pasid, iova });
        }
        let answer = fault.reason.ats_answer();
        if answer != AtsAnswer::NoRights {
            self.record(fault, &record);
        }
        match answer {
            AtsAnswer::NoRights | AtsAnswer::NoRightsRecorded => Ok(Translation::NONE),
            AtsAnswer::UnsupportedRequest => Err(unsupported(request)),
            AtsAnswer::CompleterAbort => {
                let TranslationRequest { requester, pasid, iova, .. } = *request;
                Err(TranslationError::CompleterAbort { requester, pasid, iova })
            }
        }
    }

    /// Responds Invalid Request to a page request that may not be queued (§7.1.3). Not Response Failure, which would
    /// end page requests for the whole device.
    fn refuse_page(&self, request: &PageRequest, error: RemappingError) {
        self.counters.page_requests_refused.increment();
        if let RemappingError::Fault(fault) = error
            // Table 30 has these two recorded. But page requests in flight are routine when a process is killed and
            // its PASID torn down, and each would put a line into the guest's log.
            && !matches!(fault.reason, FaultReason::DirectoryNotPresent | FaultReason::PasidNotPresent)
        {
            self.record(fault, &RemappingFault::of_page_request(request, fault.reason));
        }
        self.respond_at_once(request, ResponseCode::InvalidRequest);
    }

    /// Records `fault`, unless FPD or an equal record keeps it out.
    fn record(&self, fault: WalkFault, record: &RemappingFault) {
        if !fault.is_recorded() {
            return;
        }
        let recorded = lock(&self.faults).record(record, &*self.msi);
        match recorded {
            Recorded::Kept => {
                self.counters.faults_recorded.increment();
                tracing::debug!("fault recorded: {record}");
            }
            Recorded::Compressed => self.counters.faults_compressed.increment(),
            Recorded::Overflowed => self.counters.faults_overflowed.increment(),
        }
    }

    /// Responds to a group from inside its page request. Only the last request of a group is responded to, and a stop
    /// marker not at all.
    fn respond_at_once(&self, request: &PageRequest, code: ResponseCode) {
        if request.last
            && !request.is_stop_marker()
            && let Some(endpoint) = self.endpoints.find(request.requester)
        {
            let response = PageGroupResponse { pasid: request.pasid, group: request.group, code };
            endpoint.page_group_response(response);
        }
    }

    /// Checks a request against the tables, writes it into its queue, and raises the event if need be.
    ///
    /// The queue is locked before the tables are unlocked: once the entry that admitted the request has been invalidated,
    /// the request is in the queue.
    ///
    /// # Errors
    ///
    /// The tables do not allow the request.
    fn enqueue(&self, request: &PageRequest) -> Result<Enqueued, RemappingError> {
        let mut remapping = self.remapping.enter();
        remapping.admit(&*self.memory, request)?;
        Ok(self.page_requests.receive(&*self.memory, &*self.msi, request, remapping, |stage| {
            if stage == Stage::Interrupt {
                self.counters.page_request_interrupts.increment();
            }
            self.probe_stage(stage, request);
        }))
    }

    /// Reports a stage of the request to the probe.
    fn probe_stage(&self, stage: Stage, request: &PageRequest) {
        let event = ProbeEvent::new(stage, AddressSpace::of(request.pasid), request.page);
        self.probe.record(&ProbeEvent { group: Some(request.group), write: request.write, ..event });
    }
}

fn unsupported(request: &TranslationRequest) -> TranslationError {
    let TranslationRequest { requester, pasid, iova, .. } = *request;
    TranslationError::UnsupportedRequest { requester, pasid, iova }
}
