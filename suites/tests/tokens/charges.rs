//! What is charged: which of a reply's numbers, which replies, and how far a budget is overshot by many at once.

use std::path::PathBuf;

use anyhow::Result;
use rstest::rstest;
use serde_json::{Value, json};
use suites::{
    Call, Stage,
    budget::{self, Budget},
    chat, check, proof,
};
use verdict::{
    history::{Exchange, History},
    judge::Judgement,
};

use super::{limited, repeat, spend};

/// Requests that are sent at once, on a budget of one reply.
const AT_ONCE: u64 = 10;
const ONE_REPLY: u64 = 7;

#[rstest]
#[tokio::test]
async fn overshoot(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("tokens/overshoot", "-", &folder).observing(budget::observe).run(drive_overshoot, judge_overshoot).await;
}

async fn drive_overshoot(stage: &mut Stage) -> Result<()> {
    let alpha = limited(stage, ONE_REPLY).await?;
    let host = stage.hostname().to_owned();
    budget::in_one_window(stage, "alpha", &["next"], async |stage, user| {
        // The model holds every reply until all are there, or no more come.
        let gate = stage.unique();
        let call = || budget::as_user(stage, chat(&host, "alpha").header("x-igc-gate", &gate), user);
        let calls = (0..AT_ONCE).map(|_| call()).collect();
        let mut held = 0;
        let meanwhile = async |stage: &Stage| {
            held = stage.until_answering(&alpha, |n| n >= AT_ONCE, 5.0).await?;
            stage.open_gate(&alpha, &gate, 1).await
        };
        stage.send_together("at-once", calls, meanwhile).await?;
        stage.fact("held-at-once", json!(held));
        repeat(stage, "next", user, 1, || chat(&host, "alpha")).await;
        Ok(())
    })
    .await
}

fn judge_overshoot(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    let sent: Vec<&Exchange> = history.labelled("at-once").collect();
    let with = |status: u16| sent.iter().filter(|e| e.status() == Some(status)).count();
    let (admitted, refused) = (with(200), with(budget::refusal(history)));
    let held = history.facts.get("held-at-once").and_then(Value::as_u64).unwrap_or(0);
    let expected = "replies that the model held all at one time, and refusals";
    let got = format!("{admitted} admitted, {held} of them held, and {refused} refused of {}", sent.len());
    if admitted == 0 || held < admitted as u64 || admitted + refused < sent.len() {
        judgement.unproven("at-once", expected, got);
    } else {
        judgement.that("at-once", true, expected, got, []);
    }
    budget::judge_all(&mut judgement, history, "next", budget::refusal(history));
    judgement
}

/// A budget that admits another number of replies for each way to count [`NUMBERS`].
const COUNTED: u64 = 28;
/// What the replies say that they used.
const NUMBERS: [(&str, u64); 3] = [("prompt", 3), ("completion", 4), ("total", 14)];

#[rstest]
#[tokio::test]
async fn charged_fields(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("tokens/charged-fields", "-", &folder)
        .observing(budget::observe)
        .run(drive_charged_fields, judge_charged_fields)
        .await;
}

async fn drive_charged_fields(stage: &mut Stage) -> Result<()> {
    limited(stage, COUNTED).await?;
    let host = stage.hostname().to_owned();
    let usage = NUMBERS.map(|(field, tokens)| format!("{field}={tokens}")).join(",");
    budget::in_one_window(stage, "alpha", &["spend"], async |stage, user| {
        repeat(stage, "spend", user, 12, || chat(&host, "alpha").header("x-igc-usage", &usage)).await;
        Ok(())
    })
    .await
}

fn judge_charged_fields(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    let budget = Budget::of(history, "spend", COUNTED);
    budget.judge_one_window(&mut judgement);
    let admitted: Vec<&Exchange> = history.labelled("spend").filter(|e| e.status() == Some(200)).collect();
    let says = |e: &&&Exchange| {
        let reply = e.response().and_then(|r| r.json()).unwrap_or_default();
        NUMBERS.iter().all(|(field, tokens)| reply["usage"][format!("{field}_tokens")] == *tokens)
    };
    let told = admitted.iter().filter(says).count();
    if told < admitted.len() {
        let got = format!("{told} of {} replies say so", admitted.len());
        judgement.unproven("usage", format!("replies that used {NUMBERS:?}"), got);
    }
    let declared = history.declared.get("charges").and_then(Value::as_str).unwrap_or_default();
    let number = |field: &str| NUMBERS.iter().find(|(name, _)| *name == field).map(|(_, tokens)| *tokens);
    match declared.split('+').map(number).sum::<Option<u64>>() {
        Some(cost) => budget.judge_admitted_costing(&mut judgement, cost),
        None => {
            let got = format!("'{declared}', which is no sum of prompt, completion and total");
            judgement.unproven("declared", "which numbers are charged", got);
        }
    }
    judgement
}

