//! What becomes of requests for which no endpoint is chosen: the picker refuses, is gone, or never was there.

use anyhow::Result;
use serde_json::{Value, json};
use suites::{Check, Judge, PoolOf, Stage, chat, check, judge, parents_say, picked};

use super::{COUNTED, DESTINATION, PICK, POOL, everything, models, route_object, routed, see_pool};

check!(
    pool / no_endpoint,
    drive_no_endpoint,
    judge_no_endpoint,
    Check {
        sentence: "a request for which the picker names no endpoint gets 503 and reaches no model, whatever the client names",
        source: "GIE protocol 004, \"no endpoints\"",
        how: "Has the picker refuse, name nothing, and name nothing while the client's own header names an endpoint; looks at the \
              statuses and the models' records.",
        kills: &["chooses-in-the-pickers-place", "keeps-the-clients-destination-header"],
        ..POOL
    }
);

async fn drive_no_endpoint(stage: &mut Stage) -> Result<()> {
    let pool = routed(stage, PoolOf::new("alpha")).await?;
    for _ in 0..5 {
        stage.send("picker-refuses", chat("alpha").header(PICK, "none")).await;
        stage.send("picker-names-none", chat("alpha").header(PICK, "silent")).await;
        let steering = chat("alpha").header(PICK, "silent").header(DESTINATION, pool.endpoint(0));
        stage.send("client-names-one", steering).await;
    }
    Ok(())
}

fn judge_no_endpoint(judge: &mut Judge<'_>) {
    judge.status("picker-refuses-status", "picker-refuses", 503);
    judge.reached_nothing("picker-refuses-reaches-nothing", "picker-refuses");
    judge.status("picker-names-none-status", "picker-names-none", 503);
    judge.reached_nothing("picker-names-none-reaches-nothing", "picker-names-none");
    judge.status("client-names-one-status", "client-names-one", 503);
    judge.reached_nothing("client-names-one-reaches-nothing", "client-names-one");
}

check!(
    pool / shed,
    drive_shed,
    judge_shed,
    Check {
        sentence: "the picker's 429 reaches the client with its body, and no model is reached",
        source: "GIE protocol 004, \"load shedding\"",
        how: "Has the picker answer requests with and without a body itself; looks at status and body of the answers and at the \
              models' records.",
        kills: &["swallows-immediate-responses"],
        ..POOL
    }
);

async fn drive_shed(stage: &mut Stage) -> Result<()> {
    routed(stage, PoolOf::new("alpha")).await?;
    for _ in 0..5 {
        stage.send("post", chat("alpha").header(PICK, "shed")).await;
        stage.send("get", models().header(PICK, "shed")).await;
    }
    Ok(())
}

fn judge_shed(judge: &mut Judge<'_>) {
    judge.status("post-status", "post", 429);
    judge.body("post-body", "post", ::picker::SHED);
    judge.reached_nothing("post-reaches-nothing", "post");
    judge.status("get-status", "get", 429);
    judge.body("get-body", "get", ::picker::SHED);
    judge.reached_nothing("get-reaches-nothing", "get");
}

/// GET without a body and POST with one, as many of each as are counted, after the picker's pod has gone.
async fn without_the_picker(stage: &mut Stage, wanted: PoolOf) -> Result<()> {
    let mut pool = routed(stage, wanted).await?;
    for _ in 0..3 {
        stage.send("with-picker", chat("alpha")).await;
    }
    stage.kill_picker(&mut pool).await?;
    for _ in 0..COUNTED {
        stage.send("get", models()).await;
        stage.send("post", chat("alpha")).await;
    }
    Ok(())
}

check!(
    pool / fail_close,
    drive_fail_close,
    judge_fail_close,
    Check {
        sentence: "without its picker a pool that fails closed answers 5xx and reaches no model",
        source: "GIE v1, endpointPickerRef.failureMode FailClose",
        how: "Ends the picker's pod, then sends twenty requests with a body and twenty without one; looks at every status and at the \
              models' records.",
        kills: &["fails-open-always", "fails-open-to-another-pool"],
        counts_every_answer: true,
        ..POOL
    }
);

async fn drive_fail_close(stage: &mut Stage) -> Result<()> {
    without_the_picker(stage, PoolOf::new("alpha")).await
}

