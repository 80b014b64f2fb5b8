//! Port forwarding to a pod over a WebSocket: channels in it, as the kube client speaks, or SPDY streams in it, as kubectl does
//! since 1.31. SPDY without a WebSocket, which older ones speak, is refused.

mod channels;
mod dictionary;
mod spdy;
mod streams;

use std::sync::Arc;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::header::{
    CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use http::{HeaderMap, Request, StatusCode};
use hyper::{body::Incoming, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::{Message, Role};
use tokio_tungstenite::{WebSocketStream, tungstenite::handshake::derive_accept_key};

use crate::failure::{Failure, Result};
use crate::http::request::{Query, Target};
use crate::http::response::{self, Response};
use crate::{http::proxy::pod_address, pods::PodDialer, store::Store};

const CHANNELS: &str = "v4.channel.k8s.io";
const STREAMS: &str = "SPDY/3.1+portforward.k8s.io";
/// Bytes that a tunnel holds in each direction.
const TUNNEL: usize = 64 * 1024;

type Socket = WebSocketStream<TokioIo<Upgraded>>;

#[derive(Clone)]
struct Pod {
    store: Store,
    pods: Arc<dyn PodDialer>,
    namespace: String,
    name: String,
}

impl Pod {
    /// A connection to a port of the pod; what went wrong in words.
    async fn dial(&self, port: &str) -> Result<TcpStream, String> {
        let address = pod_address(&self.store, &self.namespace, &self.name, port).map_err(|failure| failure.message)?;
        self.pods.dial(address).await.map_err(|error| format!("failed to connect to {address}: {error}"))
    }
}

/// Answers with the upgrade and forwards when it is done.
pub(crate) fn start(
    store: &Store,
    pods: Arc<dyn PodDialer>,
    target: &Target,
    query: &Query,
    mut request: Request<Incoming>,
) -> Result<Response> {
    let name = target.name.clone().unwrap_or_default();
    let pod = Pod { store: store.clone(), pods, namespace: target.namespace().to_owned(), name };
    pod_address(store, &pod.namespace, &pod.name, "")?; // a pod that is not there, or has no address yet
    let headers = request.headers();
    let is_offered = |protocol: &&str| says(headers, &SEC_WEBSOCKET_PROTOCOL, protocol);
    let protocol = [CHANNELS, STREAMS].into_iter().find(is_offered).filter(|_| says(headers, &UPGRADE, "websocket"));
    let Some(protocol) = protocol else {
        let why = format!("port forwarding is spoken over WebSocket with {CHANNELS} or {STREAMS}");
        return Err(Failure::bad_request(why));
    };
    let ports = if protocol == CHANNELS { channels::ports(query.get("ports").unwrap_or(""))? } else { Vec::new() };
    let key = headers.get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).unwrap_or_default();
    let accept = HeaderValue::try_from(derive_accept_key(key)).map_err(|e| Failure::bad_request(e.to_string()))?;
    let mut answer = Response::new(response::full(Bytes::new()));
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    answer.headers_mut().extend([
        (UPGRADE, HeaderValue::from_static("websocket")),
        (CONNECTION, HeaderValue::from_static("Upgrade")),
        (SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol)),
        (SEC_WEBSOCKET_ACCEPT, accept),
    ]);
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let socket = match upgrade.await {
            Ok(upgraded) => WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await,
            Err(error) => return tracing::debug!(%error, "a forward was not taken up"),
        };
        match protocol {
            CHANNELS => channels::forward(socket, &pod, &ports).await,
            _ => through(socket, pod).await,
        }
    });
    Ok(answer)
}

/// Whether a header names a protocol, in whatever case.
fn says(headers: &HeaderMap, name: &HeaderName, protocol: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case(protocol))
}

/// SPDY in a WebSocket: the bytes of its binary messages, one after the other.
async fn through(socket: Socket, pod: Pod) {
    let (near, far) = tokio::io::duplex(TUNNEL);
    let forwarding = tokio::spawn(streams::forward(far, pod));
    let (mut sink, mut messages) = socket.split();
    let (mut reader, mut writer) = tokio::io::split(near);
    let inwards = async {
        while let Some(Ok(message)) = messages.next().await {
            match message {
                Message::Binary(bytes) if writer.write_all(&bytes).await.is_ok() => {}
                Message::Binary(_) | Message::Close(_) => break,
                _ => {} // pings are answered below us
            }
        }
    };
    let outwards = async {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(length @ 1..) = reader.read(&mut buffer).await {
            if sink.send(Message::binary(buffer[..length].to_vec())).await.is_err() {
                break;
            }
        }
        let _ = sink.close().await; // the client may have left first
    };
    tokio::select! { () = inwards => {}, () = outwards => {} }
    forwarding.abort();
}
