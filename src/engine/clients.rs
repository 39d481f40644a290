//! Sockets of single clients: those of the busiest share the listener's address and are connected.
//!
//! The kernel prefers a connected socket to a listener, so such a client has a queue of its own: it
//! cannot crowd out the others, nor they it. A send through its socket names no receiver and looks
//! up no route. And it stays with its shard whatever CPU takes its packets. Neither shard nor
//! client notices: datagrams are handed over as the listener's.
//!
//! What keeps order. A socket is received from only after the listener has been emptied once since
//! it was connected, or has handed out as many datagrams as it can have held then. A socket that is
//! given up is turned to itself first, so that nothing new arrives there, and closed once it is
//! empty; that keeps every datagram, but what is still in it may be overtaken by what arrives at the
//! listener from then on. It happens to clients that are silent, gone or far quieter than another
//! one, and to all where descriptors get scarce. The other exception is the kernel's: between writing the address and the port that a
//! socket is connected to, some nanoseconds, it may put a datagram of another client with the same
//! IP address there. It is handed over as what it is, but later ones may overtake it.
//!
//! What bounds it. Every connected socket makes the kernel's search dearer for datagrams of clients
//! that have none, so there are few (`ClientSockets::max`), for those that are worth it, and none
//! where descriptors get scarce.

use std::collections::{HashMap, HashSet};
use std::io;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::SockRef;

use super::ClientSockets;
use super::demand::{CANDIDATES_MAX, Candidate, Demand, Receive, is_worth_it};
use super::ports::{Arrival, Listener, PortSocket};
use super::sockaddr::Family;
use super::socket::open_client;
use super::sockopt::{drops, queued_bytes};
use crate::shard::{ListenerIndex, Peer, Port, SessionKey};

/// The clients of one shard that have sockets, and those that may get one.
pub(super) struct Clients {
    settings: ClientSockets,
    options: SocketOptions,
    demand: Demand,
    table: Vec<Option<Client>>,
    /// Position in the table of those whose sockets are connected to them.
    by_key: HashMap<ClientKey, u32, RandomState>,
    /// Who gets a socket next, the busiest last.
    chosen: Vec<Candidate>,
    /// Clients for whom the kernel has no socket, or only one that would answer from an address
    /// that they have not hit.
    unfit: HashSet<ClientKey, RandomState>,
    changes: Vec<ClientChange>,
    occupied: usize,
    /// Some sockets are on their way in or out.
    is_unsettled: bool,
    /// There is something to do in the next turn, though nothing may arrive until then.
    is_pressing: bool,
    generation: u32,
    windows: u64,
    window_ends: Instant,
    /// Receives at the listeners until the window began.
    arrivals_before: u64,
    /// Datagrams dropped at sockets that are closed.
    lost: u64,
}

/// A client, as the listener sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ClientKey {
    pub(super) listener: ListenerIndex,
    pub(super) peer: Peer,
}

/// Names a client's socket: a position, and which of its tenants is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClientId {
    pub(super) position: u32,
    /// Wraps at 24 bits.
    pub(super) generation: u32,
}

/// What the engine does about a client's socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientChange {
    /// Receives from it.
    Receive(ClientId),
    /// Does so no longer: it is closed.
    Closed(ClientId),
}

/// What all client sockets of a shard have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct SocketOptions {
    pub(super) gso: bool,
    pub(super) gro: bool,
    pub(super) buffer_bytes: usize,
    /// Receives that the engine may have taken from a listener and not handed over yet.
    pub(super) in_hand_max: u64,
}

/// A client with a socket.
pub(super) struct Client {
    pub(super) key: ClientKey,
    pub(super) socket: PortSocket,
    generation: u32,
    session: SessionKey,
    /// Set until the socket is received from.
    waiting: Option<Waiting>,
    /// Set once it is given up.
    leaving: Option<Leaving>,
    /// In the window under way.
    receives: u32,
    /// In the window before, with those that its session counts.
    receives_before: u32,
    /// Windows in a row with little or no traffic.
    idle_windows: u32,
    drops_seen: u32,
}

/// Older datagrams of the client may still be in the listener or on their way through the engine.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    /// The receive at the listener that is none of them, even if nobody sees the listener empty.
    until: u64,
    /// From then on an empty queue stays empty. Set in the first turn.
    ripe: Option<Instant>,
    /// The listener is empty; what it held is handed over in this turn.
    is_last_turn: bool,
}

