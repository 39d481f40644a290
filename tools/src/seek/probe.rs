//! One probe: origin, relay and clients for a few seconds at one rate.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer as _, V2DeflateSerializer};

use super::{Protocol, SeekArguments, Verdict};
use crate::batch::SocketOptions;
use crate::clock::{self, SECOND};
use crate::generator::{Generator, GeneratorSettings, Roles};
use crate::measure::{self, CpuTime, ThreadId};
use crate::origin::{Origin, OriginSettings};
use crate::pair::{Pair, Totals};
use crate::payload;
use crate::registration::{Endpoints, Registration, reachable};
use crate::report::duration;
use crate::result::{Better, Cell, Second, name};
use crate::shape::Shape;
use crate::station::Media;
use crate::subject::{Subject, WebrtcEntrance};
use crate::webrtc;
use crate::worker::{Worker, await_sessions};

/// What all probes share.
pub(super) struct Stage<'a> {
    arguments: &'a SeekArguments,
    relay_cpu: usize,
    tool_cpus: Vec<usize>,
}

/// What a probe has measured.
pub(super) struct Measured {
    /// Asked for, in packets per second.
    pub(super) rate: f64,
    /// Why it says nothing about the relay.
    pub(super) tool_fault: Option<String>,
    /// One way.
    pub(super) latency: Histogram<u64>,
    lateness_p99_ns: u64,
    totals: Totals,
    took_s: f64,
    /// `None` for a relay that was running already.
    cpu: Option<CpuTime>,
    seconds: Vec<Second>,
}

impl<'a> Stage<'a> {
    pub(super) fn new(arguments: &'a SeekArguments) -> anyhow::Result<Self> {
        let cpus = measure::allowed_cpus();
        let relay_cpu = *cpus.first().context("this process may use no CPU")?;
        let others: Vec<usize> = cpus.iter().copied().filter(|cpu| *cpu != relay_cpu).collect();
        let tool_cpus = if others.is_empty() { cpus } else { others };
        Ok(Self { arguments, relay_cpu, tool_cpus })
    }

