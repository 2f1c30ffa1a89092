//! SVA unbind: teardown of the PASID table entry and drain of page requests, in the order of
//! `intel_pasid_tear_down_entry` and `intel_iommu_drain_pasid_prq`.

use refault_bus::Pasid;

use crate::ModelError;
use crate::vtd::{Descriptor, Function};

impl Function {
    /// Unbinds `pasid` and drains its page requests. The device must have stopped using the PASID. `service` is called
    /// whenever Linux would wait for the page request thread, and once where it would wait for the fault handlers; it
    /// has to let them run and respond.
    ///
    /// # Errors
    ///
    /// [`ModelError::Stuck`] on a timeout; any error of `service` or of a flush.
    pub fn unbind(
        &self,
        pasid: Pasid,
        service: &mut dyn FnMut() -> Result<(), ModelError>,
    ) -> Result<(), ModelError> {
        self.clear_entry(pasid, false)?;
        self.drain(pasid, service)
    }

    /// The exit of a process that is still bound: tears down the entry and suppresses its faults, but drains nothing.
    /// [`Self::unbind`] follows later.
    ///
    /// # Errors
    ///
    /// Any error of a flush.
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
        // As Linux does, with the domain id for requests without a PASID, even if this PASID has another.
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