/// The socket is turned to itself and gets nothing more.
#[derive(Clone, Copy, Debug)]
struct Leaving {
    /// From then on an empty queue stays empty. Set in the first turn.
    ripe: Option<Instant>,
    /// The socket is empty; what it held is handed over in this turn.
    is_last_turn: bool,
}

impl Clients {
    /// Without room for any client where `settings` have none.
    pub(super) fn new(
        settings: ClientSockets,
        options: SocketOptions,
        sessions_max: u32,
        now: Instant,
    ) -> Self {
        let max = usize::from(settings.max);
        let (unfit_max, chosen_max) = if max == 0 { (0, 0) } else { (UNFIT_MAX, CANDIDATES_MAX) };
        Self {
            demand: Demand::new(if max == 0 { 0 } else { sessions_max }, settings.window),
            table: (0..max).map(|_| None).collect(),
            by_key: HashMap::with_capacity_and_hasher(2 * max, RandomState::default()),
            chosen: Vec::with_capacity(chosen_max),
            unfit: HashSet::with_capacity_and_hasher(unfit_max, RandomState::default()),
            changes: Vec::with_capacity(2 * max),
            occupied: 0,
            is_unsettled: false,
            is_pressing: false,
            generation: 0,
            windows: 0,
            window_ends: now + settings.window,
            arrivals_before: 0,
            lost: 0,
            settings,
            options,
        }
    }

    pub(super) fn get(&self, id: ClientId) -> Option<&Client> {
        let client = self.table.get(id.position as usize)?.as_ref()?;
        (client.generation == id.generation).then_some(client)
    }

    /// The socket that is connected to this client.
    pub(super) fn socket_of(&self, listener: ListenerIndex, peer: Peer) -> Option<&PortSocket> {
        if self.by_key.is_empty() {
            return None;
        }
        let position = *self.by_key.get(&ClientKey { listener, peer })?;
        self.table.get(position as usize)?.as_ref().map(|client| &client.socket)
    }

    /// Sockets there are now.
    pub(super) fn len(&self) -> usize {
        self.occupied
    }

    /// Sockets that there may be at once.
    pub(super) fn capacity(&self) -> usize {
        self.table.len()
    }

    /// Counts a receive, at a listener or a session's port, whose datagrams were forwarded.
    pub(super) fn count(
        &mut self,
        session: SessionKey,
        receive: Receive,
        client: impl FnOnce() -> ClientKey,
    ) {
        self.demand.count(session, receive, client);
    }

    /// Counts a receive at a client's own socket, and says what its datagrams have in common.
    pub(super) fn arrival(&mut self, id: ClientId) -> Option<Arrival> {
        let client = self.table.get_mut(id.position as usize)?.as_mut()?;
        if client.generation != id.generation {
            return None;
        }
        client.receives = client.receives.saturating_add(1);
        let ClientKey { listener, peer } = client.key;
        // No word on the source: while a socket is being connected, the kernel may put a datagram
        // of another client of the same address there.
        Some(Arrival { port: Port::Listener(listener), source: None, local: peer.local })
    }

    /// Opens, settles and gives up what is due. The engine calls it once per turn, after it has
    /// handed over what arrived in the turn before, and does the changes afterwards.
    pub(super) fn tend(&mut self, now: Instant, listeners: &[Listener], sessions: usize) {
        if self.table.is_empty() {
            return;
        }
        if now >= self.window_ends {
            self.end_window(now, listeners, sessions);
        } else {
            self.choose_urgent();
        }
        for _ in 0..OPENINGS_PER_TURN {
            let Some(candidate) = self.chosen.pop() else { break };
            self.open(candidate, listeners, sessions);
        }
        self.is_pressing = !self.chosen.is_empty();
        if self.is_unsettled {
            self.settle(now, listeners);
        }
    }

    /// How long the thread may sleep at most.
    pub(super) fn patience(&self, now: Instant) -> Option<Duration> {
        if self.is_pressing {
            return Some(Duration::ZERO);
        }
        if self.is_unsettled {
            return Some(IN_FLIGHT_MAX);
        }
        let has_windows = !self.table.is_empty();
        has_windows.then(|| self.window_ends.saturating_duration_since(now))
    }

    pub(super) fn next_change(&mut self) -> Option<ClientChange> {
        self.changes.pop()
    }

