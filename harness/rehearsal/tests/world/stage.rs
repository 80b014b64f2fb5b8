//! What the end-to-end tests share: a stage in a world of its own, and the manifests on it.

use std::{future::Future, sync::Arc, time::Duration};

use apiserver::{Kind, Object};
use rehearsal::{
    dialects::object::{key, list, text},
    kinds,
    world::{World, WorldConfig},
};
use serde_json::{Value, json};
use verdict::{
    guides,
    history::{Exchange, Response},
};
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
        let mut config = WorldConfig::new(gateway, version).expect("a known gateway");
        config.kserve_gateway = ("igc".to_owned(), "gw".to_owned());
        let world = World::start(config).await.expect("a world");
        let stage = Self { world, client: Client::new(Arc::new(Tcp::to("127.0.0.1:1")), "none") };
        stage.apply(SHARED);
        stage.apply(&match gateway {
            "envoy-ai-gateway" => GATEWAY.replace("agentgateway", "envoy"),
            _ => GATEWAY.replace("parametersRef", "# parametersRef"),
        });
        let gateway = stage.object(&kinds::GATEWAY, "igc", "gw").await;
        assert_eq!(condition(&gateway, "Programmed"), "True");
        Self::at(stage.world)
    }

    /// A world with such a Gateway, settled.
    pub fn at(world: World) -> Self {
        let is_proxys =
            |labels: &Value| labels["app.kubernetes.io/managed-by"].as_str().is_some_and(|by| by.contains("gateway"));
        let services = world.store().list(&kinds::SERVICE, None);
        let service = services.iter().find(|s| is_proxys(&s["metadata"]["labels"])).expect("the proxy's Service");
        let (namespace, name) = key(service);
        let address = world.node_port(&namespace, &name, 80).expect("a node port");
        Self { world, client: Client::new(Arc::new(Tcp::to(address)), "x") }
    }

    pub async fn settled(&self) {
        bounded("rest", self.world.settled()).await;
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

    /// An object when the controllers have nothing left to do.
    pub async fn object(&self, kind: &Kind, namespace: &str, name: &str) -> Object {
        self.settled().await;
        let found = self.world.store().get(kind, namespace, name);
        found.unwrap_or_else(|| panic!("there is no {kind} {namespace}/{name}"))
    }

    /// Serves `mock-llm` by KServe, as guide 000 has it.
    pub async fn inference_service(&self) {
        self.apply(&printed("guide-000/inference-service"));
        let service = self.object(&kinds::INFERENCE_SERVICE, "kserve-test", "mock-llm").await;
        assert_eq!(condition(&service, "Ready"), "True");
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

    /// Of `n` chats, one after the other.
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

pub fn said(exchange: &Exchange) -> (u16, &str) {
    let response = response(exchange);
    (response.status, response.body.text.as_deref().unwrap_or_default())
}

/// A chat of six tokens and an answer of one.
pub fn chat(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "Hello"}]})
}

pub fn condition<'a>(object: &'a Value, kind: &str) -> &'a str {
    list(object, "/status/conditions").find(|c| text(c, "/type") == kind).map_or("absent", |c| text(c, "/status"))
}

/// `type=status/reason: message` of the conditions at a pointer, in their order.
pub fn conditions(object: &Value, pointer: &str) -> Vec<String> {
    list(object, pointer)
        .map(|c| format!("{}={}/{}: {}", text(c, "/type"), text(c, "/status"), text(c, "/reason"), text(c, "/message")))
        .collect()
}

/// What a guide prints, with the Gateway of the stage in the place of its own.
pub fn printed(name: &str) -> String {
    let printed = guides::printed(name).expect("a guide's manifest");
    printed.replace("name: kserve-ingress-gateway\n", "name: gw\n").replace("namespace: kserve\n", "namespace: igc\n")
}

pub fn route(name: &str, host: &str, backends: &str) -> String {
    format!(
        r"
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}, namespace: kserve-test}}
spec:
  parentRefs: [{{name: gw, namespace: igc}}]
  hostnames: [{host}]
  rules: [{{backendRefs: [{backends}]}}]
"
    )
}

const SHARED: &str = r"
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
";

/// `parametersRef` is Envoy Gateway's alone.
const GATEWAY: &str = r"
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: igc}
spec:
  gatewayClassName: agentgateway
  infrastructure:
    labels: {serving.kserve.io/gateway: gw}
    parametersRef: {group: gateway.envoyproxy.io, kind: EnvoyProxy, name: gw}
  listeners: [{name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}]
";

/// The host that KServe publishes `mock-llm` under.
pub const KSERVE_HOST: &str = "mock-llm-kserve-test.example.com";