fn judge_fail_close(judge: &mut Judge<'_>) {
    picked::as_picked(judge, "with-picker-as-picked", "with-picker", "alpha");
    judge.server_error("get-is-a-server-error", "get");
    judge.reached_nothing("get-reaches-nothing", "get");
    judge.server_error("post-is-a-server-error", "post");
    judge.reached_nothing("post-reaches-nothing", "post");
}

check!(
    pool / fail_open,
    drive_fail_open,
    judge_fail_open,
    Check {
        sentence: "without its picker a pool that fails open serves every request, with and without a body, from its own endpoints",
        source: "GIE v1, endpointPickerRef.failureMode FailOpen; agentgateway/agentgateway#3473, envoyproxy/ai-gateway#2502",
        how: "Ends the picker's pod, then sends twenty requests with a body and twenty without one; each has to be answered by one of the \
              pool's models.",
        kills: &["fails-open-never", "fails-open-without-a-body-only", "fails-open-to-another-pool"],
        counts_every_answer: true,
        ..POOL
    }
);

async fn drive_fail_open(stage: &mut Stage) -> Result<()> {
    without_the_picker(stage, PoolOf::new("alpha").failing_open()).await
}

fn judge_fail_open(judge: &mut Judge<'_>) {
    picked::as_picked(judge, "with-picker-as-picked", "with-picker", "alpha");
    judge.answered_by("get-answered-by-alpha", "get", "alpha");
    judge.answered_by("post-answered-by-alpha", "post", "alpha");
}

/// What a check of a reference that leads nowhere sends: to the good pool, and to the bad one on a hostname of its own.
async fn beside_a_good_pool(stage: &mut Stage, rule: Value) -> Result<()> {
    routed(stage, PoolOf::new("alpha")).await?;
    let bad = format!("bad-{}", stage.hostname());
    stage.intent("pool-route", json!({"name": "bad", "hostname": bad, "rules": [rule]})).await?;
    let route = route_object(stage, "bad");
    stage.see("route", &route, parents_say("ResolvedRefs"), 60).await?;
    stage.settle_status(|| chat("alpha").host(&bad), |status| status != 404).await?;
    for _ in 0..5 {
        stage.send("good", chat("alpha")).await;
        stage.send("bad", chat("alpha").host(&bad)).await;
    }
    Ok(())
}

fn judge_beside_a_good_pool(judge: &mut Judge<'_>) {
    picked::as_picked(judge, "good-as-picked", "good", "alpha");
    judge.server_error("bad-is-a-server-error", "bad");
    judge.reached_nothing("bad-reaches-nothing", "bad");
}

fn judge_unresolved(judge: &mut Judge<'_>, reason: &str) {
    let route = judge.object("route");
    judge.condition("route-ResolvedRefs", route, "ResolvedRefs", "False");
    judge.reason("route-reason", judge.condition_of(route, "ResolvedRefs"), reason);
}

check!(
    pool / invalid_picker_ref,
    drive_invalid_picker_ref,
    judge_invalid_picker_ref,
    Check {
        sentence: "a pool whose picker's Service is missing says ResolvedRefs=False with InvalidExtensionRef, and its traffic gets 5xx",
        source: "GIE v1, InferencePoolReasonInvalidExtensionRef",
        how: "Routes a hostname of its own to a pool that names a Service which is not there, beside a good pool; sends chats to both, \
              and reads the status of route and pool.",
        kills: &["resolves-missing-pickers", "serves-without-a-picker"],
        ..POOL
    }
);

async fn drive_invalid_picker_ref(stage: &mut Stage) -> Result<()> {
    stage.note_gateway();
    stage.pool(PoolOf::new("beta").failing_open().asking("nobody")).await?;
    beside_a_good_pool(stage, json!({"match": everything(), "pool": "beta"})).await?;
    see_pool(stage, "pool", "beta", parents_say("ResolvedRefs")).await
}

fn judge_invalid_picker_ref(judge: &mut Judge<'_>) {
    judge_beside_a_good_pool(judge);
    judge.condition("route-Accepted", judge.object("route"), "Accepted", "True");
    let pool = judge.object("pool");
    judge.pool_condition("pool-ResolvedRefs", pool, "ResolvedRefs", "False");
    let said = judge.pool_entries(pool).into_iter().find_map(|e| judge::condition(&e["conditions"], "ResolvedRefs"));
    judge.reason("pool-reason", said, "InvalidExtensionRef");
}

