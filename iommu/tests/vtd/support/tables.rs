//! Table builders: entries as Linux stores them.

use refault_bus::{Bdf, Iova};

use super::Guest;

/// Bits of a paging entry.
pub(crate) struct Pte;

impl Pte {
    pub(crate) const PRESENT: u64 = 1;
    pub(crate) const WRITE: u64 = 1 << 1;
    pub(crate) const USER: u64 = 1 << 2;
    pub(crate) const ACCESSED: u64 = 1 << 5;
    pub(crate) const DIRTY: u64 = 1 << 6;
    pub(crate) const LARGE: u64 = 1 << 7;
    pub(crate) const NO_EXECUTE: u64 = 1 << 63;
    /// The bits that Linux sets in every table entry of a user process, except the accessed bit.
    const TABLE: u64 = Self::PRESENT | Self::WRITE | Self::USER;
}

/// Context entry with DTE, PASIDE, PRE and a directory of 2^14 entries: 20-bit PASIDs.
pub(crate) const fn context(directory: u64) -> u64 {
    directory | 7 << 9 | 0b1_1101
}

/// Address of the context entry of `device`.
pub(crate) fn context_entry_at(guest: &Guest, device: Bdf) -> u64 {
    guest.layout.context + u64::from(device.devfn() & 0x7f) * 32
}

/// Address of the PASID entry of `pasid`. Its table is allocated if there is none.
pub(crate) fn pasid_entry_at(guest: &Guest, pasid: u32) -> u64 {
    let at = guest.layout.directory + u64::from(pasid >> 6) * 8;
    if guest.load(at) & 1 == 0 {
        guest.store(at, guest.page() | 1);
    }
    (guest.load(at) & !0xfff) + u64::from(pasid & 0x3f) * 64
}

/// Writes a PASID entry, P last.
pub(crate) fn set_pasid_entry(guest: &Guest, pasid: u32, [control, domain, first_stage]: [u64; 3]) {
    let at = pasid_entry_at(guest, pasid);
    guest.store(at + 16, first_stage);
    guest.store(at + 8, domain);
    guest.store(at, control);
}

/// Maps the block of `1 << shift` bytes at `iova` to `gpa`, and allocates tables as needed. Returns the address of the
/// leaf entry.
pub(crate) fn map(guest: &Guest, root: u64, iova: Iova, gpa: u64, shift: u8, bits: u64) -> u64 {
    let mut table = root;
    let mut level_shift = 39;
    while level_shift > shift {
        let at = table + (iova.0 >> level_shift & 0x1ff) * 8;
        if guest.load(at) & Pte::PRESENT == 0 {
            guest.store(at, guest.page() | Pte::TABLE);
        }
        table = guest.load(at) & 0x000f_ffff_ffff_f000;
        level_shift -= 9;
    }
    let at = table + (iova.0 >> shift & 0x1ff) * 8;
    let large = if shift > 12 { Pte::LARGE } else { 0 };
    guest.store(at, gpa | Pte::PRESENT | large | bits);
    at
}

/// Changes one quadword of a table.
pub(crate) fn edit(guest: &Guest, at: u64, change: impl Fn(u64) -> u64) {
    guest.store(at, change(guest.load(at)));
}
