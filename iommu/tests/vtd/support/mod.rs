//! A guest without a processor: memory with an allocator, table builders, the register accesses of Linux, and a device
//! that records what it receives.

pub(crate) mod descriptors;
mod device;
mod memory;
mod tables;

use std::sync::{Arc, Mutex, MutexGuard};

use refault_bus::ats::{RequestKind, Translation, TranslationAgent, TranslationError, TranslationRequest};
use refault_bus::dma::{DmaMemory, GuestRam};
use refault_bus::irq::{MsiMessage, MsiSink};
use refault_bus::mmio::MmioDevice;
use refault_bus::pri::PageRequest;
use refault_bus::probe::{Probe, ProbeEvent};
use refault_bus::{Bdf, Gpa, Iova, Pasid, PrgIndex};
use refault_iommu::{Iommu, IommuConfig};
use vm_memory::{GuestAddress, GuestMemoryMmap};

pub(crate) use device::Device;
pub(crate) use memory::Interposed;
pub(crate) use tables::{Pte, context, context_entry_at, edit, map, pasid_entry_at, set_pasid_entry};

use descriptors::Raw;

/// Register offsets and bits as drivers/iommu/intel/iommu.h has them.
pub(crate) mod reg {
    pub(crate) const VER: u64 = 0x0;
    pub(crate) const CAP: u64 = 0x8;
    pub(crate) const ECAP: u64 = 0x10;
    pub(crate) const GCMD: u64 = 0x18;
    pub(crate) const GSTS: u64 = 0x1c;
    pub(crate) const RTADDR: u64 = 0x20;
    pub(crate) const CCMD: u64 = 0x28;
    pub(crate) const FSTS: u64 = 0x34;
    pub(crate) const FECTL: u64 = 0x38;
    pub(crate) const IQH: u64 = 0x80;
    pub(crate) const IQT: u64 = 0x88;
    pub(crate) const IQA: u64 = 0x90;
    pub(crate) const ICS: u64 = 0x9c;
    pub(crate) const IECTL: u64 = 0xa0;
    pub(crate) const IQER: u64 = 0xb0;
    pub(crate) const PQH: u64 = 0xc0;
    pub(crate) const PQT: u64 = 0xc8;
    pub(crate) const PQA: u64 = 0xd0;
    pub(crate) const PRS: u64 = 0xdc;
    pub(crate) const PECTL: u64 = 0xe0;
    pub(crate) const IOTLB: u64 = 0xf8;
    pub(crate) const FRCD: u64 = 0x220;

    pub(crate) const TE: u32 = 1 << 31;
    pub(crate) const SRTP: u32 = 1 << 30;
    pub(crate) const QIE: u32 = 1 << 26;
}

/// The device below the unit: bus 0, device 3, function 0.
pub(crate) const NIC: Bdf = Bdf(0x0018);

/// The first PASID that Linux allocates for SVA.
pub(crate) const PASID: Pasid = Pasid::truncated(1);

/// Domain of all SVA address spaces (FLPT_DEFAULT_DID).
pub(crate) const SVA_DOMAIN: u16 = 1;

/// Domain of the device's own DMA.
pub(crate) const DMA_DOMAIN: u16 = 2;

/// Interrupt messages as Linux programs them.
pub(crate) const FAULT_MSI: MsiMessage = MsiMessage { address: 0xfee0_1004, data: 0x21 };
pub(crate) const PRQ_MSI: MsiMessage = MsiMessage { address: 0xfee0_2004, data: 0x22 };

/// A user address that a process might use.
pub(crate) const VA: Iova = Iova(0x7f07_5d20_0000);

/// Low memory, then a hole, then memory above 4 GiB.
const LOW_BYTES: u64 = 16 << 20;
pub(crate) const HOLE: u64 = 0xc000_0000;
const HIGH_BASE: u64 = 0x1_0000_0000;

type Hook = Box<dyn Fn(&MsiMessage) + Send + Sync>;

/// Keeps the interrupt messages, and can run a hook while one is sent.
#[derive(Default)]
pub(crate) struct Messages {
    sent: Mutex<Vec<MsiMessage>>,
    hook: Mutex<Option<Hook>>,
}

impl MsiSink for Messages {
    fn signal(&self, message: MsiMessage) {
        if let Some(hook) = &*self.hook.lock().unwrap() {
            hook(&message);
        }
        self.sent.lock().unwrap().push(message);
    }
}

