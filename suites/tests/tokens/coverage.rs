//! What a limit covers: not the route beside it, not a route where it can do nothing, and every entry that it has.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use rstest::rstest;
use serde_json::{Value, json};
use suites::{
    Call, ObjectRef, Stage, Until,
    budget::{self, Budget},
    chat, check, proof,
};
use verdict::{
    history::{Admission, Exchange, History},
    judge::Judgement,
};

use super::{limited, repeat, spend};

/// A budget of one reply, and a number of requests that is beyond it by any rule.
const ONE_REPLY: u64 = 7;
const BEYOND_IT: u64 = 5;

#[rstest]
#[tokio::test]
async fn scope(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("tokens/scope", "-", &folder).observing(budget::observe).run(drive_scope, judge_scope).await;
}

async fn drive_scope(stage: &mut Stage) -> Result<()> {
    let alpha = limited(stage, ONE_REPLY).await?;
    let (host, neighbour) = (stage.hostname().to_owned(), format!("neighbour-{}", stage.hostname()));
    stage.route_models_as("neighbour", &neighbour, &[&alpha]).await?;
    stage.settle(|| chat(&neighbour, "alpha"), "alpha").await?;
    budget::in_one_window(stage, "alpha", &["spend", "still-spent"], async |stage, user| {
        repeat(stage, "neighbour-before", user, BEYOND_IT, || chat(&neighbour, "alpha")).await;
        spend(stage, "spend", user, ONE_REPLY).await;
        repeat(stage, "neighbour-after", user, BEYOND_IT, || chat(&neighbour, "alpha")).await;
        repeat(stage, "still-spent", user, 1, || chat(&host, "alpha")).await;
        Ok(())
    })
    .await
}

fn judge_scope(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    proof::answered_by(&mut judgement, history, "neighbour-before", "alpha");
    let budget = Budget::of(history, "spend", ONE_REPLY);
    budget.judge_one_window(&mut judgement);
    budget.judge_admitted(&mut judgement); // all of it: the neighbour has spent nothing
    proof::answered_by(&mut judgement, history, "neighbour-after", "alpha");
    budget::judge_all(&mut judgement, history, "still-spent", budget::refusal(history));
    judgement
}

/// The limit on the route to a plain Service, and the one on the route to a model, as they were read.
const ON_A_SERVICE: &str = "limit-on-a-service";
const ON_A_MODEL: &str = "limit-on-a-model";

#[rstest]
#[tokio::test]
async fn plain_service_route(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("tokens/plain-service-route", "-", &folder)
        .observing(observe_plain_service_route)
        .run(drive_plain_service_route, judge_plain_service_route)
        .await;
}

async fn drive_plain_service_route(stage: &mut Stage) -> Result<()> {
    let alpha = stage.model("alpha").await?;
    let plain = format!("plain-{}", stage.hostname());
    let every_path = json!({"path": {"type": "PathPrefix", "value": "/"}});
    let rule = json!({"match": every_path, "service": alpha.service, "port": 80});
    stage.intent("http-route", json!({"name": "plain", "hostname": plain, "rules": [rule]})).await?;
    stage.settle_status(|| Call::get("/v1/models").host(&plain), |status| status == 200).await?;
    offer_limit(stage, ON_A_SERVICE, "plain").await?;
    // The limit that can work comes last: once it is live the other one is, if it ever will be.
    stage.route_models(&[&alpha]).await?;
    offer_limit(stage, ON_A_MODEL, stage.route()).await?;
    budget::settle(stage, "alpha").await?;
    budget::in_one_window(stage, "alpha", &["model"], async |stage, user| {
        spend(stage, "model", user, ONE_REPLY).await;
        repeat(stage, "service", user, BEYOND_IT, || chat(&plain, "alpha")).await;
        Ok(())
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
        let spoken_of = Until::holds("a condition in its status", |policy| Ok(!conditions(policy).is_empty()));
        stage.see(name, &policy, spoken_of, 30).await?;
    }
    Ok(())
}

/// The conditions of a policy for all its ancestors, as `Accepted=True (Accepted)`.
fn conditions(policy: &Value) -> Vec<String> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let ancestors = list(&policy["status"]["ancestors"]);
    let mut words: Vec<String> = ancestors
        .iter()
        .flat_map(|ancestor| list(&ancestor["conditions"]))
        .map(|c| {
            let said = |field: &str| c[field].as_str().unwrap_or("?").to_owned();
            format!("{}={} ({})", said("type"), said("status"), said("reason"))
        })
        .collect();
    words.sort();
    words
}

