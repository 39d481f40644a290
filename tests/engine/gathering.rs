//! Waiting for several datagrams (`--batch-wait`) changes when datagrams are relayed and nothing
//! else, and it leaves sparse ones alone.

use std::time::{Duration, Instant};

use ringway::engine::Engine;

use super::{NONE, PATIENCE, Rig, Setup, WINDOW};

on_each_engine_for_production! {
    what_has_been_waited_for_arrives_whole_and_in_order,
    what_has_been_waited_for_arrives_although_there_are_few_buffers,
    sparse_datagrams_are_not_waited_for,
    a_shard_that_waits_for_datagrams_hears_commands_and_stops,
}

fn what_has_been_waited_for_arrives_whole_and_in_order(engine: Engine) {
    let rig = gathering(engine, Setup::default().buffers, LONGEST);
    relay_until_it_gathers(&rig);
}

fn what_has_been_waited_for_arrives_although_there_are_few_buffers(engine: Engine) {
    for buffers in [1, 8] {
        let rig = gathering(engine, buffers, LONGEST);
        let session = rig.connect();
        for burst in 0..100 {
            let sent: Vec<_> = (burst * WINDOW..(burst + 1) * WINDOW).map(|n| (n, 600)).collect();
            session.client_sends(&sent);
            assert_eq!(session.origin_receives(sent.len()), sent);
        }
    }
}

fn sparse_datagrams_are_not_waited_for(engine: Engine) {
    // One at a time: several never arrive within the shortest window.
    let rig = gathering(engine, Setup::default().buffers, Duration::from_micros(10));
    let session = rig.connect();
    for n in 0..500 {
        session.client_sends(&[(n, 1000)]);
        assert_eq!(session.origin_receives(1), [(n, 1000)]);
    }
    assert_eq!(rig.counters().io.gather_waits, 0);
}

fn a_shard_that_waits_for_datagrams_hears_commands_and_stops(engine: Engine) {
    let rig = gathering(engine, Setup::default().buffers, LONGEST);
    relay_until_it_gathers(&rig);
    let asked = Instant::now();
    rig.counters();
    assert!(asked.elapsed() < PATIENCE / 10, "{:?}", asked.elapsed());
    drop(rig);
}

fn gathering(engine: Engine, buffers: u16, wait: Duration) -> Rig {
    let setup = Setup { buffers, offloads: NONE, batch_wait: Some(wait), ..Setup::default() };
    Rig::with(engine, setup)
}

/// In both directions.
fn relay_until_it_gathers(rig: &Rig) {
    let session = rig.connect();
    let deadline = Instant::now() + PATIENCE;
    for burst in 0.. {
        let sent: Vec<_> = (burst * WINDOW..(burst + 1) * WINDOW).map(|n| (n, 1000)).collect();
        session.client_sends(&sent);
        assert_eq!(session.origin_receives(sent.len()), sent);
        session.origin_sends(&sent);
        assert_eq!(session.client_receives(sent.len()), sent);
        let io = rig.counters().io;
        if io.gather_waits >= 10 {
            assert!(io.gathered_receives >= 4 * (io.gather_waits - 1), "{io:?}");
            return;
        }
        assert!(Instant::now() < deadline, "it does not wait for datagrams: {io:?}");
    }
}

/// So long that even a slow test is dense traffic.
const LONGEST: Duration = Duration::from_millis(2);
