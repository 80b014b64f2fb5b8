//! What pods answer through the API server.

use cluster::api::{Bounds, Logs};
use rstest::rstest;
use serde_json::{Value, json};

use crate::scripted::{Scripted, list, on, status};

const PROXY: &str = "/api/v1/namespaces/shop/pods/model-0:8080/proxy";

#[rstest]
#[case::answer("/igc/records?since=3", 200, r#"[{"sequence":3}]"#)]
#[case::what_a_pod_refuses_is_its_answer("/none", 404, "no such page")]
#[tokio::test]
async fn a_pod_answers_through_the_api_server(#[case] path: &str, #[case] status: u16, #[case] body: &str) {
    let (_server, cluster) = Scripted::connected(vec![
        on(&format!("GET {PROXY}{path}")).answers_text(status, body),
        on(&format!("POST {PROXY}{path}")).answers_text(status, body),
    ])
    .await;
    for response in [
        cluster.pod_get("shop", "model-0", 8080, path).await.expect("answered"),
        cluster.pod_post("shop", "model-0", 8080, path).await.expect("answered"),
    ] {
        assert_eq!((response.status.as_u16(), &response.body[..]), (status, body.as_bytes()));
    }
}

#[tokio::test]
async fn a_pod_that_cannot_be_reached_is_the_environments_fault() {
    let body = status(
        503,
        "ServiceUnavailable",
        "error trying to reach service: dial tcp 10.0.0.1:8080: connect: connection refused",
    );
    let (_server, cluster) =
        Scripted::connected(vec![on(&format!("GET {PROXY}/igc/records")).answers(503, body)]).await;
    let failure = cluster.pod_get("shop", "model-0", 8080, "/igc/records").await.expect_err("not reached");
    assert!(failure.is_environment() && failure.to_string().contains("connection refused"), "{failure}");
}

#[rstest]
#[case("igc/records")]
#[case("/a b")]
#[case("")]
#[tokio::test]
async fn a_path_that_is_none_is_not_sent(#[case] path: &str) {
    let (_server, cluster) = Scripted::connected(vec![]).await;
    assert!(cluster.pod_get("shop", "model-0", 8080, path).await.is_err());
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
    let (_server, cluster) = Scripted::connected(vec![
        on("GET /api/v1/namespaces/shop/pods?labelSelector=app%3Dx").answers(200, list("1", &pods)),
    ])
    .await;
    assert_eq!(cluster.ready_pods("shop", "app=x").await.expect("listed"), ["a", "c"]);
}

#[tokio::test]
async fn logs_are_bounded_and_may_be_those_before_a_restart() {
    let (_server, cluster) = Scripted::connected(vec![
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
}

#[rstest]
#[case(1000, true)]
#[case(10, false)]
#[tokio::test]
async fn what_a_pod_answers_is_bounded(#[case] bytes: usize, #[case] taken: bool) {
    let (_server, cluster) = Scripted::connected(vec![
        on("GET /api/v1/namespaces/shop/pods/a:80/proxy/").answers_text(200, &"x".repeat(1000)),
    ])
    .await;
    let cluster = cluster.with_bounds(Bounds { bytes, ..Bounds::default() });
    let answer = cluster.pod_get("shop", "a", 80, "/").await;
    assert_eq!(answer.is_ok(), taken, "{answer:?}");
}
