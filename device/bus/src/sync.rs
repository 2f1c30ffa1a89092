//! Locks and atomics of device code, and taking locks without regard to poisoning.
//!
//! The files whose protocols are modelled take both from here: `tests/models` compiles the same files with a model
//! checker's in their place.
//!
//! A mutex is poisoned when a thread panics while holding it. Device code does not panic on the guest's data, so such
//! a panic is a bug; the thread that hit it reports it. The other threads must still run: an invalidation that failed
//! on a poisoned lock would leave the guest spinning with interrupts off, and a second panic would hide the first.
//! So they go on with the state as it is, every part of which is checked where it is used.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

pub use std::sync::{Mutex, MutexGuard, atomic};

/// Locks `mutex`, poisoned or not.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Locks `lock` for reading, poisoned or not.
pub fn read<T: ?Sized>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// Locks `lock` for writing, poisoned or not.
pub fn write<T: ?Sized>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_poisoned_by_a_panic_can_still_be_taken() {
        let (mutex, rw) = (Mutex::new(1), RwLock::new(2));
        let panicked = std::panic::catch_unwind(|| {
            let (_mutex, _rw) = (mutex.lock(), rw.write());
            std::panic::resume_unwind(Box::new("while both are held"));
        });
        assert!(panicked.is_err() && mutex.is_poisoned() && rw.is_poisoned());
        *write(&rw) += 1;
        assert_eq!((*lock(&mutex), *read(&rw)), (1, 3));
    }
}
