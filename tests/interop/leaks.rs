//! What is left of sessions that are gone: nothing.

use std::fs;

use crate::support::caller::{self, Origin};
use crate::support::process::Ringway;

/// Descriptors and resident memory of a process.
fn held(pid: u32) -> (usize, u64) {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let kib = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    (descriptors, kib)
}

#[test]
fn ten_thousand_sessions_leave_no_descriptor_no_entry_and_no_memory_behind() {
    let origin = Origin::start();
    let relay = Ringway::start(&[
        "--origin",
        &origin.flag("a"),
        "--new-per-source=100000",
        "--sessions-per-source=100000",
        "--pending-per-source=10000",
        "--log=info,ringway::control=warn",
    ]);
    let round = || {
        for _ in 0..2 {
            let callers: Vec<_> = caller::connect_many(relay.srt, 1250);
            for caller in &callers {
                caller.shutdown();
            }
            relay.wait_for_no_sessions();
        }
    };
    // The first half brings tables and allocator to the size that such a crowd takes.
    round();
    round();
    let before = held(relay.program.id());
    round();
    round();
    let after = held(relay.program.id());
    assert_eq!(relay.metric("ringway_sessions_created_total{proto=\"srt\"}"), 10_000.0);
    // The connection of the last question to the API may still be open, then or now.
    assert!(after.0.abs_diff(before.0) <= 2, "descriptors: {}, then {}", before.0, after.0);
    assert!(after.1 <= before.1 + 1536, "resident memory: {} KiB, then {} KiB", before.1, after.1);
}
