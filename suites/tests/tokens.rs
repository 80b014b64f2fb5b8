//! Token rate limiting: what a budget admits, to whom, for how long, and how a refusal looks.
//!
//! Arithmetic is judged only where the limiter marked every answer that matters, or the model's records prove them; what
//! passed unmarked is counted by `tokens/no-leak` alone. Real places use windows of a minute, begun in their first seconds.

mod charges;
mod coverage;
mod streams;

use std::path::PathBuf;

use anyhow::Result;
use rstest::rstest;
use serde_json::{Value, json};
use suites::{
    Call, Model, Stage,
    budget::{self, Budget, Rule},
    chat, check, proof,
};
use verdict::{history::History, judge::Judgement};

/// Requests sent beyond a spent budget by `tokens/no-leak`.
const BEYOND: usize = 200;

/// A route to one model with `tokens` a minute, for each user where users are told apart; the limit is live.
async fn limited(stage: &mut Stage, tokens: u64) -> Result<Model> {
    let alpha = stage.model("alpha").await?;
    stage.route_models(&[&alpha]).await?;
    stage.intent("limit-tokens", json!({"limits": [{"tokens": tokens, "unit": "Minute", "model": null}]})).await?;
    budget::settle(stage, "alpha").await?;
    Ok(alpha)
}

/// Sends what `user` needs to spend a budget of `tokens` with replies of 7, and a few more.
async fn spend(stage: &mut Stage, label: &str, user: &str, tokens: u64) {
    let host = stage.hostname().to_owned();
    repeat(stage, label, user, tokens.div_ceil(budget::REPLY) + 4, || chat(&host, "alpha")).await;
}

/// Sends such requests as `user`, each when the one before it is charged.
async fn repeat(stage: &mut Stage, label: &str, user: &str, times: u64, call: impl Fn() -> Call) {
    for _ in 0..times {
        budget::charged(stage).await;
        stage.send(label, budget::as_user(stage, call(), user)).await;
    }
}

#[rstest]
#[case::budget_70("budget-70")]
#[case::budget_75("budget-75")]
#[case::budget_14("budget-14")]
#[case::budget_7("budget-7")]
#[case::budget_1("budget-1")]
#[tokio::test]
async fn exact(#[case] case: &'static str, #[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("tokens/exact", case, &folder).observing(budget::observe).run(drive_exact, judge_exact).await;
}

fn tokens_of(case: &str) -> u64 {
    case.trim_start_matches("budget-").parse().unwrap_or(0)
}

async fn drive_exact(stage: &mut Stage) -> Result<()> {
    let tokens = tokens_of(stage.case());
    limited(stage, tokens).await?;
    budget::in_one_window(stage, "alpha", &["spend"], async |stage, user| {
        spend(stage, "spend", user, tokens).await;
        Ok(())
    })
    .await
}

fn judge_exact(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    let budget = Budget::of(history, "spend", tokens_of(&history.key.case));
    budget.judge_one_window(&mut judgement);
    budget.judge_admitted(&mut judgement);
    budget.judge_remaining(&mut judgement);
    judgement
}

#[rstest]
#[tokio::test]
async fn no_leak(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("tokens/no-leak", "-", &folder).observing(budget::observe_no_leak).run(drive_no_leak, judge_no_leak).await;
}

async fn drive_no_leak(stage: &mut Stage) -> Result<()> {
    limited(stage, 7).await?;
    budget::in_one_window(stage, "alpha", &["spend"], async |stage, user| {
        spend(stage, "spend", user, 7).await;
        let host = stage.hostname().to_owned();
        for _ in 0..BEYOND {
            stage.send("beyond", budget::as_user(stage, chat(&host, "alpha"), user)).await;
        }
        Ok(())
    })
    .await
}

