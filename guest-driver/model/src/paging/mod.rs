//! x86-64 four-level page tables, really built in guest memory (Intel SDM vol. 3, 5.5).

mod entry;
mod tables;

pub use entry::{PageSize, PageTableEntry};
pub use tables::{Leaf, PageTables, Rights};
