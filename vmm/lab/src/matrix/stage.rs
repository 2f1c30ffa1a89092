//! What a cell plays on: the files, the program, and the reference that says what every file must contain.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use refault_model::dax::{DaxFs, FileId, FsError, NoRule};
use refault_model::policy::Policy;
use refault_model::scheduler::Scheduler;

use super::contents::{Owner, Possible};
use super::machine::OwnSpace;
use super::operation::{FILE, HOLE, Operation, fresh};
use super::program::{Habits, Program};
use super::row::Row;
use super::world::World;

/// A file, by its part in the play.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Which {
    /// The one under DMA.
    Data,
    /// Its reflink copy.
    Copy,
    /// The one it is exchanged with.
    Donor,
    /// One that is there all the time.
    Bystander,
    /// One that gets the blocks that become free.
    Heir,
}

/// What each file must contain.
#[derive(Clone, Debug, Default)]
pub(super) struct Reference(BTreeMap<Which, Vec<Possible>>);

impl Reference {
    pub(super) fn put(&mut self, which: Which, pages: Vec<Vec<u8>>) {
        self.0.insert(which, pages.into_iter().map(Possible::only).collect());
    }

    pub(super) fn edit(&mut self, which: Which, edit: impl FnOnce(&mut Vec<Possible>)) {
        edit(self.0.entry(which).or_default());
    }

    pub(super) fn page(&mut self, which: Which, page: u64) -> Option<&mut Possible> {
        self.0.get_mut(&which)?.get_mut(page as usize)
    }

    pub(super) fn copy(&mut self, from: Which, to: Which) {
        if let Some(pages) = self.0.get(&from).cloned() {
            self.0.insert(to, pages);
        }
    }

    pub(super) fn exchange(&mut self, one: Which, other: Which, pages: Range<usize>) {
        let (Some(mut first), Some(mut second)) = (self.0.remove(&one), self.0.remove(&other)) else {
            return;
        };
        first[pages.clone()].swap_with_slice(&mut second[pages]);
        self.0.extend([(one, first), (other, second)]);
    }

    pub(super) fn remove(&mut self, which: Which) {
        self.0.remove(&which);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn pages(&self) -> Vec<(Which, u64)> {
        let each = |(&which, pages): (&Which, &Vec<Possible>)| {
            (0..pages.len() as u64).map(move |page| (which, page))
        };
        self.0.iter().flat_map(each).collect()
    }
}

/// The stage of one cell.
pub(super) struct Stage {
    pub(super) world: Arc<World>,
    pub(super) policy: Arc<dyn Policy>,
    pub(super) fs: Arc<DaxFs>,
    pub(super) data: FileId,
    pub(super) files: BTreeMap<Which, FileId>,
    pub(super) program: Arc<Program>,
    pub(super) reference: Reference,
    /// Why what the operation needs could not be set up.
    pub(super) setup_refused: Option<FsError>,
}

impl Stage {
    /// Machine, filesystem and files, and a program that has mapped the data file.
    pub(super) fn set(row: Row, operation: Operation) -> anyhow::Result<Self> {
        Self::on(OwnSpace::Translated, row, operation)
    }

    /// The same on a machine of another make.
    pub(super) fn on(own: OwnSpace, row: Row, operation: Operation) -> anyhow::Result<Self> {
        let world = World::new(own)?;
        let waits: Arc<dyn Scheduler> = world.clone();
        let policy = row.policy(waits);
        Self::of(world, policy, row.habits(), operation)
    }

