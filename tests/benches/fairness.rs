//! Small requests and commands beside queue pairs that move large messages without end. The unit is a write of 64 KiB,
//! which is what a queue pair moves in a turn: a fair device serves a small request after a turn of every other one, and
//! a command after the turn at hand.

use std::cell::RefCell;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use refault_abi::codes::{AccessRights, WC_SUCCESS};
use refault_abi::command::{
    CMD_CREATE_MR, CMD_CREATE_PD, CMD_DESTROY_MR, CMD_DESTROY_PD, CMD_QUERY_DEVICE, CMD_QUERY_QP,
    CMD_REVOKE_MR, CommandOpcode, CreateMr, DeviceCaps, MR_PASID, ObjectId, QpSnapshot,
};
use refault_bus::Iova;
use refault_model::nic::{QueuePair, work};
use refault_tests::bench::{Bench, Comparison, Target, timed};
use refault_tests::bench_rig::{Rig, SOURCE, TARGET};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Bytes of a large and of a small message, and of a turn.
const LARGE: u32 = 1 << 20;
const SMALL: u32 = 4 << 10;
const TURN: u32 = 64 << 10;
/// Large messages posted on each queue pair.
const DEPTH: usize = 64;
/// Pieces of work over which shares are counted.
const COUNTED: usize = 4000;

const UNIT: &str = "a write of 64 KiB, alone, from post to completion";

fn main() -> ExitCode {
    let mut bench = Bench::from_arguments();
    let mut idle = Rig::new(8192);
    idle.map(SOURCE, LARGE.into(), false);
    idle.map(TARGET, LARGE.into(), false);
    let mut beside_four = Crowd::new(4);
    let share = beside_four.share_of_small();
    println!("\nbytes of a queue pair with 4 KiB messages, of those of one with 1 MiB beside it: {share:.2}");
    let latencies = Latencies::default();
    bench.compare(
        Comparison {
            name: "a write of 4 KiB beside four queue pairs with 1 MiB, from post to completion",
            baseline: UNIT,
            target: Target::AtMost(8.0),
        },
        &mut |count| (0..count).map(|_| latencies.note(beside_four.write_small())).sum(),
        &mut |count| timed(|| (0..count).for_each(|_| idle.write_warm(SOURCE, TARGET, TURN))),
    );
    latencies.print();
    let mut crowd = Crowd::new(100);
    let latencies = Latencies::default();
    bench.compare(
        Comparison {
            name: "a command beside 100 queue pairs with 1 MiB, from doorbell to response",
            baseline: UNIT,
            target: Target::AtMost(3.0),
        },
        &mut |count| (0..count).map(|_| latencies.note(crowd.command())).sum(),
        &mut |count| timed(|| (0..count).for_each(|_| idle.write_warm(SOURCE, TARGET, TURN))),
    );
    latencies.print();
    let mut crowd = Crowd::new(2000);
    let latencies = Latencies::default();
    bench.compare(
        Comparison {
            name: "each of seven commands beside 2,000 queue pairs with 1 MiB, from doorbell to response",
            baseline: UNIT,
            target: Target::AtMost(3.0),
        },
        &mut |count| (0..count).map(|_| crowd.seven_commands(&latencies)).sum::<Duration>() / 7,
        &mut |count| timed(|| (0..count).for_each(|_| idle.write_warm(SOURCE, TARGET, TURN))),
    );
    latencies.print();
    bench.finish()
}

/// Queue pairs that always have large writes to do, and one for small ones.
struct Crowd {
    rig: Rig,
    large: Vec<(QueuePair, QueuePair)>,
    /// Small messages done.
    small_done: usize,
    large_done: usize,
}

impl Crowd {
    fn new(count: usize) -> Self {
        let mut rig = Rig::new(8192);
        rig.map(SOURCE, LARGE.into(), false);
        rig.map(TARGET, LARGE.into(), false);
        let large = rig.add_pairs(count);
        let mut crowd = Self { rig, large, small_done: 0, large_done: 0 };
        for index in 0..count {
            (0..DEPTH).for_each(|_| crowd.post_large(index));
        }
        crowd
    }

    fn post_large(&mut self, index: usize) {
        let wqe = write(&self.rig, index as u64, LARGE);
        self.large[index].0.post(&wqe).expect("the ring is memory");
    }

    fn post_small(&mut self) {
        let wqe = write(&self.rig, u64::MAX, SMALL);
        self.rig.session.sender.post(&wqe).expect("the ring is memory");
    }

