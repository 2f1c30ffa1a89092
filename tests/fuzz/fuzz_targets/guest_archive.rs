//! See `refault_tests::fuzz::files::guest_archive`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| refault_tests::fuzz::files::guest_archive::run(bytes));
