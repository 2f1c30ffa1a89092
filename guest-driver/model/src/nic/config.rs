//! PCI config space: finding capabilities, and enabling them in the order of Linux 7.2.

use std::sync::Arc;

use crate::ModelError;
use crate::interrupts::MSI_ADDRESS;
use crate::registers::RegisterWindow;

/// Access to a function's config space. Reads and writes are of 1, 2 or 4 bytes, naturally aligned.
pub trait ConfigAccess: Send + Sync {
    /// Reads `data.len()` bytes at `offset`.
    fn read(&self, offset: u16, data: &mut [u8]);

    /// Writes `data` at `offset`.
    fn write(&self, offset: u16, data: &[u8]);
}

/// The config space of a function.
#[derive(Clone)]
pub struct Config(Arc<dyn ConfigAccess>);

/// Command register: memory space and bus master.
const COMMAND: u16 = 0x04;
const MEMORY_AND_MASTER: u16 = 0b110;
const BUS_MASTER: u16 = 0b100;
/// Capability ids, standard and extended.
const EXPRESS: u8 = 0x10;
const MSIX: u8 = 0x11;
const ATS: u16 = 0x0f;
const PRI: u16 = 0x13;
const PASID: u16 = 0x1b;
/// The limit that Linux sets for outstanding page requests of a function: the depth of its page request queue.
const MOST_PAGE_REQUESTS: u32 = 2048;

impl Config {
    /// Wraps the config space behind `access`.
    pub fn new(access: Arc<dyn ConfigAccess>) -> Self {
        Self(access)
    }

    /// Reads 1 byte.
    pub fn read8(&self, offset: u16) -> u8 {
        let mut bytes = [0; 1];
        self.0.read(offset, &mut bytes);
        bytes[0]
    }

    /// Reads 2 bytes.
    pub fn read16(&self, offset: u16) -> u16 {
        let mut bytes = [0; 2];
        self.0.read(offset, &mut bytes);
        u16::from_le_bytes(bytes)
    }

