//! A hook for experiments that check more than times: an actor owns the target memory, supplies the payload of each write,
//! is notified of its completion, and acts between requests.

use std::sync::Arc;

use refault_model::Process;
use refault_model::dax::FsError;

use super::EngineError;
use crate::machine::LabMachine;

/// What happens to the program after the actor has acted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It continues.
    Continue,
    /// It is killed, and a new one is started.
    Kill,
    /// It posts no more requests.
    Stop,
}

/// The owner of an experiment's target memory. Its methods take no virtual time.
pub trait Actor {
    /// Bytes of memory that it needs in addition to the program's.
    fn memory_bytes(&self) -> u64;

    /// Maps the target at `at` into a new program's address space.
    ///
    /// # Errors
    /// The file system of the model failed.
    fn map(
        &mut self,
        machine: &LabMachine,
        process: &Arc<Process>,
        at: refault_bus::Iova,
    ) -> Result<(), FsError>;

    /// The payload of a write of message number `message` that is being posted in `slot`.
    fn payload(&mut self, slot: u32, message: u64) -> Vec<u8>;

    /// The write in `slot` has completed. Not called for writes of a killed program.
    fn written(&mut self, slot: u32, success: bool);

    /// The program was killed, possibly with requests in flight.
    fn program_killed(&mut self);

    /// The resources of the killed program have been released.
    ///
    /// # Errors
    /// The file system of the model failed.
    fn program_released(&mut self) -> Result<(), FsError>;

    /// Nanoseconds until the next [`Self::act`].
    fn gap_ns(&mut self) -> u64;

    /// Performs the next file operation.
    ///
    /// # Errors
    /// The file system of the model failed.
    fn act(&mut self) -> Result<Next, FsError>;

    /// All requests have completed: returns descriptions of what is wrong.
    ///
    /// # Errors
    /// The file system of the model failed.
    fn finish(&mut self) -> Result<Vec<String>, FsError>;
}

/// Actors fail through the model's file system.
impl From<FsError> for EngineError {
    fn from(error: FsError) -> Self {
        Self::Actor(error)
    }
}
