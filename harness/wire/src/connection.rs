//! A connection of the client, and when a call may take one that an earlier call has left.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Version, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{task::JoinHandle, time::timeout_at};

use crate::client::{MAX_HEAD, MAX_HEADERS, words};
use crate::dial::Stream;
use crate::tap::{Seen, Tap};

/// How connections are used again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reuse {
    /// Exchanges on one connection.
    pub(crate) exchanges: u32,
    /// How long one may be idle to be used again.
    pub(crate) idle: Duration,
    /// Whether only calls over HTTP/1.1 that no other call overlaps use one again.
    pub(crate) alone: bool,
}

impl Reuse {
    pub(crate) const NEVER: Self = Self { exchanges: 1, idle: Duration::ZERO, alone: true };
    pub(crate) const ALWAYS: Self = Self { exchanges: u32::MAX, idle: Duration::MAX, alone: false };
    /// Shows whether a connection that says that it can be used again can, and leaves nothing idle for longer than any
    /// server closes idle connections in.
    pub(crate) const ONCE: Self = Self { exchanges: 2, idle: Duration::from_millis(500), alone: true };

    pub(crate) fn permits(&self, idle: Duration) -> bool {
        idle < self.idle
    }
}

pub(crate) struct Connection {
    sender: Sender,
    pub(crate) seen: Arc<Seen>,
    driver: JoinHandle<Option<String>>,
    exchanges: u32,
    /// The id of the exchange that was on it last, and when that ended.
    pub(crate) last: Option<(String, Instant)>,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// What became of an idle connection.
pub(crate) enum Idle {
    Usable,
    /// It does not say whether it is usable.
    Unknown,
    /// It can not be used, and why.
    Broken(String),
}

impl Connection {
    pub(crate) async fn on(stream: Box<dyn Stream>, http2: bool) -> hyper::Result<Self> {
        let (tap, seen) = Tap::on(stream);
        let io = TokioIo::new(tap);
        let (sender, driver) = if http2 {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder.max_header_list_size(MAX_HEAD as u32);
            let (sender, connection) = builder.handshake(io).await?;
            (Sender::Http2(sender), tokio::spawn(async move { connection.await.err().map(|e| words(&e)) }))
        } else {
            let mut builder = http1::Builder::new();
            builder.max_buf_size(MAX_HEAD).max_headers(MAX_HEADERS);
            let (sender, connection) = builder.handshake(io).await?;
            (Sender::Http1(sender), tokio::spawn(async move { connection.await.err().map(|e| words(&e)) }))
        };
        Ok(Self { sender, seen, driver, exchanges: 0, last: None })
    }

    /// How long it has been idle.
    pub(crate) fn idle(&self) -> Duration {
        self.last.as_ref().map_or(Duration::ZERO, |(_, ended)| ended.elapsed())
    }

    /// Whether an idle connection of this version can be used, as far as is known before something is sent on it.
    pub(crate) async fn state(&mut self, http2: bool, until: tokio::time::Instant) -> Idle {
        let ready = async {
            match &mut self.sender {
                Sender::Http1(sender) if !http2 => sender.ready().await.is_ok().then_some(Idle::Usable),
                Sender::Http2(sender) if http2 => sender.ready().await.is_ok().then_some(Idle::Usable),
                Sender::Http1(_) | Sender::Http2(_) => Some(Idle::Unknown),
            }
        };
        match timeout_at(until, ready).await {
            Err(_elapsed) => Idle::Unknown, // a request of before is not sent yet
            Ok(Some(state)) => state,
            Ok(None) => {
                let why = (&mut self.driver).await.ok().flatten();
                let closed = "it was closed while it was idle";
                Idle::Broken(self.seen.surplus(false).or(why).unwrap_or_else(|| closed.to_owned()))
            }
        }
    }

    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        self.exchanges += 1;
        match &mut self.sender {
            Sender::Http1(sender) => sender.send_request(request).await,
            Sender::Http2(sender) => sender.send_request(request).await,
        }
    }

    /// Whether another exchange may be on it.
    pub(crate) fn lasts(&self, reuse: &Reuse) -> bool {
        self.exchanges < reuse.exchanges && (!reuse.alone || matches!(self.sender, Sender::Http1(_)))
    }
}

/// Whether a reply over HTTP/1.1 that ended as its framing said leaves the connection usable (RFC 9112, sections 6.3 and 9.3).
pub(crate) fn leaves_usable(version: Version, status: StatusCode, headers: &HeaderMap, head_asked: bool) -> bool {
    let framed = headers.contains_key(header::CONTENT_LENGTH)
        || headers.contains_key(header::TRANSFER_ENCODING)
        || matches!(status.as_u16(), 204 | 304)
        || head_asked;
    version >= Version::HTTP_11 && framed && status != StatusCode::SWITCHING_PROTOCOLS && !says_close(headers)
}

/// Whether one of the options of the header `connection` is `close`.
pub(crate) fn says_close(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|option| option.trim().eq_ignore_ascii_case("close"))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::at_once(0, true)]
    #[case::just_in_time(499, true)]
    #[case::too_late(500, false)]
    fn a_connection_is_used_again_for_a_short_time(#[case] idle_ms: u64, #[case] permitted: bool) {
        assert_eq!(Reuse::ONCE.permits(Duration::from_millis(idle_ms)), permitted);
    }

    #[rstest]
    #[case::length(Version::HTTP_11, 200, "content-length: 3", false, true)]
    #[case::chunked(Version::HTTP_11, 200, "transfer-encoding: chunked", false, true)]
    #[case::no_content(Version::HTTP_11, 204, "x: y", false, true)]
    #[case::head(Version::HTTP_11, 200, "x: y", true, true)]
    #[case::until_the_end_of_the_connection(Version::HTTP_11, 200, "x: y", false, false)]
    #[case::says_close(Version::HTTP_11, 204, "connection: x, Close", false, false)]
    #[case::says_something_else(Version::HTTP_11, 204, "connection: closed", false, true)]
    #[case::switched(Version::HTTP_11, 101, "content-length: 0", false, false)]
    #[case::old(Version::HTTP_10, 200, "content-length: 3", false, false)]
    fn what_a_reply_says_of_its_connection(
        #[case] version: Version,
        #[case] status: u16,
        #[case] line: &'static str,
        #[case] head_asked: bool,
        #[case] usable: bool,
    ) {
        let (name, value) = line.split_once(": ").unwrap();
        let headers = HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())]);
        assert_eq!(leaves_usable(version, StatusCode::from_u16(status).unwrap(), &headers, head_asked), usable);
    }
}
