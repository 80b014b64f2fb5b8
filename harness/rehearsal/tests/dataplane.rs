//! The proxy alone, between a client and a model: streams, deaths, departures, time, and what crosses it.

use std::{future::Future, net::IpAddr, sync::Arc, time::Duration};

use rehearsal::{
    clock::Clock,
    dataplane::{
        interceptor::Passthrough,
        limits::WindowLimit,
        local_reply::{Failure, LocalReply},
        network::{Network, PodPort, PortOf, pod_address},
        proxy::{Proxy, SharedWindows},
        routing::{
            Backend, Entry, Filter, GlobalLimit, HeaderCase, HeaderEdit, HostPattern, IncludeUsage, Listener, Match,
            PathMatch, PathRewrite, Precedence, Provider, RouteId, Rule, Table, Target,
        },
        usage::Cost,
    },
};
use rstest::rstest;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use verdict::history::{Ended, Exchange, ModelRecord};
use wire::{Abandon, Arrived, Call, Client, Next, Tcp};

const BOUND: Duration = Duration::from_secs(20);
const START: u64 = 1_795_262_400_000;

async fn bounded<T>(what: &str, waiting: impl Future<Output = T>) -> T {
    match tokio::time::timeout(BOUND, waiting).await {
        Ok(found) => found,
        Err(_) => panic!("{what} did not happen within {BOUND:?}"),
    }
}

struct Between {
    model: model::Model,
    proxy: Proxy,
    clock: Clock,
    client: Client,
    address: IpAddr,
    network: Network,
    _stop: tokio_util::sync::DropGuard,
}

fn local_reply(failure: &Failure) -> LocalReply {
    match failure {
        Failure::Timeout => LocalReply::text(504, "late"),
        Failure::OverWindow(state) => LocalReply::empty(429).with_headers(state.headers()),
        Failure::Upstream { connecting: true, .. } => LocalReply::text(503, "refused"),
        Failure::UnknownHost(_) => LocalReply::text(503, "unknown"),
        other => LocalReply::text(500, format!("{other:?}")),
    }
}

impl Between {
    async fn with(rule: impl FnOnce(Target) -> Rule) -> Self {
        let stop = CancellationToken::new();
        let model = model::Model::new(model::Config { pod: "pod-1".to_owned(), ..model::Config::default() });
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a socket");
        let socket = listener.local_addr().expect("an address");
        let serving = model.clone();
        tokio::spawn(async move { serving.serve(listener).await });
        let (network, clock, address) = (Network::default(), Clock::movable(START), pod_address(7));
        network.add_pod_port(address, 8080, PodPort { socket, door: None, of: PortOf::Others });
        let proxy =
            Proxy::new(network.clone(), clock.clone(), SharedWindows::default(), Arc::new(Passthrough), stop.clone());
        proxy.load(table(rule(Target::Host { host: address.to_string(), port: 8080 })));
        let front = TcpListener::bind(("127.0.0.1", 0)).await.expect("a socket");
        let client = Client::new(Arc::new(Tcp::to(front.local_addr().expect("an address"))), "x");
        let (accepting, stopped) = (proxy.clone(), stop.clone());
        tokio::spawn(async move {
            while let Some(Ok((stream, _))) = stopped.run_until_cancelled(front.accept()).await {
                accepting.serve(stream, 80);
            }
        });
        Self { model, proxy, clock, client, address, network, _stop: stop.drop_guard() }
    }

    async fn plain() -> Self {
        Self::with(|target| Rule { backends: vec![Backend::plain(target)], ..Rule::default() }).await
    }

    async fn send(&self, call: Call) -> Exchange {
        bounded("an exchange", self.client.send("test", call)).await
    }

    async fn record(&self) -> ModelRecord {
        bounded("a record", self.model.wait(|records| !records.is_empty())).await.remove(0)
    }
}

fn table(rule: Rule) -> Arc<Table> {
    let host = HostPattern::Any;
    let id = RouteId { namespace: "ns".into(), name: "r".into(), rule: 0, matched: 0, host: host.clone() };
    let matches = Match { path: PathMatch::Prefix("/".into()), ..Match::default() };
    let entry = Entry { id, created: String::new(), matches, rule: Arc::new(rule) };
    let listener = Listener { name: "http".into(), port: 80, host, entries: vec![Arc::new(entry)] };
    Arc::new(Table::new(vec![listener], Precedence::default(), local_reply, HeaderCase::Lower))
}

fn chat() -> Value {
    json!({"model": "mock-llm", "messages": [{"role": "user", "content": "Hello"}]})
}

