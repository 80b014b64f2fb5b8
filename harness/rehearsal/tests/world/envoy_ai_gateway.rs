//! A world with Envoy AI Gateway from end to end: what the recordings of the real one say, said again.

use crate::stage::{KSERVE_HOST, Stage, chat, conditions, response, said};
use rehearsal::{
    dialects::{
        envoy_ai_gateway::kinds,
        object::{self, list, text},
    },
    world::WorldConfig,
};
use rstest::rstest;
use serde_json::json;
use std::time::Duration;
use wire::Call;

const AI_ROUTE: &str = r"
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: mock-llm, namespace: kserve-test}
spec: {endpoints: [{fqdn: {hostname: mock-llm-predictor.kserve-test.svc.cluster.local, port: 80}}]}
---
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: AIServiceBackend
metadata: {name: mock-llm, namespace: kserve-test}
spec:
  schema: {name: OpenAI}
  backendRef: {group: gateway.envoyproxy.io, kind: Backend, name: mock-llm}
---
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: AIGatewayRoute
metadata: {name: mock-llm-ai, namespace: kserve-test}
spec:
  parentRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: gw, namespace: igc}]
  rules:
  - matches: [{headers: [{type: Exact, name: x-ai-eg-model, value: mock-llm}]}]
    backendRefs: [{name: mock-llm}]
  llmRequestCosts:
  - {metadataKey: llm_input_token, type: InputToken}
  - {metadataKey: llm_output_token, type: OutputToken}
  - {metadataKey: llm_total_token, type: TotalToken}
";

const NO_ROUTE: &str = "No matching route found. It is likely because the model specified in your request is not configured in the Gateway.";

async fn staged(version: &str) -> Stage {
    served(Stage::of("envoy-ai-gateway", version).await).await
}

async fn served(stage: Stage) -> Stage {
    stage.inference_service().await;
    stage.apply(AI_ROUTE);
    stage.object(&kinds::HTTP_ROUTE, "kserve-test", "mock-llm-ai", |o| o.pointer("/status/parents/0").is_some()).await;
    stage
}

async fn limited(tokens: u64, unit: &str) -> Stage {
    let stage = staged("v1.1.0").await;
    stage.apply(&format!(
        r"
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: BackendTrafficPolicy
metadata: {{name: llm-token-budget, namespace: kserve-test}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, name: mock-llm-ai}}]
  rateLimit:
    type: Global
    global:
      rules:
      - clientSelectors: [{{headers: [{{name: x-user-id, type: Distinct}}]}}]
        limit: {{requests: {tokens}, unit: {unit}}}
        cost:
          request: {{from: Number, number: 0}}
          response: {{from: Metadata, metadata: {{namespace: io.envoy.ai_gateway, key: llm_total_token}}}}
"
    ));
    let policy = stage
        .object(&kinds::BACKEND_TRAFFIC_POLICY, "kserve-test", "llm-token-budget", |o| {
            o.pointer("/status/ancestors/0").is_some()
        })
        .await;
    assert_eq!(
        conditions(list(&policy, "/status/ancestors/0/conditions")),
        ["Accepted=True/Accepted: Policy has been accepted."]
    );
    assert_eq!(
        policy["status"]["ancestors"][0]["ancestorRef"],
        json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gw", "namespace": "igc"})
    );
    stage
}

#[tokio::test]
async fn a_model_named_in_the_body_is_reached() {
    let stage = staged("v1.1.0").await;
    let exchange = stage.chat("127.0.0.1", "mock-llm", &[]).await;
    let reply = response(&exchange);
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.json().expect("JSON")["usage"]["total_tokens"], 7);
    let names: Vec<_> = reply.headers.iter().map(|(n, _)| n.as_str()).collect();
    for name in ["server", "date", "content-type", "content-length", "x-inference-pod", "x-inference-port"] {
        assert!(names.contains(&name), "{name} in lower case among {names:?}");
    }
    assert!(!names.iter().any(|n| n.starts_with("x-ratelimit")), "no limit, no mark: {names:?}");
}

