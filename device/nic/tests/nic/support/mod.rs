//! A machine around the NIC: memory, a scripted IOMMU, a clock that tests move, and a driver's steps.

pub(crate) mod driver;
pub(crate) mod hooked;
pub(crate) mod iommu;
pub(crate) mod neighbour;
pub(crate) mod shared;
pub(crate) mod table;

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::sync::{Arc, Mutex};

use refault_abi::codes::{
    ACCESS_FLUSH_GLOBAL, ACCESS_FLUSH_PERSISTENT, ACCESS_LOCAL_WRITE, ACCESS_REMOTE_ATOMIC,
    ACCESS_REMOTE_READ, ACCESS_REMOTE_WRITE, AccessRights, OP_RDMA_WRITE, QPS_RTS,
};
use refault_abi::command::{
    CMD_CREATE_CONTEXT, CMD_CREATE_MR, CMD_CREATE_PD, CMD_DESTROY_CQ, CMD_DESTROY_MR, CMD_DESTROY_PD,
    CMD_SLOT_SIZE, CommandOpcode, CommandRequest, CommandResponse, CommandStatus, CreateContext, CreateMr,
    MR_PASID, MR_PINNED, ModifyQp, ObjectId, PageTable, STATUS_OK,
};
use refault_abi::doorbell::Doorbell;
use refault_abi::queue::{Sge, SqWqe};
use refault_abi::regs::{
    CONTROL_ENABLE, REG_CMD0_BASE, REG_CMD0_DOORBELL, REG_CMD0_LOG, REG_CMD1_BASE, REG_CMD1_DOORBELL,
    REG_CMD1_LOG, REG_CONTROL, REG_STATUS, STATUS_READY,
};
use refault_bus::clock::ManualClock;
use refault_bus::dma::{DmaMemory, GuestRam};
use refault_bus::irq::{MsiMessage, MsiSink};
use refault_bus::probe::{Probe, ProbeEvent, RequestEvent, Stage};
use refault_bus::{Bdf, Gpa};
use refault_nic::{Loopback, Nic, NicConfig, Worker};
use refault_pci::PciFunction;
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use driver::*;
use hooked::{Hooked, Hooks};
use iommu::ScriptedIommu;

/// Bytes of guest memory, in two regions side by side.
pub(crate) const MEMORY: u64 = 48 << 20;
const SECOND_REGION: u64 = 40 << 20;
/// Bytes of persistent memory behind it, in benches that have some.
pub(crate) const PERSISTENT: u64 = 4 << 20;

/// Whether reliable connections are made of packets. Then both ends work at the same time, and know less of each other.
pub(crate) const IN_PACKETS: bool = matches!(crate::LOOPBACK, Loopback::Packets { .. });

/// The process of most tests.
pub(crate) const PASID: u32 = 0x33;

/// All rights.
pub(crate) const ALL_RIGHTS: AccessRights =
    ACCESS_LOCAL_WRITE.union(ACCESS_REMOTE_WRITE).union(ACCESS_REMOTE_READ).union(ACCESS_REMOTE_ATOMIC);
/// Both kinds of FLUSH.
pub(crate) const FLUSH_RIGHTS: AccessRights = ACCESS_FLUSH_GLOBAL.union(ACCESS_FLUSH_PERSISTENT);

/// Vectors that were sent.
#[derive(Default)]
pub(crate) struct Interrupts(Mutex<Vec<u32>>);

impl MsiSink for Interrupts {
    fn signal(&self, message: MsiMessage) {
        self.0.lock().unwrap().push(message.data);
    }
}

impl Interrupts {
    pub(crate) fn take(&self) -> Vec<u32> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// What a test does at a stage.
type StageHook = (Stage, Box<dyn FnOnce() + Send>);

/// Probe events that were recorded.
#[derive(Default)]
pub(crate) struct Recorder(Mutex<Vec<ProbeEvent>>, Mutex<Vec<RequestEvent>>, Mutex<Option<StageHook>>);

impl Probe for Recorder {
    fn record(&self, event: &ProbeEvent) {
        self.0.lock().unwrap().push(*event);
        let hook = self.2.lock().unwrap().take_if(|(stage, _)| *stage == event.stage);
        if let Some((_, hook)) = hook {
            hook();
        }
    }

