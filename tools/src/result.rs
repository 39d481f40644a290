//! What a measurement has found, in the one form that is written, compared and drawn.
//!
//! Commands that measure a relay make an [`Outcome`]: who measured where with which set-up, and a
//! [`Cell`] for each subject in each shape. `compare` reads two of them, `report` draws one. The
//! form is the file's: fields are added, never renamed, and [`SCHEMA`] rises when the meaning of one
//! changes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use crate::measure::Host;
use crate::report::{median, write_json};

/// A finished measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// [`SCHEMA`] of the program that wrote it.
    pub schema: u32,
    /// What was measured, in a sentence's worth of words: a heading.
    pub title: String,
    /// Where and when.
    pub host: Host,
    /// Everything that has to be equal for two outcomes to be comparable: method, rounds, sizes,
    /// rates, CPUs. Not the subjects, the time or the host.
    pub setup: BTreeMap<String, String>,
    /// One for each subject in each shape, in the order measured.
    pub cells: Vec<Cell>,
}

/// What one subject did in one shape.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// The row: direction, sessions, pattern, such as `up, 100 sessions, trains`. Subjects of one
    /// shape were measured in turn and may be compared.
    pub shape: String,
    /// The column: `uring`, `mmsg`, `tokio-uring`, `loop`, `plain-mmsg`, `tokio`, `bare`, `nginx`,
    /// or `generator` where a generator measured itself.
    pub subject: String,
    /// Why the figures count for nothing, where that is so: lost packets of the tool's own, a
    /// neighbour on the CPU, a generator that was the bottleneck.
    pub void: Option<String>,
    /// In the order in which they are shown.
    pub figures: Vec<Figure>,
    /// One-way latency in nanoseconds: a compressed V2 histogram in base64, as `HdrHistogram` tools
    /// read it.
    pub latency: Option<String>,
    /// The course of the measurement, where it was followed.
    pub seconds: Vec<Second>,
}

/// One figure of a cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// Such as `cpu_ns_per_packet`; see [`name`].
    pub name: String,
    /// `ns`, `1/s`, `%`, `B`, or empty for counts and ratios.
    pub unit: String,
    /// Which way is better.
    pub better: Better,
    /// Of the rounds.
    pub median: f64,
    /// Lowest round.
    pub low: f64,
    /// Highest round.
    pub high: f64,
    /// One value for each round that counts, in the order measured; a single one where there were no
    /// rounds.
    pub rounds: Vec<f64>,
}

/// Which way a figure is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// Costs, latencies, losses.
    Lower,
    /// Throughputs.
    Higher,
    /// Neither: it describes.
    Neither,
}

/// One second of a measurement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Second {
    /// Since the start of the measurement, at the end of this second.
    pub at_s: f64,
    /// Media packets sent in it.
    pub sent: u64,
    /// Media packets received in it.
    pub received: u64,
    /// Found missing in it.
    pub lost: u64,
    /// Received out of order in it.
    pub reordered: u64,
    /// CPU time of the relaying threads in it; 0 where it is not known.
    pub cpu_ns: u64,
    /// One-way latency in it.
    pub p50_ns: u64,
    /// One-way latency in it.
    pub p99_ns: u64,
}

/// Names that figures have in every command, so that what is the same is called the same.
pub mod name {
    /// CPU time of the relaying threads, system time included, per packet that came out.
    pub const CPU_NS_PER_PACKET: &str = "cpu_ns_per_packet";
    /// CPU time of the relaying threads as a share of one core.
    pub const CPU_PERCENT: &str = "cpu_percent";
    /// Packets per second that one fully used core would relay at this cost.
    pub const PPS_PER_CORE: &str = "pps_per_core";
    /// Packets offered per second.
    pub const OFFERED_PPS: &str = "offered_pps";
    /// Packets delivered per second.
    pub const DELIVERED_PPS: &str = "delivered_pps";
    /// Share of the packets sent that did not arrive.
    pub const LOSS_PERCENT: &str = "loss_percent";
    /// Packets that did not arrive.
    pub const LOST: &str = "lost";
    /// Packets that were overtaken.
    pub const REORDERED: &str = "reordered";
    /// One way, from when a packet was due to its arrival: a late sender is in it.
    pub const LATENCY_P50: &str = "latency_p50";
    /// One way, from when a packet was due to its arrival: a late sender is in it.
    pub const LATENCY_P90: &str = "latency_p90";
    /// One way, from when a packet was due to its arrival: a late sender is in it.
    pub const LATENCY_P99: &str = "latency_p99";
    /// One way, from when a packet was due to its arrival: a late sender is in it.
    pub const LATENCY_P999: &str = "latency_p99.9";
    /// One way, from when a packet was due to its arrival: a late sender is in it.
    pub const LATENCY_MAX: &str = "latency_max";
    /// Datagrams per receive that brought any.
    pub const RECEIVE_BATCH: &str = "datagrams_per_receive";
    /// Datagrams per send.
    pub const SEND_BATCH: &str = "datagrams_per_send";
    /// System calls of the packet path per packet.
    pub const SYSCALLS_PER_PACKET: &str = "syscalls_per_packet";
    /// Resident memory per session.
    pub const MEMORY_PER_SESSION: &str = "memory_per_session";
    /// Run delay of the relaying threads as a share of their CPU time.
    pub const RUN_DELAY_PERCENT: &str = "run_delay_percent";
    /// SRT connects or WHIP requests answered per second.
    pub const CONNECTS_PER_SECOND: &str = "connects_per_second";

