//! Page requests and their event, against a guest that moves the event and one that handles it.
//!
//! The guest does what Linux does. It masks the event, reads the mask back, rewrites the message and unmasks. Its handler
//! runs when a message has come: it clears PPR, takes all entries up to the tail, and clears PRO if the queue is empty.

use std::sync::Arc;

use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use loom::thread;
use refault_bus::dma::DmaMemory;
use refault_bus::irq::{MsiMessage, MsiSink};
use refault_bus::pri::PageRequest;
use refault_bus::{Bdf, Gpa, Iova, PrgIndex};

use crate::page_request::{PageRequestQueue, PageRequests};
use crate::spec::registers::{EventControl, PageRequestStatus};
use crate::words::Words;

/// Bytes of an entry, and of the ring.
const ENTRY: u64 = 32;
const BYTES: u64 = 0x1000;
const RING: Gpa = Gpa(0x1000);
/// Offset of the event's address register in its block; control is at 0, data at 4.
const ADDRESS: u64 = 8;
/// The message before and after the move.
const MESSAGES: [MsiMessage; 2] =
    [MsiMessage { address: 0xfee0_0000, data: 0x20 }, MsiMessage { address: 0xfee0_1000, data: 0x21 }];

/// The interrupt controller.
#[derive(Default)]
struct Controller {
    /// Messages that no handler has begun to serve.
    pending: AtomicU32,
    /// The guest has read the mask back.
    masked: AtomicBool,
}

impl MsiSink for Controller {
    fn signal(&self, message: MsiMessage) {
        assert!(!self.masked.load(Ordering::SeqCst), "an event went out after its mask was read back");
        assert!(MESSAGES.contains(&message), "half of a message: {message:?}");
        self.pending.fetch_add(1, Ordering::SeqCst);
    }
}

/// A message that is kept until later.
#[derive(Default)]
pub struct Late(std::sync::Mutex<Vec<MsiMessage>>);

impl Late {
    pub fn send(&self, msi: &dyn MsiSink) -> bool {
        self.0.lock().expect("it is not poisoned").drain(..).map(|message| msi.signal(message)).count() > 0
    }
}

impl MsiSink for Late {
    fn signal(&self, message: MsiMessage) {
        self.0.lock().expect("it is not poisoned").push(message);
    }
}

/// The unit's share, and the guest's.
struct Machine {
    requests: PageRequests,
    memory: Words,
    controller: Controller,
    taken: AtomicU32,
}

impl Machine {
    /// A queue whose head is `head` and whose tail is zero, with memory for so many `entries` of the device's, and an event
    /// that is not masked.
    fn new(head: u64, entries: usize) -> Arc<Self> {
        let machine = Self {
            requests: PageRequests::default(),
            memory: Words::new(RING, entries * 8),
            controller: Controller::default(),
            taken: AtomicU32::new(0),
        };
        machine.queue(|queue| queue.set_address(RING.0));
        machine.queue(|queue| queue.set_head(head));
        machine.program(MESSAGES[0]);
        machine.mask(false);
        Arc::new(machine)
    }

    /// One access to the registers.
    fn queue<R>(&self, access: impl FnOnce(&mut PageRequestQueue) -> R) -> R {
        access(&mut self.requests.lock())
    }

    fn program(&self, message: MsiMessage) {
        let low = u32::try_from(message.address).expect("below 4 GiB");
        self.queue(|queue| queue.event.write(4, message.data, &self.controller));
        self.queue(|queue| queue.event.write(ADDRESS, low, &self.controller));
    }

    fn mask(&self, masked: bool) {
        let control = EventControl::new().with_mask(masked).into_bits();
        self.queue(|queue| queue.event.write(0, control, &self.controller));
    }

    /// A device requests the page with that number, which is not zero.
    fn request(&self, page: u64) {
        let request = PageRequest {
            requester: Bdf(1),
            pasid: None,
            page: Iova(page << 12),
            read: true,
            write: false,
            last: true,
            group: PrgIndex::truncated(0),
        };
        self.requests.receive(&self.memory, &self.controller, &request, (), |_| ());
    }

    /// Moves the event to another vCPU.
    fn move_event(&self) {
        self.mask(true);
        assert_eq!(self.queue(|queue| queue.event.read(0)) >> 31 & 1, 1, "the mask reads back");
        self.controller.masked.store(true, Ordering::SeqCst);
        self.program(MESSAGES[1]);
        self.controller.masked.store(false, Ordering::SeqCst);
        self.mask(false);
    }

    /// Handles messages until none is pending.
    fn handle(&self) {
        while self.controller.pending.swap(0, Ordering::SeqCst) != 0 {
            self.queue(|queue| queue.clear_status(PageRequestStatus::new().with_ppr(true)));
            let tail = self.queue(|queue| queue.tail());
            let mut head = self.queue(|queue| queue.head());
            while head != tail {
                self.take(head);
                head = (head + ENTRY) % BYTES;
            }
            self.queue(|queue| queue.set_head(head));
            if self.queue(|queue| queue.status().pro())
                && self.queue(|queue| queue.tail()) == self.queue(|queue| queue.head())
            {
                self.queue(|queue| queue.clear_status(PageRequestStatus::new().with_pro(true)));
            }
        }
    }

    /// Takes the entry at `head`, if it is one of the device's.
    fn take(&self, head: u64) {
        let mut entry = [0; ENTRY as usize];
        if self.memory.read(Gpa(RING.0 + head), &mut entry).is_ok() {
            let page = u64::from_le_bytes(entry[8..16].try_into().expect("eight bytes")) >> 12;
            assert!(page != 0, "the tail was moved past an entry that is not there");
            self.taken.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Two requests, while one vCPU of the guest moves the event and another one handles it.
pub fn events() {
    let machine = Machine::new(0, 2);
    let spawn = |act: fn(&Machine)| {
        let machine = machine.clone();
        thread::spawn(move || act(&machine))
    };
    let threads =
        [spawn(|machine| (1..3).for_each(|page| machine.request(page))), spawn(Machine::move_event)];
    machine.handle();
    threads.into_iter().for_each(|thread| thread.join().expect("it ends"));
    machine.handle();
    let (taken, tail) = (machine.taken.load(Ordering::SeqCst), machine.queue(|queue| queue.tail()));
    assert!(taken == 2 && tail == 2 * ENTRY, "a request was lost, or its event: {taken} of 2 taken");
}

/// The same where the ring is full, until the handler has run.
pub fn overflows() {
    let machine = Machine::new(ENTRY, 1);
    let device = thread::spawn({
        let machine = machine.clone();
        move || (1..3).for_each(|page| machine.request(page))
    });
    machine.handle();
    device.join().expect("it requests pages");
    machine.handle();
    let status = machine.queue(|queue| queue.status());
    assert!(!status.ppr() && !status.pro(), "an overflow was not announced: {status:?}");
}
