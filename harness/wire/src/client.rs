//! The client: sends calls, never fails, and keeps what came of each as an exchange.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{error::Error, io};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request as HttpRequest, Response as HttpResponse, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::time::timeout_at;
use verdict::canary;
use verdict::history::{self, Body, EXCHANGE_HEADER, Ended, Exchange, Outcome, Request, Response};

use crate::call::{Abandon, Call};
use crate::connection::{Connection, Idle, Reuse, leaves_usable, says_close};
use crate::{dial::Dial, redact::redacted_all};

/// Bound on the bytes of a response head over HTTP/1.1, and on what is read ahead.
pub const MAX_HEAD: usize = 64 * 1024;

/// Bound on the number of headers of a response over HTTP/1.1.
pub const MAX_HEADERS: usize = 200;

/// Sends calls to one place, for one stage.
#[derive(Clone)]
pub struct Client(Arc<Shared>);

struct Shared {
    dial: Arc<dyn Dial>,
    id_prefix: String,
    opened: Instant,
    sent: AtomicU64,
    under_way: AtomicU64,
    reuse: Reuse,
    canaries: bool,
    idle: Mutex<Vec<Connection>>,
}

/// A call that is under way, until this is dropped.
struct UnderWay<'c>(&'c Shared);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What has arrived, as told to the gate of [`Client::send_with_gate`].
#[derive(Clone, Debug, PartialEq)]
pub enum Arrived {
    /// The response head, `at_ms` milliseconds after the request was sent.
    Head { status: u16, at_ms: f64 },
    /// A piece of the body, as HTTP framed it (or a part of it where the network cut it); `index` counts from 0.
    Chunk { index: usize, bytes: Bytes, at_ms: f64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Read,
    /// Closes the connection; the response ends as abandoned.
    Leave,
}

/// Why there is no response.
enum Failure {
    /// What was attempted, as it fits after "failed to", and the error.
    Final(&'static str, String),
    /// Nothing came on a connection that was to be usable again: how it broke.
    Broken(String),
}

const BUILD: &str = "build the request";
const CONNECT: &str = "connect";
const SEND: &str = "send";
const HEAD: &str = "read the response head";

impl Client {
    /// A client whose stage opens now. It makes a new connection for each call.
    pub fn new(dial: Arc<dyn Dial>, id_prefix: impl Into<String>) -> Self {
        Self::build(dial, id_prefix.into(), Instant::now(), Reuse::NEVER)
    }

    /// A client for a stage that opened before: times count from `opened`. A connection whose reply said that it can be
    /// used again is, once, by the next call over HTTP/1.1, unless calls overlap; what it showed is in
    /// [`Exchange::connection`].
    pub fn opened_at(dial: Arc<dyn Dial>, id_prefix: impl Into<String>, opened: Instant) -> Self {
        Self::build(dial, id_prefix.into(), opened, Reuse::ONCE)
    }

    /// A client that keeps its connections: a call takes an idle one where there is one, as gateways' clients do. Calls
    /// that are sent one after the other share one connection.
    pub fn keeping_connections(dial: Arc<dyn Dial>, id_prefix: impl Into<String>) -> Self {
        Self::build(dial, id_prefix.into(), Instant::now(), Reuse::ALWAYS)
    }

    fn build(dial: Arc<dyn Dial>, id_prefix: String, opened: Instant, reuse: Reuse) -> Self {
        let (sent, under_way, idle) = (AtomicU64::new(0), AtomicU64::new(0), Mutex::default());
        Self(Arc::new(Shared { dial, id_prefix, opened, sent, under_way, reuse, canaries: false, idle }))
    }

    /// The same, before its first call: each has the canaries of its exchange ([`canary`]).
    pub fn with_canaries(mut self) -> Self {
        if let Some(shared) = Arc::get_mut(&mut self.0) {
            shared.canaries = true;
        }
        self
    }

    pub fn describe(&self) -> String {
        self.0.dial.describe()
    }

    /// How many requests it has begun to send.
    pub fn sent(&self) -> u64 {
        self.0.sent.load(Ordering::Relaxed)
    }

    pub fn now_ms(&self) -> f64 {
        millis(self.0.opened, Instant::now())
    }

    /// Sends a call. What fails is in the outcome.
    pub async fn send(&self, label: &str, call: Call) -> Exchange {
        self.send_with_gate(label, call, async |_arrived| Next::Read).await
    }

