//! Whether an origin is worth trying: what active checks and the sessions that were tried with it
//! say of each kind of session that it takes.
//!
//! A check that fails says little alone: a datagram is lost now and then. [`FALL`] of them in a row
//! bring a service down, and one session that found nobody there does so at once, for it has tried
//! for longer. A service that is down is held down for a while, which doubles with every further
//! fall and is forgiven with time, so that an origin that comes and goes is not given streams each
//! time. Then [`RISE`] checks in a row have to pass; where no check is made, the next session is
//! the check. Handshakes that an origin refuses are answers: they say nothing against it.
//!
//! No I/O here; the clock is an argument. Whether anybody else is up is not known here: where all
//! are down, the balancer tries all.

use std::time::{Duration, Instant};

use super::origin::Kind;

/// What is known of one origin.
#[derive(Clone, Debug, Default)]
pub(super) struct Health {
    srt: Service,
    webrtc: Service,
    direct: Service,
}

impl Health {
    /// Whether new streams go elsewhere, where there is an elsewhere.
    pub(super) fn is_failing(&self, kind: Kind, now: Instant) -> bool {
        self.service(kind).is_down(now)
    }

    /// Why it is failing.
    pub(super) fn sign(&self, kind: Kind, now: Instant) -> Option<Sign> {
        let service = self.service(kind);
        service.down.filter(|_| service.is_down(now)).map(|down| down.sign)
    }

    /// When it was last found wanting: where all are down, the one that answers best is known by it.
    pub(super) fn failed_at(&self, kind: Kind) -> Option<Instant> {
        self.service(kind).failed_at
    }

    /// Whether the next check decides something, so that it should not wait for its usual turn.
    pub(super) fn is_wavering(&self, kind: Kind) -> bool {
        let Service { streak, down, .. } = self.service(kind);
        *streak > 0 && (down.is_none() || *streak < RISE)
    }

    /// A check is over.
    pub(super) fn checked(
        &mut self,
        now: Instant,
        kind: Kind,
        result: Result<(), Sign>,
    ) -> Option<Turn> {
        self.service_mut(kind).checked(now, result)
    }

    /// A session found nobody there. Many may find out at once: that counts as one.
    pub(super) fn failed(&mut self, now: Instant, kind: Kind, sign: Sign) -> Option<Turn> {
        let service = self.service_mut(kind);
        service.settle(now);
        service.failed_at = Some(now);
        match service.down {
            None => Some(service.fall(now, sign)),
            Some(_) => {
                service.streak = 0;
                None
            }
        }
    }

    /// A session was taken, which is better evidence than any check.
    pub(super) fn succeeded(&mut self, now: Instant, kind: Kind) -> Option<Turn> {
        let service = self.service_mut(kind);
        service.settle(now);
        if service.down.is_none() {
            service.streak = 0;
            return None;
        }
        // One that has fallen again and again serves out its time: this is how it always begins.
        (service.strikes <= 1).then(|| service.rise(now))
    }

    /// Another process answers for the origin. What is known of the one before says nothing of it,
    /// except that it did not last.
    pub(super) fn restarted(&mut self, now: Instant) {
        for kind in Kind::ALL {
            self.succeeded(now, kind);
        }
    }

    /// The next kind whose time is served; `None` when there is no more.
    pub(super) fn settle(&mut self, now: Instant) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| self.service_mut(*kind).settle(now).is_some())
    }

    fn service(&self, kind: Kind) -> &Service {
        match kind {
            Kind::Srt => &self.srt,
            Kind::WebRtc => &self.webrtc,
            Kind::Direct => &self.direct,
        }
    }

    fn service_mut(&mut self, kind: Kind) -> &mut Service {
        match kind {
            Kind::Srt => &mut self.srt,
            Kind::WebRtc => &mut self.webrtc,
            Kind::Direct => &mut self.direct,
        }
    }
}

/// What speaks against an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    /// Its host says that nobody listens there.
    Refused,
    /// It cannot be connected to.
    Unreachable,
    /// A check got no answer in time.
    Silent,
    /// A check was answered with something that a service in order does not say.
    Broken,
    /// A session was tried and found nobody.
    NoSession,
}

