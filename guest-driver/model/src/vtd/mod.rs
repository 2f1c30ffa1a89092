//! The IOMMU driver: the tables and register accesses of Linux 7.2 for one VT-d unit in scalable mode
//! (`drivers/iommu/intel`).

mod context;
mod descriptor;
mod fault_log;
mod function;
mod invalidation;
mod page_requests;
pub mod registers;
mod sva;
mod unit;

pub use descriptor::{Descriptor, covering_block};
pub use fault_log::PrimaryFault;
pub use function::{Function, FunctionSetup};
pub use invalidation::InvalidationQueue;
pub use page_requests::{Answer, PageRequestQueue, QueuedRequest};
pub use unit::{RemappingUnit, RemappingUnitSetup};
