//! When each origin is checked. No I/O here; the clock is an argument.

use std::collections::{BTreeSet, HashMap};
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use siphasher::sip::SipHasher13;

use super::health::Sign;
use super::origin::Kind;
use crate::shard::OriginId;

/// The checks that are due and those under way. An origin has one of each kind at most.
#[derive(Default)]
pub(super) struct Schedule {
    due: BTreeSet<(Instant, OriginId, Kind)>,
    /// Whether another one is wanted as soon as this one is over.
    under_way: HashMap<(OriginId, Kind), bool>,
    plan: Plan,
    /// Turns given, which spread those that would come together.
    turns: u64,
}

impl Schedule {
    pub(super) fn new(plan: Plan) -> Self {
        Self { plan, ..Self::default() }
    }

    /// An origin has just spoken for itself, or been configured: its SRT listener is asked at once,
    /// because callers need its key length, and its API when its turn comes.
    pub(super) fn welcome(&mut self, now: Instant, origin: OriginId) {
        self.want(now, origin, Kind::Srt);
        if let Some(interval) = self.interval(Kind::WebRtc) {
            let wait = self.spread(interval, origin, Kind::WebRtc);
            if !self.under_way.contains_key(&(origin, Kind::WebRtc)) {
                self.wait_until(now + wait, origin, Kind::WebRtc);
            }
        }
    }

    /// Wants an origin checked at once. It has one turn, whoever wants it.
    pub(super) fn hurry(&mut self, now: Instant, origin: OriginId) {
        for kind in CHECKED {
            self.want(now, origin, kind);
        }
    }

    fn want(&mut self, now: Instant, origin: OriginId, kind: Kind) {
        match self.under_way.get_mut(&(origin, kind)) {
            Some(is_wanted_again) => *is_wanted_again = true,
            None => self.wait_until(now, origin, kind),
        }
    }

    /// The next check that is due and to be made. It is under way until [`Self::finish`]. One that
    /// is not made because it has no address is forgotten by whoever asks.
    pub(super) fn take(&mut self, now: Instant) -> Option<(OriginId, Kind)> {
        loop {
            let (at, ..) = self.due.first()?;
            if *at > now {
                return None;
            }
            let (_, origin, kind) = self.due.pop_first()?;
            if self.interval(kind).is_some() {
                return Some((origin, kind));
            }
        }
    }

    /// Notes that a check has begun.
    pub(super) fn start(&mut self, origin: OriginId, kind: Kind) {
        self.under_way.insert((origin, kind), false);
    }

    /// Notes that a check is over, and gives the origin its next turn: sooner where that one
    /// decides something.
    pub(super) fn finish(&mut self, now: Instant, origin: OriginId, kind: Kind, is_wavering: bool) {
        let is_wanted_again = self.under_way.remove(&(origin, kind)).unwrap_or(false);
        let Some(interval) = self.interval(kind) else {
            return;
        };
        let wait = match (is_wanted_again, is_wavering) {
            (true, _) => Duration::ZERO,
            (false, true) => self.spread(interval / HURRY, origin, kind),
            (false, false) => self.spread(interval, origin, kind),
        };
        self.wait_until(now + wait, origin, kind);
    }

    /// Forgets the check that was under way of an origin that is gone.
    pub(super) fn forget(&mut self, origin: OriginId, kind: Kind) {
        self.under_way.remove(&(origin, kind));
    }

    /// Whether what checks say is held for or against origins.
    pub(super) fn decides(&self) -> bool {
        self.plan.interval.is_some()
    }

    fn wait_until(&mut self, at: Instant, origin: OriginId, kind: Kind) {
        self.due.retain(|(_, other, of)| (*other, *of) != (origin, kind));
        self.due.insert((at, origin, kind));
    }

    fn interval(&self, kind: Kind) -> Option<Duration> {
        let key_length =
            (kind == Kind::Srt && self.plan.asks_key_length).then_some(KEY_LENGTH_INTERVAL);
        self.plan.interval.or(key_length)
    }

    /// Up to a fifth more or less, so that origins that came together are not checked together for
    /// ever.
    fn spread(&mut self, interval: Duration, origin: OriginId, kind: Kind) -> Duration {
        self.turns += 1;
        let mut hasher = SipHasher13::new();
        (self.turns, origin.0, kind).hash(&mut hasher);
        let per_mille = u32::try_from(hasher.finish() % 401).unwrap_or(0);
        interval * (800 + per_mille) / 1_000
    }
}

