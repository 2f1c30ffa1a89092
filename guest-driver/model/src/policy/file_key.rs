//! A key for part of a file, not for memory of a process.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use refault_bus::Iova;

use crate::ModelError;
use crate::dax::{DaxFs, FileId, FsError, Mapped, MappingId, Rule};
use crate::memory::FRAME;
use crate::nic::{OnDemandRegion, PageFaultHandler, PageFaultQueue};
use crate::policy::{Policy, Registration, RegistrationRequest};

/// The remote key (STag) stands for a range of a file, and requests address it by file offset. The server's NIC
/// resolves each access through the filesystem; no process has to map the file. On this NIC it is an on-demand region
/// whose table the filesystem fills and empties.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileKey;

impl Rule for FileKey {}

impl Policy for FileKey {
    fn name(&self) -> &'static str {
        "file-key"
    }

    fn register(&self, request: &RegistrationRequest) -> Result<Arc<dyn Registration>, FsError> {
        let RegistrationRequest { driver, faults, pd, fs, file, pages, .. } = request;
        let range = (Iova(pages.start * FRAME), request.bytes());
        let region = OnDemandRegion::create(driver, *pd, range, request.access(), faults)?;
        let (fs, file, mapping) = (fs.clone(), *file, OnceLock::new());
        let window = Arc::new(FileWindow { region, fs, file, mapping });
        let id = window.fs.watch(file, window.clone())?;
        let _ = window.mapping.set(id);
        faults.handle(window.region.region(), window.clone());
        Ok(Arc::new(KeyOfFile { window, faults: faults.clone() }))
    }
}

/// The filesystem's side of a key: fills the region's table on faults, and is called to empty it.
struct FileWindow {
    region: Arc<OnDemandRegion>,
    fs: Arc<DaxFs>,
    file: FileId,
    mapping: OnceLock<MappingId>,
}

impl FileWindow {
    fn bring(&self, at: Iova, write: bool) -> Result<(), FsError> {
        let mut fill = |gpa, rights| self.region.fill(at, || Ok(Some((gpa, rights))));
        self.fs.fault(self.file, self.mapping.get().copied(), at.0 / FRAME, write, &mut fill)
    }
}

impl Mapped for FileWindow {
    fn zap(&self, pages: &Range<u64>) -> Result<(), ModelError> {
        let start = Iova(pages.start * FRAME);
        self.region.forget(start, (pages.end - pages.start).saturating_mul(FRAME))
    }

    fn zap_writes(&self, pages: &Range<u64>) -> Result<(), ModelError> {
        self.zap(pages)
    }
}

impl PageFaultHandler for FileWindow {
    fn resolve(&self, address: Iova, _length: u32, write: bool) -> bool {
        self.bring(address.align_down(12), write).is_ok()
    }
}

struct KeyOfFile {
    window: Arc<FileWindow>,
    faults: Arc<PageFaultQueue>,
}

impl Registration for KeyOfFile {
    fn key(&self) -> u32 {
        self.window.region.region().key
    }

    fn base(&self) -> Iova {
        self.window.region.start()
    }

    fn release(&self) -> Result<(), FsError> {
        self.faults.stop_handling(self.window.region.region());
        self.window.region.destroy()?;
        if let Some(&id) = self.window.mapping.get() {
            self.window.fs.forget(self.window.file, id);
        }
        Ok(())
    }
}
