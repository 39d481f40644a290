//! Session descriptions and their fragments, both ways.
#![no_main]

#[path = "../../support/fuzz_sdp.rs"]
mod fuzz_sdp;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_sdp::fuzz_sdp(bytes));
