//! LLMInferenceService: what it makes, on what its readiness depends, and that requests to it ask the picker that it made.

use std::path::PathBuf;

use anyhow::Result;
use rstest::rstest;
use serde_json::{Value, json};
use suites::{Call, LlmService, Stage, Until, chat_to, check, condition, object, picked, proof};
use verdict::{history::History, judge::Judgement};

/// What an LLMInferenceService called alpha makes: the drive's name for it, version, kind, name.
const CHILDREN: &[(&str, &str, &str, &str)] = &[
    ("deployment", "apps/v1", "Deployment", "alpha-kserve"),
    ("workload-service", "v1", "Service", "alpha-kserve-workload-svc"),
    ("picker", "apps/v1", "Deployment", "alpha-kserve-router-scheduler"),
    ("picker-service", "v1", "Service", "alpha-epp-service"),
    ("pool", "inference.networking.k8s.io/v1", "InferencePool", "alpha-inference-pool"),
    ("route", "gateway.networking.k8s.io/v1", "HTTPRoute", "alpha-kserve-route"),
];

/// Seconds that a service may take to say what is waited for.
const SAYS: u64 = 240;

fn service_object(stage: &Stage, name: &str) -> suites::ObjectRef {
    object("serving.kserve.io/v1alpha2", "LLMInferenceService", stage.namespace(), name)
}

fn of<'h>(history: &'h History, name: &str) -> &'h Value {
    history.objects.get(name).unwrap_or(&Value::Null)
}

/// What a condition of an LLMInferenceService is, and why.
fn says(service: &Value, kind: &str) -> (String, String) {
    let conditions = &service["status"]["conditions"];
    let status = proof::condition_status(conditions, kind).unwrap_or("absent");
    (status.to_owned(), proof::reason(conditions, kind).unwrap_or_default().to_owned())
}

fn is_true(judgement: &mut Judgement, clause: &str, service: &Value, kind: &str) {
    let (status, reason) = says(service, kind);
    judgement.that(clause, status == "True", format!("{kind}=True"), format!("{kind}={status} {reason}"), []);
}

#[rstest]
#[case::v1alpha2("v1alpha2")]
#[case::v1alpha1("v1alpha1")]
#[tokio::test]
async fn llmisvc_children(
    #[case] case: &'static str,
    #[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf,
) {
    let drive = async |stage: &mut Stage| drive_children(stage, case).await;
    check("kserve/llmisvc-children", case, &folder).run(drive, judge_children).await;
}

async fn drive_children(stage: &mut Stage, version: &'static str) -> Result<()> {
    stage.apply_llm_service(LlmService::new("alpha").version(version)).await?;
    let service = service_object(stage, "alpha");
    stage.see("service", &service, condition("Ready"), SAYS).await?;
    for (called, version, kind, name) in CHILDREN {
        let until = if *kind == "Deployment" { Until::DeploymentAvailable } else { Until::Exists };
        stage.see(called, &object(version, kind, stage.namespace(), name), until, 60).await?;
    }
    Ok(())
}

fn judge_children(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    is_true(&mut judgement, "ready", of(history, "service"), "Ready");
    for (called, _, kind, name) in CHILDREN {
        let owner = &of(history, called)["metadata"]["ownerReferences"][0];
        let owned =
            owner["kind"] == "LLMInferenceService" && owner["name"] == "alpha" && owner["controller"] == json!(true);
        let expected = format!("{kind} {name}, owned by LLMInferenceService alpha");
        judgement.that(called, owned, expected, format!("owner {owner}"), []);
    }
    let pool = &of(history, "pool")["spec"];
    let picker = &pool["endpointPickerRef"];
    judgement.that(
        "pool-port",
        pool["targetPorts"] == json!([{"number": 8000}]),
        "target port 8000",
        pool["targetPorts"].to_string(),
        [],
    );
    judgement.that(
        "pool-picker",
        picker["name"] == "alpha-epp-service" && picker["port"]["number"] == 9002,
        "alpha-epp-service, port 9002",
        picker.to_string(),
        [],
    );
    let ports = of(history, "picker-service")["spec"]["ports"].as_array().cloned().unwrap_or_default();
    let serves = ports.iter().any(|port| port["port"] == 9002);
    judgement.that("picker-service-port", serves, "port 9002", json!(ports).to_string(), []);
    let rules = of(history, "route")["spec"]["rules"].as_array().cloned().unwrap_or_default();
    let timeouts = !rules.is_empty() && rules.iter().all(|rule| rule["timeouts"]["request"] == "0s");
    let got = rules.iter().map(|rule| rule["timeouts"]["request"].to_string()).collect::<Vec<_>>().join(", ");
    judgement.that("route-timeouts", timeouts, "request timeout 0s in every rule", got, []);
    judgement
}

