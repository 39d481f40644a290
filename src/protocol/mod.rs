//! Wire formats: bytes in, values out. No I/O, no clock, no `unsafe`, and nothing that a peer can
//! make panic.

pub mod demux;
#[cfg(test)]
mod hex;
pub mod ice;
pub mod rtp;
pub mod sdp;
pub mod srt;
pub mod stream_url;
pub mod stun;
