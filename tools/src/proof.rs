//! What the generator can do by itself, and whether a figure is the relay's or the generator's.
//!
//! Before it measures anything, the generator is set against a null reflector: a thread that sends
//! back what comes, or only takes it, with nothing relayed in between. The highest rate at which
//! nothing is lost and nothing leaves late is proven; a measurement near it, or one in which the
//! generator itself lost or delayed packets, says that the generator was the bottleneck and gives no
//! figure.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::batch::{self, ReceiveBatch, Route, SendBatch, SocketOptions};
use crate::board::{Board, Published};
use crate::clock::{self, MILLISECOND};
use crate::impair::Impairment;
use crate::link::{Ends, Link};
use crate::measure;
use crate::report::{Percentiles, duration, grouped};
use crate::shape::Shape;
use crate::sockets::{Sockets, loopback_source};
use crate::station::{Media, Station, StationSettings, receive};
use crate::worker::{Side, Worker};

/// What a proof tries.
#[derive(Clone, Debug)]
pub struct ProofSettings {
    /// Sessions that take turns.
    pub sessions: usize,
    /// Size, burst and train of the packets; rate and shape are the proof's own.
    pub media: Media,
    /// The rate that a measurement needs, in packets per second of all sessions: what is proven is
    /// enough for it, or as much as there is. `None`: the highest rate is looked for.
    pub rate_wanted: Option<f64>,
    /// What the reflector does.
    pub reflection: Reflection,
    /// How long each trial lasts.
    pub trial: Duration,
    /// How late one of 100 packets may leave.
    pub lateness_p99_max: Duration,
    /// CPUs of the generator; empty: all.
    pub cpus: Vec<usize>,
    /// CPUs of the reflector, best those that the relay will have; empty: all.
    pub reflector_cpus: Vec<usize>,
    /// For filler and socket IDs.
    pub seed: u64,
}

impl Default for ProofSettings {
    fn default() -> Self {
        Self {
            sessions: 100,
            media: Media::default(),
            rate_wanted: None,
            reflection: Reflection::Echo,
            trial: Duration::from_millis(400),
            lateness_p99_max: LATENESS_P99_MAX,
            cpus: Vec::new(),
            reflector_cpus: Vec::new(),
            seed: 1,
        }
    }
}

/// What a null reflector does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Reflection {
    /// Sends each datagram back: the generator sends and receives
    Echo,
    /// Takes each datagram: the generator only sends
    Sink,
}

/// What the generator has proven.
#[derive(Clone, Debug, PartialEq)]
pub struct Proof {
    /// Packets per second that it sent, and received where they were sent back, without loss of its
    /// own and in time. 0 when not even the lowest rate succeeded.
    pub rate: f64,
    /// Whether a higher rate was tried and failed: then `rate` is the most that it can.
    pub is_ceiling: bool,
    /// From due to arrival at a low rate: the least that any measurement will show.
    pub floor: Percentiles,
    /// How late packets left at `rate`.
    pub lateness: Percentiles,
    /// The bound that a measurement's lateness is held to as well.
    pub lateness_p99_max: Duration,
    /// All trials in the order made.
    pub trials: Vec<Trial>,
}

/// One rate tried.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Trial {
    /// Packets per second asked for.
    pub rate: f64,
    /// Packets sent.
    pub sent: u64,
    /// Packets that did not come back, or did not reach the sink.
    pub lost: u64,
    /// Datagrams dropped by receive queues of generator and reflector.
    pub own_drops: u64,
    /// Datagrams that the kernel did not take.
    pub send_errors: u64,
    /// From due to arrival; empty for a sink.
    pub latency: Percentiles,
    /// How late packets left.
    pub lateness: Percentiles,
}

impl Trial {
    fn succeeds(&self, lateness_p99_max: Duration) -> bool {
        [self.lost, self.own_drops, self.send_errors] == [0; 3]
            && self.sent > 0
            && u128::from(self.lateness.p99_ns) <= lateness_p99_max.as_nanos()
    }
}

/// How the generator did in a measurement.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Observed {
    /// Packets per second sent or received by the generator, whichever is more.
    pub rate: f64,
    /// Datagrams dropped by its own receive queues.
    pub own_drops: u64,
    /// Datagrams that the kernel did not take from it.
    pub send_errors: u64,
    /// How late one of 100 packets left.
    pub lateness_p99_ns: u64,
}

