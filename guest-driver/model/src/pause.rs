//! What a driver does while it waits for a device.

use std::sync::Arc;

use crate::ModelError;

/// Called between two polls with the number of polls so far; `false` gives up.
#[derive(Clone)]
pub struct Pause(Arc<dyn Fn(u64) -> bool + Send + Sync>);

impl Pause {
    /// A pause of one's own: let devices work, yield the processor, count.
    pub fn new(pause: impl Fn(u64) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(pause))
    }

    /// Spins, and gives up after `polls` of them.
    pub fn spin(polls: u64) -> Self {
        Self::new(move |count| {
            std::hint::spin_loop();
            count < polls
        })
    }

    /// Polls until `ready` has a value. `what` names the thing waited for, should it never come.
    pub fn until<T>(
        &self,
        what: &'static str,
        mut ready: impl FnMut() -> Result<Option<T>, ModelError>,
    ) -> Result<T, ModelError> {
        let mut polls = 0;
        loop {
            if let Some(value) = ready()? {
                return Ok(value);
            }
            polls += 1;
            if !(self.0)(polls) {
                return Err(ModelError::Stuck(what));
            }
        }
    }
}
