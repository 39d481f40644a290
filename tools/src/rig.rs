//! One relay under measurement with its callers and its origin, driven step by step by one thread.
//!
//! Callers and origin run in the calling thread and only when told, so that during a drain nothing
//! moves but the relay and whoever collects what it sends.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use anyhow::{Context as _, ensure};

use crate::batch::SocketOptions;
use crate::clock::{self, MILLISECOND, SECOND};
use crate::gate::Gate;
use crate::generator::{Generator, GeneratorSettings, Roles};
use crate::measure::{self, CpuTime};
use crate::origin::{Listener, OriginSettings};
use crate::payload::Tally;
use crate::registration::Endpoints;
use crate::subject::{Engine, IoCounts, Setup, Tuning};
use crate::worker::Side;

/// Which way the media goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Client to origin.
    Up,
    /// Origin to client.
    Down,
}

impl Direction {
    /// As the tables show it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// How the packets of a drain follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// Single packets, a different session each.
    Singles,
    /// 32 packets of one session after each other, each a datagram of its own.
    Bursts,
    /// 32 packets of one session as one segmented send, received coalesced; so may the relay send
    /// them on.
    Trains,
}

impl Shape {
    /// As the tables show it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Singles => "singles",
            Self::Bursts => "bursts",
            Self::Trains => "trains",
        }
    }

    fn run(self) -> u16 {
        match self {
            Self::Singles => 1,
            Self::Bursts | Self::Trains => 32,
        }
    }
}

/// One drain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drain {
    /// Packets that came out at the other end.
    pub packets: u64,
    /// Packets that did not.
    pub lost: u64,
    /// Packets of earlier drains that came out in this one: what it has lost itself is not known
    /// then.
    pub late: u64,
    /// Packets that a later one of their session overtook.
    pub reordered: u64,
    /// Datagrams that this tool's own receive queues dropped: nothing is known of the relay then.
    pub own_drops: u64,
    /// What the relaying threads used.
    pub cpu: CpuTime,
    /// From the opening of the gate until all relaying threads sleep.
    pub wall_ns: u64,
}

/// Where and how relays are measured.
#[derive(Clone, Debug)]
pub struct Place {
    /// Of the relaying threads.
    pub relay_cpus: Vec<usize>,
    /// Of everything else.
    pub tool_cpus: Vec<usize>,
    /// The loopback address that everything has.
    pub ip: IpAddr,
    /// What relays are told.
    pub tuning: Tuning,
}

/// A relay with connected sessions.
pub struct Rig {
    gate: Gate,
    direction: Direction,
    generator: Generator,
    listener: Listener,
    kept_alive_at: u64,
    own_drops: u64,
    memory_per_session: f64,
}

impl Rig {
    /// Starts relay and origin and connects `sessions` callers.
    ///
    /// # Errors
    /// The relay does not start, or not every caller gets in.
    pub fn build(
        engine: Engine,
        direction: Direction,
        sessions: usize,
        place: &Place,
    ) -> anyhow::Result<Self> {
        // Trains are switched on and off per shape; the buffers for them have to be there from the
        // start.
        let socket = SocketOptions { trains: true, ..SocketOptions::default() };
        let listen = SocketAddr::new(place.ip, 0);
        let settings = OriginSettings { is_alive: false, socket, ..OriginSettings::new(listen) };
        let mut listener = Listener::new(settings).context("start the origin")?;
        let gate = Gate::start(&Setup {
            engine,
            origin: Endpoints::srt(listener.station().sockets.address()?),
            cpus: place.relay_cpus.clone(),
            other_cpus: place.tool_cpus.clone(),
            tuning: place.tuning,
        })?;
        let roles = match direction {
            Direction::Up => Roles::Publish,
            Direction::Down => Roles::Play,
        };
        let settings = GeneratorSettings {
            roles,
            is_alive: false,
            socket,
            connect_rate: CONNECT_RATE,
            ..GeneratorSettings::new(gate.address(), sessions)
        };
        let generator = Generator::new(settings).context("start the callers")?;
        if !engine.is_baseline() {
            touch_buffers(&gate)?;
        }
        let before = gate.resident_bytes()?;
        let mut rig = Self {
            gate,
            direction,
            generator,
            listener,
            kept_alive_at: clock::now(),
            own_drops: 0,
            memory_per_session: 0.0,
        };
        rig.connect(sessions as u64).with_context(|| format!("engine {}", engine.label()))?;
        rig.gate.check_placement()?;
        let grown = rig.gate.resident_bytes()?.saturating_sub(before);
        rig.memory_per_session = grown as f64 / sessions as f64;
        rig.own_drops = rig.own_drops_so_far()?;
        rig.rest()?;
        Ok(rig)
    }

