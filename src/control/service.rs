//! The routes by which operators take the relay out of service and back.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::http::header::{HOST, HeaderMap, ORIGIN};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::admin::{Api, Operator};
use super::ask::{Ask, Service};
use super::drain::{Goal, Progress};
use super::http::{Problem, read_body};
use crate::config::settings;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/api/v1/drain", get(show).post(drain))
        .route("/api/v1/undrain", post(undrain))
}

async fn show(State(api): State<Api>, _: Operator) -> Result<Json<Value>, Problem> {
    let service = api.ask_or_fail(|reply| Ask::Service { reply }).await?;
    Ok(Json(shown(service)))
}

async fn drain(
    State(api): State<Api>,
    _: Operator,
    query: Result<Query<BTreeMap<String, String>>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Problem> {
    refuse_other_sites(&headers)?;
    let Query(query) = query.map_err(|error| bad_request(error.body_text()))?;
    let body = read_body(&headers, body, BODY_MAX).await?;
    let goal = goal(&query, &body).map_err(bad_request)?;
    let service = api.ask_or_fail(|reply| Ask::Drain { goal, reply }).await?;
    service.map(shown).map(Json).ok_or_else(quitting)
}

async fn undrain(
    State(api): State<Api>,
    _: Operator,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    refuse_other_sites(&headers)?;
    let service = api.ask_or_fail(|reply| Ask::Undrain { reply }).await?;
    service.map(shown).map(Json).ok_or_else(quitting)
}

/// Lets no page of the web speak for the operator whose browser shows it: a browser posts to any
/// address without asking, this host's own included, and says for which site.
fn refuse_other_sites(headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(origin) = headers.get(ORIGIN) else {
        return Ok(());
    };
    let site = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    match site {
        Some((_, authority)) if Some(authority) == text(HOST) => Ok(()),
        Some(_) | None => {
            let detail = "a page of another site cannot do that";
            Err(Problem::new(StatusCode::FORBIDDEN, detail))
        }
    }
}

fn bad_request(detail: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, detail)
}

fn quitting() -> Problem {
    let detail = "the relay is quitting: it takes no new sessions, and that cannot be taken back";
    Problem::new(StatusCode::CONFLICT, detail)
}

/// Reads the goal from the query and from a JSON object; what the object has wins.
fn goal(query: &BTreeMap<String, String>, body: &[u8]) -> Result<Goal, String> {
    let mut goal = Goal::default();
    for (member, text) in query {
        match member.as_str() {
            "min_sessions" => {
                let number = text.parse().map_err(|_| not_a_number(text))?;
                goal.sessions_min = number;
            }
            "deadline" => goal.deadline = Some(deadline(text)?),
            other => return Err(unknown(other)),
        }
    }
    if body.trim_ascii().is_empty() {
        return Ok(goal);
    }
    let members: BTreeMap<String, Value> = serde_json::from_slice(body)
        .map_err(|_| "the body is not a JSON object: send one, or nothing".to_owned())?;
    for (member, value) in &members {
        match (member.as_str(), value) {
            ("min_sessions" | "deadline", Value::Null) => {}
            ("min_sessions", value) => {
                let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
                goal.sessions_min = number.ok_or_else(|| not_a_number(&value.to_string()))?;
            }
            ("deadline", Value::String(text)) => goal.deadline = Some(deadline(text)?),
            ("deadline", other) => return Err(format!("`deadline` is {other}: write \"10m\"")),
            (other, _) => return Err(unknown(other)),
        }
    }
    Ok(goal)
}

fn deadline(text: &str) -> Result<Duration, String> {
    settings::deadline(text).map_err(|bad| format!("`deadline`: {bad}"))
}

fn not_a_number(value: &str) -> String {
    format!("`min_sessions` is {value}: write a number of sessions from 0 to {}", u32::MAX)
}

fn unknown(member: &str) -> String {
    format!("there is no {member:?} here: write min_sessions or deadline")
}

fn shown(service: Service) -> Value {
    let Service { is_quitting, drain, sessions } = service;
    let state = match (is_quitting, drain) {
        (true, _) => "quitting",
        (false, Some(_)) => "draining",
        (false, None) => "serving",
    };
    let mut shown = json!({ "state": state, "sessions": sessions });
    if let (Some(members), Some(progress)) = (shown.as_object_mut(), drain) {
        let Progress { age, sessions_min, time_left, is_drained } = progress;
        members.insert("min_sessions".to_owned(), sessions_min.into());
        members.insert("drained".to_owned(), is_drained.into());
        members.insert("age_seconds".to_owned(), age.as_secs_f64().into());
        if let Some(time_left) = time_left {
            members.insert("seconds_left".to_owned(), time_left.as_secs_f64().into());
        }
    }
    shown
}

