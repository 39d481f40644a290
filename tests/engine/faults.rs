//! What the kernel can answer beside "yes": each answer is provoked, and is handled and counted.

use std::mem::ManuallyDrop;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{FromRawFd, OwnedFd};

use ringway::engine::{self, Engine, EngineError, Offloads, ShardSpec};
use ringway::mailbox::mailbox;
use ringway::shard::{Command, DropReason, EndReason, Event, OriginId};

use super::{
    Caller, HEADER, NONE, PATIENCE, Rig, Session, Setup, WINDOW, data, receive, send_train,
    set_option, shard_config, train, word,
};

on_each_engine! {
    a_session_whose_segmented_sends_are_refused_goes_on_datagram_by_datagram,
    a_train_that_cannot_leave_is_counted_datagram_by_datagram,
    a_batch_that_fails_as_a_whole_is_counted_and_the_engine_goes_on,
    a_completion_queue_that_overflows_loses_nothing,
    a_batch_of_more_messages_than_the_queue_takes_leaves_in_order,
    an_origin_without_a_route_is_a_refusal,
    an_error_that_a_receive_reports_is_counted,
    receives_that_end_with_their_port_are_no_errors,
    a_closed_port_of_an_origin_does_not_cost_the_datagram_that_reports_it,
    ports_that_close_while_datagrams_arrive_leave_nothing_to_their_successors,
    an_engine_that_cannot_go_on_says_so_and_ends,
}

fn a_session_whose_segmented_sends_are_refused_goes_on_datagram_by_datagram(engine: Engine) {
    let rig = Rig::start(engine);
    let session = rig.connect();
    // A socket that computes no checksums refuses segmented sends with EINVAL.
    let port = port_of(&session);
    set_option(&port, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1);
    for _ in 0..3 {
        send_train(&session.client, &train(session.origin_id, 10, 1000, 300), 1000 + HEADER);
        let expected: Vec<_> = (0..9).map(|n| (n, 1000)).chain([(9, 300)]).collect();
        assert_eq!(session.origin_receives(10), expected);
    }
    // The port has one path only: what it refused once is not tried again.
    assert_eq!(rig.counters().io.gso_fallbacks, 1);
}

fn a_train_that_cannot_leave_is_counted_datagram_by_datagram(engine: Engine) {
    let rig = Rig::start(engine);
    let session = rig.connect();
    let before = rig.counters();
    shut_down_sending(&port_of(&session));
    send_train(&session.client, &train(session.origin_id, 10, 1000, 300), 1000 + HEADER);
    // What goes the other way still passes, and shows that the train has been dealt with.
    session.origin_sends(&[(1, 100)]);
    assert_eq!(session.client_receives(1), [(1, 100)]);
    let after = rig.await_counters(|now| now.drops[DropReason::SendError as usize] >= 10);
    assert_eq!(after.drops[DropReason::SendError as usize], 10);
    assert_eq!(
        after.srt.origin_out, before.srt.origin_out,
        "what did not leave is not counted as sent"
    );
}

fn a_batch_that_fails_as_a_whole_is_counted_and_the_engine_goes_on(engine: Engine) {
    // Trains come in and datagrams go out, through a short queue.
    let offloads = Offloads { gso: false, gro: true };
    let setup = Setup { offloads, buffers: 8, submissions: 4, ..Setup::default() };
    let rig = Rig::with(engine, setup);
    let session = rig.connect();
    shut_down_sending(&port_of(&session));
    let (rounds, per_round) = (20, 8 * 60);
    for round in 1..=rounds {
        for _ in 0..8 {
            send_train(&session.client, &train(session.origin_id, 60, 1000, 1000), 1000 + HEADER);
        }
        let dealt_with = round * per_round;
        rig.await_counters(|now| now.drops[DropReason::SendError as usize] >= dealt_with);
    }
    assert_eq!(rig.dropped(DropReason::SendError), rounds * per_round);
    let next = rig.connect();
    next.client_sends(&[(2, 100)]);
    assert_eq!(next.origin_receives(1), [(2, 100)]);
}

