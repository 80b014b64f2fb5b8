//! Logs of pods, and requests that the server passes on to pods and Services.

use std::net::{IpAddr, SocketAddr};

use http::Request;
use http::header::{HOST, HeaderName, HeaderValue};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;

use super::request::{Query, Target};
use super::response::{self, Response};
use crate::{failure::Failure, failure::Result, kind::kinds, pods::PodDialer, store::Store};

pub(super) fn log(store: &Store, pods: &dyn PodDialer, target: &Target, query: &Query) -> Result<Response> {
    let name = target.name.as_deref().unwrap_or("");
    let pod = store.find(&kinds::POD, target.namespace(), name)?;
    let container = query.get("container");
    let Some(mut text) = pods.log(target.namespace(), name, container) else {
        let known: Vec<&str> = list(&pod["spec"]["containers"]).filter_map(|c| c["name"].as_str()).collect();
        return Err(match container {
            Some(asked) if !known.contains(&asked) => {
                Failure::bad_request(format!("container {asked} is not valid for pod {name}"))
            }
            _ => Failure::bad_request(format!(
                "container {:?} in pod {name:?} is waiting to start: ContainerCreating",
                container.or(known.first().copied()).unwrap_or("")
            )),
        });
    };
    if let Some(lines) = query.number("tailLines")? {
        let lines = usize::try_from(lines).unwrap_or(usize::MAX);
        let all: Vec<&str> = text.split_inclusive('\n').collect();
        text = all[all.len().saturating_sub(lines)..].concat();
    }
    Ok(response::text(text))
}

/// Passes a request on to `[scheme:]name[:port]`.
pub(super) async fn forward(
    store: &Store,
    pods: &dyn PodDialer,
    target: &Target,
    request: Request<Incoming>,
) -> Result<Response> {
    let asked = target.name.as_deref().unwrap_or("");
    let parts: Vec<&str> = asked.split(':').collect();
    let (name, port) = match parts.as_slice() {
        [name] | [_, name, ""] => (*name, ""),
        [name, port] | [_, name, port] => (*name, *port),
        _ => return Err(Failure::bad_request(format!("invalid proxy request {asked:?}"))),
    };
    let address = if target.resource.kind == kinds::POD {
        pod_address(store, target.namespace(), name, port)?
    } else {
        service_address(store, target.namespace(), name, port)?
    };
    pass_on(pods, target, request, address, name)
        .await
        .map_err(|why| Failure::new(503, "ServiceUnavailable", format!("error trying to reach service: {why}")))
}

/// The address of a pod and one of its ports (the first where none is named).
pub(super) fn pod_address(store: &Store, namespace: &str, name: &str, port: &str) -> Result<SocketAddr> {
    let pod = store.find(&kinds::POD, namespace, name)?;
    let ports = || list(&pod["spec"]["containers"]).flat_map(|container| list(&container["ports"]));
    let number = if port.is_empty() {
        ports().find_map(|p| number(&p["containerPort"])).or(Some(80))
    } else {
        port.parse().ok().or_else(|| ports().find(|p| p["name"] == port).and_then(|p| number(&p["containerPort"])))
    };
    let address = pod["status"]["podIP"].as_str().and_then(|ip| ip.parse::<IpAddr>().ok());
    match (address, number) {
        (Some(address), Some(number)) => Ok(SocketAddr::new(address, number)),
        (None, _) => Err(Failure::bad_request("address not allowed")),
        (_, None) => Err(Failure::bad_request(format!("no port {port:?} in pod {name:?}"))),
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn number(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|n| u16::try_from(n).ok())
}

/// The address of one ready endpoint of a Service.
fn service_address(store: &Store, namespace: &str, name: &str, port: &str) -> Result<SocketAddr> {
    let service = store.find(&kinds::SERVICE, namespace, name)?;
    let unavailable = |why: String| Failure::new(503, "ServiceUnavailable", why);
    let is_meant =
        |p: &&Value| port.is_empty() || p["name"] == port || number(&p["port"]).is_some_and(|n| port.parse() == Ok(n));
    let served = list(&service["spec"]["ports"])
        .find(is_meant)
        .ok_or_else(|| unavailable(format!("no service port {port:?} found for service {name:?}")))?;
    let wanted = served["name"].as_str().unwrap_or("");
    store
        .list(&kinds::ENDPOINT_SLICE, Some(namespace))
        .iter()
        .filter(|slice| slice["metadata"]["labels"]["kubernetes.io/service-name"] == name)
        .find_map(|slice| {
            let port = list(&slice["ports"]).find(|p| p["name"].as_str().unwrap_or("") == wanted)?;
            let ready = list(&slice["endpoints"]).find(|e| e["conditions"]["ready"] != Value::Bool(false))?;
            Some(SocketAddr::new(ready["addresses"][0].as_str()?.parse().ok()?, number(&port["port"])?))
        })
        .ok_or_else(|| unavailable(format!("no endpoints available for service {name:?}")))
}

/// Headers that belong to one connection alone.
const HOP_BY_HOP: [&str; 7] =
    ["connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"];

async fn pass_on(
    pods: &dyn PodDialer,
    target: &Target,
    request: Request<Incoming>,
    address: SocketAddr,
    name: &str,
) -> Result<Response, String> {
    let stream = pods.dial(address).await.map_err(|error| format!("dial tcp {address}: {error}"))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a proxied connection ended early");
        }
    });
    let (mut parts, body) = request.into_parts();
    let mut path = format!("/{}", target.below.get(1..).unwrap_or_default().join("/"));
    if parts.uri.path().ends_with('/') && path != "/" {
        path.push('/');
    }
    if let Some(query) = parts.uri.query() {
        path = format!("{path}?{query}");
    }
    parts.uri = path.replace(' ', "%20").parse().map_err(|error: http::uri::InvalidUri| error.to_string())?;
    for header in HOP_BY_HOP {
        parts.headers.remove(HeaderName::from_static(header));
    }
    parts.version = http::Version::HTTP_11;
    let host = HeaderValue::from_str(&format!("{name}:{}", address.port())).map_err(|error| error.to_string())?;
    parts.headers.insert(HOST, host);
    let answer = sender.send_request(Request::from_parts(parts, body)).await.map_err(|error| error.to_string())?;
    let (mut parts, body) = answer.into_parts();
    for header in HOP_BY_HOP {
        parts.headers.remove(HeaderName::from_static(header));
    }
    parts.version = http::Version::HTTP_11;
    let body = body.map_err(std::io::Error::other).boxed_unsync();
    Ok(http::Response::from_parts(parts, body))
}
