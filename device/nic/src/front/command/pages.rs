//! Memory that a command names: page tables and rings.

use refault_abi::command::PageTable;

use super::reply::Refused;
use crate::front::Front;
use crate::memory::page_table::Pages;
use crate::queue::layout::Ring;

/// The sizes of one kind of ring.
pub(super) struct RingShape {
    /// Bytes of an entry.
    pub(super) entry: u32,
    pub(super) max_log: u32,
    /// Bytes of the doorbell record, and its alignment.
    pub(super) record: u32,
}

impl Front {
    /// A ring with a doorbell record behind it, both of which can be reached and written.
    ///
    /// # Errors
    ///
    /// The command names no such ring, or memory that cannot be reached.
    pub(super) fn ring(
        &self,
        worker: usize,
        buffer: &PageTable,
        (record_offset, log): (u32, u8),
        shape: &RingShape,
    ) -> Result<Ring, Refused> {
        let record = u64::from(record_offset);
        let sound = u32::from(log) <= shape.max_log
            && record_offset.is_multiple_of(shape.record)
            && record >= u64::from(shape.entry) << log.min(31);
        if !sound {
            return Err(Refused::BadParameter);
        }
        let bytes = record + u64::from(shape.record);
        let pages = self.reachable_pages(worker, buffer, bytes, &[0, record], true)?;
        Ok(Ring { pages, record_offset, log })
    }

    /// A page table of at least `bytes` that can be reached at each of `offsets`.
    ///
    /// # Errors
    ///
    /// The table is malformed or too short, or an offset cannot be reached.
    pub(super) fn reachable_pages(
        &self,
        worker: usize,
        table: &PageTable,
        bytes: u64,
        offsets: &[u64],
        write: bool,
    ) -> Result<Pages, Refused> {
        let identity = self.engine.memory.new_identity();
        let pages = Pages::check(table, identity).filter(|pages| pages.bytes() >= bytes);
        let pages = pages.ok_or(Refused::BadParameter)?;
        let mut port = self.engine.memory.port(worker);
        for &offset in offsets {
            let extent = port.page(&pages, offset, write).map_err(|_| Refused::BadMemory)?;
            self.engine.memory.fabric.memory.read(extent.gpa, &mut [0]).map_err(|_| Refused::BadMemory)?;
        }
        Ok(pages)
    }
}
