//! Token rate limiting: what a budget admits, to whom, for how long, and how a refusal looks.
//!
//! Arithmetic is judged only where the limiter marked every answer that matters, or the model's records prove them; what
//! passed unmarked is counted by `tokens/no-leak` alone. Real places use windows of a minute, begun in their first seconds.

mod charges;
mod coverage;
mod streams;

use anyhow::Result;
use serde_json::json;
use suites::{
    CHECK, Call, Check, Judge, Model, Stage,
    budget::{self, Budget},
    chat, check,
};
use verdict::{
    capability::{self, TokenLimit, WithoutIdentity},
    history::Exchange,
    plan::Level,
};

const LIMIT: Check = Check { capability: Some(capability::TOKEN_LIMIT), observe: budget::observe, ..CHECK };

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
async fn spend(stage: &mut Stage, label: &str, user: &str, tokens: u64) -> Result<()> {
    repeat(stage, label, user, tokens.div_ceil(budget::REPLY) + 4, || chat("alpha")).await
}

/// Sends such requests as `user`, each when the one before it is charged.
async fn repeat(stage: &mut Stage, label: &str, user: &str, times: u64, call: impl Fn() -> Call) -> Result<()> {
    for _ in 0..times {
        budget::charged(stage).await;
        stage.send(label, budget::as_user(stage, call(), user)?).await;
    }
    Ok(())
}

check!(
    tokens / exact(budget_70, budget_75, budget_14, budget_7, budget_1),
    drive_exact,
    judge_exact,
    Check {
        sentence: "a budget admits exactly the replies that the declared rule allows, then refuses",
        source: "guide 002, rate limiting; the gateway's declared rule",
        how: "Spends the case's tokens a minute with replies of 7 tokens inside one window; counts the replies before the first \
              refusal, and compares what the limiter says is left with what was used.",
        model: None,
        kills: &["off-by-one-limit", "charges-before", "charges-requests"],
        ..LIMIT
    }
);

fn tokens_of(case: &str) -> u64 {
    case.trim_start_matches("budget-").parse().unwrap_or(0)
}

async fn drive_exact(stage: &mut Stage) -> Result<()> {
    let tokens = tokens_of(stage.case());
    limited(stage, tokens).await?;
    budget::in_one_window(stage, "alpha", &["spend"], async |stage, user| spend(stage, "spend", user, tokens).await)
        .await
}

fn judge_exact(judge: &mut Judge<'_>) {
    let Some(budget) = Budget::of(judge, "spend", tokens_of(judge.case())) else { return };
    budget.judge_one_window(judge);
    budget.judge_admitted(judge);
    budget.judge_remaining(judge);
}

check!(
    tokens / no_leak,
    drive_no_leak,
    judge_no_leak,
    Check {
        sentence: "no request is answered beyond the budget",
        source: "guide 002, rate limiting",
        how: "Spends a budget of 7 tokens, then sends 200 requests more inside the same window; each of them has to be refused, \
              also where the limiter did not see it.",
        model: None,
        kills: &["never-blocks", "fails-open-one-in-ten"],
        counts_every_answer: true,
        observe: budget::observe_no_leak,
        ..LIMIT
    }
);

async fn drive_no_leak(stage: &mut Stage) -> Result<()> {
    limited(stage, 7).await?;
    budget::in_one_window(stage, "alpha", &["spend"], async |stage, user| {
        spend(stage, "spend", user, 7).await?;
        for _ in 0..BEYOND {
            stage.send("beyond", budget::as_user(stage, chat("alpha"), user)?).await;
        }
        Ok(())
    })
    .await
}

