//! The fabric of refault: what the NIC, the IOMMU and the machine exchange.
//!
//! The NIC and the IOMMU never import each other. As on PCI Express they exchange messages only: address translation
//! and invalidation ([`ats`]), page requests and group responses ([`pri`]). Guest memory ([`dma`]), interrupts
//! ([`irq`]), time ([`clock`]), observation ([`probe`]) and the network ([`wire`]) are traits, so the same device code serves a real guest on
//! threads and a model guest on a virtual clock.
//!
//! Nothing here starts a thread, reads a clock, opens a file or needs `unsafe`.
//!
//! # Example
//!
//! Guest memory, and a device TLB that caches where a page of it is:
//!
//! ```
//! use std::sync::Arc;
//!
//! use refault_bus::ats::Translation;
//! use refault_bus::dma::{DmaMemory, GuestRam};
//! use refault_bus::tlb::Tlb;
//! use refault_bus::{Gpa, Iova, Pasid};
//! use vm_memory::{GuestAddress, GuestMemoryMmap};
//!
//! let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x10_0000)]).unwrap();
//! let ram = GuestRam::new(Arc::new(memory));
//!
//! // One process has the page at 0x8000 mapped at 0x7f00_0000_1000.
//! let pasid = Pasid::truncated(1);
//! let page = Translation { gpa: Gpa(0x8000), page_shift: 12, read: true, write: true };
//! let mut tlb = Tlb::new(64);
//! tlb.insert(pasid, Iova(0x7f00_0000_1000), page);
//!
//! // The device writes to that page, by the process' address.
//! let iova = Iova(0x7f00_0000_1234);
//! let hit = tlb.lookup(pasid, iova).unwrap();
//! assert!(hit.allows(true));
//! ram.write(hit.gpa_of(iova), b"hello").unwrap();
//!
//! // The guest unmaps the page: the invalidation removes it.
//! tlb.flush_range(pasid, iova.align_down(12), 12);
//! assert_eq!(tlb.lookup(pasid, iova), None);
//! ```

#![warn(
    clippy::cast_lossless,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss
)]

pub mod ats;
pub mod bits;
pub mod clock;
pub mod dma;
pub mod guard;
pub mod ids;
pub mod irq;
pub mod layer;
pub mod mmio;
pub mod pri;
pub mod probe;
pub mod sync;
pub mod tlb;
pub mod warn;
pub mod wire;

pub use ids::{AddressSpace, Bdf, Gpa, Iova, Pasid, PrgIndex};