    fn request(&self, event: &RequestEvent) {
        self.1.lock().unwrap().push(*event);
    }
}

impl Recorder {
    /// Calls `hook` when `stage` is recorded next, from inside the device.
    pub(crate) fn at(&self, stage: Stage, hook: impl FnOnce() + Send + 'static) {
        *self.2.lock().unwrap() = Some((stage, Box::new(hook)));
    }

    pub(crate) fn take(&self) -> Vec<ProbeEvent> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    /// Watched requests that are over, taken.
    pub(crate) fn take_requests(&self) -> Vec<RequestEvent> {
        std::mem::take(&mut self.1.lock().unwrap())
    }

    pub(crate) fn stages(&self) -> Vec<Stage> {
        self.take().into_iter().map(|event| event.stage).collect()
    }
}

/// The machine.
pub(crate) struct Bench {
    pub(crate) nic: Arc<Nic>,
    pub(crate) ram: GuestRam,
    pub(crate) hooks: Arc<Hooks>,
    pub(crate) iommu: Arc<ScriptedIommu>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) interrupts: Arc<Interrupts>,
    pub(crate) probe: Arc<Recorder>,
    workers: RefCell<Vec<Worker>>,
    next: Cell<u64>,
    lanes: [u64; 2],
    /// log2 of their slots.
    logs: [Cell<u32>; 2],
    indices: [Cell<u32>; 2],
    token: Cell<u32>,
}

/// log2 of a command lane's slots: few, so that the rings wrap.
const LOG_SLOTS: u32 = 2;

impl Default for Bench {
    fn default() -> Self {
        Self::new(NicConfig { fault_window: 1, ..NicConfig::default() })
    }
}

impl Bench {
    /// The machine with the device enabled.
    pub(crate) fn new(config: NicConfig) -> Self {
        let bench = Self::cold(config);
        bench.switch_on();
        bench.enable();
        bench
    }

    /// The same with `PERSISTENT` bytes of the file's behind the memory.
    pub(crate) fn with_file(config: NicConfig, file: &File) -> Self {
        Self::with_files(config, &[file])
    }

    /// The same with several files, one behind the other.
    pub(crate) fn with_files(config: NicConfig, files: &[&File]) -> Self {
        let region = |(file, base): (&&File, _)| {
            file.set_len(PERSISTENT).unwrap();
            let file = FileOffset::new(file.try_clone().unwrap(), 0);
            (GuestAddress(base), PERSISTENT as usize, Some(file))
        };
        let bases = (MEMORY..).step_by(PERSISTENT as usize);
        let bench = Self::powered(config, files.iter().zip(bases).map(region).collect());
        bench.switch_on();
        bench.enable();
        bench
    }

    /// The machine as after power-on.
    pub(crate) fn cold(config: NicConfig) -> Self {
        Self::powered(config, Vec::new())
    }

    fn powered(config: NicConfig, more: Vec<(GuestAddress, usize, Option<FileOffset>)>) -> Self {
        let regions = [
            (GuestAddress(0), SECOND_REGION as usize, None),
            (GuestAddress(SECOND_REGION), (MEMORY - SECOND_REGION) as usize, None),
        ];
        let regions = regions.into_iter().chain(more);
        let ram = GuestRam::new(Arc::new(GuestMemoryMmap::from_ranges_with_files(regions).unwrap()));
        let iommu = Arc::new(ScriptedIommu::default());
        let clock = Arc::new(ManualClock::default());
        let interrupts = Arc::new(Interrupts::default());
        let probe = Arc::new(Recorder::default());
        let hooks = Arc::new(Hooks::default());
        let loopback = if config.loopback == Loopback::Direct { crate::LOOPBACK } else { config.loopback };
        let config = NicConfig { loopback, ..config };
        let nic = Nic::new(
            config,
            Arc::new(Hooked { ram: ram.clone(), hooks: hooks.clone() }),
            iommu.clone(),
            interrupts.clone(),
            clock.clone(),
            probe.clone(),
        );
        iommu.attach(&nic);
        let workers = RefCell::new((0..nic.worker_count()).map(|index| nic.worker(index)).collect());
        Self {
            nic,
            ram,
            hooks,
            iommu,
            clock,
            interrupts,
            probe,
            workers,
            next: Cell::new(0x10_0000),
            lanes: [0x1000, 0x8000],
            logs: [Cell::new(LOG_SLOTS), Cell::new(LOG_SLOTS)],
            indices: [Cell::new(0), Cell::new(0)],
            token: Cell::new(0),
        }
    }