#[rstest]
#[tokio::test]
async fn llmisvc_ready_needs_pool_status(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("kserve/llmisvc-ready-needs-pool-status", "-", &folder).run(drive_ready, judge_ready).await;
}

/// One that a route leads to, and one that no Gateway has a reason to say anything about.
async fn drive_ready(stage: &mut Stage) -> Result<()> {
    stage.apply_llm_service(LlmService::new("alpha")).await?;
    stage.apply_llm_service(LlmService::new("beta").unrouted()).await?;
    let (alpha, beta) = (service_object(stage, "alpha"), service_object(stage, "beta"));
    stage.see("routed", &alpha, condition("Ready"), SAYS).await?;
    let pool = object("inference.networking.k8s.io/v1", "InferencePool", stage.namespace(), "alpha-inference-pool");
    stage.look("pool", &pool).await?;
    let shared = stage.shared_gateway();
    stage.fact("gateway", json!({"name": shared.name, "namespace": shared.namespace}));
    stage.see("unrouted", &beta, condition("WorkloadsReady"), SAYS).await?;
    stage.see("unrouted", &beta, condition("SchedulerWorkloadReady"), SAYS).await?;
    let waits = Until::holds("InferencePoolReady said", |service: &Value| {
        Ok(proof::condition_status(&service["status"]["conditions"], "InferencePoolReady").is_some())
    });
    stage.see("unrouted", &beta, waits, 60).await.map(drop)
}

fn judge_ready(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    let (routed, unrouted) = (of(history, "routed"), of(history, "unrouted"));
    is_true(&mut judgement, "routed-ready", routed, "Ready");
    is_true(&mut judgement, "routed-pool-ready", routed, "InferencePoolReady");
    let gateway = history.facts.get("gateway").cloned().unwrap_or_default();
    let pool = of(history, "pool");
    let entry = picked::entries_of(pool, &gateway).into_iter().next().cloned().unwrap_or_default();
    proof::condition(&mut judgement, "pool-Accepted", pool, &entry["conditions"], "Accepted", "True");
    is_true(&mut judgement, "unrouted-workloads-ready", unrouted, "WorkloadsReady");
    let (status, reason) = says(unrouted, "InferencePoolReady");
    let waits = status == "False" && reason == "WaitingForGateway";
    judgement.that(
        "unrouted-waits",
        waits,
        "InferencePoolReady=False WaitingForGateway",
        format!("{status} {reason}"),
        [],
    );
    let (ready, reason) = says(unrouted, "Ready");
    judgement.that("unrouted-not-ready", ready == "False", "Ready=False", format!("Ready={ready} {reason}"), []);
    judgement
}

#[rstest]
#[tokio::test]
async fn llmisvc_pool_group(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("kserve/llmisvc-pool-group", "-", &folder).run(drive_pool_group, judge_pool_group).await;
}

/// The group of the pools that current gateways know.
const GROUP: &str = "inference.networking.k8s.io";
/// What KServe writes down, on the route, once it has seen that the gateway knows it.
const MIGRATED: &str = "serving.kserve.io/inference-pool-migrated";

async fn drive_pool_group(stage: &mut Stage) -> Result<()> {
    stage.apply_llm_service(LlmService::new("alpha")).await?;
    let service = service_object(stage, "alpha");
    stage.see("service", &service, condition("Ready"), SAYS).await?;
    let locked = Until::holds("its migration written down", |route: &Value| {
        Ok(route["metadata"]["annotations"][MIGRATED].is_string())
    });
    let route = object("gateway.networking.k8s.io/v1", "HTTPRoute", stage.namespace(), "alpha-kserve-route");
    stage.see("route", &route, locked, 30).await.map(drop)
}

fn judge_pool_group(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    let rules = of(history, "route")["spec"]["rules"].as_array().cloned().unwrap_or_default();
    let backends = rules.iter().flat_map(|rule| rule["backendRefs"].as_array().cloned().unwrap_or_default());
    let groups: Vec<String> = backends
        .filter(|backend| backend["kind"] == "InferencePool")
        .map(|backend| backend["group"].as_str().unwrap_or_default().to_owned())
        .collect();
    let all = !groups.is_empty() && groups.iter().all(|group| group == GROUP);
    judgement.that("route-group", all, format!("pools of {GROUP}"), format!("{groups:?}"), []);
    let written = &of(history, "route")["metadata"]["annotations"][MIGRATED];
    judgement.that("migrated", written == "v1", format!("{MIGRATED}: v1"), written.to_string(), []);
    judgement
}

#[rstest]
#[tokio::test]
async fn llmisvc_picker_asked(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("kserve/llmisvc-picker-asked", "-", &folder)
        .observing(picked::observe)
        .run(drive_picker_asked, judge_picker_asked)
        .await;
}

