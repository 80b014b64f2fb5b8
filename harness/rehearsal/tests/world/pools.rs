//! Pools in a world, where no suite looks: what freezes a gateway, what switches pools off, and odd statuses.

use crate::stage::{Stage, bounded, conditions, response};
use rehearsal::{
    dialects::object::{list, text},
    kinds,
};
use serde_json::{Value, json};
use wire::Call;

fn pool(name: &str, picker: &str) -> String {
    format!(
        r"
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {{name: {name}, namespace: kserve-test}}
spec:
  selector: {{matchLabels: {{app: {name}}}}}
  targetPorts: [{{number: 8000}}]
  endpointPickerRef: {{name: {picker}, port: {{number: 9002}}}}
"
    )
}

fn route(name: &str, host: &str, backends: &str) -> String {
    format!(
        r"
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}, namespace: kserve-test}}
spec:
  parentRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: gw, namespace: igc}}]
  hostnames: [{host}]
  rules: [{{backendRefs: [{backends}]}}]
"
    )
}

fn to_pool(name: &str) -> String {
    format!("{{group: inference.networking.k8s.io, kind: InferencePool, name: {name}}}")
}

const PICKER: &str = r"
apiVersion: v1
kind: Service
metadata: {name: epp, namespace: kserve-test}
spec: {selector: {app: nobody}, ports: [{port: 9002}]}
";

async fn resolved(stage: &Stage, name: &str) -> Value {
    let said = |o: &Value| o.pointer("/status/parents/0/conditions/1").is_some();
    (*stage.object(&kinds::HTTP_ROUTE, "kserve-test", name, said).await).clone()
}

/// What stands there: every later change is withheld, and no status says so, until the bad route goes.
#[tokio::test]
async fn two_pools_in_a_rule_freeze_the_gateway() {
    let stage = Stage::of("envoy-ai-gateway", "v1.1.0").await;
    stage.inference_service().await;
    stage.apply(&[PICKER, &pool("a", "epp"), &pool("b", "epp")].join("\n---\n"));
    let service = "{name: mock-llm-predictor, port: 80}";
    stage.apply(&route("early", "early.test", service));
    resolved(&stage, "early").await;
    let status = async |host: &str| response(&stage.send(Call::get("/v1/models").host(host)).await).status;
    assert_eq!(status("early.test").await, 200);
    stage.apply(&route("bad", "bad.test", &format!("{}, {}", to_pool("a"), to_pool("b"))));
    resolved(&stage, "bad").await;
    stage.apply(&route("late", "late.test", service));
    let late = resolved(&stage, "late").await;
    let said = conditions(list(&late, "/status/parents/0/conditions"));
    assert!(said.iter().all(|c| c.contains("=True/")), "{said:?}");
    assert_eq!((status("early.test").await, status("late.test").await, status("bad.test").await), (200, 404, 404));
    stage.world.store().delete(&kinds::HTTP_ROUTE, "kserve-test", "bad").expect("a route to delete");
    let live = async {
        while status("late.test").await != 200 {
            tokio::task::yield_now().await;
        }
    };
    bounded("a thaw", live).await;
}

/// `inferenceExtension.enabled: false`: not silence, but no word of the switch either.
#[tokio::test]
async fn without_the_inference_extension_there_are_no_pools() {
    let stage = Stage::of("agentgateway", "v1.3.1").await;
    let switched =
        stage.world.store().change(&kinds::DEPLOYMENT, "agentgateway-system", "agentgateway", |deployment| {
            deployment["spec"]["template"]["spec"]["containers"][0]["env"] = json!([]);
        });
    assert!(switched.is_ok());
    stage.apply(&[PICKER, &pool("a", "epp"), &route("r", "r.test", &to_pool("a"))].join("\n---\n"));
    let said = resolved(&stage, "r").await;
    let resolved = list(&said, "/status/parents/0/conditions").find(|c| text(c, "/type") == "ResolvedRefs");
    assert_eq!(resolved.map(|c| text(c, "/reason")), Some("BackendNotFound"));
    let exchange = stage.send(Call::get("/v1/models").host("r.test")).await;
    let answered = response(&exchange);
    assert_eq!((answered.status, answered.body.text.as_deref()), (500, Some("backend does not exist")));
    let pool = stage.world.store().get(&kinds::INFERENCE_POOL, "kserve-test", "a").expect("a pool");
    assert_eq!(pool.pointer("/status/parents"), None);
}

/// As recorded: a pool that no route leads to says what is wrong with it all the same.
#[tokio::test]
async fn a_pool_without_gateway_says_what_is_wrong_with_it() {
    let stage = Stage::of("agentgateway", "v1.3.1").await;
    stage.apply(&[PICKER, &pool("good", "epp"), &pool("bad", "nobody")].join("\n---\n"));
    let said = |o: &Value| o.pointer("/status/parents/0").is_some();
    let bad = stage.object(&kinds::INFERENCE_POOL, "kserve-test", "bad", said).await;
    let parent = json!({"group": "gateway.networking.k8s.io", "kind": "Status", "name": "default"});
    assert_eq!(bad["status"]["parents"][0]["parentRef"], parent);
    assert_eq!(
        conditions(list(&bad, "/status/parents/0/conditions")),
        [
            "Accepted=True/Accepted: InferencePool has been accepted by controller agentgateway.dev/agentgateway",
            "ResolvedRefs=False/InvalidExtensionRef: error: endpointPickerRef Service kserve-test/nobody not found",
        ]
    );
    let good = stage.world.store().get(&kinds::INFERENCE_POOL, "kserve-test", "good").expect("a pool");
    assert_eq!(good.pointer("/status/parents"), None);
}
