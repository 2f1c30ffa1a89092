//! Which memory VFIO can map besides anonymous memory. It takes long-term pins, which the kernel refuses for some
//! files.
#![expect(unsafe_code, reason = "offers memory to a device")]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::ptr::null_mut;

use anyhow::{Context, Result, bail, ensure};
use vfio_ioctls::VfioError;

use crate::device::Device;

/// DMA address of the trial mappings, far from the memory in use.
const TRIAL: u64 = 1 << 40;
/// Bytes of a trial mapping.
const BYTES: usize = 2 << 20;

/// A mapping of this process.
struct Mapping(*mut libc::c_void);

impl Mapping {
    fn new(file: Option<&File>, kind: libc::c_int) -> std::io::Result<Self> {
        let (fd, anonymous) = file.map_or((-1, libc::MAP_ANONYMOUS), |file| (file.as_raw_fd(), 0));
        // SAFETY: a new mapping at an address that the kernel chooses; no other reference to it exists.
        let at = unsafe {
            libc::mmap(null_mut(), BYTES, libc::PROT_READ | libc::PROT_WRITE, kind | anonymous, fd, 0)
        };
        if at == libc::MAP_FAILED { Err(std::io::Error::last_os_error()) } else { Ok(Self(at)) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and is not mapped for the device, or no longer.
        unsafe { libc::munmap(self.0, BYTES) };
    }
}

/// Maps anonymous memory, and each of the files both shared and private, with VFIO, and prints the results.
pub(crate) fn try_all(device: &Device, files: &[PathBuf]) -> Result<()> {
    report("anonymous memory", try_one(device, &Mapping::new(None, libc::MAP_PRIVATE)?)?);
    for path in files {
        let file = open(path)?;
        for (kind, name) in [(libc::MAP_SHARED, "shared"), (libc::MAP_PRIVATE, "private")] {
            let mapping =
                Mapping::new(Some(&file), kind).with_context(|| format!("cannot mmap {}", path.display()))?;
            report(&format!("{}, {name}", path.display()), try_one(device, &mapping)?);
        }
    }
    Ok(())
}

fn open(path: &Path) -> Result<File> {
    let file = File::options().read(true).write(true).open(path);
    let file = file.with_context(|| format!("cannot open {}", path.display()))?;
    let bytes = file.metadata()?.len();
    ensure!(bytes >= BYTES as u64, "{} is shorter than {BYTES} bytes", path.display());
    Ok(file)
}

/// Maps and unmaps memory for the device. Returns the errno if VFIO refuses it.
fn try_one(device: &Device, mapping: &Mapping) -> Result<Option<i32>> {
    // SAFETY: no reference to the mapping exists, and no request to the NIC uses its DMA address.
    let mapped = unsafe { device.container().vfio_dma_map(TRIAL, BYTES, mapping.0.cast()) };
    match mapped {
        Ok(()) => {
            device.container().vfio_dma_unmap(TRIAL, BYTES).context("VFIO cannot unmap it again")?;
            Ok(None)
        }
        Err(VfioError::IommuDmaMap(cause)) => Ok(Some(cause.errno())),
        Err(error) => bail!(error),
    }
}

fn report(what: &str, errno: Option<i32>) {
    match errno {
        None => println!("VFIO_IOMMU_MAP_DMA of {what}: mapped and pinned"),
        Some(errno) => println!("VFIO_IOMMU_MAP_DMA of {what}: refused, errno {errno} ({})", meaning(errno)),
    }
}

/// What an errno of VFIO_IOMMU_MAP_DMA means.
fn meaning(errno: i32) -> String {
    match errno {
        libc::EOPNOTSUPP => {
            "EOPNOTSUPP: its pages belong to a filesystem on DAX, which must be free to move them".into()
        }
        libc::EFAULT => {
            "EFAULT: its pages are in the page cache, and the filesystem must be notified of writes".into()
        }
        libc::ENOMEM => "ENOMEM: RLIMIT_MEMLOCK is reached".into(),
        other => std::io::Error::from_raw_os_error(other).to_string(),
    }
}
