//! The front end: the function, its registers and doorbells, and the commands.

pub(crate) mod command;
mod doorbell;
pub(crate) mod function;
pub(crate) mod regs;