#[rstest]
#[case::unknown_model(chat("nope").to_string(), 404, Some("text/plain"), NO_ROUTE)]
#[case::no_model(r#"{"messages":[]}"#.to_owned(), 404, Some("text/plain"), NO_ROUTE)]
#[case::empty_body(String::new(), 404, Some("text/plain"), NO_ROUTE)]
#[case::malformed(r#"{"model": "mock-llm", "#.to_owned(), 400, Some("application/json"), r#"{"type":"error","error":{"type":"BadRequest","code":"400","message":"malformed request: failed to parse JSON for /v1/chat/completions: "Syntax error at index 22: eof\n\n\t{\"model\": \"mock-llm\", \n\t^\n""}}"#)]
#[case::too_large(format!(r#"{{"model":"mock-llm","messages":[{{"role":"user","content":"{}"}}]}}"#, "word ".repeat(6800)), 413, Some("text/plain"), "Payload Too Large")]
#[tokio::test]
async fn bodies_that_reach_no_model(
    #[case] body: String,
    #[case] status: u16,
    #[case] content_type: Option<&str>,
    #[case] words: &str,
) {
    let stage = staged("v1.1.0").await;
    let exchange =
        stage.send(Call::post("/v1/chat/completions").host("127.0.0.1").body(body, "application/json")).await;
    assert_eq!(said(&exchange, ["content-type"]), (status, words.to_owned(), [content_type.map(str::to_owned)]));
}

#[rstest]
#[case("POST", "/v1/nope", 404, "unsupported path: /v1/nope")]
#[case("GET", "/", 404, "unsupported path: /")]
#[case("POST", "/v1/completions", 200, "text_completion")]
#[case("POST", "/v1/embeddings", 200, "embedding")]
#[tokio::test]
async fn paths(#[case] method: &str, #[case] path: &str, #[case] status: u16, #[case] words: &str) {
    let stage = staged("v1.1.0").await;
    let mut call = Call::new(method, path).host("127.0.0.1");
    if method == "POST" {
        call = call.json(&json!({"model": "mock-llm", "prompt": "Hello", "input": "Hello"}));
    }
    let (said_status, body, []) = said(&stage.send(call).await, []);
    assert!(said_status == status && body.contains(words), "{said_status} {body}");
}

#[tokio::test]
async fn models_are_listed_from_the_configuration() {
    let stage = staged("v1.1.0").await;
    let exchange = stage.send(Call::get("/v1/models").host("127.0.0.1")).await;
    let listed = response(&exchange).json().expect("JSON");
    assert_eq!(listed["object"], "list");
    assert_eq!(listed["data"][0]["id"], "mock-llm");
    assert_eq!(listed["data"][0]["owned_by"], "Envoy AI Gateway");
    assert_eq!(listed["data"].as_array().map(Vec::len), Some(1));
}

/// A routing header of the client: overwritten by the versions that were seen on a real cluster, appended to before.
#[rstest]
#[case("v1.1.0", 200)]
#[case("v1.0.0", 200)]
#[case("v0.7.0", 404)]
#[tokio::test]
async fn a_client_names_a_model_in_the_routing_header(#[case] version: &str, #[case] status: u16) {
    let stage = staged(version).await;
    assert_eq!(stage.chat("127.0.0.1", "mock-llm", &[("x-ai-eg-model", "nope")]).await.status(), Some(status));
}

#[tokio::test]
async fn a_client_sends_a_destination_endpoint() {
    let stage = staged("v1.1.0").await;
    let headers = [("x-gateway-destination-endpoint", "10.244.0.24:8080")];
    let exchange = stage.chat("127.0.0.1", "mock-llm", &headers).await;
    assert_eq!(said(&exchange, ["content-length", "content-type"]), (500, String::new(), [Some("0".to_owned()), None]));
}

#[tokio::test]
async fn upstream_errors_pass_unchanged() {
    let stage = staged("v1.1.0").await;
    for code in ["429", "503"] {
        let exchange = stage.chat("127.0.0.1", "mock-llm", &[("x-return-error", code)]).await;
        let reply = response(&exchange);
        assert_eq!(reply.status.to_string(), code);
        assert_eq!(reply.json().expect("JSON")["error"]["code"].to_string(), code);
    }
}