fn judge_no_leak(judge: &mut Judge<'_>) {
    let Some(limit) = judge.declared::<TokenLimit>() else { return };
    let is_refused = |e: &&Exchange| e.status() == Some(limit.status);
    if !judge.labelled("spend").iter().any(is_refused) {
        let statement = judge.clause("spent").expected("a refusal that shows the budget spent");
        statement.unproven("no request was refused while spending");
    }
    let beyond = judge.labelled("beyond");
    if beyond.len() < BEYOND {
        let statement = judge.clause("beyond").expected(format!("{BEYOND} requests beyond the budget"));
        statement.unproven(format!("{} were sent", beyond.len()));
    }
    let leaked: Vec<&Exchange> = beyond.iter().copied().filter(|e| !is_refused(e)).collect();
    let (sent, leaks) = (beyond.len(), leaked.len());
    let unmarked = leaked.iter().filter(|e| !budget::marked(&limit, e)).count();
    judge
        .clause("refused-beyond-the-budget")
        .expected(format!("{sent} of {sent} refused"))
        .got(format!("{leaks} of {sent} were not refused, {unmarked} of them without the limiter's mark"))
        .shown_by(leaked.into_iter().take(5))
        .holds(leaks == 0);
}

check!(
    tokens / per_user,
    drive_per_user,
    judge_per_user,
    Check {
        sentence: "a user whose budget is spent is refused while another is admitted",
        source: "guide 001 and 002, budget per x-user-id",
        how: "Spends one user's 14 tokens, then sends two requests of another user and one more of the first, all inside one \
              window.",
        capability: Some(capability::TOKEN_LIMIT_PER_USER),
        model: None,
        kills: &["charges-per-gateway"],
        ..LIMIT
    }
);

async fn drive_per_user(stage: &mut Stage) -> Result<()> {
    limited(stage, 14).await?;
    budget::in_one_window(stage, "alpha", &["first-user", "second-user", "first-user-again"], async |stage, user| {
        spend(stage, "first-user", user, 14).await?;
        repeat(stage, "second-user", &format!("{user}-other"), 2, || chat("alpha")).await?;
        stage.send("first-user-again", budget::as_user(stage, chat("alpha"), user)?).await;
        Ok(())
    })
    .await
}

fn judge_per_user(judge: &mut Judge<'_>) {
    let Some(first) = Budget::of(judge, "first-user", 14) else { return };
    first.judge_one_window(judge);
    first.judge_spent(judge);
    budget::judge_all(judge, "second-user", "second-user", 200);
    budget::judge_all_refused(judge, "first-user-again", "first-user-again");
}

check!(
    tokens / per_model,
    drive_per_model,
    judge_per_model,
    Check {
        sentence: "a user's budget for one model is not spent by another model",
        source: "guide 002, \"both user and model identifiers\"",
        how: "Spends a user's 14 tokens for one model, then sends the same user's requests for another model and one more for the \
              first, all inside one window.",
        capability: Some(capability::TOKEN_LIMIT_PER_MODEL),
        model: None,
        kills: &["charges-per-user-only"],
        ..LIMIT
    }
);

async fn drive_per_model(stage: &mut Stage) -> Result<()> {
    let models = stage.models(&["alpha", "beta"]).await?;
    stage.route_models(&models.iter().collect::<Vec<_>>()).await?;
    let limit = |model: &str| json!({"tokens": 14, "unit": "Minute", "model": model});
    stage.intent("limit-tokens", json!({"limits": [limit("alpha"), limit("beta")]})).await?;
    budget::settle(stage, "alpha").await?;
    budget::settle(stage, "beta").await?;
    budget::in_one_window(stage, "alpha", &["alpha", "beta", "alpha-again"], async |stage, user| {
        spend(stage, "alpha", user, 14).await?;
        repeat(stage, "beta", user, 2, || chat("beta")).await?;
        stage.send("alpha-again", budget::as_user(stage, chat("alpha"), user)?).await;
        Ok(())
    })
    .await
}

fn judge_per_model(judge: &mut Judge<'_>) {
    let Some(alpha) = Budget::of(judge, "alpha", 14) else { return };
    alpha.judge_one_window(judge);
    alpha.judge_spent(judge);
    budget::judge_all(judge, "beta", "beta", 200);
    budget::judge_all_refused(judge, "alpha-again", "alpha-again");
}