    /// The column of the cells.
    pub(super) fn subject(&self) -> &'static str {
        if self.is_running_already() { "running" } else { self.arguments.engine.label() }
    }

    /// The row, without the rate.
    pub(super) fn shape(&self) -> String {
        let SeekArguments { protocol, sessions, .. } = self.arguments;
        format!("{}, {sessions} sessions, {}", protocol.label(), self.role())
    }

    pub(super) fn role(&self) -> &'static str {
        match self.arguments.role {
            Roles::Publish => "publishing",
            Roles::Play => "playing",
            Roles::Both => "both ways",
        }
    }

    pub(super) fn placement(&self) -> String {
        let tools = &self.tool_cpus;
        if self.is_running_already() {
            return format!("tool {tools:?}, relay elsewhere");
        }
        format!("relay {}, tool {tools:?}", self.relay_cpu)
    }

    fn is_running_already(&self) -> bool {
        self.arguments.target.is_some() || self.arguments.http.is_some()
    }

    /// Offers `rate` packets per second for as long as a probe lasts.
    pub(super) fn probe(&self, rate: f64) -> anyhow::Result<Measured> {
        let origin = Emulator::start(self, rate)?;
        let relay = self.relay(origin.endpoints()?)?;
        let clients = self.clients(&relay, rate)?;
        await_sessions(&clients, self.arguments.sessions as usize)?;
        let pair = Pair { origin: origin.worker(), clients: &clients };
        self.warm(pair);
        let measured = self.measure(pair, &relay, rate)?;
        clients.stop().context("stop the clients")?;
        Ok(measured)
    }

    /// The running relay, or one of its own.
    fn relay(&self, origin: Endpoints) -> anyhow::Result<Relay> {
        let SeekArguments { target, http, register, engine, .. } = self.arguments;
        if let Some(url) = register {
            Registration::new(url, origin)?.post()?;
        }
        if self.is_running_already() {
            let webrtc = http.map(|http| WebrtcEntrance { http, media_via: None });
            return Ok(Relay { srt: *target, webrtc, own: None });
        }
        // The relay's threads inherit where this one may run; afterwards it leaves the relay's CPU.
        let everywhere: Vec<usize> =
            self.tool_cpus.iter().copied().chain([self.relay_cpu]).collect();
        measure::pin(&everywhere).context("use all CPUs")?;
        let own = Subject::start(*engine, origin, self.relay_cpu)?;
        measure::pin(&self.tool_cpus).context("leave the relay's CPU")?;
        Ok(Relay { srt: Some(own.address), webrtc: own.webrtc, own: Some(own) })
    }

    fn clients(&self, relay: &Relay, rate: f64) -> anyhow::Result<Worker> {
        let SeekArguments { protocol, role, seed, .. } = *self.arguments;
        let (sessions, cpus) = (self.arguments.sessions as usize, self.tool_cpus.clone());
        let clients = match protocol {
            Protocol::Srt => {
                let target = relay.srt.context("the relay takes no SRT")?;
                let settings = GeneratorSettings {
                    roles: role,
                    media: self.srt_media(rate),
                    socket: STAMPED,
                    seed,
                    ..GeneratorSettings::new(target, sessions)
                };
                Generator::start(settings, cpus, false)
            }
            Protocol::Webrtc => {
                let WebrtcEntrance { http, media_via } =
                    relay.webrtc.context("the relay takes no WebRTC")?;
                let settings = webrtc::generator::GeneratorSettings {
                    roles: role,
                    media: self.webrtc_media(rate),
                    media_via,
                    socket: STAMPED,
                    seed,
                    ..webrtc::generator::GeneratorSettings::new(http, sessions)
                };
                webrtc::generator::Generator::start(settings, cpus, false)
            }
        };
        clients.context("start the clients")
    }

    fn srt_media(&self, rate: f64) -> Media {
        let SeekArguments { burst, train, size, .. } = *self.arguments;
        let (rate, size) = (self.rate_per_session(rate), usize::from(size));
        Media { rate, burst, train, size, shape: Shape::Constant }
    }

    fn webrtc_media(&self, rate: f64) -> webrtc::station::Media {
        let SeekArguments { burst, train, size, .. } = *self.arguments;
        let rate = Some(self.rate_per_session(rate));
        webrtc::station::Media::shaped(Shape::Constant, rate, burst, size, train)
    }

    /// Every session has media one way.
    fn rate_per_session(&self, rate: f64) -> f64 {
        rate / f64::from(self.arguments.sessions)
    }

    /// A second that does not count; everything in flight arrives before it ends.
    fn warm(&self, pair: Pair<'_>) {
        let before = pair.totals();
        pair.send_media(true);
        clock::pause(Duration::from_secs(1));
        pair.send_media(false);
        pair.settle(before, SETTLE_PATIENCE);
        pair.reset_histograms();
    }

    fn measure(&self, pair: Pair<'_>, relay: &Relay, rate: f64) -> anyhow::Result<Measured> {
        let (before, drops_before) = (pair.totals(), pair.own_drops());
        let backlog_before = measure::backlog_drops();
        let cpu_before = relay.cpu()?;
        let started = clock::now();
        pair.send_media(true);
        let seconds = self.follow(pair, relay, started)?;
        pair.send_media(false);
        let took_s = clock::now().saturating_sub(started) as f64 / SECOND as f64;
        pair.settle(before, SETTLE_PATIENCE);
        let totals = pair.totals().since(before);
        let cpu = relay.cpu()?.zip(cpu_before).map(|(after, before)| after.since(before));
        let lateness_p99_ns = pair.lateness().value_at_quantile(0.99);
        let own_drops = pair.own_drops() - drops_before;
        let backlog_drops = measure::backlog_drops() - backlog_before;
        let bound = u64::try_from(self.arguments.p90_max.as_nanos()).unwrap_or(u64::MAX);
        let offered = rate * took_s;
        let tool_fault = if own_drops > 0 {
            Some(format!("own queues dropped {own_drops}"))
        } else if backlog_drops > 0 {
            Some(format!("the kernel's backlog dropped {backlog_drops}"))
        } else if (totals.sent as f64) < offered * SENT_MIN {
            let share = totals.sent as f64 / offered * 100.0;
            Some(format!("the generator sent {share:.1} % of the rate"))
        } else if lateness_p99_ns > bound {
            Some(format!("the generator was {} late (p99)", duration(lateness_p99_ns)))
        } else {
            None
        };
        let latency = pair.latency();
        Ok(Measured { rate, tool_fault, latency, lateness_p99_ns, totals, took_s, cpu, seconds })
    }

    /// Reads the totals once per second until the probe is over.
    fn follow(&self, pair: Pair<'_>, relay: &Relay, started: u64) -> anyhow::Result<Vec<Second>> {
        let mut seconds = Vec::new();
        let (mut totals, mut cpu) = (pair.totals(), relay.cpu()?.unwrap_or_default());
        let mut histogram = payload::nanoseconds();
        for number in 1..=self.arguments.step_seconds {
            let end = started + number * SECOND;
            clock::pause(Duration::from_nanos(end.saturating_sub(clock::now())));
            let (totals_now, cpu_now) = (pair.totals(), relay.cpu()?.unwrap_or_default());
            let (since, latency) = (totals_now.since(totals), pair.latency());
            let mut interval = latency.clone();
            // The same bounds, and never more than the total it is a part of.
            let _ = interval.subtract(&histogram);
            seconds.push(Second {
                at_s: clock::now().saturating_sub(started) as f64 / SECOND as f64,
                sent: since.sent,
                received: since.tally.received,
                lost: since.tally.missing,
                reordered: since.tally.reordered,
                cpu_ns: cpu_now.since(cpu).cpu_ns,
                p50_ns: interval.value_at_quantile(0.5),
                p99_ns: interval.value_at_quantile(0.99),
            });
            (totals, cpu, histogram) = (totals_now, cpu_now, latency);
        }
        Ok(seconds)
    }
}

