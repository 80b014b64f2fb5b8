//! Waiting: what comes true, what does not, and what the API server does meanwhile.

use std::time::{Duration, Instant};

use cluster::api::{Apply, Bounds, ObjectRef, Target, WaitCondition};
use rstest::rstest;
use serde_json::{Value, json};

use crate::scripted::{End, Line, Scripted, list, on, serves};

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(250);

fn pod(version: &str, ready: &str) -> Value {
    json!({"kind": "Pod", "metadata": {"name": "a", "namespace": "shop", "resourceVersion": version},
        "status": {"conditions": [{"type": "Ready", "status": ready, "reason": "Because"}]}})
}

fn the_pod() -> ObjectRef {
    ObjectRef::new("v1", "Pod", "shop", "a")
}

fn ready() -> WaitCondition {
    WaitCondition::ConditionTrue("Ready".into())
}

fn lists() -> Line {
    on("GET /api/v1/namespaces/shop/pods?fieldSelector=metadata.name%3Da&limit=500")
}

fn watches(from: &str) -> Line {
    on(&format!(
        "GET /api/v1/namespaces/shop/pods?watch=true&allowWatchBookmarks=true&fieldSelector=metadata.name%3Da&resourceVersion={from}"
    ))
}

#[rstest]
#[case::already(vec![lists().answers(200, list("4", &[pod("4", "True")]))])]
#[case::in_the_watch(vec![
    lists().answers(200, list("4", &[])),
    watches("4").watch(&[("ADDED", pod("5", "False")), ("MODIFIED", pod("6", "True"))], End::Open),
])]
#[case::in_a_watch_that_goes_on_from_the_last_version(vec![
    lists().answers(200, list("4", &[])),
    watches("4").watch(&[("ADDED", pod("5", "False"))], End::Closed),
    watches("5").watch(&[("BOOKMARK", json!({"kind": "Pod", "metadata": {"resourceVersion": "9"}}))], End::Closed),
    watches("9").watch(&[], End::Closed),
    watches("9").watch(&[("MODIFIED", pod("10", "True"))], End::Closed),
])]
#[case::after_a_list_was_refused(listed_after(lists().refuses(503, "ServiceUnavailable", "apiserver is starting")))]
#[case::after_no_answer(listed_after(lists().hangs_up()))]
#[case::after_half_a_list(listed_after(lists().answers_text(200, "{\"items\": [")))]
#[tokio::test]
async fn what_comes_true_is_seen(#[case] script: Vec<Line>) {
    let (_server, cluster) = Scripted::connected(script).await;
    let waited = cluster.wait(&the_pod(), ready(), LONG).await.expect("true");
    assert_eq!(waited.object()["status"]["conditions"][0]["status"], "True");
}

fn listed_after(trouble: Line) -> Vec<Line> {
    vec![trouble, lists().answers(200, list("4", &[pod("4", "True")]))]
}

#[rstest]
#[case::in_the_watch(watches("4").watch(&[("ERROR", json!({"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}))], End::Open))]
#[case::at_its_beginning(watches("4").refuses(410, "Expired", "too old resource version"))]
#[case::a_broken_watch(watches("4").watch(&[("ADDED", pod("5", "False"))], End::Broken))]
#[case::a_failed_watch(watches("4").watch(&[("ERROR", json!({"kind": "Status", "code": 500, "message": "etcd"}))], End::Open))]
#[case::malformed_json(watches("4").watch_text("{\"type\": \"ADDED\", \"object\": {]}\n", End::Open))]
#[case::half_an_event(watches("4").watch_text("{\"type\": \"ADD", End::Closed))]
#[case::a_server_error(watches("4").refuses(500, "InternalError", "etcd"))]
#[case::no_answer(watches("4").hangs_up())]
#[tokio::test]
async fn after_trouble_with_the_watch_it_is_listed_again(#[case] trouble: Line) {
    let (_server, cluster) = Scripted::connected(vec![
        lists().answers(200, list("4", &[])),
        trouble,
        lists().answers(200, list("8", &[pod("8", "False")])),
        watches("8").watch(&[("MODIFIED", pod("9", "True"))], End::Open),
    ])
    .await;
    cluster.wait(&the_pod(), ready(), LONG).await.expect("true");
}

#[tokio::test]
async fn a_kind_that_is_not_served_yet_is_awaited() {
    let lamp = json!({"metadata": {"name": "red", "namespace": "shop"}});
    let (_server, cluster) = Scripted::connected(vec![
        on("GET /apis/light.dev/v1").answers_text(404, "404 page not found"),
        serves("light.dev/v1", &[("Lamp", "lamps", true)]),
        on("GET /apis/light.dev/v1/namespaces/shop/lamps?fieldSelector=metadata.name%3Dred")
            .answers(200, list("1", &[lamp])),
    ])
    .await;
    let lamp = ObjectRef::new("light.dev/v1", "Lamp", "shop", "red");
    cluster.wait(&lamp, WaitCondition::Exists, LONG).await.expect("there");
}