/// A goal takes less than a hundred.
const BODY_MAX: usize = 4 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &[(&str, &str)], body: &str) -> Result<Goal, String> {
        let query = query.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        goal(&query.collect(), body.as_bytes())
    }

    const TEN_MINUTES: Option<Duration> = Some(Duration::from_secs(600));

    #[test]
    fn a_goal_comes_in_the_query_or_in_the_body() {
        let goal = Goal { sessions_min: 3, deadline: TEN_MINUTES };
        assert_eq!(read(&[("min_sessions", "3"), ("deadline", "10m")], ""), Ok(goal));
        assert_eq!(read(&[], r#"{"min_sessions": 3, "deadline": "10m"}"#), Ok(goal));
        assert_eq!(read(&[("min_sessions", "9")], r#"{"min_sessions": 0}"#), Ok(Goal::default()));
    }

    #[test]
    fn without_a_goal_everybody_has_to_leave_and_may_take_his_time() {
        for body in ["", " \n", "{}", r#"{"min_sessions": null, "deadline": null}"#] {
            assert_eq!(read(&[], body), Ok(Goal::default()), "{body:?}");
        }
    }

    #[test]
    fn goals_that_cannot_be_read_are_refused_with_the_reason() {
        for (body, reason) in [
            ("[]", "not a JSON object"),
            ("{", "not a JSON object"),
            (r#"{"min_sessions": -1}"#, "`min_sessions` is -1"),
            (r#"{"min_sessions": 1.5}"#, "`min_sessions` is 1.5"),
            (r#"{"min_sessions": 4294967296}"#, "`min_sessions` is 4294967296"),
            (r#"{"min_sessions": "many"}"#, "`min_sessions` is \"many\""),
            (r#"{"deadline": 600}"#, "write \"10m\""),
            (r#"{"deadline": "soon"}"#, "\"soon\" is not a duration"),
            (r#"{"dead_line": "1m"}"#, "there is no \"dead_line\""),
        ] {
            let error = read(&[], body).unwrap_err();
            assert!(error.contains(reason), "{body}: {error}");
        }
        for (query, reason) in [
            (("min_sessions", "-1"), "`min_sessions` is -1"),
            (("deadline", ""), "is not a duration"),
            (("min-sessions", "1"), "there is no \"min-sessions\""),
        ] {
            let error = read(&[query], "").unwrap_err();
            assert!(error.contains(reason), "{query:?}: {error}");
        }
    }

    #[test]
    fn pages_of_other_sites_do_not_speak_for_operators() {
        let of = |origin: &str| {
            let pair = |name, text: &str| (name, text.parse().unwrap());
            let pairs = [pair(HOST, "127.0.0.1:12025"), pair(ORIGIN, origin)];
            refuse_other_sites(&HeaderMap::from_iter(pairs)).is_ok()
        };
        assert!(refuse_other_sites(&HeaderMap::new()).is_ok(), "no browser");
        assert!(of("http://127.0.0.1:12025"));
        for other in ["https://page.example", "http://127.0.0.1:8080", "null", "127.0.0.1:12025"] {
            assert!(!of(other), "{other}");
        }
    }

    #[test]
    fn the_state_is_shown_with_what_is_known_of_it() {
        let serving = Service { is_quitting: false, drain: None, sessions: 2 };
        assert_eq!(shown(serving), json!({"state": "serving", "sessions": 2}));
        let progress = Progress {
            age: Duration::from_secs(5),
            sessions_min: 1,
            time_left: Some(Duration::from_millis(2_500)),
            is_drained: false,
        };
        let draining = Service { drain: Some(progress), ..serving };
        let expected = json!({
            "state": "draining", "sessions": 2, "min_sessions": 1, "drained": false,
            "age_seconds": 5.0, "seconds_left": 2.5,
        });
        assert_eq!(shown(draining), expected);
        let quitting = Service { is_quitting: true, ..draining };
        assert_eq!(shown(quitting)["state"], "quitting");
    }
}
