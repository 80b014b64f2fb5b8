//! Place `context`: what is there is verified and left alone, what is missing is named.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use cluster::{
    install::{
        component::Catalogue,
        profile::{Profile, Selection},
        progress::Silent,
        request::{InstallMissing, Request, Site},
        run,
    },
    programs::child::Programs,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::scripted::{Line, Scripted, hello, list, on, serves};

/// Installs Redis, or looks whether it is there, in a cluster of these answers.
async fn look_for_redis(script: Vec<Line>) -> (Scripted, Result<run::Installed, String>, Vec<String>) {
    look(script, manifests()).await
}

fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests")
}

/// The same with these manifests.
async fn look(script: Vec<Line>, manifests: PathBuf) -> (Scripted, Result<run::Installed, String>, Vec<String>) {
    let server = Scripted::start(script).await;
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
    serves("apps/v1", &[("Deployment", "deployments", true)])
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
    let (_server, came, files) = look_for_redis(script).await;
    assert_eq!(
        came.expect_err("it is missing"),
        "cluster failed: the cluster lacks redis (there is no Deployment redis-system/redis)"
    );
    assert_eq!(files, ["timing.json"]);
}

/// What a look at a Deployment that is there asks, until it has come to its Service's endpoints.
fn looked_at(there: &Value) -> Vec<Line> {
    let slice = json!({"metadata": {"name": "redis-1"}, "endpoints": [{"conditions": {"ready": true}}]});
    let mut script = hello();
    script.extend([
        apps(),
        on(REDIS).answers(200, there.clone()),
        on("GET /apis/apps/v1/namespaces/redis-system/deployments?fieldSelector=metadata.name%3Dredis")
            .answers(200, list("7", std::slice::from_ref(there))),
        serves("discovery.k8s.io/v1", &[("EndpointSlice", "endpointslices", true)]),
        on("GET /apis/discovery.k8s.io/v1/namespaces/redis-system/endpointslices").answers(200, list("8", &[slice])),
    ]);
    script
}

#[tokio::test]
async fn a_component_that_is_there_is_verified_by_its_waits() {
    let there = deployment("registry.corp/redis:8.2.4-alpine3.22", 1);
    let mut script = looked_at(&there);
    script.push(on(REDIS).answers(200, there));
    let (_server, came, _) = look_for_redis(script).await;
    let installed = came.expect("it is there");
    assert_eq!(installed.found["redis"].version.as_deref(), Some("8.2.4-alpine3.22"));
    assert_eq!(installed.timing.critical_path, ["cluster", "redis:installed", "redis:ready"]);
}

#[tokio::test]
async fn what_stands_in_for_a_component_is_said() {
    let there = deployment("registry.corp/valkey:8", 1);
    let mut script = looked_at(&there);
    script.push(on(REDIS).answers(200, there));
    let (_server, came, _) = look_for_redis(script).await;
    assert_eq!(came.expect("it is there").found["redis"].stand_in.as_deref(), Some("registry.corp/valkey:8"));
}

/// Redis with a chart that comes after it is ready, and a webhook that is offered a Pod.
fn with_a_late_chart_and_a_probe() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["components/redis", "profiles"] {
        let to = folder.path().join(name);
        fs::create_dir_all(&to).expect("a folder");
        for file in fs::read_dir(manifests().join(name)).expect("manifests").flatten() {
            fs::copy(file.path(), to.join(file.file_name())).expect("a file");
        }
    }
    let redis = folder.path().join("components/redis");
    let component = fs::read_to_string(redis.join("component.yaml")).expect("a component");
    let more = "charts: [{state: ready, name: late, from: \"oci://registry.example/late\", release: late}]\n\
                probes: [{manifest: pod.yaml, seconds: 1}]\n";
    fs::write(redis.join("component.yaml"), component + more).expect("a component");
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: probe, namespace: redis-system}\nspec: {containers: []}\n";
    fs::write(redis.join("pod.yaml"), pod).expect("a probe");
    folder
}

/// As a Job of ours in a cluster that others have made: it may look, and what it may not ask is no fault of theirs.
#[tokio::test]
async fn nothing_is_installed_and_what_may_not_be_asked_is_left() {
    let there = deployment("registry.corp/redis:8.2.4-alpine3.22", 1);
    let forbidden = "pods is forbidden: User \"igc\" cannot create resource \"pods\" in API group \"\"";
    let mut script = looked_at(&there);
    script.extend([
        on("POST /api/v1/namespaces/redis-system/pods?dryRun=All").refuses(403, "Forbidden", forbidden),
        on(REDIS).answers(200, there),
    ]);
    let folder = with_a_late_chart_and_a_probe();
    let (_server, came, _) = look(script, folder.path().to_owned()).await;
    assert_eq!(came.expect("it is there").timing.critical_path, ["cluster", "redis:installed", "redis:ready"]);
}
