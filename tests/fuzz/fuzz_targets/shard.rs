//! Any sequence of datagrams, commands and waits.
#![no_main]
#![allow(dead_code, reason = "the support is shared with the tests")]

#[path = "../../support/fuzz_rtc.rs"]
mod fuzz_rtc;
#[path = "../../support/fuzz_shard.rs"]
mod fuzz_shard;
#[path = "../../support/packets.rs"]
mod packets;
#[path = "../../support/rtc.rs"]
mod rtc;
#[path = "../../support/stage.rs"]
mod stage;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz_shard::fuzz_shard(bytes));
