//! Rules of leases that the matrix does not show: the order of lease and pin, and what the administrator sees.

use std::sync::Arc;

use refault_model::dax::{Errno, FsError};
use refault_model::policy::{
    Holding, Mpin, OnBreakTimeout, PinnedLease, Policy, ProgramId, RevocableLease, WhenPinned,
};
use refault_model::scheduler::Scheduler;

use crate::matrix::machine::OwnSpace;
use crate::matrix::operation::FileOperation;
use crate::matrix::program::ProgramBehaviour;
use crate::matrix::row::{ANSWER_NS, BREAK_TIME_NS, IO_NS};
use crate::matrix::simulation::Simulation;
use crate::matrix::testbed::Testbed;

/// A testbed with the policy that `make` creates on its clock.
fn testbed<P: Policy + 'static>(
    behaviour: ProgramBehaviour,
    make: impl FnOnce(Arc<dyn Scheduler>) -> P,
) -> (Arc<P>, Testbed) {
    let simulation = Simulation::new(OwnSpace::Translated).unwrap();
    let policy = Arc::new(make(simulation.clone()));
    let testbed =
        Testbed::with_policy(simulation, policy.clone(), behaviour, FileOperation::Truncate).unwrap();
    (policy, testbed)
}

fn refused<T>(result: Result<T, FsError>) -> Option<Errno> {
    result.err().and_then(|error| error.errno())
}

#[test]
fn pinning_requires_a_lease_on_the_whole_range() {
    let (lease, testbed) = testbed(ProgramBehaviour::default(), |waits| PinnedLease::new(waits, false));
    let request = |pages| testbed.program.request(pages, true).unwrap();
    assert_eq!(refused(lease.register(&request(0..4))), Some(Errno::EPERM));
    lease.prepare(&request(0..4)).unwrap();
    assert_eq!(refused(lease.register(&request(2..6))), Some(Errno::EPERM), "it covers half of it");
    lease.register(&request(1..3)).unwrap().release().unwrap();
}

#[test]
fn the_administrator_sees_who_holds_which_range_with_how_many_pins() {
    let (lease, testbed) = testbed(ProgramBehaviour::default(), |waits| PinnedLease::new(waits, true));
    let request = testbed.program.request(2..8, true).unwrap();
    lease.prepare(&request).unwrap();
    let region = lease.register(&request).unwrap();
    let (program, file) = (ProgramId(1), testbed.data);
    let expected = Holding { program, file, pages: 2..8, pins: 6, breaking: false };
    assert_eq!(lease.holdings(), std::slice::from_ref(&expected));
    assert_eq!(expected.to_string(), format!("program 1 holds pages 2..8 of file {}, 6 pinned", file.0));
    region.release().unwrap();
    assert_eq!(lease.holdings()[0].pins, 0);
}

#[test]
fn a_lease_without_pins_is_broken_and_must_be_taken_again() {
    let (lease, testbed) = testbed(ProgramBehaviour::default(), |waits| PinnedLease::new(waits, false));
    let request = testbed.program.request(0..12, true).unwrap();
    lease.prepare(&request).unwrap();
    testbed.fs.truncate(testbed.data, 14).unwrap();
    testbed.fs.punch(testbed.data, 4..5).unwrap();
    assert_eq!(refused(lease.register(&request)), Some(Errno::EPERM), "broken by the punch");
    lease.prepare(&request).unwrap();
    let region = lease.register(&request).unwrap();
    assert_eq!(refused(testbed.fs.truncate(testbed.data, 6)), Some(Errno::ETXTBSY));
    testbed.fs.truncate(testbed.data, 12).unwrap();
    region.release().unwrap();
    testbed.fs.truncate(testbed.data, 6).unwrap();
}

#[test]
fn pins_outlive_a_released_lease_but_no_more_can_be_added() {
    let (lease, testbed) = testbed(ProgramBehaviour::default(), |waits| PinnedLease::new(waits, false));
    let request = testbed.program.request(0..4, true).unwrap();
    lease.prepare(&request).unwrap();
    let region = lease.register(&request).unwrap();
    lease.unlock(ProgramId(1)).unwrap();
    assert_eq!(refused(lease.register(&request)), Some(Errno::EPERM));
    assert_eq!(refused(testbed.fs.punch(testbed.data, 0..1)), Some(Errno::ETXTBSY), "still pinned");
    region.release().unwrap();
}

#[test]
fn a_lease_held_until_unpinned_ends_with_the_last_unpin() {
    let behaviour = ProgramBehaviour { done_after_ns: Some(IO_NS), ..ProgramBehaviour::default() };
    let (lease, testbed) = testbed(behaviour, |waits| PinnedLease::new(waits, true));
    testbed.program.register(0..4, true).unwrap();
    lease.unlock(ProgramId(1)).unwrap();
    assert_eq!((testbed.simulation.now_ns(), lease.holdings().len()), (IO_NS, 0));

    let (lease, testbed) = self::testbed(ProgramBehaviour::default(), |waits| PinnedLease::new(waits, true));
    testbed.program.register(0..4, true).unwrap();
    assert!(matches!(lease.unlock(ProgramId(1)), Err(FsError::Forever(_))), "there is no unpin");
    assert_eq!(lease.holdings().len(), 1);
}

#[test]
fn a_subscribed_holder_is_notified_of_failed_attempts() {
    let (_lease, testbed) =
        testbed(ProgramBehaviour::default(), |waits| PinnedLease::new(waits, false).notifying_holders());
    testbed.program.register(0..12, true).unwrap();
    assert_eq!(refused(testbed.fs.truncate(testbed.data, 6)), Some(Errno::ETXTBSY));
    assert_eq!(testbed.program.signals(), 1);
}

#[test]
fn the_break_time_is_the_longest_wait_and_a_parameter() {
    for (answer, break_time, waited) in
        [(ANSWER_NS, BREAK_TIME_NS, ANSWER_NS), (IO_NS, ANSWER_NS, ANSWER_NS), (IO_NS, 0, 0)]
    {
        let behaviour = ProgramBehaviour { releases_after_ns: Some(answer), ..ProgramBehaviour::default() };
        let (lease, testbed) =
            testbed(behaviour, |waits| RevocableLease::new(waits, break_time, OnBreakTimeout::Revoke));
        testbed.program.register(0..12, true).unwrap();
        testbed.fs.truncate(testbed.data, 6).unwrap();
        assert_eq!((testbed.simulation.now_ns(), lease.holdings().len()), (waited, 0));
    }
}

#[test]
fn memory_can_be_munpinned_only_when_no_region_uses_it() {
    let (mpin, testbed) =
        testbed(ProgramBehaviour::default(), |waits| Mpin::new(waits, WhenPinned::Refuse, 0));
    let request = testbed.program.request(0..4, true).unwrap();
    assert_eq!(refused(mpin.register(&request)), Some(Errno::EPERM), "not mpinned");
    mpin.prepare(&request).unwrap();
    let region = mpin.register(&request).unwrap();
    assert_eq!(mpin.account(ProgramId(1)).ram, 0, "no RAM is locked");
    assert_eq!(refused(mpin.munpin(ProgramId(1))), Some(Errno::EBUSY));
    region.release().unwrap();
    mpin.munpin(ProgramId(1)).unwrap();
}
