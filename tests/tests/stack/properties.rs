//! Random sequences of operations by kernel, process and device on pages, against a slow and obviously correct model:
//! the memory afterwards, the page requests, and the status of each request.

use proptest::collection::vec;
use proptest::prelude::*;
use refault_abi::codes::{CAUSE_PAGE_REFUSED, WC_REM_ACCESS_ERR};
use refault_bus::pri::ResponseCode;
use refault_bus::probe::Stage;
use refault_bus::{Gpa, Iova};
use refault_model::memory::FRAME;
use refault_model::paging::Rights;
use refault_model::vtd::Answer;
use refault_tests::machine::{Machine, MachineSetup};
use refault_tests::session::Session;

use crate::support::*;

/// Pages of the target that take part.
const PAGES: usize = 12;
const PAGE: usize = FRAME as usize;

/// One operation.
#[derive(Clone, Debug)]
enum Step {
    /// The device writes `length` bytes at `offset` of the target.
    Write { offset: usize, length: usize, seed: u64 },
    /// The device reads them.
    Read { offset: usize, length: usize },
    /// The process writes.
    Store { offset: usize, seed: u64 },
    /// The kernel takes a page away and discards its contents.
    Take(usize),
    /// The kernel moves a page to another frame.
    Move(usize),
    /// The kernel swaps a page out.
    Swap(usize),
    /// The kernel write-protects a page.
    Protect(usize),
    /// The kernel makes a page writable, without a flush.
    Upgrade(usize),
    /// The kernel's handler refuses a page from now on, or no longer.
    Refuse(usize, bool),
    /// The kernel flushes everything for no reason.
    Flush,
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = PAGES * PAGE;
    let range = move || {
        (0..bytes, prop_oneof![1..200usize, 1..3 * PAGE, 1..bytes])
            .prop_map(move |(offset, length)| (offset, length.min(bytes - offset)))
    };
    prop_oneof![
        8 => (range(), any::<u64>())
            .prop_map(|((offset, length), seed)| Step::Write { offset, length, seed }),
        4 => range().prop_map(|(offset, length)| Step::Read { offset, length }),
        2 => (0..bytes - 8, any::<u64>()).prop_map(|(offset, seed)| Step::Store { offset, seed }),
        3 => (0..PAGES).prop_map(Step::Take),
        3 => (0..PAGES).prop_map(Step::Move),
        3 => (0..PAGES).prop_map(Step::Swap),
        3 => (0..PAGES).prop_map(Step::Protect),
        2 => (0..PAGES).prop_map(Step::Upgrade),
        2 => (0..PAGES, any::<bool>()).prop_map(|(page, refused)| Step::Refuse(page, refused)),
        1 => Just(Step::Flush),
    ]
}

/// The model's state of a page.
#[derive(Clone, Debug)]
struct Page {
    bytes: Vec<u8>,
    present: bool,
    writable: bool,
    refused: bool,
}

impl Page {
    /// Whether an access needs the kernel's help.
    fn faults(&self, write: bool) -> bool {
        !self.present || (write && !self.writable)
    }

    /// The kernel's help: a page of this process always becomes writable at once.
    fn resolve(&mut self, write: bool) {
        if !self.present || write {
            self.writable = true;
        }
        self.present = true;
    }
}

/// The machine and the model of it, side by side.
struct Pair {
    machine: Machine,
    session: Session,
    pages: Vec<Page>,
    /// Frames that were taken away, with what their next owner wrote.
    foreign: Vec<(Gpa, u8)>,
    id: u64,
}

impl Pair {
    fn new() -> Self {
        let (machine, session) = ready(MachineSetup::default());
        let empty = Page { bytes: vec![0; PAGE], present: false, writable: false, refused: false };
        Self { machine, session, pages: vec![empty; PAGES], foreign: Vec::new(), id: 0 }
    }

    fn at(page: usize) -> Iova {
        Iova(TARGET.0 + (page * PAGE) as u64)
    }

    fn play(&mut self, step: &Step) {
        match *step {
            Step::Write { offset, length, seed } => self.transfer(offset, length, Some(seed)),
            Step::Read { offset, length } => self.transfer(offset, length, None),
            Step::Store { offset, seed } => self.store(offset, seed),
            Step::Take(page) => {
                if let Ok(leaf) = self.session.process.take_page(Self::at(page)) {
                    self.give_away(leaf.gpa);
                    self.pages[page].bytes.fill(0);
                    self.pages[page].present = false;
                }
            }
            Step::Move(page) => {
                if let Ok(frame) = self.session.process.move_page(Self::at(page)) {
                    self.give_away(frame);
                }
            }
            Step::Swap(page) => {
                if let Ok(leaf) = self.session.process.swap_out(Self::at(page)) {
                    self.give_away(leaf.gpa);
                    self.pages[page].present = false;
                }
            }
            Step::Protect(page) => {
                if self.session.process.write_protect(Self::at(page)).is_ok() {
                    self.pages[page].writable = false;
                }
            }
            Step::Upgrade(page) => {
                if self.session.process.space.protect(Self::at(page), Rights::Write).is_ok() {
                    self.pages[page].writable = true;
                }
            }
            Step::Refuse(page, refused) => self.pages[page].refused = refused,
            Step::Flush => self.session.process.flush(Iova(0), 1 << 47).unwrap(),
        }
    }

