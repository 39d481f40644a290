//! A shard on its own: what it answers, keeps and forgets.

mod handshake;
mod lifetime;
mod media;
mod refusals;
mod webrtc;
