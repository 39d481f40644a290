//! Two outcomes beside each other: which differences are more than noise, and which way they go.
//!
//! Only runs of one set-up are compared, for a difference between two set-ups says nothing about the
//! relay. The rule of significance stands in `RULE`, which `--help` shows as well. `--repeat` asks
//! another question: does a second run find the same ratios between the subjects?

mod repeat;
mod significance;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::ensure;

use crate::result::{Better, Cell, Figure, Outcome, name};

pub use self::significance::{Significance, significance};

/// `ringway-bench compare`
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = RULE)]
pub struct CompareArguments {
    /// The result to compare with
    #[arg(value_name = "A.json")]
    before: PathBuf,
    /// The result in question
    #[arg(value_name = "B.json")]
    after: PathBuf,
    /// Compare although host, kernel or CPU model differ; set-ups have to be equal all the same
    #[arg(long)]
    across_hosts: bool,
    /// Ask whether the ratios of all subjects to loop, plain-mmsg, mmsg and nginx, each the median
    /// of the ratios within rounds, differ by less than 10 % between the two runs
    #[arg(long)]
    repeat: bool,
    /// Print the comparison as JSON
    #[arg(long)]
    json: bool,
}

/// What `--help` says of the method.
const RULE: &str = "\
When a difference counts
  Rounds of both runs, at least 3 and fewer than 8: the ranges of the rounds do
  not overlap, and the medians differ by more than half of either range.
  8 rounds or more in both: the two-sided rank test (Mann-Whitney, with ties)
  gives p < 0.01, and the medians differ by more than half of the smaller
  interquartile range.
  Fewer than 3 rounds in one of them: the spread is not known; the medians have
  to differ by more than 10 %.
  p99.9, maximum and run delay are shown and never judged: on shared CPUs they
  say more about the neighbours. Void cells are named and not compared.

Exit code
  0  no figure is significantly worse (with --repeat: all ratios repeat)
  1  at least one is (with --repeat: one does not, or only one run has it)
  2  the two cannot be compared";

/// Why there is no comparison; the program ends with 2.
#[derive(Debug, thiserror::Error)]
#[error("these two results cannot be compared")]
pub struct Incomparable;

/// Reads both, compares and prints. Whether nothing has become worse.
///
/// # Errors
/// [`Incomparable`], with the reason as its cause.
pub fn run(arguments: &CompareArguments) -> anyhow::Result<bool> {
    let Finding { text, is_fine } =
        compare_files(arguments).map_err(|reason| reason.context(Incomparable))?;
    println!("{text}");
    Ok(is_fine)
}

/// What is printed, and whether nothing has become worse.
struct Finding {
    text: String,
    is_fine: bool,
}

fn compare_files(arguments: &CompareArguments) -> anyhow::Result<Finding> {
    let before = Outcome::read(&arguments.before)?;
    let after = Outcome::read(&arguments.after)?;
    let differences = differences(&before, &after, arguments.across_hosts);
    ensure!(differences.is_empty(), "their set-ups differ:\n{}", differences.join("\n"));
    if arguments.repeat {
        let repetition = repeat::Repetition::of(&before, &after);
        ensure!(
            !repetition.is_empty(),
            "neither holds a ratio within rounds to loop, plain-mmsg, mmsg or nginx"
        );
        let text = if arguments.json { pretty(&repetition)? } else { repetition.table() };
        return Ok(Finding { text, is_fine: repetition.holds() });
    }
    let comparison = Comparison::of(&before, &after);
    ensure!(comparison.has_figures(), "no cell that counts is in both:\n{}", comparison.table());
    let text = if arguments.json { pretty(&comparison)? } else { comparison.table() };
    Ok(Finding { text, is_fine: comparison.worse().next().is_none() })
}

fn pretty(value: &impl serde::Serialize) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(value)?)
}