/// A stream that did not ask for usage carries it on an AI route, and not on KServe's own.
#[rstest]
#[case::ai_route("127.0.0.1", true)]
#[case::kserve_route(KSERVE_HOST, false)]
#[tokio::test]
async fn streams_and_usage(#[case] host: &str, #[case] usage: bool) {
    let stage = staged("v1.1.0").await;
    let exchange = stage.send(Call::post("/v1/chat/completions").host(host).json(&chat("mock-llm")).stream()).await;
    let reply = response(&exchange);
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("text/event-stream")));
    assert_eq!(reply.header("content-length"), None);
    let text = reply.body.text.as_deref().unwrap_or_default();
    assert_eq!(text.contains("\"total_tokens\":7"), usage, "{text}");
    assert!(text.ends_with("data: [DONE]\n\n"));
}

/// Calls 1 to 11 pass although ten spend it all; the 12th is refused (token-limit.txt).
#[tokio::test]
async fn a_budget_of_seventy_tokens_an_hour() {
    let stage = limited(70, "Hour").await;
    let user = [("x-user-id", "user-a")];
    let mut remaining = Vec::new();
    for _ in 0..11 {
        let exchange = stage.chat("127.0.0.1", "mock-llm", &user).await;
        let reply = response(&exchange);
        assert_eq!((reply.status, reply.header("x-ratelimit-limit")), (200, Some("70, 70;w=3600")));
        remaining.push(reply.header("x-ratelimit-remaining").unwrap_or("absent").to_owned());
    }
    assert_eq!(remaining, ["70", "63", "56", "49", "42", "35", "28", "21", "14", "7", "0"]);
    let refused = stage.chat("127.0.0.1", "mock-llm", &user).await;
    let (status, body, [limit, remaining, length, kind]) =
        said(&refused, ["x-ratelimit-limit", "x-ratelimit-remaining", "content-length", "content-type"]);
    assert_eq!((status, body.as_str()), (429, ""));
    assert_eq!((limit.as_deref(), remaining.as_deref()), (Some("70, 70;w=3600"), Some("0")));
    assert_eq!((length.as_deref(), kind), (Some("0"), None));
    assert_eq!(response(&refused).header("x-envoy-ratelimited"), None, "off by default");

    assert_eq!(stage.statuses(1, "127.0.0.1", &[("x-user-id", "user-b")]).await, [200], "a bucket of its own");
    assert_eq!(stage.statuses(13, "127.0.0.1", &[]).await, [200; 13], "without identity no limit");
    assert_eq!(stage.statuses(1, KSERVE_HOST, &user).await, [200], "another route");
    let with_error = [("x-user-id", "user-a"), ("x-return-error", "503")];
    assert_eq!(stage.statuses(1, "127.0.0.1", &with_error).await, [429], "before the upstream");
    let models = stage.send(Call::get("/v1/models").host("127.0.0.1").header("x-user-id", "user-a")).await;
    assert_eq!(models.status(), Some(200));

    let reset = response(&refused).header("x-ratelimit-reset").and_then(|r| r.parse().ok()).expect("a number");
    stage.world.clock().advance_by(Duration::from_secs(reset));
    assert_eq!(stage.statuses(1, "127.0.0.1", &user).await, [200], "a new window");
}

#[rstest]
#[case(75, 11)]
#[case(14, 3)]
#[case(7, 2)]
#[case(1, 1)]
#[tokio::test]
async fn budgets_let_pass(#[case] tokens: u64, #[case] passes: usize) {
    let stage = limited(tokens, "Hour").await;
    let statuses = stage.statuses(passes + 2, "127.0.0.1", &[("x-user-id", "u")]).await;
    assert_eq!(statuses.iter().filter(|s| **s == 200).count(), passes, "{statuses:?}");
    assert_eq!(statuses[passes..], [429, 429]);
}

/// Streams are charged at their end; errors and clients that leave early pay nothing.
#[tokio::test]
async fn what_is_charged() {
    let stage = limited(7, "Hour").await;
    let user = [("x-user-id", "u")];
    assert_eq!(
        stage.statuses(3, "127.0.0.1", &[("x-user-id", "u"), ("x-return-error", "503")]).await,
        [503; 3],
        "errors are free"
    );
    let streamed = || Call::post("/v1/chat/completions").host("127.0.0.1").json(&chat("mock-llm")).stream();
    for status in [200, 200, 429] {
        assert_eq!(stage.send(streamed().header(user[0].0, user[0].1)).await.status(), Some(status));
    }
}

