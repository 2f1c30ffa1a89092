//! Random sequences of file operations and DMA under the policies that fault: no byte is lost, misplaced or leaked.

use std::ops::Range;

use proptest::collection::vec;
use proptest::prelude::*;
use refault_model::dax::FsError;

use crate::matrix::contents::{PAGE, PageCandidates, WRITTEN, difference, written};
use crate::matrix::machine::OwnSpace;
use crate::matrix::operation::{FILE, FileOperation};
use crate::matrix::queues::PageAccess;
use crate::matrix::row::PolicyRow;
use crate::matrix::testbed::{FileRole, Testbed};

/// One step of a sequence.
#[derive(Clone, Debug)]
enum Step {
    DeviceWrites(u64),
    DeviceReads(u64),
    OthersWrite(u64),
    Truncate(u64),
    Punch(Range<u64>),
    Collapse(Range<u64>),
    Insert(u64, u64),
    /// Makes a reflink copy, or removes it.
    Reflink,
    Exchange(Range<u64>),
    Relocate(Range<u64>),
    Allocate(Range<u64>),
    Clean,
    Reclaim(Range<u64>),
    /// Posts a request; the boxed step happens before its fault is handled.
    InFlight(u64, Box<Step>),
}

fn range() -> impl Strategy<Value = Range<u64>> {
    (0..FILE, 1..6u64).prop_map(|(start, length)| start..(start + length).min(FILE))
}

fn change() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (1..FILE + 1).prop_map(Step::Truncate),
        3 => range().prop_map(Step::Punch),
        2 => range().prop_map(Step::Collapse),
        2 => (0..FILE, 1..4u64).prop_map(|(at, count)| Step::Insert(at, count)),
        3 => Just(Step::Reflink),
        3 => range().prop_map(Step::Exchange),
        3 => range().prop_map(Step::Relocate),
        1 => range().prop_map(Step::Allocate),
        2 => Just(Step::Clean),
        2 => range().prop_map(Step::Reclaim),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let flying = (0..FILE, change()).prop_map(|(page, change)| Step::InFlight(page, Box::new(change)));
    prop_oneof![
        6 => (0..FILE).prop_map(Step::DeviceWrites),
        4 => (0..FILE).prop_map(Step::DeviceReads),
        2 => (0..FILE).prop_map(Step::OthersWrite),
        8 => change(),
        4 => flying,
    ]
}

/// The testbed, and the versions written so far.
struct Play {
    testbed: Testbed,
    version: u32,
}

impl Play {
    fn new(own: OwnSpace, row: PolicyRow) -> Self {
        // The exchange is the one that has another file.
        let testbed = Testbed::on(own, row, FileOperation::Exchange).unwrap();
        testbed.program.register(0..FILE, true).unwrap();
        Self { testbed, version: 1 }
    }

    fn size(&self) -> u64 {
        self.testbed.data_size().unwrap()
    }

    fn play(&mut self, step: &Step) -> Result<(), FsError> {
        let (fs, data) = (self.testbed.fs.clone(), self.testbed.data);
        let size = self.size();
        match step.clone() {
            Step::DeviceWrites(page) => self.request(PageAccess::Write(self.version), page),
            Step::DeviceReads(page) => self.request(PageAccess::Read, page),
            Step::OthersWrite(page) if page < size => {
                let bytes = written(self.version, page);
                fs.write(data, page, WRITTEN.start as u64, &bytes)?;
                self.testbed
                    .reference
                    .edit(FileRole::Data, |pages| pages[page as usize].write(WRITTEN.start, &bytes));
            }
            Step::OthersWrite(_) => {}
            Step::Truncate(pages) => {
                fs.truncate(data, pages)?;
                self.testbed
                    .reference
                    .edit(FileRole::Data, |all| all.resize(pages as usize, PageCandidates::zeroes()));
            }
            Step::Punch(pages) => {
                fs.punch(data, pages.clone())?;
                let pages = pages.start.min(size) as usize..pages.end.min(size) as usize;
                self.testbed.reference.edit(FileRole::Data, |all| all[pages].fill(PageCandidates::zeroes()));
            }
            Step::Collapse(pages) if pages.end <= size && pages.end - pages.start < size => {
                fs.collapse(data, pages.clone())?;
                let pages = pages.start as usize..pages.end as usize;
                self.testbed.reference.edit(FileRole::Data, |all| drop(all.drain(pages)));
            }
            Step::Insert(at, count) if at < size && size + count <= 2 * FILE => {
                fs.insert(data, at, count)?;
                let (at, hole) = (at as usize, (0..count).map(|_| PageCandidates::zeroes()));
                self.testbed.reference.edit(FileRole::Data, |all| drop(all.splice(at..at, hole)));
            }
            Step::Collapse(_) | Step::Insert(..) => {}
            Step::Reflink => self.reflink()?,
            Step::Exchange(pages) if pages.end <= size => {
                fs.exchange(data, self.testbed.files[&FileRole::Donor], pages.clone())?;
                let pages = pages.start as usize..pages.end as usize;
                self.testbed.reference.exchange(FileRole::Data, FileRole::Donor, pages);
            }
            Step::Exchange(_) => {}
            Step::Relocate(pages) => fs.relocate(data, pages)?,
            Step::Allocate(pages) => fs.allocate(data, pages.start..pages.end.min(size).max(pages.start))?,
            Step::Clean => fs.fsync(data)?,
            Step::Reclaim(pages) => fs.unmap(data, &pages)?,
            Step::InFlight(page, change) => self.in_flight(page, &change)?,
        }
        self.version += 1;
        Ok(())
    }

