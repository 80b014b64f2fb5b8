//! What becomes of requests for which no endpoint is chosen: the picker refuses, is gone, or never was there.

use anyhow::Result;
use serde_json::{Value, json};
use suites::{
    Call, Check, Judge, PoolOf, Stage, chat, check, every_path,
    judge::{self, SERVER_ERROR},
    parents_say, picked,
};

use super::{COUNTED, DESTINATION, PICK, POOL, models, routed};

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
    let silent = chat("alpha").header(PICK, "silent");
    let calls = [
        ("picker-refuses", chat("alpha").header(PICK, "none")),
        ("picker-names-none", silent.clone()),
        ("client-names-one", silent.header(DESTINATION, pool.endpoint(0))),
    ];
    stage.send_in_turn(5, &calls).await
}

fn judge_no_endpoint(judge: &mut Judge<'_>) {
    judge.unserved(["picker-refuses-status", "picker-refuses-reaches-nothing"], "picker-refuses", 503..=503);
    judge.unserved(["picker-names-none-status", "picker-names-none-reaches-nothing"], "picker-names-none", 503..=503);
    judge.unserved(["client-names-one-status", "client-names-one-reaches-nothing"], "client-names-one", 503..=503);
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
    let shed = |call: Call| call.header(PICK, "shed");
    stage.send_in_turn(5, &[("post", shed(chat("alpha"))), ("get", shed(models()))]).await
}

fn judge_shed(judge: &mut Judge<'_>) {
    judge.unserved(["post-status", "post-reaches-nothing"], "post", 429..=429);
    judge.body("post-body", "post", ::picker::SHED);
    judge.unserved(["get-status", "get-reaches-nothing"], "get", 429..=429);
    judge.body("get-body", "get", ::picker::SHED);
}

/// GET without a body and POST with one, as many of each as are counted, after the picker's pod has gone.
async fn without_the_picker(stage: &mut Stage, wanted: PoolOf) -> Result<()> {
    let mut pool = routed(stage, wanted).await?;
    stage.send_in_turn(3, &[("with-picker", chat("alpha"))]).await?;
    stage.kill_picker(&mut pool).await?;
    stage.send_in_turn(COUNTED, &[("get", models()), ("post", chat("alpha"))]).await
}

