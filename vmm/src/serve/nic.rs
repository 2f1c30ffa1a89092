//! A PCI function as a client sees it: the NIC, or any other with BARs and MSI-X.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use refault_pci::PciFunction;
use refault_vfio_user::Refusal;
use refault_vfio_user::function::{CONFIG, Function};
use refault_vfio_user::request::{Access, DmaMap, DmaUnmap};

use super::interrupts::{Interrupts, mark};
use super::ram::ClientRam;

/// Bytes of config space.
pub(super) const CONFIG_SIZE: u64 = 4096;
/// Bytes of an MSI-X table entry.
const ENTRY_SIZE: u64 = 16;

/// A function, with the memory and the interrupts of the machine it is in.
pub(super) struct Served {
    /// Its number among those that are served.
    pub(super) owner: usize,
    pub(super) function: Arc<dyn PciFunction>,
    pub(super) ram: Arc<ClientRam>,
    pub(super) interrupts: Arc<Interrupts>,
}

impl Served {
    /// Fills the function's own MSI-X table with marks. The guest's table is the client's, which masks vectors by taking
    /// their eventfds away.
    fn mark_vectors(&self, vectors: impl Iterator<Item = u16>) {
        let Some(msix) = self.function.endpoint().msix() else { return };
        for vector in vectors {
            let mark = mark(self.owner, vector);
            let masked = u32::from(!self.interrupts.has_vector(self.owner, vector));
            let dwords = [mark.address as u32, (mark.address >> 32) as u32, mark.data, masked];
            let at = u64::from(msix.layout().table) + u64::from(vector) * ENTRY_SIZE;
            msix.write(at, &dwords.map(u32::to_le_bytes).concat());
        }
    }

    fn mark_all(&self) {
        self.mark_vectors(0..self.vectors() as u16);
    }
}

impl Function for Served {
    fn region_size(&self, index: u32) -> u64 {
        let bars = self.function.endpoint().bars();
        match index {
            CONFIG => CONFIG_SIZE,
            index => bars.iter().find(|bar| u32::from(bar.index) == index).map_or(0, |bar| bar.size),
        }
    }

    fn vectors(&self) -> u32 {
        self.function.endpoint().msix().map_or(0, |msix| msix.layout().vectors.into())
    }

    fn read(&self, access: Access, data: &mut [u8]) -> Result<(), Refusal> {
        match access.region {
            CONFIG => self.function.config_read(access.offset as u16, data),
            bar => self.function.bar_read(bar as u8, access.offset, data),
        }
        Ok(())
    }

    fn write(&self, access: Access, data: &[u8], _posted: bool) -> Result<(), Refusal> {
        match access.region {
            CONFIG => {
                let effect = self.function.config_write(access.offset as u16, data);
                if effect.function_reset {
                    self.mark_all();
                }
            }
            bar => self.function.bar_write(bar as u8, access.offset, data),
        }
        Ok(())
    }

    fn map(&self, map: DmaMap, file: Option<File>) -> Result<(), Refusal> {
        self.ram.map(self.owner, map, file)
    }

    fn unmap(&self, unmap: DmaUnmap) -> Result<(), Refusal> {
        self.ram.unmap(self.owner, unmap)
    }

    fn set_vectors(&self, start: u32, events: Vec<Option<OwnedFd>>) -> Result<(), Refusal> {
        let first = start as u16;
        let last = first + events.len() as u16;
        for (vector, event) in (first..).zip(events) {
            self.interrupts.set_vector(self.owner, vector, event)?;
        }
        self.mark_vectors(first..last);
        Ok(())
    }

    fn reset(&self) {
        self.function.reset();
        self.function.endpoint().reset();
        self.mark_all();
    }

    fn replied(&self, _id: u16, _error: Option<u32>) {}
}
