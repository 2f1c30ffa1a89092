//! One scenario: a file on the model's DAX filesystem, written by the device while its blocks move.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use refault_bus::Iova;
use refault_bus::bits::index;
use refault_model::Process;
use refault_model::dax::{DaxFs, FileId, FsError};
use refault_model::paging::Rights;

use super::ledger::{Owner, PAGE, Page, Version, bytes};
use super::script::Script;
use crate::demo::protocol::GuestCounters;
use refault_lab::engine::actor::{Actor, Next};
use refault_lab::machine::LabMachine;

/// Size of the filesystem, in files of the target's size.
const FILES: u64 = 5;

/// What the caller looks at when the scenario is over.
pub(super) type Result<T> = std::result::Result<T, FsError>;

/// A file under DMA, and its expected contents.
pub(super) struct FileActor {
    script: Box<dyn Script>,
    /// Pages of the file.
    pages: u64,
    stage: Option<Stage>,
    /// Counts events, so that they have an order.
    now: u64,
    /// Version of the next write.
    next: u32,
    /// Writes in flight, by slot: page, version and start.
    in_flight: BTreeMap<u32, (u64, Version, u64)>,
    board: Arc<Mutex<GuestCounters>>,
}

/// File system and files, once there is a machine.
pub(super) struct Stage {
    pub(super) fs: Arc<DaxFs>,
    pub(super) target: FileId,
    pub(super) ledger: Vec<Page>,
    pub(super) counters: GuestCounters,
    /// The file's blocks at the last check.
    blocks: Vec<Option<u64>>,
    now: u64,
}

impl FileActor {
    /// Runs a script on a file of `pages` pages. The counters are copied to `board`.
    pub(super) fn new(script: Box<dyn Script>, pages: u64, board: Arc<Mutex<GuestCounters>>) -> Self {
        Self { script, pages, stage: None, now: 1, next: 1, in_flight: BTreeMap::new(), board }
    }

    fn tick(&mut self) -> u64 {
        self.now += 1;
        self.now
    }

    fn publish(&self) {
        if let (Some(stage), Ok(mut board)) = (&self.stage, self.board.lock()) {
            *board = stage.counters;
        }
    }
}

impl Actor for FileActor {
    fn memory_bytes(&self) -> u64 {
        FILES * self.pages * PAGE as u64
    }

    fn map(&mut self, machine: &LabMachine, process: &Arc<Process>, at: Iova) -> Result<()> {
        if self.stage.is_none() {
            let bytes = self.memory_bytes();
            let start = machine.memory.allocate(bytes, 12)?.0;
            let fs = DaxFs::new(&machine.memory, &(start..start + bytes))?;
            let target = new_file(&fs, Owner::Target, 0, self.pages)?;
            let ledger = (0..self.pages).map(|_| Page::holding(Some((Owner::Target, 0)), 0)).collect();
            let mut stage =
                Stage { fs, target, ledger, counters: GuestCounters::default(), blocks: Vec::new(), now: 0 };
            stage.blocks = stage.places()?;
            self.script.begin(&mut stage)?;
            self.stage = Some(stage);
        }
        let Some(stage) = &self.stage else { return Ok(()) };
        stage.fs.open(stage.target)?;
        stage.fs.map(process, at, (stage.target, 0..self.pages), Rights::Write)?;
        Ok(())
    }

    fn payload(&mut self, slot: u32, message: u64) -> Vec<u8> {
        let (began, version) = (self.tick(), Some((Owner::Target, self.next)));
        self.next += 1;
        self.in_flight.insert(slot, (message, version, began));
        if let Some(page) = self.stage.as_mut().and_then(|stage| stage.ledger.get_mut(index(message))) {
            page.begin(version);
        }
        bytes(version, message)
    }

    fn written(&mut self, slot: u32, success: bool) {
        let now = self.tick();
        let Some((message, version, began)) = self.in_flight.remove(&slot) else { return };
        let Some(stage) = &mut self.stage else { return };
        if let Some(page) = stage.ledger.get_mut(index(message)) {
            page.end(version, began, now, success);
        }
        if success {
            stage.counters.writes += 1;
            stage.counters.bytes_written += PAGE as u64;
        }
    }

    fn program_killed(&mut self) {
        let now = self.tick();
        self.in_flight.clear();
        if let Some(stage) = &mut self.stage {
            stage.ledger.iter_mut().for_each(|page| page.abandon(now));
        }
    }

    fn program_released(&mut self) -> Result<()> {
        self.stage.as_ref().map_or(Ok(()), |stage| stage.fs.close(stage.target))
    }

    fn gap_ns(&mut self) -> u64 {
        self.script.gap_ns()
    }

    fn act(&mut self) -> Result<Next> {
        let now = self.tick();
        let Some(stage) = &mut self.stage else { return Ok(Next::Stop) };
        stage.now = now;
        let wish = self.script.act(stage)?;
        stage.count_moved()?;
        self.publish();
        Ok(wish)
    }

    fn finish(&mut self) -> Result<Vec<String>> {
        let Some(stage) = &mut self.stage else { return Ok(Vec::new()) };
        self.script.end(stage)?;
        stage.count_moved()?;
        stage.verify_target()?;
        let problems = stage.fs.check();
        self.publish();
        Ok(problems)
    }
}

impl Stage {
    /// The current time, counted in events.
    pub(super) fn now(&self) -> u64 {
        self.now
    }

    /// Compares the file with its possible contents.
    pub(super) fn verify_target(&mut self) -> Result<()> {
        let (file, pages) = (self.target, self.fs.size(self.target)?);
        for number in 0..pages {
            let found = self.fs.read(file, number)?;
            let wrong = self.ledger[index(number)].wrong(number, &found);
            self.count(wrong);
        }
        Ok(())
    }

    /// Compares another file with its possible contents.
    pub(super) fn verify(&mut self, file: FileId, pages: &[Page]) -> Result<()> {
        for (page, number) in pages.iter().zip(0..) {
            let found = self.fs.read(file, number)?;
            self.count(page.wrong(number, &found));
        }
        Ok(())
    }

    fn count(&mut self, wrong: u64) {
        self.counters.bytes_wrong += wrong;
        self.counters.bytes_verified += PAGE as u64 - wrong;
    }

    /// Counts the blocks that moved since the last check.
    fn count_moved(&mut self) -> Result<()> {
        let places = self.places()?;
        let moved =
            self.blocks.iter().zip(&places).filter(|(old, new)| old.is_some() && new.is_some() && old != new);
        self.counters.blocks_moved += moved.count() as u64;
        self.blocks = places;
        Ok(())
    }

    /// The block of each page, none for a hole.
    fn places(&self) -> Result<Vec<Option<u64>>> {
        let mut places = vec![None; index(self.fs.size(self.target)?)];
        for extent in self.fs.extents(self.target)? {
            for page in 0..extent.pages {
                places[index(extent.page + page)] = Some(extent.block.0 + page);
            }
        }
        Ok(places)
    }
}

/// A new file whose pages all hold one owner's version.
pub(super) fn new_file(fs: &DaxFs, owner: Owner, version: u32, pages: u64) -> Result<FileId> {
    let file = fs.create(pages)?;
    for page in 0..pages {
        fs.write(file, page, 0, &bytes(Some((owner, version)), page))?;
    }
    Ok(file)
}