check!(
    tokens / no_user_id,
    drive_no_user_id,
    judge_no_user_id,
    Check {
        level: Level::Info,
        sentence: "without the identity header requests are limited or not, as declared",
        source: "guide 002, x-user-id",
        how: "Sends 13 requests that name no user to a route with 7 tokens a minute for each, and looks whether any is refused.",
        capability: Some(capability::TOKEN_LIMIT_PER_USER),
        model: None,
        ..LIMIT
    }
);

async fn drive_no_user_id(stage: &mut Stage) -> Result<()> {
    limited(stage, 7).await?;
    budget::in_one_window(stage, "alpha", &[], async |stage, _| {
        for _ in 0..13 {
            stage.send("nobody", chat("alpha")).await;
        }
        Ok(())
    })
    .await
}

fn judge_no_user_id(judge: &mut Judge<'_>) {
    let Some(limit) = judge.declared::<TokenLimit>() else { return };
    let sent = judge.labelled("nobody");
    let refused = sent.iter().filter(|e| e.status() == Some(limit.status)).count();
    let got = format!("{refused} of {} refused", sent.len());
    let statement = judge.clause("as-declared");
    match limit.without_identity.filter(|_| !sent.is_empty()) {
        Some(WithoutIdentity::Unlimited) => {
            let statement = statement.expected("requests without an identity are not limited (a finding)");
            statement.got(got).shown_by(sent).holds(refused == 0);
        }
        Some(WithoutIdentity::Limited) => {
            let statement = statement.expected("requests without an identity share a budget");
            statement.got(got).shown_by(sent).holds(refused > 0);
        }
        None => {
            let statement = statement.expected("a declaration of what happens without an identity, and requests");
            statement.unproven(got);
        }
    }
}

check!(
    tokens / shape_429,
    drive_shape_429,
    judge_shape_429,
    Check {
        sentence: "a refusal has the declared status, body and headers, and the numbers in them agree with each other",
        source: "the gateway's declaration; RateLimit header fields draft 03",
        how: "Spends a budget of 14 tokens; looks at status, body and headers of every refusal, and at the limiter's numbers in \
              every answer that has them.",
        model: None,
        kills: &["429-without-headers", "429-as-200", "remaining-rises"],
        ..LIMIT
    }
);

async fn drive_shape_429(stage: &mut Stage) -> Result<()> {
    limited(stage, 14).await?;
    budget::in_one_window(stage, "alpha", &["spend"], async |stage, user| spend(stage, "spend", user, 14).await).await
}

fn judge_shape_429(judge: &mut Judge<'_>) {
    let Some(budget) = Budget::of(judge, "spend", 14) else { return };
    budget.judge_one_window(judge);
    budget.judge_refusal_shape(judge);
    budget.judge_numbers(judge);
}

check!(
    tokens / window,
    drive_window,
    judge_window,
    Check {
        sentence: "a spent budget stays spent until its window ends, and is whole again after it",
        source: "the gateway's declaration of its window",
        how: "Spends a budget of 7 tokens, asks once more 5 s before the window ends and once after it, and measures the window by \
              what the limiter says of its end.",
        model: None,
        kills: &["window-slides", "refills-early", "never-refills"],
        ..LIMIT
    }
);

async fn drive_window(stage: &mut Stage) -> Result<()> {
    limited(stage, 7).await?;
    budget::in_one_window(stage, "alpha", &["spend", "late-in-the-window", "next-window"], async |stage, user| {
        spend(stage, "spend", user, 7).await?;
        stage.until_window(budget::reset(stage), -5.0).await;
        stage.send("late-in-the-window", budget::as_user(stage, chat("alpha"), user)?).await;
        stage.until_window(budget::reset(stage), 1.0).await;
        stage.send("next-window", budget::as_user(stage, chat("alpha"), user)?).await;
        Ok(())
    })
    .await
}

