//! Stream IDs in every syntax that encoders really send, read into one form.
//!
//! | syntax | from | mode |
//! | --- | --- | --- |
//! | `#!::r=app/stream,m=publish,h=host`, `#!:{r=...}` | SRT access control | `m=`, else request |
//! | `#!::h=app/stream`, `#!::h=vhost/app/stream` | SRS, before it knew `r` | `m=`, else request |
//! | `publish:path:user:password:query`, `read:path` | MediaMTX | the first word |
//! | `vhost/app/stream`, `srt://host/app/stream?query` | OvenMediaEngine | request |
//! | `name,mode:publish,token:secret` | datarhei | `mode:`, else request |
//! | `app/stream?query`, `/app/stream`, `stream` | SRS, and whoever types a name | request |
//!
//! Users, passwords, sessions, tokens and every parameter that is not known here stay behind: what
//! has been parsed may be logged. A name in free form means "request", as SRS reads it; an origin
//! that takes such a caller for a publisher still serves it, for the mode changes nothing about
//! where a packet goes.

use crate::protocol::stream_url::{DEFAULT_VHOST, StreamKey, StreamKeyError, Vhosts};

/// A stream ID, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamId {
    /// What the caller wants.
    pub mode: Mode,
    /// The host that the ID names, with its port if it has one.
    pub host: Option<String>,
    /// `app/stream` or `stream` as the caller wrote it, without query: not canonical yet.
    pub path: String,
    /// The `vhost` parameter, which counts before the host.
    pub vhost: Option<String>,
    /// The path came in free form with three segments, so its first may be the vhost:
    /// OvenMediaEngine writes `vhost/app/stream` where SRS knows names of several levels.
    /// [`StreamId::key`] decides.
    pub may_start_with_vhost: bool,
}

/// What the caller wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// To send the stream.
    Publish,
    /// To receive the stream.
    Request,
}

impl StreamId {
    /// Bytes of the longest stream ID (draft-sharabayko-srt, section 3.2.1.3).
    pub const MAX: usize = 512;

    /// Reads `text` in whichever syntax it is.
    ///
    /// # Errors
    /// See [`StreamIdError`].
    pub fn parse(text: &str) -> Result<Self, StreamIdError> {
        if text.len() > Self::MAX {
            return Err(StreamIdError::TooLong { length: text.len(), max: Self::MAX });
        }
        if text.contains(char::is_control) {
            return Err(StreamIdError::Malformed);
        }
        let id = match text.strip_prefix("#!") {
            Some(rest) => list(list_content(rest)?)?,
            None => free_form(text)?,
        };
        if segments(&id.path).next().is_none() {
            return Err(StreamIdError::NoResource);
        }
        Ok(id)
    }

    /// The canonical key of the stream that the ID names.
    ///
    /// The vhost is the `vhost` parameter, else the host, as far as [`Vhosts`] knows them. The
    /// first of three segments in free form is the vhost if it is `default` (OvenMediaEngine's name
    /// for its default vhost), `__defaultVhost__` (SRS's) or one that [`Vhosts`] knows. In all
    /// other paths the last segment is the stream and the rest the app, so publisher and player of
    /// `a/b/c` meet whatever protocol they use.
    ///
    /// # Errors
    /// See [`StreamKeyError`].
    pub fn key(&self, vhosts: &Vhosts) -> Result<StreamKey, StreamKeyError> {
        let named = self.vhost.as_deref().or(self.host.as_deref());
        if self.may_start_with_vhost
            && let Some((first, rest)) = self.path.trim_start_matches('/').split_once('/')
            && let Some(vhost) = leading_vhost(first, vhosts)
        {
            let vhost = named.map_or(vhost, |named| vhosts.resolve(Some(named)));
            return StreamKey::canonical(vhost, rest);
        }
        StreamKey::canonical(vhosts.resolve(named), &self.path)
    }
}

/// The vhost that the first segment of a path in free form names, if it does.
fn leading_vhost<'a>(segment: &str, vhosts: &'a Vhosts) -> Option<&'a str> {
    match segment {
        "default" | DEFAULT_VHOST => Some(DEFAULT_VHOST),
        name => vhosts.find(name),
    }
}

/// What stands behind `#!:` and `:`, or between `#!:{` and `}`. Braces in braces are refused: no
/// origin reads them.
fn list_content(rest: &str) -> Result<&str, StreamIdError> {
    let content = rest.strip_prefix(':').ok_or(StreamIdError::Malformed)?;
    if let Some(content) = content.strip_prefix(':') {
        return Ok(content);
    }
    let braced = content.strip_prefix('{').and_then(|content| content.strip_suffix('}'));
    braced.filter(|content| !content.contains(['{', '}'])).ok_or(StreamIdError::Malformed)
}

