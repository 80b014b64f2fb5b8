//! LLMInferenceService: what it makes, on what its readiness depends, and that requests to it ask the picker that it made.

use anyhow::{Result, bail};
use serde_json::{Value, json};
use suites::{
    CHECK, Call, Check, Judge, Live, LlmService, ObjectRef, Stage, WaitCondition, chat_to, check, condition, judge,
    picked,
};
use verdict::{capability, change::Change};

use super::Child;

const CHILDREN: &[Child] = &[
    Child::of("deployment", "apps/v1", "Deployment", "alpha-kserve"),
    Child::of("workload-service", "v1", "Service", "alpha-kserve-workload-svc"),
    Child::of("picker", "apps/v1", "Deployment", "alpha-kserve-router-scheduler"),
    Child::of("picker-service", "v1", "Service", "alpha-epp-service"),
    Child::of("pool", "inference.networking.k8s.io/v1", "InferencePool", "alpha-inference-pool"),
    Child::of("route", "gateway.networking.k8s.io/v1", "HTTPRoute", "alpha-kserve-route"),
];

/// Seconds that a service may take to say what is waited for.
const SAYS: u64 = 240;

const LLMISVC: Check = Check { capability: Some(capability::LLMISVC), ..CHECK };
const STATUS: Check = Check { live: Live::NotJudged, ..LLMISVC };

fn service_object(stage: &Stage, name: &str) -> ObjectRef {
    stage.object("serving.kserve.io/v1alpha2", "LLMInferenceService", name)
}

check!(
    kserve / llmisvc_children(v1alpha2, v1alpha1),
    drive_children,
    judge_children,
    Check {
        sentence: "an LLMInferenceService makes models, picker, pool and route, owned by it, with the documented names, and becomes Ready",
        source: "KServe v0.17 pkg/controller/v1alpha2/llmisvc",
        how: "Applies an LLMInferenceService in the case's version of its API and reads what it makes: owners, ports of pool and \
              picker, and timeouts of the route.",
        kills: &["forgets-owners"],
        ..STATUS
    }
);

async fn drive_children(stage: &mut Stage) -> Result<()> {
    let version = match stage.case() {
        "v1alpha1" => "v1alpha1",
        "v1alpha2" => "v1alpha2",
        other => bail!("LLMInferenceService has no version {other}"),
    };
    stage.apply_llm_service(LlmService { version, ..LlmService::new("alpha") }).await?;
    stage.see("service", &service_object(stage, "alpha"), condition("Ready"), SAYS).await?;
    for child in CHILDREN {
        let wanted =
            if child.kind == "Deployment" { WaitCondition::DeploymentAvailable } else { WaitCondition::Exists };
        stage.see(child.called, &child.object(stage), wanted, 60).await?;
    }
    Ok(())
}

fn judge_children(judge: &mut Judge<'_>) {
    judge.is_true("ready", judge.object("service"), "Ready");
    for child in CHILDREN {
        child.judge(judge, "LLMInferenceService");
    }
    let pool = &judge.object("pool")["spec"];
    let (ports, picker) = (&pool["targetPorts"], &pool["endpointPickerRef"]);
    let statement = judge.clause("pool-port").expected("target port 8000").got(ports.to_string());
    statement.holds(*ports == json!([{"number": 8000}]));
    let statement = judge.clause("pool-picker").expected("alpha-epp-service, port 9002").got(picker.to_string());
    statement.holds(picker["name"] == "alpha-epp-service" && picker["port"]["number"] == 9002);
    let ports = &judge.object("picker-service")["spec"]["ports"];
    let statement = judge.clause("picker-service-port").expected("port 9002").got(ports.to_string());
    statement.holds(ports.as_array().is_some_and(|ports| ports.iter().any(|port| port["port"] == 9002)));
    let rules = rules(judge.object("route"));
    let got: Vec<String> = rules.iter().map(|rule| rule["timeouts"]["request"].to_string()).collect();
    let unlimited = !rules.is_empty() && rules.iter().all(|rule| rule["timeouts"]["request"] == "0s");
    judge.clause("route-timeouts").expected("request timeout 0s in every rule").got(got.join(", ")).holds(unlimited);
}

fn rules(route: &Value) -> &[Value] {
    route["spec"]["rules"].as_array().map(Vec::as_slice).unwrap_or_default()
}

