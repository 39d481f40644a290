//! Stream names as WebRTC clients write them: in the query or the path of WHIP and WHEP, and in the
//! `streamurl` of the JSON API that was there before.
//!
//! Queries are read as SRS reads them: of two equal parameters the last counts, escapes in a value
//! are left to [`StreamKey::canonical`], and `+` is a plus sign.
//!
//! The name is bounded by the length of its key. The rest is not: a query may carry a token of any
//! size that HTTP lets through.

use std::borrow::Cow;

use super::{StreamKey, StreamKeyError, Vhosts, escape};

/// The key of the stream that a WHIP or WHEP request names.
///
/// `path_rest` is what stands behind the route, `query` what stands behind `?`; both as they were
/// written. The parameter `stream` names the stream, in the app `app` or else `live`. Without it
/// the path does, from which a media extension is dropped: `/rtc/v1/whip/live/a.flv` is `live/a`.
/// A request without either is for `livestream`, as with SRS.
///
/// The vhost is the parameter `vhost`, else `domain`, else the `Host` header, as far as `vhosts`
/// lists it.
///
/// # Errors
/// See [`StreamUrlError`].
pub fn from_whip(
    path_rest: &str,
    query: &str,
    host: Option<&str>,
    vhosts: &Vhosts,
) -> Result<StreamKey, StreamUrlError> {
    let parameter = |name| parameter(query, name);
    let app = parameter("app");
    let in_path = Some(path_rest).filter(|path| names_something(path)).map(without_extension);
    let path = match (parameter("stream"), app, in_path) {
        (Some(stream), app, _) => Cow::Owned(join(app.unwrap_or(super::DEFAULT_APP), stream)),
        (None, None, Some(path)) => Cow::Borrowed(path),
        (None, Some(app), Some(path)) => Cow::Owned(join(app, path)),
        (None, app, None) => {
            Cow::Owned(join(app.unwrap_or(super::DEFAULT_APP), DEFAULT_STREAM_OF_WHIP))
        }
    };
    let named = parameter("vhost").or_else(|| parameter("domain")).or(host);
    Ok(StreamKey::canonical(vhosts.resolve(named), &path)?)
}

/// Whether the stream that [`from_whip`] finds is named by the path and not by the query.
pub fn is_named_by_path(path_rest: &str, query: &str) -> bool {
    names_something(path_rest) && parameter(query, "stream").is_none()
}

/// The key of the stream that `webrtc://host[:port]/app/stream?query` names, whatever the scheme.
///
/// The vhost is the parameter `vhost`, else `domain`, else the URL's host, as far as `vhosts` lists
/// it.
///
/// # Errors
/// See [`StreamUrlError`].
pub fn from_stream_url(url: &str, vhosts: &Vhosts) -> Result<StreamKey, StreamUrlError> {
    let url = url.split_once('#').map_or(url, |(url, _fragment)| url);
    let (location, query) = url.split_once('?').unwrap_or((url, ""));
    let (_scheme, location) = location.split_once("://").ok_or(StreamUrlError::NoScheme)?;
    let (authority, path) = location.split_once('/').unwrap_or((location, ""));
    let host = authority.rsplit_once('@').map_or(authority, |(_user, host)| host);
    let named = parameter(query, "vhost").or_else(|| parameter(query, "domain")).unwrap_or(host);
    Ok(StreamKey::canonical(vhosts.resolve(Some(named)), path)?)
}

/// `query` without the parameters that are not the client's to choose.
///
/// SRS would let them switch encryption off or write another address or other credentials into the
/// answer. Their names count in any case and with any escapes, and behind whatever some parser
/// takes for a separator: SRS reads what follows a second `?` only, others split at `;`. All other
/// bytes keep their order.
pub fn without_denied(query: &str) -> Cow<'_, str> {
    let is_kept = |piece: &&str| !is_denied(piece.trim_start_matches(SEPARATORS));
    if pieces(query).all(|piece| is_kept(&piece)) {
        return Cow::Borrowed(query);
    }
    let kept: String = pieces(query).filter(is_kept).collect();
    // What is first now may have followed one that is gone.
    Cow::Owned(kept.strip_prefix(SEPARATORS).map(str::to_owned).unwrap_or(kept))
}

