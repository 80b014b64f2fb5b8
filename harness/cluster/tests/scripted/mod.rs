//! An API server that plays a script: one line for each request that is expected, in order.
//!
//! A request that is not the next line's fails the test, and so does a line that nobody asked for.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use cluster::api::Cluster;
use futures::{SinkExt as _, StreamExt as _, future, stream};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, handshake::derive_accept_key, protocol::Role},
};

/// One line of a script.
#[derive(Clone, Debug)]
pub struct Line {
    expected: String,
    reply: Reply,
    headers: Vec<(&'static str, String)>,
}

#[derive(Clone, Debug)]
enum Reply {
    Whole(u16, String),
    Watch(Vec<String>, End),
    Echo(Vec<Vec<u8>>),
    Never,
    HangUp,
    Die,
}

/// What becomes of a watch after its events.
#[derive(Clone, Copy, Debug)]
pub enum End {
    Closed,
    Broken,
    Open,
}

/// Expects a request: `METHOD /path?parameters`. The parameters given must be there, others may.
pub fn on(expected: &str) -> Line {
    Line { expected: expected.to_owned(), reply: Reply::Never, headers: Vec::new() }
}

impl Line {
    pub fn answers(mut self, status: u16, body: Value) -> Self {
        self.reply = Reply::Whole(status, body.to_string());
        self
    }

    pub fn answers_text(mut self, status: u16, body: &str) -> Self {
        self.reply = Reply::Whole(status, body.to_owned());
        self
    }

    pub fn refuses(self, code: u16, reason: &str, message: &str) -> Self {
        self.answers(code, status(code, reason, message))
    }

    pub fn warning(mut self, text: &str) -> Self {
        self.headers.push(("warning", format!("299 - {}", json!(text))));
        self
    }

    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.headers.push(("retry-after", seconds.to_string()));
        self
    }

    /// Events of a watch, and its end.
    pub fn watch(mut self, events: &[(&str, Value)], end: End) -> Self {
        let lines = events.iter().map(|(kind, object)| format!("{}\n", json!({"type": kind, "object": object})));
        self.reply = Reply::Watch(lines.collect(), end);
        self
    }

    /// Bytes of a watch as they are.
    pub fn watch_text(mut self, text: &str, end: End) -> Self {
        self.reply = Reply::Watch(vec![text.to_owned()], end);
        self
    }

    /// A WebSocket that sends these frames of (channel, bytes), and then every frame of the client back.
    pub fn echo(mut self, frames: &[(u8, &[u8])]) -> Self {
        let frames = frames.iter().map(|(channel, bytes)| [&[*channel], *bytes].concat());
        self.reply = Reply::Echo(frames.collect());
        self
    }

    /// The request is taken and never answered.
    pub fn never(self) -> Self {
        self
    }

    /// The connection is closed instead of an answer.
    pub fn hangs_up(mut self) -> Self {
        self.reply = Reply::HangUp;
        self
    }

    /// The server is gone from here on: every connection breaks and none is taken.
    pub fn dies(mut self) -> Self {
        self.reply = Reply::Die;
        self
    }
}

pub fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message})
}

pub fn list(version: &str, items: &[Value]) -> Value {
    json!({"metadata": {"resourceVersion": version}, "items": items})
}

/// An APIResourceList: `(Kind, plural, namespaced)`.
pub fn kinds(group_version: &str, kinds: &[(&str, &str, bool)]) -> Value {
    let resources: Vec<Value> = kinds
        .iter()
        .map(|(kind, plural, namespaced)| json!({"name": plural, "kind": kind, "namespaced": namespaced, "verbs": ["get", "list", "watch"]}))
        .collect();
    json!({"kind": "APIResourceList", "groupVersion": group_version, "resources": resources})
}

/// The question which kinds a group has, answered as by [`kinds`].
pub fn serves(group_version: &str, served: &[(&str, &str, bool)]) -> Line {
    on(&format!("GET /apis/{group_version}")).answers(200, kinds(group_version, served))
}

/// The two questions of every connect, answered.
pub fn hello() -> Vec<Line> {
    vec![
        on("GET /version").answers(200, json!({"major": "1", "gitVersion": "v1.34.10"})),
        on("GET /api/v1").answers(200, core()),
    ]
}

