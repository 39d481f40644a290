//! What generators and origins did in the end: for a person, and as a cell of a result.

use std::fmt::Write as _;

use hdrhistogram::Histogram;

use crate::board::Published;
use crate::hdr;
use crate::proof::Observed;
use crate::report::{Percentiles, grouped, median};
use crate::result::{Better, Cell, Second, name};

/// A protocol's side of a finished run.
pub(super) struct Finished {
    /// `srt` or `webrtc`.
    pub(super) label: &'static str,
    pub(super) published: Published,
    /// Datagrams that its own receive queues dropped.
    pub(super) own_drops: u64,
    pub(super) seconds: Vec<Second>,
}

impl Finished {
    /// Lines about the media; how sessions fared is for its owner to say.
    pub(super) fn media_lines(&self) -> String {
        let Published { counts, due_latency, lateness, setup, .. } = &self.published;
        let media = counts.media;
        let mut text = String::new();
        // Writing into a string cannot fail.
        let _ = write!(text, "Sent       {} packets", grouped(counts.sent));
        if counts.acknowledged > 0 {
            let _ = write!(text, ", {} acknowledged", grouped(counts.acknowledged));
        }
        let _ = writeln!(text);
        let impaired = counts.impaired;
        if impaired != crate::impair::Impaired::default() {
            let _ = writeln!(
                text,
                "Impaired   {} lost, {} twice, {} overtaken, {} did not fit; other datagrams: {} \
                 lost, {} twice",
                grouped(impaired.lost),
                grouped(impaired.duplicated),
                grouped(impaired.reordered),
                grouped(impaired.overflowed),
                grouped(impaired.control_lost),
                grouped(impaired.control_duplicated),
            );
        }
        let _ = writeln!(
            text,
            "Received   {} packets, {} of other senders",
            grouped(media.received),
            grouped(media.foreign)
        );
        let _ = writeln!(
            text,
            "           {} missing, {} reordered, {} duplicates, {} damaged, {} dropped by own \
             queues",
            grouped(media.missing),
            grouped(media.reordered),
            grouped(media.duplicates),
            grouped(media.damaged),
            grouped(self.own_drops)
        );
        for (what, histogram) in [("Setup", setup), ("Pacing", lateness), ("One way", due_latency)]
        {
            if !histogram.is_empty() {
                let verb = if what == "Pacing" { "sent late by " } else { "" };
                let _ = writeln!(text, "{what:<10} {verb}{}", Percentiles::of(histogram).line());
            }
        }
        text.truncate(text.trim_end().len());
        text
    }

    /// What the generator itself did.
    pub(super) fn observed(&self) -> Observed {
        Observed {
            rate: self.busy_rate(),
            own_drops: self.own_drops,
            send_errors: self.published.counts.send_errors,
            lateness_p99_ns: self.published.lateness.value_at_quantile(0.99),
        }
    }

    /// The rate of a usual second: sent or received, whichever is more.
    fn busy_rate(&self) -> f64 {
        let mut before_s = 0.0;
        let rates: Vec<f64> = self
            .seconds
            .iter()
            .map(|second| {
                let length = (second.at_s - before_s).max(1e-3);
                before_s = second.at_s;
                second.sent.max(second.received) as f64 / length
            })
            .collect();
        median(&rates).unwrap_or(0.0)
    }

    /// As a result holds a run of which nothing may be told but why.
    pub(super) fn void_cell(self, shape: String, subject: &str, why: &str) -> Cell {
        let mut cell = Cell::new(shape, subject);
        cell.void = Some(why.to_owned());
        let (own_drops, send_errors) = (self.own_drops, self.published.counts.send_errors);
        cell.add("own_drops", "", Better::Lower, vec![own_drops as f64]);
        cell.add("send_errors", "", Better::Lower, vec![send_errors as f64]);
        add_quantile(&mut cell, "lateness_p99", &self.published.lateness, 0.99);
        cell
    }

    /// How the tool itself fared, where the relay's figures are withheld.
    pub(super) fn void_lines(&self) -> String {
        let Published { counts, lateness, .. } = &self.published;
        format!(
            "Pacing     sent late by {}\n           {} dropped by own queues, {} refused by the \
             kernel",
            Percentiles::of(lateness).line(),
            grouped(self.own_drops),
            grouped(counts.send_errors)
        )
    }

