//! The balancer of a relay that stands alone.
//!
//! All sessions of a stream go to one origin while that origin lives or while any session of the
//! stream is with it, whatever protocol they speak. Members of a bonding group follow the first of
//! them, for the life of any of them, even where each names a stream of its own: a listener takes
//! members in one process only.
//!
//! An origin that answers no handshakes is no reason to lose a stream while another answers:
//! unless media flows in a session of it, the stream moves. Where none answers, all are tried, the
//! one whose last failure is the longest ago first.
//! One that is being emptied or is full gets no new streams, come what may, but still the sessions
//! of those that it has.
//!
//! Who cannot be served where the stream is published is refused: at another origin a player would
//! wait for media that never comes. While nobody publishes it, the stream goes where its publisher
//! can.

use std::cmp::Reverse;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::time::Instant;

use siphasher::sip::SipHasher13;

use super::Wish;
use crate::control::directory::Directory;
use crate::control::origin::{Kind, Origin};
use crate::control::stream::Stream;
use crate::shard::command::Role;

/// The origin that the stream has, else the one with the fewest sessions; of those that do not
/// answer only if there are no others.
pub(super) fn pick<'a>(
    directory: &'a Directory,
    now: Instant,
    wish: &Wish<'_>,
) -> Option<&'a Origin> {
    let is_eligible = |origin: &Origin| directory.is_eligible(origin, wish.kind, now);
    let is_open = |origin: &Origin| directory.is_open(origin, now);
    let is_alive = |origin: &Origin| directory.is_alive(origin, now);
    let kept = kept(directory, now, wish);
    kept.filter(|(_, hold)| *hold == Hold::Firm)
        .map(|(origin, _)| origin)
        .or_else(|| bonded(directory, wish).filter(|origin| is_alive(origin)))
        .or_else(|| least_loaded(directory, wish, is_eligible))
        .or_else(|| kept.map(|(origin, _)| origin))
        .or_else(|| least_recently_failed(directory, wish, is_open))
        .filter(|origin| origin.takes(wish.kind))
}

/// The highest random weight of (client, origin), of those that do not answer only if there are no
/// others.
pub(super) fn pick_direct<'a>(
    directory: &'a Directory,
    now: Instant,
    client: &str,
) -> Option<&'a Origin> {
    directory
        .origins()
        .filter(|origin| directory.is_open(origin, now) && origin.takes(Kind::Direct))
        .max_by_key(|origin| {
            (!origin.is_failing(Kind::Direct, now), weight(client, origin.direct_address()))
        })
}

/// Where the other members of the caller's bonding group are.
fn bonded<'a>(directory: &'a Directory, wish: &Wish<'_>) -> Option<&'a Origin> {
    directory.origin(directory.origin_of_group(wish.group?)?)
}

/// How a stream holds on to its origin.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hold {
    Firm,
    /// Unless another origin answers.
    Loose,
}

fn kept<'a>(directory: &'a Directory, now: Instant, wish: &Wish<'_>) -> Option<(&'a Origin, Hold)> {
    let stream = directory.stream(wish.stream)?;
    let origin = directory.origin(stream.origin())?;
    let is_open = directory.is_open(origin, now);
    if !origin.takes(wish.kind) && may_leave(stream, wish.role) {
        None
    } else if stream.is_established() {
        Some((origin, Hold::Firm))
    } else if stream.is_idle() && (!is_open || origin.is_failing(wish.kind, now)) {
        None
    } else if origin.is_failing(wish.kind, now) {
        // Callers that try again and again must not bind each other to it.
        Some((origin, Hold::Loose))
    } else {
        Some((origin, Hold::Firm))
    }
}

/// Whether nothing is lost when a newcomer whom the stream's origin cannot take goes elsewhere.
fn may_leave(stream: &Stream, newcomer: Role) -> bool {
    stream.is_idle() || stream.publishers() == 0 && newcomer == Role::Publish
}

fn least_loaded<'a>(
    directory: &'a Directory,
    wish: &Wish<'_>,
    is_eligible: impl Fn(&Origin) -> bool,
) -> Option<&'a Origin> {
    let candidates =
        directory.origins().filter(|origin| is_eligible(origin) && origin.takes(wish.kind));
    candidates.min_by_key(|origin| load(origin, wish))
}

/// The last resort. Whoever tries again and again meets them one after the other.
fn least_recently_failed<'a>(
    directory: &'a Directory,
    wish: &Wish<'_>,
    is_eligible: impl Fn(&Origin) -> bool,
) -> Option<&'a Origin> {
    let candidates =
        directory.origins().filter(|origin| is_eligible(origin) && origin.takes(wish.kind));
    candidates.min_by_key(|origin| (origin.failed_at(wish.kind), load(origin, wish)))
}

/// What origins are compared by. Equal loads are decided by the highest random weight of (stream,
/// origin): relays that see the same origins choose the same one, and an origin that joins or leaves
/// moves no stream but its own.
fn load(origin: &Origin, wish: &Wish<'_>) -> (u32, Reverse<u64>) {
    (origin.sessions(), Reverse(weight(wish.stream.as_str(), signalled_address(origin))))
}

/// The same for all protocols, so that a stream is at one origin even where two relays see one half
/// of it each.
fn signalled_address(origin: &Origin) -> Option<SocketAddr> {
    origin.srt_address().or_else(|| origin.rtc_address()).or_else(|| origin.api_address())
}

/// The hash has no key, so that all relays agree; a client who steers a tie gains nothing by it.
fn weight(name: &str, origin: Option<SocketAddr>) -> u64 {
    let mut hasher = SipHasher13::new();
    name.hash(&mut hasher);
    origin.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;
