//! The client: sends calls, never fails, and keeps what came of each as an exchange.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::{error::Error, io, time::Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request as HttpRequest, Response as HttpResponse, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{task::JoinHandle, time::timeout_at};
use verdict::history::{Body, EXCHANGE_HEADER, Ended, Exchange, Outcome, Request, Response};

use crate::call::{Abandon, Call};
use crate::tap::{Seen, Tap};
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
    kept: Option<Mutex<Vec<Connection>>>,
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

struct Connection {
    sender: Sender,
    seen: Arc<Seen>,
    driver: JoinHandle<()>,
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

/// What was attempted, as it fits after "failed to", and the error.
type Failure = (&'static str, String);

const BUILD: &str = "build the request";
const CONNECT: &str = "connect";
const SEND: &str = "send";
const HEAD: &str = "read the response head";

impl Client {
    /// A client whose stage opens now. It makes a new connection for each call.
    pub fn new(dial: Arc<dyn Dial>, id_prefix: impl Into<String>) -> Self {
        Self::build(dial, id_prefix.into(), Instant::now(), None)
    }

    /// The same, for a stage that opened before: times count from `opened`.
    pub fn opened_at(dial: Arc<dyn Dial>, id_prefix: impl Into<String>, opened: Instant) -> Self {
        Self::build(dial, id_prefix.into(), opened, None)
    }

    /// A client that keeps its connections: a call takes an idle one where there is one, as gateways' clients do. Calls
    /// that are sent one after the other share one connection.
    pub fn keeping_connections(dial: Arc<dyn Dial>, id_prefix: impl Into<String>) -> Self {
        Self::build(dial, id_prefix.into(), Instant::now(), Some(Mutex::default()))
    }

    fn build(dial: Arc<dyn Dial>, id_prefix: String, opened: Instant, kept: Option<Mutex<Vec<Connection>>>) -> Self {
        Self(Arc::new(Shared { dial, id_prefix, opened, sent: AtomicU64::new(0), kept }))
    }

    pub fn describe(&self) -> String {
        self.0.dial.describe()
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
        let id = format!("{}-{}", self.0.id_prefix, self.0.sent.fetch_add(1, Ordering::Relaxed));
        let host = call.host.clone().unwrap_or_else(|| self.describe());
        let payload = call.payload();
        let headers = headers(&call, &id, payload.len());
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
            connection: None,
        };
        exchange.outcome = match build(&call, &host, &headers, payload) {
            Err(error) => Outcome::Failed { stage: BUILD.to_owned(), error },
            Ok(request) => match self.converse(&call, request, &mut exchange.sent_ms, &mut gate).await {
                Err((stage, error)) => Outcome::Failed { stage: stage.to_owned(), error },
                Ok(response) => Outcome::Response(response),
            },
        };
        exchange
    }

    async fn converse<F: Future<Output = Next>>(
        &self,
        call: &Call,
        request: HttpRequest<Full<Bytes>>,
        sent_ms: &mut f64,
        gate: &mut impl FnMut(Arrived) -> F,
    ) -> Result<Response, Failure> {
        let deadline = tokio::time::Instant::now() + call.timeout;
        let late = |stage| (stage, format!("nothing within {:?}", call.timeout));
        let mut connection = loop {
            let Some(mut idle) = self.idle() else {
                break timeout_at(deadline, self.connect(call.http2)).await.map_err(|_elapsed| late(CONNECT))??;
            };
            if idle.usable(call.http2).await {
                break idle;
            }
        };
        connection.seen.forget();
        let sent = Instant::now();
        *sent_ms = millis(self.0.opened, sent);
        let response = match timeout_at(deadline, connection.send(request)).await {
            Err(_elapsed) => return Err(late(HEAD)),
            Ok(Err(error)) => return Err((failed_stage(&error), words(&error))),
            Ok(Ok(response)) => response,
        };
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
        if let (Ended::Complete, Some(kept)) = (reply.ended, &self.0.kept) {
            kept.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
        Ok(Response { body: Body::of(&bytes), end_ms: millis(sent, Instant::now()), ..reply })
    }

    fn idle(&self) -> Option<Connection> {
        self.0.kept.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    async fn connect(&self, http2: bool) -> Result<Connection, Failure> {
        let stream = self.0.dial.dial().await.map_err(|e| (CONNECT, words(&e)))?;
        let (tap, seen) = Tap::on(stream);
        let io = TokioIo::new(tap);
        let (sender, driver) = if http2 {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder.max_header_list_size(MAX_HEAD as u32);
            let (sender, connection) = builder.handshake(io).await.map_err(|e| (CONNECT, words(&e)))?;
            (Sender::Http2(sender), tokio::spawn(async move { drop(connection.await) }))
        } else {
            let mut builder = http1::Builder::new();
            builder.max_buf_size(MAX_HEAD).max_headers(MAX_HEADERS);
            let (sender, connection) = builder.handshake(io).await.map_err(|e| (CONNECT, words(&e)))?;
            (Sender::Http1(sender), tokio::spawn(async move { drop(connection.await) }))
        };
        Ok(Connection { sender, seen, driver })
    }
}

impl Connection {
    async fn usable(&mut self, http2: bool) -> bool {
        match &mut self.sender {
            Sender::Http1(sender) => !http2 && sender.ready().await.is_ok(),
            Sender::Http2(sender) => http2 && sender.ready().await.is_ok(),
        }
    }

    async fn send(&mut self, request: HttpRequest<Full<Bytes>>) -> Result<HttpResponse<Incoming>, hyper::Error> {
        match &mut self.sender {
            Sender::Http1(sender) => sender.send_request(request).await,
            Sender::Http2(sender) => sender.send_request(request).await,
        }
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
fn words(error: &dyn Error) -> String {
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
    use super::*;

    #[test]
    fn sending_can_be_spawned() {
        fn spawnable<T: Send + 'static>(_: T) {}
        let client = Client::new(Arc::new(crate::Tcp::to("127.0.0.1:1")), "t");
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
