//! Measurements of a relay that somebody else has started.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail loudly")]

use std::path::Path;
use std::process::Command;

use ringway::config::{Config, Listen};
use ringway::relay::{Relay, Signals};

#[test]
fn a_running_relay_is_measured_by_its_address_and_process() {
    let here = Listen::At(([127, 0, 0, 1], 0).into());
    let config = Config { srt_listen: here, system_listen: here, ..Config::default() };
    let relay = Relay::start(config, Signals::Ignored).unwrap();
    let json = Path::new(env!("CARGO_TARGET_TMPDIR")).join("running.json");

    let mut run = Command::new(env!("CARGO_BIN_EXE_ringway-bench"));
    run.args([
        "run",
        "paced",
        "--sessions",
        "10",
        "--rate",
        "50",
        "--seconds",
        "0.2",
        "--rounds",
        "1",
    ]);
    run.args(["--target", &relay.srt_address().unwrap().to_string()]);
    run.args(["--pid", &std::process::id().to_string()]);
    run.args(["--register", &format!("http://{}", relay.system_address().unwrap())]);
    let said = run.arg("--json").arg(&json).output().unwrap();

    let found = std::fs::read_to_string(&json).unwrap_or_else(|_| panic!("{said:?}"));
    let found: serde_json::Value = serde_json::from_str(&found).unwrap();
    let cells = found["cells"].as_array().unwrap();
    let running = cells.iter().find(|cell| cell["subject"] == "running").expect("a cell of it");
    let figures = running["figures"].as_array().unwrap();
    let memory = figures.iter().find(|figure| figure["name"] == "memory_per_session");
    assert!(memory.is_some(), "it is read from the process: {running}");
    // A turn that something else on this machine has disturbed has no figures, but a reason.
    let is_judged = figures.iter().any(|figure| figure["name"] == "syscalls_per_packet");
    assert!(is_judged || running["void"].is_string(), "{running}");
}
