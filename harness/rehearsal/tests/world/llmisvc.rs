//! LLMInferenceService in a world: its children, the group of its pool, what it takes to be ready, and its end.

use crate::stage::{Stage, chat, condition, printed, response, said};
use apiserver::{Kind, Object};
use rehearsal::{
    dialects::object::{annotation, list, text},
    kinds,
};
use rstest::rstest;
use serde_json::Value;
use wire::Call;

const SERVICE: &str = r#"
apiVersion: serving.kserve.io/v1alpha2
kind: LLMInferenceService
metadata: {name: mock-llm, namespace: kserve-test}
spec:
  model: {uri: "hf://some/model", name: mock-llm}
  storageInitializer: {enabled: false}
  replicas: 2
  router: {route: {}, scheduler: {}}
  template:
    containers:
    - name: main
      image: ghcr.io/llm-d/llm-d-inference-sim:v0.10.2
      command: [/app/llm-d-inference-sim]
      args: ["--port", "8000", "--model", "mock-llm", "--mode", "echo"]
      env: [{name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
"#;

async fn service(stage: &Stage, name: &str) -> Object {
    stage.object(&kinds::LLM_INFERENCE_SERVICE, "kserve-test", name).await
}

async fn ready(stage: &Stage, name: &str) -> String {
    condition(&*service(stage, name).await, "Ready").to_owned()
}

fn reason<'a>(service: &'a Value, kind: &str) -> &'a str {
    let said = list(service, "/status/conditions").find(|c| text(c, "/type") == kind);
    said.map_or("absent", |c| text(c, "/reason"))
}

const OLD_POOL: Kind = Kind::of("inference.networking.x-k8s.io", "InferencePool");
const SERVICE_ACCOUNT: Kind = Kind::of("", "ServiceAccount");
const BINDING: Kind = Kind::of("rbac.authorization.k8s.io", "ClusterRoleBinding");

#[rstest]
#[case("envoy-ai-gateway", "v1.1.0")]
#[case("agentgateway", "v1.3.1")]
#[tokio::test]
async fn it_becomes_ready_behind_both_gateways(#[case] gateway: &str, #[case] version: &str) {
    let stage = Stage::of(gateway, version).await;
    stage.apply(SERVICE);
    let service = service(&stage, "mock-llm").await;
    assert_eq!(condition(&service, "Ready"), "True");
    let store = stage.world.store();
    for (kind, name) in [
        (kinds::DEPLOYMENT, "mock-llm-kserve"),
        (kinds::SERVICE, "mock-llm-kserve-workload-svc"),
        (kinds::DEPLOYMENT, "mock-llm-kserve-router-scheduler"),
        (kinds::SERVICE, "mock-llm-epp-service"),
        (SERVICE_ACCOUNT, "mock-llm-epp-sa"),
        (kinds::INFERENCE_POOL, "mock-llm-inference-pool"),
        (OLD_POOL, "mock-llm-inference-pool"),
        (kinds::HTTP_ROUTE, "mock-llm-kserve-route"),
    ] {
        assert!(store.get(&kind, "kserve-test", name).is_some(), "{kind} {name}");
    }
    let route = store.get(&kinds::HTTP_ROUTE, "kserve-test", "mock-llm-kserve-route").expect("a route");
    let group = text(&route, "/spec/rules/0/backendRefs/0/group");
    assert_eq!(group, "inference.networking.k8s.io", "it has moved on");
    assert_eq!(annotation(&route, "serving.kserve.io/inference-pool-migrated"), Some("v1"));
    assert_eq!(text(&service, "/status/url"), "", "a private address is none that it names");
    let path = "/kserve-test/mock-llm/v1/chat/completions";
    let exchange = stage.send(Call::post(path).host("any.test").json(&chat("mock-llm"))).await;
    assert_eq!(response(&exchange).status, 200);
    let pod = response(&exchange).header("x-inference-pod").unwrap_or_default();
    assert!(pod.starts_with("mock-llm-kserve-"), "{pod}");
    let other = stage.send(Call::get("/kserve-test/mock-llm/v1/models").host("any.test")).await;
    assert_eq!(response(&other).status, 200, "everything else goes past the picker");
}

