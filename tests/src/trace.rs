//! A probe that keeps its events.

use std::sync::{Mutex, MutexGuard, PoisonError};

use refault_bus::probe::{Probe, ProbeEvent, Stage};

/// All events since the last [`Trace::take`].
#[derive(Debug, Default)]
pub struct Trace(Mutex<Vec<ProbeEvent>>);

impl Trace {
    /// Takes the events so far.
    pub fn take(&self) -> Vec<ProbeEvent> {
        std::mem::take(&mut *self.lock())
    }

    /// The stages so far, in order.
    pub fn stages(&self) -> Vec<Stage> {
        self.lock().iter().map(|event| event.stage).collect()
    }

    /// How often `stage` was passed so far.
    pub fn count(&self, stage: Stage) -> usize {
        self.lock().iter().filter(|event| event.stage == stage).count()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<ProbeEvent>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Probe for Trace {
    fn record(&self, event: &ProbeEvent) {
        self.lock().push(*event);
    }
}
