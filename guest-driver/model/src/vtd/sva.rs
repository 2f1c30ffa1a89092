//! Unbinding a process from a function: teardown and drain, in the order of `intel_pasid_tear_down_entry` and
//! `intel_iommu_drain_pasid_prq`.

use refault_bus::Pasid;

use crate::ModelError;
use crate::vtd::{Descriptor, Function};

impl Function {
    /// Takes the PASID away and drains its page requests. The driver has stopped the device's use of it
    /// before. `service` is called whenever Linux would wait for the page request thread, and once when it
    /// would wait for the fault handlers: it lets them work, and answers what they kept.
    pub fn unbind(
        &self,
        pasid: Pasid,
        service: &mut dyn FnMut() -> Result<(), ModelError>,
    ) -> Result<(), ModelError> {
        self.clear_entry(pasid, false)?;
        self.drain(pasid, service)
    }

    /// What happens when a process ends without an unbind: the entry is cleared, faults stay quiet, and
    /// nothing is drained. [`Self::unbind`] comes later.
    pub fn release(&self, pasid: Pasid) -> Result<(), ModelError> {
        self.clear_entry(pasid, true)
    }

    fn drain(
        &self,
        pasid: Pasid,
        service: &mut dyn FnMut() -> Result<(), ModelError>,
    ) -> Result<(), ModelError> {
        let pause = &self.unit.setup.pause;
        let queue = &self.unit.page_requests;
        pause.until("page requests of a PASID to be handled", || {
            if !queue.holds(self.requester, Some(pasid))? {
                return Ok(Some(()));
            }
            service()?;
            Ok(None)
        })?;
        service()?;
        // The domain is the one of the function's own space: the unit must not mind.
        let flush = Descriptor::pasid_iotlb(self.own_domain(), pasid);
        let batch = [Descriptor::fence(), flush, self.device_tlb_of(pasid)];
        pause.until("the page request overflow to be cleared", || {
            self.unit.queue.submit(&batch, true)?;
            if !queue.overflowed() {
                return Ok(Some(()));
            }
            service()?;
            Ok(None)
        })
    }
}
