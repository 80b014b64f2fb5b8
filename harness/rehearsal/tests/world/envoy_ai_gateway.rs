//! A world with Envoy AI Gateway from end to end: what no recording of the real one shows.

use crate::stage::{KSERVE_HOST, Stage, bounded, chat, condition, response, said};
use rehearsal::dialects::{envoy_ai_gateway::kinds, object};
use rstest::rstest;
use serde_json::json;
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

async fn staged(version: &str) -> Stage {
    let stage = Stage::of("envoy-ai-gateway", version).await;
    stage.inference_service().await;
    stage.apply(AI_ROUTE);
    stage.settled().await;
    stage
}

/// A routing header of the client: overwritten from v1.0.0 on, appended to before.
#[rstest]
#[case("v1.0.0", 200)]
#[case("v0.7.0", 404)]
#[tokio::test]
async fn a_client_names_a_model_in_the_routing_header(#[case] version: &str, #[case] status: u16) {
    let stage = staged(version).await;
    assert_eq!(stage.chat("127.0.0.1", "mock-llm", &[("x-ai-eg-model", "nope")]).await.status(), Some(status));
}

/// An AI route makes streams report usage; KServe's own route beside it does not.
#[tokio::test]
async fn a_stream_of_kserves_route_reports_no_usage() {
    let stage = staged("v1.1.0").await;
    let call = Call::post("/v1/chat/completions").host(KSERVE_HOST).json(&chat("mock-llm")).stream();
    let exchange = stage.send(call).await;
    let reply = response(&exchange);
    let text = reply.body.text.as_deref().unwrap_or_default();
    assert!(reply.status == 200 && !text.contains("total_tokens") && text.ends_with("data: [DONE]\n\n"), "{text}");
}

#[tokio::test]
async fn an_inference_service_leaves_nothing_behind() {
    let stage = Stage::of("envoy-ai-gateway", "v1.1.0").await;
    stage.inference_service().await;
    let store = stage.world.store();
    store.delete(&kinds::INFERENCE_SERVICE, "kserve-test", "mock-llm").expect("deleted");
    stage.settled().await;
    for kind in [kinds::INFERENCE_SERVICE, kinds::HTTP_ROUTE, kinds::DEPLOYMENT, kinds::POD, kinds::SERVICE] {
        assert!(store.list(&kind, Some("kserve-test")).is_empty(), "{kind}");
    }
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
            "Deployment" if condition(object, "Available") == "True" => "available",
            "HTTPRoute" if object.pointer("/status/parents/0").is_some() => "accepted",
            "HTTPRoute" => "route",
            "InferenceService" if condition(object, "Ready") == "True" => "ready",
            "InferenceService" if condition(object, "Ready") == "False" => "not ready",
            _ => continue,
        };
        if !steps.contains(&step) {
            steps.push(step);
        }
    }
    assert_eq!(steps, ["not ready", "available", "route", "accepted", "ready"]);
}

/// What is edited away is gone, and what a Gateway made goes with it.
#[tokio::test]
async fn edits_and_deletions_are_carried_through() {
    let stage = staged("v1.1.0").await;
    let store = stage.world.store();
    let hostnames = async |hosts: Option<&str>| {
        let edited = store.change(&kinds::AI_GATEWAY_ROUTE, "kserve-test", "mock-llm-ai", |route| {
            let spec = route["spec"].as_object_mut().expect("a spec");
            match hosts {
                Some(host) => _ = spec.insert("hostnames".to_owned(), json!([host])),
                None => _ = spec.remove("hostnames"),
            }
        });
        edited.expect("edited");
        stage.settled().await;
    };
    hostnames(Some("one.test")).await;
    assert_eq!(stage.statuses(1, "one.test", &[]).await, [200]);
    assert_eq!(stage.statuses(1, "two.test", &[]).await, [404]);
    hostnames(None).await;
    assert_eq!(stage.statuses(1, "two.test", &[]).await, [200]);

    store.delete(&kinds::AI_GATEWAY_ROUTE, "kserve-test", "mock-llm-ai").expect("deleted");
    stage.settled().await;
    assert!(store.list(&kinds::HTTP_ROUTE_FILTER, Some("kserve-test")).is_empty());
    assert_eq!(said(&stage.chat("two.test", "mock-llm", &[]).await), (404, ""));
    store.delete(&kinds::GATEWAY, "igc", "gw").expect("deleted");
    stage.settled().await;
    let count = |kind| store.list(kind, Some("envoy-gateway-system")).len();
    assert_eq!((count(&kinds::SERVICE), count(&kinds::POD)), (1, 2), "the installation's own");
    assert_eq!(stage.chat("two.test", "mock-llm", &[]).await.status(), None, "the listener is closed");
}

/// A proxy that starts again is not reached before it knows its routes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_proxy_begins_with_its_routes() {
    let stage = staged("v1.1.0").await;
    let store = stage.world.store();
    for round in 0..20 {
        stage.settled().await;
        let pods = store.list(&kinds::POD, Some("envoy-gateway-system"));
        let proxy = pods.iter().map(|pod| object::name(pod)).find(|name| name.starts_with("envoy-igc-gw-"));
        let proxy = proxy.expect("the Gateway's proxy");
        store.delete(&kinds::POD, "envoy-gateway-system", proxy).expect("deleted");
        let statuses = bounded("the first answer", async {
            loop {
                if let Some(status) = stage.chat("127.0.0.1", "mock-llm", &[]).await.status() {
                    break status;
                }
            }
        });
        assert_eq!(statuses.await, 200, "round {round}");
    }
}
