//! Who may open a session, counted over all shards.
//!
//! Every request that comes here has proven its address, so a source is somebody who really
//! receives there. What SRT calls a handshake under way is for WebRTC a session whose client has
//! not come yet. The tables are as large as the number of sessions plus the sources of the last
//! seconds, and bounded.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::rate::{Bucket, SOURCES_MAX, Source};

/// Limits, and what has been used up of them.
pub(super) struct Admission {
    limits: Limits,
    /// Sessions of all sources, handshakes under way included.
    sessions: u32,
    sources: HashMap<Source, Usage>,
}

/// What bounds the process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Sessions, handshakes under way included.
    pub(super) sessions_max: u32,
    /// Sessions of one source, handshakes under way included.
    pub(super) sessions_per_source: u32,
    /// Handshakes under way of one source.
    pub(super) pending_per_source: u32,
    /// Sessions per second of one source. The burst is 2.5 seconds' worth.
    pub(super) new_per_source: u32,
}

impl Admission {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, sessions: 0, sources: HashMap::new() }
    }

    /// Counts a new session of `client` in, its handshake under way, or says which limit it would
    /// break.
    pub(super) fn admit(&mut self, now: Instant, client: IpAddr) -> Result<(), Limit> {
        let Limits { sessions_max, sessions_per_source, pending_per_source, new_per_source } =
            self.limits;
        if self.sessions >= sessions_max {
            return Err(Limit::Sessions);
        }
        let source = Source::of(client);
        let mut usage = match self.sources.get(&source) {
            Some(usage) => *usage,
            None if self.sources.len() < self.sources_max() => Usage::new(now),
            None => return Err(Limit::Sources),
        };
        if usage.sessions >= sessions_per_source {
            return Err(Limit::SessionsPerSource);
        }
        if usage.pending >= pending_per_source {
            return Err(Limit::PendingPerSource);
        }
        if !usage.tokens.take(now, new_per_source, BURST) {
            return Err(Limit::NewPerSource);
        }
        usage.sessions += 1;
        usage.pending += 1;
        self.sessions += 1;
        self.sources.insert(source, usage);
        Ok(())
    }

    /// The handshake of an admitted session has succeeded.
    pub(super) fn established(&mut self, client: IpAddr) {
        if let Some(usage) = self.sources.get_mut(&Source::of(client)) {
            usage.pending = usage.pending.saturating_sub(1);
        }
    }

    /// An admitted session has ended.
    pub(super) fn ended(&mut self, client: IpAddr, was_established: bool) {
        self.sessions = self.sessions.saturating_sub(1);
        if let Some(usage) = self.sources.get_mut(&Source::of(client)) {
            usage.sessions = usage.sessions.saturating_sub(1);
            if !was_established {
                usage.pending = usage.pending.saturating_sub(1);
            }
        }
    }

    /// Forgets sources without a session whose tokens are all back. To be called about once per
    /// second.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.sources.retain(|_, usage| usage.sessions > 0 || !usage.tokens.is_full(now));
    }

    /// Whether nobody has a session.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let is_idle = |usage: &Usage| (usage.sessions, usage.pending) == (0, 0);
        self.sessions == 0 && self.sources.values().all(is_idle)
    }

    fn sources_max(&self) -> usize {
        self.limits.sessions_max as usize + SOURCES_MAX
    }
}

/// Which limit a session would break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    Sessions,
    SessionsPerSource,
    PendingPerSource,
    NewPerSource,
    Sources,
}

impl Limit {
    /// As the log shows it: the flag that raises it.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Sessions => "--sessions-max",
            Self::SessionsPerSource => "--sessions-per-source",
            Self::PendingPerSource => "--pending-per-source",
            Self::NewPerSource => "--new-per-source",
            Self::Sources => "too many sources",
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Usage {
    sessions: u32,
    pending: u32,
    tokens: Bucket,
}

impl Usage {
    fn new(now: Instant) -> Self {
        Self { sessions: 0, pending: 0, tokens: Bucket::full(now) }
    }
}

/// How much a source may have saved up, as time at its rate.
const BURST: Duration = Duration::from_millis(2_500);

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const A: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const B: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
    const LIMITS: Limits = Limits {
        sessions_max: 10,
        sessions_per_source: 5,
        pending_per_source: 3,
        new_per_source: 200,
    };

