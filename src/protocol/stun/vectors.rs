//! Messages for the tests of this module: those of RFC 5769, and some as real peers lay them out,
//! with codes that another implementation computed.

use super::header::{COOKIE, TransactionId};
use super::integrity::IntegrityKey;
pub(super) use crate::protocol::hex::bytes;

/// Password of the messages of RFC 5769.
pub(super) const RFC_5769_PASSWORD: &[u8] = b"VOkJxbRl1RmTxUk/WvJxBt";

/// RFC 5769, section 2.1: a request by `evtj:h6vY`, padded with spaces.
pub(super) const RFC_5769_REQUEST: &str = "
    000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e74
    002400046e0001ff80290008932ff9b151263b36000600096576746a3a68367659202020
    000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a280280004e57a3bcf";

/// RFC 5769, section 2.2: a response to 192.0.2.1:32853.
pub(super) const RFC_5769_RESPONSE_V4: &str = "
    0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220
    002000080001a147e112a643000800142b91f599fd9e90c38c7489f92af9ba53f06be7d7
    80280004c07d4c96";

/// RFC 5769, section 2.3: a response to [2001:db8:1234:5678:11:2233:4455:6677]:32853.
pub(super) const RFC_5769_RESPONSE_V6: &str = "
    010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220
    002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9
    00080014a382954e4be67bf11784c97c8292c275bfe3ed4180280004c8fb0b4c";

/// The `ice-pwd` of the origin's answer, whose ufrag is `srs1ufrg`.
pub(super) const ORIGIN_PASSWORD: &[u8] = b"origpwd0123456789abcdefghijklmn1";
/// The `ice-pwd` of the client's offer, whose ufrag is `cliu`.
pub(super) const CLIENT_PASSWORD: &[u8] = b"clientpwd0123456789abcdefghijkl2";
/// The transaction of all messages below.
pub(super) const TRANSACTION: TransactionId = TransactionId([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);

/// A browser's request: USERNAME, network info, ICE-CONTROLLING, USE-CANDIDATE, PRIORITY.
pub(super) const BROWSER_REQUEST: &str = "
    000100542112a442000102030405060708090a0b0006000d73727331756672673a636c6975000000
    c057000400010032802a0008112233445566778800250000002400046e7f1eff
    0008001479efb626a1c23f04ab185f2771c64f7b95bda28a802800044fb6784b";

/// FFmpeg's request: USERNAME and USE-CANDIDATE alone.
pub(super) const FFMPEG_REQUEST: &str = "
    000100382112a442000102030405060708090a0b0006000d73727331756672673a636c6975000000
    00250000000800149a9803280ee863ad59752b0fe7117f976e2cbbff80280004a99400ae";

/// The response of an SRS to 10.0.0.2:40000, the relay.
pub(super) const SRS_RESPONSE: &str = "
    010100402112a442000102030405060708090a0b0006000d73727331756672673a636c6975000000
    002000080001bd522b12a44000080014aee8c2fa12b15f44f9d9c78bde6f9cbf6b86c199
    80280004326ca5d7";

/// [`SRS_RESPONSE`] as it has to read for the client 203.0.113.7:54321.
pub(super) const SRS_RESPONSE_FOR_V4: &str = "
    010100402112a442000102030405060708090a0b0006000d73727331756672673a636c6975000000
    002000080001f523ea12d5450008001460cadae81056db9c4002c0afae55b6f3915f97d6
    802800042df383d5";

/// [`SRS_RESPONSE`] as it has to read for the client [2001:db8::7]:54321.
pub(super) const SRS_RESPONSE_FOR_V6: &str = "
    0101004c2112a442000102030405060708090a0b0006000d73727331756672673a636c6975000000
    002000140002f5230113a9fa000102030405060708090a0c
    00080014636cc076421dc7efc41a60a2943aa5d496778e2f8028000489294edb";

/// FFmpeg's response to an origin's request: no address.
pub(super) const FFMPEG_RESPONSE: &str = "
    010100202112a442000102030405060708090a0b
    000800141167d8b305fb9d3a196e8683693d560639d7e9b58028000428d538d0";

/// The request of an origin that is a full ICE agent, to the client.
pub(super) const ORIGIN_REQUEST: &str = "
    000100482112a442000102030405060708090a0b0006000d636c69753a7372733175667267000000
    802900088877665544332211002400046effffff
    0008001424a650f962e6f0119c4cba407f2fce3a3c4d5a20802800043602447e";

/// A keepalive: a binding indication with FINGERPRINT alone.
pub(super) const KEEPALIVE: &str = "001100082112a442000102030405060708090a0b80280004484dcdf6";

pub(super) fn origin_key() -> IntegrityKey {
    IntegrityKey::new(ORIGIN_PASSWORD)
}

pub(super) fn client_key() -> IntegrityKey {
    IntegrityKey::new(CLIENT_PASSWORD)
}

/// A message of type `kind` with the bytes of `attributes`, whether they make sense or not.
pub(super) fn message(kind: u16, attributes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(attributes.len()).unwrap();
    let header = [&kind.to_be_bytes()[..], &length.to_be_bytes(), &COOKIE, &TRANSACTION.0];
    [&header.concat(), attributes].concat()
}

/// One attribute with head and padding.
pub(super) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).unwrap();
    let mut whole = [&kind.to_be_bytes()[..], &length.to_be_bytes(), value].concat();
    whole.resize(whole.len().next_multiple_of(4), 0x20);
    whole
}
