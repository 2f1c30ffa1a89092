//! Random sequences of file operations and DMA under the policies that fault: not a byte is lost, lands elsewhere or
//! leaks.

use std::ops::Range;

use proptest::collection::vec;
use proptest::prelude::*;
use refault_model::dax::FsError;

use crate::matrix::contents::{PAGE, Possible, WRITTEN, difference, written};
use crate::matrix::machine::OwnSpace;
use crate::matrix::operation::{FILE, Operation};
use crate::matrix::row::Row;
use crate::matrix::session::Access;
use crate::matrix::stage::{Stage, Which};

/// One thing that happens.
#[derive(Clone, Debug)]
enum Step {
    DeviceWrites(u64),
    DeviceReads(u64),
    OthersWrite(u64),
    Truncate(u64),
    Punch(Range<u64>),
    Collapse(Range<u64>),
    Insert(u64, u64),
    /// A copy is made, or the one there is goes.
    Reflink,
    Exchange(Range<u64>),
    Relocate(Range<u64>),
    Allocate(Range<u64>),
    Clean,
    Reclaim(Range<u64>),
    /// A request is posted, and what is boxed happens before anybody handles its fault.
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

/// The stage, and what has been written so far.
struct Play {
    stage: Stage,
    version: u32,
}

impl Play {
    fn new(own: OwnSpace, row: Row) -> Self {
        // The exchange is the one that has another file.
        let stage = Stage::on(own, row, Operation::Exchange).unwrap();
        stage.program.register(0..FILE, true).unwrap();
        Self { stage, version: 1 }
    }

    fn size(&self) -> u64 {
        self.stage.data_size().unwrap()
    }

    fn play(&mut self, step: &Step) -> Result<(), FsError> {
        let (fs, data) = (self.stage.fs.clone(), self.stage.data);
        let size = self.size();
        match step.clone() {
            Step::DeviceWrites(page) => self.request(Access::Write(self.version), page),
            Step::DeviceReads(page) => self.request(Access::Read, page),
            Step::OthersWrite(page) if page < size => {
                let bytes = written(self.version, page);
                fs.write(data, page, WRITTEN.start as u64, &bytes)?;
                self.stage
                    .reference
                    .edit(Which::Data, |pages| pages[page as usize].write(WRITTEN.start, &bytes));
            }
            Step::OthersWrite(_) => {}
            Step::Truncate(pages) => {
                fs.truncate(data, pages)?;
                self.stage.reference.edit(Which::Data, |all| all.resize(pages as usize, Possible::zeroes()));
            }
            Step::Punch(pages) => {
                fs.punch(data, pages.clone())?;
                let pages = pages.start.min(size) as usize..pages.end.min(size) as usize;
                self.stage.reference.edit(Which::Data, |all| all[pages].fill(Possible::zeroes()));
            }
            Step::Collapse(pages) if pages.end <= size && pages.end - pages.start < size => {
                fs.collapse(data, pages.clone())?;
                let pages = pages.start as usize..pages.end as usize;
                self.stage.reference.edit(Which::Data, |all| drop(all.drain(pages)));
            }
            Step::Insert(at, count) if at < size && size + count <= 2 * FILE => {
                fs.insert(data, at, count)?;
                let (at, hole) = (at as usize, (0..count).map(|_| Possible::zeroes()));
                self.stage.reference.edit(Which::Data, |all| drop(all.splice(at..at, hole)));
            }
            Step::Collapse(_) | Step::Insert(..) => {}
            Step::Reflink => self.reflink()?,
            Step::Exchange(pages) if pages.end <= size => {
                fs.exchange(data, self.stage.files[&Which::Donor], pages.clone())?;
                let pages = pages.start as usize..pages.end as usize;
                self.stage.reference.exchange(Which::Data, Which::Donor, pages);
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
        match self.stage.files.remove(&Which::Copy) {
            Some(copy) => {
                self.stage.reference.remove(Which::Copy);
                self.stage.fs.remove(copy)
            }
            None => {
                let copy = self.stage.fs.reflink(self.stage.data)?;
                self.stage.reference.copy(Which::Data, Which::Copy);
                self.stage.files.insert(Which::Copy, copy);
                Ok(())
            }
        }
    }

    /// A request, from beginning to end.
    fn request(&mut self, access: Access, page: u64) {
        self.stage.program.recover().unwrap();
        self.stage.program.post(0, access, page).unwrap();
        self.stage.world.act();
        self.finish(page);
    }

    /// The page is taken from the tables and a write for it posted; then `change`; only then are faults handled.
    fn in_flight(&mut self, page: u64, change: &Step) -> Result<(), FsError> {
        self.stage.fs.unmap(self.stage.data, &(page..page + 1))?;
        self.stage.program.recover()?;
        self.stage.program.post(0, Access::Write(self.version), page)?;
        while self.stage.world.machine.step() {}
        assert!(self.stage.program.drain()?.is_empty(), "it waits for a fault");
        self.play(change)?;
        self.stage.world.act();
        self.finish(page);
        Ok(())
    }

    /// The one request that there was is over: it failed if the file does not have the page, and else it was done.
    fn finish(&mut self, page: u64) {
        let done = self.stage.program.drain().unwrap();
        assert_eq!(done.len(), 1);
        assert_eq!(done[0].succeeded(), page < self.size(), "{:?}", done[0]);
        let Some(possible) = self.stage.reference.page(Which::Data, page) else { return };
        match done[0].access {
            Access::Write(version) => possible.write(WRITTEN.start, &written(version, page)),
            Access::Read => assert_eq!(difference(possible.nearest(&done[0].data), &done[0].data), 0),
        }
    }

    fn check(&mut self) {
        assert_eq!(self.stage.compare().unwrap(), (0, 0));
        assert_eq!(self.stage.fs.check(), Vec::<String>::new());
    }

    /// After a last fsync, a crash takes nothing.
    fn check_after_crash(&self) {
        let (fs, data) = (&self.stage.fs, self.stage.data);
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
    fn whatever_happens_to_the_file_a_device_that_faults_loses_and_leaks_nothing(
        own in prop_oneof![Just(OwnSpace::Translated), Just(OwnSpace::PassThrough)],
        row in prop_oneof![Just(Row::Pasid), Just(Row::Odp), Just(Row::FileKey)],
        steps in vec(step(), 1..40),
    ) {
        let mut play = Play::new(own, row);
        for step in &steps {
            play.play(step).unwrap();
            play.check();
        }
        play.check_after_crash();
        prop_assert_eq!(play.stage.strike(0), Vec::<String>::new());
    }
}
