//! Frames of SPDY/3.1, as much of it as streams of kubectl need (draft-mbelshe-httpbis-spdy-00, section 2). Windows are
//! not kept: kubectl's library has none either.

use std::io;

use flate2::{Decompress, FlushDecompress};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::dictionary;

/// The longest frame that is read; kubectl's own are of 32 KiB.
const LONGEST: usize = 1 << 20;
const HEADERS: usize = 1 << 16;
/// The bit that tells control frames from data.
const CONTROL: u32 = 1 << 31;
const VERSION: u32 = 3;
/// The flag of the last frame of a stream.
const FIN: u8 = 1;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADER_BLOCK: u16 = 8;

/// Names in lower case, and values.
pub(super) type Headers = Vec<(String, String)>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// The client opens a stream.
    Open { stream: u32, headers: Headers },
    /// Bytes on a stream, and whether they are the last ones.
    Data { stream: u32, bytes: Vec<u8>, last: bool },
    /// The client wants no more of a stream.
    Reset(u32),
    /// The client wants an echo.
    Ping(u32),
    /// The client leaves.
    GoAway,
}

pub(super) struct FrameReader<R> {
    from: R,
    headers: Inflater,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(super) fn of(from: R) -> Self {
        Self { from, headers: Inflater::new() }
    }

    /// The next frame that means something here; an error where the client leaves or says what is not SPDY.
    pub(super) async fn next(&mut self) -> io::Result<Frame> {
        loop {
            let head = self.from.read_u32().await?;
            let flags_and_length = self.from.read_u32().await?;
            let (flags, length) = ((flags_and_length >> 24) as u8, (flags_and_length & 0xff_ffff) as usize);
            if length > LONGEST {
                return Err(malformed(format!("a frame of {length} bytes")));
            }
            let mut payload = vec![0; length];
            self.from.read_exact(&mut payload).await?;
            if head & CONTROL == 0 {
                return Ok(Frame::Data { stream: head, bytes: payload, last: flags & FIN != 0 });
            }
            let (version, kind) = ((head & !CONTROL) >> 16, (head & 0xffff) as u16);
            if version != VERSION {
                return Err(malformed(format!("version {version}")));
            }
            match kind {
                SYN_STREAM => {
                    let block = payload.get(10..).ok_or_else(|| malformed("a short SYN_STREAM"))?;
                    let headers = header_block(&self.headers.inflate(block)?)?;
                    return Ok(Frame::Open { stream: number(&payload, 0)? & !CONTROL, headers });
                }
                RST_STREAM => return Ok(Frame::Reset(number(&payload, 0)? & !CONTROL)),
                PING => return Ok(Frame::Ping(number(&payload, 0)?)),
                GOAWAY => return Ok(Frame::GoAway),
                // All blocks of headers are one compressed stream: those that nobody needs are read too.
                SYN_REPLY | HEADER_BLOCK => drop(self.headers.inflate(payload.get(4..).unwrap_or_default())?),
                _ => {} // settings and windows
            }
        }
    }
}

