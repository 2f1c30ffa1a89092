//! The old argument about DMA into files that move, executed: every policy under every operation.
//!
//! A cell is a small experiment on a machine of its own: the NIC and the IOMMU as they are everywhere in refault, a model
//! guest with a DAX filesystem, and a policy as the filesystem's and the driver's rules. A program maps a file, registers
//! it, and streams requests; the operation happens in the middle. Nobody says what became of the bytes: a reference, kept
//! beside the filesystem, knows what every file must contain, and both are compared byte by byte.
//!
//! Everything is on one thread and one virtual clock, so that a cell comes out the same on every machine.

mod cell;
mod contents;
mod experiment;
pub mod html;
mod machine;
mod operation;
mod program;
mod row;
mod session;
mod stage;
pub mod table;
#[cfg(test)]
mod tests;
mod world;

pub use cell::{Cell, Ending, Requests, Verdict, cause_name};
pub use experiment::run;
pub use operation::Operation;
pub use row::{ANSWER_NS, BREAK_TIME_NS, IO_NS, Row};
