//! Port-forwards through the API server: each connection is a forward of its own.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt as _, future::BoxFuture};
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use wire::{Dial, Stream};

use super::{ApiFailure, Cluster, ObjectRef, clock::Deadline, items, request::unanswered, text};

const OPEN: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodPort {
    pub namespace: String,
    pub pod: String,
    /// The port that the pod listens on.
    pub port: u16,
}

/// Dials a Service through the API server. Endpoints are looked up for each connection, because pods come and go, and
/// taken in turn.
#[derive(Clone)]
pub struct Forward {
    cluster: Cluster,
    namespace: String,
    service: String,
    port: u16,
    turn: Arc<AtomicUsize>,
}

impl Forward {
    /// To a port of a Service (the Service's own number).
    pub fn to(cluster: &Cluster, namespace: &str, service: &str, port: u16) -> Self {
        Self {
            cluster: cluster.clone(),
            namespace: namespace.to_owned(),
            service: service.to_owned(),
            port,
            turn: Arc::default(),
        }
    }

    async fn open(self) -> io::Result<Box<dyn Stream>> {
        let ends = self.cluster.ready_endpoints(&self.namespace, &self.service, self.port).await;
        let ends = ends.map_err(|failure| io::Error::other(failure.to_string()))?;
        if ends.is_empty() {
            let said = format!("Service {}/{} has no ready endpoint", self.namespace, self.service);
            return Err(io::Error::new(io::ErrorKind::NotConnected, said));
        }
        let end = &ends[self.turn.fetch_add(1, Ordering::Relaxed) % ends.len()];
        let pods: Api<Pod> = Api::namespaced(self.cluster.client.clone(), &end.namespace);
        let opened = Deadline::within(OPEN).bound(pods.portforward(&end.pod, &[end.port])).await;
        let mut forward = match opened {
            None => return Err(io::Error::new(io::ErrorKind::TimedOut, "the port-forward did not open")),
            Some(Err(error)) => return Err(io::Error::other(unanswered(&error).to_string())),
            Some(Ok(forward)) => forward,
        };
        let (Some(stream), Some(error)) = (forward.take_stream(end.port), forward.take_error(end.port)) else {
            return Err(io::Error::other("the port-forward has no stream"));
        };
        // The task of the forward ends with its stream.
        Ok(Box::new(Forwarded { stream: Box::pin(stream), error: Some(error.boxed()) }))
    }
}

impl Dial for Forward {
    fn dial(&self) -> BoxFuture<'static, io::Result<Box<dyn Stream>>> {
        self.clone().open().boxed()
    }

    fn describe(&self) -> String {
        format!("port-forward to Service {}/{}:{}", self.namespace, self.service, self.port)
    }
}

/// A forwarded stream that ends with the API server's words when the pod refuses the connection.
struct Forwarded<S> {
    stream: Pin<Box<S>>,
    error: Option<BoxFuture<'static, Option<String>>>,
}

impl<S: AsyncRead> AsyncRead for Forwarded<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(error) = &mut self.error
            && let Poll::Ready(said) = error.as_mut().poll(cx)
        {
            self.error = None;
            if let Some(said) = said {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, said)));
            }
        }
        self.stream.as_mut().poll_read(cx, into)
    }
}

impl<S: AsyncWrite> AsyncWrite for Forwarded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream.as_mut().poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_shutdown(cx)
    }
}

impl Cluster {
    pub async fn ready_endpoints(&self, namespace: &str, service: &str, port: u16) -> Result<Vec<PodPort>, ApiFailure> {
        let object = self.get(&ObjectRef::new("v1", "Service", namespace, service)).await?;
        let name = object.as_ref().and_then(|service| port_name(service, port)).unwrap_or_default();
        let selector = format!("kubernetes.io/service-name={service}");
        let slices = self.list("discovery.k8s.io/v1", "EndpointSlice", Some(namespace), &selector).await?;
        let mut ends: Vec<PodPort> = slices.iter().flat_map(|slice| ends_of(slice, &name, namespace)).collect();
        ends.sort();
        ends.dedup();
        Ok(ends)
    }
}

/// The name of a Service's port; empty where it has none.
fn port_name(service: &Value, port: u16) -> Option<String> {
    let port = items(service, "/spec/ports").find(|candidate| candidate["port"] == port)?;
    Some(text(port, "/name").to_owned())
}

fn ends_of(slice: &Value, port_name: &str, namespace: &str) -> Vec<PodPort> {
    let mut ports = items(slice, "/ports").filter(|port| text(port, "/name") == port_name);
    let port = ports.find_map(|port| port["port"].as_u64().and_then(|port| u16::try_from(port).ok()));
    let Some(port) = port else { return Vec::new() };
    items(slice, "/endpoints")
        .filter(|endpoint| endpoint["conditions"]["ready"].as_bool().unwrap_or(true))
        .filter(|endpoint| endpoint["targetRef"]["kind"] == "Pod")
        .filter_map(|endpoint| {
            let pod = endpoint.pointer("/targetRef/name")?.as_str()?.to_owned();
            Some(PodPort { namespace: namespace.to_owned(), pod, port })
        })
        .collect()
}
