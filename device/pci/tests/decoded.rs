//! Config space as an independent decoder reads it.

mod support;

use pcics::capabilities::CapabilityKind;
use pcics::capabilities::pci_express::{DeviceType, MaxEndEndTlpPrefixes};
use pcics::extended_capabilities::ExtendedCapabilityKind;
use pcics::header::{BaseAddressType, HeaderType};
use pcics::{Capabilities, DDR_OFFSET, ECS_OFFSET, ExtendedCapabilities, Header};
use refault_pci::PciFunction;
use support::Function;

fn config(function: &Function) -> Vec<u8> {
    let mut data = vec![0; 4096];
    function.config_read(0, &mut data);
    data
}

fn header(data: &[u8]) -> Header {
    Header::try_from(&data[..DDR_OFFSET]).unwrap()
}

#[test]
fn the_header_says_who_it_is() {
    let header = header(&config(&Function::new()));
    assert_eq!((header.vendor_id, header.device_id, header.revision_id), (0x1fef, 1, 3));
    assert_eq!((header.class_code.base, header.class_code.sub, header.class_code.interface), (2, 7, 0));
    assert!(header.status.capabilities_list && !header.is_multi_function);
    let HeaderType::Normal(normal) = header.header_type else { panic!("header type 0 wanted") };
    assert_eq!((normal.sub_vendor_id, normal.sub_device_id), (0x1fef, 0x0abc));
}

#[test]
fn bars_are_64_bit_memory_where_they_were_put() {
    let function = Function::new();
    function.write32(0x18, 0);
    function.write32(0x1c, 0x0000_0042);
    function.write32(0x10, 0xfeb0_0000);
    let HeaderType::Normal(normal) = header(&config(&function)).header_type else { panic!() };
    let bars: Vec<_> = normal.base_addresses.map(|bar| (bar.region, bar.base_address_type)).collect();
    assert_eq!(bars[0].1, BaseAddressType::MemorySpace64 { prefetchable: false, base_address: 0xfeb0_0000 });
    let doorbells = BaseAddressType::MemorySpace64 { prefetchable: true, base_address: 0x42_0000_0000 };
    assert!(bars.contains(&(2, doorbells)), "{bars:?}");
}

#[test]
fn the_standard_capabilities_decode() {
    let data = config(&Function::new());
    let header = header(&data);
    let found: Vec<_> =
        Capabilities::new(&data[DDR_OFFSET..ECS_OFFSET], &header).map(|found| found.unwrap().kind).collect();
    let [
        CapabilityKind::PowerManagementInterface(power),
        CapabilityKind::PciExpress(express),
        CapabilityKind::MsiX(msix),
    ] = &found[..]
    else {
        panic!("{found:?}")
    };
    assert!(power.capabilities.version == 3 && power.control.no_soft_reset);
    assert!(!power.capabilities.d1_support && !power.capabilities.d2_support);

    assert_eq!(express.version, 2);
    assert!(matches!(express.device_type, DeviceType::RootComplexIntegratedEndpoint));
    assert!(express.device.capabilities.function_level_reset_capability);
    assert!(express.device.capabilities.role_based_error_reporting);
    let second = &express.device_2.as_ref().unwrap().capabilities;
    assert!(second.end_end_tlp_prefix_supported);
    assert!(matches!(second.max_end_end_tlp_prefixes, MaxEndEndTlpPrefixes::Max1));

    assert_eq!(msix.message_control.table_size, 64);
    assert!(!msix.message_control.msi_x_enable && !msix.message_control.function_mask);
    assert_eq!((msix.table.offset, msix.pending_bit_array.offset), (0, 0x1000));
}

#[test]
fn the_extended_capabilities_decode() {
    let data = config(&Function::new());
    let found: Vec<_> =
        ExtendedCapabilities::new(&data[ECS_OFFSET..]).map(|found| found.unwrap().kind).collect();
    let [
        ExtendedCapabilityKind::AddressTranslationServices(ats),
        ExtendedCapabilityKind::PageRequestInterface(pri),
        ExtendedCapabilityKind::ProcessAddressSpaceId(pasid),
    ] = &found[..]
    else {
        panic!("{found:?}")
    };
    // A depth of 32 is written as zero.
    assert!(ats.ats_capability.invalidate_queue_depth == 0 && ats.ats_capability.page_aligned_request);
    assert!(pri.page_request_status.stopped && pri.page_request_status.prg_response_pasid_required);
    assert_eq!(pri.outstanding_page_request_capacity, 512);
    let width = pasid.pacid_capability.max_pasid_width;
    assert_eq!(width, 20);
    assert!(!pasid.pacid_capability.execute_permission_supported);
    assert!(!pasid.pacid_capability.privileged_mode_supported);
}

#[test]
fn the_switches_decode_as_linux_sets_them() {
    let function = Function::new();
    function.write16(function.ats() + 6, 0x8000);
    function.write32(function.pri() + 12, 64);
    function.write16(function.pri() + 4, 1);
    function.write16(function.pasid() + 6, 7);
    let data = config(&function);
    for found in ExtendedCapabilities::new(&data[ECS_OFFSET..]) {
        match found.unwrap().kind {
            ExtendedCapabilityKind::AddressTranslationServices(ats) => assert!(ats.ats_control.enable),
            ExtendedCapabilityKind::PageRequestInterface(pri) => {
                assert!(pri.page_request_control.enable && !pri.page_request_status.stopped);
                assert_eq!(pri.outstanding_page_request_allocation, 64);
            }
            ExtendedCapabilityKind::ProcessAddressSpaceId(pasid) => {
                assert!(pasid.pacid_control.pasid_enable);
                assert!(!pasid.pacid_control.privileged_mode_enable, "not offered, so not enabled");
            }
            other => panic!("{other:?}"),
        }
    }
}
