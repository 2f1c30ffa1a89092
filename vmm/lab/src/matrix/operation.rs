//! The columns of the matrix: file operations, applied to the filesystem and to the reference.

use std::ops::Range;

use refault_bus::bits::index;
use refault_model::dax::{DaxFs, FileId, FsError};

use super::contents::{PageCandidates, WRITTEN, WordOwner, page_of, written};
use super::testbed::{FileRole, Testbed};

/// Pages of the data file.
pub(super) const FILE: u64 = 16;
/// Hole in the data file.
pub(super) const HOLE: Range<u64> = 12..14;
/// Pages that truncate leaves.
const TRUNCATED: u64 = 6;
/// Pages that are punched, collapsed or exchanged.
const MIDDLE: Range<u64> = 4..8;
/// Pages that are relocated.
const RELOCATED: Range<u64> = 8..10;
/// Size of the hole that insert makes at the start of [`MIDDLE`], in pages.
const INSERTED: u64 = 2;
/// Pages that are written while shared.
const REWRITTEN: [u64; 2] = [5, 7];
/// Version of writes by other programs.
const BY_OTHERS: u32 = 100;

/// A file operation: a column of the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileOperation {
    /// The file is truncated.
    Truncate,
    /// A hole is punched.
    Punch,
    /// Pages are removed, and later ones move up.
    Collapse,
    /// A hole is inserted, and later pages move down.
    Insert,
    /// A reflink copy is made.
    Reflink,
    /// Another program writes pages of shared blocks; then the copy is removed.
    SharedWrite,
    /// Blocks are exchanged with another file; others are relocated.
    Exchange,
    /// A hole is filled.
    Allocate,
    /// fsync, or background cleaning.
    Clean,
    /// The program ends; then the file is removed.
    Exit,
    /// The program unmaps and closes the file; then the filesystem is unmounted, and another is made in its place.
    Unmount,
}

impl FileOperation {
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

    /// The name that `--operation` accepts.
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

