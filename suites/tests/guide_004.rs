//! Guide 004, step by step: an InferencePool with its endpoint picker behind agentgateway. The guide's model needs eleven
//! processors: ours stands in its place, in a pool of the same names. The guide's route has no hostname; here it has the
//! stage's, so that it takes nothing of others.

use std::path::PathBuf;

use anyhow::Result;
use rstest::rstest;
use serde_json::{Value, json};
use suites::{Call, PoolOf, Stage, Until, check, object, parents_say, picked, proof};
use verdict::{history::History, judge::Judgement};

/// The guide's pool, deployment and release.
const POOL: &str = "vllm-qwen25-15b-instruct";
/// Its model.
const MODEL: &str = "Qwen/Qwen2.5-1.5B-Instruct";

/// The guide's route, on a hostname and on the Gateway of the run.
fn printed_route(stage: &Stage) -> Value {
    let gateway = stage.shared_gateway();
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "llm-route", "namespace": stage.namespace()},
        "spec": {
            "parentRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": gateway.name, "namespace": gateway.namespace}],
            "hostnames": [stage.hostname()],
            "rules": [{
                "backendRefs": [{"group": "inference.networking.k8s.io", "kind": "InferencePool", "name": POOL}],
                "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
                "timeouts": {"request": "300s"},
            }],
        },
    })
}

/// The request of the guide's test, word for word.
fn printed_request(host: &str) -> Call {
    Call::post("/v1/completions").host(host).json(&json!({
        "model": MODEL, "prompt": "What is the warmest city in the USA?", "max_tokens": 100, "temperature": 0.5,
    }))
}

async fn routed(stage: &mut Stage) -> Result<()> {
    stage.pool(PoolOf::new(POOL).serving(MODEL)).await?;
    let route = printed_route(stage);
    stage.offer("route", &route).await?;
    let host = stage.hostname().to_owned();
    stage.settle(|| printed_request(&host), POOL).await
}

#[rstest]
#[tokio::test]
async fn pool_and_route(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("guide-004/pool-and-route", "-", &folder).run(drive_pool_and_route, judge_pool_and_route).await;
}

async fn drive_pool_and_route(stage: &mut Stage) -> Result<()> {
    routed(stage).await?;
    let namespace = stage.namespace().to_owned();
    let route = object("gateway.networking.k8s.io/v1", "HTTPRoute", &namespace, "llm-route");
    stage.see("route", &route, parents_say("ResolvedRefs"), 60).await?;
    let pool = object("inference.networking.k8s.io/v1", "InferencePool", &namespace, POOL);
    let said = Until::holds("parents in its status", |pool: &Value| Ok(pool["status"]["parents"][0].is_object()));
    stage.see("pool", &pool, said, 60).await.map(drop)
}

fn judge_pool_and_route(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    for name in ["route", "pool"] {
        let object = history.objects.get(name).cloned().unwrap_or_default();
        let parents = object["status"]["parents"].as_array().cloned().unwrap_or_default();
        judgement.that(
            &format!("{name}-parents"),
            parents.len() == 1,
            "one parent",
            format!("{} parents", parents.len()),
            [],
        );
        let conditions = parents.first().map(|p| p["conditions"].clone()).unwrap_or_default();
        for kind in ["Accepted", "ResolvedRefs"] {
            proof::condition(&mut judgement, &format!("{name}-{kind}"), &object, &conditions, kind, "True");
        }
    }
    judgement
}

#[rstest]
#[tokio::test]
async fn completion(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("guide-004/completion", "-", &folder)
        .observing(picked::observe)
        .run(drive_completion, judge_completion)
        .await;
}

async fn drive_completion(stage: &mut Stage) -> Result<()> {
    routed(stage).await?;
    let host = stage.hostname().to_owned();
    stage.begin().await?;
    for _ in 0..10 {
        stage.send("as-printed", printed_request(&host)).await;
    }
    stage.end().await
}

fn judge_completion(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    picked::as_picked(&mut judgement, history, "as-printed", POOL);
    for exchange in history.labelled("as-printed").take(1) {
        let body = exchange.response().and_then(|r| r.json()).unwrap_or_default();
        let got = body["object"].to_string();
        judgement.that("object", body["object"] == "text_completion", "text_completion", got, [exchange]);
        let text = body["choices"][0]["text"].as_str().unwrap_or_default();
        judgement.that("text", !text.is_empty(), "a text", format!("'{text}'"), [exchange]);
    }
    picked::record_of_each(&mut judgement, history, "as-printed", POOL, "the picker read the model", |_, pick| {
        let read = pick.model.as_deref();
        (read != Some(MODEL)).then(|| format!("it read {read:?}"))
    });
    judgement
}

mod judges {
    use rstest::rstest;
    use suites::fake::{Fake, conditions, verdict_of};
    use verdict::judge::Holds;

    use super::*;

    fn standing(accepted: &str, resolved: &str) -> Value {
        let said = conditions(1, &[("Accepted", accepted, ""), ("ResolvedRefs", resolved, "")]);
        json!({"metadata": {"generation": 1}, "status": {"parents": [{"conditions": said}]}})
    }

    #[rstest]
    #[case::good(standing("True", "True"), standing("True", "True"), Holds::Yes)]
    #[case::no_backend(standing("True", "False"), standing("True", "True"), Holds::No)]
    #[case::pool_unsaid(standing("True", "True"), json!({"metadata": {"generation": 1}}), Holds::No)]
    #[case::pool_refused(standing("True", "True"), standing("False", "True"), Holds::No)]
    fn pool_and_route_is_judged(#[case] route: Value, #[case] pool: Value, #[case] holds: Holds) {
        let fake = Fake::of("guide-004/pool-and-route").object("route", route).object("pool", pool);
        assert_eq!(verdict_of(judge_pool_and_route, &fake), holds);
    }

    fn completed(kind: &str, text: &str, model: &str) -> Fake {
        let body = json!({"object": kind, "choices": [{"text": text}]}).to_string();
        Fake::of("guide-004/completion")
            .pool(POOL, 2)
            .picked("as-printed", POOL, 1)
            .with_pick(|pick| pick.model = Some(model.to_owned()))
            .with_response(|response| response.body = verdict::history::Body::of(body.as_bytes()))
    }

    fn good() -> Fake {
        completed("text_completion", "Phoenix", MODEL)
    }

    #[rstest]
    #[case::good(good(), Holds::Yes)]
    #[case::a_chat(completed("chat.completion", "Phoenix", MODEL), Holds::No)]
    #[case::no_text(completed("text_completion", "", MODEL), Holds::No)]
    #[case::other_model(completed("text_completion", "Phoenix", "other"), Holds::No)]
    #[case::bypassed(good().past_the_picker("as-printed", POOL, 0), Holds::No)]
    #[case::refused(good().refused("as-printed", 503), Holds::No)]
    #[case::no_records(good().without_picker_records(POOL), Holds::Unproven)]
    fn completion_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_completion, &fake), holds);
    }
}