/// The parameters of `query`, each with the separator in front of it.
fn pieces(query: &str) -> impl Iterator<Item = &str> {
    let mut rest = query;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?.len_utf8();
        let end = rest.get(first..)?.find(SEPARATORS).map_or(rest.len(), |at| first + at);
        let (piece, tail) = rest.split_at_checked(end)?;
        rest = tail;
        Some(piece)
    })
}

/// Whether the name of `parameter`, read liberally, is one of [`DENIED`].
fn is_denied(parameter: &str) -> bool {
    let name = parameter.split_once('=').map_or(parameter, |(name, _value)| name);
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let (byte, tail) = match (byte, escape(tail)) {
            (b'%', Some(escaped)) => escaped,
            (b'+', _) => (b' ', tail),
            (plain, _) => (plain, tail),
        };
        if !byte.is_ascii_whitespace() && !byte.is_ascii_control() {
            bytes.push(byte);
        }
        rest = tail;
    }
    DENIED.iter().any(|denied| bytes.eq_ignore_ascii_case(denied.as_bytes()))
}

/// The last value of the parameter `name` in `query` that names something.
fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = query.rsplit('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(key, _)| *key == name)?;
    let value = value.split_once('?').map_or(value, |(value, _second_query)| value);
    names_something(value).then_some(value)
}

/// Whether anything is left without slashes.
fn names_something(path: &str) -> bool {
    path.bytes().any(|byte| byte != b'/')
}

fn join(app: &str, stream: &str) -> String {
    format!("{app}/{stream}")
}

/// Drops the extension of a media file, and no other: the stream `cam.v1` is not `cam`.
fn without_extension(path: &str) -> &str {
    let path = path.trim_end_matches('/');
    let stem = EXTENSIONS.iter().find_map(|extension| path.strip_suffix(extension));
    stem.filter(|stem| !stem.is_empty() && !stem.ends_with('/')).unwrap_or(path)
}

/// Why a stream URL names no stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamUrlError {
    /// It is no URL.
    #[error("the stream URL has no scheme: write webrtc://host/app/stream")]
    NoScheme,
    /// Its path cannot be a key.
    #[error(transparent)]
    Key(#[from] StreamKeyError),
}