fn judge_no_leak(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    let spent = history.labelled("spend").any(|e| e.status() == Some(budget::refusal(history)));
    if !spent {
        judgement.unproven("spent", "a refusal that shows the budget spent", "no request was refused while spending");
    }
    let beyond: Vec<_> = history.labelled("beyond").collect();
    if beyond.len() < BEYOND {
        judgement.unproven(
            "beyond",
            format!("{BEYOND} requests beyond the budget"),
            format!("{} were sent", beyond.len()),
        );
    }
    let leaked: Vec<_> = beyond.iter().copied().filter(|e| e.status() != Some(budget::refusal(history))).collect();
    let unmarked = leaked.iter().filter(|e| !budget::marked(history, e)).count();
    judgement.that(
        "refused-beyond-the-budget",
        leaked.is_empty(),
        format!("{} of {} refused", beyond.len(), beyond.len()),
        format!("{} of {} were not refused, {unmarked} of them without the limiter's mark", leaked.len(), beyond.len()),
        leaked.into_iter().take(5),
    );
    judgement
}

#[rstest]
#[tokio::test]
async fn per_user(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("tokens/per-user", "-", &folder).observing(budget::observe).run(drive_per_user, judge_per_user).await;
}

async fn drive_per_user(stage: &mut Stage) -> Result<()> {
    limited(stage, 14).await?;
    budget::in_one_window(stage, "alpha", &["first-user", "second-user", "first-user-again"], async |stage, user| {
        spend(stage, "first-user", user, 14).await;
        let host = stage.hostname().to_owned();
        let other = format!("{user}-other");
        for _ in 0..2 {
            budget::charged(stage).await;
            stage.send("second-user", budget::as_user(stage, chat(&host, "alpha"), &other)).await;
        }
        stage.send("first-user-again", budget::as_user(stage, chat(&host, "alpha"), user)).await;
        Ok(())
    })
    .await
}

fn judge_per_user(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    let first = Budget::of(history, "first-user", 14);
    first.judge_one_window(&mut judgement);
    first.judge_spent(&mut judgement);
    budget::judge_all(&mut judgement, history, "second-user", 200);
    budget::judge_all(&mut judgement, history, "first-user-again", budget::refusal(history));
    judgement
}

#[rstest]
#[tokio::test]
async fn per_model(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("tokens/per-model", "-", &folder).observing(budget::observe).run(drive_per_model, judge_per_model).await;
}

async fn drive_per_model(stage: &mut Stage) -> Result<()> {
    let models = stage.models(&["alpha", "beta"]).await?;
    stage.route_models(&models.iter().collect::<Vec<_>>()).await?;
    let limit = |model: &str| json!({"tokens": 14, "unit": "Minute", "model": model});
    stage.intent("limit-tokens", json!({"limits": [limit("alpha"), limit("beta")]})).await?;
    budget::settle(stage, "alpha").await?;
    budget::settle(stage, "beta").await?;
    budget::in_one_window(stage, "alpha", &["alpha", "beta", "alpha-again"], async |stage, user| {
        spend(stage, "alpha", user, 14).await;
        let host = stage.hostname().to_owned();
        for _ in 0..2 {
            budget::charged(stage).await;
            stage.send("beta", budget::as_user(stage, chat(&host, "beta"), user)).await;
        }
        stage.send("alpha-again", budget::as_user(stage, chat(&host, "alpha"), user)).await;
        Ok(())
    })
    .await
}

fn judge_per_model(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    let alpha = Budget::of(history, "alpha", 14);
    alpha.judge_one_window(&mut judgement);
    alpha.judge_spent(&mut judgement);
    budget::judge_all(&mut judgement, history, "beta", 200);
    budget::judge_all(&mut judgement, history, "alpha-again", budget::refusal(history));
    judgement
}

#[rstest]
#[tokio::test]
async fn no_user_id(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("tokens/no-user-id", "-", &folder).observing(budget::observe).run(drive_no_user_id, judge_no_user_id).await;
}

async fn drive_no_user_id(stage: &mut Stage) -> Result<()> {
    limited(stage, 7).await?;
    budget::in_one_window(stage, "alpha", &[], async |stage, _| {
        let host = stage.hostname().to_owned();
        for _ in 0..13 {
            stage.send("nobody", chat(&host, "alpha")).await;
        }
        Ok(())
    })
    .await
}

