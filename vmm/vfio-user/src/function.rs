//! What a device has to be to be shown to a client.

use std::fs::File;
use std::os::fd::OwnedFd;

use crate::Refusal;
use crate::request::{Access, DmaMap, DmaUnmap};

/// The index of config space among the regions.
pub const CONFIG: u32 = 7;

/// A PCI function. The session calls from one thread; accesses lie inside their region.
pub trait Function: Send + Sync {
    /// Bytes of a region, 0 to 5 for the BARs and [`CONFIG`]; zero if it is not there.
    fn region_size(&self, index: u32) -> u64;

    /// How many MSI-X vectors there are.
    fn vectors(&self) -> u32;

    /// Fills `data` from a region.
    ///
    /// # Errors
    /// It cannot be read so.
    fn read(&self, access: Access, data: &mut [u8]) -> Result<(), Refusal>;

    /// Takes `data` into a region. `posted` says that the client does not wait for it.
    ///
    /// # Errors
    /// It cannot be written so.
    fn write(&self, access: Access, data: &[u8], posted: bool) -> Result<(), Refusal>;

    /// Gets a range of guest memory, as a part of a file if one came along.
    ///
    /// # Errors
    /// It overlaps another, cannot be mapped, or there are too many.
    fn map(&self, map: DmaMap, file: Option<File>) -> Result<(), Refusal>;

    /// Loses ranges of guest memory. When this returns nothing accesses them any more.
    ///
    /// # Errors
    /// There is no such range.
    fn unmap(&self, unmap: DmaUnmap) -> Result<(), Refusal>;

    /// Sends the vectors from `start` on to eventfds from now on, one for each; or to nowhere.
    ///
    /// # Errors
    /// A file descriptor is no eventfd.
    fn set_vectors(&self, start: u32, events: Vec<Option<OwnedFd>>) -> Result<(), Refusal>;

    /// Everything as after power-on, but for guest memory and where interrupts go.
    fn reset(&self);

    /// The client has answered a request of ours, with an error number if it refused.
    fn replied(&self, id: u16, error: Option<u32>);
}