    /// CPU time per packet as a multiple of what the subject `base` costs: its rounds are the
    /// ratios within rounds, which a disturbance of the whole machine moves least.
    #[must_use]
    pub fn ratio_of(base: &str) -> String {
        format!("{RATIO_PREFIX}{base}")
    }

    /// The base, where `figure` is such a ratio.
    #[must_use]
    pub fn base_of(figure: &str) -> Option<&str> {
        figure.strip_prefix(RATIO_PREFIX)
    }

    const RATIO_PREFIX: &str = "of_";
}

impl Outcome {
    /// An outcome without cells.
    #[must_use]
    pub fn new(title: impl Into<String>, host: Host) -> Self {
        let (setup, cells) = (BTreeMap::new(), Vec::new());
        Self { schema: SCHEMA, title: title.into(), host, setup, cells }
    }

    /// Notes a part of the set-up.
    pub fn note(&mut self, key: &str, value: impl ToString) {
        self.setup.insert(key.to_owned(), value.to_string());
    }

    /// Writes it as JSON.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        write_json(path, self)
    }

    /// Reads what `write` wrote.
    ///
    /// # Errors
    /// The file cannot be read, is not an outcome, or is one of a later program.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let name = path.display();
        let file = File::open(path).with_context(|| format!("open {name}"))?;
        let outcome: Self = serde_json::from_reader(BufReader::new(file))
            .with_context(|| format!("{name} is not a result of ringway-bench"))?;
        let schema = outcome.schema;
        ensure!(
            schema <= SCHEMA,
            "{name} has schema {schema}; this program reads up to {SCHEMA}: use the newer one"
        );
        Ok(outcome)
    }

    /// The cell of a subject in a shape.
    #[must_use]
    pub fn cell(&self, shape: &str, subject: &str) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.shape == shape && cell.subject == subject)
    }
}

impl Cell {
    /// A cell without figures.
    #[must_use]
    pub fn new(shape: impl Into<String>, subject: impl Into<String>) -> Self {
        Self { shape: shape.into(), subject: subject.into(), ..Self::default() }
    }

    /// Adds a figure with its rounds. Without a round there is none.
    pub fn add(&mut self, name: &str, unit: &str, better: Better, rounds: Vec<f64>) {
        let Some(median) = median(&rounds) else { return };
        let low = rounds.iter().copied().fold(f64::INFINITY, f64::min);
        let high = rounds.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let (name, unit) = (name.to_owned(), unit.to_owned());
        self.figures.push(Figure { name, unit, better, median, low, high, rounds });
    }

    /// CPU time per packet as a multiple of what `base` costs, where both were measured in turns:
    /// the median of the ratios within rounds. `None` where the cell is void.
    #[must_use]
    pub fn ratio_of(&self, base: &str) -> Option<f64> {
        self.figure(&name::ratio_of(base)).filter(|_| self.void.is_none()).map(|of| of.median)
    }

    /// The figure of that name.
    #[must_use]
    pub fn figure(&self, name: &str) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.name == name)
    }
}

/// Of the outcomes that this program writes.
pub const SCHEMA: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_is_read_back_as_it_was_written() {
        let mut outcome = Outcome::new("a test", Host::this());
        outcome.note("rounds", 5);
        let mut cell = Cell::new("up, 1 session", "loop");
        cell.add(name::CPU_NS_PER_PACKET, "ns", Better::Lower, vec![3.0, 1.0, 2.0]);
        cell.seconds.push(Second { at_s: 1.0, sent: 7, ..Second::default() });
        outcome.cells.push(cell);
        let file = std::env::temp_dir().join(format!("ringway-outcome-{}", std::process::id()));
        outcome.write(&file).unwrap();
        let read = Outcome::read(&file);
        std::fs::remove_file(&file).unwrap();
        assert_eq!(read.unwrap(), outcome);
    }

    #[test]
    fn a_figure_shows_median_and_spread_of_its_rounds() {
        let mut cell = Cell::default();
        cell.add(name::LOST, "", Better::Lower, vec![3.0, 1.0, 2.0]);
        let figure = cell.figure(name::LOST).unwrap();
        assert_eq!((figure.low, figure.median, figure.high), (1.0, 2.0, 3.0));
    }

    #[test]
    fn a_ratio_is_found_by_its_base_unless_the_cell_is_void() {
        let mut cell = Cell::default();
        cell.add("of_loop", "", Better::Lower, vec![0.5, 0.7, 0.6]);
        assert_eq!((cell.ratio_of("loop"), cell.ratio_of("mmsg")), (Some(0.6), None));
        cell.void = Some("a neighbour".to_owned());
        assert_eq!(cell.ratio_of("loop"), None);
    }

    #[test]
    fn a_name_of_a_ratio_says_its_base() {
        assert_eq!(name::base_of(&name::ratio_of("plain-mmsg")), Some("plain-mmsg"));
        assert_eq!(name::base_of(name::OFFERED_PPS), None);
    }

    #[test]
    fn a_figure_without_rounds_is_left_out() {
        let mut cell = Cell::default();
        cell.add(name::LOST, "", Better::Lower, Vec::new());
        assert!(cell.figures.is_empty());
    }

    #[test]
    fn an_outcome_of_a_later_program_is_refused() {
        let mut outcome = Outcome::new("a test", Host::this());
        outcome.schema = SCHEMA + 1;
        let file = std::env::temp_dir().join(format!("ringway-later-{}", std::process::id()));
        outcome.write(&file).unwrap();
        let error = Outcome::read(&file).unwrap_err();
        std::fs::remove_file(&file).unwrap();
        assert!(error.to_string().contains("schema 2"), "{error}");
    }
}
