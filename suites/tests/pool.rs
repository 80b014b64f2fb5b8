//! Pools: the endpoint picker was asked, its choice was followed, and nothing else chose in its place.

use std::{fmt::Write as _, path::PathBuf};

use anyhow::Result;
use rstest::rstest;
use serde_json::{Value, json};
use suites::{Call, Check, ObjectRef, Pool, PoolOf, Stage, Until, chat, check, object, parents_say, picked, proof};
use verdict::{history::History, judge::Judgement};

/// The Inference Extension's header that tells a test picker which endpoints to choose.
const SELECT: &str = "test-epp-endpoint-selection";
/// Our own, for what that one cannot say.
const PICK: &str = "x-igc-pick";
/// The header of a choice, which is the picker's to set.
const DESTINATION: &str = "x-gateway-destination-endpoint";
/// How many requests show what becomes of a pool without its picker.
const COUNTED: usize = 20;

fn pool_check(id: &'static str, case: &'static str, folder: &std::path::Path) -> Check {
    check(id, case, folder).observing(picked::observe)
}

fn everything() -> Value {
    json!({"path": {"type": "PathPrefix", "value": "/"}})
}

fn with_header(name: &str, value: &str) -> Value {
    json!({"path": {"type": "PathPrefix", "value": "/"}, "headers": [{"name": name, "value": value}]})
}

fn models(host: &str) -> Call {
    Call::get("/v1/models").host(host)
}

/// A pool called alpha, and all of the stage's hostname leading to it. It serves.
async fn routed(stage: &mut Stage, wanted: PoolOf) -> Result<Pool> {
    let pool = stage.pool(wanted).await?;
    let host = stage.hostname().to_owned();
    stage.intent("pool-route", json!({"rules": [{"match": everything(), "pool": pool.name}]})).await?;
    let endpoint = pool.endpoint(0).to_owned();
    stage.settle(|| chat(&host, "alpha").header(SELECT, &endpoint), "alpha").await?;
    Ok(pool)
}

async fn see_pool(stage: &mut Stage, name: &str, pool: &str, until: Until) -> Result<Value> {
    let pool = object("inference.networking.k8s.io/v1", "InferencePool", stage.namespace(), pool);
    stage.see(name, &pool, until, 60).await
}

fn route_object(stage: &Stage, name: &str) -> ObjectRef {
    object("gateway.networking.k8s.io/v1", "HTTPRoute", stage.namespace(), name)
}

#[rstest]
#[case::http_route("http-route")]
#[case::model_route("model-route")]
#[tokio::test]
async fn picker_asked(#[case] case: &'static str, #[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    pool_check("pool/picker-asked", case, &folder).run(drive_picker_asked, judge_picker_asked).await;
}

async fn drive_picker_asked(stage: &mut Stage) -> Result<()> {
    let host = stage.hostname().to_owned();
    let by_model = stage.case() == "model-route";
    if by_model {
        stage.pool(PoolOf::new("alpha")).await?;
        stage.intent("model-pool-route", json!({"models": [{"model": "alpha", "pool": "alpha"}]})).await?;
        stage.settle(|| chat(&host, "alpha"), "alpha").await?;
    } else {
        routed(stage, PoolOf::new("alpha")).await?;
    }
    stage.begin().await?;
    for _ in 0..10 {
        stage.send("post", chat(&host, "alpha")).await;
        stage.send("stream", chat(&host, "alpha").stream()).await;
        if !by_model {
            stage.send("get", models(&host)).await;
        }
    }
    stage.end().await
}

fn judge_picker_asked(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    picked::as_picked(&mut judgement, history, "post", "alpha");
    picked::as_picked(&mut judgement, history, "stream", "alpha");
    if history.key.case != "model-route" {
        picked::as_picked(&mut judgement, history, "get", "alpha");
    }
    judgement
}

#[rstest]
#[tokio::test]
async fn follows_choice(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    pool_check("pool/follows-choice", "-", &folder).run(drive_follows_choice, judge_follows_choice).await;
}

async fn drive_follows_choice(stage: &mut Stage) -> Result<()> {
    let pool = routed(stage, PoolOf::new("alpha").replicas(3)).await?;
    let host = stage.hostname().to_owned();
    stage.begin().await?;
    let turns: Vec<usize> = (0..60).collect();
    for ten in turns.chunks(10) {
        let calls = ten.iter().map(|turn| chat(&host, "alpha").header(SELECT, pool.endpoint(*turn))).collect();
        stage.send_together("commanded", calls, async |_| Ok(())).await?;
    }
    stage.end().await
}

fn judge_follows_choice(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    picked::as_picked(&mut judgement, history, "commanded", "alpha");
    picked::record_of_each(
        &mut judgement,
        history,
        "commanded",
        "alpha",
        "the picker named what was commanded",
        |e, pick| {
            let wanted = e.request.headers.iter().find(|(name, _)| name == SELECT).map(|(_, value)| value.clone());
            (wanted.as_ref() != pick.chosen.first())
                .then(|| format!("named {:?} where {wanted:?} was wanted", pick.chosen))
        },
    );
    judgement
}

#[rstest]
#[tokio::test]
async fn upstream_picker(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    pool_check("pool/upstream-picker", "-", &folder).run(drive_upstream_picker, judge_upstream_picker).await;
}

async fn drive_upstream_picker(stage: &mut Stage) -> Result<()> {
    let pool = routed(stage, PoolOf::new("alpha").replicas(3).with_upstream_picker()).await?;
    let host = stage.hostname().to_owned();
    stage.begin().await?;
    let turns: Vec<usize> = (0..60).collect();
    for ten in turns.chunks(10) {
        let calls = ten.iter().map(|turn| chat(&host, "alpha").header(SELECT, pool.endpoint(*turn))).collect();
        stage.send_together("commanded", calls, async |_| Ok(())).await?;
    }
    stage.end().await
}

fn judge_upstream_picker(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    picked::as_commanded(&mut judgement, history, "commanded", "alpha", SELECT);
    judgement
}

#[rstest]
#[tokio::test]
async fn two_pools(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    pool_check("pool/two-pools", "-", &folder).run(drive_two_pools, judge_two_pools).await;
}

async fn drive_two_pools(stage: &mut Stage) -> Result<()> {
    let host = stage.hostname().to_owned();
    for name in ["alpha", "beta"] {
        stage.pool(PoolOf::new(name)).await?;
    }
    let rule = |name: &str| json!({"match": with_header("x-pool", name), "pool": name});
    stage.intent("pool-route", json!({"rules": [rule("alpha"), rule("beta")]})).await?;
    for name in ["alpha", "beta"] {
        stage.settle(|| chat(&host, name).header("x-pool", name), name).await?;
    }
    stage.begin().await?;
    for _ in 0..10 {
        for name in ["alpha", "beta"] {
            stage.send(name, chat(&host, "any").header("x-pool", name)).await;
        }
    }
    stage.end().await
}

