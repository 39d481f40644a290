//! The sessions of one shard, and the ways a datagram names one.

use std::net::{IpAddr, SocketAddr};

use foldhash::quality::SeedableRandomState;
use hashbrown::HashMap;
use slab::Slab;

use super::budget::Prefix;
use super::{Session, SessionKey};
use crate::protocol::srt::SocketId;

/// The sessions of one shard.
///
/// Invariant: an index never refers to a free slot. Peers choose every key, so the hashers are seeded.
pub struct SessionTable {
    sessions: Slab<Tenant>,
    generation: u32,
    /// A caller is its address and its own socket ID, from its conclusion on.
    by_caller: HashMap<FlowKey, u32, SeedableRandomState>,
    /// What established clients write: their address and the origin's socket ID. The address is part of the key, for
    /// two origins may choose the same ID, and a guessed ID alone opens nothing.
    by_socket_id: HashMap<FlowKey, u32, SeedableRandomState>,
    /// Handshakes under way per client.
    undecided_by_client: HashMap<Prefix, u32, SeedableRandomState>,
    /// Above it, new sessions are refused and live ones are kept.
    sessions_max: usize,
}

struct Tenant {
    generation: u32,
    session: Session,
}

impl SessionTable {
    /// An empty table that never holds more than `sessions_max`, with its indices reserved now. Bodies come in as
    /// sessions do.
    pub fn new(sessions_max: u32, hasher: &SeedableRandomState) -> Self {
        let sessions_max = sessions_max as usize;
        Self {
            sessions: Slab::new(),
            generation: 0,
            by_caller: HashMap::with_capacity_and_hasher(sessions_max, hasher.clone()),
            by_socket_id: HashMap::with_capacity_and_hasher(sessions_max, hasher.clone()),
            undecided_by_client: HashMap::with_hasher(hasher.clone()),
            sessions_max,
        }
    }

    /// Whether no session can be added.
    pub fn is_full(&self) -> bool {
        self.sessions.len() >= self.sessions_max
    }

    /// Sessions, whatever their state.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Above every slot in use so far, though perhaps not by one.
    pub fn slots(&self) -> u32 {
        self.sessions.capacity() as u32
    }

    /// Puts a session in, findable by its caller. The caller must not have one already.
    pub fn insert(&mut self, session: Session) -> SessionKey {
        self.generation = (self.generation + 1) & GENERATION_MASK;
        let caller = FlowKey::new(session.client.address, session.client_socket);
        let client = Prefix::of_client(session.client.address.ip());
        let slot = self.sessions.insert(Tenant { generation: self.generation, session }) as u32;
        let replaced = self.by_caller.insert(caller, slot);
        debug_assert!(replaced.is_none(), "the caller of slot {slot} has a session already");
        *self.undecided_by_client.entry(client).or_insert(0) += 1;
        SessionKey { slot, generation: self.generation }
    }

    /// The session, if the key has not outlived it.
    pub fn get_mut(&mut self, key: SessionKey) -> Option<&mut Session> {
        match self.sessions.get_mut(key.slot as usize) {
            Some(tenant) if tenant.generation == key.generation => Some(&mut tenant.session),
            Some(_) | None => None,
        }
    }

    /// Whoever lives in `slot`.
    pub fn in_slot(&self, slot: u32) -> Option<(SessionKey, &Session)> {
        let tenant = self.sessions.get(slot as usize)?;
        Some((SessionKey { slot, generation: tenant.generation }, &tenant.session))
    }

    /// The session of a caller's handshake.
    pub fn by_caller(&self, client: SocketAddr, socket: SocketId) -> Option<SessionKey> {
        self.key_of(*self.by_caller.get(&FlowKey::new(client, socket))?)
    }

    /// The session that a client's datagram belongs to.
    pub fn by_socket_id(
        &mut self,
        client: SocketAddr,
        destination: SocketId,
    ) -> Option<(SessionKey, &mut Session)> {
        let slot = *self.by_socket_id.get(&FlowKey::new(client, destination))?;
        let tenant = self.sessions.get_mut(slot as usize)?;
        Some((SessionKey { slot, generation: tenant.generation }, &mut tenant.session))
    }

    /// Makes a session findable by the origin's socket ID.
    ///
    /// # Errors
    /// The client already has a session under that ID, with another origin that chose the same.
    pub fn index_socket_id(
        &mut self,
        key: SessionKey,
        socket: SocketId,
    ) -> Result<(), SocketIdTaken> {
        let Some(session) = self.get_mut(key) else {
            return Ok(());
        };
        let flow = FlowKey::new(session.client.address, socket);
        if self.by_socket_id.contains_key(&flow) {
            return Err(SocketIdTaken);
        }
        if let Some(session) = self.get_mut(key) {
            session.origin_socket = Some(socket);
            self.by_socket_id.insert(flow, key.slot);
        }
        Ok(())
    }

    /// Takes a session out, and every way to find it.
    pub fn remove(&mut self, key: SessionKey) -> Option<Session> {
        self.get_mut(key)?;
        let session = self.sessions.remove(key.slot as usize).session;
        let address = session.client.address;
        self.by_caller.remove(&FlowKey::new(address, session.client_socket));
        if let Some(socket) = session.origin_socket {
            self.by_socket_id.remove(&FlowKey::new(address, socket));
        }
        if session.state.is_undecided() {
            self.decided(address.ip());
        }
        Some(session)
    }

    /// Handshakes under way of this client.
    pub fn undecided_of(&self, client: IpAddr) -> u32 {
        self.undecided_by_client.get(&Prefix::of_client(client)).copied().unwrap_or(0)
    }

    /// One handshake of this client is no longer under way.
    pub fn decided(&mut self, client: IpAddr) {
        let client = Prefix::of_client(client);
        if let Some(count) = self.undecided_by_client.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                self.undecided_by_client.remove(&client);
            }
        }
    }

    fn key_of(&self, slot: u32) -> Option<SessionKey> {
        self.in_slot(slot).map(|(key, _)| key)
    }
}

/// Two sessions of one client would have to share a socket ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the origin's socket ID is in use by another session of this client")]
pub struct SocketIdTaken;

/// An address and a socket ID in two words, which hash in a few nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct FlowKey {
    /// IPv4 as IPv4-mapped: the engine presents one form only, so nothing can collide.
    ip: u128,
    /// Scope (low 16 bits, link-local peers only), port, socket ID.
    rest: u64,
}

impl FlowKey {
    fn new(address: SocketAddr, socket: SocketId) -> Self {
        let (ip, scope) = match address {
            SocketAddr::V4(v4) => (v4.ip().to_ipv6_mapped().to_bits(), 0),
            SocketAddr::V6(v6) => (v6.ip().to_bits(), v6.scope_id() as u16),
        };
        let rest = u64::from(scope) << 48 | u64::from(address.port()) << 32 | u64::from(socket.0);
        Self { ip, rest }
    }
}

/// Generations fit the 24 bits that an engine has room for beside a slot.
const GENERATION_MASK: u32 = 0x00FF_FFFF;