impl Measured {
    pub(super) fn loss_percent(&self) -> f64 {
        self.totals.lost() as f64 / self.totals.sent.max(1) as f64 * 100.0
    }

    pub(super) fn delivered_per_second(&self) -> f64 {
        self.totals.tally.received as f64 / self.took_s
    }

    pub(super) fn cpu_ns_per_packet(&self) -> Option<f64> {
        Some(self.cpu?.cpu_ns as f64 / self.totals.tally.received.max(1) as f64)
    }

    pub(super) fn into_cell(self, shape: String, subject: &str, verdict: &Verdict) -> Cell {
        let mut cell = Cell::new(shape, subject);
        let mut add = |name, unit, better, value| cell.add(name, unit, better, vec![value]);
        add(name::OFFERED_PPS, "1/s", Better::Neither, self.rate);
        add(name::DELIVERED_PPS, "1/s", Better::Higher, self.delivered_per_second());
        add(name::LOSS_PERCENT, "%", Better::Lower, self.loss_percent());
        add(name::REORDERED, "", Better::Lower, self.totals.tally.reordered as f64);
        for (name, quantile) in [
            (name::LATENCY_P50, 0.5),
            (name::LATENCY_P90, 0.9),
            (name::LATENCY_P99, 0.99),
            (name::LATENCY_P999, 0.999),
            (name::LATENCY_MAX, 1.0),
        ] {
            let value = self.latency.value_at_quantile(quantile) as f64;
            add(name, "ns", Better::Lower, value);
        }
        if let (Some(cost), Some(cpu)) = (self.cpu_ns_per_packet(), self.cpu) {
            add(name::CPU_NS_PER_PACKET, "ns", Better::Lower, cost);
            let percent = cpu.cpu_ns as f64 / (self.took_s * SECOND as f64) * 100.0;
            add(name::CPU_PERCENT, "%", Better::Lower, percent);
            add(name::RUN_DELAY_PERCENT, "%", Better::Lower, cpu.delay_share() * 100.0);
        }
        add("lateness_p99", "ns", Better::Lower, self.lateness_p99_ns as f64);
        let is_held = f64::from(u8::from(*verdict == Verdict::Held));
        add("held", "", Better::Higher, is_held);
        cell.void = self.tool_fault;
        cell.latency = encoded(&self.latency);
        cell.seconds = self.seconds;
        cell
    }
}

/// The emulator of either protocol.
enum Emulator {
    Srt(Origin),
    Webrtc(webrtc::origin::Origin),
}

