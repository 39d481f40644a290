//! The balancer of a relay that stands alone.
//!
//! All sessions of a stream go to one origin while that origin lives or while any session of the
//! stream is with it. Members of a bonding group follow the first of them, for the life of any of
//! them, even where each names a stream of its own: a listener takes members in one process only.
//!
//! An origin that answers no handshakes is no reason to lose a stream while another answers:
//! unless media flows in a session of it, the stream moves. Where none answers, all are tried.

use std::cmp::Reverse;
use std::hash::{Hash, Hasher};
use std::time::Instant;

use siphasher::sip::SipHasher13;

use super::Pick;
use crate::control::directory::Directory;
use crate::control::origin::Origin;
use crate::protocol::stream_url::StreamKey;
use crate::shard::PickRequest;

/// The origin that the stream has, else the one with the fewest sessions; of those that do not
/// answer only if there are no others.
pub(super) fn pick(directory: &Directory, now: Instant, request: &PickRequest) -> Option<Pick> {
    let stream = &request.stream;
    let is_healthy = |origin: &Origin| directory.is_healthy(origin, now);
    let is_alive = |origin: &Origin| directory.is_alive(origin, now);
    let kept = kept(directory, now, stream);
    kept.filter(|(_, hold)| *hold == Hold::Firm)
        .map(|(origin, _)| origin)
        .or_else(|| bonded(directory, request).filter(|origin| is_alive(origin)))
        .or_else(|| least_loaded(directory, stream, is_healthy))
        .or_else(|| kept.map(|(origin, _)| origin))
        .or_else(|| least_loaded(directory, stream, is_alive))
        .and_then(picked)
}

/// Where the other members of the caller's bonding group are.
fn bonded<'a>(directory: &'a Directory, request: &PickRequest) -> Option<&'a Origin> {
    directory.origin(directory.origin_of_group(request.group?)?)
}

/// How a stream holds on to its origin.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hold {
    Firm,
    /// Unless another origin answers.
    Loose,
}

fn kept<'a>(
    directory: &'a Directory,
    now: Instant,
    stream: &StreamKey,
) -> Option<(&'a Origin, Hold)> {
    let stream = directory.stream(stream)?;
    let origin = directory.origin(stream.origin())?;
    let is_alive = directory.is_alive(origin, now);
    if stream.is_established() {
        Some((origin, Hold::Firm))
    } else if stream.is_idle() && !is_alive {
        None
    } else if origin.is_failing(now) {
        // Callers that try again and again must not bind each other to it.
        Some((origin, Hold::Loose))
    } else {
        Some((origin, Hold::Firm))
    }
}

/// Equal loads are decided by the highest random weight of (stream, origin): relays that see the
/// same origins choose the same one, and an origin that joins or leaves moves no stream but its
/// own.
fn least_loaded<'a>(
    directory: &'a Directory,
    stream: &StreamKey,
    is_eligible: impl Fn(&Origin) -> bool,
) -> Option<&'a Origin> {
    directory
        .origins()
        .filter(|origin| is_eligible(origin) && origin.srt_address().is_some())
        .min_by_key(|origin| (origin.sessions(), Reverse(weight(stream, origin))))
}

fn picked(origin: &Origin) -> Option<Pick> {
    Some(Pick { origin: origin.id(), address: origin.srt_address()? })
}

