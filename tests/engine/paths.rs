//! What a path between two hosts can do beside passing everything on: each is provoked, and is
//! handled and counted.

use std::net::{SocketAddr, UdpSocket};

use ringway::config::Listen;
use ringway::engine::Engine;
use ringway::shard::{Counters, DropReason};
use socket2::{Domain, Protocol, Socket, Type};

use super::faults::port_of;
use super::{
    Caller, HEADER, Rig, Session, Setup, WINDOW, next_socket_id, send_train, set_option, train,
};
use crate::support::network::{FAR, NEAR, Network, missing};

on_each_engine! {
    a_full_send_queue_drops_datagrams_of_its_own_session_alone,
    a_train_that_finds_the_send_queue_full_is_counted_datagram_by_datagram,
    a_path_too_narrow_for_segments_gets_whole_datagrams_from_then_on,
    a_client_behind_a_narrow_path_does_not_slow_the_others_down,
    a_listener_that_gets_eio_for_segments_sends_datagrams_from_then_on,
}

fn a_full_send_queue_drops_datagrams_of_its_own_session_alone(engine: Engine) {
    Network::run(|network| {
        let rig = Rig::with(engine, Setup { buffers: 8, ..Setup::default() });
        let (stuck, other) = (connect_far(&rig, network), rig.connect());
        let before = rig.counters();
        fill_up(network, &stuck);
        for n in 0..WINDOW {
            stuck.client_sends(&[(n, 1000)]);
            other.client_sends(&[(n, 1000)]);
            assert_eq!(other.origin_receives(1), [(n, 1000)]);
        }
        let dropped = rig.dropped(DropReason::SendBufferFull);
        let queued = u64::from(WINDOW) - dropped;
        assert!(dropped > 0 && queued > 0, "{dropped} dropped, {queued} queued");
        let sent = rig.counters().srt.origin_out.packets - before.srt.origin_out.packets;
        assert_eq!(sent, u64::from(WINDOW) + queued, "what did not leave is not counted as sent");
        // As soon as the queue is empty the session goes on.
        network.revive_far();
        let first: Vec<_> = (0..queued as u32).map(|n| (n, 1000)).collect();
        assert_eq!(stuck.origin_receives(first.len()), first);
        stuck.client_sends(&[(WINDOW, 1000)]);
        assert_eq!(stuck.origin_receives(1), [(WINDOW, 1000)]);
    });
}

fn a_train_that_finds_the_send_queue_full_is_counted_datagram_by_datagram(engine: Engine) {
    Network::run(|network| {
        let rig = Rig::start(engine);
        let stuck = connect_far(&rig, network);
        fill_up(network, &stuck);
        let trains = 5;
        for _ in 0..trains {
            send_train(&stuck.client, &train(stuck.origin_id, 10, 1000, 300), 1000 + HEADER);
        }
        // The first one fits, because the queue was empty.
        let expected = 10 * (trains - 1);
        let counters = rig.await_counters(|now| full(now) >= expected);
        assert_eq!(full(&counters), expected);
        assert_eq!(counters.io.gso_fallbacks, 0, "datagram by datagram would find it full as well");
        network.revive_far();
        let whole: Vec<_> = (0..9).map(|n| (n, 1000)).chain([(9, 300)]).collect();
        assert_eq!(stuck.origin_receives(10), whole);
    });
}

fn a_path_too_narrow_for_segments_gets_whole_datagrams_from_then_on(engine: Engine) {
    Network::run(|network| {
        network.narrow_path(1000);
        let rig = Rig::start(engine);
        let session = connect_far(&rig, network);
        for _ in 0..3 {
            send_train(&session.client, &train(session.origin_id, 10, 1316, 300), 1316 + HEADER);
            let expected: Vec<_> = (0..9).map(|n| (n, 1316)).chain([(9, 300)]).collect();
            assert_eq!(session.origin_receives(10), expected);
        }
        // EMSGSIZE. The port has one path only: what it refused once is not tried again.
        assert_eq!(rig.counters().io.gso_fallbacks, 1);
    });
}

fn a_client_behind_a_narrow_path_does_not_slow_the_others_down(engine: Engine) {
    Network::run(|network| {
        network.narrow_path(1000);
        let listen = Listen::At(SocketAddr::new(NEAR, 0));
        let rig = Rig::with(engine, Setup { listen, ..Setup::default() });
        let caller = network.on_far(|| Caller::conclude(rig.address, next_socket_id()));
        let origin = UdpSocket::bind((NEAR, 0)).unwrap();
        let (narrow, wide) = (rig.join(caller, origin), rig.connect());
        let expected: Vec<_> = (0..9).map(|n| (n, 1316)).chain([(9, 300)]).collect();
        for fallbacks in 1..=3 {
            send_train(&narrow.origin, &train(narrow.client_id, 10, 1316, 300), 1316 + HEADER);
            assert_eq!(narrow.client_receives(10), expected);
            let before = rig.counters().io;
            send_train(&wide.origin, &train(wide.client_id, 10, 1316, 300), 1316 + HEADER);
            assert_eq!(wide.client_receives(10), expected);
            let after = rig.counters().io;
            let sends = |batches: &[u64]| batches.iter().sum::<u64>();
            assert_eq!(sends(&after.send_batches) - sends(&before.send_batches), 1);
            assert_eq!(after.gso_fallbacks, fallbacks);
        }
    });
}

fn a_listener_that_gets_eio_for_segments_sends_datagrams_from_then_on(engine: Engine) {
    // Also EIO: IPsec, and before Linux 6.11 a device that computes no checksums.
    let Some((listener, client)) = udp_lite().zip(udp_lite()) else {
        missing("this kernel has no UDP-Lite, which answers with EIO", "RINGWAY_WITHOUT_UDP_LITE");
        return;
    };
    let rig = Rig::with(engine, Setup { listener: Some(listener), ..Setup::default() });
    let caller = Caller::conclude_from(client, rig.address, next_socket_id());
    let session = rig.join(caller, UdpSocket::bind("127.0.0.1:0").unwrap());
    for _ in 0..3 {
        send_train(&session.origin, &train(session.client_id, 10, 1000, 300), 1000 + HEADER);
        let expected: Vec<_> = (0..9).map(|n| (n, 1000)).chain([(9, 300)]).collect();
        assert_eq!(session.client_receives(10), expected);
    }
    assert_eq!(rig.counters().io.gso_fallbacks, 1);
}

/// A session whose origin is on the far host.
fn connect_far(rig: &Rig, network: &Network) -> Session {
    let origin = network.on_far(|| UdpSocket::bind((FAR, 0)).unwrap());
    rig.join(Caller::conclude(rig.address, next_socket_id()), origin)
}

/// From now on what the session sends to its origin waits in the queue of its port, which has room
/// for a few datagrams.
fn fill_up(network: &Network, session: &Session) {
    set_option(&port_of(session), libc::SOL_SOCKET, libc::SO_SNDBUF, 1);
    network.silence_far();
}

fn full(counters: &Counters) -> u64 {
    counters.drops[DropReason::SendBufferFull as usize]
}

/// `None` where the kernel does not have it (RFC 3828).
fn udp_lite() -> Option<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDPLITE)).ok()?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    Some(socket.into())
}
