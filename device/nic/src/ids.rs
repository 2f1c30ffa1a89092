//! Numbers of objects, and what their bits mean.
//!
//! A number is a slot and a variant. The variant differs from the slot's last one, so that the stale number of a
//! destroyed object does not name the object that has its slot now.

use refault_bus::PrgIndex;

/// Bits of a QPN, CQN or SRQN that name the slot; the variant is above them.
pub(crate) const SLOT_BITS: u32 = 14;
/// Variants of a slot that fit in 24 bits; zero is none.
pub(crate) const SLOT_VARIANTS: u32 = (1 << (24 - SLOT_BITS)) - 1;
/// Bits of an lkey or rkey that hold the variant; the slot is above them.
pub(crate) const KEY_VARIANT_BITS: u32 = 8;
/// Bits of a page fault's token that name the slot; above them, how often the slot was used.
pub(crate) const TOKEN_SLOT_BITS: u32 = PrgIndex::COUNT.trailing_zeros();

/// The slot of a QPN, CQN or SRQN.
pub(crate) const fn slot_of(number: u32) -> u32 {
    number & ((1 << SLOT_BITS) - 1)
}

/// The slot of an lkey or rkey.
pub(crate) const fn slot_of_key(key: u32) -> u32 {
    key >> KEY_VARIANT_BITS
}

/// The slot of a page fault's token.
pub(crate) fn slot_of_token(token: u32) -> PrgIndex {
    PrgIndex::truncated(u64::from(token))
}
