//! Applying, refusing, deleting: the requests that go out and what is made of the answers.

use cluster::api::{Apply, Bounds, FailureKind, ObjectRef, Propagation};
use rstest::rstest;
use serde_json::{Value, json};
use std::time::Duration;
use verdict::history::Admission;

use crate::scripted::{End, Line, Scripted, list, on, serves, status};

const RUN: &str = "20261121-120305-k3f9";

fn how() -> Apply<'static> {
    Apply::of_run(RUN)
}

fn config_map() -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": "shop"}, "data": {"a": "1"}})
}

fn apply_config_map() -> Line {
    on("PATCH /api/v1/namespaces/shop/configmaps/settings?fieldManager=igc&force=false&fieldValidation=Strict")
}

#[tokio::test]
async fn an_apply_is_server_side_strict_and_labelled() {
    let (server, cluster) = Scripted::connected(vec![apply_config_map().answers(201, config_map())]).await;
    cluster.apply(&config_map(), how()).await.expect("applied");
    let sent = server.sent("PATCH");
    assert_eq!(sent.content_type, "application/apply-patch+yaml");
    assert_eq!(sent.json()["metadata"]["labels"], json!({"app.kubernetes.io/managed-by": "igc", "igc.dev/run": RUN}));
}

#[tokio::test]
async fn a_conflict_names_the_other_manager() {
    let mut conflict = status(409, "Conflict", "Apply failed with 1 conflict");
    conflict["details"] = json!({"causes": [{"reason": "FieldManagerConflict", "message": "conflict with \"helm\" using v1", "field": ".data.a"}]});
    let (_server, cluster) = Scripted::connected(vec![apply_config_map().answers(409, conflict)]).await;
    let failure = cluster.apply(&config_map(), how()).await.expect_err("refused");
    assert!(
        matches!(&failure.kind, FailureKind::Conflict { managers, fields, .. } if managers == &["\"helm\""] && fields == &[".data.a"]),
        "{failure}"
    );
    assert_eq!(
        failure.to_string(),
        "apply ConfigMap shop/settings: \"helm\" already manages .data.a; igc does not force: change the manifest, or have the other manager give the field up"
    );
    assert!(!failure.is_environment());
}

#[rstest]
#[case(json!({"metadata": {"name": "settings"}}), "metadata.namespace")]
#[case(json!({"metadata": {"namespace": "shop"}}), "metadata.name")]
#[tokio::test]
async fn a_manifest_that_lacks_something_is_not_sent(#[case] change: Value, #[case] missing: &str) {
    let (_server, cluster) = Scripted::connected(vec![]).await;
    let mut manifest = config_map();
    manifest["metadata"] = change["metadata"].clone();
    let failure = cluster.apply(&manifest, how()).await.expect_err("refused");
    assert!(failure.to_string().contains(missing), "{failure}");
}

#[tokio::test]
async fn an_object_without_namespace_goes_into_the_one_of_the_stage() {
    let mut manifest = config_map();
    manifest["metadata"] = json!({"name": "settings"});
    let (_server, cluster) = Scripted::connected(vec![apply_config_map().answers(200, config_map())]).await;
    let applied = cluster.apply(&manifest, how().in_namespace("shop")).await.expect("applied");
    assert_eq!(applied, ObjectRef::new("v1", "ConfigMap", "shop", "settings"));
}

const AWAY: &str = "Internal error occurred: failed calling webhook \"w\": connection refused";

fn refused_later() -> Line {
    apply_config_map().refuses(429, "TooManyRequests", "try again").retry_after(0)
}

#[rstest]
#[case::a_webhook_that_is_not_up(vec![apply_config_map().refuses(500, "InternalError", AWAY)], Duration::from_secs(20))]
#[case::a_server_that_asks_for_patience(vec![refused_later(), refused_later()], Duration::ZERO)]
#[tokio::test]
async fn what_passes_is_tried_again(#[case] mut script: Vec<Line>, #[case] patience: Duration) {
    script.push(apply_config_map().answers(201, config_map()));
    let (_server, cluster) = Scripted::connected(script).await;
    cluster.apply(&config_map(), how().patient(patience)).await.expect("applied in the end");
}

