//! A pool of page fault handlers that share a queue of faults and a lock, as the threads of a kernel share mmap_lock.
//!
//! This is a state machine without a clock: its owner decides when each step happens and how long it takes.

use std::collections::VecDeque;

/// The handlers, numbered from 0, with their queue and lock. `R` identifies a fault.
pub struct FaultHandlers<R> {
    waiting: VecDeque<R>,
    handlers: Vec<Handler<R>>,
    /// Idle handlers, the longest idle first.
    idle: VecDeque<usize>,
    batch: usize,
    holder: Option<usize>,
    /// Handlers that wait for the lock, in order of arrival.
    queue: VecDeque<usize>,
}

/// The batch that a handler is working on; empty if it is idle.
struct Handler<R> {
    faults: Vec<R>,
    /// Index of the fault in progress.
    current: usize,
}

impl<R: Copy> FaultHandlers<R> {
    /// Creates `count` handlers that each dequeue up to `batch` faults at a time. Zero counts as one, for both.
    pub fn new(count: usize, batch: usize) -> Self {
        let count = count.max(1);
        Self {
            waiting: VecDeque::new(),
            handlers: (0..count).map(|_| Handler { faults: Vec::new(), current: 0 }).collect(),
            idle: (0..count).collect(),
            batch: batch.max(1),
            holder: None,
            queue: VecDeque::new(),
        }
    }

    /// Queues a fault.
    pub fn arrive(&mut self, fault: R) {
        self.waiting.push_back(fault);
    }

    /// Has an idle handler dequeue a batch of faults. Returns its number, or `None` if all are busy or no fault is
    /// queued.
    pub fn start(&mut self) -> Option<usize> {
        if self.waiting.is_empty() {
            return None;
        }
        let handler = self.idle.pop_front()?;
        let taken = self.waiting.len().min(self.batch);
        let Handler { faults, current } = &mut self.handlers[handler];
        faults.extend(self.waiting.drain(..taken));
        *current = 0;
        Some(handler)
    }

    /// The fault that `handler` is working on.
    pub fn current(&self, handler: usize) -> Option<R> {
        let Handler { faults, current } = self.handlers.get(handler)?;
        faults.get(*current).copied()
    }

    /// The fault that `handler` is working on, mutably.
    pub fn current_mut(&mut self, handler: usize) -> Option<&mut R> {
        let Handler { faults, current } = self.handlers.get_mut(handler)?;
        faults.get_mut(*current)
    }

    /// Moves `handler` to the next fault of its batch. Returns `None` at the end of the batch.
    pub fn next(&mut self, handler: usize) -> Option<R> {
        self.handlers.get_mut(handler)?.current += 1;
        self.current(handler)
    }

    /// Passes the batch of `handler` to `each`, and makes the handler idle.
    pub fn finish(&mut self, handler: usize, each: impl FnMut(R)) {
        if let Some(Handler { faults, .. }) = self.handlers.get_mut(handler) {
            faults.drain(..).for_each(each);
            self.idle.push_back(handler);
        }
    }

    /// Takes the lock for `handler`, or queues it for the lock and returns `false`; a later [`Self::release`] returns
    /// its number.
    pub fn acquire(&mut self, handler: usize) -> bool {
        if self.holder.is_none() {
            self.holder = Some(handler);
            return true;
        }
        self.queue.push_back(handler);
        false
    }

    /// Passes the lock to the next handler in the queue and returns its number, or unlocks it.
    pub fn release(&mut self) -> Option<usize> {
        self.holder = self.queue.pop_front();
        self.holder
    }

    /// All faults that are queued or in a batch.
    pub fn into_faults(self) -> impl Iterator<Item = R> {
        self.handlers.into_iter().flat_map(|handler| handler.faults).chain(self.waiting)
    }

    /// The number of faults that are queued or in a batch.
    pub fn outstanding(&self) -> usize {
        self.waiting.len() + self.handlers.iter().map(|handler| handler.faults.len()).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_taken_in_order_and_in_batches() {
        let mut handlers = FaultHandlers::new(2, 3);
        (0..5).for_each(|fault| handlers.arrive(fault));
        assert_eq!((handlers.start(), handlers.start(), handlers.start()), (Some(0), Some(1), None));
        assert_eq!((handlers.current(0), handlers.current(1)), (Some(0), Some(3)));
        assert_eq!((handlers.next(0), handlers.next(0), handlers.next(0)), (Some(1), Some(2), None));
        assert_eq!(handlers.outstanding(), 5);
        let mut answered = Vec::new();
        handlers.finish(0, |fault| answered.push(fault));
        assert_eq!((answered, handlers.outstanding()), (vec![0, 1, 2], 2));
        handlers.arrive(5);
        assert_eq!((handlers.start(), handlers.current(0)), (Some(0), Some(5)));
    }

    #[test]
    fn the_lock_has_one_holder_and_is_passed_on_in_order() {
        let mut handlers = FaultHandlers::<u32>::new(3, 1);
        assert!(handlers.acquire(2));
        assert!(!handlers.acquire(0) && !handlers.acquire(1));
        assert_eq!((handlers.release(), handlers.release(), handlers.release()), (Some(0), Some(1), None));
        assert!(handlers.acquire(1));
    }
}