/// Why a figure is not the relay's.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum Bottleneck {
    /// Too near to what the generator can do at all.
    #[error(
        "the generator is the bottleneck: {} packets/s are more than {:.0} % of the {} that it has \
         proven alone",
        grouped(*.rate as u64), RATE_SHARE * 100.0, grouped(*.proven as u64)
    )]
    Rate {
        /// Packets per second observed.
        rate: f64,
        /// Packets per second proven.
        proven: f64,
    },
    /// It lost packets itself.
    #[error(
        "the generator is the bottleneck: its own receive queues dropped {} datagrams; give it more \
         CPU, or larger buffers (sysctl net.core.rmem_max)",
        grouped(*.0)
    )]
    Drops(u64),
    /// The kernel refused its packets.
    #[error("the generator is the bottleneck: the kernel took {} datagrams not", grouped(*.0))]
    SendErrors(u64),
    /// It did not keep its pace.
    #[error(
        "the generator is the bottleneck: one of 100 packets left {} late or later; {} are allowed",
        duration(*.p99_ns), humantime::format_duration(*.bound)
    )]
    Late {
        /// Observed.
        p99_ns: u64,
        /// Allowed.
        bound: Duration,
    },
}

impl Proof {
    /// Whether what was observed may be told as the relay's.
    ///
    /// # Errors
    /// Why the generator was the bottleneck.
    pub fn verdict(&self, observed: &Observed) -> Result<(), Bottleneck> {
        observed.verdict(self.lateness_p99_max)?;
        if observed.rate > self.rate * RATE_SHARE {
            return Err(Bottleneck::Rate { rate: observed.rate, proven: self.rate });
        }
        Ok(())
    }
}

impl Observed {
    /// The part of [`Proof::verdict`] that needs no proof: own losses and late packets.
    ///
    /// # Errors
    /// Why the generator was the bottleneck.
    pub fn verdict(&self, lateness_p99_max: Duration) -> Result<(), Bottleneck> {
        if self.own_drops > 0 {
            return Err(Bottleneck::Drops(self.own_drops));
        }
        if self.send_errors > 0 {
            return Err(Bottleneck::SendErrors(self.send_errors));
        }
        if u128::from(self.lateness_p99_ns) > lateness_p99_max.as_nanos() {
            return Err(Bottleneck::Late { p99_ns: self.lateness_p99_ns, bound: lateness_p99_max });
        }
        Ok(())
    }
}

/// Sets the generator against a null reflector on loopback. Each rate has two attempts, for a
/// neighbour on the same CPU is no limit of the generator.
///
/// # Errors
/// A socket cannot be opened or a thread not started.
pub fn prove(settings: &ProofSettings) -> io::Result<Proof> {
    let floor = run_trial(settings, FLOOR_RATE)?;
    let mut trials = vec![floor];
    let wanted = settings.rate_wanted.map(|rate| rate / RATE_SHARE);
    // Strictly above the share, so that the rate wanted is not found too near.
    let mut rate = wanted.map_or(FIRST_RATE, |rate| (rate * 1.01).max(FLOOR_RATE));
    let (mut proven, mut failed): (Option<Trial>, Option<f64>) = (None, None);
    for _ in 0..RATES_MAX {
        let mut succeeded = None;
        for _ in 0..ATTEMPTS {
            let trial = run_trial(settings, rate)?;
            trials.push(trial);
            succeeded = Some(trial).filter(|trial| trial.succeeds(settings.lateness_p99_max));
            if succeeded.is_some() {
                break;
            }
        }
        match succeeded {
            Some(trial) => proven = Some(trial),
            None => failed = Some(rate),
        }
        rate = match (proven, failed) {
            (Some(_), _) if wanted.is_some_and(|wanted| rate >= wanted) && failed.is_none() => {
                break;
            }
            (Some(proven), Some(failed)) if failed / proven.rate < RATE_PRECISION => break,
            (Some(proven), Some(failed)) => (proven.rate * failed).sqrt(),
            (Some(proven), None) => proven.rate * 2.0,
            (None, Some(failed)) if failed <= FLOOR_RATE => break,
            (None, _) => rate / 2.0,
        };
    }
    Ok(Proof {
        rate: proven.map_or(0.0, |trial| trial.rate),
        is_ceiling: failed.is_some(),
        floor: floor.latency,
        lateness: proven.map_or(floor.lateness, |trial| trial.lateness),
        lateness_p99_max: settings.lateness_p99_max,
        trials,
    })
}

