//! The delays between stub devices that record what arrives.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, unbounded};
use refault_abi::doorbell::{DOORBELL_CQ_ARM, DOORBELL_SQ, Doorbell};
use refault_bus::ats::*;
use refault_bus::irq::{MsiMessage, MsiSink};
use refault_bus::mmio::MmioDevice;
use refault_bus::pri::{PageGroupResponse, PageRequest, ResponseCode};
use refault_bus::{Bdf, Gpa, Iova, PrgIndex};
use refault_pci::{Endpoint, Identity, PciFunction};

use super::pace::LONGEST_PAUSE_NS;
use super::*;

const MS: u64 = 1_000_000;
/// A delay far longer than a test.
const NEVER: u64 = 3_600_000 * MS;

/// What arrived at the far end of a seam.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arrived {
    PageRequest,
    Response,
    /// An invalidation of everything.
    Everything,
    Interrupt(u32),
    Doorbell(u64),
    Reset,
}

/// A stub for every device at the far end of a seam.
struct FarEnd {
    arrivals: Mutex<Sender<(Arrived, Instant)>>,
    endpoint: Endpoint,
}

impl FarEnd {
    fn record(&self, arrived: Arrived) {
        self.arrivals.lock().unwrap().send((arrived, Instant::now())).unwrap();
    }
}

impl TranslationAgent for FarEnd {
    fn translate(&self, _request: &TranslationRequest) -> Result<Translation, TranslationError> {
        Ok(Translation { gpa: Gpa(0x1000), page_shift: 12, read: true, write: true })
    }

    fn page_request(&self, _request: PageRequest) {
        self.record(Arrived::PageRequest);
    }
}

impl AtsEndpoint for FarEnd {
    fn invalidate(&self, request: InvalidationRequest) {
        if request.everything() {
            self.record(Arrived::Everything);
        }
    }

    fn drain(&self) {}

    fn page_group_response(&self, _response: PageGroupResponse) {
        self.record(Arrived::Response);
    }
}

impl MsiSink for FarEnd {
    fn signal(&self, message: MsiMessage) {
        self.record(Arrived::Interrupt(message.data));
    }
}

impl MmioDevice for FarEnd {
    fn read(&self, _offset: u64, _data: &mut [u8]) {}

    fn write(&self, _offset: u64, _data: &[u8]) {}
}

impl PciFunction for FarEnd {
    fn bdf(&self) -> Bdf {
        Bdf::new(0, 3, 0)
    }

    fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    fn bar_read(&self, _bar: u8, _offset: u64, _data: &mut [u8]) {}

    fn bar_write(&self, _bar: u8, offset: u64, _data: &[u8]) {
        self.record(Arrived::Doorbell(offset));
    }

    fn reset(&self) {
        self.record(Arrived::Reset);
    }
}

/// The delayed seams between stubs.
struct Bench {
    seams: DelayedSeams,
    agent: Arc<dyn TranslationAgent>,
    nic: DelayedNic,
    arrivals: Receiver<(Arrived, Instant)>,
    start: Instant,
    far: Arc<FarEnd>,
}

fn bench(change: impl Fn(&mut Timing)) -> Bench {
    let mut timing = Timing::instant(1000);
    change(&mut timing);
    let (sender, arrivals) = unbounded();
    let identity =
        Identity { vendor: 1, device: 2, class: 3, revision: 1, subsystem_vendor: 1, subsystem: 2 };
    let endpoint = Endpoint::builder(identity).build().unwrap();
    let far = Arc::new(FarEnd { arrivals: Mutex::new(sender), endpoint });
    let seams = DelayedSeams::new(timing, far.clone()).unwrap();
    let root = seams.root(far.clone()).unwrap();
    let agent = root.agent();
    let nic = root.nic(far.clone(), far.clone()).unwrap();
    Bench { seams, agent, nic, arrivals, start: Instant::now(), far }
}

