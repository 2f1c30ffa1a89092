//! Filters, from the lists of system calls and rules for their arguments.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Compare, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

use super::lists::{Call, DEVICE, EVERYONE, NOT_FOR_PROGRAMS, OTHERS, STORAGE, calls};
use super::{Programs, ThreadKind};

/// Conditions on the arguments for each call; none for a call that is allowed always.
type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Types of ioctl requests, in their second byte: KVM's (include/uapi/linux/kvm.h).
const KVM_TYPE: u64 = 0xae00;
const TYPE_MASK: u64 = 0xff00;
/// KVM_SIGNAL_MSI, a device's interrupt.
const KVM_SIGNAL_MSI: u64 = 0x4020_aea5;
/// TCGETS2 and TCSETS2, TCSETSW2, TCSETSF2 (asm-generic/ioctls.h).
const TERMINAL_2: [u64; 4] = [0x802c_542a, 0x402c_542b, 0x402c_542c, 0x402c_542d];
/// prctl's option for names of mappings, which the C library uses (include/uapi/linux/prctl.h).
const PR_SET_VMA: u64 = 0x5356_4d41;

/// The filters of a thread that opens no file and starts no thread.
pub(super) fn worker(kind: ThreadKind, programs: Programs) -> Result<Vec<BpfProgram>> {
    let mut rules = always(EVERYONE);
    rules.extend(restricted()?);
    match kind {
        ThreadKind::Vcpu => {
            rules.extend(always(DEVICE));
            rules.insert(libc::SYS_ioctl, vec![masked(1, TYPE_MASK, KVM_TYPE)?]);
        }
        ThreadKind::Device | ThreadKind::Storage => {
            rules.extend(always(DEVICE));
            rules.insert(libc::SYS_ioctl, vec![equal(1, KVM_SIGNAL_MSI)?]);
        }
        // An output that cannot be written ends the program that it is the output of.
        ThreadKind::Output if programs == Programs::UntilSealed => {
            rules.extend(always(calls! { SYS_wait4 SYS_waitid SYS_pidfd_send_signal SYS_kill }));
        }
        ThreadKind::Output | ThreadKind::Other => {}
    }
    if kind == ThreadKind::Storage {
        rules.extend(always(STORAGE));
    }
    // These fail rather than end the process. When it gives memory back, the C library tries to read a setting in /proc; and
    // it starts threads with signals blocked, so that SIGSYS could not be handled.
    let failing_calls = always(calls! { SYS_openat SYS_clone SYS_clone3 });
    rules.extend(failing_calls.clone());
    // The stricter filter comes last, for it forbids to install another.
    Ok(vec![failing(failing_calls, libc::EACCES)?, only(rules)?])
}

/// The filters of a process that starts no programs.
pub(super) fn sealed(listens: bool) -> Result<Vec<BpfProgram>> {
    // The C library falls back on clone, whose flags a filter can see. New processes fail, as new threads do above.
    let clone3 = failing(always(calls! { SYS_clone3 }), libc::ENOSYS)?;
    let process = masked(0, number(libc::CLONE_THREAD), 0)?;
    let process = failing(Rules::from([(libc::SYS_clone, vec![process])]), libc::EPERM)?;
    Ok(vec![clone3, process, only(others(listens)?)?])
}

/// The filters of a process that starts programs, and of those.
pub(super) fn programs() -> Result<Vec<BpfProgram>> {
    Ok(vec![failing(always(NOT_FOR_PROGRAMS), libc::EPERM)?])
}

/// What a process does that starts no programs.
fn others(listens: bool) -> Result<Rules> {
    let mut rules = restricted()?;
    for calls in [EVERYONE, DEVICE, STORAGE, OTHERS] {
        rules.extend(always(calls));
    }
    let terminal =
        [libc::TCGETS, libc::TCSETS, libc::TCSETSW, libc::TCSETSF, libc::TIOCGWINSZ, libc::TIOCGPGRP];
    let terminal = terminal.into_iter().chain([libc::FIONBIO, libc::FIOCLEX]);
    let mut ioctls = vec![masked(1, TYPE_MASK, KVM_TYPE)?];
    for request in terminal.chain(TERMINAL_2) {
        ioctls.push(equal(1, request)?);
    }
    rules.insert(libc::SYS_ioctl, ioctls);
    let mut sockets = vec![equal(0, number(libc::AF_UNIX))?];
    if listens {
        sockets.push(equal(0, number(libc::AF_INET))?);
    }
    rules.insert(libc::SYS_socket, sockets);
    // Limits can be read, not set.
    rules.insert(libc::SYS_prlimit64, vec![rule(2, Length::Qword, Compare::Eq, 0)?]);
    rules.insert(libc::SYS_kill, vec![]);
    Ok(rules)
}

/// Calls that every thread may make with some arguments only.
fn restricted() -> Result<Rules> {
    let not_executable = || masked(2, number(libc::PROT_EXEC), 0);
    let own = number(i32::try_from(std::process::id())?);
    let names =
        [number(libc::PR_SET_NAME), number(libc::PR_GET_NAME), PR_SET_VMA, number(libc::PR_SET_NO_NEW_PRIVS)];
    let names = names.into_iter().map(|option| equal(0, option)).collect::<Result<_>>()?;
    let queries = vec![equal(1, number(libc::F_GETFD))?, equal(1, number(libc::F_GETFL))?];
    Ok(Rules::from([
        (libc::SYS_fcntl, queries),
        (libc::SYS_mmap, vec![not_executable()?]),
        (libc::SYS_mprotect, vec![not_executable()?]),
        (libc::SYS_tgkill, vec![equal(0, own)?]),
        (libc::SYS_prctl, names),
    ]))
}

fn always(calls: &[Call]) -> Rules {
    calls.iter().map(|(number, _)| (*number, Vec::new())).collect()
}

/// A filter that allows these calls and raises SIGSYS for others.
fn only(rules: Rules) -> Result<BpfProgram> {
    compiled(SeccompFilter::new(rules, SeccompAction::Trap, SeccompAction::Allow, TargetArch::x86_64))
}

/// A filter by which these calls fail.
fn failing(rules: Rules, error: i32) -> Result<BpfProgram> {
    let fail = SeccompAction::Errno(error.unsigned_abs());
    compiled(SeccompFilter::new(rules, SeccompAction::Allow, fail, TargetArch::x86_64))
}

fn compiled(filter: std::result::Result<SeccompFilter, seccompiler::BackendError>) -> Result<BpfProgram> {
    filter.and_then(TryInto::try_into).context("a filter cannot be compiled")
}

fn equal(argument: u8, value: u64) -> Result<SeccompRule> {
    rule(argument, Length::Dword, Compare::Eq, value)
}

/// Allows an argument whose bits of `mask` are `value`.
fn masked(argument: u8, mask: u64, value: u64) -> Result<SeccompRule> {
    rule(argument, Length::Dword, Compare::MaskedEq(mask), value)
}

fn rule(argument: u8, length: Length, compare: Compare, value: u64) -> Result<SeccompRule> {
    let condition = SeccompCondition::new(argument, length, compare, value);
    condition.and_then(|condition| SeccompRule::new(vec![condition])).context("a rule cannot be compiled")
}

/// A constant of the C library as an argument.
fn number(constant: i32) -> u64 {
    constant.unsigned_abs().into()
}