    /// Sends a call, and waits for `gate` after the head and after each piece of the body before it reads on.
    pub async fn send_with_gate<F>(&self, label: &str, call: Call, mut gate: impl FnMut(Arrived) -> F) -> Exchange
    where
        F: Future<Output = Next>,
    {
        let others = self.0.under_way.fetch_add(1, Ordering::Relaxed);
        let _under_way = UnderWay(&self.0);
        let deadline = tokio::time::Instant::now() + call.timeout;
        let host = call.host.clone().unwrap_or_else(|| self.describe());
        let mut connection = None;
        loop {
            let number = self.0.sent.fetch_add(1, Ordering::Relaxed);
            let id = format!("{}-{number}", self.0.id_prefix);
            let members = (self.0.canaries && call.bears_canaries()).then(|| canary::members(&id));
            let payload = call.payload(members.as_deref());
            let mut headers = headers(&call, &id, payload.len());
            if self.0.canaries {
                let canaries = canary::headers(canary::Side::Request, &id).into_iter();
                headers.extend(canaries.map(|(name, value)| (name, value.into_bytes())));
            }
            let mut exchange = Exchange {
                id,
                label: label.to_owned(),
                sent_ms: self.now_ms(),
                request: Request {
                    method: call.method.clone(),
                    target: call.target.clone(),
                    host: host.clone(),
                    headers: redacted_all(headers.clone()),
                    body: Body::of(&payload),
                },
                outcome: Outcome::Failed { stage: BUILD.to_owned(), error: String::new() },
                connection,
            };
            let overlaps = || others > 0 || self.0.sent.load(Ordering::Relaxed) > number + 1;
            let answered = match build(&call, &host, &headers, payload) {
                Err(error) => Err(Failure::Final(BUILD, error)),
                Ok(request) => self.converse(&call, request, &mut exchange, deadline, overlaps, &mut gate).await,
            };
            exchange.outcome = match answered {
                Ok(response) => Outcome::Response(response),
                Err(Failure::Final(stage, error)) => Outcome::Failed { stage: stage.to_owned(), error },
                Err(Failure::Broken(how)) => {
                    let after = exchange.connection.and_then(|connection| connection.after);
                    let (broke, tried) = (Some(how), Some(exchange.id));
                    connection = Some(history::Connection { after, broke, tried, ..history::Connection::default() });
                    continue;
                }
            };
            return exchange;
        }
    }

