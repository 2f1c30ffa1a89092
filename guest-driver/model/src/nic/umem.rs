//! An on-demand region over memory of a process: the role of `ib_umem_odp`.

use std::sync::{Arc, Weak};

use refault_bus::Iova;

use crate::memory::{FRAME, FRAME_LEN};
use crate::nic::{OnDemandRegion, PageFaultHandler, PageFaultQueue};
use crate::paging::Rights;
use crate::process::Notifier;
use crate::{ModelError, Process};

/// Fills a region's table with pages of a process on faults, and empties it as an MMU notifier.
pub struct Umem {
    region: Arc<OnDemandRegion>,
    process: Weak<Process>,
    /// Weak, because the queue holds the handlers of all regions, this one among them.
    faults: Weak<PageFaultQueue>,
}

impl Umem {
    /// Connects `region` to the memory of `process` at the same addresses: registers the MMU notifier, and the handler
    /// of the region's faults. The notifier comes first, so that no page is brought in without it.
    pub fn begin(
        region: Arc<OnDemandRegion>,
        process: &Arc<Process>,
        faults: &Arc<PageFaultQueue>,
    ) -> Arc<Self> {
        let umem =
            Arc::new(Self { region, process: Arc::downgrade(process), faults: Arc::downgrade(faults) });
        process.notify(umem.clone());
        faults.handle(umem.region.region(), umem.clone());
        umem
    }

    /// The on-demand region.
    pub fn region(&self) -> &Arc<OnDemandRegion> {
        &self.region
    }

    /// `hmm_range_fault` of one page: faults it in as a thread of the process would, then copies what is in the
    /// process' page table, if anything, to the region's table.
    ///
    /// # Errors
    ///
    /// As [`Process::fault_at`] and [`OnDemandRegion::fill`]; [`ModelError::NotMapped`] if the process is gone.
    pub fn bring(&self, at: Iova, write: bool) -> Result<(), ModelError> {
        let process = self.process.upgrade().ok_or(ModelError::NotMapped { iova: at })?;
        process.fault_at(at, write)?;
        self.region.fill(at, || {
            let rights = |writable| if writable { Rights::Write } else { Rights::Read };
            Ok(process.space.lookup(at)?.map(|leaf| (leaf.page_of(at), rights(leaf.writable()))))
        })
    }

    /// Destroys the region, and unregisters handler and notifier.
    ///
    /// # Errors
    ///
    /// As [`OnDemandRegion::destroy`].
    pub fn end(self: &Arc<Self>) -> Result<(), ModelError> {
        if let Some(faults) = self.faults.upgrade() {
            faults.stop_handling(self.region.region());
        }
        self.region.destroy()?;
        if let Some(process) = self.process.upgrade() {
            let notifier: Arc<dyn Notifier> = self.clone();
            process.stop_notifying(&notifier);
        }
        Ok(())
    }
}

impl Notifier for Umem {
    fn invalidate(&self, start: Iova, bytes: u64) -> Result<(), ModelError> {
        self.region.forget(start, bytes)
    }
}

impl PageFaultHandler for Umem {
    fn resolve(&self, address: Iova, length: u32, write: bool) -> bool {
        let first = address.align_down(12);
        let end = (address.0 + u64::from(length)).min(self.region.start().0 + self.region.length());
        if self.bring(first, write).is_err() {
            return false;
        }
        // The length is a hint: only the first page is required.
        let mut more = (first.0 + FRAME..end).step_by(FRAME_LEN);
        while more.next().is_some_and(|at| self.bring(Iova(at), write).is_ok()) {}
        true
    }
}
