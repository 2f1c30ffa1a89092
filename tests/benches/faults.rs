//! The round trip of an I/O page fault against a minor page fault of the processor.
//!
//! The measured time is that from the doorbell's work to the completion: miss, page request in the queue, MSI sink
//! called, page mapped, response descriptor processed, access retried and copied. Taking the page away
//! beforehand is not included.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use refault_bus::Gpa;
use refault_model::paging::{PageSize, Rights};
use refault_os::speed::first_touch;
use refault_tests::bench::{Bench, Comparison, Target, timed};
use refault_tests::bench_fault::{begin, fault, serve};
use refault_tests::bench_rig::{Rig, SOURCE, TARGET};
use refault_tests::platform::PAGE_REQUEST_VECTOR;
use vmm_sys_util::eventfd::EventFd;

fn main() -> ExitCode {
    let mut bench = Bench::from_arguments();
    let mut rig = Rig::new(8192);
    rig.map(SOURCE, 4096, false);
    let frame = rig.machine.memory.frame().expect("a frame");
    rig.session.process.space.map(TARGET, frame, PageSize::Small, Rights::Write).expect("an empty page");
    rig.write_warm(SOURCE, TARGET, 64);
    bench.compare(
        Comparison {
            name: "I/O page fault on one thread, 64 bytes written",
            baseline: "first touch of an anonymous page",
            target: Target::AtMost(1.0),
        },
        &mut |count| (0..count).map(|_| fault(&mut rig, frame)).sum(),
        &mut first_touch,
    );
    across_threads(&mut bench, &mut rig, frame);
    bench.finish()
}

/// The device on this thread and the guest on another, which sleeps until its interrupt: compared with the same on one
/// thread plus one round trip of two eventfds between two threads.
fn across_threads(bench: &mut Bench, rig: &mut Rig, frame: Gpa) {
    let [interrupt, ping, pong] = [(); 3].map(|()| Arc::new(EventFd::new(0).expect("an eventfd")));
    // While faults are handled on one thread, the other sleeps.
    let asleep = Arc::new(AtomicBool::new(true));
    let (wake, quiet) = (interrupt.clone(), asleep.clone());
    rig.machine.interrupts.listen(move |vector| {
        if vector == PAGE_REQUEST_VECTOR && !quiet.load(Ordering::Relaxed) {
            wake.write(1).expect("an eventfd");
        }
    });
    let over = AtomicBool::new(false);
    let (unit, process) = (rig.machine.unit.clone(), rig.session.process.clone());
    thread::scope(|scope| {
        scope.spawn(|| {
            while interrupt.read().is_ok() && !over.load(Ordering::Acquire) {
                serve(&unit, &process, frame);
            }
        });
        scope.spawn(|| {
            while ping.read().is_ok() && !over.load(Ordering::Acquire) {
                pong.write(1).expect("an eventfd");
            }
        });
        let shared = std::cell::RefCell::new(rig);
        bench.compare(
            Comparison {
                name: "I/O page fault across two threads",
                baseline: "the same on one thread and an eventfd ping-pong",
                target: Target::AtMost(1.0),
            },
            &mut |count| {
                asleep.store(false, Ordering::Relaxed);
                let took = (0..count).map(|_| fault_apart(&mut shared.borrow_mut())).sum();
                asleep.store(true, Ordering::Relaxed);
                took
            },
            &mut |count| {
                let faults: Duration = (0..count).map(|_| fault(&mut shared.borrow_mut(), frame)).sum();
                let ping_pongs = timed(|| {
                    for _ in 0..count {
                        ping.write(1).expect("an eventfd");
                        pong.read().expect("an eventfd");
                    }
                });
                faults + ping_pongs
            },
        );
        over.store(true, Ordering::Release);
        for sleeper in [&interrupt, &ping] {
            sleeper.write(1).expect("an eventfd");
        }
    });
}

/// One fault that the other thread handles; this one sleeps until its worker has something to do.
fn fault_apart(rig: &mut Rig) -> Duration {
    begin(rig);
    let start = Instant::now();
    while rig.worker.poll() {}
    while !rig.is_complete() {
        // The answer will arrive, or arrived before the last check.
        let work = rig.worker.receiver().recv().expect("the NIC lives");
        rig.worker.process(work);
    }
    let took = start.elapsed();
    rig.machine.interrupts.take(PAGE_REQUEST_VECTOR);
    took
}
