//! Concurrency models of the devices' protocols: docs/testing.md has the list.
//!
//! Each model runs the devices' own source files. `build.rs` copies them here with loom's locks and atomics in place of
//! std's, once as they are (`intact`) and once for each mistake of `variants.rs`. Each copy has the scenario of its
//! protocol beside it, which is a few threads and what must hold in the end. loom runs them in every order, and with
//! every value that a load may return.

use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What stands for `refault_bus::sync` in the modelled files.
mod sync {
    pub(crate) use loom::sync::{Mutex, MutexGuard, atomic};

    /// Locks `mutex`. No model goes on after a panic.
    pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().expect("no thread has panicked")
    }
}

// For rustfmt alone: each variant has a copy of its own.
#[cfg(any())]
mod scenarios;

include!(concat!(env!("OUT_DIR"), "/variants.rs"));

/// Preemptions in each order that is tried, if loom's variable `LOOM_MAX_PREEMPTIONS` says nothing else.
const PREEMPTIONS: usize = 3;

/// Runs `scenario` in every order, and prints how many there were.
///
/// # Panics
///
/// As `scenario` does in one of them.
pub fn holds(scenario: fn()) {
    let orders = Arc::new(AtomicU64::new(0));
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(PREEMPTIONS);
    builder.max_branches = 10_000;
    let tried = orders.clone();
    builder.check(move || {
        tried.fetch_add(1, Ordering::Relaxed);
        scenario();
    });
    println!("{} orders", orders.load(Ordering::Relaxed));
}

/// Runs `scenario`, which has a mistake in it, until it fails.
///
/// # Panics
///
/// It does not, or with a message other than `expected`.
pub fn finds(scenario: fn(), expected: &str) {
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| holds(scenario)));
    let payload = outcome.expect_err("the model has not found the mistake");
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let message = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or_default();
    assert!(message.contains(expected), "the model failed for another reason: {message}");
}
