//! The upstream room: one connection to a backend for one request, and the headers that may cross it.

use std::net::SocketAddr;

use http::{HeaderMap, HeaderName, Request, Response, header};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{
    bodies::{AbortOnDrop, Body},
    local_reply::Failure,
    network::{Network, Unreachable},
    routing::Target,
};

pub(crate) const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

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

#[derive(Debug)]
pub struct Upstream<'a> {
    pub network: &'a Network,
    pub target: &'a Target,
    pub endpoint: Option<SocketAddr>,
}

pub struct UpstreamReply {
    pub body: Body,
    pub connection: Option<AbortOnDrop>,
    pub streaming: bool,
    /// Whether its route changes anything of replies.
    pub transformed: bool,
}

impl Upstream<'_> {
    /// Sends a request on a fresh connection, which lives as long as what is returned beside the response.
    pub async fn call(&self, request: Request<Body>) -> Result<(Response<Incoming>, AbortOnDrop), Failure> {
        send(self.connect().await?, request).await
    }

    async fn connect(&self) -> Result<TcpStream, Failure> {
        let connected = match (self.endpoint, self.target) {
            (Some(endpoint), _) => self.network.connect_address(endpoint.ip(), endpoint.port()).await,
            (None, Target::Service { namespace, name, port }) => {
                self.network.connect_service(namespace, name, *port).await
            }
            (None, Target::Host { host, port }) => self.network.connect(host, *port).await,
            (None, Target::NoService) => return Err(Failure::NoService),
            (None, Target::Pool(_) | Target::Broken) => return Err(Failure::BrokenBackend),
        };
        connected.map_err(failure)
    }
}

fn failure(error: Unreachable) -> Failure {
    match error {
        Unreachable::UnknownHost(host) => Failure::UnknownHost(host),
        Unreachable::NoEndpoint(_) => Failure::NoEndpoint,
        Unreachable::Connect(error) => Failure::Upstream { connecting: true, words: system_error(&error) },
    }
}

/// `Connection refused (os error 111)`, also where the error was made here.
fn system_error(error: &std::io::Error) -> String {
    match (error.raw_os_error(), error.kind()) {
        (None, std::io::ErrorKind::ConnectionRefused) => "Connection refused (os error 111)".to_owned(),
        (None, std::io::ErrorKind::HostUnreachable) => "No route to host (os error 113)".to_owned(),
        _ => error.to_string(),
    }
}

async fn send(stream: TcpStream, request: Request<Body>) -> Result<(Response<Incoming>, AbortOnDrop), Failure> {
    let broken = |error: hyper::Error| Failure::Upstream { connecting: false, words: error.to_string() };
    let (mut sender, driver) = http1::Builder::new()
        .preserve_header_case(true)
        .handshake::<_, Body>(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let connection = AbortOnDrop(tokio::spawn(async move {
        if let Err(error) = driver.await {
            tracing::debug!(%error, "an upstream connection broke");
        }
    }));
    let response = sender.send_request(request).await.map_err(broken)?;
    Ok((response, connection))
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