/// Chats and completions through the route that the service has made, and something else below its path.
async fn drive_picker_asked(stage: &mut Stage) -> Result<()> {
    stage.llm_service(LlmService::new("alpha").replicas(3)).await?;
    let (host, below) = (stage.hostname().to_owned(), format!("/{}/alpha", stage.namespace()));
    let chat = || chat_to(&format!("{below}/v1/chat/completions"), &host, "alpha");
    stage.settle(chat, "alpha").await?;
    stage.begin().await?;
    for _ in 0..10 {
        stage.send("chat", chat()).await;
        stage.send("stream", chat().stream()).await;
        let body = json!({"model": "alpha", "prompt": "Hello"});
        stage.send("completion", Call::post(&format!("{below}/v1/completions")).host(&host).json(&body)).await;
        stage.send("models", Call::get(&format!("{below}/v1/models")).host(&host)).await;
    }
    stage.end().await
}

fn judge_picker_asked(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    for label in ["chat", "stream", "completion"] {
        picked::as_picked(&mut judgement, history, label, "alpha");
    }
    proof::answered_by(&mut judgement, history, "models", "alpha");
    picked::not_asked(&mut judgement, history, "models", "alpha");
    judgement
}

#[rstest]
#[tokio::test]
async fn llmisvc_deleted(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("kserve/llmisvc-deleted", "-", &folder).run(drive_deleted, judge_deleted).await;
}

async fn drive_deleted(stage: &mut Stage) -> Result<()> {
    stage.llm_service(LlmService::new("alpha")).await?;
    let (host, path) = (stage.hostname().to_owned(), format!("/{}/alpha/v1/chat/completions", stage.namespace()));
    stage.settle(|| chat_to(&path, &host, "alpha"), "alpha").await?;
    stage.send("before", chat_to(&path, &host, "alpha")).await;
    let service = service_object(stage, "alpha");
    stage.delete(&service).await?;
    for (called, version, kind, name) in CHILDREN {
        let child = object(version, kind, stage.namespace(), name);
        stage.see(called, &child, Until::Gone, 60).await?;
        stage.look(called, &child).await?;
    }
    stage.settle_status(|| chat_to(&path, &host, "alpha"), |status| status == 404).await?;
    for _ in 0..5 {
        stage.send("after", chat_to(&path, &host, "alpha")).await;
    }
    Ok(())
}

fn judge_deleted(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    proof::status(&mut judgement, history, "before", Some(200));
    for (called, _, kind, name) in CHILDREN {
        match history.objects.get(*called) {
            Some(left) => judgement.that(called, left.is_null(), format!("no {kind} {name}"), "it is there", []),
            None => judgement.unproven(called, format!("a look for {kind} {name}"), "there was none"),
        };
    }
    proof::status(&mut judgement, history, "after", Some(404));
    judgement
}

mod judges {
    use rstest::rstest;
    use suites::fake::{Fake, conditions, verdict_of};
    use verdict::judge::Holds;

    use super::*;

    fn owned(kind: &str, spec: Value) -> Value {
        json!({"metadata": {"ownerReferences": [{"kind": kind, "name": "alpha", "controller": true}]}, "spec": spec})
    }

    fn a_service(said: &[(&str, &str, &str)]) -> Value {
        json!({"metadata": {"annotations": {MIGRATED: "v1"}}, "status": {"conditions": conditions(1, said)}})
    }

    fn family() -> Fake {
        let ready = a_service(&[("Ready", "True", "")]);
        let fake = CHILDREN.iter().fold(Fake::of("kserve/llmisvc-children").object("service", ready), |fake, child| {
            fake.object(child.0, owned("LLMInferenceService", json!({})))
        });
        let picker = json!({"name": "alpha-epp-service", "port": {"number": 9002}});
        let pool = json!({"targetPorts": [{"number": 8000}], "endpointPickerRef": picker});
        fake.object("pool", owned("LLMInferenceService", pool))
            .object("picker-service", owned("LLMInferenceService", json!({"ports": [{"port": 9003}, {"port": 9002}]})))
            .object("route", owned("LLMInferenceService", json!({"rules": [{"timeouts": {"request": "0s"}}]})))
    }

