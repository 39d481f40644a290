//! Any sequence of datagrams, commands and waits.
#![no_main]

#[path = "../../support/fuzz_shard.rs"]
mod fuzz_shard;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_shard::fuzz_shard(bytes));
