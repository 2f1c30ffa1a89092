//! The kernel's IOMMU driver against the IOMMU, without a NIC: bring-up, binding, flushing, draining.

use std::sync::Arc;

use refault_bus::ats::Translation;
use refault_bus::pri::ResponseCode;
use refault_bus::probe::NoProbe;
use refault_bus::{Bdf, Gpa, Iova, Pasid};
use refault_iommu::IommuConfig;
use refault_model::memory::FRAME;
use refault_model::paging::{PageSize, Rights};
use refault_model::vtd::{Answer, Descriptor, Function, FunctionSetup, RemappingUnit};
use refault_model::{ModelError, Pause, Process};
use refault_tests::plain_device::PlainDevice;
use refault_tests::platform::{FAULT_VECTOR, PAGE_REQUEST_VECTOR, Platform};

const BDF: Bdf = Bdf::new(0, 3, 0);
const PASID: Pasid = Pasid::truncated(1);
const BASE: Iova = Iova(0x7f00_0000_0000);

/// A machine with one plain device behind a translating IOMMU, and a process bound to it.
struct Bound {
    platform: Platform,
    unit: Arc<RemappingUnit>,
    device: Arc<PlainDevice>,
    function: Arc<Function>,
    process: Arc<Process>,
}

fn pause() -> Pause {
    Pause::spin(100_000_000)
}

fn bound() -> Bound {
    let platform = Platform::new(64 << 20, IommuConfig::default(), Arc::new(NoProbe)).unwrap();
    let device = PlainDevice::attach(BDF, &platform.iommu);
    let unit = platform.bring_up(pause());
    let function = unit.probe(FunctionSetup::capable(BDF)).unwrap();
    function.attach_pass_through().unwrap();
    function.set_ats_enabled(true);
    unit.enable_translation().unwrap();
    let process = Process::new(platform.memory.clone()).unwrap();
    process.map_area(BASE, 64 * FRAME, Rights::Write, PageSize::Small);
    process.bind(&function, PASID).unwrap();
    device.take_invalidations();
    Bound { platform, unit, device, function, process }
}

impl Bound {
    fn serve(&self) -> usize {
        let process = &self.process;
        self.unit.service_page_requests(|request| Answer::Now(process.fault(request))).unwrap()
    }
}

#[test]
fn a_fault_reaches_the_process_and_its_answer_the_device() {
    let bound = bound();
    assert_eq!(bound.device.translate(Some(PASID), BASE), Translation::NONE);
    bound.device.request_page(Some(PASID), BASE, 7);
    assert_eq!(bound.platform.interrupts.take(PAGE_REQUEST_VECTOR), 1);
    assert_eq!(bound.serve(), 1);
    let responses = bound.device.take_responses();
    assert_eq!(responses.len(), 1);
    assert_eq!((responses[0].pasid, responses[0].code), (Some(PASID), ResponseCode::Success));
    let leaf = bound.process.space.lookup(BASE).unwrap().unwrap();
    let answer = bound.device.translate(Some(PASID), BASE);
    assert!(answer.write && answer.gpa == leaf.gpa);
    assert!(bound.process.space.lookup(BASE).unwrap().unwrap().dirty());
}

#[test]
fn addresses_outside_every_area_are_refused() {
    let bound = bound();
    bound.device.request_page(Some(PASID), Iova(0x1000), 1);
    bound.device.request_page(Some(PASID), Iova(0xffff_8880_0000_0000), 2);
    assert_eq!(bound.serve(), 2);
    let codes: Vec<_> = bound.device.take_responses().iter().map(|response| response.code).collect();
    assert_eq!(codes, [ResponseCode::InvalidRequest; 2]);
}

#[test]
fn a_taken_page_is_gone_when_the_flush_returns() {
    let bound = bound();
    bound.process.write(BASE, b"here").unwrap();
    let before = bound.device.translate(Some(PASID), BASE);
    let taken = bound.process.take_page(BASE).unwrap();
    assert_eq!(taken.gpa, before.gpa);
    assert_eq!(bound.device.translate(Some(PASID), BASE), Translation::NONE);
    let flushed = bound.device.take_invalidations();
    assert_eq!(flushed.len(), 1);
    assert_eq!((flushed[0].pasid, flushed[0].iova, flushed[0].size_shift), (Some(PASID), BASE, 12));
}

#[test]
fn unbinding_waits_for_requests_that_were_not_taken_yet() {
    let bound = bound();
    for group in 0..5 {
        bound.device.request_page(Some(PASID), Iova(BASE.0 + u64::from(group) * FRAME), group);
    }
    let mut rounds = 0;
    let (unit, process) = (bound.unit.clone(), bound.process.clone());
    bound
        .process
        .unbind(&bound.function, PASID, &mut || {
            rounds += 1;
            unit.service_page_requests(|request| Answer::Now(process.fault(request))).map(drop)
        })
        .unwrap();
    assert!(rounds >= 1 && bound.unit.page_requests.is_empty());
    assert_eq!(bound.device.take_responses().len(), 5);
    assert!(bound.device.take_invalidations().iter().any(|flush| flush.everything()));
    assert_eq!(bound.device.translate(Some(PASID), BASE), Translation::NONE);
}

#[test]
fn unbinding_a_quiet_pasid_ends_without_any_page_request() {
    let bound = bound();
    bound.process.unbind(&bound.function, PASID, &mut || Ok(())).unwrap();
    bound.process.bind(&bound.function, PASID).unwrap();
    bound.process.write(BASE, b"again").unwrap();
    assert!(bound.device.translate(Some(PASID), BASE).write);
}

