//! See `refault_tests::fuzz::files::lab_scenario`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| refault_tests::fuzz::files::lab_scenario::run(bytes));
