//! Decorators between the parts of a machine: to observe, to trap, or to take time.

use std::sync::Arc;

use refault_bus::ats::{AtsEndpoint, TranslationAgent};
use refault_bus::dma::DmaMemory;
use refault_iommu::Iommu;
use refault_nic::Nic;

/// Wraps each part for its users; by default, parts see one another directly.
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

/// No decorators.
pub struct Direct;

impl Seams for Direct {}