fn run_trial(settings: &ProofSettings, rate: f64) -> io::Result<Trial> {
    let reflector = Reflector::start(settings)?;
    let bench = Bench::new(settings, rate, reflector.address)?;
    let worker = Worker::start("proof", settings.cpus.clone(), bench, true)?;
    clock::pause(WARM_UP);
    worker.reset_histograms();
    clock::pause(settings.trial);
    let during = worker.published();
    worker.send_media(false);
    // The order must have been seen before the totals mean anything.
    clock::pause(SETTLE);
    let is_complete = |sent: u64, received: u64| match settings.reflection {
        Reflection::Echo => received >= sent,
        Reflection::Sink => reflector.media.load(Ordering::Relaxed) >= sent,
    };
    worker.wait_for(PATIENCE, |counts| is_complete(counts.sent, counts.media.received));
    let own_drops = worker.receive_drops() + reflector.drops();
    let Published { counts, .. } = worker.stop()?;
    let arrived = match settings.reflection {
        Reflection::Echo => counts.media.received,
        Reflection::Sink => reflector.media.load(Ordering::Relaxed),
    };
    Ok(Trial {
        rate,
        sent: counts.sent,
        lost: counts.sent.saturating_sub(arrived),
        own_drops,
        send_errors: counts.send_errors,
        latency: Percentiles::of(&during.due_latency),
        lateness: Percentiles::of(&during.lateness),
    })
}

/// The generator's station with links that need no handshake: what it sends to the reflector is what
/// it expects to receive.
struct Bench {
    inbox: ReceiveBatch,
    station: Station,
}

impl Bench {
    fn new(settings: &ProofSettings, rate: f64, reflector: SocketAddr) -> io::Result<Self> {
        let sessions = settings.sessions.max(1);
        let trains = settings.media.train;
        let options = SocketOptions { timestamps: true, trains, ..SocketOptions::default() };
        let socket = batch::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), options)?;
        let shape = Shape::Constant;
        let mut station = Station::new(
            StationSettings {
                media: Media { rate: rate / sessions as f64, shape, ..settings.media },
                is_alive: true,
                idle_timeout_ns: u64::MAX,
                slots_max: sessions,
                impairment: Impairment::default(),
                seed: settings.seed,
            },
            Sockets::new(vec![socket])?,
        );
        let now_ns = clock::now();
        for slot in 0..sessions {
            let id = station.id_of(slot);
            let link = Link::new(Ends { local: id, remote: id }, 0, slot as u64, now_ns, now_ns);
            let route = Route { socket: 0, to: reflector, from: Some(loopback_source(slot)) };
            station.open(slot, link, route, true);
        }
        Ok(Self { inbox: ReceiveBatch::new(trains), station })
    }
}

impl Side for Bench {
    fn turn(&mut self, now_ns: u64, send_media: bool) -> io::Result<u64> {
        receive(&mut self.inbox, &mut self.station, |_, _, _| {})?;
        Ok(self.station.turn(now_ns, send_media))
    }

    fn sockets(&self) -> Arc<Sockets> {
        Arc::clone(&self.station.sockets)
    }

    fn board(&self) -> Arc<Board> {
        self.station.board()
    }

    fn finish(&mut self) {
        self.station.finish();
    }
}

