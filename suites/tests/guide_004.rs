//! Guide 004, step by step: an InferencePool with its endpoint picker behind agentgateway. The guide's model needs eleven
//! processors: ours stands in its place, in a pool of the same names. The guide's route has no hostname; here it has the
//! stage's, so that it takes nothing of others.

use anyhow::Result;
use serde_json::{Value, json};
use suites::{
    CHECK, Call, Check, Judge, PoolOf, Stage, WaitCondition, check, judge::pool_parents, parents_say, picked,
};
use verdict::capability;

const POOL: &str = "vllm-qwen25-15b-instruct";
const MODEL: &str = "Qwen/Qwen2.5-1.5B-Instruct";

const GUIDE: Check = Check { capability: Some(capability::GUIDE_004), gateways: &["agentgateway"], ..CHECK };

fn printed_request() -> Call {
    Call::post("/v1/completions").json(&json!({
        "model": MODEL, "prompt": "What is the warmest city in the USA?", "max_tokens": 100, "temperature": 0.5,
    }))
}

async fn routed(stage: &mut Stage) -> Result<()> {
    stage.pool(PoolOf { model: MODEL.into(), ..PoolOf::new(POOL) }).await?;
    let [_, mut route] = stage.printed("guide-004/gateway-and-route")?;
    let (spec, gateway) = (&mut route["spec"], stage.shared_gateway());
    spec["hostnames"] = json!([stage.hostname()]);
    spec["parentRefs"][0]["name"] = json!(gateway.name);
    spec["parentRefs"][0]["namespace"] = json!(gateway.namespace);
    stage.offer("route", &route).await?;
    stage.settle(printed_request, POOL).await
}

check!(
    guide_004 / pool_and_route,
    drive_pool_and_route,
    judge_pool_and_route,
    Check {
        sentence: "the route of the guide and the pool that it leads to say Accepted and ResolvedRefs for the generation that is there",
        source: "guide 004, \"Deploy a Gateway and HTTPRoute for inference routing\"",
        how: "Applies the route as printed on a pool of our own model, and reads what the Gateway says in the status of both.",
        kills: &["pool-status-never-written"],
        ..GUIDE
    }
);

async fn drive_pool_and_route(stage: &mut Stage) -> Result<()> {
    routed(stage).await?;
    let gateway = stage.note_gateway();
    stage.see("route", &stage.http_route("llm-route"), parents_say("ResolvedRefs"), 60).await?;
    let said = WaitCondition::holds("an entry for the Gateway", move |pool| !pool_parents(pool, &gateway).is_empty());
    stage.see("pool", &stage.inference_pool(POOL), said, 60).await
}

fn judge_pool_and_route(judge: &mut Judge<'_>) {
    let (route, pool) = (judge.object("route"), judge.object("pool"));
    judge_one_parent(judge, "route-parents", route);
    judge.accepted_and_resolved(["route-Accepted", "route-ResolvedRefs"], route);
    judge_one_parent(judge, "pool-parents", pool);
    judge.pool_condition("pool-Accepted", pool, "Accepted", "True");
    judge.pool_condition("pool-ResolvedRefs", pool, "ResolvedRefs", "True");
}

fn judge_one_parent(judge: &mut Judge<'_>, clause: &'static str, object: &Value) {
    let parents = object["status"]["parents"].as_array().map_or(0, Vec::len);
    judge.clause(clause).expected("one parent").got(format!("{parents} parents")).holds(parents == 1);
}

check!(
    guide_004 / completion,
    drive_completion,
    judge_completion,
    Check {
        sentence: "a completion as in the guide is answered by the endpoint that the picker chose, which reads the model of the body",
        source: "guide 004, \"Send a test request to the inference gateway\"",
        how: "Sends the test request as printed ten times; looks at the reply, at the model's records, and at the model that the \
              picker's records name.",
        observe: picked::observe,
        kills: &["skips-picker", "ignores-choice"],
        counts_every_answer: true,
        ..GUIDE
    }
);

async fn drive_completion(stage: &mut Stage) -> Result<()> {
    routed(stage).await?;
    stage.send_in_turn(10, &[("as-printed", printed_request())]).await
}

fn judge_completion(judge: &mut Judge<'_>) {
    picked::as_picked(judge, "as-printed-as-picked", "as-printed", POOL);
    if let Some(exchange) = judge.labelled("as-printed").first().copied() {
        let body = exchange.response().and_then(|r| r.json()).unwrap_or_default();
        let (kind, text) = (&body["object"], body["choices"][0]["text"].as_str().unwrap_or_default());
        let statement = judge.clause("object").expected("text_completion").got(kind.to_string()).shown_by([exchange]);
        statement.holds(kind == "text_completion");
        judge.clause("text").expected("a text").got(format!("'{text}'")).shown_by([exchange]).holds(!text.is_empty());
    }
    let clause = "as-printed-model-is-read";
    picked::record_of_each(judge, clause, "as-printed", POOL, "the picker read the model", |_, pick| {
        let read = pick.model.as_deref();
        (read != Some(MODEL)).then(|| format!("it read {read:?}"))
    });
}

mod judges {
    use rstest::rstest;
    use suites::fake::{Fake, Holds, No, Unproven, Yes, parents_saying};

    use super::*;

    fn standing(accepted: &str, resolved: &str) -> Value {
        parents_saying(&[("Accepted", accepted, ""), ("ResolvedRefs", resolved, "")])
    }

    /// All is well, of somebody else.
    fn of(field: &str, whose: Value) -> Value {
        let mut object = standing("True", "True");
        object["status"]["parents"][0][field] = whose;
        object
    }

    fn pool_and_route(route: Value, pool: Value) -> Fake {
        Fake::of("guide-004/pool-and-route").of_the_gateway().object("route", route).object("pool", pool)
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
    #[case::pool_and_route_good(pool_and_route(standing("True", "True"), standing("True", "True")), Yes)]
    #[case::pool_and_route_no_backend(pool_and_route(standing("True", "False"), standing("True", "True")), No)]
    #[case::pool_and_route_pool_unsaid(pool_and_route(standing("True", "True"), json!({"metadata": {"generation": 1}})), No)]
    #[case::pool_and_route_pool_refused(pool_and_route(standing("True", "True"), standing("False", "True")), No)]
    #[case::pool_and_route_route_of_another_controller(pool_and_route(of("controllerName", json!("other")), standing("True", "True")), No)]
    #[case::pool_and_route_pool_of_another_gateway(pool_and_route(standing("True", "True"), of("parentRef", json!({"name": "other"}))), No)]
    #[case::completion_good(good(), Yes)]
    #[case::completion_a_chat(completed("chat.completion", "Phoenix", MODEL), No)]
    #[case::completion_no_text(completed("text_completion", "", MODEL), No)]
    #[case::completion_other_model(completed("text_completion", "Phoenix", "other"), No)]
    #[case::completion_bypassed(good().past_the_picker("as-printed", POOL, 0), No)]
    #[case::completion_refused(good().refused("as-printed", 503), No)]
    #[case::completion_no_records(good().without_picker_records(POOL), Unproven)]
    fn judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(fake.verdict(), holds);
    }
}
