//! What is charged: which of a reply's numbers, which replies, and how far a budget is overshot by many at once.

use anyhow::Result;
use serde_json::{Value, json};
use suites::{
    Call, Check, Judge, Stage,
    budget::{self, Budget},
    chat, check, replies,
};
use verdict::{
    capability::{Price, TokenLimit},
    history::Exchange,
    plan::Level,
};

use super::{LIMIT, limited, repeat, spend};

/// Requests that are sent at once, on a budget of one reply.
const AT_ONCE: u64 = 10;
const ONE_REPLY: u64 = 7;

check!(
    tokens / overshoot,
    drive_overshoot,
    judge_overshoot,
    Check {
        sentence: "however many of the requests pass that are sent at once, they are charged and the next one is refused",
        source: "the gateway's declaration, charge after the response",
        how: "Sends ten requests at once on a budget of one reply, while the model holds its replies until all are there; the \
              request after them has to be refused.",
        kills: &["loses-charges-in-flight"],
        ..LIMIT
    }
);

async fn drive_overshoot(stage: &mut Stage) -> Result<()> {
    let alpha = limited(stage, ONE_REPLY).await?;
    budget::in_one_window(stage, "alpha", &["next"], async |stage, user| {
        // The model holds every reply until all are there, or no more come.
        let gate = stage.unique();
        let call = |_| budget::as_user(stage, chat("alpha").header("x-igc-gate", &gate), user);
        let calls = (0..AT_ONCE).map(call).collect::<Result<_>>()?;
        let mut held = 0;
        let meanwhile = async |stage: &Stage| {
            held = stage.until_answering(&alpha, |n| n >= AT_ONCE, 5.0).await?;
            stage.open_gate(&alpha, &gate, 1).await
        };
        stage.send_together("at-once", calls, meanwhile).await?;
        stage.fact("held-at-once", json!(held));
        repeat(stage, "next", user, 1, || chat("alpha")).await
    })
    .await
}

fn judge_overshoot(judge: &mut Judge<'_>) {
    let Some(limit) = judge.declared::<TokenLimit>() else { return };
    let sent = judge.labelled("at-once");
    let with = |status: u16| sent.iter().filter(|e| e.status() == Some(status)).count();
    let (admitted, refused) = (with(200), with(limit.status));
    let held = judge.history().facts.get("held-at-once").and_then(Value::as_u64).unwrap_or(0);
    let got = format!("{admitted} admitted, {held} of them held, and {refused} refused of {}", sent.len());
    let statement = judge.clause("at-once").expected("replies that the model held all at one time, and refusals");
    let unknown = admitted == 0 || held < admitted as u64 || admitted + refused < sent.len();
    statement.got(got).holds_if_known((!unknown).then_some(true)); // how many pass is only told
    budget::judge_all_refused(judge, "next", "next");
}

/// A budget that admits another number of replies for each way to count [`NUMBERS`].
const COUNTED: u64 = 28;
const NUMBERS: [(&str, u64); 3] = [("prompt", 3), ("completion", 4), ("total", 14)];

check!(
    tokens / charged_fields,
    drive_charged_fields,
    judge_charged_fields,
    Check {
        sentence: "of prompt, completion and total tokens those are charged that are declared",
        source: "the gateway's declaration; OpenAI API reference, usage",
        how: "Spends a budget with replies whose total is not the sum of prompt and completion; how many are admitted tells \
              which numbers are charged.",
        kills: &["charges-other-field"],
        ..LIMIT
    }
);

async fn drive_charged_fields(stage: &mut Stage) -> Result<()> {
    limited(stage, COUNTED).await?;
    let usage = NUMBERS.map(|(field, tokens)| format!("{field}={tokens}")).join(",");
    budget::in_one_window(stage, "alpha", &["spend"], async |stage, user| {
        repeat(stage, "spend", user, 12, || chat("alpha").header("x-igc-usage", &usage)).await
    })
    .await
}

