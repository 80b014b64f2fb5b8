//! A world with agentgateway from end to end: what no recording shows of v1.3.1.

use std::sync::Arc;

use crate::stage::{KSERVE_HOST, Stage, bounded, chat, conditions, response, said};
use rehearsal::dialects::{agentgateway::kinds, object::list};
use rstest::rstest;
use serde_json::json;
use verdict::history::Ended;
use wire::{Abandon, Call, Client, Tcp};

const TRANSFORM: &str = r"
apiVersion: agentgateway.dev/v1alpha1
kind: AgentgatewayPolicy
metadata: {name: model-echo-headers, namespace: kserve-test}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: mock-llm}]
  traffic:
    transformation:
      response:
        set:
        - {name: x-requested-model, value: string(json(request.body).model)}
        - {name: x-actual-model, value: string(json(response.body).model)}
";

const AI_ROUTE: &str = r"
apiVersion: agentgateway.dev/v1alpha1
kind: AgentgatewayBackend
metadata: {name: mock-llm-backend, namespace: kserve-test}
spec:
  ai:
    provider:
      openai: {model: mock-llm}
      host: mock-llm-predictor.kserve-test.svc.cluster.local
      port: 80
      path: /v1/chat/completions
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: mock-llm-ai, namespace: kserve-test}
spec:
  parentRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: gw, namespace: igc}]
  hostnames: [mock-llm-kserve-test.example.com]
  rules:
  - matches: [{path: {type: PathPrefix, value: /v1/chat/completions}}]
    backendRefs: [{group: agentgateway.dev, kind: AgentgatewayBackend, name: mock-llm-backend, namespace: kserve-test}]
";

async fn staged() -> Stage {
    let stage = Stage::of("agentgateway", "v1.3.1").await;
    stage.inference_service().await;
    stage
}

async fn with_ai_route() -> Stage {
    let stage = staged().await;
    stage.apply(AI_ROUTE);
    stage.object(&kinds::HTTP_ROUTE, "kserve-test", "mock-llm-ai", |o| o.pointer("/status/parents/0").is_some()).await;
    stage
}

async fn limit(stage: &Stage, route: &str, local: &str) {
    stage.apply(&format!(
        r"
apiVersion: agentgateway.dev/v1alpha1
kind: AgentgatewayPolicy
metadata: {{name: llm-token-budget, namespace: kserve-test}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, name: {route}}}]
  traffic: {{rateLimit: {{local: {local}}}}}
"
    ));
    let generation = stage
        .world
        .store()
        .get(&kinds::AGENTGATEWAY_POLICY, "kserve-test", "llm-token-budget")
        .map(|p| p["metadata"]["generation"].clone());
    let policy = stage
        .object(&kinds::AGENTGATEWAY_POLICY, "kserve-test", "llm-token-budget", |o| {
            o.pointer("/status/ancestors/0/conditions/0/observedGeneration") == generation.as_ref()
        })
        .await;
    assert_eq!(
        conditions(list(&policy, "/status/ancestors/0/conditions")),
        ["Accepted=True/Valid: Policy accepted", "Attached=True/Attached: Attached to all targets"]
    );
}

#[rstest]
#[case("[{tokens: 14, unit: Minutes}]", 2)]
#[case("[{tokens: 75, unit: Minutes}]", 11)]
#[case("[{requests: 3, unit: Hours}]", 3)]
#[case("[{requests: 3, burst: 2, unit: Hours}]", 5)]
#[case::only_the_first("[{requests: 4, unit: Hours}, {tokens: 7, unit: Hours}]", 4)]
#[case::in_either_order("[{tokens: 7, unit: Hours}, {requests: 4, unit: Hours}]", 1)]
#[tokio::test]
async fn budgets_let_pass(#[case] local: &str, #[case] passes: usize) {
    let stage = with_ai_route().await;
    limit(&stage, "mock-llm-ai", local).await;
    let statuses = stage.statuses(passes + 2, KSERVE_HOST, &[]).await;
    assert_eq!(statuses.iter().filter(|s| **s == 200).count(), passes, "{statuses:?}");
}

#[rstest]
#[case::edited("edit", 200)]
#[case::annotated("annotate", 429)]
#[case::another_policy("other", 429)]
#[case::policy_again("policy", 200)]
#[case::route_again("route", 200)]
#[tokio::test]
async fn what_refills_a_bucket(#[case] change: &str, #[case] status: u16) {
    let stage = with_ai_route().await;
    limit(&stage, "mock-llm-ai", "[{tokens: 7, unit: Minutes}]").await;
    assert_eq!(stage.statuses(2, KSERVE_HOST, &[]).await, [200, 429]);
    let store = stage.world.store();
    let (policies, budget) = (kinds::AGENTGATEWAY_POLICY, "llm-token-budget");
    match change {
        "edit" => limit(&stage, "mock-llm-ai", "[{tokens: 8, unit: Minutes}]").await,
        "annotate" => {
            store
                .change(&policies, "kserve-test", budget, |p| p["metadata"]["annotations"] = json!({"a": "b"}))
                .expect("annotated");
        }
        "other" => {
            stage.apply(TRANSFORM);
            stage.object(&policies, "kserve-test", "model-echo-headers", |o| o.get("status").is_some()).await;
        }
        "policy" => {
            store.delete(&policies, "kserve-test", budget).expect("deleted");
            limit(&stage, "mock-llm-ai", "[{tokens: 7, unit: Minutes}]").await;
        }
        _ => {
            store.delete(&kinds::HTTP_ROUTE, "kserve-test", "mock-llm-ai").expect("deleted");
            stage.apply(AI_ROUTE);
            stage.object(&kinds::HTTP_ROUTE, "kserve-test", "mock-llm-ai", |o| o.get("status").is_some()).await;
        }
    }
    assert_eq!(stage.statuses(1, KSERVE_HOST, &[]).await, [status]);
}

