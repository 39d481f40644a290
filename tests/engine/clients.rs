//! Sockets of single clients: nobody but the kernel may notice that they come and go.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ringway::config::Listen;
use ringway::engine::{ClientSockets, Engine};
use ringway::shard::{Command, EndReason, Event};

use super::{PATIENCE, Rig, Session, Setup, WINDOW, data, is_shutdown, receive};

on_each_engine_for_production! {
    a_busy_client_gets_a_socket_and_its_flow_keeps_its_order,
    a_busy_player_gets_a_socket_too,
    a_client_of_a_listener_on_all_addresses_gets_a_socket,
    an_ipv6_client_gets_a_socket,
    a_client_that_would_be_answered_from_another_address_gets_none,
    a_silent_client_loses_its_socket,
    the_end_of_a_session_closes_the_socket_of_its_client,
    a_client_whose_session_has_ended_is_heard_by_the_listener,
    nothing_is_lost_while_sockets_of_others_come_and_go,
    no_client_gets_a_socket_while_descriptors_are_scarce,
    a_client_that_is_gone_harms_nobody,
    a_flood_of_one_client_is_cut_and_costs_the_others_nothing,
    a_shard_with_sockets_of_clients_leaves_its_port_free,
}

fn a_busy_client_gets_a_socket_and_its_flow_keeps_its_order(engine: Engine) {
    let rig = rig(engine, Listen::At(LOOPBACK));
    for _ in 0..5 {
        let session = rig.connect();
        let mut flow = Flow::default();
        flow.publish_until(&session, || sockets(&rig) == 1);
        for _ in 0..20 {
            flow.publish(&session);
        }
        rig.tell(Command::Close { session: session.key, reason: EndReason::Operator });
        rig.await_counters(|now| now.io.client_sockets == 0);
    }
}

fn a_busy_player_gets_a_socket_too(engine: Engine) {
    let rig = rig(engine, Listen::At(LOOPBACK));
    let session = rig.connect();
    let mut flow = Flow::default();
    flow.play_until(&session, || sockets(&rig) == 1);
    for _ in 0..20 {
        flow.play(&session);
    }
}

fn a_client_of_a_listener_on_all_addresses_gets_a_socket(engine: Engine) {
    let rig = rig(engine, Listen::All(0));
    let session = rig.connect_to(SocketAddr::from((Ipv4Addr::LOCALHOST, rig.address.port())));
    serves_with_a_socket(&rig, &session);
}

fn an_ipv6_client_gets_a_socket(engine: Engine) {
    let rig = rig(engine, Listen::All(0));
    let session = rig.connect_to(SocketAddr::from((Ipv6Addr::LOCALHOST, rig.address.port())));
    serves_with_a_socket(&rig, &session);
}

/// The client's socket is connected: it hears nothing from any address but the one it has hit.
fn serves_with_a_socket(rig: &Rig, session: &Session) {
    let (mut up, mut down) = (Flow::default(), Flow::default());
    up.publish_until(session, || sockets(rig) == 1);
    for _ in 0..5 {
        up.publish(session);
        down.play(session);
    }
}

fn a_client_that_would_be_answered_from_another_address_gets_none(engine: Engine) {
    let rig = rig(engine, Listen::All(0));
    // Its own address is 127.0.0.1, and that is where a connected socket would send from.
    let session = rig.connect_to(SocketAddr::from(([127, 0, 0, 2], rig.address.port())));
    let (mut up, mut down) = (Flow::default(), Flow::default());
    let end = Instant::now() + 10 * WINDOW_TIME;
    while Instant::now() < end {
        up.publish(&session);
        down.play(&session);
        assert_eq!(sockets(&rig), 0);
    }
}

fn a_silent_client_loses_its_socket(engine: Engine) {
    let rig = rig(engine, Listen::At(LOOPBACK));
    let session = rig.connect();
    let mut flow = Flow::default();
    flow.publish_until(&session, || sockets(&rig) == 1);
    rig.await_counters(|now| now.io.client_sockets == 0);
    flow.publish(&session);
}

