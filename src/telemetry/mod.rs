//! What operators see of the process: its log and its metrics.

pub mod log;
pub mod metrics;
