//! A world with agentgateway from end to end: what no recording shows of v1.3.1.

use std::sync::Arc;

use crate::stage::{KSERVE_HOST, Stage, bounded, chat, conditions, printed, response, route, said};
use rehearsal::dialects::agentgateway::kinds;
use rstest::rstest;
use serde_json::json;
use verdict::history::Ended;
use wire::{Abandon, Call, Client, Tcp};

async fn staged() -> Stage {
    let stage = Stage::of("agentgateway", "v1.3.1").await;
    stage.inference_service().await;
    stage
}

/// With the second route of guide 000, live.
async fn with_ai_route() -> Stage {
    let stage = staged().await;
    stage.apply(&printed("guide-000/backend"));
    stage.apply(&printed("guide-000/route"));
    stage.settled().await;
    stage
}

/// The guide's policy with these local limits instead of its own.
async fn limit(stage: &Stage, local: &str) {
    let budget = printed("guide-000/token-budget");
    let (rest, _) = budget.split_once("local:").expect("a local limit");
    stage.apply(&format!("{rest}local: {local}"));
    let policy = stage.object(&kinds::AGENTGATEWAY_POLICY, "kserve-test", "llm-token-budget").await;
    assert_eq!(
        conditions(&policy, "/status/ancestors/0/conditions"),
        ["Accepted=True/Valid: Policy accepted", "Attached=True/Attached: Attached to all targets"]
    );
}

#[rstest]
#[case("[{tokens: 14, unit: Minutes}]", 2)]
#[case("[{tokens: 75, unit: Minutes}]", 11)]
#[case("[{requests: 3, unit: Hours}]", 3)]
#[case("[{requests: 3, burst: 2, unit: Hours}]", 5)]
#[case::only_the_first("[{requests: 4, unit: Hours}, {tokens: 7, unit: Hours}]", 4)]
#[case::in_either_order("[{tokens: 7, unit: Hours}, {requests: 4, unit: Hours}]", 1)]
#[tokio::test]
async fn budgets_let_pass(#[case] local: &str, #[case] passes: usize) {
    let stage = with_ai_route().await;
    limit(&stage, local).await;
    let statuses = stage.statuses(passes + 2, KSERVE_HOST, &[]).await;
    assert_eq!(statuses.iter().filter(|s| **s == 200).count(), passes, "{statuses:?}");
}

#[rstest]
#[case::edited("edit", 200)]
#[case::annotated("annotate", 429)]
#[case::another_policy("other", 429)]
#[case::policy_again("policy", 200)]
#[case::route_again("route", 200)]
#[tokio::test]
async fn what_refills_a_bucket(#[case] change: &str, #[case] status: u16) {
    let stage = with_ai_route().await;
    limit(&stage, "[{tokens: 7, unit: Minutes}]").await;
    assert_eq!(stage.statuses(2, KSERVE_HOST, &[]).await, [200, 429]);
    let store = stage.world.store();
    let (policies, budget) = (kinds::AGENTGATEWAY_POLICY, "llm-token-budget");
    match change {
        "edit" => limit(&stage, "[{tokens: 8, unit: Minutes}]").await,
        "annotate" => {
            store
                .change(&policies, "kserve-test", budget, |p| p["metadata"]["annotations"] = json!({"a": "b"}))
                .expect("annotated");
        }
        "other" => stage.apply(&printed("guide-000/transformation")),
        "policy" => {
            store.delete(&policies, "kserve-test", budget).expect("deleted");
            limit(&stage, "[{tokens: 7, unit: Minutes}]").await;
        }
        _ => {
            store.delete(&kinds::HTTP_ROUTE, "kserve-test", "mock-llm-ai").expect("deleted");
            stage.apply(&printed("guide-000/route"));
        }
    }
    stage.settled().await;
    assert_eq!(stage.statuses(1, KSERVE_HOST, &[]).await, [status]);
}

/// Streams are made to ask for usage unless the client says no; who leaves early pays nothing.
#[tokio::test]
async fn what_is_charged() {
    let stage = with_ai_route().await;
    limit(&stage, "[{tokens: 8, unit: Minutes}]").await;
    let call = || Call::post("/v1/chat/completions").host(KSERVE_HOST).json(&chat("mock-llm")).stream();
    for _ in 0..3 {
        let left = stage.send(call().header("x-igc-gate", "never").abandon_after(Abandon::Chunks(1))).await;
        assert_eq!(response(&left).ended, Ended::Abandoned);
    }
    let mut silent = chat("mock-llm");
    silent["stream_options"] = json!({"include_usage": false});
    for _ in 0..3 {
        let call = Call::post("/v1/chat/completions").host(KSERVE_HOST).json(&silent).stream();
        assert_eq!(stage.send(call).await.status(), Some(200));
    }
    assert_eq!(stage.statuses(2, KSERVE_HOST, &[("x-igc-status", "500")]).await, [500, 500]);
    for status in [200, 200, 429] {
        assert_eq!(stage.send(call()).await.status(), Some(status));
    }
}

#[tokio::test]
async fn two_replicas_have_two_buckets() {
    let stage = with_ai_route().await;
    let scaled = stage.world.store().change(&kinds::DEPLOYMENT, "igc", "gw", |d| d["spec"]["replicas"] = json!(2));
    scaled.expect("scaled");
    limit(&stage, "[{tokens: 14, unit: Minutes}]").await;
    let statuses = stage.statuses(6, KSERVE_HOST, &[]).await;
    assert_eq!(statuses.iter().filter(|s| **s == 200).count(), 4, "{statuses:?}");
}

#[tokio::test]
async fn routes_that_cannot_serve() {
    let stage = Stage::of("agentgateway", "v1.3.1").await;
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: svc, namespace: kserve-test}\n\
                   spec: {selector: {app: none}, ports: [{port: 80}]}";
    stage.apply(service);
    stage.apply(&route("r-ok", "ok.test", "{name: svc, port: 80}"));
    stage.apply(&route("r-nosvc", "nosvc.test", "{name: nope, port: 80}"));
    let other_section = |route: String| route.replace("name: gw,", "name: gw, sectionName: nope,");
    stage.apply(&other_section(route("r-badsec", "badsec.test", "{name: svc, port: 80}")));
    stage.settled().await;
    for (host, status, body) in [
        ("ok.test", 503, "no healthy backends"),
        ("nosvc.test", 500, "service not found"),
        ("badsec.test", 404, "route not found"),
    ] {
        let exchange = stage.send(Call::get("/").host(host)).await;
        assert_eq!(said(&exchange), (status, body), "{host}");
    }
}

#[tokio::test]
async fn worlds_do_not_know_one_another() {
    let (one, other) = tokio::join!(staged(), Stage::of("agentgateway", "v1.3.1"));
    assert_eq!(one.chat(KSERVE_HOST, "mock-llm", &[]).await.status(), Some(200));
    assert_eq!(other.chat(KSERVE_HOST, "mock-llm", &[]).await.status(), Some(404));
    let address = one.world.node_port("igc", "gw", 80).expect("a node port");
    drop(one);
    let client = Client::new(Arc::new(Tcp::to(address)), "late");
    let late = bounded("an end", client.send("late", Call::get("/").host(KSERVE_HOST))).await;
    assert_eq!(late.status(), None, "a world that ended answers nothing: {}", late.outcome_words());
}
