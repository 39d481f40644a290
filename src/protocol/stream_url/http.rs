//! Stream names as WebRTC clients write them: in the query or the path of WHIP and WHEP, and in the
//! `streamurl` of the JSON API that was there before.
//!
//! Queries are read as SRS reads them: of two equal parameters the last counts, escapes in a value
//! are left to [`StreamKey::canonical`], and `+` is a plus sign.

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
/// Only the name is bounded, by the key's length: a query may carry a token of any size that HTTP
/// lets through.
///
/// # Errors
/// See [`StreamKeyError`].
pub fn from_whip(
    path_rest: &str,
    query: &str,
    host: Option<&str>,
    vhosts: &Vhosts,
) -> Result<StreamKey, StreamKeyError> {
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
    StreamKey::canonical(vhosts.resolve(named), &path)
}

/// The key of the stream that `webrtc://host[:port]/app/stream?query` names, whatever the scheme.
///
/// The vhost is the parameter `vhost`, else `domain`, else the URL's host, as far as `vhosts` lists
/// it.
///
/// # Errors
/// See [`StreamUrlError`].
pub fn from_stream_url(url: &str, vhosts: &Vhosts) -> Result<StreamKey, StreamUrlError> {
    if url.len() > STREAM_URL_MAX {
        return Err(StreamUrlError::TooLong { length: url.len(), max: STREAM_URL_MAX });
    }
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
    /// More bytes than [`STREAM_URL_MAX`].
    #[error("the stream URL has {length} bytes, at most {max} are allowed")]
    TooLong {
        /// Bytes that it has.
        length: usize,
        /// Bytes that are allowed.
        max: usize,
    },
    /// It is no URL.
    #[error("the stream URL has no scheme: write webrtc://host/app/stream")]
    NoScheme,
    /// Its path cannot be a key.
    #[error(transparent)]
    Key(#[from] StreamKeyError),
}

/// Bytes of the longest stream URL.
pub const STREAM_URL_MAX: usize = 1024;
/// The stream of a WHIP or WHEP request that names none, as in SRS.
const DEFAULT_STREAM_OF_WHIP: &str = "livestream";
/// Extensions of HTTP streaming, which players copy into other URLs.
const EXTENSIONS: [&str; 5] = [".flv", ".m3u8", ".ts", ".mp3", ".aac"];
/// Parameters that change the answer or how media is protected.
const DENIED: [&str; 6] = ["encrypt", "dtls", "eip", "candidate", "ice-ufrag", "ice-pwd"];
/// What some parser takes for the end of a parameter.
const SEPARATORS: [char; 3] = ['&', ';', '?'];
