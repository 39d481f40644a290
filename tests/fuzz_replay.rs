//! The corpus of every fuzz target, replayed without a fuzzer, and random bytes besides.

use std::fs;
use std::path::Path;

use crate::support::packets;
use crate::support::random::Random;
use crate::support::{fuzz, fuzz_sdp, fuzz_shard};

fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let mut files = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        run(&fs::read(entry.unwrap().path()).unwrap());
        files += 1;
    }
    assert!(files >= 5, "{} holds {files} files", folder.display());
}

#[test]
fn the_corpus_of_headers_holds_every_invariant() {
    replay("header", fuzz::fuzz_header);
}

#[test]
fn the_corpus_of_handshakes_holds_every_invariant() {
    replay("handshake", fuzz::fuzz_handshake);
}

#[test]
fn the_corpus_of_stream_ids_holds_every_invariant() {
    replay("stream_id", fuzz::fuzz_stream_id);
}

#[test]
fn the_corpus_of_stun_messages_holds_every_invariant() {
    replay("stun", fuzz::fuzz_stun);
}

#[test]
fn the_corpus_of_session_descriptions_holds_every_invariant() {
    replay("sdp", fuzz_sdp::fuzz_sdp);
}

#[test]
fn the_corpus_of_shard_scripts_holds_every_invariant() {
    replay("shard", fuzz_shard::fuzz_shard);
}

#[test]
fn a_shard_survives_random_scripts_of_well_formed_steps_and_ends_empty() {
    for seed in 0..2000 {
        fuzz_shard::fuzz_shard(&script(seed));
    }
}

#[test]
fn a_shard_survives_random_scripts_of_webrtc_and_ends_empty() {
    for seed in 0..3000 {
        fuzz_shard::fuzz_shard(&webrtc_script(seed));
    }
}

/// Mostly what gets far: sessions that are expected, proven and owned, and then anything.
fn webrtc_script(seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut script = vec![0xFF];
    for _ in 0..random.below(80) {
        let who = (random.below(16) as u8) << 4;
        let kind = match random.below(16) {
            0..=3 => [4, 2, 5, 2][random.below(4) as usize],
            _ => random.below(16) as u8,
        };
        // The first pair more often than those of restarts.
        let argument = random.next() as u8 & if random.below(2) == 0 { 31 } else { 255 };
        script.extend([kind | who, argument]);
        if kind < 2 {
            script.extend((0..usize::from(argument) * 4).map(|_| random.next() as u8));
        }
    }
    script
}

/// Steps that get far: handshakes with the relay's own cookie, answers of origins, media, time.
fn script(seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut script = Vec::new();
    for _ in 0..random.below(60) {
        let who = (random.below(32) as u8) << 3;
        let socket = 70 + random.below(3) as u32;
        let sequence = random.below(2) as u32;
        let (kind, mut argument) = match random.below(14) {
            0..=1 => (0, packets::induction(socket, sequence)),
            2..=3 => (1, packets::conclusion(socket, sequence, 0, Some("#!::r=live/a"))),
            4 => (2, packets::induction_response(socket, 9)),
            5 => (2, packets::conclusion_response(socket, 4242 + sequence, 9, 0)),
            6 => (2, packets::rejection(socket, 1010)),
            7 => (0, packets::data(4242 + sequence, 5, b"media")),
            8 => {
                (2 * (sequence as u8), packets::shutdown(if sequence == 0 { 4242 } else { socket }))
            }
            9 => (3, Vec::new()),
            10 => (6, vec![0; random.below(200) as usize]),
            // A command or a port's failure of some kind, now and then with the next one on its heels.
            11..=12 => {
                let kind = [3, 4, 5, 7][random.below(4) as usize];
                (kind, vec![random.below(4) as u8, random.below(2) as u8])
            }
            _ => (random.below(8) as u8, vec![0; random.below(80) as usize]),
        };
        argument.resize(argument.len().div_ceil(6) * 6, 0);
        script.extend([kind | who, (argument.len() / 6) as u8]);
        script.extend(argument);
    }
    script
}
