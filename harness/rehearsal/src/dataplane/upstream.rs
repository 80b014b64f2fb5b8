//! The upstream room: one connection to a backend for one request, and the headers that may cross it.

use std::net::SocketAddr;

use http::{HeaderMap, HeaderName, Request, Response, header};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{
    bodies::{Body, Tied},
    network::{Network, Unreachable},
    routing::Target,
    words::Failure,
};
use crate::mutants::{Mutant, Mutants};

/// Says how long a connection stays; of HTTP/1.1, and of one connection.
pub(super) const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// Headers that belong to one connection and are never passed on (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    KEEP_ALIVE,
    HeaderName::from_static("proxy-connection"),
    header::TRANSFER_ENCODING,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
];

/// The headers that may be passed on, in their order.
pub(super) fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let listed: Vec<String> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    let mut kept = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        if !HOP_BY_HOP.contains(name) && !listed.iter().any(|l| l == name.as_str()) {
            kept.append(name.clone(), value.clone());
        }
    }
    kept
}

/// The headers of a request that are passed on.
pub(super) fn passed_on(headers: &HeaderMap, mutants: &Mutants) -> HeaderMap {
    let mut passed = end_to_end(headers);
    if mutants.is(Mutant::AddsHopByHopHeader) {
        for name in [KEEP_ALIVE, HeaderName::from_static("proxy-connection"), HeaderName::from_static("x-igc-hop")] {
            if let Some(value) = headers.get(&name) {
                passed.insert(name, value.clone());
            }
        }
    }
    passed
}

/// Connects to where a backend's requests go.
pub(super) async fn connect(network: &Network, target: &Target) -> Result<TcpStream, Failure> {
    let connected = match target {
        Target::Service { namespace, name, port } => network.connect_service(namespace, name, *port).await,
        Target::Host { host, port } => network.connect(host, *port).await,
        Target::NoService => return Err(Failure::NoService),
        Target::Pool(_) | Target::Broken => return Err(Failure::BrokenBackend), // a pool's endpoint is dialled
    };
    connected.map_err(failure)
}

/// Connects to the endpoint of a pool.
pub(super) async fn dial(network: &Network, endpoint: SocketAddr) -> Result<TcpStream, Failure> {
    network.connect_address(endpoint.ip(), endpoint.port()).await.map_err(failure)
}

fn failure(error: Unreachable) -> Failure {
    match error {
        Unreachable::UnknownHost(host) => Failure::UnknownHost(host),
        Unreachable::NoEndpoint(_) => Failure::NoEndpoint,
        Unreachable::Connect(error) => Failure::Upstream { connecting: true, words: in_the_systems_words(&error) },
    }
}

/// `Connection refused (os error 111)`, also where the error was made here.
fn in_the_systems_words(error: &std::io::Error) -> String {
    match (error.raw_os_error(), error.kind()) {
        (None, std::io::ErrorKind::ConnectionRefused) => "Connection refused (os error 111)".to_owned(),
        (None, std::io::ErrorKind::HostUnreachable) => "No route to host (os error 113)".to_owned(),
        _ => error.to_string(),
    }
}

/// Sends a request on a fresh connection. The connection lives as long as what is returned beside the response.
pub(super) async fn send(stream: TcpStream, request: Request<Body>) -> Result<(Response<Incoming>, Tied), Failure> {
    let broken = |error: hyper::Error| Failure::Upstream { connecting: false, words: error.to_string() };
    let (mut sender, connection) = http1::Builder::new()
        .preserve_header_case(true)
        .handshake::<_, Body>(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let tied = Tied(tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "an upstream connection broke");
        }
    }));
    let response = sender.send_request(request).await.map_err(broken)?;
    Ok((response, tied))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn what_belongs_to_the_connection_stays_behind_and_order_is_kept() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("server", "s"),
            ("connection", "close, X-Private"),
            ("date", "d"),
            ("x-private", "p"),
            ("transfer-encoding", "chunked"),
            ("set-cookie", "a"),
            ("content-type", "t"),
            ("set-cookie", "b"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let kept = end_to_end(&headers);
        let names: Vec<_> = kept.iter().map(|(n, v)| format!("{n}={}", v.to_str().unwrap_or("?"))).collect();
        assert_eq!(names, ["server=s", "date=d", "set-cookie=a", "set-cookie=b", "content-type=t"]);
    }
}
