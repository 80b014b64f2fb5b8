//! The picker is asked once, and what it chooses serves.

use anyhow::Result;
use serde_json::json;
use suites::{Check, Judge, PoolOf, Stage, by_upstream_picker, chat, check, picked};
use verdict::{capability, history::Exchange, plan::Level};

use super::{COUNTED, DESTINATION, PICK, POOL, SELECT, models, routed, with_header};

check!(
    pool / picker_asked(http_route, model_route),
    drive_picker_asked,
    judge_picker_asked,
    Check {
        sentence: "the endpoint picker is asked once for every request that a pool answers, and the endpoint that it names serves",
        source: "GIE protocol 004, \"Request Path\"; envoyproxy/ai-gateway docs, InferencePool; agentgateway/agentgateway#2976",
        how: "Sends chats, streamed chats and, where the route is not by model, requests without a body; the picker's records have \
              to show each once, and the models' records that the endpoint which it named served.",
        case_capabilities: &[("model_route", capability::MODEL_POOL_ROUTE)],
        kills: &["skips-picker", "ignores-choice"],
        counts_every_answer: true,
        ..POOL
    }
);

async fn drive_picker_asked(stage: &mut Stage) -> Result<()> {
    let by_model = stage.case() == "model-route";
    if by_model {
        stage.pool(PoolOf::new("alpha")).await?;
        stage.intent("model-pool-route", json!({"models": [{"model": "alpha", "pool": "alpha"}]})).await?;
        stage.settle(|| chat("alpha"), "alpha").await?;
    } else {
        routed(stage, PoolOf::new("alpha")).await?;
    }
    let calls = [("post", chat("alpha")), ("stream", chat("alpha").stream()), ("get", models())];
    stage.send_in_turn(10, if by_model { &calls[..2] } else { &calls[..] }).await
}

fn judge_picker_asked(judge: &mut Judge<'_>) {
    picked::as_picked(judge, "post-as-picked", "post", "alpha");
    picked::as_picked(judge, "stream-as-picked", "stream", "alpha");
    if judge.case() != "model-route" {
        picked::as_picked(judge, "get-as-picked", "get", "alpha");
    }
}

check!(
    pool / follows_choice,
    |stage| send_commanded(stage, PoolOf { replicas: 3, ..PoolOf::new("alpha") }),
    judge_follows_choice,
    Check {
        sentence: "of many requests at a time each is served by the endpoint that the picker named for it",
        source: "GIE protocol 004, \"Destination endpoint\"",
        how: "Sends sixty chats, ten at a time, each with a header that tells our picker which of three endpoints to name; records \
              of picker and models say what was named and who served.",
        kills: &["ignores-choice", "swaps-choices-of-concurrent-requests"],
        counts_every_answer: true,
        ..POOL
    }
);

async fn send_commanded(stage: &mut Stage, wanted: PoolOf) -> Result<()> {
    let pool = routed(stage, wanted).await?;
    let turns: Vec<usize> = (0..60).collect();
    for ten in turns.chunks(10) {
        let calls = ten.iter().map(|turn| chat("alpha").header(SELECT, pool.endpoint(*turn))).collect();
        stage.send_together("commanded", calls, async |_| Ok(())).await?;
    }
    Ok(())
}

fn judge_follows_choice(judge: &mut Judge<'_>) {
    picked::as_picked(judge, "commanded-as-picked", "commanded", "alpha");
    let expected = "the picker named what was commanded";
    picked::record_of_each(judge, "commanded-named-as-commanded", "commanded", "alpha", expected, |exchange, pick| {
        let wanted = picked::sent_header(exchange, SELECT);
        (wanted != pick.chosen.first().map(String::as_str))
            .then(|| format!("named {:?} where {wanted:?} was wanted", pick.chosen))
    });
}

