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

/// Any model serves: one given by hand, else our own, whose records show what was used.
const ANY_MODEL: Check = Check { model: None, usual_model: Some("echo"), ..LIMIT };

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
        stage.send(label, budget::as_user(stage, call(), user)?).await?;
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
        kills: &[
            "off-by-one-limit",
            "charges-before",
            "charges-requests",
            "leaves-answers-unmarked",
            "says-that-windows-end-soon",
        ],
        ..ANY_MODEL
    }
);

fn tokens_of(case: &str) -> u64 {
    case.trim_start_matches("budget-").parse().unwrap_or(0)
}

async fn drive_exact(stage: &mut Stage) -> Result<()> {
    let tokens = tokens_of(stage.case());
    spend_all(stage, tokens).await
}

/// Spends a budget of `tokens` in one window; the answers are labelled `spend`.
async fn spend_all(stage: &mut Stage, tokens: u64) -> Result<()> {
    limited(stage, tokens).await?;
    budget::in_one_window(stage, "alpha", &["spend"], async |stage, user| spend(stage, "spend", user, tokens).await)
        .await
}

fn judge_exact(judge: &mut Judge<'_>) {
    let Some(budget) = Budget::of(judge, "spend", tokens_of(judge.case())) else { return };
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
        kills: &["never-blocks", "fails-open-one-in-ten"],
        counts_every_answer: true,
        observe: budget::observe_no_leak,
        ..ANY_MODEL
    }
);

async fn drive_no_leak(stage: &mut Stage) -> Result<()> {
    limited(stage, 7).await?;
    budget::in_one_window(stage, "alpha", &["spend"], async |stage, user| {
        spend(stage, "spend", user, 7).await?;
        let call = budget::as_user(stage, chat("alpha"), user)?;
        stage.send_in_turn(BEYOND, &[("beyond", call)]).await
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
        kills: &["charges-per-gateway"],
        ..ANY_MODEL
    }
);

async fn drive_per_user(stage: &mut Stage) -> Result<()> {
    limited(stage, 14).await?;
    budget::in_one_window(stage, "alpha", &["first-user", "second-user", "first-user-again"], async |stage, user| {
        spend(stage, "first-user", user, 14).await?;
        repeat(stage, "second-user", &format!("{user}-other"), 2, || chat("alpha")).await?;
        stage.send("first-user-again", budget::as_user(stage, chat("alpha"), user)?).await
    })
    .await
}

fn judge_per_user(judge: &mut Judge<'_>) {
    let Some(first) = Budget::of(judge, "first-user", 14) else { return };
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
        kills: &["charges-per-user-only"],
        ..ANY_MODEL
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
        stage.send("alpha-again", budget::as_user(stage, chat("alpha"), user)?).await
    })
    .await
}

fn judge_per_model(judge: &mut Judge<'_>) {
    let Some(alpha) = Budget::of(judge, "alpha", 14) else { return };
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
        ..ANY_MODEL
    }
);

async fn drive_no_user_id(stage: &mut Stage) -> Result<()> {
    limited(stage, 7).await?;
    budget::in_one_window(stage, "alpha", &[], async |stage, _| {
        stage.send_in_turn(13, &[("nobody", chat("alpha"))]).await
    })
    .await
}

fn judge_no_user_id(judge: &mut Judge<'_>) {
    let Some(limit) = judge.declared::<TokenLimit>() else { return };
    let sent = judge.labelled("nobody");
    let refused = sent.iter().filter(|e| e.status() == Some(limit.status)).count();
    let got = format!("{refused} of {} refused", sent.len());
    let (expected, holds) = match limit.without_identity.filter(|_| !sent.is_empty()) {
        Some(WithoutIdentity::Unlimited) => {
            ("requests without an identity are not limited (a finding)", Some(refused == 0))
        }
        Some(WithoutIdentity::Limited) => ("requests without an identity share a budget", Some(refused > 0)),
        None => ("a declaration of what happens without an identity, and requests", None),
    };
    judge.clause("as-declared").expected(expected).got(got).shown_by(sent).holds_if_known(holds);
}

