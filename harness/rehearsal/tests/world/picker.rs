//! A pool as `igc picker` follows it: endpoints come and go with pods, ports and the pool itself.

use cluster::{
    api::{Cluster, ObjectRef},
    pool::follow,
};
use rehearsal::{dialects::object::text, kinds};
use serde_json::json;
use tokio::sync::watch;

use crate::stage::{Stage, bounded};

#[tokio::test]
async fn the_endpoints_of_a_pool_are_followed() {
    let stage = Stage::of("agentgateway", "v1.3.1").await;
    let folder = tempfile::tempdir().expect("a folder");
    let kubeconfig = folder.path().join("kubeconfig");
    stage.world.write_kubeconfig(&kubeconfig).expect("written");
    let cluster = Cluster::connect(&kubeconfig, None).await.expect("a cluster");
    let (told, mut endpoints) = watch::channel(Some(vec!["nothing told".to_owned()]));
    tokio::spawn(async move {
        let pool = ObjectRef::new("inference.networking.k8s.io/v1", "InferencePool", "kserve-test", "pool");
        follow(&cluster, &pool, |found| _ = told.send_replace(found)).await
    });
    let mut are = async |expected: Option<Vec<String>>| {
        let waiting = endpoints.wait_for(|found| *found == expected);
        _ = bounded(&format!("{expected:?}"), waiting).await.expect("still followed");
    };

    are(None).await;
    let pool = |ports: &[u16]| {
        let ports: Vec<_> = ports.iter().map(|port| json!({"number": port})).collect();
        json!({"apiVersion": "inference.networking.k8s.io/v1", "kind": "InferencePool", "metadata": {"name": "pool", "namespace": "kserve-test"},
            "spec": {"selector": {"matchLabels": {"app": "mine"}}, "targetPorts": ports, "endpointPickerRef": {"name": "picker", "port": {"number": 9002}}}})
    };
    let store = stage.world.store();
    store.apply(pool(&[8000])).expect("a pool");
    are(Some(vec![])).await;
    let mut addresses = Vec::new();
    for (name, app) in [("a", "mine"), ("b", "mine"), ("c", "other")] {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "kserve-test", "labels": {"app": app}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}});
        store.apply(pod).expect("a pod");
        let pod = stage.object(&kinds::POD, "kserve-test", name).await;
        addresses.push(text(&pod, "/status/podIP").to_owned());
    }
    let (a, b) = (&addresses[0], &addresses[1]);
    are(Some(vec![format!("{a}:8000"), format!("{b}:8000")])).await;
    store.apply(pool(&[8000, 8001])).expect("a pool");
    are(Some(vec![format!("{a}:8000"), format!("{a}:8001"), format!("{b}:8000"), format!("{b}:8001")])).await;
    store.delete(&kinds::POD, "kserve-test", "a").expect("deleted");
    are(Some(vec![format!("{b}:8000"), format!("{b}:8001")])).await;
    store.delete(&kinds::INFERENCE_POOL, "kserve-test", "pool").expect("deleted");
    are(None).await;
}
