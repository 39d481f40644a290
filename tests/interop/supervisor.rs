//! What systemd hears of the relay, by a stand-in for its socket.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::caller::{Caller, Origin, socket_near};
use crate::support::http::{get, request};
use crate::support::process::{PATIENCE, Ringway, ringway};
use crate::support::thread_fault::{Kind, ThreadFault};

/// Listens where NOTIFY_SOCKET leads.
struct Supervisor {
    socket: UnixDatagram,
    /// How NOTIFY_SOCKET names it.
    name: String,
    path: Option<PathBuf>,
}

impl Supervisor {
    fn at_a_path() -> Self {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(unique());
        let name = path.to_str().unwrap().to_owned();
        Self { socket: UnixDatagram::bind(&path).unwrap(), name, path: Some(path) }
    }

    fn at_an_abstract_name() -> Self {
        let name = unique();
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        Self { socket, name: format!("@{name}"), path: None }
    }

    /// A relay that it starts, with its watchdog at that many microseconds.
    fn command(&self, watchdog: &str) -> Command {
        let mut command = ringway();
        command.env("NOTIFY_SOCKET", &self.name).env("WATCHDOG_USEC", watchdog);
        command
    }

    /// The next message; `None` when there is none within `patience`.
    fn hear(&self, patience: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(patience)).unwrap();
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
    }

    /// The first message that has a line which begins so.
    fn wait_for(&self, line: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut heard = Vec::new();
        while Instant::now() < deadline {
            let Some(message) = self.hear(Duration::from_secs(1)) else { continue };
            if message.lines().any(|one| one.starts_with(line)) {
                return message;
            }
            heard.push(message);
        }
        panic!("{line} was never heard; this was: {heard:#?}");
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("ringway-notify-{}-{number}", std::process::id())
}

/// A minute: no test waits for its signs of life.
const RARELY: &str = "60000000";
/// Fifth parts of a second.
const OFTEN: &str = "200000";

#[test]
fn a_supervisor_hears_that_the_relay_serves_and_that_it_stops() {
    for supervisor in [Supervisor::at_a_path(), Supervisor::at_an_abstract_name()] {
        let mut relay = Ringway::start_as(supervisor.command(RARELY), &[]);
        let first = supervisor.hear(PATIENCE).unwrap();
        assert!(first.starts_with("READY=1\n"), "{first}");
        assert!(first.contains("\nSTATUS=waiting for an origin, 0 sessions\n"), "{first}");
        assert!(first.ends_with("\nWATCHDOG=1"), "{first}");
        relay.program.signal(Signal::TERM);
        let last = supervisor.wait_for("STOPPING=1");
        assert!(last.contains("STATUS=quitting, 0 sessions"), "{last}");
        assert_eq!(relay.program.wait().0, Some(0));
    }
}

#[test]
fn without_a_watchdog_there_are_no_signs_of_life() {
    let supervisor = Supervisor::at_a_path();
    let mut command = ringway();
    command.env("NOTIFY_SOCKET", &supervisor.name);
    let relay = Ringway::start_as(command, &[]);
    assert!(supervisor.wait_for("READY=1").starts_with("READY=1"));
    relay.program.signal(Signal::TERM);
    let mut rest = std::iter::from_fn(|| supervisor.hear(Duration::from_secs(2)));
    assert!(rest.all(|message| !message.contains("WATCHDOG")));
}

#[test]
fn the_status_tells_of_sessions_and_of_a_drain() {
    let supervisor = Supervisor::at_a_path();
    let origin = Origin::start();
    let command = supervisor.command(RARELY);
    let relay = Ringway::start_as(command, &["--origin", &origin.flag("a")]);
    supervisor.wait_for("READY=1");
    let _live = Caller::connect(relay.srt, 7, "#!::r=live/cam,m=publish");
    supervisor.wait_for("STATUS=serving, 1 session");
    assert_eq!(request(relay.system, "POST", "/api/v1/drain", &[], "").unwrap().status, 200);
    supervisor.wait_for("STATUS=draining, 1 session");
}

#[test]
fn signs_of_life_come_at_half_of_the_watchdogs_time_and_through_a_quit_with_sessions() {
    let supervisor = Supervisor::at_a_path();
    let origin = Origin::start();
    let command = supervisor.command(OFTEN);
    let relay = Ringway::start_as(command, &["--origin", &origin.flag("a")]);
    supervisor.wait_for("READY=1");
    let begun = Instant::now();
    for _ in 0..10 {
        supervisor.wait_for("WATCHDOG=1");
    }
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(800), "no more often than needed: {took:?}");
    let _live = Caller::connect(relay.srt, 7, "#!::r=live/cam,m=publish");
    relay.wait_for_sessions(1);
    relay.program.signal(Signal::TERM);
    supervisor.wait_for("STOPPING=1");
    supervisor.wait_for("WATCHDOG=1");
}

#[test]
fn a_shard_that_hangs_stops_the_signs_of_life() {
    for engine in ["uring", "mmsg", "tokio-uring"] {
        let supervisor = Supervisor::at_an_abstract_name();
        let mut command = supervisor.command(OFTEN);
        let fault = ThreadFault::prepare(&mut command, "shard-0", Kind::Hang);
        let relay = Ringway::start_as(command, &["--engine", engine, "--shards", "2"]);
        supervisor.wait_for("WATCHDOG=1");
        fault.strike();
        // What it had answered before may still be passed on.
        let is_silent = || supervisor.hear(Duration::from_secs(2)).is_none();
        assert!((0..20).any(|_| is_silent()), "{engine}: it goes on telling that it lives");
        assert_eq!(get(relay.system, "/readyz").unwrap().status, 503, "control answers");
    }
}

#[test]
fn control_that_hangs_stops_the_signs_of_life() {
    let supervisor = Supervisor::at_a_path();
    let mut command = supervisor.command(OFTEN);
    let fault = ThreadFault::prepare(&mut command, "control", Kind::Hang);
    let relay = Ringway::start_as(command, &[]);
    supervisor.wait_for("WATCHDOG=1");
    fault.strike();
    assert!((0..20).any(|_| supervisor.hear(Duration::from_secs(2)).is_none()));
    assert!(socket_near(relay.srt).send(b"the shards live").is_ok());
}

#[test]
fn a_supervisor_that_cannot_be_told_anything_is_named_in_the_log_and_the_relay_serves() {
    for (socket, word) in [("nonsense", "nonsense"), ("/nonexistent/notify", "NOTIFY_SOCKET")] {
        let mut command = ringway();
        command.env("NOTIFY_SOCKET", socket);
        let mut relay = Ringway::start_as(command, &[]);
        let said = relay.program.said();
        if !said.contains(word) {
            relay.program.wait_for(word);
        }
        assert_eq!(get(relay.system, "/livez").unwrap().status, 200);
    }
}

#[test]
fn the_unit_file_gives_the_relay_more_time_to_stop_than_it_takes() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tuning/ringway.service");
    let unit = std::fs::read_to_string(path).unwrap();
    let value = |key| unit.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    assert_eq!(value("Type="), "notify");
    let stop = value("TimeoutStopSec=").strip_suffix('s').unwrap().parse().unwrap();
    let force = ringway::config::Config::default().force_quit_timeout;
    assert!(Duration::from_secs(stop) > force + Duration::from_secs(5), "{force:?}");
}