check!(
    pool / upstream_picker,
    |stage| send_commanded(stage, PoolOf { replicas: 3, upstream: true, ..PoolOf::new("alpha") }),
    |judge| picked::as_commanded(judge, "commanded-as-commanded", "commanded", "alpha", SELECT),
    Check {
        sentence: "the Inference Extension's own picker is asked and followed, of many requests at a time each lands where it was told to choose",
        source: "GIE conformance, GatewayFollowingEPPRouting, with every answer counted",
        how: "Sends sixty chats, ten at a time, each with a header that tells the Inference Extension's picker which endpoint to name. It \
              keeps no records: those of the models have to show each chat at that endpoint, as only the picker reads the header.",
        changes: by_upstream_picker,
        kills: &["skips-picker", "ignores-choice"],
        counts_every_answer: true,
        ..POOL
    }
);

check!(
    pool / two_pools,
    drive_two_pools,
    judge_two_pools,
    Check {
        sentence: "two rules of a route lead to two pools, each asks its own picker and no other",
        source: "GIE conformance, HTTPRouteMultipleRulesDifferentPools",
        how: "Sends chats to two pools in turn, told apart by a header; the records of both pickers say which was asked.",
        kills: &["one-picker-for-all-pools"],
        ..POOL
    }
);

async fn drive_two_pools(stage: &mut Stage) -> Result<()> {
    for name in ["alpha", "beta"] {
        stage.pool(PoolOf::new(name)).await?;
    }
    let rule = |name: &str| json!({"match": with_header("x-pool", name), "pool": name});
    stage.intent("pool-route", json!({"rules": [rule("alpha"), rule("beta")]})).await?;
    for name in ["alpha", "beta"] {
        stage.settle(|| chat(name).header("x-pool", name), name).await?;
    }
    let calls = ["alpha", "beta"].map(|name| (name, chat("any").header("x-pool", name)));
    stage.send_in_turn(10, &calls).await
}

fn judge_two_pools(judge: &mut Judge<'_>) {
    picked::as_picked(judge, "alpha-as-picked", "alpha", "alpha");
    picked::not_asked(judge, "alpha-does-not-ask-beta", "alpha", "beta");
    picked::as_picked(judge, "beta-as-picked", "beta", "beta");
    picked::not_asked(judge, "beta-does-not-ask-alpha", "beta", "alpha");
}

check!(
    pool / ordered_fallback,
    drive_ordered_fallback,
    |judge| picked::by_the_fallback(judge, "first-is-dead-as-picked", "first-is-dead", "alpha"),
    Check {
        level: Level::Should,
        sentence: "where the first endpoint that the picker names is dead, the next one of its list serves",
        source: "GIE protocol 004, \"ordered fallback\"; agentgateway/agentgateway#1444",
        how: "Has the picker name two endpoints, the first of them on a port of the pool on which nothing listens; the models' \
              records have to show each chat at the second.",
        kills: &["takes-the-first-endpoint-alone"],
        ..POOL
    }
);

/// Endpoints of the pool's second port are of the pool, and dead: nothing listens there.
async fn drive_ordered_fallback(stage: &mut Stage) -> Result<()> {
    let pool = routed(stage, PoolOf { ports: vec![8080, 8081], ..PoolOf::new("alpha") }).await?;
    let on_port = |port: &str| pool.endpoints.iter().find(|(_, e)| e.ends_with(port)).map_or("", |(_, e)| e.as_str());
    let command = format!("endpoints={},{}", on_port(":8081"), on_port(":8080"));
    stage.send_in_turn(10, &[("first-is-dead", chat("alpha").header(PICK, &command))]).await
}

check!(
    pool / client_cannot_steer,
    drive_client_cannot_steer,
    judge_client_cannot_steer,
    Check {
        sentence: "an endpoint that the client names in the header of the picker's choice is never followed",
        source: "GIE protocol 004, x-gateway-destination-endpoint is the picker's",
        how: "Sends requests whose own header of the choice names another endpoint or one of another pool, with the picker and, in a \
              pool that fails open, after its pod has gone; records say that they did not go where the client said.",
        kills: &["keeps-the-clients-destination-header"],
        counts_every_answer: true,
        ..POOL
    }
);