    /// The sockets of clients that got them for this session are given up, and nobody gets one for
    /// it any more.
    pub(super) fn session_closed(&mut self, session: SessionKey) {
        self.demand.forget(session);
        self.chosen.retain(|candidate| candidate.session != session);
        if self.occupied > 0 {
            self.give_up(|client| client.session == session);
        }
    }

    /// A socket that cannot be received from is closed at once.
    pub(super) fn receive_failed(&mut self, id: ClientId) {
        if self.get(id).is_some() {
            self.close(id.position);
        }
    }

    /// The client's host says that nobody is there. Its socket would have each datagram cost an
    /// ICMP message, an error and a repetition, which an unconnected listener never hears of.
    pub(super) fn refused(&mut self, id: ClientId) {
        if let Some(key) = self.get(id).map(|client| client.key) {
            self.give_up(|client| client.key == key);
            self.note_unfit(key);
        }
    }

    /// The same, for whom a send was meant.
    pub(super) fn refused_by(&mut self, listener: ListenerIndex, peer: Peer) {
        let position = self.by_key.get(&ClientKey { listener, peer }).copied();
        let client = position.and_then(|position| {
            let client = self.table.get(position as usize)?.as_ref()?;
            Some(client.id(position))
        });
        if let Some(id) = client {
            self.refused(id);
        }
    }

    fn note_unfit(&mut self, key: ClientKey) {
        if self.unfit.len() >= UNFIT_MAX {
            self.unfit.clear();
        }
        self.unfit.insert(key);
    }

    /// Datagrams that the kernel has dropped at the sockets since the last call.
    pub(super) fn new_overflows(&mut self) -> u64 {
        let of_live = self.table.iter_mut().flatten().map(Client::new_overflows).sum::<u64>();
        of_live + std::mem::take(&mut self.lost)
    }

    fn end_window(&mut self, now: Instant, listeners: &[Listener], sessions: usize) {
        self.window_ends = now + self.settings.window;
        self.windows += 1;
        if self.windows.is_multiple_of(UNFIT_WINDOWS) {
            self.unfit.clear();
        }
        let arrivals: u64 = listeners.iter().map(|listener| listener.received).sum();
        let before = std::mem::replace(&mut self.arrivals_before, arrivals);
        // Clients spread evenly, so the other shards get about as much as this one.
        let arrivals = (arrivals - before) * u64::from(self.settings.shards.max(1));
        self.note_idleness(arrivals);
        let (by_key, unfit) = (&self.by_key, &self.unfit);
        let is_fit = |candidate: &Candidate| {
            !by_key.contains_key(&candidate.client) && !unfit.contains(&candidate.client)
        };
        self.demand.end_window(arrivals, self.table.len(), is_fit, &mut self.chosen);
        let are_scarce = sessions + self.occupied > self.settings.descriptors_max as usize;
        if are_scarce {
            self.chosen.clear();
            self.give_up(|_| true);
        } else {
            self.make_room();
        }
    }

    /// Puts those who cannot wait for the end of the window last, the busiest at the very end.
    fn choose_urgent(&mut self) {
        let (by_key, unfit, chosen) = (&self.by_key, &self.unfit, &mut self.chosen);
        for candidate in self.demand.urgent() {
            let is_known = by_key.contains_key(&candidate.client)
                || unfit.contains(&candidate.client)
                || chosen.iter().any(|other| other.client == candidate.client);
            if !is_known && chosen.len() < CANDIDATES_MAX {
                chosen.push(candidate);
            }
        }
        chosen.sort_unstable_by_key(|candidate| candidate.receives);
    }

    /// Gives up the sockets of those that have had little traffic for some time.
    fn note_idleness(&mut self, arrivals: u64) {
        for client in self.table.iter_mut().flatten() {
            let receives = client.receives.saturating_add(self.demand.receives(client.session));
            let is_idle = receives == 0 || !is_worth_it(receives, arrivals / IDLE_MARGIN);
            client.idle_windows = if is_idle { client.idle_windows + 1 } else { 0 };
            client.receives_before = receives;
            client.receives = 0;
        }
        self.give_up(|client| client.idle_windows >= IDLE_WINDOWS);
    }

