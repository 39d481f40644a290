//! Origins, streams and sessions over time.

use super::super::schedule::KEY_LENGTH_INTERVAL;
use super::super::stream::{PLAYED_IDLE_TTL, PUBLISHED_IDLE_TTL};
use super::fixtures::*;
use super::*;
use crate::config::HostHeader;

const SECOND: Duration = Duration::from_secs(1);

fn heard(key_length: Option<u8>) -> Found {
    let result = if key_length.is_some() { Ok(()) } else { Err(Sign::Silent) };
    Found { result, key_length }
}

#[test]
fn a_heartbeat_changes_nothing_but_the_time() {
    let (mut directory, now) = (directory(), Instant::now());
    let (id, change) = directory.register(now, registration("a", 1, Some(1))).unwrap();
    assert_eq!(change, Change::New);
    let again = directory.register(now + TTL - SECOND, registration("a", 1, Some(1)));
    assert_eq!(again, Ok((id, Change::Heartbeat)));
    assert!(directory.is_alive(directory.origin(id).unwrap(), now + TTL + SECOND));
}

#[test]
fn a_new_process_replaces_the_old_one_under_the_same_number() {
    let (mut directory, now) = (directory(), Instant::now());
    let (id, _) = directory.register(now, registration("a", 1, Some(1))).unwrap();
    let mut restarted = registration("a", 1, Some(1));
    restarted.pid = "2".to_owned();
    assert_eq!(directory.register(now, restarted), Ok((id, Change::Restarted)));
    assert_eq!(directory.origins().count(), 1);
    assert_eq!(directory.origin(id).unwrap().seen().unwrap().pid, "2");
}

#[test]
fn two_origins_of_one_host_with_the_same_server_id_stay_two_with_a_name_each() {
    let (mut directory, now) = (directory(), Instant::now());
    directory.register(now, registration("a", 1, Some(10080))).unwrap();
    directory.register(now, registration("a", 1, Some(10081))).unwrap();
    let names: Vec<_> = directory.origins().map(Origin::name).collect();
    assert_eq!(names, ["a", "a@10.0.0.1:10081"]);
}

#[test]
fn a_server_id_cannot_be_taken_over_from_another_address_while_its_owner_lives() {
    let (mut directory, now) = (directory(), Instant::now());
    directory.register(now, registration("a", 1, Some(1))).unwrap();
    let thief = directory.register(now + TTL - SECOND, registration("a", 2, Some(1)));
    let ip = IpAddr::from([10, 0, 0, 1]);
    assert_eq!(thief, Err(Conflict::ServerLives { server: "a".to_owned(), ip }));
    let heir = directory.register(now + TTL, registration("a", 2, Some(1)));
    assert!(matches!(heir, Ok((_, Change::New))));
}

#[test]
fn an_expired_origin_is_named_once_and_stays_while_sessions_are_with_it() {
    let (mut directory, now) = (directory(), Instant::now());
    let (id, _) = directory.register(now, registration("a", 1, Some(1))).unwrap();
    directory.open(now, session(1), &request(1, "live/a", Role::Publish), id);
    assert_eq!(directory.expire(now + TTL), ["a"]);
    assert!(directory.expire(now + TTL).is_empty());
    assert!(directory.origin(id).is_some());
    directory.close(now + TTL, session(1));
    directory.expire(now + TTL);
    assert!(directory.origin(id).is_none());
}

#[test]
fn an_expired_origin_that_registers_again_has_returned() {
    let (mut directory, now) = (directory(), Instant::now());
    let (id, _) = directory.register(now, registration("a", 1, Some(1))).unwrap();
    directory.open(now, session(1), &request(1, "live/a", Role::Publish), id);
    directory.expire(now + TTL);
    let again = directory.register(now + TTL, registration("a", 1, Some(1)));
    assert_eq!(again, Ok((id, Change::Returned)));
}

#[test]
fn a_configured_origin_never_expires() {
    let now = Instant::now();
    let origin = StaticOrigin {
        srt: Some(10080),
        api: Some(1985),
        ..StaticOrigin::at("a", IpAddr::from([127, 0, 0, 1]))
    };
    let mut directory = Directory::new(now, &[origin], TTL, UNCHECKED);
    assert!(directory.expire(now + 100 * TTL).is_empty());
    let origin = directory.origins().next().unwrap();
    assert!(directory.is_alive(origin, now + 100 * TTL));
    assert_eq!(origin.srt_address(), Some(SocketAddr::from(([127, 0, 0, 1], 10080))));
}

#[test]
fn the_thousand_and_first_origin_is_refused_and_heartbeats_of_the_others_are_not() {
    let (mut directory, now) = (directory(), Instant::now());
    for n in 0..ORIGINS_MAX {
        directory.register(now, registration(&format!("o{n}"), 1, Some(1))).unwrap();
    }
    let more = directory.register(now, registration("more", 1, Some(1)));
    assert_eq!(more, Err(Conflict::Full));
    let known = directory.register(now, registration("o0", 1, Some(1)));
    assert!(matches!(known, Ok((_, Change::Heartbeat))));
}

