//! Bytes from libFuzzer, played against the HTTP part of `pagewire serve`: see `cli/tests/http`.
#![no_main]

#[path = "../../cli/tests/http/mod.rs"]
mod http;

libfuzzer_sys::fuzz_target!(|input: &[u8]| http::exercise(input));