fn judge_charged_fields(judge: &mut Judge<'_>) {
    let Some(budget) = Budget::of(judge, "spend", COUNTED) else { return };
    let usage: Value = NUMBERS.iter().map(|(field, tokens)| (format!("{field}_tokens"), json!(tokens))).collect();
    let admitted: Vec<&Exchange> = judge.labelled("spend").into_iter().filter(|e| e.status() == Some(200)).collect();
    let says = |e: &&&Exchange| {
        let reply = e.response().and_then(|r| r.json()).unwrap_or_default();
        NUMBERS.iter().all(|(field, tokens)| reply["usage"][format!("{field}_tokens")] == *tokens)
    };
    let told = admitted.iter().filter(says).count();
    if told < admitted.len() {
        let statement = judge.clause("usage").expected(format!("replies that used {NUMBERS:?}"));
        statement.unproven(format!("{told} of {} replies say so", admitted.len()));
    }
    if let Some(cost) = budget::cost(&budget.declared, &usage) {
        budget.judge_admitted_costing(judge, cost);
    }
}

/// Requests that are sent before a budget is spent, to see what they cost.
const BEFORE: u64 = 3;

/// Sends these as `before`, then spends the budget.
async fn price(stage: &mut Stage, call: impl Fn() -> Call) -> Result<()> {
    limited(stage, budget::TELLING).await?;
    budget::in_one_window(stage, "alpha", &["before", "spend"], async |stage, user| {
        repeat(stage, "before", user, BEFORE, &call).await?;
        spend(stage, "spend", user, budget::TELLING).await
    })
    .await
}

/// What those cost, if there are as many as there should be, and the model gave them with this status.
fn judge_price(judge: &mut Judge<'_>, status: u16, price: impl Fn(&TokenLimit) -> Price) {
    let Some(budget) = Budget::of(judge, "spend", budget::TELLING) else { return };
    let history = judge.history();
    let whole = |e: &&&Exchange| {
        let given = history.reached(e).iter().map(|(_, record)| record.status).collect::<Vec<u16>>();
        e.status() == Some(status) && given == [status]
    };
    let given = judge.labelled("before").iter().filter(whole).count() as u64;
    if given < BEFORE {
        let statement = judge.clause("before").expected(format!("{BEFORE} answers of the model with status {status}"));
        statement.unproven(given.to_string());
    }
    budget.judge_price(judge, price(&budget.declared));
}

check!(
    tokens / failed_request_free,
    drive_failed_request_free,
    |judge| judge_price(judge, 503, |_| Price::Free),
    Check {
        level: Level::Should,
        sentence: "an error of the model costs nothing, also where it says what it used",
        source: "the gateway's declaration of what is charged",
        how: "Has the model answer three requests with 503 and usage, then spends the budget: all of it must be left.",
        kills: &["charges-5xx"],
        ..LIMIT
    }
);

const ERROR_WITH_USAGE: &str =
    r#"{"error":{"message":"busy"},"usage":{"prompt_tokens":6,"completion_tokens":1,"total_tokens":7}}"#;

async fn drive_failed_request_free(stage: &mut Stage) -> Result<()> {
    let failing =
        || replies(chat("alpha").header("x-igc-status", "503"), ERROR_WITH_USAGE.as_bytes(), "application/json");
    price(stage, failing).await
}

check!(
    tokens / no_usage_reply,
    |stage| price(stage, || chat("alpha").header("x-igc-usage", "none")),
    |judge| judge_price(judge, 200, |limit| limit.no_usage_reply),
    Check {
        level: Level::Info,
        sentence: "a reply that does not say what it used is charged, or declared to be free",
        source: "the gateway's declaration",
        how: "Has the model answer three requests without usage, then spends the budget: how many replies it still admits tells \
              whether those cost something.",
        ..LIMIT
    }
);

mod judges {
    use rstest::rstest;
    use suites::fake::{Fake, Holds, No, Unproven, Yes, usage};
    use verdict::{capability::Rule, history::Body};

    use super::*;
    use crate::tokens::judges::{asked, limited, limited_with, spent};

    fn overshoot(admitted: u64, refused: u64, held: u64, next: u16) -> Fake {
        let fake = limited("tokens/overshoot", "-").fact("held-at-once", json!(held));
        let fake = spent(fake, "at-once", 7, admitted, refused);
        asked(fake, "next", 7, next)
    }