    /// Config space as Linux leaves it: memory, bus master, MSI-X, ATS, PRI, PASID on; vector n sends n.
    pub(crate) fn switch_on(&self) {
        let nic = &self.nic;
        nic.config_write(4, &0x6u16.to_le_bytes());
        for (id, offset, value) in [(0x0f, 6, 0x8000u16), (0x1b, 6, 1)] {
            nic.config_write(self.extended(id) + offset, &value.to_le_bytes());
        }
        let pri = self.extended(0x13);
        nic.config_write(pri + 12, &64u32.to_le_bytes());
        nic.config_write(pri + 4, &1u16.to_le_bytes());
        let msix = self.standard(0x11);
        nic.config_write(msix + 2, &0x8000u16.to_le_bytes());
        for vector in 0..4u64 {
            nic.bar_write(4, vector * 16, &0xfee0_0000u32.to_le_bytes());
            nic.bar_write(4, vector * 16 + 8, &(vector as u32).to_le_bytes());
            nic.bar_write(4, vector * 16 + 12, &0u32.to_le_bytes());
        }
    }

    pub(crate) fn config16(&self, offset: u16) -> u16 {
        let mut data = [0; 2];
        self.nic.config_read(offset, &mut data);
        u16::from_le_bytes(data)
    }

    /// Offset of an extended capability.
    pub(crate) fn extended(&self, id: u16) -> u16 {
        let mut at = 0x100;
        while self.config16(at) != id {
            at = self.config16(at + 2) >> 4;
            assert_ne!(at, 0, "capability {id:#x}");
        }
        at
    }

    /// Offset of a standard capability.
    pub(crate) fn standard(&self, id: u8) -> u16 {
        let mut at = self.config16(0x34) & 0xff;
        while self.config16(at) as u8 != id {
            at = self.config16(at) >> 8;
            assert_ne!(at, 0, "capability {id:#x}");
        }
        at
    }

    /// Switches a 16-bit field's bits on or off.
    pub(crate) fn set_config_bits(&self, offset: u16, bits: u16, on: bool) {
        let value = self.config16(offset);
        let value = if on { value | bits } else { value & !bits };
        self.nic.config_write(offset, &value.to_le_bytes());
    }

    /// Enables the device with a lane of 64 slots.
    pub(crate) fn enable_with_long_lane(&self, lane: usize) {
        self.logs[lane].set(6);
        self.enable();
    }

    pub(crate) fn enable(&self) {
        for (lane, base, log) in [(0, REG_CMD0_BASE, REG_CMD0_LOG), (1, REG_CMD1_BASE, REG_CMD1_LOG)] {
            self.nic.bar_write(0, base, &self.lanes[lane].to_le_bytes());
            self.write32(log, self.logs[lane].get());
            self.indices[lane].set(0);
        }
        self.write32(REG_CONTROL, CONTROL_ENABLE);
        assert_eq!(self.read32(REG_STATUS), STATUS_READY);
    }

    pub(crate) fn read32(&self, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.nic.bar_read(0, offset, &mut data);
        u32::from_le_bytes(data)
    }

    pub(crate) fn write32(&self, offset: u64, value: u32) {
        self.nic.bar_write(0, offset, &value.to_le_bytes());
    }

    pub(crate) fn doorbell(&self, page: u32, kind: u64, number: u32, argument: u32) {
        let value = Doorbell { kind: kind as u8, number, argument }.encode();
        self.nic.bar_write(2, u64::from(page) << 12, &value.to_le_bytes());
    }

