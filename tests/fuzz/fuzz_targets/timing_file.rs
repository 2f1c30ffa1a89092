//! See `refault_tests::fuzz::files::timing_file`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| refault_tests::fuzz::files::timing_file::run(bytes));
