//! The testbed of a cell: the files, the program, and the reference with the expected contents of every file.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use refault_bus::bits::index;
use refault_model::dax::{DaxFs, FileId, FsError, NoRule};
use refault_model::policy::Policy;
use refault_model::scheduler::Scheduler;

use super::contents::{PageCandidates, WordOwner};
use super::machine::OwnSpace;
use super::operation::{FILE, FileOperation, HOLE, fresh};
use super::program::{CellProgram, ProgramBehaviour};
use super::row::PolicyRow;
use super::simulation::Simulation;

/// The role of a file in a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FileRole {
    /// The file under DMA.
    Data,
    /// A reflink copy of it.
    Copy,
    /// The file that blocks are exchanged with.
    Donor,
    /// A file that no operation touches.
    Bystander,
    /// The file that reuses freed blocks.
    Inheritor,
}

/// The expected contents of each file.
#[derive(Clone, Debug, Default)]
pub(super) struct Reference(BTreeMap<FileRole, Vec<PageCandidates>>);

impl Reference {
    pub(super) fn put(&mut self, role: FileRole, pages: Vec<Vec<u8>>) {
        self.0.insert(role, pages.into_iter().map(PageCandidates::only).collect());
    }

    pub(super) fn edit(&mut self, role: FileRole, edit: impl FnOnce(&mut Vec<PageCandidates>)) {
        edit(self.0.entry(role).or_default());
    }

    pub(super) fn page(&mut self, role: FileRole, page: u64) -> Option<&mut PageCandidates> {
        self.0.get_mut(&role)?.get_mut(index(page))
    }

    pub(super) fn copy(&mut self, from: FileRole, to: FileRole) {
        if let Some(pages) = self.0.get(&from).cloned() {
            self.0.insert(to, pages);
        }
    }

    pub(super) fn exchange(&mut self, one: FileRole, other: FileRole, pages: Range<usize>) {
        let (Some(mut first), Some(mut second)) = (self.0.remove(&one), self.0.remove(&other)) else {
            return;
        };
        first[pages.clone()].swap_with_slice(&mut second[pages]);
        self.0.extend([(one, first), (other, second)]);
    }

    pub(super) fn remove(&mut self, role: FileRole) {
        self.0.remove(&role);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn pages(&self) -> Vec<(FileRole, u64)> {
        let each = |(&role, pages): (&FileRole, &Vec<PageCandidates>)| {
            (0..pages.len() as u64).map(move |page| (role, page))
        };
        self.0.iter().flat_map(each).collect()
    }
}

/// The machine, files and program of one cell.
pub(super) struct Testbed {
    pub(super) simulation: Arc<Simulation>,
    pub(super) policy: Arc<dyn Policy>,
    pub(super) fs: Arc<DaxFs>,
    pub(super) data: FileId,
    pub(super) files: BTreeMap<FileRole, FileId>,
    pub(super) program: Arc<CellProgram>,
    pub(super) reference: Reference,
    /// Why the setup that the operation needs was refused.
    pub(super) setup_refused: Option<FsError>,
}

impl Testbed {
    /// Sets up machine, filesystem and files, and a program that has mapped the data file.
    pub(super) fn new(row: PolicyRow, operation: FileOperation) -> anyhow::Result<Self> {
        Self::on(OwnSpace::Translated, row, operation)
    }

    /// As [`Self::new`], with a choice for the NIC's own address space.
    pub(super) fn on(own: OwnSpace, row: PolicyRow, operation: FileOperation) -> anyhow::Result<Self> {
        let simulation = Simulation::new(own)?;
        let waits: Arc<dyn Scheduler> = simulation.clone();
        let policy = row.policy(waits);
        Self::with_policy(simulation, policy, row.behaviour(), operation)
    }

