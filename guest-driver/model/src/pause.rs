//! How a driver waits for a device.

use std::sync::Arc;

use crate::ModelError;

/// A callback between two polls of a device. It gets the number of polls so far and returns `false` to time out.
///
/// It decides what a wait costs: on a single thread it runs the devices, on several it spins or yields.
#[derive(Clone)]
pub struct Pause(Arc<dyn Fn(u64) -> bool + Send + Sync>);

impl Pause {
    /// A pause that calls `pause` between two polls.
    pub fn new(pause: impl Fn(u64) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(pause))
    }

    /// Busy waiting that times out after `polls` polls.
    pub fn spin(polls: u64) -> Self {
        Self::new(move |count| {
            std::hint::spin_loop();
            count < polls
        })
    }

    /// Polls until `ready` returns a value. `what` names the event for the error message.
    ///
    /// # Errors
    ///
    /// [`ModelError::Stuck`] on a timeout; any error of `ready`.
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
