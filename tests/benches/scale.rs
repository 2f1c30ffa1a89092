//! Many queue pairs and regions: the cost of finding one of them, and the memory that they take.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use refault_abi::codes::{ACCESS_LOCAL_WRITE, ACCESS_REMOTE_WRITE, WC_SUCCESS};
use refault_bus::probe::NoProbe;
use refault_model::memory::FRAME;
use refault_model::nic::{QueuePair, QueuePairSetup, work};
use refault_model::paging::{PageSize, Rights};
use refault_nic::{NicConfig, Worker};
use refault_rig::clock::WallClock;
use refault_tests::bench::{Bench, Comparison, Target, timed};
use refault_tests::bench_rig::{AREA, SOURCE, TARGET};
use refault_tests::machine::{Machine, MachineSetup};
use refault_tests::session::Session;

/// Bytes of guest memory: a frame for the rings of each queue pair, and some more.
const MEMORY: u64 = 128 << 20;
/// Number of queue pairs and regions in use.
const USED: usize = 100;

fn main() -> ExitCode {
    let mut bench = Bench::from_arguments();
    let mut few = Crowd::new(USED, USED);
    let mut many = Crowd::new(10_000, 1_000_000);
    println!("\nmemory of the device and its driver model, guest memory not counted");
    println!("    {:.0} bytes for each of 10000 idle queue pairs", many.bytes_per_pair);
    println!("    {:.0} bytes for each of 1000000 regions", many.bytes_per_region);
    // Those in use are spread over all.
    bench.compare(
        Comparison {
            name: "64 bytes written by one of 100 queue pairs through one of 100 regions, of 10,000 and 1,000,000",
            baseline: "the same, when there are no others",
            target: Target::AtMost(1.5),
        },
        &mut |count| many.write(count, 100, 10_000),
        &mut |count| few.write(count, 1, 1),
    );
    // Then no looked-up object is in the processor's caches.
    bench.compare(
        Comparison {
            name: "the same, all 10,000 queue pairs and 1,000,000 regions in turn",
            baseline: "100 and 100 in turn",
            target: Target::None,
        },
        &mut |count| many.write_all(count),
        &mut |count| few.write_all(count),
    );
    bench.finish()
}

/// A machine with many queue pairs, each connected to itself, and many regions.
struct Crowd {
    _machine: Machine,
    session: Session,
    worker: Worker,
    pairs: Vec<QueuePair>,
    keys: Vec<u32>,
    bytes_per_pair: f64,
    bytes_per_region: f64,
    turn: u64,
}

impl Crowd {
    fn new(pairs: usize, regions: usize) -> Self {
        let machine = Machine::new(MachineSetup {
            memory: MEMORY,
            nic: NicConfig { workers: 1, ..NicConfig::default() },
            probe: Some(Arc::new(NoProbe)),
            clock: Some(Arc::new(WallClock::default())),
            ..MachineSetup::default()
        });
        let session = machine.open(1);
        for start in [SOURCE, TARGET] {
            session.process.map_area(start, AREA, Rights::Write, PageSize::Small);
            let frame = machine.memory.frame().expect("a frame");
            session.process.space.map(start, frame, PageSize::Small, Rights::Write).expect("an empty page");
        }
        touch_free_memory(&machine);
        let before = resident_bytes();
        let setup = QueuePairSetup { log_sq: 2, log_rq: 0, ..session.setup };
        let pairs: Vec<_> = (0..pairs)
            .map(|_| {
                let pair = machine.driver.create_queue_pair(setup).expect("a queue pair");
                machine.driver.connect(pair.number(), pair.number()).expect("RTS");
                pair
            })
            .collect();
        let with_pairs = resident_bytes();
        let keys: Vec<_> = (0..regions)
            .map(|_| {
                let access = ACCESS_LOCAL_WRITE | ACCESS_REMOTE_WRITE;
                let region = machine.driver.register_range(session.pd, TARGET, AREA, access);
                region.expect("a region").key
            })
            .collect();
        let with_regions = resident_bytes();
        let worker = machine.take_workers().pop().expect("one worker");
        Self {
            bytes_per_pair: (with_pairs - before) / pairs.len() as f64,
            bytes_per_region: (with_regions - with_pairs) / keys.len() as f64,
            _machine: machine,
            session,
            worker,
            pairs,
            keys,
            turn: 0,
        }
    }

    /// Writes through [`USED`] queue pairs and regions in turn, every `pair_step`th and `key_step`th.
    fn write(&mut self, count: u64, pair_step: usize, key_step: usize) -> Duration {
        timed(|| {
            for _ in 0..count {
                let used = self.turn as usize % USED;
                self.write_once(used * pair_step, used * key_step);
            }
        })
    }

    /// Writes through all queue pairs and regions in turn, neighbours far apart.
    fn write_all(&mut self, count: u64) -> Duration {
        timed(|| {
            for _ in 0..count {
                let turn = self.turn.wrapping_mul(0x9e37_79b9) as usize;
                self.write_once(turn % self.pairs.len(), turn % self.keys.len());
            }
        })
    }

    fn write_once(&mut self, pair: usize, key: usize) {
        self.turn += 1;
        let local = work::piece(SOURCE, 64, self.session.region.key);
        let wqe = work::rdma_write(self.turn, local, TARGET, self.keys[key]);
        self.pairs[pair].post(&wqe).expect("the ring is memory");
        while self.worker.poll() {}
        let cqe = self.session.poll().expect("the request is done");
        assert_eq!((cqe.wr_id, cqe.status), (self.turn, WC_SUCCESS));
    }
}

/// Makes the host back all of guest memory, so that its later use is not measured.
fn touch_free_memory(machine: &Machine) {
    let bytes = machine.memory.free_bytes() / FRAME * FRAME;
    let start = machine.memory.allocate(bytes, 12).expect("what is free lies in one piece");
    machine.memory.fill(start, bytes, 1).expect("memory");
    machine.memory.free(start, bytes).expect("it was allocated");
}

/// Resident memory of this process, in bytes.
fn resident_bytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/statm").expect("procfs");
    let pages: f64 = status.split_whitespace().nth(1).and_then(|field| field.parse().ok()).expect("a number");
    pages * 4096.0
}
