//! nginx's `stream` module as a relay to compare with: by a configuration file, where it is
//! installed.
//!
//! It gets what a careful operator would give it: one worker on the relay's CPU, `reuseport`, as
//! many datagrams per wake-up as there are (`multi_accept`), no logs, no limits in its way. The
//! default size of its listening socket's buffers is the kernel's, 208 KiB; with
//! [`Buffers::Large`] they are what Ringway and the plain relays ask for. The sockets towards the
//! origin have the kernel's default in both cases: nginx has no directive for them.
#![allow(unsafe_code, reason = "the death signal is set between fork and exec, and nothing else")]

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rustix::process::{
    Pid, Resource, Signal, getrlimit, kill_process, set_parent_process_death_signal,
};

use crate::clock::{self, SECOND};
use crate::measure::ThreadId;

/// An nginx that has the `stream` module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The executable.
    path: PathBuf,
    /// As it calls itself, such as `nginx/1.22.1`.
    pub version: String,
    /// The module to load; `None` where `stream` is built in.
    module: Option<PathBuf>,
}

/// The buffers of the socket that clients send to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Buffers {
    /// The kernel's default.
    Default,
    /// 4 MiB each way, or what `net.core.rmem_max` leaves of it.
    Large,
}

/// What to relay, and where to run.
#[derive(Clone, Copy, Debug)]
pub struct NginxSettings {
    /// Where everything goes to.
    pub origin: SocketAddr,
    /// The CPU of the worker.
    pub cpu: usize,
    /// Sessions at the same time.
    pub sessions: usize,
    /// Of the socket that clients send to.
    pub buffers: Buffers,
}

/// A running nginx. Dropping it ends it.
pub struct Nginx {
    master: Child,
    worker: ThreadId,
    address: SocketAddr,
    /// Configuration and pid file.
    directory: PathBuf,
}

impl Program {
    /// Asks the nginx of this machine, if it has one, for its modules. `None` where there is no
    /// nginx or no `stream` module.
    #[must_use]
    pub fn find() -> Option<Self> {
        PLACES.iter().find_map(|path| Self::ask(Path::new(path)))
    }

    fn ask(path: &Path) -> Option<Self> {
        let output = Command::new(path).arg("-V").stdin(Stdio::null()).output().ok()?;
        let told = String::from_utf8_lossy(&output.stderr);
        let (version, module) = read_build(&told)?;
        let is_there = module.as_ref().is_none_or(|module| module.is_file());
        is_there.then(|| Self { path: path.to_owned(), version, module })
    }
}

/// Version and `stream` module as `nginx -V` tells them. `None` when it was built without.
fn read_build(told: &str) -> Option<(String, Option<PathBuf>)> {
    let version = told.lines().find_map(|line| line.strip_prefix("nginx version: "))?;
    let version = version.split(' ').next()?.to_owned();
    let option =
        |name: &str| told.split_ascii_whitespace().find_map(|word| word.strip_prefix(name));
    match option("--with-stream=").or(option("--with-stream").filter(|rest| rest.is_empty()))? {
        "dynamic" => {
            let directory = option("--modules-path=").map_or_else(
                || PathBuf::from(option("--prefix=").unwrap_or("/usr/local/nginx")).join("modules"),
                PathBuf::from,
            );
            Some((version, Some(directory.join("ngx_stream_module.so"))))
        }
        _ => Some((version, None)),
    }
}

impl Nginx {
    /// Starts it on a port that is free, and waits for its worker.
    ///
    /// # Errors
    /// It does not start; what it says about that stands on standard error.
    pub fn start(program: &Program, settings: NginxSettings) -> anyhow::Result<Self> {
        // nginx cannot be handed a socket or told to take any port. Between the close here and its
        // own bind the port may be taken, and then it says so and ends.
        let listen = UdpSocket::bind(SocketAddr::new(settings.origin.ip(), 0))
            .and_then(|socket| socket.local_addr())
            .context("find a free port for nginx")?;
        let directory = private_directory(listen.port()).context("make a directory for nginx")?;
        let text = configuration(program, settings, listen, &directory);
        let file = directory.join("nginx.conf");
        let started = fs::write(&file, text).and_then(|()| launch(program, &directory, &file));
        let master = match started {
            Ok(master) => master,
            Err(error) => {
                // Nothing of it is left to use.
                let _ = fs::remove_dir_all(&directory);
                return Err(error).with_context(|| format!("start {}", program.path.display()));
            }
        };
        let worker = ThreadId { pid: 0, tid: 0 };
        let mut nginx = Self { master, worker, address: listen, directory };
        nginx.worker = nginx.await_worker()?;
        Ok(nginx)
    }

    fn await_worker(&mut self) -> anyhow::Result<ThreadId> {
        let deadline = clock::now() + START_PATIENCE;
        loop {
            if let Some(pid) = worker_of(self.master.id()) {
                return Ok(ThreadId { pid, tid: pid });
            }
            let ended = self.master.try_wait().context("watch nginx")?;
            ensure!(ended.is_none(), "nginx has ended; its own message stands above");
            ensure!(clock::now() < deadline, "nginx has started no worker within 5 s");
            clock::pause(Duration::from_millis(5));
        }
    }

