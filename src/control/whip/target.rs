//! Paths at origins: where an offer goes, and where its session is.

use std::net::SocketAddr;

use axum::http::uri::PathAndQuery;
use axum::http::{HeaderValue, Uri};

use super::Endpoint;
use crate::protocol::stream_url::{StreamKey, is_named_by_path, without_denied};
use crate::shard::command::Role;

/// Path and query that an offer is posted to.
///
/// SRS is asked as the client asked, path and query byte for byte, without the parameters that are
/// not the client's to choose; where only the path names the stream, parameters say it once more,
/// for SRS reads nothing else, and of two equal ones it reads the last. An origin with a path of its own gets that one, with the stream's name
/// filled in.
pub(super) fn of_offer(
    uri: &Uri,
    role: Role,
    stream: &StreamKey,
    template: Option<&str>,
) -> String {
    let mut target = match template {
        Some(template) => filled_in(template, role, stream),
        // SRS redirects from the bare path.
        None if Endpoint::is_bare(uri.path()) => format!("{}/", uri.path()),
        None => uri.path().to_owned(),
    };
    let query = without_denied(uri.query().unwrap_or(""));
    let named = template.is_none().then(|| named_by_path(uri, &query, stream)).flatten();
    for parameters in [&*query].into_iter().chain(named.as_deref()) {
        if !parameters.is_empty() {
            target.push(if target.contains('?') { '&' } else { '?' });
            target.push_str(parameters);
        }
    }
    target
}

/// The stream's name as parameters, if only the path has it.
fn named_by_path(uri: &Uri, query: &str, stream: &StreamKey) -> Option<String> {
    let (_, rest) = Endpoint::of(uri.path())?;
    if !is_named_by_path(rest, query) {
        return None;
    }
    let (app, name) = stream.path().rsplit_once('/')?;
    let mut parameters = "app=".to_owned();
    push_escaped(&mut parameters, app);
    parameters.push_str("&stream=");
    push_escaped(&mut parameters, name);
    Some(parameters)
}

/// `{path}`, `{app}`, `{stream}` and `{kind}` of a template. A template for WHIP serves WHEP, too.
fn filled_in(template: &str, role: Role, stream: &StreamKey) -> String {
    let kind = match role {
        Role::Publish => "whip",
        Role::Play => "whep",
    };
    let template = match template.strip_suffix("/whip") {
        Some(front) => format!("{front}/{kind}"),
        None => template.to_owned(),
    };
    let (app, name) = stream.path().rsplit_once('/').unwrap_or(("", stream.path()));
    let values = [("{path}", stream.path()), ("{app}", app), ("{stream}", name), ("{kind}", kind)];
    let mut filled = String::new();
    let mut rest = template.as_str();
    // What has been filled in is never looked at again: names may hold braces.
    while let Some(at) = rest.find('{') {
        let (before, tail) = rest.split_at(at);
        filled.push_str(before);
        match values.iter().find(|(name, _)| tail.starts_with(name)) {
            Some((name, value)) => {
                push_escaped(&mut filled, value);
                rest = tail.get(name.len()..).unwrap_or("");
            }
            None => {
                filled.push('{');
                rest = tail.get(1..).unwrap_or("");
            }
        }
    }
    filled.push_str(rest);
    filled
}

/// Escapes what may not stand in a path or in the value of a parameter (RFC 3986, sections 3.3 and
/// 3.4). A `%` of a key escapes already.
fn push_escaped(path: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => path.push(char::from(byte)),
            _ if b"/-._~!$'()*,;:@%".contains(&byte) => path.push(char::from(byte)),
            _ => path.push_str(&format!("%{byte:02X}")),
        }
    }
}

/// Path and query of the session that `location` names, which an origin at `api` wrote into its
/// answer to a request for `requested` with this Host header. `None` where it leads anywhere else.
pub(super) fn of_session(
    location: &HeaderValue,
    requested: &str,
    api: SocketAddr,
    host: Option<&HeaderValue>,
) -> Option<String> {
    let location = location.to_str().ok()?;
    let location = location.split_once('#').map_or(location, |(location, _fragment)| location);
    let is_same = |authority: &str| {
        let is_host = host.is_some_and(|host| authority.as_bytes() == host.as_bytes());
        let has_default_port = api.port() == 80 && authority.parse().ok() == Some(api.ip());
        is_host || has_default_port || authority.parse().ok() == Some(api)
    };
    let target = match authority_and_rest(location)? {
        (Some(authority), rest) => is_same(authority).then(|| match rest {
            "" => "/".to_owned(),
            query if query.starts_with('?') => format!("/{query}"),
            path => path.to_owned(),
        })?,
        (None, "") => return None,
        (None, path) if path.starts_with('/') => path.to_owned(),
        (None, relative) => {
            let base = requested.split_once('?').map_or(requested, |(path, _query)| path);
            if relative.starts_with('?') {
                format!("{base}{relative}")
            } else {
                let directory = base.rsplit_once('/').map_or("", |(directory, _)| directory);
                format!("{directory}/{relative}")
            }
        }
    };
    let target = without_dot_segments(&target);
    let is_one = target.len() <= TARGET_MAX && PathAndQuery::try_from(target.as_str()).is_ok();
    is_one.then_some(target)
}

