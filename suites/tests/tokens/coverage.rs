//! What a limit covers: not the route beside it, not a route where it can do nothing, and every entry that it has.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use suites::{
    Call, Check, Judge, ObjectRef, Stage,
    budget::{self, Budget},
    chat, check, says_how_it_stands,
};
use verdict::history::{Admission, History};

use super::{LIMIT, limited, repeat, spend};

/// A budget of one reply, and a number of requests that is beyond it by any rule.
const ONE_REPLY: u64 = 7;
const BEYOND_IT: u64 = 5;

check!(
    tokens / scope,
    drive_scope,
    judge_scope,
    Check {
        sentence: "a limited route neither limits the route beside it nor is charged for it",
        source: "Gateway API policy attachment (GEP-713), a policy affects its targets",
        how: "Sends requests to a second route without a limit before and after the limited one's budget is spent; that budget \
              has to be whole before and stay spent after.",
        kills: &["limits-every-route", "charges-per-gateway"],
        ..LIMIT
    }
);

async fn drive_scope(stage: &mut Stage) -> Result<()> {
    let alpha = limited(stage, ONE_REPLY).await?;
    let host = format!("neighbour-{}", stage.hostname());
    stage.route_models_as("neighbour", &host, &[&alpha]).await?;
    let neighbour = || chat("alpha").host(&host);
    stage.settle(neighbour, "alpha").await?;
    budget::in_one_window(stage, "alpha", &["spend", "still-spent"], async |stage, user| {
        repeat(stage, "neighbour-before", user, BEYOND_IT, neighbour).await?;
        spend(stage, "spend", user, ONE_REPLY).await?;
        repeat(stage, "neighbour-after", user, BEYOND_IT, neighbour).await?;
        repeat(stage, "still-spent", user, 1, || chat("alpha")).await
    })
    .await
}

fn judge_scope(judge: &mut Judge<'_>) {
    let Some(budget) = Budget::of(judge, "spend", ONE_REPLY) else { return };
    judge.answered_by("neighbour-before-answered-by-alpha", "neighbour-before", "alpha");
    budget.judge_admitted(judge); // all of it: the neighbour has spent nothing
    judge.answered_by("neighbour-after-answered-by-alpha", "neighbour-after", "alpha");
    budget::judge_all_refused(judge, "still-spent", "still-spent");
}

/// The limit on the route to a plain Service, and the one on the route to a model, as they were read.
const ON_A_SERVICE: &str = "limit-on-a-service";
const ON_A_MODEL: &str = "limit-on-a-model";

check!(
    tokens / plain_service_route,
    drive_plain_service_route,
    judge_plain_service_route,
    Check {
        sentence: "a token limit on a route to a plain Service works, or is not accepted like one that works",
        source: "Gateway API policy attachment (GEP-713), Accepted; draft of guide 003",
        how: "Offers the same limit on a route to a model and on one to a plain Service, spends both, and compares what their \
              statuses say where the second limits nothing.",
        kills: &["accepted-without-effect"],
        unmetered: true,
        observe: observe_plain_service_route,
        ..LIMIT
    }
);

async fn drive_plain_service_route(stage: &mut Stage) -> Result<()> {
    let alpha = stage.model("alpha").await?;
    let plain = format!("plain-{}", stage.hostname());
    stage.plain_route("plain", Some(&plain), &alpha.service).await?;
    stage.settle_status(|| Call::get("/v1/models").host(&plain), |status| status == 200).await?;
    offer_limit(stage, ON_A_SERVICE, "plain").await?;
    // The limit that can work comes last: once it is live the other one is, if it ever will be.
    stage.route_models(&[&alpha]).await?;
    offer_limit(stage, ON_A_MODEL, stage.route()).await?;
    budget::settle(stage, "alpha").await?;
    budget::in_one_window(stage, "alpha", &["model"], async |stage, user| {
        spend(stage, "model", user, ONE_REPLY).await?;
        repeat(stage, "service", user, BEYOND_IT, || chat("alpha").host(&plain)).await
    })
    .await
}

/// Offers a limit of one reply on a route, and waits until somebody has said something of it.
async fn offer_limit(stage: &mut Stage, name: &str, route: &str) -> Result<()> {
    let limits = json!([{"tokens": ONE_REPLY, "unit": "Minute", "model": null}]);
    let manifests = stage.manifests("limit-tokens", json!({"name": route, "limits": limits}))?;
    for manifest in &manifests {
        stage.offer(name, manifest).await?;
    }
    if matches!(stage.history().admissions.get(name), Some(Admission::Accepted { .. })) {
        let manifest = manifests.last().context("the intent limit-tokens has no manifest")?;
        let policy = ObjectRef::of(manifest).map_err(anyhow::Error::msg)?;
        stage.see(name, &policy, says_how_it_stands(), 30).await?;
    }
    Ok(())
}

