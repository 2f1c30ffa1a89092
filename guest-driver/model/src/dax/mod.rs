//! A DAX filesystem on a range of guest-physical memory: a mapped file is its blocks themselves, so moving a block
//! moves memory that processes and devices may be using.
//!
//! The model has what concerns blocks: extents, reference counts, copy-on-write, unwritten extents, dirty tracking. It
//! has no directories; a file is a number, and its size a number of blocks. Journal and allocation take no time.
//!
//! **Order.** A change of the block map first asks the [`Rule`] of the policy, which may refuse or wait. Then it
//! removes the pages from all page tables and flushes IOTLB, device TLB and NIC tables. Only then are the blocks freed
//! or reused.
//!
//! **Locks.** One lock, held from the unmapping until the block map has changed, so that no fault can map an old block
//! again. Rules are called without it, since they may wait.

mod blocks;
mod check;
mod cleaning;
mod error;
mod extents;
mod filesystem;
mod mapping;
mod operations;
mod rule;
mod sharing;
mod state;
#[cfg(test)]
pub(crate) mod tests;

pub use blocks::{Block, Pins};
pub use error::{Errno, FsError};
pub use extents::Extent;
pub use filesystem::{DaxFs, FileId, FsCounters};
pub use mapping::{Mapped, MappingId};
pub use rule::{Affected, Change, NoRule, Rule};