async fn drive_client_cannot_steer(stage: &mut Stage) -> Result<()> {
    let beta = stage.pool(PoolOf { replicas: 1, ..PoolOf::new("beta") }).await?;
    let mut alpha = routed(stage, PoolOf { replicas: 3, ..PoolOf::new("alpha").failing_open() }).await?;
    let (named, outside) = (alpha.endpoint(0).to_owned(), beta.endpoint(0).to_owned());
    let call = || chat("alpha").header(SELECT, alpha.endpoint(1));
    let calls = [
        ("names-another", call().header(DESTINATION, &named)),
        ("names-an-outsider", call().header(DESTINATION, &outside)),
    ];
    stage.send_in_turn(10, &calls).await?;
    stage.kill_picker(&mut alpha).await?;
    stage.send_in_turn(COUNTED, &[("picker-gone", models().header(DESTINATION, &named))]).await?;
    stage.send_in_turn(3, &[("picker-gone-outsider", models().header(DESTINATION, &outside))]).await
}

fn judge_client_cannot_steer(judge: &mut Judge<'_>) {
    picked::as_picked(judge, "names-another-as-picked", "names-another", "alpha");
    picked::as_picked(judge, "names-an-outsider-as-picked", "names-an-outsider", "alpha");
    picked::not_steered(judge, "picker-gone-not-steered", "picker-gone", "alpha", DESTINATION);
    judge.did_not_reach("picker-gone-outsider-does-not-reach-beta", "picker-gone-outsider", "beta");
}

check!(
    pool / served_reported,
    drive_served_reported,
    judge_served_reported,
    Check {
        level: Level::Should,
        sentence: "the picker is told which endpoint served",
        source: "GIE protocol 004, x-gateway-destination-endpoint-served",
        how: "Sends ten chats; the picker's record of each has to have the endpoint that it named as the one that is reported to have \
              served.",
        kills: &["does-not-report-the-served-endpoint"],
        ..POOL
    }
);

async fn drive_served_reported(stage: &mut Stage) -> Result<()> {
    let pool = routed(stage, PoolOf::new("alpha")).await?;
    for turn in 0..10 {
        stage.send("post", chat("alpha").header(SELECT, pool.endpoint(turn))).await?;
    }
    Ok(())
}

fn judge_served_reported(judge: &mut Judge<'_>) {
    picked::as_picked(judge, "post-as-picked", "post", "alpha");
    let expected = "the endpoint that served is reported";
    picked::record_of_each(judge, "post-served-is-reported", "post", "alpha", expected, |_, pick| {
        let served = &pick.served;
        (served.as_ref() != pick.chosen.first()).then(|| format!("{served:?} is reported as having served"))
    });
}

/// What a backendRef to a pool says of a port, and the clause about it.
const PORTS: [(&str, &str, Option<u16>); 3] = [
    ("no-port", "no-port-as-picked", None),
    ("same-port", "same-port-as-picked", Some(8080)),
    ("other-port", "other-port-as-picked", Some(1)),
];

check!(
    pool / port_ignored,
    drive_port_ignored,
    judge_port_ignored,
    Check {
        sentence: "the port of a backendRef to a pool changes nothing",
        source: "GIE conformance, InferencePoolHTTPRoutePortValidation",
        how: "Gives the route's backendRef no port, then that of the pool, then another, and sends five chats each time; all have to \
              be served as the picker chose.",
        kills: &["uses-the-backend-refs-port"],
        ..POOL
    }
);

/// One port after the other: how often a picker is asked where several matches lead to its pool is `asked-once`'s subject.
async fn drive_port_ignored(stage: &mut Stage) -> Result<()> {
    stage.pool(PoolOf::new("alpha")).await?;
    for (label, _, port) in PORTS {
        let mut rule = json!({"match": with_header("x-rule", label), "pool": "alpha"});
        if let Some(port) = port {
            rule["port"] = json!(port);
        }
        stage.intent("pool-route", json!({"rules": [rule]})).await?;
        let call = || chat("alpha").header("x-rule", label);
        stage.settle(call, "alpha").await?;
        stage.send_in_turn(5, &[(label, call())]).await?;
    }
    Ok(())
}

fn judge_port_ignored(judge: &mut Judge<'_>) {
    for (label, clause, _) in PORTS {
        picked::as_picked(judge, clause, label, "alpha");
    }
}

/// Matches of one route that lead to one pool, and the clause about each.
const MATCHES: [(&str, &str); 3] =
    [("first", "first-as-picked"), ("second", "second-as-picked"), ("third", "third-as-picked")];

