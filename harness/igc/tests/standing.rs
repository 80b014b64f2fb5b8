//! A standing rehearsal as people use it: started by the lines of `cargo xtask up --on rehearsal`, the guides' manifests
//! applied, their requests sent. Once by kubectl, where there is one, and once by our own client.

use std::{path::PathBuf, process::Stdio, sync::Arc, time::Duration};

use cluster::api::{Apply, Cluster, ObjectRef, WaitCondition};
use rstest::rstest;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use verdict::guides;
use verdict::history::{Admission, Exchange};
use wire::{Call, Client, Tcp};

mod fake;

const GATEWAY_API: &str = "gateway.networking.k8s.io/v1";
const AGENTGATEWAY: &str = "agentgateway.dev/v1alpha1";
/// Long enough for a machine that is busy; nothing here takes so long.
const PATIENCE: &str = "--timeout=60s";

#[derive(Clone, Copy, Debug)]
enum By {
    Kubectl,
    OwnClient,
}

enum Hands {
    Kubectl,
    Own(Box<Cluster>),
}

#[derive(Clone, Copy)]
enum For {
    Condition(&'static str),
    Field(&'static str, &'static str),
}

struct Standing {
    igc: Child,
    hands: Hands,
    kubeconfig: PathBuf,
    kserve: String,
    folder: TempDir,
}

fn igc() -> std::process::Command {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_igc"));
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    command
}

impl Standing {
    /// `None` where there is no kubectl.
    async fn of(gateway: &str, by: By) -> Option<Self> {
        if matches!(by, By::Kubectl) {
            testtools::in_path("kubectl", &["kubectl"])?;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let suites = fake::suites(folder.path(), None);
        let mut command = Command::from(igc());
        command.args(["up", "--on", "rehearsal", "--gateway", gateway, "--out"]).arg(folder.path().join("runs"));
        command.env("IGC_SUITES", suites);
        let mut igc = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("igc runs");
        let (mut kubeconfig, mut address, mut kserve) = (String::new(), String::new(), String::new());
        let mut lines = BufReader::new(igc.stdout.take().expect("piped")).lines();
        while let Some(line) = lines.next_line().await.expect("lines") {
            for (begins, value) in [
                ("export KUBECONFIG=", &mut kubeconfig),
                ("# gateway: http://", &mut address),
                ("# KServe's routes: http://", &mut kserve),
            ] {
                if let Some(said) = line.strip_prefix(begins) {
                    said.clone_into(value);
                }
            }
            if line.contains("no gateway is tested") {
                break;
            }
        }
        let marker = json!({"model": "marker", "messages": [{"role": "user", "content": "Hello"}]});
        let call = Call::post("/v1/chat/completions").host("marker.igc.test").json(&marker);
        assert_eq!(client(&address).send("marker", call).await.status(), Some(200), "the shared Gateway at {address}");
        let hands = match by {
            By::Kubectl => Hands::Kubectl,
            By::OwnClient => {
                cluster::api::init();
                Hands::Own(Box::new(Cluster::connect(kubeconfig.as_ref(), None).await.expect("connected")))
            }
        };
        Some(Self { igc, hands, kubeconfig: kubeconfig.into(), kserve, folder })
    }

    fn kubectl(&self, words: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.args(words).env("KUBECONFIG", &self.kubeconfig).env("KUBECACHEDIR", self.folder.path().join("cache"));
        command
    }

    async fn output(&self, words: &[&str]) -> Vec<u8> {
        let output = self.kubectl(words).output().await.unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// Applies a manifest as the guides do; a refusal in its own words.
    async fn apply(&self, manifest: &str) -> Result<(), String> {
        match &self.hands {
            Hands::Kubectl => {
                let mut command = self.kubectl(&["apply", "-f", "-"]);
                let mut kubectl =
                    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
                kubectl.stdin.take().unwrap().write_all(manifest.as_bytes()).await.unwrap();
                let ended = kubectl.wait_with_output().await.unwrap();
                if ended.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&ended.stderr).into_owned()) }
            }
            Hands::Own(cluster) => {
                for document in serde_saphyr::from_multiple::<Value>(manifest).expect("YAML") {
                    match cluster.offer(&document, Apply::of_run("by-hand").in_namespace("default")).await {
                        Ok(Admission::Accepted { .. }) => {}
                        Ok(Admission::Refused { message, .. }) => return Err(message),
                        Err(failure) => return Err(failure.to_string()),
                    }
                }
                Ok(())
            }
        }
    }

