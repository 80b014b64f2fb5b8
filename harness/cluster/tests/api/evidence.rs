//! Evidence of a namespace, as files.

use std::{fs, path::Path, time::Duration};

use cluster::evidence::{Depth, Limits, collect, collect_within};
use serde_json::{Value, json};
use verdict::redact::mark;

use crate::scripted::{Line, Scripted, kinds, list, on, serves};

fn event() -> Value {
    json!({"involvedObject": {"kind": "Pod", "name": "a"}, "type": "Warning", "reason": "BackOff", "message": "token: Bearer abcdefghijk", "lastTimestamp": "2026-11-21T12:00:00Z"})
}

fn earlier() -> Value {
    json!({"involvedObject": {"kind": "Pod", "name": "a"}, "type": "Normal", "reason": "Pulled", "message": "image is there", "series": {"count": 3, "lastObservedTime": "2026-11-21T11:59:00Z"}})
}

fn pod() -> Value {
    json!({"metadata": {"name": "a", "namespace": "shop", "managedFields": [{}]}, "status": {
        "containerStatuses": [{"name": "main", "restartCount": 1, "state": {"running": {}}}],
        "initContainerStatuses": [{"name": "waits", "restartCount": 0, "state": {"waiting": {}}}]}})
}

/// Everything up to the logs.
fn objects(secret: &Value) -> Vec<Line> {
    let core = kinds(
        "v1",
        &[("Pod", "pods", true), ("Secret", "secrets", true), ("Event", "events", true), ("Node", "nodes", false)],
    );
    let groups = json!({"groups": [{"preferredVersion": {"groupVersion": "light.dev/v1"}}, {"preferredVersion": {"groupVersion": "away.dev/v1"}}]});
    vec![
        on("GET /api/v1/namespaces/shop/events").answers(200, list("1", &[event(), earlier()])),
        on("GET /apis").answers(200, groups),
        on("GET /api/v1").answers(200, core),
        serves("light.dev/v1", &[("Lamp", "lamps", true)]),
        on("GET /apis/away.dev/v1").answers_text(503, "service unavailable"),
        on("GET /api/v1/namespaces/shop/pods").answers(200, list("1", &[pod()])),
        on("GET /api/v1/namespaces/shop/secrets").answers(200, list("1", std::slice::from_ref(secret))),
        on("GET /apis/light.dev/v1/namespaces/shop/lamps")
            .answers(200, list("1", &[json!({"metadata": {"name": "red:1"}})])),
    ]
}

fn read(folder: &Path, file: &str) -> String {
    fs::read_to_string(folder.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

#[tokio::test]
async fn a_namespace_becomes_files_that_people_read() {
    let secret = json!({"metadata": {"name": "s"}, "data": {"password": "aHVudGVyMg=="}});
    let mut script = objects(&secret);
    script.extend([
        on("GET /api/v1/namespaces/shop/pods/a/log?container=main&tailLines=400&previous=false")
            .answers_text(200, "now\n"),
        on("GET /api/v1/namespaces/shop/pods/a/log?container=main&previous=true")
            .answers_text(200, "HF_TOKEN=hf_abcdefgh\n"),
    ]);
    let (_server, cluster) = Scripted::connected(script).await;
    let folder = tempfile::tempdir().expect("a folder");
    let (depth, limits) = (Depth::ObjectsAndLogs, Limits::default());
    let collected = collect_within(&cluster, "shop", folder.path(), depth, limits).await;
    assert_eq!(collected.files, 6);
    assert_eq!(collected.problems.len(), 1, "{:?}", collected.problems);
    let path = folder.path();
    assert_eq!(
        read(path, "events.txt"),
        format!(
            "2026-11-21T11:59:00Z Pod a Normal Pulled (3 times): image is there\n\
             2026-11-21T12:00:00Z Pod a Warning BackOff: token: Bearer {}\n",
            mark("abcdefghijk")
        )
    );
    let pod = read(path, "objects/Pod/a.yaml");
    assert!(pod.contains("name: main") && !pod.contains("managedFields"), "{pod}");
    let secret = read(path, "objects/Secret/s.yaml");
    assert!(secret.contains(&mark("hunter2")) && !secret.contains("aHVudGVyMg"), "{secret}");
    assert!(read(path, "objects/Lamp.light.dev/red_1.yaml").contains("red:1"));
    assert_eq!(read(path, "logs/a/main.log"), "now\n");
    assert_eq!(read(path, "logs/a/main.previous.log"), format!("HF_TOKEN={}\n", mark("hf_abcdefgh")));
    assert!(read(path, "problems.txt").contains("away.dev/v1"));
}

#[tokio::test]
async fn a_cluster_that_is_gone_leaves_a_word_and_no_failure() {
    let (_server, cluster) = Scripted::connected(vec![on("GET /api/v1/namespaces/shop/events").dies()]).await;
    let folder = tempfile::tempdir().expect("a folder");
    collect(&cluster, "shop", folder.path(), Depth::ObjectsAndLogs).await;
    assert!(read(folder.path(), "problems.txt").contains("no answer from the API server"));
}

#[tokio::test]
async fn what_takes_too_long_is_left_out() {
    let (_server, cluster) = Scripted::connected(vec![on("GET /api/v1/namespaces/shop/events").never()]).await;
    let folder = tempfile::tempdir().expect("a folder");
    let limits = Limits { time: Duration::from_millis(200), ..Limits::default() };
    let collected = collect_within(&cluster, "shop", folder.path(), Depth::ObjectsAndLogs, limits).await;
    assert_eq!(collected.problems, ["stopped after 0 s; what comes later is missing"]);
}

#[tokio::test]
async fn what_is_too_large_is_left_out_and_said() {
    let secret = json!({"metadata": {"name": "s"}});
    let (_server, cluster) = Scripted::connected(objects(&secret)).await;
    let folder = tempfile::tempdir().expect("a folder");
    let limits = Limits { bytes: 80, ..Limits::default() };
    let collected = collect_within(&cluster, "shop", folder.path(), Depth::Objects, limits).await;
    assert!(collected.bytes <= 80, "{collected:?}");
    assert!(collected.problems.iter().any(|p| p.contains("over the bound")), "{:?}", collected.problems);
}
