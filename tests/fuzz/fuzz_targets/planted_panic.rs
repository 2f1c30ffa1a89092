//! A planted mistake, which `.ci/fuzz` must find: three bytes that are not found by chance, only one after the other.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| assert!(!bytes.starts_with(b"bug"), "planted"));