    /// By how many bytes the resident memory of the relay grew while the sessions connected, divided
    /// by their number.
    #[must_use]
    pub fn memory_per_session(&self) -> f64 {
        self.memory_per_session
    }

    fn connect(&mut self, sessions: u64) -> anyhow::Result<()> {
        let deadline = clock::now() + CONNECT_PATIENCE;
        loop {
            self.collect_and_yield()?;
            let counts = *self.generator.station().counts();
            if counts.connected == sessions {
                return Ok(());
            }
            ensure!(
                counts.refused == 0 && counts.timed_out == 0 && clock::now() < deadline,
                "{} of {sessions} sessions connected, {} refused (last type {}), {} unanswered",
                counts.connected,
                counts.refused,
                counts.refusal,
                counts.timed_out
            );
        }
    }

    /// Lets both ends receive and answer what is there.
    fn collect(&mut self) -> anyhow::Result<()> {
        let now = clock::now();
        self.generator.turn(now, false)?;
        self.listener.turn(now, false)?;
        Ok(())
    }

    /// The same while the relay has more to do than to relay: its control thread may have to share
    /// this CPU with this thread, whatever the priority that both have been given.
    fn collect_and_yield(&mut self) -> anyhow::Result<()> {
        self.collect()?;
        std::thread::yield_now();
        Ok(())
    }

    /// Takes all that has come out of the relay, which is stopped: none of it may count for the
    /// next drain.
    fn collect_rest(&mut self) -> anyhow::Result<()> {
        let mut seen = self.datagrams_in();
        loop {
            self.collect()?;
            let now_seen = self.datagrams_in();
            if now_seen == seen {
                return Ok(());
            }
            seen = now_seen;
        }
    }

    /// What has come out of the relay of the media.
    fn tally(&mut self) -> Tally {
        match self.direction {
            Direction::Up => self.listener.station().counts().media,
            Direction::Down => self.generator.station().counts().media,
        }
    }

    /// Keeps the sessions from being given up, waits until all is quiet and closes the gate.
    fn rest(&mut self) -> anyhow::Result<()> {
        if clock::now() - self.kept_alive_at > KEEP_ALIVE_INTERVAL {
            self.generator.station().send_keepalives();
            self.generator.station().flush();
            self.listener.station().send_keepalives();
            self.listener.station().flush();
            self.kept_alive_at = clock::now();
        }
        let mut quiet_since = clock::now();
        let mut seen = self.datagrams_in();
        while clock::now() - quiet_since < QUIET {
            self.collect_and_yield()?;
            let now_seen = self.datagrams_in();
            if now_seen != seen {
                (seen, quiet_since) = (now_seen, clock::now());
            }
        }
        self.gate.wait_until_idle()?;
        self.gate.close()
    }

    fn datagrams_in(&mut self) -> u64 {
        self.generator.station().counts().datagrams_in
            + self.listener.station().counts().datagrams_in
    }

    /// To be called before and after an engine's turn: says what Ringway has counted so far, `None`
    /// for baselines, and closes the gate again.
    ///
    /// # Errors
    /// The relay has ended.
    pub fn io(&mut self) -> anyhow::Result<Option<IoCounts>> {
        self.gate.open()?;
        let io = self.gate.io()?;
        self.rest()?;
        Ok(io)
    }

