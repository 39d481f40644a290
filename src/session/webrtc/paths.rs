//! The addresses that a WebRTC client has proven to be its own, and the one of them that its media goes to.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::session::table::AddressKey;
use crate::session::{ListenerIndex, Peer};

/// The proven addresses of one client, at most [`Paths::MAX`].
///
/// One of them is selected: it gets everything that answers nobody in particular. A session has no address at all when
/// the only one it had has been claimed by a request for another session. After a move
/// from another shard those of before are kept to be shown, and expire.
#[derive(Debug, Default)]
pub struct Paths {
    selected: Option<Path>,
    others: Vec<Path>,
}

/// A proven address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// The client's address, and ours that it hit.
    pub client: Peer,
    /// Which of our listeners the client uses.
    pub listener: ListenerIndex,
    /// The last datagram that came in where `client` and `listener` say.
    pub heard: Instant,
    /// Whether it has been proven on this shard. What was proven before a move says nothing: its datagrams go to another
    /// shard, or another session has proven the same address since.
    pub is_here: bool,
    /// The last request; or, where that is later, the time at which another path was preferred to this one.
    pub proven: Instant,
}

/// Where on our side a client's datagram comes in. A client that was told several of our addresses sends to all of them
/// out of one socket, and takes an answer from no other than the one that it has asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entrance {
    /// Which of our listeners.
    pub listener: ListenerIndex,
    /// Our address, where the listener has several.
    pub local: Option<IpAddr>,
}

impl Path {
    /// The client's address, as it is looked up.
    #[inline]
    pub fn address(&self) -> AddressKey {
        AddressKey::of(self.client.address)
    }

    /// Where on our side the client's datagrams come in, and its own leave.
    pub fn entrance(&self) -> Entrance {
        Entrance { listener: self.listener, local: self.client.local }
    }

    fn turn_to(&mut self, entrance: Entrance) {
        self.listener = entrance.listener;
        self.client.local = entrance.local;
    }
}

impl Paths {
    /// Addresses at most. Above it new ones are turned away, for who could push old ones out could push out the good one.
    pub const MAX: usize = 8;

    /// The one that media goes to.
    #[inline]
    pub fn selected(&self) -> Option<&Path> {
        self.selected.as_ref()
    }

    /// All, the selected one first.
    pub fn iter(&self) -> impl Iterator<Item = &Path> {
        self.selected.iter().chain(&self.others)
    }

    /// The path with this address.
    pub fn find(&self, address: AddressKey) -> Option<&Path> {
        self.iter().find(|path| path.address() == address)
    }

    /// Whether a path with this address can be proven.
    pub fn has_room_for(&self, address: AddressKey) -> bool {
        self.iter().count() < Self::MAX || self.find(address).is_some()
    }

    /// Takes a proven path in, or its newer proof, and selects it if none is. Returns whether it is new; one that finds no
    /// room is forgotten. A newer proof through another entrance says nothing about where the client wants its media.
    pub fn prove(&mut self, path: Path) -> bool {
        let mut known = self.selected.iter_mut().chain(&mut self.others);
        let is_new = match known.find(|known| known.address() == path.address()) {
            Some(known) if known.is_here && known.entrance() != path.entrance() => {
                known.proven = path.proven;
                false
            }
            Some(known) => {
                *known = path;
                false
            }
            None => {
                if self.iter().count() < Self::MAX {
                    self.add(path);
                }
                true
            }
        };
        if self.selected.is_none() {
            self.select(path.address(), path.proven);
        }
        is_new
    }

    fn add(&mut self, path: Path) {
        if self.selected.is_none() {
            self.selected = Some(path);
        } else {
            // Few clients have a third one.
            self.others.reserve_exact(1);
            self.others.push(path);
        }
    }

    /// The client has chosen the path with this address, and this entrance. Returns whether another path is selected now.
    pub fn nominate(&mut self, address: AddressKey, entrance: Entrance, now: Instant) -> bool {
        let has_moved = self.select(address, now);
        if let Some(selected) = self.selected.as_mut().filter(|path| path.address() == address) {
            selected.turn_to(entrance);
            selected.heard = now;
        }
        has_moved
    }