    fn reflink(&mut self) -> Result<(), FsError> {
        match self.testbed.files.remove(&FileRole::Copy) {
            Some(copy) => {
                self.testbed.reference.remove(FileRole::Copy);
                self.testbed.fs.remove(copy)
            }
            None => {
                let copy = self.testbed.fs.reflink(self.testbed.data)?;
                self.testbed.reference.copy(FileRole::Data, FileRole::Copy);
                self.testbed.files.insert(FileRole::Copy, copy);
                Ok(())
            }
        }
    }

    /// A request from posting to completion.
    fn request(&mut self, access: PageAccess, page: u64) {
        self.testbed.program.recover().unwrap();
        self.testbed.program.post(0, access, page).unwrap();
        self.testbed.simulation.act();
        self.finish(page);
    }

    /// Unmaps the page, posts a write to it, performs `change`, and only then handles faults.
    fn in_flight(&mut self, page: u64, change: &Step) -> Result<(), FsError> {
        self.testbed.fs.unmap(self.testbed.data, &(page..page + 1))?;
        self.testbed.program.recover()?;
        self.testbed.program.post(0, PageAccess::Write(self.version), page)?;
        while self.testbed.simulation.machine.step() {}
        assert!(self.testbed.program.drain()?.is_empty(), "it waits for a fault");
        self.play(change)?;
        self.testbed.simulation.act();
        self.finish(page);
        Ok(())
    }

    /// Checks the only request: it must have failed if the file does not have the page, and succeeded otherwise.
    fn finish(&mut self, page: u64) {
        let done = self.testbed.program.drain().unwrap();
        assert_eq!(done.len(), 1);
        assert_eq!(done[0].succeeded(), page < self.size(), "{:?}", done[0]);
        let Some(possible) = self.testbed.reference.page(FileRole::Data, page) else { return };
        match done[0].access {
            PageAccess::Write(version) => possible.write(WRITTEN.start, &written(version, page)),
            PageAccess::Read => assert_eq!(difference(possible.nearest(&done[0].data), &done[0].data), 0),
        }
    }

    fn check(&mut self) {
        assert_eq!(self.testbed.compare().unwrap(), (0, 0));
        assert_eq!(self.testbed.fs.check(), Vec::<String>::new());
    }

    /// After a last fsync, a crash takes nothing.
    fn check_after_crash(&self) {
        let (fs, data) = (&self.testbed.fs, self.testbed.data);
        fs.fsync(data).unwrap();
        for page in 0..self.size() {
            let (now, then) = (fs.read(data, page).unwrap(), fs.after_crash(data, page).unwrap());
            assert_eq!((now.len(), difference(&now, &then)), (PAGE, 0), "page {page}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_faulting_device_never_loses_or_leaks_bytes(
        own in prop_oneof![Just(OwnSpace::Translated), Just(OwnSpace::PassThrough)],
        row in prop_oneof![Just(PolicyRow::Pasid), Just(PolicyRow::Odp), Just(PolicyRow::FileKey)],
        steps in vec(step(), 1..40),
    ) {
        let mut play = Play::new(own, row);
        for step in &steps {
            play.play(step).unwrap();
            play.check();
        }
        play.check_after_crash();
        prop_assert_eq!(play.testbed.tear_down(0), Vec::<String>::new());
    }
}
