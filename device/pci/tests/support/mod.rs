//! A function with every capability of a NIC, and a sink that records.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::sync::{Arc, Mutex};

use refault_bus::Bdf;
use refault_bus::irq::{MsiMessage, MsiSink};
use refault_pci::caps::{ats, express, pasid, power, pri};
use refault_pci::{Endpoint, Identity, MsixLayout, PciFunction};

pub const IDENTITY: Identity = Identity {
    vendor: 0x1fef,
    device: 0x0001,
    class: 0x02_07_00,
    revision: 3,
    subsystem_vendor: 0x1fef,
    subsystem: 0x0abc,
};

pub const MSIX: MsixLayout = MsixLayout::in_own_bar(4, 65);

/// Records the messages it receives.
#[derive(Default)]
pub struct Sent(pub Mutex<Vec<MsiMessage>>);

impl MsiSink for Sent {
    fn signal(&self, message: MsiMessage) {
        self.0.lock().unwrap().push(message);
    }
}

impl Sent {
    /// Data of the messages since the last call.
    pub fn take(&self) -> Vec<u32> {
        self.0.lock().unwrap().drain(..).map(|message| message.data).collect()
    }
}

/// An endpoint with the BARs and capabilities of a NIC.
pub fn endpoint(sink: Arc<Sent>) -> Endpoint {
    Endpoint::builder(IDENTITY)
        .bar(0, 0x1000, false)
        .bar(2, 1 << 33, true)
        .bar(4, MSIX.bar_size(), false)
        .capability(power::power_management())
        .capability(express::integrated_endpoint())
        .msix(MSIX, sink)
        .capability(ats::address_translation(32))
        .capability(pri::page_requests(512))
        .capability(pasid::process_address_spaces())
        .build()
        .unwrap()
}

/// A function with nothing behind its BARs.
pub struct Function {
    pub endpoint: Endpoint,
    pub sent: Arc<Sent>,
    pub events: Mutex<Vec<&'static str>>,
}

impl Function {
    pub fn new() -> Self {
        let sent = Arc::new(Sent::default());
        Self { endpoint: endpoint(sent.clone()), sent, events: Mutex::default() }
    }

    pub fn read16(&self, offset: u16) -> u16 {
        let mut data = [0; 2];
        self.config_read(offset, &mut data);
        u16::from_le_bytes(data)
    }

    pub fn read32(&self, offset: u16) -> u32 {
        let mut data = [0; 4];
        self.config_read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    pub fn write16(&self, offset: u16, value: u16) -> refault_pci::ConfigEffect {
        self.config_write(offset, &value.to_le_bytes())
    }

    pub fn write32(&self, offset: u16, value: u32) -> refault_pci::ConfigEffect {
        self.config_write(offset, &value.to_le_bytes())
    }

    pub fn events(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.events.lock().unwrap())
    }

    /// Offset of a capability, found as a driver does: by walking its list.
    pub fn find(&self, id: u16, extended: bool) -> u16 {
        let mut at = if extended { 0x100 } else { self.read16(0x34) & 0xff };
        while at != 0 {
            let header = self.read32(at);
            let (found, next) =
                if extended { (header & 0xffff, header >> 20) } else { (header & 0xff, header >> 8 & 0xff) };
            if found == u32::from(id) {
                return at;
            }
            at = next as u16;
        }
        panic!("no capability {id:#x}");
    }

    pub fn pri(&self) -> u16 {
        self.find(0x13, true)
    }

    pub fn ats(&self) -> u16 {
        self.find(0x0f, true)
    }

    pub fn pasid(&self) -> u16 {
        self.find(0x1b, true)
    }

    pub fn express(&self) -> u16 {
        self.find(0x10, false)
    }

    pub fn msix(&self) -> u16 {
        self.find(0x11, false)
    }

    pub fn power(&self) -> u16 {
        self.find(0x01, false)
    }
}

impl PciFunction for Function {
    fn bdf(&self) -> Bdf {
        Bdf::new(0, 2, 0)
    }

    fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    fn config_changed(&self, effect: &refault_pci::ConfigEffect) {
        self.events.lock().unwrap().push(if effect.pri_reset { "pri reset" } else { "changed" });
    }

    fn bar_read(&self, _bar: u8, offset: u64, data: &mut [u8]) {
        self.endpoint.msix().unwrap().read(offset, data);
    }

    fn bar_write(&self, _bar: u8, offset: u64, data: &[u8]) {
        self.endpoint.msix().unwrap().write(offset, data);
    }

    fn reset(&self) {
        self.events.lock().unwrap().push("reset");
    }
}