fn core() -> Value {
    kinds(
        "v1",
        &[
            ("Namespace", "namespaces", false),
            ("Node", "nodes", false),
            ("Pod", "pods", true),
            ("Service", "services", true),
            ("Secret", "secrets", true),
            ("ConfigMap", "configmaps", true),
            ("Event", "events", true),
        ],
    )
}

#[derive(Clone, Debug)]
pub struct Came {
    pub line: String,
    pub content_type: String,
    pub body: String,
}

impl Came {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{}: {error}: {}", self.line, self.body))
    }
}

#[derive(Default)]
struct State {
    script: VecDeque<Line>,
    came: Vec<Came>,
    wrong: Vec<String>,
}

/// The server, and the folder of its kubeconfig.
pub struct Scripted {
    state: Arc<Mutex<State>>,
    pub url: String,
    folder: tempfile::TempDir,
    dead: watch::Sender<bool>,
}

impl Scripted {
    /// Plays these lines.
    pub async fn start(script: Vec<Line>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port on loopback");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let state = Arc::new(Mutex::new(State { script: script.into(), ..State::default() }));
        let (dead, _) = watch::channel(false);
        let server = Self { state, url, folder: tempfile::tempdir().expect("a folder"), dead };
        tokio::spawn(serve(listener, server.state.clone(), server.dead.clone()));
        std::fs::write(server.kubeconfig(), server.kubeconfig_text()).expect("a kubeconfig");
        server
    }

    /// Plays `hello` and these lines, and connects.
    pub async fn connected(script: Vec<Line>) -> (Self, Cluster) {
        let server = Self::start(hello().into_iter().chain(script).collect()).await;
        let cluster = Cluster::connect(&server.kubeconfig(), None).await.expect("connected");
        (server, cluster)
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    fn kubeconfig_text(&self) -> String {
        let context = |name: &str| json!({"name": name, "context": {"cluster": "scripted", "user": "tester"}});
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "kind-scripted",
            "clusters": [{"name": "scripted", "cluster": {"server": self.url}}],
            "users": [{"name": "tester", "user": {"token": "not-a-secret"}}],
            "contexts": [context("kind-scripted"), context("production")],
        })
        .to_string()
    }

    /// The one request whose line begins so.
    #[track_caller]
    pub fn sent(&self, beginning: &str) -> Came {
        let came = self.state.lock().expect("not poisoned").came.clone();
        let mut found = came.iter().filter(|came| came.line.starts_with(beginning));
        let one = found.next().unwrap_or_else(|| panic!("no request {beginning} among {came:#?}"));
        assert!(found.next().is_none(), "more than one request {beginning}");
        one.clone()
    }
}

/// A test that ends well has had every line of its script played and nothing else asked.
impl Drop for Scripted {
    fn drop(&mut self) {
        let Ok(state) = self.state.lock() else { return };
        let left: Vec<&String> = state.script.iter().map(|line| &line.expected).collect();
        if !std::thread::panicking() {
            assert!(state.wrong.is_empty(), "unexpected requests: {:#?}", state.wrong);
            assert!(left.is_empty(), "nobody asked for: {left:#?}");
        } else if !state.wrong.is_empty() {
            eprintln!("unexpected requests: {:#?}", state.wrong);
        }
    }
}

async fn serve(listener: TcpListener, state: Arc<Mutex<State>>, dead: watch::Sender<bool>) {
    let mut died = dead.subscribe();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = died.wait_for(|dead| *dead) => return,
        };
        let Ok((connection, _)) = accepted else { return };
        let (state, dead) = (state.clone(), dead.clone());
        tokio::spawn(async move {
            let mut died = dead.subscribe();
            let service = service_fn(|request| play(request, state.clone(), dead.clone()));
            let connection = http1::Builder::new().serve_connection(TokioIo::new(connection), service).with_upgrades();
            tokio::select! {
                _ = connection => {}
                _ = died.wait_for(|dead| *dead) => {}
            }
        });
    }
}

