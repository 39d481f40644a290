//! One subject's part of a round: which of its drains count, and what they say together.

use crate::measure::CpuTime;
use crate::report::{grouped, median};
use crate::rig::Drain;
use crate::subject::IoCounts;

/// One subject's part of a round.
#[derive(Clone, Debug, Default)]
pub(super) struct Turn {
    /// Turns with the same number were taken one after the other.
    pub(super) round: u32,
    /// Median of the drains that count.
    pub(super) ns_per_packet: f64,
    /// Of the same, by the clock on the wall.
    pub(super) wall_ns_per_packet: f64,
    /// Of the same.
    pub(super) run_delay_percent: f64,
    /// Too few drains count.
    pub(super) is_discarded: bool,
    /// Of those that this tool did not disturb itself; what came in a later drain of the turn is
    /// not lost.
    pub(super) lost: u64,
    pub(super) reordered: u64,
    pub(super) own_drops: u64,
    /// CPU time of a drain with nothing to drain.
    pub(super) empty_gate_ns: u64,
    /// What Ringway counted meanwhile.
    pub(super) io: Option<IoCounts>,
}

impl Turn {
    pub(super) fn of(round: u32, drains: &[Drain]) -> Self {
        let good: Vec<&Drain> = drains.iter().filter(|drain| is_undisturbed(drain)).collect();
        let cpu = good.iter().fold(CpuTime::default(), |sum, drain| sum.plus(drain.cpu));
        let per_packet = |of: fn(&Drain) -> u64| {
            let each = good.iter().map(|drain| of(drain) as f64 / drain.packets as f64);
            median(&each.collect::<Vec<f64>>()).unwrap_or_default()
        };
        let blameless = || drains.iter().filter(|drain| drain.own_drops == 0);
        let lost: u64 = blameless().map(|drain| drain.lost).sum();
        let late: u64 = blameless().map(|drain| drain.late).sum();
        Self {
            round,
            ns_per_packet: per_packet(|drain| drain.cpu.cpu_ns),
            wall_ns_per_packet: per_packet(|drain| drain.wall_ns),
            run_delay_percent: cpu.delay_share() * 100.0,
            is_discarded: good.is_empty() || good.len() * 2 < drains.len(),
            lost: lost.saturating_sub(late),
            reordered: blameless().map(|drain| drain.reordered).sum(),
            own_drops: drains.iter().map(|drain| drain.own_drops).sum(),
            empty_gate_ns: 0,
            io: None,
        }
    }

    /// The cost as a multiple of that of `base`, in the rounds in which both count.
    pub(super) fn ratios(turns: &[&Self], base: &[Self]) -> Vec<f64> {
        let ratio = |turn: &&Self| {
            let mut base = base.iter().filter(|base| !base.is_discarded);
            let base = base.find(|base| base.round == turn.round)?;
            Some(turn.ns_per_packet / base.ns_per_packet)
        };
        turns.iter().filter_map(ratio).collect()
    }

    /// Why none of them counts.
    pub(super) fn why_void(turns: &[Self]) -> String {
        let own_drops: u64 = turns.iter().map(|turn| turn.own_drops).sum();
        if own_drops > 0 {
            let dropped = grouped(own_drops);
            return format!("this tool's own receive queues dropped {dropped} datagrams");
        }
        format!(
            "in all {} rounds something else ran on the relay's CPU (run delay above {}), or \
             nothing arrived, or too late",
            turns.len(),
            run_delay_rule()
        )
    }
}

/// The rule, for the set-up of a result.
pub(super) fn run_delay_rule() -> String {
    let (percent, wake_up_us) = (RUN_DELAY_MAX * 100.0, WAKE_UP_DELAY_NS / 1_000);
    format!("{percent} % of the CPU time of a drain, and {wake_up_us} us for the wake-up")
}

fn is_undisturbed(drain: &Drain) -> bool {
    let Drain { packets, late, own_drops, cpu, .. } = *drain;
    let delay_max = WAKE_UP_DELAY_NS as f64 + cpu.cpu_ns as f64 * RUN_DELAY_MAX;
    packets > 0 && late == 0 && own_drops == 0 && cpu.run_delay_ns as f64 <= delay_max
}

const RUN_DELAY_MAX: f64 = 0.02;
/// From the signal that opens the gate until an idle CPU runs the thread: 10 to 30 us in a virtual
/// machine. The thread does not run yet, so it costs nothing that is measured.
const WAKE_UP_DELAY_NS: u64 = 40_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(cpu_ns: u64, run_delay_ns: u64) -> Drain {
        let cpu = CpuTime { cpu_ns, run_delay_ns };
        Drain { packets: 1_000, cpu, ..Drain::default() }
    }

    #[test]
    fn a_drain_that_had_to_wait_for_its_cpu_does_not_count() {
        let turn = Turn::of(1, &[drain(3_000_000, 0), drain(9_000_000, 1_000_000)]);
        assert!((turn.ns_per_packet - 3_000.0).abs() < f64::EPSILON);
        assert!(!turn.is_discarded);
    }

    #[test]
    fn a_drain_that_this_tool_lost_packets_of_does_not_count() {
        let spoilt = Drain { packets: 10, lost: 990, own_drops: 990, ..drain(3_000_000, 0) };
        let turn = Turn::of(1, &[drain(3_000_000, 0), spoilt]);
        assert!((turn.ns_per_packet - 3_000.0).abs() < f64::EPSILON);
        assert_eq!((turn.lost, turn.own_drops), (0, 990));
    }

    #[test]
    fn a_drain_with_packets_of_an_earlier_one_does_not_count() {
        let polluted = Drain { late: 34, ..drain(9_000_000, 0) };
        let turn = Turn::of(1, &[drain(3_000_000, 0), polluted]);
        assert!((turn.ns_per_packet - 3_000.0).abs() < f64::EPSILON);
    }

    #[test]
    fn packets_that_come_in_a_later_drain_are_not_lost() {
        let short = Drain { lost: 34, ..drain(3_000_000, 0) };
        let polluted = |late| Drain { late, ..drain(3_000_000, 0) };
        assert_eq!(Turn::of(1, &[short, polluted(30)]).lost, 4);
        assert_eq!(Turn::of(1, &[short, polluted(40)]).lost, 0);
    }

    #[test]
    fn the_wake_up_that_opens_the_gate_is_no_disturbance() {
        let one = Turn::of(1, &[drain(500_000, 30_000)]);
        let other = Turn::of(1, &[drain(500_000, 60_000)]);
        assert_eq!((one.is_discarded, other.is_discarded), (false, true));
    }

    #[test]
    fn a_slow_drain_does_not_move_the_median() {
        let turn = Turn::of(1, &[1, 1, 1, 9].map(|ms| drain(ms * 1_000_000, 0)));
        assert!((turn.ns_per_packet - 1_000.0).abs() < f64::EPSILON);
    }

    #[test]
    fn a_turn_of_mostly_disturbed_drains_is_discarded() {
        assert!(
            Turn::of(1, &[drain(3_000_000, 0), drain(9, 90_000), drain(9, 90_000)]).is_discarded
        );
    }
}
