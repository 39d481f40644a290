//! The relay as users run it, between the programs that users run: ffmpeg and srt-live-transmit (libsrt), Chromium, aiortc
//! and str0m.

mod api;
mod direct;
mod drain;
mod isolation;
mod leaks;
mod media;
mod refusals;
mod registration;
mod supervisor;
mod surroundings;
mod threads;
mod tls;
mod webrtc;
