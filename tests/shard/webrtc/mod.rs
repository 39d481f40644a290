//! WebRTC sessions of a shard: who may be where, what passes, and when it is over.

mod direct;
mod expectations;
mod lifetime;
mod origins;
mod ownership;
mod paths;
mod requests;
mod vectors;
