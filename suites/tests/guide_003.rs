//! Guide 003, the draft that guide 000 came of: a model that answers on a path of its own behind a rewrite, 100 tokens a
//! minute, and why the extra route is needed. The manifests are those of guide 000 where both print the same.

use std::path::PathBuf;

use anyhow::Result;
use rstest::rstest;
use serde_json::{Value, json};
use suites::{Model, Stage, budget, chat, check, proof};
use verdict::{
    history::{Exchange, History},
    judge::Judgement,
};

use crate::guide_000::{self as guide, printed};

/// The model's name.
const MODEL: &str = "mock-llm";
/// Where the draft's model (httpbun) answers chats; ours is asked to do so.
const PATH: &str = "/llm/chat/completions";
/// The draft's tokens a minute.
const TOKENS: u64 = 100;

async fn model(stage: &mut Stage) -> Result<Model> {
    stage.model_with(MODEL, &["--chat-path", PATH]).await
}

#[rstest]
#[tokio::test]
async fn rewrite(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("guide-003/rewrite", "-", &folder).run(drive_rewrite, judge_rewrite).await;
}

async fn drive_rewrite(stage: &mut Stage) -> Result<()> {
    let model = model(stage).await?;
    // KServe's route rewrites nothing: it is live when the model itself says 404; the gateway's own has no `server`.
    let by_the_model = |e: &Exchange| e.response().is_some_and(|r| r.status == 404 && r.header("server").is_some());
    stage.settle_when(|| chat(&model.host, MODEL), by_the_model).await?;
    stage.begin().await?;
    stage.send("without-the-extra-route", chat(&model.host, MODEL)).await;
    guide::second_route_live(stage, &model, PATH).await?;
    stage.send("with-the-extra-route", chat(&model.host, MODEL)).await;
    stage.end().await
}

/// The paths on which the model got the requests of a label.
fn paths(history: &History, label: &str) -> Vec<String> {
    history.labelled(label).flat_map(|e| history.reached(e)).map(|(_, record)| record.target.clone()).collect()
}

fn judge_rewrite(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    guide::judge_second_route_status(&mut judgement, history);
    proof::status(&mut judgement, history, "without-the-extra-route", Some(404));
    proof::answered_by(&mut judgement, history, "with-the-extra-route", MODEL);
    for (label, wanted) in [("without-the-extra-route", "/v1/chat/completions"), ("with-the-extra-route", PATH)] {
        let got = paths(history, label);
        let clause = format!("{label}-path");
        match got.is_empty() {
            true => judgement.unproven(&clause, format!("a record of the model on {wanted}"), "there is none"),
            false => {
                judgement.that(&clause, got == [wanted], format!("the model is asked on {wanted}"), got.join(", "), [])
            }
        };
    }
    judgement
}

#[rstest]
#[tokio::test]
async fn token_budget(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("guide-003/token-budget", "-", &folder)
        .observing(budget::observe)
        .run(drive_token_budget, judge_token_budget)
        .await;
}

async fn drive_token_budget(stage: &mut Stage) -> Result<()> {
    let model = model(stage).await?;
    let limited = guide::budget_live(stage, &model, PATH, TOKENS).await?;
    guide::run_loop(stage, &limited).await
}

fn judge_token_budget(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    guide::judge_loop(&mut judgement, history, TOKENS, 15);
    judgement
}

/// A header that the policy on KServe's route sets beside its limit: an answer that has it shows the policy live.
const LIVE: &str = "x-igc-policy";

/// The draft's limit on KServe's own route, live, and twice its tokens sent over it.
async fn limit_on_kserves_route(stage: &mut Stage) -> Result<()> {
    let model = stage.model(MODEL).await?;
    let header = json!({"headerModifiers": {"response": {"set": [{"name": LIVE, "value": "live"}]}}});
    let policy = printed::token_policy(stage, MODEL, TOKENS, header);
    guide::apply_policy(stage, policy).await?;
    stage.settle_when(|| chat(&model.host, MODEL), is_live).await?;
    stage.begin().await?;
    for _ in 0..2 * TOKENS.div_ceil(budget::REPLY) {
        budget::charged(stage).await;
        stage.send("spend", chat(&model.host, MODEL)).await;
    }
    stage.end().await
}

fn is_live(exchange: &Exchange) -> bool {
    exchange.response().is_some_and(|r| r.header(LIVE).is_some())
}

/// How many of the answers are 200 under the live policy, and how many there are.
fn admitted(history: &History) -> (usize, usize) {
    let sent: Vec<&Exchange> = history.labelled("spend").collect();
    (sent.iter().filter(|e| e.status() == Some(200) && is_live(e)).count(), sent.len())
}

fn observe_limit(history: &History) -> Value {
    let (admitted, sent) = admitted(history);
    let status =
        history.objects.get("policy").map(|p| p["status"]["ancestors"][0]["conditions"].clone()).unwrap_or_default();
    let said: Vec<Value> = status
        .as_array()
        .into_iter()
        .flatten()
        .map(|c| json!({"type": c["type"], "status": c["status"], "reason": c["reason"], "message": c["message"]}))
        .collect();
    json!({"admitted": admitted, "sent": sent, "policy": said})
}

#[rstest]
#[tokio::test]
async fn plain_route(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("guide-003/plain-route", "-", &folder)
        .observing(observe_limit)
        .run(limit_on_kserves_route, judge_plain_route)
        .await;
}

