//! A device that writes completions, against a driver that polls, arms the queue and sleeps until there is an event.

use std::sync::Arc;

use loom::sync::Mutex;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;
use refault_bus::Gpa;
use refault_bus::dma::DmaMemory;

use crate::memory::publish::publish;
use crate::queue::arming::Arming;
use crate::queue::index::phase;
use crate::queue::moderation::Step;
use crate::words::Words;

/// log2 of the ring's entries. Each has a word of data, and then the word with the phase.
const LOG: u8 = 1;
const ENTRY: u64 = 8;
const RING: Gpa = Gpa(0x1000);

/// Completions that the device writes.
const COUNT: u32 = 2;

struct Queue {
    arming: Mutex<Arming>,
    memory: Words,
    events: AtomicU32,
}

/// The driver's side.
struct Driver {
    queue: Arc<Queue>,
    consumer: u32,
}

impl Queue {
    fn new() -> Arc<Self> {
        let memory = Words::new(RING, 2 << LOG);
        Arc::new(Self { arming: Mutex::default(), memory, events: AtomicU32::new(0) })
    }

    fn lock(&self) -> loom::sync::MutexGuard<'_, Arming> {
        self.arming.lock().expect("it is not poisoned")
    }

    /// What the device does with a completion, and with an arm doorbell, once it has the queue.
    fn step(&self, arming: &mut Arming, step: Step) {
        if step == Step::Notify {
            arming.notified();
            self.events.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// The device completes a request.
    fn complete(&self) {
        let mut arming = self.lock();
        let written = arming.complete(
            false,
            || 0,
            |index| {
                let (at, data) = (entry(index), index + 1);
                publish(&self.memory, at, &data.to_le_bytes(), Gpa(at.0 + 4), phase(index, LOG))
            },
        );
        self.step(&mut arming, written.expect("the ring is memory"));
    }
}

fn entry(index: u32) -> Gpa {
    Gpa(RING.0 + u64::from(index % (1 << LOG)) * ENTRY)
}

impl Driver {
    /// Takes all completions that are there. An entry whose phase fits is whole.
    fn poll(&mut self) {
        let memory = &self.queue.memory;
        while self.consumer < COUNT {
            let at = entry(self.consumer);
            if memory.load_u32(Gpa(at.0 + 4)) != Ok(phase(self.consumer, LOG)) {
                break;
            }
            let mut data = [0; 4];
            memory.read(at, &mut data).expect("the ring is memory");
            assert!(u32::from_le_bytes(data) == self.consumer + 1, "an entry was seen before it was whole");
            self.consumer += 1;
        }
    }

    /// Polls, and arms the queue when it has found nothing more.
    fn poll_and_arm(&mut self) {
        self.poll();
        let mut arming = self.queue.lock();
        let step = arming.arm(self.consumer, false, LOG, 0);
        self.queue.step(&mut arming, step);
    }

    /// Wakes up for each event.
    fn handle(&mut self) {
        while self.queue.events.swap(0, Ordering::SeqCst) != 0 {
            self.poll_and_arm();
        }
    }
}

/// The driver sees all completions although it sleeps as long as there is no event.
pub fn notifications() {
    let queue = Queue::new();
    let device = thread::spawn({
        let queue = queue.clone();
        move || (0..COUNT).for_each(|_| queue.complete())
    });
    let mut driver = Driver { queue, consumer: 0 };
    driver.poll_and_arm();
    driver.handle();
    device.join().expect("it completes requests");
    driver.handle();
    assert!(driver.consumer == COUNT, "a notification was lost: {} of {COUNT} seen", driver.consumer);
}
