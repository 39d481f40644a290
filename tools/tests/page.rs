//! The page of `ringway-bench report` in a browser: it loads without a complaint and shows something.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail loudly")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ringway_tools::measure::Host;
use ringway_tools::result::{Better, Cell, Outcome, Second, name};

#[test]
fn the_page_opens_in_chromium_without_a_complaint() {
    if !is_installed() {
        missing("chromium is not installed (tests/run does it)", "RINGWAY_WITHOUT_CHROMIUM");
        return;
    }
    let directory = Directory::new();
    let (json, html) = (directory.file("a.json"), directory.file("a.html"));
    outcome().write(&json).unwrap();
    let mut report = Command::new(env!("CARGO_BIN_EXE_ringway-bench"));
    report.arg("report").arg(&json).arg("--output").arg(&html);
    assert!(report.stdout(Stdio::null()).status().unwrap().success());
    for width in [1_240, 500] {
        let picture = directory.file(&format!("{width}.png"));
        let said = photograph(&html, &picture, width, &directory.file("profile"));
        assert!(!said.contains("CONSOLE"), "{said}");
        let bytes = std::fs::read(&picture).unwrap_or_else(|_| panic!("no picture: {said}"));
        assert_eq!(width_of(&bytes), width);
        // A page of one colour takes a tenth of this.
        assert!(bytes.len() > 40_000, "{} bytes at {width}", bytes.len());
    }
}

/// A shape with two subjects and everything that can be drawn of them but a histogram.
fn outcome() -> Outcome {
    let mut outcome = Outcome::new("A page & its <browser>", Host::this());
    for (subject, cost) in [("uring", 230.0), ("loop", 3_050.0)] {
        let mut cell = Cell::new("up, 100 sessions, trains", subject);
        cell.add(name::CPU_NS_PER_PACKET, "ns", Better::Lower, vec![cost, cost * 1.1, cost * 1.2]);
        cell.add(name::LATENCY_P50, "ns", Better::Lower, vec![cost * 10.0]);
        let second = |i: u32| Second {
            at_s: f64::from(i),
            sent: 1_000,
            received: 1_000 - u64::from(i),
            lost: u64::from(i),
            cpu_ns: 300_000,
            p99_ns: 20_000,
            ..Second::default()
        };
        cell.seconds = (1..=10).map(second).collect();
        outcome.cells.push(cell);
    }
    outcome
}

/// Returns what the browser has said, with what the page wrote to its console.
fn photograph(page: &Path, picture: &Path, width: u32, profile: &Path) -> String {
    let mut command = Command::new("chromium");
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]);
    command.args(["--no-first-run", "--disable-background-networking", "--hide-scrollbars"]);
    command.args(["--enable-logging=stderr", "--timeout=30000"]);
    command.arg(format!("--user-data-dir={}", profile.display()));
    command.arg(format!("--window-size={width},1600"));
    command.arg(format!("--screenshot={}", picture.display()));
    command.arg(format!("file://{}", page.display()));
    let output = command.output().unwrap();
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// As the header of a PNG says (PNG, third edition, section 11.2.1).
fn width_of(png: &[u8]) -> u32 {
    assert!(png.starts_with(b"\x89PNG\r\n\x1a\n"), "no PNG");
    u32::from_be_bytes(png[16..20].try_into().unwrap())
}

fn is_installed() -> bool {
    let mut command = Command::new("chromium");
    command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Fails, unless the variable allows to go without.
#[expect(clippy::disallowed_methods, reason = "a test is allowed to be told what a host lacks")]
fn missing(what: &str, variable: &str) {
    assert!(std::env::var_os(variable).is_some(), "{what}; {variable}=1 leaves this test out");
}

/// Files that go with the test.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("ringway-page-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