fn judge_window(judge: &mut Judge<'_>) {
    let Some(budget) = Budget::of(judge, "spend", 7) else { return };
    budget.judge_one_window(judge);
    budget.judge_spent(judge);
    budget::judge_all_refused(judge, "late-in-the-window", "late-in-the-window");
    budget::judge_all(judge, "next-window", "next-window", 200);
    budget::judge_length(judge);
}

mod judges {
    use rstest::rstest;
    use serde_json::Value;
    use suites::fake::{Fake, shared_token_limit, token_limit};
    use verdict::{capability::Rule, judge::Holds};

    use super::*;

    pub(super) fn limited(check: &str, case: &str) -> Fake {
        Fake::of(check).case(case).declares(token_limit())
    }

    /// The same where a parameter is declared otherwise, also as it cannot be.
    pub(super) fn limited_with(check: &str, case: &str, parameter: &str, value: Value) -> Fake {
        let mut declared = json!(token_limit());
        declared[parameter] = value;
        Fake::of(check).case(case).declares(declared)
    }

    /// `admitted` replies of 7 tokens, then `refused` refusals, all marked, of a budget of `limit`.
    pub(super) fn spent(fake: Fake, label: &str, limit: u64, admitted: u64, refused: u64) -> Fake {
        let left = |i| limit.saturating_sub(7 * i);
        let fake = (0..admitted).fold(fake, |fake, i| fake.admitted(label, limit, left(i), 50));
        (0..refused).fold(fake, |fake, _| fake.limited(label, limit, 0, 50))
    }

    pub(super) fn asked(fake: Fake, label: &str, limit: u64, status: u16) -> Fake {
        if status == 200 { fake.admitted(label, limit, limit, 50) } else { fake.limited(label, limit, 0, 50) }
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
        assert_eq!(fake.verdict(), holds);
    }

    #[rstest]
    #[case::at_least_declared("spent >= limit", 10, Holds::Yes)]
    #[case::at_least_declared_but_more("spent >= limit", 11, Holds::No)]
    #[case::nothing_declared("", 11, Holds::Unproven)]
    fn exact_is_judged_by_the_declared_rule(#[case] rule: &str, #[case] admitted: u64, #[case] holds: Holds) {
        let fake = limited_with("tokens/exact", "budget-70", "block-when", json!(rule));
        let fake = spent(fake, "spend", 70, admitted, 4);
        assert_eq!(fake.verdict(), holds);
    }

    #[test]
    fn an_unmarked_answer_makes_the_arithmetic_unproven_unless_it_comes_out_all_the_same() {
        let unmarked = |admitted| {
            let fake = spent(limited("tokens/exact", "budget-70"), "spend", 70, admitted, 0).unmarked("spend", 200);
            spent(fake, "spend", 70, 0, 3)
        };
        assert_eq!(unmarked(11).verdict(), Holds::Unproven, "12 passed, but one of them past the limiter");
        assert_eq!(unmarked(14).verdict(), Holds::No, "more than the unmarked one explains");
    }

    /// A budget that all requests share, in a gateway that marks refusals alone: so many replies with a record of the model.
    fn shared(check: &str, case: &str) -> Fake {
        Fake::of(check).case(case).declares(shared_token_limit()).model("alpha")
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
        assert_eq!(fake.verdict(), holds);
        let expected = if holds == Holds::Yes { Holds::Unproven } else { holds };
        assert_eq!(fake.without_marker("alpha").verdict(), expected, "no whole records, no proof");
    }

    #[rstest]
    #[case::no_record(|f: Fake| f.unmarked("spend", 200), Holds::No)]
    #[case::two_records(|f: Fake| f.unmarked("spend", 200).also_reached("alpha").also_reached("alpha"), Holds::No)]
    #[case::one_record(|f: Fake| f.unmarked("spend", 200).also_reached("alpha"), Holds::Yes)]
    fn each_reply_has_one_record(#[case] tenth: fn(Fake) -> Fake, #[case] holds: Holds) {
        let fake = tenth(spent_by_all(shared("tokens/exact", "budget-70"), "spend", 70, 9, 0));
        assert_eq!(spent_by_all(fake, "spend", 70, 0, 4).verdict(), holds);
    }

