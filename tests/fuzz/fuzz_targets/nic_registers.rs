//! See `refault_tests::fuzz::nic::registers`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| refault_tests::fuzz::nic::registers::run(bytes));