async fn play(
    request: Request<Incoming>,
    state: Arc<Mutex<State>>,
    dead: watch::Sender<bool>,
) -> Result<Response<UnsyncBoxBody<Bytes, io::Error>>, io::Error> {
    let mut request = request;
    let upgrade = hyper::upgrade::on(&mut request);
    let (head, body) = request.into_parts();
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    let line = format!("{} {target}", head.method);
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let content_type = head.headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let came = Came {
        line: line.clone(),
        content_type: content_type.unwrap_or_default().to_owned(),
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    let next = {
        let mut state = state.lock().expect("not poisoned");
        state.came.push(came);
        match state.script.front() {
            Some(next) if matches(&next.expected, &line) => state.script.pop_front(),
            next => {
                let expected = next.map_or("nothing more", |next| &next.expected).to_owned();
                state.wrong.push(format!("{line} (expected {expected})"));
                None
            }
        }
    };
    let Some(next) = next else {
        return Ok(whole(418, status(418, "Unexpected", "not in the script").to_string(), &[]));
    };
    match next.reply {
        Reply::Whole(code, body) => Ok(whole(code, body, &next.headers)),
        Reply::Watch(lines, end) => Ok(watched(lines, end)),
        Reply::Echo(frames) => {
            let key = head.headers.get("sec-websocket-key").map(|key| derive_accept_key(key.as_bytes()));
            tokio::spawn(echo(upgrade, frames));
            let switching = Response::builder()
                .status(StatusCode::SWITCHING_PROTOCOLS)
                .header("connection", "upgrade")
                .header("upgrade", "websocket")
                .header("sec-websocket-protocol", "v4.channel.k8s.io")
                .header("sec-websocket-accept", key.unwrap_or_default());
            Ok(switching
                .body(http_body_util::Empty::new().map_err(|never: Infallible| match never {}).boxed_unsync())
                .expect("a response"))
        }
        Reply::Never => future::pending().await,
        Reply::HangUp => Err(io::Error::other("hangs up")),
        Reply::Die => {
            dead.send_replace(true);
            future::pending().await
        }
    }
}

async fn echo(upgrade: hyper::upgrade::OnUpgrade, frames: Vec<Vec<u8>>) {
    let upgraded = TokioIo::new(upgrade.await.expect("upgraded"));
    let mut socket = WebSocketStream::from_raw_socket(upgraded, Role::Server, None).await;
    for frame in frames {
        socket.send(Message::binary(frame)).await.expect("sent");
    }
    while let Some(Ok(message)) = socket.next().await {
        if message.is_binary() && socket.send(message).await.is_err() {
            return;
        }
    }
}

fn whole(code: u16, body: String, headers: &[(&str, String)]) -> Response<UnsyncBoxBody<Bytes, io::Error>> {
    let mut response = Response::builder()
        .status(StatusCode::from_u16(code).expect("a status code"))
        .header("content-type", "application/json");
    for (name, value) in headers {
        response = response.header(*name, value);
    }
    let body = Full::new(Bytes::from(body)).map_err(|never: Infallible| match never {});
    response.body(body.boxed_unsync()).expect("a response")
}

fn watched(lines: Vec<String>, end: End) -> Response<UnsyncBoxBody<Bytes, io::Error>> {
    let lines = stream::iter(lines.into_iter().map(|line| Ok(Frame::data(Bytes::from(line)))));
    let tail: stream::BoxStream<'static, Result<Frame<Bytes>, io::Error>> = match end {
        End::Closed => stream::empty().boxed(),
        End::Broken => stream::once(async { Err(io::Error::other("broken")) }).boxed(),
        End::Open => stream::pending().boxed(),
    };
    Response::new(StreamBody::new(lines.chain(tail)).boxed_unsync())
}

/// Whether a request is the expected one: method, path, and at least the parameters given.
fn matches(expected: &str, line: &str) -> bool {
    let (head, parameters) = expected.split_once('?').unwrap_or((expected, ""));
    let (came_head, came_parameters) = line.split_once('?').unwrap_or((line, ""));
    let came: Vec<&str> = came_parameters.split('&').collect();
    head == came_head && parameters.split('&').filter(|one| !one.is_empty()).all(|one| came.contains(&one))
}
