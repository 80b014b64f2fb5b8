//! A tap on a byte stream: HTTP libraries forget the case and order of headers; a tap still has the bytes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::{io, pin::Pin};

use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

/// How many of the bytes that were read are kept for [`Seen::request_headers`] and [`Seen::response_headers`].
const KEPT: usize = 128 * 1024;

/// How many surplus bytes are shown.
const SHOWN: usize = 120;

/// How many headers a head may have to be taken apart.
const HEADERS: usize = 256;

/// Headers in the order and spelling of the wire, values as bytes.
pub type RawHeaders = Vec<(String, Vec<u8>)>;

/// A stream, and what was seen to pass through it.
pub struct Tap<S> {
    stream: S,
    seen: Arc<Seen>,
}

/// What passed through a [`Tap`].
#[derive(Debug)]
pub struct Seen {
    read: Mutex<Read>,
    flushes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Read {
    /// The first [`KEPT`] bytes.
    kept: Vec<u8>,
    bytes: u64,
}

impl<S> Tap<S> {
    pub fn on(stream: S) -> (Self, Arc<Seen>) {
        let seen = Arc::new(Seen { read: Mutex::default(), flushes: watch::Sender::new(0) });
        (Self { stream, seen: Arc::clone(&seen) }, seen)
    }
}

impl Seen {
    fn read(&self) -> MutexGuard<'_, Read> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what was read so far: the next byte is expected to begin a head.
    pub fn forget(&self) {
        *self.read() = Read::default();
    }

    /// Whether nothing was read since.
    pub fn nothing(&self) -> bool {
        self.read().bytes == 0
    }

    pub fn flushes(&self) -> u64 {
        *self.flushes.borrow()
    }

    /// Completes when everything that was written before the call has been handed to the operating system.
    pub fn flushed_after(&self, flushes: u64) -> impl Future<Output = ()> + Send + use<> {
        let mut watched = self.flushes.subscribe();
        async move {
            let _closed = watched.wait_for(|now| *now > flushes).await;
        }
    }

    /// The headers of the request head that was read last, if they are those that HTTP understood.
    pub fn request_headers(&self, understood: &HeaderMap) -> RawHeaders {
        let bytes = &self.read().kept;
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        let whole = matches!(request.parse(bytes), Ok(httparse::Status::Complete(_)));
        let raw = whole.then(|| raw(request.headers));
        raw.filter(|raw| same(raw, understood)).unwrap_or_else(|| fallback(understood))
    }

    /// The headers of the response head that was read last (interim responses left out), if they are those that
    /// HTTP understood.
    pub fn response_headers(&self, understood: &HeaderMap) -> RawHeaders {
        let read = self.read();
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let raw = head(&read.kept, &mut headers).map(|(_, response)| raw(response.headers));
        raw.filter(|raw| same(raw, understood)).unwrap_or_else(|| fallback(understood))
    }

    /// What was read after the end that its framing gives to the response that was read last: how many bytes, and the
    /// first of them. Nothing where its end is that of the connection, or where it is too long to be looked through.
    pub fn surplus(&self, head_asked: bool) -> Option<String> {
        let read = self.read();
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let (body, response) = head(&read.kept, &mut headers)?;
        let values = |name: &str| {
            let named = response.headers.iter().filter(move |h| h.name.eq_ignore_ascii_case(name));
            named.filter_map(|h| std::str::from_utf8(h.value).ok()).next_back().map(str::trim)
        };
        let end = if head_asked || matches!(response.code?, 204 | 304) {
            body as u64
        } else if let Some(codings) = values("transfer-encoding") {
            let chunked = codings.to_ascii_lowercase().ends_with("chunked");
            chunked.then(|| end_of_chunks(&read.kept, body)).flatten()? as u64
        } else {
            body as u64 + values("content-length")?.parse::<u64>().ok()?
        };
        let surplus = read.bytes.checked_sub(end).filter(|surplus| *surplus > 0)?;
        let kept = usize::try_from(end).ok().and_then(|end| read.kept.get(end..)).unwrap_or_default();
        let shown = String::from_utf8_lossy(&kept[..kept.len().min(SHOWN)]);
        Some(format!("{surplus} bytes after the end of the reply: {shown:?}"))
    }
}

/// The head of the response (interim ones are passed over) that these bytes begin with, and where its body begins.
fn head<'h, 'b>(
    bytes: &'b [u8],
    headers: &'h mut [httparse::Header<'b>; HEADERS],
) -> Option<(usize, httparse::Response<'h, 'b>)> {
    let mut from = 0;
    loop {
        let mut interim = [httparse::EMPTY_HEADER; HEADERS];
        let mut response = httparse::Response::new(&mut interim);
        let Ok(httparse::Status::Complete(length)) = response.parse(bytes.get(from..)?) else { return None };
        if !response.code.is_some_and(|code| (100..200).contains(&code) && code != 101) {
            break;
        }
        from += length;
    }
    let mut response = httparse::Response::new(headers);
    let Ok(httparse::Status::Complete(length)) = response.parse(bytes.get(from..)?) else { return None };
    Some((from + length, response))
}

/// Where a body in chunks that begins at `from` ends, its trailers included.
fn end_of_chunks(bytes: &[u8], mut from: usize) -> Option<usize> {
    loop {
        let Ok(httparse::Status::Complete((line, size))) = httparse::parse_chunk_size(bytes.get(from..)?) else {
            return None;
        };
        from += line;
        if size == 0 {
            let mut trailers = [httparse::EMPTY_HEADER; HEADERS];
            let Ok(httparse::Status::Complete((length, _))) =
                httparse::parse_headers(bytes.get(from..)?, &mut trailers)
            else {
                return None;
            };
            return Some(from + length);
        }
        from = from.checked_add(usize::try_from(size).ok()?)?.checked_add(2)?;
    }
}

fn raw(headers: &[httparse::Header<'_>]) -> RawHeaders {
    headers.iter().map(|h| (h.name.to_owned(), h.value.trim_ascii().to_vec())).collect()
}

/// Whether each name has the same values in the same order.
fn same(raw: &RawHeaders, understood: &HeaderMap) -> bool {
    raw.len() == understood.len()
        && understood.keys().all(|name| {
            let seen = raw.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name.as_str())).map(|(_, v)| v.as_slice());
            seen.eq(understood.get_all(name).iter().map(|v| v.as_bytes()))
        })
}

fn fallback(understood: &HeaderMap) -> RawHeaders {
    understood.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect()
}

impl<S: AsyncRead + Unpin> AsyncRead for Tap<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let mut read = self.seen.read();
        let room = KEPT - read.kept.len();
        let new = &buffer.filled()[before..];
        read.bytes += new.len() as u64;
        read.kept.extend_from_slice(&new[..new.len().min(room)]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tap<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.seen.flushes.send_modify(|n| *n += 1);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
