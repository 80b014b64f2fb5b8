//! Worlds that start from what another one was.

use std::collections::BTreeMap;

use apiserver::{Kind, Store};
use rehearsal::{
    dialects::object::{key, text},
    kinds,
    world::{Backup, World, WorldConfig},
};
use rstest::rstest;
use serde_json::{Value, json};

use crate::stage::{KSERVE_HOST, Stage, bounded};

const KINDS: [Kind; 7] = [
    kinds::NODE,
    kinds::POD,
    kinds::SERVICE,
    kinds::DEPLOYMENT,
    kinds::GATEWAY,
    kinds::INFERENCE_SERVICE,
    kinds::HTTP_ROUTE,
];

/// The objects, without what a world has for itself: versions, and the numbers of its node ports.
fn objects(store: &Store) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for object in KINDS.iter().flat_map(|kind| store.list(kind, None)) {
        let mut kept = (*object).clone();
        for field in ["resourceVersion", "generation", "managedFields"] {
            kept["metadata"][field] = Value::Null;
        }
        for port in kept["spec"]["ports"].as_array_mut().into_iter().flatten() {
            port["nodePort"] = Value::Null;
        }
        all.insert(format!("{} {:?}", text(&object, "/kind"), key(&object)), kept);
    }
    all
}

async fn restored(backup: &Backup, gateway: &str, version: &str) -> Stage {
    let mut config = WorldConfig::new(gateway, version).expect("a known gateway");
    config.kserve_gateway = ("igc".to_owned(), "gw".to_owned());
    let world = World::restore(backup, config).await.expect("a world");
    bounded("rest", world.settled()).await;
    Stage::at(world)
}

#[rstest]
#[case("agentgateway", "v1.3.1")]
#[case("envoy-ai-gateway", "v1.1.0")]
#[tokio::test]
async fn they_serve_as_it_did_and_go_their_own_ways(#[case] gateway: &str, #[case] version: &str) {
    let first = Stage::of(gateway, version).await;
    first.inference_service().await;
    let backup = bounded("rest", first.world.backup()).await;
    let (was, port) = (objects(first.world.store()), first.world.node_port("igc", "gw", 80));
    drop(first);

    let (one, other) = (restored(&backup, gateway, version).await, restored(&backup, gateway, version).await);
    assert!(was.len() > 10, "{was:#?}");
    assert_eq!(objects(one.world.store()), was);
    assert_eq!(one.chat(KSERVE_HOST, "mock-llm", &[]).await.status(), Some(200));
    assert_ne!(one.client.describe(), other.client.describe());
    assert!(port.is_none_or(|port| !one.client.describe().contains(&port.to_string())));
    assert_eq!(one.world.models()[0].0, other.world.models()[0].0, "pods keep their names");

    one.world.store().delete(&kinds::INFERENCE_SERVICE, "kserve-test", "mock-llm").expect("it is there");
    one.settled().await;
    assert_eq!(one.chat(KSERVE_HOST, "mock-llm", &[]).await.status(), Some(404));
    assert_eq!(other.chat(KSERVE_HOST, "mock-llm", &[]).await.status(), Some(200));
    assert_eq!(objects(other.world.store()), was);

    let scaled = other.world.store().change(&kinds::DEPLOYMENT, "kserve-test", "mock-llm-predictor", |deployment| {
        deployment["spec"]["replicas"] = json!(3);
    });
    scaled.expect("it is there");
    other.settled().await;
    let pods = other.world.store().list(&kinds::POD, None);
    let addresses: BTreeMap<&str, &str> =
        pods.iter().map(|pod| (text(pod, "/status/podIP"), text(pod, "/metadata/name"))).collect();
    assert_eq!(addresses.len(), pods.len(), "{addresses:?}");
}