/// Reads `k=v,k=v`. Of two equal keys the last counts, as with SRS and MediaMTX.
///
/// SRS reads `?` like `,`, so that `r=app/stream?secret=x,m=publish` is a list too. Behind the
/// first `?` also `&` separates, and parameters without `=` are tolerated.
fn list(content: &str) -> Result<StreamId, StreamIdError> {
    let (items, query) = content.split_once('?').unwrap_or((content, ""));
    let (mut mode, mut host, mut resource, mut vhost) = (Mode::Request, None, None, None);
    let mut pairs = items.split(',').filter(|item| !item.is_empty());
    if pairs.any(|item| item.find('=').is_none_or(|at| at == 0)) {
        return Err(StreamIdError::Malformed);
    }
    let parameters = items.split(',').chain(query.split(['?', ',', '&']));
    for (key, value) in parameters.filter_map(|item| item.split_once('=')) {
        match key {
            "m" => mode = Mode::parse(value)?,
            "h" => host = Some(value),
            "r" => resource = Some(value),
            "vhost" => vhost = Some(value),
            _ => {}
        }
    }
    let (host, path_in_host) = host.map_or((None, None), split_host);
    Ok(StreamId {
        mode,
        host: host.and_then(host_name),
        path: resource.or(path_in_host).ok_or(StreamIdError::NoResource)?.to_owned(),
        vhost: vhost.and_then(host_name),
        may_start_with_vhost: false,
    })
}

/// Host and path in the value of `h`: it may be `host`, `app/stream` or `host/app/stream`.
fn split_host(value: &str) -> (Option<&str>, Option<&str>) {
    match value.split_once('/') {
        None => (Some(value), None),
        Some((host, path)) if path.contains('/') => (Some(host), Some(path)),
        Some(_) => (None, Some(value)),
    }
}

/// Reads what has no `#!` in front.
fn free_form(text: &str) -> Result<StreamId, StreamIdError> {
    if let Some((word @ ("publish" | "read"), rest)) = text.split_once(':') {
        let mode = if word == "publish" { Mode::Publish } else { Mode::Request };
        return media_mtx(mode, rest);
    }
    let (text, query) = text.split_once('?').unwrap_or((text, ""));
    let (path, parameters) = text.split_once(',').unwrap_or((text, ""));
    let mode = match parameters.split(',').find_map(|item| item.strip_prefix("mode:")) {
        Some(value) => Mode::parse(value)?,
        None => Mode::Request,
    };
    let vhost = query.split(['?', ',', '&']).find_map(|item| item.strip_prefix("vhost="));
    let (host, path) = match path.strip_prefix("srt://") {
        Some(url) => url.split_once('/').map_or((Some(url), ""), |(host, path)| (Some(host), path)),
        None => (None, path),
    };
    Ok(StreamId {
        mode,
        host: host.and_then(host_name),
        path: path.to_owned(),
        vhost: vhost.and_then(host_name),
        may_start_with_vhost: host.is_none() && segments(path).count() == 3,
    })
}

/// Reads `path[:user:password][:query]`.
fn media_mtx(mode: Mode, rest: &str) -> Result<StreamId, StreamIdError> {
    let mut fields = rest.splitn(5, ':');
    let path = fields.next().unwrap_or_default();
    if fields.nth(3).is_some() {
        return Err(StreamIdError::Malformed);
    }
    let path = path.split_once('?').map_or(path, |(path, _query)| path);
    let path = path.strip_suffix("#feedbackplay").unwrap_or(path);
    Ok(StreamId {
        mode,
        host: None,
        path: path.to_owned(),
        vhost: None,
        may_start_with_vhost: false,
    })
}

/// A host without the user and password that a URL may carry in front of it.
fn host_name(authority: &str) -> Option<String> {
    let host = authority.rsplit_once('@').map_or(authority, |(_user, host)| host);
    (!host.is_empty()).then(|| host.to_owned())
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|segment| !segment.is_empty())
}

impl Mode {
    /// Reads the value of `m`; case does not matter. `bidirectional` exists, but no origin offers
    /// it.
    fn parse(value: &str) -> Result<Self, StreamIdError> {
        if value.eq_ignore_ascii_case("publish") {
            Ok(Self::Publish)
        } else if value.eq_ignore_ascii_case("request") {
            Ok(Self::Request)
        } else {
            Err(StreamIdError::Mode)
        }
    }
}

