//! Metrics: the counters of all shards as text for Prometheus and its like.
//!
//! Nothing is registered or counted here while media flows; a scrape copies the shards' plain
//! integers and writes them down. Label values come from closed sets and from the names of origins,
//! never from sessions.

use std::fmt;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeCounterValue, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::protocol::srt::Rejection;
use crate::shard::DropReason;
use crate::shard::command::{Flow, Protocol};
use crate::shard::counters::{BATCH_BOUNDS, Counters, IoCounters, Share};

/// What [`render`] writes. The samples are the same; the names of counters in comments are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The text format of Prometheus, version 0.0.4, which everything reads.
    Prometheus,
    /// OpenMetrics 1.0.0, for those who ask for it.
    OpenMetrics,
}

impl Format {
    /// What a client gets whose Accept headers are `accept`.
    pub fn for_client<'a>(mut accept: impl Iterator<Item = &'a str>) -> Self {
        if accept.any(|types| types.contains("application/openmetrics-text")) {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// For the Content-Type header.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Everything a scrape shows.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// By index.
    pub shards: Vec<ShardSnapshot>,
    /// All that are known.
    pub origins: Vec<OriginSnapshot>,
    /// From an SRT conclusion to its answer; from the expectation of a WebRTC client to its proof.
    pub setup: SetupTimes,
    /// WebRTC sessions whose client has not come yet.
    pub sessions_expected: u64,
    /// WebRTC sessions that control refused, by reason. Those of SRT are in the shards' counters.
    pub webrtc_refusals: Vec<(&'static str, u64)>,
    /// Whether new sessions are refused, because an operator drains the relay or it quits.
    pub is_draining: bool,
    /// Of this program.
    pub version: &'static str,
    /// How the shards do their I/O.
    pub engine: &'static str,
}

/// One origin at the time of a scrape.
#[derive(Clone, Debug, Default)]
pub struct OriginSnapshot {
    /// Unique.
    pub name: String,
    /// Whether new streams may go to it.
    pub is_up: bool,
    /// With it, through this relay.
    pub sessions: u32,
    /// From which on it gets no new streams, where that was configured.
    pub capacity: Option<u32>,
}

impl OriginSnapshot {
    fn label(&self) -> [(&str, &str); 1] {
        [("origin", &self.name)]
    }
}

/// One shard at the time of a scrape.
#[derive(Clone, Debug, Default)]
pub struct ShardSnapshot {
    /// The last that are known, so that nothing ever counts backwards.
    pub counters: Counters,
    /// Whether they are fresh.
    pub is_up: bool,
    /// CPU time of its thread, where the kernel tells.
    pub cpu_seconds: Option<f64>,
}

/// How long sessions took to set up.
#[derive(Clone, Debug, Default)]
pub struct SetupTimes {
    /// Not cumulative; the last one is above all bounds.
    buckets: [u64; SETUP_BOUNDS.len() + 1],
    sum: Duration,
}

impl SetupTimes {
    /// Counts one session.
    pub fn observe(&mut self, setup: Duration) {
        let seconds = setup.as_secs_f64();
        let bucket = SETUP_BOUNDS.iter().take_while(|bound| seconds > **bound).count();
        if let Some(count) = self.buckets.get_mut(bucket) {
            *count += 1;
        }
        self.sum += setup;
    }
}

/// Writes a snapshot as text.
///
/// # Errors
/// None that a snapshot can cause: writing to a string succeeds.
pub fn render(snapshot: Snapshot, format: Format) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("ringway");
    registry.register_collector(Box::new(snapshot));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(match format {
        Format::OpenMetrics => text,
        Format::Prometheus => prometheus_text(&text),
    })
}

/// In the older format a counter's comments bear the name of its samples.
fn prometheus_text(text: &str) -> String {
    let mut older = String::with_capacity(text.len());
    let mut lines = text.lines().peekable();
    let is_counter = |line: &str| line.starts_with("# TYPE ") && line.ends_with(" counter");
    while let Some(line) = lines.next().filter(|line| *line != "# EOF") {
        let of_counter = is_counter(line)
            || line.starts_with("# HELP ") && lines.peek().is_some_and(|next| is_counter(next));
        let mut words = line.splitn(4, ' ');
        match (of_counter, words.next(), words.next(), words.next(), words.next()) {
            (true, Some(hash), Some(keyword), Some(name), Some(rest)) => {
                older.push_str(&format!("{hash} {keyword} {name}_total {rest}"));
            }
            _ => older.push_str(line),
        }
        older.push('\n');
    }
    older
}

/// Reads the CPU time out of `/proc/<pid>/task/<tid>/schedstat`: nanoseconds on a CPU, first of
/// three numbers.
pub fn cpu_seconds(schedstat: &str) -> Option<f64> {
    let nanoseconds: u64 = schedstat.split_ascii_whitespace().next()?.parse().ok()?;
    Some(Duration::from_nanos(nanoseconds).as_secs_f64())
}

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut out = Out(encoder);
        self.encode_traffic(&mut out)?;
        self.encode_refusals(&mut out)?;
        self.encode_sessions(&mut out)?;
        self.encode_io(&mut out)?;
        self.encode_origins(&mut out)?;
        self.encode_process(&mut out)
    }
}

