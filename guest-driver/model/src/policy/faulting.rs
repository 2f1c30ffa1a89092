//! Policies without pins: the device takes page faults.

use std::sync::Arc;

use refault_abi::command::CMD_DESTROY_MR;
use refault_bus::Iova;

use crate::dax::{FsError, Rule};
use crate::nic::{Driver, MemoryRegion, OnDemandRegion, Umem};
use crate::policy::{Policy, Registration, RegistrationRequest};

/// The device shares the process' page tables through its PASID. Unmapping flushes the IOTLB and the device TLB; the
/// next access is a page request, which the filesystem handles like a fault of the process.
#[derive(Clone, Copy, Debug, Default)]
pub struct ThroughPasid;

/// The device has a table of its own. The driver fills it on fault events of the device, and empties it in its MMU
/// notifier.
#[derive(Clone, Copy, Debug, Default)]
pub struct OnDemand;

impl Rule for ThroughPasid {}

impl Policy for ThroughPasid {
    fn name(&self) -> &'static str {
        "pasid"
    }

    fn register(&self, request: &RegistrationRequest) -> Result<Arc<dyn Registration>, FsError> {
        let RegistrationRequest { driver, pd, start, .. } = request;
        let region = driver.register_range(*pd, *start, request.bytes(), request.access())?;
        Ok(Arc::new(PasidRegion { driver: driver.clone(), region, base: *start }))
    }
}

struct PasidRegion {
    driver: Arc<Driver>,
    region: MemoryRegion,
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

    fn register(&self, request: &RegistrationRequest) -> Result<Arc<dyn Registration>, FsError> {
        let RegistrationRequest { driver, faults, pd, start, process, .. } = request;
        let range = (*start, request.bytes());
        let region = OnDemandRegion::create(driver, *pd, range, request.access(), faults)?;
        Ok(Arc::new(OnDemandRegistration(Umem::begin(region, process, faults))))
    }
}

struct OnDemandRegistration(Arc<Umem>);

impl Registration for OnDemandRegistration {
    fn key(&self) -> u32 {
        self.0.region().region().key
    }

    fn base(&self) -> Iova {
        self.0.region().start()
    }

    fn release(&self) -> Result<(), FsError> {
        Ok(self.0.end()?)
    }
}