    /// As a result holds it.
    pub(super) fn cell(self, shape: String, subject: &str) -> Cell {
        let Published { counts, due_latency, lateness, setup, .. } = &self.published;
        let seconds = self.seconds.last().map_or(1.0, |last| last.at_s).max(1e-3);
        let mut cell = Cell::new(shape, subject);
        let mut add = |name: &str, unit: &str, better: Better, value: f64| {
            cell.add(name, unit, better, vec![value]);
        };
        let (lower, neither) = (Better::Lower, Better::Neither);
        let per_second = |packets: u64| packets as f64 / seconds;
        add(name::OFFERED_PPS, "1/s", neither, per_second(counts.sent));
        // Who only sends does not know what was lost.
        if counts.media_received() > 0 {
            add(name::DELIVERED_PPS, "1/s", Better::Higher, per_second(counts.media_received()));
            add(name::LOST, "", lower, counts.media.missing as f64);
            add(name::REORDERED, "", lower, counts.media.reordered as f64);
            add("duplicates", "", lower, counts.media.duplicates as f64);
            add("damaged", "", lower, counts.media.damaged as f64);
        }
        add("sessions_connected", "", neither, counts.connected as f64);
        add("sessions_refused", "", lower, counts.refused as f64);
        add("sessions_unanswered", "", lower, counts.timed_out as f64);
        add("sessions_closed_by_peer", "", lower, counts.closed_by_peer as f64);
        add("churn_ended", "", neither, counts.ended as f64);
        add("churn_started", "", neither, counts.started as f64);
        add("churn_failed", "", lower, counts.failed as f64);
        add("impaired_lost", "", neither, counts.impaired.missing() as f64);
        add("impaired_duplicated", "", neither, counts.impaired.duplicated as f64);
        add("impaired_reordered", "", neither, counts.impaired.reordered as f64);
        add("own_drops", "", lower, self.own_drops as f64);
        add("send_errors", "", lower, counts.send_errors as f64);
        for (quantile, name) in [
            (0.5, name::LATENCY_P50),
            (0.9, name::LATENCY_P90),
            (0.99, name::LATENCY_P99),
            (0.999, name::LATENCY_P999),
            (1.0, name::LATENCY_MAX),
        ] {
            add_quantile(&mut cell, name, due_latency, quantile);
        }
        add_quantile(&mut cell, "lateness_p50", lateness, 0.5);
        add_quantile(&mut cell, "lateness_p99", lateness, 0.99);
        add_quantile(&mut cell, "setup_p50", setup, 0.5);
        add_quantile(&mut cell, "setup_p99", setup, 0.99);
        cell.latency = hdr::encode(due_latency);
        cell.seconds = self.seconds;
        cell
    }
}

fn add_quantile(cell: &mut Cell, name: &str, histogram: &Histogram<u64>, quantile: f64) {
    if !histogram.is_empty() {
        let value = histogram.value_at_quantile(quantile) as f64;
        cell.add(name, "ns", Better::Lower, vec![value]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::Counts;
    use crate::impair::Impaired;

    fn finished() -> Finished {
        let impaired = Impaired { lost: 3, ..Impaired::default() };
        let counts = Counts { sent: 400, impaired, ..Counts::default() };
        let mut published = Published { counts, ..Published::default() };
        published.due_latency.record(20_000).unwrap();
        published.lateness.record(5_000).unwrap();
        let second = |at_s, sent| Second { at_s, sent, ..Second::default() };
        let seconds = vec![second(1.0, 50), second(2.0, 150), second(4.0, 200)];
        Finished { label: "srt", published, own_drops: 1, seconds }
    }

    #[test]
    fn the_rate_that_counts_is_that_of_a_usual_second() {
        let observed = finished().observed();
        assert!((observed.rate - 100.0).abs() < 1e-9, "{observed:?}");
        assert_eq!(observed.own_drops, 1);
    }

    #[test]
    fn a_cell_has_rates_over_the_whole_run_and_a_histogram() {
        let cell = finished().cell("srt".to_owned(), "generator");
        assert!((cell.figure(name::OFFERED_PPS).unwrap().median - 100.0).abs() < 1e-9);
        assert_eq!(hdr::decode(&cell.latency.unwrap()).unwrap().len(), 1);
        assert_eq!(cell.seconds.len(), 3);
    }

    #[test]
    fn who_only_sends_knows_of_no_loss() {
        let mut run = finished();
        run.published.counts.media.received = 0;
        let cell = run.cell("srt".to_owned(), "generator");
        assert!(cell.figure(name::LOST).is_none() && cell.figure(name::DELIVERED_PPS).is_none());
        let mut run = finished();
        (run.published.counts.media.received, run.published.counts.media.missing) = (397, 3);
        let cell = run.cell("srt".to_owned(), "generator");
        assert!((cell.figure(name::LOST).unwrap().median - 3.0).abs() < f64::EPSILON);
    }

    #[test]
    fn figures_of_a_void_run_are_withheld() {
        let cell = finished().void_cell("srt".to_owned(), "generator", "late");
        assert_eq!(cell.void.as_deref(), Some("late"));
        for withheld in [name::OFFERED_PPS, name::DELIVERED_PPS, name::LATENCY_P50] {
            assert!(cell.figure(withheld).is_none(), "{withheld}");
        }
        assert!(cell.latency.is_none() && cell.seconds.is_empty());
        assert!(cell.figure("own_drops").is_some());
        let text = finished().void_lines();
        assert!(!text.contains("One way") && text.contains("Pacing"), "{text}");
    }

    #[test]
    fn an_impairment_is_told_only_where_there_was_one() {
        assert!(finished().media_lines().contains("Impaired   3 lost"));
        let mut unimpaired = finished();
        unimpaired.published.counts.impaired = Impaired::default();
        assert!(!unimpaired.media_lines().contains("Impaired"));
    }
}