fn malformed(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

fn number(bytes: &[u8], at: usize) -> io::Result<u32> {
    let four = bytes.get(at..at + 4).and_then(|four| four.try_into().ok());
    four.map(u32::from_be_bytes).ok_or_else(|| malformed("a frame that ends too early"))
}

/// A count, then names and values, each after its length.
fn header_block(block: &[u8]) -> io::Result<Headers> {
    let mut at = 4;
    let mut text = || {
        let length = number(block, at)? as usize;
        let bytes = block.get(at + 4..).and_then(|rest| rest.get(..length));
        at += 4 + length;
        bytes
            .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
            .ok_or_else(|| malformed("headers that end too early"))
    };
    // Each takes bytes of a block that is bounded, so that a wrong count ends soon.
    (0..number(block, 0)?).map(|_| Ok((text()?.to_ascii_lowercase(), text()?))).collect()
}

/// The one compressed stream that all blocks of headers of a connection are.
struct Inflater {
    /// Of the bytes behind zlib's own header.
    inflate: Decompress,
    begun: bool,
}

impl Inflater {
    fn new() -> Self {
        Self { inflate: Decompress::new(false), begun: false }
    }

    fn inflate(&mut self, mut block: &[u8]) -> io::Result<Vec<u8>> {
        if !self.begun {
            self.begun = true;
            block = self.begin(block)?;
        }
        self.run(block)
    }

    /// Reads zlib's header (RFC 1950). A dictionary is what the stream may look back on: it goes in as if it had been sent,
    /// as one stored block (RFC 1951, section 3.2.4).
    fn begin<'b>(&mut self, block: &'b [u8]) -> io::Result<&'b [u8]> {
        let [_, flags, rest @ ..] = block else { return Err(malformed("headers without zlib's own")) };
        if flags & 0x20 == 0 {
            return Ok(rest);
        }
        if number(rest, 0)? != dictionary::ID {
            return Err(malformed("headers with another dictionary"));
        }
        let dictionary = dictionary::bytes();
        let mut stored = stored_block(&dictionary);
        stored.extend_from_slice(&dictionary);
        self.run(&stored)?;
        Ok(&rest[4..])
    }

    fn run(&mut self, mut block: &[u8]) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let (read, written) = (self.inflate.total_in(), self.inflate.total_out());
            self.inflate
                .decompress(block, &mut buffer, FlushDecompress::Sync)
                .map_err(|error| malformed(format!("headers: {error}")))?;
            let read = (self.inflate.total_in() - read) as usize;
            let written = (self.inflate.total_out() - written) as usize;
            block = &block[read..];
            plain.extend_from_slice(&buffer[..written]);
            if plain.len() > HEADERS {
                return Err(malformed("too many headers"));
            }
            if read == 0 && written == 0 {
                return if block.is_empty() { Ok(plain) } else { Err(malformed("headers behind their end")) };
            }
        }
    }
}

/// The head of a stored block that is not the last one.
fn stored_block(bytes: &[u8]) -> Vec<u8> {
    let length = bytes.len() as u16; // the dictionary and an empty block of headers
    let mut block = vec![0];
    block.extend_from_slice(&length.to_le_bytes());
    block.extend_from_slice(&(!length).to_le_bytes());
    block
}

#[derive(Debug, Default)]
pub(super) struct FrameWriter {
    begun: bool,
}

impl FrameWriter {
    /// Takes a stream that the client opened: no headers, in a block that is stored and flushed.
    pub(super) fn reply(&mut self, stream: u32) -> Vec<u8> {
        let mut payload = stream.to_be_bytes().to_vec();
        if !std::mem::replace(&mut self.begun, true) {
            payload.extend_from_slice(&[0x78, 0x01]);
        }
        let none = 0_u32.to_be_bytes();
        payload.extend_from_slice(&stored_block(&none));
        payload.extend_from_slice(&none);
        payload.extend_from_slice(&stored_block(&[]));
        control(SYN_REPLY, &payload)
    }
}

pub(super) fn data(stream: u32, bytes: &[u8], last: bool) -> Vec<u8> {
    let flags = if last { FIN } else { 0 };
    frame(stream, flags, bytes)
}

pub(super) fn ping(number: u32) -> Vec<u8> {
    control(PING, &number.to_be_bytes())
}

pub(super) fn refuse(stream: u32) -> Vec<u8> {
    const REFUSED_STREAM: u32 = 3;
    control(RST_STREAM, &[stream.to_be_bytes(), REFUSED_STREAM.to_be_bytes()].concat())
}

fn control(kind: u16, payload: &[u8]) -> Vec<u8> {
    frame(CONTROL | VERSION << 16 | u32::from(kind), 0, payload)
}