    /// Keeps as many of the chosen as there is room for, the busiest. Where there is none, and one
    /// of them is far busier than somebody who has a socket, that one makes room.
    fn make_room(&mut self) {
        let room = self.table.len() - self.occupied;
        let excess = self.chosen.len().saturating_sub(room);
        let busiest = self.chosen.last().map_or(0, |candidate| candidate.receives);
        self.chosen.drain(..excess);
        // Nobody who has just got one: what is left in the listener would be overtaken.
        let settled = self.table.iter().flatten().filter(|client| !client.is_unsettled());
        let quietest = settled.min_by_key(|client| client.receives_before);
        let gives_way = quietest.filter(|client| {
            room == 0 && client.receives_before.saturating_mul(FAR_BUSIER) < busiest
        });
        if let Some(generation) = gives_way.map(|client| client.generation) {
            self.give_up(|client| client.generation == generation);
        }
    }

    fn open(&mut self, candidate: Candidate, listeners: &[Listener], sessions: usize) {
        let key = candidate.client;
        let Some(listener) = listeners.get(usize::from(key.listener.0)) else { return };
        let Some(position) = self.table.iter().position(Option::is_none) else { return };
        let are_scarce = sessions + self.occupied >= self.settings.descriptors_max as usize;
        if are_scarce || self.by_key.contains_key(&key) || self.unfit.contains(&key) {
            return;
        }
        let Some(socket) = self.connect(key, listener) else {
            self.note_unfit(key);
            return;
        };
        // The client of a session is at one address: a socket of another one, where it was before,
        // would count the session's traffic as its own for ever.
        self.give_up(|client| client.session == candidate.session);
        // In the kernel's queue, and what the engine has taken out of it already.
        let queued = queued_bytes(&listener.socket).map_or(u64::MAX / 2, u64::from);
        let until = listener.received + queued / DATAGRAM_BYTES_MIN + self.options.in_hand_max;
        self.generation = self.generation.wrapping_add(1) & GENERATION_MASK;
        let client = Client {
            key,
            drops_seen: drops(&socket).unwrap_or_default(),
            socket,
            generation: self.generation,
            session: candidate.session,
            waiting: Some(Waiting { until, ripe: None, is_last_turn: false }),
            leaving: None,
            receives: 0,
            receives_before: candidate.receives,
            idle_windows: 0,
        };
        if let Some(slot) = self.table.get_mut(position) {
            *slot = Some(client);
            self.by_key.insert(key, position as u32);
            self.occupied += 1;
            self.is_unsettled = true;
        }
    }

    /// `None` where there is no socket to be had, or none that answers from the address hit.
    fn connect(&self, key: ClientKey, listener: &Listener) -> Option<PortSocket> {
        let SocketOptions { gso, gro, buffer_bytes, .. } = self.options;
        let client = key.peer.address;
        let socket = open_client(listener.address, client, gro, buffer_bytes).ok()?;
        let local = socket.local_addr().ok()?.as_socket()?.ip().to_canonical();
        let is_right = key.peer.local.is_none_or(|hit| hit == local);
        let family = Family::of(listener.address);
        is_right.then(|| PortSocket::connected(socket.into(), family, gso, client))
    }

    /// Moves sockets on that are on their way in or out.
    ///
    /// A queue that is seen empty proves that the kernel has given all of it to the engine, and by
    /// the next turn the engine has handed that over. It has to be seen some time after the socket
    /// was connected: other CPUs may still carry datagrams for which they chose a socket before.
    fn settle(&mut self, now: Instant, listeners: &[Listener]) {
        self.is_unsettled = false;
        let mut seen_empty: [Option<bool>; LISTENERS_MAX] = [None; LISTENERS_MAX];
        for position in 0..self.table.len() as u32 {
            let slot = self.table.get_mut(position as usize).and_then(Option::as_mut);
            let Some(client) = slot else { continue };
            let id = ClientId { position, generation: client.generation };
            if let Some(waiting) = client.waiting {
                let listener = listeners.get(usize::from(client.key.listener.0));
                let has_passed = listener.is_none_or(|one| one.received >= waiting.until);
                if waiting.is_last_turn || has_passed {
                    client.waiting = None;
                    self.changes.push(ClientChange::Receive(id));
                } else {
                    let ripe = waiting.ripe.unwrap_or(now + IN_FLIGHT_MAX);
                    // Each listener is asked once, however many wait for it.
                    let seen = seen_empty.get_mut(usize::from(client.key.listener.0));
                    let is_last_turn = now >= ripe
                        && listener.zip(seen).is_some_and(|(one, seen)| {
                            *seen.get_or_insert_with(|| is_empty(&one.socket))
                        });
                    client.waiting = Some(Waiting { ripe: Some(ripe), is_last_turn, ..waiting });
                    self.is_pressing |= is_last_turn;
                }
            } else if let Some(leaving) = client.leaving {
                if leaving.is_last_turn {
                    self.close(position);
                    continue;
                }
                let ripe = leaving.ripe.unwrap_or(now + IN_FLIGHT_MAX);
                let is_last_turn = now >= ripe && is_empty(&client.socket);
                client.leaving = Some(Leaving { ripe: Some(ripe), is_last_turn });
                self.is_pressing |= is_last_turn;
            }
            self.is_unsettled |= self.get(id).is_some_and(Client::is_unsettled);
        }
    }