    /// Prefers the path with this address. Returns whether that changes anything.
    pub fn select(&mut self, address: AddressKey, now: Instant) -> bool {
        let Some(position) = self.others.iter().position(|path| path.address() == address) else {
            return false;
        };
        let preferred = self.others.swap_remove(position);
        if let Some(replaced) = self.selected.replace(preferred) {
            self.others.push(Path { proven: now, ..replaced });
        }
        true
    }

    /// A datagram has come from `address` that says nothing about where the client wants its own.
    pub fn hear(&mut self, address: AddressKey, entrance: Entrance, now: Instant) {
        let mut paths = self.selected.iter_mut().chain(&mut self.others);
        if let Some(path) = paths.find(|path| path.address() == address)
            && path.entrance() == entrance
        {
            path.heard = now;
        }
    }

    /// Media has come from `address`: from there on it goes there, too, and out where it came in, if the selected path
    /// has been silent. Returns whether another path is selected now.
    #[inline]
    pub fn hear_media(&mut self, address: AddressKey, entrance: Entrance, now: Instant) -> bool {
        match &mut self.selected {
            Some(selected) if selected.address() == address && selected.entrance() == entrance => {
                selected.heard = now;
                false
            }
            Some(_) | None => self.hear_media_elsewhere(address, entrance, now),
        }
    }

    #[cold]
    fn hear_media_elsewhere(
        &mut self,
        address: AddressKey,
        entrance: Entrance,
        now: Instant,
    ) -> bool {
        if self.is_silent(now) {
            return self.nominate(address, entrance, now);
        }
        self.hear(address, entrance, now);
        false
    }

    /// Whether the selected path has been silent for so long that the client may have left it.
    pub fn is_silent(&self, now: Instant) -> bool {
        self.selected.is_none_or(|path| now.saturating_duration_since(path.heard) >= SILENCE)
    }

    /// Forgets the path with this address. If it was the selected one, the path heard last takes its place, if there is
    /// one that was proven here.
    pub fn remove(&mut self, address: AddressKey) {
        self.others.retain(|path| path.address() != address);
        if self.selected.is_some_and(|selected| selected.address() == address) {
            let here = self.others.iter().enumerate().filter(|(_, path)| path.is_here);
            let last_heard = here.max_by_key(|(_, path)| path.heard).map(|(position, _)| position);
            self.selected = last_heard.map(|position| self.others.swap_remove(position));
        }
    }

    /// The session has come to another shard: none of its addresses counts there before it is proven again.
    pub fn arrive(&mut self) {
        self.others.extend(self.selected.take());
        for path in &mut self.others {
            path.is_here = false;
        }
    }

    /// Makes room for one more path at the cost of one that was proven on another shard, the one heard least lately: it
    /// is of no use here. Returns whether there is one.
    pub fn make_room(&mut self) -> bool {
        let elsewhere = self.others.iter().enumerate().filter(|(_, path)| !path.is_here);
        let oldest = elsewhere.min_by_key(|(_, path)| path.heard).map(|(position, _)| position);
        oldest.map(|position| self.others.swap_remove(position)).is_some()
    }

    /// Takes out one unselected path that nobody has asked through for [`UNSELECTED_LIFE`].
    pub fn take_expired(&mut self, now: Instant) -> Option<Path> {
        let expired = self.others.iter().position(|path| now >= path.proven + UNSELECTED_LIFE)?;
        Some(self.others.swap_remove(expired))
    }

    /// When [`Self::take_expired`] will have something.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.others.iter().map(|path| path.proven + UNSELECTED_LIFE).min()
    }
}

/// How long an unselected path outlives its last request.
pub const UNSELECTED_LIFE: Duration = Duration::from_secs(30);

