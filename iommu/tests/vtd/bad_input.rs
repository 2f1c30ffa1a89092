//! Bad input: no register access, table, descriptor or ring of a guest causes a panic, a hang or a stray write.

use proptest::prelude::*;
use refault_bus::ats::{RequestKind, TranslationAgent, TranslationRequest};
use refault_bus::mmio::MmioDevice;
use refault_bus::pri::PageRequest;
use refault_bus::{Bdf, Gpa, Iova, Pasid, PrgIndex};

use crate::support::descriptors as d;
use crate::support::*;

#[test]
fn accesses_of_any_width_and_place_do_no_harm() {
    let guest = Guest::booted();
    let offsets =
        (0..0x400).chain([0xffc, 0xffd, 0xfff, 0x1000, 0x1ffc, u64::MAX - 7, u64::MAX - 2, u64::MAX]);
    for offset in offsets {
        for width in 0..=16 {
            let mut data = vec![0xa5; width];
            guest.iommu.read(offset, &mut data);
            if !matches!(width, 4 | 8) || offset % width as u64 != 0 {
                guest.iommu.write(offset, &data);
            }
        }
    }
    // Writes that are not 4 or 8 aligned bytes changed nothing.
    guest.map_user(VA, 0x8000);
    assert!(guest.ats(VA, true).unwrap().write);
    assert!(guest.submit(&[d::iotlb_global()]));
}

#[test]
fn reads_of_any_shape_show_the_same_bytes() {
    let guest = Guest::booted();
    let mut bytes = [0; 0x40];
    guest.iommu.read(0, &mut bytes);
    for offset in 0..0x38u64 {
        for width in 1..=8 {
            let mut data = vec![0; width];
            guest.iommu.read(offset, &mut data);
            assert_eq!(data, bytes[offset as usize..][..width], "{width} bytes at {offset:#x}");
        }
    }
    assert_eq!(guest.read64(reg::CAP) as u32, guest.read32(reg::CAP));
    assert_eq!((guest.read64(reg::CAP) >> 32) as u32, guest.read32(reg::CAP + 4));
}

#[test]
fn read_only_registers_do_not_change() {
    let guest = Guest::booted();
    for offset in [reg::VER, reg::CAP, reg::ECAP, reg::GSTS, reg::IQH, reg::IQER] {
        let before = guest.read64(offset & !7);
        guest.write32(offset, !0);
        guest.write32(offset, 0);
        assert_eq!(guest.read64(offset & !7), before, "register {offset:#x}");
    }
}

#[test]
fn a_64_bit_register_may_be_written_in_halves() {
    let guest = Guest::booted();
    for offset in [reg::RTADDR, reg::IQA, reg::PQA] {
        guest.write32(offset, 0x1234_5000);
        guest.write32(offset + 4, 0x9);
        assert_eq!(guest.read64(offset), 0x9_1234_5000);
        assert_eq!(guest.read32(offset + 4), 9);
    }
}

#[test]
fn a_queue_outside_memory_or_with_a_wild_tail_stops_with_its_code() {
    let cases = [
        // Not in memory, half in memory, at the end of the address space.
        (HOLE | 1 << 11, 0x20, 2),
        (!0xfff | 1 << 11, 0x20, 2),
        // Past the queue, not on a descriptor, 128-bit descriptors.
        (0x10_0000 | 1 << 11, 0x1000, 1),
        (0x10_0000 | 1 << 11, 0x7_ffe0, 1),
        (0x10_0000 | 1 << 11, 0x30, 6),
        (0x10_0000, 0x20, 5),
    ];
    for (address, tail, code) in cases {
        let guest = Guest::powered();
        guest.write64(reg::IQA, address);
        guest.set_command(reg::QIE);
        guest.write32(reg::IQT, tail);
        assert_eq!(guest.read32(reg::FSTS), 1 << 4, "IQA {address:#x}, tail {tail:#x}");
        assert_eq!(guest.read64(reg::IQER), code, "IQA {address:#x}, tail {tail:#x}");
    }
}

#[test]
fn a_full_queue_of_zeroes_stops_at_its_first_entry() {
    let guest = Guest::powered();
    guest.write64(reg::IQA, 0x10_0000 | 1 << 11 | 7);
    guest.set_command(reg::QIE);
    guest.write32(reg::IQT, 0x7_ffe0);
    assert_eq!((guest.read32(reg::IQH), guest.read64(reg::IQER)), (0, 3));
}

#[test]
fn moving_a_queue_that_runs_does_not_move_it() {
    let guest = Guest::booted();
    assert!(guest.submit(&[d::iotlb_global()]));
    guest.write64(reg::IQA, HOLE);
    assert!(guest.submit(&[d::iotlb_global()]));
    assert_eq!(guest.read32(reg::FSTS), 0);
}

#[test]
fn a_status_write_to_nowhere_is_dropped() {
    let guest = Guest::booted();
    guest.submit_raw(&[d::wait(HOLE), d::wait(!3)]);
    assert_eq!(guest.read32(reg::IQH), guest.read32(reg::IQT));
    assert!(guest.submit(&[]));
}

