//! The interface of a device that can be served to a client.

use std::fs::File;
use std::os::fd::OwnedFd;

use crate::RequestError;
use crate::request::{DmaMap, DmaUnmap, RegionAccess};

/// Region index of config space.
pub const CONFIG: u32 = 7;

/// A PCI function. The session calls it from one thread; accesses lie inside their region.
pub trait VfioUserFunction: Send + Sync {
    /// Size of a region in bytes: 0 to 5 are the BARs, [`CONFIG`] is config space. Zero if there is no such region.
    fn region_size(&self, index: u32) -> u64;

    /// Number of MSI-X vectors.
    fn vectors(&self) -> u32;

    /// Reads from a region into `data`.
    ///
    /// # Errors
    /// The region does not allow this read.
    fn read(&self, access: RegionAccess, data: &mut [u8]) -> Result<(), RequestError>;

    /// Writes `data` to a region. `posted` means that the client does not wait for a reply.
    ///
    /// # Errors
    /// The region does not allow this write.
    fn write(&self, access: RegionAccess, data: &[u8], posted: bool) -> Result<(), RequestError>;

    /// Adds a range of guest memory, backed by part of `file` if there is one.
    ///
    /// # Errors
    /// The range overlaps another or cannot be mapped, or there are too many.
    fn map(&self, map: DmaMap, file: Option<File>) -> Result<(), RequestError>;

    /// Removes ranges of guest memory. Once this returns, nothing accesses them.
    ///
    /// # Errors
    /// There is no such range.
    fn unmap(&self, unmap: DmaUnmap) -> Result<(), RequestError>;

    /// Connects the vectors from `start` on to eventfds, one each; `None` disconnects a vector.
    ///
    /// # Errors
    /// A file descriptor is not an eventfd.
    fn set_vectors(&self, start: u32, events: Vec<Option<OwnedFd>>) -> Result<(), RequestError>;

    /// Resets the function to its power-on state, except for guest memory and vectors.
    fn reset(&self);

    /// The client has replied to request `id` of ours, with an error number if it refused.
    fn replied(&self, id: u16, error: Option<u32>);
}
