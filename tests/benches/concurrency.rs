//! Fault throughput by the number of queue pairs that fault at once. The guest answers each page request some
//! microseconds after its arrival, however many others wait. A device with one queue for all faults would have the
//! throughput of one queue pair.

use std::collections::VecDeque;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use refault_abi::codes::WC_SUCCESS;
use refault_bus::pri::ResponseCode;
use refault_bus::{Gpa, Iova};
use refault_model::nic::{QueuePair, work};
use refault_model::paging::{PageSize, Rights};
use refault_model::vtd::{Answer, QueuedRequest};
use refault_tests::bench::{Bench, Comparison, Target};
use refault_tests::bench_rig::{Rig, SOURCE, TARGET};
use refault_tests::platform::PAGE_REQUEST_VECTOR;

/// From a page request to its answer.
const HANDLING: Duration = Duration::from_micros(100);
/// Queue pairs.
const MOST: usize = 64;

fn main() -> ExitCode {
    let mut bench = Bench::from_arguments();
    let mut rig = Rig::new(8192);
    rig.map(SOURCE, 4096, false);
    let frame = rig.machine.memory.frame().expect("a frame");
    let mut pairs = rig.add_pairs(MOST);
    for (index, (sender, _)) in pairs.iter_mut().enumerate() {
        map(&rig, page(index), frame);
        write(&rig, sender, index);
    }
    while rig.worker.poll() {}
    assert_eq!(rig.session.drain().len(), MOST, "warm writes need no page");
    let shared = std::cell::RefCell::new((rig, pairs));
    for count in [8, MOST] {
        bench.compare(
            Comparison {
                name: &format!("a fault among {count} at once, each answered after {HANDLING:?}"),
                baseline: "a fault alone, answered after the same time",
                target: if count == MOST { Target::SpeedAtLeast(8.0) } else { Target::None },
            },
            &mut |rounds| {
                let (rig, pairs) = &mut *shared.borrow_mut();
                let took: Duration = (0..rounds).map(|_| faults(rig, &mut pairs[..count], frame)).sum();
                took / count as u32
            },
            &mut |rounds| {
                let (rig, pairs) = &mut *shared.borrow_mut();
                (0..rounds).map(|_| faults(rig, &mut pairs[..1], frame)).sum()
            },
        );
    }
    bench.finish()
}

/// One fault of each queue pair, all at once. Returns the time until the last is resolved.
fn faults(rig: &mut Rig, pairs: &mut [(QueuePair, QueuePair)], frame: Gpa) -> Duration {
    for index in 0..pairs.len() {
        rig.session.process.take_page(page(index)).expect("a page");
    }
    let start = Instant::now();
    for (index, (sender, _)) in pairs.iter_mut().enumerate() {
        write(rig, sender, index);
    }
    let mut waiting: VecDeque<(Instant, QueuedRequest)> = VecDeque::new();
    let mut done = 0;
    while done < pairs.len() {
        while rig.worker.poll() {}
        if rig.machine.interrupts.take(PAGE_REQUEST_VECTOR) > 0 {
            let served = rig.machine.unit.service_page_requests(|request| {
                waiting.push_back((Instant::now() + HANDLING, *request));
                Answer::Later
            });
            served.expect("the queue is served");
        }
        while let Some((_, request)) = waiting.pop_front_if(|(due, _)| *due <= Instant::now()) {
            map(rig, request.page, frame);
            rig.machine.unit.respond(&request, ResponseCode::Success).expect("the response is taken");
        }
        done += rig.session.drain().iter().inspect(|cqe| assert_eq!(cqe.status, WC_SUCCESS)).count();
    }
    start.elapsed()
}

/// The page that a queue pair writes to.
fn page(index: usize) -> Iova {
    Iova(TARGET.0 + PageSize::Small.bytes() * index as u64)
}

fn map(rig: &Rig, page: Iova, frame: Gpa) {
    rig.session.process.space.map(page, frame, PageSize::Small, Rights::Write).expect("an empty page");
}

fn write(rig: &Rig, sender: &mut QueuePair, index: usize) {
    let key = rig.session.region.key;
    let wqe = work::rdma_write(0, work::piece(SOURCE, 64, key), page(index), key);
    sender.post(&wqe).expect("the ring is memory");
}
