//! What may be done with an experiment besides measuring it: a play has the memory that the requests are for, says what
//! they carry, hears what became of them, and acts in between.

use std::sync::Arc;

use refault_model::Process;
use refault_model::dax::FsError;

use super::EngineError;
use crate::machine::Machine;

/// What a play wants done to the program after it acted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// It goes on.
    GoOn,
    /// It is killed, and another one takes its place.
    Kill,
    /// It posts no more requests.
    End,
}

/// A play. All of it happens in no time, but what it says.
pub trait Play {
    /// Memory that it needs beside the program's.
    fn memory_bytes(&self) -> u64;

    /// Maps the target, `region_bytes` at `at`, into a new program's memory.
    fn map(
        &mut self,
        machine: &Machine,
        process: &Arc<Process>,
        at: refault_bus::Iova,
    ) -> Result<(), FsError>;

    /// A request to write a message is posted in a slot: what it carries.
    fn payload(&mut self, slot: u32, message: u64) -> Vec<u8>;

    /// The request to write in a slot is over; it never is, if its program was killed.
    fn written(&mut self, slot: u32, success: bool);

    /// Its program was killed, requests may have been under way.
    fn killed(&mut self);

    /// And all that the dead program had is gone.
    fn buried(&mut self) -> Result<(), FsError>;

    /// Nanoseconds until it acts next.
    fn gap_ns(&mut self) -> u64;

    /// It acts: something happens to the files.
    fn act(&mut self) -> Result<Wish, FsError>;

    /// Every request is back: what is wrong that must not be, for people.
    fn finish(&mut self) -> Result<Vec<String>, FsError>;
}

/// A failure of a play is one of the model.
impl From<FsError> for EngineError {
    fn from(error: FsError) -> Self {
        Self::Play(error)
    }
}
