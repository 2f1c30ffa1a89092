//! Intel VT-d in scalable mode: PASID tables, first-stage walks, queued invalidation, page requests.
//!
//! One [`Iommu`] is one remapping unit (DRHD). The machine maps its register page and provides guest memory, a sink for
//! interrupts and a probe. To a device the unit is a [`TranslationAgent`](refault_bus::ats::TranslationAgent); to the
//! unit a device is an [`AtsEndpoint`](refault_bus::ats::AtsEndpoint). The unit has no thread and no clock: everything
//! happens inside a call. `docs/iommu-features.md` lists what is supported.
//!
//! # Example
//!
//! Guest tables that map one page for one process, and a device that translates an address in it:
//!
//! ```
//! use std::sync::Arc;
//!
//! use refault_bus::ats::{RequestKind, TranslationAgent, TranslationRequest};
//! use refault_bus::dma::{DmaMemory, GuestRam};
//! use refault_bus::irq::{MsiMessage, MsiSink};
//! use refault_bus::mmio::MmioDevice;
//! use refault_bus::probe::NoProbe;
//! use refault_bus::{Bdf, Gpa, Iova, Pasid};
//! use refault_iommu::spec::registers::offset;
//! use refault_iommu::{Iommu, IommuConfig};
//! use vm_memory::{GuestAddress, GuestMemoryMmap};
//!
//! struct NoInterrupts;
//! impl MsiSink for NoInterrupts {
//!     fn signal(&self, _message: MsiMessage) {}
//! }
//!
//! let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x10_0000)]).unwrap();
//! let ram = Arc::new(GuestRam::new(Arc::new(memory)));
//! let iommu = Iommu::new(IommuConfig::default(), ram.clone(), Arc::new(NoInterrupts), Arc::new(NoProbe));
//!
//! // Device 00:03.0, PASID 1: root, context and PASID tables, then four levels of page tables, a page each.
//! let store = |at, entry| ram.store_u64(Gpa(at), entry).unwrap();
//! store(0x1000, 0x2000 | 1); // root entry of bus 0, lower half: present
//! store(0x2000 + 0x18 * 32, 0x3000 | 0b1_1101); // context entry: present, DTE, PASIDE, PRE
//! store(0x3000, 0x4000 | 1); // PASID directory entry: present
//! store(0x4000 + 64 + 16, 0x5000); // PASID entry 1, third quadword: the top page table
//! store(0x4000 + 64, 1 << 6 | 1); // its first quadword: first stage, present
//! store(0x5000, 0x6000 | 0b111); // page tables: present, writable, user
//! store(0x6000, 0x7000 | 0b111);
//! store(0x7000, 0x8000 | 0b111);
//! store(0x8000 + 4 * 8, 0x9000 | 0b111); // the page at 0x4000
//!
//! // The root table in scalable mode, then SRTP and TE.
//! iommu.write(offset::RTADDR, &(0x1000u64 | 1 << 10).to_le_bytes());
//! iommu.write(offset::GCMD, &(1u32 << 30).to_le_bytes());
//! iommu.write(offset::GCMD, &(1u32 << 31).to_le_bytes());
//!
//! let request = TranslationRequest {
//!     requester: Bdf::new(0, 3, 0),
//!     pasid: Pasid::new(1),
//!     iova: Iova(0x4123),
//!     write: true,
//!     kind: RequestKind::Translation,
//! };
//! let page = iommu.translate(&request).unwrap();
//! assert!(page.read && page.write);
//! assert_eq!(page.gpa_of(request.iova), Gpa(0x9123));
//!
//! // Nothing is mapped at 0x5000: no error, but no rights either. A device would send a page request.
//! let absent = iommu.translate(&TranslationRequest { iova: Iova(0x5000), ..request }).unwrap();
//! assert!(!absent.read && !absent.write);
//! ```
//!
//! # Locks
//!
//! Devices translate on their own threads while vCPUs write registers, and an invalidation waits for accesses in
//! flight. So each lock covers little, and two rules exclude deadlock:
//!
//! | lock | guards | taken by |
//! |---|---|---|
//! | queue | execution of the invalidation queue, and all else that waits for devices | register writes, reset |
//! | control | GCMD, GSTS, RTADDR, CCMD and IOTLB | register accesses, reset |
//! | remapping | root pointer, context and PASID cache, IOTLB, and every walk | translations, page requests, register writes |
//! | page requests | the page request queue and its event | page requests, register accesses |
//! | faults | the fault records, queue errors and their event | all of these |
//! | completion | the invalidation completion event | register accesses |
//!
//! Register writes and resets have the right of way at *remapping*: a flush must not wait for ever because devices walk
//! without a pause ([`Guarded`](refault_bus::guard::Guarded)).
//!
//! 1. While an endpoint is called, only the queue lock is held, and neither `translate` nor `page_request` takes it: an
//!    endpoint waits for its workers, which may be inside either.
//! 2. The last four are leaves: while one of them is held, no other lock is taken and no endpoint is called, with one
//!    exception: a page request locks its queue before it unlocks the tables that admitted it. The interrupt sink and
//!    the probe are called, which neither block nor call back: an event's message must be out before its registers can
//!    be masked and read back.
//!
//! Section numbers are those of the VT-d architecture specification, revision 5.1.

#![warn(
    clippy::cast_lossless,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss
)]

mod agent;
mod cache;
pub mod caps;
mod control;
mod drain;
mod endpoints;
pub mod fault;
mod interrupt;
mod interrupt_range;
mod invalidation;
mod invalidation_queue;
mod page_request;
mod regs;
mod remapping;
pub mod spec;
pub mod statistics;
mod unit;
mod walk;

pub use statistics::Statistics;
pub use unit::{Iommu, IommuConfig, REGISTER_WINDOW};