/// The stream of a WHIP or WHEP request that names none, as in SRS.
const DEFAULT_STREAM_OF_WHIP: &str = "livestream";
/// Extensions of HTTP streaming, which players copy into other URLs.
const EXTENSIONS: [&str; 5] = [".flv", ".m3u8", ".ts", ".mp3", ".aac"];
/// Parameters that change the answer or how media is protected.
const DENIED: [&str; 6] = ["encrypt", "dtls", "eip", "candidate", "ice-ufrag", "ice-pwd"];
/// What some parser takes for the end of a parameter.
const SEPARATORS: [char; 3] = ['&', ';', '?'];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::srt::StreamId;
    use proptest::prelude::*;

    fn vhosts() -> Vhosts {
        Vhosts::new(["v.example.com".to_owned(), "[2001:db8::1]".to_owned()])
    }

    fn whip(path_rest: &str, query: &str) -> Result<String, StreamUrlError> {
        from_whip(path_rest, query, None, &vhosts()).map(|key| key.path().to_owned())
    }

    fn whip_vhost(query: &str, host: Option<&str>) -> String {
        let key = from_whip("", query, host, &vhosts()).unwrap();
        key.as_str().split('/').next().unwrap().to_owned()
    }

    fn url(url: &str) -> Result<String, StreamUrlError> {
        from_stream_url(url, &vhosts()).map(|key| key.to_string())
    }

    #[test]
    fn one_stream_has_one_key_whatever_protocol_names_it() {
        let table = [
            ("#!::r=live/a,m=publish", "app=live&stream=a", "webrtc://h:1985/live/a"),
            ("#!::r=/live//a", "stream=a", "webrtc://h/live/a?x=1"),
            ("live/a%2Fb", "app=live&stream=a%2Fb", "webrtc://h/live/a%2fb"),
            ("live/a b", "app=live&stream=a%20b", "webrtc://h/live/a%20b"),
            ("live/a+b", "app=live&stream=a+b", "webrtc://h/live/a%2Bb"),
            ("live/x/a", "app=live/x&stream=a", "webrtc://h/live/x/a"),
            ("live/a.flv", "app=live&stream=a.flv", "webrtc://h/live/a.flv"),
            (
                "#!::h=v.example.com,r=live/a",
                "stream=a&vhost=v.example.com",
                "webrtc://V.example.com/live/a",
            ),
            (
                "#!::h=unknown.example.com,r=live/a",
                "stream=a&vhost=unknown.example.com",
                "webrtc://unknown.example.com/live/a",
            ),
            (
                "#!::vhost=v.example.com,r=live/a",
                "stream=a&domain=v.example.com",
                "webrtc://h/live/a?vhost=v.example.com",
            ),
        ];
        for (stream_id, query, stream_url) in table {
            let of_srt = StreamId::parse(stream_id).unwrap().key(&vhosts()).unwrap();
            let of_whip = from_whip("", query, Some("h:1985"), &vhosts());
            assert_eq!(of_whip.as_ref(), Ok(&of_srt), "{query}");
            assert_eq!(from_stream_url(stream_url, &vhosts()), Ok(of_srt), "{stream_url}");
        }
    }

    #[test]
    fn a_whip_query_names_the_stream() {
        let table = [
            ("app=live&stream=a", "live/a"),
            ("stream=a&app=b/c&token=x", "b/c/a"),
            ("stream=a", "live/a"),
            ("app=b", "b/livestream"),
            ("", "live/livestream"),
            ("app=&stream=", "live/livestream"),
            ("app=/&stream=//", "live/livestream"),
            ("token=x", "live/livestream"),
            ("stream=a&stream=b", "live/b"),
            ("app=live&stream=a?token=x", "live/a"),
            ("app=live?token=x&stream=a", "live/a"),
            ("STREAM=x&xstream=y&stream=a", "live/a"),
            ("&&stream=a&&", "live/a"),
        ];
        for (query, expected) in table {
            assert_eq!(whip("", query).as_deref(), Ok(expected), "{query}");
        }
    }

    #[test]
    fn a_whip_path_names_the_stream_where_the_query_does_not() {
        let table = [
            ("live/a", "", "live/a"),
            ("/live/a/", "", "live/a"),
            ("a", "", "live/a"),
            ("b/c/a", "token=x", "b/c/a"),
            ("/", "", "live/livestream"),
            ("a", "app=b", "b/a"),
            ("live/a", "app=b&stream=c", "b/c"),
            ("live/a%20b%2Fc", "", "live/a b%2Fc"),
            ("live/a.flv", "", "live/a"),
            ("live/a.m3u8/", "", "live/a"),
            ("live/a.flv.ts", "", "live/a.flv"),
            ("live/cam.v1", "", "live/cam.v1"),
            ("live/.flv", "", "live/.flv"),
            ("live.flv/a", "", "live.flv/a"),
        ];
        for (path, query, expected) in table {
            assert_eq!(whip(path, query).as_deref(), Ok(expected), "{path}?{query}");
        }
    }

    #[test]
    fn the_host_counts_last_and_only_where_it_is_listed() {
        let default = super::super::DEFAULT_VHOST;
        let table = [
            ("vhost=v.example.com", Some("other:1985"), "v.example.com"),
            ("vhost=v.example.com&domain=other", None, "v.example.com"),
            ("domain=V.EXAMPLE.COM", None, "v.example.com"),
            ("", Some("v.example.com"), "v.example.com"),
            ("", Some("v.example.com:1985"), "v.example.com"),
            ("", Some("[2001:db8::1]:1985"), "[2001:db8::1]"),
            ("", Some("[::1]:1985"), default),
            ("", Some("127.0.0.1:1985"), default),
            ("", Some("other.example.com"), default),
            ("vhost=other", Some("v.example.com"), default),
            ("vhost=", Some("v.example.com"), "v.example.com"),
            ("", None, default),
        ];
        for (query, host, expected) in table {
            assert_eq!(whip_vhost(query, host), expected, "{query} {host:?}");
        }
    }

    #[test]
    fn a_stream_url_names_vhost_app_and_stream() {
        let table = [
            ("webrtc://h/live/a", "__defaultVhost__/live/a"),
            ("webrtc://[::1]:1985/live/a", "__defaultVhost__/live/a"),
            ("webrtc://v.example.com:1985/live/a", "v.example.com/live/a"),
            ("webrtc://u:p@v.example.com/live/a", "v.example.com/live/a"),
            ("rtmp://h/b/c/a?vhost=v.example.com&x=/y", "v.example.com/b/c/a"),
            ("webrtc://h/live/a#fragment", "__defaultVhost__/live/a"),
            ("webrtc:///live/a", "__defaultVhost__/live/a"),
            ("webrtc://h/a", "__defaultVhost__/live/a"),
        ];
        for (text, expected) in table {
            assert_eq!(url(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_names_no_stream_is_refused() {
        let key = |error| Err(StreamUrlError::Key(error));
        let table = [
            ("", Err(StreamUrlError::NoScheme)),
            ("/live/a", Err(StreamUrlError::NoScheme)),
            ("live/a?u=http://h/b/c", Err(StreamUrlError::NoScheme)),
            ("webrtc://h", key(StreamKeyError::Empty)),
            ("webrtc://h/?stream=a", key(StreamKeyError::Empty)),
            ("webrtc://h/live/%00", key(StreamKeyError::ControlCharacter)),
            ("webrtc://h/live/..", key(StreamKeyError::DotSegment)),
        ];
        for (text, expected) in table {
            assert_eq!(url(text), expected, "{text}");
        }
        assert_eq!(whip("", "stream=a%0Ab"), key(StreamKeyError::ControlCharacter));
        assert_eq!(whip("live/%ff", ""), key(StreamKeyError::NotUtf8));
    }

    #[test]
    fn names_are_bounded_and_tokens_are_not() {
        let name = "a".repeat(StreamKey::MAX);
        for result in [
            whip("", &format!("stream={name}")),
            whip(&name, ""),
            url(&format!("webrtc://h/live/{name}")),
        ] {
            let error = result.unwrap_err();
            let is_too_long =
                matches!(error, StreamUrlError::Key(StreamKeyError::TooLong { max: 1024, .. }));
            assert!(is_too_long, "{error}");
        }
        let token = format!("stream=a&token={}", "x".repeat(4000));
        assert_eq!(whip("", &token).as_deref(), Ok("live/a"));
        let url = url(&format!("webrtc://h/live/a?{token}"));
        assert_eq!(url.as_deref(), Ok("__defaultVhost__/live/a"));
    }

    #[test]
    fn denied_parameters_go_and_all_other_bytes_stay() {
        let table = [
            ("app=live&stream=a&encrypt=false", "app=live&stream=a"),
            ("encrypt=false&app=live", "app=live"),
            ("app=live&dtls=0&stream=a", "app=live&stream=a"),
            ("eip=1.2.3.4&candidate=1.2.3.4:8000&ice-ufrag=abcd&ice-pwd=x", ""),
            ("Encrypt=false&DTLS=false&a=%41+b&&c", "a=%41+b&&c"),
            ("%65ncrypt=false&ice%2Dufrag=abcd&x=1", "x=1"),
            ("x=1&+eip=1.2.3.4&%20eip%00=1", "x=1"),
            ("x=1;encrypt=false", "x=1"),
            ("x=1?encrypt=false&y=2", "x=1&y=2"),
            ("?encrypt=false", ""),
            ("encrypt", ""),
            ("encrypt&encrypt", ""),
        ];
        for (query, expected) in table {
            assert_eq!(without_denied(query), expected, "{query}");
        }
    }

    #[test]
    fn a_query_without_denied_parameters_is_not_copied() {
        for query in ["", "app=live&stream=a", "&x;?", "xencrypt=1&encrypted=2&x=encrypt", "%65"] {
            assert!(
                matches!(without_denied(query), Cow::Borrowed(same) if same == query),
                "{query}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_denied_parameter_survives(query in "(&|;|\\?|=|%65|e|encrypt|DTLS|eip|x|%|ü){0,20}") {
            let rest = without_denied(&query).into_owned();
            prop_assert_eq!(without_denied(&rest), rest.as_str());
            let mut names = rest.split(['&', ';', '?']).map(|piece| piece.split('=').next());
            let is_denied = |name: &str| {
                DENIED.contains(&name.replace("%65", "e").to_ascii_lowercase().as_str())
            };
            prop_assert!(!names.any(|name| name.is_some_and(is_denied)), "{rest}");
        }

        #[test]
        fn a_key_never_holds_a_query(path in "\\PC{0,30}", query in "(\\PC|&|stream=|app=){0,30}") {
            if let Ok(key) = from_whip(&path, &query, None, &vhosts()) {
                prop_assert!(!key.as_str().contains('?'));
                prop_assert_eq!(StreamKey::canonical(super::super::DEFAULT_VHOST, key.path()), Ok(key));
            }
        }
    }
}
