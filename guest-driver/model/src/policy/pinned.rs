//! A region of pinned pages, as `ib_umem_get` and an RDMA driver create it.

use std::sync::{Arc, Mutex, MutexGuard};

use refault_abi::command::{CMD_CREATE_MR, CMD_DESTROY_MR, CreateMr, MR_PINNED, ObjectId};
use refault_bus::sync::lock;
use refault_bus::{Gpa, Iova};

use crate::Process;
use crate::dax::{DaxFs, Errno, FsError};
use crate::memory::{FRAME, FRAME_LEN};
use crate::nic::{Buffer, Driver, MemoryRegion, page_table};
use crate::paging::{Leaf, PageSize};
use crate::policy::{Registration, RegistrationRequest};

/// A memory region whose pages were looked up once, pinned, and handed to the device.
pub struct Pinned {
    driver: Arc<Driver>,
    fs: Arc<DaxFs>,
    write: bool,
    region: MemoryRegion,
    base: Iova,
    /// The region's page table, which the device reads until the region is destroyed.
    tables: Mutex<Vec<Buffer>>,
    held: Mutex<Vec<PinnedPage>>,
}

/// A pinned page and its DMA address.
struct PinnedPage {
    gpa: Gpa,
    dma: Iova,
}

impl Pinned {
    /// Faults the pages in with the access that the device needs, pins them, and registers the region with the NIC.
    ///
    /// # Errors
    ///
    /// EFAULT if a page cannot be faulted in; any error of the driver. Nothing stays pinned then.
    pub fn create(request: &RegistrationRequest) -> Result<Arc<Self>, FsError> {
        let mut held = Vec::new();
        let made = pin_all(request, &mut held).and_then(|()| describe(request, &held));
        let (region, tables) = match made {
            Ok(made) => made,
            Err(error) => {
                let RegistrationRequest { driver, fs, write, .. } = request;
                let _ = unpin_all(driver, fs, *write, held);
                return Err(error);
            }
        };
        let RegistrationRequest { driver, fs, write, start, .. } = request.clone();
        let (tables, held) = (Mutex::new(tables), Mutex::new(held));
        Ok(Arc::new(Self { driver, fs, write, region, base: start, tables, held }))
    }

    /// Number of pages that are still pinned.
    pub fn pins(&self) -> u64 {
        self.lock().len() as u64
    }

    /// Revokes the region and unpins its pages: requests fail from now on. The key stays valid for the program to
    /// deregister.
    ///
    /// # Errors
    ///
    /// If the NIC cannot revoke the region; its pages stay pinned then.
    pub fn revoke(&self) -> Result<(), FsError> {
        self.driver.revoke(self.region)?;
        self.unpin()
    }

    fn unpin(&self) -> Result<(), FsError> {
        let held = std::mem::take(&mut *self.lock());
        unpin_all(&self.driver, &self.fs, self.write, held)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<PinnedPage>> {
        lock(&self.held)
    }
}

impl Registration for Pinned {
    fn key(&self) -> u32 {
        self.region.key
    }

    fn base(&self) -> Iova {
        self.base
    }

    fn release(&self) -> Result<(), FsError> {
        self.driver.destroy(CMD_DESTROY_MR, self.region.key)?;
        lock(&self.tables).clear();
        self.unpin()
    }
}

/// `pin_user_pages`: faults the pages in, maps them for DMA, and counts a pin for each. `held` has those done so far.
fn pin_all(request: &RegistrationRequest, held: &mut Vec<PinnedPage>) -> Result<(), FsError> {
    fault_in(&request.process, (request.start, request.bytes()), request.write, |leaf| {
        let dma = request.driver.domain().map(leaf.gpa, FRAME)?;
        request.fs.pin(leaf.gpa, request.write);
        held.push(PinnedPage { gpa: leaf.gpa, dma });
        Ok(())
    })
}

/// Faults in the pages of `bytes` at `start` as the process itself would, and calls `each` for each of them.
pub(super) fn fault_in(
    process: &Process,
    (start, bytes): (Iova, u64),
    write: bool,
    mut each: impl FnMut(Leaf) -> Result<(), FsError>,
) -> Result<(), FsError> {
    for offset in (0..bytes).step_by(FRAME_LEN) {
        let refused = FsError::refused(Errno::EFAULT, "a page cannot be faulted in");
        each(process.fault_at(Iova(start.0 + offset), write).map_err(|_| refused)?)?;
    }
    Ok(())
}

/// Creates the region on the NIC, with a page table for the `held` pages.
fn describe(
    request: &RegistrationRequest,
    held: &[PinnedPage],
) -> Result<(MemoryRegion, Vec<Buffer>), FsError> {
    let RegistrationRequest { driver, pd, start, .. } = request;
    let addresses: Vec<Iova> = held.iter().map(|page| page.dma).collect();
    let (table, buffers) = page_table(driver.memory(), driver.domain(), &addresses, PageSize::Small)?;
    let body = CreateMr {
        start: start.0,
        length: request.bytes(),
        table,
        pd: *pd,
        access: request.access(),
        mode: MR_PINNED,
        ..CreateMr::default()
    };
    let region = MemoryRegion { key: driver.lane0().execute::<ObjectId>(CMD_CREATE_MR, &body)?.id };
    Ok((region, buffers))
}

/// `unpin_user_pages_dirty_lock`: pages that the device could write are set dirty.
fn unpin_all(driver: &Driver, fs: &DaxFs, write: bool, held: Vec<PinnedPage>) -> Result<(), FsError> {
    for page in held {
        driver.domain().unmap(page.dma, FRAME)?;
        if write {
            fs.set_page_dirty(page.gpa);
        }
        fs.unpin(page.gpa, write);
    }
    Ok(())
}
