//! What systemd, or whoever else has started the process, is told by the protocol of sd_notify(3):
//! that the relay serves, how it is, that it lives, and that it stops.
//!
//! Control tells it, and only while every shard answers control: a thread that hangs takes the
//! watchdog's signs of life with it, wherever it hangs. Nothing here waits; what cannot be said is
//! said again later.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use super::ask::{Readiness, Service};
use super::state::State;
use crate::config::Variables;

/// Whom to tell, and how often it wants to hear of us.
#[derive(Debug)]
pub struct Supervisor {
    socket: UnixDatagram,
    address: SocketAddr,
    /// How long it waits for a sign of life.
    watchdog: Option<Duration>,
}

/// Why nobody is told, though somebody wants to be.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// Neither a path nor an abstract name.
    #[error("NOTIFY_SOCKET is {0:?}, which is neither an absolute path nor @ and a name")]
    Address(String),
    /// No number of microseconds.
    #[error("{name} is {value:?}, which is not a number above 0")]
    Number {
        /// The variable.
        name: &'static str,
        /// As it is set.
        value: String,
    },
    /// No socket can be had.
    #[error("open a socket to the supervisor")]
    Socket(#[source] io::Error),
}

impl Supervisor {
    /// Reads what the supervisor has set; `None` where there is none. Its watchdog counts only if
    /// it means the process `pid`, and not the one that this one was started by.
    ///
    /// # Errors
    /// See [`SupervisorError`]. A relay runs as well without being watched.
    pub fn from_variables(
        variables: &Variables,
        pid: u32,
    ) -> Result<Option<Self>, SupervisorError> {
        let set = |name| variables.get(name).filter(|value| !value.is_empty());
        let Some(name) = set("NOTIFY_SOCKET") else {
            return Ok(None);
        };
        let bad_address = |_| SupervisorError::Address(name.clone());
        let address = match name.strip_prefix('@') {
            Some(name) if !name.is_empty() => SocketAddr::from_abstract_name(name),
            None if name.starts_with('/') => SocketAddr::from_pathname(name),
            Some(_) | None => return Err(SupervisorError::Address(name.clone())),
        };
        let address = address.map_err(bad_address)?;
        let number = |name: &'static str| {
            let bad = |value: &String| SupervisorError::Number { name, value: value.clone() };
            set(name).map(|value| value.parse::<u64>().map_err(|_| bad(value))).transpose()
        };
        let watchdog = match (number("WATCHDOG_USEC")?, number("WATCHDOG_PID")?) {
            (Some(0), _) => {
                let value = "0".to_owned();
                return Err(SupervisorError::Number { name: "WATCHDOG_USEC", value });
            }
            (Some(_), Some(other)) if other != u64::from(pid) => None,
            (microseconds, _) => microseconds.map(Duration::from_micros),
        };
        let socket = UnixDatagram::unbound().map_err(SupervisorError::Socket)?;
        socket.set_nonblocking(true).map_err(SupervisorError::Socket)?;
        Ok(Some(Self { socket, address, watchdog }))
    }

    /// Says it, and whether that succeeded. The address is looked up each time, so a supervisor that
    /// has opened its socket anew is found.
    fn tell(&self, message: &str) -> io::Result<()> {
        self.socket.send_to_addr(message.as_bytes(), &self.address).map(drop)
    }
}

/// What the supervisor has been told, and what is next.
pub(super) struct Reports {
    supervisor: Option<Supervisor>,
    pulse: Pulse,
    is_ready: bool,
    is_stopping: bool,
    status: String,
    next_status: Instant,
    /// It was told in the log that the supervisor cannot be reached.
    has_complained: bool,
}

impl Reports {
    pub(super) fn new(now: Instant, supervisor: Option<Supervisor>) -> Self {
        let watchdog = supervisor.as_ref().and_then(|supervisor| supervisor.watchdog);
        Self {
            supervisor,
            pulse: Pulse::new(now, watchdog.map(|watchdog| (watchdog / 2).max(INTERVAL_MIN))),
            is_ready: false,
            is_stopping: false,
            status: String::new(),
            next_status: now,
            has_complained: false,
        }
    }

    /// Says what there is to say. To be called in every turn of control's loop: its next turn is
    /// what the pulse waits for.
    pub(super) fn look(&mut self, now: Instant, state: &mut State) {
        if self.supervisor.is_none() {
            return;
        }
        self.report_stop(now, state);
        match self.pulse.advance(now, |since| state.have_shards_answered(since)) {
            Some(Step::Ask) => state.ask_for_signs_of_life(now),
            Some(Step::Alive) => self.report_life(now, state),
            None => {}
        }
        self.report_status(now, state);
    }