fn judge_no_user_id(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    let sent: Vec<_> = history.labelled("nobody").collect();
    let refused = sent.iter().filter(|e| e.status() == Some(budget::refusal(history))).count();
    let got = format!("{refused} of {} refused", sent.len());
    let declared = history.declared.get("without-identity").and_then(Value::as_str);
    match declared {
        Some("unlimited") if !sent.is_empty() => judgement.that(
            "as-declared",
            refused == 0,
            "requests without an identity are not limited (a finding)",
            got,
            sent,
        ),
        Some("limited") if !sent.is_empty() => {
            judgement.that("as-declared", refused > 0, "requests without an identity share a budget", got, sent)
        }
        _ => judgement.unproven("as-declared", "a declaration of what happens without an identity, and requests", got),
    };
    judgement
}

#[rstest]
#[tokio::test]
async fn shape_429(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("tokens/shape-429", "-", &folder).observing(budget::observe).run(drive_shape_429, judge_shape_429).await;
}

async fn drive_shape_429(stage: &mut Stage) -> Result<()> {
    limited(stage, 14).await?;
    budget::in_one_window(stage, "alpha", &["spend"], async |stage, user| {
        spend(stage, "spend", user, 14).await;
        Ok(())
    })
    .await
}

fn judge_shape_429(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    let budget = Budget::of(history, "spend", 14);
    budget.judge_one_window(&mut judgement);
    budget.judge_refusal_shape(&mut judgement);
    budget.judge_numbers(&mut judgement);
    judgement
}

#[rstest]
#[tokio::test]
async fn window(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("tokens/window", "-", &folder).observing(budget::observe).run(drive_window, judge_window).await;
}

async fn drive_window(stage: &mut Stage) -> Result<()> {
    limited(stage, 7).await?;
    budget::in_one_window(stage, "alpha", &["spend", "late-in-the-window", "next-window"], async |stage, user| {
        spend(stage, "spend", user, 7).await;
        let host = stage.hostname().to_owned();
        let ask = |stage: &Stage| budget::as_user(stage, chat(&host, "alpha"), user);
        stage.until_window(budget::reset(stage), -5.0).await;
        stage.send("late-in-the-window", ask(stage)).await;
        stage.until_window(budget::reset(stage), 1.0).await;
        stage.send("next-window", ask(stage)).await;
        Ok(())
    })
    .await
}

fn judge_window(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    let budget = Budget::of(history, "spend", 7);
    budget.judge_one_window(&mut judgement);
    budget.judge_spent(&mut judgement);
    budget::judge_all(&mut judgement, history, "late-in-the-window", budget::refusal(history));
    budget::judge_all(&mut judgement, history, "next-window", 200);
    budget::judge_length(&mut judgement, history);
    judgement
}

mod judges {
    use rstest::rstest;
    use suites::fake::{Fake, verdict_of};
    use verdict::judge::Holds;

    use super::*;

    pub(super) fn limited(check: &str, case: &str) -> Fake {
        Fake::of(check)
            .case(case)
            .declares("block-when", json!("spent > limit"))
            .declares("window-seconds", json!(60))
            .declares("identity-header", json!("x-user-id"))
            .declares("without-identity", json!("unlimited"))
            .declares("mark", json!("x-ratelimit-limit"))
            .declares("status", json!(429))
            .declares("body", json!("empty"))
            .declares("headers", json!(["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"]))
    }

    /// `admitted` replies of 7 tokens, then `refused` refusals, all marked, of a budget of `limit`.
    pub(super) fn spent(mut fake: Fake, label: &str, limit: u64, admitted: u64, refused: u64) -> Fake {
        for i in 0..admitted {
            fake = fake.admitted(label, limit, limit.saturating_sub(7 * i), 50);
        }
        for _ in 0..refused {
            fake = fake.limited(label, limit, 0, 50);
        }
        fake
    }