/// The two parts of a reference (RFC 3986, section 4.1), if its scheme is http or the same as that
/// of the request, which is http.
fn authority_and_rest(location: &str) -> Option<(Option<&str>, &str)> {
    let end = location.find(['/', '?']).unwrap_or(location.len());
    let (front, _) = location.split_at_checked(end)?;
    let hierarchy = match front.split_once(':') {
        Some((scheme, _)) if scheme.eq_ignore_ascii_case("http") => {
            location.get(scheme.len() + 1..)?
        }
        Some(_) => return None,
        None => location,
    };
    match hierarchy.strip_prefix("//") {
        Some(rest) => {
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            let (authority, rest) = rest.split_at_checked(end)?;
            Some((Some(authority), rest))
        }
        // `http:path` has no authority and is not what anybody means.
        None if hierarchy.len() != location.len() => None,
        None => Some((None, hierarchy)),
    }
}

/// RFC 3986, section 5.2.4.
fn without_dot_segments(target: &str) -> String {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let mut kept: Vec<&str> = Vec::new();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    for (index, segment) in segments.iter().enumerate() {
        let is_last = index + 1 == segments.len();
        match *segment {
            "." if is_last => kept.push(""),
            "." => {}
            ".." => {
                kept.pop();
                if is_last {
                    kept.push("");
                }
            }
            segment => kept.push(segment),
        }
    }
    let path = format!("/{}", kept.join("/"));
    match query {
        Some(query) => format!("{path}?{query}"),
        None => path,
    }
}

/// Whether some server may take `path` for another one (RFC 3986, sections 5.2.4 and 6.2.2): behind
/// the relay's own routes that would be whatever the origin's API can do.
pub(super) fn has_dot_segment(path: &str) -> bool {
    let is_dots = |segment: &str| {
        let plain = segment.replace("%2e", ".").replace("%2E", ".");
        plain == "." || plain == ".."
    };
    path.split('/').any(is_dots)
}

/// Whether the session at the origin is one of SRS, which takes PATCH for a new offer.
pub(super) fn is_of_srs(session: &str) -> bool {
    session.starts_with(Endpoint::Whip.path()) && session.contains("action=delete")
}