fn a_completion_queue_that_overflows_loses_nothing(engine: Engine) {
    let setup = Setup { submissions: 2, completions_max: 2, ..Setup::default() };
    let rig = Rig::with(engine, setup);
    let sessions: Vec<_> = (0..8).map(|_| rig.connect()).collect();
    for burst in 0..30 {
        let sent: Vec<_> = (0..8).map(|n| (burst * 8 + n, 600)).collect();
        sessions.iter().for_each(|session| session.origin_sends(&sent));
        for session in &sessions {
            assert_eq!(session.client_receives(sent.len()), sent);
        }
    }
    // That the counters arrive shows that the mailbox is still watched.
    let io = rig.counters().io;
    let has_overflown = io.completion_overflows > 0 && io.rearmed > 0;
    assert_eq!(has_overflown, engine == Engine::Uring, "{io:?}");
}

fn a_batch_of_more_messages_than_the_queue_takes_leaves_in_order(engine: Engine) {
    let offloads = Offloads { gso: false, gro: true };
    let setup = Setup { offloads, buffers: 8, submissions: 4, ..Setup::default() };
    let rig = Rig::with(engine, setup);
    let session = rig.connect();
    for _ in 0..10 {
        send_train(&session.client, &train(session.origin_id, 60, 1000, 1000), 1000 + HEADER);
        let expected: Vec<_> = (0..60).map(|n| (n, 1000)).collect();
        assert_eq!(session.origin_receives(60), expected);
    }
}

fn an_origin_without_a_route_is_a_refusal(engine: Engine) {
    let rig = Rig::start(engine);
    let caller = Caller::conclude(rig.address, 4711);
    let (session, _) = rig.await_pick();
    // Nobody connects to all hosts of a network: EACCES or ENETUNREACH.
    let address = SocketAddr::from(([255, 255, 255, 255], 9));
    rig.tell(Command::Open { session, origin: OriginId(1), address });
    let answer = receive(&caller.socket);
    assert_eq!(word(&answer, 36), 2502, "the rejection says: bad gateway");
    rig.await_event(|event| matches!(event, Event::Ended { .. }).then_some(()));
}

fn an_error_that_a_receive_reports_is_counted(engine: Engine) {
    let rig = Rig::start(engine);
    let Session { client, origin, origin_id, .. } = rig.connect();
    assert_eq!(rig.counters().io.receive_errors, 0);
    drop(origin);
    // One datagram only: no later send could take the ICMP message away from the receive.
    client.send(&data(origin_id, 1, 100)).unwrap();
    let counters = rig.await_counters(|now| now.io.receive_errors > 0);
    assert_eq!(counters.io.receive_errors, 1);
    assert_eq!(counters.io.ring_starved, 0);
}

fn receives_that_end_with_their_port_are_no_errors(engine: Engine) {
    let rig = Rig::start(engine);
    let session = rig.connect();
    rig.tell(Command::Close { session: session.key, reason: EndReason::Quit });
    rig.await_event(|event| matches!(event, Event::Ended { .. }).then_some(()));
    // The successor's traffic passes after everything that the predecessor's port had to report.
    let next = rig.connect();
    next.client_sends(&[(1, 100)]);
    assert_eq!(next.origin_receives(1), [(1, 100)]);
    assert_eq!(rig.counters().io.receive_errors, 0);
}