    async fn applied(&self, manifest: &str) {
        self.apply(manifest).await.unwrap_or_else(|refusal| panic!("{refusal}\n{manifest}"));
    }

    async fn refused(&self, manifest: &str, words: &str) {
        let refusal = self.apply(manifest).await.expect_err(manifest);
        assert!(refusal.contains(words), "{words} is not in: {refusal}");
    }

    async fn wait(&self, object: &ObjectRef, wanted: For) {
        match &self.hands {
            Hands::Kubectl => {
                let until = match wanted {
                    For::Condition(name) => format!("--for=condition={name}"),
                    For::Field(path, value) => format!("--for=jsonpath={{{path}}}={value}"),
                };
                // One that is not there yet is awaited too.
                for until in ["--for=create", &until] {
                    self.output(&["wait", until, PATIENCE, &named(object), "-n", namespace(object)]).await;
                }
            }
            Hands::Own(cluster) => {
                let condition = match wanted {
                    For::Condition(name) => WaitCondition::ConditionTrue(name.to_owned()),
                    For::Field(path, value) => {
                        let equals = serde_json::from_str(value).unwrap_or_else(|_| json!(value)); // True is a text
                        let pointer = path.replace('[', ".").replace(']', "").replace('.', "/");
                        let name = format!("{path} is {equals}");
                        WaitCondition::holds(&name, move |object| object.pointer(&pointer) == Some(&equals))
                    }
                };
                cluster
                    .wait(object, condition, Duration::from_secs(60))
                    .await
                    .unwrap_or_else(|error| panic!("{error}"));
            }
        }
    }

    async fn get(&self, object: &ObjectRef) -> Value {
        match &self.hands {
            Hands::Kubectl => {
                let got = self.output(&["get", &named(object), "-n", namespace(object), "-o", "json"]).await;
                serde_json::from_slice(&got).unwrap()
            }
            Hands::Own(cluster) => cluster.get(object).await.unwrap().unwrap_or_default(),
        }
    }

    async fn service(&self, labels: &str) -> Value {
        match &self.hands {
            Hands::Kubectl => {
                let got = self.output(&["get", "svc", "-A", "--selector", labels, "-o", "json"]).await;
                serde_json::from_slice::<Value>(&got).unwrap()["items"][0].clone()
            }
            Hands::Own(cluster) => cluster.list("v1", "Service", None, labels).await.unwrap().remove(0),
        }
    }

    /// The way to port 80 of a Service: forwarded by kubectl as the guides do it, else the node port.
    async fn way_to(&self, service: &Value) -> (Client, Option<Child>) {
        let text = |pointer: &str| service.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        match &self.hands {
            Hands::Kubectl => {
                let name = format!("svc/{}", text("/metadata/name"));
                let words = ["port-forward", "-n", text("/metadata/namespace"), &name, ":80"];
                let mut forward = self.kubectl(&words).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
                let mut line = String::new();
                BufReader::new(forward.stdout.as_mut().unwrap()).read_line(&mut line).await.unwrap();
                let address = line.split_whitespace().find(|word| word.starts_with("127.0.0.1:"));
                (client(address.unwrap_or_else(|| panic!("{line}"))), Some(forward))
            }
            Hands::Own(_) => (client(&format!("127.0.0.1:{}", service["spec"]["ports"][0]["nodePort"])), None),
        }
    }