check!(
    pool / asked_once,
    drive_asked_once,
    judge_asked_once,
    Check {
        sentence: "a request asks its pool's picker once, however many matches lead to the pool",
        source: "GIE protocol 004, one choice for a request; envoyproxy/ai-gateway#2595",
        how: "Sends five chats to each of three matches of one route that lead to the same pool; the picker has to have one record of \
              each.",
        kills: &["asks-for-every-match"],
        ..POOL
    }
);

async fn drive_asked_once(stage: &mut Stage) -> Result<()> {
    stage.pool(PoolOf::new("alpha")).await?;
    let rules = MATCHES.map(|(label, _)| json!({"match": with_header("x-rule", label), "pool": "alpha"}));
    stage.intent("pool-route", json!({"rules": rules})).await?;
    let calls = MATCHES.map(|(label, _)| (label, chat("alpha").header("x-rule", label)));
    for (_, call) in &calls {
        stage.settle(|| call.clone(), "alpha").await?;
    }
    stage.send_in_turn(5, &calls).await
}

fn judge_asked_once(judge: &mut Judge<'_>) {
    for (label, clause) in MATCHES {
        picked::as_picked(judge, clause, label, "alpha");
    }
}

check!(
    pool / picker_latency,
    drive_picker_latency,
    judge_picker_latency,
    Check {
        level: Level::Info,
        sentence: "the time that asking the picker adds",
        source: "GIE protocol 004",
        how: "Sends thirty chats through the pool and as many through a route to the Service of the same models, in turn, and tells \
              the medians of the time to the head of the response.",
        ..POOL
    }
);

async fn drive_picker_latency(stage: &mut Stage) -> Result<()> {
    let pool = routed(stage, PoolOf::new("alpha")).await?;
    let plain = format!("plain-{}", stage.hostname());
    stage.plain_route("plain", Some(&plain), pool.service()).await?;
    stage.settle(|| chat("alpha").host(&plain), "alpha").await?;
    let calls = [("through-the-picker", chat("alpha")), ("past-the-picker", chat("alpha").host(&plain))];
    stage.send_in_turn(30, &calls).await
}

fn judge_picker_latency(judge: &mut Judge<'_>) {
    picked::as_picked(judge, "through-the-picker-as-picked", "through-the-picker", "alpha");
    judge.answered_by("past-the-picker-answered-by-alpha", "past-the-picker", "alpha");
    picked::not_asked(judge, "past-the-picker-does-not-ask-alpha", "past-the-picker", "alpha");
    let median = |exchanges: Vec<&Exchange>| {
        let mut times: Vec<f64> = exchanges.iter().filter_map(|e| e.response()).map(|r| r.head_ms).collect();
        times.sort_by(f64::total_cmp);
        times.get(times.len() / 2).copied()
    };
    let (through, past) = (judge.labelled("through-the-picker"), judge.labelled("past-the-picker"));
    let statement = judge.clause("measured").expected("both ways measured");
    match (median(through), median(past)) {
        (Some(through), Some(past)) => {
            statement.got(format!("median {through:.1} ms through the picker, {past:.1} ms past it")).holds(true);
        }
        _ => statement.unproven("a way without answers"),
    }
}

mod judges {
    use rstest::rstest;
    use suites::fake::{Fake, Holds, No, Unproven, Yes, endpoint};

    use super::super::alpha;
    use super::*;

    fn asked(case: &str) -> Fake {
        alpha("pool/picker-asked").case(case).picked("stream", "alpha", 1)
    }

    fn commanded(wanted: usize, named: usize, served: usize) -> Fake {
        let fake = alpha("pool/follows-choice").past_the_picker("commanded", "alpha", served);
        fake.also_asked("alpha", &[named]).sent_with(SELECT, &endpoint("alpha", wanted))
    }

    /// Sixty requests to three endpoints in turn, which went where `served` says.
    fn upstream(served: impl Fn(usize) -> usize) -> Fake {
        alpha("pool/upstream-picker").without_picker_records("alpha").times(60, |fake, n| {
            fake.past_the_picker("commanded", "alpha", served(n)).sent_with(SELECT, &endpoint("alpha", n % 3))
        })
    }