    async fn converse<F: Future<Output = Next>>(
        &self,
        call: &Call,
        request: HttpRequest<Full<Bytes>>,
        exchange: &mut Exchange,
        deadline: tokio::time::Instant,
        overlaps: impl Fn() -> bool,
        gate: &mut impl FnMut(Arrived) -> F,
    ) -> Result<Response, Failure> {
        let late = |stage| Failure::Final(stage, format!("nothing within {:?}", call.timeout));
        let idle = if exchange.connection.is_none() && !(self.0.reuse.alone && (overlaps() || call.http2)) {
            self.idle(call.http2, deadline, &mut exchange.connection).await
        } else {
            None // one that was tried broke, or none may be tried
        };
        let mut connection = match idle {
            Some(idle) => idle,
            None => timeout_at(deadline, self.connect(call.http2)).await.map_err(|_elapsed| late(CONNECT))??,
        };
        connection.seen.forget();
        let last_on_it = says_close(request.headers());
        let sent = Instant::now();
        exchange.sent_ms = millis(self.0.opened, sent);
        let response = match timeout_at(deadline, connection.send(request)).await {
            Err(_elapsed) => return Err(late(HEAD)),
            Ok(Err(error)) if connection.last.is_some() && connection.seen.nothing() => {
                return Err(Failure::Broken(format!("failed to {}: {}", failed_stage(&error), words(&error))));
            }
            Ok(Err(error)) => return Err(Failure::Final(failed_stage(&error), words(&error))),
            Ok(Ok(response)) => response,
        };
        let head_asked = call.method == Method::HEAD.as_str();
        let usable = leaves_usable(response.version(), response.status(), response.headers(), head_asked);
        let mut reply = Response {
            status: response.status().as_u16(),
            headers: redacted_all(connection.seen.response_headers(response.headers())),
            body: Body::default(),
            chunks: Vec::new(),
            ended: Ended::Complete,
            head_ms: millis(sent, Instant::now()),
            end_ms: 0.0,
        };
        let mut bytes = Vec::new();
        reply.ended = receive(call, response, sent, deadline, &mut reply, &mut bytes, gate).await;
        let end_ms = millis(sent, Instant::now());
        if reply.ended == Ended::Complete && !call.http2 {
            let surplus = connection.seen.surplus(head_asked);
            let seen = surplus.is_some().then(|| exchange.connection.get_or_insert_default());
            seen.into_iter().for_each(|seen| seen.surplus.clone_from(&surplus));
            let lasts = usable && surplus.is_none() && !last_on_it && connection.lasts(&self.0.reuse);
            if lasts && !(self.0.reuse.alone && overlaps()) {
                connection.last = Some((exchange.id.clone(), Instant::now()));
                self.keep(connection);
            }
        } else if reply.ended == Ended::Complete && connection.lasts(&self.0.reuse) {
            connection.last = Some((exchange.id.clone(), Instant::now()));
            self.keep(connection);
        }
        Ok(Response { body: Body::of(&bytes), end_ms, ..reply })
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps an idle connection for as long as it may be used again.
    fn keep(&self, connection: Connection) {
        self.kept().push(connection);
        let (shared, reuse) = (Arc::downgrade(&self.0), self.0.reuse);
        if reuse.idle < Duration::MAX {
            tokio::spawn(async move {
                tokio::time::sleep(reuse.idle).await;
                if let Some(shared) = shared.upgrade() {
                    Self(shared).kept().retain(|connection| reuse.permits(connection.idle()));
                }
            });
        }
    }

    /// An idle connection that can be used, as far as is known. What it or one that can not showed is in `shown`.
    async fn idle(
        &self,
        http2: bool,
        deadline: tokio::time::Instant,
        shown: &mut Option<history::Connection>,
    ) -> Option<Connection> {
        loop {
            let mut connection = self.kept().pop()?;
            let Some((after, ended)) = connection.last.clone().filter(|_| self.0.reuse.permits(connection.idle()))
            else {
                continue;
            };
            let permitted = ended.checked_add(self.0.reuse.idle).map_or(deadline, tokio::time::Instant::from_std);
            let state = connection.state(http2, permitted.min(deadline)).await;
            let seen = history::Connection { after: Some(after), ..history::Connection::default() };
            match state {
                Idle::Usable => {
                    shown.get_or_insert(history::Connection { reused: true, ..seen });
                    return Some(connection);
                }
                Idle::Broken(how) => {
                    *shown = Some(history::Connection { broke: Some(how), ..seen });
                    return None;
                }
                Idle::Unknown => {}
            }
        }
    }

    async fn connect(&self, http2: bool) -> Result<Connection, Failure> {
        let stream = self.0.dial.dial().await.map_err(|e| Failure::Final(CONNECT, words(&e)))?;
        Connection::on(stream, http2).await.map_err(|e| Failure::Final(CONNECT, words(&e)))
    }
}

/// Reads the body until it ends, a bound is reached or the client leaves.
async fn receive<F: Future<Output = Next>>(
    call: &Call,
    response: HttpResponse<Incoming>,
    sent: Instant,
    deadline: tokio::time::Instant,
    reply: &mut Response,
    body: &mut Vec<u8>,
    gate: &mut impl FnMut(Arrived) -> F,
) -> Ended {
    let head = gate(Arrived::Head { status: reply.status, at_ms: reply.head_ms }).await;
    if head == Next::Leave || call.abandon == Some(Abandon::Head) {
        return Ended::Abandoned;
    }
    let mut frames = response.into_body();
    loop {
        let bytes = match timeout_at(deadline, frames.frame()).await {
            Err(_elapsed) => return Ended::Bounded,
            Ok(None) => return Ended::Complete,
            Ok(Some(Err(_broken))) => return Ended::Truncated,
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(bytes) => bytes,
                Err(_trailers) => continue,
            },
        };
        let at_ms = millis(sent, Instant::now());
        let room = usize::try_from(call.max_bytes).unwrap_or(usize::MAX).saturating_sub(body.len());
        let taken = bytes.slice(..bytes.len().min(room));
        body.extend_from_slice(&taken);
        reply.chunks.push((at_ms, taken.len() as u64));
        if taken.len() < bytes.len() {
            return Ended::Bounded;
        }
        let next = gate(Arrived::Chunk { index: reply.chunks.len() - 1, bytes, at_ms }).await;
        let leave = match call.abandon {
            Some(Abandon::Chunks(n)) => reply.chunks.len() >= n,
            Some(Abandon::Bytes(n)) => body.len() as u64 >= n,
            Some(Abandon::Head) | None => false,
        };
        if next == Next::Leave || leave {
            return Ended::Abandoned;
        }
    }
}

/// All headers but Host, in order of sending.
fn headers(call: &Call, id: &str, length: usize) -> Vec<(String, Vec<u8>)> {
    let given = |name: &str| call.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
    // lower case, as both versions are written on the wire here
    let mut headers: Vec<_> = call.headers.iter().map(|(n, v)| (n.to_ascii_lowercase(), v.clone())).collect();
    if let (Some(content_type), false) = (&call.content_type, given("content-type")) {
        headers.push(("content-type".to_owned(), content_type.clone().into_bytes()));
    }
    if !given(EXCHANGE_HEADER) {
        headers.push((EXCHANGE_HEADER.to_owned(), id.as_bytes().to_vec()));
    }
    let sends_body = length > 0 || ["POST", "PUT", "PATCH"].contains(&call.method.as_str());
    if sends_body && !given("content-length") && !given("transfer-encoding") {
        headers.push(("content-length".to_owned(), length.to_string().into_bytes()));
    }
    headers
}

fn build(
    call: &Call,
    host: &str,
    headers: &[(String, Vec<u8>)],
    payload: Bytes,
) -> Result<HttpRequest<Full<Bytes>>, String> {
    let target = if call.http2 { format!("http://{host}{}", call.target) } else { call.target.clone() };
    let uri: Uri = target.parse().map_err(|e| format!("target {target:?}: {e}"))?;
    let method = Method::from_bytes(call.method.as_bytes()).map_err(|e| format!("method {:?}: {e}", call.method))?;
    let mut map = HeaderMap::new();
    if !call.http2 {
        map.append(header::HOST, HeaderValue::from_str(host).map_err(|e| format!("host {host:?}: {e}"))?);
    }
    for (name, value) in headers {
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|e| format!("header name {name:?}: {e}"))?;
        map.append(key, HeaderValue::from_bytes(value).map_err(|e| format!("value of header {name}: {e}"))?);
    }
    let mut request = HttpRequest::new(Full::new(payload));
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = map;
    Ok(request)
}

fn failed_stage(error: &hyper::Error) -> &'static str {
    let broken_pipe = error
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>())
        .is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe);
    if broken_pipe || error.is_user() || error.is_body_write_aborted() { SEND } else { HEAD }
}