fn judge_two_pools(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    for (name, other) in [("alpha", "beta"), ("beta", "alpha")] {
        picked::as_picked(&mut judgement, history, name, name);
        picked::not_asked(&mut judgement, history, name, other);
    }
    judgement
}

#[rstest]
#[tokio::test]
async fn ordered_fallback(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    pool_check("pool/ordered-fallback", "-", &folder).run(drive_ordered_fallback, judge_ordered_fallback).await;
}

/// Endpoints of the pool's second port are of the pool, and dead: nothing listens there.
async fn drive_ordered_fallback(stage: &mut Stage) -> Result<()> {
    let pool = routed(stage, PoolOf::new("alpha").ports(&[8080, 8081])).await?;
    let host = stage.hostname().to_owned();
    let on_port = |port: &str| pool.endpoints.iter().find(|(_, e)| e.ends_with(port)).map_or("", |(_, e)| e.as_str());
    let command = format!("endpoints={},{}", on_port(":8081"), on_port(":8080"));
    stage.begin().await?;
    for _ in 0..10 {
        stage.send("first-is-dead", chat(&host, "alpha").header(PICK, &command)).await;
    }
    stage.end().await
}

fn judge_ordered_fallback(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    picked::by_the_fallback(&mut judgement, history, "first-is-dead", "alpha");
    judgement
}

#[rstest]
#[tokio::test]
async fn no_endpoint(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    pool_check("pool/no-endpoint", "-", &folder).run(drive_no_endpoint, judge_no_endpoint).await;
}

async fn drive_no_endpoint(stage: &mut Stage) -> Result<()> {
    let pool = routed(stage, PoolOf::new("alpha")).await?;
    let host = stage.hostname().to_owned();
    stage.begin().await?;
    for _ in 0..5 {
        stage.send("picker-refuses", chat(&host, "alpha").header(PICK, "none")).await;
        stage.send("picker-names-none", chat(&host, "alpha").header(PICK, "silent")).await;
        let steering = chat(&host, "alpha").header(PICK, "silent").header(DESTINATION, pool.endpoint(0));
        stage.send("client-names-one", steering).await;
    }
    stage.end().await
}

fn judge_no_endpoint(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    for label in ["picker-refuses", "picker-names-none", "client-names-one"] {
        proof::status(&mut judgement, history, label, Some(503));
        proof::reached_nothing(&mut judgement, history, label);
    }
    judgement
}

#[rstest]
#[tokio::test]
async fn shed(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    pool_check("pool/shed", "-", &folder).run(drive_shed, judge_shed).await;
}

async fn drive_shed(stage: &mut Stage) -> Result<()> {
    routed(stage, PoolOf::new("alpha")).await?;
    let host = stage.hostname().to_owned();
    stage.begin().await?;
    for _ in 0..5 {
        stage.send("post", chat(&host, "alpha").header(PICK, "shed")).await;
        stage.send("get", models(&host).header(PICK, "shed")).await;
    }
    stage.end().await
}

fn judge_shed(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    for label in ["post", "get"] {
        proof::status(&mut judgement, history, label, Some(429));
        proof::body(&mut judgement, history, label, ::picker::SHED);
        proof::reached_nothing(&mut judgement, history, label);
    }
    judgement
}

/// GET without a body and POST with one, as many of each as are counted, after the picker's pod has gone.
async fn without_the_picker(stage: &mut Stage, wanted: PoolOf) -> Result<()> {
    let mut pool = routed(stage, wanted).await?;
    let host = stage.hostname().to_owned();
    stage.begin().await?;
    for _ in 0..3 {
        stage.send("with-picker", chat(&host, "alpha")).await;
    }
    stage.kill_picker(&mut pool).await?;
    for _ in 0..COUNTED {
        stage.send("get", models(&host)).await;
        stage.send("post", chat(&host, "alpha")).await;
    }
    stage.end().await
}

#[rstest]
#[tokio::test]
async fn fail_close(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    let drive = async |stage: &mut Stage| without_the_picker(stage, PoolOf::new("alpha")).await;
    pool_check("pool/fail-close", "-", &folder).run(drive, judge_fail_close).await;
}

fn judge_fail_close(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    picked::as_picked(&mut judgement, history, "with-picker", "alpha");
    for label in ["get", "post"] {
        proof::server_error(&mut judgement, history, label);
        proof::reached_nothing(&mut judgement, history, label);
    }
    judgement
}

#[rstest]
#[tokio::test]
async fn fail_open(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    let drive = async |stage: &mut Stage| without_the_picker(stage, PoolOf::new("alpha").failing_open()).await;
    pool_check("pool/fail-open", "-", &folder).run(drive, judge_fail_open).await;
}

fn judge_fail_open(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    picked::as_picked(&mut judgement, history, "with-picker", "alpha");
    for label in ["get", "post"] {
        proof::answered_by(&mut judgement, history, label, "alpha");
    }
    judgement
}

#[rstest]
#[tokio::test]
async fn client_cannot_steer(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    pool_check("pool/client-cannot-steer", "-", &folder)
        .run(drive_client_cannot_steer, judge_client_cannot_steer)
        .await;
}

async fn drive_client_cannot_steer(stage: &mut Stage) -> Result<()> {
    let beta = stage.pool(PoolOf::new("beta").replicas(1)).await?;
    let mut alpha = routed(stage, PoolOf::new("alpha").replicas(3).failing_open()).await?;
    let host = stage.hostname().to_owned();
    let (named, outside) = (alpha.endpoint(0).to_owned(), beta.endpoint(0).to_owned());
    stage.begin().await?;
    for _ in 0..10 {
        let call = chat(&host, "alpha").header(SELECT, alpha.endpoint(1));
        stage.send("names-another", call.clone().header(DESTINATION, &named)).await;
        stage.send("names-an-outsider", call.header(DESTINATION, &outside)).await;
    }
    stage.kill_picker(&mut alpha).await?;
    for _ in 0..COUNTED {
        stage.send("picker-gone", models(&host).header(DESTINATION, &named)).await;
    }
    for _ in 0..3 {
        stage.send("picker-gone-outsider", models(&host).header(DESTINATION, &outside)).await;
    }
    stage.end().await
}