fn the_end_of_a_session_closes_the_socket_of_its_client(engine: Engine) {
    let rig = rig(engine, Listen::At(LOOPBACK));
    let (first, second) = (rig.connect(), rig.connect());
    let (mut up, mut other) = (Flow::default(), Flow::default());
    let deadline = Instant::now() + PATIENCE;
    while sockets(&rig) < 2 {
        up.publish_in_any_order(&first);
        other.publish_in_any_order(&second);
        assert!(Instant::now() < deadline, "both get sockets");
    }
    rig.tell(Command::Close { session: first.key, reason: EndReason::Operator });
    // The other one's traffic keeps its socket open: it is not silence that closes the first.
    other.publish_until(&second, || sockets(&rig) == 1);
    assert!(is_shutdown(&receive(&first.client)));
}

fn a_client_whose_session_has_ended_is_heard_by_the_listener(engine: Engine) {
    let rig = rig(engine, Listen::At(LOOPBACK));
    let session = rig.connect();
    Flow::default().publish_until(&session, || sockets(&rig) == 1);
    rig.tell(Command::Close { session: session.key, reason: EndReason::Operator });
    assert!(is_shutdown(&receive(&session.client)));
    rig.await_event(|event| matches!(event, Event::Ended { .. }).then_some(()));
    // From the same address, whose socket may be on its way out.
    let caller = super::Caller::conclude_from(session.client, rig.address, 4711);
    let again = rig.join(caller, UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    Flow::default().publish(&again);
}

fn nothing_is_lost_while_sockets_of_others_come_and_go(engine: Engine) {
    let clients = ClientSockets { max: 2, ..quick() };
    let rig = Rig::with(engine, Setup { clients, ..Setup::default() });
    let sessions: Vec<_> = (0..8).map(|_| rig.connect()).collect();
    let mut flows: Vec<_> = sessions.iter().map(|_| (Flow::default(), Flow::default())).collect();
    let mut seen = Vec::new();
    for round in 0..120 {
        for (position, session) in sessions.iter().enumerate() {
            let (up, down) = &mut flows[position];
            // Three are busy for a while, then three others.
            let is_busy = (position + round / 20) % 8 < 3;
            for _ in 0..if is_busy { 8 } else { 1 } {
                // While a client's socket is being connected, the kernel may put a datagram of its
                // neighbour there, where it waits a little longer than the next ones.
                up.publish_in_any_order(session);
                down.play(session);
            }
        }
        seen.push(sockets(&rig));
    }
    assert!(seen.iter().all(|sockets| *sockets <= 2), "{seen:?}");
    assert!(seen.iter().any(|sockets| *sockets > 0), "{seen:?}");
}

fn no_client_gets_a_socket_while_descriptors_are_scarce(engine: Engine) {
    let clients = ClientSockets { descriptors_max: 2, ..quick() };
    let rig = Rig::with(engine, Setup { clients, ..Setup::default() });
    let session = rig.connect();
    let mut flow = Flow::default();
    flow.publish_until(&session, || sockets(&rig) == 1);
    // Two sessions and a socket are more than two descriptors.
    let _second = rig.connect();
    flow.publish_until(&session, || sockets(&rig) == 0);
    let end = Instant::now() + 5 * WINDOW_TIME;
    while Instant::now() < end {
        flow.publish(&session);
        assert_eq!(sockets(&rig), 0);
    }
}

fn a_client_that_is_gone_harms_nobody(engine: Engine) {
    let rig = rig(engine, Listen::At(LOOPBACK));
    let (gone, other) = (rig.connect(), rig.connect());
    Flow::default().play_until(&gone, || sockets(&rig) == 1);
    let Session { client, client_id, origin, .. } = gone;
    drop(client);
    let mut flow = Flow::default();
    for n in 0..WINDOW {
        // Its socket hears that nobody is there.
        origin.send(&data(client_id, n, 100)).unwrap();
        flow.publish(&other);
    }
    // The other one's socket may have come meanwhile; that of the first has no reason to stay.
    flow.publish_until(&other, || sockets(&rig) <= 1);
}

fn a_flood_of_one_client_is_cut_and_costs_the_others_nothing(engine: Engine) {
    let rig = rig(engine, Listen::At(LOOPBACK));
    let (hot, others) = (rig.connect(), [rig.connect(), rig.connect(), rig.connect()]);
    let (mut hot_flow, mut flows) = (Flow::default(), [(); 3].map(|()| Flow::default()));
    let mut publish_all = || {
        let flows = flows.iter_mut().zip(&others);
        flows.for_each(|(flow, session)| flow.publish_in_any_order(session));
    };
    let deadline = Instant::now() + PATIENCE;
    while sockets(&rig) < 4 {
        publish_all();
        hot_flow.publish_in_any_order(&hot);
        assert!(Instant::now() < deadline, "all get sockets");
    }
    let is_over = AtomicBool::new(false);
    let (client, packet) = (&hot.client, data(hot.origin_id, 1, 1316));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) && Instant::now() < deadline {
                client.send(&packet).unwrap();
            }
        });
        let before = rig.counters().io.receive_queue_overflows;
        while rig.counters().io.receive_queue_overflows == before {
            publish_all();
            assert!(Instant::now() < deadline, "the flood is cut, and that is counted");
        }
        is_over.store(true, Ordering::Relaxed);
    });
}