check!(
    pool / fail_close,
    |stage| without_the_picker(stage, PoolOf::new("alpha")),
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

fn judge_fail_close(judge: &mut Judge<'_>) {
    picked::as_picked(judge, "with-picker-as-picked", "with-picker", "alpha");
    judge.unserved(["get-is-a-server-error", "get-reaches-nothing"], "get", SERVER_ERROR);
    judge.unserved(["post-is-a-server-error", "post-reaches-nothing"], "post", SERVER_ERROR);
}

check!(
    pool / fail_open,
    |stage| without_the_picker(stage, PoolOf::new("alpha").failing_open()),
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
    stage.see("route", &stage.http_route("bad"), parents_say("ResolvedRefs"), 60).await?;
    stage.settle_status(|| chat("alpha").host(&bad), |status| status != 404).await?;
    stage.send_in_turn(5, &[("good", chat("alpha")), ("bad", chat("alpha").host(&bad))]).await
}

fn judge_beside_a_good_pool(judge: &mut Judge<'_>) {
    picked::as_picked(judge, "good-as-picked", "good", "alpha");
    judge.unserved(["bad-is-a-server-error", "bad-reaches-nothing"], "bad", SERVER_ERROR);
}

fn judge_unresolved(judge: &mut Judge<'_>, reason: &str) {
    judge_beside_a_good_pool(judge);
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
    stage.pool(PoolOf { picker_service: "nobody".into(), ..PoolOf::new("beta").failing_open() }).await?;
    beside_a_good_pool(stage, json!({"match": every_path(), "pool": "beta"})).await?;
    stage.see("pool", &stage.inference_pool("beta"), parents_say("ResolvedRefs"), 60).await
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
    |stage| beside_a_good_pool(stage, json!({"match": every_path(), "pool": "nobody"})),
    |judge| judge_unresolved(judge, "BackendNotFound"),
    Check {
        sentence: "a route to a pool that is missing says BackendNotFound, and its traffic gets 5xx and reaches no model",
        source: "Gateway API v1, RouteReasonBackendNotFound",
        how: "Routes a hostname of its own to a pool that does not exist, beside a good pool; sends chats to both, and reads the \
              route's status.",
        kills: &["resolves-missing-backends"],
        ..POOL
    }
);

check!(
    pool / unknown_group,
    drive_unknown_group,
    |judge| judge_unresolved(judge, "InvalidKind"),
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
    let rule = json!({"match": every_path(), "pool": "alpha", "group": "inference.networking.x-k8s.io"});
    beside_a_good_pool(stage, rule).await
}

mod judges {
    use rstest::rstest;
    use suites::fake::{Fake, Holds, No, Unproven, Yes, parents_saying};

    use super::super::alpha;
    use super::*;

    fn unchosen() -> Fake {
        alpha("pool/no-endpoint").refused("picker-refuses", 503).refused("picker-names-none", 503)
    }

    fn shedding(status: u16, body: &str) -> Fake {
        let fake = alpha("pool/shed").refused_with("get", 429, "text/plain", ::picker::SHED);
        fake.refused_with("post", status, "application/json", body)
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
    #[case::closed(0, 0, Yes, No)]
    #[case::open(COUNTED, COUNTED, No, Yes)]
    #[case::one_slipped_through(0, 1, No, No)]
    #[case::one_was_refused(COUNTED, COUNTED - 1, No, No)]
    #[case::open_without_a_body_only(COUNTED, 0, No, No)]
    #[case::twelve_of_twenty_failed(COUNTED, 8, No, No)]
    fn failure_modes_are_judged(#[case] gets: usize, #[case] posts: usize, #[case] closed: Holds, #[case] open: Holds) {
        assert_eq!(gone("pool/fail-close", gets, posts).verdict(), closed);
        assert_eq!(gone("pool/fail-open", gets, posts).verdict(), open);
    }

    /// A good pool, and a bad one with this answer behind a route that says this.
    fn beside(check: &str, status: u16, resolved: &str, reason: &str) -> Fake {
        let fake = alpha(check).picked("good", "alpha", 0).refused("bad", status);
        fake.object("route", parents_saying(&[("Accepted", "True", "Accepted"), ("ResolvedRefs", resolved, reason)]))
    }

    #[rstest]
    #[case::said(beside("pool/missing-pool", 500, "False", "BackendNotFound"), Yes, No)]
    #[case::unknown(beside("pool/missing-pool", 503, "False", "InvalidKind"), No, Yes)]
    #[case::claims_resolved(beside("pool/missing-pool", 500, "True", "ResolvedRefs"), No, No)]
    #[case::not_a_server_error(beside("pool/missing-pool", 404, "False", "BackendNotFound"), No, No)]
    #[case::another_backend(beside("pool/missing-pool", 500, "False", "BackendNotFound").picked("bad", "alpha", 0), No, No)]
    #[case::the_good_one_suffers(beside("pool/missing-pool", 500, "False", "BackendNotFound").refused("good", 500), No, No)]
    fn unresolved_pools_are_judged(#[case] fake: Fake, #[case] missing: Holds, #[case] unknown: Holds) {
        assert_eq!(fake.verdict(), missing);
        let mut of_a_group = fake;
        of_a_group.0.key.check = "pool/unknown-group".into();
        assert_eq!(of_a_group.verdict(), unknown);
    }

    fn invalid_picker_ref(resolved: &str, reason: &str, status: u16) -> Fake {
        let fake = beside("pool/invalid-picker-ref", status, "True", "ResolvedRefs");
        fake.object("pool", parents_saying(&[("ResolvedRefs", resolved, reason)])).of_the_gateway()
    }

    fn said_of_another_gateway() -> Fake {
        let mut pool = parents_saying(&[("ResolvedRefs", "False", "InvalidExtensionRef")]);
        pool["status"]["parents"][0]["parentRef"]["name"] = json!("other");
        beside("pool/invalid-picker-ref", 500, "True", "ResolvedRefs").object("pool", pool).of_the_gateway()
    }

    #[rstest]
    #[case::no_endpoint_refused(unchosen().refused("client-names-one", 503), Yes)]
    #[case::no_endpoint_steered(unchosen().past_the_picker("client-names-one", "alpha", 0), No)]
    #[case::no_endpoint_own_choice(unchosen().past_the_picker("picker-names-none", "alpha", 2).refused("client-names-one", 503), No)]
    #[case::no_endpoint_other_status(unchosen().refused("client-names-one", 500), No)]
    #[case::no_endpoint_models_lost_records(unchosen().refused("client-names-one", 503).without_marker("alpha"), Unproven)]
    #[case::shed_passed_on(shedding(429, ::picker::SHED), Yes)]
    #[case::shed_body_lost(shedding(429, ""), No)]
    #[case::shed_other_status(shedding(503, ::picker::SHED), No)]
    #[case::shed_served_all_the_same(shedding(429, ::picker::SHED).picked("post", "alpha", 0), No)]
    #[case::fail_open_to_another_pool(gone("pool/fail-open", COUNTED, COUNTED).pool("beta", 1).past_the_picker("post", "beta", 0), No)]
    #[case::fail_open_without_a_picker_to_lose(gone("pool/fail-open", COUNTED, COUNTED).past_the_picker("with-picker", "alpha", 0), No)]
    #[case::invalid_picker_ref_of_another_gateway(said_of_another_gateway(), No)]
    #[case::invalid_picker_ref_said(invalid_picker_ref("False", "InvalidExtensionRef", 500), Yes)]
    #[case::invalid_picker_ref_claims_resolved(invalid_picker_ref("True", "ResolvedRefs", 500), No)]
    #[case::invalid_picker_ref_other_reason(invalid_picker_ref("False", "ResolvedRefs", 500), No)]
    #[case::invalid_picker_ref_serves(invalid_picker_ref("False", "InvalidExtensionRef", 200), No)]
    fn judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(fake.verdict(), holds);
    }
}
