//! Intel VT-d in scalable mode: PASID tables, first-stage walks, queued invalidation, page requests.
//!
//! One [`Iommu`] is one remapping unit (DRHD). The machine maps its register page and hands it guest
//! memory, a sink for its interrupts and a probe; devices reach it as a
//! [`TranslationAgent`](refault_bus::ats::TranslationAgent) and it reaches them as
//! [`AtsEndpoint`](refault_bus::ats::AtsEndpoint)s. It has no thread and no clock: everything happens
//! inside a call, and `docs/iommu-features.md` lists what is supported.
//!
//! # Locks
//!
//! Devices translate on their own threads while vCPUs write registers, and an invalidation waits for
//! accesses in flight. So the locks are small, and two rules keep them from meeting:
//!
//! | lock | guards | taken by |
//! |---|---|---|
//! | queue | executing the invalidation queue | register writes only |
//! | control | GCMD, GSTS and RTADDR | register accesses only |
//! | remapping | root pointer, PASID cache, IOTLB, and every walk | translations, page requests, register writes |
//! | page requests | the page request ring and its event | page requests, register accesses |
//! | faults | the fault records, queue errors and their event | all |
//! | completion | the invalidation completion event | register accesses only |
//!
//! 1. Only the queue lock is held while an endpoint is called, and neither `translate` nor `page_request`
//!    takes it.
//! 2. The last four are leaves: no lock is taken while one of them is held, and none of them is held while
//!    an endpoint or the interrupt sink is called.
//!
//! Section numbers are those of the VT-d architecture specification, revision 5.1.

mod agent;
mod cache;
pub mod caps;
mod endpoints;
pub mod fault;
mod interrupt;
mod invalidation;
mod page_request;
mod regs;
mod remapping;
pub mod spec;
pub mod statistics;
mod unit;
mod walk;

pub use statistics::Statistics;
pub use unit::{Iommu, IommuConfig, REGISTER_WINDOW};