fn judge_client_cannot_steer(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    for label in ["names-another", "names-an-outsider"] {
        picked::as_picked(&mut judgement, history, label, "alpha");
    }
    picked::not_steered(&mut judgement, history, "picker-gone", "alpha", DESTINATION);
    proof::did_not_reach(&mut judgement, history, "picker-gone-outsider", "beta");
    judgement
}

#[rstest]
#[tokio::test]
async fn served_reported(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    pool_check("pool/served-reported", "-", &folder).run(drive_served_reported, judge_served_reported).await;
}

async fn drive_served_reported(stage: &mut Stage) -> Result<()> {
    let pool = routed(stage, PoolOf::new("alpha")).await?;
    let host = stage.hostname().to_owned();
    stage.begin().await?;
    for turn in 0..10 {
        stage.send("post", chat(&host, "alpha").header(SELECT, pool.endpoint(turn))).await;
    }
    stage.end().await
}

fn judge_served_reported(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    picked::as_picked(&mut judgement, history, "post", "alpha");
    picked::record_of_each(
        &mut judgement,
        history,
        "post",
        "alpha",
        "the endpoint that served is reported",
        |_, pick| {
            let served = pick.served.as_deref();
            (served != pick.chosen.first().map(String::as_str))
                .then(|| format!("{served:?} is reported as having served"))
        },
    );
    judgement
}

/// What a backendRef to a pool says of a port.
const PORTS: [(&str, Option<u16>); 3] = [("no-port", None), ("same-port", Some(8080)), ("other-port", Some(1))];

#[rstest]
#[tokio::test]
async fn port_ignored(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    pool_check("pool/port-ignored", "-", &folder).run(drive_port_ignored, judge_port_ignored).await;
}

/// One port after the other: how often a picker is asked where several matches lead to its pool is `asked-once`'s subject.
async fn drive_port_ignored(stage: &mut Stage) -> Result<()> {
    stage.pool(PoolOf::new("alpha")).await?;
    let host = stage.hostname().to_owned();
    stage.begin().await?;
    for (label, port) in PORTS {
        let mut rule = json!({"match": with_header("x-rule", label), "pool": "alpha"});
        if let Some(port) = port {
            rule["port"] = json!(port);
        }
        stage.intent("pool-route", json!({"rules": [rule]})).await?;
        let call = || chat(&host, "alpha").header("x-rule", label);
        stage.settle(call, "alpha").await?;
        for _ in 0..5 {
            stage.send(label, call()).await;
        }
    }
    stage.end().await
}

fn judge_port_ignored(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    for (label, _) in PORTS {
        picked::as_picked(&mut judgement, history, label, "alpha");
    }
    judgement
}

/// Matches of one route that lead to one pool.
const MATCHES: [&str; 3] = ["first", "second", "third"];

#[rstest]
#[tokio::test]
async fn asked_once(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    pool_check("pool/asked-once", "-", &folder).run(drive_asked_once, judge_asked_once).await;
}

async fn drive_asked_once(stage: &mut Stage) -> Result<()> {
    stage.pool(PoolOf::new("alpha")).await?;
    let host = stage.hostname().to_owned();
    let rules = MATCHES.map(|label| json!({"match": with_header("x-rule", label), "pool": "alpha"}));
    stage.intent("pool-route", json!({"rules": rules})).await?;
    for label in MATCHES {
        stage.settle(|| chat(&host, "alpha").header("x-rule", label), "alpha").await?;
    }
    stage.begin().await?;
    for _ in 0..5 {
        for label in MATCHES {
            stage.send(label, chat(&host, "alpha").header("x-rule", label)).await;
        }
    }
    stage.end().await
}

fn judge_asked_once(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    for label in MATCHES {
        picked::as_picked(&mut judgement, history, label, "alpha");
    }
    judgement
}

/// What a check of a reference that leads nowhere sends: to the good pool, and to the bad one on a hostname of its own.
async fn beside_a_good_pool(stage: &mut Stage, rule: Value) -> Result<()> {
    routed(stage, PoolOf::new("alpha")).await?;
    let (good, bad) = (stage.hostname().to_owned(), format!("bad-{}", stage.hostname()));
    stage.intent("pool-route", json!({"name": "bad", "hostname": bad, "rules": [rule]})).await?;
    let route = route_object(stage, "bad");
    stage.see("route", &route, parents_say("ResolvedRefs"), 60).await?;
    stage.settle_status(|| chat(&bad, "alpha"), |status| status != 404).await?;
    stage.begin().await?;
    for _ in 0..5 {
        stage.send("good", chat(&good, "alpha")).await;
        stage.send("bad", chat(&bad, "alpha")).await;
    }
    stage.end().await
}

/// The good pool serves as it should, the bad one does not, and reaches nobody.
fn judge_beside_a_good_pool(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    picked::as_picked(&mut judgement, history, "good", "alpha");
    proof::server_error(&mut judgement, history, "bad");
    proof::reached_nothing(&mut judgement, history, "bad");
    judgement
}

fn object_of<'h>(history: &'h History, name: &str) -> &'h Value {
    history.objects.get(name).unwrap_or(&Value::Null)
}

/// The route's reference is unresolved, for this reason.
fn judge_unresolved(judgement: &mut Judgement, history: &History, wanted: &str) {
    let route = object_of(history, "route");
    let conditions = &route["status"]["parents"][0]["conditions"];
    proof::condition(judgement, "route-ResolvedRefs", route, conditions, "ResolvedRefs", "False");
    let reason = proof::reason(conditions, "ResolvedRefs").unwrap_or("no reason");
    judgement.that("route-reason", reason == wanted, wanted, reason, []);
}

#[rstest]
#[tokio::test]
async fn invalid_picker_ref(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    pool_check("pool/invalid-picker-ref", "-", &folder).run(drive_invalid_picker_ref, judge_invalid_picker_ref).await;
}

async fn drive_invalid_picker_ref(stage: &mut Stage) -> Result<()> {
    stage.pool(PoolOf::new("beta").failing_open().asking("nobody")).await?;
    beside_a_good_pool(stage, json!({"match": everything(), "pool": "beta"})).await?;
    see_pool(stage, "pool", "beta", parents_say("ResolvedRefs")).await.map(drop)
}

fn judge_invalid_picker_ref(history: &History) -> Judgement {
    let mut judgement = judge_beside_a_good_pool(history);
    let (route, pool) = (object_of(history, "route"), object_of(history, "pool"));
    proof::condition(
        &mut judgement,
        "route-Accepted",
        route,
        &route["status"]["parents"][0]["conditions"],
        "Accepted",
        "True",
    );
    let conditions = &pool["status"]["parents"][0]["conditions"];
    proof::condition(&mut judgement, "pool-ResolvedRefs", pool, conditions, "ResolvedRefs", "False");
    let reason = proof::reason(conditions, "ResolvedRefs").unwrap_or("no reason");
    judgement.that("pool-reason", reason == "InvalidExtensionRef", "InvalidExtensionRef", reason, []);
    judgement
}

