//! HTTP/2 (RFC 9113), as far as a gRPC client with few streams needs it.

/// What a client says first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What each side may send on a new connection, and on a new stream, before it is told otherwise. Unit: bytes.
pub const WINDOW: u32 = 65_535;

/// The largest window there is. Unit: bytes.
pub const WINDOW_MAX: u32 = (1 << 31) - 1;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;

pub const END_STREAM: u8 = 0x1;
pub const ACK: u8 = 0x1;
pub const END_HEADERS: u8 = 0x4;
pub const PADDED: u8 = 0x8;

pub const SETTING_ENABLE_PUSH: u16 = 2;
pub const SETTING_INITIAL_WINDOW_SIZE: u16 = 4;

/// Bytes before each payload.
pub const HEAD_BYTES: usize = 9;

/// A frame as it came.
pub struct Frame<'a> {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The first frame of `input`; none if it is not complete.
    pub fn read(input: &'a [u8]) -> Option<Self> {
        let (head, rest) = input.split_first_chunk::<HEAD_BYTES>()?;
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = *head;
        let length = u32::from_be_bytes([0, l0, l1, l2]) as usize;
        Some(Self {
            kind,
            flags,
            stream: u32::from_be_bytes([s0, s1, s2, s3]) & 0x7fff_ffff,
            payload: rest.get(..length)?,
        })
    }

    /// How many bytes it takes.
    pub fn len(&self) -> usize {
        HEAD_BYTES + self.payload.len()
    }

    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The payload of DATA without padding.
    pub fn data(&self) -> &'a [u8] {
        if !self.has(PADDED) {
            return self.payload;
        }
        let (padding, data) = self.payload.split_first().unwrap_or((&0, &[]));
        &data[..data.len().saturating_sub((*padding).into())]
    }

    /// The payload as a 32 bit number from `at` on; 0 if it is shorter.
    pub fn number(&self, at: usize) -> u32 {
        let bytes = self.payload.get(at..).and_then(<[u8]>::first_chunk);
        bytes.map_or(0, |bytes| u32::from_be_bytes(*bytes))
    }
}

pub fn push_frame(kind: u8, flags: u8, stream: u32, payload: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(payload.len()).expect("a frame is short");
    out.extend_from_slice(&length.to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

pub fn push_settings(settings: &[(u16, u32)], out: &mut Vec<u8>) {
    let mut payload = Vec::new();
    for (setting, value) in settings {
        payload.extend_from_slice(&setting.to_be_bytes());
        payload.extend_from_slice(&value.to_be_bytes());
    }
    push_frame(SETTINGS, 0, 0, &payload, out);
}

/// Lets the other side send more on a stream, or with 0 on the connection.
pub fn push_window_update(stream: u32, bytes: u32, out: &mut Vec<u8>) {
    push_frame(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes(), out);
}

/// The value of a setting in a SETTINGS frame.
pub fn setting(frame: &Frame<'_>, wanted: u16) -> Option<u32> {
    let mut settings = frame.payload.chunks_exact(6);
    let found = settings.rfind(|entry| entry[..2] == wanted.to_be_bytes())?;
    let value = found.last_chunk().expect("an entry has six bytes");
    Some(u32::from_be_bytes(*value))
}

/// The headers of a gRPC call, in HPACK (RFC 7541) without its dynamic table and Huffman code.
pub fn call_headers(path: &str) -> Vec<u8> {
    let mut block = vec![INDEXED | METHOD_POST, INDEXED | SCHEME_HTTP];
    push_indexed_name(PATH, path, &mut block);
    push_indexed_name(AUTHORITY, "localhost", &mut block);
    push_indexed_name(CONTENT_TYPE, "application/grpc", &mut block);
    block.push(NEW_NAME);
    push_string("te", &mut block);
    push_string("trailers", &mut block);
    block
}

const INDEXED: u8 = 0x80;
const NEW_NAME: u8 = 0;
// Places in HPACK's static table.
const AUTHORITY: u8 = 1;
const METHOD_POST: u8 = 3;
const PATH: u8 = 4;
const SCHEME_HTTP: u8 = 6;
const CONTENT_TYPE: u8 = 31;

/// A header that is not to be indexed, with its name from the static table.
fn push_indexed_name(name: u8, value: &str, block: &mut Vec<u8>) {
    /// The most that fits in four bits; the rest follows.
    const PREFIX: u8 = 15;
    match name.checked_sub(PREFIX) {
        None => block.push(name),
        Some(rest) => block.extend_from_slice(&[PREFIX, rest]),
    }
    push_string(value, block);
}

fn push_string(string: &str, block: &mut Vec<u8>) {
    let length = u8::try_from(string.len())
        .ok()
        .filter(|length| *length < 127);
    block.push(length.expect("headers here are short"));
    block.extend_from_slice(string.as_bytes());
}