check!(
    tokens / shape_429,
    |stage| spend_all(stage, 14),
    judge_shape_429,
    Check {
        sentence: "a refusal has the declared status, body and headers, and the numbers in them agree with each other",
        source: "the gateway's declaration; RateLimit header fields draft 03",
        how: "Spends a budget of 14 tokens; looks at status, body and headers of every refusal, and at the limiter's numbers in \
              every answer that has them.",
        kills: &["429-without-headers", "429-as-200", "remaining-rises", "leaves-answers-unmarked"],
        ..ANY_MODEL
    }
);

fn judge_shape_429(judge: &mut Judge<'_>) {
    let Some(budget) = Budget::of(judge, "spend", 14) else { return };
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
        kills: &["window-slides", "refills-early", "never-refills", "says-that-windows-end-soon"],
        ..ANY_MODEL
    }
);

async fn drive_window(stage: &mut Stage) -> Result<()> {
    limited(stage, 7).await?;
    budget::in_one_window(stage, "alpha", &["spend", "late-in-the-window", "next-window"], async |stage, user| {
        spend(stage, "spend", user, 7).await?;
        stage.until_window_end(-5.0).await?;
        stage.send("late-in-the-window", budget::as_user(stage, chat("alpha"), user)?).await?;
        stage.until_window_end(1.0).await?;
        stage.send("next-window", budget::as_user(stage, chat("alpha"), user)?).await
    })
    .await
}

fn judge_window(judge: &mut Judge<'_>) {
    let Some(budget) = Budget::of(judge, "spend", 7) else { return };
    budget.judge_spent(judge);
    budget::judge_all_refused(judge, "late-in-the-window", "late-in-the-window");
    budget::judge_all(judge, "next-window", "next-window", 200);
    budget::judge_length(judge);
}

mod judges {
    use rstest::rstest;
    use serde_json::Value;
    use suites::fake::{Fake, Holds, No, Unproven, Yes, shared_token_limit, token_limit};
    use verdict::capability::Rule;

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

    fn exact(case: &str, admitted: u64, refused: u64) -> Fake {
        spent(limited("tokens/exact", case), "spend", tokens_of(case), admitted, refused)
    }

    fn exact_by_rule(rule: &str, admitted: u64) -> Fake {
        let fake = limited_with("tokens/exact", "budget-70", "block-when", json!(rule));
        spent(fake, "spend", 70, admitted, 4)
    }

    /// So many replies, and one past the limiter.
    fn one_unmarked(admitted: u64) -> Fake {
        let fake = spent(limited("tokens/exact", "budget-70"), "spend", 70, admitted, 0).unmarked("spend", 200);
        spent(fake, "spend", 70, 0, 3)
    }

    /// A budget that all requests share, in a gateway that marks refusals alone: so many replies with a record of the model.
    fn shared(check: &str, case: &str) -> Fake {
        Fake::of(check).case(case).declares(shared_token_limit()).model("alpha")
    }

    fn spent_by_all(fake: Fake, label: &str, limit: u64, admitted: u64, refused: u64) -> Fake {
        let fake = (0..admitted).fold(fake, |fake, _| fake.unmarked(label, 200).also_reached("alpha"));
        (0..refused).fold(fake, |fake, _| fake.limited(label, limit, 0, 50))
    }

    /// What the limiter does not mark the records prove.
    fn recorded(admitted: u64, refused: u64) -> Fake {
        spent_by_all(shared("tokens/exact", "budget-70"), "spend", 70, admitted, refused)
    }

    fn tenth_reply(tenth: fn(Fake) -> Fake) -> Fake {
        let fake = tenth(spent_by_all(shared("tokens/exact", "budget-70"), "spend", 70, 9, 0));
        spent_by_all(fake, "spend", 70, 0, 4)
    }

    /// The refusals say that the window ends 50 s after them: where they come later, the replies were sent before it began.
    fn refused_later(seconds: f64) -> Fake {
        spent_by_all(shared("tokens/exact", "budget-70"), "spend", 70, 10, 4).sent_later("spend", 10, seconds)
    }

