//! Policies for DMA into files whose blocks move: what a kernel does when memory is registered, and when a block map is
//! about to change. They are those that were proposed for Linux, and those that need page faults.
//!
//! A policy has two callers: the driver, when a program registers part of a mapped file ([`Policy::register`]), and the
//! filesystem, before it changes a block map ([`Rule`]). Some keep state between these calls: leases, seals, accounts.
//! A policy never touches data: what becomes of a transfer is decided by the NIC and the IOMMU.
//!
//! docs/policies.md has the source and the guarantees of each.

mod faulting;
mod file_key;
mod leases;
mod long_term;
mod map_direct;
mod mpin;
mod never_moves;
mod pinned;
mod pinned_lease;
mod revocable_lease;
mod seal;
mod short_term;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;

use refault_abi::codes::{ACCESS_LOCAL_WRITE, ACCESS_REMOTE_READ, ACCESS_REMOTE_WRITE, AccessRights};
use refault_bus::Iova;

pub use faulting::{OnDemand, ThroughPasid};
pub use file_key::FileKey;
pub use leases::{Holding, LeaseBook};
pub use long_term::{Banned, Prefault, Unprotected};
pub use map_direct::MapDirect;
pub use mpin::{Account, Mpin, WhenPinned};
pub use never_moves::NeverMoves;
pub use pinned::Pinned;
pub use pinned_lease::PinnedLease;
pub use revocable_lease::{OnBreakTimeout, RevocableLease};
pub use seal::{Seal, SealKind};
pub use short_term::ShortTermPin;

use crate::Process;
use crate::dax::{DaxFs, FileId, FsError, Rule};
use crate::memory::FRAME;
use crate::nic::{Driver, PageFaultQueue};

/// Identifies a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProgramId(pub u32);

/// A signal from the kernel to a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// A lease or seal is being broken: the program should deregister its memory, and may register it again afterwards.
    LetGo,
    /// SIGKILL. When [`Program::signal`] returns, the program has no memory, open file or region left.
    Kill,
}

/// A program, from the kernel's point of view. Its methods are called without locks.
pub trait Program: Send + Sync {
    /// Identifies the program.
    fn id(&self) -> ProgramId;

    /// Delivers a signal.
    fn signal(&self, signal: Signal);
}

/// A program's request to register pages of a mapped file with the NIC.
#[derive(Clone)]
pub struct RegistrationRequest {
    /// The program that registers.
    pub program: Arc<dyn Program>,
    /// The program's memory, in which the file is mapped.
    pub process: Arc<Process>,
    /// The driver of the NIC.
    pub driver: Arc<Driver>,
    /// Event queue for page faults of on-demand regions.
    pub faults: Arc<PageFaultQueue>,
    /// Number of the protection domain.
    pub pd: u32,
    /// The filesystem of the file.
    pub fs: Arc<DaxFs>,
    /// The mapped file.
    pub file: FileId,
    /// Pages of the file to register.
    pub pages: Range<u64>,
    /// Address at which the first of these pages is mapped.
    pub start: Iova,
    /// Whether the device needs write access.
    pub write: bool,
}

impl RegistrationRequest {
    /// Length of the range in bytes.
    pub fn bytes(&self) -> u64 {
        (self.pages.end - self.pages.start) * FRAME
    }

    /// Access flags of the region, `ACCESS_*`.
    fn access(&self) -> AccessRights {
        let write = if self.write { ACCESS_LOCAL_WRITE | ACCESS_REMOTE_WRITE } else { AccessRights::NONE };
        ACCESS_REMOTE_READ | write
    }
}

/// A registered memory region.
pub trait Registration: Send + Sync {
    /// lkey and rkey of the region.
    fn key(&self) -> u32;

    /// The address of the first page in requests.
    fn base(&self) -> Iova;

    /// Deregisters. When it returns, no access is in flight and nothing is pinned. Call it once.
    ///
    /// # Errors
    ///
    /// If the NIC cannot destroy the region, or the pages cannot be unmapped.
    fn release(&self) -> Result<(), FsError>;
}

/// A policy for DMA into files whose blocks move. By default it pins, refuses nothing and keeps no state.
pub trait Policy: Rule {
    /// The name that the command line uses.
    fn name(&self) -> &'static str;

    /// The program's step before it registers, if the policy requires one: takes a lease, or seals the file.
    ///
    /// # Errors
    ///
    /// If the policy refuses, or a page cannot be faulted in.
    fn prepare(&self, _request: &RegistrationRequest) -> Result<(), FsError> {
        Ok(())
    }

    /// Registers a region. The default pins its pages.
    ///
    /// # Errors
    ///
    /// If the policy refuses, a page cannot be faulted in, or the NIC refuses the region.
    fn register(&self, request: &RegistrationRequest) -> Result<Arc<dyn Registration>, FsError> {
        Ok(Pinned::create(request)?)
    }

    /// Called before a program unmaps the file.
    ///
    /// # Errors
    ///
    /// If the policy refuses; the mapping stays.
    fn before_munmap(&self, _program: ProgramId) -> Result<(), FsError> {
        Ok(())
    }

    /// Called after a program closed the file.
    ///
    /// # Errors
    ///
    /// If the program's regions cannot be revoked.
    fn closed(&self, _program: ProgramId) -> Result<(), FsError> {
        Ok(())
    }

    /// Called after a program exited. It has no memory, open file or region left.
    fn exited(&self, _program: ProgramId) {}

    /// Lists the leases and seals, for the administrator.
    fn holdings(&self) -> Vec<Holding> {
        Vec::new()
    }

    /// Whether programs make their writes durable themselves (cache-line flushes, RDMA FLUSH). Possible where no write
    /// needs the filesystem.
    fn program_flushes(&self) -> bool {
        false
    }
}
