//! Time, as a kernel under a model has it: what it is, and waiting for something to happen meanwhile.

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// What was waited for is there.
    Ready,
    /// The deadline came first.
    TimedOut,
    /// There was no deadline, and nothing that could still happen would end the wait: it lasts for ever.
    Forever,
}

/// A clock on which waiting lets everybody else act.
///
/// Nobody calls it with a lock held that another one's action may need.
pub trait Waits: Send + Sync {
    /// Nanoseconds since the model began.
    fn now_ns(&self) -> u64;

    /// Lets everybody else act until `ready` says so, or until `deadline_ns`.
    fn wait(&self, deadline_ns: Option<u64>, ready: &mut dyn FnMut() -> bool) -> Waited;
}

/// Time that stands still: nobody else acts, so every wait without a deadline lasts for ever. For what never waits,
/// and for tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Waits for Alone {
    fn now_ns(&self) -> u64 {
        0
    }

    fn wait(&self, deadline_ns: Option<u64>, ready: &mut dyn FnMut() -> bool) -> Waited {
        match (ready(), deadline_ns) {
            (true, _) => Waited::Ready,
            (false, Some(_)) => Waited::TimedOut,
            (false, None) => Waited::Forever,
        }
    }
}
