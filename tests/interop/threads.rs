//! A relay that has lost a thread looks alive and is not: the process ends, so that its supervisor
//! starts it anew.

use std::time::Duration;

use rustix::process::Signal;

use crate::support::caller::{Caller, Origin, socket_near};
use crate::support::http;
use crate::support::process::{Ringway, ringway};
use crate::support::thread_fault::{Kind, ThreadFault};

#[test]
fn a_panic_of_a_shard_ends_the_process_with_code_1() {
    for engine in ["uring", "mmsg", "tokio-uring"] {
        let origin = Origin::start();
        let mut command = ringway();
        let fault = ThreadFault::prepare(&mut command, "shard-0", Kind::Panic);
        let arguments = ["--engine", engine, "--origin", &origin.flag("a")];
        let mut relay = Ringway::start_as(command, &arguments);
        let _caller = Caller::connect(relay.srt, 7, "#!::r=live/cam,m=publish");
        fault.strike();
        assert_ends_with_panic(&mut relay, "shard-0");
    }
}

#[test]
fn a_panic_of_control_ends_the_process_with_code_1() {
    let mut command = ringway();
    let fault = ThreadFault::prepare(&mut command, "control", Kind::Panic);
    let mut relay = Ringway::start_as(command, &[]);
    fault.strike();
    // Wakes it. Whether there will be an answer is open.
    let _ = http::get(relay.system, "/livez");
    assert_ends_with_panic(&mut relay, "control");
}

#[test]
fn a_shard_that_hangs_does_not_keep_the_relay_from_quitting() {
    for engine in ["uring", "mmsg", "tokio-uring"] {
        let mut command = ringway();
        let fault = ThreadFault::prepare(&mut command, "shard-0", Kind::Hang);
        let quick = ["--grace-quit-timeout", "500ms", "--force-quit-timeout", "2s"];
        let arguments = ["--engine", engine, "--shards", "1"];
        let mut relay = Ringway::start_as(command, &[quick, arguments].concat());
        fault.strike();
        // It goes on when it wakes up, and no further than to its clock.
        socket_near(relay.srt).send(b"awake").unwrap();
        http::eventually("the shard hangs", || {
            http::get(relay.system, "/metrics")
                .is_ok_and(|reply| reply.body.contains("ringway_shard_up{shard=\"0\"} 0"))
                .then_some(())
        });
        relay.program.signal(Signal::TERM);
        let (code, took) = relay.program.wait();
        let said = relay.program.said();
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("--force-quit-timeout 2s"), "{said}");
        assert!(took >= Duration::from_millis(1500), "it was given its time: {took:?}");
    }
}

fn assert_ends_with_panic(relay: &mut Ringway, thread: &str) {
    let (code, took) = relay.program.wait();
    let said = relay.program.said();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&format!("thread '{thread}'")), "{said}");
    // Nobody waits for the other threads, which would take --force-quit-timeout.
    assert!(took < Duration::from_secs(10), "{took:?}");
}
