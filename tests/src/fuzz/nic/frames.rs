//! Who owns each frame of memory, and so what the NIC may do with it.

use refault_bus::Gpa;
use refault_model::memory::FRAME;

use super::MEMORY;
use crate::fuzz::watch::{Access, How};

/// An owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// Somebody else: free memory, another process, or whoever got the page after it was taken away.
    Other,
    /// The driver: rings and tables.
    Driver,
    /// The process that drives the NIC, with the right to write or not.
    Process { write: bool },
}

/// The owner of every frame.
pub(super) struct Frames {
    owners: Vec<Owner>,
    /// Whether the NIC may copy to and from the driver's frames: if the driver's own tables say so.
    pub(super) is_driver_open: bool,
}

impl Frames {
    /// Frames below `end` are the driver's, those behind are free.
    pub(super) fn new(end: Gpa) -> Self {
        let driver = |frame: u64| if frame * FRAME < end.0 { Owner::Driver } else { Owner::Other };
        Self { owners: (0..MEMORY / FRAME).map(driver).collect(), is_driver_open: false }
    }

    /// Gives the frame at `at` to `owner`.
    pub(super) fn give(&mut self, at: Gpa, owner: Owner) {
        let frame = (at.0 / FRAME) as usize;
        self.owners[frame] = owner;
    }

    /// Whether the frame at `at` is the driver's.
    pub(super) fn is_driver(&self, at: Gpa) -> bool {
        self.owners.get((at.0 / FRAME) as usize) == Some(&Owner::Driver)
    }

    /// Panics if one of the accesses is to memory that the NIC must not touch now.
    pub(super) fn check(&self, accesses: &[Access]) {
        for access in accesses {
            let last = access.at.0.saturating_add(access.len.max(1) - 1);
            for frame in access.at.0 / FRAME..=last / FRAME {
                let owner = usize::try_from(frame).ok().and_then(|frame| self.owners.get(frame));
                let owner = *owner.unwrap_or_else(|| panic!("{access:x?} is outside memory"));
                assert!(self.allows(access.how, owner), "{access:x?}, but the frame is of {owner:?}");
            }
        }
    }

    fn allows(&self, how: How, owner: Owner) -> bool {
        match owner {
            Owner::Other => false,
            Owner::Process { write } => write || !how.changes(),
            // Data never comes from there or goes there; rings are read and written in other ways.
            Owner::Driver => {
                self.is_driver_open || !matches!(how, How::CopyFrom | How::CopyTo | How::Exchange(..))
            }
        }
    }
}