    #[rstest]
    #[case::seventy("budget-70", 11, 4, Holds::Yes)]
    #[case::seventy_and_at_least("budget-70", 10, 4, Holds::No)]
    #[case::seventy_never_blocked("budget-70", 14, 0, Holds::No)]
    #[case::seventy_one_more("budget-70", 12, 2, Holds::No)]
    #[case::seventy_five("budget-75", 11, 4, Holds::Yes)]
    #[case::fourteen("budget-14", 3, 3, Holds::Yes)]
    #[case::fourteen_too_few("budget-14", 2, 4, Holds::No)]
    #[case::seven("budget-7", 2, 3, Holds::Yes)]
    #[case::one("budget-1", 1, 4, Holds::Yes)]
    #[case::one_never("budget-1", 0, 5, Holds::No)]
    #[case::nothing("budget-70", 0, 0, Holds::Unproven)]
    fn exact_is_judged(#[case] case: &str, #[case] admitted: u64, #[case] refused: u64, #[case] holds: Holds) {
        let fake = spent(limited("tokens/exact", case), "spend", tokens_of(case), admitted, refused);
        assert_eq!(verdict_of(judge_exact, &fake), holds);
    }

    #[rstest]
    #[case::at_least_declared("spent >= limit", 10, Holds::Yes)]
    #[case::at_least_declared_but_more("spent >= limit", 11, Holds::No)]
    #[case::nothing_declared("", 11, Holds::Unproven)]
    fn exact_is_judged_by_the_declared_rule(#[case] rule: &str, #[case] admitted: u64, #[case] holds: Holds) {
        let fake =
            spent(limited("tokens/exact", "budget-70").declares("block-when", json!(rule)), "spend", 70, admitted, 4);
        assert_eq!(verdict_of(judge_exact, &fake), holds);
    }

    #[test]
    fn an_unmarked_answer_makes_the_arithmetic_unproven_unless_it_comes_out_all_the_same() {
        let unmarked = |admitted| {
            let fake = spent(limited("tokens/exact", "budget-70"), "spend", 70, admitted, 0).unmarked("spend", 200);
            spent(fake, "spend", 70, 0, 3)
        };
        assert_eq!(
            verdict_of(judge_exact, &unmarked(11)),
            Holds::Unproven,
            "12 passed, but one of them past the limiter"
        );
        assert_eq!(verdict_of(judge_exact, &unmarked(14)), Holds::No, "more than the unmarked one explains");
    }

    /// A budget that all requests share, in a gateway that marks refusals alone: so many replies with a record of the model.
    fn shared(check: &str, case: &str) -> Fake {
        Fake::of(check)
            .case(case)
            .declares("block-when", json!("spent >= limit"))
            .declares("window", json!("fixed-from-policy"))
            .declares("window-seconds", json!(60))
            .declares("mark", json!("x-ratelimit-limit"))
            .declares("marks", json!("refusals"))
            .declares("status", json!(429))
            .declares("body", json!("rate limit exceeded"))
            .model("alpha")
    }

    fn spent_by_all(fake: Fake, label: &str, limit: u64, admitted: u64, refused: u64) -> Fake {
        let fake = (0..admitted).fold(fake, |fake, _| fake.unmarked(label, 200).also_reached("alpha"));
        (0..refused).fold(fake, |fake, _| fake.limited(label, limit, 0, 50))
    }

    #[rstest]
    #[case::by_the_rule(10, 4, Holds::Yes)]
    #[case::one_more(11, 4, Holds::No)]
    #[case::one_less(9, 4, Holds::No)]
    #[case::never_blocked(14, 0, Holds::No)]
    fn what_the_limiter_does_not_mark_the_records_prove(
        #[case] admitted: u64,
        #[case] refused: u64,
        #[case] holds: Holds,
    ) {
        let fake = spent_by_all(shared("tokens/exact", "budget-70"), "spend", 70, admitted, refused);
        assert_eq!(verdict_of(judge_exact, &fake), holds);
        let expected = if holds == Holds::Yes { Holds::Unproven } else { holds };
        assert_eq!(verdict_of(judge_exact, &fake.without_marker("alpha")), expected, "no whole records, no proof");
    }

