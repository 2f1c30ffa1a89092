//! Nothing is pinned: the device faults.

use std::sync::{Arc, Weak};

use refault_abi::command::CMD_DESTROY_MR;
use refault_bus::Iova;

use crate::dax::{FsError, Rule};
use crate::memory::FRAME;
use crate::nic::{Driver, OnDemandRegion, PageFaultHandler, PageFaults, Region};
use crate::pager::Notifier;
use crate::paging::Rights;
use crate::policy::{Policy, Registration, Request};
use crate::{ModelError, Process};

/// The device uses the process' own page table through its PASID. Unmapping flushes IOTLB and device TLB; the next
/// access is a page request, and the kernel asks the filesystem again.
#[derive(Clone, Copy, Debug, Default)]
pub struct ThroughPasid;

/// The device has a table of its own. The driver empties it from its MMU notifier, and fills it when the device tells of
/// a fault.
#[derive(Clone, Copy, Debug, Default)]
pub struct OnDemand;

impl Rule for ThroughPasid {}

impl Policy for ThroughPasid {
    fn name(&self) -> &'static str {
        "pasid"
    }

    fn register(&self, request: &Request) -> Result<Arc<dyn Registration>, FsError> {
        let Request { driver, pd, start, .. } = request;
        let region = driver.register_range(*pd, *start, request.bytes(), request.access())?;
        Ok(Arc::new(PasidRegion { driver: driver.clone(), region, base: *start }))
    }
}

struct PasidRegion {
    driver: Arc<Driver>,
    region: Region,
    base: Iova,
}

impl Registration for PasidRegion {
    fn key(&self) -> u32 {
        self.region.key
    }

    fn base(&self) -> Iova {
        self.base
    }

    fn release(&self) -> Result<(), FsError> {
        Ok(self.driver.destroy(CMD_DESTROY_MR, self.region.key)?)
    }
}

impl Rule for OnDemand {}

impl Policy for OnDemand {
    fn name(&self) -> &'static str {
        "odp"
    }

    fn register(&self, request: &Request) -> Result<Arc<dyn Registration>, FsError> {
        let Request { driver, faults, pd, start, process, .. } = request;
        let range = (*start, request.bytes());
        let region = OnDemandRegion::create(driver, *pd, range, request.access(), faults)?;
        let umem = Arc::new(Umem { region, process: Arc::downgrade(process) });
        process.notify(umem.clone());
        faults.handle(umem.region.region(), umem.clone());
        Ok(Arc::new(OnDemandRegistration { umem, faults: faults.clone() }))
    }
}

/// The driver's object for a region of a process: `ib_umem_odp`.
struct Umem {
    region: Arc<OnDemandRegion>,
    process: Weak<Process>,
}

impl Umem {
    /// `hmm_range_fault` of one page: faults it in as a thread of the process would, then fills the table with what is
    /// in the process' page table at that moment.
    fn bring(&self, at: Iova, write: bool) -> Result<(), ModelError> {
        let process = self.process.upgrade().ok_or(ModelError::NotMapped { iova: at })?;
        process.fault_at(at, write)?;
        self.region.fill(at, || {
            let rights = |writable| if writable { Rights::Write } else { Rights::Read };
            Ok(process.space.lookup(at)?.map(|leaf| (leaf.gpa, rights(leaf.writable()))))
        })
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
        // The length is advice: what counts is the first page.
        let mut more = (first.0 + FRAME..end).step_by(FRAME as usize);
        while more.next().is_some_and(|at| self.bring(Iova(at), write).is_ok()) {}
        true
    }
}

struct OnDemandRegistration {
    umem: Arc<Umem>,
    faults: Arc<PageFaults>,
}

impl Registration for OnDemandRegistration {
    fn key(&self) -> u32 {
        self.umem.region.region().key
    }

    fn base(&self) -> Iova {
        self.umem.region.start()
    }

    fn release(&self) -> Result<(), FsError> {
        self.faults.stop_handling(self.umem.region.region());
        self.umem.region.destroy()?;
        if let Some(process) = self.umem.process.upgrade() {
            let notifier: Arc<dyn Notifier> = self.umem.clone();
            process.stop_notifying(&notifier);
        }
        Ok(())
    }
}
