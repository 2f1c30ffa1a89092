//! What has been proposed for DMA into files whose blocks move: each answer as the rules that a kernel would follow when
//! memory is registered and when the block map is about to change.
//!
//! A [`Policy`] is asked twice. By the driver, when a program registers part of a mapped file ([`Policy::register`]);
//! and, as a [`Rule`], by the filesystem before it changes the block map. Between the two it may keep books: leases,
//! seals, accounts. What devices do meanwhile is up to the NIC and the IOMMU; no policy looks at a byte, and none says
//! what became of one.
//!
//! docs/policies.md tells where each comes from and what it promises.

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

use refault_abi::codes::{ACCESS_LOCAL_WRITE, ACCESS_REMOTE_READ, ACCESS_REMOTE_WRITE};
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

/// A program, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProgramId(pub u32);

/// What a kernel tells a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Somebody wants to change blocks that it holds: it shall let go of them, and may ask again.
    LetGo,
    /// It is killed. When the call returns, it has no memory, no file and no region any more.
    Kill,
}

/// A program as a kernel knows it. It is called without locks.
pub trait Program: Send + Sync {
    /// Its number.
    fn id(&self) -> ProgramId;

    /// Delivers a signal.
    fn signal(&self, signal: Signal);
}

/// A program's wish to have pages of a mapped file used by the device.
#[derive(Clone)]
pub struct RegistrationRequest {
    /// Who.
    pub program: Arc<dyn Program>,
    /// Its memory.
    pub process: Arc<Process>,
    /// The NIC's driver.
    pub driver: Arc<Driver>,
    /// Where page faults of on-demand regions go.
    pub faults: Arc<PageFaultQueue>,
    /// Protection domain.
    pub pd: u32,
    /// The filesystem.
    pub fs: Arc<DaxFs>,
    /// The file.
    pub file: FileId,
    /// Its pages.
    pub pages: Range<u64>,
    /// Where the first of them is mapped.
    pub start: Iova,
    /// The device shall write.
    pub write: bool,
}

impl RegistrationRequest {
    /// Bytes that are asked for.
    pub fn bytes(&self) -> u64 {
        (self.pages.end - self.pages.start) * FRAME
    }

    /// ACCESS_* that a remote peer gets.
    fn access(&self) -> u32 {
        let write = if self.write { ACCESS_LOCAL_WRITE | ACCESS_REMOTE_WRITE } else { 0 };
        ACCESS_REMOTE_READ | write
    }
}

/// A memory region that was granted.
pub trait Registration: Send + Sync {
    /// Its key.
    fn key(&self) -> u32;

    /// Where its first page is, as requests address it.
    fn base(&self) -> Iova;

    /// Ends it: no access is under way any more, and nothing is pinned. To be called once.
    fn release(&self) -> Result<(), FsError>;
}

/// One answer to the question of DMA into files that move.
pub trait Policy: Rule {
    /// Its name, as on the command line.
    fn name(&self) -> &'static str;

    /// What a program does before it registers, because the policy asks for it: takes a lease, seals the file.
    fn prepare(&self, _request: &RegistrationRequest) -> Result<(), FsError> {
        Ok(())
    }

    /// Registers a region: a pinned one, unless the policy does it differently or refuses.
    fn register(&self, request: &RegistrationRequest) -> Result<Arc<dyn Registration>, FsError> {
        Ok(Pinned::create(request)?)
    }

    /// A program is about to unmap the file.
    fn before_munmap(&self, _program: ProgramId) -> Result<(), FsError> {
        Ok(())
    }

    /// A program closed its file.
    fn closed(&self, _program: ProgramId) -> Result<(), FsError> {
        Ok(())
    }

    /// A program ended: it has no memory, no file and no region any more.
    fn exited(&self, _program: ProgramId) {}

    /// Who holds which range of which file, for the administrator.
    fn holdings(&self) -> Vec<Holding> {
        Vec::new()
    }

    /// Durability is the program's own business (cache-line flushes, RDMA FLUSH), since no write needs the filesystem.
    fn program_flushes(&self) -> bool {
        false
    }
}
