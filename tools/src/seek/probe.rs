//! One probe: origin, relay and clients for a few seconds at one rate.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use hdrhistogram::Histogram;

use super::{Protocol, SeekArguments, Verdict};
use crate::account::Account;
use crate::batch::SocketOptions;
use crate::clock::{self, SECOND};
use crate::gate::{CpuReading, Gate};
use crate::generator::{Generator, GeneratorSettings, Roles};
use crate::hdr;
use crate::measure::{self, CpuTime};
use crate::origin::{Origin, OriginSettings};
use crate::pair::{Pair, Totals};
use crate::payload;
use crate::place::Place;
use crate::registration::{Endpoints, Registration, reachable};
use crate::relay_process::{RelayFlags, RelayProcess};
use crate::report::duration;
use crate::result::{Better, Cell, Second, name};
use crate::shape::Shape;
use crate::station::Media;
use crate::subject::{Setup, Tuning, WebrtcEntrance};
use crate::webrtc;
use crate::worker::{Worker, await_sessions};

/// What all probes share.
pub(super) struct Stage<'a> {
    arguments: &'a SeekArguments,
    place: Place,
    /// Of the running relay, where its process is known.
    account: Option<Account>,
}

/// What a probe has measured.
pub(super) struct Measured {
    /// Asked for, in packets per second.
    pub(super) rate: f64,
    /// Why it says nothing about the relay.
    pub(super) tool_fault: Option<String>,
    /// One way, from when a packet was due.
    pub(super) latency: Histogram<u64>,
    lateness_p99_ns: u64,
    totals: Totals,
    took_s: f64,
    /// `None` for a running relay whose process is not known.
    cpu: Option<CpuTime>,
    seconds: Vec<Second>,
}

