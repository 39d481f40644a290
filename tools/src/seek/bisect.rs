//! The search itself: which rate to try next, and what the answers mean. Knows no packets.

/// Between what, and how finely.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// The lowest rate that is tried.
    pub from: f64,
    /// The highest.
    pub to: f64,
    /// The search ends when the lowest rate that fails is above the highest that holds by no more
    /// than this share.
    pub tolerance: f64,
}

/// What came of one probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Loss and latency were within their bounds.
    Held,
    /// The relay did not hold the rate, and why.
    Failed(String),
    /// The tool itself did not keep up, and how that showed: nothing is known about the relay.
    Spoilt(String),
}

/// What the search has found.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// The highest rate that held, and the lowest that failed, no further off than the tolerance.
    Highest {
        /// It held.
        rate: f64,
        /// It did not.
        fails_at: f64,
    },
    /// Even the highest rate held.
    AllHeld,
    /// Not even the lowest rate held.
    NoneHeld {
        /// What failed.
        why: String,
    },
    /// The tool is the bottleneck before the relay is.
    GeneratorLimit {
        /// What the relay holds at least.
        held: Option<f64>,
        /// The lowest rate that the tool could not offer.
        at: f64,
        /// How that showed.
        why: String,
    },
}

/// Halves the span, by ratio, until it is as narrow as the tolerance. A probe that does not hold is
/// made once more, and the second answer counts: a neighbour's wake-up is no property of the relay.
///
/// # Errors
/// Those of `probe`.
pub fn bisect<E>(span: Span, mut probe: impl FnMut(f64) -> Result<Verdict, E>) -> Result<Found, E> {
    let mut twice = |rate| match probe(rate)? {
        Verdict::Held => Ok(Verdict::Held),
        Verdict::Failed(_) | Verdict::Spoilt(_) => probe(rate),
    };
    match twice(span.from)? {
        Verdict::Held => {}
        Verdict::Failed(why) => return Ok(Found::NoneHeld { why }),
        Verdict::Spoilt(why) => {
            return Ok(Found::GeneratorLimit { held: None, at: span.from, why });
        }
    }
    let (mut low, mut high) = (span.from, span.to);
    let mut spoilt = match twice(span.to)? {
        Verdict::Held => return Ok(Found::AllHeld),
        Verdict::Failed(_) => None,
        Verdict::Spoilt(why) => Some(why),
    };
    while high > low * (1.0 + span.tolerance) {
        let middle = (low * high).sqrt();
        match twice(middle)? {
            Verdict::Held => low = middle,
            Verdict::Failed(_) => (high, spoilt) = (middle, None),
            Verdict::Spoilt(why) => (high, spoilt) = (middle, Some(why)),
        }
    }
    Ok(match spoilt {
        None => Found::Highest { rate: low, fails_at: high },
        Some(why) => Found::GeneratorLimit { held: Some(low), at: high, why },
    })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::payload::mix;

    const SPAN: Span = Span { from: 1_000.0, to: 1_000_000.0, tolerance: 0.05 };

    fn search(probe: impl FnMut(f64) -> Verdict) -> Found {
        let mut probe = probe;
        let found: Result<_, Infallible> = bisect(SPAN, |rate| Ok(probe(rate)));
        found.unwrap()
    }

    fn relay_of(capacity: f64) -> impl Fn(f64) -> Verdict {
        move |rate| if rate <= capacity { Verdict::Held } else { Verdict::Failed("lost".into()) }
    }

    #[test]
    fn the_capacity_lies_between_the_two_rates_that_are_found() {
        for capacity in [1_000.0, 1_001.0, 31_622.0, 280_000.0, 999_999.0] {
            let Found::Highest { rate, fails_at } = search(relay_of(capacity)) else {
                panic!("{capacity}")
            };
            assert!(rate <= capacity && capacity < fails_at, "{rate} {capacity} {fails_at}");
            assert!(fails_at <= rate * 1.05);
        }
    }

    #[test]
    fn a_relay_that_holds_all_or_nothing_is_said_to() {
        assert_eq!(search(relay_of(2e6)), Found::AllHeld);
        assert_eq!(search(relay_of(10.0)), Found::NoneHeld { why: "lost".to_owned() });
    }

    #[test]
    fn a_single_failure_is_noise() {
        let relay = relay_of(280_000.0);
        let mut probes = 0;
        let found = search(|rate| {
            probes += 1;
            if probes % 3 == 1 { Verdict::Failed("a neighbour".into()) } else { relay(rate) }
        });
        let Found::Highest { rate, .. } = found else { panic!("{found:?}") };
        assert!((266_000.0..=280_000.0).contains(&rate), "{rate}");
    }

    #[test]
    fn with_every_tenth_probe_disturbed_most_searches_still_end_at_the_capacity() {
        let relay = relay_of(280_000.0);
        let is_right = |seed: &u64| {
            let mut state = *seed;
            let found = search(|rate| {
                state = mix(state);
                if state.is_multiple_of(10) { Verdict::Failed("noise".into()) } else { relay(rate) }
            });
            matches!(found, Found::Highest { rate, .. } if (266_000.0..=280_000.0).contains(&rate))
        };
        let right = (0..200).filter(is_right).count();
        assert!(right >= 180, "{right} of 200");
    }

    #[test]
    fn a_generator_that_gives_up_first_is_no_figure_of_the_relay() {
        let found =
            search(
                |rate| {
                    if rate <= 500_000.0 { Verdict::Held } else { Verdict::Spoilt("late".into()) }
                },
            );
        let Found::GeneratorLimit { held: Some(held), at, why } = found else {
            panic!("{found:?}")
        };
        assert!(held <= 500_000.0 && at > 500_000.0 && at <= held * 1.05);
        assert_eq!(why, "late");
    }

    #[test]
    fn a_generator_that_gives_up_above_the_capacity_does_not_matter() {
        let relay = relay_of(280_000.0);
        let found =
            search(
                |rate| {
                    if rate > 600_000.0 { Verdict::Spoilt("late".into()) } else { relay(rate) }
                },
            );
        assert!(matches!(found, Found::Highest { .. }), "{found:?}");
    }

    #[test]
    fn a_probe_that_cannot_be_made_ends_the_search() {
        assert_eq!(bisect(SPAN, |_| Err("no relay")), Err("no relay"));
    }
}
