#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| durac_fuzz::run("page", bytes));