/// Which checks are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// `--origin-check`; `None`: no check says anything of an origin's health.
    pub interval: Option<Duration>,
    /// Whether origins are asked for their SRT key length, be they checked or not.
    pub asks_key_length: bool,
}

/// A check to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Check {
    /// Of which origin.
    pub origin: OriginId,
    /// What for.
    pub kind: Kind,
    /// Where: of the SRT listener, or of the HTTP API.
    pub address: SocketAddr,
}

/// What a check found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) result: Result<(), Sign>,
    /// What an SRT listener said, in bytes.
    pub(super) key_length: Option<u8>,
}

/// Clients without signalling come to ports that say nothing to strangers.
const CHECKED: [Kind; 2] = [Kind::Srt, Kind::WebRtc];
/// Until an origin that is not checked is asked for its key length again.
pub(super) const KEY_LENGTH_INTERVAL: Duration = Duration::from_secs(30);
/// How many times as often an origin is checked while the next check decides.
const HURRY: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: OriginId = OriginId(7);
    const INTERVAL: Duration = Duration::from_secs(5);

    fn schedule() -> Schedule {
        Schedule::new(Plan { interval: Some(INTERVAL), asks_key_length: true })
    }

    /// Begins all that is due.
    fn start_due(schedule: &mut Schedule, now: Instant) -> Vec<Kind> {
        let mut begun = Vec::new();
        while let Some((origin, kind)) = schedule.take(now) {
            schedule.start(origin, kind);
            begun.push(kind);
        }
        begun
    }

    #[test]
    fn an_origin_has_one_check_of_each_kind_at_a_time_however_often_it_is_wanted() {
        let (mut schedule, now) = (schedule(), Instant::now());
        schedule.hurry(now, ORIGIN);
        schedule.hurry(now, ORIGIN);
        assert_eq!(start_due(&mut schedule, now), CHECKED);
        schedule.hurry(now, ORIGIN);
        assert_eq!(start_due(&mut schedule, now + 9 * INTERVAL), []);
        schedule.finish(now, ORIGIN, Kind::Srt, false);
        assert_eq!(start_due(&mut schedule, now), [Kind::Srt], "it was wanted again meanwhile");
    }

    #[test]
    fn the_api_of_an_origin_that_has_just_come_is_asked_when_its_turn_comes() {
        let (mut schedule, now) = (schedule(), Instant::now());
        schedule.welcome(now, ORIGIN);
        assert_eq!(start_due(&mut schedule, now), [Kind::Srt]);
        assert_eq!(start_due(&mut schedule, now + INTERVAL * 6 / 5), [Kind::WebRtc]);
    }

    #[test]
    fn turns_come_within_a_fifth_of_the_interval_and_not_all_alike() {
        let (mut schedule, now) = (schedule(), Instant::now());
        let waits: BTreeSet<Duration> =
            (0..100).map(|_| schedule.spread(INTERVAL, ORIGIN, Kind::Srt)).collect();
        let bounds = INTERVAL * 4 / 5..=INTERVAL * 6 / 5;
        assert!(waits.iter().all(|wait| bounds.contains(wait)), "{waits:?}");
        assert!(waits.len() > 50, "{waits:?}");
        schedule.finish(now, ORIGIN, Kind::Srt, false);
        assert_eq!(start_due(&mut schedule, now + INTERVAL * 6 / 5), [Kind::Srt]);
    }

    #[test]
    fn a_check_that_decides_comes_sooner() {
        let (mut schedule, now) = (schedule(), Instant::now());
        schedule.finish(now, ORIGIN, Kind::Srt, true);
        assert_eq!(start_due(&mut schedule, now + INTERVAL * 6 / 25), [Kind::Srt]);
    }

    #[test]
    fn without_checks_srt_listeners_are_asked_for_their_key_length_alone() {
        let now = Instant::now();
        let mut schedule = Schedule::new(Plan { interval: None, asks_key_length: true });
        schedule.hurry(now, ORIGIN);
        assert_eq!(start_due(&mut schedule, now), [Kind::Srt]);
        assert!(!schedule.decides());
        let mut silent = Schedule::new(Plan::default());
        silent.hurry(now, ORIGIN);
        assert_eq!(start_due(&mut silent, now), []);
    }
}