impl<'a> Stage<'a> {
    pub(super) fn new(arguments: &'a SeekArguments) -> anyhow::Result<Self> {
        let running = arguments.target.or(arguments.http);
        let place = match running {
            Some(_) => Place::beside_running()?,
            None => Place::apart()?,
        };
        let account = arguments.pid.zip(running);
        let account =
            account.map(|(pid, address)| Account::of_running(pid, address)).transpose()?;
        place.leave_relay()?;
        Ok(Self { arguments, place, account })
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
        let Place { relay, tool } = &self.place;
        if self.is_running_already() {
            return format!("tool {tool:?}, relay where it was started");
        }
        format!("relay {relay}, tool {tool:?}")
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
            let reader = self.account.clone().map_or(Reader::Unknown, Reader::Running);
            return Ok(Relay { srt: *target, webrtc, reader });
        }
        if engine.is_baseline() {
            let gate = Box::new(Gate::start(&Setup {
                engine: *engine,
                origin,
                cpus: vec![self.place.relay],
                other_cpus: self.place.tool.clone(),
                tuning: Tuning::default(),
            })?);
            let address = gate.address();
            // It answers no offers: the origin does, and the media go through the relay.
            let webrtc = origin.api.map(|api| WebrtcEntrance {
                http: SocketAddr::new(origin.ip, api),
                media_via: Some(address),
            });
            return Ok(Relay { srt: Some(address), webrtc, reader: Reader::Baseline(gate) });
        }
        let own = RelayProcess::start(&RelayFlags::new(*engine, &self.place), origin)?;
        let webrtc = WebrtcEntrance { http: own.http()?, media_via: None };
        Ok(Relay { srt: Some(own.srt()?), webrtc: Some(webrtc), reader: Reader::Own(own) })
    }

    fn clients(&self, relay: &Relay, rate: f64) -> anyhow::Result<Worker> {
        let SeekArguments { protocol, role, seed, .. } = *self.arguments;
        let (sessions, cpus) = (self.arguments.sessions as usize, self.place.tool.clone());
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
        let errors_before = pair.send_errors();
        let backlog_before = measure::backlog_drops();
        let cpu_before = relay.cpu()?;
        let started = clock::now();
        pair.send_media(true);
        let seconds = self.follow(pair, relay, started)?;
        pair.send_media(false);
        let took_s = clock::now().saturating_sub(started) as f64 / SECOND as f64;
        pair.settle(before, SETTLE_PATIENCE);
        let totals = pair.totals().since(before);
        let cpu = relay.cpu()?.zip(cpu_before).map(|(after, before)| after.since(&before));
        let lateness_p99_ns = pair.lateness().value_at_quantile(0.99);
        let own_drops = pair.own_drops() - drops_before;
        let backlog_drops = measure::backlog_drops() - backlog_before;
        let bound = u64::try_from(self.arguments.p90_max.as_nanos()).unwrap_or(u64::MAX);
        let offered = rate * took_s;
        let send_errors = pair.send_errors() - errors_before;
        let tool_fault = if own_drops > 0 {
            Some(format!("own queues dropped {own_drops}"))
        } else if backlog_drops > 0 {
            Some(format!("the kernel's backlog dropped {backlog_drops}"))
        } else if send_errors > 0 {
            Some(format!("the kernel refused {send_errors} packets"))
        } else if (totals.sent as f64) < offered * SENT_MIN {
            let share = totals.sent as f64 / offered * 100.0;
            Some(format!("the generator is the bottleneck: it sent {share:.1} % of the rate"))
        } else if lateness_p99_ns > bound {
            let late = duration(lateness_p99_ns);
            Some(format!("the generator is the bottleneck: it was {late} late (p99)"))
        } else {
            None
        };
        let latency = pair.due_latency();
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
            let (since, latency) = (totals_now.since(totals), pair.due_latency());
            let mut interval = latency.clone();
            // The same bounds, and never more than the total it is a part of.
            let _ = interval.subtract(&histogram);
            seconds.push(Second {
                at_s: clock::now().saturating_sub(started) as f64 / SECOND as f64,
                sent: since.sent,
                received: since.tally.received,
                lost: since.tally.missing,
                reordered: since.tally.reordered,
                cpu_ns: cpu_now.since(&cpu).cpu_ns,
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

    /// What was sent, not what was asked for.
    pub(super) fn offered_per_second(&self) -> f64 {
        self.totals.sent as f64 / self.took_s
    }

    /// How long the relaying threads waited for their CPU, as a share of what they used.
    pub(super) fn run_delay_percent(&self) -> Option<f64> {
        Some(self.cpu?.delay_share() * 100.0)
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
        add("asked_pps", "1/s", Better::Neither, self.rate);
        add(name::OFFERED_PPS, "1/s", Better::Neither, self.offered_per_second());
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
        cell.latency = hdr::encode(&self.latency);
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
        let (cpus, seed) = (stage.place.tool.clone(), arguments.seed.wrapping_add(1));
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
    reader: Reader,
}

/// Where its CPU time is read; a relay that was started here ends with it.
enum Reader {
    Own(RelayProcess),
    Baseline(Box<Gate>),
    Running(Account),
    Unknown,
}

impl Relay {
    /// What its relaying threads have used so far.
    fn cpu(&self) -> anyhow::Result<Option<CpuReading>> {
        Ok(match &self.reader {
            Reader::Own(relay) => Some(relay.account().shard_cpu()?),
            Reader::Baseline(gate) => Some(gate.cpu()?),
            Reader::Running(account) => Some(account.shard_cpu()?),
            Reader::Unknown => None,
        })
    }
}

const STAMPED: SocketOptions =
    SocketOptions { timestamps: true, trains: false, destinations: false };
const SETTLE_PATIENCE: Duration = Duration::from_secs(2);
/// Less of the asked rate than this, and the probe is one of the generator. Starting and stopping
/// take up to 20 ms of a probe of 1 s or more.
const SENT_MIN: f64 = 0.97;

#[cfg(test)]
mod tests {
    use super::super::judge;
    use super::*;
    use crate::page::Page;
    use crate::payload::Tally;
    use crate::result::Outcome;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        arguments: SeekArguments,
    }

    fn arguments() -> SeekArguments {
        Line::parse_from(["seek"]).arguments
    }

    /// Two seconds of a probe at 1,000 packets/s in which all was as it should be, but for `lost`.
    fn measured(lost: u64) -> Measured {
        let mut latency = payload::nanoseconds();
        latency.record_n(50_000, 1_980).unwrap();
        let tally = Tally { received: 1_980 - lost, ..Tally::default() };
        let totals = Totals { sessions: 4, sent: 1_980, datagrams: 2_000, tally };
        Measured {
            rate: 1_000.0,
            tool_fault: None,
            latency,
            lateness_p99_ns: 10_000,
            totals,
            took_s: 2.0,
            cpu: Some(CpuTime { cpu_ns: 10_000_000, run_delay_ns: 0 }),
            seconds: vec![Second { at_s: 1.0, sent: 990, received: 990, ..Second::default() }],
        }
    }

    #[test]
    fn a_probe_is_a_cell_that_can_be_drawn() {
        let mut outcome = Outcome::new("one probe", measure::Host::this());
        let cell = measured(0).into_cell("SRT".to_owned(), "mmsg", &Verdict::Held);
        assert!(cell.figure(name::CPU_NS_PER_PACKET).unwrap().median > 5_000.0);
        outcome.cells.push(cell);
        let page = Page::of(&[outcome], None).unwrap();
        assert!(page.plots.iter().any(|plot| plot.name.ends_with("latency")));
    }

    #[test]
    fn what_was_offered_is_what_was_sent() {
        let cell = measured(0).into_cell("SRT".to_owned(), "mmsg", &Verdict::Held);
        assert!((cell.figure(name::OFFERED_PPS).unwrap().median - 990.0).abs() < 1e-9);
        assert!((cell.figure("asked_pps").unwrap().median - 1_000.0).abs() < 1e-9);
    }

    #[test]
    fn a_loss_fails_unless_something_else_ran_on_the_relays_cpu() {
        assert_eq!(judge(&arguments(), &measured(0)), Verdict::Held);
        assert!(matches!(judge(&arguments(), &measured(1)), Verdict::Failed(_)));
        let cpu = Some(CpuTime { cpu_ns: 10_000_000, run_delay_ns: 300_000 });
        let disturbed = judge(&arguments(), &Measured { cpu, ..measured(1) });
        assert!(matches!(disturbed, Verdict::Spoilt(why) if why.contains("run delay 3.0 %")));
        assert_eq!(judge(&arguments(), &Measured { cpu, ..measured(0) }), Verdict::Held);
    }

    #[test]
    fn a_generator_that_was_late_spoils_the_probe() {
        let tool_fault = Some("late".to_owned());
        let verdict = judge(&arguments(), &Measured { tool_fault, ..measured(0) });
        assert_eq!(verdict, Verdict::Spoilt("late".to_owned()));
    }
}
