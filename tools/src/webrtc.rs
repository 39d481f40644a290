//! The two ends of WebRTC, as far as a relay can see them: WHIP and WHEP over HTTP, ICE checks with
//! integrity, and media shaped like SRTP.
//!
//! Nothing is encrypted and there is no DTLS: a relay has no keys, so to it random bytes and stamped
//! ones are the same. [`sdp`] writes and reads descriptions, [`agent`] makes the checks, [`rtp`] makes
//! the media, and [`station`] drives many sessions over few sockets. On top of these
//! stand [`generator`] (many clients, which [`signalling`] admits) and [`origin`] (the emulator, with
//! [`endpoint`] as its HTTP side).

pub mod agent;
pub mod endpoint;
pub mod generator;
pub mod origin;
pub mod rtp;
pub mod sdp;

pub mod signalling;
pub mod station;