#[derive(Default)]
pub(crate) struct Events(Mutex<Vec<ProbeEvent>>);

impl Probe for Events {
    fn record(&self, event: &ProbeEvent) {
        self.0.lock().unwrap().push(*event);
    }
}

/// Machine, guest kernel and one device.
pub(crate) struct Guest {
    pub(crate) ram: Arc<GuestRam>,
    pub(crate) iommu: Arc<Iommu>,
    pub(crate) device: Arc<Device>,
    messages: Arc<Messages>,
    events: Arc<Events>,
    next_frame: Mutex<u64>,
    /// The value of GCMD that Linux keeps.
    command: Mutex<u32>,
    queue: Mutex<Queue>,
    pub(crate) layout: Layout,
}

/// Addresses of the tables and the page request queue after [`Guest::boot`].
#[derive(Clone, Copy, Default)]
pub(crate) struct Layout {
    pub(crate) root: u64,
    pub(crate) context: u64,
    pub(crate) directory: u64,
    pub(crate) dma_tables: u64,
    pub(crate) user_tables: u64,
    pub(crate) requests: u64,
}

#[derive(Default)]
struct Queue {
    base: u64,
    status: u64,
    tail: u64,
}

impl Guest {
    /// A machine after power-on.
    pub(crate) fn powered() -> Self {
        Self::powered_with(|ram| ram)
    }

    /// The same, with a layer between the unit and its memory.
    pub(crate) fn powered_with(wrap: impl FnOnce(Arc<GuestRam>) -> Arc<dyn DmaMemory>) -> Self {
        let regions = [(GuestAddress(0), LOW_BYTES as usize), (GuestAddress(HIGH_BASE), 4 << 20)];
        let ram = Arc::new(GuestRam::new(Arc::new(GuestMemoryMmap::from_ranges(&regions).unwrap())));
        let (messages, events) = (Arc::<Messages>::default(), Arc::<Events>::default());
        let iommu =
            Arc::new(Iommu::new(IommuConfig::default(), wrap(ram.clone()), messages.clone(), events.clone()));
        let device = Device::attach(&iommu, NIC);
        Self {
            ram,
            iommu,
            device,
            messages,
            events,
            next_frame: Mutex::new(0x10),
            command: Mutex::default(),
            queue: Mutex::default(),
            layout: Layout::default(),
        }
    }

    /// The same machine after Linux brought the unit up, with one process bound to [`PASID`].
    pub(crate) fn booted() -> Self {
        let mut guest = Self::powered();
        guest.boot();
        guest
    }

    /// What Linux does to the unit between power-on and the first bound process.
    pub(crate) fn boot(&mut self) {
        let guest = self;
        guest.enable_queue();
        guest.build_tables();
        guest.set_root();
        guest.enable_page_requests();
        guest.program_event(reg::FECTL, FAULT_MSI);
        guest.set_command(reg::TE);
        guest.device.invalidations();
    }

    /// Boots again with memory cleared, whatever it held before.
    pub(crate) fn reboot(&mut self) {
        for at in (0..LOW_BYTES).step_by(0x1000) {
            self.ram.write(Gpa(at), &[0; 0x1000]).unwrap();
        }
        *self.next_frame.get_mut().unwrap() = 0x10;
        *self.command.get_mut().unwrap() = 0;
        self.boot();
    }

    /// A zeroed page of low memory.
    pub(crate) fn page(&self) -> u64 {
        self.pages(1)
    }

    /// Zeroed pages, aligned to their number (a power of two).
    pub(crate) fn pages(&self, count: u64) -> u64 {
        let mut next = self.next_frame.lock().unwrap();
        let frame = next.next_multiple_of(count);
        *next = frame + count;
        assert!(*next << 12 <= LOW_BYTES, "test guest is out of memory");
        frame << 12
    }

    pub(crate) fn load(&self, at: u64) -> u64 {
        self.ram.load_u64(Gpa(at)).unwrap()
    }

    pub(crate) fn store(&self, at: u64, value: u64) {
        self.ram.store_u64(Gpa(at), value).unwrap();
    }

