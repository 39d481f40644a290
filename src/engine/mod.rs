//! How a shard does its I/O: sockets, rings, buffers, threads, and the data plane's clock.
//!
//! An engine drives one [`crate::shard::Shard`] per thread: what arrives goes in, verdicts and
//! actions come out. It knows no protocol. All unsafe code of the relay is below this module. The
//! engines are loops of one shape:
//!
//! ```text
//! send what the last wake-up queued, sleep    uring: io_uring_enter   mmsg: sendmmsg, epoll_wait
//!                                             tokio-uring: io_uring_enter, epoll_wait
//! read the clock                              once
//! for each buffer, for each datagram in it    Shard::handle -> Batch
//! timeouts, actions, events                   Lane
//! ```

mod clients;
mod cmsg;
mod demand;
mod gather;
mod gso;
mod lane;
mod memory;
mod mmsg;
mod nap;
mod offload;
mod portion;
mod ports;
mod send;
mod sockaddr;
mod socket;
mod sockopt;
mod steer;
mod thread;
mod token;
mod tokio_uring;
mod uring;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::config::EngineChoice;
use uring::bufring::BufRing;
use uring::probe::Abilities;

pub use offload::Offloads;
pub use socket::{GroupOptions, ListenerGroup, SocketBuffers, everywhere};
pub use thread::{ShardHandle, ShardSpec, start};

/// How datagrams come in and go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// io_uring, Linux 6.0 and newer.
    Uring,
    /// epoll with recvmmsg and sendmmsg.
    Mmsg,
    /// The `tokio-uring` crate, to compare the others with. Linux 6.0 and newer.
    TokioUring,
}

impl Engine {
    /// Whether busy clients can have sockets of their own: the reference engine does without.
    pub fn gives_clients_sockets(self) -> bool {
        self != Self::TokioUring
    }

    /// As the user types it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Uring => "uring",
            Self::Mmsg => "mmsg",
            Self::TokioUring => "tokio-uring",
        }
    }
}

/// The engine that runs, and why it is this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// It has been tried.
    pub engine: Engine,
    /// One line for the banner.
    pub reason: String,
    /// How its shards wait for several datagrams, where they are told to (`--batch-wait`).
    pub gathering: Gathering,
}

/// How a shard sleeps until several datagrams have arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gathering {
    /// The ring does it: one system call sends, waits and receives.
    Ring,
    /// The thread sleeps for the window and looks afterwards.
    Nap,
    /// Not at all.
    Never,
}

/// Chooses the engine: the one that is asked for, or else the best that runs here. The reference
/// engine is never the best.
///
/// # Errors
/// What keeps the ring from running, when it is asked for.
pub fn resolve(choice: EngineChoice) -> Result<Resolved, EngineError> {
    choose(choice, uring::probe::probe, tokio_uring::probe)
}

/// The ring is the best where it has everything: it costs as little as mmsg where datagrams are
/// sparse and where they come in bursts, and less where they are many and interleaved, or gathered.
/// Where it cannot defer its work it interrupts the thread for each datagram, and mmsg is better.
fn choose(
    choice: EngineChoice,
    probe: impl FnOnce() -> Result<Abilities, EngineError>,
    probe_reference: impl FnOnce() -> Result<(), EngineError>,
) -> Result<Resolved, EngineError> {
    let mmsg =
        |reason: String| Resolved { engine: Engine::Mmsg, reason, gathering: Gathering::Nap };
    let uring = |abilities: Abilities, reason: &str| Resolved {
        engine: Engine::Uring,
        reason: reason.to_owned(),
        gathering: if abilities.gathers { Gathering::Ring } else { Gathering::Nap },
    };
    match choice {
        EngineChoice::Mmsg => Ok(mmsg("asked for".to_owned())),
        EngineChoice::Uring => {
            let abilities = probe()?;
            let reason = if abilities.defers { ASKED } else { ASKED_IN_VAIN };
            Ok(uring(abilities, reason))
        }
        EngineChoice::TokioUring => {
            probe_reference()?;
            Ok(Resolved {
                engine: Engine::TokioUring,
                reason: "asked for; it is the reference engine, for comparison".to_owned(),
                gathering: Gathering::Never,
            })
        }
        EngineChoice::Auto => Ok(match probe() {
            Ok(abilities) if abilities.defers => uring(abilities, RING_IS_BEST),
            Ok(_) => mmsg(RING_IS_NOT_BEST.to_owned()),
            Err(error) => mmsg(error.to_string()),
        }),
    }
}