check!(
    kserve / llmisvc_ready_needs_pool_status,
    drive_ready,
    judge_ready,
    Check {
        sentence: "an LLMInferenceService is Ready when the Gateway has accepted its pool in the pool's status, and waits for it as long as no Gateway has",
        source: "KServe v0.17, LLMInferenceService status; kserve/kserve#6072, agentgateway/agentgateway#2818",
        how: "Applies one that a route leads to and one without a route; reads the conditions of both and the pool's status.",
        kills: &["pool-status-never-written"],
        ..STATUS
    }
);

async fn drive_ready(stage: &mut Stage) -> Result<()> {
    stage.apply_llm_service(LlmService::new("alpha")).await?;
    stage.apply_llm_service(LlmService { routed: false, ..LlmService::new("beta") }).await?;
    let (alpha, beta) = (service_object(stage, "alpha"), service_object(stage, "beta"));
    stage.see("routed", &alpha, condition("Ready"), SAYS).await?;
    stage.look("pool", &stage.inference_pool("alpha-inference-pool")).await?;
    stage.note_gateway();
    stage.see("unrouted", &beta, condition("WorkloadsReady"), SAYS).await?;
    stage.see("unrouted", &beta, condition("SchedulerWorkloadReady"), SAYS).await?;
    let waits = WaitCondition::holds("InferencePoolReady said", |service: &Value| {
        judge::condition(&service["status"]["conditions"], "InferencePoolReady").is_some()
    });
    stage.see("unrouted", &beta, waits, 60).await
}

fn judge_ready(judge: &mut Judge<'_>) {
    let (routed, unrouted) = (judge.object("routed"), judge.object("unrouted"));
    judge.is_true("routed-ready", routed, "Ready");
    judge.is_true("routed-pool-ready", routed, "InferencePoolReady");
    judge.pool_condition("pool-Accepted", judge.object("pool"), "Accepted", "True");
    judge.is_true("unrouted-workloads-ready", unrouted, "WorkloadsReady");
    let said = |kind: &str| {
        let found = judge::condition(&unrouted["status"]["conditions"], kind).unwrap_or(&Value::Null);
        (found["status"].as_str().unwrap_or("absent"), found["reason"].as_str().unwrap_or_default())
    };
    let (status, reason) = said("InferencePoolReady");
    let statement = judge.clause("unrouted-waits").expected("InferencePoolReady=False WaitingForGateway");
    statement.got(format!("{status} {reason}")).holds((status, reason) == ("False", "WaitingForGateway"));
    let (status, reason) = said("Ready");
    let statement = judge.clause("unrouted-not-ready").expected("Ready=False");
    statement.got(format!("Ready={status} {reason}")).holds(status == "False");
}

check!(
    kserve / llmisvc_pool_group,
    drive_pool_group,
    judge_pool_group,
    Check {
        sentence: "the route of an LLMInferenceService moves to pools of the v1 group, because the gateway says InvalidKind of the older one",
        source: "KServe v0.17 pkg/controller/v1alpha2/llmisvc/router.go",
        how: "Applies an LLMInferenceService and reads its route once KServe has written down that it has moved: the group of every pool \
              in it, and what was written down.",
        kills: &["backend-not-found-for-unknown-kinds"],
        ..STATUS
    }
);

/// The group of the pools that current gateways know.
const GROUP: &str = "inference.networking.k8s.io";
/// What KServe writes down, on the route, once it has seen that the gateway knows it.
const MIGRATED: &str = "serving.kserve.io/inference-pool-migrated";

async fn drive_pool_group(stage: &mut Stage) -> Result<()> {
    stage.apply_llm_service(LlmService::new("alpha")).await?;
    stage.see("service", &service_object(stage, "alpha"), condition("Ready"), SAYS).await?;
    let locked = WaitCondition::holds("its migration written down", |route: &Value| {
        route["metadata"]["annotations"][MIGRATED].is_string()
    });
    stage.see("route", &stage.http_route("alpha-kserve-route"), locked, 30).await
}

fn judge_pool_group(judge: &mut Judge<'_>) {
    let route = judge.object("route");
    let backends = rules(route).iter().filter_map(|rule| rule["backendRefs"].as_array()).flatten();
    let groups: Vec<&Value> = backends.filter(|b| b["kind"] == "InferencePool").map(|b| &b["group"]).collect();
    let statement = judge.clause("route-group").expected(format!("pools of {GROUP}")).got(format!("{groups:?}"));
    statement.holds(!groups.is_empty() && groups.iter().all(|group| *group == GROUP));
    let written = &route["metadata"]["annotations"][MIGRATED];
    judge.clause("migrated").expected(format!("{MIGRATED}: v1")).got(written.to_string()).holds(written == "v1");
}

