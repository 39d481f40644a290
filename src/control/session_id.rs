//! How a session is named, to the shards and to operators.

use std::fmt;

use crate::shard::SessionKey;
use crate::shard::command::RtcId;

/// A session of either protocol, as the API and the log name it for its whole life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SessionId {
    /// An SRT session stays on its shard: `3-17-5`.
    Srt(SessionRef),
    /// A WebRTC session has a name before a shard owns it, and keeps it when it moves: `w-17`.
    WebRtc(RtcId),
}

impl SessionId {
    /// Reads what `Display` wrote.
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix("w-") {
            Some(number) => decimal(number).map(|number| Self::WebRtc(RtcId(number))),
            None => SessionRef::parse(text).map(Self::Srt),
        }
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Srt(session) => session.fmt(f),
            Self::WebRtc(RtcId(number)) => write!(f, "w-{number}"),
        }
    }
}

impl From<SessionRef> for SessionId {
    fn from(session: SessionRef) -> Self {
        Self::Srt(session)
    }
}

impl From<RtcId> for SessionId {
    fn from(session: RtcId) -> Self {
        Self::WebRtc(session)
    }
}

/// A session where a shard keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionRef {
    /// Index of the shard.
    pub shard: u16,
    /// Which of its sessions.
    pub key: SessionKey,
}

impl SessionRef {
    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split('-').map(decimal::<u32>);
        let (shard, slot, generation) = (numbers.next()??, numbers.next()??, numbers.next()??);
        let shard = u16::try_from(shard).ok()?;
        numbers.next().is_none().then_some(Self { shard, key: SessionKey { slot, generation } })
    }
}

impl fmt::Display for SessionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.shard, self.key)
    }
}

/// A number without the sign that `parse` would take.
fn decimal<N: std::str::FromStr>(text: &str) -> Option<N> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_srt_session_is_found_by_the_text_that_names_it() {
        let id = SessionRef { shard: 3, key: SessionKey { slot: 17, generation: 5 } };
        assert_eq!(id.to_string(), "3-17-5");
        assert_eq!(SessionId::parse("3-17-5"), Some(SessionId::Srt(id)));
    }

    #[test]
    fn a_webrtc_session_is_found_by_the_text_that_names_it() {
        let id = SessionId::WebRtc(RtcId(17));
        assert_eq!(id.to_string(), "w-17");
        assert_eq!(SessionId::parse("w-17"), Some(id));
    }

    #[test]
    fn any_other_text_names_no_session() {
        for text in [
            "",
            "3-17",
            "3-17-5-1",
            "70000-1-1",
            "a-1-1",
            "1--1",
            "+1-1-1",
            "1-1-4294967296",
            "w",
            "w-",
            "w-+1",
            "w-1-1",
            "w-18446744073709551616",
            "W-1",
        ] {
            assert_eq!(SessionId::parse(text), None, "{text}");
        }
    }
}
