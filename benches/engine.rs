//! A relay over loopback, on each engine: what a burst of 32 datagrams costs from a client to the origin and back.
//! `cargo bench --bench engine`
//!
//! The far ends run on the same cores, so this compares engines with each other, and today with yesterday. What a relay
//! costs is measured by `ringway-bench`.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    missing_docs,
    reason = "a measurement may fail loudly"
)]
#![allow(dead_code, unreachable_pub, reason = "support is shared with the tests")]

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use divan::Bencher;
use divan::counter::ItemsCount;
use ringway::config::{Config, EngineChoice, Listen, StaticOrigin};
use ringway::relay::{Relay, Signals};

#[path = "../tests/support/caller.rs"]
mod caller;
#[path = "../tests/support/packets.rs"]
mod packets;

use caller::{Caller, Origin};

const ENGINES: [EngineChoice; 3] =
    [EngineChoice::Uring, EngineChoice::Mmsg, EngineChoice::TokioUring];

fn main() {
    divan::main();
}

#[divan::bench(args = ENGINES)]
fn srt_burst_there_and_back(bencher: Bencher<'_, '_>, engine: EngineChoice) {
    let origin = Origin::start();
    let config = Config {
        srt_listen: Listen::At(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
        webrtc_listen: Listen::Off,
        system_listen: Listen::Off,
        http_listen: Listen::Off,
        shards: Some(1),
        engine,
        origins: vec![StaticOrigin {
            srt: Some(origin.address.port()),
            ..StaticOrigin::at("a", IpAddr::V4(Ipv4Addr::LOCALHOST))
        }],
        ..Config::default()
    };
    let relay = Relay::start(config, Signals::Ignored).unwrap();
    let caller = Caller::connect(relay.srt_address().unwrap(), 77, "#!::r=live/cam,m=publish");
    caller.socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut sequence = 0;
    bencher.counter(ItemsCount::new(2 * BURST)).bench_local(|| {
        for _ in 0..BURST {
            caller.send(sequence, &[0x47; 1316]);
            sequence += 1;
        }
        let echoes = take_echoes(&caller);
        assert!(
            echoes == BURST,
            "{echoes} of {BURST} echoes came back on {engine:?}, then none for {PATIENCE:?}: \
             datagrams were lost, and a burst that is incomplete has no time"
        );
    });
    relay.quit();
}

/// How many echoes of one burst come back. Handshakes, acknowledgements and keepalives are shorter
/// than media.
fn take_echoes(caller: &Caller) -> u32 {
    let mut buffer = [0; 2048];
    let mut echoes = 0;
    while echoes < BURST {
        match caller.socket.recv(&mut buffer) {
            Ok(length) => echoes += u32::from(length > 1000),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return echoes,
            Err(error) => panic!("echoes cannot be received: {error}"),
        }
    }
    echoes
}

/// Datagrams in a burst.
const BURST: u32 = 32;

/// An echo takes microseconds. What has not come after this long is lost, however busy the machine
/// is.
const PATIENCE: Duration = Duration::from_secs(5);