#[test]
fn an_origin_is_asked_for_its_key_length_until_it_answers_and_again_after_a_restart() {
    let (mut directory, now) = (directory(), Instant::now());
    let (id, _) = directory.register(now, registration("a", 1, Some(1))).unwrap();
    let due = |directory: &mut Directory, at| directory.take_due_checks(at, 9).len();
    assert_eq!(due(&mut directory, now), 1);
    assert_eq!(due(&mut directory, now), 0);
    directory.checked(now, id, Kind::Srt, heard(None));
    assert_eq!(due(&mut directory, now + KEY_LENGTH_INTERVAL * 4 / 5 - SECOND), 0);
    assert_eq!(due(&mut directory, now + KEY_LENGTH_INTERVAL * 6 / 5), 1);
    directory.checked(now, id, Kind::Srt, heard(None));
    directory.register(now, registration("a", 1, Some(1))).unwrap();
    assert_eq!(due(&mut directory, now), 1, "a heartbeat while it is unknown");
    directory.checked(now, id, Kind::Srt, heard(Some(16)));
    directory.register(now, registration("a", 1, Some(1))).unwrap();
    assert_eq!(due(&mut directory, now), 0, "a heartbeat while it is known");
    let mut restarted = registration("a", 1, Some(1));
    restarted.pid = "2".to_owned();
    directory.register(now, restarted).unwrap();
    assert_eq!(due(&mut directory, now), 1);
    assert_eq!(directory.origin(id).unwrap().key_length(), Some(16));
}

#[test]
fn a_session_that_finds_nobody_has_the_origin_checked_at_once_for_all_that_it_takes() {
    let now = Instant::now();
    let plan = Plan { interval: Some(SECOND), asks_key_length: true };
    let mut directory = Directory::new(now, &[], TTL, plan);
    let (id, _) = directory.register(now, with_webrtc(registration("a", 1, Some(1)))).unwrap();
    let kinds = |directory: &mut Directory| {
        let due = directory.take_due_checks(now, 9);
        due.into_iter().map(|check| check.kind).collect::<Vec<_>>()
    };
    assert_eq!(kinds(&mut directory), [Kind::Srt], "as soon as it is known");
    directory.checked(now, id, Kind::Srt, heard(Some(16)));
    assert_eq!(kinds(&mut directory), []);
    directory.origin_failed(now, id, Kind::Srt);
    assert_eq!(kinds(&mut directory), [Kind::Srt, Kind::WebRtc]);
}

#[test]
fn an_origin_that_changes_its_key_length_is_believed_and_one_that_falls_silent_keeps_it() {
    let (mut directory, now) = (directory(), Instant::now());
    let (id, _) = directory.register(now, registration("a", 1, Some(1))).unwrap();
    for (answer, known) in [(Some(16), 16), (None, 16), (Some(32), 32)] {
        assert_eq!(directory.take_due_checks(now + KEY_LENGTH_INTERVAL * 2, 9).len(), 1);
        directory.checked(now, id, Kind::Srt, heard(answer));
        assert_eq!(directory.origin(id).unwrap().key_length(), Some(known));
    }
}

#[test]
fn a_stream_is_where_its_first_attempt_succeeds() {
    let (mut directory, now) = (directory(), Instant::now());
    directory.open(now, session(1), &request(1, "live/a", Role::Publish), OriginId(0));
    directory.open(now, session(2), &request(2, "live/a", Role::Play), OriginId(1));
    directory.established(session(1), CLIENT);
    directory.established(session(2), CLIENT);
    assert_eq!(directory.stream(&stream("live/a")).unwrap().origin(), OriginId(0));
}

#[test]
fn streams_in_use_come_first_and_then_those_used_last() {
    let (mut directory, now) = (directory(), Instant::now());
    for (n, path) in [(1, "live/a"), (2, "live/b"), (3, "live/c")] {
        let at = now + n * SECOND;
        directory.open(at, session(n), &request(n, path, Role::Publish), OriginId(0));
    }
    directory.close(now + 4 * SECOND, session(1));
    directory.close(now + 5 * SECOND, session(3));
    let order: Vec<_> = directory.streams().map(|(key, _)| key.clone()).collect();
    assert_eq!(order, ["live/b", "live/c", "live/a"].map(stream));
    assert_eq!(directory.streams_count(), 3);
}