    #[test]
    fn a_refusal_that_reached_the_model_is_none() {
        let fake = spent_by_all(shared("tokens/exact", "budget-70"), "spend", 70, 10, 3);
        assert_eq!(fake.limited("spend", 70, 0, 50).also_reached("alpha").verdict(), Holds::No);
    }

    #[test]
    fn what_was_sent_before_the_window_began_is_of_another() {
        let at = |seconds| spent_by_all(shared("tokens/exact", "budget-70").from(seconds), "spend", 70, 10, 4);
        assert_eq!(at(0.0).verdict(), Holds::Yes, "said to end 50 s after");
        let late = at(0.0).sent_later("spend", 10, 15.0);
        assert_eq!(late.verdict(), Holds::Unproven, "a window that ends at 65 s began at 5 s");
    }

    #[rstest]
    #[case::a_minute(20.0, Holds::Yes)]
    #[case::half_a_minute(50.0, Holds::No)]
    fn a_window_is_measured_from_the_end_of_the_one_before(#[case] before: f64, #[case] holds: Holds) {
        // The refusal of the preparation says that its window ends 50 s after it, the drive's own ends at 130 s.
        let fake = shared("tokens/window", "-").prepared_refusal(before, 7, 50).from(80.0);
        let fake = spent_by_all(fake, "spend", 7, 1, 3).limited("late-in-the-window", 7, 0, 50);
        let fake = fake.unmarked("next-window", 200).also_reached("alpha");
        assert_eq!(fake.verdict(), holds);
    }

    #[test]
    fn a_window_without_a_refusal_before_it_is_not_measured() {
        let fake = spent_by_all(shared("tokens/window", "-"), "spend", 7, 1, 3).limited("late-in-the-window", 7, 0, 50);
        assert_eq!(fake.unmarked("next-window", 200).also_reached("alpha").verdict(), Holds::Unproven);
    }

    #[rstest]
    #[case::refused(0, Holds::Yes)]
    #[case::a_leak(1, Holds::No)]
    fn a_leak_is_a_leak_without_marks_too(#[case] leaks: usize, #[case] holds: Holds) {
        let fake = spent_by_all(shared("tokens/no-leak", "-"), "spend", 7, 1, 4);
        let fake = (0..leaks).fold(fake, |fake, _| fake.unmarked("beyond", 200).also_reached("alpha"));
        assert_eq!((leaks..BEYOND).fold(fake, |f, _| f.limited("beyond", 7, 0, 40)).verdict(), holds);
    }

