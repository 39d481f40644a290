//! What is shown of control's state: to operators, to Prometheus, to health checks.

use std::time::Instant;

use super::State as Control;
use crate::control::ask::{Expected, Page, Readiness, Service};
use crate::control::origin::State;
use crate::control::session_id::SessionRef;
use crate::control::view::{SessionEntry, StreamEntry};
use crate::shard::command::{RtcId, SessionView};
use crate::telemetry::metrics::{OriginSnapshot, ShardSnapshot, Snapshot, cpu_seconds};

impl Control {
    pub(super) fn show_sessions(
        &mut self,
        now: Instant,
        shard: u16,
        request: u64,
        views: &[SessionView],
        next_slot: Option<u32>,
    ) {
        let Some(reply) = self.shards.take_sessions_question(request) else {
            return;
        };
        let directory = &mut self.directory;
        let sessions =
            views.iter().map(|view| SessionEntry::new(now, shard, view, directory)).collect();
        // Whoever asked may have given up.
        let _ = reply.send(Page { sessions, next_slot });
    }

    /// WebRTC sessions that no shard owns.
    pub(super) fn expected_sessions(&self, now: Instant, from: RtcId, limit: usize) -> Expected {
        let mut unowned = self.arbiter.unowned(from);
        let entries = unowned.by_ref().take(limit).filter_map(|(id, created, username)| {
            let session = self.directory.session(id)?;
            let age = now.saturating_duration_since(created);
            Some(SessionEntry::expected(id, age, username, session, &self.directory))
        });
        let sessions = entries.collect();
        Expected { sessions, next: unowned.next().map(|(id, _, _)| id) }
    }

    /// A WebRTC session as it is known here, and where a shard knows more of it.
    pub(super) fn rtc_session(
        &self,
        now: Instant,
        id: RtcId,
    ) -> Option<(Box<SessionEntry>, Option<SessionRef>)> {
        let (created, username, place) = self.arbiter.find(id)?;
        let age = now.saturating_duration_since(created);
        let session = self.directory.session(id)?;
        let entry = SessionEntry::expected(id, age, username, session, &self.directory);
        Some((Box::new(entry), place))
    }

    pub(super) fn streams(&self, now: Instant, limit: usize) -> (Vec<StreamEntry>, usize) {
        let entry = |(key, stream)| StreamEntry::new(now, key, stream, &self.directory);
        let streams = self.directory.streams().take(limit).map(entry).collect();
        (streams, self.directory.streams_count())
    }

    pub(super) fn snapshot(&self, now: Instant, since: Instant) -> Snapshot {
        let shards = self.shards.counters(since).map(|(counters, tid, is_up)| ShardSnapshot {
            counters: counters.clone(),
            is_up,
            cpu_seconds: thread_cpu_seconds(tid),
        });
        let origins = self.directory.origins().map(|origin| OriginSnapshot {
            name: origin.name().to_owned(),
            is_up: self.directory.state(origin, now) == State::Up,
            sessions: origin.sessions(),
            capacity: origin.capacity(),
        });
        Snapshot {
            shards: shards.collect(),
            origins: origins.collect(),
            setup: self.setup.clone(),
            sessions_expected: self.arbiter.unvalidated_count() as u64,
            webrtc_refusals: self.refusals.by_reason().collect(),
            is_draining: self.is_draining(),
            version: env!("CARGO_PKG_VERSION"),
            engine: self.engine,
        }
    }

    /// Asks every shard whether it lives.
    pub(in crate::control) fn ask_for_signs_of_life(&mut self, now: Instant) {
        self.shards.ask_for_signs_of_life(now);
    }

    /// Whether every shard has answered since then.
    pub(in crate::control) fn have_shards_answered(&self, since: Instant) -> bool {
        self.shards.counters(since).all(|(_, _, has_answered)| has_answered)
    }

    /// Whether the relay is in service.
    pub(in crate::control) fn service(&self, now: Instant) -> Service {
        Service {
            is_quitting: self.quit.is_draining(),
            drain: self.drain.progress(now),
            sessions: self.directory.sessions_count(),
        }
    }

    pub(in crate::control) fn readiness(&self, now: Instant) -> Readiness {
        let directory = &self.directory;
        let in_use = || {
            directory
                .origins()
                .filter(|origin| directory.is_alive(origin, now) && !origin.is_draining())
        };
        let live = in_use().count();
        let up = in_use().filter(|origin| directory.state(origin, now) == State::Up).count();
        match (live, up) {
            _ if self.quit.is_draining() => Readiness::Quitting,
            _ if self.drain.is_draining() => Readiness::Draining,
            (0, _) => Readiness::NoOrigin,
            (origins_failing, 0) => Readiness::Degraded { origins_failing },
            (_, origins_up) => Readiness::Ready { origins_up },
        }
    }
}

/// Reading it costs some microseconds and never waits: procfs makes it up on the spot.
fn thread_cpu_seconds(tid: i32) -> Option<f64> {
    cpu_seconds(&std::fs::read_to_string(format!("/proc/self/task/{tid}/schedstat")).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_time_of_this_thread_can_be_read() {
        let tid = rustix::thread::gettid().as_raw_nonzero().get();
        assert!(thread_cpu_seconds(tid).unwrap() >= 0.0);
        assert_eq!(thread_cpu_seconds(0), None);
    }
}