fn a_closed_port_of_an_origin_does_not_cost_the_datagram_that_reports_it(engine: Engine) {
    let rig = Rig::start(engine);
    let session = rig.connect();
    let address = session.origin.local_addr().unwrap();
    let port = session.origin.peer_addr().unwrap();
    let Session { client, origin, origin_id, .. } = session;
    drop(origin);
    // Reaches the relay and then a closed port. The ICMP message waits in the relay's socket and is
    // told to the next receive or send, whichever comes first.
    for n in 0..WINDOW {
        client.send(&data(origin_id, n, 100)).unwrap();
    }
    let sent = rig.counters();
    let origin = UdpSocket::bind(address).unwrap();
    origin.connect(port).unwrap();
    origin.set_read_timeout(Some(PATIENCE)).unwrap();
    client.send(&data(origin_id, WINDOW, 100)).unwrap();
    let last = data(origin_id, WINDOW, 100);
    while receive(&origin) != last {}
    // A send that was refused in place of an earlier one was repeated.
    assert_eq!(sent.drops[DropReason::Refused as usize], 0);
    assert_eq!(sent.drops[DropReason::SendError as usize], 0);
}

fn ports_that_close_while_datagrams_arrive_leave_nothing_to_their_successors(engine: Engine) {
    let rig = Rig::start(engine);
    let sessions: Vec<_> = (0..20).map(|_| rig.connect()).collect();
    for session in &sessions {
        rig.tell(Command::Close { session: session.key, reason: EndReason::Operator });
    }
    // What arrives until a port is gone belongs to nobody, the next tenant of its slot included.
    for session in &sessions {
        let late = data(session.client_id, 7, 100);
        while session.origin.send(&late).is_ok() {}
    }
    let next = rig.connect();
    next.origin_sends(&[(1, 100)]);
    assert_eq!(next.client_receives(1), [(1, 100)]);
}

fn an_engine_that_cannot_go_on_says_so_and_ends(engine: Engine) {
    // It looks like a listener until it is received from: ENOTCONN.
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    let (_commands, from_control) = mailbox(1).unwrap();
    let (to_control, events) = mailbox(1).unwrap();
    let spec = ShardSpec {
        index: 5,
        cpu: None,
        listeners: vec![UdpSocket::from(OwnedFd::from(tcp))],
        config: shard_config(),
        commands: from_control,
        events: to_control,
        offloads: NONE,
        settings: Setup::default().settings(),
    };
    let shard = engine::start(engine, spec).unwrap();
    // Makes it readable; the thread may have ended already.
    let _ = TcpStream::connect(address);
    let result = shard.join.join().unwrap();
    let errno = match result.unwrap_err() {
        EngineError::Ring(error) | EngineError::Poll(error) => error.raw_os_error(),
        other => panic!("{other}"),
    };
    assert_eq!(errno, Some(libc::ENOTCONN));
    let last_words = events.take().unwrap();
    assert!(matches!(last_words.event, Event::Failed));
    assert_eq!(last_words.shard, 5);
}

/// The shard's own socket towards the session's origin: the only one in this process that is
/// connected the other way round.
#[allow(unsafe_code, reason = "the shard hands its descriptors to nobody")]
pub(super) fn port_of(session: &Session) -> UdpSocket {
    let local = session.origin.peer_addr().unwrap();
    let peer = session.origin.local_addr().unwrap();
    let is_it = |socket: &UdpSocket| {
        socket.local_addr().ok() == Some(local) && socket.peer_addr().ok() == Some(peer)
    };
    let entries = std::fs::read_dir("/proc/self/fd").unwrap();
    let descriptors = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let copies = descriptors.filter_map(|fd| {
        // SAFETY: it is asked for its addresses, copied and never closed. If it is not a socket, or
        // not any more, that fails.
        let socket = ManuallyDrop::new(unsafe { UdpSocket::from_raw_fd(fd) });
        is_it(&socket).then(|| socket.try_clone().ok())?
    });
    copies.into_iter().find(is_it).expect("the session has a port")
}

/// Every send from `socket` fails from now on, with EPIPE.
fn shut_down_sending(socket: &UdpSocket) {
    rustix::net::shutdown(socket, rustix::net::Shutdown::Write).unwrap();
}
