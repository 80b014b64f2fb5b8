//! A world with agentgateway from end to end: guide 000 and the recordings of v1.3.1, said again.

use std::{sync::Arc, time::Duration};

use crate::stage::{KSERVE_HOST, Stage, bounded, chat, conditions, response, said};
use rehearsal::dialects::{
    agentgateway::kinds,
    object::{list, text},
};
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

/// With the guide's second route, live.
async fn with_ai_route() -> Stage {
    let stage = staged().await;
    stage.apply(AI_ROUTE);
    stage.object(&kinds::HTTP_ROUTE, "kserve-test", "mock-llm-ai", |o| o.pointer("/status/parents/0").is_some()).await;
    stage
}

/// Applies a policy with these local limits to a route, and waits for its status.
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

#[tokio::test]
async fn kserves_route_passes_the_upstreams_reply_as_it_is() {
    let stage = staged().await;
    let exchange = stage.chat(KSERVE_HOST, "mock-llm", &[]).await;
    let reply = response(&exchange);
    assert_eq!(reply.status, 200);
    let names: Vec<_> = reply.headers.iter().map(|(n, _)| n.as_str()).collect();
    for name in ["Server", "Date", "Content-Type", "Content-Length"] {
        assert!(names.contains(&name), "{name} with the upstream's capitals among {names:?}");
    }
    assert!(!names.iter().any(|n| n.starts_with("x-requested")));
    let nowhere = stage.chat("127.0.0.1", "mock-llm", &[]).await;
    let expected = (404, "route not found".to_owned(), [Some("text/plain".to_owned()), Some("15".to_owned())]);
    assert_eq!(said(&nowhere, ["content-type", "content-length"]), expected);
}

#[tokio::test]
async fn headers_from_the_bodies_of_request_and_reply() {
    let stage = staged().await;
    stage.apply(TRANSFORM);
    let policy = stage
        .object(&kinds::AGENTGATEWAY_POLICY, "kserve-test", "model-echo-headers", |o| {
            o.pointer("/status/ancestors/0").is_some()
        })
        .await;
    assert_eq!(
        policy["status"]["ancestors"][0]["ancestorRef"],
        json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gw", "namespace": "igc"})
    );
    let models = |exchange: &_| {
        let (status, _, [requested, actual]) = said(exchange, ["x-requested-model", "x-actual-model"]);
        (status, requested, actual)
    };
    let model = |name: &str| Some(name.to_owned());
    assert_eq!(models(&stage.chat(KSERVE_HOST, "mock-llm", &[]).await), (200, model("mock-llm"), model("mock-llm")));
    assert_eq!(
        models(&stage.chat(KSERVE_HOST, "no-such-model", &[]).await),
        (404, model("no-such-model"), None),
        "the error names no model"
    );
    let stream = Call::post("/v1/chat/completions").host(KSERVE_HOST).json(&chat("mock-llm")).stream();
    let streamed = stage.send(stream).await;
    assert_eq!(models(&streamed), (200, model("mock-llm"), None), "a stream is not JSON");
    assert_eq!(response(&streamed).header("transfer-encoding"), Some("chunked"));
    let mut large = chat("mock-llm");
    large["user"] = json!("x".repeat(3_000_000));
    let large = stage.send(Call::post("/v1/chat/completions").host(KSERVE_HOST).json(&large)).await;
    assert_eq!(models(&large), (200, None, model("mock-llm")), "what is too large to read is absent");
    let none = stage.send(Call::get("/v1/models").host(KSERVE_HOST)).await;
    assert_eq!(models(&none), (200, None, None));
}

