//! Devices translate on their threads while vCPUs flush: no stale translation survives a flush, and nothing deadlocks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use refault_bus::ats::TranslationAgent;
use refault_bus::dma::GuestRam;

use crate::support::descriptors as d;
use crate::support::*;

/// Rounds continue until the other threads have translated this many times.
const TURNS: u64 = 5_000;

/// Time after which a thread counts as stuck.
const TIMEOUT: Duration = Duration::from_secs(20);

#[test]
fn no_translation_outlives_the_flush_that_names_it() {
    let guest = Guest::booted();
    let leaf = guest.map_user(VA, 0x10_0000);
    // The oldest frame that may still be seen: raised when the flush of its predecessor is complete.
    let oldest = AtomicU64::new(0x10_0000);
    let (done, turns) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let _finish = Finish(&done);
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    turns.fetch_add(1, Ordering::Relaxed);
                    let bound = oldest.load(Ordering::SeqCst);
                    let seen = guest.ats(VA, true).unwrap();
                    assert!(!seen.write || seen.gpa.0 >= bound, "{:#x} after {bound:#x}", seen.gpa.0);
                }
            });
        }
        for round in 1u64.. {
            let frame = 0x10_0000 + (round << 12);
            guest.store(leaf, 0);
            guest.store(leaf, frame | Pte::PRESENT | Pte::USER | Pte::WRITE);
            assert!(guest.submit(&[d::piotlb(SVA_DOMAIN, PASID, VA, 0)]));
            oldest.store(frame, Ordering::SeqCst);
            if round > 2000 && turns.load(Ordering::Relaxed) > TURNS {
                break;
            }
            thread::yield_now();
        }
    });
}

#[test]
fn no_mark_is_set_in_a_table_after_its_flush() {
    // After a flush the guest may free the table and use it for something else. So the flush waits for a walk that has
    // read an entry and is about to mark it.
    const PAUSE: Duration = Duration::from_millis(100);
    let (reached, is_reached) = mpsc::channel();
    let is_armed = Arc::new(AtomicBool::new(false));
    let armed = is_armed.clone();
    let before_exchange = move |_: &GuestRam, _, _| {
        if armed.swap(false, Ordering::SeqCst) {
            reached.send(()).unwrap();
            thread::sleep(PAUSE);
        }
    };
    let mut guest = Guest::powered_with(|ram| Arc::new(Interposed { ram, before_exchange }));
    guest.boot();
    let leaf = guest.map_user(VA, 0x10_0000);
    guest.ats(VA, false).unwrap();
    let unmarked = guest.load(leaf) & !(Pte::ACCESSED | Pte::DIRTY);
    guest.store(leaf, unmarked);
    guest.submit(&[d::piotlb_all(SVA_DOMAIN, PASID)]);
    is_armed.store(true, Ordering::SeqCst);
    thread::scope(|scope| {
        let walk = scope.spawn(|| guest.ats(VA, true).unwrap());
        is_reached.recv_timeout(TIMEOUT).expect("the walk marks the leaf");
        guest.store(guest.layout.user_tables + (VA.0 >> 39 & 0x1ff) * 8, 0);
        assert!(guest.submit(&[d::piotlb_all(SVA_DOMAIN, PASID)]));
        // The page table is free, and now holds data that equals the entry.
        guest.store(leaf, unmarked);
        walk.join().unwrap();
        thread::sleep(2 * PAUSE);
        assert_eq!(guest.load(leaf), unmarked);
    });
    assert!(!guest.ats(VA, true).unwrap().read);
}

#[test]
fn devices_translate_and_ask_for_pages_while_an_invalidation_waits() {
    // The device's invalidation waits for a worker that is inside a translation and a page request: with the wrong lock
    // held, a deadlock.
    let guest = Arc::new(Guest::booted());
    guest.map_user(VA, 0x8000);
    let (finished, wait) = mpsc::channel();
    let worker_guest = Arc::downgrade(&guest);
    guest.device.on_call(move || {
        let Some(guest) = worker_guest.upgrade() else { return };
        let (done, ready) = mpsc::channel();
        thread::spawn(move || {
            guest.ats(VA, true).unwrap();
            guest.dma(None, VA, true).unwrap_err();
            guest.iommu.page_request(page_request(VA, true, 1));
            guest.read32(reg::FSTS);
            guest.read32(reg::IQH);
            guest.read32(reg::GSTS);
            done.send(()).unwrap();
        });
        ready.recv_timeout(TIMEOUT).expect("a worker is stuck behind an invalidation");
    });
    let submitter = guest.clone();
    thread::spawn(move || {
        let flushed = submitter.submit(&[d::device_tlb_pasid(NIC, PASID, VA.0, false)]);
        finished.send(flushed).unwrap();
    });
    assert!(wait.recv_timeout(2 * TIMEOUT).expect("the invalidation is stuck"));
}

#[test]
fn two_vcpus_share_the_queue() {
    // Linux holds a lock around the tail write. Here the vCPUs take turns at whole submissions, so both execute the
    // queue and see their own status.
    let guest = Guest::booted();
    let turn = std::sync::Mutex::new(());
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..1000 {
                    let _turn = turn.lock().unwrap();
                    assert!(guest.submit(&[d::iotlb_domain(SVA_DOMAIN)]));
                }
            });
        }
    });
    assert_eq!(guest.iommu.statistics().iotlb_invalidations, 2000);
}

#[test]
fn page_requests_of_many_threads_are_all_queued_and_announced() {
    let guest = Guest::booted();
    let (threads, each) = (4u64, 1000u64);
    let (sent, taken, done) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let _finish = Finish(&done);
        for thread in 0..threads {
            let (guest, sent, taken, done) = (&guest, &sent, &taken, &done);
            scope.spawn(move || {
                for index in 0..each {
                    // A few in flight at a time, so that the handler gets many interrupts.
                    while sent.load(Ordering::SeqCst) > taken.load(Ordering::SeqCst) + 3 {
                        if done.load(Ordering::Relaxed) {
                            return;
                        }
                        thread::yield_now();
                    }
                    guest.ask(VA, true, thread * each + index);
                    sent.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        // The handler runs only on an interrupt. An entry without an interrupt would never be taken.
        let deadline = Instant::now() + TIMEOUT;
        while taken.load(Ordering::SeqCst) < threads * each {
            if guest.messages().is_empty() {
                assert!(Instant::now() < deadline, "an entry without an interrupt");
                thread::yield_now();
            } else {
                taken.fetch_add(guest.take_page_requests().len() as u64, Ordering::SeqCst);
            }
        }
    });
    assert_eq!(taken.into_inner(), threads * each);
    assert!(guest.device.responses().is_empty());
}

/// Ends the other threads of a scope when it is dropped, also by a failed assertion.
struct Finish<'a>(&'a AtomicBool);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
