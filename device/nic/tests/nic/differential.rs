//! Connections in packets: whatever is lost, and whatever a responder does without a page, requests do what they do without
//! packets.

use refault_abi::codes::{
    FLUSH_GLOBAL, FLUSH_RANGE, OP_ATOMIC_WRITE, OP_COMPARE_SWAP, OP_FETCH_ADD, OP_FLUSH, OP_RDMA_READ,
    OP_RDMA_WRITE, OP_RDMA_WRITE_IMM, OP_SEND, OP_SEND_IMM, WC_SUCCESS,
};
use refault_abi::command::ModifyQp;
use refault_abi::queue::{Cqe, SqWqe, WQE_FENCE, WQE_SIGNALED};
use refault_bus::clock::Clock;
use refault_bus::pri::{PageRequest, ResponseCode};
use refault_nic::{Loopback, NicConfig, NicStats, PacketConfig, RemoteFaults};

use crate::support::driver::*;
use crate::support::*;

/// Requests of one program. The rings are not larger.
const REQUESTS: u32 = 12;
/// Bytes at the end of the target that atomics use, and nothing else.
const WORDS: u64 = 64;
/// Where the process has the target.
const HEAP: u64 = 0x7f00_0000_0000;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// All that a program leaves.
#[derive(Debug, PartialEq, Eq)]
struct Effects {
    sent: Vec<Cqe>,
    received: Vec<Cqe>,
    source: Vec<u8>,
    target: Vec<u8>,
}

/// How a program is run.
#[derive(Clone, Copy, Debug, Default)]
struct Way {
    loopback: Loopback,
    packets: PacketConfig,
    /// The target's pages come when they are asked for, and go again.
    faults: Option<RemoteFaults>,
}

/// The pages of the target, which its process has at `HEAP`.
struct Pages {
    random: Random,
    asked: Vec<PageRequest>,
    /// How often a timer may run out first.
    late: u32,
    /// How often a page may still go.
    unmaps: u32,
}

impl Pages {
    /// Answers some of what is asked for, and takes a page away now and then.
    fn change(&mut self, pair: &Pair) {
        let random = &mut self.random;
        let (answered, left): (Vec<_>, _) = self.asked.drain(..).partition(|_| random.below(3) == 0);
        self.asked = left;
        for asked in answered {
            pair.bench.iommu.map(PASID, asked.page.0, pair.to + (asked.page.0 - HEAP), true);
            pair.bench.iommu.answer(&asked, ResponseCode::Success);
        }
        if self.unmaps > 0 && self.random.below(4) == 0 {
            self.unmaps -= 1;
            pair.bench.iommu.unmap(PASID, HEAP + self.random.below(BUFFER >> 12) * 0x1000);
        }
    }
}

/// A request whose local memory no other request of the program uses.
fn random_request(pair: &Pair, (target, rkey): (u64, u32), random: &mut Random, id: u32) -> SqWqe {
    let part = (BUFFER / u64::from(REQUESTS)) & !0xfff;
    let length = [0, 8, 300, 4096, 9000, part][random.below(6) as usize];
    let local = pair.source(u64::from(id) * part, length as u32);
    let word = pair.source(u64::from(id) * part, 8);
    let place = target + random.below(BUFFER - WORDS - length);
    let atomic = target + BUFFER - WORDS + 8 * random.below(WORDS / 8);
    let to = |wqe: SqWqe, remote_addr| SqWqe { remote_addr, rkey, ..wqe };
    let id = id.into();
    let wqe = match random.below(10) {
        0 => request(OP_SEND, id, &[local]),
        1 => SqWqe { imm: 0x0102_0304, ..request(OP_SEND_IMM, id, &[local]) },
        2..5 => to(request(OP_RDMA_WRITE, id, &[local]), place),
        5 => to(SqWqe { imm: 7, ..request(OP_RDMA_WRITE_IMM, id, &[local]) }, place),
        6 => to(request(OP_RDMA_READ, id, &[local]), place),
        7 => SqWqe { compare_add: 3, ..to(request(OP_FETCH_ADD, id, &[word]), atomic) },
        8 => SqWqe { compare_add: 0, swap: 9, ..to(request(OP_COMPARE_SWAP, id, &[word]), atomic) },
        _ if random.below(2) == 0 => to(request(OP_ATOMIC_WRITE, id, &[word]), atomic),
        _ => {
            let imm = FLUSH_GLOBAL | FLUSH_RANGE;
            SqWqe { imm, compare_add: length, ..to(request(OP_FLUSH, id, &[]), place) }
        }
    };
    // What a READ fetches depends on what is written after it, unless that waits.
    SqWqe { flags: WQE_SIGNALED | WQE_FENCE, ..wqe }
}