    /// Where clients send to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The process that relays; it has one thread.
    #[must_use]
    pub fn worker(&self) -> ThreadId {
        self.worker
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // A master that has ended has nothing to be told, and one that is told ends its worker.
        let _ = kill_process(Pid::from_child(&self.master), Signal::TERM);
        let _ = self.master.wait();
        // What is left behind then is a file in a directory for temporary ones.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn launch(program: &Program, directory: &Path, file: &Path) -> io::Result<Child> {
    let mut command = Command::new(&program.path);
    command.arg("-p").arg(directory).arg("-c").arg(file);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    // SAFETY: between fork and exec the closure makes one system call and touches no memory that
    // another thread may hold locked.
    unsafe {
        // A measurement that is killed must not leave an nginx behind.
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::TERM))?));
    }
    command.spawn()
}

fn private_directory(port: u16) -> io::Result<PathBuf> {
    let name = format!("ringway-nginx-{}-{port}", std::process::id());
    let path = std::env::temp_dir().join(name);
    fs::DirBuilder::new().mode(0o700).create(&path)?;
    Ok(path)
}

fn configuration(
    program: &Program,
    settings: NginxSettings,
    listen: SocketAddr,
    directory: &Path,
) -> String {
    // A session is two connections to nginx; the rest is what it keeps for itself.
    let connections = settings.sessions * 2 + 1_024;
    let descriptors = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let descriptors = descriptors.min(connections as u64 + 1_024);
    let buffers = match settings.buffers {
        Buffers::Default => "",
        Buffers::Large => " rcvbuf=4m sndbuf=4m",
    };
    let mut text = String::new();
    if let Some(module) = &program.module {
        // Writing to a string does not fail.
        let _ = writeln!(text, "load_module {};", module.display());
    }
    let _ = write!(
        text,
        "daemon off;
worker_processes 1;
worker_cpu_affinity 1{zeroes};
worker_rlimit_nofile {descriptors};
pid {directory}/nginx.pid;
error_log stderr crit;
events {{
    worker_connections {connections};
    multi_accept on;
}}
stream {{
    access_log off;
    server {{
        listen {listen} udp reuseport{buffers};
        proxy_pass {origin};
        proxy_timeout 1h;
    }}
}}
",
        zeroes = "0".repeat(settings.cpu),
        directory = directory.display(),
        origin = settings.origin,
    );
    text
}

/// The worker among the children of `master`, once it calls itself one.
fn worker_of(master: u32) -> Option<i32> {
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        // Behind the name in parentheses: state, parent.
        let parent = stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?;
        let title = fs::read(entry.path().join("cmdline")).ok()?;
        (parent.parse() == Ok(master) && title.starts_with(b"nginx: worker")).then_some(pid)
    })
}

/// The search path first; then where distributions put it, which is not on everybody's.
const PLACES: [&str; 4] =
    ["nginx", "/usr/sbin/nginx", "/usr/local/sbin/nginx", "/usr/local/nginx/sbin/nginx"];
const START_PATIENCE: u64 = 5 * SECOND;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_stream_module_lies_in_the_path_of_the_modules() {
        let told = "nginx version: nginx/1.22.1\nbuilt with OpenSSL\nconfigure arguments: \
                    --with-stream_ssl_module --modules-path=/lib/n --with-stream=dynamic\n";
        let module = Some(PathBuf::from("/lib/n/ngx_stream_module.so"));
        assert_eq!(read_build(told), Some(("nginx/1.22.1".to_owned(), module)));
    }

    #[test]
    fn a_stream_module_that_is_built_in_needs_no_loading() {
        let told = "nginx version: nginx/1.28.0 (x)\nconfigure arguments: --with-stream\n";
        assert_eq!(read_build(told), Some(("nginx/1.28.0".to_owned(), None)));
    }

    #[test]
    fn an_nginx_without_the_stream_module_is_none() {
        let told = "nginx version: nginx/1.28.0\nconfigure arguments: --with-stream_ssl_module\n";
        assert_eq!(read_build(told), None);
    }

    #[test]
    fn the_worker_is_bound_to_the_cpu_of_the_relay() {
        let program = Program { path: "nginx".into(), version: String::new(), module: None };
        let origin: SocketAddr = "127.0.0.1:9".parse().unwrap();
        let settings = NginxSettings { origin, cpu: 2, sessions: 10, buffers: Buffers::Large };
        let text = configuration(&program, settings, origin, Path::new("/tmp/x"));
        assert!(text.contains("worker_cpu_affinity 100;"), "{text}");
        assert!(text.contains("listen 127.0.0.1:9 udp reuseport rcvbuf=4m sndbuf=4m;"), "{text}");
    }
}
