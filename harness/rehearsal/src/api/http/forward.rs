//! Port forwarding over a WebSocket, as the kube client does it (`v4.channel.k8s.io`): two channels a port, one for
//! bytes and one for errors, each opened by a frame that names the port.
//!
//! kubectl forwards over SPDY, which is not spoken here.

use std::net::SocketAddr;

use bytes::Bytes;
use futures::stream::SplitSink;
use futures::{SinkExt, StreamExt};
use http::header::{CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Message, Role};

use super::Hooks;
use super::answer::{self, Answer};
use super::proxy::pod_address;
use super::request::{Query, Target};
use crate::api::failure::Failure;
use crate::api::store::Store;

const PROTOCOL: &str = "v4.channel.k8s.io";
/// More ports in one request are refused.
const MOST_PORTS: usize = 64;

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Answers with the upgrade and forwards when it is done.
pub(super) fn start(
    store: &Store,
    hooks: &Hooks,
    target: &Target,
    query: &Query,
    mut request: Request<Incoming>,
) -> Result<Answer, Failure> {
    let headers = request.headers();
    let said = |name| headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok()).unwrap_or("");
    let speaks = said(SEC_WEBSOCKET_PROTOCOL).split(',').any(|p| p.trim() == PROTOCOL);
    if !said(UPGRADE).eq_ignore_ascii_case("websocket") || !speaks {
        return Err(Failure::bad_request(format!("port forwarding is spoken over WebSocket with {PROTOCOL} only")));
    }
    let accept = derive_accept_key(said(SEC_WEBSOCKET_KEY).as_bytes());
    let name = target.name.as_deref().unwrap_or("");
    let asked = query.get("ports").unwrap_or("");
    let mut ports = Vec::new();
    for port in asked.split(',').take(MOST_PORTS) {
        let number: u16 = port.parse().map_err(|_| Failure::bad_request(format!("port {port:?} is not a port")))?;
        ports.push((number, pod_address(store, target.namespace(), name, port)?));
    }
    let hooks = hooks.clone();
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => {
                let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
                forward(socket, &hooks, ports).await;
            }
            Err(error) => tracing::debug!(%error, "a forward was not taken up"),
        }
    });
    let mut answer = Response::new(answer::full(Bytes::new()));
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
    let accept = HeaderValue::from_str(&accept).map_err(|error| Failure::bad_request(error.to_string()))?;
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    Ok(answer)
}

/// Bytes for the client on a channel, or the end of a port.
enum Told {
    Frame(u8, Vec<u8>),
    End,
}

async fn forward(socket: Socket, hooks: &Hooks, ports: Vec<(u16, SocketAddr)>) {
    let (mut sink, mut frames) = socket.split();
    let (tell, mut told) = mpsc::channel::<Told>(16);
    let mut writers: Vec<Option<OwnedWriteHalf>> = Vec::new();
    let mut open = 0;
    for (at, (number, address)) in ports.iter().enumerate() {
        let channel = u8::try_from(2 * at).unwrap_or(u8::MAX - 1);
        for channel in [channel, channel + 1] {
            if send(&mut sink, channel, &number.to_le_bytes()).await.is_err() {
                return;
            }
        }
        match hooks.pods.dial(*address).await {
            Ok(stream) => {
                open += 1;
                writers.push(Some(read_on(stream, channel, tell.clone())));
            }
            Err(error) => {
                writers.push(None);
                let why = format!("failed to connect to {address}: {error}");
                if send(&mut sink, channel + 1, why.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    }
    drop(tell);
    while open > 0 {
        tokio::select! {
            frame = frames.next() => match frame {
                Some(Ok(Message::Binary(bytes))) => take(&mut writers, &bytes).await,
                Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                Some(Ok(_)) => {}
            },
            word = told.recv() => match word {
                Some(Told::Frame(channel, bytes)) => {
                    if send(&mut sink, channel, &bytes).await.is_err() {
                        break;
                    }
                }
                Some(Told::End) => open -= 1,
                None => break,
            },
        }
    }
    let _ = sink.close().await; // the client may have left first
}

/// Reads from a pod until it ends, and hands back the other direction.
fn read_on(stream: TcpStream, channel: u8, tell: mpsc::Sender<Told>) -> OwnedWriteHalf {
    let (mut reader, writer) = stream.into_split();
    tokio::spawn(async move {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(length @ 1..) = reader.read(&mut buffer).await {
            if tell.send(Told::Frame(channel, buffer[..length].to_vec())).await.is_err() {
                return;
            }
        }
        let _ = tell.send(Told::End).await; // nobody listens any more
    });
    writer
}

/// Writes a frame of the client to its pod.
async fn take(writers: &mut [Option<OwnedWriteHalf>], frame: &[u8]) {
    let Some((channel, bytes)) = frame.split_first() else {
        return;
    };
    let Some(writer) = writers.get_mut(usize::from(channel / 2)) else {
        return;
    };
    if channel % 2 == 0
        && let Some(open) = writer
        && open.write_all(bytes).await.is_err()
    {
        *writer = None;
    }
}

async fn send(sink: &mut SplitSink<Socket, Message>, channel: u8, bytes: &[u8]) -> Result<(), ()> {
    let mut frame = Vec::with_capacity(bytes.len() + 1);
    frame.push(channel);
    frame.extend_from_slice(bytes);
    sink.send(Message::binary(frame)).await.map_err(drop)
}
