//! The commands that make load: their arguments, and what they print and write.

pub mod generate;
pub mod media;
pub mod origin;
pub mod prove;
mod summary;