/// The longer prefix wins over KServe's `^/.*$`; the first route's transformation stays behind.
#[tokio::test]
async fn the_ai_route_takes_its_path_from_kserves() {
    let stage = with_ai_route().await;
    stage.apply(TRANSFORM);
    stage.object(&kinds::AGENTGATEWAY_POLICY, "kserve-test", "model-echo-headers", |o| o.get("status").is_some()).await;
    let exchange = stage.chat(KSERVE_HOST, "foo", &[]).await;
    let reply = response(&exchange);
    assert_eq!((reply.status, reply.header("x-requested-model")), (200, None), "the backend's model replaces foo");
    assert_eq!(reply.json().expect("JSON")["model"], "mock-llm");
    let elsewhere = Call::post("/v1/completions").host(KSERVE_HOST);
    let elsewhere = stage.send(elsewhere.json(&json!({"model": "mock-llm", "prompt": "Hello"}))).await;
    assert_eq!(response(&elsewhere).header("x-requested-model"), Some("mock-llm"));
    let backend = stage
        .object(&kinds::AGENTGATEWAY_BACKEND, "kserve-test", "mock-llm-backend", |o| o.get("status").is_some())
        .await;
    assert_eq!(
        conditions(list(&backend, "/status/conditions")),
        ["Accepted=True/Accepted: Backend successfully accepted"]
    );
}

#[rstest]
#[case("POST", r#"{"model": "mock-llm", "messages": ["#, "EOF while parsing a list at line 1 column 35")]
#[case("POST", r#"{"model":"mock-llm"}"#, "missing field `messages` at line 1 column 20")]
#[case("POST", "", "EOF while parsing a value at line 1 column 0")]
#[case("GET", "", "EOF while parsing a value at line 1 column 0")]
#[tokio::test]
async fn what_the_ai_route_cannot_read(#[case] method: &str, #[case] body: &'static str, #[case] words: &str) {
    let stage = with_ai_route().await;
    let call = Call::new(method, "/v1/chat/completions").host(KSERVE_HOST);
    let call = if body.is_empty() { call } else { call.body(body, "application/json") };
    let expected = format!("processing failed: failed to parse request: {words}");
    assert_eq!(said(&stage.send(call).await, ["content-type"]), (503, expected, [Some("text/plain".to_owned())]));
}

#[tokio::test]
async fn large_bodies_and_absent_models_on_the_ai_route() {
    let stage = with_ai_route().await;
    let mut large = chat("mock-llm");
    large["user"] = json!("x".repeat(3_000_000));
    let exchange = stage.send(Call::post("/v1/chat/completions").host(KSERVE_HOST).json(&large)).await;
    assert_eq!(said(&exchange, []), (503, "processing failed: request was too large".to_owned(), []));
    let nameless = json!({"messages": [{"role": "user", "content": "Hello"}]});
    let exchange = stage.send(Call::post("/v1/chat/completions").host(KSERVE_HOST).json(&nameless)).await;
    assert_eq!(exchange.status(), Some(200), "the backend sets one");
}

/// Ten calls of seven tokens, then 429 until the bucket is refilled (06-budget.txt).
#[tokio::test]
async fn a_budget_of_seventy_tokens_a_minute() {
    let stage = with_ai_route().await;
    limit(&stage, "mock-llm-ai", "[{tokens: 70, unit: Minutes}]").await;
    for _ in 0..10 {
        let exchange = stage.chat(KSERVE_HOST, "mock-llm", &[]).await;
        assert_eq!(said(&exchange, ["x-ratelimit-limit"]).2, [None], "200s carry no mark");
        assert_eq!(exchange.status(), Some(200));
    }
    let refused = stage.chat(KSERVE_HOST, "mock-llm", &[]).await;
    let (status, body, headers) = said(
        &refused,
        ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "content-type", "retry-after"],
    );
    assert_eq!((status, body.as_str()), (429, "rate limit exceeded"));
    assert_eq!(headers.map(|h| h.unwrap_or_default()), ["70", "0", "59", "text/plain", ""]);
    let models = stage.send(Call::get("/v1/models").host(KSERVE_HOST)).await;
    assert_eq!(models.status(), Some(200), "another route");
    stage.world.clock().advance_by(Duration::from_secs(60));
    assert_eq!(stage.statuses(11, KSERVE_HOST, &[]).await, [200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 429]);
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