const ASKED: &str = "asked for";
const ASKED_IN_VAIN: &str = "asked for; io_uring of this kernel cannot defer its work \
                             (DEFER_TASKRUN, Linux 6.1), and --engine mmsg needs less CPU here";
const RING_IS_BEST: &str = "io_uring works here and defers its work (DEFER_TASKRUN)";
const RING_IS_NOT_BEST: &str = "io_uring works here but cannot defer its work (DEFER_TASKRUN, \
                                Linux 6.1), and needs up to twice the CPU of mmsg then";

/// Sizes of what a shard reserves. [`memory_per_shard`] adds them up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Receive buffers of a ring where GRO is on, 64 KiB each. 256 run out with a hundred busy
    /// sessions.
    pub train_buffers: u16,
    /// Receive buffers of a ring where GRO is off, 2 KiB each: 8 ms of stall at 500,000 datagrams a
    /// second.
    pub datagram_buffers: u16,
    /// Entries of a ring's submission queue, a power of two. A batch with more messages is submitted
    /// in portions.
    pub submissions: u32,
    /// Entries that a ring's completion queue may have. It gets what its buffers and sockets call
    /// for; a shorter one costs system calls but no datagrams.
    pub completions_max: u32,
    /// `SO_RCVBUF` and `SO_SNDBUF` of every socket. 4 MiB are 36 ms of stall at 100,000 datagrams a
    /// second ([`SocketBuffers::stall`]). The kernel's default of 208 KiB, not 2 ms, loses 40 % of the
    /// trains at full load, and more than 4 MiB gains nothing.
    pub socket_buffer_bytes: usize,
    /// How long datagrams may be gathered while that pays, in whole microseconds; `None`: none
    /// waits.
    pub batch_wait: Option<Duration>,
    /// Sockets of single clients.
    pub clients: ClientSockets,
}

/// How many clients of a shard may have sockets of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientSockets {
    /// Sockets of one shard at the same time. It has to be 0 where a listener's group is not
    /// steered ([`ListenerGroup::is_steered`]).
    pub max: u16,
    /// Shards that share the listeners' addresses.
    pub shards: u16,
    /// A shard opens none above so many sockets, those of sessions included, and gives up all that
    /// it has.
    pub descriptors_max: u32,
    /// How long traffic is counted before it is judged; five windows of silence end a socket.
    pub window: Duration,
}

impl ClientSockets {
    /// No client has a socket.
    pub const NONE: Self =
        Self { max: 0, shards: 1, descriptors_max: 0, window: Duration::from_secs(1) };

    /// For one of `shards` shards in a process whose clients may have `sockets`, and that may have
    /// `descriptors` for sockets of sessions and clients.
    ///
    /// With 128 connected sockets behind an address the datagram of a client that has none costs
    /// 800 ns more, with 32 of them 100 ns; that search goes over the sockets of all shards.
    pub fn of_shard(sockets: u16, shards: u16, descriptors: u32) -> Self {
        let shards = shards.max(1);
        Self {
            max: sockets.div_ceil(shards),
            shards,
            descriptors_max: descriptors / u32::from(shards),
            ..Self::NONE
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            train_buffers: 512,
            datagram_buffers: 4096,
            submissions: 1024,
            completions_max: 1 << 16, // The most that the kernel makes.
            socket_buffer_bytes: 4 << 20,
            batch_wait: None,
            clients: ClientSockets::NONE,
        }
    }
}

impl Settings {
    /// Bytes of payload that one buffer takes: the longest train, or a datagram of an Ethernet path
    /// with some room.
    fn payload_bytes(gro: bool) -> usize {
        if gro { 64 << 10 } else { 2 << 10 }
    }

    /// Buffers of a ring. Rings count in powers of two.
    fn buffers(self, gro: bool) -> u16 {
        let buffers = if gro { self.train_buffers } else { self.datagram_buffers };
        buffers.clamp(1, BUFFERS_MAX).next_power_of_two()
    }

    /// Buffers of recvmmsg: a quarter of a ring's, for they are free again after every turn, but
    /// enough for a turn of one socket.
    fn receives(self, gro: bool) -> usize {
        usize::from(self.buffers(gro) / 4).max(mmsg::RECEIVES_MAX)
    }
}