/// Why a stream ID is refused. None of them repeats the text, which may hold secrets.
///
/// On the wire a wrong mode is [`super::Rejection::BadMode`] and everything else
/// [`super::Rejection::BadRequest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamIdError {
    /// Nothing in it names a stream.
    #[error("the stream ID names no resource")]
    NoResource,
    /// The mode is another one, for instance `bidirectional`.
    #[error("the mode is neither publish nor request")]
    Mode,
    /// It starts like a list and is none, has too many fields, or holds control characters.
    #[error("the stream ID is malformed")]
    Malformed,
    /// It is longer than SRT allows.
    #[error("the stream ID has {length} bytes, at most {max} are allowed")]
    TooLong {
        /// Bytes that it has.
        length: usize,
        /// Bytes that are allowed.
        max: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> StreamId {
        StreamId::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// Mode and key of a stream ID at a relay that knows the vhost `v.example.com`.
    fn read(text: &str) -> (Mode, String) {
        let id = parse(text);
        let vhosts = Vhosts::new(["v.example.com".to_owned()]);
        (id.mode, id.key(&vhosts).unwrap().to_string())
    }

    #[track_caller]
    fn assert_reads(table: &[(&str, Mode, &str)]) {
        for &(text, mode, key) in table {
            assert_eq!(read(text), (mode, key.to_owned()), "{text}");
        }
    }

    #[test]
    fn an_access_control_list_names_resource_mode_and_host() {
        assert_reads(&[
            ("#!::r=live/a,m=publish", Mode::Publish, "__defaultVhost__/live/a"),
            ("#!::m=request,r=live/a", Mode::Request, "__defaultVhost__/live/a"),
            ("#!::r=live/a", Mode::Request, "__defaultVhost__/live/a"),
            ("#!::r=live/a,m=PUBLISH", Mode::Publish, "__defaultVhost__/live/a"),
            ("#!::h=v.example.com,r=/live//x", Mode::Request, "v.example.com/live/x"),
            ("#!::h=V.Example.Com:10080,r=live/x", Mode::Request, "v.example.com/live/x"),
            ("#!::h=other.example.com,r=live/x", Mode::Request, "__defaultVhost__/live/x"),
            (
                "#!::h=live.example.com,r=live/livestream,m=publish",
                Mode::Publish,
                "__defaultVhost__/live/livestream",
            ),
            ("#!::r=test3", Mode::Request, "__defaultVhost__/live/test3"),
            (
                "#!::u=johnny,t=file,m=publish,r=results.csv,s=x",
                Mode::Publish,
                "__defaultVhost__/live/results.csv",
            ),
            (
                "#!::bmd_uuid=0e1df79f,bmd_name=x,r=test3,m=publish",
                Mode::Publish,
                "__defaultVhost__/live/test3",
            ),
        ]);
    }

    #[test]
    fn keys_are_matched_whole() {
        assert_reads(&[
            ("#!::user=bob,r=live/a", Mode::Request, "__defaultVhost__/live/a"),
            ("#!::auth=x,r=a/b", Mode::Request, "__defaultVhost__/a/b"),
            ("#!::vh=v.example.com,R=x,r=a/b", Mode::Request, "__defaultVhost__/a/b"),
            ("#!::r=live/a=b", Mode::Request, "__defaultVhost__/live/a=b"),
        ]);
    }

    #[test]
    fn a_question_mark_separates_like_a_comma() {
        assert_reads(&[
            ("#!::r=live/a?secret=1,m=request", Mode::Request, "__defaultVhost__/live/a"),
            (
                "#!::r=live/a?secret=1&vhost=v.example.com,m=publish",
                Mode::Publish,
                "v.example.com/live/a",
            ),
            (
                "#!::h=live/livestream?secret=xxx,m=publish",
                Mode::Publish,
                "__defaultVhost__/live/livestream",
            ),
            ("#!::r=live/a?direct,m=publish", Mode::Publish, "__defaultVhost__/live/a"),
        ]);
    }

    #[test]
    fn the_old_style_of_srs_has_the_path_in_the_host() {
        assert_reads(&[
            ("#!::h=live/livestream,m=publish", Mode::Publish, "__defaultVhost__/live/livestream"),
            (
                "#!::h=v.example.com/live/livestream,m=publish",
                Mode::Publish,
                "v.example.com/live/livestream",
            ),
            (
                "#!::h=srs.example.com/live/livestream",
                Mode::Request,
                "__defaultVhost__/live/livestream",
            ),
            ("#!::h=v.example.com/a/b/c", Mode::Request, "v.example.com/a/b/c"),
            ("#!::h=live/x,r=live/a", Mode::Request, "__defaultVhost__/live/a"),
        ]);
    }

    #[test]
    fn the_vhost_parameter_counts_before_the_host() {
        assert_reads(&[
            ("#!::r=live/a,vhost=v.example.com", Mode::Request, "v.example.com/live/a"),
            (
                "#!::h=other.example.com,vhost=v.example.com,r=live/a",
                Mode::Request,
                "v.example.com/live/a",
            ),
            (
                "#!::h=v.example.com,vhost=other.example.com,r=live/a",
                Mode::Request,
                "__defaultVhost__/live/a",
            ),
        ]);
    }

    #[test]
    fn of_two_equal_keys_the_last_counts() {
        assert_reads(&[(
            "#!::r=live/a,m=publish,r=live/b,m=request",
            Mode::Request,
            "__defaultVhost__/live/b",
        )]);
    }

    #[test]
    fn a_list_may_stand_in_braces_and_end_with_a_comma() {
        assert_reads(&[
            ("#!:{r=live/a,m=publish}", Mode::Publish, "__defaultVhost__/live/a"),
            ("#!::r=live/a,m=publish,", Mode::Publish, "__defaultVhost__/live/a"),
        ]);
    }

    #[test]
    fn media_mtx_puts_the_mode_in_front() {
        assert_reads(&[
            ("publish:mypath:user:pass", Mode::Publish, "__defaultVhost__/live/mypath"),
            ("publish:mypath:user:pass:query", Mode::Publish, "__defaultVhost__/live/mypath"),
            ("publish:a/b/mypath:query", Mode::Publish, "__defaultVhost__/a/b/mypath"),
            ("read:mypath", Mode::Request, "__defaultVhost__/live/mypath"),
            ("read:mypath?token=1#feedbackplay", Mode::Request, "__defaultVhost__/live/mypath"),
            ("read:mypath#feedbackplay", Mode::Request, "__defaultVhost__/live/mypath"),
        ]);
    }

    #[test]
    fn a_plain_name_is_a_request() {
        assert_reads(&[
            ("live/a", Mode::Request, "__defaultVhost__/live/a"),
            ("/live/a", Mode::Request, "__defaultVhost__/live/a"),
            ("//live///a/", Mode::Request, "__defaultVhost__/live/a"),
            ("a", Mode::Request, "__defaultVhost__/live/a"),
            ("live/a?secret=1&vhost=v.example.com", Mode::Request, "v.example.com/live/a"),
            ("camera:7", Mode::Request, "__defaultVhost__/live/camera:7"),
            ("reader:a", Mode::Request, "__defaultVhost__/live/reader:a"),
            ("größe/ß", Mode::Request, "__defaultVhost__/größe/ß"),
        ]);
    }

    #[test]
    fn parameters_behind_a_plain_name_tell_the_mode_and_nothing_else() {
        assert_reads(&[
            (
                "1bc02834.stream,mode:publish,token:abc123",
                Mode::Publish,
                "__defaultVhost__/live/1bc02834.stream",
            ),
            (
                "1bc02834.stream,token:abc123",
                Mode::Request,
                "__defaultVhost__/live/1bc02834.stream",
            ),
        ]);
        assert_eq!(StreamId::parse("a,mode:both"), Err(StreamIdError::Mode));
    }

    #[test]
    fn the_first_of_three_segments_is_a_vhost_only_where_it_is_known_as_one() {
        assert_reads(&[
            ("default/app/stream", Mode::Request, "__defaultVhost__/app/stream"),
            ("/default//app/stream", Mode::Request, "__defaultVhost__/app/stream"),
            ("__defaultVhost__/app/stream", Mode::Request, "__defaultVhost__/app/stream"),
            ("v.example.com/app/stream", Mode::Request, "v.example.com/app/stream"),
            ("default/app/stream?vhost=v.example.com", Mode::Request, "v.example.com/app/stream"),
            ("a/b/c", Mode::Request, "__defaultVhost__/a/b/c"),
            ("default/a/b/c", Mode::Request, "__defaultVhost__/default/a/b/c"),
            ("default/a", Mode::Request, "__defaultVhost__/default/a"),
            ("#!::r=default/a/b", Mode::Request, "__defaultVhost__/default/a/b"),
            ("publish:default/a/b", Mode::Publish, "__defaultVhost__/default/a/b"),
        ]);
    }

    #[test]
    fn a_whole_url_names_host_and_path() {
        assert_reads(&[
            (
                "srt://v.example.com:9999/app/stream?policy=x",
                Mode::Request,
                "v.example.com/app/stream",
            ),
            ("srt://user:pass@v.example.com/app/stream", Mode::Request, "v.example.com/app/stream"),
            (
                "srt://10.0.0.1/default/app/stream",
                Mode::Request,
                "__defaultVhost__/default/app/stream",
            ),
        ]);
    }

    #[test]
    fn the_same_stream_has_the_same_key_in_every_syntax() {
        let keys: std::collections::HashSet<_> = [
            "#!::r=live/a,m=publish",
            "#!::h=live/a",
            "#!:{r=/live/a/}",
            "live/a",
            "a",
            "publish:live/a:user:pass",
            "read:live/a",
            "default/live/a",
            "srt://127.0.0.1:10080/live/a",
            "live/%61",
        ]
        .map(|text| read(text).1)
        .into();
        assert_eq!(keys.len(), 1, "{keys:?}");
    }

    #[test]
    fn malformed_stream_ids_are_refused() {
        use StreamIdError::{Malformed, Mode, NoResource};
        let table = [
            ("", NoResource),
            ("/", NoResource),
            ("//?a/b", NoResource),
            ("?r=live/a", NoResource),
            (",mode:publish", NoResource),
            ("#!::", NoResource),
            ("#!::r=", NoResource),
            ("#!::r=/", NoResource),
            ("#!::h=v.example.com", NoResource),
            ("#!::h=/", NoResource),
            ("#!::m=publish", NoResource),
            ("#!:{}", NoResource),
            ("publish:", NoResource),
            ("read::user:pass", NoResource),
            ("srt://v.example.com", NoResource),
            ("#!::=,=", Malformed),
            ("#!::live/a", Malformed),
            ("#!::r=live/a,b", Malformed),
            ("#!:{…}", Malformed),
            ("#!:{r=live/a", Malformed),
            ("#!:{r=live/a,x={y=z}}", Malformed),
            ("#!:r=live/a", Malformed),
            ("#!r=live/a", Malformed),
            ("#!", Malformed),
            ("#!:", Malformed),
            ("publish:a:b:c:d:e", Malformed),
            ("live/\0a", Malformed),
            ("live/a\u{1b}[2J", Malformed),
            ("#!::r=live/a,m=bidirectional", Mode),
            ("#!::r=live/a,m=", Mode),
            ("#!::r=live/a,m=publish ", Mode),
        ];
        for (text, error) in table {
            assert_eq!(StreamId::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn the_longest_stream_id_has_512_bytes() {
        assert_eq!(parse(&"a".repeat(512)).path.len(), 512);
        assert_eq!(
            StreamId::parse(&"a".repeat(513)),
            Err(StreamIdError::TooLong { length: 513, max: 512 })
        );
        assert_eq!(
            StreamId::parse(&"ß".repeat(257)),
            Err(StreamIdError::TooLong { length: 514, max: 512 })
        );
    }

    #[test]
    fn what_is_kept_holds_no_secret() {
        for text in [
            "#!::r=live/a,u=hunter2,s=hunter2,token=hunter2",
            "#!::r=live/a?secret=hunter2&x=hunter2,m=publish",
            "#!::h=hunter2:hunter2@v.example.com,vhost=hunter2@v.example.com,r=live/a",
            "publish:live/a:hunter2:hunter2:hunter2",
            "read:live/a:hunter2",
            "live/a?secret=hunter2",
            "live/a,token:hunter2",
            "srt://hunter2:hunter2@v.example.com/live/a?policy=hunter2",
        ] {
            assert!(!format!("{:?}", parse(text)).contains("hunter2"), "{text}");
        }
        assert!(!format!("{:?}", StreamId::parse("#!::s=hunter2,m=hunter2")).contains("hunter2"));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "\\PC{0,200}") {
            if let Ok(id) = StreamId::parse(&text) {
                let _ = id.key(&Vhosts::default());
            }
        }

        #[test]
        fn a_list_reads_the_same_in_any_order(
            items in Just(["r=live/a", "m=publish", "h=v.example.com", "u=x"]).prop_shuffle()
        ) {
            let text = format!("#!::{}", items.join(","));
            prop_assert_eq!(read(&text), (Mode::Publish, "v.example.com/live/a".to_owned()));
        }

        #[test]
        fn a_plain_name_of_several_levels_is_kept_whole(path in "[a-c]{1,3}(/[a-z]{1,5}){1,6}") {
            prop_assert_eq!(read(&path).1, format!("{DEFAULT_VHOST}/{path}"));
        }
    }
}
