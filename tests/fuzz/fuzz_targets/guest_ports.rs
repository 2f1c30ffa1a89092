//! See `refault_tests::fuzz::files::guest_ports`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| refault_tests::fuzz::files::guest_ports::run(bytes));
