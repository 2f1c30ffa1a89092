//! Rebinding the NIC to vfio-pci and back to its kernel driver, through sysfs as `driverctl` does.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use refault_abi::regs::{PCI_DEVICE_ID, PCI_VENDOR_ID};

const DEVICES: &str = "/sys/bus/pci/devices";
const DRIVER: &str = "vfio-pci";
/// Timeout for a driver to bind or unbind.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The NIC while it is bound to vfio-pci.
#[derive(Debug)]
pub(crate) struct Binding {
    folder: PathBuf,
    address: String,
    /// The driver that it was bound to before, unless that was vfio-pci.
    before: Option<String>,
}

impl Binding {
    /// Binds the NIC at PCI address `address`, or the first one on the bus, to vfio-pci.
    pub(crate) fn take(address: Option<&str>) -> Result<Self> {
        ensure!(
            Path::new("/sys/bus/pci/drivers").join(DRIVER).exists(),
            "no vfio-pci in this kernel: `modprobe vfio-pci` first"
        );
        let folder = match address {
            Some(address) => Path::new(DEVICES).join(address),
            None => first_nic()?,
        };
        ensure!(is_nic(&folder), "{} is not a refault NIC", folder.display());
        let address = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let before = driver_of(&folder).filter(|driver| driver != DRIVER);
        let binding = Self { folder, address, before };
        binding.rebind(DRIVER)?;
        Ok(binding)
    }

    /// The device's folder in sysfs.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The device's PCI address, such as `0000:00:03.0`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The number of the device's IOMMU group.
    pub(crate) fn group(&self) -> Result<String> {
        let link = fs::read_link(self.folder.join("iommu_group"));
        let link = link.context("the NIC has no IOMMU group: is the IOMMU enabled?")?;
        Ok(link.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default())
    }

    /// Binds the NIC to its previous driver again, and returns a message about it.
    pub(crate) fn give_back(&self) -> Result<String> {
        let Some(before) = &self.before else {
            return Ok(format!("{} stays bound to vfio-pci, as before", self.address));
        };
        self.rebind(before)?;
        Ok(format!("{} is bound to {before} again", self.address))
    }

    fn rebind(&self, driver: &str) -> Result<()> {
        let own = driver == DRIVER;
        self.write("driver_override", if own { driver } else { "\n" })?;
        if let Some(current) = driver_of(&self.folder) {
            if current == driver {
                return Ok(());
            }
            self.write("driver/unbind", &self.address)?;
            self.await_driver(None)?;
        }
        let probe = Path::new("/sys/bus/pci/drivers").join(driver).join("bind");
        fs::write(&probe, &self.address)
            .with_context(|| format!("{driver} does not bind to {}", self.address))?;
        self.await_driver(Some(driver))
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.folder.join(file);
        fs::write(&path, text).with_context(|| format!("cannot write {}: are you root?", path.display()))
    }

    fn await_driver(&self, wanted: Option<&str>) -> Result<()> {
        let start = Instant::now();
        while driver_of(&self.folder).as_deref() != wanted {
            if start.elapsed() > TIMEOUT {
                bail!("timed out binding {} to {}", self.address, wanted.unwrap_or("no driver"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

fn first_nic() -> Result<PathBuf> {
    let mut folders: Vec<PathBuf> =
        fs::read_dir(DEVICES).context("no PCI bus")?.flatten().map(|entry| entry.path()).collect();
    folders.sort();
    folders.into_iter().find(|folder| is_nic(folder)).ok_or_else(|| anyhow!("no refault NIC on the bus"))
}

fn is_nic(folder: &Path) -> bool {
    let id = |file: &str| fs::read_to_string(folder.join(file)).unwrap_or_default();
    let is = |file: &str, value: u16| id(file).trim() == format!("{value:#06x}");
    is("vendor", PCI_VENDOR_ID) && is("device", PCI_DEVICE_ID)
}

fn driver_of(folder: &Path) -> Option<String> {
    let link = fs::read_link(folder.join("driver")).ok()?;
    Some(link.file_name()?.to_string_lossy().into_owned())
}