    /// When [`Self::look`] has something to do without anybody's message.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.supervisor.as_ref().and_then(|_| self.pulse.deadline())
    }

    fn report_stop(&mut self, now: Instant, state: &State) {
        let service = state.service(now);
        if service.is_quitting && !self.is_stopping {
            let status = status(service, state.readiness(now));
            self.is_stopping = self.tell(&format!("STOPPING=1\nSTATUS={status}"));
            self.status = status;
        }
    }

    fn report_life(&mut self, now: Instant, state: &State) {
        let service = state.service(now);
        let mut message = Vec::new();
        let status = status(service, state.readiness(now));
        if !self.is_ready && !service.is_quitting {
            message.push("READY=1".to_owned());
            message.push(format!("STATUS={status}"));
        }
        if self.supervisor.as_ref().is_some_and(|supervisor| supervisor.watchdog.is_some()) {
            message.push("WATCHDOG=1".to_owned());
        }
        if message.is_empty() {
            return;
        }
        if self.tell(&message.join("\n")) {
            if !self.is_ready {
                self.status = status;
                self.next_status = now + STATUS_INTERVAL;
            }
            self.is_ready = true;
        } else {
            self.pulse.repeat(now);
        }
    }

    /// Nothing before the first sign of life: what a relay that does not serve yet is like, it says
    /// in its log.
    fn report_status(&mut self, now: Instant, state: &State) {
        if !self.is_ready || now < self.next_status {
            return;
        }
        self.next_status = now + STATUS_INTERVAL;
        let status = status(state.service(now), state.readiness(now));
        if status != self.status && self.tell(&format!("STATUS={status}")) {
            self.status = status;
        }
    }

    fn tell(&mut self, message: &str) -> bool {
        let told = self.supervisor.as_ref().map_or(Ok(()), |supervisor| supervisor.tell(message));
        if let Err(error) = &told
            && !std::mem::replace(&mut self.has_complained, true)
        {
            tracing::warn!(%error, "the supervisor at NOTIFY_SOCKET cannot be told anything");
        }
        told.is_ok()
    }
}

/// One line for a person.
fn status(service: Service, readiness: Readiness) -> String {
    let state = match readiness {
        Readiness::Ready { .. } => "serving",
        Readiness::Degraded { .. } => "degraded: no origin answers",
        Readiness::NoOrigin => "waiting for an origin",
        Readiness::Draining => "draining",
        Readiness::Quitting => "quitting",
    };
    let plural = if service.sessions == 1 { "" } else { "s" };
    format!("{state}, {} session{plural}", service.sessions)
}

/// Asks for signs of life and waits for them: once, or at an interval.
#[derive(Debug)]
struct Pulse {
    interval: Option<Duration>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Due(Instant),
    /// Whoever answers from `since` on lives.
    Asked {
        since: Instant,
        again_at: Instant,
    },
    Over,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Ask,
    Alive,
}

impl Pulse {
    fn new(now: Instant, interval: Option<Duration>) -> Self {
        Self { interval, phase: Phase::Due(now) }
    }

    fn advance(&mut self, now: Instant, have_answered: impl Fn(Instant) -> bool) -> Option<Step> {
        match self.phase {
            Phase::Asked { since, .. } if have_answered(since) => {
                let next = self.interval.map(|interval| Phase::Due(since + interval));
                self.phase = next.unwrap_or(Phase::Over);
                Some(Step::Alive)
            }
            Phase::Due(at) if now >= at => {
                self.phase = Phase::Asked { since: now, again_at: now + self.patience() };
                Some(Step::Ask)
            }
            // A question may have found no room.
            Phase::Asked { since, again_at } if now >= again_at => {
                self.phase = Phase::Asked { since, again_at: now + self.patience() };
                Some(Step::Ask)
            }
            Phase::Due(_) | Phase::Asked { .. } | Phase::Over => None,
        }
    }

    /// The last sign of life could not be passed on.
    fn repeat(&mut self, now: Instant) {
        self.phase = Phase::Due(now + self.patience());
    }

    fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Due(at) | Phase::Asked { again_at: at, .. } => Some(at),
            Phase::Over => None,
        }
    }

    fn patience(&self) -> Duration {
        self.interval.map_or(PATIENCE_MAX, |interval| (interval / 4).min(PATIENCE_MAX))
    }
}