/// Runs the program of a seed, with receive requests that come late.
fn run(seed: u64, way: Way) -> (Effects, NicStats) {
    let mut random = Random(seed);
    let attributes = ModifyQp {
        path_mtu: 1 + random.below(5) as u8,
        max_rd_atomic: 1 + random.below(4) as u8,
        max_dest_rd_atomic: 4,
        access: ALL_RIGHTS.union(FLUSH_RIGHTS),
        ..PATIENT
    };
    let Way { loopback, packets, faults } = way;
    let config =
        NicConfig { loopback, packets, remote_faults: faults.unwrap_or_default(), ..NicConfig::default() };
    let mut pair = Pair::on(Bench::new(config), attributes);
    let rights = ALL_RIGHTS.union(FLUSH_RIGHTS);
    let target = if faults.is_some() {
        (HEAP, pair.bench.process(pair.pd, rights))
    } else {
        (pair.to, pair.bench.pinned(pair.pd, pair.to, pair.to, BUFFER, rights))
    };
    let mut pages = Pages { random: Random(!seed), asked: Vec::new(), late: 2, unmaps: 10 };
    let program: Vec<_> = (0..REQUESTS).map(|id| random_request(&pair, target, &mut random, id)).collect();
    program.iter().for_each(|wqe| pair.a.prepare(&pair.bench, wqe));
    pair.a.ring(&pair.bench);
    let (mut sent, mut received) = (Vec::new(), Vec::new());
    for round in 0.. {
        assert!(round < 20_000, "seed {seed}: {} of {REQUESTS}", sent.len());
        if round % 3 == 0 && round / 3 < REQUESTS {
            let place = target.0 + u64::from(round / 3) * 0x100;
            pair.b.receive(&pair.bench, 100 + u64::from(round / 3), &[sge(place, 0x2_0000, target.1)]);
        }
        pair.bench.settle();
        pages.asked.extend(pair.bench.iommu.take_requests());
        pages.change(&pair);
        pair.bench.settle();
        sent.extend(pair.cq_a.drain(&pair.bench));
        received.extend(pair.cq_b.drain(&pair.bench));
        if sent.len() == REQUESTS as usize {
            break;
        }
        pages.asked.extend(pair.bench.iommu.take_requests());
        // Pages come sooner than timers run out, but a few times.
        let is_late = !pages.asked.is_empty() && pages.late > 0 && pages.random.below(8) == 0;
        pages.late -= u32::from(is_late);
        let in_time = pages.asked.is_empty() || is_late;
        if let Some(deadline_ns) = pair.bench.next_deadline_ns().filter(|_| in_time) {
            pair.bench.advance(deadline_ns.saturating_sub(pair.bench.clock.now_ns()));
        }
    }
    let forget = |entries: &mut Vec<Cqe>| {
        entries.iter_mut().for_each(|entry| (entry.timestamp_ns, entry.owner) = (0, 0));
    };
    forget(&mut sent);
    forget(&mut received);
    let (source, target) =
        (pair.bench.bytes(pair.from, BUFFER as usize), pair.bench.bytes(pair.to, BUFFER as usize));
    (Effects { sent, received, source, target }, pair.bench.nic.stats())
}

