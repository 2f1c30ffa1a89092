//! The columns of the matrix: what happens to the file, carried out on the filesystem and on the reference alike.

use std::ops::Range;

use refault_model::dax::{DaxFs, FileId, FsError};

use super::contents::{Owner, Possible, WRITTEN, page_of, written};
use super::stage::{Stage, Which};

/// Pages of the data file.
pub(super) const FILE: u64 = 16;
/// Pages that are a hole in it.
pub(super) const HOLE: Range<u64> = 12..14;
/// What truncate leaves.
const TRUNCATED: u64 = 6;
/// What is punched, collapsed, exchanged.
const MIDDLE: Range<u64> = 4..8;
/// What is relocated.
const RELOCATED: Range<u64> = 8..10;
/// Hole pages that insert makes at the start of [`MIDDLE`].
const INSERTED: u64 = 2;
/// Pages that are written while they are shared.
const REWRITTEN: [u64; 2] = [5, 7];
/// Versions that others than the program write.
const BY_OTHERS: u32 = 100;

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// The file becomes shorter.
    Truncate,
    /// A hole is made.
    Punch,
    /// Pages are removed, what is behind moves up.
    Collapse,
    /// Pages are inserted, what is behind moves down.
    Insert,
    /// A reflink copy is made.
    Reflink,
    /// A page of shared blocks is written by another program; then the copy goes.
    SharedWrite,
    /// Blocks are exchanged with another file's; others are relocated.
    Exchange,
    /// A hole is filled.
    Allocate,
    /// fsync, or the background cleaner.
    Clean,
    /// The program ends; then the file is removed.
    Exit,
    /// The program unmaps and closes the file; then the filesystem is unmounted, and another one made in its place.
    Unmount,
}

