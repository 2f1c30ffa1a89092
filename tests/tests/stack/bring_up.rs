//! What a kernel finds, and what it enables, before any transfer.

use pcics::capabilities::CapabilityKind;
use pcics::extended_capabilities::ExtendedCapabilityKind;
use pcics::{Capabilities, DDR_OFFSET, ECS_OFFSET, ExtendedCapabilities, Header};
use refault_abi::command::CAP_PASID;
use refault_abi::regs::{PCI_DEVICE_ID, PCI_VENDOR_ID};
use refault_model::ModelError;
use refault_model::nic::Driver;
use refault_pci::PciFunction;
use refault_tests::machine::{Machine, MachineSetup};
use refault_tests::platform::FAULT_VECTOR;

/// The NIC's config space, as lspci dumps it.
fn config_space(machine: &Machine) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    for (chunk, offset) in bytes.chunks_exact_mut(4).zip((0..).step_by(4)) {
        machine.nic.config_read(offset, chunk);
    }
    bytes
}

#[test]
fn an_independent_decoder_finds_all_capabilities_enabled_after_bring_up() {
    let bytes = config_space(&Machine::new(MachineSetup::default()));
    let header = Header::try_from(&bytes[..DDR_OFFSET]).unwrap();
    assert_eq!((header.vendor_id, header.device_id), (PCI_VENDOR_ID, PCI_DEVICE_ID));
    assert!(header.command.memory_space && header.command.bus_master);
    let standard = Capabilities::new(&bytes[DDR_OFFSET..ECS_OFFSET], &header);
    let msix_on = standard
        .map(|found| found.unwrap().kind)
        .any(|kind| matches!(kind, CapabilityKind::MsiX(msix) if msix.message_control.msi_x_enable));
    assert!(msix_on);
    let mut on = 0;
    for found in ExtendedCapabilities::new(&bytes[ECS_OFFSET..]) {
        on += u32::from(match found.unwrap().kind {
            ExtendedCapabilityKind::AddressTranslationServices(ats) => ats.ats_control.enable,
            ExtendedCapabilityKind::PageRequestInterface(pri) => pri.page_request_control.enable,
            ExtendedCapabilityKind::ProcessAddressSpaceId(pasid) => pasid.pacid_control.pasid_enable,
            _ => false,
        });
    }
    assert_eq!(on, 3, "ATS, page requests, PASID");
}

#[test]
fn bring_up_ends_without_a_fault_and_with_the_process_mode_offered() {
    for translated in [false, true] {
        let machine = Machine::new(MachineSetup { translated, ..MachineSetup::default() });
        let caps = machine.driver.capabilities().unwrap();
        assert_ne!(caps.features & CAP_PASID, 0);
        assert_eq!(machine.unit.take_faults(), (vec![], false));
        assert_eq!((machine.interrupts.pending(FAULT_VECTOR), machine.interrupts.strays()), (0, 0));
    }
}

#[test]
fn a_second_kernel_finds_the_machine_as_the_first_one_did() {
    let setup = || MachineSetup { translated: true, ..MachineSetup::default() };
    let machine = Machine::new(setup());
    let before = config_space(&machine);
    let machine = machine.reboot(setup());
    assert_eq!(config_space(&machine), before);
    assert_eq!(machine.unit.take_faults(), (vec![], false));
}

#[test]
fn a_driver_refuses_an_unknown_device() {
    let machine = Machine::new(MachineSetup::default());
    let mut setup = machine.driver.setup().clone();
    // BAR 4 holds the MSI-X vectors: there is no magic number where the registers should be.
    setup.function.bars.retain(|(index, _)| *index != 0);
    let vectors = setup.function.bar(4).unwrap();
    setup.function.bars.push((0, vectors));
    let error = Driver::start(setup).err();
    assert_eq!(error, Some(ModelError::Function("the NIC's registers")));
}
