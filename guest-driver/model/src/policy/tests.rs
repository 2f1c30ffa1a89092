//! Tests of the rules that need no device: seals, accounts, and what the filesystem asks.

use std::sync::{Arc, Mutex};

use refault_bus::Iova;

use crate::dax::tests::{at, filesystem, filled, mapped};
use crate::dax::{Affected, Change, Errno, FileId, Rule};
use crate::memory::FRAME;
use crate::paging::{PageSize, Rights};
use crate::policy::*;
use crate::scheduler::{Scheduler, SoleTask};

#[derive(Default)]
struct Listener(Mutex<Vec<Signal>>);

impl Program for Listener {
    fn id(&self) -> ProgramId {
        ProgramId(7)
    }

    fn signal(&self, signal: Signal) {
        self.0.lock().unwrap().push(signal);
    }
}

fn affected(file: FileId, change: Change) -> Affected {
    Affected { file, pages: 0..2, change }
}

const CHANGES: [Change; 5] = [Change::Free, Change::Move, Change::Share, Change::Copy, Change::Allocate];

#[test]
fn a_sealed_file_refuses_every_change_and_others_none() {
    let (_memory, fs) = filesystem();
    let (file, other) = (filled(&fs, 2), filled(&fs, 2));
    let seal = Seal::new(SealKind::InMemory);
    let program: Arc<dyn Program> = Arc::new(Listener::default());
    seal.seal(file, &program);
    for change in CHANGES {
        assert_eq!(seal.before(&fs, &affected(file, change)).unwrap_err().errno(), Some(Errno::ETXTBSY));
        assert!(seal.before(&fs, &affected(other, change)).is_ok());
    }
    seal.unseal(file).unwrap();
    assert!(CHANGES.iter().all(|&change| seal.before(&fs, &affected(file, change)).is_ok()));
}

#[test]
fn a_sealed_file_is_written_where_it_has_blocks_of_its_own_and_nowhere_else() {
    let (_memory, fs) = filesystem();
    let file = filled(&fs, 2);
    fs.truncate(file, 3).unwrap();
    let seal = Arc::new(Seal::new(SealKind::UntilExit));
    let program: Arc<dyn Program> = Arc::new(Listener::default());
    seal.seal(file, &program);
    fs.set_rule(seal.clone());
    fs.write(file, 1, 0, &[1]).unwrap();
    assert_eq!(fs.write(file, 2, 0, &[1]).unwrap_err().errno(), Some(Errno::ETXTBSY));
    seal.exited(program.id());
    fs.write(file, 2, 0, &[1]).unwrap();
}

#[test]
fn seals_last_as_long_as_their_kind_says() {
    for (kind, after_exit, after_mount) in [
        (SealKind::OnDisk, true, true),
        (SealKind::InMemory, true, false),
        (SealKind::UntilExit, false, false),
        (SealKind::Breakable, true, false),
    ] {
        let (seal, file) = (Seal::new(kind), FileId(1));
        let program: Arc<dyn Program> = Arc::new(Listener::default());
        seal.seal(file, &program);
        seal.exited(program.id());
        assert_eq!(seal.is_sealed(file), after_exit, "{kind:?}");
        seal.remounted();
        assert_eq!(seal.is_sealed(file), after_mount, "{kind:?}");
    }
}

#[test]
fn a_breakable_seal_is_broken_by_the_first_change_and_its_holder_is_notified() {
    let (_memory, fs) = filesystem();
    let file = filled(&fs, 2);
    let seal = Seal::new(SealKind::Breakable);
    let listener = Arc::new(Listener::default());
    let program: Arc<dyn Program> = listener.clone();
    seal.seal(file, &program);
    seal.before(&fs, &affected(file, Change::Free)).unwrap();
    assert!(!seal.is_sealed(file));
    assert_eq!(*listener.0.lock().unwrap(), [Signal::LetGo]);
}

#[test]
fn mpin_counts_ram_but_not_dax_pages_against_the_limit() {
    let (memory, fs) = filesystem();
    let file = filled(&fs, 8);
    let process = mapped(&memory, &fs, file);
    let anonymous = Iova(0x10_0000);
    process.map_area(anonymous, 4 * FRAME, Rights::Write, PageSize::Small);
    let scheduler: Arc<dyn Scheduler> = Arc::new(SoleTask);
    let mpin = Mpin::new(scheduler, WhenPinned::Refuse, 3 * FRAME);
    let program = ProgramId(1);
    let account = mpin.mpin(&fs, program, (&process, at(0), 8 * FRAME), true).unwrap();
    assert_eq!(account, Account { ram: 0, dax: 8 * FRAME });
    mpin.mpin(&fs, program, (&process, anonymous, 3 * FRAME), true).unwrap();
    let over = mpin.mpin(&fs, program, (&process, Iova(anonymous.0 + 3 * FRAME), FRAME), true);
    assert_eq!(over.unwrap_err().errno(), Some(Errno::ENOMEM));
    assert_eq!(mpin.account(program), Account { ram: 3 * FRAME, dax: 8 * FRAME });
    mpin.munpin(program).unwrap();
    assert_eq!(mpin.account(program), Account::default());
}

#[test]
fn only_changes_that_free_move_or_share_blocks_wait_for_short_term_pins() {
    let (memory, fs) = filesystem();
    let file = filled(&fs, 2);
    let process = mapped(&memory, &fs, file);
    let page = process.fault_at(at(1), true).unwrap().gpa;
    fs.pin(page, true);
    let scheduler: Arc<dyn Scheduler> = Arc::new(SoleTask);
    let rule = ShortTermPin::new(scheduler);
    for change in CHANGES {
        let asked = rule.before(&fs, &affected(file, change));
        assert_eq!(asked.is_err(), !matches!(change, Change::Copy | Change::Allocate), "{change:?}");
    }
    assert!(
        process.space.lookup(at(1)).unwrap().is_none(),
        "unmapped before the wait, so that no pin is added"
    );
    fs.unpin(page, true);
    assert!(CHANGES.iter().all(|&change| rule.before(&fs, &affected(file, change)).is_ok()));
}

#[test]
fn a_filesystem_that_never_moves_frees_only_unused_blocks() {
    let (memory, fs) = filesystem();
    let file = filled(&fs, 2);
    fs.set_rule(Arc::new(NeverMoves));
    assert_eq!(fs.reflink(file).unwrap_err().errno(), Some(Errno::EOPNOTSUPP));
    let process = mapped(&memory, &fs, file);
    assert_eq!(fs.truncate(file, 1).unwrap_err().errno(), Some(Errno::ETXTBSY));
    process.unmap_area(at(0), 2 * FRAME).unwrap();
    fs.truncate(file, 1).unwrap();
}