fn streamed(http2: bool) -> Call {
    let call = Call::post("/v1/chat/completions").host("m.test").json(&chat()).stream();
    if http2 { call.http2() } else { call }
}

/// Each token arrives before the next one is made: the model waits for the client to have seen it.
#[rstest]
#[case::http1(false)]
#[case::http2(true)]
#[tokio::test]
async fn streams_pass_token_by_token(#[case] http2: bool) {
    let between = Between::plain().await;
    let call = streamed(http2).header("x-igc-stream-tokens", "5").header("x-igc-gate", "g");
    let (model, mut seen) = (between.model.clone(), 0_u64);
    let exchange = bounded(
        "the stream",
        between.client.send_with_gate("test", call, |arrived| {
            if let Arrived::Chunk { .. } = arrived {
                seen += 1;
                model.open_gate("g", seen);
            }
            std::future::ready(Next::Read)
        }),
    )
    .await;
    let response = exchange.response().expect("a response");
    assert_eq!((response.status, response.ended), (200, Ended::Complete));
    assert!(response.chunks.len() >= 6, "the role and five tokens one by one: {:?}", response.chunks);
}

#[rstest]
#[case::http1(false)]
#[case::http2(true)]
#[tokio::test]
async fn an_upstream_that_dies_never_looks_complete(#[case] http2: bool) {
    let between = Between::plain().await;
    let call = streamed(http2).header("x-igc-stream-tokens", "9").header("x-igc-die-after", "3");
    let exchange = between.send(call).await;
    let response = exchange.response().expect("a response");
    assert_eq!((response.status, response.ended), (200, Ended::Truncated));
    assert!(response.body.text.as_deref().is_some_and(|t| t.contains("t3") && !t.contains("t4")));
}

#[rstest]
#[case::http1(false)]
#[case::http2(true)]
#[tokio::test]
async fn a_client_that_leaves_ends_the_upstream_too(#[case] http2: bool) {
    let between = Between::plain().await;
    let call = streamed(http2).header("x-igc-gate", "never").abandon_after(Abandon::Head);
    let exchange = between.send(call).await;
    assert_eq!(exchange.response().expect("a head").ended, Ended::Abandoned);
    let record = between.record().await;
    assert!(!record.finished, "the model was left alone: {record:?}");
}

#[rstest]
#[case::before_the_head(false, Some(504), Ended::Complete)]
#[case::in_the_stream(true, Some(200), Ended::Truncated)]
#[tokio::test]
async fn a_routes_time_ends(#[case] stream: bool, #[case] status: Option<u16>, #[case] ended: Ended) {
    let between = Between::with(|target| Rule {
        backends: vec![Backend::plain(target)],
        timeout: Some(Duration::from_secs(60)),
        ..Rule::default()
    })
    .await;
    let call = Call::post("/v1/chat/completions").host("m.test").json(&chat()).header("x-igc-gate", "never");
    let call = if stream { call.stream() } else { call };
    let sending = between.client.send_with_gate("test", call, |arrived| {
        if matches!(arrived, Arrived::Head { .. }) {
            between.clock.advance_by(Duration::from_secs(60));
        }
        std::future::ready(Next::Read)
    });
    let moving = async {
        between.clock.until_parked(1).await;
        if !stream {
            between.clock.advance_by(Duration::from_millis(59_999));
            assert_eq!(between.clock.parked(), 1, "not yet");
            between.clock.advance_by(Duration::from_millis(1));
        }
    };
    let (exchange, ()) = bounded("the end of time", async { tokio::join!(sending, moving) }).await;
    assert_eq!(exchange.status(), status);
    assert_eq!(exchange.response().map(|r| r.ended), Some(ended));
}

#[rstest]
#[case::refused("10.244.0.7", 9, "refused")]
#[case::no_such_name("gone.ns.svc.cluster.local", 80, "unknown")]
#[case::outside_of_the_world("192.0.2.1", 80, "refused")]
#[tokio::test]
async fn what_cannot_be_reached(#[case] host: &str, #[case] port: u16, #[case] said: &str) {
    let target = Target::Host { host: host.to_owned(), port };
    let between = Between::with(|_| Rule { backends: vec![Backend::plain(target)], ..Rule::default() }).await;
    let exchange = between.send(Call::get("/v1/models").host("m.test")).await;
    assert_eq!(exchange.status(), Some(503));
    assert_eq!(exchange.response().and_then(|r| r.body.text.clone()).as_deref(), Some(said));
}