impl Bench {
    /// The next arrival.
    fn expect(&self, arrived: Arrived) {
        assert_eq!(self.arrivals.recv().unwrap().0, arrived);
    }

    fn nothing_more(&self) {
        assert!(self.arrivals.is_empty(), "{:?}", self.arrivals.try_recv());
    }

    fn request_page(&self) {
        self.agent.page_request(PageRequest {
            requester: self.far.bdf(),
            pasid: None,
            page: Iova(0),
            read: true,
            write: false,
            last: true,
            group: PrgIndex::truncated(1),
        });
    }

    fn respond(&self) {
        let group = PrgIndex::truncated(1);
        let response = PageGroupResponse { pasid: None, group, code: ResponseCode::Success };
        self.nic.endpoint().upgrade().unwrap().page_group_response(response);
    }

    fn ring(&self, kind: u64, offset: u64) {
        let value =
            Doorbell { kind: u8::try_from(kind).expect("a kind of 8 bits"), number: 1, argument: 0 }.encode();
        self.nic.function.bar_write(2, offset, &value.to_le_bytes());
    }

    fn interrupt(&self, data: u32) {
        self.seams.interrupts().signal(MsiMessage { address: 0, data });
    }
}

#[test]
fn each_message_is_delayed_and_its_sender_is_not() {
    let bench = bench(|timing| {
        timing.page_request = Delay::Constant(3 * MS);
        timing.queue_write = Delay::Constant(2 * MS);
        timing.response_message = Delay::Constant(6 * MS);
        timing.device_wake = Delay::Constant(4 * MS);
        timing.interrupt = Delay::Constant(15 * MS);
        timing.doorbell = Delay::Constant(20 * MS);
    });
    bench.ring(DOORBELL_SQ, 0x1000);
    bench.interrupt(7);
    bench.respond();
    bench.request_page();
    let least = [
        (Arrived::PageRequest, 5),
        (Arrived::Response, 10),
        (Arrived::Interrupt(7), 15),
        (Arrived::Doorbell(0x1000), 20),
    ];
    let arrivals: Vec<_> = bench.arrivals.iter().take(least.len()).collect();
    for (message, ms) in least {
        let (_, at) = arrivals.iter().find(|(arrived, _)| *arrived == message).expect("it arrives");
        assert!(*at - bench.start >= Duration::from_millis(ms), "{message:?} after {:?}", *at - bench.start);
    }
}

#[test]
fn a_read_of_a_register_pushes_the_interrupts_before_it() {
    let bench = bench(|timing| timing.interrupt = Delay::Constant(NEVER));
    let reads: [&dyn Fn(&Bench); 4] = [
        &|bench| bench.nic.function.bar_read(0, 0, &mut [0; 4]),
        &|bench| bench.nic.function.config_read(0, &mut [0; 4]),
        &|bench| bench.seams.registers(bench.far.clone()).read(0, &mut [0; 4]),
        &|bench| bench.nic.function.reset(),
    ];
    for (number, read) in (0..).zip(reads) {
        bench.interrupt(number);
        bench.nothing_more();
        read(&bench);
        let arrived: Vec<_> = bench.arrivals.try_iter().map(|(arrived, _)| arrived).collect();
        assert!(arrived.contains(&Arrived::Interrupt(number)), "{number}: {arrived:?}");
    }
}

#[test]
fn a_reset_leaves_no_message_of_the_device_in_flight() {
    let bench = bench(|timing| {
        for step in ["doorbell", "page_request", "response_message"] {
            *timing.step_mut(step).unwrap() = Delay::Constant(300 * MS);
        }
    });
    bench.ring(DOORBELL_SQ, 0);
    bench.request_page();
    bench.respond();
    bench.nic.function.reset();
    std::thread::sleep(Duration::from_millis(400));
    bench.expect(Arrived::Reset);
    bench.nothing_more();
}