check!(
    pool / missing_pool,
    drive_missing_pool,
    judge_missing_pool,
    Check {
        sentence: "a route to a pool that is missing says BackendNotFound, and its traffic gets 5xx and reaches no model",
        source: "Gateway API v1, RouteReasonBackendNotFound",
        how: "Routes a hostname of its own to a pool that is not there, beside a good pool; sends chats to both, and reads the \
              route's status.",
        kills: &["resolves-missing-backends"],
        ..POOL
    }
);

async fn drive_missing_pool(stage: &mut Stage) -> Result<()> {
    beside_a_good_pool(stage, json!({"match": everything(), "pool": "nobody"})).await
}

fn judge_missing_pool(judge: &mut Judge<'_>) {
    judge_beside_a_good_pool(judge);
    judge_unresolved(judge, "BackendNotFound");
}

check!(
    pool / unknown_group,
    drive_unknown_group,
    judge_unknown_group,
    Check {
        sentence: "a route to a pool of a group that the gateway does not know says InvalidKind, and its traffic gets 5xx",
        source: "Gateway API v1, RouteReasonInvalidKind; KServe v0.17 moves its pools to the v1 group by it",
        how: "Routes a hostname of its own to a good pool, named with the older group of its kind, beside a good route; sends chats to \
              both, and reads the route's status.",
        kills: &["backend-not-found-for-unknown-kinds"],
        ..POOL
    }
);

async fn drive_unknown_group(stage: &mut Stage) -> Result<()> {
    let rule = json!({"match": everything(), "pool": "alpha", "group": "inference.networking.x-k8s.io"});
    beside_a_good_pool(stage, rule).await
}

fn judge_unknown_group(judge: &mut Judge<'_>) {
    judge_beside_a_good_pool(judge);
    judge_unresolved(judge, "InvalidKind");
}

mod judges {
    use rstest::rstest;
    use suites::fake::Fake;
    use verdict::judge::Holds;

    use super::super::{alpha, entry, of_the_gateway};
    use super::*;

    fn unchosen() -> Fake {
        alpha("pool/no-endpoint").refused("picker-refuses", 503).refused("picker-names-none", 503)
    }