#[rstest]
#[tokio::test]
async fn missing_pool(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    let drive =
        async |stage: &mut Stage| beside_a_good_pool(stage, json!({"match": everything(), "pool": "nobody"})).await;
    pool_check("pool/missing-pool", "-", &folder).run(drive, judge_missing_pool).await;
}

fn judge_missing_pool(history: &History) -> Judgement {
    let mut judgement = judge_beside_a_good_pool(history);
    judge_unresolved(&mut judgement, history, "BackendNotFound");
    judgement
}

#[rstest]
#[tokio::test]
async fn unknown_group(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    let drive = async |stage: &mut Stage| {
        let rule = json!({"match": everything(), "pool": "alpha", "group": "inference.networking.x-k8s.io"});
        beside_a_good_pool(stage, rule).await
    };
    pool_check("pool/unknown-group", "-", &folder).run(drive, judge_unknown_group).await;
}

fn judge_unknown_group(history: &History) -> Judgement {
    let mut judgement = judge_beside_a_good_pool(history);
    judge_unresolved(&mut judgement, history, "InvalidKind");
    judgement
}

/// Keeps which Gateway it is that all checks share.
fn name_the_gateway(stage: &mut Stage) -> Value {
    let shared = stage.shared_gateway();
    let gateway = json!({"name": shared.name, "namespace": shared.namespace});
    stage.fact("gateway", gateway.clone());
    gateway
}

#[rstest]
#[tokio::test]
async fn status_written(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    pool_check("pool/status-written", "-", &folder).run(drive_status_written, judge_status_written).await;
}

async fn drive_status_written(stage: &mut Stage) -> Result<()> {
    routed(stage, PoolOf::new("alpha")).await?;
    name_the_gateway(stage);
    see_pool(stage, "pool", "alpha", parents_say("ResolvedRefs")).await?;
    let host = stage.hostname().to_owned();
    stage.begin().await?;
    stage.send("post", chat(&host, "alpha")).await;
    stage.end().await
}

fn judge_status_written(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    judge_entry(&mut judgement, history, "pool");
    picked::as_picked(&mut judgement, history, "post", "alpha");
    judgement
}

/// The pool's status has one entry for the Gateway, and that one says that all is well.
fn judge_entry(judgement: &mut Judgement, history: &History, name: &str) {
    let (pool, gateway) = (object_of(history, name), history.facts.get("gateway").cloned().unwrap_or_default());
    let entries = picked::entries_of(pool, &gateway);
    judgement.that(
        "one-entry",
        entries.len() == 1,
        "one entry for the Gateway",
        format!("{} entries", entries.len()),
        [],
    );
    for condition in ["Accepted", "ResolvedRefs"] {
        let conditions = entries.first().map_or(&Value::Null, |e| &e["conditions"]);
        proof::condition(judgement, &format!("pool-{condition}"), pool, conditions, condition, "True");
    }
}

#[rstest]
#[tokio::test]
async fn status_cleared(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    pool_check("pool/status-cleared", "-", &folder).run(drive_status_cleared, judge_status_cleared).await;
}

async fn drive_status_cleared(stage: &mut Stage) -> Result<()> {
    routed(stage, PoolOf::new("alpha")).await?;
    let gateway = name_the_gateway(stage);
    see_pool(stage, "before", "alpha", parents_say("ResolvedRefs")).await?;
    let route = route_object(stage, stage.route());
    stage.delete(&route).await?;
    let cleared = move |pool: &Value| Ok(picked::entries_of(pool, &gateway).is_empty());
    see_pool(stage, "after", "alpha", Until::holds("no entry for the Gateway", cleared)).await.map(drop)
}

fn judge_status_cleared(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    judge_entry(&mut judgement, history, "before");
    let gateway = history.facts.get("gateway").cloned().unwrap_or_default();
    match history.objects.get("after") {
        Some(pool) => {
            let left = picked::entries_of(pool, &gateway).len();
            judgement.that("cleared", left == 0, "no entry once no route leads there", format!("{left} entries"), [])
        }
        None => judgement.unproven("cleared", "the pool after its last route", "it was not read"),
    };
    judgement
}

/// Sizes of bodies: below and above what gateways and pickers buffer (GIE#854, #2988).
const SIZES: [(&str, usize); 4] =
    [("1-kib", 1 << 10), ("64-kib", 64 << 10), ("256-kib", 256 << 10), ("2-mib", 2 << 20)];

#[rstest]
#[tokio::test]
async fn body_sizes(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    pool_check("pool/body-sizes", "-", &folder).run(drive_body_sizes, judge_body_sizes).await;
}

/// A chat whose body has exactly so many bytes, none of them where it could be mistaken for another. It is answered
/// whatever its length is in tokens.
fn sized(host: &str, bytes: usize) -> Call {
    let around = json!({"messages": [{"content": "", "role": "user"}], "model": "alpha"}).to_string();
    let wanted = bytes.saturating_sub(around.len());
    let mut prompt = String::with_capacity(wanted + 8);
    for n in 0.. {
        if prompt.len() >= wanted {
            break;
        }
        _ = write!(prompt, "{n} ");
    }
    prompt.truncate(wanted);
    long(host, &prompt)
}

/// A chat with a long prompt, answered `{}` whatever its length is in tokens.
fn long(host: &str, prompt: &str) -> Call {
    let body = json!({"messages": [{"content": prompt, "role": "user"}], "model": "alpha"});
    Call::post("/v1/chat/completions").host(host).json(&body).header("x-igc-reply", "e30=")
}

async fn drive_body_sizes(stage: &mut Stage) -> Result<()> {
    routed(stage, PoolOf::new("alpha")).await?;
    let host = stage.hostname().to_owned();
    stage.begin().await?;
    for _ in 0..2 {
        for (label, bytes) in SIZES {
            stage.send(label, sized(&host, bytes)).await;
        }
    }
    stage.end().await
}

fn judge_body_sizes(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    for (label, _) in SIZES {
        picked::as_picked(&mut judgement, history, label, "alpha");
        proof::body_arrives_unchanged(&mut judgement, history, label);
        let expected = "the picker saw all of it and one end";
        picked::record_of_each(&mut judgement, history, label, "alpha", expected, |exchange, pick| {
            let same = pick.request.sha256 == exchange.request.body.sha256;
            (!same || pick.request.ends != 1).then(|| {
                let (seen, sent) = (pick.request.bytes, exchange.request.body.bytes);
                format!("the picker saw {seen} of {sent} bytes and {} ends of stream", pick.request.ends)
            })
        });
    }
    judgement
}

