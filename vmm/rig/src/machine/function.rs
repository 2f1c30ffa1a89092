//! A PCI function as the model guest's driver accesses it.

use std::sync::Arc;

use refault_bus::mmio::MmioDevice;
use refault_model::nic::{Config, ConfigAccess, FunctionAccess};
use refault_model::registers::RegisterWindow;
use refault_pci::PciFunction;

/// Config space and BARs of `function`, decoded wherever the BARs point.
pub fn access(function: Arc<dyn PciFunction>) -> FunctionAccess {
    let window = |bar| {
        let window: Arc<dyn MmioDevice> = Arc::new(Window { function: function.clone(), bar });
        (bar, RegisterWindow::new(window))
    };
    let bars = function.endpoint().bars().iter().map(|bar| window(bar.index)).collect();
    FunctionAccess { config: Config::new(Arc::new(Space(function.clone()))), bars }
}

/// One BAR as an MMIO device.
struct Window {
    function: Arc<dyn PciFunction>,
    bar: u8,
}

impl MmioDevice for Window {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.function.bar_read(self.bar, offset, data);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        self.function.bar_write(self.bar, offset, data);
    }
}

/// Config space.
struct Space(Arc<dyn PciFunction>);

impl ConfigAccess for Space {
    fn read(&self, offset: u16, data: &mut [u8]) {
        self.0.config_read(offset, data);
    }

    fn write(&self, offset: u16, data: &[u8]) {
        // The effect asks a machine to move BARs in its address map; this one has none.
        let _ = self.0.config_write(offset, data);
    }
}