    /// Guest memory for one use.
    pub(crate) fn allocate(&self, bytes: u64) -> u64 {
        let at = self.next.get();
        self.next.set((at + bytes).next_multiple_of(0x1000));
        assert!(self.next.get() <= MEMORY);
        at
    }

    /// A table of `levels` that names the run at `gpa`.
    pub(crate) fn table(&self, gpa: u64, bytes: u64, levels: u8) -> PageTable {
        let pages: Vec<u64> = (0..bytes.div_ceil(0x1000)).map(|page| gpa + page * 0x1000).collect();
        self.table_of(&pages, levels)
    }

    pub(crate) fn table_of(&self, pages: &[u64], levels: u8) -> PageTable {
        let mut entries = pages.to_vec();
        for _ in 0..levels {
            entries = entries
                .chunks(512)
                .map(|chunk| {
                    let table = self.allocate(0x1000);
                    for (index, entry) in chunk.iter().enumerate() {
                        self.ram.store_u64(Gpa(table + 8 * index as u64), *entry).unwrap();
                    }
                    table
                })
                .collect();
        }
        assert!(levels == 0 || entries.len() == 1);
        PageTable { root: entries[0], pages: pages.len() as u32, levels, page_shift: 12, reserved: 0 }
    }

    /// Lets the workers do all they can.
    pub(crate) fn settle(&self) {
        let mut workers = self.workers.borrow_mut();
        for _ in 0..100_000 {
            if !workers.iter_mut().any(Worker::poll) {
                return;
            }
        }
        panic!("the device never comes to rest");
    }

    /// Lets one worker alone do all it can.
    pub(crate) fn settle_worker(&self, index: usize) {
        while self.workers.borrow_mut()[index].poll() {}
    }

    /// Lets one worker do one piece of work; `false` if it has none.
    pub(crate) fn poll(&self, worker: usize) -> bool {
        self.workers.borrow_mut()[worker].poll()
    }

    /// Lets time pass.
    pub(crate) fn advance(&self, ns: u64) {
        self.clock.advance(ns);
        self.expire();
        self.settle();
    }

    /// Serves the timers that are due, and no more.
    pub(crate) fn expire(&self) {
        self.workers.borrow_mut().iter_mut().for_each(Worker::expire);
    }

    pub(crate) fn next_deadline_ns(&self) -> Option<u64> {
        self.workers.borrow().iter().filter_map(Worker::next_deadline_ns).min()
    }

    /// Hands the last worker over: in benches with persistent memory, the one that writes it out.
    pub(crate) fn take_storage(&self) -> Worker {
        self.workers.borrow_mut().pop().unwrap()
    }

    /// Hands the workers over, for threads.
    pub(crate) fn take_workers(&self) -> Vec<Worker> {
        std::mem::take(&mut self.workers.borrow_mut())
    }

    /// One command on lane 0, to its end.
    pub(crate) fn command<Q, R>(&self, opcode: CommandOpcode, request: &Q) -> Result<R, CommandStatus>
    where
        Q: IntoBytes + Immutable,
        R: FromBytes + KnownLayout + Immutable,
    {
        self.command_on(0, opcode, request)
    }

    pub(crate) fn id_command(&self, opcode: CommandOpcode, id: u32) -> Result<(), CommandStatus> {
        self.command::<_, ObjectId>(opcode, &ObjectId { id, reserved: 0 }).map(|_| ())
    }

    pub(crate) fn urgent_command(&self, opcode: CommandOpcode, id: u32) -> Result<(), CommandStatus> {
        self.command_on::<_, ObjectId>(1, opcode, &ObjectId { id, reserved: 0 }).map(|_| ())
    }

    pub(crate) fn command_on<Q, R>(
        &self,
        lane: usize,
        opcode: CommandOpcode,
        request: &Q,
    ) -> Result<R, CommandStatus>
    where
        Q: IntoBytes + Immutable,
        R: FromBytes + KnownLayout + Immutable,
    {
        let token = self.post_command(lane, opcode, request.as_bytes());
        self.settle();
        let response = self.response(lane, self.indices[lane].get().wrapping_sub(1));
        assert_eq!(response.token, token, "no answer to command {opcode:?}");
        match response.status {
            STATUS_OK => Ok(R::read_from_prefix(response.body.as_bytes()).unwrap().0),
            status => Err(status),
        }
    }

