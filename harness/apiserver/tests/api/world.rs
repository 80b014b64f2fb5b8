//! One server on loopback with its clients.

use std::time::Duration;

use apiserver::{Definitions, NoHooks, Server, ServerOptions, Store};
use http::{Request, Response};
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use kube::core::response::Status;
use serde_json::{Value, json};

pub struct World {
    pub store: Store,
    pub server: Server,
    pub client: kube::Client,
}

/// A store that serves the kind of `definitions.yaml`.
pub fn store() -> Store {
    Store::new(NoHooks, &Definitions::read("", &[include_str!("../definitions.yaml")]).unwrap())
}

impl World {
    pub async fn new() -> Self {
        Self::with(store(), ServerOptions::default()).await
    }

    /// A world whose custom kinds are those that are posted to it.
    pub async fn bare() -> Self {
        let store = Store::new(NoHooks, &Definitions::default());
        Self::with(store, ServerOptions::default()).await
    }

    pub async fn with_bookmarks(every: Duration) -> Self {
        let options = ServerOptions { bookmark_every: every, ..ServerOptions::default() };
        Self::with(store(), options).await
    }

    pub async fn with(store: Store, options: ServerOptions) -> Self {
        // The first test of the process installs it, the others find it there.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let server = Server::start(store.clone(), options).await.unwrap();
        let config = kube::Config::new(server.url().parse().unwrap());
        let client = kube::Client::try_from(config).unwrap();
        Self { store, server, client }
    }

    pub fn objects(&self, api_version: &str, kind: &str, plural: &str) -> Api<DynamicObject> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let kind = GroupVersionKind::gvk(group, version, kind);
        let resource = ApiResource::from_gvk_with_plural(&kind, plural);
        Api::namespaced_with(self.client.clone(), "default", &resource)
    }

    pub fn keep(&self, kind: &str, name: &str, fields: Value) {
        let mut object = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": "default"}});
        object.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        self.store.create(object).unwrap();
    }

    pub fn config_maps(&self) -> Api<DynamicObject> {
        self.objects("v1", "ConfigMap", "configmaps")
    }

    pub async fn send(&self, method: &str, path: &str, media: &str, body: impl Into<Vec<u8>>) -> Answer {
        self.send_as(method, path, &[("content-type", media)], body).await
    }

    pub async fn send_as(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Vec<u8>>,
    ) -> Answer {
        use http_body_util::{BodyExt, Full};
        let stream = tokio::net::TcpStream::connect(self.server.address()).await.unwrap();
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", self.server.address().to_string());
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = Full::new(bytes::Bytes::from(body.into()));
        let answer = sender.send_request(request.body(body).unwrap()).await.unwrap();
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer(Response::from_parts(parts, body))
    }
}

pub struct Answer(pub Response<bytes::Bytes>);

impl Answer {
    pub fn code(&self) -> u16 {
        self.0.status().as_u16()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(self.0.body()).unwrap()
    }

    pub fn warnings(&self) -> Vec<String> {
        let text = |warning: &http::HeaderValue| {
            let text = warning.to_str().unwrap().strip_prefix("299 - \"").unwrap();
            text.strip_suffix('"').unwrap().replace("\\\"", "\"")
        };
        self.0.headers().get_all("warning").iter().map(text).collect()
    }
}

#[track_caller]
pub fn status(error: kube::Error) -> Box<Status> {
    match error {
        kube::Error::Api(status) => status,
        other => panic!("not an answer of the API: {other}"),
    }
}

pub fn object(api_version: &str, kind: &str, name: &str, fields: Value) -> DynamicObject {
    let mut object = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name}});
    object.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    serde_json::from_value(object).unwrap()
}

pub fn config_map(name: &str, data: Value) -> DynamicObject {
    object("v1", "ConfigMap", name, json!({"data": data}))
}
