//! Whether an SRT listener answers, and which key length to advertise: a caller without an opinion
//! takes the listener's, so the relay must say what the origins say (draft-sharabayko-srt, section
//! 3.2.1: the Encryption Field of the induction response).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use super::health::Sign;
use super::schedule::Found;
use crate::protocol::srt::{Handshake, HandshakeKind, SocketId};

/// Asks the SRT listener at `origin` with an induction, which costs it no state. It counts as
/// silent after [`PROBE_TIMEOUT`] without an induction response.
///
/// # Errors
/// Where it cannot even be asked: there is no way to it, or no descriptor here.
pub(super) async fn probe(origin: SocketAddr) -> io::Result<Found> {
    let any = match origin {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(origin).await?;
    let caller = random_socket_id()?;
    let induction = induction(caller, origin.ip());
    let deadline = Instant::now() + PROBE_TIMEOUT;
    let mut buffer = [0; DATAGRAM_MAX];
    let mut refusals = 0;
    while Instant::now() < deadline && refusals < REFUSALS_MAX {
        // An error is the answer to an earlier send, and is heard of again.
        let _ = socket.send(&induction).await;
        let resend_at = (Instant::now() + RETRY_INTERVAL).min(deadline);
        while let Ok(received) = timeout_at(resend_at, socket.recv(&mut buffer)).await {
            let Ok(length) = received else {
                refusals += 1;
                tokio::time::sleep_until(resend_at).await;
                break;
            };
            let response =
                buffer.get(..length).and_then(|datagram| induction_response(datagram, caller));
            if let Some(response) = response {
                return Ok(Found { result: Ok(()), key_length: key_length(&response) });
            }
        }
    }
    let sign = if refusals > 0 { Sign::Refused } else { Sign::Silent };
    Ok(Found { result: Err(sign), key_length: None })
}

fn induction(caller: SocketId, listener: IpAddr) -> [u8; crate::protocol::srt::handshake::LEN] {
    let caller = Handshake {
        timestamp: 0,
        destination: SocketId(0),
        version: 4,
        encryption: 0,
        extension: 2,
        initial_sequence: caller.0,
        mtu: 1500,
        flow_window: 8192,
        kind: HandshakeKind::Induction,
        socket: caller,
        cookie: 0,
        peer_ip: [0; 16],
    };
    caller.induction_request(0, listener)
}

/// A listener's answer to `caller`.
fn induction_response(datagram: &[u8], caller: SocketId) -> Option<Handshake> {
    let answer = Handshake::parse(datagram).ok()?;
    let is_answer = answer.kind == HandshakeKind::Induction
        && answer.version == 5
        && answer.extension == Handshake::MAGIC
        && answer.destination == caller;
    is_answer.then_some(answer)
}

/// The key length in an induction response, in bytes.
fn key_length(response: &Handshake) -> Option<u8> {
    match response.encryption {
        0 => Some(0),
        2 => Some(16),
        3 => Some(24),
        4 => Some(32),
        _ => None,
    }
}

/// 1 to 2^30 - 1: bit 30 marks groups.
fn random_socket_id() -> io::Result<SocketId> {
    let mut bytes = [0; 4];
    rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty())?;
    Ok(SocketId((u32::from_ne_bytes(bytes) & 0x3FFF_FFFF).max(1)))
}

/// What to advertise when the origins answer `answers` (name, bytes): the longest, for a caller
/// whose key is longer than asked for is served everywhere.
pub(super) fn advertised<'a>(answers: impl Iterator<Item = (&'a str, u8)>) -> Option<Advertised> {
    let mut answers: Vec<_> = answers.collect();
    answers.sort_unstable();
    let bytes = answers.iter().map(|(_, bytes)| *bytes).max()?;
    let is_unanimous = answers.iter().all(|(_, other)| *other == bytes);
    let list =
        || answers.iter().map(|(name, bytes)| format!("{name}: {bytes}")).collect::<Vec<_>>();
    Some(Advertised { bytes, disagreement: (!is_unanimous).then(|| list().join(", ")) })
}

