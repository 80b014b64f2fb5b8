//! Step 7 of guide 000: a budget of tokens a minute on the second route.

use anyhow::Result;
use serde_json::json;
use suites::{
    Check, Judge, Model, Stage,
    budget::{self, Budget, Limited},
    chat, check,
};
use verdict::{capability, history::Exchange};

use super::{GUIDE, LOOP, MODEL, STATUS, apply_policy, attached, printed, second_route_live};

check!(
    guide_000 / token_policy,
    drive_token_policy,
    attached,
    Check {
        sentence: "the token policy is Accepted and Attached, and the Gateway is the first ancestor of its status",
        source: "guide 000, step 7.2",
        how: "Applies the policy to the second route and reads its status, as the guide's command does.",
        kills: &["status-of-another-ancestor"],
        ..STATUS
    }
);

async fn drive_token_policy(stage: &mut Stage) -> Result<()> {
    let model = stage.model(MODEL).await?;
    second_route_live(stage, &model, "/v1/chat/completions").await?;
    let policy = printed::token_policy(stage, "mock-llm-ai", 70, json!({}))?;
    apply_policy(stage, policy).await
}

/// Steps 4, 5 and 7: `tokens` a minute on the second route, spent and live.
pub async fn budget_live(stage: &mut Stage, model: &Model, path: &str, tokens: u64) -> Result<Limited> {
    second_route_live(stage, model, path).await?;
    let policy = printed::token_policy(stage, "mock-llm-ai", tokens, json!({}))?;
    apply_policy(stage, policy).await?;
    let limited = Limited { host: model.host.clone(), model: MODEL.to_owned(), pods: MODEL.to_owned() };
    budget::settle_on(stage, &limited).await?;
    Ok(limited)
}

check!(
    guide_000 / token_budget,
    drive_token_budget,
    |judge| judge_loop(judge, 70, 10),
    Check {
        sentence: "of 30 requests in one window 10 are answered with 200 and the rest with 429",
        source: "guide 000, step 7.4",
        how: "Sends the guide's loop over the second route in the first seconds of a minute; looks at the statuses in order and at \
              the model's records of what was admitted.",
        capability: Some(capability::TOKEN_LIMIT),
        kills: &["off-by-one-limit"],
        observe: budget::observe,
        ..GUIDE
    }
);

async fn drive_token_budget(stage: &mut Stage) -> Result<()> {
    let model = stage.model(MODEL).await?;
    let limited = budget_live(stage, &model, "/v1/chat/completions", 70).await?;
    run_loop(stage, &limited).await
}

pub async fn run_loop(stage: &mut Stage, limited: &Limited) -> Result<()> {
    budget::in_one_window_of(stage, limited, 60, &["loop"], async |stage, _| {
        for _ in 0..LOOP {
            budget::charged(stage).await;
            stage.send("loop", chat(MODEL).host(&limited.host)).await?;
        }
        Ok(())
    })
    .await
}

/// The loop's answers are so many 200s and then 429s, in one window, by the declared rule and as the guide prints.
pub fn judge_loop(judge: &mut Judge<'_>, tokens: u64, admitted: usize) {
    if let Some(budget) = Budget::of_window(judge, "loop", tokens, 60) {
        budget.judge_admitted(judge);
        budget.judge_spent(judge);
    }
    let statuses: Vec<Option<u16>> = judge.labelled("loop").into_iter().map(Exchange::status).collect();
    let statement = judge.clause("as-printed").expected(format!("{admitted} times 200, then 429"));
    if statuses.len() < LOOP {
        return statement.unproven(format!("{} of {LOOP} answers", statuses.len()));
    }
    let times = |wanted: u16| statuses.iter().filter(|status| **status == Some(wanted)).count();
    let (replies, refusals) = statuses.split_at(admitted);
    let as_printed = replies.iter().all(|s| *s == Some(200)) && refusals.iter().all(|s| *s == Some(429));
    statement.got(format!("{} times 200, {} times 429", times(200), times(429))).holds(as_printed);
}

check!(
    guide_000 / total_tokens,
    drive_total_tokens,
    judge_total_tokens,
    Check {
        sentence: "guide says that usage.total_tokens is counted; correct is prompt_tokens + completion_tokens, whatever the total says",
        source: "guide 000, step 7; agentgateway v1.3.1 crates/agentgateway/src/llm/mod.rs",
        how: "Under a limit of 14 tokens sends four chats whose replies say 6 + 1 tokens and a total of 70; two have to be admitted.",
        capability: Some(capability::TOKEN_LIMIT),
        kills: &["charges-other-field"],
        observe: budget::observe,
        ..GUIDE
    }
);

