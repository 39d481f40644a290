//! The controlling ICE agent of a client with one remote candidate (RFC 8445): its checks and their
//! answers, without I/O.

use std::collections::VecDeque;
use std::net::SocketAddr;

use ringway::protocol::stun::{
    Builder, Check, Class, IntegrityKey, Message, Method, TransactionId,
};

use crate::payload;
use crate::webrtc::sdp::Credentials;

/// One session's checks.
#[derive(Clone, Debug)]
pub struct Agent {
    /// `origin's:client's`.
    username: String,
    /// By the origin's password.
    key: IntegrityKey,
    tie_breaker: u64,
    requests: u64,
    /// The newest last. An answer may be slower than the next request.
    outstanding: VecDeque<TransactionId>,
}

/// What a STUN message meant to the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The answer to a request: the path works.
    Proven,
    /// The other end does not want to go on (403), or does not know this end.
    Refused,
    /// Made by somebody who does not know the password.
    Forged,
    /// None of that.
    Unrelated,
}

impl Agent {
    /// The agent of the client that has `own` and was answered `remote`.
    #[must_use]
    pub fn new(own: &Credentials, remote: &Credentials, seed: u64) -> Self {
        Self {
            username: format!("{}:{}", remote.ufrag, own.ufrag),
            key: IntegrityKey::new(remote.password.as_bytes()),
            tie_breaker: payload::mix(seed),
            requests: 0,
            outstanding: VecDeque::with_capacity(OUTSTANDING_MAX),
        }
    }

    /// The next binding request, a transaction of its own.
    pub fn request(&mut self, nominates: bool) -> Vec<u8> {
        self.requests += 1;
        let mut id = [0; 12];
        id.copy_from_slice(&payload::filler(self.tie_breaker ^ self.requests, 12));
        let transaction = TransactionId(id);
        if self.outstanding.len() >= OUTSTANDING_MAX {
            self.outstanding.pop_front();
        }
        self.outstanding.push_back(transaction);
        let mut request = Builder::new(Class::Request, Method::Binding, transaction)
            .username(self.username.as_bytes())
            .controlling(self.tie_breaker)
            .priority(PEER_REFLEXIVE_PRIORITY);
        if nominates {
            request = request.use_candidate();
        }
        request.finish(Some(&self.key), true)
    }

    /// Takes a STUN message. Each request is answered once.
    pub fn hear(&mut self, datagram: &[u8]) -> Outcome {
        let Ok(message) = Message::parse(datagram) else {
            return Outcome::Unrelated;
        };
        let transaction = message.transaction();
        if !self.outstanding.contains(&transaction) {
            return Outcome::Unrelated;
        }
        let (integrity, fingerprint) = (message.integrity(&self.key), message.fingerprint());
        if integrity != Check::Right || fingerprint == Check::Wrong {
            return Outcome::Forged;
        }
        self.outstanding.retain(|outstanding| *outstanding != transaction);
        match message.class() {
            Class::Success => Outcome::Proven,
            Class::Error => Outcome::Refused,
            Class::Request | Class::Indication => Outcome::Unrelated,
        }
    }
}

/// What an ICE-lite origin answers to a request from `source`, as SRS does: with the USERNAME
/// repeated.
#[must_use]
pub fn success(request: &Message<'_>, source: SocketAddr, key: &IntegrityKey) -> Vec<u8> {
    Builder::new(Class::Success, Method::Binding, request.transaction())
        .username(request.username().unwrap_or_default())
        .xor_mapped_address(source)
        .finish(Some(key), true)
}

/// A second of requests every 50 ms is 20; answers slower than this are not waited for.
const OUTSTANDING_MAX: usize = 20;
/// Type preference 110, local preference 65535, component 1 (RFC 8445, section 5.1.2.1).
const PEER_REFLEXIVE_PRIORITY: u32 = 110 << 24 | 65_535 << 8 | 255;

#[cfg(test)]
mod tests {
    use super::*;

    fn ends() -> (Credentials, Credentials) {
        (Credentials::of_client(1), Credentials::of_origin(2))
    }

    fn agent() -> (Agent, IntegrityKey) {
        let (client, origin) = ends();
        (Agent::new(&client, &origin, 3), IntegrityKey::new(origin.password.as_bytes()))
    }

    fn answer(request: &[u8], key: &IntegrityKey) -> Vec<u8> {
        success(&Message::parse(request).unwrap(), "192.0.2.1:5000".parse().unwrap(), key)
    }

    #[test]
    fn a_request_names_both_ends_and_is_sealed_with_the_origins_password() {
        let (mut agent, key) = agent();
        let (client, origin) = ends();
        let request = agent.request(true);
        let message = Message::parse(&request).unwrap();
        let username = format!("{}:{}", origin.ufrag, client.ufrag);
        assert_eq!(message.username(), Some(username.as_bytes()));
        assert_eq!((message.integrity(&key), message.fingerprint()), (Check::Right, Check::Right));
        assert!(message.use_candidate());
    }

    #[test]
    fn a_right_answer_proves_the_path_once() {
        let (mut agent, key) = agent();
        let answer = answer(&agent.request(false), &key);
        assert_eq!(agent.hear(&answer), Outcome::Proven);
        assert_eq!(agent.hear(&answer), Outcome::Unrelated);
    }

    #[test]
    fn an_answer_that_comes_after_the_next_request_still_counts() {
        let (mut agent, key) = agent();
        let first = agent.request(false);
        let second = agent.request(false);
        assert_ne!(first, second);
        assert_eq!(agent.hear(&answer(&first, &key)), Outcome::Proven);
    }

    #[test]
    fn an_answer_sealed_with_another_password_is_forged() {
        let (mut agent, key) = agent();
        let request = agent.request(false);
        assert_eq!(agent.hear(&answer(&request, &IntegrityKey::new(b"x"))), Outcome::Forged);
        assert_eq!(agent.hear(&answer(&request, &key)), Outcome::Proven);
    }

    #[test]
    fn an_answer_says_where_the_request_came_from() {
        let (mut agent, key) = agent();
        let answer = answer(&agent.request(false), &key);
        let message = Message::parse(&answer).unwrap();
        assert_eq!(message.mapped_address(), Some("192.0.2.1:5000".parse().unwrap()));
    }

    #[test]
    fn an_error_ends_it() {
        let (mut agent, key) = agent();
        let request = agent.request(false);
        let transaction = Message::parse(&request).unwrap().transaction();
        let error = Builder::new(Class::Error, Method::Binding, transaction)
            .error_code(403)
            .finish(Some(&key), true);
        assert_eq!(agent.hear(&error), Outcome::Refused);
    }

    #[test]
    fn requests_that_nobody_answers_are_forgotten() {
        let (mut agent, key) = agent();
        let first = agent.request(false);
        for _ in 0..OUTSTANDING_MAX {
            agent.request(false);
        }
        assert_eq!(agent.hear(&answer(&first, &key)), Outcome::Unrelated);
    }
}