#[test]
fn messages_do_not_outlive_the_address_space_that_they_belong_to() {
    let bench = bench(|timing| {
        for step in ["page_request", "response_message"] {
            *timing.step_mut(step).unwrap() = Delay::Constant(NEVER);
        }
    });
    let endpoint = bench.nic.endpoint().upgrade().unwrap();
    let invalidate = |size_shift| {
        endpoint.invalidate(InvalidationRequest { pasid: None, iova: Iova(0), size_shift });
    };
    bench.request_page();
    bench.respond();
    // A page that is taken away may be asked for all the same.
    invalidate(12);
    bench.nothing_more();
    // An address space that ends: the response comes before the invalidation, the request before its completion.
    invalidate(64);
    let arrived: Vec<_> = bench.arrivals.try_iter().map(|(arrived, _)| arrived).collect();
    assert_eq!(arrived, [Arrived::Response, Arrived::Everything, Arrived::PageRequest]);
}

#[test]
fn only_send_doorbells_are_delayed() {
    let bench = bench(|timing| timing.doorbell = Delay::Constant(NEVER));
    bench.ring(DOORBELL_CQ_ARM, 0x2000);
    bench.expect(Arrived::Doorbell(0x2000));
    bench.nic.function.bar_write(0, 0x30, &[0; 8]);
    bench.expect(Arrived::Doorbell(0x30));
}

#[test]
fn calls_that_return_a_result_are_delayed_up_to_the_limit() {
    let bench = bench(|timing| {
        timing.translation = Delay::Constant(50_000);
        timing.invalidation = Delay::Constant(NEVER);
    });
    let took = |work: &dyn Fn()| {
        let start = Instant::now();
        work();
        start.elapsed()
    };
    let request = |kind| TranslationRequest {
        requester: bench.far.bdf(),
        pasid: None,
        iova: Iova(0),
        write: false,
        kind,
    };
    let translate = || {
        let _ = bench.agent.translate(&request(RequestKind::Translation));
    };
    assert!(took(&translate) >= Duration::from_nanos(50_000));
    let endpoint = bench.nic.endpoint().upgrade().unwrap();
    let everything = InvalidationRequest { pasid: None, iova: Iova(0), size_shift: 64 };
    // It ends, although the delay would take an hour.
    assert!(took(&|| endpoint.invalidate(everything)) >= Duration::from_nanos(LONGEST_PAUSE_NS));
}

#[test]
fn a_copy_takes_at_least_its_time() {
    let memory = vm_memory::GuestMemoryMmap::from_ranges(&[(vm_memory::GuestAddress(0), 1 << 20)]).unwrap();
    let ram: Arc<dyn DmaMemory> = Arc::new(refault_bus::dma::GuestRam::new(Arc::new(memory)));
    let bench = bench(|timing| timing.copy = Delay::Constant(10_000));
    let delayed = bench.seams.root(bench.far.clone()).unwrap().memory(ram);
    delayed.write(Gpa(0), b"moved").unwrap();
    let start = Instant::now();
    // 10 µs for the piece, and 40 µs for 40,000 bytes at 1000 in a microsecond.
    delayed.copy(Gpa(0), Gpa(0x8_0000), 40_000).unwrap();
    assert!(start.elapsed() >= Duration::from_micros(50));
    let mut moved = [0; 5];
    delayed.read(Gpa(0x8_0000), &mut moved).unwrap();
    assert_eq!(&moved, b"moved");
}

#[test]
fn the_coverage_names_every_step_of_a_timing() {
    let mut timing = Timing::instant(1000);
    for name in Timing::STEPS {
        *timing.step_mut(name).unwrap() = Delay::Constant(1);
    }
    let text = coverage(&timing);
    assert!(Timing::STEPS.iter().all(|name| text.contains(name)), "{text}");
    assert!(text.contains("not: fetch, completion (inside the device)"), "{text}");
    assert!(!coverage(&Timing::instant(1000)).contains("not:"));
}
