//! When two sets of rounds differ by more than their spread.

use crate::report::median;

/// Whether two sets of rounds differ, and by which rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Significance {
    /// More than noise.
    pub is_significant: bool,
    /// What decided.
    pub rule: &'static str,
}

/// Judges the rounds of one figure in two runs.
///
/// With few rounds the test is whether the ranges are apart: of 5 and 5 equal rounds that happens by
/// chance in 2 of 252 cases. With many it would hardly ever be met, for ranges grow with the number
/// of rounds; a rank test takes its place. Either way the medians must also differ by enough to
/// matter beside the spread.
#[must_use]
pub fn significance(before: &[f64], after: &[f64]) -> Significance {
    let rounds = before.len().min(after.len());
    let change = match (median(before), median(after)) {
        (Some(before), Some(after)) => (after - before).abs(),
        (None, _) | (_, None) => 0.0,
    };
    let (is_significant, rule) = if rounds < ROUNDS_MIN {
        let base = median(before).unwrap_or(0.0).abs();
        (change > base * UNKNOWN_SPREAD_BOUND, "by more than 10 %; spread unknown")
    } else if rounds < ROUNDS_RANKED {
        (are_apart(before, after) && change > half_range(before).max(half_range(after)), "ranges")
    } else {
        let spread = interquartile_range(before).min(interquartile_range(after));
        let p = rank_test(before, after);
        (p < RANK_TEST_P && change > spread / 2.0, "rank test")
    };
    Significance { is_significant, rule }
}

fn are_apart(one: &[f64], other: &[f64]) -> bool {
    let ((one_low, one_high), (other_low, other_high)) = (range(one), range(other));
    one_high < other_low || other_high < one_low
}

fn half_range(values: &[f64]) -> f64 {
    let (low, high) = range(values);
    (high - low) / 2.0
}

fn range(values: &[f64]) -> (f64, f64) {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (low, high)
}

/// Between the medians of the lower and of the upper half.
fn interquartile_range(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let lower = sorted.get(..sorted.len() / 2).and_then(median);
    let upper = sorted.get(sorted.len().div_ceil(2)..).and_then(median);
    lower.zip(upper).map_or(0.0, |(lower, upper)| upper - lower)
}

/// The two-sided p of the Mann-Whitney test: its normal approximation, with ties and the continuity
/// correction, which is close from 8 rounds on each side.
fn rank_test(before: &[f64], after: &[f64]) -> f64 {
    let mut all: Vec<(f64, bool)> = before.iter().map(|value| (*value, true)).collect();
    all.extend(after.iter().map(|value| (*value, false)));
    all.sort_by(|one, other| one.0.total_cmp(&other.0));
    let (mut rank_sum, mut tie_term, mut rank) = (0.0, 0.0, 0.0);
    for tied in all.chunk_by(|one, other| one.0 == other.0) {
        let count = tied.len() as f64;
        let shared_rank = rank + (count + 1.0) / 2.0;
        rank_sum += shared_rank * tied.iter().filter(|(_, is_before)| *is_before).count() as f64;
        tie_term += count.powi(3) - count;
        rank += count;
    }
    let (n, m) = (before.len() as f64, after.len() as f64);
    let u = rank_sum - n * (n + 1.0) / 2.0;
    let all = n + m;
    let variance = n * m / 12.0 * (all + 1.0 - tie_term / (all * (all - 1.0)));
    if variance <= 0.0 {
        return 1.0;
    }
    let z = ((u - n * m / 2.0).abs() - 0.5).max(0.0) / variance.sqrt();
    2.0 * upper_tail(z)
}

/// The chance of a normal variable above `z`, for `z` of 0 or more: Simpson's rule over the density,
/// to six digits, which is more than the approximation before it is worth.
fn upper_tail(z: f64) -> f64 {
    let density = |x: f64| (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt();
    let step = z / f64::from(STEPS);
    let inner: f64 = (1..STEPS)
        .map(|i| (if i % 2 == 1 { 4.0 } else { 2.0 }) * density(f64::from(i) * step))
        .sum();
    (0.5 - step / 3.0 * (density(0.0) + inner + density(z))).max(0.0)
}

/// Below, the range of the rounds says nothing about the spread.
const ROUNDS_MIN: usize = 3;
/// From here the rank test decides.
const ROUNDS_RANKED: usize = 8;
const RANK_TEST_P: f64 = 0.01;
/// What consecutive runs of the whole table have to repeat to.
const UNKNOWN_SPREAD_BOUND: f64 = 0.1;
/// Even, for Simpson's rule.
const STEPS: u32 = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_overlap_are_noise() {
        let found = significance(&[1.0, 2.0, 3.0, 2.0, 2.0], &[2.5, 4.0, 5.0, 4.0, 4.0]);
        assert_eq!(found, Significance { is_significant: false, rule: "ranges" });
    }

    #[test]
    fn ranges_that_are_apart_are_a_difference() {
        let found = significance(&[1.0, 1.1, 1.2], &[2.0, 2.1, 2.2]);
        assert_eq!(found, Significance { is_significant: true, rule: "ranges" });
    }

    #[test]
    fn a_change_of_less_than_half_the_range_is_noise_even_where_ranges_are_apart() {
        assert!(!significance(&[1.0, 9.0, 9.1], &[9.2, 9.3, 17.0]).is_significant);
    }

    #[test]
    fn many_rounds_are_ranked_and_a_single_stray_does_not_hide_a_difference() {
        let before: Vec<f64> = (0..10).map(|i| 100.0 + f64::from(i)).collect();
        let mut after: Vec<f64> = (0..10).map(|i| 150.0 + f64::from(i)).collect();
        after[0] = 104.0;
        assert_eq!(
            significance(&before, &after),
            Significance { is_significant: true, rule: "rank test" }
        );
    }

    #[test]
    fn equal_rounds_do_not_differ_by_any_rule() {
        for rounds in [1, 4, 12] {
            let same = vec![5.0; rounds];
            assert!(!significance(&same, &same).is_significant, "{rounds} rounds");
        }
    }

    #[test]
    fn a_single_round_counts_from_ten_per_cent() {
        assert!(!significance(&[100.0], &[109.0]).is_significant);
        assert!(significance(&[100.0], &[111.0]).is_significant);
        assert!(significance(&[0.0], &[1.0]).is_significant);
    }

    #[test]
    fn without_a_difference_the_rank_test_seldom_sees_one() {
        let mut state = 7;
        let mut draw = || {
            state = crate::payload::mix(state);
            (state >> 11) as f64
        };
        let runs = 2_000;
        let found = (0..runs).filter(|_| {
            let [a, b] = [(); 2].map(|()| (0..9).map(|_| draw()).collect::<Vec<_>>());
            rank_test(&a, &b) < RANK_TEST_P
        });
        let found = found.count();
        assert!(found <= runs / 50, "{found} of {runs}");
    }

    #[test]
    fn the_tail_is_the_one_of_the_tables() {
        assert!((upper_tail(1.96) - 0.025).abs() < 1e-4);
        assert!((upper_tail(0.0) - 0.5).abs() < 1e-9);
    }
}
