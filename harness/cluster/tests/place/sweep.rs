//! Sweeping a cluster that was there: by label, what checks made before the controllers that its finalizers need.

use std::path::Path;

use cluster::{
    api::Cluster,
    place::sweep::{self, Swept},
    programs::{child::Programs, helm::Helm},
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::scripted::{Scripted, kinds, list, on};

fn namespace(name: &str, ours: bool) -> Value {
    let labels = if ours { json!({"app.kubernetes.io/managed-by": "igc", "igc.dev/run": "r"}) } else { json!({}) };
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

async fn sweep(server: &Scripted, cluster: &Cluster, run: Option<&str>) -> Swept {
    let (programs, folder) = (Programs::in_path("/nowhere"), Path::new("/nowhere"));
    let helm = Helm::new(&programs, folder, &server.kubeconfig(), "kind-scripted", "r");
    sweep::objects(cluster, &helm, run, &CancellationToken::new()).await
}

#[tokio::test]
async fn by_label_and_gateways_first() {
    let gateway = json!({"metadata": {"name": "igc", "namespace": "igc-gateway"}});
    let gateway_api = kinds(
        "gateway.networking.k8s.io/v1",
        &[("Gateway", "gateways", true), ("GatewayClass", "gatewayclasses", false)],
    );
    let stage = || on("GET /api/v1/namespaces/stage");
    let (server, cluster) = Scripted::connected(vec![
        on("GET /apis/gateway.networking.k8s.io/v1").answers(200, gateway_api),
        on("GET /apis/gateway.networking.k8s.io/v1/gateways?labelSelector=igc.dev%2Frun%3Dr")
            .answers(200, list("1", &[gateway])),
        on("DELETE /apis/gateway.networking.k8s.io/v1/namespaces/igc-gateway/gateways/igc").answers(200, json!({})),
        on("GET /apis/gateway.networking.k8s.io/v1/gatewayclasses").answers(200, list("1", &[])),
        on("GET /api/v1/namespaces?labelSelector=igc.dev%2Frun%3Dr")
            .answers(200, list("1", &[namespace("stage", true)])),
        stage().answers(200, namespace("stage", true)),
        on("DELETE /api/v1/namespaces/stage").answers(200, json!({})),
        on("GET /api/v1/namespaces?fieldSelector=metadata.name%3Dstage").answers(200, list("2", &[])),
    ])
    .await;
    let swept = sweep(&server, &cluster, Some("r")).await;
    assert_eq!(swept.to_string(), "deleted Gateway igc-gateway/igc\ndeleted namespace stage\n");
}

#[tokio::test]
async fn a_namespace_that_lost_our_label_meanwhile_stays() {
    let (server, cluster) = Scripted::connected(vec![
        on("GET /apis/gateway.networking.k8s.io/v1").refuses(404, "NotFound", "not found"),
        on("GET /apis/gateway.networking.k8s.io/v1").refuses(404, "NotFound", "not found"),
        on("GET /api/v1/namespaces?labelSelector=igc.dev%2Frun").answers(200, list("1", &[namespace("shop", true)])),
        on("GET /api/v1/namespaces/shop").answers(200, namespace("shop", false)),
    ])
    .await;
    let swept = sweep(&server, &cluster, None).await;
    assert!(swept.objects.is_empty() && swept.problems.len() == 1, "{swept}");
    assert!(swept.problems[0].contains("Namespace shop exists and was not made by igc"), "{swept}");
}
