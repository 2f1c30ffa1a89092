//! Targets of the IOMMU, and the machine that they share.

pub mod queue;
pub mod registers;
pub mod requests;
pub mod tables;

use std::sync::{Arc, Mutex};

use refault_bus::ats::{
    AtsEndpoint, InvalidationRequest, RequestKind, Translation, TranslationAgent, TranslationError,
    TranslationRequest,
};
use refault_bus::dma::{DmaMemory, GuestRam};
use refault_bus::mmio::MmioDevice;
use refault_bus::pri::PageGroupResponse;
use refault_bus::probe::NoProbe;
use refault_bus::sync::lock;
use refault_bus::{Bdf, Gpa, Iova, Pasid};
use refault_iommu::spec::registers::offset as reg;
use refault_iommu::{Iommu, IommuConfig};
use refault_model::interrupts::InterruptController;
use refault_model::memory::FRAME;
use refault_model::paging::{PageSize, Rights};
use refault_model::registers::RegisterWindow;
use refault_model::vtd::{Descriptor, Function, FunctionSetup, RemappingUnit, RemappingUnitSetup};
use refault_model::{GuestMemory, Pause, Process};
use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::watch::{Access, How, WatchedMemory};

/// Bytes of guest memory.
const MEMORY: u64 = 8 << 20;
/// The device below the unit.
const DEVICE: Bdf = Bdf::new(0, 3, 0);
/// The process that is bound to it.
const PASID: Pasid = Pasid::truncated(1);
/// Where the process has memory.
const AREA: Iova = Iova(0x7f00_0000_0000);
/// The most that a walk may access: root, context, directory and PASID entry, and four levels, each read and marked.
/// Entries may be read in pieces.
const WALK_MAX: usize = 24;
/// Small caches, so that entries are evicted.
const SMALL: IommuConfig = IommuConfig { iotlb_entries: 8, pasid_entries: 2 };

/// What a device hears from the unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    Invalidation(InvalidationRequest),
    Drain,
    Response(PageGroupResponse),
}

/// A device that keeps what it hears.
#[derive(Default)]
struct Ear(Mutex<Vec<Heard>>);

impl Ear {
    fn hear(&self, heard: Heard) {
        lock(&self.0).push(heard);
    }

    fn take(&self) -> Vec<Heard> {
        std::mem::take(&mut lock(&self.0))
    }
}

impl AtsEndpoint for Ear {
    fn invalidate(&self, request: InvalidationRequest) {
        self.hear(Heard::Invalidation(request));
    }

    fn drain(&self) {
        self.hear(Heard::Drain);
    }

    fn page_group_response(&self, response: PageGroupResponse) {
        self.hear(Heard::Response(response));
    }
}

/// What the unit is doing, and so how it may change memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Doing {
    /// A register write, which may run the queue.
    Registers,
    /// A translation.
    Walk,
    /// A page request, with PQA as it was.
    PageRequest(u64),
}

/// A unit that Linux has brought up, with a device and a process that is bound to it.
struct World {
    ram: Arc<dyn DmaMemory>,
    watched: Arc<WatchedMemory>,
    iommu: Arc<Iommu>,
    interrupts: Arc<InterruptController>,
    ear: Arc<Ear>,
    kernel: Kernel,
}

/// The drivers of a kernel, and the process.
struct Kernel {
    memory: Arc<GuestMemory>,
    unit: Arc<RemappingUnit>,
    function: Arc<Function>,
    process: Arc<Process>,
}

impl World {
    fn new() -> Self {
        let regions = [(GuestAddress(0), MEMORY as usize)];
        let memory = GuestMemoryMmap::<()>::from_ranges(&regions).expect("memory of the host");
        let ram: Arc<dyn DmaMemory> = Arc::new(GuestRam::new(Arc::new(memory)));
        let watched = WatchedMemory::new(ram.clone());
        let interrupts = Arc::new(InterruptController::default());
        let iommu = Arc::new(Iommu::new(SMALL, watched.clone(), interrupts.clone(), Arc::new(NoProbe)));
        let ear = Arc::new(Ear::default());
        let endpoint: Arc<dyn AtsEndpoint> = ear.clone();
        iommu.attach(DEVICE, Arc::downgrade(&endpoint));
        let kernel = Kernel::boot(&ram, &iommu);
        ear.take();
        watched.take();
        Self { ram, watched, iommu, interrupts, ear, kernel }
    }

    /// Resets the machine, and boots another kernel in the same memory.
    fn reboot(self) -> Self {
        self.iommu.reset();
        let kernel = Kernel::boot(&self.ram, &self.iommu);
        self.ear.take();
        self.watched.take();
        Self { kernel, ..self }
    }

    fn read32(&self, offset: u64) -> u32 {
        self.kernel.unit.registers().read32(offset)
    }

    fn read64(&self, offset: u64) -> u64 {
        self.kernel.unit.registers().read64(offset)
    }

