//! The table that a person reads: a block for each row, a line for each subject.

use crate::report::grouped;
use crate::result::{Cell, name};
use crate::subject::Engine;

use super::rows::Row;
use super::{BASES, DISCARDED, of, total};

/// Whether a promise was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Kept,
    Missed,
    /// Too few rounds count for both: nothing is known, which is no pass.
    Unjudged,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Kept => "ok",
            Self::Missed => "MISS",
            Self::Unjudged => "UNJUDGED",
        }
    }
}

/// What is printed of a row.
pub(super) struct Block<'a> {
    row: Row,
    subjects: &'a [(Engine, Cell)],
    bases: Vec<Engine>,
    /// Whether promises apply.
    is_judged: bool,
}

impl<'a> Block<'a> {
    pub(super) fn new(row: Row, subjects: &'a [(Engine, Cell)], is_judged: bool) -> Self {
        let is_there = |base: &Engine| subjects.iter().any(|(engine, _)| engine == base);
        Self { row, subjects, bases: BASES.into_iter().filter(is_there).collect(), is_judged }
    }

    /// Ratios above what was promised, and those that could not be judged.
    pub(super) fn misses(&self) -> usize {
        let missed = |engine: Engine, cell: &Cell| {
            let bases = self.bases.iter();
            let verdicts = bases.filter_map(|base| self.verdict(engine, cell, *base));
            verdicts.filter(|verdict| *verdict != Verdict::Kept).count()
        };
        self.subjects.iter().map(|(engine, cell)| missed(*engine, cell)).sum()
    }

    pub(super) fn print(&self) {
        println!("{}", self.text());
    }

    fn text(&self) -> String {
        let mut text = format!("{} ({})\n", self.row.title(), self.row);
        text += &format!("{:<11} {:>6} {:>11}", "subject", "ns/pkt", "spread");
        for base in &self.bases {
            text += &format!("  {:<width$}", format!("of {}", base.label()), width = width(*base));
        }
        text += " /recv  /send\n";
        for (engine, cell) in self.subjects {
            text += &self.line(*engine, cell);
            text += &self.limits(*engine);
        }
        text + &self.absent()
    }

    fn line(&self, engine: Engine, cell: &Cell) -> String {
        let cost = cell.figure(name::CPU_NS_PER_PACKET);
        let median = cost.map_or_else(|| "-".to_owned(), |cost| format!("{:.0}", cost.median));
        let spread =
            cost.map_or_else(String::new, |cost| format!("{:.0}-{:.0}", cost.low, cost.high));
        let mut line = format!("{:<11} {median:>6} {spread:>11}", engine.label());
        for base in &self.bases {
            let ratio = cell.figure(&of(*base)).map(|figure| figure.median);
            let ratio = ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}"));
            let verdict = self.verdict(engine, cell, *base).map_or("", Verdict::word);
            line += &format!("  {:<width$}", format!("{ratio} {verdict}"), width = width(*base));
        }
        for batch in [name::RECEIVE_BATCH, name::SEND_BATCH] {
            let batch = cell.figure(batch).map(|figure| format!("{:.1}", figure.median));
            line += &format!(" {:>6}", batch.unwrap_or_default());
        }
        line = line.trim_end().to_owned();
        let remarks =
            [(name::LOST, "LOST"), (name::REORDERED, "REORDERED"), (DISCARDED, "discarded")];
        for (figure, word) in remarks {
            let total = total(cell, figure);
            if total > 0.0 {
                line += &format!("  {} {word}", grouped(total as u64));
            }
        }
        line + "\n" + &cell.void.as_ref().map_or_else(String::new, |why| format!("  VOID: {why}\n"))
    }

    /// The promises below the line that has to keep them.
    fn limits(&self, engine: Engine) -> String {
        let limits: Vec<_> = self.bases.iter().map(|base| self.limit(engine, *base)).collect();
        if limits.iter().all(Option::is_none) {
            return String::new();
        }
        let mut line = format!("{:<30}", "  at most");
        for (base, limit) in self.bases.iter().zip(limits) {
            let limit = limit.map_or_else(String::new, |limit| format!("{limit:.2}"));
            line += &format!("  {limit:<width$}", width = width(*base));
        }
        line.trim_end().to_owned() + "\n"
    }

    fn limit(&self, engine: Engine, base: Engine) -> Option<f64> {
        self.row.limit(engine, base).filter(|_| self.is_judged)
    }

    /// `None` where nothing was promised.
    fn verdict(&self, engine: Engine, cell: &Cell, base: Engine) -> Option<Verdict> {
        let limit = self.limit(engine, base)?;
        Some(match cell.figure(&of(base)).filter(|ratio| ratio.rounds.len() >= COMMON_ROUNDS_MIN) {
            Some(ratio) if ratio.median <= limit => Verdict::Kept,
            Some(_) => Verdict::Missed,
            None => Verdict::Unjudged,
        })
    }

    /// Promises about subjects that the caller has left out.
    fn absent(&self) -> String {
        let is_absent = |base: &&Engine| {
            let mut engines = self.subjects.iter().map(|(engine, _)| *engine);
            !self.bases.contains(base) && engines.any(|engine| self.limit(engine, **base).is_some())
        };
        let absent: Vec<&str> = BASES.iter().filter(is_absent).map(|base| base.label()).collect();
        if absent.is_empty() {
            return String::new();
        }
        format!("  not judged, for they take no part: limits against {}\n", absent.join(", "))
    }
}