impl Snapshot {
    fn sum(&self, of: impl Fn(&Counters) -> u64) -> u64 {
        self.shards.iter().map(|shard| of(&shard.counters)).sum()
    }

    fn by_protocol(&self, of: fn(&Share) -> u64) -> [([(&'static str, &'static str); 1], u64); 2] {
        Protocol::ALL.map(|protocol| {
            let count = self.sum(|counters| of(counters.of(protocol)));
            ([("proto", protocol.label())], count)
        })
    }

    fn encode_traffic(&self, out: &mut Out<'_>) -> fmt::Result {
        let flows = |part: fn(Flow) -> u64| {
            Protocol::ALL.into_iter().flat_map(move |protocol| {
                FLOWS.map(|(leg, dir, flow)| {
                    let count = self.sum(|counters| part(flow(counters.of(protocol))));
                    ([("proto", protocol.label()), ("leg", leg), ("dir", dir)], count)
                })
            })
        };
        out.counters("packets", "Datagrams", flows(|flow| flow.packets))?;
        out.counters("bytes", "UDP payload bytes", flows(|flow| flow.bytes))?;
        let drops = DropReason::ALL.iter().enumerate().map(|(index, reason)| {
            let count = self.sum(|counters| counters.drops.get(index).copied().unwrap_or(0));
            ([("reason", reason.label())], count)
        });
        out.counters("drops", "Datagrams that went nowhere", drops)?;
        let stun = DropReason::ALL.iter().enumerate().filter_map(|(index, reason)| {
            let reason = stun_reason(reason.label())?;
            let count = self.sum(|counters| counters.drops.get(index).copied().unwrap_or(0));
            Some(([("reason", reason)], count))
        });
        out.counters("stun_rejected", "STUN messages that proved nothing", stun)
    }

    fn encode_refusals(&self, out: &mut Out<'_>) -> fmt::Result {
        let own = Rejection::ALL.iter().enumerate().map(|(index, rejection)| {
            let count = self.sum(|counters| counters.refusals.get(index).copied().unwrap_or(0));
            (rejection.label(), count)
        });
        let by_origin = ("origin", self.sum(|counters| counters.refusals_by_origin));
        let refusals = own
            .chain([by_origin])
            .map(|(reason, count)| ([("proto", "srt"), ("reason", reason)], count));
        let webrtc = self.webrtc_refusals.iter();
        let webrtc =
            webrtc.map(|&(reason, count)| ([("proto", "webrtc"), ("reason", reason)], count));
        let refusals = refusals.chain(webrtc);
        out.counters("refusals", "Sessions refused, by this relay or by the origin", refusals)
    }