#[rstest]
#[tokio::test]
async fn scale(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    pool_check("pool/scale", "-", &folder).run(drive_scale, judge_scale).await;
}

async fn drive_scale(stage: &mut Stage) -> Result<()> {
    let mut pool = routed(stage, PoolOf::new("alpha")).await?;
    let host = stage.hostname().to_owned();
    stage.begin().await?;
    let before = pool.endpoints.clone();
    stage.scale(&mut pool, 3).await?;
    let added: Vec<&String> = pool.endpoints.iter().filter(|e| !before.contains(e)).map(|(_, e)| e).collect();
    stage.fact("added", json!(added));
    for _ in 0..40 {
        stage.send("one-more", chat(&host, "alpha")).await;
        stage.pause(0.25).await;
    }
    stage.scale(&mut pool, 1).await?;
    stage.pause(10.0).await;
    for _ in 0..COUNTED {
        stage.send("two-fewer", chat(&host, "alpha")).await;
    }
    stage.end().await
}

fn judge_scale(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    for label in ["one-more", "two-fewer"] {
        picked::as_picked(&mut judgement, history, label, "alpha");
    }
    let added: Vec<&str> =
        history.facts.get("added").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let picks = picked::picks(history, "one-more", "alpha");
    let used = picks.iter().filter(|p| p.chosen.first().is_some_and(|c| added.contains(&c.as_str()))).count();
    let expected = "the added endpoint is used";
    let got = format!("{used} of {} requests went to {added:?}", picks.len());
    if added.is_empty() || picks.is_empty() {
        judgement.unproven("added-is-used", expected, got);
    } else {
        judgement.that("added-is-used", used > 0, expected, got, []);
    }
    judgement
}

/// Four long prompts that have nothing in common.
const PREFIXES: [&str; 4] = ["prefix-1", "prefix-2", "prefix-3", "prefix-4"];

#[rstest]
#[tokio::test]
async fn prefix_affinity(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    pool_check("pool/prefix-affinity", "-", &folder).run(drive_prefix_affinity, judge_prefix_affinity).await;
}

async fn drive_prefix_affinity(stage: &mut Stage) -> Result<()> {
    routed(stage, PoolOf::new("alpha").replicas(3)).await?;
    let host = stage.hostname().to_owned();
    stage.begin().await?;
    for round in 0..5 {
        for prefix in PREFIXES {
            let prompt: String = (0..2000).map(|n| format!("{prefix} {n} ")).collect();
            stage.send(prefix, long(&host, &format!("{prompt} question {round}"))).await;
        }
    }
    stage.end().await
}

fn judge_prefix_affinity(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    let mut used: Vec<&str> = Vec::new();
    for prefix in PREFIXES {
        picked::as_picked(&mut judgement, history, prefix, "alpha");
        let chosen: Vec<&str> = picked::picks(history, prefix, "alpha")
            .iter()
            .filter_map(|p| p.chosen.first().map(String::as_str))
            .collect();
        let clause = format!("{prefix}-sticks");
        let expected = "one endpoint for all requests that begin alike";
        match chosen.split_first() {
            Some((first, rest)) if !rest.is_empty() => {
                let strays = rest.iter().filter(|c| *c != first).count();
                judgement.that(&clause, strays == 0, expected, format!("{strays} of {} strayed", rest.len()), []);
                used.push(first);
            }
            _ => _ = judgement.unproven(&clause, expected, format!("{} choices", chosen.len())),
        }
    }
    used.sort_unstable();
    used.dedup();
    let expected = "prompts with nothing in common spread over endpoints";
    judgement.that("spreads", used.len() > 1, expected, format!("{} endpoints used", used.len()), []);
    judgement
}

#[rstest]
#[tokio::test]
async fn picker_latency(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    pool_check("pool/picker-latency", "-", &folder).run(drive_picker_latency, judge_picker_latency).await;
}

async fn drive_picker_latency(stage: &mut Stage) -> Result<()> {
    let pool = routed(stage, PoolOf::new("alpha")).await?;
    let (host, plain) = (stage.hostname().to_owned(), format!("plain-{}", stage.hostname()));
    let rule = json!([{"match": everything(), "service": pool.service(), "port": 80}]);
    stage.intent("http-route", json!({"name": "plain", "hostname": plain, "rules": rule})).await?;
    stage.settle(|| chat(&plain, "alpha"), "alpha").await?;
    stage.begin().await?;
    for _ in 0..30 {
        stage.send("through-the-picker", chat(&host, "alpha")).await;
        stage.send("past-the-picker", chat(&plain, "alpha")).await;
    }
    stage.end().await
}

fn judge_picker_latency(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    picked::as_picked(&mut judgement, history, "through-the-picker", "alpha");
    proof::answered_by(&mut judgement, history, "past-the-picker", "alpha");
    picked::not_asked(&mut judgement, history, "past-the-picker", "alpha");
    let median = |label: &str| {
        let mut times: Vec<f64> = history.labelled(label).filter_map(|e| e.response()).map(|r| r.head_ms).collect();
        times.sort_by(f64::total_cmp);
        times.get(times.len() / 2).copied()
    };
    match (median("through-the-picker"), median("past-the-picker")) {
        (Some(through), Some(past)) => {
            let got = format!("median {through:.1} ms through the picker, {past:.1} ms past it");
            judgement.that("measured", true, "both ways measured", got, [])
        }
        _ => judgement.unproven("measured", "both ways measured", "a way without answers"),
    };
    judgement
}

mod judges {
    use rstest::rstest;
    use suites::fake::{Fake, conditions, endpoint, verdict_of};
    use verdict::judge::Holds;

    use super::*;

    fn alpha(check: &str) -> Fake {
        Fake::of(check).pool("alpha", 3)
    }

    fn asked(case: &str) -> Fake {
        alpha("pool/picker-asked").case(case).picked("stream", "alpha", 1)
    }

