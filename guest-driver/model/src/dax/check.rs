//! Consistency checks, as of fsck: redundant information is compared.

use std::collections::BTreeMap;

use crate::dax::{Block, DaxFs};

impl DaxFs {
    /// Returns a description of each inconsistency.
    pub fn check(&self) -> Vec<String> {
        let state = self.lock();
        let mut counted: BTreeMap<Block, u32> = BTreeMap::from([(state.zeroes, 1)]);
        let mut problems = Vec::new();
        for (id, file) in &state.files {
            let mut end = 0;
            for extent in file.extents.iter() {
                if extent.page < end || extent.pages == 0 {
                    problems
                        .push(format!("file {}: {extent:?} overlaps the previous one, or is empty", id.0));
                }
                end = extent.page + extent.pages;
                for page in 0..extent.pages {
                    *counted.entry(Block(extent.block.0 + page)).or_default() += 1;
                }
            }
            if end > file.size {
                problems
                    .push(format!("file {}: blocks up to page {end}, beyond its {} pages", id.0, file.size));
            }
            if let Some(page) = file.dirty.iter().find(|&&page| page >= file.size) {
                problems.push(format!("file {}: page {page} is dirty, but beyond the end", id.0));
            }
        }
        let used = state.blocks.in_use();
        for block in counted.keys().chain(used.keys()).collect::<std::collections::BTreeSet<_>>() {
            let (known, found) = (used.get(block), counted.get(block));
            if known != found {
                problems.push(format!("block {}: {known:?} users counted, {found:?} found", block.0));
            }
        }
        let sum = used.len() as u64 + state.blocks.free_count();
        if sum != state.blocks.total() {
            problems.push(format!("{sum} of {} blocks are either used or free", state.blocks.total()));
        }
        problems
    }
}