/// A thread that echoes or takes. Dropping it ends the thread.
struct Reflector {
    address: SocketAddr,
    sockets: Arc<Sockets>,
    /// Media packets that have come.
    media: Arc<AtomicU64>,
    is_stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Reflector {
    fn start(settings: &ProofSettings) -> io::Result<Self> {
        let trains = settings.media.train;
        let options = SocketOptions { trains, ..SocketOptions::default() };
        let socket = batch::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), options)?;
        let address = socket.local_addr()?;
        let sockets = Arc::new(Sockets::new(vec![socket])?);
        let (media, is_stopping) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let thread = std::thread::Builder::new().name("reflector".to_owned()).spawn({
            let (sockets, media) = (Arc::clone(&sockets), Arc::clone(&media));
            let is_stopping = Arc::clone(&is_stopping);
            let (cpus, reflection) = (settings.reflector_cpus.clone(), settings.reflection);
            move || {
                if !cpus.is_empty() {
                    measure::pin(&cpus)?;
                }
                let mut inbox = ReceiveBatch::new(trains);
                let mut outbox = SendBatch::default();
                while !is_stopping.load(Ordering::Relaxed) {
                    sockets.wait(clock::now() + 10 * MILLISECOND)?;
                    reflect(&sockets, &mut inbox, &mut outbox, reflection, &media)?;
                }
                Ok(())
            }
        })?;
        Ok(Self { address, sockets, media, is_stopping, thread: Some(thread) })
    }

    fn drops(&self) -> u64 {
        self.sockets.receive_drops()
    }
}

