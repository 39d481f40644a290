//! SRT packets written out by hand from the draft, so that the tests do not agree with the code by construction.

pub const INDUCTION: u32 = 1;
pub const CONCLUSION: u32 = 0xFFFF_FFFF;
pub const MAGIC: u16 = 0x4A17;

/// The fields of a handshake that tests set.
#[derive(Clone, Copy, Debug)]
pub struct Fields {
    pub timestamp: u32,
    pub destination: u32,
    pub version: u32,
    pub encryption: u16,
    pub extension: u16,
    pub sequence: u32,
    pub mtu: u32,
    pub kind: u32,
    pub socket: u32,
    pub cookie: u32,
    pub peer_ip: [u8; 16],
}

impl Default for Fields {
    fn default() -> Self {
        let mut peer_ip = [0; 16];
        peer_ip[..4].copy_from_slice(&[1, 0, 0, 127]);
        Self {
            timestamp: 0,
            destination: 0,
            version: 5,
            encryption: 0,
            extension: 0,
            sequence: 1000,
            mtu: 1500,
            kind: CONCLUSION,
            socket: 77,
            cookie: 0,
            peer_ip,
        }
    }
}

impl Fields {
    pub fn write(&self) -> Vec<u8> {
        let mut bytes = vec![0x80, 0, 0, 0, 0, 0, 0, 0];
        bytes.extend(self.timestamp.to_be_bytes());
        bytes.extend(self.destination.to_be_bytes());
        bytes.extend(self.version.to_be_bytes());
        bytes.extend(self.encryption.to_be_bytes());
        bytes.extend(self.extension.to_be_bytes());
        bytes.extend(self.sequence.to_be_bytes());
        bytes.extend(self.mtu.to_be_bytes());
        bytes.extend(8192_u32.to_be_bytes());
        bytes.extend(self.kind.to_be_bytes());
        bytes.extend(self.socket.to_be_bytes());
        bytes.extend(self.cookie.to_be_bytes());
        bytes.extend(self.peer_ip);
        bytes
    }

    pub fn read(bytes: &[u8]) -> Self {
        assert!(bytes.len() >= 64, "a handshake has 64 bytes or more, this has {}", bytes.len());
        assert_eq!(bytes[..4], [0x80, 0, 0, 0], "not a handshake");
        Self {
            timestamp: word(bytes, 8),
            destination: word(bytes, 12),
            version: word(bytes, 16),
            encryption: (word(bytes, 20) >> 16) as u16,
            extension: word(bytes, 20) as u16,
            sequence: word(bytes, 24),
            mtu: word(bytes, 28),
            kind: word(bytes, 36),
            socket: word(bytes, 40),
            cookie: word(bytes, 44),
            peer_ip: bytes[48..64].try_into().unwrap(),
        }
    }
}

pub fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

pub fn induction(socket: u32, sequence: u32) -> Vec<u8> {
    Fields { version: 4, extension: 2, kind: INDUCTION, socket, sequence, ..Fields::default() }
        .write()
}

/// A listener's answer to an induction.
pub fn induction_response(caller: u32, cookie: u32) -> Vec<u8> {
    Fields {
        destination: caller,
        extension: MAGIC,
        kind: INDUCTION,
        socket: caller,
        cookie,
        ..Fields::default()
    }
    .write()
}

/// A conclusion as libsrt writes it: HSREQ and, where given, the stream ID.
pub fn conclusion(socket: u32, sequence: u32, cookie: u32, stream_id: Option<&str>) -> Vec<u8> {
    let extension = if stream_id.is_some() { 5 } else { 1 };
    let mut bytes = Fields { extension, socket, sequence, cookie, ..Fields::default() }.write();
    bytes.extend(hsreq());
    if let Some(stream_id) = stream_id {
        bytes.extend(string_block(5, stream_id.as_bytes()));
    }
    bytes
}

/// HSREQ: version 1.5.1, flags, 120 ms both ways.
pub fn hsreq() -> Vec<u8> {
    vec![0, 1, 0, 3, 0, 1, 5, 1, 0, 0, 0, 0xBF, 0, 120, 0, 120]
}

/// A string extension: each 32-bit word is stored in reverse.
pub fn string_block(kind: u16, text: &[u8]) -> Vec<u8> {
    let words = text.len().div_ceil(4);
    let mut block = kind.to_be_bytes().to_vec();
    block.extend((words as u16).to_be_bytes());
    for chunk in text.chunks(4) {
        let mut word = [0; 4];
        word[..chunk.len()].copy_from_slice(chunk);
        word.reverse();
        block.extend(word);
    }
    block
}

/// A listener's conclusion response: HSRSP.
pub fn conclusion_response(caller: u32, listener: u32, cookie: u32, timestamp: u32) -> Vec<u8> {
    let fields = Fields {
        timestamp,
        destination: caller,
        extension: 1,
        socket: listener,
        cookie,
        ..Fields::default()
    };
    let mut bytes = fields.write();
    bytes.extend([0, 2, 0, 3, 0, 1, 5, 1, 0, 0, 0, 0xBF, 0, 120, 0, 120]);
    bytes
}

pub fn rejection(caller: u32, code: u32) -> Vec<u8> {
    Fields { destination: caller, kind: code, ..Fields::default() }.write()
}

pub fn data(destination: u32, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = sequence.to_be_bytes().to_vec();
    bytes.extend([0xC0, 0, 0, 1, 0, 0, 0, 0]);
    bytes.extend(destination.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A control packet without content, as libsrt pads it.
pub fn control(kind: u16, destination: u32) -> Vec<u8> {
    let mut bytes = (0x8000 | kind).to_be_bytes().to_vec();
    bytes.extend([0; 10]);
    bytes.extend(destination.to_be_bytes());
    bytes.extend([0; 4]);
    bytes
}

pub fn keepalive(destination: u32) -> Vec<u8> {
    control(1, destination)
}

pub fn shutdown(destination: u32) -> Vec<u8> {
    control(5, destination)
}
