//! Guide 003, the draft that guide 000 came of: a model that answers on a path of its own behind a rewrite, 100 tokens a
//! minute, and why the extra route is needed. The manifests are those of guide 000 where both print the same.

use anyhow::Result;
use serde_json::{Value, json};
use suites::{CHECK, Check, Judge, Live, Model, Stage, budget, by_kserve, chat, check};
use verdict::{
    capability,
    change::{Change, Direction, Rule},
    history::{Exchange, History},
    plan::Level,
};

use crate::guide_000::{self as guide, printed};

const MODEL: &str = "mock-llm";
/// Where the draft's model (httpbun) answers chats; ours is asked to do so.
const PATH: &str = "/llm/chat/completions";
const TOKENS: u64 = 100;

/// The path of the backend's provider takes the place of the client's.
fn to_path() -> Vec<Change> {
    vec![Change::target("/v1/chat/completions", PATH)]
}

/// The policy on KServe's route sets a header beside its limit.
fn by_policy() -> Vec<Change> {
    [by_kserve(), vec![Change::header(Direction::Reply, LIVE, Rule::Set, "live")]].concat()
}

const GUIDE: Check = Check { capability: Some(capability::GUIDE_003), gateways: &["agentgateway"], ..CHECK };

async fn model(stage: &mut Stage) -> Result<Model> {
    stage.model_with(MODEL, &["--chat-path", PATH]).await
}

check!(
    guide_003 / rewrite,
    drive_rewrite,
    judge_rewrite,
    Check {
        sentence: "a model that answers on /llm/chat/completions is reached on /v1/chat/completions through the extra route, and not \
                   without it",
        source: "guide 003, step 5",
        how: "Sends a chat on /v1/chat/completions over KServe's route alone, and one with the extra route there; the model's \
              records say on which path each arrived.",
        kills: &["ignores-provider-path"],
        changes: || [by_kserve(), to_path()].concat(),
        ..GUIDE
    }
);

async fn drive_rewrite(stage: &mut Stage) -> Result<()> {
    let model = model(stage).await?;
    let call = || chat(MODEL).host(&model.host);
    // KServe's route rewrites nothing: it is live when the model itself says 404; the gateway's own has no `server`.
    let by_the_model = |e: &Exchange| e.response().is_some_and(|r| r.status == 404 && r.header("server").is_some());
    stage.settle_when(call, by_the_model).await?;
    stage.send("without-the-extra-route", call()).await?;
    guide::second_route_live(stage, &model, PATH).await?;
    stage.send("with-the-extra-route", call()).await
}

fn judge_rewrite(judge: &mut Judge<'_>) {
    guide::judge_second_route_status(judge);
    judge.status("without-the-extra-route-status", "without-the-extra-route", 404);
    judge.answered_by("with-the-extra-route-answered-by-mock-llm", "with-the-extra-route", MODEL);
    judge_path(judge, "without-the-extra-route-path", "without-the-extra-route", "/v1/chat/completions");
    judge_path(judge, "with-the-extra-route-path", "with-the-extra-route", PATH);
}

fn judge_path(judge: &mut Judge<'_>, clause: &'static str, label: &str, wanted: &str) {
    let (history, sent) = (judge.history(), judge.labelled(label));
    let paths: Vec<&str> =
        sent.iter().flat_map(|e| history.reached(e)).map(|(_, record)| record.target.as_str()).collect();
    let statement = judge.clause(clause).expected(format!("the model is asked on {wanted}"));
    if paths.is_empty() {
        statement.unproven("there is no record of the model");
    } else {
        statement.got(paths.join(", ")).holds(paths == [wanted]);
    }
}

check!(
    guide_003 / token_budget,
    drive_token_budget,
    |judge| guide::budget::judge_loop(judge, TOKENS, 15),
    Check {
        sentence: "100 tokens a minute admit 15 replies of 7 tokens, then requests get 429",
        source: "guide 003, step 6",
        how: "Sends the loop of guide 000 over the extra route under the draft's limit inside one minute, and counts the 200s \
              before the first 429.",
        capability: Some(capability::TOKEN_LIMIT),
        model: None,
        kills: &["charges-before"],
        changes: to_path,
        observe: budget::observe,
        ..GUIDE
    }
);