    /// `cargo xtask down` from elsewhere: it ends this run, in an orderly way.
    async fn down(mut self) {
        let pid = self.igc.id().expect("it runs");
        // Without a container engine in reach, so that nothing but processes is swept.
        let mut down = igc();
        let swept = down.args(["down", "--out"]).arg(self.folder.path().join("runs")).env("PATH", "").output();
        let swept = swept.expect("igc runs");
        let said = String::from_utf8_lossy(&swept.stdout);
        assert!(said.contains(&format!("ended process {pid}")), "{said}");
        assert_eq!(self.igc.wait().await.expect("it has ended").code(), Some(0));
    }
}

fn client(address: &str) -> Client {
    Client::new(Arc::new(Tcp::to(address)), "by-hand")
}

/// `kind.version.group/name`, as kubectl takes it.
fn named(object: &ObjectRef) -> String {
    match object.api_version.split_once('/') {
        Some((group, version)) => format!("{}.{version}.{group}/{}", object.kind, object.name),
        None => format!("{}/{}", object.kind, object.name),
    }
}

fn namespace(object: &ObjectRef) -> &str {
    object.namespace.as_deref().unwrap_or_default()
}

fn hello(model: &str, words: &str) -> Call {
    let messages = json!([{"role": "user", "content": words}]);
    Call::post("/v1/chat/completions").json(&json!({"model": model, "messages": messages}))
}

fn header<'e>(exchange: &'e Exchange, name: &str) -> Option<&'e str> {
    exchange.response()?.header(name)
}

fn printed(names: &[&str]) -> String {
    let manifests: Vec<&str> = names.iter().map(|name| guides::printed(name).expect("a guide prints it")).collect();
    manifests.join("---\n")
}

const NAMESPACE: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: kserve-test}\n";