    /// One piece of work, and a new large write for each that it completed.
    fn step(&mut self) {
        assert!(self.rig.worker.poll(), "there is always work");
        while let Some(cqe) = self.rig.session.poll() {
            assert_eq!(cqe.status, WC_SUCCESS);
            if cqe.wr_id == u64::MAX {
                self.small_done += 1;
            } else {
                self.large_done += 1;
                self.post_large(cqe.wr_id as usize);
            }
        }
    }

    fn write_small(&mut self) -> Duration {
        let before = self.small_done;
        let start = Instant::now();
        self.post_small();
        while self.small_done == before {
            self.step();
        }
        start.elapsed()
    }

    fn command(&mut self) -> Duration {
        self.execute::<DeviceCaps>(CMD_QUERY_DEVICE, &[0u8; 0]).0
    }

    /// What verbs of another process would cause. One command, the revocation, goes through lane 1.
    fn seven_commands(&mut self, latencies: &Latencies) -> Duration {
        let object = |id| ObjectId { id, ..ObjectId::default() };
        let context = self.rig.session.context.id;
        let busy = self.large[0].0.number();
        let (create_pd, pd) = self.execute::<ObjectId>(CMD_CREATE_PD, &object(context));
        let region = CreateMr {
            start: TARGET.0,
            length: LARGE.into(),
            pd: pd.id,
            access: AccessRights::ALL,
            mode: MR_PASID,
            ..CreateMr::default()
        };
        let (create_mr, mr) = self.execute::<ObjectId>(CMD_CREATE_MR, &region);
        let (revoke_mr, _) = self.execute::<[u8; 0]>(CMD_REVOKE_MR, &object(mr.id));
        let (destroy_mr, _) = self.execute::<[u8; 0]>(CMD_DESTROY_MR, &object(mr.id));
        let (destroy_pd, _) = self.execute::<[u8; 0]>(CMD_DESTROY_PD, &object(pd.id));
        let (query_qp, _) = self.execute::<QpSnapshot>(CMD_QUERY_QP, &object(busy));
        let all = [create_pd, create_mr, revoke_mr, destroy_mr, destroy_pd, query_qp, self.command()];
        all.into_iter().map(|latency| latencies.note(latency)).sum()
    }

    /// A command, with what the response says.
    fn execute<T: FromBytes>(
        &mut self,
        opcode: CommandOpcode,
        body: &(impl IntoBytes + Immutable),
    ) -> (Duration, T) {
        let driver = self.rig.machine.driver.clone();
        let lane = if opcode == CMD_REVOKE_MR { driver.lane1() } else { driver.lane0() };
        let start = Instant::now();
        let ticket = lane.send(opcode, body).expect("a free slot");
        loop {
            if let Some(answer) = lane.answer(&ticket).expect("a command that succeeds") {
                return (start.elapsed(), answer);
            }
            self.step();
        }
    }

    /// With the small queue pair as busy as the others: its bytes, as a part of what each of the others moved.
    fn share_of_small(&mut self) -> f64 {
        (0..DEPTH).for_each(|_| self.post_small());
        let mut posted = DEPTH;
        let before = self.large_done;
        for _ in 0..COUNTED {
            self.step();
            while posted < self.small_done + DEPTH {
                self.post_small();
                posted += 1;
            }
        }
        let small = self.small_done as f64 * f64::from(SMALL);
        let large = (self.large_done - before) as f64 * f64::from(LARGE) / self.large.len() as f64;
        while self.small_done < posted {
            self.step();
        }
        small / large
    }
}

/// What a median does not show.
#[derive(Default)]
struct Latencies(RefCell<Vec<Duration>>);

impl Latencies {
    fn note(&self, latency: Duration) -> Duration {
        self.0.borrow_mut().push(latency);
        latency
    }

    fn print(&self) {
        let mut all = self.0.borrow_mut();
        all.sort();
        if let (Some(median), Some(late)) = (all.get(all.len() / 2), all.get(all.len() * 99 / 100)) {
            let times = late.as_secs_f64() / median.as_secs_f64();
            let (count, slowest) = (all.len(), all[all.len() - 1].as_nanos());
            println!("    99 of 100 within {} ns, {times:.1} times the median", late.as_nanos());
            println!("    all {count} within {slowest} ns");
        }
    }
}

fn write(rig: &Rig, id: u64, length: u32) -> refault_abi::queue::SqWqe {
    let key = rig.session.region.key;
    work::rdma_write(id, work::piece(Iova(SOURCE.0), length, key), TARGET, key)
}