impl Drop for Reflector {
    fn drop(&mut self) {
        self.is_stopping.store(true, Ordering::Relaxed);
        // What ended the thread early shows as loss.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Takes what has come and sends it back where that is asked for, a train as a train.
fn reflect(
    sockets: &Sockets,
    inbox: &mut ReceiveBatch,
    outbox: &mut SendBatch,
    reflection: Reflection,
    media: &AtomicU64,
) -> io::Result<()> {
    let Some(socket) = sockets.sockets.first() else {
        return Ok(());
    };
    while inbox.receive(socket)? > 0 {
        let mut data = 0;
        let mut train = Train::default();
        for datagram in inbox.datagrams() {
            // The first bit tells control from data (draft-sharabayko-srt, section 3).
            data += u64::from(datagram.bytes.first().is_some_and(|first| first & 0x80 == 0));
            if reflection == Reflection::Sink {
                continue;
            }
            if !train.takes(datagram.source, datagram.bytes) {
                train.send(outbox, sockets)?;
                train.begin(datagram.source, datagram.bytes.len());
            }
            train.bytes.extend_from_slice(datagram.bytes);
        }
        train.send(outbox, sockets)?;
        outbox.flush(&sockets.sockets)?;
        media.fetch_add(data, Ordering::Relaxed);
    }
    Ok(())
}

/// Neighbouring datagrams of one sender and one size.
#[derive(Default)]
struct Train {
    source: Option<SocketAddr>,
    segment: usize,
    bytes: Vec<u8>,
}

impl Train {
    fn takes(&self, source: SocketAddr, datagram: &[u8]) -> bool {
        self.source == Some(source)
            && self.segment == datagram.len()
            && self.bytes.len() / self.segment.max(1) < TRAIN_PACKETS_MAX
            && self.bytes.len() + datagram.len() <= TRAIN_BYTES_MAX
    }

    fn begin(&mut self, source: SocketAddr, segment: usize) {
        (self.source, self.segment) = (Some(source), segment);
        self.bytes.clear();
    }

    fn send(&mut self, outbox: &mut SendBatch, sockets: &Sockets) -> io::Result<()> {
        let Some(to) = self.source.take() else {
            return Ok(());
        };
        if outbox.is_full() {
            outbox.flush(&sockets.sockets)?;
        }
        let segment = u16::try_from(self.segment).ok().filter(|_| self.bytes.len() > self.segment);
        let route = Route { socket: 0, to, from: None };
        outbox.push(route, self.bytes.len(), segment).copy_from_slice(&self.bytes);
        Ok(())
    }
}

/// How near to the proven rate a measurement may come.
pub const RATE_SHARE: f64 = 0.8;
/// How late one of 100 packets may leave before a generator counts as the bottleneck. A thread that
/// sleeps is woken within some 100 us; a millisecond means that it was kept from its CPU.
pub const LATENESS_P99_MAX: Duration = Duration::from_millis(1);
const FLOOR_RATE: f64 = 1_000.0;
const FIRST_RATE: f64 = 50_000.0;
/// The search ends when what succeeded and what failed lie this near to each other.
const RATE_PRECISION: f64 = 1.1;
const RATES_MAX: u32 = 14;
const ATTEMPTS: u32 = 2;
const WARM_UP: Duration = Duration::from_millis(120);
const SETTLE: Duration = Duration::from_millis(60);
const PATIENCE: Duration = Duration::from_millis(300);
const TRAIN_PACKETS_MAX: usize = 64;
const TRAIN_BYTES_MAX: usize = 65_507;

#[cfg(test)]
mod tests {
    use super::*;

    const PROOF: Proof = Proof {
        rate: 100_000.0,
        is_ceiling: true,
        floor: EMPTY,
        lateness: EMPTY,
        lateness_p99_max: Duration::from_millis(1),
        trials: Vec::new(),
    };
    const EMPTY: Percentiles =
        Percentiles { p50_ns: 0, p99_ns: 0, p999_ns: 0, max_ns: 0, count: 0 };
    const GOOD: Observed =
        Observed { rate: 70_000.0, own_drops: 0, send_errors: 0, lateness_p99_ns: 50_000 };

    /// A trial whose outcome does not depend on how busy the machine is.
    fn patient(rate_wanted: f64) -> ProofSettings {
        ProofSettings {
            sessions: 4,
            rate_wanted: Some(rate_wanted),
            lateness_p99_max: Duration::from_secs(60),
            trial: Duration::from_millis(100),
            ..ProofSettings::default()
        }
    }

    #[test]
    fn an_undisturbed_measurement_below_the_share_is_the_relays() {
        assert_eq!(PROOF.verdict(&GOOD), Ok(()));
    }

    #[test]
    fn a_rate_near_the_proven_one_is_the_generators_limit() {
        let verdict = PROOF.verdict(&Observed { rate: 81_000.0, ..GOOD });
        assert_eq!(verdict, Err(Bottleneck::Rate { rate: 81_000.0, proven: 100_000.0 }));
        let text = verdict.unwrap_err().to_string();
        assert!(text.contains("generator is the bottleneck: 81,000 packets/s"), "{text}");
    }

    #[test]
    fn own_losses_void_a_measurement_whatever_was_proven() {
        assert_eq!(PROOF.verdict(&Observed { own_drops: 3, ..GOOD }), Err(Bottleneck::Drops(3)));
        let verdict = PROOF.verdict(&Observed { send_errors: 2, ..GOOD });
        assert_eq!(verdict, Err(Bottleneck::SendErrors(2)));
    }

    #[test]
    fn late_packets_void_a_measurement() {
        let verdict = PROOF.verdict(&Observed { lateness_p99_ns: 1_000_001, ..GOOD });
        assert!(matches!(verdict, Err(Bottleneck::Late { p99_ns: 1_000_001, .. })));
    }

    #[test]
    fn a_generator_that_has_proven_nothing_vouches_for_nothing() {
        let nothing = Proof { rate: 0.0, ..PROOF };
        assert!(nothing.verdict(&Observed { rate: 1.0, ..GOOD }).is_err());
    }

    #[test]
    fn an_echo_brings_back_everything_at_a_modest_rate() {
        let proof = prove(&patient(2_000.0)).unwrap();
        assert!(proof.rate >= 2_000.0 / RATE_SHARE, "{proof:?}");
        assert!(proof.floor.count > 0 && proof.floor.p50_ns > 0);
        assert_eq!(proof.verdict(&Observed { rate: 2_000.0, ..GOOD }), Ok(()));
    }

    #[test]
    fn trains_are_echoed_too() {
        let media = Media { burst: 16, train: true, ..Media::default() };
        let proof = prove(&ProofSettings { media, ..patient(2_000.0) }).unwrap();
        assert!(proof.rate >= 2_000.0 / RATE_SHARE, "{proof:?}");
    }

    #[test]
    fn a_sink_takes_everything_and_sends_nothing() {
        let settings = ProofSettings { reflection: Reflection::Sink, ..patient(2_000.0) };
        let proof = prove(&settings).unwrap();
        assert!(proof.rate >= 2_000.0 / RATE_SHARE, "{proof:?}");
        assert_eq!(proof.floor.count, 0);
    }

    #[test]
    fn a_bound_that_nobody_keeps_proves_nothing() {
        let settings = ProofSettings { lateness_p99_max: Duration::ZERO, ..patient(1_000.0) };
        let proof = prove(&settings).unwrap();
        assert!(proof.rate < f64::EPSILON && proof.is_ceiling, "{proof:?}");
    }
}
