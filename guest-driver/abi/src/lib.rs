//! The interface between the NIC and its drivers: layouts, registers, codes.
//!
//! One description serves both sides: the device reads these layouts as Rust types, and [`c_header`] prints
//! them as the C header that the kernel module and the libibverbs provider are built against. Everything is
//! little endian and naturally aligned; reserved fields are zero when written and ignored when read.
//! `docs/nic.md` explains how the parts work together.
#![no_std]
#![warn(clippy::missing_errors_doc)]

extern crate alloc;

#[macro_use]
mod layout;
#[macro_use]
mod typed;

pub mod codes;
pub mod command;
pub mod doorbell;
pub mod event;
mod header;
pub mod queue;
pub mod regs;
pub mod uverbs;

pub use header::c_header;
pub use layout::{CField, CLayout};
