//! Media and control packets of established sessions.

use std::net::SocketAddr;

use ringway::shard::{Command, DropReason, Event, Peer, Port, ProtocolView, Route, Verdict};

use crate::support::packets;
use crate::support::stage::{LISTENER, Stage, client};

fn to_client(address: SocketAddr) -> Verdict {
    Verdict::Forward(Route { port: LISTENER, to: Some(Peer { address, local: None }) })
}

#[test]
fn media_of_the_client_leaves_by_the_sessions_own_port_and_media_of_the_origin_by_the_listener() {
    let mut stage = Stage::new();
    let session = stage.established(client(5000), 77, 4242);
    let verdict = stage.client_sends(client(5000), &packets::data(4242, 1, b"media"));
    let to_origin = Route { port: Port::Session(session), to: None };
    assert_eq!(verdict, Verdict::Forward(to_origin));
    let verdict = stage.origin_sends(session, &packets::data(77, 1, b"media"));
    assert_eq!(verdict, to_client(client(5000)));
    assert!(stage.take_out().is_empty(), "media makes no slow-path work");
}

#[test]
fn two_origins_with_one_socket_id_keep_their_clients_apart() {
    let mut stage = Stage::new();
    let a = stage.established(client(5000), 77, 4242);
    let b = stage.established(client(5001), 77, 4242);
    for (port, session) in [(5000, a), (5001, b)] {
        let verdict = stage.client_sends(client(port), &packets::data(4242, 1, b"media"));
        let route = Route { port: Port::Session(session), to: None };
        assert_eq!(verdict, Verdict::Forward(route));
    }
}

#[test]
fn a_guessed_socket_id_from_another_address_opens_nothing() {
    let mut stage = Stage::new();
    stage.established(client(5000), 77, 4242);
    for bytes in [packets::data(4242, 1, b"forged"), packets::shutdown(4242)] {
        let verdict = stage.client_sends(client(5001), &bytes);
        assert_eq!(verdict, Verdict::Drop(DropReason::UnknownSocketId));
    }
    assert_eq!(stage.shard.counters().srt.established, 1);
}

#[test]
fn datagrams_for_unknown_socket_ids_are_counted_and_leave_nothing_behind() {
    let mut stage = Stage::new();
    for id in 1..1000 {
        let verdict = stage.client_sends(client(5000), &packets::data(id, 1, b"junk"));
        assert_eq!(verdict, Verdict::Drop(DropReason::UnknownSocketId));
    }
    let counters = stage.shard.counters();
    assert_eq!(counters.drops[DropReason::UnknownSocketId as usize], 999);
    assert_eq!(counters.sessions, 0);
    assert!(stage.take_out().is_empty(), "strangers get no answer");
}

#[test]
fn media_without_destination_is_not_a_handshake() {
    let mut stage = Stage::new();
    let verdict = stage.client_sends(client(5000), &packets::data(0, 1, b"junk"));
    assert_eq!(verdict, Verdict::Drop(DropReason::NotAHandshake));
    let verdict = stage.client_sends(client(5000), &packets::keepalive(0));
    assert_eq!(verdict, Verdict::Drop(DropReason::NotAHandshake));
}

#[test]
fn an_origins_datagram_for_another_socket_is_dropped() {
    let mut stage = Stage::new();
    let session = stage.established(client(5000), 77, 4242);
    let verdict = stage.origin_sends(session, &packets::data(78, 1, b"stray"));
    assert_eq!(verdict, Verdict::Drop(DropReason::WrongDestination));
}

#[test]
fn a_session_counts_what_it_carries_and_shows_what_srt_says_in_clear() {
    let mut stage = Stage::new();
    let session = stage.established(client(5000), 77, 4242);
    for sequence in [1, 2, 4] {
        stage.client_sends(client(5000), &packets::data(4242, sequence, &[0; 100]));
    }
    stage.origin_sends(session, &packets::keepalive(77));
    stage.apply(Command::Sessions { request: 7, from_slot: 0, limit: 10 });
    let events = stage.take_events();
    let [Event::Sessions { request: 7, sessions, next_slot: None }] = &events[..] else {
        panic!("one page with everything: {events:?}");
    };
    let view = &sessions[0];
    assert_eq!(view.session, session);
    assert_eq!((view.traffic.client_in.packets, view.traffic.client_in.bytes), (3, 348));
    assert_eq!(view.traffic.client_in, view.traffic.origin_out);
    let ProtocolView::Srt(srt) = &view.protocol else {
        panic!("an SRT session: {view:?}");
    };
    assert_eq!(srt.loss_client_to_relay, Some(0.25));
    assert_eq!((srt.latency_ms, srt.version), (Some(120), Some(0x0001_0501)));
    assert_eq!(srt.encryption_key_length, 0);
}

#[test]
fn a_page_of_sessions_says_where_the_next_one_starts() {
    let mut stage = Stage::new();
    for i in 0..5 {
        stage.established(client(5000 + i), 77, 4242);
    }
    let mut from_slot = Some(0);
    let mut seen = 0;
    while let Some(slot) = from_slot {
        stage.apply(Command::Sessions { request: 0, from_slot: slot, limit: 2 });
        let Some(Event::Sessions { sessions, next_slot, .. }) = stage.take_events().pop() else {
            panic!("a page");
        };
        assert!(sessions.len() <= 2);
        seen += sessions.len();
        from_slot = next_slot;
    }
    assert_eq!(seen, 5);
}