    /// Lets the unit do something, and checks what it did to memory: no more than `most` accesses, and changes only where
    /// the specification has the unit change memory.
    fn watch<T>(&self, doing: Doing, most: usize, act: impl FnOnce() -> T) -> (T, Vec<Access>) {
        self.watched.take();
        let result = act();
        let accesses = self.watched.take();
        assert!(accesses.len() <= most, "{} accesses, {most} were enough", accesses.len());
        accesses.iter().filter(|access| access.how.changes()).for_each(|access| check_change(doing, access));
        (result, accesses)
    }

    fn translate(&self, request: &TranslationRequest) -> Result<Translation, TranslationError> {
        let (answer, _) = self.watch(Doing::Walk, WALK_MAX, || self.iommu.translate(request));
        if let Ok(found) = answer
            && (found.read || found.write)
        {
            // A device may rely on an aligned block, and on no right that it did not ask for.
            assert_eq!(found.gpa, found.gpa.align_down(found.page_shift));
            assert!(request.kind == RequestKind::Untranslated || request.write || !found.write);
        }
        answer
    }

    /// Flushes all that the unit may have cached.
    fn flush_all(&self) -> bool {
        let all = [Descriptor::contexts(), Descriptor::pasid_cache(), Descriptor::iotlb()];
        self.kernel.unit.queue.submit(&all, false).is_ok()
    }

    /// After a reset, everything works.
    fn recovers(self) {
        let next = self.reboot();
        let leaf = next.kernel.process.fault_at(AREA, true).expect("a page");
        let request = TranslationRequest {
            requester: DEVICE,
            pasid: Some(PASID),
            iova: AREA,
            write: true,
            kind: RequestKind::Translation,
        };
        let found = next.translate(&request).expect("the unit translates");
        assert!(found.write && found.gpa_of(AREA) == leaf.gpa);
        assert!(next.flush_all(), "the queue runs");
    }
}

impl Kernel {
    fn boot(ram: &Arc<dyn DmaMemory>, iommu: &Arc<Iommu>) -> Self {
        let memory = GuestMemory::new(ram.clone(), std::iter::once(FRAME..MEMORY));
        let window: Arc<dyn MmioDevice> = iommu.clone();
        let unit = RemappingUnit::bring_up(RemappingUnitSetup {
            registers: RegisterWindow::new(window),
            memory: memory.clone(),
            // The unit has done all before an access returns.
            pause: Pause::new(|polled| polled < 4),
            fault_vector: 0x30,
            page_request_vector: 0x31,
            page_request_order: 0,
        });
        let unit = unit.expect("the unit comes up");
        let function = unit.probe(FunctionSetup::capable(DEVICE)).expect("a function");
        function.attach_pass_through().expect("an entry");
        function.set_ats_enabled(true);
        unit.enable_translation().expect("translation is on");
        let process = Process::new(memory.clone()).expect("a process");
        process.bind(&function, PASID).expect("a free PASID");
        process.map_area(AREA, 1 << 20, Rights::Write, PageSize::Small);
        Self { memory, unit, function, process }
    }
}

/// The unit changes memory in three ways: it marks entries as accessed or dirty, writes page requests into their queue,
/// and writes the status of a wait descriptor.
fn check_change(doing: Doing, access: &Access) {
    const MARKS: u64 = 1 << 5 | 1 << 6;
    match (doing, access.how) {
        (Doing::Walk, How::Exchange(from, to)) => {
            assert!(from & 1 != 0 && from | MARKS == to | MARKS && from & !to == 0, "{access:x?}");
        }
        (Doing::Registers, How::Store(_)) => assert_eq!(access.len, 4),
        (Doing::PageRequest(address), How::Write) => {
            let offset = access.at.0.wrapping_sub(address & !0xfff);
            assert_eq!((access.len, access.at.0 % 32), (32, 0));
            assert!(offset < FRAME << (address & 7), "{access:x?} is outside the queue at {address:#x}");
        }
        _ => panic!("the unit must not change memory so: {access:x?}"),
    }
}

/// A requester: mostly the device.
fn requester(choice: u8) -> Bdf {
    match choice % 8 {
        0 => Bdf::new(0, 3, 1),
        1 => Bdf::new(0, 19, 0),
        2 => Bdf::new(1, 0, 0),
        _ => DEVICE,
    }
}

/// A PASID: mostly none or the process's.
fn pasid(choice: u8) -> Option<Pasid> {
    match choice % 8 {
        0..=2 => None,
        3 => Pasid::new(0),
        4 => Pasid::new(65),
        5 => Pasid::new(0xf_ffff),
        _ => Some(PASID),
    }
}

/// The address of the ring of the invalidation queue, as the registers have it.
fn ring(world: &World) -> Gpa {
    Gpa(world.read64(reg::IQA) & !0xfff)
}
