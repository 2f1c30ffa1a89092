//! The rules of leases that no cell of the table shows: the order of lease and pin, and who sees what.

use std::sync::Arc;

use refault_model::dax::{Errno, FsError};
use refault_model::policy::{
    Holding, Mpin, OnBreakTimeout, PinnedLease, Policy, ProgramId, RevocableLease, WhenPinned,
};
use refault_model::scheduler::Scheduler;

use crate::matrix::machine::OwnSpace;
use crate::matrix::operation::Operation;
use crate::matrix::program::Habits;
use crate::matrix::row::{ANSWER_NS, BREAK_TIME_NS, IO_NS};
use crate::matrix::stage::Stage;
use crate::matrix::world::World;

/// A stage under a policy that `make` makes on its clock, with a program of such habits.
fn stage<P: Policy + 'static>(habits: Habits, make: impl FnOnce(Arc<dyn Scheduler>) -> P) -> (Arc<P>, Stage) {
    let world = World::new(OwnSpace::Translated).unwrap();
    let policy = Arc::new(make(world.clone()));
    let stage = Stage::of(world, policy.clone(), habits, Operation::Truncate).unwrap();
    (policy, stage)
}

fn refused<T>(result: Result<T, FsError>) -> Option<Errno> {
    result.err().and_then(|error| error.errno())
}

#[test]
fn pinning_wants_a_lease_on_the_whole_range() {
    let (lease, stage) = stage(Habits::default(), |waits| PinnedLease::new(waits, false));
    let wish = |pages| stage.program.request(pages, true).unwrap();
    assert_eq!(refused(lease.register(&wish(0..4))), Some(Errno::EPERM));
    lease.prepare(&wish(0..4)).unwrap();
    assert_eq!(refused(lease.register(&wish(2..6))), Some(Errno::EPERM), "it covers half of it");
    lease.register(&wish(1..3)).unwrap().release().unwrap();
}

#[test]
fn the_administrator_sees_who_holds_which_range_with_how_many_pins() {
    let (lease, stage) = stage(Habits::default(), |waits| PinnedLease::new(waits, true));
    let wish = stage.program.request(2..8, true).unwrap();
    lease.prepare(&wish).unwrap();
    let region = lease.register(&wish).unwrap();
    let (program, file) = (ProgramId(1), stage.data);
    let expected = Holding { program, file, pages: 2..8, pins: 6, breaking: false };
    assert_eq!(lease.holdings(), std::slice::from_ref(&expected));
    assert_eq!(expected.to_string(), format!("program 1 holds pages 2..8 of file {}, 6 pinned", file.0));
    region.release().unwrap();
    assert_eq!(lease.holdings()[0].pins, 0);
}

#[test]
fn a_lease_without_pins_is_broken_and_must_be_taken_again() {
    let (lease, stage) = stage(Habits::default(), |waits| PinnedLease::new(waits, false));
    let wish = stage.program.request(0..12, true).unwrap();
    lease.prepare(&wish).unwrap();
    stage.fs.truncate(stage.data, 14).unwrap();
    stage.fs.punch(stage.data, 4..5).unwrap();
    assert_eq!(refused(lease.register(&wish)), Some(Errno::EPERM), "broken by the punch");
    lease.prepare(&wish).unwrap();
    let region = lease.register(&wish).unwrap();
    assert_eq!(refused(stage.fs.truncate(stage.data, 6)), Some(Errno::ETXTBSY));
    stage.fs.truncate(stage.data, 12).unwrap();
    region.release().unwrap();
    stage.fs.truncate(stage.data, 6).unwrap();
}

#[test]
fn pins_outlive_a_lease_that_is_given_up_and_no_more_can_be_made() {
    let (lease, stage) = stage(Habits::default(), |waits| PinnedLease::new(waits, false));
    let wish = stage.program.request(0..4, true).unwrap();
    lease.prepare(&wish).unwrap();
    let region = lease.register(&wish).unwrap();
    lease.unlock(ProgramId(1)).unwrap();
    assert_eq!(refused(lease.register(&wish)), Some(Errno::EPERM));
    assert_eq!(refused(stage.fs.punch(stage.data, 0..1)), Some(Errno::ETXTBSY), "still pinned");
    region.release().unwrap();
}

#[test]
fn a_lease_held_until_unpinned_is_given_up_when_the_last_pin_is() {
    let habits = Habits { done_after_ns: Some(IO_NS), ..Habits::default() };
    let (lease, stage) = stage(habits, |waits| PinnedLease::new(waits, true));
    stage.program.register(0..4, true).unwrap();
    lease.unlock(ProgramId(1)).unwrap();
    assert_eq!((stage.world.now_ns(), lease.holdings().len()), (IO_NS, 0));

    let (lease, stage) = self::stage(Habits::default(), |waits| PinnedLease::new(waits, true));
    stage.program.register(0..4, true).unwrap();
    assert!(matches!(lease.unlock(ProgramId(1)), Err(FsError::Forever(_))), "nobody unpins");
    assert_eq!(lease.holdings().len(), 1);
}

#[test]
fn a_holder_who_asked_for_it_hears_of_attempts_that_failed() {
    let (_lease, stage) =
        stage(Habits::default(), |waits| PinnedLease::new(waits, false).notifying_holders());
    stage.program.register(0..12, true).unwrap();
    assert_eq!(refused(stage.fs.truncate(stage.data, 6)), Some(Errno::ETXTBSY));
    assert_eq!(stage.program.signals(), 1);
}

#[test]
fn the_break_time_is_the_longest_wait_and_a_parameter() {
    for (answer, break_time, waited) in
        [(ANSWER_NS, BREAK_TIME_NS, ANSWER_NS), (IO_NS, ANSWER_NS, ANSWER_NS), (IO_NS, 0, 0)]
    {
        let habits = Habits { answers_after_ns: Some(answer), ..Habits::default() };
        let (lease, stage) =
            stage(habits, |waits| RevocableLease::new(waits, break_time, OnBreakTimeout::Revoke));
        stage.program.register(0..12, true).unwrap();
        stage.fs.truncate(stage.data, 6).unwrap();
        assert_eq!((stage.world.now_ns(), lease.holdings().len()), (waited, 0));
    }
}

#[test]
fn mpinned_memory_is_freed_of_its_promise_only_when_no_region_uses_it() {
    let (mpin, stage) = stage(Habits::default(), |waits| Mpin::new(waits, WhenPinned::Refuse, 0));
    let wish = stage.program.request(0..4, true).unwrap();
    assert_eq!(refused(mpin.register(&wish)), Some(Errno::EPERM), "not mpinned");
    mpin.prepare(&wish).unwrap();
    let region = mpin.register(&wish).unwrap();
    assert_eq!(mpin.account(ProgramId(1)).ram, 0, "no RAM is locked");
    assert_eq!(refused(mpin.munpin(ProgramId(1))), Some(Errno::EBUSY));
    region.release().unwrap();
    mpin.munpin(ProgramId(1)).unwrap();
}