/// Everything that forbids a comparison, a line for each.
fn differences(before: &Outcome, after: &Outcome, across_hosts: bool) -> Vec<String> {
    let mut lines = Vec::new();
    let mut note = |key: &str, before: Option<&str>, after: Option<&str>| {
        if before != after {
            let [before, after] = [before, after].map(|value| value.unwrap_or("(absent)"));
            lines.push(format!("  {key}: {before} in A, {after} in B"));
        }
    };
    if !across_hosts {
        let hosts = (&before.host, &after.host);
        note("host", Some(&hosts.0.hostname), Some(&hosts.1.hostname));
        note("CPU model", Some(&hosts.0.cpu_model), Some(&hosts.1.cpu_model));
        note("kernel", Some(&hosts.0.kernel), Some(&hosts.1.kernel));
    }
    let keys: BTreeSet<&String> = before.setup.keys().chain(after.setup.keys()).collect();
    let value = |setup: &BTreeMap<String, String>, key: &String| setup.get(key).cloned();
    for key in keys {
        let (before, after) = (value(&before.setup, key), value(&after.setup, key));
        note(&format!("setup {key}"), before.as_deref(), after.as_deref());
    }
    lines
}

/// Everything that both have, beside each other.
#[derive(Debug, serde::Serialize)]
struct Comparison {
    cells: Vec<CellChange>,
    /// Cells that only one has.
    missing: Vec<Missing>,
}

/// A cell that both have.
#[derive(Debug, serde::Serialize)]
struct CellChange {
    shape: String,
    subject: String,
    /// Which of the two is void, and why; then there are no figures.
    void: Vec<String>,
    figures: Vec<Change>,
    /// Figures that only one has.
    missing: Vec<Missing>,
}

/// Something that only one of the two has.
#[derive(Debug, PartialEq, Eq, serde::Serialize)]
struct Missing {
    name: String,
    only_in: &'static str,
}

/// One figure in both.
#[derive(Debug, serde::Serialize)]
struct Change {
    name: String,
    unit: String,
    before: f64,
    after: f64,
    /// `None` where there was nothing before.
    change_percent: Option<f64>,
    significance: Significance,
    verdict: Verdict,
}

/// What a change means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    /// Within the spread.
    Same,
    /// Beyond the spread, in the good direction.
    Better,
    /// Beyond the spread, in the bad direction.
    Worse,
    /// Beyond the spread, of a figure that has no good direction.
    Differs,
    /// Of a figure that is never judged.
    Shown,
}

impl Comparison {
    fn of(before: &Outcome, after: &Outcome) -> Self {
        let pairs = before
            .cells
            .iter()
            .filter_map(|cell| Some(CellChange::of(cell, after.cell(&cell.shape, &cell.subject)?)));
        let cells = pairs.collect();
        let mut missing = only("A", &before.cells, &after.cells, cell_name);
        missing.extend(only("B", &after.cells, &before.cells, cell_name));
        Self { cells, missing }
    }

    fn has_figures(&self) -> bool {
        self.cells.iter().any(|cell| !cell.figures.is_empty())
    }

    fn worse(&self) -> impl Iterator<Item = (&CellChange, &Change)> {
        let all = self
            .cells
            .iter()
            .flat_map(|cell| cell.figures.iter().map(move |change| (cell, change)));
        all.filter(|(_, change)| change.verdict == Verdict::Worse)
    }

    fn table(&self) -> String {
        let mut text = String::new();
        for cell in &self.cells {
            cell.write(&mut text);
        }
        write_missing(&mut text, "", &self.missing);
        let worse: Vec<String> = self
            .worse()
            .map(|(cell, change)| format!("{} of {}: {}", change.name, cell.subject, cell.shape))
            .collect();
        if worse.is_empty() {
            text.push_str("Nothing is worse by more than the spread.");
        } else {
            let _ = write!(text, "Worse by more than the spread: {}", worse.len());
            worse.iter().for_each(|line| text.push_str(&format!("\n  {line}")));
        }
        text
    }
}