async fn drive_token_budget(stage: &mut Stage) -> Result<()> {
    let model = model(stage).await?;
    let limited = guide::budget::budget_live(stage, &model, PATH, TOKENS).await?;
    guide::budget::run_loop(stage, &limited).await
}

/// A header that the policy on KServe's route sets beside its limit: an answer that has it shows the policy live.
const LIVE: &str = "x-igc-policy";
/// Requests that cost twice the draft's tokens.
const ENOUGH: u64 = 2 * TOKENS.div_ceil(budget::REPLY);

/// The draft's limit on KServe's own route, live, and twice its tokens sent over it.
async fn limit_on_kserves_route(stage: &mut Stage) -> Result<()> {
    let model = stage.model(MODEL).await?;
    let call = || chat(MODEL).host(&model.host);
    let header = json!({"headerModifiers": {"response": {"set": [{"name": LIVE, "value": "live"}]}}});
    let policy = printed::token_policy(stage, MODEL, TOKENS, header)?;
    guide::apply_policy(stage, policy).await?;
    stage.settle_when(call, is_live).await?;
    for _ in 0..ENOUGH {
        budget::charged(stage).await;
        stage.send("spend", call()).await?;
    }
    Ok(())
}

fn is_live(exchange: &Exchange) -> bool {
    exchange.response().is_some_and(|r| r.header(LIVE).is_some())
}

fn admitted(history: &History) -> (usize, usize) {
    let sent: Vec<&Exchange> = history.labelled("spend").collect();
    (sent.iter().filter(|e| e.status() == Some(200) && is_live(e)).count(), sent.len())
}

fn observe_limit(history: &History) -> Value {
    let (admitted, sent) = admitted(history);
    let judge = Judge::of(history);
    let conditions = judge.conditions_of(judge.object("policy")).into_iter().filter_map(Value::as_array).flatten();
    let said: Vec<Value> = conditions
        .map(|c| json!({"type": c["type"], "status": c["status"], "reason": c["reason"], "message": c["message"]}))
        .collect();
    json!({"admitted": admitted, "sent": sent, "policy": said})
}

check!(
    guide_003 / plain_route,
    limit_on_kserves_route,
    judge_plain_route,
    Check {
        sentence: "a token limit on KServe's own route limits nothing, so that the extra route is needed as the guide says",
        source: "guide 003, step 5; agentgateway/agentgateway#2323",
        how: "Puts the draft's limit on KServe's own route, and sends twice its tokens over that route; all have to be answered \
              while the policy is live.",
        kills: &["limits-plain-routes"],
        changes: by_policy,
        observe: observe_limit,
        ..GUIDE
    }
);

fn judge_plain_route(judge: &mut Judge<'_>) {
    judge.answered_by("spend-answered-by-mock-llm", "spend", MODEL);
    let (admitted, sent) = admitted(judge.history());
    let got = format!("{admitted} of {sent} admitted under the policy");
    let statement = judge.clause("not-limited").expected(format!(
        "all admitted: a limit of {TOKENS} tokens counts nothing on KServe's own route, as the guide says"
    ));
    statement.got(got).holds_if_known((sent as u64 >= ENOUGH).then_some(admitted == sent));
}

check!(
    guide_003 / silent_acceptance,
    limit_on_kserves_route,
    judge_silent_acceptance,
    Check {
        level: Level::Info,
        sentence: "a token limit that has no effect says so in its status",
        source: "guide 003, step 5; agentgateway/agentgateway#2323",
        how: "Puts the draft's limit on KServe's own route, sends twice its tokens over that route, and compares what the policy's \
              status claims with what was limited.",
        live: Live::NotJudged,
        changes: by_policy,
        observe: observe_limit,
        ..GUIDE
    }
);

