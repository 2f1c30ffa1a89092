//! The kernel changes the target's pages while the device uses them.

use std::sync::Arc;

use rand_pcg::Pcg64Mcg;
use refault_bus::Iova;
use refault_model::paging::PageSize;
use refault_model::{ModelError, Process};

use super::agenda::SimEvent;
use super::client::TARGET;
use super::dice::{Stream, dice, gap_ns, one_of};
use super::timeline::Timeline;
use crate::scenario::{Churn, ChurnOperation, Scenario};

/// The kernel thread that evicts, moves or write-protects pages.
pub(super) struct ChurnThread {
    timeline: Arc<Timeline>,
    setup: Churn,
    process: Arc<Process>,
    dice: Pcg64Mcg,
    /// Number of pages in the target.
    pages: u64,
    size: PageSize,
}

impl ChurnThread {
    /// The churn of a scenario, if it has one.
    pub(super) fn new(timeline: Arc<Timeline>, scenario: &Scenario, process: Arc<Process>) -> Option<Self> {
        let setup = scenario.churn?;
        let size = if scenario.load.large_pages { PageSize::Large } else { PageSize::Small };
        let pages = scenario.load.region_bytes.div_ceil(size.bytes()).max(1);
        let churn = Self { timeline, setup, process, dice: dice(scenario.seed, Stream::Churn), pages, size };
        Some(churn)
    }

    /// Schedules the next change.
    pub(super) fn schedule(&mut self) {
        self.timeline.schedule(gap_ns(&mut self.dice, self.setup.per_second), SimEvent::Churn);
    }

    /// Changes a random range of pages; absent pages are skipped.
    pub(super) fn change_pages(&mut self) -> Result<(), ModelError> {
        let count = u64::from(self.setup.pages).min(self.pages);
        let first = one_of(&mut self.dice, self.pages - count + 1);
        for page in first..first + count {
            match self.change_page(Iova(TARGET.0 + page * self.size.bytes())) {
                Ok(()) | Err(ModelError::NotMapped { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn change_page(&self, at: Iova) -> Result<(), ModelError> {
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