    #[rstest]
    #[case::no_record(|f: Fake| f.unmarked("spend", 200), Holds::No)]
    #[case::two_records(|f: Fake| f.unmarked("spend", 200).also_reached("alpha").also_reached("alpha"), Holds::No)]
    #[case::one_record(|f: Fake| f.unmarked("spend", 200).also_reached("alpha"), Holds::Yes)]
    fn each_reply_has_one_record(#[case] tenth: fn(Fake) -> Fake, #[case] holds: Holds) {
        let fake = tenth(spent_by_all(shared("tokens/exact", "budget-70"), "spend", 70, 9, 0));
        assert_eq!(verdict_of(judge_exact, &spent_by_all(fake, "spend", 70, 0, 4)), holds);
    }

    #[test]
    fn a_refusal_that_reached_the_model_is_none() {
        let fake = spent_by_all(shared("tokens/exact", "budget-70"), "spend", 70, 10, 3);
        assert_eq!(verdict_of(judge_exact, &fake.limited("spend", 70, 0, 50).also_reached("alpha")), Holds::No);
    }

    #[test]
    fn what_was_sent_before_the_window_began_is_of_another() {
        let at = |seconds| spent_by_all(shared("tokens/exact", "budget-70").from(seconds), "spend", 70, 10, 4);
        assert_eq!(verdict_of(judge_exact, &at(0.0)), Holds::Yes, "said to end 50 s after");
        let late = at(0.0).sent_later("spend", 10, 15.0);
        assert_eq!(verdict_of(judge_exact, &late), Holds::Unproven, "a window that ends at 65 s began at 5 s");
    }

    #[rstest]
    #[case::a_minute(20.0, Holds::Yes)]
    #[case::half_a_minute(50.0, Holds::No)]
    fn a_window_is_measured_from_the_end_of_the_one_before(#[case] before: f64, #[case] holds: Holds) {
        // The refusal of the preparation says that its window ends 50 s after it, the drive's own ends at 130 s.
        let fake = shared("tokens/window", "-").prepared_refusal(before, 7, 50).from(80.0);
        let fake = spent_by_all(fake, "spend", 7, 1, 3).limited("late-in-the-window", 7, 0, 50);
        let fake = fake.unmarked("next-window", 200).also_reached("alpha");
        assert_eq!(verdict_of(judge_window, &fake), holds);
    }

    #[test]
    fn a_window_without_a_refusal_before_it_is_not_measured() {
        let fake = spent_by_all(shared("tokens/window", "-"), "spend", 7, 1, 3).limited("late-in-the-window", 7, 0, 50);
        assert_eq!(verdict_of(judge_window, &fake.unmarked("next-window", 200).also_reached("alpha")), Holds::Unproven);
    }

    #[rstest]
    #[case::refused(0, Holds::Yes)]
    #[case::a_leak(1, Holds::No)]
    fn a_leak_is_a_leak_without_marks_too(#[case] leaks: usize, #[case] holds: Holds) {
        let fake = spent_by_all(shared("tokens/no-leak", "-"), "spend", 7, 1, 4);
        let fake = (0..leaks).fold(fake, |fake, _| fake.unmarked("beyond", 200).also_reached("alpha"));
        assert_eq!(verdict_of(judge_no_leak, &(leaks..BEYOND).fold(fake, |f, _| f.limited("beyond", 7, 0, 40))), holds);
    }