/// KServe's children and statuses (isvc-objects.yaml).
#[tokio::test]
async fn an_inference_service_becomes_ready_and_leaves_nothing_behind() {
    let stage = Stage::of("envoy-ai-gateway", "v1.1.0").await;
    let service = stage.inference_service().await;
    let kinds_and_states: Vec<_> = list(&service, "/status/conditions")
        .map(|c| format!("{}={} {}", text(c, "/type"), text(c, "/status"), text(c, "/reason")))
        .collect();
    assert_eq!(
        kinds_and_states,
        ["IngressReady=True ", "PredictorReady=True NewReplicaSetAvailable", "Ready=True ", "Stopped=False "]
    );
    assert_eq!(service["status"]["url"], "http://mock-llm-kserve-test.example.com");
    assert_eq!(service["status"]["address"]["url"], "http://mock-llm-predictor.kserve-test.svc.cluster.local");
    let route = stage.object(&kinds::HTTP_ROUTE, "kserve-test", "mock-llm", |_| true).await;
    assert_eq!(route["spec"]["rules"][0]["matches"][0]["path"]["value"], "^/.*$");
    assert_eq!(
        conditions(list(&route, "/status/parents/0/conditions")),
        [
            "Accepted=True/Accepted: Route is accepted",
            "ResolvedRefs=True/ResolvedRefs: Resolved all the Object references for the Route"
        ]
    );
    assert_eq!(stage.chat(KSERVE_HOST, "mock-llm", &[]).await.status(), Some(200));
    assert_eq!(stage.chat("mock-llm-predictor-kserve-test.example.com", "mock-llm", &[]).await.status(), Some(200));
    let nowhere = stage.chat("127.0.0.1", "mock-llm", &[]).await;
    assert_eq!(said(&nowhere, ["content-type"]), (404, String::new(), [None]), "no AI route: Envoy's own 404");

    stage.world.store().delete(&kinds::INFERENCE_SERVICE, "kserve-test", "mock-llm").expect("deleted");
    crate::stage::bounded(
        "the end",
        stage.world.until(|store| {
            [kinds::INFERENCE_SERVICE, kinds::HTTP_ROUTE, kinds::POD, kinds::SERVICE]
                .iter()
                .all(|kind| store.list(kind, Some("kserve-test")).is_empty())
                .then_some(())
        }),
    )
    .await;
}

/// The routes come after the Deployment is available, and Ready after the routes are accepted (docs/facts/kserve.md K1).
#[tokio::test]
async fn an_inference_service_becomes_ready_in_order() {
    let stage = Stage::of("envoy-ai-gateway", "v1.1.0").await;
    let mut events = stage.world.store().subscribe(None);
    stage.inference_service().await;
    let mut steps = Vec::new();
    while let Some(event) = events.try_next() {
        let object = &event.object;
        let step = match event.kind.kind.as_ref() {
            "Deployment" if crate::stage::condition(object, "Available") == "True" => "available",
            "HTTPRoute" if object.pointer("/status/parents/0").is_some() => "accepted",
            "HTTPRoute" => "route",
            "InferenceService" if crate::stage::condition(object, "Ready") == "True" => "ready",
            "InferenceService" if crate::stage::condition(object, "Ready") == "False" => "not ready",
            _ => continue,
        };
        if !steps.contains(&step) {
            steps.push(step);
        }
    }
    assert_eq!(steps, ["not ready", "available", "route", "accepted", "ready"]);
}

#[tokio::test]
async fn statuses_of_what_is_missing() {
    let stage = staged("v1.1.0").await;
    stage.apply(
        r"
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: AIGatewayRoute
metadata: {name: neg-missing-backend, namespace: kserve-test}
spec:
  parentRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: gw, namespace: igc}]
  hostnames: [neg1.example.com]
  rules: [{matches: [{headers: [{type: Exact, name: x-ai-eg-model, value: m1}]}], backendRefs: [{name: does-not-exist}]}]
