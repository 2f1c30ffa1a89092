//! What may stand between the parts of a machine: to look, to trap, or to take time.

use std::sync::Arc;

use refault_bus::ats::{AtsEndpoint, TranslationAgent};
use refault_bus::dma::DmaMemory;
use refault_iommu::Iommu;
use refault_nic::Nic;

/// Gives each part the others as it is to see them; by default as they are.
pub trait Seams {
    /// The IOMMU as the NIC sees it.
    fn agent(&self, iommu: Arc<Iommu>) -> Arc<dyn TranslationAgent> {
        iommu
    }

    /// The NIC as the IOMMU sees it.
    fn endpoint(&self, nic: Arc<Nic>) -> Arc<dyn AtsEndpoint> {
        nic
    }

    /// Memory as the NIC sees it.
    fn memory(&self, memory: Arc<dyn DmaMemory>) -> Arc<dyn DmaMemory> {
        memory
    }
}

/// Nothing stands between the parts.
pub struct Direct;

impl Seams for Direct {}
