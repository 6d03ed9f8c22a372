//! Bytes from libFuzzer, played against the e1000e driver: see `tests/hostile`.
#![no_main]
#![allow(clippy::unwrap_used, clippy::expect_used, dead_code)]

#[path = "../../tests/hostile/mod.rs"]
mod hostile;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    hostile::exercise::<hostile::E1000e>(input);
});
