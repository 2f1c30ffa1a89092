//! The lab: the NIC, the IOMMU and a model guest on a virtual clock.
//!
//! A [`Scenario`](scenario::Scenario) says what the load does, how the device and the guest are made, and how long each
//! step takes; an experiment runs it in one thread, and gives an [`Outcome`](outcome::Outcome). The same scenario with
//! the same seed gives the same bytes on every machine. There is no KVM, no thread, no clock and no file in this crate.

pub mod counts;
pub mod engine;
pub mod facts;
pub mod figures;
pub mod machine;
pub mod matrix;
pub mod outcome;
pub mod published;
pub mod scenario;
pub mod shipped;
pub mod sweep;