/// Guide 002: refused where it is out of date, and as corrected; then its requests, up to its limit of an hour.
#[rstest]
#[tokio::test]
async fn guide_002(#[values(By::Kubectl, By::OwnClient)] by: By) {
    let Some(standing) = Standing::of("envoy-ai-gateway", by).await else { return };
    standing.applied(NAMESPACE).await;
    standing.applied("apiVersion: v1\nkind: Secret\nmetadata: {name: hf-secret, namespace: kserve-test}\nstringData: {HF_TOKEN: none}\n").await;
    standing.applied(&printed(&["guide-002/inference-service"])).await;
    let service = ObjectRef::new("serving.kserve.io/v1beta1", "InferenceService", "kserve-test", "llama3-1b");
    standing.wait(&service, For::Condition("Ready")).await;
    assert_eq!(standing.get(&service).await["status"]["url"], "http://llama3-1b-kserve-test.example.com");
    let host = "llama3-1b-kserve-test.example.com";
    let direct = client(&standing.kserve).send("kserve", hello("llama3-1b", "Hello").host(host)).await;
    assert_eq!(direct.status(), Some(200), "{}", direct.outcome_words());

    let backend = printed(&["guide-002/ai-backend"]);
    standing.refused(&backend, "unknown field \"spec.timeouts\"").await;
    let backend = backend.replace("  timeouts:\n    request: 60s\n", "");
    standing.refused(&backend, "BackendRef must be a Backend resource of Envoy Gateway").await;
    standing.refused(&printed(&["guide-002/route"]), "unknown field \"spec.schema\"").await;
    standing.applied(&printed(&["guide-002/reference-grant", "guide-002/gateway", "guide-002/token-limit"])).await;
    standing.applied(CORRECTED_002).await;
    let route = ObjectRef::new("aigateway.envoyproxy.io/v1beta1", "AIGatewayRoute", "default", "envoy-ai-gateway");
    standing.wait(&route, For::Condition("Accepted")).await;
    let route = ObjectRef::new(GATEWAY_API, "HTTPRoute", "default", "envoy-ai-gateway");
    standing.wait(&route, For::Field(".status.parents[0].conditions[0].status", "True")).await;
    let (envoy, name) = ("gateway.envoyproxy.io/v1alpha1", "model-specific-token-limit-policy");
    let policy = ObjectRef::new(envoy, "BackendTrafficPolicy", "default", name);
    standing.wait(&policy, For::Field(".status.ancestors[0].conditions[0].status", "True")).await;

    let labels = "gateway.envoyproxy.io/owning-gateway-namespace=default,gateway.envoyproxy.io/owning-gateway-name=envoy-ai-gateway-basic";
    let service = standing.service(labels).await;
    assert!(
        service["metadata"]["name"].as_str().unwrap_or_default().starts_with("envoy-default-envoy-ai-gateway-basic-")
    );
    assert_eq!(service["status"]["loadBalancer"], json!({}), "no load balancer, as in kind");
    let (client, forward) = standing.way_to(&service).await;
    let first =
        client.send("chat", hello("llama3-1b", "Write a poem about clouds.").header("x-user-id", "user123")).await;
    let body = first.response().and_then(|r| r.json()).unwrap_or_else(|| panic!("{}", first.outcome_words()));
    assert_eq!(
        (first.status(), &body["object"], &body["model"]),
        (Some(200), &json!("chat.completion"), &json!("llama3-1b"))
    );
    // 199 tokens each: the seventh is over 1000; should the hour turn meanwhile, the thirteenth is at the latest.
    let mut last = first;
    for _ in 0..13 {
        last = client.send("spend", hello("llama3-1b", &["cloud"; 97].join(" ")).header("x-user-id", "user123")).await;
        if last.status() == Some(429) {
            break;
        }
    }
    assert_eq!((last.status(), header(&last, "x-ratelimit-limit")), (Some(429), Some("1000, 1000;w=3600")));
    let other = client.send("other", hello("llama3-1b", "Hello").header("x-user-id", "user124")).await;
    assert_eq!(other.status(), Some(200), "another user has an hour of its own");
    drop(forward);
    standing.down().await;
}

