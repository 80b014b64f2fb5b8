//! What pods answer through the API server.

use std::time::Duration;

use cluster::api::{Bounds, Exec, Logs};
use rstest::rstest;
use serde_json::{Value, json};

use crate::scripted::{Scripted, Then, list, on, status};

#[tokio::test]
async fn a_pod_answers_through_the_api_server() {
    let (server, cluster) = Scripted::connected(vec![
        on("GET /api/v1/namespaces/shop/pods/model-0:8080/proxy/igc/records?since=3")
            .answers(200, json!([{"sequence": 3}])),
    ])
    .await;
    let answer = cluster.pod_get("shop", "model-0", 8080, "/igc/records?since=3").await.expect("answered");
    assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, br#"[{"sequence":3}]"#.as_slice()));
    server.played();
}

#[tokio::test]
async fn a_pod_is_told_something_through_the_api_server() {
    let (server, cluster) = Scripted::connected(vec![
        on("POST /api/v1/namespaces/shop/pods/model-0:8080/proxy/igc/gates/g/open?n=3")
            .answers(200, json!({"open": 3})),
    ])
    .await;
    let answer = cluster.pod_post("shop", "model-0", 8080, "/igc/gates/g/open?n=3").await.expect("answered");
    assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, br#"{"open":3}"#.as_slice()));
    server.played();
}

#[tokio::test]
async fn what_a_pod_refuses_is_its_answer() {
    let (server, cluster) = Scripted::connected(vec![
        on("GET /api/v1/namespaces/shop/pods/model-0:8080/proxy/none").answers_text(404, "no such page"),
    ])
    .await;
    let answer = cluster.pod_get("shop", "model-0", 8080, "/none").await.expect("answered");
    assert_eq!(answer.status.as_u16(), 404);
    server.played();
}

#[tokio::test]
async fn a_pod_that_cannot_be_reached_is_the_environments_fault() {
    let body = status(
        503,
        "ServiceUnavailable",
        "error trying to reach service: dial tcp 10.0.0.1:8080: connect: connection refused",
    );
    let (server, cluster) = Scripted::connected(vec![
        on("GET /api/v1/namespaces/shop/pods/model-0:8080/proxy/igc/records").answers(503, body),
    ])
    .await;
    let failure = cluster.pod_get("shop", "model-0", 8080, "/igc/records").await.expect_err("not reached");
    assert!(failure.is_environment() && failure.to_string().contains("connection refused"), "{failure}");
    server.played();
}

#[rstest]
#[case("igc/records")]
#[case("/a b")]
#[case("")]
#[tokio::test]
async fn a_path_that_is_none_is_not_sent(#[case] path: &str) {
    let (server, cluster) = Scripted::connected(vec![]).await;
    assert!(cluster.pod_get("shop", "model-0", 8080, path).await.is_err());
    server.played();
}

fn pod(name: &str, ready: &str, leaving: bool) -> Value {
    let mut pod = json!({"metadata": {"name": name}, "status": {"conditions": [{"type": "Ready", "status": ready}]}});
    if leaving {
        pod["metadata"]["deletionTimestamp"] = json!("2026-11-21T12:00:00Z");
    }
    pod
}

#[tokio::test]
async fn pods_on_their_way_out_are_not_ready() {
    let pods = [pod("c", "True", false), pod("a", "True", false), pod("b", "False", false), pod("d", "True", true)];
    let (server, cluster) = Scripted::connected(vec![
        on("GET /api/v1/namespaces/shop/pods?labelSelector=app%3Dx").answers(200, list("1", &pods)),
    ])
    .await;
    assert_eq!(cluster.ready_pods("shop", "app=x").await.expect("listed"), ["a", "c"]);
    server.played();
}

#[tokio::test]
async fn logs_are_bounded_and_may_be_those_before_a_restart() {
    let (server, cluster) = Scripted::connected(vec![
        on("GET /api/v1/namespaces/shop/pods/a/log?container=main&tailLines=5&limitBytes=100&previous=true")
            .answers_text(200, "x\n"),
        on("GET /api/v1/namespaces/shop/pods/a/log?previous=false").refuses(
            400,
            "BadRequest",
            "container is waiting to start",
        ),
    ])
    .await;
    assert_eq!(cluster.logs("shop", "a", "main", Logs::Previous, 5, 100).await.expect("read"), "x\n");
    let failure = cluster.logs("shop", "a", "main", Logs::Current, 5, 100).await.expect_err("refused");
    assert!(failure.to_string().contains("waiting to start"), "{failure}");
    server.played();
}

#[rstest]
#[case(1000, true)]
#[case(10, false)]
#[tokio::test]
async fn what_a_pod_answers_is_bounded(#[case] bytes: usize, #[case] taken: bool) {
    let (server, cluster) = Scripted::connected(vec![
        on("GET /api/v1/namespaces/shop/pods/a:80/proxy/").answers_text(200, &"x".repeat(1000)),
    ])
    .await;
    let bounds = Bounds { bytes, time: Duration::from_secs(10), ..Bounds::default() };
    let answer = cluster.pod_get_within("shop", "a", 80, "/", bounds).await;
    assert_eq!(answer.is_ok(), taken, "{answer:?}");
    server.played();
}

#[rstest]
#[case(json!({"kind": "Status", "status": "Success"}), Some(0))]
#[case(json!({"kind": "Status", "status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": [{"reason": "ExitCode", "message": "7"}]}}), Some(7))]
#[tokio::test]
async fn a_command_ends_with_its_output_and_code(#[case] end: Value, #[case] code: Option<i32>) {
    let end = end.to_string();
    let (server, cluster) = Scripted::connected(vec![
        on("GET /api/v1/namespaces/shop/pods/a/exec?container=main&command=ls&command=-l&stdout=true&stderr=true")
            .socket(&[(1, b"one "), (2, b"oh"), (1, b"two"), (3, end.as_bytes())], Then::Closes),
    ])
    .await;
    let done = cluster.exec("shop", "a", "main", &["ls", "-l"], Duration::from_secs(20)).await.expect("ran");
    assert_eq!(done, Exec { code, stdout: b"one two".to_vec(), stderr: b"oh".to_vec() });
    server.played();
}

#[tokio::test]
async fn a_command_that_does_not_start_or_end_is_the_environments_fault() {
    let exec = || on("GET /api/v1/namespaces/shop/pods/a/exec");
    let (server, cluster) = Scripted::connected(vec![
        exec().refuses(404, "NotFound", "pods \"a\" not found"),
        exec().socket(&[], Then::Echoes),
    ])
    .await;
    let absent = cluster.exec("shop", "a", "main", &["ls"], Duration::from_secs(20)).await.expect_err("no pod");
    assert_eq!(absent.code(), Some(404), "{absent}");
    let endless = cluster.exec("shop", "a", "main", &["ls"], Duration::from_millis(300)).await.expect_err("endless");
    assert!(endless.is_environment() && endless.to_string().contains("not ended within 0.3 s"), "{endless}");
    server.played();
}