/// Streams are made to ask for usage unless the client says no; who leaves early pays nothing.
#[tokio::test]
async fn what_is_charged() {
    let stage = with_ai_route().await;
    limit(&stage, "mock-llm-ai", "[{tokens: 8, unit: Minutes}]").await;
    let call = || Call::post("/v1/chat/completions").host(KSERVE_HOST).json(&chat("mock-llm")).stream();
    for _ in 0..3 {
        let left = stage.send(call().header("x-igc-gate", "never").abandon_after(Abandon::Chunks(1))).await;
        assert_eq!(response(&left).ended, Ended::Abandoned);
    }
    let mut silent = chat("mock-llm");
    silent["stream_options"] = json!({"include_usage": false});
    for _ in 0..3 {
        let call = Call::post("/v1/chat/completions").host(KSERVE_HOST).json(&silent).stream();
        assert_eq!(stage.send(call).await.status(), Some(200));
    }
    assert_eq!(stage.statuses(2, KSERVE_HOST, &[("x-igc-status", "500")]).await, [500, 500]);
    for status in [200, 200, 429] {
        assert_eq!(stage.send(call()).await.status(), Some(status));
    }
}

/// Each replica counts alone.
#[tokio::test]
async fn two_replicas_have_two_buckets() {
    let stage = with_ai_route().await;
    let scaled = stage.world.store().change(&kinds::DEPLOYMENT, "igc", "gw", |d| d["spec"]["replicas"] = json!(2));
    scaled.expect("scaled");
    limit(&stage, "mock-llm-ai", "[{tokens: 14, unit: Minutes}]").await;
    bounded(
        "two endpoints",
        stage.world.until(|store| {
            let slices = store.list(&kinds::ENDPOINT_SLICE, Some("igc"));
            slices.iter().any(|s| list(s, "/endpoints").count() == 2).then_some(())
        }),
    )
    .await;
    let statuses = stage.statuses(6, KSERVE_HOST, &[]).await;
    assert_eq!(statuses.iter().filter(|s| **s == 200).count(), 4, "{statuses:?}");
}

#[tokio::test]
async fn routes_that_cannot_serve() {
    let stage = Stage::of("agentgateway", "v1.3.1").await;
    stage.apply(CANNOT_SERVE);
    for route in ["r-ok", "r-nosvc", "r-badsec"] {
        let written = |o: &_| list(o, "/status/parents").next().is_some();
        stage.object(&kinds::HTTP_ROUTE, "kserve-test", route, written).await;
    }
    for (host, status, body) in [
        ("ok.test", 503, "no healthy backends"),
        ("nosvc.test", 500, "service not found"),
        ("badsec.test", 404, "route not found"),
    ] {
        let exchange = stage.send(Call::get("/").host(host)).await;
        assert_eq!(said(&exchange, []), (status, body.to_owned(), []), "{host}");
    }
}

#[tokio::test]
async fn worlds_do_not_know_one_another() {
    let (one, other) = tokio::join!(staged(), Stage::of("agentgateway", "v1.3.1"));
    assert_eq!(one.chat(KSERVE_HOST, "mock-llm", &[]).await.status(), Some(200));
    assert_eq!(other.chat(KSERVE_HOST, "mock-llm", &[]).await.status(), Some(404));
    let address = one.world.node_port("igc", "gw", 80).expect("a node port");
    drop(one);
    let client = Client::new(Arc::new(Tcp::to(address)), "late");
    let late = bounded("an end", client.send("late", Call::get("/").host(KSERVE_HOST))).await;
    assert_eq!(late.status(), None, "a world that ended answers nothing: {}", late.outcome_words());
}

const CANNOT_SERVE: &str = r"
apiVersion: v1
kind: Service
metadata: {name: svc, namespace: kserve-test}
spec: {selector: {app: none}, ports: [{port: 80}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r-ok, namespace: kserve-test}
spec:
  parentRefs: [{name: gw, namespace: igc}]
  hostnames: [ok.test]
  rules: [{backendRefs: [{name: svc, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r-nosvc, namespace: kserve-test}
spec:
  parentRefs: [{name: gw, namespace: igc}]
  hostnames: [nosvc.test]
  rules: [{backendRefs: [{name: nope, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r-badsec, namespace: kserve-test}
spec:
  parentRefs: [{name: gw, namespace: igc, sectionName: nope}]
  hostnames: [badsec.test]
  rules: [{backendRefs: [{name: svc, port: 80}]}]
";
