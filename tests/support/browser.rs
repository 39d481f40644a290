//! Chromium without a screen, as publisher or player: it loads `peers/browser.html`, which reports each
//! step and is told what to do next.

use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;

use super::http_server::{HttpServer, Request, Response};
use super::network::missing;
use super::process::{PATIENCE, Program};

pub struct Browser {
    program: Program,
    steps: Receiver<Step>,
    profile: PathBuf,
    _page: HttpServer,
}

/// What the page has reported, and where it waits for a word.
struct Step {
    facts: Value,
    reply: Sender<&'static str>,
}

const PAGE: &str = include_str!("peers/browser.html");

impl Browser {
    /// Starts it on the host of the calling thread. Where there is no Chromium the test fails, unless
    /// `RINGWAY_WITHOUT_CHROMIUM` is set; then there is no browser.
    pub fn start(role: &str, endpoint: &str) -> Option<Self> {
        if !is_installed() {
            missing("chromium is not installed (tests/run does it)", "RINGWAY_WITHOUT_CHROMIUM");
            return None;
        }
        let (sender, steps) = channel();
        let sender = Mutex::new(sender);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let page = HttpServer::start(listener, move |request| serve(&request, &sender));
        let url = format!("http://{}/?role={role}&url={}", page.address, escape(endpoint));
        let name = format!("ringway-browser-{}-{}", std::process::id(), fresh_number());
        let profile = std::env::temp_dir().join(name);
        let mut command = Command::new("chromium");
        command.args(FLAGS).arg(format!("--user-data-dir={}", profile.display())).arg(url);
        // Its children are many; they go as one.
        command.process_group(0);
        let program = Program::start(command);
        Some(Self { program, steps, profile, _page: page })
    }

    /// Waits for the next step, which must be `name`, and tells the page what to do `then`.
    pub fn step(&mut self, name: &str, then: &'static str) -> Value {
        let Ok(step) = self.steps.recv_timeout(PATIENCE) else {
            panic!("no step {name:?} of the browser; it said: {}", self.program.said());
        };
        assert_eq!(step.facts["step"], name, "{}", step.facts);
        step.reply.send(then).unwrap();
        step.facts
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if let Some(group) = i32::try_from(self.program.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.program.wait();
        let _ = std::fs::remove_dir_all(&self.profile);
    }
}

fn serve(request: &Request, steps: &Mutex<Sender<Step>>) -> Option<Response> {
    match (request.method.as_str(), request.path()) {
        ("GET", "/") => Some(Response::new(200).body("text/html", PAGE)),
        ("POST", "/report") => {
            let facts = serde_json::from_str(&request.body).ok()?;
            let (reply, told) = channel();
            steps.lock().unwrap().send(Step { facts, reply }).ok()?;
            Some(Response::new(200).body("text/plain", told.recv().ok()?))
        }
        _ => Some(Response::new(404)),
    }
}

fn is_installed() -> bool {
    let mut command = Command::new("chromium");
    command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// What stands for itself nowhere in a query.
fn escape(text: &str) -> String {
    text.replace('%', "%25").replace('&', "%26").replace('?', "%3F").replace('=', "%3D")
}

fn fresh_number() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

const FLAGS: [&str; 14] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
    "--disable-quic",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--mute-audio",
];
