//! The modelled kernel's clock and scheduler: what time it is, and blocking until a condition holds.

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitResult {
    /// The condition holds.
    Ready,
    /// The deadline passed first.
    TimedOut,
    /// The wait had no deadline, and nothing is left to run that could make the condition true.
    Deadlock,
}

/// A clock on which a waiting task lets the other tasks run.
///
/// Call it without any lock that another task may take.
pub trait Scheduler: Send + Sync {
    /// Nanoseconds since the start of the model.
    fn now_ns(&self) -> u64;

    /// Lets other tasks run until `ready` returns true, or until the time `deadline_ns`.
    fn wait(&self, deadline_ns: Option<u64>, ready: &mut dyn FnMut() -> bool) -> WaitResult;
}

/// A scheduler without other tasks, whose clock stands still: every wait that would block ends at once. For tests, and
/// for policies that never wait.
#[derive(Clone, Copy, Debug, Default)]
pub struct SoleTask;

impl Scheduler for SoleTask {
    fn now_ns(&self) -> u64 {
        0
    }

    fn wait(&self, deadline_ns: Option<u64>, ready: &mut dyn FnMut() -> bool) -> WaitResult {
        match (ready(), deadline_ns) {
            (true, _) => WaitResult::Ready,
            (false, Some(_)) => WaitResult::TimedOut,
            (false, None) => WaitResult::Deadlock,
        }
    }
}
