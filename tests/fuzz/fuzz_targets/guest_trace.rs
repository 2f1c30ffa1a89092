//! See `refault_tests::fuzz::files::guest_trace`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| refault_tests::fuzz::files::guest_trace::run(bytes));
