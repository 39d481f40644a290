//! What several tests share.

pub mod aiortc;
pub mod browser;
pub mod caller;
pub mod cluster;
pub mod direct;
pub mod fuzz;
pub mod fuzz_rtc;
pub mod fuzz_sdp;
pub mod fuzz_shard;
pub mod hosts;
pub mod http;
pub mod http_server;
pub mod ice;
pub mod network;
pub mod packets;
pub mod process;
pub mod random;
pub mod rtc;
pub mod seccomp;
pub mod stage;
pub mod str0m_origin;
pub mod thread_fault;
pub mod webrtc_client;
pub mod webrtc_origin;
pub mod webrtc_relay;