    /// The refusal of the preparation says that its window ends 50 s after it, the drive's own ends at 130 s.
    fn window_after(before: f64) -> Fake {
        unprepared_window(shared("tokens/window", "-").prepared_refusal(before, 7, 50).from(80.0))
    }

    fn unprepared_window(fake: Fake) -> Fake {
        let fake = spent_by_all(fake, "spend", 7, 1, 3).limited("late-in-the-window", 7, 0, 50);
        fake.unmarked("next-window", 200).also_reached("alpha")
    }

    fn unmarked_leak(leaks: usize) -> Fake {
        let fake = spent_by_all(shared("tokens/no-leak", "-"), "spend", 7, 1, 4);
        let fake = (0..leaks).fold(fake, |fake, _| fake.unmarked("beyond", 200).also_reached("alpha"));
        (leaks..BEYOND).fold(fake, |f, _| f.limited("beyond", 7, 0, 40))
    }

    fn numbers_of_refusals_alone(content_type: &str, body: &str) -> Fake {
        let fake = spent_by_all(shared("tokens/shape-429", "-"), "spend", 14, 2, 0);
        let numbers = [("x-ratelimit-limit", "14"), ("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "49")];
        fake.answer("spend", 429, &[&numbers[..], &[("content-type", content_type)]].concat(), body)
    }

    fn with_one_more(name: &str, value: &str) -> Fake {
        with_429(&[GOOD, &[(name, value)]].concat(), 429, "")
    }

    fn turned() -> Fake {
        let fake = spent(limited("tokens/exact", "budget-70"), "spend", 70, 6, 0).admitted("spend", 70, 70, 60);
        spent(fake, "spend", 70, 5, 4)
    }

    fn no_leak(unmarked: usize, marked: usize) -> Fake {
        let fake = spent(limited("tokens/no-leak", "-"), "spend", 7, 2, 3);
        let fake = fake.times(unmarked, |fake, _| fake.unmarked("beyond", 200));
        let fake = fake.times(marked, |fake, _| asked(fake, "beyond", 7, 200));
        fake.times(BEYOND - unmarked - marked, |fake, _| asked(fake, "beyond", 7, 429))
    }

    fn per_user(other: u16, again: u16) -> Fake {
        let fake = spent(limited("tokens/per-user", "-"), "first-user", 14, 3, 2);
        let fake = fake.times(2, |fake, _| asked(fake, "second-user", 14, other));
        asked(fake, "first-user-again", 14, again)
    }

    fn per_model(other: u16) -> Fake {
        let fake = spent(limited("tokens/per-model", "-"), "alpha", 14, 3, 2);
        asked(asked(fake, "beta", 14, other), "alpha-again", 14, 429)
    }

    fn no_user_id(declared: &str, refused: usize) -> Fake {
        let fake = limited_with("tokens/no-user-id", "-", "without-identity", json!(declared));
        fake.times(8, |fake, _| fake.unmarked("nobody", 200)).times(refused, |fake, _| fake.limited("nobody", 7, 0, 40))
    }

    fn with_429(headers: &[(&str, &str)], status: u16, body: &str) -> Fake {
        spent(limited("tokens/shape-429", "-"), "spend", 14, 3, 0).answer("spend", status, headers, body)
    }

    const GOOD: &[(&str, &str)] = &[
        ("x-ratelimit-limit", "14, 14;w=60"),
        ("x-ratelimit-remaining", "0"),
        ("x-ratelimit-reset", "49"),
        ("content-length", "0"),
    ];

    fn without_a_declared_header() -> Fake {
        let fake = limited_with("tokens/shape-429", "-", "headers", json!(["x-ratelimit-limit", "retry-after"]));
        spent(fake, "spend", 14, 3, 1)
    }

    fn remaining_rises() -> Fake {
        let fake = limited("tokens/shape-429", "-").admitted("spend", 14, 7, 50).admitted("spend", 14, 14, 50);
        fake.limited("spend", 14, 0, 50)
    }

    fn window(late: u16, next: u16, reset: f64, end: Value) -> Fake {
        let fake = spent(limited("tokens/window", "-"), "spend", 7, 2, 3);
        let fake = fake.fact("reset-seconds", json!(reset)).fact("window-end-unix", end);
        asked(asked(fake, "late-in-the-window", 7, late), "next-window", 7, next)
    }

    #[rstest]
    #[case(Rule::Over, 70, 11)]
    #[case(Rule::AtLeast, 70, 10)]
    #[case(Rule::AtLeast, 75, 11)]
    #[case(Rule::Over, 1, 1)]
    fn admitted_by_rule(#[case] rule: Rule, #[case] limit: u64, #[case] admitted: u64) {
        assert_eq!(budget::admits(rule, limit, budget::REPLY), admitted);
    }

    #[rstest]
    #[case::exact_seventy(exact("budget-70", 11, 4), Yes)]
    #[case::exact_seventy_and_at_least(exact("budget-70", 10, 4), No)]
    #[case::exact_seventy_never_blocked(exact("budget-70", 14, 0), No)]
    #[case::exact_seventy_one_more(exact("budget-70", 12, 2), No)]
    #[case::exact_seventy_five(exact("budget-75", 11, 4), Yes)]
    #[case::exact_fourteen(exact("budget-14", 3, 3), Yes)]
    #[case::exact_fourteen_too_few(exact("budget-14", 2, 4), No)]
    #[case::exact_seven(exact("budget-7", 2, 3), Yes)]
    #[case::exact_one(exact("budget-1", 1, 4), Yes)]
    #[case::exact_one_never(exact("budget-1", 0, 5), No)]
    #[case::exact_nothing(exact("budget-70", 0, 0), Unproven)]
    #[case::exact_by_rule_at_least_declared(exact_by_rule("spent >= limit", 10), Yes)]
    #[case::exact_by_rule_at_least_declared_but_more(exact_by_rule("spent >= limit", 11), No)]
    #[case::exact_by_rule_nothing_declared(exact_by_rule("", 11), Unproven)]
    #[case::exact_one_unmarked(one_unmarked(11), Unproven)]
    #[case::exact_more_than_the_unmarked_one_explains(one_unmarked(14), No)]
    #[case::exact_window_turned(turned(), Unproven)]
    #[case::exact_refused_in_the_same_window(refused_later(0.0), Yes)]
    #[case::exact_refused_in_the_next_window(refused_later(15.0), Unproven)]
    #[case::recorded_by_the_rule(recorded(10, 4), Yes)]
    #[case::recorded_by_the_rule_in_part(recorded(10, 4).without_marker("alpha"), Unproven)]
    #[case::recorded_one_more(recorded(11, 4), No)]
    #[case::recorded_one_more_in_part(recorded(11, 4).without_marker("alpha"), No)]
    #[case::recorded_one_less(recorded(9, 4), No)]
    #[case::recorded_one_less_in_part(recorded(9, 4).without_marker("alpha"), No)]
    #[case::recorded_never_blocked(recorded(14, 0), No)]
    #[case::recorded_never_blocked_in_part(recorded(14, 0).without_marker("alpha"), No)]
    #[case::recorded_a_refusal_that_reached_the_model(recorded(10, 3).limited("spend", 70, 0, 50).also_reached("alpha"), No)]
    #[case::tenth_reply_no_record(tenth_reply(|f: Fake| f.unmarked("spend", 200)), No)]
    #[case::tenth_reply_two_records(tenth_reply(|f: Fake| f.unmarked("spend", 200).also_reached("alpha").also_reached("alpha")), No)]
    #[case::tenth_reply_one_record(tenth_reply(|f: Fake| f.unmarked("spend", 200).also_reached("alpha")), Yes)]
    #[case::window_after_a_minute(window_after(20.0), Yes)]
    #[case::window_after_half_a_minute(window_after(50.0), No)]
    #[case::unmarked_leak_refused(unmarked_leak(0), Yes)]
    #[case::unmarked_leak_a_leak(unmarked_leak(1), No)]
    #[case::numbers_of_refusals_alone_good(numbers_of_refusals_alone("text/plain", "rate limit exceeded"), Yes)]
    #[case::numbers_of_refusals_alone_empty(numbers_of_refusals_alone("text/plain", ""), No)]
    #[case::numbers_of_refusals_alone_other_type(numbers_of_refusals_alone("text/html", "rate limit exceeded"), No)]
    #[case::shape_429_date_beside(with_one_more("date", "d"), Yes)]
    #[case::shape_429_one_more_header(with_one_more("x-envoy-ratelimited", "true"), No)]
    #[case::shape_429_a_type_of_no_body(with_one_more("content-type", "text/plain"), No)]
    #[case::window_after_nothing(unprepared_window(shared("tokens/window", "-")), Unproven)]
    #[case::no_leak_too_few_requests(spent(limited("tokens/no-leak", "-"), "spend", 7, 2, 3).limited("beyond", 7, 0, 40), Unproven)]
    #[case::no_leak_nothing_happened(limited("tokens/no-leak", "-"), Unproven)]
    #[case::no_leak_tight(no_leak(0, 0), Yes)]
    #[case::no_leak_one_unmarked(no_leak(1, 0), No)]
    #[case::no_leak_one_marked(no_leak(0, 1), No)]
    #[case::per_user_apart(per_user(200, 429), Yes)]
    #[case::per_user_one_budget_for_all(per_user(429, 429), No)]
    #[case::per_user_refilled_by_the_other(per_user(200, 200), No)]
    #[case::per_model_apart(per_model(200), Yes)]
    #[case::per_model_one_budget(per_model(429), No)]
    #[case::no_user_id_unlimited(no_user_id("unlimited", 0), Yes)]
    #[case::no_user_id_declared_otherwise(no_user_id("limited", 0), No)]
    #[case::no_user_id_limited(no_user_id("limited", 5), Yes)]
    #[case::no_user_id_limited_though_not_declared(no_user_id("unlimited", 5), No)]
    #[case::shape_429_good(with_429(GOOD, 429, ""), Yes)]
    #[case::shape_429_no_refusal(spent(limited("tokens/shape-429", "-"), "spend", 14, 3, 0), Unproven)]
    #[case::shape_429_never_a_refusal(spent(limited("tokens/shape-429", "-"), "spend", 14, 5, 0), No)]
    #[case::shape_429_a_refusal_that_is_called_200(with_429(GOOD, 200, "").answer("spend", 200, GOOD, "").answer("spend", 200, GOOD, ""), No)]
    #[case::shape_429_without_a_declared_header(without_a_declared_header(), No)]
    #[case::shape_429_remaining_rises(remaining_rises(), No)]
    #[case::shape_429_with_a_body(with_429(GOOD, 429, "slow down"), No)]
    #[case::shape_429_without_reset(with_429(&[("x-ratelimit-limit", "14, 14;w=60"), ("x-ratelimit-remaining", "0")], 429, ""), No)]
    #[case::shape_429_negative(with_429(&[("x-ratelimit-limit", "14, 14;w=60"), ("x-ratelimit-remaining", "-3"), ("x-ratelimit-reset", "49")], 429, ""), No)]
    #[case::shape_429_remaining_at_refusal(with_429(&[("x-ratelimit-limit", "14, 14;w=60"), ("x-ratelimit-remaining", "9"), ("x-ratelimit-reset", "49")], 429, ""), No)]
    #[case::shape_429_other_limit(with_429(&[("x-ratelimit-limit", "15, 15;w=60"), ("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "49")], 429, ""), No)]
    #[case::shape_429_reset_beyond_the_window(with_429(&[("x-ratelimit-limit", "14, 14;w=60"), ("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "500")], 429, ""), No)]
    #[case::window_as_declared(window(429, 200, 58.0, json!(6000)), Yes)]
    #[case::window_early(window(200, 200, 58.0, json!(6000)), No)]
    #[case::window_never(window(429, 429, 58.0, json!(6000)), No)]
    #[case::window_longer_than_declared(window(429, 200, 300.0, json!(6000)), No)]
    #[case::window_begins_elsewhere(window(429, 200, 58.0, json!(6031)), No)]
    #[case::window_no_date(window(429, 200, 58.0, Value::Null), Unproven)]
    fn judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(fake.verdict(), holds);
    }
}