/// Silence after which a path counts as left: longer than the gaps of live media and the 480 ms between the checks of
/// a browser that looks for a better path.
pub const SILENCE: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    fn path(port: u16, now: Instant) -> Path {
        let address = SocketAddr::from(([203, 0, 113, 9], port));
        Path {
            client: Peer { address, local: None },
            listener: ListenerIndex(0),
            heard: now,
            is_here: true,
            proven: now,
        }
    }

    const ENTRANCE: Entrance = Entrance { listener: ListenerIndex(0), local: None };

    fn ports(paths: &Paths) -> Vec<u16> {
        paths.iter().map(|path| path.client.address.port()).collect()
    }

    #[test]
    fn the_first_path_is_selected_and_a_ninth_is_turned_away() {
        let t0 = Instant::now();
        let mut paths = Paths::default();
        for port in 1..=8 {
            assert!(paths.has_room_for(path(port, t0).address()));
            paths.prove(path(port, t0));
        }
        assert!(!paths.has_room_for(path(9, t0).address()), "full");
        assert!(paths.has_room_for(path(8, t0).address()), "a known one needs no room");
        paths.prove(path(9, t0));
        assert_eq!(ports(&paths), [1, 2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn media_moves_to_where_it_comes_from_after_half_a_second_of_silence_only() {
        let t0 = Instant::now();
        let mut paths = Paths::default();
        paths.prove(path(1, t0));
        paths.prove(path(2, t0));
        let address = path(2, t0).address();
        assert!(!paths.hear_media(address, ENTRANCE, t0 + Duration::from_millis(499)));
        assert!(paths.hear_media(address, ENTRANCE, t0 + Duration::from_millis(500)));
        assert_eq!(ports(&paths), [2, 1]);
    }

    #[test]
    fn a_selected_path_that_is_taken_away_gives_its_place_to_the_one_heard_last() {
        let t0 = Instant::now();
        let mut paths = Paths::default();
        for port in 1..=3 {
            paths.prove(path(port, t0));
        }
        paths.hear(path(2, t0).address(), ENTRANCE, t0 + Duration::from_millis(1));
        paths.remove(path(1, t0).address());
        assert_eq!(ports(&paths), [2, 3]);
        paths.remove(path(2, t0).address());
        paths.remove(path(3, t0).address());
        assert_eq!(paths.selected(), None);
    }

    #[test]
    fn a_path_that_was_proven_on_another_shard_takes_nobodys_place() {
        let t0 = Instant::now();
        let mut paths = Paths::default();
        for port in 1..=3 {
            paths.prove(path(port, t0));
        }
        paths.arrive();
        assert_eq!(paths.selected(), None);
        paths.prove(path(3, t0));
        assert_eq!(paths.selected().map(|path| path.client.address.port()), Some(3));
        paths.remove(path(3, t0).address());
        assert_eq!(paths.selected(), None);
    }

    #[test]
    fn a_known_path_that_is_proven_while_none_is_selected_is_selected() {
        let t0 = Instant::now();
        let mut paths = Paths::default();
        paths.prove(path(1, t0));
        paths.prove(path(2, t0));
        paths.arrive();
        paths.prove(path(2, t0));
        assert_eq!(ports(&paths), [2, 1]);
        assert!(paths.selected().is_some());
    }

    #[test]
    fn a_path_expires_thirty_seconds_after_its_last_request_or_its_replacement() {
        let t0 = Instant::now();
        let mut paths = Paths::default();
        paths.prove(path(1, t0));
        paths.prove(path(2, t0));
        let t1 = t0 + Duration::from_secs(25);
        paths.select(path(2, t0).address(), t1);
        assert_eq!(paths.next_expiry(), Some(t1 + UNSELECTED_LIFE));
        assert_eq!(paths.take_expired(t0 + UNSELECTED_LIFE), None);
        let expired = paths.take_expired(t1 + UNSELECTED_LIFE).unwrap();
        assert_eq!(expired.client.address.port(), 1);
        assert_eq!(paths.next_expiry(), None, "the selected one never expires");
    }
}