    #[rstest]
    #[case::good("rate limit exceeded", Holds::Yes)]
    #[case::empty("", Holds::No)]
    fn numbers_of_refusals_alone_are_judged(#[case] body: &str, #[case] holds: Holds) {
        let fake = spent_by_all(shared("tokens/shape-429", "-"), "spend", 14, 2, 0);
        let headers = [("x-ratelimit-limit", "14"), ("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "49")];
        assert_eq!(verdict_of(judge_shape_429, &fake.answer("spend", 429, &headers, body)), holds);
    }

    #[test]
    fn a_turned_window_is_unproven() {
        let fake = spent(limited("tokens/exact", "budget-70"), "spend", 70, 6, 0).admitted("spend", 70, 70, 60);
        assert_eq!(verdict_of(judge_exact, &spent(fake, "spend", 70, 5, 4)), Holds::Unproven);
    }

    #[rstest]
    #[case::tight(0, 0, Holds::Yes)]
    #[case::one_unmarked(1, 0, Holds::No)]
    #[case::one_marked(0, 1, Holds::No)]
    fn no_leak_is_judged(#[case] unmarked: usize, #[case] marked: usize, #[case] holds: Holds) {
        let mut fake = spent(limited("tokens/no-leak", "-"), "spend", 7, 2, 3);
        for _ in 0..unmarked {
            fake = fake.unmarked("beyond", 200);
        }
        for _ in 0..marked {
            fake = fake.admitted("beyond", 7, 0, 40);
        }
        for _ in unmarked + marked..BEYOND {
            fake = fake.limited("beyond", 7, 0, 40);
        }
        assert_eq!(verdict_of(judge_no_leak, &fake), holds);
    }

    #[test]
    fn no_leak_needs_a_spent_budget_and_all_requests() {
        assert_eq!(
            verdict_of(
                judge_no_leak,
                &spent(limited("tokens/no-leak", "-"), "spend", 7, 2, 3).limited("beyond", 7, 0, 40)
            ),
            Holds::Unproven
        );
        assert_eq!(verdict_of(judge_no_leak, &limited("tokens/no-leak", "-")), Holds::Unproven);
    }

    #[rstest]
    #[case::apart(200, 429, Holds::Yes)]
    #[case::one_budget_for_all(429, 429, Holds::No)]
    #[case::refilled_by_the_other(200, 200, Holds::No)]
    fn per_user_is_judged(#[case] other: u16, #[case] again: u16, #[case] holds: Holds) {
        let mut fake = spent(limited("tokens/per-user", "-"), "first-user", 14, 3, 2);
        for _ in 0..2 {
            fake = if other == 200 {
                fake.admitted("second-user", 14, 14, 40)
            } else {
                fake.limited("second-user", 14, 0, 40)
            };
        }
        fake = if again == 200 {
            fake.admitted("first-user-again", 14, 14, 40)
        } else {
            fake.limited("first-user-again", 14, 0, 40)
        };
        assert_eq!(verdict_of(judge_per_user, &fake), holds);
    }

    #[rstest]
    #[case::apart(true, Holds::Yes)]
    #[case::one_budget(false, Holds::No)]
    fn per_model_is_judged(#[case] apart: bool, #[case] holds: Holds) {
        let fake = spent(limited("tokens/per-model", "-"), "alpha", 14, 3, 2);
        let fake = if apart { fake.admitted("beta", 14, 14, 40) } else { fake.limited("beta", 14, 0, 40) };
        assert_eq!(verdict_of(judge_per_model, &fake.limited("alpha-again", 14, 0, 40)), holds);
    }

    #[rstest]
    #[case::unlimited("unlimited", 0, Holds::Yes)]
    #[case::declared_otherwise("limited", 0, Holds::No)]
    #[case::limited("limited", 5, Holds::Yes)]
    #[case::limited_though_not_declared("unlimited", 5, Holds::No)]
    fn no_user_id_is_judged(#[case] declared: &str, #[case] refused: u64, #[case] holds: Holds) {
        let mut fake = limited("tokens/no-user-id", "-").declares("without-identity", json!(declared));
        for _ in 0..8 {
            fake = fake.unmarked("nobody", 200);
        }
        for _ in 0..refused {
            fake = fake.limited("nobody", 7, 0, 40);
        }
        assert_eq!(verdict_of(judge_no_user_id, &fake), holds);
    }

    fn with_429(headers: &[(&str, &str)], status: u16, body: &str) -> Fake {
        let fake = spent(limited("tokens/shape-429", "-"), "spend", 14, 3, 0);
        fake.answer("spend", status, headers, body)
    }

    const GOOD: &[(&str, &str)] = &[
        ("x-ratelimit-limit", "14, 14;w=60"),
        ("x-ratelimit-remaining", "0"),
        ("x-ratelimit-reset", "49"),
        ("content-length", "0"),
    ];

    #[rstest]
    #[case::good(with_429(GOOD, 429, ""), Holds::Yes)]
    #[case::no_refusal(spent(limited("tokens/shape-429", "-"), "spend", 14, 3, 0), Holds::Unproven)]
    #[case::never_a_refusal(spent(limited("tokens/shape-429", "-"), "spend", 14, 5, 0), Holds::No)]
    #[case::a_refusal_that_is_called_200(with_429(GOOD, 200, "").answer("spend", 200, GOOD, "").answer("spend", 200, GOOD, ""), Holds::No)]
    #[case::with_a_body(with_429(GOOD, 429, "slow down"), Holds::No)]
    #[case::without_reset(with_429(&[("x-ratelimit-limit", "14, 14;w=60"), ("x-ratelimit-remaining", "0")], 429, ""), Holds::No)]
    #[case::negative(with_429(&[("x-ratelimit-limit", "14, 14;w=60"), ("x-ratelimit-remaining", "-3"), ("x-ratelimit-reset", "49")], 429, ""), Holds::No)]
    #[case::remaining_at_refusal(with_429(&[("x-ratelimit-limit", "14, 14;w=60"), ("x-ratelimit-remaining", "9"), ("x-ratelimit-reset", "49")], 429, ""), Holds::No)]
    #[case::other_limit(with_429(&[("x-ratelimit-limit", "15, 15;w=60"), ("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "49")], 429, ""), Holds::No)]
    #[case::reset_beyond_the_window(with_429(&[("x-ratelimit-limit", "14, 14;w=60"), ("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "500")], 429, ""), Holds::No)]
    fn shape_429_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_shape_429, &fake), holds);
    }

    #[test]
    fn remaining_must_not_rise() {
        let fake = limited("tokens/shape-429", "-")
            .admitted("spend", 14, 7, 50)
            .admitted("spend", 14, 14, 50)
            .limited("spend", 14, 0, 50);
        assert_eq!(verdict_of(judge_shape_429, &fake), Holds::No);
    }

    #[rstest]
    #[case::as_declared(429, 200, 58.0, json!(6000), Holds::Yes)]
    #[case::early(200, 200, 58.0, json!(6000), Holds::No)]
    #[case::never(429, 429, 58.0, json!(6000), Holds::No)]
    #[case::longer_than_declared(429, 200, 300.0, json!(6000), Holds::No)]
    #[case::begins_elsewhere(429, 200, 58.0, json!(6031), Holds::No)]
    #[case::no_date(429, 200, 58.0, Value::Null, Holds::Unproven)]
    fn window_is_judged(
        #[case] late: u16,
        #[case] next: u16,
        #[case] reset: f64,
        #[case] end: Value,
        #[case] holds: Holds,
    ) {
        let fake = spent(limited("tokens/window", "-"), "spend", 7, 2, 3).declares("window", json!("fixed-unix"));
        let fake = fake.fact("reset-seconds", json!(reset)).fact("window-end-unix", end);
        let fake = if late == 200 {
            fake.admitted("late-in-the-window", 7, 7, 5)
        } else {
            fake.limited("late-in-the-window", 7, 0, 5)
        };
        let fake =
            if next == 200 { fake.admitted("next-window", 7, 7, 59) } else { fake.limited("next-window", 7, 0, 59) };
        assert_eq!(verdict_of(judge_window, &fake), holds);
    }

    #[rstest]
    #[case("spent > limit", 70, 11)]
    #[case("spent >= limit", 70, 10)]
    #[case("spent >= limit", 75, 11)]
    #[case("spent > limit", 1, 1)]
    fn admitted_by_rule(#[case] rule: &str, #[case] limit: u64, #[case] admitted: u64) {
        assert_eq!(rule.parse::<Rule>().map(|r| r.admits(limit)), Ok(admitted));
    }
}