    #[rstest]
    #[case::good("rate limit exceeded", Holds::Yes)]
    #[case::empty("", Holds::No)]
    fn numbers_of_refusals_alone_are_judged(#[case] body: &str, #[case] holds: Holds) {
        let fake = spent_by_all(shared("tokens/shape-429", "-"), "spend", 14, 2, 0);
        let headers = [("x-ratelimit-limit", "14"), ("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "49")];
        assert_eq!(fake.answer("spend", 429, &headers, body).verdict(), holds);
    }

    #[test]
    fn a_turned_window_is_unproven() {
        let fake = spent(limited("tokens/exact", "budget-70"), "spend", 70, 6, 0).admitted("spend", 70, 70, 60);
        assert_eq!(spent(fake, "spend", 70, 5, 4).verdict(), Holds::Unproven);
    }

    #[rstest]
    #[case::tight(0, 0, Holds::Yes)]
    #[case::one_unmarked(1, 0, Holds::No)]
    #[case::one_marked(0, 1, Holds::No)]
    fn no_leak_is_judged(#[case] unmarked: usize, #[case] marked: usize, #[case] holds: Holds) {
        let fake = spent(limited("tokens/no-leak", "-"), "spend", 7, 2, 3);
        let fake = fake.times(unmarked, |fake, _| fake.unmarked("beyond", 200));
        let fake = fake.times(marked, |fake, _| asked(fake, "beyond", 7, 200));
        let fake = fake.times(BEYOND - unmarked - marked, |fake, _| asked(fake, "beyond", 7, 429));
        assert_eq!(fake.verdict(), holds);
    }

    #[test]
    fn no_leak_needs_a_spent_budget_and_all_requests() {
        assert_eq!(
            spent(limited("tokens/no-leak", "-"), "spend", 7, 2, 3).limited("beyond", 7, 0, 40).verdict(),
            Holds::Unproven
        );
        assert_eq!(limited("tokens/no-leak", "-").verdict(), Holds::Unproven);
    }

    #[rstest]
    #[case::apart(200, 429, Holds::Yes)]
    #[case::one_budget_for_all(429, 429, Holds::No)]
    #[case::refilled_by_the_other(200, 200, Holds::No)]
    fn per_user_is_judged(#[case] other: u16, #[case] again: u16, #[case] holds: Holds) {
        let fake = spent(limited("tokens/per-user", "-"), "first-user", 14, 3, 2);
        let fake = fake.times(2, |fake, _| asked(fake, "second-user", 14, other));
        assert_eq!(asked(fake, "first-user-again", 14, again).verdict(), holds);
    }

    #[rstest]
    #[case::apart(200, Holds::Yes)]
    #[case::one_budget(429, Holds::No)]
    fn per_model_is_judged(#[case] other: u16, #[case] holds: Holds) {
        let fake = spent(limited("tokens/per-model", "-"), "alpha", 14, 3, 2);
        assert_eq!(asked(asked(fake, "beta", 14, other), "alpha-again", 14, 429).verdict(), holds);
    }

    #[rstest]
    #[case::unlimited("unlimited", 0, Holds::Yes)]
    #[case::declared_otherwise("limited", 0, Holds::No)]
    #[case::limited("limited", 5, Holds::Yes)]
    #[case::limited_though_not_declared("unlimited", 5, Holds::No)]
    fn no_user_id_is_judged(#[case] declared: &str, #[case] refused: usize, #[case] holds: Holds) {
        let fake = limited_with("tokens/no-user-id", "-", "without-identity", json!(declared));
        let fake = fake.times(8, |fake, _| fake.unmarked("nobody", 200));
        let fake = fake.times(refused, |fake, _| fake.limited("nobody", 7, 0, 40));
        assert_eq!(fake.verdict(), holds);
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
        assert_eq!(fake.verdict(), holds);
    }

    #[test]
    fn a_refusal_has_each_declared_header() {
        let fake = limited_with("tokens/shape-429", "-", "headers", json!(["x-ratelimit-limit", "retry-after"]));
        assert_eq!(spent(fake, "spend", 14, 3, 1).verdict(), Holds::No);
    }

    #[test]
    fn remaining_must_not_rise() {
        let fake = limited("tokens/shape-429", "-")
            .admitted("spend", 14, 7, 50)
            .admitted("spend", 14, 14, 50)
            .limited("spend", 14, 0, 50);
        assert_eq!(fake.verdict(), Holds::No);
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
        let fake = spent(limited("tokens/window", "-"), "spend", 7, 2, 3);
        let fake = fake.fact("reset-seconds", json!(reset)).fact("window-end-unix", end);
        let fake = asked(asked(fake, "late-in-the-window", 7, late), "next-window", 7, next);
        assert_eq!(fake.verdict(), holds);
    }

    #[rstest]
    #[case(Rule::Over, 70, 11)]
    #[case(Rule::AtLeast, 70, 10)]
    #[case(Rule::AtLeast, 75, 11)]
    #[case(Rule::Over, 1, 1)]
    fn admitted_by_rule(#[case] rule: Rule, #[case] limit: u64, #[case] admitted: u64) {
        assert_eq!(budget::admits(rule, limit, budget::REPLY), admitted);
    }
}