#[tokio::test]
async fn it_waits_for_a_gateway_that_knows_pools() {
    let stage = Stage::of("agentgateway", "v1.3.1").await;
    let switched =
        stage.world.store().change(&kinds::DEPLOYMENT, "agentgateway-system", "agentgateway", |deployment| {
            deployment["spec"]["template"]["spec"]["containers"][0]["env"] = Value::Null;
        });
    assert!(switched.is_ok());
    stage.apply(SERVICE);
    let service = service(&stage, "mock-llm").await;
    assert_eq!(reason(&service, "HTTPRoutesReady"), "HTTPRoutesNotReady");
    assert_eq!(reason(&service, "InferencePoolReady"), "WaitingForGateway");
    assert_eq!((condition(&service, "WorkloadsReady"), condition(&service, "Ready")), ("True", "False"));
    let path = "/kserve-test/mock-llm/v1/chat/completions";
    let exchange = stage.send(Call::post(path).host("any.test").json(&chat("mock-llm"))).await;
    assert_eq!(said(&exchange), (500, "backend does not exist"));
}

#[tokio::test]
async fn the_guides_older_shape_is_read() {
    let stage = Stage::of("envoy-ai-gateway", "v1.1.0").await;
    stage.apply(&printed("guide-001/llm-service-config"));
    stage.apply(&printed("guide-001/llm-service"));
    assert_eq!(ready(&stage, "qwen-instruct").await, "True");
    let store = stage.world.store();
    let pool = store.get(&kinds::INFERENCE_POOL, "kserve-test", "qwen-instruct-inference-pool").expect("a pool");
    let picker = &pool["spec"]["endpointPickerRef"];
    assert_eq!((text(picker, "/name"), text(picker, "/failureMode")), ("qwen-instruct-epp-service", "FailOpen"));
    assert_eq!(pool["spec"]["targetPorts"][0]["number"], 8000);
    let pods = store.list(&kinds::POD, Some("kserve-test"));
    assert_eq!(pods.iter().filter(|p| text(p, "/metadata/name").starts_with("qwen-instruct-kserve-")).count(), 5);
}

#[tokio::test]
async fn a_preset_that_is_missing_blocks_it_and_leaves_what_was() {
    let stage = Stage::of("envoy-ai-gateway", "v1.1.0").await;
    stage.apply(SERVICE);
    assert_eq!(ready(&stage, "mock-llm").await, "True");
    stage.apply(&SERVICE.replace("replicas: 2", "replicas: 2\n  baseRefs: [{name: nowhere}]"));
    let service = service(&stage, "mock-llm").await;
    assert_eq!(condition(&service, "PresetsCombined"), "False");
    assert_eq!(reason(&service, "PresetsCombined"), "CombineBaseError");
    assert_eq!(condition(&service, "Ready"), "True", "stale, as KServe leaves it");
}

#[tokio::test]
async fn its_end_takes_everything_along() {
    let stage = Stage::of("agentgateway", "v1.3.1").await;
    stage.apply(SERVICE);
    assert_eq!(ready(&stage, "mock-llm").await, "True");
    let store = stage.world.store();
    let binding = "kserve-test-mock-llm-epp-auth-rb";
    assert!(store.get(&BINDING, "", binding).is_some());
    store.delete(&kinds::LLM_INFERENCE_SERVICE, "kserve-test", "mock-llm").expect("a service to delete");
    stage.settled().await;
    for kind in [kinds::DEPLOYMENT, kinds::INFERENCE_POOL, kinds::HTTP_ROUTE, OLD_POOL, kinds::POD] {
        assert!(store.list(&kind, Some("kserve-test")).is_empty(), "{kind}");
    }
    assert!(store.get(&BINDING, "", binding).is_none());
}