#[rstest]
#[case::the_impatient_hear_of_a_webhook_at_once(vec![apply_config_map().refuses(500, "InternalError", AWAY)], 500)]
#[case::a_server_that_asks_for_patience_too_often_is_believed(vec![refused_later(); 6], 429)]
#[tokio::test]
async fn what_stays_refused_is_the_environments_fault(#[case] script: Vec<Line>, #[case] code: u16) {
    let (_server, cluster) = Scripted::connected(script).await;
    let failure = cluster.apply(&config_map(), how()).await.expect_err("refused");
    assert!(failure.is_environment() && failure.code() == Some(code), "{failure}");
}

fn definition() -> Value {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "lamps.light.dev"},
        "spec": {"group": "light.dev", "names": {"kind": "Lamp"}, "versions": [{"name": "v1", "served": true}, {"name": "v0", "served": false}]}})
}

#[tokio::test]
async fn namespaces_and_definitions_go_first_and_discovery_is_renewed() {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
    let lamp = json!({"apiVersion": "light.dev/v1", "kind": "Lamp", "metadata": {"name": "red", "namespace": "shop"}});
    let mut established = definition();
    established["status"] = json!({"conditions": [{"type": "Established", "status": "True"}]});
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let (_server, cluster) = Scripted::connected(vec![
        // The group is known already, with a Lamp of an older definition.
        serves("light.dev/v1", &[("Lamp", "lamps", false)]),
        on("PATCH /api/v1/namespaces/shop").answers(201, namespace.clone()),
        serves("apiextensions.k8s.io/v1", &[("CustomResourceDefinition", "customresourcedefinitions", false)]),
        on(&format!("PATCH {definitions}/lamps.light.dev")).answers(201, definition()),
        on(&format!("GET {definitions}?fieldSelector=metadata.name%3Dlamps.light.dev"))
            .answers(200, list("1", &[definition()])),
        on(&format!("GET {definitions}?watch=true")).watch(&[("MODIFIED", established)], End::Open),
        // Discovery lags behind.
        serves("light.dev/v1", &[("Candle", "candles", true)]),
        serves("light.dev/v1", &[("Candle", "candles", true), ("Lamp", "lamps", true)]),
        on("PATCH /apis/light.dev/v1/namespaces/shop/lamps/red").answers(201, lamp.clone()),
    ])
    .await;
    assert!(!cluster.kind("light.dev/v1", "Lamp").await.expect("known").namespaced);
    let applied = cluster.apply_all(&[lamp, definition(), namespace], how()).await.expect("applied");
    let order: Vec<&str> = applied.iter().map(|applied| applied.kind.as_str()).collect();
    assert_eq!(order, ["Namespace", "CustomResourceDefinition", "Lamp"]);
}

#[tokio::test]
async fn a_kind_that_is_not_there_is_the_environments_fault() {
    let lamp = json!({"apiVersion": "light.dev/v1", "kind": "Lamp", "metadata": {"name": "red", "namespace": "shop"}});
    let (_server, cluster) =
        Scripted::connected(vec![on("GET /apis/light.dev/v1").answers_text(404, "404 page not found")]).await;
    let failure = cluster.apply(&lamp, how()).await.expect_err("refused");
    assert_eq!(
        failure.to_string(),
        "apply Lamp shop/red: the cluster has no kind Lamp in light.dev/v1; is its CustomResourceDefinition installed?"
    );
    assert!(failure.is_environment());
}

#[tokio::test]
async fn the_words_of_admission_are_kept() {
    let words =
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: unknown field \"dta\"";
    let (server, cluster) = Scripted::connected(vec![
        on("POST /api/v1/namespaces/shop/configmaps?dryRun=All&fieldValidation=Strict").refuses(
            400,
            "BadRequest",
            words,
        ),
    ])
    .await;
    let admission = cluster.dry_run(&config_map()).await.expect("judged");
    assert_eq!(admission, Admission::Refused { code: 400, reason: "BadRequest".into(), message: words.into() });
    assert_eq!(server.sent("POST").json(), config_map(), "offered as it is");
}

