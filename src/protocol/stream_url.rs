//! The one canonical key of a stream, whatever protocol named it.
//!
//! Publisher and players must reach the same origin, and each may write the stream's name in its
//! own way: with a query, with doubled slashes, with or without the default app, escaped or plain.
//! What they mean must come out as one text.

use std::fmt;
use std::sync::Arc;

mod http;

pub use http::{StreamUrlError, from_stream_url, from_whip, is_named_by_path, without_denied};

/// `vhost/app/stream`: what the balancer is sticky by.
///
/// The app may have several segments; the stream is the last. The text holds no control characters
/// and no query, so it may be logged. Clones share the text.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamKey(Arc<str>);

impl StreamKey {
    /// Bytes of the longest key.
    pub const MAX: usize = 1024;

    /// The key of `path`, the URL's path as it was written, in `vhost`, which is what
    /// [`Vhosts::resolve`] answers.
    ///
    /// The query is dropped, and so are slashes at the ends and doubled ones. A path of one segment
    /// is in the app `live`. Percent-escapes are resolved once. An escaped `/`, `?` or `%` stays
    /// escaped and a `%` that escapes nothing becomes `%25`, so the key of a key's own path is the
    /// key itself, and no escape can add a segment.
    ///
    /// # Errors
    /// See [`StreamKeyError`].
    pub fn canonical(vhost: &str, path: &str) -> Result<Self, StreamKeyError> {
        let path = path.split_once('?').map_or(path, |(path, _query)| path);
        let segments = || path.split('/').filter(|segment| !segment.is_empty());
        let app = match segments().count() {
            0 => return Err(StreamKeyError::Empty),
            1 => Some(DEFAULT_APP),
            _ => None,
        };
        let mut key = String::with_capacity(vhost.len() + path.len() + DEFAULT_APP.len() + 2);
        key.push_str(vhost);
        for segment in app.into_iter().chain(segments()) {
            key.push('/');
            key.push_str(&normalised(segment)?);
        }
        if key.len() > Self::MAX {
            return Err(StreamKeyError::TooLong { length: key.len(), max: Self::MAX });
        }
        if key.contains(is_unprintable) {
            return Err(StreamKeyError::ControlCharacter);
        }
        Ok(Self(key.into()))
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `app/stream`: the key without its vhost.
    pub fn path(&self) -> &str {
        self.0.split_once('/').map_or("", |(_vhost, path)| path)
    }
}

impl fmt::Display for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One segment of a path with its percent-escapes resolved (RFC 3986, section 6.2.2.2).
fn normalised(segment: &str) -> Result<String, StreamKeyError> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match (byte, escape(tail)) {
            (b'%', Some((b'/', tail))) => {
                bytes.extend(b"%2F");
                rest = tail;
            }
            (b'%', Some((b'?', tail))) => {
                bytes.extend(b"%3F");
                rest = tail;
            }
            (b'%', Some((b'%', tail))) => {
                bytes.extend(b"%25");
                rest = tail;
            }
            (b'%', Some((plain, tail))) => {
                bytes.push(plain);
                rest = tail;
            }
            (b'%', None) => bytes.extend(b"%25"),
            (plain, _) => bytes.push(plain),
        }
    }
    let text = String::from_utf8(bytes).map_err(|_| StreamKeyError::NotUtf8)?;
    if text == "." || text == ".." {
        return Err(StreamKeyError::DotSegment);
    }
    Ok(text)
}

/// The byte that the two hexadecimal digits in front of `tail` stand for, and what follows them.
fn escape(tail: &[u8]) -> Option<(u8, &[u8])> {
    let (&[high, low], tail) = tail.split_first_chunk::<2>()?;
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some((digit(high)? << 4 | digit(low)?, tail))
}

/// Whether `c` could break or disguise a log line: control characters, line separators, changes of
/// writing direction.
fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// Host names that count as virtual hosts (`--vhosts`); every other name means the default one.
///
/// Most SRT callers name no host, so a vhost taken from whatever host a WebRTC client happens to
/// use would part the two.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vhosts(Vec<String>);

impl Vhosts {
    /// Takes the names as typed; case does not matter.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self(names.into_iter().map(|name| name.to_ascii_lowercase()).collect())
    }

    /// The vhost of a request for `host`, which may have a port: itself if it is listed, else
    /// [`DEFAULT_VHOST`].
    pub fn resolve<'a>(&'a self, host: Option<&str>) -> &'a str {
        host.and_then(|host| self.find(host)).unwrap_or(DEFAULT_VHOST)
    }

    /// The listed name that `host` is, whatever its case, port and final dot.
    pub fn find(&self, host: &str) -> Option<&str> {
        let host = without_port(host);
        let host = host.strip_suffix('.').unwrap_or(host);
        self.0.iter().map(String::as_str).find(|name| name.eq_ignore_ascii_case(host))
    }
}

/// Drops `:port`. IPv6 addresses have one only behind brackets, which stay.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, _port)) if !name.contains(':') || name.ends_with(']') => name,
        _ => host,
    }
}

/// Why a stream name cannot be a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamKeyError {
    /// Nothing is left without slashes and query.
    #[error("the stream name is empty")]
    Empty,
    /// The key would be longer than [`StreamKey::MAX`].
    #[error("the stream name has {length} bytes, at most {max} are allowed")]
    TooLong {
        /// Bytes of the whole key.
        length: usize,
        /// Bytes that are allowed.
        max: usize,
    },
    /// It holds a character that could break or disguise a log line.
    #[error("the stream name holds a control character")]
    ControlCharacter,
    /// Its percent-escapes do not make up text.
    #[error("the stream name is not UTF-8")]
    NotUtf8,
    /// A segment is `.` or `..`, which a URL would resolve to another stream.
    #[error("the stream name has a segment of dots alone")]
    DotSegment,
}