fn judge_plain_service_route(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    let control = Budget::of(history, "model", ONE_REPLY);
    control.judge_one_window(&mut judgement);
    control.judge_spent(&mut judgement); // the same limit works where it can
    let clause = "works-or-is-not-accepted";
    let expected = "a refusal of the limiter, of the API server, or a status unlike that of the limit that works";
    if let Some(Admission::Refused { message, .. }) = history.admissions.get(ON_A_SERVICE) {
        judgement.that(clause, true, expected, format!("not admitted: {message}"), []);
        return judgement;
    }
    let sent: Vec<&Exchange> = history.labelled("service").collect();
    let with = |status: u16| sent.iter().filter(|e| e.status() == Some(status)).count();
    let (answered, refused) = (with(200), with(budget::refusal(history)));
    let status_of = |name: &str| history.objects.get(name).map(conditions).unwrap_or_default();
    let (status, working) = (status_of(ON_A_SERVICE), status_of(ON_A_MODEL));
    let got = format!("{answered} answered and {refused} refused of {}, status {}", sent.len(), status.join(" "));
    let seen = history.objects.contains_key(ON_A_SERVICE);
    if (sent.len() as u64) < BEYOND_IT || answered + refused < sent.len() || working.is_empty() || !seen {
        judgement.unproven(clause, expected, got);
    } else {
        judgement.that(clause, refused > 0 || status != working, expected, got, sent.last().copied());
    }
    judgement
}

/// A budget's observation, and what was said of both limits.
fn observe_plain_service_route(history: &History) -> Value {
    let mut seen = budget::observe(history);
    for name in [ON_A_SERVICE, ON_A_MODEL] {
        seen[name] = history.objects.get(name).map(conditions).into();
    }
    seen
}

/// A limit of three requests and one of two replies; those that are out of their way.
const FEW_REQUESTS: u64 = 3;
const FEW_TOKENS: u64 = 14;
const MANY_REQUESTS: u64 = 20;
const MANY_TOKENS: u64 = 140;

#[rstest]
#[case::requests_bind_first("requests-bind-first")]
#[case::requests_bind_last("requests-bind-last")]
#[case::tokens_bind_first("tokens-bind-first")]
#[case::tokens_bind_last("tokens-bind-last")]
#[tokio::test]
async fn two_limits(#[case] case: &'static str, #[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("tokens/two-limits", case, &folder).observing(budget::observe).run(drive_two_limits, judge_two_limits).await;
}

/// Whether it is the limit on requests that is reached first.
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
    let host = stage.hostname().to_owned();
    budget::in_one_window(stage, "alpha", &["spend"], async |stage, user| {
        repeat(stage, "spend", user, 8, || chat(&host, "alpha")).await;
        Ok(())
    })
    .await
}

fn judge_two_limits(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    let budget = Budget::of(history, "spend", FEW_TOKENS);
    budget.judge_one_window(&mut judgement);
    if requests_bind(&history.key.case) {
        budget.judge_admitted_requests(&mut judgement, FEW_REQUESTS);
    } else {
        budget.judge_admitted(&mut judgement);
    }
    judgement
}

mod judges {
    use rstest::rstest;
    use suites::fake::{Fake, conditions, verdict_of};
    use verdict::judge::Holds;

    use super::*;
    use crate::tokens::judges::{limited, spent};

    fn neighbour(mut fake: Fake, label: &str, status: u16) -> Fake {
        for _ in 0..BEYOND_IT {
            fake = match status {
                200 => fake.answered(label, 200, "alpha"),
                _ => fake.limited(label, 7, 0, 50),
            };
        }
        fake
    }

    #[rstest]
    #[case::apart(200, 2, 200, 429, Holds::Yes)]
    #[case::neighbour_limited(429, 2, 429, 429, Holds::No)]
    #[case::neighbour_limited_once_it_is_spent(200, 2, 429, 429, Holds::No)]
    #[case::neighbour_spends(200, 0, 200, 429, Holds::No)]
    #[case::neighbour_refills(200, 2, 200, 200, Holds::No)]
    fn scope_is_judged(
        #[case] before: u16,
        #[case] admitted: u64,
        #[case] after: u16,
        #[case] again: u16,
        #[case] holds: Holds,
    ) {
        let fake = neighbour(limited("tokens/scope", "-").model("alpha"), "neighbour-before", before);
        let fake = neighbour(spent(fake, "spend", 7, admitted, 4), "neighbour-after", after);
        let fake =
            if again == 200 { fake.admitted("still-spent", 7, 7, 50) } else { fake.limited("still-spent", 7, 0, 50) };
        assert_eq!(verdict_of(judge_scope, &fake), holds);
    }