/// Requests that are sent before a budget is spent, to see what they cost.
const BEFORE: u64 = 3;

/// Sends these as `before`, then spends the budget.
async fn price(stage: &mut Stage, call: impl Fn(&str) -> Call) -> Result<()> {
    limited(stage, budget::TELLING).await?;
    let host = stage.hostname().to_owned();
    budget::in_one_window(stage, "alpha", &["before", "spend"], async |stage, user| {
        repeat(stage, "before", user, BEFORE, || call(&host)).await;
        spend(stage, "spend", user, budget::TELLING).await;
        Ok(())
    })
    .await
}

/// What those cost, if there are as many as there should be, and the model gave them with this status.
fn judge_price(history: &History, status: u16, declared: Option<&str>) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    let whole = |e: &&Exchange| {
        let given = history.reached(e).iter().map(|(_, record)| record.status).collect::<Vec<u16>>();
        e.status() == Some(status) && given == [status]
    };
    let given = history.labelled("before").filter(whole).count() as u64;
    if given < BEFORE {
        let expected = format!("{BEFORE} answers of the model with status {status}");
        judgement.unproven("before", expected, given.to_string());
    }
    let budget = Budget::of(history, "spend", budget::TELLING);
    budget.judge_one_window(&mut judgement);
    budget.judge_price(&mut judgement, declared);
    judgement
}

#[rstest]
#[tokio::test]
async fn failed_request_free(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("tokens/failed-request-free", "-", &folder)
        .observing(budget::observe)
        .run(drive_failed_request_free, judge_failed_request_free)
        .await;
}

/// `{"error":{"message":"busy"},"usage":{"prompt_tokens":6,"completion_tokens":1,"total_tokens":7}}`
const ERROR_WITH_USAGE: &str = "eyJlcnJvciI6eyJtZXNzYWdlIjoiYnVzeSJ9LCJ1c2FnZSI6eyJwcm9tcHRfdG9rZW5zIjo2LCJjb21wbGV0aW9uX3Rva2VucyI6MSwidG90YWxfdG9rZW5zIjo3fX0=";

async fn drive_failed_request_free(stage: &mut Stage) -> Result<()> {
    let failing =
        |host: &str| chat(host, "alpha").header("x-igc-status", "503").header("x-igc-reply", ERROR_WITH_USAGE);
    price(stage, failing).await
}

fn judge_failed_request_free(history: &History) -> Judgement {
    judge_price(history, 503, Some("free"))
}

#[rstest]
#[tokio::test]
async fn no_usage_reply(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("tokens/no-usage-reply", "-", &folder)
        .observing(budget::observe)
        .run(drive_no_usage_reply, judge_no_usage_reply)
        .await;
}

async fn drive_no_usage_reply(stage: &mut Stage) -> Result<()> {
    price(stage, |host| chat(host, "alpha").header("x-igc-usage", "none")).await
}

fn judge_no_usage_reply(history: &History) -> Judgement {
    judge_price(history, 200, history.declared.get("no-usage-reply").and_then(Value::as_str))
}

mod judges {
    use rstest::rstest;
    use suites::fake::{Fake, verdict_of};
    use verdict::judge::Holds;

    use super::*;
    use crate::tokens::judges::{limited, spent};

    #[rstest]
    #[case::all_admitted(10, 0, 10, 429, Holds::Yes)]
    #[case::some_reserved(2, 8, 2, 429, Holds::Yes)]
    #[case::charges_lost(10, 0, 10, 200, Holds::No)]
    #[case::one_after_the_other(10, 0, 3, 429, Holds::Unproven)]
    #[case::nothing_was_admitted(0, 10, 0, 429, Holds::Unproven)]
    fn overshoot_is_judged(
        #[case] admitted: u64,
        #[case] refused: u64,
        #[case] held: u64,
        #[case] next: u16,
        #[case] holds: Holds,
    ) {
        let fake = limited("tokens/overshoot", "-").fact("held-at-once", json!(held));
        let fake = spent(fake, "at-once", 7, admitted, refused);
        let fake = if next == 200 { fake.admitted("next", 7, 7, 50) } else { fake.limited("next", 7, 0, 50) };
        assert_eq!(verdict_of(judge_overshoot, &fake), holds);
    }