async fn drive_total_tokens(stage: &mut Stage) -> Result<()> {
    let model = stage.model(MODEL).await?;
    let limited = budget_live(stage, &model, "/v1/chat/completions", 14).await?;
    budget::in_one_window_of(stage, &limited, 60, &["total-of-70"], async |stage, _| {
        for _ in 0..4 {
            budget::charged(stage).await;
            let call = chat(MODEL).host(&limited.host);
            stage.send("total-of-70", call.header("x-igc-usage", "prompt=6,completion=1,total=70")).await?;
        }
        Ok(())
    })
    .await
}

fn judge_total_tokens(judge: &mut Judge<'_>) {
    let Some(budget) = Budget::of_window(judge, "total-of-70", 14, 60) else { return };
    let sent = judge.labelled("total-of-70");
    let says_70 = |e: &&Exchange| e.response().and_then(|r| r.json()).is_some_and(|b| b["usage"]["total_tokens"] == 70);
    let (replies, rest) = sent.split_at(sent.iter().take_while(|e| e.status() == Some(200)).count());
    let statement = judge.clause("counted").expected(
        "14 tokens admit 2 replies of 6 + 1, though their total_tokens is 70 and the guide says that it is counted",
    );
    if sent.len() < 4 || !replies.iter().all(says_70) {
        return statement.unproven(format!("{} of {} replies, whose total is not 70", replies.len(), sent.len()));
    }
    let refused = rest.iter().all(|e| e.status() == Some(budget.declared.status));
    let then = if refused { "refusals" } else { "something else" };
    let got = format!("{} admitted, then {then}", replies.len());
    statement.got(got).shown_by(sent.iter().copied()).holds(replies.len() == 2 && refused);
}

pub mod judges {
    use rstest::rstest;
    use suites::fake::{Fake, Holds, No, Unproven, Yes, refusal, shared_token_limit, usage};

    use super::*;
    use crate::guide_000::judges::{a_policy, with_policy};

    /// A budget that all share, marked in refusals alone: so many recorded replies, then refusals.
    pub fn looped(tokens: u64, admitted: usize, refused: usize) -> Fake {
        let fake = Fake::of("guide-000/token-budget").declares(shared_token_limit()).model(MODEL);
        let fake = (0..admitted).fold(fake, |fake, _| fake.unmarked("loop", 200).also_reached(MODEL));
        (0..refused).fold(fake, |fake, _| fake.limited("loop", tokens, 0, 50))
    }

    fn totals(admitted: usize, total: u64) -> Fake {
        let fake = Fake::of("guide-000/total-tokens").declares(shared_token_limit());
        let body = json!({"usage": usage([6, 1, total])}).to_string();
        let fake = (0..admitted).fold(fake, |fake, _| fake.answer("total-of-70", 200, &[], &body));
        (admitted..4).fold(fake, |fake, _| fake.limited("total-of-70", 14, 0, 50))
    }

    #[rstest]
    #[case::token_policy_attached(with_policy("guide-000/token-policy", a_policy("igc", "True")), Yes)]
    #[case::token_policy_pending(with_policy("guide-000/token-policy", a_policy("igc", "False")), No)]
    #[case::token_policy_summary_first(with_policy("guide-000/token-policy", a_policy("StatusSummary", "True")), No)]
    #[case::token_policy_no_status(with_policy("guide-000/token-policy", json!({})), No)]
    #[case::token_policy_refused(with_policy("guide-000/token-policy", a_policy("igc", "True")).admission("policy", refusal("no")), No)]
    #[case::token_policy_nothing(Fake::of("guide-000/token-policy"), No)]
    #[case::token_budget_as_printed(looped(70, 10, 20), Yes)]
    #[case::token_budget_one_more(looped(70, 11, 19), No)]
    #[case::token_budget_one_less(looped(70, 9, 21), No)]
    #[case::token_budget_never_refused(looped(70, 30, 0), No)]
    #[case::token_budget_cut_short(looped(70, 10, 5), Unproven)]
    #[case::token_budget_records_not_whole(looped(70, 10, 20).without_marker(MODEL), Unproven)]
    #[case::token_budget_one_was_never_at_the_model(looped(70, 9, 0).unmarked("loop", 200).limited("loop", 70, 0, 50), No)]
    #[case::total_tokens_the_sum(totals(2, 70), Yes)]
    #[case::total_tokens_the_total(totals(1, 70), No)]
    #[case::total_tokens_nothing(totals(4, 70), No)]
    #[case::total_tokens_the_model_said_otherwise(totals(2, 7), Unproven)]
    #[case::total_tokens_not_sent(Fake::of("guide-000/total-tokens"), Unproven)]
    fn judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(fake.verdict(), holds);
    }
}