/// The hash has no key, so that all relays agree; a client who steers a tie gains nothing by it.
fn weight(stream: &StreamKey, origin: &Origin) -> u64 {
    let mut hasher = SipHasher13::new();
    stream.as_str().hash(&mut hasher);
    origin.srt_address().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::control::directory::fixtures::*;
    use crate::shard::{OriginId, Role};

    fn choose(directory: &Directory, now: Instant, name: &str) -> Option<OriginId> {
        pick(directory, now, &request(0, name, Role::Play)).map(|pick| pick.origin)
    }

    #[test]
    fn without_an_origin_there_is_nothing_to_pick() {
        let (directory, now) = (directory(), Instant::now());
        assert_eq!(choose(&directory, now, "live/a"), None);
    }

    #[test]
    fn an_origin_without_srt_is_never_picked() {
        let (mut directory, now) = (directory(), Instant::now());
        directory.register(now, registration("a", 1, None)).unwrap();
        assert_eq!(choose(&directory, now, "live/a"), None);
    }

    #[test]
    fn publisher_and_players_of_a_stream_meet_in_one_origin() {
        let (mut directory, now) = (directory(), Instant::now());
        for n in 1..=5 {
            directory.register(now, registration(&format!("o{n}"), n, Some(10080))).unwrap();
        }
        let first = choose(&directory, now, "live/a").unwrap();
        directory.open(now, session(1), &request(1, "live/a", Role::Publish), first);
        for n in 2..20 {
            let next = choose(&directory, now, "live/a").unwrap();
            assert_eq!(next, first);
            directory.open(now, session(n), &request(n, "live/a", Role::Play), next);
        }
    }

    #[test]
    fn a_new_stream_goes_to_the_origin_with_the_fewest_sessions() {
        let (mut directory, now) = (directory(), Instant::now());
        let busy = directory.register(now, registration("a", 1, Some(10080))).unwrap().0;
        let idle = directory.register(now, registration("b", 2, Some(10080))).unwrap().0;
        directory.open(now, session(1), &request(1, "live/a", Role::Publish), busy);
        for name in ["live/b", "live/c", "live/d", "live/e"] {
            assert_eq!(choose(&directory, now, name), Some(idle));
        }
    }

    #[test]
    fn equal_loads_are_spread_by_the_streams_name_and_alike_on_every_relay() {
        let now = Instant::now();
        let (mut one, mut other) = (directory(), directory());
        for n in 1..=4 {
            one.register(now, registration(&format!("o{n}"), n, Some(10080))).unwrap();
            other.register(now, registration(&format!("o{}", 5 - n), 5 - n, Some(10080))).unwrap();
        }
        let mut streams_of = HashMap::new();
        for n in 0..400 {
            let request = request(0, &format!("live/{n}"), Role::Play);
            let picked = pick(&one, now, &request).unwrap();
            assert_eq!(pick(&other, now, &request).unwrap().address, picked.address);
            *streams_of.entry(picked.address).or_insert(0) += 1;
        }
        assert!(streams_of.values().all(|&streams| streams > 50), "{streams_of:?}");
        assert_eq!(streams_of.len(), 4);
    }

    #[test]
    fn an_expired_origin_takes_no_new_stream() {
        let (mut directory, now) = (directory(), Instant::now());
        directory.register(now, registration("a", 1, Some(10080))).unwrap();
        assert_eq!(choose(&directory, now + TTL, "live/a"), None);
    }

    #[test]
    fn a_stream_without_sessions_leaves_its_dead_origin() {
        let (mut directory, now) = (directory(), Instant::now());
        let dead = directory.register(now, registration("a", 1, Some(10080))).unwrap().0;
        directory.open(now, session(1), &request(1, "live/a", Role::Publish), dead);
        directory.close(now, session(1));
        let live = directory.register(now + TTL, registration("b", 2, Some(10080))).unwrap().0;
        assert_eq!(choose(&directory, now + TTL, "live/a"), Some(live));
    }

    #[test]
    fn players_join_a_publisher_whose_origin_has_stopped_its_heartbeat() {
        let (mut directory, now) = (directory(), Instant::now());
        let silent = directory.register(now, registration("a", 1, Some(10080))).unwrap().0;
        directory.open(now, session(1), &request(1, "live/a", Role::Publish), silent);
        directory.register(now + TTL, registration("b", 2, Some(10080))).unwrap();
        assert_eq!(choose(&directory, now + TTL, "live/a"), Some(silent));
    }

    #[test]
    fn members_of_a_bonding_group_meet_even_when_their_origin_expires_between_them() {
        let (mut directory, now) = (directory(), Instant::now());
        let first = directory.register(now, registration("a", 1, Some(10080))).unwrap().0;
        directory.open(now, session(1), &bonded_request(1, "live/a", 77), first);
        let later = now + TTL;
        directory.register(later, registration("b", 2, Some(10080))).unwrap();
        directory.expire(later);
        let member = choose(&directory, later, "live/a").unwrap();
        directory.open(later, session(2), &bonded_request(2, "live/a", 77), member);
        directory.close(later, session(1));
        assert_eq!(choose(&directory, later, "live/a"), Some(first));
    }

    #[test]
    fn members_of_a_bonding_group_meet_even_when_each_names_a_stream_of_its_own() {
        let (mut directory, now) = (directory(), Instant::now());
        let first = directory.register(now, registration("a", 1, Some(10080))).unwrap().0;
        let idle = directory.register(now, registration("b", 2, Some(10080))).unwrap().0;
        directory.open(now, session(1), &bonded_request(1, "live/a", 77), first);
        let member = pick(&directory, now, &bonded_request(2, "live/b", 77)).unwrap();
        assert_eq!(member.origin, first);
        directory.close(now, session(1));
        let stranger = pick(&directory, now, &bonded_request(3, "live/c", 77)).unwrap();
        directory.open(now, session(4), &request(4, "live/d", Role::Play), stranger.origin);
        let other = pick(&directory, now, &bonded_request(5, "live/e", 77)).unwrap();
        assert_ne!(other.origin, stranger.origin, "a group without members binds nobody");
        assert!([first, idle].contains(&other.origin));
    }

    /// Two origins, the first of which has just failed.
    fn one_failing(now: Instant) -> (Directory, OriginId, OriginId) {
        let mut directory = directory();
        let failing = directory.register(now, registration("a", 1, Some(10080))).unwrap().0;
        let other = directory.register(now, registration("b", 2, Some(10080))).unwrap().0;
        directory.origin_failed(now, failing);
        (directory, failing, other)
    }

    #[test]
    fn new_streams_avoid_an_origin_that_fails() {
        let now = Instant::now();
        let (directory, _, other) = one_failing(now);
        for n in 0..50 {
            assert_eq!(choose(&directory, now, &format!("live/{n}")), Some(other));
        }
    }

    #[test]
    fn a_stream_whose_origin_fails_moves_although_others_are_still_trying_it() {
        let now = Instant::now();
        let (mut directory, failing, other) = one_failing(now);
        directory.open(now, session(1), &request(1, "live/a", Role::Publish), failing);
        directory.open(now, session(2), &request(2, "live/a", Role::Play), failing);
        directory.close(now, session(1));
        assert_eq!(choose(&directory, now, "live/a"), Some(other));
    }

    #[test]
    fn a_stream_with_a_live_session_stays_on_an_origin_that_fails() {
        let now = Instant::now();
        let (mut directory, failing, _) = one_failing(now);
        directory.open(now, session(1), &request(1, "live/a", Role::Publish), failing);
        directory.established(session(1));
        directory.origin_failed(now, failing);
        assert_eq!(choose(&directory, now, "live/a"), Some(failing));
    }

    #[test]
    fn where_every_origin_fails_streams_keep_theirs_and_new_ones_are_spread() {
        let now = Instant::now();
        let (mut directory, failing, other) = one_failing(now);
        directory.open(now, session(1), &request(1, "live/a", Role::Publish), failing);
        directory.close(now, session(1));
        directory.origin_failed(now, other);
        assert_eq!(choose(&directory, now, "live/a"), Some(failing));
        assert!(choose(&directory, now, "live/b").is_some());
    }

    #[test]
    fn an_origin_is_tried_again_when_its_time_is_over() {
        let now = Instant::now();
        let (mut directory, failing, other) = one_failing(now);
        directory.open(now, session(1), &request(1, "live/b", Role::Publish), other);
        let later = now + std::time::Duration::from_secs(5);
        assert_eq!(choose(&directory, later, "live/a"), Some(failing));
    }

    #[test]
    fn a_new_process_of_an_origin_is_not_avoided_for_what_the_old_one_did() {
        let now = Instant::now();
        let (mut directory, failing, other) = one_failing(now);
        directory.open(now, session(1), &request(1, "live/b", Role::Publish), other);
        let mut restarted = registration("a", 1, Some(10080));
        restarted.pid = "2".to_owned();
        directory.register(now, restarted).unwrap();
        assert_eq!(choose(&directory, now, "live/a"), Some(failing));
    }

    #[test]
    fn a_restarted_origin_keeps_its_streams() {
        let (mut directory, now) = (directory(), Instant::now());
        let origin = directory.register(now, registration("a", 1, Some(10080))).unwrap().0;
        directory.register(now, registration("b", 2, Some(10080))).unwrap();
        directory.open(now, session(1), &request(1, "live/a", Role::Publish), origin);
        directory.close(now, session(1));
        let mut restarted = registration("a", 1, Some(10080));
        restarted.service = "after-restart".to_owned();
        directory.register(now, restarted).unwrap();
        assert_eq!(choose(&directory, now, "live/a"), Some(origin));
    }
}
