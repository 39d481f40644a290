use super::*;
use crate::measure::Host;

const SHAPE: &str = "up, 100 sessions, trains";

fn outcome(cells: &[(&str, &[f64])]) -> Outcome {
    let host = Host {
        hostname: "one".to_owned(),
        kernel: "6.18".to_owned(),
        cpu_model: "a CPU".to_owned(),
        cpus: 2,
        unix_seconds: 0,
        command: "ringway-bench run srt".to_owned(),
    };
    let mut outcome = Outcome::new("a test", host);
    outcome.note("rounds", 5);
    for (subject, rounds) in cells {
        let mut cell = Cell::new(SHAPE, *subject);
        cell.add(name::CPU_NS_PER_PACKET, "ns", Better::Lower, rounds.to_vec());
        outcome.cells.push(cell);
    }
    outcome
}

fn compared(before: &Outcome, after: &Outcome) -> anyhow::Result<Finding> {
    compare(before, after, &[])
}

/// Through files, as the command does it.
fn compare(before: &Outcome, after: &Outcome, flags: &[&str]) -> anyhow::Result<Finding> {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = |name: &str| {
        std::env::temp_dir().join(format!("ringway-compare-{}-{number}-{name}", std::process::id()))
    };
    let (a, b) = (path("a"), path("b"));
    before.write(&a).unwrap();
    after.write(&b).unwrap();
    let arguments = CompareArguments {
        before: a.clone(),
        after: b.clone(),
        across_hosts: flags.contains(&"across"),
        repeat: flags.contains(&"repeat"),
        json: flags.contains(&"json"),
    };
    let finding = compare_files(&arguments);
    std::fs::remove_file(a).unwrap();
    std::fs::remove_file(b).unwrap();
    finding
}

#[test]
fn a_cost_that_rises_beyond_the_spread_is_a_worsening() {
    let before = outcome(&[("uring", &[200.0, 205.0, 210.0])]);
    let after = outcome(&[("uring", &[300.0, 305.0, 310.0])]);
    let finding = compared(&before, &after).unwrap();
    assert!(!finding.is_fine);
    assert!(finding.text.contains("+48.8 %  WORSE (ranges)"), "{}", finding.text);
}

#[test]
fn a_throughput_that_rises_is_better() {
    let [before, after] = [100.0, 200.0].map(|value| {
        let mut outcome = outcome(&[]);
        let mut cell = Cell::new(SHAPE, "uring");
        cell.add(name::DELIVERED_PPS, "1/s", Better::Higher, vec![value, value + 1.0, value + 2.0]);
        outcome.cells.push(cell);
        outcome
    });
    assert!(compared(&before, &after).unwrap().text.contains("BETTER"));
    assert!(!compared(&after, &before).unwrap().is_fine);
}

#[test]
fn set_ups_that_differ_are_refused_with_both_values() {
    let before = outcome(&[("uring", &[1.0])]);
    let mut after = before.clone();
    after.note("rounds", 7);
    after.note("cpu", 0);
    let Err(error) = compared(&before, &after) else { panic!("compared") };
    let text = error.to_string();
    assert!(text.contains("setup rounds: 5 in A, 7 in B"), "{text}");
    assert!(text.contains("setup cpu: (absent) in A, 0 in B"), "{text}");
}

#[test]
fn another_host_is_refused_unless_it_is_meant() {
    let before = outcome(&[("uring", &[1.0])]);
    let mut after = before.clone();
    after.host.kernel = "7.0".to_owned();
    let Err(error) = compared(&before, &after) else { panic!("compared") };
    assert!(error.to_string().contains("kernel: 6.18 in A, 7.0 in B"), "{error}");
    assert!(compare(&before, &after, &["across"]).unwrap().is_fine);
}

#[test]
fn void_cells_are_named_and_do_not_count() {
    let before = outcome(&[("uring", &[1.0, 1.0, 1.0]), ("loop", &[1.0, 1.0, 1.0])]);
    let mut after = outcome(&[("uring", &[9.0, 9.0, 9.0]), ("loop", &[1.0, 1.0, 1.0])]);
    after.cells[0].void = Some("a neighbour on the CPU".to_owned());
    let finding = compared(&before, &after).unwrap();
    assert!(finding.is_fine);
    assert!(finding.text.contains("void in B: a neighbour on the CPU"), "{}", finding.text);
}