    /// Puts `packets` into the relay's sockets behind the closed gate, opens it, and closes it when
    /// all is through.
    ///
    /// # Errors
    /// The relay has ended or a session is gone.
    pub fn drain(&mut self, shape: Shape, packets: u64) -> anyhow::Result<Drain> {
        let tally = self.tally();
        let sent = self.fill(shape, packets)?;
        let before = self.gate.cpu()?;
        let start = clock::now();
        self.gate.open()?;
        let (mut received, mut progress_at) = (0, start);
        while received < sent && clock::now() - progress_at < LOST_AFTER {
            self.collect()?;
            let now_received = self.tally().received - tally.received;
            if now_received > received {
                (received, progress_at) = (now_received, clock::now());
            }
        }
        self.gate.wait_until_idle()?;
        let wall_ns = clock::now() - start;
        let cpu = self.gate.cpu()?.since(&before);
        self.gate.close()?;
        self.collect_rest()?;
        let received = self.tally().received - tally.received;
        let own_drops = self.own_drops_so_far()?;
        let own_drops_before = std::mem::replace(&mut self.own_drops, own_drops);
        Ok(Drain {
            packets: received.min(sent),
            lost: sent.saturating_sub(received),
            late: received.saturating_sub(sent),
            reordered: self.tally().reordered - tally.reordered,
            own_drops: own_drops - own_drops_before,
            cpu,
            wall_ns,
        })
    }

    /// Datagrams that receive queues of callers and origin have dropped.
    fn own_drops_so_far(&mut self) -> anyhow::Result<u64> {
        let stations = [self.generator.station(), self.listener.station()];
        let sockets = stations.into_iter().flat_map(|station| &station.sockets.sockets);
        let drops = sockets.map(measure::drops_of).sum::<io::Result<u64>>();
        drops.context("read what the receive queues have dropped")
    }

    /// Lets both ends take trains as such, or not.
    ///
    /// # Errors
    /// The kernel has no `UDP_GRO`.
    pub fn prepare(&mut self, shape: Shape) -> anyhow::Result<()> {
        let trains = shape == Shape::Trains;
        self.generator.station().sockets.take_trains(trains)?;
        self.listener.station().sockets.take_trains(trains)?;
        Ok(())
    }

    fn fill(&mut self, shape: Shape, packets: u64) -> anyhow::Result<u64> {
        let station = match self.direction {
            Direction::Up => self.generator.station(),
            Direction::Down => self.listener.station(),
        };
        let senders = station.senders().to_vec();
        let before = station.counts().sent;
        let runs = usize::try_from(packets / u64::from(shape.run()))?;
        for slot in senders.iter().cycle().take(runs) {
            station.send_media(*slot, shape.run(), shape == Shape::Trains, clock::now());
        }
        station.flush();
        let sent = station.counts().sent - before;
        ensure!(sent > 0 || packets == 0, "the sessions are gone");
        Ok(sent)
    }
}

/// Has the relay use each of its receive buffers once, so that what its memory grows by from here on
/// is not theirs. What it receives is too short for any protocol.
fn touch_buffers(gate: &Gate) -> anyhow::Result<()> {
    let any = SocketAddr::new(gate.address().ip(), 0);
    // Several senders, so that each shard gets its part.
    for _ in 0..STRAY_SENDERS {
        let sender = UdpSocket::bind(any).context("open a socket")?;
        for _ in 0..STRAYS_PER_SENDER {
            sender.send_to(&[0], gate.address()).context("send to the relay")?;
        }
        gate.wait_until_idle()?;
    }
    Ok(())
}

/// Callers per second: what the emulated origin takes in without a repetition.
const CONNECT_RATE: f64 = 2_000.0;
/// Together four times the buffers of a ring.
const STRAY_SENDERS: usize = 32;
const STRAYS_PER_SENDER: usize = 64;
const CONNECT_PATIENCE: u64 = 30 * SECOND;
/// Below every idle timeout of relays and origins.
const KEEP_ALIVE_INTERVAL: u64 = 2 * SECOND;
const QUIET: u64 = 3 * MILLISECOND;
const LOST_AFTER: u64 = 200 * MILLISECOND;
