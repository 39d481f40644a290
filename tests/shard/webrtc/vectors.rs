//! Messages whose bytes were computed elsewhere, through a shard.

use std::sync::Arc;

use ringway::protocol::stun::IntegrityKey;
use ringway::shard::{Command, DropReason, Pair, Verdict};

use crate::support::rtc::{RtcStage, signalled, to_client, to_origin};
use crate::support::stage::{Out, Stage, client};

const BROWSER_REQUEST: &str = "000100542112a442000102030405060708090a0b0006000d73727331756672673a636c6975000000c057000400010032802a0008112233445566778800250000002400046e7f1eff0008001479efb626a1c23f04ab185f2771c64f7b95bda28a802800044fb6784b";
const FFMPEG_REQUEST: &str = "000100382112a442000102030405060708090a0b0006000d73727331756672673a636c697500000000250000000800149a9803280ee863ad59752b0fe7117f976e2cbbff80280004a99400ae";
const SRS_RESPONSE: &str = "010100402112a442000102030405060708090a0b0006000d73727331756672673a636c6975000000002000080001bd522b12a44000080014aee8c2fa12b15f44f9d9c78bde6f9cbf6b86c19980280004326ca5d7";
const RESPONSE_V4: &str = "010100402112a442000102030405060708090a0b0006000d73727331756672673a636c6975000000002000080001f523ea12d5450008001460cadae81056db9c4002c0afae55b6f3915f97d6802800042df383d5";
const RESPONSE_V6: &str = "0101004c2112a442000102030405060708090a0b0006000d73727331756672673a636c6975000000002000140002f5230113a9fa000102030405060708090a0c00080014636cc076421dc7efc41a60a2943aa5d496778e2f8028000489294edb";
const FFMPEG_RESPONSE: &str = "010100202112a442000102030405060708090a0b000800141167d8b305fb9d3a196e8683693d560639d7e9b58028000428d538d0";
const ORIGIN_REQUEST: &str = "000100482112a442000102030405060708090a0b0006000d636c69753a7372733175667267000000802900088877665544332211002400046effffff0008001424a650f962e6f0119c4cba407f2fce3a3c4d5a20802800043602447e";
const INDICATION: &str = "001100082112a442000102030405060708090a0b80280004484dcdf6";

fn bytes(hex: &str) -> Vec<u8> {
    let digits = |i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(digits).collect()
}

/// A session whose client, at `address`, has proven itself by `request`.
fn proven(address: &str, request: &str) -> (Stage, ringway::shard::SessionKey) {
    let mut stage = Stage::webrtc();
    let key = IntegrityKey::new(b"origpwd0123456789abcdefghijklmn1");
    let pair = Arc::new(Pair { username: "srs1ufrg:cliu".into(), key });
    stage.apply(Command::Expect { session: signalled(1), pair });
    let verdict = stage.rtc_sends(address.parse().unwrap(), &bytes(request));
    assert_eq!(verdict, Verdict::Taken);
    let session = stage.own(1, None).unwrap();
    let bytes = bytes(request);
    assert!(stage.take_out().contains(&Out::ToOrigin { session, bytes }));
    (stage, session)
}

#[test]
fn the_requests_of_browsers_and_of_ffmpeg_prove_an_address() {
    for request in [BROWSER_REQUEST, FFMPEG_REQUEST] {
        let (mut stage, session) = proven("203.0.113.7:54321", request);
        let again = stage.rtc_sends("203.0.113.7:54321".parse().unwrap(), &bytes(request));
        assert_eq!(again, to_origin(session));
    }
}

#[test]
fn the_response_of_srs_is_rewritten_for_clients_of_either_family() {
    let table = [("203.0.113.7:54321", RESPONSE_V4), ("[2001:db8::7]:54321", RESPONSE_V6)];
    for (address, expected) in table {
        let (mut stage, session) = proven(address, BROWSER_REQUEST);
        assert_eq!(stage.origin_sends(session, &bytes(SRS_RESPONSE)), Verdict::Taken);
        assert_eq!(stage.answer_bytes(), bytes(expected));
    }
}

#[test]
fn a_full_origins_check_and_the_clients_answer_to_it_pass_as_they_are() {
    let (mut stage, session) = proven("203.0.113.7:54321", BROWSER_REQUEST);
    let address = "203.0.113.7:54321".parse().unwrap();
    assert_eq!(stage.origin_sends(session, &bytes(ORIGIN_REQUEST)), to_client(address));
    assert_eq!(stage.rtc_sends(address, &bytes(FFMPEG_RESPONSE)), to_origin(session));
    assert_eq!(stage.rtc_sends(address, &bytes(INDICATION)), to_origin(session));
    let verdict = stage.rtc_sends(client(5000), &bytes(FFMPEG_RESPONSE));
    assert_eq!(verdict, Verdict::Drop(DropReason::StunUnproven));
}

#[test]
fn every_damaged_bit_of_a_request_is_seen() {
    let (mut stage, _) = proven("203.0.113.7:54321", BROWSER_REQUEST);
    let good = bytes(BROWSER_REQUEST);
    for bit in 0..good.len() * 8 {
        let mut damaged = good.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let verdict = stage.rtc_sends(client(5000), &damaged);
        assert!(matches!(verdict, Verdict::Drop(_)), "bit {bit}");
    }
    assert_eq!(stage.view().addresses.len(), 1);
}
