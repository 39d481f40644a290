//! What is measured, row by row, and what Ringway promises in some of them.

use std::fmt;
use std::str::FromStr;

use clap::ValueEnum as _;

use crate::rig::{Direction, Shape};
use crate::subject::Engine;

/// A row of the table: written `up-100-trains`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// Which way the media goes.
    pub(super) direction: Direction,
    /// How many there are.
    pub(super) sessions: usize,
    /// How packets follow each other.
    pub(super) shape: Shape,
}

impl Row {
    /// As results call it: `up, 100 sessions, trains`.
    #[must_use]
    pub(super) fn title(self) -> String {
        let Self { direction, sessions, shape } = self;
        let plural = if sessions == 1 { "" } else { "s" };
        format!("{}, {sessions} session{plural}, {}", direction.label(), shape.label())
    }

    /// The most that `engine` may cost here as a multiple of what `base` costs, where that has been
    /// promised.
    #[must_use]
    pub(super) fn limit(self, engine: Engine, base: Engine) -> Option<f64> {
        if (engine, base) == (Engine::Loop, Engine::Bare) {
            return Some(LOOP_OF_BARE_MAX);
        }
        if !matches!(engine, Engine::Auto | Engine::Uring) {
            return None;
        }
        let promise = PROMISES.iter().find(|promise| promise.row == self)?;
        match base {
            Engine::Loop => Some(promise.of_loop_max),
            Engine::PlainMmsg => Some(promise.of_plain_mmsg_max),
            Engine::Mmsg => Some(promise.of_mmsg_max),
            Engine::Auto | Engine::Uring | Engine::TokioUring | Engine::Tokio | Engine::Bare => {
                None
            }
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.direction.label(), self.sessions, self.shape.label())
    }
}

impl FromStr for Row {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.splitn(3, '-');
        let mut row = || {
            let direction = Direction::from_str(words.next()?, false).ok()?;
            let sessions = words.next()?.parse().ok().filter(|sessions| *sessions > 0)?;
            Some(Self { direction, sessions, shape: Shape::from_str(words.next()?, false).ok()? })
        };
        row().ok_or_else(|| {
            "a row is DIRECTION-SESSIONS-SHAPE, such as up-100-trains or down-2000-singles"
                .to_owned()
        })
    }
}

/// The rows with promises, in their order.
pub(super) fn promised() -> impl Iterator<Item = Row> {
    PROMISES.iter().map(|promise| promise.row)
}

/// What Ringway on `io_uring` costs at most in a row, as multiples of what others cost.
struct Promise {
    row: Row,
    of_loop_max: f64,
    of_plain_mmsg_max: f64,
    of_mmsg_max: f64,
}

impl Promise {
    const fn new(direction: Direction, sessions: usize, shape: Shape, max: [f64; 3]) -> Self {
        let [of_loop_max, of_plain_mmsg_max, of_mmsg_max] = max;
        let row = Row { direction, sessions, shape };
        Self { row, of_loop_max, of_plain_mmsg_max, of_mmsg_max }
    }
}

/// Against the plain loop, the plain relay on `recvmmsg`, and Ringway's own engine of that kind.
const PROMISES: [Promise; 7] = [
    Promise::new(Direction::Up, 100, Shape::Trains, [0.10, 0.10, 1.05]),
    Promise::new(Direction::Up, 100, Shape::Bursts, [0.45, 0.45, 1.10]),
    Promise::new(Direction::Up, 100, Shape::Singles, [0.75, 0.75, 1.05]),
    Promise::new(Direction::Up, 2_000, Shape::Bursts, [0.50, 0.50, 1.10]),
    Promise::new(Direction::Up, 2_000, Shape::Singles, [1.05, 1.00, 1.05]),
    Promise::new(Direction::Down, 100, Shape::Singles, [0.45, 0.45, 1.20]),
    Promise::new(Direction::Down, 100, Shape::Bursts, [0.45, 0.45, 1.20]),
];
/// The abstractions of the plain loop.
const LOOP_OF_BARE_MAX: f64 = 1.15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read_as_it_is_written() {
        for row in promised() {
            assert_eq!(row.to_string().parse(), Ok(row));
        }
    }

    #[test]
    fn a_row_that_is_none_says_what_one_looks_like() {
        for text in ["", "up", "up-0-trains", "up-100-circles", "sideways-100-trains"] {
            assert!(text.parse::<Row>().unwrap_err().contains("up-100-trains"), "{text}");
        }
    }

    #[test]
    fn promises_hold_for_io_uring_in_their_rows_and_for_the_loop_everywhere() {
        let promised: Row = "up-2000-bursts".parse().unwrap();
        let other: Row = "up-2000-trains".parse().unwrap();
        assert_eq!(promised.limit(Engine::Uring, Engine::Loop), Some(0.50));
        assert_eq!(promised.limit(Engine::Tokio, Engine::Loop), None);
        assert_eq!(other.limit(Engine::Uring, Engine::Loop), None);
        assert_eq!(other.limit(Engine::Loop, Engine::Bare), Some(1.15));
    }
}