check!(
    kserve / llmisvc_picker_asked,
    drive_picker_asked,
    judge_picker_asked,
    Check {
        sentence: "chats and completions below the path of an LLMInferenceService ask its picker once and are served as it says; other paths reach its models past it",
        source: "KServe v0.17, kserve-config-llm-router-route; kserve/kserve#5531",
        how: "Sends chats, streamed chats, completions and requests for the list of models through the route that the service has made; \
              records of picker and models say which asked and who served.",
        observe: picked::observe,
        // Its route strips namespace and name from the path.
        changes: || vec![Change::target("/igc-[a-z0-9-]+/alpha(/v1/.*)", "$1")],
        kills: &["skips-picker", "ignores-choice"],
        counts_every_answer: true,
        ..LLMISVC
    }
);

async fn drive_picker_asked(stage: &mut Stage) -> Result<()> {
    stage.llm_service(LlmService { replicas: 3, ..LlmService::new("alpha") }).await?;
    let below = format!("/{}/alpha", stage.namespace());
    let chat = || chat_to(&format!("{below}/v1/chat/completions"), "alpha");
    stage.settle(chat, "alpha").await?;
    let body = json!({"model": "alpha", "prompt": "Hello"});
    let calls = [
        ("chat", chat()),
        ("stream", chat().stream()),
        ("completion", Call::post(&format!("{below}/v1/completions")).json(&body)),
        ("models", Call::get(&format!("{below}/v1/models"))),
    ];
    stage.send_in_turn(10, &calls).await
}

fn judge_picker_asked(judge: &mut Judge<'_>) {
    picked::as_picked(judge, "chat-as-picked", "chat", "alpha");
    picked::as_picked(judge, "stream-as-picked", "stream", "alpha");
    picked::as_picked(judge, "completion-as-picked", "completion", "alpha");
    judge.answered_by("models-answered-by-alpha", "models", "alpha");
    picked::not_asked(judge, "models-does-not-ask-alpha", "models", "alpha");
}

check!(
    kserve / llmisvc_deleted,
    drive_deleted,
    judge_deleted,
    Check {
        sentence: "with an LLMInferenceService all that it has made goes, and its path gets 404",
        source: "KServe v0.17, ownerReferences of its children",
        how: "Sends a chat to an LLMInferenceService, deletes it, looks for each of its children, and sends chats to the same path.",
        kills: &["stale-route-answers-after-delete"],
        ..LLMISVC
    }
);

async fn drive_deleted(stage: &mut Stage) -> Result<()> {
    stage.llm_service(LlmService::new("alpha")).await?;
    stage.without_records();
    let path = format!("/{}/alpha/v1/chat/completions", stage.namespace());
    let call = || chat_to(&path, "alpha");
    stage.settle(call, "alpha").await?;
    stage.send("before", call()).await?;
    stage.delete(&service_object(stage, "alpha")).await?;
    for child in CHILDREN {
        let object = child.object(stage);
        stage.see(child.called, &object, WaitCondition::Gone, 60).await?;
        stage.look(child.called, &object).await?;
    }
    stage.settle_status(call, |status| status == 404).await?;
    stage.send_in_turn(5, &[("after", call())]).await
}

fn judge_deleted(judge: &mut Judge<'_>) {
    judge.status("before-status", "before", 200);
    for Child { called, kind, name, .. } in CHILDREN {
        let found = judge.history().objects.get(*called);
        let statement = judge.clause(called).expected(format!("no {kind} {name}"));
        match found {
            Some(left) => statement.got(if left.is_null() { "none" } else { "it is there" }).holds(left.is_null()),
            None => statement.unproven("it was not looked for"),
        }
    }
    judge.status("after-status", "after", 404);
}

