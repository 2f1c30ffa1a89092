//! The fabric of refault: everything the NIC, the IOMMU and the machine say to one another.
//!
//! The NIC and the IOMMU never import each other. As on PCI Express they meet only in messages: address
//! translation and invalidation ([`ats`]), page requests and group responses ([`pri`]). Guest memory
//! ([`dma`]), interrupts ([`irq`]), time ([`clock`]) and observation ([`probe`]) come in through traits,
//! so that the same device code serves a real guest on threads and a model guest on a virtual clock.
//!
//! Nothing here starts a thread, reads a clock, opens a file or needs `unsafe`.

pub mod ats;
pub mod clock;
pub mod dma;
pub mod ids;
pub mod irq;
pub mod layer;
pub mod mmio;
pub mod pri;
pub mod probe;
pub mod sync;
pub mod tlb;
pub mod warn;

pub use ids::{AddressSpace, Bdf, Gpa, Iova, Pasid, PrgIndex};