    fn encode_sessions(&self, out: &mut Out<'_>) -> fmt::Result {
        let established = self.by_protocol(|share| share.established);
        out.gauges("sessions", "Sessions that media may flow in", established)?;
        let pending = [([("proto", "srt")], self.sum(|counters| counters.pending))];
        out.gauges("sessions_pending", "Handshakes under way", pending)?;
        let expected = [(NO_LABELS, self.sessions_expected)];
        out.gauges("sessions_expected", "WebRTC sessions whose client has not come", expected)?;
        let created = self.by_protocol(|share| share.sessions_created);
        out.counters("sessions_created", "Sessions that became established", created)?;
        let bounds = SETUP_BOUNDS.into_iter().chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(self.setup.buckets).collect();
        let sum = self.setup.sum.as_secs_f64();
        let help =
            "From an SRT conclusion to its answer, from a WebRTC answer to its client's proof";
        out.histogram("session_setup_seconds", help, sum, &buckets)
    }

    fn encode_io(&self, out: &mut Out<'_>) -> fmt::Result {
        let batches: Vec<_> = BATCH_BOUNDS
            .iter()
            .enumerate()
            .map(|(index, bound)| {
                let count = |counters: &Counters| counters.io.send_batches.get(index).copied();
                (*bound as f64, self.sum(|counters| count(counters).unwrap_or(0)))
            })
            .chain([(f64::INFINITY, 0)])
            .collect();
        let segments = self.sum(|counters| counters.io.sent_segments);
        out.histogram("send_batch_segments", "Datagrams per send", segments as f64, &batches)?;
        for (name, help, counter) in IO_COUNTERS {
            let count = self.sum(|counters| counter(&counters.io));
            out.counters(name, help, [(NO_LABELS, count)])?;
        }
        Ok(())
    }

    fn encode_origins(&self, out: &mut Out<'_>) -> fmt::Result {
        let origins = || self.origins.iter();
        let up = origins().map(|origin| (origin.label(), u64::from(origin.is_up)));
        out.gauges("origin_up", "Whether new streams may go to the origin", up)?;
        let sessions = origins().map(|origin| (origin.label(), u64::from(origin.sessions)));
        out.gauges("origin_sessions", "Sessions with the origin", sessions)?;
        let capacity =
            origins().filter_map(|origin| Some((origin.label(), u64::from(origin.capacity?))));
        out.gauges("origin_capacity", "Sessions that keep new streams away", capacity)?;
        let count = self.origins.len() as u64;
        out.gauges("origins", "Origins that are known", [(NO_LABELS, count)])
    }

    fn encode_process(&self, out: &mut Out<'_>) -> fmt::Result {
        let names: Vec<_> = (0..self.shards.len()).map(|index| index.to_string()).collect();
        let shards = || names.iter().zip(&self.shards);
        let cpu = shards()
            .filter_map(|(name, shard)| Some(([("shard", name.as_str())], shard.cpu_seconds?)));
        out.counters("shard_cpu_seconds", "CPU time of the shard's thread", cpu)?;
        let up = shards().map(|(name, shard)| ([("shard", name.as_str())], u64::from(shard.is_up)));
        out.gauges("shard_up", "Whether the shard answered this scrape", up)?;
        let sockets = shards()
            .map(|(name, shard)| ([("shard", name.as_str())], shard.counters.io.client_sockets));
        out.gauges("client_sockets", "Clients that have a socket of their own", sockets)?;
        let draining = [(NO_LABELS, u64::from(self.is_draining))];
        out.gauges("draining", "Whether new sessions are refused", draining)?;
        let build = [("version", self.version), ("engine", self.engine)];
        out.gauges("build_info", "What runs", [(build, 1)])
    }
}