mod judges {
    use rstest::rstest;
    use suites::fake::{Fake, Holds, No, Unproven, Yes, conditions, parents_saying};

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
            fake.object(child.called, owned("LLMInferenceService", json!({})))
        });
        let picker = json!({"name": "alpha-epp-service", "port": {"number": 9002}});
        let pool = json!({"targetPorts": [{"number": 8000}], "endpointPickerRef": picker});
        fake.object("pool", owned("LLMInferenceService", pool))
            .object("picker-service", owned("LLMInferenceService", json!({"ports": [{"port": 9003}, {"port": 9002}]})))
            .object("route", owned("LLMInferenceService", json!({"rules": [{"timeouts": {"request": "0s"}}]})))
    }

    fn pool(gateway: &str) -> Value {
        let mut pool = parents_saying(&[("Accepted", "True", "")]);
        pool["status"]["parents"][0]["parentRef"]["name"] = json!(gateway);
        pool
    }

    fn two(pool: Value, unrouted: &[(&str, &str, &str)]) -> Fake {
        let ready = a_service(&[("Ready", "True", ""), ("InferencePoolReady", "True", "")]);
        Fake::of("kserve/llmisvc-ready-needs-pool-status")
            .of_the_gateway()
            .object("routed", ready)
            .object("pool", pool)
            .object("unrouted", a_service(unrouted))
    }

    const WAITS: [(&str, &str, &str); 3] = [
        ("WorkloadsReady", "True", ""),
        ("InferencePoolReady", "False", "WaitingForGateway"),
        ("Ready", "False", "WaitingForGateway"),
    ];

    fn led_to(group: &str, annotations: Value) -> Fake {
        let backends = json!([{"kind": "InferencePool", "group": group}]);
        let rules = json!([{"backendRefs": backends}, {"backendRefs": [{"kind": "Service"}]}]);
        let route = json!({"metadata": {"annotations": annotations}, "spec": {"rules": rules}});
        Fake::of("kserve/llmisvc-pool-group").object("route", route)
    }

    fn asked() -> Fake {
        let fake = Fake::of("kserve/llmisvc-picker-asked").pool("alpha", 3);
        ["chat", "stream", "completion"].iter().fold(fake, |fake, label| fake.picked(label, "alpha", 1))
    }

    fn gone(after: u16) -> Fake {
        let fake = Fake::of("kserve/llmisvc-deleted").answer("before", 200, &[], "{}").refused("after", after);
        CHILDREN.iter().fold(fake, |fake, child| fake.object(child.called, Value::Null))
    }

    #[rstest]
    #[case::children_whole(family(), Yes)]
    #[case::children_nothing(Fake::of("kserve/llmisvc-children"), No)]
    #[case::children_not_ready(family().object("service", a_service(&[("Ready", "False", "")])), No)]
    #[case::children_no_pool(family().without_object("pool"), No)]
    #[case::children_owned_by_another(family().object("deployment", owned("InferenceService", json!({}))), No)]
    #[case::children_no_port(family().object("picker-service", owned("LLMInferenceService", json!({"ports": []}))), No)]
    #[case::children_cuts_long_streams(family().object("route", owned("LLMInferenceService", json!({"rules": [{"timeouts": {"request": "60s"}}]}))), No)]
    #[case::readiness_as_it_should(two(pool("gw"), &WAITS), Yes)]
    #[case::readiness_ready_without_a_status(two(json!({"metadata": {"generation": 1}}), &WAITS), No)]
    #[case::readiness_status_of_another_gateway(two(pool("other"), &WAITS), No)]
    #[case::readiness_ready_all_the_same(two(pool("gw"), &[WAITS[0], WAITS[1], ("Ready", "True", "")]), No)]
    #[case::readiness_other_reason(two(pool("gw"), &[WAITS[0], ("InferencePoolReady", "False", "Oops"), WAITS[2]]), No)]
    #[case::readiness_its_models_are_why(two(pool("gw"), &[("WorkloadsReady", "False", ""), WAITS[1], WAITS[2]]), No)]
    #[case::pool_group_moved_on(led_to(GROUP, json!({MIGRATED: "v1"})), Yes)]
    #[case::pool_group_stuck(led_to("inference.networking.x-k8s.io", json!({MIGRATED: "v1"})), No)]
    #[case::pool_group_not_written_down(led_to(GROUP, json!({})), No)]
    #[case::pool_group_no_pool(Fake::of("kserve/llmisvc-pool-group").object("route", json!({"metadata": {"annotations": {MIGRATED: "v1"}}})), No)]
    #[case::picker_asked_as_it_should(asked().past_the_picker("models", "alpha", 0), Yes)]
    #[case::picker_asked_bypassed(asked().past_the_picker("models", "alpha", 0).past_the_picker("chat", "alpha", 0), No)]
    #[case::picker_asked_other_paths_fail(asked().refused("models", 502), No)]
    #[case::picker_asked_other_paths_ask(asked().picked("models", "alpha", 0), No)]
    #[case::picker_asked_no_records(asked().past_the_picker("models", "alpha", 0).without_picker_records("alpha"), Unproven)]
    #[case::deleted_clean(gone(404), Yes)]
    #[case::deleted_still_served(gone(200), No)]
    #[case::deleted_server_error(gone(503), No)]
    #[case::deleted_a_child_is_left(gone(404).object("pool", json!({"kind": "InferencePool"})), No)]
    #[case::deleted_not_looked_for(gone(404).without_object("route"), Unproven)]
    fn judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(fake.verdict(), holds);
    }
}