---
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: AIGatewayRoute
metadata: {name: neg-missing-pool, namespace: kserve-test}
spec:
  parentRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: gw, namespace: igc}]
  hostnames: [neg2.example.com]
  rules: [{matches: [{headers: [{type: Exact, name: x-ai-eg-model, value: m2}]}], backendRefs: [{group: inference.networking.k8s.io, kind: InferencePool, name: no-such-pool}]}]
---
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: AIGatewayRoute
metadata: {name: neg-missing-gateway, namespace: kserve-test}
spec:
  parentRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: no-such-gateway}]
  rules: [{matches: [{headers: [{type: Exact, name: x-ai-eg-model, value: m3}]}], backendRefs: [{name: mock-llm}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: neg-service, namespace: kserve-test}
spec:
  parentRefs: [{name: gw, namespace: igc}]
  hostnames: [neg7.example.com]
  rules: [{backendRefs: [{name: no-such-service, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: neg-group, namespace: kserve-test}
spec:
  parentRefs: [{name: gw, namespace: igc}]
  hostnames: [neg6.example.com]
  rules: [{backendRefs: [{group: inference.networking.x-k8s.io, kind: InferencePool, name: no-such-pool}]}]
",
    );
    let ai = |name: &'static str| {
        let stage = &stage;
        async move {
            let route = stage
                .object(&kinds::AI_GATEWAY_ROUTE, "kserve-test", name, |o| o.pointer("/status/conditions/0").is_some())
                .await;
            conditions(list(&route, "/status/conditions"))
        }
    };
    assert_eq!(
        ai("neg-missing-backend").await,
        [
            "NotAccepted=False/ReconciliationFailed: failed to construct a new HTTPRoute: failed to get AIServiceBackend \
          does-not-exist.kserve-test: AIServiceBackend does-not-exist.kserve-test not found"
        ]
    );
    assert_eq!(
        ai("neg-missing-gateway").await,
        ["NotAccepted=False/ReconciliationFailed: failed to sync gw pods: gateway kserve-test/no-such-gateway not \
          found: Gateway.gateway.networking.k8s.io \"no-such-gateway\" not found"]
    );
    assert_eq!(
        ai("neg-missing-pool").await,
        ["Accepted=True/ReconciliationSucceeded: AI Gateway Route reconciled successfully"]
    );
    for (route, reason, message) in [
        ("neg-missing-pool", "BackendNotFound", "custom backend InferencePool kserve-test/no-such-pool not found."),
        ("neg-service", "BackendNotFound", "service kserve-test/no-such-service not found."),
        (
            "neg-group",
            "InvalidKind",
            "Group is invalid, only the core API group (specified by omitting the group \
            field or setting it to an empty string), multicluster.x-k8s.io and gateway.envoyproxy.io are supported.",
        ),
    ] {
        let written =
            stage.object(&kinds::HTTP_ROUTE, "kserve-test", route, |o| o.pointer("/status/parents/0").is_some()).await;
        assert_eq!(
            conditions(list(&written, "/status/parents/0/conditions")),
            [
                "Accepted=True/Accepted: Route is accepted".to_owned(),
                format!("ResolvedRefs=False/{reason}: Failed to process route rule 0 backendRef 0: {message}")
            ]
        );
    }
    for (host, model, status, body) in [
        ("neg1.example.com", "m1", 404, NO_ROUTE),
        ("neg2.example.com", "m2", 500, ""),
        ("neg6.example.com", "mock-llm", 500, ""),
        ("neg7.example.com", "mock-llm", 500, ""),
        ("127.0.0.1", "mock-llm", 200, ""),
    ] {
        let exchange = stage.chat(host, model, &[]).await;
        let (said_status, said_body, []) = said(&exchange, []);
        assert_eq!(said_status, status, "{host}");
        assert!(status == 200 || said_body == body, "{host}: {said_body}");
    }
}

/// What is edited away is gone, and what a Gateway made goes with it.
#[tokio::test]
async fn edits_and_deletions_are_carried_through() {
    let stage = staged("v1.1.0").await;
    let store = stage.world.store();
    let hostnames = |hosts: serde_json::Value| {
        store
            .change(&kinds::AI_GATEWAY_ROUTE, "kserve-test", "mock-llm-ai", |route| match hosts {
                serde_json::Value::Null => {
                    route["spec"].as_object_mut().expect("a spec").remove("hostnames");
                }
                hosts => route["spec"]["hostnames"] = hosts,
            })
            .expect("edited");
    };
    let route_kind = kinds::HTTP_ROUTE;
    let written = |expected: Option<serde_json::Value>| {
        stage.object(&route_kind, "kserve-test", "mock-llm-ai", move |o| {
            o.pointer("/spec/hostnames") == expected.as_ref()
                && o.pointer("/status/parents/0/conditions/0/observedGeneration") == o.pointer("/metadata/generation")
        })
    };
    hostnames(json!(["one.test"]));
    written(Some(json!(["one.test"]))).await;
    assert_eq!(stage.statuses(1, "one.test", &[]).await, [200]);
    assert_eq!(stage.statuses(1, "two.test", &[]).await, [404]);
    hostnames(serde_json::Value::Null);
    written(None).await;
    assert_eq!(stage.statuses(1, "two.test", &[]).await, [200]);

    store.delete(&kinds::AI_GATEWAY_ROUTE, "kserve-test", "mock-llm-ai").expect("deleted");
    crate::stage::bounded(
        "the filters' end",
        stage.world.until(|store| store.list(&kinds::HTTP_ROUTE_FILTER, Some("kserve-test")).is_empty().then_some(())),
    )
    .await;
    assert_eq!(said(&stage.chat("two.test", "mock-llm", &[]).await, []), (404, String::new(), []));
    store.delete(&kinds::GATEWAY, "igc", "gw").expect("deleted");
    crate::stage::bounded(
        "the proxy's end",
        stage.world.until(|store| {
            let services = store.list(&kinds::SERVICE, Some("envoy-gateway-system"));
            (services.len() == 1 && store.list(&kinds::POD, Some("envoy-gateway-system")).len() == 2).then_some(())
        }),
    )
    .await;
    assert_eq!(stage.chat("two.test", "mock-llm", &[]).await.status(), None, "nobody listens any more");
}

/// Without the extension hook all conditions are True, and only a client that names the model itself is served
/// (hook-not-wired.txt).
#[tokio::test]
async fn the_extension_hook_is_not_wired() {
    let config = WorldConfig::new("envoy-ai-gateway", "v1.1.0").expect("a known gateway").without("extension-hook");
    let stage = served(Stage::with("envoy-ai-gateway", config).await).await;
    let route =
        stage.object(&kinds::AI_GATEWAY_ROUTE, "kserve-test", "mock-llm-ai", |o| o.get("status").is_some()).await;
    assert_eq!(crate::stage::condition(&route, "Accepted"), "True");
    let unnamed = stage.chat("127.0.0.1", "mock-llm", &[]).await;
    assert_eq!(said(&unnamed, []), (404, NO_ROUTE.to_owned(), []));
    assert_eq!(stage.statuses(1, "127.0.0.1", &[("x-ai-eg-model", "mock-llm")]).await, [200]);
}

/// A proxy that starts again is not reached before it knows its routes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_proxy_begins_with_its_routes() {
    let stage = staged("v1.1.0").await;
    let store = stage.world.store();
    let mut last = String::new();
    for round in 0..20 {
        // the one before may answer on until the controllers have seen that it is gone
        let another = stage.world.until(|store| {
            let pods = store.list(&kinds::POD, Some("envoy-gateway-system"));
            let running = pods.iter().filter(|pod| !object::text(pod, "/status/podIP").is_empty());
            running.map(|pod| object::name(pod).to_owned()).find(|n| n.starts_with("envoy-igc-gw-") && *n != last)
        });
        let proxy = crate::stage::bounded("the Gateway's proxy", another).await;
        store.delete(&kinds::POD, "envoy-gateway-system", &proxy).expect("deleted");
        last = proxy;
        let statuses = crate::stage::bounded("the first answer", async {
            loop {
                if let Some(status) = stage.chat("127.0.0.1", "mock-llm", &[]).await.status() {
                    break status;
                }
            }
        });
        assert_eq!(statuses.await, 200, "round {round}");
    }
}