    /// The most damaging silent failure of this field is a 200 that never asked the picker.
    #[rstest]
    #[case::asked(asked("http-route").picked("post", "alpha", 0).picked("get", "alpha", 2), Holds::Yes)]
    #[case::a_model_route_has_no_get(asked("model-route").picked("post", "alpha", 0), Holds::Yes)]
    #[case::bypassed(asked("http-route").past_the_picker("post", "alpha", 0).picked("get", "alpha", 2), Holds::No)]
    #[case::bypassed_once(asked("model-route").picked("post", "alpha", 0).past_the_picker("post", "alpha", 0), Holds::No)]
    #[case::no_records_at_all(asked("model-route").past_the_picker("post", "alpha", 0).without_picker_records("alpha"), Holds::Unproven)]
    #[case::records_not_whole(asked("model-route").past_the_picker("post", "alpha", 0).without_picker_marker("alpha"), Holds::Unproven)]
    #[case::whole_enough(asked("model-route").picked("post", "alpha", 0).without_picker_marker("alpha"), Holds::Yes)]
    #[case::asked_twice(asked("model-route").picked("post", "alpha", 0).also_asked("alpha", &[0]), Holds::No)]
    #[case::another_served(asked("model-route").past_the_picker("post", "alpha", 1).also_asked("alpha", &[0]), Holds::No)]
    #[case::none_was_named(asked("model-route").past_the_picker("post", "alpha", 1).also_asked("alpha", &[]), Holds::No)]
    #[case::an_outsider_was_named(asked("model-route").past_the_picker("post", "alpha", 1).also_asked("alpha", &[7]), Holds::No)]
    #[case::nobody_served(asked("model-route").refused("post", 200).also_asked("alpha", &[0]), Holds::No)]
    #[case::served_twice(asked("model-route").picked("post", "alpha", 0).also_reached("alpha"), Holds::No)]
    #[case::model_records_not_whole(asked("model-route").refused("post", 200).also_asked("alpha", &[0]).without_marker("alpha"), Holds::Unproven)]
    #[case::refused(asked("model-route").refused("post", 500), Holds::No)]
    #[case::never_live(asked("model-route").picked("post", "alpha", 0).unsettled(), Holds::No)]
    #[case::nothing_sent(asked("model-route"), Holds::Unproven)]
    fn picker_asked_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_picker_asked, &fake), holds);
    }

    fn commanded(wanted: usize, named: usize, served: usize) -> Fake {
        let fake = alpha("pool/follows-choice").past_the_picker("commanded", "alpha", served);
        fake.also_asked("alpha", &[named]).sent_with(SELECT, &endpoint("alpha", wanted))
    }

    #[rstest]
    #[case::followed(1, 1, 1, Holds::Yes)]
    #[case::another_served(1, 1, 2, Holds::No)]
    #[case::another_named(1, 2, 2, Holds::No)]
    fn follows_choice_is_judged(
        #[case] wanted: usize,
        #[case] named: usize,
        #[case] served: usize,
        #[case] holds: Holds,
    ) {
        assert_eq!(verdict_of(judge_follows_choice, &commanded(wanted, named, served)), holds);
    }

    /// Sixty requests to three endpoints in turn, which went where `served` says.
    fn upstream(served: impl Fn(usize) -> usize) -> Fake {
        alpha("pool/upstream-picker").without_picker_records("alpha").times(60, |fake, n| {
            fake.past_the_picker("commanded", "alpha", served(n)).sent_with(SELECT, &endpoint("alpha", n % 3))
        })
    }

    #[rstest]
    #[case::followed(upstream(|n| n % 3), Holds::Yes)]
    #[case::bypassed(upstream(|_| 0), Holds::No)]
    #[case::one_strays(upstream(|n| if n == 30 { 1 } else { n % 3 }), Holds::No)]
    #[case::one_fails(upstream(|n| n % 3).refused("commanded", 503), Holds::No)]
    #[case::nothing_sent(alpha("pool/upstream-picker"), Holds::Unproven)]
    #[case::models_lost_records(upstream(|n| n % 3).answer("commanded", 200, &[], "").without_marker("alpha"), Holds::Unproven)]
    fn upstream_picker_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_upstream_picker, &fake), holds);
    }

    fn two() -> Fake {
        alpha("pool/two-pools").pool("beta", 2).picked("alpha", "alpha", 0)
    }

    #[rstest]
    #[case::each_its_own(two().picked("beta", "beta", 1), Holds::Yes)]
    #[case::first_picker_for_both(two().past_the_picker("beta", "beta", 1).also_asked("alpha", &[0]), Holds::No)]
    #[case::both_asked(two().picked("beta", "beta", 1).also_asked("alpha", &[0]), Holds::No)]
    #[case::served_by_the_other(two().past_the_picker("beta", "alpha", 1).also_asked("beta", &[1]), Holds::No)]
    #[case::one_picker_lost_records(two().picked("beta", "beta", 1).without_picker_marker("alpha"), Holds::Unproven)]
    fn two_pools_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_two_pools, &fake), holds);
    }

    fn fallback() -> Fake {
        alpha("pool/ordered-fallback")
    }

    #[rstest]
    #[case::second_served(fallback().past_the_picker("first-is-dead", "alpha", 1).also_asked("alpha", &[0, 1]), Holds::Yes)]
    #[case::third_served(fallback().past_the_picker("first-is-dead", "alpha", 2).also_asked("alpha", &[0, 1]), Holds::No)]
    #[case::given_up(fallback().refused("first-is-dead", 503).also_asked("alpha", &[0, 1]), Holds::No)]
    #[case::no_list(fallback().past_the_picker("first-is-dead", "alpha", 0).also_asked("alpha", &[0]), Holds::No)]
    fn ordered_fallback_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_ordered_fallback, &fake), holds);
    }

    fn unchosen() -> Fake {
        alpha("pool/no-endpoint").refused("picker-refuses", 503).refused("picker-names-none", 503)
    }

    #[rstest]
    #[case::refused(unchosen().refused("client-names-one", 503), Holds::Yes)]
    #[case::steered(unchosen().past_the_picker("client-names-one", "alpha", 0), Holds::No)]
    #[case::own_choice(unchosen().past_the_picker("picker-names-none", "alpha", 2).refused("client-names-one", 503), Holds::No)]
    #[case::other_status(unchosen().refused("client-names-one", 500), Holds::No)]
    #[case::models_lost_records(unchosen().refused("client-names-one", 503).without_marker("alpha"), Holds::Unproven)]
    fn no_endpoint_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_no_endpoint, &fake), holds);
    }

    fn shedding(status: u16, body: &str) -> Fake {
        let fake = alpha("pool/shed").refused_with("get", 429, "text/plain", ::picker::SHED);
        fake.refused_with("post", status, "application/json", body)
    }

    #[rstest]
    #[case::passed_on(shedding(429, ::picker::SHED), Holds::Yes)]
    #[case::body_lost(shedding(429, ""), Holds::No)]
    #[case::other_status(shedding(503, ::picker::SHED), Holds::No)]
    #[case::served_all_the_same(shedding(429, ::picker::SHED).picked("post", "alpha", 0), Holds::No)]
    fn shed_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_shed, &fake), holds);
    }

    /// Twenty of each, of which so many POSTs are served.
    fn gone(check: &str, gets_served: usize, posts_served: usize) -> Fake {
        let served = |fake: Fake, label: &str, yes: bool| {
            if yes { fake.past_the_picker(label, "alpha", 0) } else { fake.refused(label, 500) }
        };
        alpha(check)
            .picked("with-picker", "alpha", 0)
            .times(COUNTED, |fake, n| served(fake, "get", n < gets_served))
            .times(COUNTED, |fake, n| served(fake, "post", n < posts_served))
    }

    /// The Inference Extension's own suite passes where a retry makes 12 failures of 20 invisible.
    #[rstest]
    #[case::closed(0, 0, Holds::Yes, Holds::No)]
    #[case::open(COUNTED, COUNTED, Holds::No, Holds::Yes)]
    #[case::one_slipped_through(0, 1, Holds::No, Holds::No)]
    #[case::one_was_refused(COUNTED, COUNTED - 1, Holds::No, Holds::No)]
    #[case::open_without_a_body_only(COUNTED, 0, Holds::No, Holds::No)]
    #[case::twelve_of_twenty_failed(COUNTED, 8, Holds::No, Holds::No)]
    fn failure_modes_are_judged(#[case] gets: usize, #[case] posts: usize, #[case] closed: Holds, #[case] open: Holds) {
        assert_eq!(verdict_of(judge_fail_close, &gone("pool/fail-close", gets, posts)), closed);
        assert_eq!(verdict_of(judge_fail_open, &gone("pool/fail-open", gets, posts)), open);
    }

    #[test]
    fn failing_open_to_another_pool_is_no_failing_open() {
        let fake = gone("pool/fail-open", COUNTED, COUNTED).pool("beta", 1).past_the_picker("post", "beta", 0);
        assert_eq!(verdict_of(judge_fail_open, &fake), Holds::No);
        let bypassed = gone("pool/fail-open", COUNTED, COUNTED).past_the_picker("with-picker", "alpha", 0);
        assert_eq!(verdict_of(judge_fail_open, &bypassed), Holds::No, "there never was a picker to lose");
    }

    /// The client names endpoint 0; `served` says who answers each of the requests without a picker.
    fn steering(served: &[usize]) -> Fake {
        let named = endpoint("alpha", 0);
        let fake = alpha("pool/client-cannot-steer").pool("beta", 1).picked("names-another", "alpha", 1);
        let fake = fake.picked("names-an-outsider", "alpha", 1).refused("picker-gone-outsider", 503);
        fake.times(served.len(), |fake, n| {
            fake.past_the_picker("picker-gone", "alpha", served[n]).sent_with(DESTINATION, &named)
        })
    }

    #[rstest]
    #[case::own_choice(steering(&[0, 1, 2, 0, 1, 2, 0, 1, 2, 0]), Holds::Yes)]
    #[case::steered(steering(&[0; 10]), Holds::No)]
    #[case::too_few_to_tell(steering(&[0; 3]), Holds::Unproven)]
    #[case::nothing_served(steering(&[]).refused("picker-gone", 500), Holds::Yes)]
    #[case::followed_over_the_picker(steering(&[1, 2]).past_the_picker("names-another", "alpha", 0).also_asked("alpha", &[1]), Holds::No)]
    #[case::out_of_the_pool(steering(&[1, 2]).past_the_picker("names-an-outsider", "beta", 0).also_asked("alpha", &[1]), Holds::No)]
    #[case::out_of_the_pool_without_picker(steering(&[1, 2]).past_the_picker("picker-gone-outsider", "beta", 0), Holds::No)]
    #[case::outsider_lost_records(steering(&[1, 2]).without_marker("beta"), Holds::Unproven)]
    fn client_cannot_steer_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_client_cannot_steer, &fake), holds);
    }

    #[rstest]
    #[case::reported(Some(0), Holds::Yes)]
    #[case::another(Some(1), Holds::No)]
    #[case::untold(None, Holds::No)]
    fn served_reported_is_judged(#[case] served: Option<usize>, #[case] holds: Holds) {
        let fake = alpha("pool/served-reported").picked("post", "alpha", 0);
        let fake = fake.with_pick(|pick| pick.served = served.map(|n| endpoint("alpha", n)));
        assert_eq!(verdict_of(judge_served_reported, &fake), holds);
    }

    fn ports() -> Fake {
        alpha("pool/port-ignored").picked("no-port", "alpha", 0).picked("same-port", "alpha", 0)
    }

    #[rstest]
    #[case::ignored(ports().picked("other-port", "alpha", 2), Holds::Yes)]
    #[case::used(ports().refused("other-port", 503), Holds::No)]
    #[case::not_asked(ports().past_the_picker("other-port", "alpha", 2), Holds::No)]
    fn port_ignored_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_port_ignored, &fake), holds);
    }

    fn matched() -> Fake {
        alpha("pool/asked-once").picked("first", "alpha", 0).picked("second", "alpha", 1)
    }

    #[rstest]
    #[case::once(matched().picked("third", "alpha", 2), Holds::Yes)]
    #[case::twice(matched().picked("third", "alpha", 2).also_asked("alpha", &[0]), Holds::No)]
    #[case::never(matched().past_the_picker("third", "alpha", 2), Holds::No)]
    #[case::refused(matched().refused("third", 503), Holds::No)]
    #[case::not_sent(matched(), Holds::Unproven)]
    fn asked_once_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_asked_once, &fake), holds);
    }

    fn parents(said: &[(&str, &str, &str)]) -> Value {
        json!({"metadata": {"generation": 1}, "status": {"parents": [
            {"parentRef": {"name": "gw", "namespace": "gws"}, "conditions": conditions(1, said)}]}})
    }

    /// A good pool, and a bad one with this answer behind a route that says this.
    fn beside(check: &str, status: u16, resolved: &str, reason: &str) -> Fake {
        let fake = alpha(check).picked("good", "alpha", 0).refused("bad", status);
        fake.object("route", parents(&[("Accepted", "True", "Accepted"), ("ResolvedRefs", resolved, reason)]))
    }

    #[rstest]
    #[case::said(beside("pool/missing-pool", 500, "False", "BackendNotFound"), Holds::Yes, Holds::No)]
    #[case::unknown(beside("pool/missing-pool", 503, "False", "InvalidKind"), Holds::No, Holds::Yes)]
    #[case::claims_resolved(beside("pool/missing-pool", 500, "True", "ResolvedRefs"), Holds::No, Holds::No)]
    #[case::not_a_server_error(beside("pool/missing-pool", 404, "False", "BackendNotFound"), Holds::No, Holds::No)]
    #[case::another_backend(beside("pool/missing-pool", 500, "False", "BackendNotFound").picked("bad", "alpha", 0), Holds::No, Holds::No)]
    #[case::the_good_one_suffers(beside("pool/missing-pool", 500, "False", "BackendNotFound").refused("good", 500), Holds::No, Holds::No)]
    fn unresolved_pools_are_judged(#[case] fake: Fake, #[case] missing: Holds, #[case] unknown: Holds) {
        assert_eq!(verdict_of(judge_missing_pool, &fake), missing);
        assert_eq!(verdict_of(judge_unknown_group, &fake), unknown);
    }

    #[rstest]
    #[case::said("False", "InvalidExtensionRef", 500, Holds::Yes)]
    #[case::claims_resolved("True", "ResolvedRefs", 500, Holds::No)]
    #[case::other_reason("False", "ResolvedRefs", 500, Holds::No)]
    #[case::serves("False", "InvalidExtensionRef", 200, Holds::No)]
    fn invalid_picker_ref_is_judged(
        #[case] resolved: &str,
        #[case] reason: &str,
        #[case] status: u16,
        #[case] holds: Holds,
    ) {
        let fake = beside("pool/invalid-picker-ref", status, "True", "ResolvedRefs");
        let fake = fake.object("pool", parents(&[("ResolvedRefs", resolved, reason)]));
        assert_eq!(verdict_of(judge_invalid_picker_ref, &fake), holds);
    }

    fn standing(accepted: &str, resolved: &str) -> Value {
        parents(&[("Accepted", accepted, "Accepted"), ("ResolvedRefs", resolved, "ResolvedRefs")])
    }

    fn empty() -> Value {
        json!({"metadata": {"generation": 1}, "status": {}})
    }

    fn gateway(fake: Fake) -> Fake {
        fake.fact("gateway", json!({"name": "gw", "namespace": "gws"}))
    }

    #[rstest]
    #[case::written(standing("True", "True"), Holds::Yes)]
    #[case::never_written(empty(), Holds::No)]
    #[case::not_accepted(standing("False", "True"), Holds::No)]
    #[case::not_resolved(standing("True", "False"), Holds::No)]
    #[case::about_another_gateway(json!({"metadata": {"generation": 1}, "status": {"parents": [
        {"parentRef": {"name": "other", "namespace": "gws"}, "conditions": []}]}}), Holds::No)]
    fn status_written_is_judged(#[case] pool: Value, #[case] holds: Holds) {
        let fake = gateway(alpha("pool/status-written")).object("pool", pool).picked("post", "alpha", 0);
        assert_eq!(verdict_of(judge_status_written, &fake), holds);
    }

    #[rstest]
    #[case::cleared(standing("True", "True"), Some(empty()), Holds::Yes)]
    #[case::left(standing("True", "True"), Some(standing("True", "True")), Holds::No)]
    #[case::never_there(empty(), Some(empty()), Holds::No)]
    #[case::not_read(standing("True", "True"), None, Holds::Unproven)]
    fn status_cleared_is_judged(#[case] before: Value, #[case] after: Option<Value>, #[case] holds: Holds) {
        let fake = gateway(alpha("pool/status-cleared")).object("before", before);
        let fake = after.into_iter().fold(fake, |fake, pool| fake.object("after", pool));
        assert_eq!(verdict_of(judge_status_cleared, &fake), holds);
    }

    fn sizes() -> Fake {
        SIZES
            .iter()
            .skip(1)
            .fold(alpha("pool/body-sizes"), |fake, (label, _)| fake.picked(label, "alpha", 0).sent_body(label))
    }

    #[rstest]
    #[case::equal(sizes().picked("1-kib", "alpha", 0).sent_body("x"), Holds::Yes)]
    #[case::two_ends(sizes().picked("1-kib", "alpha", 0).with_pick(|p| p.request.ends = 2), Holds::No)]
    #[case::the_picker_saw_less(sizes().picked("1-kib", "alpha", 0).with_pick(|p| p.request.sha256 = "other".into()), Holds::No)]
    #[case::the_model_got_less(sizes().picked("1-kib", "alpha", 0).sent_body("xyz").model_got("xy"), Holds::No)]
    #[case::cut(sizes().picked("1-kib", "alpha", 0).sent_body("x").cut("1-kib"), Holds::No)]
    fn body_sizes_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_body_sizes, &fake), holds);
    }

    fn scaled(more: &[usize]) -> Fake {
        let fake = alpha("pool/scale").fact("added", json!([endpoint("alpha", 2)])).picked("two-fewer", "alpha", 0);
        more.iter().fold(fake, |fake, n| fake.picked("one-more", "alpha", *n))
    }

    #[rstest]
    #[case::used(scaled(&[0, 1, 2]), Holds::Yes)]
    #[case::unused(scaled(&[0, 1, 1]), Holds::No)]
    #[case::fails(scaled(&[0, 2]).refused("two-fewer", 503), Holds::No)]
    #[case::nothing_sent(scaled(&[]), Holds::Unproven)]
    fn scale_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_scale, &fake), holds);
    }

    /// Where the two requests of each prefix went.
    fn prefixes(chosen: [[usize; 2]; 4]) -> Fake {
        PREFIXES.iter().zip(chosen).fold(alpha("pool/prefix-affinity"), |fake, (label, [first, second])| {
            fake.picked(label, "alpha", first).picked(label, "alpha", second)
        })
    }

    #[rstest]
    #[case::sticks([[0, 0], [1, 1], [2, 2], [0, 0]], Holds::Yes)]
    #[case::strays([[0, 0], [1, 2], [2, 2], [0, 0]], Holds::No)]
    #[case::all_at_one([[0, 0], [0, 0], [0, 0], [0, 0]], Holds::No)]
    fn prefix_affinity_is_judged(#[case] chosen: [[usize; 2]; 4], #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_prefix_affinity, &prefixes(chosen)), holds);
    }

    #[rstest]
    #[case::measured(true, Holds::Yes)]
    #[case::the_plain_route_asks_as_well(false, Holds::No)]
    fn picker_latency_is_judged(#[case] plain: bool, #[case] holds: Holds) {
        let fake = alpha("pool/picker-latency").picked("through-the-picker", "alpha", 0);
        let fake = fake.past_the_picker("past-the-picker", "alpha", 0);
        let fake = if plain { fake } else { fake.also_asked("alpha", &[0]) };
        assert_eq!(verdict_of(judge_picker_latency, &fake), holds);
    }
}