    /// Turns sockets away from their clients; the listener has these again at once.
    fn give_up(&mut self, is_given_up: impl Fn(&Client) -> bool) {
        for position in 0..self.table.len() as u32 {
            let slot = self.table.get_mut(position as usize).and_then(Option::as_mut);
            let of_this = |client: &&mut Client| client.leaving.is_none() && is_given_up(client);
            let Some(client) = slot.filter(of_this) else { continue };
            client.leaving = Some(Leaving { ripe: None, is_last_turn: false });
            self.by_key.remove(&client.key);
            self.is_unsettled = true;
            self.is_pressing = true;
            if turn_to_itself(&client.socket).is_err() {
                self.close(position);
            }
        }
    }

    fn close(&mut self, position: u32) {
        let slot = self.table.get_mut(position as usize);
        let Some(mut client) = slot.and_then(Option::take) else { return };
        self.lost += client.new_overflows();
        if client.leaving.is_none() {
            self.by_key.remove(&client.key);
        }
        self.occupied -= 1;
        self.changes.push(ClientChange::Closed(client.id(position)));
    }
}

impl Client {
    fn id(&self, position: u32) -> ClientId {
        ClientId { position, generation: self.generation }
    }

    fn is_unsettled(&self) -> bool {
        self.waiting.is_some() || self.leaving.is_some()
    }

    fn new_overflows(&mut self) -> u64 {
        let now = drops(&self.socket).unwrap_or(self.drops_seen);
        let before = std::mem::replace(&mut self.drops_seen, now);
        u64::from(now.wrapping_sub(before))
    }
}

/// Whether nothing waits to be received.
fn is_empty(socket: &PortSocket) -> bool {
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    // A signal, or no memory: it is asked again in the next turn.
    poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&at_once)).is_ok_and(|ready| ready == 0)
}

/// Connects the socket to its own address, from which nobody sends: from then on the listener gets
/// what the client sends, and what is in the socket's queue can be read without haste.
///
/// Dissolving the association (`AF_UNSPEC`) would not do: a socket bound to all addresses has left
/// the listener's group when it was connected, and alone it would compete with the whole of it.
fn turn_to_itself(socket: &PortSocket) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.connect(&socket.local_addr()?)
}

/// Sockets opened in one turn, 20 us each. Datagrams wait meanwhile.
const OPENINGS_PER_TURN: usize = 4;

/// How long a CPU may take from choosing a socket for a datagram to putting it there. It does both
/// without a pause, in about a microsecond, unless a host takes the CPU away from it.
const IN_FLIGHT_MAX: Duration = Duration::from_millis(1);

/// A client without traffic for so many windows gives up its socket.
const IDLE_WINDOWS: u32 = 5;

/// A socket is kept for a fraction of the traffic that it takes to get one.
const IDLE_MARGIN: u64 = 4;

/// How much busier a client is that drives another one out.
const FAR_BUSIER: u32 = 4;

/// Clients that are remembered as unfit, and for how many windows: routes change.
const UNFIT_MAX: usize = 256;
const UNFIT_WINDOWS: u64 = 60;

/// What a queued datagram takes in the kernel's books, at the least: its descriptor (`sk_buff`)
/// and the smallest buffer.
const DATAGRAM_BYTES_MIN: u64 = 512;

/// One of SRT, one of WebRTC; further ones would be asked again for each client.
const LISTENERS_MAX: usize = 4;

const GENERATION_MASK: u32 = 0x00FF_FFFF;
