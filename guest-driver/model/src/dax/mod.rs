//! A DAX filesystem on a range of guest-physical memory: the blocks are the memory that a mapped file shows, so whoever
//! moves a block moves memory from under those who use it.
//!
//! It is a filesystem in what it does with blocks - extents, reference counts, copy-on-write, unwritten extents, dirty
//! notification - and not in what it does with names: there are no folders, a file is a number, and its size is whole
//! blocks. Journal and allocation are instantaneous.
//!
//! **Order.** Whatever changes the block map first asks the [`Rule`] of the policy in force, which may refuse, or wait;
//! then takes the pages out of all page tables, flushes IOTLB, device TLB and NIC tables; and only then do the blocks
//! belong to somebody else. Freed blocks are given out again at once, lowest first.
//!
//! **Locks.** The filesystem has one, which is held from the unmapping to the change of the map: a fault cannot bring
//! back what is going. Rules are called without it, for they wait.

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