/// Attached, and without effect.
#[tokio::test]
async fn tokens_on_kserves_own_route() {
    let stage = staged().await;
    limit(&stage, "mock-llm", "[{tokens: 7, unit: Minutes}]").await;
    assert_eq!(stage.statuses(15, KSERVE_HOST, &[]).await, [200; 15]);
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
async fn statuses_of_routes_and_policies() {
    let stage = Stage::of("agentgateway", "v1.3.1").await;
    stage.apply(STATUS_CASES);
    let home = "kserve-test";
    for (route, expected) in [
        ("r-ok", ["Accepted=True/Accepted: ", "ResolvedRefs=True/ResolvedRefs: "]),
        ("r-noport", ["Accepted=True/Accepted: ", "ResolvedRefs=True/ResolvedRefs: "]),
        (
            "r-nosvc",
            [
                "Accepted=True/Accepted: ",
                "ResolvedRefs=False/BackendNotFound: backend(nope.kserve-test.svc.cluster.local) not found",
            ],
        ),
        (
            "r-cross",
            [
                "Accepted=True/Accepted: ",
                "ResolvedRefs=False/RefNotPermitted: backendRef igc/gw not \
            accessible to a HTTPRoute in namespace \"kserve-test\" (missing a ReferenceGrant?)",
            ],
        ),
        (
            "r-badsec",
            ["Accepted=False/NoMatchingParent: sectionName \"nope\" not found", "ResolvedRefs=True/ResolvedRefs: "],
        ),
        (
            "r-nobe",
            ["Accepted=True/Accepted: ", "ResolvedRefs=False/BackendNotFound: Backend not found: kserve-test/nope"],
        ),
        (
            "r-kind",
            [
                "Accepted=True/Accepted: ",
                "ResolvedRefs=False/InvalidKind: referencing unsupported backendRef: group \"foo.example\" kind \"Bar\"",
            ],
        ),
        (
            "r-nopool",
            ["Accepted=True/Accepted: ", "ResolvedRefs=False/BackendNotFound: backendRef kserve-test/nope not found"],
        ),
    ] {
        let written = stage.object(&kinds::HTTP_ROUTE, home, route, |o| o.pointer("/status/parents/0").is_some()).await;
        assert_eq!(conditions(list(&written, "/status/parents/0/conditions")), expected, "{route}");
    }
    for (policy, ancestor, expected) in [
        ("p-ok", "gw", vec!["Accepted=True/Valid: Policy accepted", "Attached=True/Attached: Attached to all targets"]),
        (
            "p-missing-target",
            "StatusSummary",
            vec![
                "Accepted=True/Valid: Policy accepted",
                "Attached=False/Pending: Policy is not attached: HTTPRoute kserve-test/nope not found",
            ],
        ),
        (
            "p-route-not-attached",
            "StatusSummary",
            vec![
                "Accepted=True/Valid: Policy accepted",
                "Attached=False/Pending: Policy is not attached: HTTPRoute kserve-test/r-nogw is not attached to any Gateway",
            ],
        ),
        (
            "p-bad-cel",
            "gw",
            vec![
                "Accepted=True/PartiallyValid: header value is not a valid CEL expression: string(json(request.body).model",
            ],
        ),
        (
            "p-unknown-var",
            "gw",
            vec!["Accepted=True/Valid: Policy accepted", "Attached=True/Attached: Attached to all targets"],
        ),
    ] {
        let written = stage
            .object(&kinds::AGENTGATEWAY_POLICY, home, policy, |o| o.pointer("/status/ancestors/0").is_some())
            .await;
        assert_eq!(text(&written, "/status/ancestors/0/ancestorRef/name"), ancestor, "{policy}");
        assert_eq!(conditions(list(&written, "/status/ancestors/0/conditions")), expected, "{policy}");
    }
    let gateway = stage
        .object(&kinds::GATEWAY, "igc", "gw", |o| o.pointer("/status/listeners/0/attachedRoutes") == Some(&json!(7)))
        .await;
    assert_eq!(
        conditions(list(&gateway, "/status/conditions")),
        ["Accepted=True/Accepted: ", "Programmed=True/Programmed: Successfully programmed Gateway"]
    );
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
async fn an_upstream_that_is_gone() {
    let stage = with_ai_route().await;
    let scaled = stage.world.store().change(&kinds::DEPLOYMENT, "kserve-test", "mock-llm-predictor", |d| {
        d["spec"]["replicas"] = json!(0);
    });
    scaled.expect("scaled");
    bounded(
        "the pod's end",
        stage.world.until(|store| {
            let slices = store.list(&kinds::ENDPOINT_SLICE, Some("kserve-test"));
            slices.iter().all(|s| list(s, "/endpoints").count() == 0).then_some(())
        }),
    )
    .await;
    let refused = "upstream call failed: Connect: Connection refused (os error 111)";
    let exchange = stage.chat(KSERVE_HOST, "mock-llm", &[]).await;
    assert_eq!(said(&exchange, []), (503, refused.to_owned(), []));
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

const STATUS_CASES: &str = r"
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
metadata: {name: r-noport, namespace: kserve-test}
spec:
  parentRefs: [{name: gw, namespace: igc}]
  hostnames: [noport.test]
  rules: [{backendRefs: [{name: svc, port: 81}]}]
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
metadata: {name: r-cross, namespace: kserve-test}
spec:
  parentRefs: [{name: gw, namespace: igc}]
  hostnames: [cross.test]
  rules: [{backendRefs: [{name: gw, namespace: igc, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r-badsec, namespace: kserve-test}
spec:
  parentRefs: [{name: gw, namespace: igc, sectionName: nope}]
  hostnames: [badsec.test]
  rules: [{backendRefs: [{name: svc, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r-nogw, namespace: kserve-test}
spec:
  parentRefs: [{name: nope}]
  hostnames: [nogw.test]
  rules: [{backendRefs: [{name: svc, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r-nobe, namespace: kserve-test}
spec:
  parentRefs: [{name: gw, namespace: igc}]
  hostnames: [nobe.test]
  rules: [{backendRefs: [{group: agentgateway.dev, kind: AgentgatewayBackend, name: nope}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r-kind, namespace: kserve-test}
spec:
  parentRefs: [{name: gw, namespace: igc}]
  hostnames: [kind.test]
  rules: [{backendRefs: [{group: foo.example, kind: Bar, name: nope}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r-nopool, namespace: kserve-test}
spec:
  parentRefs: [{name: gw, namespace: igc}]
  hostnames: [nopool.test]
  rules: [{backendRefs: [{group: inference.networking.k8s.io, kind: InferencePool, name: nope}]}]
---
apiVersion: agentgateway.dev/v1alpha1
kind: AgentgatewayPolicy
metadata: {name: p-ok, namespace: kserve-test}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r-ok}]
  traffic: {rateLimit: {local: [{tokens: 70, unit: Minutes}]}}
---
apiVersion: agentgateway.dev/v1alpha1
kind: AgentgatewayPolicy
metadata: {name: p-missing-target, namespace: kserve-test}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: nope}]
  traffic: {rateLimit: {local: [{tokens: 70, unit: Minutes}]}}
---
apiVersion: agentgateway.dev/v1alpha1
kind: AgentgatewayPolicy
metadata: {name: p-route-not-attached, namespace: kserve-test}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r-nogw}]
  traffic: {rateLimit: {local: [{tokens: 70, unit: Minutes}]}}
---
apiVersion: agentgateway.dev/v1alpha1
kind: AgentgatewayPolicy
metadata: {name: p-bad-cel, namespace: kserve-test}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r-ok}]
  traffic: {transformation: {response: {set: [{name: x-bad, value: 'string(json(request.body).model'}, {name: x-good, value: string(1)}]}}}
---
apiVersion: agentgateway.dev/v1alpha1
kind: AgentgatewayPolicy
metadata: {name: p-unknown-var, namespace: kserve-test}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r-ok}]
  traffic: {transformation: {response: {set: [{name: x-bad, value: nosuchvar.foo}]}}}
";
