//! What must hold for any session description and any fragment of one. The fuzz target calls this,
//! and so does the replay of its corpus.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use ringway::protocol::sdp;

/// Reads `bytes` as an offer, an answer and a fragment. A line `--` parts offer from answer.
pub(crate) fn fuzz_sdp(bytes: &[u8]) {
    let Ok(text) = sdp::read_fragment(bytes) else {
        assert!(sdp::read(bytes).is_err());
        return;
    };
    let relay = [
        SocketAddr::from((Ipv4Addr::new(203, 0, 113, 5), 8000)),
        SocketAddr::from((Ipv6Addr::LOCALHOST, 8000)),
    ];
    let (offer, answer) = text.split_once("\n--\n").unwrap_or((text, text));
    assert_rewrites(answer, &relay);
    assert_rewrites(offer, &relay);

    let pairs = sdp::pairs(offer, answer);
    if let Ok(pairs) = &pairs {
        assert!((1..=sdp::PAIRS_MAX).contains(&pairs.len()));
        assert!(pairs.iter().all(|pair| (9..=513).contains(&pair.username().len())));
    }
    if let (Ok(offer), Ok(answer)) = (sdp::to_origin(offer), sdp::to_client(answer, &relay)) {
        assert_eq!(sdp::pairs(&offer, &answer), pairs, "rewriting changed the credentials");
    }
}

/// Rewrites `text` each way. The result is as good as its own rewrite, and names nobody else.
fn assert_rewrites(text: &str, relay: &[SocketAddr]) {
    let credentials = sdp::fragment_credentials(text);
    let to_origin = sdp::fragment_to_origin(text);
    let to_client = sdp::fragment_to_client(text, relay);
    assert_eq!(to_origin.is_ok(), to_client.is_ok());
    if let (Ok(to_origin), Ok(to_client)) = (to_origin, to_client) {
        assert_eq!(sdp::fragment_credentials(&to_client), credentials);
        assert_eq!(sdp::fragment_to_origin(&to_origin).as_ref(), Ok(&to_origin));
        assert_eq!(sdp::fragment_to_client(&to_client, relay).as_ref(), Ok(&to_client));
        assert_eq!(others(&to_origin), others(text), "a line changed on the way to the origin");
        assert_eq!(candidates(&to_origin), Vec::<&str>::new());
        assert_eq!(others(&to_client).len(), others(text).len());
        for line in candidates(&to_client) {
            let is_own = relay
                .iter()
                .any(|own| line.ends_with(&format!(" {} {} typ host", own.ip(), own.port())));
            assert!(is_own || line.contains("end-of-candidates"), "{line} is not the relay's");
        }
        assert!(to_client.split("\r\n").all(|line| !line.contains(['\r', '\n'])));
    }
    if let Ok(to_client) = sdp::to_client(text, relay) {
        assert!(!sdp::is_tcp_only(&to_client));
        assert!(sdp::first_udp_host(&to_client).is_none_or(|first| relay.first() == Some(&first)));
    }
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split(['\r', '\n']).filter(|line| !line.is_empty())
}

fn candidates(text: &str) -> Vec<&str> {
    lines(text).filter(|line| is_about_candidates(line)).collect()
}

fn others(text: &str) -> Vec<&str> {
    lines(text).filter(|line| !is_about_candidates(line)).collect()
}

/// Whether the least strict of parsers would take `line` for one about candidates.
fn is_about_candidates(line: &str) -> bool {
    let line = line.trim_start().to_ascii_lowercase();
    let value = line.strip_prefix('a').and_then(|rest| rest.trim_start().strip_prefix('='));
    let name = value.map(|value| value.split_once(':').map_or(value, |(name, _)| name).trim());
    matches!(name, Some("candidate" | "remote-candidates" | "end-of-candidates"))
}
