//! A flush of one page while other threads look up pages that the IOMMU has not cached. The guest waits for a flush with
//! interrupts off, so it must get its turn: each of these threads may finish the lookup at hand, and begin one more.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use refault_bus::ats::{RequestKind, TranslationAgent, TranslationRequest};
use refault_bus::{Iova, Pasid};
use refault_model::paging::PageSize;
use refault_nic::NicConfig;
use refault_tests::bench_rig::{AREA, Rig, TARGET};

/// Threads that look pages up.
const THREADS: u64 = 4;
/// Most lookups that may pass 99 of 100 flushes.
const LIMIT: u64 = 2 * THREADS;
/// Time between two flushes: the threads are at it again.
const PAUSE: Duration = Duration::from_micros(20);

fn main() -> ExitCode {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let rig = Rig::new(16);
    rig.map(TARGET, AREA, true);
    let (lookups, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let mut passed: Vec<u64> = thread::scope(|scope| {
        for thread in 0..THREADS {
            let (iommu, pasid) = (&*rig.machine.iommu, rig.session.pasid);
            let (lookups, over) = (&lookups, &over);
            scope.spawn(move || look_up(iommu, pasid, thread, lookups, over));
        }
        let passed = (0..if quick { 10_000 } else { 150_000 }).map(|_| flush(&rig, &lookups)).collect();
        over.store(true, Ordering::Relaxed);
        passed
    });
    passed.sort_unstable();
    let at = |thousandth: usize| passed[(passed.len() - 1) * thousandth / 1000];
    let (most, met) = (at(990), if at(990) <= LIMIT { "" } else { ": MISSED" });
    println!("lookups by {THREADS} threads that pass a flush, of {} flushes", passed.len());
    println!("    99 of 100: {most}, target <= {LIMIT}{met}");
    println!("    median {}, 999 of 1000: {}, all: {}\n", at(500), at(999), at(1000));
    if met.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Looks pages up until it is over; so many that the IOMMU has forgotten each when its turn comes again.
fn look_up(iommu: &dyn TranslationAgent, pasid: Pasid, thread: u64, lookups: &AtomicU64, over: &AtomicBool) {
    let (requester, kind) = (NicConfig::default().bdf, RequestKind::Translation);
    let page = PageSize::Small.bytes();
    for turn in (thread * 1000..).take_while(|_| !over.load(Ordering::Relaxed)) {
        let iova = Iova(TARGET.0 + turn % (AREA / page) * page);
        let request = TranslationRequest { requester, pasid: Some(pasid), iova, write: false, kind };
        assert!(iommu.translate(&request).expect("an answer").read);
        lookups.fetch_add(1, Ordering::Relaxed);
    }
}

/// One flush, as the kernel does it. Returns how many lookups came to an end meanwhile.
fn flush(rig: &Rig, lookups: &AtomicU64) -> u64 {
    let resumed = Instant::now() + PAUSE;
    while Instant::now() < resumed {
        std::hint::spin_loop();
    }
    let before = lookups.load(Ordering::Relaxed);
    rig.session.process.flush(TARGET, PageSize::Small.bytes()).expect("the flush ends");
    lookups.load(Ordering::Relaxed) - before
}