fn frame(head: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(8 + payload.len());
    frame.extend_from_slice(&head.to_be_bytes());
    frame.extend_from_slice(&(u32::from(flags) << 24 | payload.len() as u32).to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    /// The first frame of kubectl v1.34.10 on a connection, with the headers of an error stream.
    const FIRST: &str = "800300010000003e0000000100000000000078f9e3c6a7c202253a060606ce2248fc6482d22da30138e59514a526e642\
                         0b17d65450d0430aea22709eb030b03000000000ffff";

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect()
    }

    async fn all(bytes: &[u8]) -> (Vec<Frame>, io::ErrorKind) {
        let (mut frames, mut seen) = (FrameReader::of(bytes), Vec::new());
        loop {
            match frames.next().await {
                Ok(frame) => seen.push(frame),
                Err(error) => return (seen, error.kind()),
            }
        }
    }

    #[tokio::test]
    async fn the_first_words_of_kubectl_are_understood() {
        let (frames, end) = all(&bytes(FIRST)).await;
        let headers = [("requestid", "0"), ("streamtype", "error"), ("port", "8080")];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        assert_eq!(frames, [Frame::Open { stream: 1, headers }]);
        assert_eq!(end, io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn replies_are_one_compressed_stream() {
        let mut writer = FrameWriter::default();
        let mut said = [writer.reply(1), writer.reply(3), data(3, b"x", false), data(3, b"", true), ping(7)].concat();
        said.extend(refuse(5));
        let (frames, end) = all(&said).await;
        let data = |text: &[u8], last| Frame::Data { stream: 3, bytes: text.to_vec(), last };
        assert_eq!(frames, [data(b"x", false), data(b"", true), Frame::Ping(7), Frame::Reset(5)]);
        assert_eq!(end, io::ErrorKind::UnexpectedEof);
    }

    #[rstest]
    #[case::other_version("800200060000000400000001", io::ErrorKind::InvalidData)]
    #[case::too_long("0000000100ffffff", io::ErrorKind::InvalidData)]
    #[case::short_open("8003000100000004000000ff", io::ErrorKind::InvalidData)]
    #[case::short_ping("8003000600000000", io::ErrorKind::InvalidData)]
    #[case::other_dictionary("800300010000001000000001000000000000789f00000001", io::ErrorKind::InvalidData)]
    #[case::no_zlib("800300010000000b0000000100000000000000", io::ErrorKind::InvalidData)]
    #[case::cut_off("8003000600000004", io::ErrorKind::UnexpectedEof)]
    #[case::settings_and_windows(
        "80030004000000040000000080030009000000080000000100000001",
        io::ErrorKind::UnexpectedEof
    )]
    #[tokio::test]
    async fn what_is_no_frame_ends_it(#[case] hex: &str, #[case] expected: io::ErrorKind) {
        assert_eq!(all(&bytes(hex)).await, (vec![], expected));
    }

    #[tokio::test]
    async fn headers_have_a_size() {
        // A megabyte of nothing, compressed: a stored block that says so, and copies of it.
        let mut packed = Vec::new();
        let mut compress = flate2::write::ZlibEncoder::new(&mut packed, flate2::Compression::best());
        std::io::Write::write_all(&mut compress, &vec![0; 1 << 20]).unwrap();
        compress.finish().unwrap();
        let payload = [&[0; 10][..], &packed].concat();
        assert_eq!(all(&control(SYN_STREAM, &payload)).await, (vec![], io::ErrorKind::InvalidData));
    }

    proptest! {
        #[test]
        fn any_bytes_end(mut bytes in prop::collection::vec(any::<u8>(), 0..200), begun in any::<bool>()) {
            if begun {
                bytes.splice(0..0, self::bytes(FIRST));
            }
            futures::executor::block_on(all(&bytes));
        }

        #[test]
        fn any_headers_end(block in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = header_block(&block);
            let mut inflater = Inflater::new();
            let _ = (inflater.inflate(&block), inflater.inflate(&block));
        }
    }
}