#[tokio::test]
async fn a_pod_that_is_gone_is_refused() {
    let between = Between::plain().await;
    assert_eq!(between.send(Call::get("/v1/models").host("m.test")).await.status(), Some(200));
    between.network.remove_pod(between.address);
    assert_eq!(between.send(Call::get("/v1/models").host("m.test")).await.status(), Some(503));
}

#[rstest]
#[case::http1(false)]
#[case::http2(true)]
#[tokio::test]
async fn what_crosses_the_proxy(#[case] http2: bool) {
    let between = Between::with(|target| Rule {
        filters: vec![
            Filter::Request(HeaderEdit {
                set: vec![("X-Set".into(), "new".into())],
                add: vec![("x-add".into(), "two".into())],
                remove: vec!["x-remove".into()],
            }),
            Filter::Response(HeaderEdit { set: vec![("server".into(), "hidden".into())], ..HeaderEdit::default() }),
            Filter::Rewrite { host: Some("up.test".into()), path: Some(PathRewrite::Prefix("/openai".into())) },
        ],
        backends: vec![Backend::plain(target)],
        ..Rule::default()
    })
    .await;
    let mut call = Call::post("/v1/chat/completions?a=b")
        .host("m.test")
        .json(&chat())
        .header("x-set", "old")
        .header("x-set", "older")
        .header("x-add", "one")
        .header("x-remove", "gone");
    call = if http2 { call.http2() } else { call.header("connection", "x-private").header("x-private", "p") };
    let exchange = between.send(call).await;
    let response = exchange.response().expect("a response");
    assert_eq!((response.status, response.header("server")), (200, Some("hidden")));
    let record = between.record().await;
    assert_eq!(record.target, "/openai/v1/chat/completions?a=b");
    let all = |name: &str| -> Vec<&str> {
        record.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect()
    };
    assert_eq!(all("host"), ["up.test"]);
    assert_eq!(all("x-set"), ["new"]);
    assert_eq!(all("x-add"), ["one", "two"]);
    for (name, value) in [
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-envoy-external-address", "127.0.0.1"),
        ("x-forwarded-host", "m.test"),
    ] {
        assert_eq!(all(name), [value], "{name}");
    }
    assert!(all("x-remove").is_empty() && all("x-private").is_empty(), "{:?}", record.headers);
    assert_eq!(record.body.text.as_deref(), Some(chat().to_string().as_str()), "the body is untouched");
}

/// A stream that is heard to its end is charged; one that the client or the model leaves is not.
#[rstest]
#[case::to_the_end(&[], None, 429)]
#[case::client_left(&[], Some(Abandon::Chunks(1)), 200)]
#[case::model_died(&[("x-igc-die-after", "1")], None, 200)]
#[case::no_usage(&[("x-igc-usage", "none")], None, 200)]
#[case::error(&[("x-igc-status", "500")], None, 200)]
#[tokio::test]
async fn charges(#[case] script: &[(&str, &str)], #[case] abandon: Option<Abandon>, #[case] next: u16) {
    let limit = GlobalLimit {
        name: "ns/p/0".into(),
        shared: false,
        selectors: vec![],
        limit: WindowLimit { hits: 6, seconds: 60 },
        request_hits: 0,
        response_key: Some("total".into()),
    };
    let between = Between::with(|target| Rule {
        backends: vec![Backend {
            provider: Some(Provider { include_usage: IncludeUsage::Always, ..Provider::default() }),
            ..Backend::plain(target)
        }],
        global_limits: vec![limit],
        costs: vec![("total".into(), Cost::Total)],
        ..Rule::default()
    })
    .await;
    let mut call = streamed(false);
    for (name, value) in script {
        call = call.header(*name, value);
    }
    if let Some(abandon) = abandon {
        call = call.header("x-igc-gate", "never").abandon_after(abandon);
    }
    between.send(call).await;
    between.record().await;
    let again = between.send(streamed(false)).await;
    assert_eq!(again.status(), Some(next));
    between.clock.advance_by(Duration::from_secs(60));
    assert_eq!(between.send(streamed(false)).await.status(), Some(200), "a new window");
}

#[tokio::test]
async fn a_new_table_counts_for_new_requests() {
    let between = Between::plain().await;
    assert_eq!(between.send(Call::get("/v1/models").host("m.test")).await.status(), Some(200));
    between.proxy.load(table(Rule { filters: vec![Filter::Direct(LocalReply::text(418, "no"))], ..Rule::default() }));
    assert_eq!(between.send(Call::get("/v1/models").host("m.test")).await.status(), Some(418));
}