#[tokio::test]
async fn an_object_that_was_deleted_meanwhile_is_gone() {
    let (_server, cluster) = Scripted::connected(vec![
        lists().answers(200, list("4", &[pod("4", "True")])),
        watches("4").watch(&[("ERROR", json!({"code": 410}))], End::Open),
        lists().answers(200, list("9", &[])),
    ])
    .await;
    let waited = cluster.wait(&the_pod(), WaitCondition::Gone, LONG).await.expect("gone");
    assert!(waited.objects.is_empty());
}

#[tokio::test]
async fn an_older_generation_does_not_count() {
    let object = |version: &str, observed: u32| {
        json!({"metadata": {"name": "gw", "namespace": "shop", "generation": 2, "resourceVersion": version}, "status": {"conditions": [
            {"type": "Accepted", "status": "True", "observedGeneration": observed}, {"type": "Programmed", "status": "True", "observedGeneration": observed}]}})
    };
    let group = "/apis/gateway.networking.k8s.io/v1";
    let (_server, cluster) = Scripted::connected(vec![
        serves("gateway.networking.k8s.io/v1", &[("Gateway", "gateways", true)]),
        on(&format!("GET {group}/namespaces/shop/gateways?fieldSelector=metadata.name%3Dgw"))
            .answers(200, list("3", &[object("3", 1)])),
        on(&format!("GET {group}/namespaces/shop/gateways?watch=true"))
            .watch(&[("MODIFIED", object("4", 2))], End::Open),
    ])
    .await;
    let gateway = ObjectRef::new("gateway.networking.k8s.io/v1", "Gateway", "shop", "gw");
    let waited = cluster.wait(&gateway, WaitCondition::GatewayProgrammed, LONG).await.expect("programmed");
    assert_eq!(waited.object()["metadata"]["resourceVersion"], "4");
}

#[tokio::test]
async fn endpoints_of_a_service_are_in_its_slices() {
    let slice = |name: &str, ready: bool| json!({"metadata": {"name": name, "namespace": "shop", "resourceVersion": "5"}, "endpoints": [{"conditions": {"ready": ready}}]});
    let slices = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices";
    let (_server, cluster) = Scripted::connected(vec![
        serves("discovery.k8s.io/v1", &[("EndpointSlice", "endpointslices", true)]),
        on(&format!("GET {slices}?labelSelector=kubernetes.io%2Fservice-name%3Dweb&limit=500"))
            .answers(200, list("4", &[slice("one", false)])),
        on(&format!("GET {slices}?watch=true&labelSelector=kubernetes.io%2Fservice-name%3Dweb"))
            .watch(&[("ADDED", slice("two", true))], End::Open),
    ])
    .await;
    cluster
        .wait(&ObjectRef::new("v1", "Service", "shop", "web"), WaitCondition::EndpointsReady, LONG)
        .await
        .expect("ready");
}

#[tokio::test]
async fn all_of_a_labelled_set_are_awaited() {
    let member = |name: &str, ready: &str| json!({"metadata": {"name": name, "namespace": "shop", "resourceVersion": "5"}, "status": {"conditions": [{"type": "Ready", "status": ready}]}});
    let (_server, cluster) = Scripted::connected(vec![
        on("GET /api/v1/namespaces/shop/pods?labelSelector=app%3Dx&limit=500")
            .answers(200, list("4", &[member("a", "True"), member("b", "False")])),
        on("GET /api/v1/namespaces/shop/pods?watch=true&labelSelector=app%3Dx").watch(
            &[("MODIFIED", member("a", "False")), ("MODIFIED", member("b", "True")), ("MODIFIED", member("a", "True"))],
            End::Open,
        ),
    ])
    .await;
    let target = Target::labelled("v1", "Pod", Some("shop"), "app=x");
    let waited = cluster.wait(target, ready(), LONG).await.expect("both");
    assert_eq!(waited.objects.len(), 2);
}

