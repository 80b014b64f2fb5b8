//! A world as a Kubernetes client sees it: the same objects, by HTTP.

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::{
    Api, Client, Config,
    api::{Patch, PatchParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde_json::json;

use crate::stage::{KSERVE_HOST, Stage};

async fn client(stage: &Stage) -> Client {
    // Only one provider of TLS may be there; another test may have installed it already.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let kubeconfig = Kubeconfig::from_yaml(&stage.world.kubeconfig()).expect("a kubeconfig");
    let config =
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.expect("a configuration");
    Client::try_from(config).expect("a client")
}

#[tokio::test]
async fn what_a_client_applies_is_carried_out() {
    let stage = Stage::of("envoy-ai-gateway", "v1.1.0").await;
    stage.inference_service().await;
    let client = client(&stage).await;
    let routes = ApiResource::from_gvk(&GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "HTTPRoute"));
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), "kserve-test", &routes);
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "by-client"},
        "spec": {"parentRefs": [{"name": "gw", "namespace": "igc"}], "hostnames": ["by-client.test"],
                 "rules": [{"backendRefs": [{"name": "mock-llm-predictor", "port": 80}]}]},
    });
    api.patch("by-client", &PatchParams::apply("igc"), &Patch::Apply(&route)).await.expect("applied");
    stage
        .object(&rehearsal::kinds::HTTP_ROUTE, "kserve-test", "by-client", |o| {
            o.pointer("/status/parents/0/conditions/0/status") == Some(&json!("True"))
        })
        .await;
    assert_eq!(stage.chat("by-client.test", "mock-llm", &[]).await.status(), Some(200));
    let seen = api.get("by-client").await.expect("read");
    assert_eq!(seen.data["status"]["parents"][0]["conditions"][1]["type"], "ResolvedRefs");
    assert_eq!(stage.chat(KSERVE_HOST, "mock-llm", &[]).await.status(), Some(200));
}

/// The address discovery of the harness: the node port of the generated Service, on the node's own address.
#[tokio::test]
async fn the_gateways_address_is_where_a_client_finds_it() {
    let stage = Stage::of("envoy-ai-gateway", "v1.1.0").await;
    let client = client(&stage).await;
    let services: Api<Service> = Api::namespaced(client.clone(), "envoy-gateway-system");
    let found = services.list(&Default::default()).await.expect("listed");
    let service = found.items.iter().find(|s| {
        let labels = s.metadata.labels.as_ref();
        labels.and_then(|l| l.get("gateway.envoyproxy.io/owning-gateway-name")).is_some_and(|n| n == "gw")
    });
    let spec = service.and_then(|s| s.spec.as_ref()).expect("the generated Service");
    let port = spec.ports.as_ref().and_then(|p| p[0].node_port).expect("a node port");
    assert_eq!(Some(port as u16), stage.client.describe().rsplit(':').next().and_then(|p| p.parse().ok()));
    let gateways = ApiResource::from_gvk(&GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "Gateway"));
    let gateway: DynamicObject =
        Api::namespaced_with(client.clone(), "igc", &gateways).get("gw").await.expect("the Gateway");
    assert_eq!(gateway.data["status"]["addresses"], json!([{"type": "IPAddress", "value": "127.0.0.1"}]));
}

/// `kubectl port-forward` and the pod proxy reach a model at its advertised address.
#[tokio::test]
async fn pods_are_reached_through_the_api_server() {
    let stage = Stage::of("envoy-ai-gateway", "v1.1.0").await;
    stage.inference_service().await;
    let client = client(&stage).await;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "kserve-test");
    let pod = pods.list(&Default::default()).await.expect("listed").items.remove(0);
    let name = pod.metadata.name.expect("a name");
    assert!(pod.status.and_then(|s| s.pod_ip).is_some_and(|ip| ip.starts_with("10.244.")));
    let path = format!("/api/v1/namespaces/kserve-test/pods/{name}:8080/proxy/v1/models");
    let request = http::Request::get(path).body(Vec::new()).expect("a request");
    let models: serde_json::Value = client.request(request).await.expect("an answer");
    assert_eq!(models["data"][0]["id"], "mock-llm");
}