    fn two() -> Fake {
        alpha("pool/two-pools").pool("beta", 2).picked("alpha", "alpha", 0)
    }

    fn fallback() -> Fake {
        alpha("pool/ordered-fallback")
    }

    /// The client names endpoint 0; `served` says who answers each of the requests without a picker.
    fn steering(served: &[usize]) -> Fake {
        let named = endpoint("alpha", 0);
        let fake = alpha("pool/client-cannot-steer").pool("beta", 1).picked("names-another", "alpha", 1);
        let fake = fake.picked("names-an-outsider", "alpha", 1).refused("picker-gone-outsider", 503);
        fake.times(served.len(), |fake, n| {
            fake.past_the_picker("picker-gone", "alpha", served[n]).sent_with(DESTINATION, &named)
        })
    }

    fn served_reported(served: Option<usize>) -> Fake {
        let fake = alpha("pool/served-reported").picked("post", "alpha", 0);
        fake.with_pick(|pick| pick.served = served.map(|n| endpoint("alpha", n)))
    }

    fn ports() -> Fake {
        alpha("pool/port-ignored").picked("no-port", "alpha", 0).picked("same-port", "alpha", 0)
    }

    fn matched() -> Fake {
        alpha("pool/asked-once").picked("first", "alpha", 0).picked("second", "alpha", 1)
    }

    fn picker_latency(plain: bool) -> Fake {
        let fake = alpha("pool/picker-latency").picked("through-the-picker", "alpha", 0);
        let fake = fake.past_the_picker("past-the-picker", "alpha", 0);
        if plain { fake } else { fake.also_asked("alpha", &[0]) }
    }

