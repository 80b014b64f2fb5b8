//! The server: HTTP on loopback in front of a store.

use std::{convert::Infallible, io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST};
use http::{Method, Request};
use http_body_util::{BodyExt, Limited};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::json;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::pods::{NoPods, PodDialer};
use super::{failure::Failure, failure::Result, store::Store};
use objects::Call;
use request::{Query, Shape, Target};
use response::Response;

mod discovery;
mod kubectl;
mod objects;
mod proxy;
mod request;
mod response;
mod watch;

/// The largest body that is read, 3 MiB as in Kubernetes.
pub const LARGEST_BODY: usize = 3 * 1024 * 1024;

#[derive(Clone)]
pub struct ServerOptions {
    pub pods: Arc<dyn PodDialer>,
    /// How often a watch that asked for bookmarks gets one.
    pub bookmark_every: Duration,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self { pods: Arc::new(NoPods), bookmark_every: Duration::from_secs(60) }
    }
}

/// A running server. It ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    name: &'static str,
    address: SocketAddr,
    task: JoinHandle<()>,
    stop: CancellationToken,
    _guard: DropGuard,
}

impl Server {
    /// Starts a server on a free port of 127.0.0.1.
    pub async fn start(store: Store, options: ServerOptions) -> io::Result<Self> {
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (name, stop) = (store.name(), CancellationToken::new());
        let handler = Arc::new(Handler { store, options, address: address.to_string() });
        let task = tokio::spawn(accept(handler, listener, stop.clone()));
        Ok(Self { name, address, task, _guard: stop.clone().drop_guard(), stop })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn kubeconfig(&self) -> String {
        let name = self.name;
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": {"server": self.url()}}],
            "users": [{"name": name, "user": {}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": "default"}}],
            "current-context": name,
        });
        serde_saphyr::to_string(&config).unwrap_or_else(|_| config.to_string())
    }

    pub fn write_kubeconfig(&self, file: &Path) -> io::Result<()> {
        std::fs::write(file, self.kubeconfig())
    }

    /// Closes the listener and every connection, and waits for the end.
    pub async fn stop(self) {
        self.stop.cancel();
        let _ = self.task.await; // a panic of the task has been told already
    }
}

async fn accept(handler: Arc<Handler>, listener: TcpListener, stop: CancellationToken) {
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors: others must close theirs first.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::task::yield_now().await;
                    continue;
                }
            },
        };
        let _ = stream.set_nodelay(true); // slower without, not wrong
        let (handler, stop) = (handler.clone(), stop.clone());
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let handler = handler.clone();
                async move { Ok::<_, Infallible>(handler.answer(request).await) }
            });
            let builder = auto::Builder::new(TokioExecutor::new());
            let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
            tokio::select! {
                () = stop.cancelled() => {}
                ended = connection => if let Err(error) = ended {
                    tracing::debug!(%error, "a connection ended early");
                },
            }
        });
    }
}

struct Handler {
    store: Store,
    options: ServerOptions,
    address: String,
}

impl Handler {
    async fn answer(&self, request: Request<Incoming>) -> Response {
        self.find(request).await.unwrap_or_else(|failure| response::failure(&failure))
    }

    async fn find(&self, request: Request<Incoming>) -> Result<Response> {
        from_here(&request)?;
        let segments = request::segments(request.uri().path());
        let path: Vec<&str> = segments.iter().map(String::as_str).collect();
        match path.as_slice() {
            ["version"] => return Ok(response::json(200, &version(self.store.name()))),
            ["healthz" | "livez" | "readyz", ..] => return Ok(response::text("ok")),
            ["openapi", rest @ ..] => {
                let accept = request.headers().get(ACCEPT).and_then(|a| a.to_str().ok()).unwrap_or("");
                return kubectl::openapi::answer(&self.store, rest, accept);
            }
            [] => {
                let paths = ["/api", "/apis", "/healthz", "/openapi/v2", "/openapi/v3", "/version"];
                return Ok(response::json(200, &json!({"paths": paths})));
            }
            ["apis", "authorization.k8s.io", ..] if request.method() != Method::GET => return review(request).await,
            _ => {}
        }
        if request.method() == Method::GET
            && let Some(found) = discovery::answer(&self.store, &path, request.headers(), &self.address)
        {
            return found;
        }
        self.about_objects(request, &path).await
    }

    async fn about_objects(&self, request: Request<Incoming>, path: &[&str]) -> Result<Response> {
        let target = Target::find(&self.store, path)?;
        let query = Query::read(request.uri().query());
        let kind = target.resource.kind.kind.as_ref();
        if target.resource.kind.group.is_empty() {
            match (kind, target.below.first().map(String::as_str)) {
                ("Pod", Some("log")) => return proxy::log(&self.store, &*self.options.pods, &target, &query),
                ("Pod" | "Service", Some("proxy")) => {
                    return proxy::forward(&self.store, &*self.options.pods, &target, request).await;
                }
                ("Pod", Some("portforward")) => {
                    return kubectl::forward::start(&self.store, self.options.pods.clone(), &target, &query, request);
                }
                _ => {}
            }
        }
        let (parts, body) = request.into_parts();
        let shape = Shape::read(&parts.headers)?;
        let mut answer = if parts.method == Method::GET && query.is("watch") && target.below.is_empty() {
            watch::start(&self.store, &target, &query, shape, self.options.bookmark_every)?
        } else {
            let call = Call {
                store: &self.store,
                target: &target,
                query: &query,
                headers: &parts.headers,
                body: collect(body).await?,
                shape,
            };
            call.answer(&parts.method).unwrap_or_else(|failure| response::failure(&failure))
        };
        if let Some(text) = &target.version()?.deprecation {
            response::warn(&mut answer, std::slice::from_ref(text));
        }
        Ok(answer)
    }
}

/// Pages in a browser that resolve a name of theirs to loopback get nothing.
fn from_here(request: &Request<Incoming>) -> Result<()> {
    let host = request
        .headers()
        .get(HOST)
        .and_then(|h| h.to_str().ok())
        .or_else(|| request.uri().authority().map(|a| a.as_str()))
        .unwrap_or("");
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    if matches!(name, "127.0.0.1" | "localhost" | "[::1]" | "") {
        return Ok(());
    }
    Err(Failure::new(403, "Forbidden", format!("the server answers on loopback only, not as {host:?}")))
}

async fn collect(body: Incoming) -> Result<Bytes> {
    match Limited::new(body, LARGEST_BODY).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            let said = format!("Request entity too large: limit is {LARGEST_BODY}");
            Err(Failure::new(413, "RequestEntityTooLarge", said))
        }
        Err(error) => Err(Failure::bad_request(format!("the body could not be read: {error}"))),
    }
}

fn version(name: &str) -> serde_json::Value {
    json!({
        "major": "1", "minor": "34", "emulationMajor": "1", "emulationMinor": "34",
        "gitVersion": format!("v1.34.10+{name}"), "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none", "compiler": "rustc", "platform": format!("{name}/any"),
    })
}

/// Access reviews: everything is allowed here.
async fn review(request: Request<Incoming>) -> Result<Response> {
    if request.method() != Method::POST {
        return Err(Failure::no_such_resource());
    }
    let media = request.headers().get(CONTENT_TYPE).and_then(|m| m.to_str().ok()).unwrap_or("").to_owned();
    let mut review = objects::parse(&collect(request.into_body()).await?, &media)?;
    if !review.is_object() {
        return Err(Failure::bad_request("a review is an object"));
    }
    review["status"] = json!({"allowed": true});
    Ok(response::json(201, &review))
}
