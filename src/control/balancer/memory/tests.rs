//! Whom the balancer chooses among origins that are up, down, full or drained.

use std::collections::HashMap;
use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::config::StaticOrigin;
use crate::control::directory::fixtures::*;
use crate::control::health::Sign;
use crate::control::registration::Endpoint;
use crate::control::schedule::{Found, Plan};
use crate::shard::command::RtcId;
use crate::shard::{OriginId, PickRequest};

fn choose(directory: &Directory, now: Instant, name: &str) -> Option<OriginId> {
    choose_for(directory, now, &request(0, name, Role::Play))
}

fn choose_for(directory: &Directory, now: Instant, request: &PickRequest) -> Option<OriginId> {
    pick(directory, now, &request.into()).map(Origin::id)
}

fn choose_webrtc(directory: &Directory, now: Instant, name: &str, role: Role) -> Option<OriginId> {
    let stream = stream(name);
    let wish = Wish { stream: &stream, role, kind: Kind::WebRtc, group: None };
    pick(directory, now, &wish).map(Origin::id)
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
        let name = format!("live/{n}");
        let address = |directory: &Directory| {
            let picked = choose(directory, now, &name).unwrap();
            directory.origin(picked).unwrap().srt_address()
        };
        assert_eq!(address(&other), address(&one));
        *streams_of.entry(address(&one)).or_insert(0) += 1;
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
    let member = choose_for(&directory, now, &bonded_request(2, "live/b", 77));
    assert_eq!(member, Some(first));
    directory.close(now, session(1));
    let stranger = choose_for(&directory, now, &bonded_request(3, "live/c", 77)).unwrap();
    directory.open(now, session(4), &request(4, "live/d", Role::Play), stranger);
    let other = choose_for(&directory, now, &bonded_request(5, "live/e", 77)).unwrap();
    assert_ne!(other, stranger, "a group without members binds nobody");
    assert!([first, idle].contains(&other));
}

/// Two origins, the first of which has just failed.
fn one_failing(now: Instant) -> (Directory, OriginId, OriginId) {
    let mut directory = directory();
    let failing = directory.register(now, registration("a", 1, Some(10080))).unwrap().0;
    let other = directory.register(now, registration("b", 2, Some(10080))).unwrap().0;
    directory.origin_failed(now, failing, Kind::Srt);
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
    directory.established(session(1), CLIENT);
    directory.origin_failed(now, failing, Kind::Srt);
    assert_eq!(choose(&directory, now, "live/a"), Some(failing));
}

