//! x86-64 four-level page tables, built in guest memory as hardware walks them (Intel SDM vol. 3, 5.5).

mod entry;
mod tables;

pub use entry::{PageSize, PageTableEntry};
pub use tables::{Leaf, PageTables, Rights};
