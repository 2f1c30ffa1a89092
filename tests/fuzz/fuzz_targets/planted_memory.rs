//! A planted mistake, which `.ci/fuzz` must find: an allocation that is as large as the input says. Without
//! AddressSanitizer libFuzzer does not see it.
#![no_main]

use std::hint::black_box;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some(&[low, high]) = bytes.first_chunk() else { return };
    black_box(vec![0u8; usize::from(u16::from_le_bytes([low, high])) << 7]);
});
