//! The gdb server of our own VMM: the remote serial protocol on the loopback interface. Each vCPU is a thread.
//!
//! The guest stops when gdb attaches, and continues when gdb detaches or is lost.

mod commands;
mod memory;
mod registers;
mod server;
mod session;

pub use self::server::Server;

use std::sync::Arc;

use anyhow::Result;

use super::registers::Registers;
use super::traps::{StopListener, Traps};

/// How the guest continues.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resume {
    /// The traps that stop it.
    pub traps: Arc<Traps>,
    /// The vCPU that single-steps.
    pub step: Option<u8>,
    /// The only vCPU that runs; `None` for all.
    pub only: Option<u8>,
}

/// A guest that can be debugged. Registers and translations are available only while it is halted.
pub trait DebuggedGuest: Send + Sync {
    /// Number of vCPUs; they are numbered from zero.
    fn cpus(&self) -> u8;

    /// Reads the registers of a vCPU.
    ///
    /// # Errors
    /// The host cannot read them.
    fn registers(&self, cpu: u8) -> Result<Registers>;

    /// Sets a vCPU's registers, except the segments.
    ///
    /// # Errors
    /// The host cannot set them.
    fn set_registers(&self, cpu: u8, registers: &Registers) -> Result<()>;

    /// The guest-physical address of a guest-virtual one, by a vCPU's page tables; `None` if it is unmapped.
    fn translate(&self, cpu: u8, address: u64) -> Option<u64>;

    /// Reads guest-physical memory; false if there is none at this address.
    fn read(&self, physical: u64, data: &mut [u8]) -> bool;

    /// Writes guest-physical memory; false if there is none at this address.
    fn write(&self, physical: u64, data: &[u8]) -> bool;

    /// Sets the listener for stops; `None` removes it.
    fn listen(&self, listener: Option<StopListener>);

    /// Waits until no vCPU runs. Then no stop is on its way to the listener either.
    fn halt(&self);

    /// Lets the guest continue.
    ///
    /// # Errors
    /// The traps cannot be set.
    fn resume(&self, how: &Resume) -> Result<()>;

    /// Ends the machine as if the host had stopped it.
    fn kill(&self);
}
