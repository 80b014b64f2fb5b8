//! Place `context`: what is there is verified and left alone, what is missing is named.

use std::{path::Path, sync::Arc};

use cluster::{
    install::{
        component::Catalogue,
        profile::{Profile, Selection},
        progress::Silent,
        run::{self, InstallMissing, Request, Site},
    },
    place::child::Programs,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::scripted::{Line, Scripted, hello, kinds, list, on};

/// Installs Redis, or looks whether it is there, in a cluster of these answers.
async fn look_for_redis(script: Vec<Line>) -> (Scripted, Result<run::Installed, String>, Vec<String>) {
    let server = Scripted::start(script).await;
    let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests");
    let catalogue = Catalogue::read(&manifests).expect("components");
    let profile = Profile::read(&manifests, "current").expect("a profile");
    let folder = tempfile::tempdir().expect("a folder");
    let request = Request {
        run: "20261121-120305-k3f9".parse().expect("a name"),
        run_folder: folder.path().to_owned(),
        manifests,
        selection: Selection::of(&catalogue, &profile, &["redis".to_owned()]).expect("a selection"),
        gateway: json!({"namespace": "gw", "name": "gw"}),
        bundle: None,
        site: Site::Context {
            kubeconfig: server.kubeconfig(),
            context: "kind-scripted".to_owned(),
            install_missing: InstallMissing::No,
        },
        more_images: vec![],
        // No program is needed to look.
        programs: Programs::in_path("/nowhere"),
    };
    let ended = run::run(request, vec![], Arc::new(Silent), &CancellationToken::new()).await;
    let files = std::fs::read_dir(folder.path()).expect("the run folder").flatten();
    let files = files.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    (server, ended.result.map_err(|failure| failure.to_string()), files)
}

fn apps() -> Line {
    on("GET /apis/apps/v1").answers(200, kinds("apps/v1", &[("Deployment", "deployments", true)]))
}

fn deployment(image: &str, available: u32) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "redis", "namespace": "redis-system", "generation": 1},
        "spec": {"replicas": 1, "template": {"spec": {"containers": [{"image": image}]}}},
        "status": {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "availableReplicas": available}})
}

const REDIS: &str = "GET /apis/apps/v1/namespaces/redis-system/deployments/redis";

#[tokio::test]
async fn a_component_that_is_missing_is_named_and_nothing_is_made() {
    let mut script = hello();
    script.extend([apps(), on(REDIS).refuses(404, "NotFound", "not found")]);
    let (server, came, files) = look_for_redis(script).await;
    assert_eq!(
        came.expect_err("it is missing"),
        "cluster failed: the cluster lacks redis (there is no Deployment redis-system/redis)"
    );
    assert_eq!(files, ["timing.json"]);
    server.played();
}

#[tokio::test]
async fn a_component_that_is_there_is_verified_by_its_waits() {
    let there = deployment("registry.corp/redis:8.2.4-alpine3.22", 1);
    let slice = json!({"metadata": {"name": "redis-1"}, "endpoints": [{"conditions": {"ready": true}}]});
    let mut script = hello();
    script.extend([
        apps(),
        on(REDIS).answers(200, there.clone()),
        on("GET /apis/apps/v1/namespaces/redis-system/deployments?fieldSelector=metadata.name%3Dredis")
            .answers(200, list("7", std::slice::from_ref(&there))),
        on("GET /apis/discovery.k8s.io/v1")
            .answers(200, kinds("discovery.k8s.io/v1", &[("EndpointSlice", "endpointslices", true)])),
        on("GET /apis/discovery.k8s.io/v1/namespaces/redis-system/endpointslices").answers(200, list("8", &[slice])),
        on(REDIS).answers(200, there),
    ]);
    let (server, came, _) = look_for_redis(script).await;
    let installed = came.expect("it is there");
    assert_eq!(installed.found["redis"].version.as_deref(), Some("8.2.4-alpine3.22"));
    assert_eq!(installed.timing.critical_path, ["cluster", "redis:installed", "redis:ready"]);
    server.played();
}

#[tokio::test]
async fn what_stands_in_for_a_component_is_said() {
    let there = deployment("registry.corp/valkey:8", 1);
    let slice = json!({"metadata": {"name": "redis-1"}, "endpoints": [{}]});
    let mut script = hello();
    script.extend([
        apps(),
        on(REDIS).answers(200, there.clone()),
        on("GET /apis/apps/v1/namespaces/redis-system/deployments")
            .answers(200, list("7", std::slice::from_ref(&there))),
        on("GET /apis/discovery.k8s.io/v1")
            .answers(200, kinds("discovery.k8s.io/v1", &[("EndpointSlice", "endpointslices", true)])),
        on("GET /apis/discovery.k8s.io/v1/namespaces/redis-system/endpointslices").answers(200, list("8", &[slice])),
        on(REDIS).answers(200, there),
    ]);
    let (_server, came, _) = look_for_redis(script).await;
    assert_eq!(came.expect("it is there").found["redis"].stand_in.as_deref(), Some("registry.corp/valkey:8"));
}