impl Operation {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 11] = [
        Self::Truncate,
        Self::Punch,
        Self::Collapse,
        Self::Insert,
        Self::Reflink,
        Self::SharedWrite,
        Self::Exchange,
        Self::Allocate,
        Self::Clean,
        Self::Exit,
        Self::Unmount,
    ];

    /// Its name, as `--operation` takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Truncate => "truncate",
            Self::Punch => "punch",
            Self::Collapse => "collapse",
            Self::Insert => "insert",
            Self::Reflink => "reflink",
            Self::SharedWrite => "cow-write",
            Self::Exchange => "exchange",
            Self::Allocate => "allocate",
            Self::Clean => "clean",
            Self::Exit => "exit",
            Self::Unmount => "unmount",
        }
    }

    /// What it is, in a line.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Truncate => "the file is cut from 16 pages to 6, another file gets the blocks at once",
            Self::Punch => "pages 4 to 7 become a hole, another file gets the blocks at once",
            Self::Collapse => "pages 4 to 7 are removed, the rest moves up, another file gets the blocks",
            Self::Insert => "2 pages of hole are inserted before page 4, the rest moves down",
            Self::Reflink => "a copy is made that shares all blocks, while the device writes",
            Self::SharedWrite => {
                "the device reads a shared file; two pages are written; the copy goes, another file gets its blocks"
            }
            Self::Exchange => "pages 4 to 7 are exchanged with another file's, 8 and 9 get new blocks",
            Self::Allocate => "the device writes a hole, and so does another program",
            Self::Clean => {
                "the file is written out and its pages are write-protected (fsync, background cleaning)"
            }
            Self::Exit => "the program ends, its file is removed, another file gets the blocks",
            Self::Unmount => {
                "the program unmaps and closes the file, keeps its region; the filesystem is unmounted, another made there"
            }
        }
    }

    /// Whether the device only reads: a page registered for writing would not stay shared.
    pub(super) const fn reads_only(self) -> bool {
        matches!(self, Self::SharedWrite)
    }

    /// Pages that are registered, from the first on: all that have blocks, and the hole where that is the point.
    pub(super) const fn registered(self) -> u64 {
        if matches!(self, Self::Allocate) { HOLE.end } else { HOLE.start }
    }

    /// Pages of the requests that are in flight when it happens. When it begins the first one is done, the second waits
    /// for a fault, if the device faults, and the others were not looked at.
    pub(super) const fn in_flight(self) -> [u64; 4] {
        if matches!(self, Self::Allocate) { [9, HOLE.start, 5, 1] } else { [9, 7, 5, 1] }
    }

    /// Where what was in a page of the data file is afterwards.
    pub(super) fn places(self, page: u64) -> Vec<(Which, u64)> {
        let here = (Which::Data, page);
        match self {
            Self::Truncate => Vec::from_iter((page < TRUNCATED).then_some(here)),
            Self::Punch => Vec::from_iter((!MIDDLE.contains(&page)).then_some(here)),
            Self::Collapse if MIDDLE.contains(&page) => Vec::new(),
            Self::Collapse if page >= MIDDLE.end => vec![(Which::Data, page - (MIDDLE.end - MIDDLE.start))],
            Self::Insert if page >= MIDDLE.start => vec![(Which::Data, page + INSERTED)],
            Self::Exchange if MIDDLE.contains(&page) => vec![(Which::Donor, page)],
            Self::Reflink => vec![here, (Which::Copy, page)],
            Self::Exit | Self::Unmount => Vec::new(),
            _ => vec![here],
        }
    }

    /// Carries it out, up to the first step that fails; the reference follows each step that did not.
    pub(super) fn perform(self, stage: &mut Stage) -> Result<(), FsError> {
        let (fs, data) = (stage.fs.clone(), stage.data);
        match self {
            Self::Truncate => {
                fs.truncate(data, TRUNCATED)?;
                stage.reference.edit(Which::Data, |pages| pages.truncate(TRUNCATED as usize));
                stage.give_to_heir(FILE)
            }
            Self::Punch => {
                fs.punch(data, MIDDLE)?;
                stage.reference.edit(Which::Data, |pages| pages[indices(&MIDDLE)].fill(Possible::zeroes()));
                stage.give_to_heir(FILE)
            }
            Self::Collapse => {
                fs.collapse(data, MIDDLE)?;
                stage.reference.edit(Which::Data, |pages| drop(pages.drain(indices(&MIDDLE))));
                stage.give_to_heir(FILE)
            }
            Self::Insert => {
                fs.insert(data, MIDDLE.start, INSERTED)?;
                let at = MIDDLE.start as usize;
                let hole = || (0..INSERTED).map(|_| Possible::zeroes());
                stage.reference.edit(Which::Data, |pages| drop(pages.splice(at..at, hole())));
                stage.give_to_heir(FILE)
            }
            Self::Reflink => {
                let copy = fs.reflink(data)?;
                stage.reference.copy(Which::Data, Which::Copy);
                stage.files.insert(Which::Copy, copy);
                Ok(())
            }
            Self::SharedWrite => shared_write(stage, &fs, data),
            Self::Exchange => exchange(stage, &fs, data),
            Self::Allocate => {
                fs.allocate(data, HOLE)?;
                write(stage, &fs, data, HOLE.end - 1)
            }
            Self::Clean => fs.fsync(data),
            Self::Exit => {
                stage.program.end()?;
                fs.remove(data)?;
                stage.files.remove(&Which::Data);
                stage.reference.remove(Which::Data);
                stage.give_to_heir(FILE)
            }
            Self::Unmount => {
                stage.program.close_file()?;
                fs.unmount()?;
                stage.reference.clear();
                stage.files.clear();
                let machine = &stage.world.machine;
                stage.fs = DaxFs::new(&machine.memory, &machine.persistent)?;
                stage.give_to_heir(4 * FILE)
            }
        }
    }
}

fn indices(pages: &Range<u64>) -> Range<usize> {
    pages.start as usize..pages.end as usize
}

/// Another program writes a page with write(2).
fn write(stage: &mut Stage, fs: &DaxFs, data: FileId, page: u64) -> Result<(), FsError> {
    let bytes = written(BY_OTHERS, page);
    fs.write(data, page, WRITTEN.start as u64, &bytes)?;
    stage.reference.edit(Which::Data, |pages| pages[page as usize].write(WRITTEN.start, &bytes));
    Ok(())
}

fn shared_write(stage: &mut Stage, fs: &DaxFs, data: FileId) -> Result<(), FsError> {
    REWRITTEN.into_iter().try_for_each(|page| write(stage, fs, data, page))?;
    if let Some(&copy) = stage.files.get(&Which::Copy) {
        fs.remove(copy)?;
        stage.files.remove(&Which::Copy);
        stage.reference.remove(Which::Copy);
    }
    stage.give_to_heir(FILE)
}

fn exchange(stage: &mut Stage, fs: &DaxFs, data: FileId) -> Result<(), FsError> {
    if let Some(&donor) = stage.files.get(&Which::Donor) {
        fs.exchange(data, donor, MIDDLE)?;
        stage.reference.exchange(Which::Data, Which::Donor, indices(&MIDDLE));
    }
    fs.relocate(data, RELOCATED)?;
    stage.give_to_heir(FILE)
}

/// The contents of a new file of `owner`.
pub(super) fn fresh(owner: Owner, pages: u64) -> Vec<Vec<u8>> {
    (0..pages).map(|page| page_of(owner, 1, page)).collect()
}