fn judge_silent_acceptance(judge: &mut Judge<'_>) {
    let (admitted, sent) = admitted(judge.history());
    let policy = judge.object("policy");
    let says = |kind: &str| judge.condition_of(policy, kind).and_then(|c| c["status"].as_str()).unwrap_or("absent");
    let (accepted, attached) = (says("Accepted"), says("Attached"));
    let got = format!("Accepted {accepted}, Attached {attached}, {admitted} of {sent} admitted");
    let statement = judge.clause("said").expected("a limit without effect is not said to be in effect");
    if sent == 0 || policy.is_null() {
        statement.unproven(format!("the policy and answers under it: {sent} answers"));
    } else {
        let claims = accepted == "True" && attached == "True";
        statement.got(got).holds(!claims || admitted < sent);
    }
}

mod judges {
    use rstest::rstest;
    use suites::fake::{Fake, Holds, No, Unproven, Yes, accepted, object_saying, parents_saying, policy_saying};

    use super::*;

    fn rewritten(before: (u16, &str), after: (u16, &str)) -> Fake {
        let said = [("Accepted", "True", ""), ("ResolvedRefs", "True", "")];
        Fake::of("guide-003/rewrite")
            .admission("backend", accepted())
            .admission("route", accepted())
            .object("backend", object_saying(&said))
            .object("route", parents_saying(&said))
            .model(MODEL)
            .answered("without-the-extra-route", before.0, MODEL)
            .with_model_target(before.1)
            .answered("with-the-extra-route", after.0, MODEL)
            .with_model_target(after.1)
    }

    fn token_budget(admitted: usize, refused: usize) -> Fake {
        let mut fake = guide::budget::judges::looped(TOKENS, admitted, refused);
        fake.0.key.check = "guide-003/token-budget".into();
        fake
    }

    fn limited(check: &str, admitted: usize, refused: usize, attached: &str) -> Fake {
        let policy = policy_saying("igc", &[("Accepted", "True", "Valid"), ("Attached", attached, "Attached")]);
        let fake = Fake::of(check).model(MODEL).object("policy", policy);
        let fake =
            (0..admitted).fold(fake, |fake, _| fake.answer("spend", 200, &[(LIVE, "live")], "{}").also_reached(MODEL));
        (0..refused).fold(fake, |fake, _| fake.limited("spend", TOKENS, 0, 50))
    }

    const PLAIN: &str = "guide-003/plain-route";
    const SILENT: &str = "guide-003/silent-acceptance";

    #[rstest]
    #[case::rewrite_rewritten(rewritten((404, "/v1/chat/completions"), (200, PATH)), Yes)]
    #[case::rewrite_not_rewritten(rewritten((404, "/v1/chat/completions"), (404, "/v1/chat/completions")), No)]
    #[case::rewrite_rewritten_without_it(rewritten((200, PATH), (200, PATH)), No)]
    #[case::rewrite_answered_elsewhere(rewritten((404, "/v1/chat/completions"), (200, "/v1/chat/completions")), No)]
    #[case::rewrite_nothing(Fake::of("guide-003/rewrite"), No)]
    #[case::token_budget_as_printed(token_budget(15, 15), Yes)]
    #[case::token_budget_one_less(token_budget(14, 16), No)]
    #[case::token_budget_one_more(token_budget(16, 14), No)]
    #[case::plain_route_no_effect(limited(PLAIN, 30, 0, "True"), Yes)]
    #[case::plain_route_it_has_an_effect(limited(PLAIN, 15, 15, "True"), No)]
    #[case::plain_route_too_few(limited(PLAIN, 10, 0, "True"), Unproven)]
    #[case::plain_route_policy_not_live(limited(PLAIN, 29, 0, "True").answered("spend", 200, MODEL), No)]
    #[case::silent_acceptance_silent(limited(SILENT, 30, 0, "True"), No)]
    #[case::silent_acceptance_says_so(limited(SILENT, 30, 0, "False"), Yes)]
    #[case::silent_acceptance_has_an_effect(limited(SILENT, 15, 15, "True"), Yes)]
    #[case::silent_acceptance_no_answers(limited(SILENT, 0, 0, "True"), Unproven)]
    #[case::silent_acceptance_no_policy(limited(SILENT, 30, 0, "True").without_object("policy"), Unproven)]
    fn judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(fake.verdict(), holds);
    }
}