    #[rstest]
    #[case::whole(family(), Holds::Yes)]
    #[case::nothing(Fake::of("kserve/llmisvc-children"), Holds::No)]
    #[case::not_ready(family().object("service", a_service(&[("Ready", "False", "")])), Holds::No)]
    #[case::no_pool(family().without_object("pool"), Holds::No)]
    #[case::owned_by_another(family().object("deployment", owned("InferenceService", json!({}))), Holds::No)]
    #[case::no_port(family().object("picker-service", owned("LLMInferenceService", json!({"ports": []}))), Holds::No)]
    #[case::cuts_long_streams(family().object("route", owned("LLMInferenceService", json!({"rules": [{"timeouts": {"request": "60s"}}]}))), Holds::No)]
    fn children_are_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_children, &fake), holds);
    }

    fn pool(gateway: &str) -> Value {
        json!({"metadata": {"generation": 1}, "status": {"parents": [
            {"parentRef": {"name": gateway, "namespace": "gws"}, "conditions": conditions(1, &[("Accepted", "True", "")])}]}})
    }

    fn two(pool: Value, unrouted: &[(&str, &str, &str)]) -> Fake {
        let ready = a_service(&[("Ready", "True", ""), ("InferencePoolReady", "True", "")]);
        Fake::of("kserve/llmisvc-ready-needs-pool-status")
            .fact("gateway", json!({"name": "gw", "namespace": "gws"}))
            .object("routed", ready)
            .object("pool", pool)
            .object("unrouted", a_service(unrouted))
    }

    const WAITS: [(&str, &str, &str); 3] = [
        ("WorkloadsReady", "True", ""),
        ("InferencePoolReady", "False", "WaitingForGateway"),
        ("Ready", "False", "WaitingForGateway"),
    ];

    #[rstest]
    #[case::as_it_should(two(pool("gw"), &WAITS), Holds::Yes)]
    #[case::ready_without_a_status(two(json!({"metadata": {"generation": 1}}), &WAITS), Holds::No)]
    #[case::status_of_another_gateway(two(pool("other"), &WAITS), Holds::No)]
    #[case::ready_all_the_same(two(pool("gw"), &[WAITS[0], WAITS[1], ("Ready", "True", "")]), Holds::No)]
    #[case::other_reason(two(pool("gw"), &[WAITS[0], ("InferencePoolReady", "False", "Oops"), WAITS[2]]), Holds::No)]
    #[case::its_models_are_why(two(pool("gw"), &[("WorkloadsReady", "False", ""), WAITS[1], WAITS[2]]), Holds::No)]
    fn readiness_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_ready, &fake), holds);
    }

    fn led_to(group: &str, annotations: Value) -> Fake {
        let backends = json!([{"kind": "InferencePool", "group": group}]);
        let rules = json!([{"backendRefs": backends}, {"backendRefs": [{"kind": "Service"}]}]);
        let route = json!({"metadata": {"annotations": annotations}, "spec": {"rules": rules}});
        Fake::of("kserve/llmisvc-pool-group").object("route", route)
    }

    #[rstest]
    #[case::moved_on(led_to(GROUP, json!({MIGRATED: "v1"})), Holds::Yes)]
    #[case::stuck(led_to("inference.networking.x-k8s.io", json!({MIGRATED: "v1"})), Holds::No)]
    #[case::not_written_down(led_to(GROUP, json!({})), Holds::No)]
    #[case::no_pool(Fake::of("kserve/llmisvc-pool-group").object("route", json!({"metadata": {"annotations": {MIGRATED: "v1"}}})), Holds::No)]
    fn pool_group_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_pool_group, &fake), holds);
    }

    fn asked() -> Fake {
        let fake = Fake::of("kserve/llmisvc-picker-asked").pool("alpha", 3);
        ["chat", "stream", "completion"].iter().fold(fake, |fake, label| fake.picked(label, "alpha", 1))
    }

    #[rstest]
    #[case::as_it_should(asked().past_the_picker("models", "alpha", 0), Holds::Yes)]
    #[case::bypassed(asked().past_the_picker("models", "alpha", 0).past_the_picker("chat", "alpha", 0), Holds::No)]
    #[case::other_paths_fail(asked().refused("models", 502), Holds::No)]
    #[case::other_paths_ask(asked().picked("models", "alpha", 0), Holds::No)]
    #[case::no_records(asked().past_the_picker("models", "alpha", 0).without_picker_records("alpha"), Holds::Unproven)]
    fn picker_asked_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_picker_asked, &fake), holds);
    }

    fn gone(after: u16) -> Fake {
        let fake = Fake::of("kserve/llmisvc-deleted").answer("before", 200, &[], "{}").refused("after", after);
        CHILDREN.iter().fold(fake, |fake, child| fake.object(child.0, Value::Null))
    }

    #[rstest]
    #[case::clean(gone(404), Holds::Yes)]
    #[case::still_served(gone(200), Holds::No)]
    #[case::server_error(gone(503), Holds::No)]
    #[case::a_child_is_left(gone(404).object("pool", json!({"kind": "InferencePool"})), Holds::No)]
    #[case::not_looked_for(gone(404).without_object("route"), Holds::Unproven)]
    fn deleted_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_deleted, &fake), holds);
    }
}