/// The reason why STUN was not heeded, out of a drop's.
fn stun_reason(label: &'static str) -> Option<&'static str> {
    label.strip_prefix("stun_")
}

/// Writes whole families.
struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    /// The encoder appends `_total` to the name.
    fn counters<'l, const N: usize, V: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = ([(&'l str, &'l str); N], V)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in samples {
            if N == 0 {
                family.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
            } else {
                family
                    .encode_family(&labels)?
                    .encode_counter::<NoLabelSet, _, u64>(&value, None)?;
            }
        }
        Ok(())
    }

    fn gauges<'l, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = ([(&'l str, &'l str); N], u64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in samples {
            if N == 0 {
                family.encode_gauge(&value)?;
            } else {
                family.encode_family(&labels)?.encode_gauge(&value)?;
            }
        }
        Ok(())
    }

    /// `buckets` are not cumulative, and the last one has no bound.
    fn histogram(
        &mut self,
        name: &str,
        help: &str,
        sum: f64,
        buckets: &[(f64, u64)],
    ) -> fmt::Result {
        let count = buckets.iter().map(|(_, count)| count).sum();
        self.0
            .encode_descriptor(name, help, None, MetricType::Histogram)?
            .encode_histogram::<NoLabelSet>(sum, count, buckets, None)
    }
}

/// `leg`, `dir`, and where it is counted.
type FlowOf = (&'static str, &'static str, fn(&Share) -> Flow);
/// Name, help, and where it is counted.
type IoCounter = (&'static str, &'static str, fn(&IoCounters) -> u64);