/// The conditions of a policy that was read, as `Accepted=True (Accepted)`; none where it was not.
fn conditions(judge: &Judge<'_>, name: &str) -> Vec<String> {
    let lists = judge.conditions_of(judge.object(name)).into_iter().filter_map(Value::as_array);
    let words = |c: &Value| {
        let said = |field: &str| c[field].as_str().unwrap_or("?");
        format!("{}={} ({})", said("type"), said("status"), said("reason"))
    };
    let mut conditions: Vec<String> = lists.flatten().map(words).collect();
    conditions.sort();
    conditions
}

fn judge_plain_service_route(judge: &mut Judge<'_>) {
    let Some(control) = Budget::of(judge, "model", ONE_REPLY) else { return };
    control.judge_spent(judge); // the same limit works where it can
    let refusal = match judge.admission(ON_A_SERVICE) {
        Some(Admission::Refused { message, .. }) => Some(message),
        _ => None,
    };
    let sent = judge.labelled("service");
    let with = |status: u16| sent.iter().filter(|e| e.status() == Some(status)).count();
    let (answered, refused) = (with(200), with(control.declared.status));
    let (status, working) = (conditions(judge, ON_A_SERVICE), conditions(judge, ON_A_MODEL));
    let seen = judge.history().objects.contains_key(ON_A_SERVICE);
    let got = format!("{answered} answered and {refused} refused of {}, status {}", sent.len(), status.join(" "));
    let statement = judge
        .clause("works-or-is-not-accepted")
        .expected("a refusal of the limiter, of the API server, or a status unlike that of the limit that works");
    if let Some(message) = refusal {
        statement.got(format!("not admitted: {message}")).holds(true);
    } else if (sent.len() as u64) < BEYOND_IT || answered + refused < sent.len() || working.is_empty() || !seen {
        statement.unproven(got);
    } else {
        statement.got(got).shown_by(sent.last().copied()).holds(refused > 0 || status != working);
    }
}

fn observe_plain_service_route(history: &History) -> Value {
    let mut observed = budget::observe(history);
    for name in [ON_A_SERVICE, ON_A_MODEL] {
        let seen = history.objects.contains_key(name);
        observed[name] = seen.then(|| conditions(&Judge::of(history), name)).into();
    }
    observed
}

/// A limit of three requests and one of two replies; those that are out of their way.
const FEW_REQUESTS: u64 = 3;
const FEW_TOKENS: u64 = 14;
const MANY_REQUESTS: u64 = 20;
const MANY_TOKENS: u64 = 140;

check!(
    tokens / two_limits(requests_bind_first, requests_bind_last, tokens_bind_first, tokens_bind_last),
    drive_two_limits,
    judge_two_limits,
    Check {
        sentence: "of a limit on requests and one on tokens the one that is reached first refuses, in whatever order they stand",
        source: "the gateway's API, a list of limits",
        how: "Sets a limit on requests and one on tokens in the case's order, one of them far away, and counts how many requests \
              are admitted.",
        kills: &["only-first-limit", "only-last-limit"],
        unmetered: true,
        ..LIMIT
    }
);

fn requests_bind(case: &str) -> bool {
    case.starts_with("requests-")
}

async fn drive_two_limits(stage: &mut Stage) -> Result<()> {
    let case = stage.case().to_owned();
    let (requests, tokens) =
        if requests_bind(&case) { (FEW_REQUESTS, MANY_TOKENS) } else { (MANY_REQUESTS, FEW_TOKENS) };
    let requests = json!({"requests": requests, "unit": "Minute", "model": null});
    let tokens = json!({"tokens": tokens, "unit": "Minute", "model": null});
    let limits = if requests_bind(&case) == case.ends_with("-first") { [requests, tokens] } else { [tokens, requests] };
    let alpha = stage.model("alpha").await?;
    stage.route_models(&[&alpha]).await?;
    stage.intent("limit-tokens", json!({"limits": limits})).await?;
    budget::settle(stage, "alpha").await?;
    budget::in_one_window(stage, "alpha", &["spend"], async |stage, user| {
        repeat(stage, "spend", user, 8, || chat("alpha")).await
    })
    .await
}

fn judge_two_limits(judge: &mut Judge<'_>) {
    let Some(budget) = Budget::of(judge, "spend", FEW_TOKENS) else { return };
    if requests_bind(judge.case()) {
        budget.judge_admitted_requests(judge, FEW_REQUESTS);
    } else {
        budget.judge_admitted(judge);
    }
}

mod judges {
    use rstest::rstest;
    use suites::fake::{Fake, Holds, No, Unproven, Yes, policy_saying, refusal};