#[tokio::test]
async fn what_is_there_already_is_offered_as_a_patch() {
    let (server, cluster) = Scripted::connected(vec![
        on("POST /api/v1/namespaces/shop/configmaps?dryRun=All").refuses(
            409,
            "AlreadyExists",
            "configmaps \"settings\" already exists",
        ),
        on("PATCH /api/v1/namespaces/shop/configmaps/settings?dryRun=All").answers(200, config_map()).warning("old"),
    ])
    .await;
    let admission = cluster.dry_run(&config_map()).await.expect("judged");
    assert_eq!(admission, Admission::Accepted { warnings: vec!["old".into()] });
    assert_eq!(server.sent("PATCH").content_type, "application/merge-patch+json");
}

#[rstest]
#[case(403, "Forbidden", "configmaps is forbidden: User \"u\" cannot create resource")]
#[case(404, "NotFound", "namespaces \"shop\" not found")]
#[case(500, "InternalError", "failed calling webhook \"w\"")]
#[case(503, "ServiceUnavailable", "apiserver not ready")]
#[tokio::test]
async fn what_is_no_judgement_is_no_refusal(#[case] code: u16, #[case] reason: &str, #[case] message: &str) {
    let (_server, cluster) = Scripted::connected(vec![
        on("POST /api/v1/namespaces/shop/configmaps?dryRun=All").refuses(code, reason, message),
    ])
    .await;
    let failure = cluster.dry_run(&config_map()).await.expect_err("not judged");
    assert_eq!(failure.code(), Some(code));
}

#[tokio::test]
async fn an_offer_that_is_refused_stores_nothing() {
    let words = "admission webhook \"w\" denied the request: no";
    let (_server, cluster) =
        Scripted::connected(vec![on("POST /api/v1/namespaces/shop/configmaps?dryRun=All").refuses(
            403,
            "Forbidden",
            words,
        )])
        .await;
    let admission = cluster.offer(&config_map(), how()).await.expect("judged");
    assert!(matches!(admission, Admission::Refused { message, .. } if message == words));
}

#[rstest]
#[case(on("POST /api/v1/namespaces/shop/configmaps?dryRun=All").answers(201, json!({})))]
#[case(on("POST /api/v1/namespaces/shop/configmaps?dryRun=All").refuses(400, "BadRequest", "admission webhook \"w\" does not support dry run"))]
#[tokio::test]
async fn an_offer_that_is_accepted_is_applied(#[case] dry: Line) {
    let (_server, cluster) =
        Scripted::connected(vec![dry, apply_config_map().answers(201, config_map()).warning("hm")]).await;
    let admission = cluster.offer(&config_map(), how()).await.expect("judged");
    assert_eq!(admission, Admission::Accepted { warnings: vec!["hm".into()] });
}

#[tokio::test]
async fn a_list_is_read_page_by_page() {
    let pod = |name: &str| json!({"metadata": {"name": name}});
    let mut first = list("7", &[pod("a")]);
    first["metadata"]["continue"] = json!("more=1");
    let (_server, cluster) = Scripted::connected(vec![
        on("GET /api/v1/namespaces/shop/pods?labelSelector=app%3Dx&limit=500").answers(200, first),
        on("GET /api/v1/namespaces/shop/pods?labelSelector=app%3Dx&continue=more%3D1")
            .answers(200, list("7", &[pod("b")])),
    ])
    .await;
    let pods = cluster.list("v1", "Pod", Some("shop"), "app=x").await.expect("listed");
    let expected = ["a", "b"].map(|name| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}}));
    assert_eq!(pods, expected);
}

#[rstest]
#[case(Propagation::Foreground, 200, json!({"kind": "Status"}), true, "Foreground")]
#[case(Propagation::Background, 404, status(404, "NotFound", "none"), false, "Background")]
#[tokio::test]
async fn a_deletion_says_whether_there_was_anything(
    #[case] propagation: Propagation,
    #[case] code: u16,
    #[case] body: Value,
    #[case] was_there: bool,
    #[case] policy: &str,
) {
    let (server, cluster) =
        Scripted::connected(vec![on("DELETE /api/v1/namespaces/shop/pods/a").answers(code, body)]).await;
    let pod = ObjectRef::new("v1", "Pod", "shop", "a");
    assert_eq!(cluster.delete(&pod, propagation).await.expect("deleted"), was_there);
    assert_eq!(server.sent("DELETE").json()["propagationPolicy"], policy);
}