const NO_LABELS: [(&str, &str); 0] = [];
const FLOWS: [FlowOf; 4] = [
    ("client", "in", |share| share.client_in),
    ("client", "out", |share| share.client_out),
    ("origin", "in", |share| share.origin_in),
    ("origin", "out", |share| share.origin_out),
];
const IO_COUNTERS: [IoCounter; 11] = [
    ("receive_queue_overflows", "Datagrams the kernel dropped before the relay took them", |io| {
        io.receive_queue_overflows
    }),
    ("ring_starved", "Receives that stopped because no buffer was free", |io| io.ring_starved),
    ("receive_errors", "Receives that failed: ICMP errors of origins, and worse", |io| {
        io.receive_errors
    }),
    ("completion_overflows", "Completions that found their ring full", |io| {
        io.completion_overflows
    }),
    ("receives", "Receives; a coalesced train is one", |io| io.receives),
    ("receives_rearmed", "Multishot receives armed again", |io| io.rearmed),
    ("gso_fallbacks", "Segmented sends that were refused and repeated one by one", |io| {
        io.gso_fallbacks
    }),
    ("wakeups", "Times a shard woke up", |io| io.wakeups),
    ("syscalls", "System calls of the packet path", |io| io.syscalls),
    ("gather_waits", "Sleeps that waited for several datagrams (--batch-wait)", |io| {
        io.gather_waits
    }),
    ("gathered_receives", "Receives that such sleeps have brought", |io| io.gathered_receives),
];
/// Upper bounds in seconds: a LAN, a continent, a satellite, and the 3 s after which callers give
/// up.
const SETUP_BOUNDS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0];

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> Snapshot {
        let mut first = Counters {
            srt: Share {
                client_in: Flow { packets: 3, bytes: 4_000 },
                origin_out: Flow { packets: 2, bytes: 2_632 },
                established: 1,
                sessions_created: 5,
                ..Share::default()
            },
            webrtc: Share { established: 2, sessions_created: 4, ..Share::default() },
            sessions: 2,
            pending: 1,
            refusals_by_origin: 9,
            ..Counters::default()
        };
        first.dropped(DropReason::UnknownSocketId, 4);
        first.refusals[0] = 6;
        first.io.send_batches = [1, 0, 2, 0, 0, 0, 0];
        first.io.sent_segments = 8;
        first.io.ring_starved = 7;
        first.io.receive_errors = 3;
        let client_in = Flow { packets: 1, bytes: 1_316 };
        let second =
            Counters { srt: Share { client_in, ..Share::default() }, ..Counters::default() };
        let mut setup = SetupTimes::default();
        setup.observe(Duration::from_millis(30));
        setup.observe(Duration::from_secs(5));
        Snapshot {
            shards: vec![
                ShardSnapshot { counters: first, is_up: true, cpu_seconds: Some(1.5) },
                ShardSnapshot { counters: second, is_up: false, cpu_seconds: None },
            ],
            origins: vec![
                OriginSnapshot {
                    name: "a".to_owned(),
                    is_up: true,
                    sessions: 4,
                    capacity: Some(50),
                },
                OriginSnapshot { name: "b \"x\"\\".to_owned(), ..OriginSnapshot::default() },
            ],
            setup,
            sessions_expected: 3,
            webrtc_refusals: vec![("no_origin", 2), ("rate", 0)],
            is_draining: true,
            version: "0.1.0",
            engine: "mmsg",
        }
    }

    fn lines() -> Vec<String> {
        render(snapshot(), Format::OpenMetrics).unwrap().lines().map(str::to_owned).collect()
    }

    #[track_caller]
    fn assert_holds(line: &str) {
        let lines = lines();
        assert!(lines.iter().any(|other| other == line), "{line}\nin\n{}", lines.join("\n"));
    }

    #[test]
    fn traffic_is_summed_over_shards_by_leg_and_direction() {
        assert_holds(r#"ringway_packets_total{proto="srt",leg="client",dir="in"} 4"#);
        assert_holds(r#"ringway_bytes_total{proto="srt",leg="client",dir="in"} 5316"#);
        assert_holds(r#"ringway_packets_total{proto="srt",leg="origin",dir="out"} 2"#);
        assert_holds("# TYPE ringway_packets counter");
    }

    #[test]
    fn drops_and_refusals_carry_their_reason() {
        assert_holds(r#"ringway_drops_total{reason="unknown_socket_id"} 4"#);
        assert_holds(r#"ringway_drops_total{reason="too_short"} 0"#);
        let first = Rejection::ALL[0].label();
        assert_holds(&format!(r#"ringway_refusals_total{{proto="srt",reason="{first}"}} 6"#));
        assert_holds(r#"ringway_refusals_total{proto="srt",reason="origin"} 9"#);
    }

    #[test]
    fn sessions_are_those_that_media_may_flow_in() {
        assert_holds(r#"ringway_sessions{proto="srt"} 1"#);
        assert_holds(r#"ringway_sessions_pending{proto="srt"} 1"#);
        assert_holds(r#"ringway_sessions_created_total{proto="srt"} 5"#);
    }

    #[test]
    fn webrtc_is_counted_beside_srt() {
        assert_holds(r#"ringway_sessions{proto="webrtc"} 2"#);
        assert_holds(r#"ringway_sessions_created_total{proto="webrtc"} 4"#);
        assert_holds("ringway_sessions_expected 3");
        assert_holds(r#"ringway_refusals_total{proto="webrtc",reason="no_origin"} 2"#);
        assert_holds(r#"ringway_refusals_total{proto="webrtc",reason="rate"} 0"#);
    }

    #[test]
    fn drops_of_stun_are_told_by_their_label() {
        assert_holds("# TYPE ringway_stun_rejected counter");
        assert_eq!(stun_reason("stun_wrong_integrity"), Some("wrong_integrity"));
        assert_eq!(stun_reason("too_short"), None);
    }

    #[test]
    fn histograms_are_cumulative_and_end_without_a_bound() {
        assert_holds(r#"ringway_session_setup_seconds_bucket{le="0.025"} 0"#);
        assert_holds(r#"ringway_session_setup_seconds_bucket{le="0.05"} 1"#);
        assert_holds(r#"ringway_session_setup_seconds_bucket{le="3.0"} 1"#);
        assert_holds(r#"ringway_session_setup_seconds_bucket{le="+Inf"} 2"#);
        assert_holds("ringway_session_setup_seconds_count 2");
        assert_holds("ringway_session_setup_seconds_sum 5.03");
        assert_holds(r#"ringway_send_batch_segments_bucket{le="1.0"} 1"#);
        assert_holds(r#"ringway_send_batch_segments_bucket{le="4.0"} 3"#);
        assert_holds(r#"ringway_send_batch_segments_bucket{le="+Inf"} 3"#);
        assert_holds("ringway_send_batch_segments_sum 8.0");
    }

    #[test]
    fn counters_of_the_engine_have_no_labels() {
        assert_holds("ringway_ring_starved_total 7");
        assert_holds("ringway_receive_errors_total 3");
        assert_holds("ringway_receive_queue_overflows_total 0");
    }

    #[test]
    fn origins_are_named_and_their_names_escaped() {
        assert_holds(r#"ringway_origin_up{origin="a"} 1"#);
        assert_holds(r#"ringway_origin_up{origin="b \"x\"\\"} 0"#);
        assert_holds("ringway_origins 2");
        assert_holds(r#"ringway_origin_sessions{origin="a"} 4"#);
        assert_holds(r#"ringway_origin_capacity{origin="a"} 50"#);
        assert_holds("ringway_draining 1");
    }

    #[test]
    fn a_shard_whose_thread_cannot_be_read_has_no_cpu_time() {
        assert_holds(r#"ringway_shard_cpu_seconds_total{shard="0"} 1.5"#);
        assert!(!lines().iter().any(|line| line.contains(r#"cpu_seconds_total{shard="1"}"#)));
        assert_holds(r#"ringway_shard_up{shard="1"} 0"#);
    }

    #[test]
    fn the_build_is_a_gauge_of_one_and_the_text_ends_as_openmetrics_says() {
        assert_holds(r#"ringway_build_info{version="0.1.0",engine="mmsg"} 1"#);
        assert_eq!(lines().last().map(String::as_str), Some("# EOF"));
    }

    #[test]
    fn the_older_format_has_the_same_samples_under_comments_of_their_name() {
        let older = render(snapshot(), Format::Prometheus).unwrap();
        let samples = |text: &str| -> Vec<String> {
            text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
        };
        assert_eq!(samples(&older), samples(&lines().join("\n")));
        for line in [
            "# HELP ringway_packets_total Datagrams",
            "# TYPE ringway_packets_total counter",
            "# TYPE ringway_sessions gauge",
            "# TYPE ringway_session_setup_seconds histogram",
        ] {
            assert!(older.lines().any(|other| other == line), "{line} in\n{older}");
        }
        assert!(!older.contains("# EOF"));
    }

    #[test]
    fn openmetrics_is_for_those_who_ask_for_it() {
        let of = |accept: &[&'static str]| Format::for_client(accept.iter().copied());
        assert_eq!(of(&[]), Format::Prometheus);
        assert_eq!(of(&["*/*"]), Format::Prometheus);
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;q=0.3";
        assert_eq!(of(&[prometheus]), Format::OpenMetrics);
    }

    #[test]
    fn every_sample_has_the_prefix_and_no_name_appears_in_two_families() {
        let lines = lines();
        assert!(lines.iter().all(|line| line.starts_with("ringway_") || line.starts_with("# ")));
        let mut families: Vec<_> =
            lines.iter().filter(|line| line.starts_with("# TYPE ")).collect();
        let count = families.len();
        families.sort();
        families.dedup();
        assert_eq!(families.len(), count);
    }

    #[test]
    fn cpu_time_is_the_first_field_of_schedstat() {
        assert_eq!(cpu_seconds("1500000000 12 7\n"), Some(1.5));
        assert_eq!(cpu_seconds(""), None);
        assert_eq!(cpu_seconds("x 1 2"), None);
    }
}
