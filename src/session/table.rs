//! The sessions of one shard, and the ways a datagram names one.

use std::hash::{BuildHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};

use foldhash::quality::SeedableRandomState;
use hashbrown::{HashMap, HashTable};
use slab::Slab;

use super::budget::Prefix;
use super::webrtc::Path;
use super::{Protocol, Session, SessionKey, Traffic, WebRtcSession};
use crate::protocol::srt::SocketId;

/// The sessions of one shard, of both protocols: a key means a slot, whoever lives there.
///
/// Invariant: an index never refers to a free slot, nor to one of the other protocol. Peers choose every key, so the
/// hashers are seeded.
pub struct SessionTable {
    tenants: Slab<Tenant>,
    generation: u32,
    /// A caller is its address and its own socket ID, from its conclusion on.
    by_caller: HashMap<FlowKey, u32, SeedableRandomState>,
    /// What established clients write: their address and the origin's socket ID. The address is part of the key, for
    /// two origins may choose the same ID, and a guessed ID alone opens nothing.
    by_socket_id: HashMap<FlowKey, u32, SeedableRandomState>,
    /// Where WebRTC clients have proven to be. Up to [`Paths::MAX`](super::webrtc::Paths::MAX) per session, whose paths
    /// are where the addresses themselves stand: a copy of each would be most of what the index takes.
    by_address: HashTable<Claim>,
    hasher: SeedableRandomState,
    /// What was found last by socket ID, and by address: the datagrams of a train or a burst ask for the same again and
    /// again. Forgotten whenever a session leaves or an address changes hands.
    last_flow: Option<(FlowKey, u32)>,
    last_address: Option<(AddressKey, u32)>,
    /// Handshakes under way per client.
    undecided_by_client: HashMap<Prefix, u32, SeedableRandomState>,
    /// Above it, new sessions are refused and live ones are kept.
    sessions_max: usize,
}

/// An address of the session in `slot`.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Claim {
    slot: u32,
    /// Half of the address's hash, by which the index grows without looking at sessions.
    hash: u32,
}

struct Tenant {
    generation: u32,
    body: Body,
}

enum Body {
    Srt(Session),
    WebRtc(WebRtcSession),
}