    /// As [`Self::new`], with a given policy and program behaviour.
    pub(super) fn with_policy(
        simulation: Arc<Simulation>,
        policy: Arc<dyn Policy>,
        behaviour: ProgramBehaviour,
        operation: FileOperation,
    ) -> anyhow::Result<Self> {
        let fs = DaxFs::new(&simulation.machine.memory, &simulation.machine.persistent)?;
        let mut reference = Reference::default();
        let mut files = BTreeMap::new();
        let data = make(&fs, &mut reference, (FileRole::Data, WordOwner::Data), FILE)?;
        // A punched hole must behave like pages that were never written.
        fs.punch(data, HOLE)?;
        reference.edit(FileRole::Data, |pages| {
            pages[index(HOLE.start)..index(HOLE.end)].fill(PageCandidates::zeroes());
        });
        files.insert(FileRole::Data, data);
        let bystander = make(&fs, &mut reference, (FileRole::Bystander, WordOwner::Bystander), 4)?;
        files.insert(FileRole::Bystander, bystander);
        if operation == FileOperation::Exchange {
            files.insert(
                FileRole::Donor,
                make(&fs, &mut reference, (FileRole::Donor, WordOwner::Donor), FILE)?,
            );
        }
        files.values().try_for_each(|&file| fs.fsync(file))?;
        fs.set_rule(policy.clone());
        let mut setup_refused = None;
        if operation == FileOperation::SharedWrite {
            match fs.reflink(data) {
                Ok(copy) => {
                    reference.copy(FileRole::Data, FileRole::Copy);
                    files.insert(FileRole::Copy, copy);
                }
                Err(error) => setup_refused = Some(error),
            }
        }
        let program = CellProgram::start(&simulation.machine, &policy, &fs, (data, FILE), behaviour)?;
        simulation.add_program(&program);
        Ok(Self { simulation, policy, fs, data, files, program, reference, setup_refused })
    }

    /// Creates and fills a file of `pages` pages, which reuses any freed blocks.
    pub(super) fn reuse_freed_blocks(&mut self, pages: u64) -> Result<(), FsError> {
        let part = (FileRole::Inheritor, WordOwner::Inheritor);
        let file = make(&self.fs, &mut self.reference, part, pages)?;
        self.files.insert(FileRole::Inheritor, file);
        Ok(())
    }

    /// Pages of the data file, if it still exists.
    pub(super) fn data_size(&self) -> Option<u64> {
        let file = self.files.get(&FileRole::Data)?;
        self.fs.size(*file).ok()
    }

    /// Compares every file with the reference: returns the wrong bytes in the data file, and in the others. The actual
    /// contents become the new reference.
    pub(super) fn compare(&mut self) -> Result<(u64, u64), FsError> {
        let (mut lost, mut landed) = (0, 0);
        for (role, page) in self.reference.pages() {
            let Some(&file) = self.files.get(&role) else { continue };
            let found = self.fs.read(file, page)?;
            let wrong = self.reference.page(role, page).map_or(0, |possible| possible.resolve(&found));
            *(if role == FileRole::Data { &mut lost } else { &mut landed }) += wrong;
        }
        Ok((lost, landed))
    }

    /// Ends the program and checks what must hold under every policy: a consistent filesystem, no pins but `leaked` ones,
    /// no access blocked by the IOMMU. Returns violations.
    pub(super) fn tear_down(&mut self, leaked: u64) -> Vec<String> {
        if let Err(error) = self.program.end() {
            self.simulation.fail(format!("the program cannot be ended: {error}"));
        }
        self.simulation.act();
        let mut problems = self.simulation.take_failures();
        problems.extend(self.fs.check());
        if self.fs.all_pins() != leaked {
            problems.push(format!("{} pins are left, but {leaked} were leaked", self.fs.all_pins()));
        }
        let (faults, overflow) = self.simulation.machine.unit.take_faults();
        problems.extend(faults.iter().map(|fault| format!("the IOMMU recorded {fault:?}")));
        problems.extend(overflow.then(|| "the IOMMU lost fault records".to_owned()));
        // Breaks the reference cycle of policy, clock and filesystem.
        self.fs.set_rule(Arc::new(NoRule));
        problems
    }
}

fn make(
    fs: &DaxFs,
    reference: &mut Reference,
    (role, owner): (FileRole, WordOwner),
    pages: u64,
) -> Result<FileId, FsError> {
    let file = fs.create(pages)?;
    let contents = fresh(owner, pages);
    for (page, bytes) in (0..).zip(&contents) {
        fs.write(file, page, 0, bytes)?;
    }
    reference.put(role, contents);
    Ok(file)
}
