//! Devices come, go and share a unit.

use std::sync::{Arc, Weak};

use refault_bus::ats::{InvalidationRequest, RequestKind, TranslationAgent, TranslationRequest};
use refault_bus::pri::{PageRequest, ResponseCode};
use refault_bus::{Bdf, Iova};

use crate::support::descriptors as d;
use crate::support::*;

#[test]
fn two_devices_share_an_address_space_and_nothing_else() {
    let guest = Guest::booted();
    let id = Bdf(0x0020);
    let other = Device::attach(&guest.iommu, id);
    // Without a context entry, the second one can do nothing.
    guest.map_user(VA, 0x8000);
    let request = TranslationRequest { requester: id, ..guest.request(Some(PASID), VA, true) };
    assert!(guest.ats(VA, true).unwrap().write && guest.iommu.translate(&request).is_err());
    guest.service_faults();
    guest.store(context_entry_at(&guest, id), context(guest.layout.directory));
    assert_eq!(guest.iommu.translate(&request), guest.ats(VA, true));
    // Requests of both with the same PASID and group: the ring and the responses tell them apart.
    guest.ask(VA, true, 3);
    guest.iommu.page_request(PageRequest { requester: id, ..page_request(VA, true, 3) });
    let sources: Vec<_> = guest.take_page_requests().iter().map(|entry| entry[0] >> 16 & 0xffff).collect();
    assert_eq!(sources, [u64::from(NIC.0), u64::from(id.0)]);
    assert!(guest.submit(&[d::group_response(id, PASID, 3, 1)]));
    assert_eq!(
        (guest.device.responses().len(), other.responses()[0].code),
        (0, ResponseCode::InvalidRequest)
    );
    // So do device-TLB invalidations.
    guest.submit(&[d::device_tlb_pasid(NIC, PASID, VA.0, false)]);
    let page = InvalidationRequest { pasid: Some(PASID), iova: VA, size_shift: 12 };
    assert_eq!((guest.device.invalidations(), other.invalidations()), (vec![page], vec![]));
    // Faults of one are not compressed into those of the other.
    guest.dma(None, Iova(0xdead_0000), false).unwrap_err();
    let stray = guest.request(None, Iova(0xdead_0000), false);
    let kind = RequestKind::Untranslated;
    guest.iommu.translate(&TranslationRequest { requester: id, kind, ..stray }).unwrap_err();
    assert_eq!(guest.faults().iter().map(|fault| fault.source).collect::<Vec<_>>(), [NIC.0, id.0]);
}

#[test]
fn a_device_attached_later_takes_the_place_of_one_with_its_id() {
    let guest = Guest::booted();
    let second = Device::attach(&guest.iommu, NIC);
    guest.submit(&[d::device_tlb(NIC, d::EVERYTHING, true)]);
    assert_eq!((guest.device.invalidations().len(), second.invalidations().len()), (0, 1));
    // And when it is gone, there is none.
    drop(second);
    assert!(guest.submit(&[d::device_tlb(NIC, d::EVERYTHING, true)]));
    assert!(guest.device.invalidations().is_empty());
}

#[test]
fn devices_may_be_attached_while_they_are_being_made() {
    let guest = Guest::booted();
    let ids = [Bdf(0x0020), Bdf(0x0028)];
    let mut made = Vec::new();
    let attach = |id: Bdf, weak: &Weak<Device>| guest.iommu.attach(id, weak.clone());
    // The second is attached while the first cannot be reached yet.
    let first = Arc::new_cyclic(|weak| {
        attach(ids[0], weak);
        made.push(Arc::new_cyclic(|weak| {
            attach(ids[1], weak);
            Device::default()
        }));
        Device::default()
    });
    made.push(first);
    let flush = |id| d::device_tlb(id, d::EVERYTHING, true);
    guest.submit(&[flush(ids[0]), flush(ids[1]), flush(NIC)]);
    assert!(made.iter().chain([&guest.device]).all(|device| device.invalidations().len() == 1));
}
