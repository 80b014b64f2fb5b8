//! Port forwarding to a pod, in the three ways that clients speak it: channels in a WebSocket (kube), SPDY streams in a
//! WebSocket (kubectl since 1.31), and SPDY streams alone (kubectl before that, and where a proxy takes no WebSocket).

mod channels;
mod dictionary;
mod pod;
mod spdy;
mod streams;

use std::sync::Arc;

use bytes::Bytes;
use futures::{FutureExt, SinkExt, StreamExt, future::BoxFuture};
use http::header::{
    CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use http::{HeaderMap, Request, Response, StatusCode};
use hyper::{body::Incoming, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::protocol::{Message, Role};
use tokio_tungstenite::{WebSocketStream, tungstenite::handshake::derive_accept_key};

use pod::{Pod, Socket};

use crate::http::answer::{self, Answer};
use crate::http::request::{Query, Target};
use crate::{failure::Failure, http::proxy::pod_address, pods::PodDialer, store::Store};

const CHANNELS: &str = "v4.channel.k8s.io";
const STREAMS: &str = "portforward.k8s.io";
const SPDY: &str = "SPDY/3.1";
const STREAMS_VERSION: HeaderName = HeaderName::from_static("x-stream-protocol-version");
/// Bytes that a tunnel holds in each direction.
const TUNNEL: usize = 64 * 1024;

/// Answers with the upgrade and forwards when it is done.
pub(crate) fn start(
    store: &Store,
    pods: Arc<dyn PodDialer>,
    target: &Target,
    query: &Query,
    mut request: Request<Incoming>,
) -> Result<Answer, Failure> {
    let pod = Pod {
        store: store.clone(),
        pods,
        namespace: target.namespace().to_owned(),
        name: target.name.clone().unwrap_or_default(),
    };
    pod_address(store, &pod.namespace, &pod.name, "")?; // a pod that is not there, or has no address yet
    let headers = request.headers();
    let tunnel = format!("{SPDY}+{STREAMS}");
    let mut answer = Response::new(answer::full(Bytes::new()));
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let carry: Box<dyn FnOnce(TokioIo<Upgraded>) -> BoxFuture<'static, ()> + Send> =
        if says(headers, &UPGRADE, "websocket") && says(headers, &SEC_WEBSOCKET_PROTOCOL, CHANNELS) {
            accept_socket(headers, CHANNELS, &mut answer)?;
            let ports = channels::ports(query.get("ports").unwrap_or(""))?;
            Box::new(move |io| async move { channels::forward(socket(io).await, &pod, &ports).await }.boxed())
        } else if says(headers, &UPGRADE, "websocket") && says(headers, &SEC_WEBSOCKET_PROTOCOL, &tunnel) {
            accept_socket(headers, &tunnel, &mut answer)?;
            Box::new(move |io| async move { through(socket(io).await, pod).await }.boxed())
        } else if says(headers, &UPGRADE, SPDY) && says(headers, &STREAMS_VERSION, STREAMS) {
            let headers = answer.headers_mut();
            headers.insert(UPGRADE, HeaderValue::from_static(SPDY));
            headers.insert(STREAMS_VERSION, HeaderValue::from_static(STREAMS));
            Box::new(move |io| streams::forward(io, pod).boxed())
        } else {
            return Err(Failure::bad_request(format!(
                "port forwarding is spoken over WebSocket with {CHANNELS} or {tunnel}, or over {SPDY} with {STREAMS}"
            )));
        };
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => carry(TokioIo::new(upgraded)).await,
            Err(error) => tracing::debug!(%error, "a forward was not taken up"),
        }
    });
    Ok(answer)
}

/// Whether a header names a protocol, in whatever case.
fn says(headers: &HeaderMap, name: &HeaderName, protocol: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|word| word.trim().eq_ignore_ascii_case(protocol))
}

fn accept_socket(asked: &HeaderMap, protocol: &str, answer: &mut Answer) -> Result<(), Failure> {
    let key = asked.get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).unwrap_or_default();
    let value = |text: &str| HeaderValue::from_str(text).map_err(|error| Failure::bad_request(error.to_string()));
    let headers = answer.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_PROTOCOL, value(protocol)?);
    headers.insert(SEC_WEBSOCKET_ACCEPT, value(&derive_accept_key(key))?);
    Ok(())
}

async fn socket(io: TokioIo<Upgraded>) -> Socket {
    WebSocketStream::from_raw_socket(io, Role::Server, None).await
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