impl CellChange {
    fn of(before: &Cell, after: &Cell) -> Self {
        let reason = |run: &str, cell: &Cell| cell.void.as_ref().map(|why| format!("{run}: {why}"));
        let void: Vec<String> =
            [reason("A", before), reason("B", after)].into_iter().flatten().collect();
        let (mut figures, mut missing) = (Vec::new(), Vec::new());
        if void.is_empty() {
            let pairs = before.figures.iter();
            figures.extend(
                pairs.filter_map(|figure| Some(Change::of(figure, after.figure(&figure.name)?))),
            );
            let name = |figure: &Figure| figure.name.clone();
            missing.extend(only("A", &before.figures, &after.figures, name));
            missing.extend(only("B", &after.figures, &before.figures, name));
        }
        let (shape, subject) = (before.shape.clone(), before.subject.clone());
        Self { shape, subject, void, figures, missing }
    }

    fn write(&self, text: &mut String) {
        let _ = writeln!(text, "{}: {}", self.shape, self.subject);
        for reason in &self.void {
            let _ = writeln!(text, "  void in {reason}");
        }
        for change in &self.figures {
            let _ = writeln!(text, "{}", change.line());
        }
        write_missing(text, "  ", &self.missing);
        text.push('\n');
    }
}

impl Change {
    fn of(before: &Figure, after: &Figure) -> Self {
        let (a, b) = (before.median, after.median);
        let significance = significance(&before.rounds, &after.rounds);
        let is_better = match after.better {
            Better::Lower => Some(b < a),
            Better::Higher => Some(b > a),
            Better::Neither => None,
        };
        let verdict = match (significance.is_significant, is_better) {
            _ if NEVER_JUDGED.contains(&after.name.as_str()) => Verdict::Shown,
            (false, _) => Verdict::Same,
            (true, Some(true)) => Verdict::Better,
            (true, Some(false)) => Verdict::Worse,
            (true, None) => Verdict::Differs,
        };
        Self {
            name: after.name.clone(),
            unit: after.unit.clone(),
            before: a,
            after: b,
            change_percent: change_percent(a, b),
            significance,
            verdict,
        }
    }

    fn line(&self) -> String {
        let change = self.change_percent.map_or("-".to_owned(), |change| format!("{change:+.1} %"));
        let verdict = match self.verdict {
            Verdict::Same => "within the spread".to_owned(),
            Verdict::Better => format!("BETTER ({})", self.significance.rule),
            Verdict::Worse => format!("WORSE ({})", self.significance.rule),
            Verdict::Differs => format!("differs ({})", self.significance.rule),
            Verdict::Shown => "not judged".to_owned(),
        };
        let Self { name, unit, before, after, .. } = self;
        let [before, after] = [before, after].map(|value| significant(*value));
        format!("  {name:<22} {before:>11} -> {after:>11} {unit:<4} {change:>9}  {verdict}")
    }
}

/// The change in per cent. `None` where it has no base.
fn change_percent(before: f64, after: f64) -> Option<f64> {
    let change = (after - before) / before.abs() * 100.0;
    if before == after { Some(0.0) } else { change.is_finite().then_some(change) }
}

/// Four digits that count, no exponent.
fn significant(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        0.0..10.0 => format!("{value:.3}"),
        10.0..100.0 => format!("{value:.2}"),
        100.0..1_000.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// What `some` has and `others` have not.
fn only<T>(
    run: &'static str,
    some: &[T],
    others: &[T],
    name: impl Fn(&T) -> String,
) -> Vec<Missing> {
    let others: BTreeSet<String> = others.iter().map(&name).collect();
    let names = some.iter().map(&name).filter(|name| !others.contains(name));
    names.map(|name| Missing { name, only_in: run }).collect()
}

fn cell_name(cell: &Cell) -> String {
    format!("{}: {}", cell.shape, cell.subject)
}

fn write_missing(text: &mut String, indent: &str, missing: &[Missing]) {
    for Missing { name, only_in } in missing {
        let _ = writeln!(text, "{indent}only in {only_in}: {name}");
    }
}

/// What says more about the neighbours of a virtual machine than about the relay.
const NEVER_JUDGED: [&str; 7] = [
    name::LATENCY_P999,
    name::LATENCY_MAX,
    "added_latency_p99.9",
    "added_latency_max",
    "lateness_max",
    "setup_max",
    name::RUN_DELAY_PERCENT,
];

#[cfg(test)]
mod tests;
