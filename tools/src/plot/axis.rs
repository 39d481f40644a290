//! Axes: where the ticks are and what they say.

use crate::report::grouped;

/// One axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// Quantity and unit.
    pub label: String,
    /// The ends, in the coordinates of the points.
    pub range: (f64, f64),
    /// Coordinates that are named, and what they are called.
    pub ticks: Vec<(f64, String)>,
}

impl Axis {
    /// From 0 (or the lowest value) to a little above the highest, with round ticks.
    #[must_use]
    pub fn linear(label: impl Into<String>, low: f64, high: f64, ticks_max: u32) -> Self {
        let high = if high > low { high } else { low + 1.0 };
        let step = round_step((high - low) / f64::from(ticks_max.max(2)));
        let top = (high / step).ceil() * step;
        let first = (low / step).ceil();
        let ticks = (0..=ticks_max * 2).map(|i| (first + f64::from(i)) * step);
        let ticks = ticks.take_while(|tick| *tick <= top + step / 1e3);
        let ticks = ticks.map(|tick| (tick, tick_text(tick, step))).collect();
        Self { label: label.into(), range: (low, top), ticks }
    }

    /// Decades between values above 0, as the logarithms that the points have to have, with ticks at
    /// 1, 2 and 5 while there are few.
    #[must_use]
    pub fn logarithmic(label: impl Into<String>, low: f64, high: f64) -> Self {
        let low = low.max(f64::MIN_POSITIVE);
        let (bottom, top) = (round_down(low), round_up(high.max(low * 1.01)));
        let decades = top.log10().ceil() - bottom.log10().floor();
        let parts: &[f64] = if decades <= 3.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let exponents = bottom.log10().floor() as i32..=top.log10().ceil() as i32;
        let values = exponents.flat_map(|e| parts.iter().map(move |part| part * 10_f64.powi(e)));
        let inside = values.filter(|v| (bottom * 0.999..=top * 1.001).contains(v));
        let ticks = inside.map(|value| (value.log10(), number(value))).collect();
        Self { label: label.into(), range: (bottom.log10(), top.log10()), ticks }
    }

    /// Shares of all values on a scale that gives each further nine as much room as the last: the
    /// coordinate of quantile q is log10(1 / (1 - q)).
    #[must_use]
    pub fn percentiles(nines: u32) -> Self {
        let names = ["90 %", "99 %", "99.9 %", "99.99 %", "99.999 %"];
        let mut ticks: Vec<(f64, String)> = names
            .iter()
            .zip(1..=nines.max(1))
            .map(|(name, nines)| (f64::from(nines), (*name).to_owned()))
            .collect();
        ticks.push((2.0_f64.log10(), "50 %".to_owned()));
        ticks.sort_by(|one, other| one.0.total_cmp(&other.0));
        let range = (0.0, f64::from(nines.max(1)));
        Self { label: "share of packets that took at most as long".to_owned(), range, ticks }
    }

    /// What stands at a tick.
    pub(super) fn text(&self, at: f64) -> String {
        let tick = self.ticks.iter().find(|(tick, _)| (tick - at).abs() < 1e-9);
        tick.map(|(_, text)| text.clone()).unwrap_or_default()
    }

    /// Characters of the longest tick.
    pub(super) fn text_len(&self) -> usize {
        self.ticks.iter().map(|(_, text)| text.chars().count()).max().unwrap_or(0)
    }
}

/// Three digits that count, thousands grouped, no zeros behind the point that say nothing.
#[must_use]
pub fn number(value: f64) -> String {
    if !value.is_finite() {
        return "-".to_owned();
    }
    let sign = if value < 0.0 { "-" } else { "" };
    let size = value.abs();
    let decimals = match size {
        0.0 => 0,
        0.0..0.01 => return format!("{value:.2e}"),
        0.01..0.1 => 4,
        0.1..1.0 => 3,
        1.0..10.0 => 2,
        10.0..100.0 => 1,
        _ => return format!("{sign}{}", grouped(size.round() as u64)),
    };
    let text = format!("{value:.decimals$}");
    if text.contains('.') {
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    text
}

fn tick_text(tick: f64, step: f64) -> String {
    if step >= 1.0 && tick.abs() >= 1_000.0 {
        return number(tick);
    }
    let decimals = usize::try_from((-step.log10()).ceil() as i64).unwrap_or(0).min(6);
    // A step of 2.5 needs one digit more than its size says.
    let decimals = decimals + usize::from((step * 10_f64.powi(decimals as i32)).fract() > 1e-6);
    format!("{:.decimals$}", if tick == 0.0 { 0.0 } else { tick })
}

/// The next of 1, 2, 2.5, 5 times a power of ten.
fn round_step(step: f64) -> f64 {
    let power = 10_f64.powf(step.log10().floor());
    let parts = [1.0, 2.0, 2.5, 5.0, 10.0];
    let part = parts.into_iter().find(|part| part * power >= step * 0.999_999);
    part.unwrap_or(10.0) * power
}

fn round_down(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let part = [5.0, 2.0, 1.0].into_iter().find(|part| part * power <= value * 1.000_001);
    part.unwrap_or(1.0) * power
}

fn round_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let part = [1.0, 2.0, 5.0, 10.0].into_iter().find(|part| part * power >= value * 0.999_999);
    part.unwrap_or(10.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, text)| text.as_str()).collect()
    }

    #[test]
    fn linear_ticks_are_round_and_reach_beyond_the_highest_value() {
        let axis = Axis::linear("x", 0.0, 3_046.0, 4);
        assert_eq!(texts(&axis), ["0", "1,000", "2,000", "3,000", "4,000"]);
        assert!((axis.range.1 - 4_000.0).abs() < 1e-9);
    }

    #[test]
    fn small_ticks_keep_their_digits() {
        assert_eq!(
            texts(&Axis::linear("x", 0.0, 0.01, 4)),
            ["0.0000", "0.0025", "0.0050", "0.0075", "0.0100"]
        );
        assert_eq!(texts(&Axis::linear("x", 0.0, 9.5, 4)), ["0.0", "2.5", "5.0", "7.5", "10.0"]);
    }

    #[test]
    fn an_axis_without_extent_still_has_one() {
        assert!(Axis::linear("x", 0.0, 0.0, 4).range.1 > 0.0);
        assert!(
            Axis::logarithmic("x", 5.0, 5.0).range.1 > Axis::logarithmic("x", 5.0, 5.0).range.0
        );
    }

    #[test]
    fn decades_are_divided_while_there_are_few() {
        assert_eq!(
            texts(&Axis::logarithmic("x", 12.0, 400.0)),
            ["10", "20", "50", "100", "200", "500"]
        );
        assert_eq!(
            texts(&Axis::logarithmic("x", 1.0, 50_000.0)),
            ["1", "10", "100", "1,000", "10,000"]
        );
    }

    #[test]
    fn numbers_have_the_digits_that_count() {
        let texts = [0.0, 0.004, 0.25, 4.0, 17.34, 3_046.4, -12.0].map(number);
        assert_eq!(texts, ["0", "4.00e-3", "0.25", "4", "17.3", "3,046", "-12"]);
    }
}