    /// One request of the device, over part of the target.
    fn transfer(&mut self, offset: usize, length: usize, seed: Option<u64>) {
        let write = seed.is_some();
        self.id += 1;
        let touched = offset / PAGE..=(offset + length - 1) / PAGE;
        let faulting: Vec<_> = touched.clone().filter(|&page| self.pages[page].faults(write)).collect();
        let refused = faulting.iter().any(|&page| self.pages[page].refused);
        let target = Iova(TARGET.0 + offset as u64);
        let data = seed.map(|seed| fill_source(&self.session, length, seed));
        match write {
            true => self.session.write(self.id, SOURCE, target, length as u32),
            false => self.session.read(self.id, SOURCE, target, length as u32),
        }
        self.settle();
        if refused {
            let statuses = outcomes(&self.session.drain());
            assert_eq!(statuses, [(self.id, WC_REM_ACCESS_ERR, CAUSE_PAGE_REFUSED)]);
            self.adopt(touched, offset, data.as_deref());
            self.session.reconnect(&self.machine.driver);
            return;
        }
        assert_success(&self.session.drain(), [self.id]);
        let asked = self.machine.trace.count(Stage::PageRequest);
        assert_eq!(asked, faulting.len(), "asked for other pages than {faulting:?}");
        faulting.iter().for_each(|&page| self.pages[page].resolve(write));
        match data {
            Some(data) => self.put(offset, &data),
            None => assert_eq!(bytes_at(&self.session, SOURCE, length), self.get(offset, length)),
        }
    }

    /// Runs the machine, with a handler that refuses the pages that the model refuses.
    fn settle(&mut self) {
        self.machine.trace.take();
        let Self { machine, pages, .. } = self;
        machine.settle_with(|request| {
            let page = request.page.0.wrapping_sub(TARGET.0) as usize / PAGE;
            let refused = pages.get(page).is_some_and(|page| page.refused);
            Answer::Now(if refused { ResponseCode::InvalidRequest } else { machine.fault(request) })
        });
    }

    /// After a failed request: pages that were faulted in are present, and each touched page has either its old bytes or
    /// those of the request.
    fn adopt(&mut self, touched: std::ops::RangeInclusive<usize>, offset: usize, data: Option<&[u8]>) {
        let mut written = self.pages.clone();
        if let Some(data) = data {
            for (index, &byte) in (offset..).zip(data) {
                written[index / PAGE].bytes[index % PAGE] = byte;
            }
        }
        for page in touched {
            let Some(leaf) = self.session.process.space.lookup(Self::at(page)).unwrap() else { continue };
            let known = &mut self.pages[page];
            assert!(known.present || !known.refused, "page {page} was refused, and is there");
            (known.present, known.writable) = (true, leaf.writable());
            let found = self.machine.memory.bytes(leaf.gpa, PAGE).unwrap();
            assert!(found == known.bytes || found == written[page].bytes, "page {page} is half written");
            known.bytes = found;
        }
    }

    fn store(&mut self, offset: usize, seed: u64) {
        let bytes = seed.to_le_bytes();
        self.session.process.write(Iova(TARGET.0 + offset as u64), &bytes).unwrap();
        for page in [offset / PAGE, (offset + 7) / PAGE] {
            self.pages[page].resolve(true);
        }
        self.put(offset, &bytes);
    }

    fn put(&mut self, offset: usize, bytes: &[u8]) {
        for (index, &byte) in (offset..).zip(bytes) {
            self.pages[index / PAGE].bytes[index % PAGE] = byte;
        }
    }

    fn get(&self, offset: usize, length: usize) -> Vec<u8> {
        (offset..offset + length).map(|index| self.pages[index / PAGE].bytes[index % PAGE]).collect()
    }

    /// Gives a frame to a new owner, which fills it.
    fn give_away(&mut self, frame: Gpa) {
        let canary = self.foreign.len() as u8 | 0x80;
        self.machine.memory.fill(frame, FRAME, canary).unwrap();
        self.foreign.push((frame, canary));
    }

    /// Memory is as in the model, and that of other owners is unchanged.
    fn check(&self) {
        for (page, known) in self.pages.iter().enumerate() {
            let leaf = self.session.process.space.lookup(Self::at(page)).unwrap();
            assert_eq!(leaf.is_some(), known.present, "page {page}");
            let Some(leaf) = leaf else { continue };
            assert_eq!(leaf.writable(), known.writable, "page {page}");
            assert!(self.machine.memory.bytes(leaf.gpa, PAGE).unwrap() == known.bytes, "page {page}");
        }
        for &(frame, canary) in &self.foreign {
            let bytes = self.machine.memory.bytes(frame, PAGE).unwrap();
            assert!(bytes.iter().all(|&byte| byte == canary), "a byte landed in {frame}, which was taken");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_to_pages_memory_is_as_if_nothing_were_cached(steps in vec(step(), 1..80)) {
        let mut pair = Pair::new();
        for step in &steps {
            pair.play(step);
            pair.check();
        }
    }
}