    pub(crate) fn read32(&self, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.iommu.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    pub(crate) fn read64(&self, offset: u64) -> u64 {
        let mut data = [0; 8];
        self.iommu.read(offset, &mut data);
        u64::from_le_bytes(data)
    }

    pub(crate) fn write32(&self, offset: u64, value: u32) {
        self.iommu.write(offset, &value.to_le_bytes());
    }

    pub(crate) fn write64(&self, offset: u64, value: u64) {
        self.iommu.write(offset, &value.to_le_bytes());
    }

    /// Sets bits of GCMD as Linux does: writes the whole state, then reads GSTS.
    pub(crate) fn set_command(&self, bits: u32) {
        let mut command = self.command.lock().unwrap();
        *command |= bits;
        self.write32(reg::GCMD, *command);
        assert_eq!(self.read32(reg::GSTS) & bits, bits, "GSTS does not show the command");
    }

    pub(crate) fn clear_command(&self, bits: u32) {
        let mut command = self.command.lock().unwrap();
        *command &= !bits;
        self.write32(reg::GCMD, *command);
        assert_eq!(self.read32(reg::GSTS) & bits, 0, "GSTS does not show the command");
    }

    /// dmar_enable_qi: 256 descriptors of 32 bytes.
    pub(crate) fn enable_queue(&self) {
        let base = self.pages(2);
        *self.queue.lock().unwrap() = Queue { base, status: self.page(), tail: 0 };
        self.write32(reg::IQT, 0);
        self.write64(reg::IQA, base | 1 << 11 | 1);
        self.set_command(reg::QIE);
    }

    /// Builds root, context and PASID tables for [`NIC`]: a DMA domain for PASID 0 and a process for [`PASID`].
    pub(crate) fn build_tables(&mut self) {
        let (root, context_table, directory) = (self.page(), self.page(), self.pages(32));
        let (dma_tables, user_tables) = (self.page(), self.page());
        let (pasids, requests) = (self.page(), self.pages(16));
        self.store(root + u64::from(NIC.bus()) * 16, context_table | 1);
        self.layout = Layout { root, context: context_table, directory, dma_tables, user_tables, requests };
        self.store(context_entry_at(self, NIC), context(directory));
        self.store(directory, pasids | 1);
        set_pasid_entry(self, 0, [0x49, 0x80_0000 | u64::from(DMA_DOMAIN), dma_tables]);
        set_pasid_entry(self, PASID.get(), [0x49, 0x80_0000 | u64::from(SVA_DOMAIN), user_tables]);
    }

    /// iommu_set_root_entry.
    pub(crate) fn set_root(&self) {
        self.write64(reg::RTADDR, self.layout.root | 1 << 10);
        let command = *self.command.lock().unwrap();
        self.write32(reg::GCMD, command | reg::SRTP);
        assert_ne!(self.read32(reg::GSTS) & reg::SRTP, 0);
    }

    /// intel_iommu_enable_prq: the interrupt first, then 2048 descriptors of 32 bytes.
    pub(crate) fn enable_page_requests(&self) {
        self.program_event(reg::PECTL, PRQ_MSI);
        self.write64(reg::PQH, 0);
        self.write64(reg::PQT, 0);
        self.write64(reg::PQA, self.layout.requests | 4);
    }

    /// dmar_msi_write and dmar_msi_unmask.
    pub(crate) fn program_event(&self, control: u64, message: MsiMessage) {
        self.write32(control + 4, message.data);
        self.write32(control + 8, message.address as u32);
        self.write32(control + 12, (message.address >> 32) as u32);
        self.write32(control, 0);
    }

    /// Writes descriptors into the queue and moves the tail behind them.
    pub(crate) fn submit_raw(&self, descriptors: &[Raw]) {
        let mut queue = self.queue.lock().unwrap();
        for raw in descriptors {
            for (quad, index) in raw.iter().zip(0u64..) {
                self.store(queue.base + queue.tail + index * 8, *quad);
            }
            queue.tail = (queue.tail + 32) % 0x2000;
        }
        self.write32(reg::IQT, queue.tail as u32);
    }

    /// qi_submit_sync: the descriptors, then a wait whose status is polled. Returns whether it was written.
    pub(crate) fn submit(&self, descriptors: &[Raw]) -> bool {
        let status = self.queue.lock().unwrap().status;
        self.ram.store_u32(Gpa(status), 1).unwrap();
        let mut all = descriptors.to_vec();
        all.push(descriptors::wait(status));
        self.submit_raw(&all);
        self.ram.load_u32(Gpa(status)).unwrap() == 2
    }

    /// Address of descriptor `index` in the queue.
    pub(crate) fn descriptor_at(&self, index: u64) -> u64 {
        self.queue.lock().unwrap().base + index % 256 * 32
    }

    pub(crate) fn request(&self, pasid: Option<Pasid>, iova: Iova, write: bool) -> TranslationRequest {
        TranslationRequest { requester: NIC, pasid, iova, write, kind: RequestKind::Translation }
    }

    /// An ATS translation request of the bound process.
    pub(crate) fn ats(&self, iova: Iova, write: bool) -> Result<Translation, TranslationError> {
        self.iommu.translate(&self.request(Some(PASID), iova, write))
    }

    /// An untranslated access.
    pub(crate) fn dma(
        &self,
        pasid: Option<Pasid>,
        iova: Iova,
        write: bool,
    ) -> Result<Translation, TranslationError> {
        let kind = RequestKind::Untranslated;
        self.iommu.translate(&TranslationRequest { kind, ..self.request(pasid, iova, write) })
    }

    /// Sends a page request in a group of its own, as refault's NIC does.
    pub(crate) fn ask(&self, iova: Iova, write: bool, group: u64) {
        self.iommu.page_request(page_request(iova, write, group));
    }

    /// Maps a user page of the bound process: present and writable, neither accessed nor dirty. Returns the leaf's address.
    pub(crate) fn map_user(&self, iova: Iova, gpa: u64) -> u64 {
        map(self, self.layout.user_tables, iova, gpa, 12, Pte::USER | Pte::WRITE)
    }

    pub(crate) fn messages(&self) -> Vec<MsiMessage> {
        std::mem::take(&mut *self.messages.sent.lock().unwrap())
    }

    /// Runs `hook` while a message is being sent, before it counts as sent.
    pub(crate) fn on_signal(&self, hook: impl Fn(&MsiMessage) + Send + Sync + 'static) {
        *self.messages.hook.lock().unwrap() = Some(Box::new(hook));
    }

    pub(crate) fn events(&self) -> MutexGuard<'_, Vec<ProbeEvent>> {
        self.events.0.lock().unwrap()
    }