/// Guide 000, and the budget of its review (guide 003): the Gateway is KServe's, requests need its hostname.
#[rstest]
#[tokio::test]
async fn guide_000(#[values(By::Kubectl, By::OwnClient)] by: By) {
    let Some(standing) = Standing::of("agentgateway", by).await else { return };
    let manager = ObjectRef::new("apps/v1", "Deployment", "cert-manager", "cert-manager-webhook");
    standing.wait(&manager, For::Condition("Available")).await;
    standing.applied(&printed(&["guide-000/gateway"])).await;
    let gateway = ObjectRef::new(GATEWAY_API, "Gateway", "kserve", "kserve-ingress-gateway");
    standing.wait(&gateway, For::Condition("Programmed")).await;
    let service = standing.get(&ObjectRef::new("v1", "Service", "kserve", "kserve-ingress-gateway")).await;
    assert_eq!((&service["spec"]["type"], &service["status"]["loadBalancer"]), (&json!("LoadBalancer"), &json!({})));
    standing.applied(NAMESPACE).await;
    standing.applied(&printed(&["guide-000/inference-service"])).await;
    let mock = ObjectRef::new("serving.kserve.io/v1beta1", "InferenceService", "kserve-test", "mock-llm");
    standing.wait(&mock, For::Condition("Ready")).await;
    let host = "mock-llm-kserve-test.example.com";
    let route = standing.get(&ObjectRef::new(GATEWAY_API, "HTTPRoute", "kserve-test", "mock-llm")).await;
    assert_eq!(route["spec"]["hostnames"], json!([host]));
    assert_eq!(route["spec"]["parentRefs"][0]["name"], "kserve-ingress-gateway");

    let (client, forward) = standing.way_to(&service).await;
    let hello = || hello("mock-llm", "Hello");
    let plain = client.send("plain", hello().host(host)).await;
    assert_eq!((plain.status(), header(&plain, "x-requested-model")), (Some(200), None), "{}", plain.outcome_words());
    standing.applied(&printed(&["guide-000/transformation"])).await;
    let attached = For::Field(".status.ancestors[0].conditions[1].status", "True");
    let policy = ObjectRef::new(AGENTGATEWAY, "AgentgatewayPolicy", "kserve-test", "model-echo-headers");
    standing.wait(&policy, attached).await;
    let enriched = client.send("enriched", hello().host(host)).await;
    let models = ["x-requested-model", "x-actual-model"].map(|name| header(&enriched, name));
    assert_eq!(models, [Some("mock-llm"), Some("mock-llm")]);

    standing.applied(&printed(&["guide-000/backend", "guide-000/route"])).await;
    let overlay = ObjectRef::new(GATEWAY_API, "HTTPRoute", "kserve-test", "mock-llm-ai");
    standing.wait(&overlay, For::Field(".status.parents[0].conditions[0].status", "True")).await;
    let as_printed = client.send("as-printed", hello()).await;
    assert_eq!(as_printed.status(), Some(404), "the guide leaves the hostname out, which no route has");
    let answer = client.send("with-host", hello().host(host)).await;
    let usage = answer.response().and_then(|r| r.json()).unwrap_or_default()["usage"].clone();
    assert_eq!(
        (&usage["prompt_tokens"], &usage["completion_tokens"], &usage["total_tokens"]),
        (&json!(6), &json!(1), &json!(7))
    );

    let budget = ObjectRef::new(AGENTGATEWAY, "AgentgatewayPolicy", "kserve-test", "llm-token-budget");
    for (tokens, admitted) in [(70, 10), (100, 15)] {
        let limit = printed(&["guide-000/token-budget"]).replace("tokens: 70", &format!("tokens: {tokens}"));
        standing.applied(&limit).await;
        standing.wait(&budget, attached).await;
        let generation = standing.get(&budget).await["metadata"]["generation"].clone();
        let observed = if generation == 1 { "1" } else { "2" };
        standing.wait(&budget, For::Field(".status.ancestors[0].conditions[1].observedGeneration", observed)).await;
        let mut statuses = Vec::new();
        for _ in 0..admitted + 2 {
            statuses.push(client.send("burst", hello().host(host)).await.status());
        }
        let wanted: Vec<_> = (0..admitted + 2).map(|at| Some(if at < admitted { 200 } else { 429 })).collect();
        assert_eq!(statuses, wanted, "{tokens} tokens a minute, 7 a call");
    }
    drop(forward);
    standing.down().await;
}

const CORRECTED_002: &str = r"
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: envoy-ai-gateway-basic}
spec: {controllerName: gateway.envoyproxy.io/gatewayclass-controller}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: kserve, namespace: default}
spec: {endpoints: [{fqdn: {hostname: llama3-1b-predictor.kserve-test.svc.cluster.local, port: 80}}]}
---
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: AIServiceBackend
metadata: {name: kserve, namespace: default}
spec:
  schema: {name: OpenAI}
  backendRef: {group: gateway.envoyproxy.io, kind: Backend, name: kserve}
---
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: AIGatewayRoute
metadata: {name: envoy-ai-gateway, namespace: default}
spec:
  parentRefs: [{name: envoy-ai-gateway-basic, kind: Gateway, group: gateway.networking.k8s.io}]
  rules:
  - matches: [{headers: [{type: Exact, name: x-ai-eg-model, value: llama3-1b}]}]
    backendRefs: [{name: kserve, weight: 100}]
  llmRequestCosts:
  - {metadataKey: llm_input_token, type: InputToken}
  - {metadataKey: llm_output_token, type: OutputToken}
  - {metadataKey: llm_total_token, type: TotalToken}
";
