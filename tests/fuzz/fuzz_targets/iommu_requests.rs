//! See `refault_tests::fuzz::iommu::requests`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| refault_tests::fuzz::iommu::requests::run(bytes));