/// Room for `0.75 MISS`, and for the heading. `0.75 UNJUDGED` may push the columns behind it.
fn width(base: Engine) -> usize {
    (base.label().len() + 3).max(9)
}

/// Rounds in which both sides of a ratio count, for it to be held against a limit.
const COMMON_ROUNDS_MIN: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::Better;

    fn cell(ns: f64, of_loop: &[f64]) -> Cell {
        let mut cell = Cell::new("x", "y");
        cell.add(name::CPU_NS_PER_PACKET, "ns", Better::Lower, vec![ns - 10.0, ns, ns + 10.0]);
        cell.add(&of(Engine::Loop), "", Better::Lower, of_loop.to_vec());
        cell
    }

    fn text(of_loop: f64, is_judged: bool) -> (String, usize) {
        text_of(&[of_loop; 3], 3_000.0 * of_loop, is_judged)
    }

    fn text_of(of_loop: &[f64], ns: f64, is_judged: bool) -> (String, usize) {
        let subjects = [(Engine::Uring, cell(ns, of_loop)), (Engine::Loop, cell(3_000.0, &[]))];
        let block = Block::new("up-100-trains".parse().unwrap(), &subjects, is_judged);
        (block.text(), block.misses())
    }

    #[test]
    fn a_promise_that_is_kept_stands_beside_its_limit() {
        let (text, misses) = text(0.07, true);
        assert_eq!(misses, 0);
        assert_eq!(
            text,
            "up, 100 sessions, trains (up-100-trains)\n\
             subject     ns/pkt      spread  of loop   /recv  /send\n\
             uring          210     200-220  0.07 ok\n\
             \x20 at most                       0.10\n\
             loop          3000   2990-3010\n\
             \x20 not judged, for they take no part: limits against plain-mmsg, mmsg, bare\n"
        );
    }

    #[test]
    fn a_promise_that_is_broken_is_a_miss() {
        let (text, misses) = text(0.12, true);
        assert_eq!(misses, 1);
        assert!(text.contains("0.12 MISS"), "{text}");
    }

    #[test]
    fn a_promise_about_too_few_common_rounds_is_not_kept() {
        for rounds in [&[][..], &[0.07, 0.07]] {
            let (text, misses) = text_of(rounds, 210.0, true);
            assert_eq!(misses, 1);
            assert!(text.contains("UNJUDGED"), "{text}");
        }
    }

    #[test]
    fn rounds_that_were_discarded_are_told() {
        let mut disturbed = cell(3_000.0, &[]);
        disturbed.add(DISCARDED, "", Better::Neither, vec![2.0]);
        let subjects = [(Engine::Loop, disturbed)];
        let block = Block::new("up-100-trains".parse().unwrap(), &subjects, true);
        assert!(block.text().contains("  2 discarded\n"), "{}", block.text());
    }

    #[test]
    fn what_was_not_promised_is_not_judged() {
        let (text, misses) = text(0.12, false);
        assert_eq!(misses, 0);
        assert!(!text.contains("MISS") && !text.contains("at most"), "{text}");
    }

    #[test]
    fn a_cell_without_figures_says_why() {
        let void = Cell { void: Some("a neighbour".to_owned()), ..Cell::new("x", "y") };
        let subjects = [(Engine::Uring, void)];
        let block = Block::new("up-100-trains".parse().unwrap(), &subjects, true);
        assert!(block.text().contains("VOID: a neighbour"), "{}", block.text());
    }
}
