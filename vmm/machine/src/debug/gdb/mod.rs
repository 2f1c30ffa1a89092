//! gdb's way in where refault's own VMM runs the guest: the remote serial protocol on the loopback interface. Each vCPU
//! is a thread.
//!
//! The guest stops when gdb attaches, and goes on when it leaves, in whatever way it does.

mod commands;
mod memory;
mod registers;
mod server;
mod session;

pub use self::server::Server;

use std::sync::Arc;

use anyhow::Result;

use super::registers::Registers;
use super::traps::{Listener, Traps};

/// How the guest goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resume {
    /// What is to stop it.
    pub traps: Arc<Traps>,
    /// The vCPU that does a single step.
    pub step: Option<u8>,
    /// The only vCPU that runs; all do without one.
    pub only: Option<u8>,
}

/// A guest that can be debugged. Registers and translations are had only while it is halted.
pub trait Guest: Send + Sync {
    /// How many vCPUs it has; they count from zero.
    fn cpus(&self) -> u8;

    /// The registers of a vCPU.
    ///
    /// # Errors
    /// They cannot be read.
    fn registers(&self, cpu: u8) -> Result<Registers>;

    /// Sets them, but for the segments.
    ///
    /// # Errors
    /// They cannot be set.
    fn set_registers(&self, cpu: u8, registers: &Registers) -> Result<()>;

    /// Where a guest-virtual address is in guest-physical memory, by a vCPU's page tables.
    fn translate(&self, cpu: u8, address: u64) -> Option<u64>;

    /// Reads guest-physical memory; whether there is some.
    fn read(&self, physical: u64, data: &mut [u8]) -> bool;

    /// Writes it; whether there is some.
    fn write(&self, physical: u64, data: &[u8]) -> bool;

    /// From now on, stops go to `listener`.
    fn listen(&self, listener: Option<Listener>);

    /// Waits until no vCPU runs. Then no stop is on its way to the listener either.
    fn halt(&self);

    /// Lets it go on.
    ///
    /// # Errors
    /// The traps cannot be set.
    fn resume(&self, how: &Resume) -> Result<()>;

    /// Ends the machine.
    fn kill(&self);
}