    /// Reads 4 bytes.
    pub fn read32(&self, offset: u16) -> u32 {
        let mut bytes = [0; 4];
        self.0.read(offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    /// Writes 2 bytes.
    pub fn write16(&self, offset: u16, value: u16) {
        self.0.write(offset, &value.to_le_bytes());
    }

    /// Writes 4 bytes.
    pub fn write32(&self, offset: u16, value: u32) {
        self.0.write(offset, &value.to_le_bytes());
    }

    /// Offset of the standard capability `id`.
    pub fn capability(&self, id: u8) -> Option<u16> {
        let mut at = u16::from(self.read8(0x34) & 0xfc);
        // There is room for 48 capabilities: a longer list has a loop.
        for _ in 0..48 {
            if at < 0x40 {
                return None;
            }
            if self.read8(at) == id {
                return Some(at);
            }
            at = u16::from(self.read8(at + 1) & 0xfc);
        }
        None
    }

    /// Offset of the extended capability `id`.
    pub fn extended(&self, id: u16) -> Option<u16> {
        let mut at = 0x100;
        for _ in 0..960 {
            let header = self.read32(at);
            if header == 0 || header == u32::MAX {
                return None;
            }
            if header & 0xffff == u32::from(id) {
                return Some(at);
            }
            at = u16::try_from(header >> 20).unwrap_or_default() & 0xffc;
            if at < 0x100 {
                return None;
            }
        }
        None
    }

    /// Enables memory decoding and bus mastering.
    pub fn enable(&self) {
        self.write16(COMMAND, self.read16(COMMAND) | MEMORY_AND_MASTER);
    }

    /// Enables or disables bus mastering.
    pub fn set_bus_master(&self, on: bool) {
        let others = self.read16(COMMAND) & !BUS_MASTER;
        self.write16(COMMAND, others | if on { BUS_MASTER } else { 0 });
    }

    /// Enables PASID, then ATS, then PRI, as `intel_iommu_probe_finalize` does. Returns the number of page requests
    /// that the function may have outstanding.
    ///
    /// # Errors
    ///
    /// [`ModelError::Function`] if a capability is missing or not in the state that Linux requires.
    pub fn enable_translation(&self) -> Result<u32, ModelError> {
        let missing = |name| move || ModelError::Function(name);
        let pasid = self.extended(PASID).ok_or_else(missing("PASID"))?;
        let ats = self.extended(ATS).ok_or_else(missing("ATS"))?;
        let pri = self.extended(PRI).ok_or_else(missing("page requests"))?;
        let offered = self.read16(pasid + 4) & 0b110;
        self.write16(pasid + 6, 1 | offered);
        if self.read16(ats + 4) & 1 << 5 == 0 {
            return Err(ModelError::Function("page-aligned ATS requests"));
        }
        self.write16(ats + 6, 0);
        self.write16(ats + 6, 1 << 15);
        self.reset_page_requests(pri)?;
        let allowed = self.read32(pri + 8).min(MOST_PAGE_REQUESTS);
        self.write32(pri + 12, allowed);
        self.write16(pri + 4, 1);
        Ok(allowed)
    }

    /// Sets the number of page requests that may be outstanding. PRI must be disabled to change it, and is enabled
    /// again.
    ///
    /// # Errors
    ///
    /// [`ModelError::Function`] if PRI is missing or requests are outstanding.
    pub fn set_page_request_allocation(&self, allowed: u32) -> Result<(), ModelError> {
        let pri = self.extended(PRI).ok_or(ModelError::Function("page requests"))?;
        self.write16(pri + 4, 0);
        self.reset_page_requests(pri)?;
        self.write32(pri + 12, allowed);
        self.write16(pri + 4, 1);
        Ok(())
    }

    /// Enables or disables ATS.
    ///
    /// # Errors
    ///
    /// [`ModelError::Function`] without ATS.
    pub fn set_ats(&self, on: bool) -> Result<(), ModelError> {
        let ats = self.extended(ATS).ok_or(ModelError::Function("ATS"))?;
        self.write16(ats + 6, if on { 1 << 15 } else { 0 });
        Ok(())
    }

    /// Enables or disables PASID.
    ///
    /// # Errors
    ///
    /// [`ModelError::Function`] without PASID.
    pub fn set_pasid(&self, on: bool) -> Result<(), ModelError> {
        let pasid = self.extended(PASID).ok_or(ModelError::Function("PASID"))?;
        self.write16(pasid + 6, u16::from(on));
        Ok(())
    }

    /// Starts a function-level reset. The 100 ms that a driver has to wait are omitted, as the reset is synchronous
    /// here.
    ///
    /// # Errors
    ///
    /// [`ModelError::Function`] without function-level reset.
    pub fn function_reset(&self) -> Result<(), ModelError> {
        let express = self.capability(EXPRESS).ok_or(ModelError::Function("PCI Express"))?;
        if self.read32(express + 4) & 1 << 28 == 0 {
            return Err(ModelError::Function("function-level reset"));
        }
        self.write16(express + 8, self.read16(express + 8) | 1 << 15);
        Ok(())
    }

    /// Programs the first `vectors` entries of the MSI-X table with interrupt vectors from `first_vector` on, and
    /// enables MSI-X. `bar` returns the window of a BAR.
    ///
    /// # Errors
    ///
    /// [`ModelError::Function`] without MSI-X or with fewer vectors; any error of `bar`.
    pub fn enable_msix(
        &self,
        vectors: u16,
        first_vector: u8,
        bar: impl Fn(u8) -> Result<RegisterWindow, ModelError>,
    ) -> Result<(), ModelError> {
        let msix = self.capability(MSIX).ok_or(ModelError::Function("MSI-X"))?;
        let offered = (self.read16(msix + 2) & 0x7ff) + 1;
        if offered < vectors {
            return Err(ModelError::Function("enough MSI-X vectors"));
        }
        let table = self.read32(msix + 4);
        let [low, ..] = table.to_le_bytes();
        let window = bar(low & 7)?;
        for vector in 0..u32::from(vectors) {
            let entry = u64::from(table & !7) + u64::from(vector) * 16;
            window.write32(entry, MSI_ADDRESS);
            window.write32(entry + 4, 0);
            window.write32(entry + 8, u32::from(first_vector) + vector);
            window.write32(entry + 12, 0);
        }
        self.write16(msix + 2, 1 << 15);
        Ok(())
    }
}

/// Page request status: no request is outstanding, and responses carry the PASID.
const STOPPED: u16 = 1 << 8;
const RESPONSE_PASID: u16 = 1 << 15;

impl Config {
    fn reset_page_requests(&self, pri: u16) -> Result<(), ModelError> {
        self.write16(pri + 4, 1 << 1);
        let status = self.read16(pri + 6);
        if status & RESPONSE_PASID == 0 {
            return Err(ModelError::Function("PASIDs in page responses"));
        }
        if status & STOPPED == 0 {
            Err(ModelError::Function("a stopped page request interface"))
        } else {
            Ok(())
        }
    }
}