/// Bytes of the longest session URL that is kept.
const TARGET_MAX: usize = 2_048;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::stream_url::{Vhosts, from_whip};

    fn offer(uri: &str, template: Option<&str>) -> String {
        let uri: Uri = uri.parse().unwrap();
        let (endpoint, rest) = Endpoint::of(uri.path()).unwrap();
        let query = uri.query().unwrap_or("");
        let stream = from_whip(rest, query, None, &Vhosts::default()).unwrap();
        of_offer(&uri, endpoint.role(query), &stream, template)
    }

    #[test]
    fn srs_is_asked_with_the_clients_own_path_and_query() {
        let same = [
            "/rtc/v1/whip/?app=live&stream=a&secret=x%2Fy",
            "/rtc/v1/whep/?stream=a%20b",
            "/rtc/v1/whip-play/?app=live&stream=a",
        ];
        for uri in same {
            assert_eq!(offer(uri, None), uri);
        }
        assert_eq!(offer("/rtc/v1/whip?stream=a", None), "/rtc/v1/whip/?stream=a");
    }

    #[test]
    fn srs_is_told_by_parameters_what_only_the_path_says() {
        let table = [
            ("/rtc/v1/whip/live/a", "/rtc/v1/whip/live/a?app=live&stream=a"),
            ("/rtc/v1/whep/x/y/z?token=1", "/rtc/v1/whep/x/y/z?token=1&app=x/y&stream=z"),
            ("/rtc/v1/whip/a?app=b", "/rtc/v1/whip/a?app=b&app=b&stream=a"),
            ("/rtc/v1/whip/live/a?stream=", "/rtc/v1/whip/live/a?stream=&app=live&stream=a"),
            ("/rtc/v1/whip/live/a?k=v?l=w", "/rtc/v1/whip/live/a?k=v?l=w&app=live&stream=a"),
            ("/rtc/v1/whip-play/live/a%26b", "/rtc/v1/whip-play/live/a%26b?app=live&stream=a%26b"),
            ("/rtc/v1/whip/live/a?stream=b", "/rtc/v1/whip/live/a?stream=b"),
        ];
        for (uri, expected) in table {
            assert_eq!(offer(uri, None), expected);
        }
    }

    #[test]
    fn parameters_that_are_not_the_clients_to_choose_stay_here() {
        let uri = "/rtc/v1/whip/?eip=1.2.3.4&app=live&encrypt=false&stream=a&dtls=false\
                   &candidate=x&ice-ufrag=abcd&ice-pwd=x";
        assert_eq!(offer(uri, None), "/rtc/v1/whip/?app=live&stream=a");
        assert_eq!(offer("/rtc/v1/whip/?eip=1.2.3.4", None), "/rtc/v1/whip/");
    }

    #[test]
    fn a_template_is_filled_in_with_the_streams_name() {
        let table = [
            ("/rtc/v1/whip/?app=live&stream=a", "/{path}/whip", "/live/a/whip?app=live&stream=a"),
            ("/rtc/v1/whep/live/a", "/{path}/whip", "/live/a/whep"),
            ("/rtc/v1/whip-play/live/a", "/{path}/whip", "/live/a/whep"),
            ("/rtc/v1/whip/live/a?action=play", "/{path}/whip", "/live/a/whep?action=play"),
            ("/rtc/v1/whip/live/a%20b%2Fc", "/{path}/whip", "/live/a%20b%2Fc/whip"),
            ("/rtc/v1/whip/x/y/z", "/{app}/{stream}?direction={kind}", "/x/y/z?direction=whip"),
            ("/rtc/v1/whip/x/y?k=v", "/{stream}?direction={kind}", "/y?direction=whip&k=v"),
            ("/rtc/v1/whep/live/%7Bkind%7D", "/{path}/{x}{kind}", "/live/%7Bkind%7D/{x}whep"),
            ("/rtc/v1/whep/live/gr%C3%B6n", "/{path}", "/live/gr%C3%B6n"),
        ];
        for (uri, template, expected) in table {
            assert_eq!(offer(uri, Some(template)), expected, "{uri} {template}");
        }
    }

    fn session(location: &str) -> Option<String> {
        let location = HeaderValue::from_str(location).unwrap();
        let api = "10.0.0.1:1985".parse().unwrap();
        let host = HeaderValue::from_static("relay.example:11985");
        of_session(&location, "/live/a/whip?x=y", api, Some(&host))
    }

    #[test]
    fn a_session_is_found_relative_to_what_was_asked() {
        let table = [
            ("/live/a/whip/1?k=v", "/live/a/whip/1?k=v"),
            ("whip/1", "/live/a/whip/1"),
            ("?session=1", "/live/a/whip?session=1"),
            ("../b/./1", "/live/b/1"),
            ("/a/../../b/..", "/"),
            ("1:2/3", ""),
            ("./1:2", "/live/a/1:2"),
            ("/whip/1#fragment", "/whip/1"),
            ("http://10.0.0.1:1985/whip/1", "/whip/1"),
            ("HTTP://relay.example:11985/whip/1", "/whip/1"),
            ("//10.0.0.1:1985?x", "/?x"),
            ("http://10.0.0.1:1985", "/"),
        ];
        for (location, expected) in table {
            let expected = Some(expected).filter(|expected| !expected.is_empty());
            assert_eq!(session(location).as_deref(), expected, "{location}");
        }
    }

    #[test]
    fn a_session_elsewhere_is_none() {
        let elsewhere = [
            "http://10.0.0.2:1985/whip/1",
            "http://10.0.0.1/whip/1",
            "https://10.0.0.1:1985/whip/1",
            "//evil.example/whip/1",
            "http://user@10.0.0.1:1985/whip/1",
            "ftp://10.0.0.1:1985/",
            "http:whip/1",
            "",
            "#x",
        ];
        for location in elsewhere {
            assert_eq!(session(location), None, "{location}");
        }
        assert_eq!(session(&format!("/{}", "a".repeat(TARGET_MAX))), None);
    }

    proptest! {
        #[test]
        fn whatever_an_origin_names_is_a_path_of_its_own(
            location in "(http:|HTTP:|//|/|\\.\\.|\\.|\\?|#|10\\.0\\.0\\.1:1985|[ -~]){0,12}"
        ) {
            if let Some(target) = session(&location) {
                let path = target.split_once('?').map_or(target.as_str(), |(path, _)| path);
                prop_assert!(target.starts_with('/'));
                prop_assert!(!path.split('/').any(|segment| segment == ".." || segment == "."));
            }
        }
    }

    #[test]
    fn a_session_of_srs_is_known_by_its_url() {
        assert!(is_of_srs("/rtc/v1/whip/?action=delete&token=x&app=live&stream=a&session=a:b"));
        assert!(!is_of_srs("/live/a/whip/1"));
    }
}
