//! How often one client may ask for something.
//!
//! Whoever is counted here has proven that he receives at his address, by a handshake of TCP or by
//! a cookie, so nobody can fill a table with the addresses of others.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

/// Requests of clients, a bucket of tokens for each.
pub(super) struct Rates {
    per_second: u32,
    /// What a client may have saved up, as time at its rate.
    burst: Duration,
    /// Those that are not full. Bounded by [`SOURCES_MAX`].
    buckets: HashMap<Source, Bucket>,
}

impl Rates {
    /// `burst` requests at once, and `per_second` in the long run.
    pub(super) fn new(per_second: u32, burst: u32) -> Self {
        let interval = Duration::from_secs(1).checked_div(per_second).unwrap_or_default();
        Self { per_second, burst: interval * burst, buckets: HashMap::new() }
    }

    /// Counts a request, or says that it is one too many. Where the table is full, newcomers are.
    pub(super) fn take(&mut self, now: Instant, client: IpAddr) -> bool {
        let source = Source::of(client);
        if !self.buckets.contains_key(&source) && self.buckets.len() >= SOURCES_MAX {
            return false;
        }
        let bucket = self.buckets.entry(source).or_insert_with(|| Bucket::full(now));
        bucket.take(now, self.per_second, self.burst)
    }

    /// Forgets clients whose tokens are all back. To be called about once per second.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.buckets.retain(|_, bucket| !bucket.is_full(now));
    }
}

/// What counts as one client: an IPv4 address, an IPv6 /64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Source {
    V4(Ipv4Addr),
    V6([u16; 4]),
}

impl Source {
    pub(super) fn of(client: IpAddr) -> Self {
        match client.to_canonical() {
            IpAddr::V4(v4) => Self::V4(v4),
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                Self::V6([a, b, c, d])
            }
        }
    }
}

/// Tokens that come back at a rate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    /// When it is full again: each token that is taken moves it one interval on, so the distance
    /// to now is what the bucket lacks.
    full_at: Instant,
}

impl Bucket {
    pub(super) fn full(now: Instant) -> Self {
        Self { full_at: now }
    }

    /// Takes a token, if there is one. `burst` is what may be saved up, as time at the rate; one
    /// token at least.
    pub(super) fn take(&mut self, now: Instant, per_second: u32, burst: Duration) -> bool {
        let Some(interval) = Duration::from_secs(1).checked_div(per_second) else {
            return false;
        };
        let full_at = self.full_at.max(now) + interval;
        let has_token = full_at.duration_since(now) <= burst.max(interval);
        if has_token {
            self.full_at = full_at;
        }
        has_token
    }

    pub(super) fn is_full(&self, now: Instant) -> bool {
        self.full_at <= now
    }
}

/// Clients that are remembered until their tokens are back.
pub(super) const SOURCES_MAX: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const B: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn taken(rates: &mut Rates, now: Instant, client: IpAddr) -> usize {
        (0..10_000).filter(|_| rates.take(now, client)).count()
    }

    #[test]
    fn a_client_may_ask_as_often_at_once_as_the_burst_says() {
        let (mut rates, now) = (Rates::new(100, 1_000), Instant::now());
        assert_eq!(taken(&mut rates, now, A), 1_000);
        assert_eq!(taken(&mut rates, now, B), 1_000, "each has its own");
    }

    #[test]
    fn tokens_come_back_at_the_rate() {
        let (mut rates, now) = (Rates::new(100, 1_000), Instant::now());
        taken(&mut rates, now, A);
        let later = now + Duration::from_millis(250);
        rates.sweep(later);
        assert_eq!(taken(&mut rates, later, A), 25);
    }

    #[test]
    fn a_client_is_forgotten_when_its_tokens_are_back() {
        let (mut rates, now) = (Rates::new(100, 1_000), Instant::now());
        rates.take(now, A);
        rates.sweep(now);
        assert_eq!(rates.buckets.len(), 1);
        rates.sweep(now + Duration::from_millis(10));
        assert!(rates.buckets.is_empty());
    }

    #[test]
    fn a_full_table_turns_newcomers_away_and_keeps_those_it_knows() {
        let (mut rates, now) = (Rates::new(100, 1_000), Instant::now());
        let clients = |n: usize| IpAddr::from(u32::try_from(n).unwrap().to_be_bytes());
        for n in 0..SOURCES_MAX {
            rates.take(now, clients(n));
        }
        assert!(!rates.take(now, clients(SOURCES_MAX)));
        assert!(rates.take(now, clients(0)));
        assert_eq!(rates.buckets.len(), SOURCES_MAX);
    }

    #[test]
    fn an_ipv6_source_is_its_network_and_a_mapped_one_its_ipv4_address() {
        assert_eq!(Source::of(ip("2001:db8:0:1::1")), Source::of(ip("2001:db8:0:1:ffff::9")));
        assert_ne!(Source::of(ip("2001:db8:0:1::1")), Source::of(ip("2001:db8:0:2::1")));
        assert_eq!(Source::of(ip("::ffff:192.0.2.1")), Source::of(A));
    }
}