    #[test]
    fn an_answer_that_is_neither_a_reply_nor_a_refusal_proves_no_overshoot() {
        let fake = spent(limited("tokens/overshoot", "-").fact("held-at-once", json!(9)), "at-once", 7, 9, 0);
        let fake = fake.refused("at-once", 503).limited("next", 7, 0, 50);
        assert_eq!(verdict_of(judge_overshoot, &fake), Holds::Unproven);
    }

    fn counted(declared: &str, usage: &Value, admitted: u64) -> Fake {
        let mut fake = limited("tokens/charged-fields", "-").declares("charges", json!(declared));
        let marks =
            [("x-ratelimit-limit", "28, 28;w=60"), ("x-ratelimit-remaining", "28"), ("x-ratelimit-reset", "50")];
        for _ in 0..admitted {
            fake = fake.answer("spend", 200, &marks, &json!({"usage": usage}).to_string());
        }
        spent(fake, "spend", 28, 0, 3)
    }

    #[rstest]
    #[case::total("total", 3, Holds::Yes)]
    #[case::sum("prompt+completion", 5, Holds::Yes)]
    #[case::completion("completion", 8, Holds::Yes)]
    #[case::prompt("prompt", 10, Holds::Yes)]
    #[case::total_for_sum("prompt+completion", 3, Holds::No)]
    #[case::sum_for_total("total", 5, Holds::No)]
    #[case::nothing_declared("", 5, Holds::Unproven)]
    #[case::declared_in_other_words("input", 5, Holds::Unproven)]
    fn charged_fields_is_judged(#[case] declared: &str, #[case] admitted: u64, #[case] holds: Holds) {
        let usage = json!({"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 14});
        assert_eq!(verdict_of(judge_charged_fields, &counted(declared, &usage, admitted)), holds);
    }

    #[test]
    fn replies_with_other_numbers_prove_nothing() {
        let usage = json!({"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7});
        assert_eq!(verdict_of(judge_charged_fields, &counted("total", &usage, 3)), Holds::Unproven);
    }

    fn before(check: &str, answers: usize, status: u16) -> Fake {
        let mut fake = limited(check, "-").model("alpha");
        for _ in 0..answers {
            fake = fake.answered("before", status, "alpha");
            for record in fake.0.models.values_mut().flat_map(|log| log.records.last_mut()) {
                record.status = status;
            }
        }
        fake
    }

    #[rstest]
    #[case::free(3, 503, 3, Holds::Yes)]
    #[case::charged(3, 503, 2, Holds::No)]
    #[case::answered_after_all(3, 200, 3, Holds::Unproven)]
    #[case::too_few(2, 503, 3, Holds::Unproven)]
    fn failed_request_free_is_judged(
        #[case] answers: usize,
        #[case] status: u16,
        #[case] admitted: u64,
        #[case] holds: Holds,
    ) {
        let fake = spent(before("tokens/failed-request-free", answers, status), "spend", budget::TELLING, admitted, 4);
        assert_eq!(verdict_of(judge_failed_request_free, &fake), holds);
    }

    #[rstest]
    #[case::free_as_declared(json!("free"), 3, Holds::Yes)]
    #[case::charged_though_declared_free(json!("free"), 2, Holds::No)]
    #[case::charged_as_declared(json!("charged"), 2, Holds::Yes)]
    #[case::free_without_a_word(json!(null), 3, Holds::No)]
    fn no_usage_reply_is_judged(#[case] declared: Value, #[case] admitted: u64, #[case] holds: Holds) {
        let fake = before("tokens/no-usage-reply", 3, 200).declares("no-usage-reply", declared);
        assert_eq!(verdict_of(judge_no_usage_reply, &spent(fake, "spend", budget::TELLING, admitted, 4)), holds);
    }

    #[rstest]
    #[case("spent > limit")]
    #[case("spent >= limit")]
    fn the_telling_budget_tells_a_token_each(#[case] rule: &str) {
        let admits = |left: u64| rule.parse::<budget::Rule>().map(|rule| rule.admits(left));
        assert_eq!((admits(budget::TELLING), admits(budget::TELLING - BEFORE)), (Ok(3), Ok(2)));
    }
}