/// An error and its causes on one line.
pub(crate) fn words(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_words = cause.to_string();
        if !words.ends_with(&cause_words) {
            words = format!("{words}: {cause_words}");
        }
        source = cause.source();
    }
    words
}

fn millis(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64() * 1_000.0
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[rstest]
    #[case::in_time(Duration::from_secs(3600), true)]
    #[case::too_late(Duration::ZERO, false)]
    #[tokio::test]
    async fn a_connection_that_was_idle_for_too_long_is_not_used_again(#[case] idle: Duration, #[case] reused: bool) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (mut stream, _peer) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    while stream.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {
                        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
                    }
                });
            }
        });
        let reuse = Reuse { idle, ..Reuse::ONCE };
        let client = Client::build(Arc::new(crate::Tcp::to(address)), "t".into(), Instant::now(), reuse);
        client.send("x", Call::get("/")).await;
        let second = client.send("x", Call::get("/")).await;
        assert_eq!(second.connection.is_some_and(|connection| connection.reused), reused);
    }

    #[test]
    fn sending_can_be_spawned() {
        fn spawnable<T: Send + 'static>(_: T) {}
        let client = Client::opened_at(Arc::new(crate::Tcp::to("127.0.0.1:1")), "t", Instant::now());
        let other = client.clone();
        spawnable(async move { other.send("x", Call::get("/")).await });
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        spawnable(async move {
            let pass = |_arrived| {
                let gate = Arc::clone(&gate);
                async move {
                    drop(gate.acquire().await);
                    Next::Read
                }
            };
            client.send_with_gate("x", Call::get("/"), pass).await
        });
    }
}
