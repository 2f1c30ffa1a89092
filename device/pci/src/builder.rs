//! Describing a function: its BARs and capabilities, and their places in config space.

use std::sync::Arc;

use refault_bus::bits::low_u32;
use refault_bus::irq::MsiSink;
use thiserror::Error;

use crate::caps::{self, Capability, CapabilityId};
use crate::identity::{CAPABILITIES, COMMAND, STATUS_CAPABILITIES};
use crate::space::{CONFIG_SIZE, ConfigSpace, Register};
use crate::{Bar, Endpoint, Identity, MsixLayout};

/// An impossible description of a function: a mistake in the device's code, not the guest's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EndpointLayoutError {
    /// The index is above 4, or the size is below 4 KiB or not a power of two.
    #[error("BAR {index} of {size:#x} bytes: want index 0 to 4 and a power of two of at least 0x1000")]
    BadBar {
        /// Index of the BAR.
        index: u8,
        /// Size of the BAR in bytes.
        size: u64,
    },
    /// One of the two indices of a 64-bit BAR is taken.
    #[error("BAR {index} overlaps another: a 64-bit BAR takes two indices")]
    OverlappingBar {
        /// Index of the BAR that was added later.
        index: u8,
    },
    /// Table or pending bits are misaligned, overlap or leave their BAR, or the number of vectors is not 1 to 2048.
    #[error("MSI-X layout {0:?} does not fit its BAR")]
    BadMsix(MsixLayout),
    /// Config space has no room for the capability with this ID.
    #[error("capability {0:#x} does not fit in config space")]
    NoRoom(u16),
    /// The capability with this ID was added twice.
    #[error("capability {0:#x} is there twice")]
    Twice(u16),
}

/// The description of a function, from [`Endpoint::builder`].
pub struct EndpointBuilder {
    identity: Identity,
    bars: Vec<Bar>,
    capabilities: Vec<Capability>,
    msix: Option<(MsixLayout, Arc<dyn MsiSink>)>,
}

impl Endpoint {
    /// Starts to describe a function.
    pub fn builder(identity: Identity) -> EndpointBuilder {
        EndpointBuilder::new(identity)
    }
}

impl EndpointBuilder {
    fn new(identity: Identity) -> Self {
        Self { identity, bars: Vec::new(), capabilities: Vec::new(), msix: None }
    }

    /// Adds a 64-bit memory BAR of `size` bytes at `index` and `index + 1`.
    pub fn bar(mut self, index: u8, size: u64, prefetchable: bool) -> Self {
        self.bars.push(Bar { index, size, prefetchable });
        self
    }

    /// Adds a capability. The guest finds them in the order in which they were added.
    pub fn capability(mut self, capability: Capability) -> Self {
        self.capabilities.push(capability);
        self
    }

    /// Adds the MSI-X capability. Vectors are sent to `sink`.
    pub fn msix(mut self, layout: MsixLayout, sink: Arc<dyn MsiSink>) -> Self {
        self.msix = Some((layout, sink));
        self.capability(caps::msix::msix(layout))
    }

    /// Builds the function, in the state after reset.
    ///
    /// # Errors
    ///
    /// If the description is impossible; see [`EndpointLayoutError`].
    pub fn build(self) -> Result<Endpoint, EndpointLayoutError> {
        self.check_bars()?;
        if let Some((layout, _)) = &self.msix {
            self.check_msix(layout)?;
        }
        let mut space = ConfigSpace::new();
        for (index, register) in self.identity.header() {
            space.define(index, register);
        }
        for bar in &self.bars {
            for (register, index) in bar.registers().into_iter().zip(bar.dword()..) {
                space.define(index, register);
            }
        }
        let places = place(&self.capabilities)?;
        chain(&mut space, &self.capabilities, &places);
        let places = self.capabilities.iter().map(|capability| capability.id).zip(places).collect();
        Ok(Endpoint::new(space, self.bars, places, self.msix))
    }

    fn check_bars(&self) -> Result<(), EndpointLayoutError> {
        let mut taken = [false; 6];
        for &bar in &self.bars {
            if !bar.is_valid() {
                return Err(EndpointLayoutError::BadBar { index: bar.index, size: bar.size });
            }
            for slot in &mut taken[usize::from(bar.index)..][..2] {
                if std::mem::replace(slot, true) {
                    return Err(EndpointLayoutError::OverlappingBar { index: bar.index });
                }
            }
        }
        Ok(())
    }

    fn check_msix(&self, layout: &MsixLayout) -> Result<(), EndpointLayoutError> {
        let size = self.bars.iter().find(|bar| bar.index == layout.bar).map_or(0, |bar| bar.size);
        let aligned = (layout.table | layout.pending).is_multiple_of(8);
        let inside = layout.table_end().max(layout.pending_end()) <= size;
        let apart = layout.table_end() <= u64::from(layout.pending)
            || layout.pending_end() <= u64::from(layout.table);
        let counted = (1..=2048).contains(&layout.vectors);
        if aligned && inside && apart && counted {
            Ok(())
        } else {
            Err(EndpointLayoutError::BadMsix(*layout))
        }
    }
}

/// The first dword of each capability: standard ones from byte 0x40, extended ones from byte 0x100, aligned to 16 bytes
/// to be easy to read in a hex dump.
fn place(capabilities: &[Capability]) -> Result<Vec<usize>, EndpointLayoutError> {
    let (mut standard, mut extended) = (0x40 / 4, 0x100 / 4);
    let mut seen: Vec<u16> = Vec::new();
    let mut places = Vec::with_capacity(capabilities.len());
    for capability in capabilities {
        let (number, next, end) = match capability.id {
            CapabilityId::Standard(id) => (u16::from(id), &mut standard, 0x100 / 4),
            CapabilityId::Extended(id, _) => (0x8000 | id, &mut extended, CONFIG_SIZE / 4),
        };
        if seen.contains(&number) {
            return Err(EndpointLayoutError::Twice(number & 0x7fff));
        }
        seen.push(number);
        places.push(*next);
        if *next + capability.registers.len() > end {
            return Err(EndpointLayoutError::NoRoom(number & 0x7fff));
        }
        *next = (*next + capability.registers.len()).next_multiple_of(4);
    }
    Ok(places)
}

/// Defines the registers of the capabilities and links them into two lists. Each header holds the byte offset of the
/// next capability of its list, or zero. Works from the last to the first, so that the next one's offset is known.
fn chain(space: &mut ConfigSpace, capabilities: &[Capability], places: &[usize]) {
    let (mut standard, mut extended) = (0, 0);
    for (capability, &at) in capabilities.iter().zip(places).rev() {
        let offset = low_u32(at as u64) * 4;
        let header = match capability.id {
            CapabilityId::Standard(id) => u32::from(id) | std::mem::replace(&mut standard, offset) << 8,
            CapabilityId::Extended(id, version) => {
                let next = std::mem::replace(&mut extended, offset);
                u32::from(id) | u32::from(version & 0xf) << 16 | next << 20
            }
        };
        for (&register, index) in capability.registers.iter().zip(at..) {
            let links = if index == at { header } else { 0 };
            space.define(index, Register { reset: register.reset | links, ..register });
        }
    }
    space.define(CAPABILITIES, Register::constant(standard));
    if standard != 0 {
        let command = space.register(COMMAND);
        space.define(COMMAND, Register { reset: command.reset | STATUS_CAPABILITIES, ..command });
    }
}
