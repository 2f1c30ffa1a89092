//! The policy matrix: every policy for DMA into files that move, under every file operation.
//!
//! Each cell is a small experiment on a machine of its own: refault's NIC and IOMMU, a model guest with a DAX filesystem,
//! and a policy that sets the rules of filesystem and driver. A program maps a file, registers it and streams requests; the
//! operation happens in between. The result is measured, not assumed: a reference that is kept apart from the filesystem
//! records what every file must contain, and both are compared byte by byte.
//!
//! Everything runs in one thread on a virtual clock, so a cell has the same result on every machine.

mod cell;
mod contents;
mod experiment;
pub mod html;
mod machine;
mod operation;
mod program;
mod queues;
mod row;
mod simulation;
pub mod table;
mod testbed;
#[cfg(test)]
mod tests;

pub use cell::{Cell, CellVerdict, Ending, RequestCounts, cause_name};
pub use experiment::run;
pub use operation::FileOperation;
pub use row::{ANSWER_NS, BREAK_TIME_NS, IO_NS, PolicyRow};