    fn counted(declared: Value, total: u64, admitted: u64) -> Fake {
        let fake = limited_with("tokens/charged-fields", "-", "charged-fields", declared);
        let body = json!({"usage": usage([3, 4, total])}).to_string();
        let reply = |fake, _| asked(fake, "spend", 28, 200).with_response(|r| r.body = Body::of(body.as_bytes()));
        spent((0..admitted).fold(fake, reply), "spend", 28, 0, 3)
    }

    fn charged_fields(declared: Value, admitted: u64) -> Fake {
        counted(declared, 14, admitted)
    }

    fn before(fake: Fake, answers: usize, status: u16) -> Fake {
        let answer =
            |fake: Fake, _| fake.answered("before", status, "alpha").with_record(|record| record.status = status);
        fake.model("alpha").times(answers, answer)
    }

    fn failed_request_free(answers: usize, status: u16, admitted: u64) -> Fake {
        let fake = before(limited("tokens/failed-request-free", "-"), answers, status);
        spent(fake, "spend", budget::TELLING, admitted, 4)
    }

    fn no_usage_reply(declared: Value, admitted: u64) -> Fake {
        let fake = limited_with("tokens/no-usage-reply", "-", "no-usage-reply", declared);
        let fake = before(fake, 3, 200);
        spent(fake, "spend", budget::TELLING, admitted, 4)
    }

    #[rstest]
    #[case(Rule::Over)]
    #[case(Rule::AtLeast)]
    fn the_telling_budget_tells_a_token_each(#[case] rule: Rule) {
        let admits = |left: u64| budget::admits(rule, left, budget::REPLY);
        assert_eq!((admits(budget::TELLING), admits(budget::TELLING - BEFORE)), (3, 2));
    }

    #[rstest]
    #[case::overshoot_all_admitted(overshoot(10, 0, 10, 429), Yes)]
    #[case::overshoot_some_reserved(overshoot(2, 8, 2, 429), Yes)]
    #[case::overshoot_charges_lost(overshoot(10, 0, 10, 200), No)]
    #[case::overshoot_one_after_the_other(overshoot(10, 0, 3, 429), Unproven)]
    #[case::overshoot_nothing_was_admitted(overshoot(0, 10, 0, 429), Unproven)]
    #[case::overshoot_neither_reply_nor_refusal(overshoot(9, 0, 9, 429).refused("at-once", 503), Unproven)]
    #[case::charged_fields_other_numbers(counted(json!(["total"]), 7, 3), Unproven)]
    #[case::charged_fields_total(charged_fields(json!(["total"]), 3), Yes)]
    #[case::charged_fields_sum(charged_fields(json!(["prompt", "completion"]), 5), Yes)]
    #[case::charged_fields_completion(charged_fields(json!(["completion"]), 8), Yes)]
    #[case::charged_fields_prompt(charged_fields(json!(["prompt"]), 10), Yes)]
    #[case::charged_fields_total_for_sum(charged_fields(json!(["prompt", "completion"]), 3), No)]
    #[case::charged_fields_sum_for_total(charged_fields(json!(["total"]), 5), No)]
    #[case::charged_fields_nothing_declared(charged_fields(json!(null), 5), Unproven)]
    #[case::charged_fields_declared_in_other_words(charged_fields(json!(["input"]), 5), Unproven)]
    #[case::failed_request_free_free(failed_request_free(3, 503, 3), Yes)]
    #[case::failed_request_free_charged(failed_request_free(3, 503, 2), No)]
    #[case::failed_request_free_answered_after_all(failed_request_free(3, 200, 3), Unproven)]
    #[case::failed_request_free_too_few(failed_request_free(2, 503, 3), Unproven)]
    #[case::no_usage_reply_free_as_declared(no_usage_reply(json!("free"), 3), Yes)]
    #[case::no_usage_reply_charged_though_declared_free(no_usage_reply(json!("free"), 2), No)]
    #[case::no_usage_reply_charged_as_declared(no_usage_reply(json!("charged"), 2), Yes)]
    #[case::no_usage_reply_free_though_declared_charged(no_usage_reply(json!("charged"), 3), No)]
    #[case::no_usage_reply_free_without_a_word(no_usage_reply(json!(null), 3), Unproven)]
    fn judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(fake.verdict(), holds);
    }
}