#[test]
fn where_every_origin_fails_streams_in_use_keep_theirs_and_others_try_all_in_turn() {
    let now = Instant::now();
    let at = |seconds| now + std::time::Duration::from_secs(seconds);
    let (mut directory, failing, other) = one_failing(now);
    directory.open(now, session(1), &request(1, "live/a", Role::Publish), other);
    directory.origin_failed(at(1), other, Kind::Srt);
    assert_eq!(choose(&directory, at(1), "live/a"), Some(other));
    assert_eq!(choose(&directory, at(1), "live/b"), Some(failing));
    directory.origin_failed(at(2), failing, Kind::Srt);
    assert_eq!(choose(&directory, at(2), "live/b"), Some(other));
    directory.close(at(2), session(1));
    directory.origin_failed(at(3), other, Kind::Srt);
    assert_eq!(choose(&directory, at(3), "live/a"), Some(failing));
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

/// Origins of one kind that take so many sessions each.
fn capped(now: Instant, capacities: &[u32]) -> Directory {
    let origins: Vec<_> = (1..)
        .zip(capacities)
        .map(|(host, capacity)| StaticOrigin {
            srt: Some(10080),
            capacity: Some(*capacity),
            ..StaticOrigin::at(&format!("o{host}"), IpAddr::from([10, 0, 0, host]))
        })
        .collect();
    let plan = Plan { interval: Some(TTL), asks_key_length: false };
    Directory::new(now, &origins, TTL, plan)
}

#[test]
fn a_full_origin_gets_no_new_stream_but_the_sessions_of_those_that_it_has() {
    let now = Instant::now();
    let mut directory = capped(now, &[1, 5]);
    directory.open(now, session(1), &request(1, "live/a", Role::Publish), OriginId(0));
    for slot in 2..=4 {
        directory.open(now, session(slot), &request(slot, "live/b", Role::Play), OriginId(1));
    }
    assert_eq!(choose(&directory, now, "live/c"), Some(OriginId(1)), "although it has more");
    assert_eq!(choose(&directory, now, "live/a"), Some(OriginId(0)));
}

#[test]
fn where_all_origins_are_full_new_streams_are_refused_until_a_session_ends() {
    let now = Instant::now();
    let mut directory = capped(now, &[1, 1]);
    assert!(!directory.is_full(Kind::Srt, now));
    for (slot, name) in [(1, "live/a"), (2, "live/b")] {
        let origin = choose(&directory, now, name).unwrap();
        directory.open(now, session(slot), &request(slot, name, Role::Publish), origin);
    }
    assert_eq!(choose(&directory, now, "live/c"), None);
    assert!(directory.is_full(Kind::Srt, now));
    assert!(!directory.is_full(Kind::WebRtc, now), "nobody takes it");
    directory.close(now, session(2));
    assert!(choose(&directory, now, "live/c").is_some());
}

#[test]
fn an_origin_that_is_drained_keeps_its_live_streams_and_gets_no_others() {
    let now = Instant::now();
    let mut directory = capped(now, &[9, 9]);
    for (slot, name) in [(1, "live/a"), (2, "live/b")] {
        directory.open(now, session(slot), &request(slot, name, Role::Publish), OriginId(0));
        directory.established(session(slot), CLIENT);
    }
    assert!(directory.drain("o1", true).is_some());
    assert_eq!(choose(&directory, now, "live/a"), Some(OriginId(0)));
    directory.close(now, session(1));
    assert_eq!(choose(&directory, now, "live/a"), Some(OriginId(1)));
    assert_eq!(choose(&directory, now, "live/c"), Some(OriginId(1)));
    directory.drain("1", true);
    assert_eq!(choose(&directory, now, "live/c"), None, "a drain is no fault to be overlooked");
    directory.drain("0", false);
    assert_eq!(choose(&directory, now, "live/c"), Some(OriginId(0)));
    assert!(directory.drain("o9", true).is_none());
}

#[test]
fn webrtc_avoids_an_origin_that_fails_at_it_alone() {
    let now = Instant::now();
    let mut directory = directory();
    for n in 1..=2 {
        let both = with_webrtc(registration(&format!("o{n}"), n, Some(10080)));
        directory.register(now, both).unwrap();
    }
    directory.origin_failed(now, OriginId(0), Kind::WebRtc);
    let names: Vec<_> = (0..50).map(|n| format!("live/{n}")).collect();
    let by_webrtc = |name: &String| choose_webrtc(&directory, now, name, Role::Publish);
    assert!(names.iter().all(|name| by_webrtc(name) == Some(OriginId(1))));
    assert!(names.iter().any(|name| choose(&directory, now, name) == Some(OriginId(0))));
}

/// An origin of both protocols, and one that has SRT alone.
fn both_and_srt(now: Instant) -> (Directory, OriginId, OriginId) {
    let mut directory = directory();
    let both = directory.register(now, with_webrtc(registration("a", 1, Some(10080)))).unwrap();
    let srt = directory.register(now, registration("b", 2, Some(10080))).unwrap();
    (directory, both.0, srt.0)
}

#[test]
fn webrtc_needs_an_api_and_a_udp_port_of_an_origin_that_registers() {
    let now = Instant::now();
    let (mut directory, both, _) = both_and_srt(now);
    for (host, rtc, api) in [(3, "8000", None), (4, "tcp://8000", Some("1985"))] {
        let mut half = registration(&format!("o{host}"), host, None);
        half.endpoints.rtc.extend(Endpoint::parse(rtc));
        half.endpoints.api.extend(api.and_then(Endpoint::parse));
        directory.register(now, half).unwrap();
    }
    for n in 0..50 {
        let name = format!("live/{n}");
        assert_eq!(choose_webrtc(&directory, now, &name, Role::Play), Some(both));
    }
}

#[test]
fn a_configured_origin_needs_no_udp_port_for_its_answer_names_it() {
    let now = Instant::now();
    let ip = IpAddr::from([10, 0, 0, 9]);
    let origin = StaticOrigin { api: Some(8889), ..StaticOrigin::at("mtx", ip) };
    let directory = Directory::new(now, &[origin], TTL, UNCHECKED);
    assert!(choose_webrtc(&directory, now, "live/a", Role::Publish).is_some());
    assert_eq!(choose(&directory, now, "live/a"), None, "it has no SRT");
}

#[test]
fn who_plays_by_webrtc_what_is_published_by_srt_goes_where_it_is_published() {
    let (mut directory, now) = (directory(), Instant::now());
    for n in 1..=5 {
        let both = with_webrtc(registration(&format!("o{n}"), n, Some(10080)));
        directory.register(now, both).unwrap();
    }
    let origin = choose(&directory, now, "live/a").unwrap();
    directory.open(now, session(1), &request(1, "live/a", Role::Publish), origin);
    for _ in 0..20 {
        assert_eq!(choose_webrtc(&directory, now, "live/a", Role::Play), Some(origin));
    }
}

#[test]
fn who_plays_by_srt_what_is_published_by_webrtc_goes_where_it_is_published() {
    let (mut directory, now) = (directory(), Instant::now());
    for n in 1..=5 {
        let both = with_webrtc(registration(&format!("o{n}"), n, Some(10080)));
        directory.register(now, both).unwrap();
    }
    let origin = choose_webrtc(&directory, now, "live/a", Role::Publish).unwrap();
    directory.open(now, RtcId(1), &request(1, "live/a", Role::Publish), origin);
    assert_eq!(choose(&directory, now, "live/a"), Some(origin));
}

#[test]
fn relays_that_see_a_stream_by_different_protocols_choose_the_same_origin() {
    let (mut directory, now) = (directory(), Instant::now());
    for n in 1..=4 {
        let both = with_webrtc(registration(&format!("o{n}"), n, Some(10080)));
        directory.register(now, both).unwrap();
    }
    for n in 0..50 {
        let name = format!("live/{n}");
        let by_webrtc = choose_webrtc(&directory, now, &name, Role::Publish);
        assert_eq!(choose(&directory, now, &name), by_webrtc);
    }
}

#[test]
fn a_stream_that_is_published_where_webrtc_does_not_reach_is_not_split() {
    let now = Instant::now();
    let (mut directory, _, srt) = both_and_srt(now);
    directory.open(now, session(1), &request(1, "live/a", Role::Publish), srt);
    for role in [Role::Play, Role::Publish] {
        assert_eq!(choose_webrtc(&directory, now, "live/a", role), None);
    }
    directory.established(session(1), CLIENT);
    assert_eq!(choose_webrtc(&directory, now, "live/a", Role::Play), None);
}

#[test]
fn players_of_an_unpublished_stream_do_not_keep_its_publisher_out() {
    let now = Instant::now();
    let (mut directory, both, srt) = both_and_srt(now);
    directory.open(now, session(1), &request(1, "live/a", Role::Play), srt);
    directory.established(session(1), CLIENT);
    assert_eq!(choose_webrtc(&directory, now, "live/a", Role::Play), None);
    assert_eq!(choose_webrtc(&directory, now, "live/a", Role::Publish), Some(both));
}

#[test]
fn a_stream_without_sessions_goes_where_its_next_session_can() {
    let now = Instant::now();
    let (mut directory, both, srt) = both_and_srt(now);
    directory.open(now, session(1), &request(1, "live/a", Role::Publish), srt);
    directory.close(now, session(1));
    assert_eq!(choose_webrtc(&directory, now, "live/a", Role::Play), Some(both));
}

/// Origins that take clients without signalling.
fn direct_origins(now: Instant, hosts: std::ops::RangeInclusive<u8>) -> Directory {
    let origins: Vec<_> = hosts
        .map(|host| StaticOrigin {
            direct: Some(4001),
            ..StaticOrigin::at(&format!("p{host}"), IpAddr::from([10, 0, 0, host]))
        })
        .collect();
    Directory::new(now, &origins, TTL, UNCHECKED)
}

#[test]
fn clients_without_signalling_are_spread_and_come_back_to_the_same_origin() {
    let now = Instant::now();
    let directory = direct_origins(now, 1..=4);
    let mut clients_of = HashMap::new();
    for n in 0..400 {
        let client = format!("libp2p+webrtc+v1/{n}");
        let picked = pick_direct(&directory, now, &client).map(Origin::id);
        assert_eq!(pick_direct(&directory, now, &client).map(Origin::id), picked);
        *clients_of.entry(picked.unwrap()).or_insert(0) += 1;
    }
    assert_eq!(clients_of.len(), 4);
    assert!(clients_of.values().all(|&clients| clients > 50), "{clients_of:?}");
}

#[test]
fn relays_that_know_more_or_less_of_an_origin_give_it_the_same_clients_without_signalling() {
    let now = Instant::now();
    let origin = |host, srt| {
        let origin = StaticOrigin::at(&format!("p{host}"), IpAddr::from([10, 0, 0, host]));
        StaticOrigin { srt, direct: Some(4001), ..origin }
    };
    let few = [origin(1, None), origin(2, None)];
    let more = [origin(1, Some(10080)), origin(2, None)];
    let [few, more] = [few, more].map(|origins| Directory::new(now, &origins, TTL, UNCHECKED));
    for n in 0..50 {
        let client = format!("libp2p+webrtc+v1/{n}");
        let pick = |directory| pick_direct(directory, now, &client).map(Origin::id);
        assert_eq!(pick(&few), pick(&more), "{client}");
    }
}

#[derive(Clone, Copy, Debug)]
enum Happens {
    /// To an origin.
    Check(u32, bool),
    Failure(u32),
    Success(u32),
    Drain(u32, bool),
    /// A caller comes for a stream.
    Caller(u32),
    /// The oldest session ends.
    End,
}

const ORIGINS: u32 = 4;
const CAPACITY: u32 = 6;

fn happens() -> impl Strategy<Value = (u64, Happens)> {
    let origin = || 0..ORIGINS;
    let what = prop_oneof![
        8 => (origin(), any::<bool>()).prop_map(|(origin, ok)| Happens::Check(origin, ok)),
        2 => origin().prop_map(Happens::Failure),
        1 => origin().prop_map(Happens::Success),
        1 => (origin(), any::<bool>()).prop_map(|(origin, on)| Happens::Drain(origin, on)),
        8 => (0_u32..40).prop_map(Happens::Caller),
        4 => Just(Happens::End),
    ];
    (0_u64..3_000, what)
}

/// What may be said of the origin of a new stream, whatever is wrong with the others.
fn assert_new_stream(directory: &Directory, now: Instant, picked: Option<OriginId>) {
    let open: Vec<_> =
        directory.origins().filter(|origin| directory.is_open(origin, now)).collect();
    let is_well = |origin: &&Origin| !origin.is_failing(Kind::Srt, now);
    match picked.and_then(|id| directory.origin(id)) {
        None => assert!(open.is_empty(), "a stream is refused although {open:?} are open"),
        Some(origin) => {
            assert!(directory.is_open(origin, now), "{origin:?}");
            let is_last_resort = !open.iter().any(is_well);
            assert!(is_well(&origin) || is_last_resort, "{origin:?}");
        }
    }
}

proptest! {
    #[test]
    fn new_streams_go_to_origins_in_order_whatever_happens_and_to_any_where_none_is(
        history in prop::collection::vec(happens(), 0..300)
    ) {
        let mut now = Instant::now();
        let mut directory = capped(now, &[CAPACITY; ORIGINS as usize]);
        let mut live = std::collections::VecDeque::new();
        for (slot, (pause_ms, what)) in (0..).zip(history) {
            now += std::time::Duration::from_millis(pause_ms);
            match what {
                Happens::Check(origin, is_answered) => {
                    let result = if is_answered { Ok(()) } else { Err(Sign::Silent) };
                    let id = OriginId(origin);
                    let before = directory.origin(id).unwrap().is_failing(Kind::Srt, now);
                    let found = Found { result, key_length: None };
                    directory.checked(now, id, Kind::Srt, found);
                    let after = directory.origin(id).unwrap().is_failing(Kind::Srt, now);
                    prop_assert!(!is_answered || before || !after);
                }
                Happens::Failure(origin) => {
                    directory.origin_failed(now, OriginId(origin), Kind::Srt);
                }
                Happens::Success(origin) => {
                    directory.origin_succeeded(now, OriginId(origin), Kind::Srt);
                }
                Happens::Drain(origin, is_draining) => {
                    directory.drain(&origin.to_string(), is_draining);
                }
                Happens::Caller(stream) => {
                    let request = request(slot, &format!("live/{stream}"), Role::Play);
                    let picked = choose_for(&directory, now, &request);
                    let is_new = directory.stream(&request.stream).is_none();
                    if is_new {
                        assert_new_stream(&directory, now, picked);
                    }
                    if let Some(origin) = picked {
                        directory.open(now, session(slot), &request, origin);
                        live.push_back(slot);
                    }
                }
                Happens::End => {
                    if let Some(slot) = live.pop_front() {
                        directory.close(now, session(slot));
                    }
                }
            }
            let sessions: u32 = directory.origins().map(Origin::sessions).sum();
            prop_assert_eq!(sessions as usize, live.len());
            directory.recovered(now);
            directory.expire(now);
        }
    }
}

#[test]
fn clients_without_signalling_avoid_an_origin_that_fails_while_there_is_another() {
    let now = Instant::now();
    let mut directory = direct_origins(now, 1..=2);
    directory.origin_failed(now, OriginId(0), Kind::Direct);
    for n in 0..50 {
        let picked = pick_direct(&directory, now, &format!("client/{n}")).map(Origin::id);
        assert_eq!(picked, Some(OriginId(1)));
    }
    directory.origin_failed(now, OriginId(1), Kind::Direct);
    assert!(pick_direct(&directory, now, "client/1").is_some());
}