impl Sign {
    /// As the API and the log show it.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Refused => "connection refused",
            Self::Unreachable => "cannot be connected to",
            Self::Silent => "no answer to checks",
            Self::Broken => "checks are answered with errors",
            Self::NoSession => "sessions find nobody there",
        }
    }
}

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// New streams avoid it, for this long at least.
    Down(Duration),
    /// New streams may go to it again.
    Up,
}

/// One kind of session at one origin.
#[derive(Clone, Debug, Default)]
struct Service {
    down: Option<Down>,
    /// Checks in a row that say the opposite of what it counts as.
    streak: u8,
    /// Falls that are not forgiven yet, as of `up_since`.
    strikes: u8,
    /// Since its last fall was over; `None` while there was none.
    up_since: Option<Instant>,
    failed_at: Option<Instant>,
    /// Somebody checks it, so it is not up again before that says so.
    is_checked: bool,
}

#[derive(Clone, Copy, Debug)]
struct Down {
    until: Instant,
    sign: Sign,
}

impl Service {
    fn is_down(&self, now: Instant) -> bool {
        let has_risen = !self.is_checked || self.streak >= RISE;
        self.down.is_some_and(|down| now < down.until || !has_risen)
    }

    fn checked(&mut self, now: Instant, result: Result<(), Sign>) -> Option<Turn> {
        let settled = self.settle(now);
        self.is_checked = true;
        if result.is_err() {
            self.failed_at = Some(now);
        }
        match (self.down, result) {
            (None, Ok(())) | (Some(_), Err(_)) => self.streak = 0,
            (None, Err(sign)) => {
                self.streak += 1;
                if self.streak >= FALL {
                    return Some(self.fall(now, sign));
                }
            }
            (Some(_), Ok(())) => {
                self.streak = self.streak.saturating_add(1).min(RISE);
                return self.settle(now);
            }
        }
        settled
    }

    /// Makes it up where its time is served.
    fn settle(&mut self, now: Instant) -> Option<Turn> {
        (self.down.is_some() && !self.is_down(now)).then(|| self.rise(now))
    }

    fn rise(&mut self, now: Instant) -> Turn {
        self.down = None;
        self.streak = 0;
        self.up_since = Some(now);
        Turn::Up
    }

    fn fall(&mut self, now: Instant, sign: Sign) -> Turn {
        let up_for = self.up_since.map_or(Duration::ZERO, |since| now.duration_since(since));
        let forgiven = up_for.as_secs() / FORGIVE_INTERVAL.as_secs();
        let forgiven = u8::try_from(forgiven).unwrap_or(u8::MAX);
        self.strikes = self.strikes.saturating_sub(forgiven).saturating_add(1).min(STRIKES_MAX);
        let hold = (HOLD_MIN * (1 << (self.strikes - 1))).min(HOLD_MAX);
        self.down = Some(Down { until: now + hold, sign });
        self.streak = 0;
        Turn::Down(hold)
    }
}

