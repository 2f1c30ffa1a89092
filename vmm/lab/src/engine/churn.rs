//! What the kernel does to the target's pages while the device uses them.

use std::sync::Arc;

use rand_pcg::Pcg64Mcg;
use refault_bus::Iova;
use refault_model::paging::PageSize;
use refault_model::{ModelError, Process};

use super::agenda::Event;
use super::dice::{Stream, dice, gap_ns, one_of};
use super::session::TARGET;
use super::world::World;
use crate::scenario::{Churn as Setup, ChurnOperation, Scenario};

/// The kernel thread that does it.
pub(super) struct Churn {
    world: Arc<World>,
    setup: Setup,
    process: Arc<Process>,
    dice: Pcg64Mcg,
    /// Pages of the target, and their size.
    pages: u64,
    size: PageSize,
}

impl Churn {
    /// The scenario's churn, if it has any.
    pub(super) fn new(world: Arc<World>, scenario: &Scenario, process: Arc<Process>) -> Option<Self> {
        let setup = scenario.churn?;
        let size = if scenario.load.large_pages { PageSize::Large } else { PageSize::Small };
        let pages = scenario.load.region_bytes.div_ceil(size.bytes()).max(1);
        let churn = Self { world, setup, process, dice: dice(scenario.seed, Stream::Churn), pages, size };
        Some(churn)
    }

    /// Notes when it will happen next.
    pub(super) fn schedule(&mut self) {
        self.world.note(gap_ns(&mut self.dice, self.setup.per_second), Event::Churn);
    }

    /// It happens, somewhere; pages that are not there are passed over.
    pub(super) fn strike(&mut self) -> Result<(), ModelError> {
        let count = u64::from(self.setup.pages).min(self.pages);
        let first = one_of(&mut self.dice, self.pages - count + 1);
        for page in first..first + count {
            match self.change(Iova(TARGET.0 + page * self.size.bytes())) {
                Ok(()) | Err(ModelError::NotMapped { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn change(&self, at: Iova) -> Result<(), ModelError> {
        let memory = self.process.memory();
        match self.setup.operation {
            ChurnOperation::Evict => {
                let leaf = self.process.swap_out(at)?;
                memory.free(leaf.gpa, leaf.size.bytes())
            }
            ChurnOperation::Move => memory.free(self.process.move_page(at)?, self.size.bytes()),
            ChurnOperation::WriteProtect => self.process.write_protect(at).map(drop),
        }
    }
}