#[test]
fn faults_of_a_process_that_ended_without_unbinding_are_not_recorded() {
    let bound = bound();
    bound.process.write(BASE, b"here").unwrap();
    assert!(bound.device.translate(Some(PASID), BASE).write);
    bound.function.release(PASID).unwrap();
    assert_eq!(bound.device.translate(Some(PASID), BASE), Translation::NONE);
    assert_eq!(bound.platform.interrupts.pending(FAULT_VECTOR), 0);
    assert_eq!(bound.unit.take_faults(), (vec![], false));
}

#[test]
fn a_restarted_kernel_finds_the_unit_usable() {
    let bound = bound();
    bound.process.write(BASE, b"here").unwrap();
    assert!(bound.device.translate(Some(PASID), BASE).write);
    bound.unit.shut_down().unwrap();
    // A crash kernel boots without a shutdown before it: it finds translation and the queue enabled.
    bound.unit.enable_translation().unwrap();
    let unit = bound.platform.bring_up(pause());
    let function = unit.probe(FunctionSetup::capable(BDF)).unwrap();
    function.attach_pass_through().unwrap();
    unit.enable_translation().unwrap();
    assert_eq!(bound.device.translate(Some(PASID), BASE), Translation::NONE);
    assert!(bound.device.translate(None, Iova(0x5000)).write);
    function.bind(PASID, &bound.process.space).unwrap();
    assert!(bound.device.translate(Some(PASID), BASE).write);
}

#[test]
fn a_blocked_function_is_recorded_and_can_be_attached_again() {
    let bound = bound();
    bound.function.detach_domain().unwrap();
    assert_eq!(bound.device.translate(None, Iova(0x5000)), Translation::NONE);
    assert!(!bound.device.writes_untranslated(Iova(0x5000)));
    assert_eq!(bound.platform.interrupts.take(FAULT_VECTOR), 1);
    let (faults, lost) = bound.unit.take_faults();
    assert_eq!((faults.len(), faults[0].requester, faults[0].pasid, lost), (1, BDF, None, false));
    bound.function.attach_pass_through().unwrap();
    assert!(bound.device.writes_untranslated(Iova(0x5000)));
    assert_eq!(bound.device.translate(None, Iova(0x5000)).gpa_of(Iova(0x5000)), Gpa(0x5000));
}

#[test]
fn large_pages_answer_whole_and_split_without_losing_a_byte() {
    let bound = bound();
    let large = Iova(0x7f40_0000_0000);
    bound.process.map_area(large, 4 << 20, Rights::Write, PageSize::Large);
    bound.process.write(Iova(large.0 + 0x12_3456), b"in the middle").unwrap();
    let answer = bound.device.translate(Some(PASID), large);
    assert_eq!(answer.page_shift, 21);
    bound.process.space.split(large).unwrap();
    bound.process.flush(large, 2 << 20).unwrap();
    let piece = Iova(large.0 + 0x12_3000);
    let answer_after = bound.device.translate(Some(PASID), piece);
    assert_eq!(answer_after.page_shift, 12);
    assert_eq!(answer_after.gpa, Gpa(answer.gpa.0 + 0x12_3000));
    let bytes = bound.platform.memory.bytes(Gpa(answer_after.gpa.0 + 0x456), 13).unwrap();
    assert_eq!(bytes, b"in the middle");
}

#[test]
fn an_unknown_descriptor_stops_the_queue_until_the_kernel_has_repaired_it() {
    let bound = bound();
    let nonsense = Descriptor([0xf, 0, 0, 0]);
    let error = bound.unit.queue.submit(&[nonsense], false);
    assert!(matches!(error, Err(ModelError::BadDescriptor { qw0: 0xf, .. })), "{error:?}");
    bound.function.flush(PASID, BASE, Iova(BASE.0 + 0xfff)).unwrap();
    assert_eq!(bound.device.take_invalidations().len(), 1);
}

#[test]
fn many_submitters_share_the_queue_and_each_gets_its_own_wait() {
    let bound = bound();
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (function, process) = (&bound.function, &bound.process);
            scope.spawn(move || {
                for round in 0..500 {
                    let page = Iova(BASE.0 + (thread * 16 + round % 16) * FRAME);
                    process.fault_at(page, true).unwrap();
                    process.space.unmap(page).unwrap();
                    function.flush(PASID, page, Iova(page.0 + FRAME - 1)).unwrap();
                }
            });
        }
    });
    assert_eq!(bound.device.take_invalidations().len(), 2000);
}

#[test]
fn an_absent_capability_is_named() {
    use refault_bus::mmio::MmioDevice;
    use refault_model::registers::RegisterWindow;
    use refault_model::vtd::RemappingUnitSetup;

    /// A unit that has only capability registers: all capabilities but coherent walks.
    struct Lacking;
    impl MmioDevice for Lacking {
        fn read(&self, offset: u64, data: &mut [u8]) {
            let value = if offset == 0x10 { !(1u64 << 48) } else { 0 };
            data.copy_from_slice(&value.to_le_bytes()[..data.len()]);
        }

        fn write(&self, _: u64, _: &[u8]) {}
    }
    let bound = bound();
    let setup = bound.platform.unit_setup(pause());
    let outcome = RemappingUnit::bring_up(RemappingUnitSetup {
        registers: RegisterWindow::new(Arc::new(Lacking)),
        ..setup
    });
    let error = outcome.err().map(|error| error.to_string());
    assert_eq!(error.as_deref(), Some("the IOMMU does not offer coherent walks (ECAP.SMPWC)"));
}
