//! Budgets: how much of something a peer, or all peers together, may ask for.

use std::hash::BuildHasher;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use foldhash::quality::SeedableRandomState;

/// Tokens that come back at a steady rate, up to a burst.
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    /// Tokens left, in thousandths.
    milli: u64,
    filled: Instant,
}

/// What a bucket is filled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Tokens per second.
    pub per_second: u32,
    /// Tokens that a full bucket holds.
    pub burst: u32,
}

impl TokenBucket {
    /// A full bucket.
    pub fn new(rate: Rate, now: Instant) -> Self {
        Self { milli: u64::from(rate.burst) * 1000, filled: now }
    }

    /// Takes one token, if there is one.
    pub fn take(&mut self, rate: Rate, now: Instant) -> bool {
        self.fill(rate, now);
        let enough = self.milli >= 1000;
        if enough {
            self.milli -= 1000;
        }
        enough
    }

    fn fill(&mut self, rate: Rate, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled);
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        let added = micros.saturating_mul(u64::from(rate.per_second)) / 1000;
        if added > 0 {
            self.milli = self.milli.saturating_add(added).min(u64::from(rate.burst) * 1000);
            // Only as far as whole millitokens reach: a frequent caller loses no fraction.
            self.filled += Duration::from_micros(added * 1000 / u64::from(rate.per_second));
        }
    }

    fn is_full(&mut self, rate: Rate, now: Instant) -> bool {
        self.fill(rate, now);
        self.milli >= u64::from(rate.burst) * 1000
    }
}

/// One bucket per source prefix, in a table whose size no peer can change.
///
/// Prefixes are placed by a seeded hash. One that finds its place taken by a bucket in use shares that bucket, so a
/// crowd of sources may be held to less than its due, and never gets more.
pub struct PrefixBudget {
    rate: Rate,
    hasher: SeedableRandomState,
    places: Box<[(Prefix, TokenBucket)]>,
}

impl PrefixBudget {
    /// Every bucket full.
    pub fn new(rate: Rate, hasher: SeedableRandomState, now: Instant) -> Self {
        let empty = (Prefix(0), TokenBucket::new(rate, now));
        Self { rate, hasher, places: vec![empty; PREFIX_PLACES].into_boxed_slice() }
    }

    /// Takes one token of `prefix`'s bucket, if there is one.
    pub fn take(&mut self, prefix: Prefix, now: Instant) -> bool {
        let index = self.hasher.hash_one(prefix) as usize % PREFIX_PLACES;
        let Some((tenant, bucket)) = self.places.get_mut(index) else {
            return false;
        };
        if *tenant != prefix && bucket.is_full(self.rate, now) {
            *tenant = prefix;
        }
        bucket.take(self.rate, now)
    }
}

/// A network prefix, the family folded in: IPv4 counts as IPv4-mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefix(u128);

impl Prefix {
    /// One client: an IPv4 address, or the /64 that an IPv6 subscriber gets.
    pub fn of_client(address: IpAddr) -> Self {
        Self::cut(address, 32, 64)
    }

    /// One network: /24 or /48.
    pub fn of_network(address: IpAddr) -> Self {
        Self::cut(address, 24, 48)
    }

    fn cut(address: IpAddr, v4: u32, v6: u32) -> Self {
        let (bits, length) = match address {
            IpAddr::V4(address) => (address.to_ipv6_mapped().to_bits(), 96 + v4),
            IpAddr::V6(address) => (address.to_bits(), v6),
        };
        Self(bits & (u128::MAX << (128 - length)))
    }
}

/// 2,048 places of 40 bytes: 80 KiB per shard.
const PREFIX_PLACES: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;
    use foldhash::SharedSeed;

    const RATE: Rate = Rate { per_second: 10, burst: 5 };

    fn budget(now: Instant) -> PrefixBudget {
        PrefixBudget::new(RATE, SeedableRandomState::with_seed(7, SharedSeed::global_fixed()), now)
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let t0 = Instant::now();
        let mut bucket = TokenBucket::new(RATE, t0);
        let burst = (0..20).filter(|_| bucket.take(RATE, t0)).count();
        let later =
            (0..1000_u64).filter(|i| bucket.take(RATE, t0 + Duration::from_millis(i + 1))).count();
        assert_eq!((burst, later), (5, 10));
    }

    #[test]
    fn a_bucket_asked_every_microsecond_loses_no_fraction_of_a_token() {
        let t0 = Instant::now();
        let mut bucket = TokenBucket::new(RATE, t0);
        let taken = (0..1_000_000_u64)
            .filter(|i| bucket.take(RATE, t0 + Duration::from_micros(*i)))
            .count();
        assert!((14..=15).contains(&taken), "{taken}");
    }

    #[test]
    fn neighbours_of_one_network_share_a_budget_and_strangers_do_not() {
        let t0 = Instant::now();
        let mut budget = budget(t0);
        let network = |last| Prefix::of_network(IpAddr::from([192, 0, 2, last]));
        let taken = (0..50).filter(|&last| budget.take(network(last), t0)).count();
        assert_eq!(taken, 5);
        assert!(budget.take(Prefix::of_network(IpAddr::from([198, 51, 100, 1])), t0));
    }

    #[test]
    fn an_ipv6_subscriber_is_one_client_whatever_the_lower_half_says() {
        let a = Prefix::of_client("2001:db8::1".parse().unwrap());
        let b = Prefix::of_client("2001:db8::ffff:1".parse().unwrap());
        let c = Prefix::of_client("2001:db8:0:1::1".parse().unwrap());
        assert_eq!(a, b);
        assert_ne!(a, c);
    }
}
