//! Access to the NIC through VFIO: config space and registers with system calls, doorbells through a mapping.
#![expect(unsafe_code, reason = "maps device memory")]

use std::os::fd::AsRawFd;
use std::path::Path;
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail, ensure};
use refault_bus::mmio::MmioDevice;
use refault_model::nic::{Config, ConfigAccess, FunctionAccess};
use refault_model::registers::RegisterWindow;
use vfio_bindings::bindings::vfio::{VFIO_PCI_BAR0_REGION_INDEX, VFIO_PCI_CONFIG_REGION_INDEX};
use vfio_ioctls::{VfioContainer, VfioDevice, VfioError};

/// BAR of the registers.
const REGISTERS: u8 = 0;
/// BAR of the doorbell pages.
const DOORBELLS: u8 = 2;
/// BAR of the MSI-X table.
const VECTORS: u8 = 4;

/// The NIC, in a container of its own.
pub(crate) struct Device {
    container: Arc<VfioContainer>,
    device: Arc<VfioDevice>,
}

impl Device {
    /// Opens the IOMMU group of the device at `folder` in sysfs, and the device.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let container = VfioContainer::new(None).context("no VFIO: `modprobe vfio_iommu_type1` first")?;
        let container = Arc::new(container);
        let device = VfioDevice::new(folder, container.clone(), false).map_err(explain)?;
        Ok(Self { container, device: Arc::new(device) })
    }

    /// The VFIO container, in which memory for DMA is mapped.
    pub(crate) fn container(&self) -> &VfioContainer {
        &self.container
    }

    /// The function, as the model's driver needs it.
    pub(crate) fn function(&self) -> Result<FunctionAccess> {
        let by_calls = |bar: u8| -> Arc<dyn MmioDevice> {
            Arc::new(VfioRegion {
                device: self.device.clone(),
                index: VFIO_PCI_BAR0_REGION_INDEX + u32::from(bar),
            })
        };
        let bars = vec![
            (REGISTERS, RegisterWindow::new(by_calls(REGISTERS))),
            (DOORBELLS, RegisterWindow::new(Arc::new(DoorbellMapping::map(&self.device, DOORBELLS)?))),
            (VECTORS, RegisterWindow::new(by_calls(VECTORS))),
        ];
        let config = VfioRegion { device: self.device.clone(), index: VFIO_PCI_CONFIG_REGION_INDEX };
        Ok(FunctionAccess { config: Config::new(Arc::new(config)), bars })
    }
}

/// Adds advice to errors that the user can fix.
fn explain(error: VfioError) -> anyhow::Error {
    let remedy = match &error {
        VfioError::ContainerSetIOMMU(cause) if cause.errno() == libc::EPERM => {
            "the IOMMU does not remap interrupts: `echo Y >/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts`"
        }
        VfioError::GroupViable => "another device of the IOMMU group is bound to a kernel driver",
        VfioError::OpenGroup(..) => "is the NIC bound to vfio-pci, and no other process using it?",
        _ => "VFIO cannot open the NIC",
    };
    anyhow::Error::new(error).context(remedy)
}

/// A VFIO region, accessed with pread and pwrite.
struct VfioRegion {
    device: Arc<VfioDevice>,
    index: u32,
}

impl MmioDevice for VfioRegion {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.device.region_read(self.index, data, offset);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        self.device.region_write(self.index, data, offset);
    }
}

impl ConfigAccess for VfioRegion {
    fn read(&self, offset: u16, data: &mut [u8]) {
        self.device.region_read(self.index, data, offset.into());
    }

    fn write(&self, offset: u16, data: &[u8]) {
        self.device.region_write(self.index, data, offset.into());
    }
}

/// A mapped VFIO region with the doorbell pages, so that ringing one is a single store.
struct DoorbellMapping {
    base: NonNull<u64>,
    bytes: usize,
    /// The mapping must not outlive the device.
    _device: Arc<VfioDevice>,
}

impl DoorbellMapping {
    fn map(device: &Arc<VfioDevice>, bar: u8) -> Result<Self> {
        let index = VFIO_PCI_BAR0_REGION_INDEX + u32::from(bar);
        let bytes = usize::try_from(device.get_region_size(index))?;
        let offset = i64::try_from(device.get_region_offset(index))?;
        ensure!(bytes > 0, "the NIC has no BAR {bar}");
        // SAFETY: a new mapping of a device region at an address that the kernel chooses touches no memory of ours.
        let base = unsafe {
            libc::mmap(
                null_mut(),
                bytes,
                libc::PROT_WRITE | libc::PROT_READ,
                libc::MAP_SHARED,
                device.as_raw_fd(),
                offset,
            )
        };
        if base == libc::MAP_FAILED {
            bail!("BAR {bar} cannot be mapped: {}", std::io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or_else(|| anyhow!("BAR {bar} is mapped at zero"))?;
        Ok(Self { base, bytes, _device: device.clone() })
    }

    /// Pointer to the word at `offset`, if `offset` and `length` are those of an aligned word in the mapping.
    fn word(&self, offset: u64, length: usize) -> Option<NonNull<u64>> {
        let at = usize::try_from(offset).ok()?;
        let inside = length == 8 && at % 8 == 0 && at.checked_add(8)? <= self.bytes;
        // SAFETY: inside the mapping, as was just checked.
        inside.then(|| unsafe { self.base.add(at / 8) })
    }
}

impl MmioDevice for DoorbellMapping {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let Some(word) = self.word(offset, data.len()) else { return data.fill(0) };
        // SAFETY: an aligned word of the mapping, which is device memory: no reference to it exists.
        data.copy_from_slice(&unsafe { word.as_ptr().read_volatile() }.to_le_bytes());
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let (Some(word), Ok(value)) = (self.word(offset, data.len()), <[u8; 8]>::try_from(data)) else {
            return;
        };
        // The NIC must see earlier stores to rings before the doorbell.
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        // SAFETY: as for reading; a single store of the whole word.
        unsafe { word.as_ptr().write_volatile(u64::from_le_bytes(value)) };
    }
}

// SAFETY: the value owns the mapping, and all accesses are volatile ones of single words, valid from any thread.
unsafe impl Send for DoorbellMapping {}
// SAFETY: as above.
unsafe impl Sync for DoorbellMapping {}

impl Drop for DoorbellMapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and pointers to it do not outlive `self`.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}