fn a_shard_with_sockets_of_clients_leaves_its_port_free(engine: Engine) {
    let rig = rig(engine, Listen::At(LOOPBACK));
    let session = rig.connect();
    Flow::default().publish_until(&session, || sockets(&rig) == 1);
    let address = rig.address;
    drop(rig);
    UdpSocket::bind(address).expect("the shard has closed all its sockets");
}

/// Numbered packets of one direction.
#[derive(Default)]
struct Flow {
    next: u32,
}

impl Flow {
    fn publish(&mut self, session: &Session) {
        let sent = self.burst();
        session.client_sends(&sent);
        assert_eq!(session.origin_receives(sent.len()), sent);
    }

    fn publish_in_any_order(&mut self, session: &Session) {
        let sent = self.burst();
        session.client_sends(&sent);
        let mut received = session.origin_receives(sent.len());
        received.sort_unstable();
        assert_eq!(received, sent);
    }

    fn play(&mut self, session: &Session) {
        let sent = self.burst();
        session.origin_sends(&sent);
        assert_eq!(session.client_receives(sent.len()), sent);
    }

    fn publish_until(&mut self, session: &Session, is_enough: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_enough() {
            self.publish(session);
            assert!(Instant::now() < deadline, "the sockets of clients are not as they should be");
        }
    }

    fn play_until(&mut self, session: &Session, is_enough: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_enough() {
            self.play(session);
            assert!(Instant::now() < deadline, "the sockets of clients are not as they should be");
        }
    }

    fn burst(&mut self) -> Vec<(u32, usize)> {
        let first = self.next;
        self.next += WINDOW;
        (first..self.next).map(|n| (n, 100)).collect()
    }
}

fn rig(engine: Engine, listen: Listen) -> Rig {
    Rig::with(engine, Setup { listen, clients: quick(), ..Setup::default() })
}

fn sockets(rig: &Rig) -> u64 {
    rig.counters().io.client_sockets
}

/// Judges traffic much more often than a relay does.
fn quick() -> ClientSockets {
    ClientSockets { window: WINDOW_TIME, ..ClientSockets::of_shard(128, 1, 10_000) }
}

const WINDOW_TIME: Duration = Duration::from_millis(40);

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