    #[rstest]
    // The most damaging silent failure of this field is a 200 that never asked the picker.
    #[case::picker_asked_asked(asked("http-route").picked("post", "alpha", 0).picked("get", "alpha", 2), Yes)]
    #[case::picker_asked_a_model_route_has_no_get(asked("model-route").picked("post", "alpha", 0), Yes)]
    #[case::picker_asked_bypassed(asked("http-route").past_the_picker("post", "alpha", 0).picked("get", "alpha", 2), No)]
    #[case::picker_asked_bypassed_once(asked("model-route").picked("post", "alpha", 0).past_the_picker("post", "alpha", 0), No)]
    #[case::picker_asked_no_records_at_all(asked("model-route").past_the_picker("post", "alpha", 0).without_picker_records("alpha"), Unproven)]
    #[case::picker_asked_records_not_whole(asked("model-route").past_the_picker("post", "alpha", 0).without_picker_marker("alpha"), Unproven)]
    #[case::picker_asked_whole_enough(asked("model-route").picked("post", "alpha", 0).without_picker_marker("alpha"), Yes)]
    #[case::picker_asked_asked_twice(asked("model-route").picked("post", "alpha", 0).also_asked("alpha", &[0]), No)]
    #[case::picker_asked_another_served(asked("model-route").past_the_picker("post", "alpha", 1).also_asked("alpha", &[0]), No)]
    #[case::picker_asked_none_was_named(asked("model-route").past_the_picker("post", "alpha", 1).also_asked("alpha", &[]), No)]
    #[case::picker_asked_an_outsider_was_named(asked("model-route").past_the_picker("post", "alpha", 1).also_asked("alpha", &[7]), No)]
    #[case::picker_asked_nobody_served(asked("model-route").refused("post", 200).also_asked("alpha", &[0]), No)]
    #[case::picker_asked_served_twice(asked("model-route").picked("post", "alpha", 0).also_reached("alpha"), No)]
    #[case::picker_asked_model_records_not_whole(asked("model-route").refused("post", 200).also_asked("alpha", &[0]).without_marker("alpha"), Unproven)]
    #[case::picker_asked_refused(asked("model-route").refused("post", 500), No)]
    #[case::picker_asked_never_live(asked("model-route").picked("post", "alpha", 0).unsettled(), No)]
    #[case::picker_asked_nothing_sent(asked("model-route"), Unproven)]
    #[case::follows_choice_followed(commanded(1, 1, 1), Yes)]
    #[case::follows_choice_another_served(commanded(1, 1, 2), No)]
    #[case::follows_choice_another_named(commanded(1, 2, 2), No)]
    #[case::upstream_picker_followed(upstream(|n| n % 3), Yes)]
    #[case::upstream_picker_bypassed(upstream(|_| 0), No)]
    #[case::upstream_picker_one_strays(upstream(|n| if n == 30 { 1 } else { n % 3 }), No)]
    #[case::upstream_picker_one_fails(upstream(|n| n % 3).refused("commanded", 503), No)]
    #[case::upstream_picker_nothing_sent(alpha("pool/upstream-picker"), Unproven)]
    #[case::upstream_picker_models_lost_records(upstream(|n| n % 3).answer("commanded", 200, &[], "").without_marker("alpha"), Unproven)]
    #[case::two_pools_each_its_own(two().picked("beta", "beta", 1), Yes)]
    #[case::two_pools_first_picker_for_both(two().past_the_picker("beta", "beta", 1).also_asked("alpha", &[0]), No)]
    #[case::two_pools_both_asked(two().picked("beta", "beta", 1).also_asked("alpha", &[0]), No)]
    #[case::two_pools_served_by_the_other(two().past_the_picker("beta", "alpha", 1).also_asked("beta", &[1]), No)]
    #[case::two_pools_one_picker_lost_records(two().picked("beta", "beta", 1).without_picker_marker("alpha"), Unproven)]
    #[case::ordered_fallback_second_served(fallback().past_the_picker("first-is-dead", "alpha", 1).also_asked("alpha", &[0, 1]), Yes)]
    #[case::ordered_fallback_third_served(fallback().past_the_picker("first-is-dead", "alpha", 2).also_asked("alpha", &[0, 1]), No)]
    #[case::ordered_fallback_given_up(fallback().refused("first-is-dead", 503).also_asked("alpha", &[0, 1]), No)]
    #[case::ordered_fallback_no_list(fallback().past_the_picker("first-is-dead", "alpha", 0).also_asked("alpha", &[0]), No)]
    #[case::client_cannot_steer_own_choice(steering(&[0, 1, 2, 0, 1, 2, 0, 1, 2, 0]), Yes)]
    #[case::client_cannot_steer_steered(steering(&[0; 10]), No)]
    #[case::client_cannot_steer_too_few_to_tell(steering(&[0; 3]), Unproven)]
    #[case::client_cannot_steer_nothing_served(steering(&[]).refused("picker-gone", 500), Yes)]
    #[case::client_cannot_steer_followed_over_the_picker(steering(&[1, 2]).past_the_picker("names-another", "alpha", 0).also_asked("alpha", &[1]), No)]
    #[case::client_cannot_steer_out_of_the_pool(steering(&[1, 2]).past_the_picker("names-an-outsider", "beta", 0).also_asked("alpha", &[1]), No)]
    #[case::client_cannot_steer_out_of_the_pool_without_picker(steering(&[1, 2]).past_the_picker("picker-gone-outsider", "beta", 0), No)]
    #[case::client_cannot_steer_outsider_lost_records(steering(&[1, 2]).without_marker("beta"), Unproven)]
    #[case::served_reported_reported(served_reported(Some(0)), Yes)]
    #[case::served_reported_another(served_reported(Some(1)), No)]
    #[case::served_reported_untold(served_reported(None), No)]
    #[case::port_ignored_ignored(ports().picked("other-port", "alpha", 2), Yes)]
    #[case::port_ignored_used(ports().refused("other-port", 503), No)]
    #[case::port_ignored_not_asked(ports().past_the_picker("other-port", "alpha", 2), No)]
    #[case::asked_once_once(matched().picked("third", "alpha", 2), Yes)]
    #[case::asked_once_twice(matched().picked("third", "alpha", 2).also_asked("alpha", &[0]), No)]
    #[case::asked_once_never(matched().past_the_picker("third", "alpha", 2), No)]
    #[case::asked_once_refused(matched().refused("third", 503), No)]
    #[case::asked_once_not_sent(matched(), Unproven)]
    #[case::picker_latency_measured(picker_latency(true), Yes)]
    #[case::picker_latency_the_plain_route_asks_as_well(picker_latency(false), No)]
    fn judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(fake.verdict(), holds);
    }
}