/// Whoever lives in a slot.
#[derive(Clone, Copy, Debug)]
pub enum InSlot<'a> {
    /// A session of SRT.
    Srt(&'a Session),
    /// A session of WebRTC.
    WebRtc(&'a WebRtcSession),
}

impl SessionTable {
    /// An empty table that never holds more than `sessions_max`, with the indices of the protocols that are spoken
    /// reserved now. Bodies come in as sessions do.
    pub fn new(sessions_max: u32, protocols: &[Protocol], hasher: &SeedableRandomState) -> Self {
        let sessions_max = sessions_max as usize;
        let room = |protocol| if protocols.contains(&protocol) { sessions_max } else { 0 };
        let (srt, webrtc) = (room(Protocol::Srt), room(Protocol::WebRtc));
        Self {
            tenants: Slab::new(),
            generation: 0,
            by_caller: HashMap::with_capacity_and_hasher(srt, hasher.clone()),
            by_socket_id: HashMap::with_capacity_and_hasher(srt, hasher.clone()),
            by_address: HashTable::with_capacity(webrtc),
            hasher: hasher.clone(),
            last_flow: None,
            last_address: None,
            undecided_by_client: HashMap::with_hasher(hasher.clone()),
            sessions_max,
        }
    }

    /// Whether no session can be added.
    pub fn is_full(&self) -> bool {
        self.tenants.len() >= self.sessions_max
    }

    /// Sessions, whatever their protocol and state.
    pub fn len(&self) -> usize {
        self.tenants.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.tenants.is_empty()
    }

    /// Above every slot in use so far, though perhaps not by one.
    pub fn slots(&self) -> u32 {
        self.tenants.capacity() as u32
    }

    /// Puts an SRT session in, findable by its caller. The caller must not have one already.
    pub fn insert(&mut self, session: Session) -> SessionKey {
        let caller = FlowKey::new(session.client.address, session.client_socket);
        let client = Prefix::of_client(session.client.address.ip());
        let key = self.move_in(Body::Srt(session));
        let replaced = self.by_caller.insert(caller, key.slot);
        debug_assert!(replaced.is_none(), "the caller of {key} has a session already");
        *self.undecided_by_client.entry(client).or_insert(0) += 1;
        key
    }

    /// Puts a WebRTC session in. It is found by the addresses that [`Self::claim_address`] gives it.
    pub fn insert_webrtc(&mut self, session: WebRtcSession) -> SessionKey {
        self.move_in(Body::WebRtc(session))
    }

    fn move_in(&mut self, body: Body) -> SessionKey {
        self.generation = (self.generation + 1) & GENERATION_MASK;
        let generation = self.generation;
        super::make_room(&mut self.tenants);
        let slot = self.tenants.insert(Tenant { generation, body }) as u32;
        SessionKey { slot, generation }
    }

    /// What the session speaks, if the key has not outlived it.
    pub fn protocol(&self, key: SessionKey) -> Option<Protocol> {
        match self.tenants.get(key.slot as usize) {
            Some(Tenant { generation, body }) if *generation == key.generation => match body {
                Body::Srt(_) => Some(Protocol::Srt),
                Body::WebRtc(_) => Some(Protocol::WebRtc),
            },
            Some(_) | None => None,
        }
    }

    /// The SRT session, if the key has not outlived it.
    pub fn srt_mut(&mut self, key: SessionKey) -> Option<&mut Session> {
        match self.tenants.get_mut(key.slot as usize) {
            Some(Tenant { generation, body: Body::Srt(session) })
                if *generation == key.generation =>
            {
                Some(session)
            }
            Some(_) | None => None,
        }
    }

    /// The WebRTC session, if the key has not outlived it.
    pub fn webrtc_mut(&mut self, key: SessionKey) -> Option<&mut WebRtcSession> {
        match self.tenants.get_mut(key.slot as usize) {
            Some(Tenant { generation, body: Body::WebRtc(session) })
                if *generation == key.generation =>
            {
                Some(session)
            }
            Some(_) | None => None,
        }
    }

    /// What a session has carried, if the key has not outlived it.
    pub fn traffic_mut(&mut self, key: SessionKey) -> Option<(Protocol, &mut Traffic)> {
        match self.tenants.get_mut(key.slot as usize) {
            Some(Tenant { generation, body }) if *generation == key.generation => match body {
                Body::Srt(session) => Some((Protocol::Srt, &mut session.traffic)),
                Body::WebRtc(session) => Some((Protocol::WebRtc, &mut session.traffic)),
            },
            Some(_) | None => None,
        }
    }

    /// Whoever lives in `slot`.
    pub fn in_slot(&self, slot: u32) -> Option<(SessionKey, InSlot<'_>)> {
        let tenant = self.tenants.get(slot as usize)?;
        let key = SessionKey { slot, generation: tenant.generation };
        let session = match &tenant.body {
            Body::Srt(session) => InSlot::Srt(session),
            Body::WebRtc(session) => InSlot::WebRtc(session),
        };
        Some((key, session))
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
        let flow = FlowKey::new(client, destination);
        let slot = match self.last_flow {
            Some((last, slot)) if last == flow => slot,
            Some(_) | None => {
                let slot = *self.by_socket_id.get(&flow)?;
                self.last_flow = Some((flow, slot));
                slot
            }
        };
        match self.tenants.get_mut(slot as usize)? {
            Tenant { generation, body: Body::Srt(session) } => {
                Some((SessionKey { slot, generation: *generation }, session))
            }
            Tenant { body: Body::WebRtc(_), .. } => None,
        }
    }

    /// The session whose client has proven to be at `address`.
    #[inline]
    pub fn by_address(&mut self, address: AddressKey) -> Option<(SessionKey, &mut WebRtcSession)> {
        let slot = match self.last_address {
            Some((last, slot)) if last == address => slot,
            Some(_) | None => {
                let slot = self.claimant(address)?;
                self.last_address = Some((address, slot));
                slot
            }
        };
        match self.tenants.get_mut(slot as usize)? {
            Tenant { generation, body: Body::WebRtc(session) } => {
                Some((SessionKey { slot, generation: *generation }, session))
            }
            Tenant { body: Body::Srt(_), .. } => None,
        }
    }

    /// Whose `address` is. A session that only remembers it from another shard has no claim.
    #[inline]
    fn claimant(&self, address: AddressKey) -> Option<u32> {
        let claim = Claim::of(&self.hasher, address, 0);
        let is_it = |known: &Claim| {
            known.hash == claim.hash
                && match self.tenants.get(known.slot as usize) {
                    Some(Tenant { body: Body::WebRtc(session), .. }) => {
                        session.paths.find(address).is_some_and(|path| path.is_here)
                    }
                    Some(_) | None => false,
                }
        };
        self.by_address.find(claim.spread(), is_it).map(|claim| claim.slot)
    }

    /// Makes a WebRTC session the one that is found by `address`, one of its paths, and takes the address from whoever
    /// had it.
    pub fn claim_address(&mut self, key: SessionKey, address: AddressKey) {
        if self.webrtc_mut(key).is_none_or(|session| session.paths.find(address).is_none()) {
            return;
        }
        let claim = Claim::of(&self.hasher, address, key.slot);
        if self.has_claim(claim) && self.claimant(address) == Some(key.slot) {
            return;
        }
        self.last_address = None;
        while let Some(slot) = self.claimant(address)
            && self.disclaim(Claim { slot, ..claim })
        {
            if let Some(Tenant { body: Body::WebRtc(loser), .. }) =
                self.tenants.get_mut(slot as usize)
                && slot != key.slot
            {
                loser.paths.remove(address);
            }
        }
        self.by_address.insert_unique(claim.spread(), claim, Claim::spread);
    }

    /// Makes a session no longer found by `address`, which may be another's by now.
    pub fn release_address(&mut self, key: SessionKey, address: AddressKey) {
        self.last_address = None;
        self.disclaim(Claim::of(&self.hasher, address, key.slot));
    }

    fn has_claim(&self, claim: Claim) -> bool {
        self.by_address.find(claim.spread(), |known| *known == claim).is_some()
    }

    fn disclaim(&mut self, claim: Claim) -> bool {
        match self.by_address.find_entry(claim.spread(), |known| *known == claim) {
            Ok(known) => {
                known.remove();
                true
            }
            Err(_) => false,
        }
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
        let Some(session) = self.srt_mut(key) else {
            return Ok(());
        };
        let flow = FlowKey::new(session.client.address, socket);
        if self.by_socket_id.contains_key(&flow) {
            return Err(SocketIdTaken);
        }
        if let Some(session) = self.srt_mut(key) {
            session.origin_socket = Some(socket);
            self.by_socket_id.insert(flow, key.slot);
        }
        Ok(())
    }

    /// Takes an SRT session out, and every way to find it.
    pub fn remove(&mut self, key: SessionKey) -> Option<Session> {
        self.srt_mut(key)?;
        self.last_flow = None;
        let Body::Srt(session) = self.tenants.remove(key.slot as usize).body else {
            unreachable!("`srt_mut` has just found an SRT session under this key");
        };
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

    /// Takes a WebRTC session out, and every way to find it.
    pub fn remove_webrtc(&mut self, key: SessionKey) -> Option<WebRtcSession> {
        self.webrtc_mut(key)?;
        self.last_address = None;
        let Body::WebRtc(session) = self.tenants.remove(key.slot as usize).body else {
            unreachable!("`webrtc_mut` has just found a WebRTC session under this key");
        };
        for address in session.paths.iter().map(Path::address) {
            // What was proven on another shard may be another session's here.
            self.disclaim(Claim::of(&self.hasher, address, key.slot));
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

impl Claim {
    #[inline]
    fn of(hasher: &SeedableRandomState, address: AddressKey, slot: u32) -> Self {
        Self { slot, hash: hasher.hash_one(address) as u32 }
    }

    /// The hash that the index goes by, which wants its upper bits as good as its lower ones.
    #[inline]
    fn spread(&self) -> u64 {
        u64::from(self.hash) | u64::from(self.hash) << 32
    }
}

/// Two sessions of one client would have to share a socket ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the origin's socket ID is in use by another session of this client")]
pub struct SocketIdTaken;

/// An address and a socket ID, in the 24 bytes that two of them to a cache line leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct FlowKey {
    /// With the socket ID in the place of the zeros.
    address: AddressKey,
}

impl FlowKey {
    fn new(address: SocketAddr, socket: SocketId) -> Self {
        let AddressKey { ip, place } = AddressKey::of(address);
        Self { address: AddressKey { ip, place: place | u64::from(socket.0) } }
    }
}

/// An address in three words. As a `u128` and a `u64` it would hash the same and take 32 bytes, and 48 with its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressKey {
    /// IPv4 as IPv4-mapped: the engine presents one form only, so nothing can collide. The upper half first.
    ip: [u64; 2],
    /// Scope (low 16 bits, link-local peers only) and port, above 32 zeros.
    place: u64,
}

impl AddressKey {
    /// Of a client's address.
    #[inline]
    pub fn of(address: SocketAddr) -> Self {
        let (ip, scope) = match address {
            SocketAddr::V4(v4) => (v4.ip().to_ipv6_mapped().to_bits(), 0),
            SocketAddr::V6(v6) => (v6.ip().to_bits(), v6.scope_id() as u16),
        };
        let ip = [(ip >> 64) as u64, ip as u64];
        Self { ip, place: u64::from(scope) << 48 | u64::from(address.port()) << 32 }
    }

    /// Tells the addresses of one client apart. It is not seeded: who makes up addresses that look alike confuses nobody
    /// but himself.
    pub fn mark(&self) -> u32 {
        let [high, low] = self.ip;
        let mixed = [high, low, self.place].into_iter().fold(0_u64, |mixed, word| {
            (mixed.rotate_left(29) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15)
        });
        (mixed >> 32) as u32
    }
}

impl Hash for AddressKey {
    /// Two steps of the hasher: an array would be hashed as bytes, with its length.
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [high, low] = self.ip;
        state.write_u128(u128::from(high) << 64 | u128::from(low));
        state.write_u64(self.place);
    }
}

/// Generations fit the 24 bits that an engine has room for beside a slot.
const GENERATION_MASK: u32 = 0x00FF_FFFF;
