//! One relay under measurement with its callers and its origin, driven step by step by one thread.
//!
//! Callers and origin run in the calling thread and only when told, so that during a drain nothing
//! moves but the relay and whoever collects what it sends.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, ensure};

use crate::batch::SocketOptions;
use crate::clock::{self, MILLISECOND, SECOND};
use crate::gate::Gate;
use crate::generator::{Generator, GeneratorSettings, Roles};
use crate::measure::CpuTime;
use crate::origin::{Listener, OriginSettings};
use crate::registration::Endpoints;
use crate::subject::{Engine, Setup, Tuning};
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Drain {
    /// Packets that came out at the other end.
    pub packets: u64,
    /// Packets that did not.
    pub lost: u64,
    /// What the relaying thread used.
    pub cpu: CpuTime,
    /// From the opening of the gate to the last packet.
    pub wall_ns: u64,
}

/// A relay with connected sessions.
pub struct Rig {
    gate: Gate,
    direction: Direction,
    generator: Generator,
    listener: Listener,
    kept_alive_at: u64,
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
        relay_cpu: usize,
        other_cpus: &[usize],
    ) -> anyhow::Result<Self> {
        // Trains are switched on and off per shape; the buffers for them have to be there from the
        // start.
        let socket = SocketOptions { trains: true, ..SocketOptions::default() };
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let settings = OriginSettings { is_alive: false, socket, ..OriginSettings::new(listen) };
        let mut listener = Listener::new(settings).context("start the origin")?;
        let origin = listener.station().sockets.address()?;
        let gate = Gate::start(&Setup {
            engine,
            origin: Endpoints::srt(origin),
            cpus: vec![relay_cpu],
            other_cpus: other_cpus.to_vec(),
            tuning: Tuning::default(),
        })?;
        let roles = match direction {
            Direction::Up => Roles::Publish,
            Direction::Down => Roles::Play,
        };
        let settings = GeneratorSettings {
            roles,
            is_alive: false,
            socket,
            ..GeneratorSettings::new(gate.address(), sessions)
        };
        let generator = Generator::new(settings).context("start the callers")?;
        let mut rig = Self { gate, direction, generator, listener, kept_alive_at: clock::now() };
        rig.connect(sessions as u64).with_context(|| format!("engine {}", engine.label()))?;
        rig.rest()?;
        Ok(rig)
    }

    fn connect(&mut self, sessions: u64) -> anyhow::Result<()> {
        let deadline = clock::now() + CONNECT_PATIENCE;
        loop {
            self.collect()?;
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

    /// Media packets that have come out of the relay.
    fn received(&mut self) -> u64 {
        match self.direction {
            Direction::Up => self.listener.station().counts().media.received,
            Direction::Down => self.generator.station().counts().media.received,
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
            self.collect()?;
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

    /// To be called before an engine's turn when others have had theirs in between.
    ///
    /// # Errors
    /// The relay has ended.
    pub fn wake(&mut self) -> anyhow::Result<()> {
        self.gate.open()?;
        self.rest()
    }

    /// Puts `packets` into the relay's sockets behind the closed gate, opens it, and closes it when
    /// all is through.
    ///
    /// # Errors
    /// The relay has ended or a session is gone.
    pub fn drain(&mut self, shape: Shape, packets: u64) -> anyhow::Result<Drain> {
        let before_packets = self.received();
        let sent = self.fill(shape, packets)?;
        let before = self.gate.cpu()?;
        let start = clock::now();
        self.gate.open()?;
        let mut last = (start, 0);
        while last.1 < sent && clock::now() - last.0 < LOST_AFTER {
            self.collect()?;
            let received = self.received() - before_packets;
            if received > last.1 {
                last = (clock::now(), received);
            }
        }
        self.gate.wait_until_idle()?;
        let cpu = self.gate.cpu()?.since(&before);
        self.gate.close()?;
        Ok(Drain { packets: last.1, lost: sent - last.1, cpu, wall_ns: last.0 - start })
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

const CONNECT_PATIENCE: u64 = 30 * SECOND;
/// Below every idle timeout of relays and origins.
const KEEP_ALIVE_INTERVAL: u64 = 2 * SECOND;
const QUIET: u64 = 3 * MILLISECOND;
const LOST_AFTER: u64 = 200 * MILLISECOND;
