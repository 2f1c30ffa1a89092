//! Config space: finding capabilities and switching them on in the order of Linux 7.2.

use std::sync::Arc;

use crate::ModelError;
use crate::interrupts::MSI_ADDRESS;
use crate::registers::RegisterWindow;

/// Config space as the driver reaches it. Reads and writes are 1 to 4 bytes, naturally aligned.
pub trait ConfigAccess: Send + Sync {
    /// Fills `data` from `offset`.
    fn read(&self, offset: u16, data: &mut [u8]);

    /// Takes `data` at `offset`.
    fn write(&self, offset: u16, data: &[u8]);
}

/// One function's config space.
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
/// What Linux lets a function have outstanding: the depth of its page request queue.
const MOST_PAGE_REQUESTS: u32 = 2048;

impl Config {
    /// The space behind `access`.
    pub fn new(access: Arc<dyn ConfigAccess>) -> Self {
        Self(access)
    }

    /// Reads a byte.
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

    /// Where a standard capability lies.
    pub fn capability(&self, id: u8) -> Option<u16> {
        let mut at = u16::from(self.read8(0x34) & 0xfc);
        // There is room for 48 capabilities: a longer list is a loop.
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

    /// Where an extended capability lies.
    pub fn extended(&self, id: u16) -> Option<u16> {
        let mut at = 0x100;
        for _ in 0..960 {
            let header = self.read32(at);
            if header == 0 || header == u32::MAX {
                return None;
            }
            if header as u16 == id {
                return Some(at);
            }
            at = (header >> 20) as u16 & 0xffc;
            if at < 0x100 {
                return None;
            }
        }
        None
    }

    /// Decodes memory BARs and lets the function start transactions.
    pub fn enable(&self) {
        self.write16(COMMAND, self.read16(COMMAND) | MEMORY_AND_MASTER);
    }

    /// Lets the function start transactions, or not.
    pub fn set_bus_master(&self, on: bool) {
        let others = self.read16(COMMAND) & !BUS_MASTER;
        self.write16(COMMAND, others | if on { BUS_MASTER } else { 0 });
    }

    /// PASID, then ATS, then page requests, as `intel_iommu_probe_finalize` does; the page requests allowed.
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

    /// Changes how many page requests may be outstanding; the interface is stopped and started for it.
    pub fn set_page_request_allocation(&self, allowed: u32) -> Result<(), ModelError> {
        let pri = self.extended(PRI).ok_or(ModelError::Function("page requests"))?;
        self.write16(pri + 4, 0);
        self.reset_page_requests(pri)?;
        self.write32(pri + 12, allowed);
        self.write16(pri + 4, 1);
        Ok(())
    }

    /// Switches ATS off or on again.
    pub fn set_ats(&self, on: bool) -> Result<(), ModelError> {
        let ats = self.extended(ATS).ok_or(ModelError::Function("ATS"))?;
        self.write16(ats + 6, if on { 1 << 15 } else { 0 });
        Ok(())
    }

    /// Switches PASIDs off or on again.
    pub fn set_pasid(&self, on: bool) -> Result<(), ModelError> {
        let pasid = self.extended(PASID).ok_or(ModelError::Function("PASID"))?;
        self.write16(pasid + 6, u16::from(on));
        Ok(())
    }

    /// Function-level reset. The driver waits 100 ms after it; here nothing is asynchronous.
    pub fn function_reset(&self) -> Result<(), ModelError> {
        let express = self.capability(EXPRESS).ok_or(ModelError::Function("PCI Express"))?;
        if self.read32(express + 4) & 1 << 28 == 0 {
            return Err(ModelError::Function("function-level reset"));
        }
        self.write16(express + 8, self.read16(express + 8) | 1 << 15);
        Ok(())
    }

    /// Programs the first `vectors` MSI-X vectors to send `first_vector` and up, and switches MSI-X on. `bar`
    /// gives the window of a BAR.
    pub fn enable_msix(
        &self,
        vectors: u16,
        first_vector: u8,
        bar: impl Fn(u8) -> Result<RegisterWindow, ModelError>,
    ) -> Result<(), ModelError> {
        let msix = self.capability(MSIX).ok_or(ModelError::Function("MSI-X"))?;
        let offered = (self.read16(msix + 2) & 0x7ff) + 1;
        if offered < vectors {
            return Err(ModelError::Function("so many MSI-X vectors"));
        }
        let table = self.read32(msix + 4);
        let window = bar(table as u8 & 7)?;
        for vector in 0..u64::from(vectors) {
            let entry = u64::from(table & !7) + vector * 16;
            window.write32(entry, MSI_ADDRESS);
            window.write32(entry + 4, 0);
            window.write32(entry + 8, u32::from(first_vector) + vector as u32);
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