    use super::*;
    use crate::tokens::judges::{asked, limited, spent};

    fn neighbour(fake: Fake, label: &str, status: u16) -> Fake {
        (0..BEYOND_IT).fold(fake, |fake, _| match status {
            200 => fake.answered(label, 200, "alpha"),
            _ => fake.limited(label, 7, 0, 50),
        })
    }

    fn scope(before: u16, admitted: u64, after: u16, again: u16) -> Fake {
        let fake = neighbour(limited("tokens/scope", "-").model("alpha"), "neighbour-before", before);
        let fake = neighbour(spent(fake, "spend", 7, admitted, 4), "neighbour-after", after);
        asked(fake, "still-spent", 7, again)
    }

    fn without_neighbour() -> Fake {
        spent(limited("tokens/scope", "-").model("alpha"), "spend", 7, 2, 4).limited("still-spent", 7, 0, 50)
    }

    const WORKS: &[(&str, &str, &str)] = &[("Accepted", "True", "Valid"), ("Attached", "True", "Attached")];

    fn policy(said: &[(&str, &str, &str)]) -> Value {
        policy_saying("gw", said)
    }

    fn on_a_service(said: &[(&str, &str, &str)], admitted: u64, refused: u64) -> Fake {
        let fake = spent(limited("tokens/plain-service-route", "-"), "model", 7, 2, 4);
        let fake = fake.object(ON_A_MODEL, policy(WORKS)).object(ON_A_SERVICE, policy(said));
        let fake = (0..admitted).fold(fake, |fake, _| fake.answered("service", 200, "alpha"));
        (0..refused).fold(fake, |fake, _| fake.limited("service", 7, 0, 50))
    }

    fn not_admitted() -> Fake {
        let fake = spent(limited("tokens/plain-service-route", "-"), "model", 7, 2, 4);
        fake.object(ON_A_MODEL, policy(WORKS)).admission(ON_A_SERVICE, refusal("not on a Service"))
    }

    fn two_limits(case: &str, admitted: u64, refused: u64) -> Fake {
        spent(limited("tokens/two-limits", case), "spend", 14, admitted, refused)
    }

    #[rstest]
    #[case::scope_apart(scope(200, 2, 200, 429), Yes)]
    #[case::scope_neighbour_limited(scope(429, 2, 429, 429), No)]
    #[case::scope_neighbour_limited_once_it_is_spent(scope(200, 2, 429, 429), No)]
    #[case::scope_neighbour_spends(scope(200, 0, 200, 429), No)]
    #[case::scope_neighbour_refills(scope(200, 2, 200, 200), No)]
    #[case::scope_without_neighbour(without_neighbour(), Unproven)]
    #[case::plain_service_route_works(on_a_service(WORKS, 2, 3), Yes)]
    #[case::plain_service_route_accepted_without_effect(on_a_service(WORKS, 5, 0), No)]
    #[case::plain_service_route_not_accepted(on_a_service(&[("Accepted", "False", "Invalid")], 5, 0), Yes)]
    #[case::plain_service_route_partly_accepted(on_a_service(&[("Accepted", "True", "PartiallyValid")], 5, 0), Yes)]
    #[case::plain_service_route_not_a_word(on_a_service(&[], 5, 0), Yes)]
    #[case::plain_service_route_too_few_requests(on_a_service(WORKS, 2, 0), Unproven)]
    #[case::plain_service_route_not_admitted(not_admitted(), Yes)]
    #[case::plain_service_route_nothing_to_compare_with(on_a_service(WORKS, 5, 0).without_object(ON_A_MODEL), Unproven)]
    #[case::plain_service_route_the_service_does_not_answer(on_a_service(WORKS, 4, 0).refused("service", 503), Unproven)]
    #[case::plain_service_route_the_limit_works_nowhere(limited("tokens/plain-service-route", "-").object(ON_A_MODEL, policy(WORKS)).object(ON_A_SERVICE, policy(&[])), Unproven)]
    #[case::two_limits_requests(two_limits("requests-bind-last", 3, 5), Yes)]
    #[case::two_limits_requests_not_enforced(two_limits("requests-bind-last", 8, 0), No)]
    #[case::two_limits_requests_counted_twice(two_limits("requests-bind-first", 1, 7), No)]
    #[case::two_limits_tokens(two_limits("tokens-bind-first", 3, 5), Yes)]
    #[case::two_limits_tokens_not_enforced(two_limits("tokens-bind-last", 8, 0), No)]
    #[case::two_limits_nothing_was_sent(two_limits("tokens-bind-last", 0, 0), Unproven)]
    fn judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(fake.verdict(), holds);
    }
}