    /// Writes a command and rings, without waiting.
    pub(crate) fn post_command(&self, lane: usize, opcode: CommandOpcode, body: &[u8]) -> u32 {
        let token = self.prepare_command(lane, opcode, body);
        self.ring_lane(lane)();
        token
    }

    /// What rings a lane, on whatever thread.
    pub(crate) fn ring_lane(&self, lane: usize) -> impl FnOnce() + Send + use<> {
        let (nic, producer) = (self.nic.clone(), self.indices[lane].get());
        let doorbell = [REG_CMD0_DOORBELL, REG_CMD1_DOORBELL][lane];
        move || nic.bar_write(0, doorbell, &producer.to_le_bytes())
    }

    /// Address of a command's slot.
    pub(crate) fn command_at(&self, lane: usize, index: u32) -> u64 {
        self.lanes[lane] + u64::from(index % (1 << self.logs[lane].get())) * u64::from(CMD_SLOT_SIZE)
    }

    /// Writes a command.
    pub(crate) fn prepare_command(&self, lane: usize, opcode: CommandOpcode, body: &[u8]) -> u32 {
        let index = self.indices[lane].get();
        let token = self.token.get() + 1;
        self.token.set(token);
        let mut request = CommandRequest { opcode, token, ..CommandRequest::default() };
        request.body.as_mut_bytes()[..body.len()].copy_from_slice(body);
        self.ram.write(Gpa(self.command_at(lane, index)), request.as_bytes()).unwrap();
        self.indices[lane].set(index.wrapping_add(1));
        token
    }

    pub(crate) fn response(&self, lane: usize, index: u32) -> CommandResponse {
        let mut response = CommandResponse::new_zeroed();
        self.ram.read(Gpa(self.command_at(lane, index) + 128), response.as_mut_bytes()).unwrap();
        response
    }

    pub(crate) fn context(&self, pasid: Option<u32>) -> u32 {
        let command =
            CreateContext { pasid: pasid.unwrap_or(0), has_pasid: u32::from(pasid.is_some()), reserved: 0 };
        self.command::<_, ObjectId>(CMD_CREATE_CONTEXT, &command).unwrap().id
    }

    pub(crate) fn pd(&self, context: u32) -> u32 {
        let command = ObjectId { id: context, reserved: 0 };
        self.command::<_, ObjectId>(CMD_CREATE_PD, &command).unwrap().id
    }

    /// A pinned region of `bytes` at `start`, `first_offset` into pages at `gpa`.
    pub(crate) fn pinned(&self, pd: u32, start: u64, gpa: u64, bytes: u64, access: AccessRights) -> u32 {
        let first_offset = (start & 0xfff) as u32;
        let command = CreateMr {
            start,
            length: bytes,
            table: self.table(gpa & !0xfff, u64::from(first_offset) + bytes, 2),
            first_offset,
            pd,
            access,
            mode: MR_PINNED,
            ..CreateMr::default()
        };
        self.command::<_, ObjectId>(CMD_CREATE_MR, &command).unwrap().id
    }

    /// The whole address space of the context's process.
    pub(crate) fn process(&self, pd: u32, access: AccessRights) -> u32 {
        let command = CreateMr { length: u64::MAX, pd, access, mode: MR_PASID, ..CreateMr::default() };
        self.command::<_, ObjectId>(CMD_CREATE_MR, &command).unwrap().id
    }

    pub(crate) fn fill(&self, gpa: u64, bytes: &[u8]) {
        self.ram.write(Gpa(gpa), bytes).unwrap();
    }

    pub(crate) fn bytes(&self, gpa: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.ram.read(Gpa(gpa), &mut bytes).unwrap();
        bytes
    }
}