/// How many programs: `REFAULT_WIRE_SEEDS`, or few enough for each run of the tests.
fn seeds() -> u64 {
    std::env::var("REFAULT_WIRE_SEEDS").map_or(60, |text| text.parse().expect("REFAULT_WIRE_SEEDS: a number"))
}

/// Runs a program, which must do what it does directly.
fn compare(seed: u64, direct: &Effects, way: Way) -> NicStats {
    let (effects, stats) = run(seed, way);
    let what = format!("seed {seed}, {way:?}");
    assert_eq!(effects.sent, direct.sent, "{what}");
    assert_eq!(effects.received, direct.received, "{what}");
    assert!(effects.source == direct.source, "{what}: what was read");
    assert!(effects.target == direct.target, "{what}: what was written");
    stats
}

/// What a program does without packets and with all pages present.
fn directly(seed: u64) -> Effects {
    let direct = run(seed, Way::default()).0;
    assert!(direct.sent.iter().all(|entry| entry.status == WC_SUCCESS), "seed {seed}: {direct:?}");
    direct
}

#[test]
fn a_program_does_the_same_directly_in_packets_and_with_loss() {
    let mut lost = 0;
    for seed in 0..seeds() {
        let direct = directly(seed);
        for loss_ppm in [0, 1_000, 10_000, 50_000] {
            let way = Way { loopback: Loopback::Packets { loss_ppm }, ..Way::default() };
            let stats = compare(seed, &direct, way);
            assert!(loss_ppm > 0 || stats.packets_lost == 0, "seed {seed}: {} lost", stats.packets_lost);
            lost += stats.packets_lost;
        }
    }
    assert!(lost > seeds(), "{lost} packets were lost");
}

#[test]
fn a_program_does_the_same_whatever_a_responder_does_without_a_page() {
    for policy in [RemoteFaults::Stall, RemoteFaults::Rnr, RemoteFaults::Drop, RemoteFaults::ResumeNak] {
        let (mut sums, mut needed) = (NicStats::default(), 0);
        let seeds = seeds().div_ceil(3);
        for seed in 0..seeds {
            let direct = directly(seed);
            let lossless = Way { loopback: Loopback::Packets { loss_ppm: 0 }, ..Way::default() };
            needed += 2 * run(seed, lossless).1.packets;
            let packets = PacketConfig {
                prefault: seed % 2 == 0,
                damming: seed % 3 == 0,
                fault_buffer: [256, 2][(seed / 4 % 2) as usize],
                seed,
                ..PacketConfig::default()
            };
            for loss_ppm in [0, 10_000] {
                let loopback = Loopback::Packets { loss_ppm };
                let stats = compare(seed, &direct, Way { loopback, packets, faults: Some(policy) });
                sums.packets_lost += stats.packets_lost;
                sums.transport_retries += stats.transport_retries;
                sums.page_requests += stats.page_requests;
                sums.packets += stats.packets;
                sums.rnr_naks += stats.rnr_naks;
                sums.rnr_resumes += stats.rnr_resumes;
                sums.requests_dropped_on_fault += stats.requests_dropped_on_fault;
                sums.held_bytes_peak = sums.held_bytes_peak.max(stats.held_bytes_peak);
            }
        }
        assert!(sums.page_requests > seeds, "{policy:?}: {sums:?}");
        // Each page that is missing, and each loss, costs no more than what was sent since.
        let causes = sums.page_requests + sums.packets_lost + sums.transport_retries;
        let window = u64::from(PacketConfig::default().window);
        assert!(sums.packets < 2 * needed + window * causes, "{policy:?}, a storm: {sums:?}");
        let acted = match policy {
            RemoteFaults::Stall => sums.held_bytes_peak,
            RemoteFaults::Rnr => sums.rnr_naks,
            RemoteFaults::Drop => sums.requests_dropped_on_fault,
            RemoteFaults::ResumeNak => sums.rnr_resumes,
        };
        assert!(acted > seeds, "{policy:?}: {sums:?}");
    }
}
