//! The log: one line per change of state, and never one per datagram.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use tracing_subscriber::EnvFilter;

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For a person; in colour where a person reads it.
    Text,
    /// One JSON object.
    Json,
}

/// Sends the log of the whole process to standard error. To be called once, before any thread
/// starts.
///
/// # Errors
/// A filter that cannot be read, or a second call.
pub fn init(filter: &str, format: Format) -> Result<(), LogError> {
    let directives = EnvFilter::builder()
        .parse(filter)
        .map_err(|source| LogError::Filter { filter: filter.to_owned(), source })?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(directives)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let started = match format {
        Format::Text => subscriber.try_init(),
        Format::Json => subscriber.json().flatten_event(true).try_init(),
    };
    started.map_err(|_| LogError::Started)
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// `--log` cannot be read.
    #[error(
        "--log {filter}: no filter; write a level (error, warn, info, debug) or module=level, \
         comma-separated"
    )]
    Filter {
        /// As typed.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Somebody else writes it.
    #[error("the log has been started before")]
    Started,
}

/// Lets the first of a run of equal messages through, and then one per interval with the number of
/// those it held back.
#[derive(Debug, Default)]
pub struct Throttle {
    /// By message, a closed set. When it was let through last, and how many were not since.
    runs: HashMap<&'static str, (Instant, u64)>,
}

impl Throttle {
    /// Whether `message` may be logged now, and if so how many were held back before it.
    pub fn pass(&mut self, now: Instant, message: &'static str) -> Option<u64> {
        match self.runs.get_mut(message) {
            Some((last, held_back)) if now.duration_since(*last) < INTERVAL => {
                *held_back += 1;
                None
            }
            Some((last, held_back)) => {
                *last = now;
                Some(std::mem::take(held_back))
            }
            None => {
                self.runs.insert(message, (now, 0));
                Some(0)
            }
        }
    }

    /// The messages that were held back and have had no successor for an interval, with their
    /// number.
    pub fn overdue(&mut self, now: Instant) -> Vec<(&'static str, u64)> {
        let mut overdue = Vec::new();
        self.runs.retain(|message, (last, held_back)| {
            let is_over = now.duration_since(*last) >= INTERVAL;
            if is_over && *held_back > 0 {
                overdue.push((*message, *held_back));
            }
            !is_over
        });
        overdue
    }
}

/// Between two messages of one kind.
const INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_cannot_be_read_is_named() {
        let error = init("ringway=loud", Format::Text).unwrap_err();
        assert!(error.to_string().starts_with("--log ringway=loud:"), "{error}");
    }

    #[test]
    fn the_first_message_passes_and_the_next_tells_how_many_did_not() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        assert_eq!(throttle.pass(now, "overload"), Some(0));
        assert_eq!(throttle.pass(now, "overload"), None);
        assert_eq!(throttle.pass(now, "overload"), None);
        assert_eq!(throttle.pass(now + INTERVAL, "overload"), Some(2));
    }

    #[test]
    fn messages_of_other_kinds_do_not_hold_each_other_back() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        throttle.pass(now, "overload");
        assert_eq!(throttle.pass(now, "close"), Some(0));
    }

    #[test]
    fn what_was_held_back_last_is_told_once_the_run_is_over() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        throttle.pass(now, "overload");
        throttle.pass(now, "overload");
        assert!(throttle.overdue(now).is_empty());
        assert_eq!(throttle.overdue(now + INTERVAL), [("overload", 1)]);
        assert!(throttle.overdue(now + INTERVAL).is_empty());
    }
}
