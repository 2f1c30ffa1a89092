//! A queue pair that waits for a page is destroyed, and its slot given to another one, while its answer arrives.
//!
//! The second queue pair waits for a page too, and is answered. It must be woken, by its own answer.

use std::sync::Arc;

use loom::sync::Mutex;
use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use loom::thread;

use crate::qp::answer::{Half, PageAnswer};
use crate::qp::slot::Slot;

/// The two queue pairs: one slot, and another variant each.
const FIRST: u32 = 1 << 14 | 5;
const SECOND: u32 = 2 << 14 | 5;

/// The requester of a queue pair: what the engine's is, as far as it matters here.
#[derive(Default)]
struct Requester {
    qpn: u32,
    /// Ticket of the answer that it waits for.
    waits_for: Option<u64>,
}

/// The ticket of each one's wait.
fn ticket(qpn: u32) -> u64 {
    u64::from(qpn >> 14)
}

#[derive(Default)]
struct World {
    slot: Slot<Requester>,
    /// Turns that are queued for the worker.
    queue: Mutex<u32>,
    /// The command that destroys the first one was answered.
    destroyed: AtomicBool,
    /// The page of the second one is there.
    answered: AtomicBool,
    /// Completions of the second one.
    completed: AtomicU32,
}

impl World {
    fn begin(&self, requester: &mut Requester, qpn: u32) {
        *requester = Requester { qpn, waits_for: Some(ticket(qpn)) };
        self.slot.occupy(qpn);
    }

    fn empty(&self, requester: &mut Requester) {
        *requester = Requester::default();
        self.slot.occupy(0);
    }

    /// A page is there: `Workers::wake` for one waiter.
    fn wake(&self, qpn: u32) {
        if self.slot.qpn() == qpn {
            self.slot.leave_answer(Half::Requester, ticket(qpn), PageAnswer::Retry);
            self.slot.schedule(|_| *self.queue.lock().expect("it is not poisoned") += 1);
        }
    }

    /// The worker, until its queue is empty.
    fn work(&self) {
        while std::mem::take(&mut *self.queue.lock().expect("it is not poisoned")) > 0 {
            self.slot.turn(|requester| self.run(requester));
        }
    }

    /// A turn: the request of an answered wait completes.
    fn run(&self, requester: &mut Requester) {
        assert!(requester.qpn != 0, "a turn of an empty slot");
        if requester.waits_for.is_some_and(|ticket| self.slot.answer(Half::Requester, ticket).is_some()) {
            requester.waits_for = None;
            self.complete(requester.qpn);
        }
    }

    fn complete(&self, qpn: u32) {
        if qpn == FIRST {
            assert!(!self.destroyed.load(Ordering::SeqCst), "a completion after the destroy completed");
        } else {
            assert!(self.answered.load(Ordering::SeqCst), "a wait was ended by another one's answer");
            self.completed.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// The commands, the worker, and the answer to the first one's page request.
pub fn answers() {
    let world = Arc::new(World::default());
    world.slot.requester.interrupt(|requester| world.begin(requester, FIRST));
    let spawn = |act: fn(&World)| {
        let world = world.clone();
        thread::spawn(move || act(&world))
    };
    let threads = [spawn(|world| world.wake(FIRST)), spawn(World::work)];

    world.slot.requester.interrupt(|requester| world.empty(requester));
    world.destroyed.store(true, Ordering::SeqCst);
    world.slot.requester.interrupt(|requester| world.begin(requester, SECOND));
    world.answered.store(true, Ordering::SeqCst);
    world.wake(SECOND);

    threads.into_iter().for_each(|thread| thread.join().expect("it ends"));
    world.work();
    let completed = world.completed.load(Ordering::SeqCst);
    assert!(completed == 1, "a wakeup was lost: {completed} completions");
}
