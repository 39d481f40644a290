//! Two hosts with a cable between them, as network namespaces of two threads: for what loopback
//! cannot do, such as a host that does not answer or a path with a small MTU.
//!
//! It takes CAP_SYS_ADMIN and the program `ip`. A test of somebody else than root runs in a process
//! of its own, in a namespace of users where it is root.
#![allow(unsafe_code, reason = "a thread moves into a namespace of its own")]

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd};
use std::panic::resume_unwind;
use std::process::Command;
use std::thread;

use rustix::process::geteuid;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// The far host, seen from the near one, on which the test runs.
pub struct Network {
    far: Host,
}

/// A host beside the one that a test runs on.
pub struct Host {
    namespace: File,
}

pub const NEAR: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 1));
pub const FAR: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 2));

/// The exit code of a test program.
const TEST_FAILED: i32 = 101;

impl Network {
    /// Runs `test` on a near host. Threads and sockets that it makes are on that host, too.
    ///
    /// Where namespaces are refused the test fails, unless `RINGWAY_WITHOUT_NAMESPACES` is set.
    pub fn run(test: impl FnOnce(&Self) + Send) {
        Self::run_on_a_host(|| test(&Self::build()));
    }

    /// Runs `test` on a host of its own, which has no cable yet. As for what is refused, see
    /// [`Self::run`].
    pub fn run_on_a_host(test: impl FnOnce() + Send) {
        if !geteuid().is_root() {
            return run_as_root_of_a_namespace();
        }
        on_a_thread(|| {
            // SAFETY: this thread shares descriptors and memory with the others as before; a
            // network namespace takes nothing from them.
            match unsafe { unshare_unsafe(UnshareFlags::NEWNET) } {
                Ok(()) => test(),
                Err(error) => refused(&error.to_string()),
            }
        });
    }

    fn build() -> Self {
        let network = Self { far: Host::cabled("near", "far") };
        ip("link set lo up");
        ip(&format!("address add {NEAR}/24 dev near"));
        ip("link set near up");
        // The test decides when the far host is given up, and it answers soon when it is back.
        for (name, value) in [("mcast_solicit", "100000"), ("retrans_time_ms", "20")] {
            std::fs::write(format!("/proc/sys/net/ipv4/neigh/near/{name}"), value).unwrap();
        }
        network.on_far(|| {
            ip("link set lo up");
            ip(&format!("address add {FAR}/24 dev far"));
            ip("link set far up");
        });
        network
    }

    /// Runs `work` on the far host. Sockets that it makes stay there.
    pub fn on_far<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.far.on(work)
    }

    /// The far host goes away: the near one asks for its hardware address in vain.
    pub fn silence_far(&self) {
        self.on_far(|| ip("link set far arp off"));
        ip(&format!("neighbour del {FAR} dev near"));
    }

    /// It is back, and what the near one has kept for it leaves.
    pub fn revive_far(&self) {
        self.on_far(|| ip("link set far arp on"));
    }

    /// Nothing longer than `bytes` passes to the far host in one piece.
    pub fn narrow_path(&self, bytes: u32) {
        ip(&format!("route add {FAR}/32 dev near mtu {bytes}"));
    }
}

impl Host {
    /// A new one at the other end of a cable: `near` is the device here, `far` the one there.
    pub fn cabled(near: &str, far: &str) -> Self {
        let namespace = on_a_thread(|| {
            // SAFETY: as above.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        let path = format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd());
        ip(&format!("link add {near} type veth peer name {far} netns {path}"));
        Self { namespace }
    }

    /// Runs `work` on this host. Sockets, threads and programs that it makes stay there.
    pub fn on<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        on_a_thread(|| {
            let network = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(self.namespace.as_fd(), network).unwrap();
            work()
        })
    }
}

/// Ends the test because something is missing, unless the environment says to go without.
pub fn missing(what: &str, variable: &str) {
    #[allow(clippy::disallowed_methods, reason = "it says what this machine cannot do")]
    let is_allowed = std::env::var_os(variable).is_some();
    assert!(is_allowed, "{what}; {variable}=1 leaves out what needs it");
    eprintln!("left out: {what}");
}

fn refused(error: &str) {
    let what = format!("namespaces are refused: {error}; it takes CAP_SYS_ADMIN");
    missing(&what, "RINGWAY_WITHOUT_NAMESPACES");
}

/// Runs the calling test in another process: a process with several threads cannot enter a namespace
/// of users.
fn run_as_root_of_a_namespace() {
    let test = thread::current();
    let name = test.name().expect("the thread of a test bears its name");
    let mut command = Command::new("unshare");
    command.arg("--map-root-user").arg(std::env::current_exe().unwrap());
    let output = command.args(["--exact", name, "--nocapture"]).output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    match output.status.code() {
        Some(0) => assert!(said.contains("1 passed"), "{name} did not run: {said}"),
        Some(TEST_FAILED) => panic!("in a process of its own: {said}"),
        _ => refused(said.trim()),
    }
}

fn on_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(work).join().unwrap_or_else(|panic| resume_unwind(panic)))
}

/// Runs `ip` on the host that the calling thread is on.
pub fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output();
    let output = output.unwrap_or_else(|error| {
        panic!("`ip` does not start: {error} (tests/run installs it: iproute2)")
    });
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {said}");
}
