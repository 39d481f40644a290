//! `ringway drain`: refuses new sessions and waits until enough of the live ones have ended.
//!
//! The relay keeps the drain, and this command only watches it: whoever stops the command lets the
//! drain go on.

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Arg, ArgMatches};
use hyper::Method;
use serde_json::Value;

use super::client::{ClientCommand, ClientError, runtime};
use super::tables;
use crate::config::{BadValue, ConfigError, settings};

/// When the operator calls it done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Goal {
    /// As many sessions may be left.
    sessions_min: u32,
    /// How long that may take, in the operator's words as well.
    deadline: Option<(String, Duration)>,
}

impl Goal {
    /// Reads what was typed.
    pub(super) fn of(flags: &ArgMatches) -> Result<Self, ConfigError> {
        let typed = |name| flags.get_one::<String>(name).map(|text| text.trim().to_owned());
        let bad = |name| move |bad| ConfigError::Value { place: format!("--{name}"), bad };
        let sessions_min = match typed(MIN_SESSIONS) {
            Some(text) => text.parse().map_err(|_| {
                let instead = format!("a number of sessions from 0 to {}", u32::MAX);
                bad(MIN_SESSIONS)(BadValue::new(&text, "is not a number of sessions", instead))
            })?,
            None => 0,
        };
        let deadline = typed(DEADLINE).map(|text| {
            let deadline = settings::deadline(&text).map_err(bad(DEADLINE))?;
            Ok((text, deadline))
        });
        Ok(Self { sessions_min, deadline: deadline.transpose()? })
    }

    pub(super) fn path(&self) -> String {
        let mut path = format!("{PATH}?min_sessions={}", self.sessions_min);
        if let Some((_, deadline)) = &self.deadline {
            path.push_str(&format!("&deadline={}ns", deadline.as_nanos()));
        }
        path
    }
}

/// The flags of `ringway drain`.
pub(super) fn command(command: clap::Command) -> clap::Command {
    command.after_help(AFTER_HELP).args([
        Arg::new(MIN_SESSIONS)
            .long(MIN_SESSIONS)
            .value_name("N")
            .allow_negative_numbers(true)
            .help("Waits until at most N sessions are left [default: 0]"),
        Arg::new(DEADLINE)
            .long(DEADLINE)
            .value_name("DURATION")
            .allow_negative_numbers(true)
            .help("Waits no longer than that, as in 90s or 10m [default: none]"),
    ])
}

/// Begins the drain, and tells of its progress until few enough sessions are left.
pub(super) fn run(command: &ClientCommand, goal: &Goal) -> Result<ExitCode, ClientError> {
    let until = goal.deadline.as_ref().map(|(text, deadline)| (text, Instant::now() + *deadline));
    runtime()?.block_on(async {
        let mut answer = command.request(Method::POST, &goal.path()).await?;
        let mut told = None;
        loop {
            let json = command.json(&answer)?;
            let sessions = json.get("sessions").and_then(Value::as_u64);
            let sessions = match (state(&json), sessions) {
                (Some("draining" | "quitting"), Some(sessions)) => sessions,
                (Some("serving"), _) => {
                    return Err(ClientError::Undrained { api: command.api.clone() });
                }
                (_, _) => return Err(ClientError::NoProgress { api: command.api.clone() }),
            };
            if told != Some(sessions) {
                tell(&command.text(&answer)?);
                told = Some(sessions);
            }
            if sessions <= u64::from(goal.sessions_min) {
                return Ok(ExitCode::SUCCESS);
            }
            if let Some((text, until)) = until
                && Instant::now() >= until
            {
                return Err(ClientError::DeadlinePassed { sessions, deadline: text.clone() });
            }
            let next = Instant::now() + POLL_INTERVAL;
            let next = until.map_or(next, |(_, until)| until.min(next));
            tokio::time::sleep_until(next.into()).await;
            answer = command.request(Method::GET, PATH).await?;
        }
    })
}

/// What the relay says of itself, for a person.
pub(super) fn sentence(answer: &Value) -> String {
    let sessions = answer.get("sessions").and_then(Value::as_u64);
    let state = state(answer).unwrap_or("in an unknown state");
    let mut sentence = tables::printable(state);
    if let Some(sessions) = sessions {
        let plural = if sessions == 1 { "" } else { "s" };
        sentence.push_str(&format!(": {sessions} session{plural}"));
    }
    sentence.push('\n');
    sentence
}

fn state(answer: &Value) -> Option<&str> {
    answer.get("state").and_then(Value::as_str)
}

/// Progress. That nobody reads it is no reason to stop.
fn tell(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

pub(super) const ABOUT: &str = "Refuses new sessions and waits until live ones have ended";

const AFTER_HELP: &str = "\
From the first moment on /readyz answers 503, SRT callers are refused with 1007 and WHIP and WHEP
with 503. Live sessions run on for as long as they like, after the deadline, too: the relay neither
ends them nor itself. `ringway undrain` lets new sessions in again.

Exit code: 0 when at most N sessions are left, 1 when the deadline has passed before that, or the
relay is gone. Ended early (Ctrl-C), the command leaves the drain as it is.";

const MIN_SESSIONS: &str = "min-sessions";
const DEADLINE: &str = "deadline";
const PATH: &str = "/api/v1/drain";
const POLL_INTERVAL: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn typed(line: &str) -> Result<Goal, ConfigError> {
        let words = std::iter::once("drain").chain(line.split_whitespace());
        Goal::of(&command(clap::Command::new("drain")).try_get_matches_from(words).unwrap())
    }

    #[test]
    fn without_flags_everybody_has_to_leave_and_may_take_his_time() {
        assert_eq!(typed("").unwrap().path(), "/api/v1/drain?min_sessions=0");
    }

    #[test]
    fn a_goal_is_sent_as_it_was_typed() {
        let goal = typed("--min-sessions 3 --deadline 1m30s").unwrap();
        assert_eq!(goal.path(), "/api/v1/drain?min_sessions=3&deadline=90000000000ns");
    }

    #[test]
    fn goals_that_cannot_be_read_name_the_flag() {
        for (line, said) in [
            ("--min-sessions few", "--min-sessions: \"few\" is not a number of sessions"),
            ("--min-sessions -1", "--min-sessions: \"-1\" is not a number of sessions"),
            ("--deadline soon", "--deadline: \"soon\" is not a duration"),
            ("--deadline 0", "--deadline: \"0\" "),
        ] {
            let error = typed(line).unwrap_err().to_string();
            assert!(error.starts_with(said), "{line}: {error}");
        }
    }

    #[test]
    fn the_state_is_told_in_a_line() {
        assert_eq!(sentence(&json!({"state": "draining", "sessions": 1})), "draining: 1 session\n");
        assert_eq!(sentence(&json!({"state": "serving", "sessions": 0})), "serving: 0 sessions\n");
        assert_eq!(sentence(&json!({"state": "a\u{1b}[2J"})), "a\u{fffd}[2J\n");
        assert_eq!(sentence(&json!([])), "in an unknown state\n");
    }
}