    #[rstest]
    #[case::refused(unchosen().refused("client-names-one", 503), Holds::Yes)]
    #[case::steered(unchosen().past_the_picker("client-names-one", "alpha", 0), Holds::No)]
    #[case::own_choice(unchosen().past_the_picker("picker-names-none", "alpha", 2).refused("client-names-one", 503), Holds::No)]
    #[case::other_status(unchosen().refused("client-names-one", 500), Holds::No)]
    #[case::models_lost_records(unchosen().refused("client-names-one", 503).without_marker("alpha"), Holds::Unproven)]
    fn no_endpoint_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(fake.verdict(), holds);
    }

    fn shedding(status: u16, body: &str) -> Fake {
        let fake = alpha("pool/shed").refused_with("get", 429, "text/plain", ::picker::SHED);
        fake.refused_with("post", status, "application/json", body)
    }

    #[rstest]
    #[case::passed_on(shedding(429, ::picker::SHED), Holds::Yes)]
    #[case::body_lost(shedding(429, ""), Holds::No)]
    #[case::other_status(shedding(503, ::picker::SHED), Holds::No)]
    #[case::served_all_the_same(shedding(429, ::picker::SHED).picked("post", "alpha", 0), Holds::No)]
    fn shed_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(fake.verdict(), holds);
    }

    /// Twenty of each, of which so many POSTs are served.
    fn gone(check: &str, gets_served: usize, posts_served: usize) -> Fake {
        let served = |fake: Fake, label: &str, yes: bool| {
            if yes { fake.past_the_picker(label, "alpha", 0) } else { fake.refused(label, 500) }
        };
        alpha(check)
            .picked("with-picker", "alpha", 0)
            .times(COUNTED, |fake, n| served(fake, "get", n < gets_served))
            .times(COUNTED, |fake, n| served(fake, "post", n < posts_served))
    }

    /// The Inference Extension's own suite passes where a retry makes 12 failures of 20 invisible.
    #[rstest]
    #[case::closed(0, 0, Holds::Yes, Holds::No)]
    #[case::open(COUNTED, COUNTED, Holds::No, Holds::Yes)]
    #[case::one_slipped_through(0, 1, Holds::No, Holds::No)]
    #[case::one_was_refused(COUNTED, COUNTED - 1, Holds::No, Holds::No)]
    #[case::open_without_a_body_only(COUNTED, 0, Holds::No, Holds::No)]
    #[case::twelve_of_twenty_failed(COUNTED, 8, Holds::No, Holds::No)]
    fn failure_modes_are_judged(#[case] gets: usize, #[case] posts: usize, #[case] closed: Holds, #[case] open: Holds) {
        assert_eq!(gone("pool/fail-close", gets, posts).verdict(), closed);
        assert_eq!(gone("pool/fail-open", gets, posts).verdict(), open);
    }

    #[test]
    fn failing_open_to_another_pool_is_no_failing_open() {
        let fake = gone("pool/fail-open", COUNTED, COUNTED).pool("beta", 1).past_the_picker("post", "beta", 0);
        assert_eq!(fake.verdict(), Holds::No);
        let bypassed = gone("pool/fail-open", COUNTED, COUNTED).past_the_picker("with-picker", "alpha", 0);
        assert_eq!(bypassed.verdict(), Holds::No, "there never was a picker to lose");
    }

    /// A good pool, and a bad one with this answer behind a route that says this.
    fn beside(check: &str, status: u16, resolved: &str, reason: &str) -> Fake {
        let fake = alpha(check).picked("good", "alpha", 0).refused("bad", status);
        fake.object("route", entry(&[("Accepted", "True", "Accepted"), ("ResolvedRefs", resolved, reason)]))
    }

    #[rstest]
    #[case::said(beside("pool/missing-pool", 500, "False", "BackendNotFound"), Holds::Yes, Holds::No)]
    #[case::unknown(beside("pool/missing-pool", 503, "False", "InvalidKind"), Holds::No, Holds::Yes)]
    #[case::claims_resolved(beside("pool/missing-pool", 500, "True", "ResolvedRefs"), Holds::No, Holds::No)]
    #[case::not_a_server_error(beside("pool/missing-pool", 404, "False", "BackendNotFound"), Holds::No, Holds::No)]
    #[case::another_backend(beside("pool/missing-pool", 500, "False", "BackendNotFound").picked("bad", "alpha", 0), Holds::No, Holds::No)]
    #[case::the_good_one_suffers(beside("pool/missing-pool", 500, "False", "BackendNotFound").refused("good", 500), Holds::No, Holds::No)]
    fn unresolved_pools_are_judged(#[case] fake: Fake, #[case] missing: Holds, #[case] unknown: Holds) {
        assert_eq!(fake.verdict(), missing);
        let mut of_a_group = fake;
        of_a_group.0.key.check = "pool/unknown-group".into();
        assert_eq!(of_a_group.verdict(), unknown);
    }

    #[rstest]
    #[case::said("False", "InvalidExtensionRef", 500, Holds::Yes)]
    #[case::claims_resolved("True", "ResolvedRefs", 500, Holds::No)]
    #[case::other_reason("False", "ResolvedRefs", 500, Holds::No)]
    #[case::serves("False", "InvalidExtensionRef", 200, Holds::No)]
    fn invalid_picker_ref_is_judged(
        #[case] resolved: &str,
        #[case] reason: &str,
        #[case] status: u16,
        #[case] holds: Holds,
    ) {
        let fake = beside("pool/invalid-picker-ref", status, "True", "ResolvedRefs");
        let fake = of_the_gateway(fake.object("pool", entry(&[("ResolvedRefs", resolved, reason)])));
        assert_eq!(fake.verdict(), holds);
    }

    #[test]
    fn what_a_pool_says_of_another_gateway_is_nothing() {
        let mut pool = entry(&[("ResolvedRefs", "False", "InvalidExtensionRef")]);
        pool["status"]["parents"][0]["parentRef"]["name"] = json!("other");
        let fake = beside("pool/invalid-picker-ref", 500, "True", "ResolvedRefs").object("pool", pool);
        assert_eq!(of_the_gateway(fake).verdict(), Holds::No);
    }
}
