//! `refault demo`: a stock guest whose XFS moves DAX blocks under DMA, observed and judged from outside.
//!
//! [`session`] boots a guest that runs `refault-demo` (guest-driver/workload); [`protocol`] parses its events,
//! [`board`] keeps them with the recorder's counts, and [`table`] shows them. The result is a
//! [`RunSummary`](refault_observe::summary::RunSummary) in a [`RunFolder`](refault_observe::folder::RunFolder). `model`
//! runs the same scenarios without a real guest. A guest whose log has a line of trouble ([`crate::run::guest_log`]) has
//! failed.

pub mod board;
mod conclusion;
mod guest;
mod model;
pub mod options;
mod pasids;
pub mod protocol;
pub mod session;
pub mod table;
mod verdict;
mod view;
mod wires;