    /// A one-line description.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Truncate => {
                "the file is truncated from 16 pages to 6; another file gets the blocks at once"
            }
            Self::Punch => "pages 4 to 7 become a hole; another file gets the blocks at once",
            Self::Collapse => "pages 4 to 7 are removed and the rest moves up; another file gets the blocks",
            Self::Insert => "a hole of 2 pages is inserted before page 4, and the rest moves down",
            Self::Reflink => "a copy is made that shares all blocks, while the device writes",
            Self::SharedWrite => {
                "the device reads a shared file; two pages are written; the copy is removed, and another file gets its blocks"
            }
            Self::Exchange => "pages 4 to 7 are exchanged with another file's, 8 and 9 get new blocks",
            Self::Allocate => "the device writes into a hole, and so does another program",
            Self::Clean => {
                "the file is written out and its pages are write-protected (fsync, background cleaning)"
            }
            Self::Exit => "the program ends and its file is removed; another file gets the blocks",
            Self::Unmount => {
                "the program unmaps and closes the file but keeps its region; the filesystem is unmounted, and another is made there"
            }
        }
    }

    /// Whether the device only reads: registering shared pages for writing would unshare them.
    pub(super) const fn reads_only(self) -> bool {
        matches!(self, Self::SharedWrite)
    }

    /// Number of registered pages, from the first on: all that have blocks, and the hole if the operation is about it.
    pub(super) const fn registered(self) -> u64 {
        if matches!(self, Self::Allocate) { HOLE.end } else { HOLE.start }
    }

    /// Pages of the requests in flight during the operation. When it starts, the first has completed, the second waits for
    /// a page (if the device faults), and the others have not been fetched.
    pub(super) const fn in_flight(self) -> [u64; 4] {
        if matches!(self, Self::Allocate) { [9, HOLE.start, 5, 1] } else { [9, 7, 5, 1] }
    }

    /// Where the contents of a page of the data file are after the operation.
    pub(super) fn places(self, page: u64) -> Vec<(FileRole, u64)> {
        let here = (FileRole::Data, page);
        match self {
            Self::Truncate => Vec::from_iter((page < TRUNCATED).then_some(here)),
            Self::Punch => Vec::from_iter((!MIDDLE.contains(&page)).then_some(here)),
            Self::Collapse if MIDDLE.contains(&page) => Vec::new(),
            Self::Collapse if page >= MIDDLE.end => {
                vec![(FileRole::Data, page - (MIDDLE.end - MIDDLE.start))]
            }
            Self::Insert if page >= MIDDLE.start => vec![(FileRole::Data, page + INSERTED)],
            Self::Exchange if MIDDLE.contains(&page) => vec![(FileRole::Donor, page)],
            Self::Reflink => vec![here, (FileRole::Copy, page)],
            Self::Exit | Self::Unmount => Vec::new(),
            _ => vec![here],
        }
    }

    /// Performs the operation up to the first step that fails, and applies each successful step to the reference.
    pub(super) fn perform(self, testbed: &mut Testbed) -> Result<(), FsError> {
        let (fs, data) = (testbed.fs.clone(), testbed.data);
        match self {
            Self::Truncate => {
                fs.truncate(data, TRUNCATED)?;
                testbed.reference.edit(FileRole::Data, |pages| pages.truncate(index(TRUNCATED)));
                testbed.reuse_freed_blocks(FILE)
            }
            Self::Punch => {
                fs.punch(data, MIDDLE)?;
                testbed
                    .reference
                    .edit(FileRole::Data, |pages| pages[indices(&MIDDLE)].fill(PageCandidates::zeroes()));
                testbed.reuse_freed_blocks(FILE)
            }
            Self::Collapse => {
                fs.collapse(data, MIDDLE)?;
                testbed.reference.edit(FileRole::Data, |pages| drop(pages.drain(indices(&MIDDLE))));
                testbed.reuse_freed_blocks(FILE)
            }
            Self::Insert => {
                fs.insert(data, MIDDLE.start, INSERTED)?;
                let at = index(MIDDLE.start);
                let hole = || (0..INSERTED).map(|_| PageCandidates::zeroes());
                testbed.reference.edit(FileRole::Data, |pages| drop(pages.splice(at..at, hole())));
                testbed.reuse_freed_blocks(FILE)
            }
            Self::Reflink => {
                let copy = fs.reflink(data)?;
                testbed.reference.copy(FileRole::Data, FileRole::Copy);
                testbed.files.insert(FileRole::Copy, copy);
                Ok(())
            }
            Self::SharedWrite => shared_write(testbed, &fs, data),
            Self::Exchange => exchange(testbed, &fs, data),
            Self::Allocate => {
                fs.allocate(data, HOLE)?;
                write(testbed, &fs, data, HOLE.end - 1)
            }
            Self::Clean => fs.fsync(data),
            Self::Exit => {
                testbed.program.end()?;
                fs.remove(data)?;
                testbed.files.remove(&FileRole::Data);
                testbed.reference.remove(FileRole::Data);
                testbed.reuse_freed_blocks(FILE)
            }
            Self::Unmount => {
                testbed.program.close_file()?;
                fs.unmount()?;
                testbed.reference.clear();
                testbed.files.clear();
                let machine = &testbed.simulation.machine;
                testbed.fs = DaxFs::new(&machine.memory, &machine.persistent)?;
                testbed.reuse_freed_blocks(4 * FILE)
            }
        }
    }
}

fn indices(pages: &Range<u64>) -> Range<usize> {
    index(pages.start)..index(pages.end)
}

/// Another program writes a page by write(2).
fn write(testbed: &mut Testbed, fs: &DaxFs, data: FileId, page: u64) -> Result<(), FsError> {
    let bytes = written(BY_OTHERS, page);
    fs.write(data, page, WRITTEN.start as u64, &bytes)?;
    testbed.reference.edit(FileRole::Data, |pages| pages[index(page)].write(WRITTEN.start, &bytes));
    Ok(())
}

fn shared_write(testbed: &mut Testbed, fs: &DaxFs, data: FileId) -> Result<(), FsError> {
    REWRITTEN.into_iter().try_for_each(|page| write(testbed, fs, data, page))?;
    if let Some(&copy) = testbed.files.get(&FileRole::Copy) {
        fs.remove(copy)?;
        testbed.files.remove(&FileRole::Copy);
        testbed.reference.remove(FileRole::Copy);
    }
    testbed.reuse_freed_blocks(FILE)
}

fn exchange(testbed: &mut Testbed, fs: &DaxFs, data: FileId) -> Result<(), FsError> {
    if let Some(&donor) = testbed.files.get(&FileRole::Donor) {
        fs.exchange(data, donor, MIDDLE)?;
        testbed.reference.exchange(FileRole::Data, FileRole::Donor, indices(&MIDDLE));
    }
    fs.relocate(data, RELOCATED)?;
    testbed.reuse_freed_blocks(FILE)
}

/// Initial contents of a file of `owner`.
pub(super) fn fresh(owner: WordOwner, pages: u64) -> Vec<Vec<u8>> {
    (0..pages).map(|page| page_of(owner, 1, page)).collect()
}