    #[test]
    fn the_process_limit_counts_all_sources() {
        let (mut admission, now) = (Admission::new(LIMITS), Instant::now());
        for n in 0..10 {
            assert_eq!(admission.admit(now, IpAddr::from([192, 0, 2, n])), Ok(()));
        }
        assert_eq!(admission.admit(now, A), Err(Limit::Sessions));
        admission.ended(IpAddr::from([192, 0, 2, 9]), false);
        assert_eq!(admission.admit(now, A), Ok(()));
    }

    #[test]
    fn one_source_has_a_limit_of_its_own() {
        let (mut admission, now) = (Admission::new(LIMITS), Instant::now());
        for _ in 0..5 {
            admission.admit(now, A).unwrap();
            admission.established(A);
        }
        assert_eq!(admission.admit(now, A), Err(Limit::SessionsPerSource));
        assert_eq!(admission.admit(now, B), Ok(()));
    }

    #[test]
    fn handshakes_under_way_have_a_limit_that_success_and_failure_free() {
        let (mut admission, now) = (Admission::new(LIMITS), Instant::now());
        for _ in 0..3 {
            admission.admit(now, A).unwrap();
        }
        assert_eq!(admission.admit(now, A), Err(Limit::PendingPerSource));
        admission.established(A);
        assert_eq!(admission.admit(now, A), Ok(()));
        admission.ended(A, false);
        assert_eq!(admission.admit(now, A), Ok(()));
    }

    #[test]
    fn the_end_of_an_established_session_frees_no_handshake() {
        let (mut admission, now) = (Admission::new(LIMITS), Instant::now());
        admission.admit(now, A).unwrap();
        admission.established(A);
        for _ in 0..3 {
            admission.admit(now, A).unwrap();
        }
        admission.ended(A, true);
        assert_eq!(admission.admit(now, A), Err(Limit::PendingPerSource));
    }

    #[test]
    fn a_source_may_save_up_two_and_a_half_seconds_of_its_rate() {
        let (mut admission, now) = (Admission::new(LIMITS), Instant::now());
        let mut admitted = || (0..1_000).filter(|_| admit_and_end(&mut admission, now)).count();
        assert_eq!(admitted(), 500);
        assert_eq!(admitted(), 0);
    }

    #[test]
    fn tokens_come_back_at_the_rate() {
        let (mut admission, now) = (Admission::new(LIMITS), Instant::now());
        while admit_and_end(&mut admission, now) {}
        let later = now + Duration::from_millis(100);
        admission.sweep(later);
        assert_eq!((0..1_000).filter(|_| admit_and_end(&mut admission, later)).count(), 20);
    }

    #[test]
    fn a_rate_below_one_per_burst_still_admits_one() {
        let limits = Limits { new_per_source: 1, ..LIMITS };
        let (mut admission, now) = (Admission::new(limits), Instant::now());
        assert_eq!(admission.admit(now, A), Ok(()));
        assert_eq!(admission.admit(now, A), Ok(()));
        assert_eq!(admission.admit(now, A), Err(Limit::NewPerSource));
    }

    #[test]
    fn a_rate_of_zero_admits_nobody() {
        let limits = Limits { new_per_source: 0, ..LIMITS };
        assert_eq!(Admission::new(limits).admit(Instant::now(), A), Err(Limit::NewPerSource));
    }

    #[test]
    fn a_source_is_forgotten_when_it_has_nothing_left_to_count() {
        let (mut admission, now) = (Admission::new(LIMITS), Instant::now());
        admission.admit(now, A).unwrap();
        admission.ended(A, false);
        admission.sweep(now);
        assert_eq!(admission.sources.len(), 1);
        admission.sweep(now + Duration::from_secs(1));
        assert!(admission.sources.is_empty());
    }

    fn admit_and_end(admission: &mut Admission, now: Instant) -> bool {
        let is_admitted = admission.admit(now, A).is_ok();
        if is_admitted {
            admission.ended(A, false);
        }
        is_admitted
    }
}