/// The vhost of every stream that names none, or none that counts.
pub const DEFAULT_VHOST: &str = "__defaultVhost__";
/// The app of a stream without one, as in SRS.
const DEFAULT_APP: &str = "live";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(path: &str) -> Result<String, StreamKeyError> {
        StreamKey::canonical("v", path).map(|key| key.to_string())
    }

    #[test]
    fn every_way_to_write_a_path_gives_one_key() {
        let same = [
            "live/a",
            "/live/a",
            "live/a/",
            "//live///a//",
            "a",
            "/a",
            "live/a?x=y/z",
            "%6Cive/%61",
            "live/a?",
        ];
        for path in same {
            assert_eq!(key(path).as_deref(), Ok("v/live/a"), "{path}");
        }
    }

    #[test]
    fn the_last_segment_is_the_stream_and_the_rest_is_the_app() {
        let key = StreamKey::canonical("v", "a/b/c/d").unwrap();
        assert_eq!((key.as_str(), key.path()), ("v/a/b/c/d", "a/b/c/d"));
    }

    #[test]
    fn case_counts() {
        assert_ne!(key("live/A"), key("live/a"));
    }

    #[test]
    fn escapes_are_resolved_once_and_never_add_a_segment() {
        let table = [
            ("live/a%20b", "v/live/a b"),
            ("live/gr%C3%B6%C3%9fe", "v/live/größe"),
            ("live/a%2fb", "v/live/a%2Fb"),
            ("live/a%3Fb", "v/live/a%3Fb"),
            ("live/100%25", "v/live/100%25"),
            ("live/100%", "v/live/100%25"),
            ("live/%2541", "v/live/%2541"),
            ("live/%%341", "v/live/%2541"),
            ("live/%4", "v/live/%254"),
            ("live/%zz", "v/live/%25zz"),
            ("live/%+1", "v/live/%25+1"),
        ];
        for (path, expected) in table {
            assert_eq!(key(path).as_deref(), Ok(expected), "{path}");
        }
    }

    #[test]
    fn what_cannot_be_a_key_is_refused() {
        let table = [
            ("", StreamKeyError::Empty),
            ("///", StreamKeyError::Empty),
            ("?live/a", StreamKeyError::Empty),
            ("live/a\nb", StreamKeyError::ControlCharacter),
            ("live/%0d%0a", StreamKeyError::ControlCharacter),
            ("live/%00", StreamKeyError::ControlCharacter),
            ("live/\u{7f}", StreamKeyError::ControlCharacter),
            ("live/%C2%9B", StreamKeyError::ControlCharacter),
            ("live/\u{2028}", StreamKeyError::ControlCharacter),
            ("live/a\u{202e}b", StreamKeyError::ControlCharacter),
            ("live/%ff", StreamKeyError::NotUtf8),
            ("live/%C3/%9f", StreamKeyError::NotUtf8),
            ("live/../a", StreamKeyError::DotSegment),
            ("live/%2E%2e", StreamKeyError::DotSegment),
            ("./a", StreamKeyError::DotSegment),
        ];
        for (path, error) in table {
            assert_eq!(key(path), Err(error), "{path:?}");
        }
    }

    #[test]
    fn the_longest_key_has_1024_bytes() {
        let longest = format!("live/{}", "a".repeat(1024 - "v/live/".len()));
        assert_eq!(key(&longest).map(|key| key.len()), Ok(1024));
        assert_eq!(
            key(&format!("{longest}a")),
            Err(StreamKeyError::TooLong { length: 1025, max: 1024 })
        );
    }

    #[test]
    fn only_a_listed_host_is_a_vhost() {
        let vhosts = Vhosts::new(["V.example.com".to_owned(), "[2001:db8::1]".to_owned()]);
        let table = [
            (Some("v.example.com"), "v.example.com"),
            (Some("V.EXAMPLE.COM:443"), "v.example.com"),
            (Some("v.example.com."), "v.example.com"),
            (Some("[2001:DB8::1]:443"), "[2001:db8::1]"),
            (Some("[2001:db8::1]"), "[2001:db8::1]"),
            (Some("2001:db8::1"), DEFAULT_VHOST),
            (Some("www.v.example.com"), DEFAULT_VHOST),
            (Some("127.0.0.1:8080"), DEFAULT_VHOST),
            (Some(""), DEFAULT_VHOST),
            (Some(":"), DEFAULT_VHOST),
            (None, DEFAULT_VHOST),
        ];
        for (host, vhost) in table {
            assert_eq!(vhosts.resolve(host), vhost, "{host:?}");
        }
        assert_eq!(Vhosts::default().resolve(Some("v.example.com")), DEFAULT_VHOST);
    }

    proptest! {
        #[test]
        fn the_key_of_a_keys_own_path_is_the_key(path in "(/|%|%2[5F]|%3f|%41|\\?|\\PC){0,40}") {
            if let Ok(key) = StreamKey::canonical(DEFAULT_VHOST, &path) {
                prop_assert_eq!(StreamKey::canonical(DEFAULT_VHOST, key.path()), Ok(key));
            }
        }

        #[test]
        fn a_key_is_bounded_and_printable(path in "\\PC*|[\\x00-\\x7f]*") {
            if let Ok(key) = StreamKey::canonical(DEFAULT_VHOST, &path) {
                prop_assert!(key.as_str().len() <= StreamKey::MAX);
                prop_assert!(!key.as_str().contains(char::is_control));
                prop_assert!(!key.path().contains('?') && !key.path().contains("//"));
            }
        }
    }
}