    #[test]
    fn scope_needs_a_neighbour() {
        let fake =
            spent(limited("tokens/scope", "-").model("alpha"), "spend", 7, 2, 4).limited("still-spent", 7, 0, 50);
        assert_eq!(verdict_of(judge_scope, &fake), Holds::Unproven);
    }

    const WORKS: &[(&str, &str, &str)] = &[("Accepted", "True", "Valid"), ("Attached", "True", "Attached")];

    fn policy(said: &[(&str, &str, &str)]) -> Value {
        json!({"status": {"ancestors": [{"conditions": conditions(1, said)}]}})
    }

    fn on_a_service(said: &[(&str, &str, &str)], admitted: u64, refused: u64) -> Fake {
        let fake = spent(limited("tokens/plain-service-route", "-"), "model", 7, 2, 4);
        let mut fake = fake.object(ON_A_MODEL, policy(WORKS)).object(ON_A_SERVICE, policy(said));
        for _ in 0..admitted {
            fake = fake.answered("service", 200, "alpha");
        }
        for _ in 0..refused {
            fake = fake.limited("service", 7, 0, 50);
        }
        fake
    }

    #[rstest]
    #[case::works(WORKS, 2, 3, Holds::Yes)]
    #[case::accepted_without_effect(WORKS, 5, 0, Holds::No)]
    #[case::not_accepted(&[("Accepted", "False", "Invalid")], 5, 0, Holds::Yes)]
    #[case::partly_accepted(&[("Accepted", "True", "PartiallyValid")], 5, 0, Holds::Yes)]
    #[case::not_a_word(&[], 5, 0, Holds::Yes)]
    #[case::too_few_requests(WORKS, 2, 0, Holds::Unproven)]
    fn plain_service_route_is_judged(
        #[case] said: &[(&str, &str, &str)],
        #[case] admitted: u64,
        #[case] refused: u64,
        #[case] holds: Holds,
    ) {
        assert_eq!(verdict_of(judge_plain_service_route, &on_a_service(said, admitted, refused)), holds);
    }

    #[test]
    fn a_limit_that_is_not_admitted_is_no_silent_one() {
        let admission = Admission::Refused { code: 422, reason: "Invalid".into(), message: "not on a Service".into() };
        let fake = spent(limited("tokens/plain-service-route", "-"), "model", 7, 2, 4);
        let fake = fake.object(ON_A_MODEL, policy(WORKS)).admission(ON_A_SERVICE, Some(admission));
        assert_eq!(verdict_of(judge_plain_service_route, &fake), Holds::Yes);
    }

    #[rstest]
    #[case::nothing_to_compare_with(on_a_service(WORKS, 5, 0).without_object(ON_A_MODEL))]
    #[case::the_service_does_not_answer(on_a_service(WORKS, 4, 0).refused("service", 503))]
    #[case::the_limit_works_nowhere(limited("tokens/plain-service-route", "-").object(ON_A_MODEL, policy(WORKS)).object(ON_A_SERVICE, policy(&[])))]
    fn plain_service_route_needs_evidence(#[case] fake: Fake) {
        assert_eq!(verdict_of(judge_plain_service_route, &fake), Holds::Unproven);
    }

    #[rstest]
    #[case::requests("requests-bind-last", 3, 5, Holds::Yes)]
    #[case::requests_not_enforced("requests-bind-last", 8, 0, Holds::No)]
    #[case::requests_counted_twice("requests-bind-first", 1, 7, Holds::No)]
    #[case::tokens("tokens-bind-first", 3, 5, Holds::Yes)]
    #[case::tokens_not_enforced("tokens-bind-last", 8, 0, Holds::No)]
    #[case::nothing_was_sent("tokens-bind-last", 0, 0, Holds::Unproven)]
    fn two_limits_is_judged(#[case] case: &str, #[case] admitted: u64, #[case] refused: u64, #[case] holds: Holds) {
        let fake = spent(limited("tokens/two-limits", case), "spend", 14, admitted, refused);
        assert_eq!(verdict_of(judge_two_limits, &fake), holds);
    }
}
