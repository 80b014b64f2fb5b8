//! What the end-to-end tests share: a stage in a world of its own, and the manifests on it.

use std::{future::Future, sync::Arc, time::Duration};

use apiserver::{Kind, Object};
use rehearsal::{
    dialects::object::{list, text},
    kinds,
    world::{World, WorldConfig},
};
use serde_json::{Value, json};
use verdict::history::{Exchange, Response};
use wire::{Call, Client, Tcp};

const BOUND: Duration = Duration::from_secs(20);

pub async fn bounded<T>(what: &str, waiting: impl Future<Output = T>) -> T {
    match tokio::time::timeout(BOUND, waiting).await {
        Ok(found) => found,
        Err(_) => panic!("{what} did not happen within {BOUND:?}"),
    }
}

pub struct Stage {
    pub world: World,
    pub client: Client,
}

impl Stage {
    /// A world with a Gateway that all namespaces may use, programmed, and the namespace `kserve-test`.
    pub async fn of(gateway: &str, version: &str) -> Self {
        Self::with(gateway, WorldConfig::new(gateway, version).expect("a known gateway")).await
    }

    pub async fn with(gateway: &str, mut config: WorldConfig) -> Self {
        config.kserve_gateway = ("igc".to_owned(), "gw".to_owned());
        let world = World::start(config).await.expect("a world");
        let stage = Self { world, client: Client::new(Arc::new(Tcp::to("127.0.0.1:1")), "none") };
        stage.apply(match gateway {
            "envoy-ai-gateway" => ENVOY_GATEWAY,
            _ => AGENTGATEWAY,
        });
        bounded(
            "Programmed",
            stage.world.until(|store| {
                let gateway = store.get(&kinds::GATEWAY, "igc", "gw")?;
                list(&gateway, "/status/conditions")
                    .any(|c| text(c, "/type") == "Programmed" && text(c, "/status") == "True")
                    .then_some(())
            }),
        )
        .await;
        Self::at(stage.world).await
    }

    pub async fn at(world: World) -> Self {
        let address = bounded(
            "a node port",
            world.until(|store| {
                store
                    .list(&kinds::SERVICE, None)
                    .iter()
                    .find(|s| {
                        s["metadata"]["labels"]["app.kubernetes.io/managed-by"]
                            .as_str()
                            .is_some_and(|by| by.contains("gateway"))
                    })
                    .and_then(|s| world.node_port(text(s, "/metadata/namespace"), text(s, "/metadata/name"), 80))
            }),
        )
        .await;
        Self { world, client: Client::new(Arc::new(Tcp::to(address)), "x") }
    }

    pub fn apply(&self, manifests: &str) {
        let documents: Vec<Value> = serde_saphyr::from_multiple(manifests).expect("YAML");
        for document in documents.into_iter().filter(|d| !d.is_null()) {
            let what = format!("{} {}", text(&document, "/kind"), text(&document, "/metadata/name"));
            if let Err(failure) = self.world.store().apply(document) {
                panic!("{what} was refused: {failure:?}");
            }
        }
    }

    pub async fn object(&self, kind: &Kind, namespace: &str, name: &str, wanted: impl Fn(&Value) -> bool) -> Object {
        let what = format!("{kind} {namespace}/{name}");
        bounded(&what, self.world.until(|store| store.get(kind, namespace, name).filter(|o| wanted(o)))).await
    }

    pub async fn inference_service(&self) -> Object {
        self.apply(INFERENCE_SERVICE);
        self.object(&kinds::INFERENCE_SERVICE, "kserve-test", "mock-llm", |o| condition(o, "Ready") == "True").await
    }

    pub async fn chat(&self, host: &str, model: &str, headers: &[(&str, &str)]) -> Exchange {
        let mut call = Call::post("/v1/chat/completions").host(host).json(&chat(model));
        for (name, value) in headers {
            call = call.header(*name, value);
        }
        self.send(call).await
    }

    pub async fn send(&self, call: Call) -> Exchange {
        self.client.send("test", call.timeout(BOUND)).await
    }

    pub async fn statuses(&self, n: usize, host: &str, headers: &[(&str, &str)]) -> Vec<u16> {
        let mut statuses = Vec::new();
        for _ in 0..n {
            statuses.push(self.chat(host, "mock-llm", headers).await.status().expect("a response"));
        }
        statuses
    }
}

pub fn response(exchange: &Exchange) -> &Response {
    exchange.response().unwrap_or_else(|| panic!("{}", exchange.outcome_words()))
}

pub fn said<const N: usize>(exchange: &Exchange, headers: [&str; N]) -> (u16, String, [Option<String>; N]) {
    let response = response(exchange);
    let body = response.body.text.clone().unwrap_or_default();
    (response.status, body, headers.map(|h| response.header(h).map(str::to_owned)))
}

/// A chat of six tokens and an answer of one.
pub fn chat(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "Hello"}]})
}

pub fn condition(object: &Value, kind: &str) -> String {
    list(object, "/status/conditions")
        .find(|c| text(c, "/type") == kind)
        .map_or_else(|| "absent".to_owned(), |c| text(c, "/status").to_owned())
}

/// `type=status/reason: message` of conditions, in their order.
pub fn conditions<'a>(all: impl IntoIterator<Item = &'a Value>) -> Vec<String> {
    all.into_iter()
        .map(|c| format!("{}={}/{}: {}", text(c, "/type"), text(c, "/status"), text(c, "/reason"), text(c, "/message")))
        .collect()
}

const ENVOY_GATEWAY: &str = r"
apiVersion: v1
kind: Namespace
metadata: {name: igc}
---
apiVersion: v1
kind: Namespace
metadata: {name: kserve-test}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyProxy
metadata: {name: gw, namespace: igc}
spec: {provider: {type: Kubernetes, kubernetes: {envoyService: {type: NodePort}}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: igc}
spec:
  gatewayClassName: envoy
  infrastructure:
    labels: {serving.kserve.io/gateway: gw}
    parametersRef: {group: gateway.envoyproxy.io, kind: EnvoyProxy, name: gw}
  listeners: [{name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}]
";

const AGENTGATEWAY: &str = r"
apiVersion: v1
kind: Namespace
metadata: {name: igc}
---
apiVersion: v1
kind: Namespace
metadata: {name: kserve-test}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: igc}
spec:
  gatewayClassName: agentgateway
  infrastructure: {labels: {serving.kserve.io/gateway: gw}}
  listeners: [{name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}]
";

const INFERENCE_SERVICE: &str = r"
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata: {name: mock-llm, namespace: kserve-test, annotations: {serving.kserve.io/deploymentMode: Standard}}
spec:
  predictor:
    containers:
    - name: kserve-container
      image: ghcr.io/llm-d/llm-d-inference-sim:v0.10.2
      args: ['--model', 'mock-llm', '--port', '8080', '--mode', 'echo', '--force-dummy-tokenizer']
      env:
      - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
      - {name: POD_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
      ports: [{containerPort: 8080, protocol: TCP}]
      resources: {requests: {cpu: 50m, memory: 128Mi}, limits: {cpu: 500m, memory: 256Mi}}
";

pub const KSERVE_HOST: &str = "mock-llm-kserve-test.example.com";