/// Between two signs of life, however impatient the watchdog.
const INTERVAL_MIN: Duration = Duration::from_millis(5);
/// Before a question is asked again.
const PATIENCE_MAX: Duration = Duration::from_millis(250);
/// Between two looks at whether the status has changed.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    fn supervisor(pairs: &[(&str, &str)]) -> Result<Option<Supervisor>, SupervisorError> {
        let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Supervisor::from_variables(&pairs.collect(), 17)
    }

    #[test]
    fn without_a_supervisor_nobody_is_told() {
        assert!(supervisor(&[]).unwrap().is_none());
        assert!(supervisor(&[("NOTIFY_SOCKET", ""), ("WATCHDOG_USEC", "9")]).unwrap().is_none());
    }

    #[test]
    fn a_supervisor_has_a_path_or_an_abstract_name() {
        let path = supervisor(&[("NOTIFY_SOCKET", "/run/systemd/notify")]).unwrap().unwrap();
        assert_eq!(path.address.as_pathname().unwrap().to_str(), Some("/run/systemd/notify"));
        let name = supervisor(&[("NOTIFY_SOCKET", "@/a b")]).unwrap().unwrap();
        assert_eq!(name.address.as_abstract_name(), Some(&b"/a b"[..]));
        assert_eq!(name.watchdog, None);
        for other in ["@", "run/notify", "vsock:2:1234"] {
            let error = supervisor(&[("NOTIFY_SOCKET", other)]).unwrap_err().to_string();
            assert!(error.contains(other), "{error}");
        }
    }

    #[test]
    fn the_watchdog_of_another_process_is_not_ours() {
        let watchdog = |pid: &[(&str, &str)]| {
            let mut pairs = vec![("NOTIFY_SOCKET", "@a"), ("WATCHDOG_USEC", "2000000")];
            pairs.extend(pid);
            supervisor(&pairs).unwrap().unwrap().watchdog
        };
        assert_eq!(watchdog(&[]), Some(Duration::from_secs(2)));
        assert_eq!(watchdog(&[("WATCHDOG_PID", "17")]), Some(Duration::from_secs(2)));
        assert_eq!(watchdog(&[("WATCHDOG_PID", "18")]), None);
    }

    #[test]
    fn a_watchdog_that_cannot_be_read_is_named() {
        for value in ["0", "soon", "-1"] {
            let pairs = [("NOTIFY_SOCKET", "@a"), ("WATCHDOG_USEC", value)];
            let error = supervisor(&pairs).unwrap_err().to_string();
            assert!(error.contains("WATCHDOG_USEC") && error.contains(value), "{error}");
        }
    }

    #[test]
    fn a_pulse_asks_at_its_interval_and_beats_when_all_have_answered() {
        let now = Instant::now();
        let mut pulse = Pulse::new(now, Some(INTERVAL));
        assert_eq!(pulse.advance(now, |_| true), Some(Step::Ask), "an old answer is none");
        assert_eq!(pulse.advance(now, |_| false), None);
        let answered = now + Duration::from_millis(1);
        assert_eq!(pulse.advance(answered, |since| since == now), Some(Step::Alive));
        assert_eq!(pulse.advance(answered, |_| true), None);
        assert_eq!(pulse.deadline(), Some(now + INTERVAL));
        assert_eq!(pulse.advance(now + INTERVAL, |_| false), Some(Step::Ask));
    }

    #[test]
    fn a_pulse_stops_while_somebody_does_not_answer_and_asks_again() {
        let now = Instant::now();
        let mut pulse = Pulse::new(now, Some(INTERVAL));
        pulse.advance(now, |_| false);
        let again_at = pulse.deadline().unwrap();
        assert!(again_at < now + INTERVAL);
        assert_eq!(pulse.advance(again_at, |_| false), Some(Step::Ask));
        assert_eq!(pulse.advance(now + 5 * INTERVAL, |_| false), Some(Step::Ask));
        assert_eq!(pulse.advance(now + 5 * INTERVAL, |since| since == now), Some(Step::Alive));
    }

    #[test]
    fn without_a_watchdog_one_sign_of_life_is_enough() {
        let now = Instant::now();
        let mut pulse = Pulse::new(now, None);
        pulse.advance(now, |_| false);
        assert_eq!(pulse.advance(now, |_| true), Some(Step::Alive));
        assert_eq!((pulse.deadline(), pulse.advance(now + INTERVAL, |_| true)), (None, None));
    }

    #[test]
    fn a_sign_of_life_that_could_not_be_passed_on_is_repeated() {
        let now = Instant::now();
        let mut pulse = Pulse::new(now, None);
        pulse.advance(now, |_| false);
        pulse.advance(now, |_| true);
        pulse.repeat(now);
        assert_eq!(pulse.advance(pulse.deadline().unwrap(), |_| false), Some(Step::Ask));
    }

    #[test]
    fn the_status_counts_sessions_in_english() {
        let service = |sessions| Service { is_quitting: false, drain: None, sessions };
        let ready = Readiness::Ready { origins_up: 1 };
        assert_eq!(status(service(0), ready), "serving, 0 sessions");
        assert_eq!(status(service(1), Readiness::Draining), "draining, 1 session");
    }
}