fn judge_plain_route(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    proof::answered_by(&mut judgement, history, "spend", MODEL);
    let (admitted, sent) = admitted(history);
    let enough = sent as u64 >= 2 * TOKENS.div_ceil(budget::REPLY);
    let expected =
        format!("all admitted: a limit of {TOKENS} tokens counts nothing on KServe's own route, as the guide says");
    let got = format!("{admitted} of {sent} admitted under the policy");
    match enough {
        true => judgement.that("not-limited", admitted == sent, expected, got, []),
        false => judgement.unproven("not-limited", expected, got),
    };
    judgement
}

#[rstest]
#[tokio::test]
async fn silent_acceptance(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("guide-003/silent-acceptance", "-", &folder)
        .observing(observe_limit)
        .run(limit_on_kserves_route, judge_silent_acceptance)
        .await;
}

/// A limit that has no effect is to say so: not Accepted, not Attached, or not admitted at all.
fn judge_silent_acceptance(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    let (admitted, sent) = admitted(history);
    if sent == 0 || history.objects.get("policy").is_none_or(Value::is_null) {
        judgement.unproven("said", "the policy and answers under it", format!("{sent} answers"));
        return judgement;
    }
    let conditions = history.objects["policy"]["status"]["ancestors"][0]["conditions"].clone();
    let says = |kind: &str| proof::condition_status(&conditions, kind).unwrap_or("absent").to_owned();
    let (accepted, attached) = (says("Accepted"), says("Attached"));
    let claims = accepted == "True" && attached == "True";
    judgement.that(
        "said",
        !(claims && admitted == sent),
        "a limit without effect is not said to be in effect",
        format!("Accepted {accepted}, Attached {attached}, {admitted} of {sent} admitted"),
        [],
    );
    judgement
}

mod judges {
    use rstest::rstest;
    use suites::fake::{Fake, conditions, verdict_of};
    use verdict::{history::Admission, judge::Holds};

    use super::*;

    fn rewritten(before: (u16, &str), after: (u16, &str)) -> Fake {
        let said = conditions(1, &[("Accepted", "True", ""), ("ResolvedRefs", "True", "")]);
        let fine = || Some(Admission::Accepted { warnings: vec![] });
        Fake::of("guide-003/rewrite")
            .admission("backend", fine())
            .admission("route", fine())
            .object("backend", json!({"metadata": {"generation": 1}, "status": {"conditions": said}}))
            .object("route", json!({"metadata": {"generation": 1}, "status": {"parents": [{"conditions": said}]}}))
            .model(MODEL)
            .answered("without-the-extra-route", before.0, MODEL)
            .with_model_target(before.1)
            .answered("with-the-extra-route", after.0, MODEL)
            .with_model_target(after.1)
    }

    #[rstest]
    #[case::rewritten(rewritten((404, "/v1/chat/completions"), (200, PATH)), Holds::Yes)]
    #[case::not_rewritten(rewritten((404, "/v1/chat/completions"), (404, "/v1/chat/completions")), Holds::No)]
    #[case::rewritten_without_it(rewritten((200, PATH), (200, PATH)), Holds::No)]
    #[case::answered_elsewhere(rewritten((404, "/v1/chat/completions"), (200, "/v1/chat/completions")), Holds::No)]
    #[case::nothing(Fake::of("guide-003/rewrite"), Holds::No)]
    fn rewrite_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_rewrite, &fake), holds);
    }

    #[rstest]
    #[case::as_printed(15, 15, Holds::Yes)]
    #[case::one_less(14, 16, Holds::No)]
    #[case::one_more(16, 14, Holds::No)]
    fn token_budget_is_judged(#[case] admitted: usize, #[case] refused: usize, #[case] holds: Holds) {
        let fake = crate::guide_000::judges::looped(TOKENS, admitted, refused);
        assert_eq!(verdict_of(judge_token_budget, &fake), holds);
    }

    fn limited(admitted: usize, refused: usize, attached: &str) -> Fake {
        let said = conditions(1, &[("Accepted", "True", "Valid"), ("Attached", attached, "Attached")]);
        let fake = Fake::of("guide-003/plain-route")
            .model(MODEL)
            .object("policy", json!({"status": {"ancestors": [{"conditions": said}]}}));
        let fake =
            (0..admitted).fold(fake, |fake, _| fake.answer("spend", 200, &[(LIVE, "live")], "{}").also_reached(MODEL));
        (0..refused).fold(fake, |fake, _| fake.limited("spend", TOKENS, 0, 50))
    }

    #[rstest]
    #[case::no_effect(limited(30, 0, "True"), Holds::Yes)]
    #[case::it_has_an_effect(limited(15, 15, "True"), Holds::No)]
    #[case::too_few(limited(10, 0, "True"), Holds::Unproven)]
    #[case::policy_not_live(limited(29, 0, "True").answered("spend", 200, MODEL), Holds::No)]
    fn plain_route_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_plain_route, &fake), holds);
    }

    #[rstest]
    #[case::silent(limited(30, 0, "True"), Holds::No)]
    #[case::says_so(limited(30, 0, "False"), Holds::Yes)]
    #[case::has_an_effect(limited(15, 15, "True"), Holds::Yes)]
    #[case::no_answers(limited(0, 0, "True"), Holds::Unproven)]
    #[case::no_policy(limited(30, 0, "True").without_object("policy"), Holds::Unproven)]
    fn silent_acceptance_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_silent_acceptance, &fake), holds);
    }
}