/// A key length for all callers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Advertised {
    /// 0, 16, 24 or 32.
    pub(super) bytes: u8,
    /// Who answers what, where origins differ.
    pub(super) disagreement: Option<String>,
}

/// How long an origin may take to answer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// One may come from a listener that is about to start.
const REFUSALS_MAX: u32 = 2;
/// What libsrt's callers do.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);
/// An answer is 64 bytes; some listeners echo what they got.
const DATAGRAM_MAX: usize = 1_500;

#[cfg(test)]
mod tests {
    use super::*;

    const CALLER: SocketId = SocketId(77);

    /// A listener's answer, word by word.
    fn answer(caller: SocketId, encryption: u16) -> Vec<u8> {
        let mut bytes = vec![0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        bytes.extend(caller.0.to_be_bytes());
        bytes.extend(5_u32.to_be_bytes());
        bytes.extend(encryption.to_be_bytes());
        bytes.extend(0x4A17_u16.to_be_bytes());
        for word in [1, 1500, 8192, 1, caller.0, 0xDEAD_BEEF, 0x0100_007F, 0, 0, 0_u32] {
            bytes.extend(word.to_be_bytes());
        }
        assert_eq!(bytes.len(), 64);
        bytes
    }

    fn heard(datagram: &[u8]) -> Option<u8> {
        key_length(&induction_response(datagram, CALLER).unwrap())
    }

    #[test]
    fn the_encryption_field_is_the_key_length_in_units_of_eight_bytes() {
        for (field, bytes) in [(0, Some(0)), (2, Some(16)), (3, Some(24)), (4, Some(32))] {
            assert_eq!(heard(&answer(CALLER, field)), bytes);
        }
        assert_eq!(heard(&answer(CALLER, 5)), None);
    }

    #[test]
    fn an_answer_to_somebody_else_and_a_truncated_one_count_as_none() {
        assert!(induction_response(&answer(SocketId(78), 2), CALLER).is_none());
        assert!(induction_response(&answer(CALLER, 2)[..63], CALLER).is_none());
    }

    #[test]
    fn unanimous_origins_are_believed_without_a_word() {
        let advertised = advertised([("a", 16), ("b", 16)].into_iter());
        assert_eq!(advertised, Some(Advertised { bytes: 16, disagreement: None }));
    }

    #[test]
    fn where_origins_differ_the_longest_key_is_advertised_and_all_are_named() {
        let advertised = advertised([("b", 32), ("a", 0)].into_iter()).unwrap();
        assert_eq!(advertised.bytes, 32);
        assert_eq!(advertised.disagreement.as_deref(), Some("a: 0, b: 32"));
    }

    #[test]
    fn without_answers_nothing_is_advertised() {
        assert_eq!(advertised(std::iter::empty()), None);
    }

    #[tokio::test]
    async fn a_listener_that_answers_the_second_induction_is_heard() {
        let listener = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let origin = async {
            let mut buffer = [0; 128];
            listener.recv_from(&mut buffer).await.unwrap();
            let (length, caller) = listener.recv_from(&mut buffer).await.unwrap();
            let induction = Handshake::parse(&buffer[..length]).unwrap();
            assert_eq!((length, induction.kind), (64, HandshakeKind::Induction));
            listener.send_to(b"noise", caller).await.unwrap();
            listener.send_to(&answer(induction.socket, 4), caller).await.unwrap();
        };
        let (found, ()) = tokio::join!(probe(address), origin);
        assert_eq!(found.unwrap(), Found { result: Ok(()), key_length: Some(32) });
    }

    #[tokio::test]
    async fn a_port_that_nobody_listens_on_is_told_from_one_that_says_nothing() {
        let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let gone = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (quiet, free) = (silent.local_addr().unwrap(), gone.local_addr().unwrap());
        drop(gone);
        let (silence, refusal) = tokio::join!(probe(quiet), probe(free));
        assert_eq!(silence.unwrap().result, Err(Sign::Silent));
        assert_eq!(refusal.unwrap().result, Err(Sign::Refused));
    }
}
