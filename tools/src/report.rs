//! Words and tables for people: 80 columns, with or without a terminal.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use hdrhistogram::Histogram;

/// `1234567` as `1,234,567`.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Nanoseconds with the unit that leaves at least two digits in front: `950 ns`, `17.3 us`, `1.20
/// ms`.
#[must_use]
pub fn duration(nanoseconds: u64) -> String {
    let value = nanoseconds as f64;
    match nanoseconds {
        0..1_000 => format!("{nanoseconds} ns"),
        1_000..1_000_000 => format!("{:.1} us", value / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} ms", value / 1e6),
        _ => format!("{:.2} s", value / 1e9),
    }
}

/// The percentiles that matter, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Percentiles {
    /// Median.
    pub p50_ns: u64,
    /// 99 of 100 are at or below.
    pub p99_ns: u64,
    /// 999 of 1,000 are at or below.
    pub p999_ns: u64,
    /// The largest.
    pub max_ns: u64,
    /// Values.
    pub count: u64,
}

impl Percentiles {
    /// Reads them off.
    #[must_use]
    pub fn of(histogram: &Histogram<u64>) -> Self {
        Self {
            p50_ns: histogram.value_at_quantile(0.5),
            p99_ns: histogram.value_at_quantile(0.99),
            p999_ns: histogram.value_at_quantile(0.999),
            max_ns: histogram.max(),
            count: histogram.len(),
        }
    }

    /// Every one less `nanoseconds`, but not below zero.
    #[must_use]
    pub fn less(self, nanoseconds: u64) -> Self {
        Self {
            p50_ns: self.p50_ns.saturating_sub(nanoseconds),
            p99_ns: self.p99_ns.saturating_sub(nanoseconds),
            p999_ns: self.p999_ns.saturating_sub(nanoseconds),
            max_ns: self.max_ns.saturating_sub(nanoseconds),
            count: self.count,
        }
    }

    /// `p50 17.3 us   p99 45.0 us   p99.9 1.02 ms   max 2.00 ms`.
    #[must_use]
    pub fn line(self) -> String {
        format!(
            "p50 {}   p99 {}   p99.9 {}   max {}",
            duration(self.p50_ns),
            duration(self.p99_ns),
            duration(self.p999_ns),
            duration(self.max_ns)
        )
    }
}

/// The middle of some figures; `None` of none.
#[must_use]
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = sorted.get(sorted.len() / 2).copied()?;
    let lower = sorted.get(sorted.len().saturating_sub(1) / 2).copied()?;
    Some(f64::midpoint(lower, upper))
}

/// Writes `value` as JSON.
///
/// # Errors
/// The file cannot be written.
pub fn write_json(path: &Path, value: &impl serde::Serialize) -> anyhow::Result<()> {
    let context = || format!("write {}", path.display());
    let mut file = File::create(path).with_context(context)?;
    serde_json::to_writer_pretty(&mut file, value).with_context(context)?;
    writeln!(file).with_context(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }

    #[test]
    fn durations_choose_their_unit() {
        assert_eq!(duration(950), "950 ns");
        assert_eq!(duration(17_340), "17.3 us");
        assert_eq!(duration(1_204_000), "1.20 ms");
        assert_eq!(duration(2_000_000_000), "2.00 s");
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[]), None);
    }
}
