//! Packets for the tests of this module, as real peers sent them.

/// Induction request of a libsrt 1.5.1 caller on 127.0.0.1.
pub(super) const INDUCTION: &str = "
    8000000000000000000000d90000000000000004000000020c3c99c7000005dc00002000
    00000001184b6180000000000100007f000000000000000000000000";

/// The same caller's conclusion with the stream ID
/// `#!::h=live.example.com,r=live/livestream,m=publish`.
pub(super) const CONCLUSION: &str = "
    8000000000000000000001210000000000000005000000050c3c99c7000005dc00002000
    ffffffff184b6180cafebabe0100007f000000000000000000000000
    0001000300010501000000bf00780000
    0005000d3a3a2123696c3d68652e6576706d6178632e656c722c6d6f76696c3d696c2f65
    747365766d616572703d6d2c696c627500006873";

/// A conclusion without stream ID.
pub(super) const CONCLUSION_WITHOUT_STREAM_ID: &str = "
    80000000000000000000014b0000000000000005000000015b5fad1e000005dc00002000
    ffffffff39c3b61ccafebabe0100007f000000000000000000000000
    0001000300010501000000bf00780000";

/// A conclusion with passphrase and the stream ID `live/x`.
pub(super) const CONCLUSION_WITH_PASSPHRASE: &str = "
    8000000000000000000002e10000000000000005000000073b6a2d13000005dc00002000
    ffffffff073b39d6cafebabe0100007f000000000000000000000000
    0001000300010501000000bf00780000
    000500026576696c0000782f
    0003000e122029010000000002000200000004047bd716e8c28026ebc7a7723db5b6cdd0
    7f652911d16df404ba23d842e795e0b5e20ae61b8f5523c9";

/// Induction request of a libsrt 1.5.1 caller that dials `::1`.
pub(super) const INDUCTION_V6: &str = "
    800000000000000000000059000000000000000400000002736d9872000005dc00002000
    00000001093d4f730000000000000000000000000000000001000000";

/// Conclusion of a version-4 caller, as gosrt's packet tests have it behind a header of their own.
pub(super) const CONCLUSION_V4: &str = "
    80000000000000000000000700000000
    00000004000000020000002a000005dc00000064ffffffff00274921001234560100007f
    000000000000000000000000";

/// Reads hexadecimal digits; spaces and line ends between them do not count.
pub(super) fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> =
        hex.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_digit(16).unwrap()).collect();
    assert!(digits.len().is_multiple_of(2), "half a byte in {hex}");
    digits.chunks(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).unwrap()).collect()
}
