//! Page fault handlers: several at a time, each with a part of its work that only one can do.
//!
//! A state machine without a clock: its owner says when things happen, and how long they take.

use std::collections::VecDeque;

/// Handlers, the faults that wait for them, and their lock. `R` is what a fault is known by.
pub struct FaultHandlers<R> {
    waiting: VecDeque<R>,
    handlers: Vec<Handler<R>>,
    /// Handlers without work; the one that rested longest is first.
    idle: VecDeque<usize>,
    batch: usize,
    holder: Option<usize>,
    /// Handlers that want the lock, in order.
    queue: VecDeque<usize>,
}

/// What one handler took from the queue.
struct Handler<R> {
    faults: Vec<R>,
    /// The one in hand.
    current: usize,
}

impl<R: Copy> FaultHandlers<R> {
    /// `count` handlers, each of which takes up to `batch` faults at once; at least one of both.
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

    /// A fault arrives and waits.
    pub fn arrive(&mut self, fault: R) {
        self.waiting.push_back(fault);
    }

    /// A handler takes faults, if there is one without work and there are any; which one.
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

    /// The fault that a handler has in hand.
    pub fn current(&self, handler: usize) -> Option<R> {
        let Handler { faults, current } = self.handlers.get(handler)?;
        faults.get(*current).copied()
    }

    /// The same, to be changed.
    pub fn current_mut(&mut self, handler: usize) -> Option<&mut R> {
        let Handler { faults, current } = self.handlers.get_mut(handler)?;
        faults.get_mut(*current)
    }

    /// A handler goes on to the next of the faults it took, if there is one.
    pub fn next(&mut self, handler: usize) -> Option<R> {
        self.handlers.get_mut(handler)?.current += 1;
        self.current(handler)
    }

    /// A handler is without work again; the faults it had taken go to `each`.
    pub fn finish(&mut self, handler: usize, each: impl FnMut(R)) {
        if let Some(Handler { faults, .. }) = self.handlers.get_mut(handler) {
            faults.drain(..).for_each(each);
            self.idle.push_back(handler);
        }
    }

    /// A handler wants the lock; whether it has it at once. If not, a [`Self::release`] will name it.
    pub fn acquire(&mut self, handler: usize) -> bool {
        if self.holder.is_none() {
            self.holder = Some(handler);
            return true;
        }
        self.queue.push_back(handler);
        false
    }

    /// The holder gives the lock back; who has it now.
    pub fn release(&mut self) -> Option<usize> {
        self.holder = self.queue.pop_front();
        self.holder
    }

    /// All faults that wait or are in hand.
    pub fn into_faults(self) -> impl Iterator<Item = R> {
        self.handlers.into_iter().flat_map(|handler| handler.faults).chain(self.waiting)
    }

    /// Faults that wait or are in hand.
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
    fn the_lock_has_one_holder_and_goes_round_in_order() {
        let mut handlers = FaultHandlers::<u32>::new(3, 1);
        assert!(handlers.acquire(2));
        assert!(!handlers.acquire(0) && !handlers.acquire(1));
        assert_eq!((handlers.release(), handlers.release(), handlers.release()), (Some(0), Some(1), None));
        assert!(handlers.acquire(1));
    }
}