#[test]
fn cells_of_one_run_alone_are_listed() {
    let before = outcome(&[("uring", &[1.0]), ("loop", &[1.0])]);
    let after = outcome(&[("uring", &[1.0]), ("tokio", &[1.0])]);
    let text = compared(&before, &after).unwrap().text;
    assert!(text.contains("only in A: up, 100 sessions, trains: loop"), "{text}");
    assert!(text.contains("only in B: up, 100 sessions, trains: tokio"), "{text}");
}

#[test]
fn runs_without_a_common_cell_that_counts_cannot_be_compared() {
    let mut void = outcome(&[("uring", &[1.0])]);
    void.cells[0].void = Some("lost packets of its own".to_owned());
    assert!(compared(&outcome(&[("loop", &[1.0])]), &outcome(&[("uring", &[1.0])])).is_err());
    assert!(compared(&void, &void).is_err());
}

/// The same cell with one more figure, which is a thousand times as high in the second run.
fn risen(figure: &str) -> Finding {
    let [before, after] = [1e3, 1e6].map(|value| {
        let mut outcome = outcome(&[("uring", &[1.0])]);
        outcome.cells[0].add(figure, "ns", Better::Lower, vec![value; 5]);
        outcome
    });
    compared(&before, &after).unwrap()
}

#[test]
fn the_tail_and_the_run_delay_are_shown_and_not_judged() {
    for figure in [
        "latency_p99.9",
        "latency_max",
        "added_latency_p99.9",
        "added_latency_max",
        "lateness_max",
        "setup_max",
        "run_delay_percent",
    ] {
        let finding = risen(figure);
        assert!(finding.is_fine && finding.text.contains("not judged"), "{}", finding.text);
    }
}

#[test]
fn ninety_nine_per_cent_are_judged() {
    assert!(!risen("latency_p99").is_fine && !risen("added_latency_p99").is_fine);
}

#[test]
fn json_holds_what_the_table_says() {
    let before = outcome(&[("uring", &[0.0])]);
    let after = outcome(&[("uring", &[2.0])]);
    let text = compare(&before, &after, &["json"]).unwrap().text;
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let figure = &value["cells"][0]["figures"][0];
    assert_eq!((&figure["verdict"], &figure["after"]), (&"worse".into(), &2.0.into()));
    assert!(figure["change_percent"].is_null());
}

/// A cell for the base, and one with ratios to it for each subject.
fn in_turns(ratios: &[(&str, &[f64])]) -> Outcome {
    let mut outcome = outcome(&[("loop", &[1_000.0])]);
    for (subject, rounds) in ratios {
        let mut cell = Cell::new(SHAPE, *subject);
        cell.add("of_loop", "", Better::Lower, rounds.to_vec());
        outcome.cells.push(cell);
    }
    outcome
}

#[test]
fn ratios_repeat_while_they_differ_by_less_than_a_tenth() {
    let before = in_turns(&[("uring", &[0.200])]);
    let nearly = in_turns(&[("uring", &[0.215])]);
    let slower = in_turns(&[("uring", &[0.230])]);
    assert!(compare(&before, &nearly, &["repeat"]).unwrap().is_fine);
    let finding = compare(&before, &slower, &["repeat"]).unwrap();
    assert!(!finding.is_fine);
    assert!(finding.text.contains("uring / loop"), "{}", finding.text);
}

#[test]
fn ratios_are_those_within_rounds_and_not_of_the_medians() {
    let mut before = in_turns(&[("uring", &[0.2])]);
    let mut after = before.clone();
    before.cells[1].add(name::CPU_NS_PER_PACKET, "ns", Better::Lower, vec![200.0]);
    after.cells[1].add(name::CPU_NS_PER_PACKET, "ns", Better::Lower, vec![400.0]);
    assert!(compare(&before, &after, &["repeat"]).unwrap().is_fine);
}

#[test]
fn a_ratio_that_only_one_run_has_does_not_repeat() {
    let before = in_turns(&[("uring", &[2.0]), ("tokio", &[2.0])]);
    let mut after = before.clone();
    after.cells[2].void = Some("a neighbour on the CPU".to_owned());
    let finding = compare(&before, &after, &["repeat"]).unwrap();
    assert!(!finding.is_fine);
    assert!(finding.text.contains("only A has tokio / loop"), "{}", finding.text);
}

#[test]
fn ratios_need_a_base() {
    let alone = outcome(&[("uring", &[2.0])]);
    assert!(compare(&alone, &alone, &["repeat"]).is_err());
}