/// Checks in a row that fail before a service is down.
pub(super) const FALL: u8 = 3;
/// Checks in a row that pass before it is up again.
pub(super) const RISE: u8 = 2;
/// After the first fall.
const HOLD_MIN: Duration = Duration::from_secs(5);
/// After many: an origin that is repaired waits no longer than this for its first stream.
const HOLD_MAX: Duration = Duration::from_secs(60);
/// The fall from which on the hold is the longest.
const STRIKES_MAX: u8 = 5;
/// One fall is forgiven for each of these without another.
const FORGIVE_INTERVAL: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SRT: Kind = Kind::Srt;
    const LOST: Result<(), Sign> = Err(Sign::Silent);
    const SECOND: Duration = Duration::from_secs(1);

    /// Checks, a second apart, and what the last one changed.
    fn check(health: &mut Health, now: &mut Instant, results: &[Result<(), Sign>]) -> Option<Turn> {
        let mut turn = None;
        for result in results {
            *now += SECOND;
            turn = health.checked(*now, SRT, *result);
        }
        turn
    }

    #[test]
    fn an_origin_that_was_never_tried_is_not_failing() {
        assert!(!Health::default().is_failing(SRT, Instant::now()));
    }

    #[test]
    fn one_lost_check_changes_nothing_and_three_in_a_row_bring_it_down() {
        let (mut health, mut now) = (Health::default(), Instant::now());
        let few = [LOST, LOST, Ok(()), LOST, LOST, Ok(())];
        assert_eq!(check(&mut health, &mut now, &few), None);
        assert!(!health.is_failing(SRT, now));
        let turn = check(&mut health, &mut now, &[LOST, LOST, LOST]);
        assert_eq!(turn, Some(Turn::Down(HOLD_MIN)));
        assert_eq!(health.sign(SRT, now), Some(Sign::Silent));
    }

    #[test]
    fn a_checked_origin_is_up_again_after_its_hold_and_two_checks_in_a_row() {
        let (mut health, mut now) = (Health::default(), Instant::now());
        check(&mut health, &mut now, &[LOST; 3]);
        now += HOLD_MIN;
        assert_eq!(check(&mut health, &mut now, &[Ok(()), LOST, Ok(())]), None);
        assert!(health.is_failing(SRT, now));
        assert_eq!(check(&mut health, &mut now, &[Ok(())]), Some(Turn::Up));
        assert!(!health.is_failing(SRT, now));
    }

    #[test]
    fn checks_that_pass_do_not_shorten_the_hold() {
        let (mut health, now) = (Health::default(), Instant::now());
        health.failed(now, SRT, Sign::NoSession);
        check(&mut health, &mut now.clone(), &[Ok(()); 4]);
        assert!(health.is_failing(SRT, now + HOLD_MIN - Duration::from_millis(1)));
        assert!(!health.is_failing(SRT, now + HOLD_MIN));
    }

    #[test]
    fn a_session_that_finds_nobody_counts_at_once_and_without_checks_for_five_seconds() {
        let (mut health, now) = (Health::default(), Instant::now());
        let turn = health.failed(now, SRT, Sign::NoSession);
        assert_eq!(turn, Some(Turn::Down(HOLD_MIN)));
        assert!(health.is_failing(SRT, now + HOLD_MIN - Duration::from_millis(1)));
        assert!(!health.is_failing(SRT, now + HOLD_MIN));
    }

    #[test]
    fn failures_that_are_found_out_together_count_as_one() {
        let (mut health, now) = (Health::default(), Instant::now());
        health.failed(now, SRT, Sign::NoSession);
        assert_eq!(health.failed(now, SRT, Sign::NoSession), None);
        assert!(!health.is_failing(SRT, now + HOLD_MIN));
    }

    /// Falls again as soon as it may be tried again, and says for how many seconds each time.
    fn holds(health: &mut Health, now: &mut Instant, falls: usize) -> Vec<u64> {
        let mut holds = Vec::new();
        for _ in 0..falls {
            let turn = health.failed(*now, SRT, Sign::NoSession);
            let Some(Turn::Down(hold)) = turn else { panic!("{turn:?}") };
            holds.push(hold.as_secs());
            *now += hold;
            assert_eq!(health.settle(*now), Some(SRT));
        }
        holds
    }

    #[test]
    fn each_further_fall_doubles_the_hold_up_to_a_minute() {
        let (mut health, mut now) = (Health::default(), Instant::now());
        assert_eq!(holds(&mut health, &mut now, 6), [5, 10, 20, 40, 60, 60]);
    }

    #[test]
    fn a_fall_is_forgiven_for_every_minute_without_another() {
        let (mut health, mut now) = (Health::default(), Instant::now());
        holds(&mut health, &mut now, 3);
        now += 2 * FORGIVE_INTERVAL;
        assert_eq!(holds(&mut health, &mut now, 1), [10]);
        now += 9 * FORGIVE_INTERVAL;
        assert_eq!(holds(&mut health, &mut now, 1), [5]);
    }

    #[test]
    fn a_session_that_succeeds_ends_the_first_hold_and_no_further_one() {
        let (mut health, mut now) = (Health::default(), Instant::now());
        health.failed(now, SRT, Sign::NoSession);
        assert_eq!(health.succeeded(now, SRT), Some(Turn::Up));
        assert_eq!(health.succeeded(now, SRT), None);
        now += SECOND;
        health.failed(now, SRT, Sign::NoSession);
        assert_eq!(health.succeeded(now, SRT), None);
        assert!(health.is_failing(SRT, now + 2 * HOLD_MIN - SECOND));
        assert!(!health.is_failing(SRT, now + 2 * HOLD_MIN));
    }

    #[test]
    fn what_is_wrong_with_one_kind_says_nothing_of_the_others() {
        let (mut health, now) = (Health::default(), Instant::now());
        health.failed(now, Kind::WebRtc, Sign::NoSession);
        assert!(health.is_failing(Kind::WebRtc, now));
        assert!(!health.is_failing(SRT, now) && !health.is_failing(Kind::Direct, now));
    }

    #[test]
    fn a_process_that_restarts_again_and_again_is_held_down_all_the_same() {
        let (mut health, mut now) = (Health::default(), Instant::now());
        for crash in 1..=5 {
            health.failed(now, SRT, Sign::Refused);
            health.restarted(now);
            assert_eq!(health.is_failing(SRT, now), crash > 1, "crash {crash}");
            now += Duration::from_secs(40);
            health.settle(now);
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Happens {
        Check(bool),
        Failure,
        Success,
        Restart,
    }

    fn happens() -> impl Strategy<Value = (u64, Happens)> {
        let what = prop_oneof![
            6 => any::<bool>().prop_map(Happens::Check),
            1 => Just(Happens::Failure),
            1 => Just(Happens::Success),
            1 => Just(Happens::Restart),
        ];
        (0_u64..20_000, what)
    }

    proptest! {
        /// Whatever happens: it falls only for a reason, is never held for longer than the maximum,
        /// and is up again once it answers for as long as that.
        #[test]
        fn any_history_is_bounded_and_heals(history in prop::collection::vec(happens(), 0..200)) {
            let (mut health, mut now) = (Health::default(), Instant::now());
            let mut lost_in_a_row = 0;
            for (pause_ms, what) in history {
                now += Duration::from_millis(pause_ms);
                let was_failing = health.is_failing(SRT, now);
                match what {
                    Happens::Check(true) => {
                        lost_in_a_row = 0;
                        health.checked(now, SRT, Ok(()));
                        prop_assert!(was_failing || !health.is_failing(SRT, now));
                    }
                    Happens::Check(false) => {
                        lost_in_a_row += 1;
                        health.checked(now, SRT, LOST);
                        let fell = !was_failing && health.is_failing(SRT, now);
                        prop_assert!(!fell || lost_in_a_row >= FALL);
                    }
                    Happens::Failure => {
                        health.failed(now, SRT, Sign::NoSession);
                        prop_assert!(health.is_failing(SRT, now));
                    }
                    Happens::Success => {
                        health.succeeded(now, SRT);
                        prop_assert!(was_failing || !health.is_failing(SRT, now));
                    }
                    Happens::Restart => health.restarted(now),
                }
                let until = health.srt.down.map_or(now, |down| down.until);
                prop_assert!(until <= now + HOLD_MAX);
                prop_assert_eq!(health.sign(SRT, now).is_some(), health.is_failing(SRT, now));
            }
            now += HOLD_MAX;
            health.checked(now, SRT, Ok(()));
            health.checked(now, SRT, Ok(()));
            prop_assert!(!health.is_failing(SRT, now));
        }

        /// An origin that comes and goes, however fast, is up for a small part of the time only,
        /// and changes a few times a minute at most.
        #[test]
        fn flapping_is_damped(period in 1_u64..15, checks_per_phase in 3_u64..10) {
            let (mut health, start) = (Health::default(), Instant::now());
            let step = Duration::from_millis(period * 1_000 / checks_per_phase);
            let (mut now, mut falls, mut steps) = (start, 0, 0_u64);
            while now < start + Duration::from_secs(600) {
                let is_well = (steps / checks_per_phase).is_multiple_of(2);
                let turn = health.checked(now, SRT, if is_well { Ok(()) } else { LOST });
                falls += u32::from(matches!(turn, Some(Turn::Down(_))));
                steps += 1;
                now += step.max(Duration::from_millis(1));
            }
            // 5, 10, 20, 40 s, then a minute each.
            prop_assert!((1..=14).contains(&falls), "{} falls", falls);
        }
    }
}
