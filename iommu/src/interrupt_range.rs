//! The interrupt range (§3.14), 0xfee0_0000..0xfef0_0000: a write to it is an interrupt, not an access to memory. So no
//! address may be translated into it.

use refault_bus::Iova;
use refault_bus::ats::Translation;

/// The range as a number of 1 MiB blocks.
const MEGABYTE: u64 = 0xfee;

/// Whether an address is in the range.
pub(crate) const fn contains(address: u64) -> bool {
    address >> 20 == MEGABYTE
}

/// The largest part of `block` around `iova` that lies outside the range. `iova` itself must lead outside.
pub(crate) fn part_outside(block: Translation, iova: Iova) -> Translation {
    let gpa = block.gpa_of(iova);
    let outside = |&shift: &u8| shift <= block.page_shift && gpa.0 >> shift != MEGABYTE << 20 >> shift;
    let page_shift = [30, 21, 12].into_iter().find(outside).unwrap_or(12);
    Translation { gpa: gpa.align_down(page_shift), page_shift, ..block }
}
