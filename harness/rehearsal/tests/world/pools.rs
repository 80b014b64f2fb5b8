//! Pools in a world, where no suite looks: what freezes a gateway.

use crate::stage::{Stage, conditions, response, route};
use rehearsal::kinds;
use wire::Call;

fn pool(name: &str) -> String {
    format!(
        r"
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {{name: {name}, namespace: kserve-test}}
spec:
  selector: {{matchLabels: {{app: {name}}}}}
  targetPorts: [{{number: 8000}}]
  endpointPickerRef: {{name: epp, port: {{number: 9002}}}}
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

/// What stands there: every later change is withheld, and no status says so, until the bad route goes.
#[tokio::test]
async fn two_pools_in_a_rule_freeze_the_gateway() {
    let stage = Stage::of("envoy-ai-gateway", "v1.1.0").await;
    stage.inference_service().await;
    stage.apply(&[PICKER, &pool("a"), &pool("b")].join("\n---\n"));
    let service = "{name: mock-llm-predictor, port: 80}";
    stage.apply(&route("early", "early.test", service));
    stage.settled().await;
    let status = async |host: &str| response(&stage.send(Call::get("/v1/models").host(host)).await).status;
    assert_eq!(status("early.test").await, 200);
    stage.apply(&route("bad", "bad.test", &format!("{}, {}", to_pool("a"), to_pool("b"))));
    stage.settled().await;
    stage.apply(&route("late", "late.test", service));
    let late = stage.object(&kinds::HTTP_ROUTE, "kserve-test", "late").await;
    let said = conditions(&late, "/status/parents/0/conditions");
    assert!(said.len() == 2 && said.iter().all(|c| c.contains("=True/")), "{said:?}");
    assert_eq!((status("early.test").await, status("late.test").await, status("bad.test").await), (200, 404, 404));
    stage.world.store().delete(&kinds::HTTP_ROUTE, "kserve-test", "bad").expect("a route to delete");
    stage.settled().await;
    assert_eq!(status("late.test").await, 200);
}