    /// Fault records with F set: page, source, reason, PASID, upper quadword.
    pub(crate) fn faults(&self) -> Vec<FaultSeen> {
        (0..8)
            .map(|index| (self.read64(reg::FRCD + index * 16), self.read64(reg::FRCD + index * 16 + 8)))
            .filter(|&(_, info)| info >> 63 != 0)
            .map(|(page, info)| FaultSeen {
                page,
                source: info as u16,
                reason: (info >> 32) as u8,
                pasid: (info >> 31 & 1 != 0).then_some((info >> 40) as u32 & 0xf_ffff),
                info,
            })
            .collect()
    }

    /// dmar_fault: clears every record from FRI on, then the status.
    pub(crate) fn service_faults(&self) -> usize {
        let status = self.read32(reg::FSTS);
        let mut index = u64::from(status >> 8 & 0xff);
        let mut count = 0;
        while status & 2 != 0 && self.read32(reg::FRCD + index * 16 + 12) >> 31 != 0 {
            self.write32(reg::FRCD + index * 16 + 12, 1 << 31);
            index = (index + 1) % 8;
            count += 1;
        }
        self.write32(reg::FSTS, 0x83);
        count
    }

    /// Takes the entries of the page request queue from head to tail. Clears PPR first, as prq_event_thread does.
    pub(crate) fn take_page_requests(&self) -> Vec<[u64; 4]> {
        self.write32(reg::PRS, 1);
        let (tail, mut head) = (self.read64(reg::PQT), self.read64(reg::PQH));
        let mut taken = Vec::new();
        while head != tail {
            let at = self.layout.requests + head;
            taken.push([0, 8, 16, 24].map(|offset| self.load(at + offset)));
            head = (head + 32) % 0x1_0000;
        }
        self.write64(reg::PQH, tail);
        taken
    }
}

/// One fault record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FaultSeen {
    pub(crate) page: u64,
    pub(crate) source: u16,
    pub(crate) reason: u8,
    pub(crate) pasid: Option<u32>,
    pub(crate) info: u64,
}

/// A page request of the bound process, in a group of its own.
pub(crate) fn page_request(iova: Iova, write: bool, group: u64) -> PageRequest {
    PageRequest {
        requester: NIC,
        pasid: Some(PASID),
        page: iova.align_down(12),
        read: true,
        write,
        last: true,
        group: PrgIndex::truncated(group),
    }
}