#[tokio::test]
async fn what_does_not_come_true_is_said_with_all_that_was_seen() {
    let event = |name: &str, kind: &str, reason: &str, count: u32| json!({"involvedObject": {"kind": "Pod", "name": name}, "type": kind, "reason": reason, "message": "because of it", "count": count, "lastTimestamp": "2026-11-21T12:00:00Z"});
    let (_server, cluster) = Scripted::connected(vec![
        lists().answers(200, list("4", &[])),
        watches("4").watch(&[("ADDED", pod("5", "False"))], End::Open),
        lists().answers(200, list("5", &[pod("5", "False")])),
        on("GET /api/v1/namespaces/shop/events").answers(
            200,
            list("6", &[event("a", "Warning", "FailedScheduling", 3), event("another", "Warning", "Foreign", 1)]),
        ),
    ])
    .await;
    let error = cluster.wait(&the_pod(), ready(), SHORT).await.expect_err("not true");
    let said = error.to_string();
    let (head, tail) = said.split_once(": not within 0.").expect("how long");
    assert_eq!(head, "wait for Pod shop/a until Ready=True");
    assert_eq!(
        &tail[1..],
        " s; Ready=False (Because)\n  last seen: a: Ready=False (Because)\n  event: Pod a Warning FailedScheduling (3 times): because of it"
    );
    assert_eq!(
        error.last(),
        Some(&{
            let mut pod = pod("5", "False");
            pod["apiVersion"] = json!("v1");
            pod
        })
    );
    assert!(!error.is_environment(), "the cluster answered: this may be judged");
}

#[tokio::test]
async fn a_watch_that_was_deaf_does_not_make_it_false() {
    let (_server, cluster) = Scripted::connected(vec![
        lists().answers(200, list("4", &[])),
        watches("4").watch(&[], End::Open),
        lists().answers(200, list("5", &[pod("5", "True")])),
    ])
    .await;
    cluster.wait(&the_pod(), ready(), SHORT).await.expect("true at the last look");
}

#[tokio::test]
async fn a_cluster_that_dies_while_it_is_watched_is_the_environments_fault() {
    let (_server, cluster) =
        Scripted::connected(vec![lists().answers(200, list("4", &[pod("4", "False")])), watches("4").dies()]).await;
    let error = cluster.wait(&the_pod(), ready(), Duration::from_secs(1)).await.expect_err("it died");
    assert!(error.is_environment(), "{error}");
    assert!(error.last().is_some(), "what was seen before is kept");
    assert!(error.to_string().contains("the API server: "), "{error}");
}

#[rstest]
#[case(lists().refuses(403, "Forbidden", "pods is forbidden: User \"u\" cannot list resource \"pods\""), true)]
#[case(lists().refuses(400, "BadRequest", "field label not supported"), false)]
#[tokio::test]
async fn what_no_waiting_helps_ends_it_at_once(#[case] line: Line, #[case] environment: bool) {
    let (_server, cluster) = Scripted::connected(vec![line]).await;
    let begun = Instant::now();
    let error = cluster.wait(&the_pod(), ready(), LONG).await.expect_err("refused");
    assert!(begun.elapsed() < LONG / 2, "{error}");
    assert!(
        error.to_string().starts_with("wait for Pod shop/a until Ready=True: list Pod objects of shop: "),
        "{error}"
    );
    assert_eq!(error.is_environment(), environment, "{error}");
}

#[tokio::test]
async fn a_cluster_that_is_gone_ends_the_wait_before_its_deadline() {
    let (server, cluster) =
        Scripted::connected(vec![lists().answers(200, list("4", &[pod("4", "False")])), watches("4").dies()]).await;
    let cluster = cluster.with_bounds(Bounds { absence: SHORT, ..Bounds::default() });
    let day = Duration::from_secs(24 * 3600);
    let error = cluster.wait(&the_pod(), ready(), day).await.expect_err("nobody is there");
    assert!(error.is_environment(), "{error}");
    assert!(error.to_string().contains(&format!("nobody listens at {}", server.url)), "{error}");
    assert!(error.last().is_some(), "what was seen before is kept");
    let manifest = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "shop"}});
    let failure = cluster.apply(&manifest, Apply::of_run("r").patient(day)).await.expect_err("nobody is there");
    assert!(failure.is_environment(), "{failure}");
}

#[tokio::test]
async fn changes_are_told_until_waiting_is_of_no_use() {
    let (_server, cluster) = Scripted::connected(vec![
        lists().answers(200, list("4", &[])),
        watches("4").watch(&[("ADDED", pod("5", "False")), ("MODIFIED", pod("6", "True"))], End::Closed),
        watches("6").refuses(410, "Expired", "too old resource version"),
        lists().answers(200, list("7", &[pod("7", "True")])),
        watches("7").watch(&[("DELETED", pod("8", "True"))], End::Closed),
        watches("8").refuses(403, "Forbidden", "no more"),
    ])
    .await;
    let mut told = Vec::new();
    let target = the_pod();
    let observing = cluster.observe(&target, |pods| {
        told.push(
            pods.iter().map(|p| p["metadata"]["resourceVersion"].as_str().unwrap().to_owned()).collect::<String>(),
        );
    });
    let failure = tokio::time::timeout(LONG, observing).await.expect("an end");
    assert_eq!(failure.code(), Some(403));
    assert_eq!(told, ["", "5", "6", "7", ""]);
}