#[test]
fn sessions_are_counted_once_however_often_they_end() {
    let (mut directory, now) = (directory(), Instant::now());
    let (id, _) = directory.register(now, registration("a", 1, Some(1))).unwrap();
    directory.open(now, session(1), &request(1, "live/a", Role::Publish), id);
    directory.open(now, session(2), &request(2, "live/a", Role::Play), id);
    assert!(directory.established(session(1), CLIENT).is_some());
    assert!(directory.established(session(1), CLIENT).is_none());
    assert!(directory.close(now, session(1)).is_some());
    assert!(directory.close(now, session(1)).is_none());
    assert_eq!(directory.origin(id).unwrap().sessions(), 1);
    let stream = directory.stream(&stream("live/a")).unwrap();
    assert_eq!((stream.publishers(), stream.players()), (0, 1));
}

#[test]
fn a_published_stream_is_remembered_for_ten_minutes() {
    let (mut directory, now) = (directory(), Instant::now());
    directory.open(now, session(1), &request(1, "live/a", Role::Publish), OriginId(0));
    directory.close(now, session(1));
    directory.expire(now + PUBLISHED_IDLE_TTL - SECOND);
    assert!(directory.stream(&stream("live/a")).is_some());
    directory.expire(now + PUBLISHED_IDLE_TTL);
    assert!(directory.stream(&stream("live/a")).is_none());
}

#[test]
fn a_stream_that_was_only_asked_for_is_forgotten_after_half_a_minute() {
    let (mut directory, now) = (directory(), Instant::now());
    directory.open(now, session(1), &request(1, "live/a", Role::Play), OriginId(0));
    directory.close(now, session(1));
    directory.expire(now + PLAYED_IDLE_TTL);
    assert!(directory.stream(&stream("live/a")).is_none());
}

#[test]
fn a_stream_in_use_is_never_forgotten() {
    let (mut directory, now) = (directory(), Instant::now());
    directory.open(now, session(1), &request(1, "live/a", Role::Play), OriginId(0));
    directory.close(now, session(1));
    directory.open(now + SECOND, session(2), &request(2, "live/a", Role::Play), OriginId(0));
    directory.expire(now + 100 * PUBLISHED_IDLE_TTL);
    assert!(directory.stream(&stream("live/a")).is_some());
}

#[test]
fn a_full_table_of_streams_forgets_the_one_that_is_due_first() {
    let (mut directory, now) = (directory(), Instant::now());
    directory.streams_max = 2;
    for (n, path) in [(1, "live/a"), (2, "live/b"), (3, "live/c")] {
        let at = now + n * SECOND;
        directory.open(at, session(n), &request(n, path, Role::Publish), OriginId(0));
        directory.close(at, session(n));
    }
    let mut left: Vec<_> = directory.streams().map(|(key, _)| key.clone()).collect();
    left.sort();
    assert_eq!(left, [stream("live/b"), stream("live/c")]);
}

fn override_for(name: &str, ip: [u8; 4], path: &str) -> StaticOrigin {
    let (path, host) = (Some(path.to_owned()), HostHeader::Origin);
    StaticOrigin { path, host, ..StaticOrigin::at(name, IpAddr::from(ip)) }
}

#[test]
fn a_configured_origin_without_a_port_says_more_of_one_that_registers() {
    let now = Instant::now();
    let configured =
        [override_for("by-ip", [10, 0, 0, 1], "/ip"), override_for("b", [0, 0, 0, 0], "/name")];
    let mut directory = Directory::new(now, &configured, TTL, UNCHECKED);
    assert_eq!(directory.origins().count(), 0);
    for (server, host, path) in [("a", 1, Some("/ip")), ("b", 2, Some("/name")), ("c", 3, None)] {
        let (id, _) = directory.register(now, registration(server, host, None)).unwrap();
        let special = directory.origin(id).unwrap().special();
        assert_eq!(special.path.as_deref(), path, "{server}");
    }
}

#[test]
fn a_name_says_more_than_an_address() {
    let now = Instant::now();
    let configured =
        [override_for("x", [10, 0, 0, 1], "/ip"), override_for("a", [10, 0, 0, 7], "/name")];
    let mut directory = Directory::new(now, &configured, TTL, UNCHECKED);
    let (id, _) = directory.register(now, registration("a", 1, None)).unwrap();
    assert_eq!(directory.origin(id).unwrap().special().path.as_deref(), Some("/name"));
}

#[test]
fn what_was_configured_for_an_origin_of_its_own_is_not_said_of_its_neighbour() {
    let now = Instant::now();
    let own = StaticOrigin { api: Some(8889), ..override_for("mtx", [10, 0, 0, 1], "/x") };
    let mut directory = Directory::new(now, &[own], TTL, UNCHECKED);
    assert_eq!(directory.origins().next().unwrap().special().path.as_deref(), Some("/x"));
    let (id, _) = directory.register(now, registration("a", 1, None)).unwrap();
    assert_eq!(directory.origin(id).unwrap().special(), &Special::default());
}