/// Bytes of receive buffers that one shard reserves, the largest of its tables: as many as there
/// are buffers, times payload and headroom. See also [`memory_per_session`].
pub fn memory_per_shard(engine: Engine, offloads: Offloads, settings: Settings) -> usize {
    let payload = Settings::payload_bytes(offloads.gro);
    match engine {
        Engine::Uring => BufRing::memory(settings.buffers(offloads.gro), payload),
        Engine::Mmsg => settings.receives(offloads.gro) * payload,
        Engine::TokioUring => 0,
    }
}

/// Bytes of receive buffers that each session adds, where they are not the shard's: one buffer that
/// a receive is in flight for, and one that is sent from. Pages that no datagram has reached stay
/// virtual.
pub fn memory_per_session(engine: Engine, offloads: Offloads) -> usize {
    match engine {
        Engine::Uring | Engine::Mmsg => 0,
        Engine::TokioUring => 2 * Settings::payload_bytes(offloads.gro),
    }
}

/// Entries that a buffer ring can have.
const BUFFERS_MAX: u16 = 1 << 15;

/// Why the data plane does not start, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// `EPERM`, and the sysctl is set.
    #[error(
        "io_uring is disabled on this host: set kernel.io_uring_disabled=0, \
         or run with --engine mmsg"
    )]
    Disabled,
    /// `EPERM`, and the sysctl is not set.
    #[error(
        "io_uring is refused, by a seccomp filter as containers have it: allow io_uring_setup, \
         io_uring_enter and io_uring_register, or run with --engine mmsg"
    )]
    Forbidden,
    /// `ENOSYS`
    #[error(
        "this kernel has no io_uring, or a seccomp filter hides it: allow io_uring_setup, \
         io_uring_enter and io_uring_register, or run with --engine mmsg"
    )]
    Missing,
    /// No multishot receives with control messages.
    #[error("io_uring of this kernel is too old: it takes Linux 6.0, or run with --engine mmsg")]
    KernelTooOld,
    /// Anything else that a ring says.
    #[error("io_uring has failed; --engine mmsg does without it")]
    Ring(#[source] io::Error),
    /// Anything that epoll says, or a listener that cannot receive.
    #[error("epoll has failed")]
    Poll(#[source] io::Error),
    /// No memory for buffers.
    #[error("no memory for receive buffers: fewer shards (--shards) need less")]
    Buffers(#[source] io::Error),
    /// An offload is demanded and does not work.
    #[error("--{name} on: this host does not have it; --{name} auto does without")]
    Offload {
        /// `gso` or `gro`
        name: &'static str,
        /// What the trial said.
        source: io::Error,
    },
    /// The address cannot be listened on.
    #[error("listen on {address}")]
    Bind {
        /// As it was asked for.
        address: SocketAddr,
        /// `EADDRINUSE`, `EADDRNOTAVAIL`, `EACCES` ...
        source: io::Error,
    },
    /// A socket or one of its options is refused.
    #[error("{operation} is refused for a listener")]
    Socket {
        /// What was tried.
        operation: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Steering by CPU cannot be installed.
    #[error("--steer cpu: the kernel refuses the program; --steer hash does without")]
    Steer {
        /// What the kernel said.
        source: io::Error,
    },
    /// Steering by CPU makes no sense.
    #[error("--steer cpu needs shards that are pinned: give each a CPU of its own with --cpus")]
    SteerUnpinned,
    /// The thread cannot run where it should.
    #[error("CPU {cpu} is not available to this process: name others with --cpus")]
    Pin {
        /// Which.
        cpu: usize,
    },
    /// No thread.
    #[error("no thread for a shard")]
    Thread(#[source] io::Error),
    /// The thread is gone without a word.
    #[error("shard {shard} has panicked while it started")]
    Panicked {
        /// Which.
        shard: u16,
    },
}

impl EngineError {
    /// Whether another configuration would help, rather than another machine or another day.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Disabled
            | Self::Forbidden
            | Self::Missing
            | Self::KernelTooOld
            | Self::Offload { .. }
            | Self::Steer { .. }
            | Self::SteerUnpinned
            | Self::Pin { .. } => true,
            Self::Ring(_)
            | Self::Poll(_)
            | Self::Buffers(_)
            | Self::Bind { .. }
            | Self::Socket { .. }
            | Self::Thread(_)
            | Self::Panicked { .. } => false,
        }
    }

    fn socket(operation: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Socket { operation, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Linux 6.12 has.
    const ALL: Abilities = Abilities { defers: true, gathers: true };

    fn not_asked_for<T>() -> Result<T, EngineError> {
        unreachable!("not asked for")
    }

    fn with_ring(choice: EngineChoice, abilities: Abilities) -> Resolved {
        choose(choice, || Ok(abilities), not_asked_for).unwrap()
    }

    #[test]
    fn auto_takes_the_ring_where_it_runs_and_defers_its_work() {
        let resolved = with_ring(EngineChoice::Auto, ALL);
        assert_eq!(resolved.engine, Engine::Uring);
        assert!(resolved.reason.contains("DEFER_TASKRUN"), "{}", resolved.reason);
    }

    #[test]
    fn auto_takes_mmsg_where_the_ring_cannot_defer_its_work_and_says_why() {
        let linux6_0 = Abilities { defers: false, gathers: false };
        let resolved = with_ring(EngineChoice::Auto, linux6_0);
        assert_eq!(resolved.engine, Engine::Mmsg);
        assert!(resolved.reason.contains("Linux 6.1"), "{}", resolved.reason);
    }

    #[test]
    fn a_ring_that_is_asked_for_runs_although_it_is_not_best_and_says_so() {
        let linux6_0 = Abilities { defers: false, gathers: false };
        let resolved = with_ring(EngineChoice::Uring, linux6_0);
        assert_eq!(resolved.engine, Engine::Uring);
        assert!(resolved.reason.contains("--engine mmsg"), "{}", resolved.reason);
        assert_eq!(with_ring(EngineChoice::Uring, ALL).reason, "asked for");
    }

    #[test]
    fn auto_falls_back_and_says_why() {
        for (error, words) in [
            (EngineError::Disabled, "kernel.io_uring_disabled"),
            (EngineError::Forbidden, "seccomp"),
            (EngineError::Missing, "no io_uring"),
            (EngineError::KernelTooOld, "Linux 6.0"),
        ] {
            let resolved = choose(EngineChoice::Auto, || Err(error), not_asked_for).unwrap();
            assert_eq!(resolved.engine, Engine::Mmsg);
            assert!(resolved.reason.contains(words), "{}", resolved.reason);
        }
    }

    #[test]
    fn the_ring_waits_for_several_datagrams_itself_where_it_can() {
        let linux6_1 = Abilities { gathers: false, ..ALL };
        for (choice, abilities, gathering) in [
            (EngineChoice::Auto, ALL, Gathering::Ring),
            (EngineChoice::Auto, linux6_1, Gathering::Nap),
            (EngineChoice::Uring, linux6_1, Gathering::Nap),
            (EngineChoice::Mmsg, ALL, Gathering::Nap),
        ] {
            assert_eq!(with_ring(choice, abilities).gathering, gathering, "{choice:?}");
        }
    }

    #[test]
    fn a_ring_that_is_asked_for_and_does_not_run_is_an_error() {
        let result = choose(EngineChoice::Uring, || Err(EngineError::Forbidden), not_asked_for);
        assert!(matches!(result, Err(EngineError::Forbidden)));
        let refuse = || Err(EngineError::Forbidden);
        let result = choose(EngineChoice::TokioUring, not_asked_for, refuse);
        assert!(matches!(result, Err(EngineError::Forbidden)));
    }

    #[test]
    fn the_reference_engine_says_that_it_is_one() {
        let resolved = choose(EngineChoice::TokioUring, not_asked_for, || Ok(())).unwrap();
        assert_eq!((resolved.engine, resolved.gathering), (Engine::TokioUring, Gathering::Never));
        assert!(resolved.reason.contains("reference engine"), "{}", resolved.reason);
    }

    #[test]
    fn mmsg_needs_no_ring() {
        let resolved = choose(EngineChoice::Mmsg, not_asked_for, not_asked_for).unwrap();
        assert_eq!(resolved.engine, Engine::Mmsg);
    }

    #[test]
    fn buffers_are_counted_in_powers_of_two() {
        let of = |train_buffers| Settings { train_buffers, ..Settings::default() }.buffers(true);
        assert_eq!([0, 1, 5, 512, u16::MAX].map(of), [1, 1, 8, 512, 32_768]);
    }

    #[test]
    fn a_shard_with_gro_reserves_about_33_megabytes() {
        let offloads = Offloads { gso: true, gro: true };
        let bytes = memory_per_shard(Engine::Uring, offloads, Settings::default());
        assert_eq!(bytes, 512 * (65_536 + 128 + 16));
    }
}
