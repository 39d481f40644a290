//! A full ICE agent as origin: aiortc, served by `peers/aiortc_origin.py`.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::network::missing;
use super::process::{Program, address_after};

pub struct Aiortc {
    _program: Program,
    pub api: SocketAddr,
}

impl Aiortc {
    /// Starts it on the host of the calling thread. Where there is no aiortc the test fails, unless
    /// `RINGWAY_WITHOUT_AIORTC` is set; then there is no origin.
    pub fn start(ip: IpAddr) -> Option<Self> {
        let Some(python) = python() else {
            missing("no python3 has aiortc (tests/run installs it)", "RINGWAY_WITHOUT_AIORTC");
            return None;
        };
        let mut command = Command::new(python);
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/peers/aiortc_origin.py"));
        command.arg(ip.to_string());
        let mut program = Program::start(command);
        let api = address_after(&program.wait_for("listening on "), "listening on ");
        Some(Self { _program: program, api })
    }

    /// As `--origin` wants it. The UDP port is another one for each session: the answers name it.
    pub fn flag(&self, name: &str) -> String {
        format!("name={name},ip={},api={}", self.api.ip(), self.api.port())
    }
}

/// The one beside the build that tests/run has made, or the system's.
fn python() -> Option<PathBuf> {
    let own = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("peers/bin/python3");
    [own, PathBuf::from("python3")].into_iter().find(|python| has_aiortc(python))
}

fn has_aiortc(python: &Path) -> bool {
    let mut command = Command::new(python);
    command.args(["-c", "import aiortc"]).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
