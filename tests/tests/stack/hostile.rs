//! A guest that writes anything anywhere, to the IOMMU, to the NIC, and to the memory that both read: neither
//! panics, hangs or works forever, and the next kernel finds both usable.

use proptest::collection::vec;
use proptest::prelude::*;
use refault_bus::mmio::MmioDevice;
use refault_bus::pri::ResponseCode;
use refault_bus::{Gpa, Iova, Pasid, PrgIndex};
use refault_model::memory::FRAME;
use refault_model::paging::PageTableEntry;
use refault_model::vtd::Descriptor;
use refault_pci::PciFunction;
use refault_tests::machine::{Machine, MachineSetup};
use refault_tests::session::Session;

use crate::support::*;

/// End of the memory from which the first frames are allocated: all tables and rings are below.
const TABLES: u64 = 4 << 20;

/// One action of a guest.
#[derive(Clone, Debug)]
enum Act {
    /// Write a register of the IOMMU.
    Iommu { offset: u64, data: Vec<u8> },
    /// Write a BAR of the NIC.
    Bar { bar: u8, offset: u64, data: Vec<u8> },
    /// Write config space.
    Config { offset: u16, data: Vec<u8> },
    /// Overwrite memory where tables and rings lie.
    Scribble { at: u64, data: Vec<u8> },
    /// Submit descriptors without waiting for them.
    Descriptors(Vec<[u64; 2]>),
    /// Put an entry into the process' tables.
    Entry { page: u64, level: u8, value: u64 },
    /// Answer a page request that was never sent.
    Respond { pasid: Option<u32>, group: u64, code: u8 },
    /// Use the device as it is meant to be used.
    Write { offset: u64, length: u32 },
    /// Take a page away.
    Take { page: u64 },
    /// Serve page requests.
    Serve,
    /// Let time pass.
    Time,
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => prop_oneof![any::<u64>(), 0..64u64, (0..TABLES >> 12).prop_map(|frame| frame << 12 | 1)]
            .prop_map(|value| value.to_le_bytes().to_vec()),
        2 => prop_oneof![any::<u32>(), 0..64u32, Just(1 << 31), Just(1 << 30)]
            .prop_map(|value| value.to_le_bytes().to_vec()),
        1 => vec(any::<u8>(), 1..9),
    ]
}

fn descriptor() -> impl Strategy<Value = [u64; 2]> {
    let fields = prop_oneof![any::<u64>(), 0..0x1_0000_0000u64];
    (0..16u64, fields, any::<u64>()).prop_map(|(kind, fields, operand)| [fields & !0xf | kind, operand])
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (prop_oneof![0..0x120u64, 0..0x400u64], bytes())
            .prop_map(|(offset, data)| Act::Iommu { offset, data }),
        3 => (prop::sample::select(vec![0, 2, 4]), 0..0x240u64, bytes())
            .prop_map(|(bar, offset, data)| Act::Bar { bar, offset: offset & !3, data }),
        1 => (0..0x180u16, bytes()).prop_map(|(offset, data)| Act::Config { offset, data }),
        3 => (FRAME..TABLES, vec(any::<u8>(), 1..64)).prop_map(|(at, data)| Act::Scribble { at, data }),
        2 => vec(descriptor(), 1..6).prop_map(Act::Descriptors),
        2 => (0..16u64, 1..5u8, prop_oneof![any::<u64>(), (0..TABLES >> 12).prop_map(|frame| frame << 12 | 7)])
            .prop_map(|(page, level, value)| Act::Entry { page, level, value }),
        1 => (prop::option::of(0..4u32), 0..8u64, 0..16u8)
            .prop_map(|(pasid, group, code)| Act::Respond { pasid, group, code }),
        4 => (0..16 * FRAME, 1..100_000u32).prop_map(|(offset, length)| Act::Write { offset, length }),
        2 => (0..16u64).prop_map(|page| Act::Take { page }),
        2 => Just(Act::Serve),
        1 => Just(Act::Time),
    ]
}

/// Performs one action. Errors of the guest's own drivers are ignored: the state may be inconsistent.
fn play(machine: &Machine, session: &mut Session, act: &Act) {
    match act {
        Act::Iommu { offset, data } => machine.iommu.write(*offset, data),
        Act::Bar { bar, offset, data } => machine.nic.bar_write(*bar, *offset, data),
        Act::Config { offset, data } => drop(machine.nic.config_write(*offset, data)),
        Act::Scribble { at, data } => drop(machine.memory.dma().write(Gpa(*at), data)),
        Act::Descriptors(batch) => {
            let batch: Vec<_> = batch.iter().map(|[low, high]| Descriptor([*low, *high, 0, 0])).collect();
            let _ = machine.unit.queue.submit_raw(&batch);
        }
        Act::Entry { page, level, value } => {
            let _ =
                session.process.space.set_raw(Iova(TARGET.0 + page * FRAME), *level, PageTableEntry(*value));
        }
        Act::Respond { pasid, group, code } => {
            let pasid = pasid.and_then(Pasid::new);
            let group = PrgIndex::truncated(*group);
            let code = ResponseCode::from_bits(*code);
            let requester = machine.function.requester();
            let response = Descriptor::page_group_response(requester, pasid, group, code);
            let _ = machine.unit.queue.submit_raw(&[response]);
        }
        Act::Write { offset, length } => {
            session.write(1, SOURCE, Iova(TARGET.0 + offset), *length);
        }
        Act::Take { page } => drop(session.process.space.unmap(Iova(TARGET.0 + page * FRAME))),
        Act::Serve => drop(
            machine
                .unit
                .service_page_requests(|request| refault_model::vtd::Answer::Now(machine.fault(request))),
        ),
        Act::Time => drop(machine.pass_time()),
    }
    assert!((0..10_000).any(|_| !machine.poll()), "the NIC does not become idle");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_guest_writes_both_devices_become_idle_and_serve_the_next(acts in vec(act(), 1..80)) {
        // The driver of a stopped device waits without success.
        let (machine, mut session) = ready(MachineSetup { short_waits: true, ..MachineSetup::default() });
        for act in &acts {
            play(&machine, &mut session, act);
        }
        let machine = machine.reboot(MachineSetup::default());
        let mut session = open(&machine, 1);
        let bytes = fill_source(&session, 10_000, 1);
        session.write(1, SOURCE, TARGET, 10_000);
        machine.settle();
        assert_success(&session.drain(), [1]);
        assert_eq!(bytes_at(&session, TARGET, 10_000), bytes);
    }
}
