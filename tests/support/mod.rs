//! What several tests share.

pub mod fuzz;
pub mod fuzz_shard;
pub mod packets;
pub mod random;
pub mod stage;
