//! The devices outside the VMM: a socket for each function, for a client that speaks vfio-user.
//!
//! Devices are wired as in our own machine (`refault_rig::wiring`); this module implements the traits by which a client
//! provides memory and receives interrupts. Nothing in the devices differs.

pub mod arguments;
mod discovery;
mod dmar;
mod interrupts;
mod nic;
mod ram;
mod unit;

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, anyhow};
use refault_bus::Bdf;
use refault_pci::PciFunction;
use refault_vfio_user::connection::Connection;
use refault_vfio_user::function::VfioUserFunction;
use refault_vfio_user::session::{SessionError, serve};

use self::discovery::IommuDiscovery;
use self::interrupts::Interrupts;
use self::nic::ServedFunction;
use self::ram::ClientRam;
use self::unit::IommuFunction;
use refault_machine::{Devices, MachineParts};

/// Name of the file with the DMAR table, beside the sockets.
pub const DMAR_FILE: &str = "dmar";

/// What a client's machine offers to the devices.
pub struct ClientMachine {
    ram: Arc<ClientRam>,
    interrupts: Arc<Interrupts>,
    discovery: Arc<IommuDiscovery>,
}

/// A function and the client slot for its socket.
pub struct FunctionSlot {
    /// `iommu`, or `nic0` and up.
    pub name: String,
    /// Its address on the bus as the guest must see it, since the requests of the function carry it. `None` for the IOMMU,
    /// which sends no requests.
    pub bdf: Option<Bdf>,
    owner: usize,
    function: Arc<dyn VfioUserFunction>,
    ram: Arc<ClientRam>,
    interrupts: Arc<Interrupts>,
    taken: AtomicBool,
}

impl ClientMachine {
    /// A machine without memory yet. `persistent` says whether memory added later may outlive the machine.
    pub fn new(persistent: bool) -> Self {
        let ram = Arc::new(ClientRam::new(persistent));
        Self { ram, interrupts: Arc::default(), discovery: Arc::default() }
    }

    /// The parts from which devices are built.
    pub fn parts(&self) -> MachineParts {
        MachineParts { ram: self.ram.clone(), msi: self.interrupts.clone() }
    }

    /// Gives every device its slot, the IOMMU first.
    ///
    /// # Errors
    /// There is no IOMMU.
    pub fn plug(&self, devices: Devices) -> Result<Vec<FunctionSlot>> {
        let Devices { iommu, functions } = devices;
        let registers = iommu.ok_or_else(|| anyhow!("these devices have no IOMMU"))?;
        let (ram, interrupts) = (self.ram.clone(), self.interrupts.clone());
        let unit =
            IommuFunction::new(0, (registers, functions.clone()), ram, interrupts, self.discovery.clone())?;
        let mut slots = vec![self.slot(0, "iommu".into(), None, Arc::new(unit))];
        for (function, owner) in functions.into_iter().zip(1..) {
            let bdf = function.bdf();
            let served = self.served(owner, function);
            slots.push(self.slot(owner, format!("nic{}", owner - 1), Some(bdf), served));
        }
        Ok(slots)
    }

    fn served(&self, owner: usize, function: Arc<dyn PciFunction>) -> Arc<dyn VfioUserFunction> {
        let (ram, interrupts) = (self.ram.clone(), self.interrupts.clone());
        Arc::new(ServedFunction { owner, function, ram, interrupts, discovery: self.discovery.clone() })
    }

    fn slot(
        &self,
        owner: usize,
        name: String,
        bdf: Option<Bdf>,
        function: Arc<dyn VfioUserFunction>,
    ) -> FunctionSlot {
        let (ram, interrupts) = (self.ram.clone(), self.interrupts.clone());
        FunctionSlot { name, bdf, owner, function, ram, interrupts, taken: AtomicBool::new(false) }
    }
}

/// The DMAR table for these slots, with its header, for the client's ACPI tables.
pub fn dmar(slots: &[Arc<FunctionSlot>]) -> Vec<u8> {
    dmar::table(&slots.iter().filter_map(|slot| slot.bdf).collect::<Vec<_>>())
}

impl FunctionSlot {
    /// Claims the slot for one client; false if it already has one.
    pub fn take(&self) -> bool {
        !self.taken.swap(true, Ordering::SeqCst)
    }

    /// Serves the client that claimed the slot until its end, and then resets the function to its power-on state.
    ///
    /// # Errors
    /// The client does not speak the protocol, or the connection failed.
    pub fn serve(&self, stream: UnixStream) -> Result<(), SessionError> {
        let connection = Connection::new(stream).map_err(|error| SessionError::Connection(error.into()))?;
        let connection = Arc::new(connection);
        if self.bdf.is_none() {
            self.interrupts.set_client(Some(connection.clone()));
        }
        let served = serve(&connection, &*self.function);
        if self.bdf.is_none() {
            self.interrupts.set_client(None);
        }
        self.function.reset();
        self.interrupts.forget(self.owner);
        self.ram.forget(self.owner);
        self.taken.store(false, Ordering::SeqCst);
        served
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::Shutdown;

    use super::*;
    use refault_rig::wiring::{self, DeviceOptions};

    /// VERSION 0.0 of vfio-user: id, command, size, flags, error, and the payload.
    const GREETING: [u8; 20] = [1, 0, 1, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

    fn slots() -> Vec<FunctionSlot> {
        let board = ClientMachine::new(false);
        let MachineParts { ram, msi } = board.parts();
        let wired = wiring::devices(ram, msi, DeviceOptions::default()).unwrap();
        board
            .plug(Devices { iommu: Some(wired.registers.clone()), functions: wired.functions.clone() })
            .unwrap()
    }

    #[test]
    fn the_iommu_comes_first_and_has_no_bus_address() {
        let slots = slots();
        let names: Vec<_> = slots.iter().map(|slot| (slot.name.as_str(), slot.bdf.is_some())).collect();
        assert_eq!(names, [("iommu", false), ("nic0", true)]);
        let error = ClientMachine::new(false).plug(Devices::default()).err().map(|error| error.to_string());
        assert_eq!(error.as_deref(), Some("these devices have no IOMMU"));
    }

    #[test]
    fn a_slot_has_one_client_at_a_time() {
        for slot in slots() {
            for _ in 0..2 {
                assert!(slot.take(), "{} is free", slot.name);
                assert!(!slot.take(), "{} is taken", slot.name);
                let (mut ours, theirs) = UnixStream::pair().unwrap();
                std::thread::scope(|scope| {
                    let serving = scope.spawn(|| slot.serve(theirs));
                    ours.write_all(&GREETING).unwrap();
                    let mut header = [0; 16];
                    ours.read_exact(&mut header).unwrap();
                    assert_eq!(header[..4], GREETING[..4]);
                    ours.shutdown(Shutdown::Both).unwrap();
                    serving.join().unwrap().unwrap();
                });
            }
        }
    }

    #[test]
    fn a_client_with_another_protocol_leaves_its_slot_free() {
        let slots = slots();
        assert!(slots[0].take());
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        ours.shutdown(Shutdown::Write).unwrap();
        assert!(slots[0].serve(theirs).is_err());
        assert!(slots[0].take());
    }
}
