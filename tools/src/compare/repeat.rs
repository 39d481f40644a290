//! Whether a second run finds the same ratios between the subjects as the first.
//!
//! Ratios within a run, and of those the ratios within rounds, are what a shared machine lets one
//! measure; that they repeat is what makes them worth stating.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::result::{Cell, Outcome};

/// The ratios of both runs.
#[derive(Debug, serde::Serialize)]
pub(super) struct Repetition {
    bound_percent: f64,
    ratios: Vec<Ratio>,
    /// Ratios that only one run has, because a cell is void or missing in the other.
    unmatched: Vec<String>,
}

/// CPU time per packet of a subject as a multiple of a base's, in both runs.
#[derive(Debug, serde::Serialize)]
struct Ratio {
    shape: String,
    subject: String,
    base: &'static str,
    before: f64,
    after: f64,
    change_percent: f64,
    repeats: bool,
}

impl Repetition {
    pub(super) fn of(before: &Outcome, after: &Outcome) -> Self {
        let (mut ratios, mut unmatched) = (Vec::new(), Vec::new());
        let key = |cell: &Cell| (cell.shape.clone(), cell.subject.clone());
        let cells: BTreeSet<(String, String)> =
            before.cells.iter().chain(&after.cells).map(key).collect();
        for (shape, subject) in cells {
            for base in BASES.into_iter().filter(|base| *base != subject) {
                let [a, b] = [before, after].map(|run| ratio(run, &shape, &subject, base));
                match (a, b) {
                    (Some(before), Some(after)) => {
                        let change_percent = (after / before - 1.0) * 100.0;
                        ratios.push(Ratio {
                            repeats: change_percent.abs() < BOUND_PERCENT,
                            shape: shape.clone(),
                            subject: subject.clone(),
                            base,
                            before,
                            after,
                            change_percent,
                        });
                    }
                    (None, None) => {}
                    (Some(_), None) => {
                        unmatched.push(format!("only A has {subject} / {base}: {shape}"));
                    }
                    (None, Some(_)) => {
                        unmatched.push(format!("only B has {subject} / {base}: {shape}"));
                    }
                }
            }
        }
        Self { bound_percent: BOUND_PERCENT, ratios, unmatched }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ratios.is_empty()
    }

    pub(super) fn holds(&self) -> bool {
        self.unmatched.is_empty() && self.ratios.iter().all(|ratio| ratio.repeats)
    }

    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        let mut last = "";
        for ratio in &self.ratios {
            if last != ratio.shape {
                let _ = writeln!(text, "{}", ratio.shape);
                last = &ratio.shape;
            }
            let Ratio { subject, base, before, after, change_percent, .. } = ratio;
            let pair = format!("{subject} / {base}");
            let verdict = if ratio.repeats { "" } else { "  DOES NOT REPEAT" };
            let _ = writeln!(
                text,
                "  {pair:<28} {before:>7.3} -> {after:>7.3} {change_percent:>+7.1} %{verdict}"
            );
        }
        for line in &self.unmatched {
            let _ = writeln!(text, "{line}");
        }
        let worst = self.ratios.iter().map(|ratio| ratio.change_percent.abs()).fold(0.0, f64::max);
        let repeating = self.ratios.iter().filter(|ratio| ratio.repeats).count();
        let (all, bound) = (self.ratios.len(), self.bound_percent);
        let _ = write!(
            text,
            "{repeating} of {all} ratios differ by less than {bound} %; the worst by {worst:.1} %."
        );
        text
    }
}

/// The median of the ratios within rounds; `None` where the cell is void, missing, or was not
/// measured in turns with the base.
fn ratio(outcome: &Outcome, shape: &str, subject: &str, base: &str) -> Option<f64> {
    outcome.cell(shape, subject)?.ratio_of(base).filter(|ratio| *ratio > 0.0)
}

/// What every other subject is compared with.
const BASES: [&str; 4] = ["loop", "plain-mmsg", "mmsg", "nginx"];
/// By less than this the ratios of two runs have to differ.
const BOUND_PERCENT: f64 = 10.0;
