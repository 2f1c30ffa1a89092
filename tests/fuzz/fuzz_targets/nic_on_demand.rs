//! See `refault_tests::fuzz::nic::on_demand`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| refault_tests::fuzz::nic::on_demand::run(bytes));
