//! See `refault_tests::fuzz::wire`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| refault_tests::fuzz::wire::run(bytes));
