//! Other programs: started, listened to, and ended with the test.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How long a test waits for something that happens at once on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running program. Killed when dropped.
pub struct Program {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    said: VecDeque<String>,
    output: Receiver<Vec<u8>>,
}

impl Program {
    /// Starts `command` with all three streams connected. A program that is not installed fails the test: interop is
    /// not optional.
    pub fn start(mut command: Command) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| {
            panic!("{name} does not start: {error} (tests/run installs it)")
        });
        let (line_sender, lines) = channel();
        let stderr = child.stderr.take().unwrap();
        thread::spawn(move || {
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                if line_sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    return;
                }
            }
        });
        let (output_sender, output) = channel();
        let mut stdout = child.stdout.take().unwrap();
        thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while let Ok(length @ 1..) = stdout.read(&mut buffer) {
                if output_sender.send(buffer[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        let stdin = child.stdin.take();
        Self { name, child, stdin, lines, said: VecDeque::new(), output }
    }

    /// Waits for a line on stderr that holds `text`, and returns it.
    pub fn wait_for(&mut self, text: &str) -> String {
        self.wait_for_line(text, PATIENCE).unwrap_or_else(|| {
            panic!("{} never said {text:?}; it said: {:#?}", self.name, self.said)
        })
    }

    /// As `wait_for`, within `patience`; `None` if the line does not come or the program ends.
    pub fn wait_for_line(&mut self, text: &str, patience: Duration) -> Option<String> {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    let found = line.contains(text);
                    self.said.push_back(line.clone());
                    if found {
                        return Some(line);
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// Everything that it has said on stderr so far.
    pub fn said(&mut self) -> String {
        self.said.extend(self.lines.try_iter());
        self.said.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
    }

    /// Writes to its stdin.
    pub fn feed(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().expect("stdin is open");
        stdin.write_all(bytes).and_then(|()| stdin.flush()).unwrap();
    }

    /// Reads exactly `length` bytes of its stdout, or as many as come within the patience.
    pub fn read(&mut self, length: usize) -> Vec<u8> {
        let deadline = Instant::now() + PATIENCE;
        let mut bytes = Vec::new();
        while bytes.len() < length {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.output.recv_timeout(left) {
                Ok(piece) => bytes.extend(piece),
                Err(_) => break,
            }
        }
        bytes
    }

    /// Waits until it has ended by itself: exit code, and how long that took.
    pub fn wait(&mut self) -> (Option<i32>, Duration) {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().unwrap() {
                // What it said last is still on its way from the thread that reads it.
                self.said.extend(self.lines.iter());
                return (status.code(), begun.elapsed());
            }
            // Its stderr closes when it ends: the wait for a line that never comes is the wait for the end.
            self.wait_for_line("\0", Duration::from_millis(20));
            thread::yield_now();
        }
        let said = self.said();
        panic!("{} does not end; it said: {said}", self.name);
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The relay under test, as users run it.
pub struct Ringway {
    pub program: Program,
    pub srt: SocketAddr,
    pub system: SocketAddr,
}

impl Ringway {
    /// Starts it on loopback ports of the kernel's choosing, with `arguments` besides.
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_as(ringway(), arguments)
    }

    /// As `start`, listening for SRT where told.
    pub fn listening(srt: &str, arguments: &[&str]) -> Self {
        let mut all = vec!["--srt-listen", srt];
        all.extend(arguments);
        Self::launch(ringway(), &all)
    }

    /// As `start`, with the environment and wrapper of `command`.
    pub fn start_as(command: Command, arguments: &[&str]) -> Self {
        let mut all = vec!["--srt-listen", "127.0.0.1:0"];
        all.extend(arguments);
        Self::launch(command, &all)
    }

    fn launch(mut command: Command, arguments: &[&str]) -> Self {
        // Variables, so that `arguments` may say otherwise.
        command.envs([
            ("PROXY_WEBRTC_SERVER", "off"),
            ("PROXY_HTTP_API", "off"),
            ("PROXY_SYSTEM_API", "127.0.0.1:0"),
        ]);
        command.args(arguments);
        let mut program = Program::start(command);
        let srt = address_after(&program.wait_for("SRT on "), "SRT on ");
        let system = address_after(&program.wait_for("system API on "), "system API on ");
        let relay = Self { program, srt, system };
        super::http::eventually("the relay is alive", || {
            super::http::get(relay.system, "/livez")
                .is_ok_and(|reply| reply.status == 200)
                .then_some(())
        });
        relay
    }

    /// The established sessions, as the API shows them.
    pub fn sessions(&self) -> Vec<serde_json::Value> {
        let reply = super::http::get(self.system, "/api/v1/sessions").unwrap();
        let sessions = reply.json()["sessions"].as_array().cloned().unwrap_or_default();
        sessions.into_iter().filter(|session| session["state"] == "established").collect()
    }

    /// Waits until there are `count` established sessions, and returns them.
    pub fn wait_for_sessions(&self, count: usize) -> Vec<serde_json::Value> {
        super::http::eventually(&format!("{count} sessions"), || {
            Some(self.sessions()).filter(|sessions| sessions.len() == count)
        })
    }

    /// Waits until no session is left, closing ones included.
    pub fn wait_for_no_sessions(&self) {
        super::http::eventually("no session is left", || {
            let reply = super::http::get(self.system, "/api/v1/sessions").unwrap();
            reply.json()["sessions"].as_array().is_some_and(Vec::is_empty).then_some(())
        });
    }

    /// The value of one line of /metrics, named with its labels.
    pub fn metric(&self, series: &str) -> f64 {
        let text = super::http::get(self.system, "/metrics").unwrap().body;
        text.lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
            .unwrap_or(0.0)
    }
}

/// The relay's binary, without the variables of whoever runs the tests.
pub fn ringway() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
    command.env_clear().current_dir(std::env::temp_dir());
    command
}

pub fn address_after(line: &str, label: &str) -> SocketAddr {
    let rest = line.split(label).nth(1).unwrap();
    let address = rest.split([' ', ',']).next().unwrap();
    address.parse().unwrap_or_else(|error| panic!("{address:?} in {line:?}: {error}"))
}

/// A UDP port that nobody uses. Somebody might take it before its new owner does; nothing else on a test machine
/// binds ports at random in that moment, and a loss shows as a start-up error of the peer.
pub fn free_port(ip: &str) -> u16 {
    UdpSocket::bind((ip, 0)).unwrap().local_addr().unwrap().port()
}

/// Waits until somebody listens on a UDP port of 127.0.0.1: for programs that do not say so.
pub fn wait_for_listener(port: u16) {
    let local = format!("0100007F:{port:04X}");
    super::http::eventually(&format!("UDP port {port} is bound"), || {
        let sockets = std::fs::read_to_string("/proc/net/udp").unwrap();
        sockets.contains(&local).then_some(())
    });
}

/// `srt-live-transmit` of libsrt, talkative enough to tell when it is connected.
pub fn transmit(source: &str, target: &str) -> Program {
    let mut command = Command::new("srt-live-transmit");
    command.args(["-v", "-a:no", "-chunk:1316", source, target]);
    Program::start(command)
}

pub fn ffmpeg(arguments: &[&str]) -> Program {
    let mut command = Command::new("ffmpeg");
    command.args(["-hide_banner", "-nostats", "-loglevel", "info"]).args(arguments);
    Program::start(command)
}