impl Emulator {
    fn start(stage: &Stage<'_>, rate: f64) -> anyhow::Result<Self> {
        let arguments = stage.arguments;
        let (cpus, seed) = (stage.tool_cpus.clone(), arguments.seed.wrapping_add(1));
        let origin = match arguments.protocol {
            Protocol::Srt => Origin::start(OriginSettings {
                media: stage.srt_media(rate),
                sends_media: false,
                socket: STAMPED,
                cpus,
                seed,
                ..OriginSettings::new(arguments.origin)
            })
            .map(Self::Srt),
            Protocol::Webrtc => webrtc::origin::Origin::start(webrtc::origin::OriginSettings {
                http: arguments.origin_http,
                rtc: arguments.origin,
                media: stage.webrtc_media(rate),
                sends_media: false,
                socket: STAMPED,
                cpus,
                seed,
                ..webrtc::origin::OriginSettings::default()
            })
            .map(Self::Webrtc),
        };
        origin.with_context(|| format!("start the origin on {}", arguments.origin))
    }

    fn worker(&self) -> &Worker {
        match self {
            Self::Srt(origin) => origin.worker(),
            Self::Webrtc(origin) => origin.worker(),
        }
    }

    fn endpoints(&self) -> anyhow::Result<Endpoints> {
        Ok(match self {
            Self::Srt(origin) => Endpoints::srt(reachable(origin.address()?)),
            Self::Webrtc(origin) => Endpoints {
                ip: reachable(origin.rtc_address()).ip(),
                srt: None,
                rtc: Some(origin.rtc_address().port()),
                api: Some(origin.http_address().port()),
            },
        })
    }
}

/// The relay under test.
struct Relay {
    srt: Option<SocketAddr>,
    webrtc: Option<WebrtcEntrance>,
    own: Option<Subject>,
}

impl Relay {
    /// What its relaying thread has used so far; `None` for a relay in another process.
    fn cpu(&self) -> anyhow::Result<Option<CpuTime>> {
        let Some(own) = &self.own else { return Ok(None) };
        let shard = ThreadId { pid: measure::this_thread().pid, tid: own.tid };
        Ok(Some(CpuTime::of(shard).context("read the relay thread's CPU time")?))
    }
}

/// As [`Cell::latency`] holds it.
fn encoded(histogram: &Histogram<u64>) -> Option<String> {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new().serialize(histogram, &mut bytes).ok()?;
    Some(BASE64_STANDARD.encode(bytes))
}

const STAMPED: SocketOptions =
    SocketOptions { timestamps: true, trains: false, destinations: false };
const SETTLE_PATIENCE: Duration = Duration::from_secs(2);
/// Less of the asked rate than this, and the probe is one of the generator. Starting and stopping
/// take up to 20 ms of a probe of 1 s or more.
const SENT_MIN: f64 = 0.97;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::Page;
    use crate::result::Outcome;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        arguments: SeekArguments,
    }

    fn arguments(words: &[&str]) -> SeekArguments {
        Line::parse_from(["seek"].iter().chain(words)).arguments
    }

    #[test]
    fn a_probe_far_below_the_limit_holds_and_can_be_drawn() {
        for protocol in ["srt", "webrtc"] {
            let words = ["--protocol", protocol, "--engine", "mmsg", "--sessions", "4"];
            let arguments = SeekArguments { step_seconds: 2, ..arguments(&words) };
            let stage = Stage::new(&arguments).unwrap();
            // Whether this machine is quiet enough to measure on is not the question.
            let measured = Measured { tool_fault: None, ..stage.probe(200.0).unwrap() };
            assert!(measured.totals.sent > 0, "{protocol}");
            assert_eq!(measured.totals.lost(), 0, "{protocol}");
            assert!(measured.cpu_ns_per_packet().unwrap() > 0.0);
            let mut outcome = Outcome::new("one probe", crate::measure::Host::this());
            outcome.cells.push(measured.into_cell(stage.shape(), "mmsg", &Verdict::Held));
            let page = Page::of(&[outcome], None).unwrap();
            assert!(page.plots.iter().any(|plot| plot.name.ends_with("latency")), "{protocol}");
        }
    }
}