#[tokio::test]
async fn a_namespace_of_others_is_not_deleted() {
    let namespace = json!({"metadata": {"name": "kube-system", "labels": {}}});
    let (_server, cluster) =
        Scripted::connected(vec![on("GET /api/v1/namespaces/kube-system").answers(200, namespace)]).await;
    let error = cluster.delete_namespace("kube-system", Duration::from_secs(5)).await.expect_err("refused");
    assert!(error.to_string().contains("was not made by igc"), "{error}");
}

#[tokio::test]
async fn a_namespace_of_ours_is_deleted_and_awaited() {
    let namespace = json!({"metadata": {"name": "shop", "labels": {"app.kubernetes.io/managed-by": "igc"}}});
    let (_server, cluster) = Scripted::connected(vec![
        on("GET /api/v1/namespaces/shop").answers(200, namespace.clone()),
        on("DELETE /api/v1/namespaces/shop").answers(200, namespace.clone()),
        on("GET /api/v1/namespaces?fieldSelector=metadata.name%3Dshop")
            .answers(200, list("5", std::slice::from_ref(&namespace))),
        on("GET /api/v1/namespaces?watch=true&resourceVersion=5").watch(&[("DELETED", namespace)], End::Open),
    ])
    .await;
    assert!(cluster.delete_namespace("shop", Duration::from_secs(20)).await.expect("gone"));
}

/// What every caller must be able to tell: the cluster is gone, and nobody has failed.
#[tokio::test]
async fn a_cluster_that_dies_in_the_middle_is_the_environments_fault() {
    let (_server, cluster) = Scripted::connected(vec![apply_config_map().dies()]).await;
    let failure = cluster.apply(&config_map(), how()).await.expect_err("it died");
    assert!(failure.is_environment(), "{failure}");
    let after = cluster.get(&ObjectRef::new("v1", "ConfigMap", "shop", "settings")).await.expect_err("it is gone");
    assert!(after.is_environment() && after.to_string().contains("no answer from the API server"), "{after}");
}

#[rstest]
#[case(on("GET /api/v1/namespaces/shop/pods/a").hangs_up(), "no answer")]
#[case(on("GET /api/v1/namespaces/shop/pods/a").answers_text(200, "{\"kind\": \"Pod\", "), "not understood")]
#[case(on("GET /api/v1/namespaces/shop/pods/a").answers_text(502, "bad gateway"), "502")]
#[case(on("GET /api/v1/namespaces/shop/pods/a").never(), "not within 0.3 s")]
#[tokio::test]
async fn broken_answers_are_the_environments_fault(#[case] line: Line, #[case] said: &str) {
    let (_server, cluster) = Scripted::connected(vec![line]).await;
    let cluster = cluster.with_bounds(Bounds { time: Duration::from_millis(300), ..Bounds::default() });
    let failure = cluster.get(&ObjectRef::new("v1", "Pod", "shop", "a")).await.expect_err("broken");
    assert!(failure.is_environment() && failure.to_string().contains(said), "{failure}");
}

#[tokio::test]
async fn a_definition_that_is_deleted_is_forgotten() {
    let (_server, cluster) = Scripted::connected(vec![
        serves("light.dev/v1", &[("Lamp", "lamps", true)]),
        serves("apiextensions.k8s.io/v1", &[("CustomResourceDefinition", "customresourcedefinitions", false)]),
        on("DELETE /apis/apiextensions.k8s.io/v1/customresourcedefinitions/lamps.light.dev").answers(200, json!({})),
        on("GET /apis/light.dev/v1").answers_text(404, "404 page not found"),
    ])
    .await;
    cluster.kind("light.dev/v1", "Lamp").await.expect("known");
    let definition = ObjectRef::of(&definition()).expect("named");
    cluster.delete(&definition, Propagation::Background).await.expect("deleted");
    assert!(cluster.kind("light.dev/v1", "Lamp").await.is_err());
}