#[test]
fn tables_that_loop_or_lie_in_mmio_end_the_walk() {
    let guest = Guest::booted();
    // Every entry of the top table points to the top table: at the fourth level it maps the page.
    let top = guest.layout.user_tables;
    for at in (top..top + 0x1000).step_by(8) {
        guest.store(at, top | Pte::PRESENT | Pte::USER | Pte::WRITE);
    }
    assert_eq!(guest.ats(VA, true).unwrap().gpa, Gpa(top));
    // In the register page, in a hole, at the very end.
    for table in [0xfed9_0000, HOLE, 0x000f_ffff_ffff_f000] {
        guest.store(pasid_entry_at(&guest, PASID.get()) + 16, table);
        guest.submit(&[d::pasid_cache_global(), d::iotlb_global()]);
        assert!(!guest.ats(VA, true).unwrap().read);
        assert!(guest.dma(Some(PASID), VA, true).is_err());
    }
}

#[test]
fn a_page_outside_memory_is_translated() {
    let guest = Guest::booted();
    guest.map_user(VA, HOLE);
    assert_eq!(guest.ats(VA, true).unwrap().gpa, Gpa(HOLE));
}

/// One action of a guest or a device.
#[derive(Clone, Debug)]
enum Action {
    Read(u64, usize),
    Write(u64, Vec<u8>),
    Memory(u64, u64),
    Descriptor([u64; 4]),
    Translate(u16, Option<u32>, u64, bool, bool),
    Ask(u16, Option<u32>, u64, bool, u64),
    Reset,
}

/// Mostly registers that exist, mostly in shapes that are not ignored.
fn actions() -> impl Strategy<Value = Action> {
    let offset = prop_oneof![8 => (0u64..0xc0).prop_map(|word| word * 4), 1 => any::<u64>()];
    let address = prop_oneof![
        4 => (0u64..0x400).prop_map(|page| page << 12),
        1 => any::<u64>(),
        1 => Just(HOLE),
        1 => Just(VA.0),
    ];
    let value = prop_oneof![2 => any::<u64>(), 2 => any::<u64>().prop_map(|v| v & 0xff_ffff), 1 => Just(!0)];
    let data = prop_oneof![
        8 => value.clone().prop_map(|v| v.to_le_bytes()[..4].to_vec()),
        8 => value.clone().prop_map(|v| v.to_le_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..12),
    ];
    let entry = (address.clone(), 0u64..0x1000, any::<bool>())
        .prop_map(|(frame, bits, no_execute)| frame & !0xfff | bits | u64::from(no_execute) << 63);
    let low = prop_oneof![
        any::<u64>(),
        (0u64..16, any::<u64>()).prop_map(|(kind, v)| v & !0xfff | v & 0xf0 | kind)
    ];
    let pasid = proptest::option::of(0u32..3);
    prop_oneof![
        1 => (offset.clone(), 0usize..12).prop_map(|(offset, width)| Action::Read(offset, width)),
        4 => (offset, data).prop_map(|(offset, data)| Action::Write(offset, data)),
        4 => (0u64..0x8_0000, entry).prop_map(|(at, value)| Action::Memory(at & !7, value)),
        4 => (low, any::<u64>()).prop_map(|(low, high)| Action::Descriptor([low, high, 0, 0])),
        4 => (0x17u16..0x1a, pasid.clone(), address.clone(), any::<bool>(), any::<bool>())
            .prop_map(|(device, pasid, iova, write, ats)| Action::Translate(device, pasid, iova, write, ats)),
        2 => (0x17u16..0x1a, pasid, address, any::<bool>(), 0u64..512)
            .prop_map(|(device, pasid, iova, last, group)| Action::Ask(device, pasid, iova, last, group)),
        1 => Just(Action::Reset),
    ]
}

fn perform(guest: &Guest, action: Action) {
    match action {
        Action::Read(offset, width) => guest.iommu.read(offset, &mut vec![0; width]),
        Action::Write(offset, data) => guest.iommu.write(offset, &data),
        Action::Memory(at, value) => guest.store(at, value),
        Action::Descriptor(raw) => guest.submit_raw(&[raw]),
        Action::Translate(device, pasid, iova, write, ats) => {
            let kind = if ats { RequestKind::Translation } else { RequestKind::Untranslated };
            let (requester, pasid) = (Bdf(device), pasid.and_then(Pasid::new));
            let request = TranslationRequest { requester, pasid, iova: Iova(iova), write, kind };
            if let Ok(seen) = guest.iommu.translate(&request)
                && (seen.read || seen.write)
            {
                // A device may rely on an aligned block, and on no write permission that it did not request.
                assert_eq!(seen.gpa, seen.gpa.align_down(seen.page_shift));
                assert!(seen.gpa_of(Iova(iova)).0 >> 52 == 0 || !ats);
                assert!(write || !seen.write || !ats);
            }
        }
        Action::Ask(device, pasid, iova, last, group) => guest.iommu.page_request(PageRequest {
            requester: Bdf(device),
            pasid: pasid.and_then(Pasid::new),
            page: Iova(iova),
            read: true,
            write: true,
            last,
            group: PrgIndex::truncated(group),
        }),
        Action::Reset => guest.iommu.reset(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(150) })]

    #[test]
    fn nothing_a_guest_does_breaks_the_unit(actions in proptest::collection::vec(actions(), 1..200)) {
        let mut guest = Guest::booted();
        actions.into_iter().for_each(|action| perform(&guest, action));
        // After all that, a reset and a boot make the unit work again.
        guest.iommu.reset();
        guest.reboot();
        guest.map_user(VA, 0x8000);
        prop_assert!(guest.ats(VA, true).unwrap().write);
        guest.ask(VA, true, 1);
        prop_assert_eq!(guest.take_page_requests().len(), 1);
        prop_assert!(guest.submit(&[d::iotlb_global()]));
    }
}
