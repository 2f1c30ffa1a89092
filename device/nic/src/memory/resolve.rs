//! The memory behind a key.
//!
//! [`Resolve`] is the only way from a key to memory, and this is the only file that knows which kinds of regions there
//! are. A front end with other kinds (tables in the device, keys that lead to further keys, physical memory)
//! adds them here.

use refault_abi::codes::{ACCESS_LOCAL_WRITE, AccessRights};
use refault_bus::bits::low_u32;
use refault_bus::{Iova, Pasid};

use crate::cause::Cause;
use crate::memory::access::{AccessError, Extent, PageMiss};
use crate::memory::port::Port;
use crate::memory::recent::Space;
use crate::memory::region::{Backing, Region};

/// One access to a region: all that the checks need.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access {
    /// lkey or rkey.
    pub(crate) key: u32,
    /// Protection domain of the request.
    pub(crate) pd: u32,
    pub(crate) addr: u64,
    /// Bytes.
    pub(crate) length: u64,
    /// ACCESS_* that the region must have.
    pub(crate) rights: AccessRights,
    /// Memory is written.
    pub(crate) write: bool,
}

impl Access {
    /// ACCESS_* that a local access needs: local reads are always allowed.
    pub(crate) const fn local_rights(write: bool) -> AccessRights {
        if write { ACCESS_LOCAL_WRITE } else { AccessRights::NONE }
    }
}

/// What a request needs beyond a page that is missing.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    /// Of a process: further pages that are missing, each with the offset of its first byte in the message.
    pub(crate) pages: Vec<(PageMiss, u32)>,
    /// Of a region: bytes from the first missing one on.
    pub(crate) bytes: u32,
}

/// Where pages are looked up ahead.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// Offset in the message of the first byte that is missing.
    pub(crate) at: u32,
    /// Pages after that byte's page, at most.
    pub(crate) pages: u32,
    /// Offset of the furthest page that was asked for already: what is before it was looked up then.
    pub(crate) asked: Option<u32>,
}

/// Where the device TLB has a region's recently used pages, as long as nothing is switched off.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shortcut {
    pub(crate) space: Space,
    /// What is added to an address to get its place in that space.
    shift: u64,
}

impl Shortcut {
    /// The place of an address in the space.
    pub(crate) fn place(&self, addr: u64) -> u64 {
        addr.wrapping_add(self.shift)
    }
}

/// Finds the memory behind a key. What is found must not outlive the guard.
pub(crate) trait Resolve {
    /// Checks key, protection domain, bounds and rights of an access, and translates nothing.
    ///
    /// # Errors
    ///
    /// The access is refused.
    fn check(&mut self, access: &Access) -> Result<(), Cause>;

    /// The memory of an access from `inside` bytes into it, as much of it as lies in one piece.
    ///
    /// # Errors
    ///
    /// The page is missing, or the access is refused.
    fn resolve(&mut self, access: &Access, inside: u32) -> Result<Extent, AccessError>;

    /// Checks like [`Self::check`], and returns where the recently used pages of the region are, if they may be used
    /// now.
    ///
    /// # Errors
    ///
    /// The access is refused.
    fn shortcut(&mut self, access: &Access) -> Result<Option<Shortcut>, Cause>;

    /// What an access needs beyond the page at `inside`, which is missing.
    fn missing_behind(&mut self, access: &Access, inside: u32, window: Window) -> Ahead;

    /// Start and length of the region named by `key`, if it belongs to protection domain `pd`.
    fn range_of(&self, key: u32, pd: u32) -> Option<(u64, u64)>;
}

impl Resolve for Port<'_> {
    fn check(&mut self, access: &Access) -> Result<(), Cause> {
        checked(self, access).map(|_| ())
    }

    fn resolve(&mut self, access: &Access, inside: u32) -> Result<Extent, AccessError> {
        let region = *checked(self, access)?;
        let addr = access.addr.wrapping_add(u64::from(inside));
        let extent = match &region.backing {
            Backing::Process(pasid) => self.translate(Some(*pasid), Iova(addr), access.write)?,
            Backing::Pinned { pages, shift } => self.page(pages, addr.wrapping_add(*shift), access.write)?,
            Backing::OnDemand { table, shift, context, .. } => {
                let found = self.on_demand_page(table, addr.wrapping_add(*shift), access.write)?;
                found.ok_or_else(|| AccessError::Miss(region.miss(addr, *shift, *context, access.write)))?
            }
        };
        Ok(Extent { bytes: extent.bytes.min(access.length - u64::from(inside)), ..extent })
    }

    #[inline]
    fn shortcut(&mut self, access: &Access) -> Result<Option<Shortcut>, Cause> {
        let (own, process) = (self.may_use_atc(), self.may_use_atc() && self.may_use_pasid());
        Ok(match &checked(self, access)?.backing {
            Backing::Process(pasid) => process.then(|| Shortcut { space: Space::of(Some(*pasid)), shift: 0 }),
            Backing::Pinned { pages, shift } => own.then(|| Shortcut { space: pages.space(), shift: *shift }),
            Backing::OnDemand { table, shift, .. } => {
                own.then(|| Shortcut { space: table.space(), shift: *shift })
            }
        })
    }

    fn missing_behind(&mut self, access: &Access, inside: u32, window: Window) -> Ahead {
        let Ok(&region) = checked(self, access) else { return Ahead::default() };
        let start = access.addr.wrapping_add(u64::from(inside));
        let rest = access.length - u64::from(inside);
        match region.backing {
            Backing::Process(pasid) => {
                let pages = pages_behind(self, pasid, (start, rest), access.write, window);
                Ahead { pages, bytes: 0 }
            }
            Backing::OnDemand { shift, .. } => {
                let inside = (start.wrapping_add(shift) & 0xfff).min(start - region.start);
                let most = u64::from(window.pages + 1) << 12;
                Ahead { pages: Vec::new(), bytes: low_u32((inside + rest).min(most)) }
            }
            Backing::Pinned { .. } => Ahead::default(),
        }
    }

    fn range_of(&self, key: u32, pd: u32) -> Option<(u64, u64)> {
        let region = self.regions.find(key).filter(|region| region.pd == pd)?;
        Some((region.start, region.length))
    }
}

/// The region of an access that passes all checks.
#[inline]
fn checked<'p>(port: &'p mut Port<'_>, access: &Access) -> Result<&'p Region, Cause> {
    let table = port.regions;
    let region = port.shard().regions.find(access.key, table).ok_or(Cause::Key)?;
    region.allows(access.pd, access.addr, access.length, access.rights)?;
    Ok(region)
}

/// Further missing pages of a process, after the one at `start`, from where the access has `rest` bytes left.
fn pages_behind(
    port: &mut Port<'_>,
    pasid: Pasid,
    (start, rest): (u64, u64),
    write: bool,
    window: Window,
) -> Vec<(PageMiss, u32)> {
    let inside = start & 0xfff;
    let asked = window.asked.and_then(|asked| asked.checked_sub(window.at));
    let asked = asked.map_or(0, |ahead| (inside + u64::from(ahead)) >> 12);
    let mut missing = Vec::new();
    for page in asked + 1..=u64::from(window.pages) {
        let ahead = (page << 12) - inside;
        if ahead >= rest {
            break;
        }
        match port.translate(Some(pasid), Iova(start.wrapping_add(ahead)), write) {
            Err(AccessError::Miss(miss)) => missing.push((miss, window.at + low_u32(ahead))),
            Err(AccessError::Denied(_)) => break,
            Ok(_) => {}
        }
    }
    missing
}
