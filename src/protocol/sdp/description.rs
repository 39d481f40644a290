//! A description as lines in sections, and which section's transport carries which.

use super::{LENGTH_MAX, MEDIA_MAX, SdpError};

/// The lines of a description, in order: the session's, then each m-section's.
pub(super) struct Description<'a> {
    pub(super) session: Section<'a>,
    pub(super) media: Vec<Section<'a>>,
}

impl<'a> Description<'a> {
    /// Splits a whole description.
    pub(super) fn parse(sdp: &'a str) -> Result<Self, SdpError> {
        begins_like_one(sdp)?;
        Self::parse_fragment(sdp)
    }

    /// Splits a fragment, which may begin with any line (RFC 8840, section 9).
    ///
    /// Every CR and every LF ends a line, and empty lines, which no description has, are left out:
    /// no parser behind the relay then sees a line that the relay has not seen.
    pub(super) fn parse_fragment(fragment: &'a str) -> Result<Self, SdpError> {
        within_bounds(fragment)?;
        let mut session = Section::default();
        let mut media: Vec<Section<'a>> = Vec::new();
        for line in fragment.split(['\r', '\n']).filter(|line| !line.is_empty()) {
            if matches!(field(line), Some((b'm', _))) {
                if media.len() == MEDIA_MAX {
                    return Err(SdpError::TooManyMedia { max: MEDIA_MAX });
                }
                media.push(Section::default());
            }
            media.last_mut().unwrap_or(&mut session).lines.push(line);
        }
        Ok(Self { session, media })
    }

    /// For each m-section the index of the one whose transport carries it: its own, or that of the
    /// first member of its bundle that is not rejected (RFC 9143, section 7.3.1).
    pub(super) fn carriers(&self) -> Vec<usize> {
        let mut carriers: Vec<usize> = (0..self.media.len()).collect();
        let mids = self.mids();
        for group in self.session.values("group") {
            let mut words = group.split_ascii_whitespace();
            if words.next() != Some("BUNDLE") {
                continue;
            }
            // More members than there can be sections are made to cost time.
            let members = words
                .take(MEDIA_MAX)
                .filter_map(|mid| mids.iter().position(|other| *other == Some(mid)));
            let mut carrier = None;
            for member in members {
                if carrier.is_none() && self.media.get(member).is_some_and(|m| m.port() != Some(0))
                {
                    carrier = Some(member);
                }
                if let (Some(carrier), Some(slot)) = (carrier, carriers.get_mut(member)) {
                    *slot = carrier;
                }
            }
        }
        carriers
    }

    /// The names of all m-sections, in order.
    pub(super) fn mids(&self) -> Vec<Option<&'a str>> {
        self.media.iter().map(Section::mid).collect()
    }

    /// The m-sections that have a transport of their own: neither rejected nor carried by another.
    pub(super) fn transports(&self) -> impl Iterator<Item = usize> {
        let carriers = self.carriers();
        self.media.iter().enumerate().filter_map(move |(index, section)| {
            let carries_itself = carriers.get(index) == Some(&index);
            (carries_itself && section.port() != Some(0)).then_some(index)
        })
    }
}

/// The lines of the session's part, or of one m-section from its `m=` on.
#[derive(Default)]
pub(super) struct Section<'a> {
    pub(super) lines: Vec<&'a str>,
}

impl<'a> Section<'a> {
    /// The values of every `a=name:value`.
    pub(super) fn values(&self, name: &str) -> impl Iterator<Item = &'a str> {
        self.lines.iter().filter_map(move |line| {
            attribute(line).filter(|(other, _)| other.eq_ignore_ascii_case(name))?.1
        })
    }

    /// The section's name in its bundle.
    fn mid(&self) -> Option<&'a str> {
        self.values("mid").next()
    }

    /// The port of `m=`; zero rejects the section, 9 stands for none.
    fn port(&self) -> Option<u16> {
        let (b'm', value) = self.lines.first().and_then(|line| field(line))? else { return None };
        MediaPort::of(value)?.port
    }
}

/// The value of an `m=` line around its port.
pub(super) struct MediaPort<'a> {
    pub(super) before: &'a str,
    pub(super) port: Option<u16>,
    pub(super) after: &'a str,
}

impl<'a> MediaPort<'a> {
    /// Takes `audio 9 UDP/TLS/RTP/SAVPF 111` apart.
    pub(super) fn of(value: &'a str) -> Option<Self> {
        let (media, rest) = value.split_once(' ')?;
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (port, after) = rest.split_at_checked(end)?;
        Some(Self { before: media, port: port.parse().ok(), after })
    }
}

/// The type of a line and what stands behind its `=`.
///
/// The standard allows no blank before the type or around `=`. Some parsers do.
pub(super) fn field(line: &str) -> Option<(u8, &str)> {
    let (kind, rest) = line.trim_start().as_bytes().split_first()?;
    let rest = str::from_utf8(rest).ok()?.trim_start().strip_prefix('=')?;
    Some((kind.to_ascii_lowercase(), rest.trim_start()))
}

/// The name of an attribute, and its value if it has one.
pub(super) fn attribute(line: &str) -> Option<(&str, Option<&str>)> {
    let (b'a', text) = field(line)? else { return None };
    Some(match text.split_once(':') {
        Some((name, value)) => (name.trim_end(), Some(value.trim())),
        None => (text.trim_end(), None),
    })
}

/// Refuses what does not begin with the one line that every description begins with.
pub(super) fn begins_like_one(sdp: &str) -> Result<(), SdpError> {
    if sdp.starts_with("v=") { Ok(()) } else { Err(SdpError::NoVersion) }
}

/// Refuses what is too long, and characters that parsers disagree about: Python's, for example,
/// end a line at every one of these.
pub(super) fn within_bounds(fragment: &str) -> Result<(), SdpError> {
    if fragment.len() > LENGTH_MAX {
        return Err(SdpError::TooLong { length: fragment.len(), max: LENGTH_MAX });
    }
    let ends_lines = |c| matches!(c, '\u{2028}' | '\u{2029}');
    let is_allowed = |c: char| match c {
        '\t' | '\r' | '\n' => true,
        c => !c.is_control() && !ends_lines(c),
    };
    if fragment.chars().all(is_allowed) { Ok(()) } else { Err(SdpError::ControlCharacter) }
}
