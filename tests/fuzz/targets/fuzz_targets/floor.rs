#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    mendix_fuzz::floor(bytes);
});