/// Two connected queue pairs of one process, with a pinned buffer each.
pub(crate) struct Pair {
    pub(crate) bench: Bench,
    pub(crate) eq: Eq,
    pub(crate) context: u32,
    pub(crate) pd: u32,
    pub(crate) cq_a: Cq,
    pub(crate) cq_b: Cq,
    pub(crate) a: Qp,
    pub(crate) b: Qp,
    /// Buffers in memory, `BUFFER` bytes each, and the regions that name them at the same addresses.
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) lkey: u32,
    pub(crate) rkey: u32,
    /// The process' whole address space.
    pub(crate) process: u32,
}

/// Bytes of each pinned buffer.
pub(crate) const BUFFER: u64 = 1 << 20;
/// log2 of ring sizes.
pub(crate) const LOG: u8 = 4;

impl Pair {
    /// Destroys all that is in the context; it and the event queue stay.
    pub(crate) fn empty_context(&self) {
        self.a.destroy(&self.bench).unwrap();
        self.b.destroy(&self.bench).unwrap();
        for key in [self.lkey, self.rkey, self.process] {
            self.bench.id_command(CMD_DESTROY_MR, key).unwrap();
        }
        for cqn in [self.cq_a.cqn, self.cq_b.cqn] {
            self.bench.id_command(CMD_DESTROY_CQ, cqn).unwrap();
        }
        self.bench.id_command(CMD_DESTROY_PD, self.pd).unwrap();
    }

    pub(crate) fn new() -> Self {
        Self::on(Bench::default(), PATIENT)
    }

    pub(crate) fn with(attributes: ModifyQp) -> Self {
        Self::on(Bench::default(), attributes)
    }

    pub(crate) fn on(bench: Bench, attributes: ModifyQp) -> Self {
        let pair = Self::unconnected(bench);
        pair.a.raise(&pair.bench, pair.b.qpn, QPS_RTS, attributes);
        pair.b.raise(&pair.bench, pair.a.qpn, QPS_RTS, attributes);
        pair
    }

    pub(crate) fn unconnected(bench: Bench) -> Self {
        let eq = Eq::new(&bench, 6, 1);
        let context = bench.context(Some(PASID));
        let pd = bench.pd(context);
        let cq_a = Cq::new(&bench, context, eq.eqn, 6);
        let cq_b = Cq::new(&bench, context, eq.eqn, 6);
        let a = Qp::create(&bench, context, &Qp::command(&bench, pd, [cq_a.cqn; 2], eq.eqn, LOG));
        let b = Qp::create(&bench, context, &Qp::command(&bench, pd, [cq_b.cqn; 2], eq.eqn, LOG));
        let from = bench.allocate(BUFFER);
        let to = bench.allocate(BUFFER);
        let lkey = bench.pinned(pd, from, from, BUFFER, ALL_RIGHTS);
        let rkey = bench.pinned(pd, to, to, BUFFER, ALL_RIGHTS);
        let process = bench.process(pd, ALL_RIGHTS);
        let pattern: Vec<u8> = (0..BUFFER).map(|i| (i * 7 + i / 256) as u8).collect();
        bench.fill(from, &pattern);
        Self { bench, eq, context, pd, cq_a, cq_b, a, b, from, to, lkey, rkey, process }
    }

    pub(crate) fn source(&self, offset: u64, length: u32) -> Sge {
        sge(self.from + offset, length, self.lkey)
    }

    /// An RDMA WRITE from the pinned source to `remote_addr` of `rkey`.
    pub(crate) fn write(&self, wr_id: u64, length: u32, remote_addr: u64, rkey: u32) -> SqWqe {
        let wqe = request(OP_RDMA_WRITE, wr_id, &[self.source(0, length)]);
        SqWqe { remote_addr, rkey, ..wqe }
    }

    /// Posts on A and lets the device work.
    pub(crate) fn run(&mut self, wqe: &SqWqe) {
        self.a.send(&self.bench, wqe);
        self.bench.settle();
    }

    /// A page of the process' address space, at its own place in memory.
    pub(crate) fn map_page(&self, iova: u64, write: bool) -> u64 {
        let gpa = self.bench.allocate(0x1000);
        self.bench.iommu.map(PASID, iova, gpa, write);
        gpa
    }
}

/// The function of the bench.
pub(crate) fn bdf() -> Bdf {
    NicConfig::default().bdf
}