    /// The same with a policy of one's own.
    pub(super) fn of(
        world: Arc<World>,
        policy: Arc<dyn Policy>,
        habits: Habits,
        operation: Operation,
    ) -> anyhow::Result<Self> {
        let fs = DaxFs::new(&world.machine.memory, &world.machine.persistent)?;
        let mut reference = Reference::default();
        let mut files = BTreeMap::new();
        let data = make(&fs, &mut reference, (Which::Data, Owner::Data), FILE)?;
        // Both ways to a hole: this one leaves the file as if the pages had never been written.
        fs.punch(data, HOLE)?;
        reference.edit(Which::Data, |pages| {
            pages[HOLE.start as usize..HOLE.end as usize].fill(Possible::zeroes());
        });
        files.insert(Which::Data, data);
        let bystander = make(&fs, &mut reference, (Which::Bystander, Owner::Bystander), 4)?;
        files.insert(Which::Bystander, bystander);
        if operation == Operation::Exchange {
            files.insert(Which::Donor, make(&fs, &mut reference, (Which::Donor, Owner::Donor), FILE)?);
        }
        files.values().try_for_each(|&file| fs.fsync(file))?;
        fs.set_rule(policy.clone());
        let mut setup_refused = None;
        if operation == Operation::SharedWrite {
            match fs.reflink(data) {
                Ok(copy) => {
                    reference.copy(Which::Data, Which::Copy);
                    files.insert(Which::Copy, copy);
                }
                Err(error) => setup_refused = Some(error),
            }
        }
        let program = Program::start(&world.machine, &policy, &fs, (data, FILE), habits)?;
        world.adopt(&program);
        Ok(Self { world, policy, fs, data, files, program, reference, setup_refused })
    }

    /// Somebody makes a file of as many pages, and fills it: whatever blocks have become free are his.
    pub(super) fn give_to_heir(&mut self, pages: u64) -> Result<(), FsError> {
        let part = (Which::Heir, Owner::Heir);
        let file = make(&self.fs, &mut self.reference, part, pages)?;
        self.files.insert(Which::Heir, file);
        Ok(())
    }

    /// Pages of the data file, if there is one still.
    pub(super) fn data_size(&self) -> Option<u64> {
        let file = self.files.get(&Which::Data)?;
        self.fs.size(*file).ok()
    }

    /// Compares every file with the reference: bytes that are wrong in the data file, and in others. What was found is
    /// the reference from now on.
    pub(super) fn compare(&mut self) -> Result<(u64, u64), FsError> {
        let (mut lost, mut landed) = (0, 0);
        for (which, page) in self.reference.pages() {
            let Some(&file) = self.files.get(&which) else { continue };
            let found = self.fs.read(file, page)?;
            let wrong = self.reference.page(which, page).map_or(0, |possible| possible.settle(&found));
            *(if which == Which::Data { &mut lost } else { &mut landed }) += wrong;
        }
        Ok((lost, landed))
    }

    /// Ends everything, and says what is not as it must be whatever the policy: the filesystem consistent, no pin left
    /// but `leaked` ones, no access that the IOMMU had to block.
    pub(super) fn strike(&mut self, leaked: u64) -> Vec<String> {
        if let Err(error) = self.program.end() {
            self.world.fail(format!("the program cannot be ended: {error}"));
        }
        self.world.act();
        let mut problems = self.world.take_failures();
        problems.extend(self.fs.check());
        if self.fs.all_pins() != leaked {
            problems.push(format!("{} pins are left, {leaked} were leaked", self.fs.all_pins()));
        }
        let (faults, overflow) = self.world.machine.unit.take_faults();
        problems.extend(faults.iter().map(|fault| format!("the IOMMU recorded {fault:?}")));
        problems.extend(overflow.then(|| "the IOMMU lost fault records".to_owned()));
        // Policy, clock and filesystem know each other in a circle.
        self.fs.set_rule(Arc::new(NoRule));
        problems
    }
}

fn make(
    fs: &DaxFs,
    reference: &mut Reference,
    (which, owner): (Which, Owner),
    pages: u64,
) -> Result<FileId, FsError> {
    let file = fs.create(pages)?;
    let contents = fresh(owner, pages);
    for (page, bytes) in (0..).zip(&contents) {
        fs.write(file, page, 0, bytes)?;
    }
    reference.put(which, contents);
    Ok(file)
}
