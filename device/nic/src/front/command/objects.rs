//! The records of objects: what exists, what it belongs to, and how often it is used.

use refault_abi::regs::MAX_EQS;
use refault_bus::Pasid;
use rustc_hash::FxHashMap;

use super::reply::Refused;
use crate::config::NicConfig;
use crate::ids::{KEY_VARIANT_BITS, SLOT_BITS, SLOT_VARIANTS};
use crate::slab::Numbers;

/// A process' share of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Context {
    pub(crate) pasid: Option<Pasid>,
    /// Its PASID is not used any more, and its queue pairs stay in ERR or RESET.
    pub(crate) stopped: bool,
    pub(crate) users: u32,
}

/// A protection domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pd {
    pub(crate) context: u32,
    pub(crate) users: u32,
}

/// What a completion queue belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CqRecord {
    pub(crate) context: u32,
    pub(crate) eqn: u32,
    pub(crate) users: u32,
}

/// What a region belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MrRecord {
    pub(crate) pd: u32,
    /// Event queue for its page faults.
    pub(crate) eqn: Option<u32>,
}

/// What a queue pair uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QpRecord {
    pub(crate) pd: u32,
    pub(crate) cqs: [u32; 2],
    pub(crate) eqn: u32,
    /// Zero is none.
    pub(crate) srqn: u32,
}

/// What a shared receive queue belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SrqRecord {
    pub(crate) pd: u32,
    pub(crate) eqn: u32,
    pub(crate) users: u32,
}

/// Event queues, contexts and protection domains: few, numbered from zero, the lowest free number first.
#[derive(Debug)]
pub(crate) struct Table<T> {
    slots: Vec<Option<T>>,
    limit: usize,
}

impl<T> Table<T> {
    fn new(limit: u32) -> Self {
        Self { slots: Vec::new(), limit: limit as usize }
    }

    pub(crate) fn insert(&mut self, value: T) -> Result<u32, Refused> {
        let free = self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len());
        if free >= self.limit {
            return Err(Refused::NoResources);
        }
        let id = u32::try_from(free).map_err(|_| Refused::NoResources)?;
        if free == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[free] = Some(value);
        Ok(id)
    }

    pub(crate) fn find(&mut self, id: u32) -> Result<&mut T, Refused> {
        self.slots.get_mut(id as usize).and_then(Option::as_mut).ok_or(Refused::NoObject)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().flatten()
    }

    pub(crate) fn remove(&mut self, id: u32) {
        if let Some(slot) = self.slots.get_mut(id as usize) {
            *slot = None;
        }
    }
}

/// Completion queues, queue pairs and regions: many, and their numbers carry a variant.
#[derive(Debug)]
pub(crate) struct Registry<T> {
    numbers: Numbers,
    records: FxHashMap<u32, T>,
    /// Makes a number of slot and variant, and back.
    shape: Shape,
}

/// Where slot and variant lie in a number.
#[derive(Clone, Copy, Debug)]
enum Shape {
    /// Variant above the slot: 24-bit numbers.
    VariantHigh,
    /// Slot above the variant: keys.
    VariantLow,
}

impl Shape {
    fn number(self, slot: u32, variant: u32) -> u32 {
        match self {
            Self::VariantHigh => variant << SLOT_BITS | slot,
            Self::VariantLow => slot << KEY_VARIANT_BITS | variant,
        }
    }

    fn parts(self, number: u32) -> (u32, u32) {
        match self {
            Self::VariantHigh => (number & ((1 << SLOT_BITS) - 1), number >> SLOT_BITS),
            Self::VariantLow => (number >> KEY_VARIANT_BITS, number & ((1 << KEY_VARIANT_BITS) - 1)),
        }
    }
}

impl<T> Registry<T> {
    fn new(limit: u32, variants: u32, shape: Shape) -> Self {
        Self { numbers: Numbers::new(limit, variants), records: FxHashMap::default(), shape }
    }

    /// A new number with its record.
    pub(crate) fn insert(&mut self, record: T) -> Result<u32, Refused> {
        let (slot, variant) = self.numbers.take().ok_or(Refused::NoResources)?;
        let number = self.shape.number(slot, variant);
        self.records.insert(number, record);
        Ok(number)
    }

    pub(crate) fn find(&mut self, number: u32) -> Result<&mut T, Refused> {
        self.records.get_mut(&number).ok_or(Refused::NoObject)
    }

    /// Takes a record away; its number is not given out again soon.
    pub(crate) fn remove(&mut self, number: u32) -> Result<T, Refused> {
        let record = self.records.remove(&number).ok_or(Refused::NoObject)?;
        let (slot, variant) = self.shape.parts(number);
        self.numbers.give_back(slot, variant);
        Ok(record)
    }
}

/// The records of all objects.
#[derive(Debug)]
pub(crate) struct Objects {
    /// Users of each event queue.
    pub(crate) eqs: Table<u32>,
    pub(crate) contexts: Table<Context>,
    pub(crate) pds: Table<Pd>,
    pub(crate) cqs: Registry<CqRecord>,
    pub(crate) qps: Registry<QpRecord>,
    pub(crate) srqs: Registry<SrqRecord>,
    /// By key.
    pub(crate) mrs: Registry<MrRecord>,
}

impl Objects {
    pub(crate) fn new(config: &NicConfig) -> Self {
        let key_variants = (1 << KEY_VARIANT_BITS) - 1;
        Self {
            eqs: Table::new(MAX_EQS),
            contexts: Table::new(config.max_context),
            pds: Table::new(config.max_pd),
            cqs: Registry::new(config.max_cq, SLOT_VARIANTS, Shape::VariantHigh),
            qps: Registry::new(config.max_qp, SLOT_VARIANTS, Shape::VariantHigh),
            srqs: Registry::new(config.max_srq, SLOT_VARIANTS, Shape::VariantHigh),
            mrs: Registry::new(config.max_mr, key_variants, Shape::VariantLow),
        }
    }

    /// The context of a protection domain.
    pub(crate) fn context_of(&mut self, pd: u32) -> Result<(u32, Context), Refused> {
        let id = self.pds.find(pd)?.context;
        Ok((id, *self.contexts.find(id)?))
    }
}
