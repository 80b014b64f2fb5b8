//! The picker is asked once, and what it chooses serves.

use anyhow::Result;
use serde_json::json;
use suites::{Check, Judge, PoolOf, Stage, chat, check, picked};
use verdict::{capability, history::Exchange, plan::Level};

use super::{COUNTED, DESTINATION, PICK, POOL, SELECT, everything, models, routed, with_header};

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
    for _ in 0..10 {
        stage.send("post", chat("alpha")).await;
        stage.send("stream", chat("alpha").stream()).await;
        if !by_model {
            stage.send("get", models()).await;
        }
    }
    Ok(())
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
    drive_follows_choice,
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

async fn drive_follows_choice(stage: &mut Stage) -> Result<()> {
    send_commanded(stage, PoolOf::new("alpha").replicas(3)).await
}

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
        let wanted = exchange.request.headers.iter().find(|(name, _)| name == SELECT).map(|(_, value)| value);
        (wanted != pick.chosen.first()).then(|| format!("named {:?} where {wanted:?} was wanted", pick.chosen))
    });
}

check!(
    pool / upstream_picker,
    drive_upstream_picker,
    judge_upstream_picker,
    Check {
        sentence: "the Inference Extension's own picker is asked and followed, of many requests at a time each lands where it was told to choose",
        source: "GIE conformance, GatewayFollowingEPPRouting, with every answer counted",
        how: "Sends sixty chats, ten at a time, each with a header that tells the Inference Extension's picker which endpoint to name. It \
              keeps no records: those of the models have to show each chat at that endpoint, as only the picker reads the header.",
        kills: &["skips-picker", "ignores-choice"],
        counts_every_answer: true,
        ..POOL
    }
);

async fn drive_upstream_picker(stage: &mut Stage) -> Result<()> {
    send_commanded(stage, PoolOf::new("alpha").replicas(3).with_upstream_picker()).await
}

fn judge_upstream_picker(judge: &mut Judge<'_>) {
    picked::as_commanded(judge, "commanded-as-commanded", "commanded", "alpha", SELECT);
}

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
    for _ in 0..10 {
        for name in ["alpha", "beta"] {
            stage.send(name, chat("any").header("x-pool", name)).await;
        }
    }
    Ok(())
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
    judge_ordered_fallback,
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
    let pool = routed(stage, PoolOf::new("alpha").ports(&[8080, 8081])).await?;
    let on_port = |port: &str| pool.endpoints.iter().find(|(_, e)| e.ends_with(port)).map_or("", |(_, e)| e.as_str());
    let command = format!("endpoints={},{}", on_port(":8081"), on_port(":8080"));
    for _ in 0..10 {
        stage.send("first-is-dead", chat("alpha").header(PICK, &command)).await;
    }
    Ok(())
}

fn judge_ordered_fallback(judge: &mut Judge<'_>) {
    picked::by_the_fallback(judge, "first-is-dead-as-picked", "first-is-dead", "alpha");
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
    let beta = stage.pool(PoolOf::new("beta").replicas(1)).await?;
    let mut alpha = routed(stage, PoolOf::new("alpha").replicas(3).failing_open()).await?;
    let (named, outside) = (alpha.endpoint(0).to_owned(), beta.endpoint(0).to_owned());
    for _ in 0..10 {
        let call = chat("alpha").header(SELECT, alpha.endpoint(1));
        stage.send("names-another", call.clone().header(DESTINATION, &named)).await;
        stage.send("names-an-outsider", call.header(DESTINATION, &outside)).await;
    }
    stage.kill_picker(&mut alpha).await?;
    for _ in 0..COUNTED {
        stage.send("picker-gone", models().header(DESTINATION, &named)).await;
    }
    for _ in 0..3 {
        stage.send("picker-gone-outsider", models().header(DESTINATION, &outside)).await;
    }
    Ok(())
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
        stage.send("post", chat("alpha").header(SELECT, pool.endpoint(turn))).await;
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
        for _ in 0..5 {
            stage.send(label, call()).await;
        }
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
    for (label, _) in MATCHES {
        stage.settle(|| chat("alpha").header("x-rule", label), "alpha").await?;
    }
    for _ in 0..5 {
        for (label, _) in MATCHES {
            stage.send(label, chat("alpha").header("x-rule", label)).await;
        }
    }
    Ok(())
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
    let rule = json!([{"match": everything(), "service": pool.service(), "port": 80}]);
    stage.intent("http-route", json!({"name": "plain", "hostname": plain, "rules": rule})).await?;
    stage.settle(|| chat("alpha").host(&plain), "alpha").await?;
    for _ in 0..30 {
        stage.send("through-the-picker", chat("alpha")).await;
        stage.send("past-the-picker", chat("alpha").host(&plain)).await;
    }
    Ok(())
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
    use suites::fake::{Fake, endpoint};
    use verdict::judge::Holds;

    use super::super::alpha;
    use super::*;

    fn asked(case: &str) -> Fake {
        alpha("pool/picker-asked").case(case).picked("stream", "alpha", 1)
    }

    /// The most damaging silent failure of this field is a 200 that never asked the picker.
    #[rstest]
    #[case::asked(asked("http-route").picked("post", "alpha", 0).picked("get", "alpha", 2), Holds::Yes)]
    #[case::a_model_route_has_no_get(asked("model-route").picked("post", "alpha", 0), Holds::Yes)]
    #[case::bypassed(asked("http-route").past_the_picker("post", "alpha", 0).picked("get", "alpha", 2), Holds::No)]
    #[case::bypassed_once(asked("model-route").picked("post", "alpha", 0).past_the_picker("post", "alpha", 0), Holds::No)]
    #[case::no_records_at_all(asked("model-route").past_the_picker("post", "alpha", 0).without_picker_records("alpha"), Holds::Unproven)]
    #[case::records_not_whole(asked("model-route").past_the_picker("post", "alpha", 0).without_picker_marker("alpha"), Holds::Unproven)]
    #[case::whole_enough(asked("model-route").picked("post", "alpha", 0).without_picker_marker("alpha"), Holds::Yes)]
    #[case::asked_twice(asked("model-route").picked("post", "alpha", 0).also_asked("alpha", &[0]), Holds::No)]
    #[case::another_served(asked("model-route").past_the_picker("post", "alpha", 1).also_asked("alpha", &[0]), Holds::No)]
    #[case::none_was_named(asked("model-route").past_the_picker("post", "alpha", 1).also_asked("alpha", &[]), Holds::No)]
    #[case::an_outsider_was_named(asked("model-route").past_the_picker("post", "alpha", 1).also_asked("alpha", &[7]), Holds::No)]
    #[case::nobody_served(asked("model-route").refused("post", 200).also_asked("alpha", &[0]), Holds::No)]
    #[case::served_twice(asked("model-route").picked("post", "alpha", 0).also_reached("alpha"), Holds::No)]
    #[case::model_records_not_whole(asked("model-route").refused("post", 200).also_asked("alpha", &[0]).without_marker("alpha"), Holds::Unproven)]
    #[case::refused(asked("model-route").refused("post", 500), Holds::No)]
    #[case::never_live(asked("model-route").picked("post", "alpha", 0).unsettled(), Holds::No)]
    #[case::nothing_sent(asked("model-route"), Holds::Unproven)]
    fn picker_asked_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(fake.verdict(), holds);
    }

    fn commanded(wanted: usize, named: usize, served: usize) -> Fake {
        let fake = alpha("pool/follows-choice").past_the_picker("commanded", "alpha", served);
        fake.also_asked("alpha", &[named]).sent_with(SELECT, &endpoint("alpha", wanted))
    }

    #[rstest]
    #[case::followed(1, 1, 1, Holds::Yes)]
    #[case::another_served(1, 1, 2, Holds::No)]
    #[case::another_named(1, 2, 2, Holds::No)]
    fn follows_choice_is_judged(
        #[case] wanted: usize,
        #[case] named: usize,
        #[case] served: usize,
        #[case] holds: Holds,
    ) {
        assert_eq!(commanded(wanted, named, served).verdict(), holds);
    }

    /// Sixty requests to three endpoints in turn, which went where `served` says.
    fn upstream(served: impl Fn(usize) -> usize) -> Fake {
        alpha("pool/upstream-picker").without_picker_records("alpha").times(60, |fake, n| {
            fake.past_the_picker("commanded", "alpha", served(n)).sent_with(SELECT, &endpoint("alpha", n % 3))
        })
    }

    #[rstest]
    #[case::followed(upstream(|n| n % 3), Holds::Yes)]
    #[case::bypassed(upstream(|_| 0), Holds::No)]
    #[case::one_strays(upstream(|n| if n == 30 { 1 } else { n % 3 }), Holds::No)]
    #[case::one_fails(upstream(|n| n % 3).refused("commanded", 503), Holds::No)]
    #[case::nothing_sent(alpha("pool/upstream-picker"), Holds::Unproven)]
    #[case::models_lost_records(upstream(|n| n % 3).answer("commanded", 200, &[], "").without_marker("alpha"), Holds::Unproven)]
    fn upstream_picker_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(fake.verdict(), holds);
    }

    fn two() -> Fake {
        alpha("pool/two-pools").pool("beta", 2).picked("alpha", "alpha", 0)
    }

    #[rstest]
    #[case::each_its_own(two().picked("beta", "beta", 1), Holds::Yes)]
    #[case::first_picker_for_both(two().past_the_picker("beta", "beta", 1).also_asked("alpha", &[0]), Holds::No)]
    #[case::both_asked(two().picked("beta", "beta", 1).also_asked("alpha", &[0]), Holds::No)]
    #[case::served_by_the_other(two().past_the_picker("beta", "alpha", 1).also_asked("beta", &[1]), Holds::No)]
    #[case::one_picker_lost_records(two().picked("beta", "beta", 1).without_picker_marker("alpha"), Holds::Unproven)]
    fn two_pools_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(fake.verdict(), holds);
    }

    fn fallback() -> Fake {
        alpha("pool/ordered-fallback")
    }

    #[rstest]
    #[case::second_served(fallback().past_the_picker("first-is-dead", "alpha", 1).also_asked("alpha", &[0, 1]), Holds::Yes)]
    #[case::third_served(fallback().past_the_picker("first-is-dead", "alpha", 2).also_asked("alpha", &[0, 1]), Holds::No)]
    #[case::given_up(fallback().refused("first-is-dead", 503).also_asked("alpha", &[0, 1]), Holds::No)]
    #[case::no_list(fallback().past_the_picker("first-is-dead", "alpha", 0).also_asked("alpha", &[0]), Holds::No)]
    fn ordered_fallback_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(fake.verdict(), holds);
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

    #[rstest]
    #[case::own_choice(steering(&[0, 1, 2, 0, 1, 2, 0, 1, 2, 0]), Holds::Yes)]
    #[case::steered(steering(&[0; 10]), Holds::No)]
    #[case::too_few_to_tell(steering(&[0; 3]), Holds::Unproven)]
    #[case::nothing_served(steering(&[]).refused("picker-gone", 500), Holds::Yes)]
    #[case::followed_over_the_picker(steering(&[1, 2]).past_the_picker("names-another", "alpha", 0).also_asked("alpha", &[1]), Holds::No)]
    #[case::out_of_the_pool(steering(&[1, 2]).past_the_picker("names-an-outsider", "beta", 0).also_asked("alpha", &[1]), Holds::No)]
    #[case::out_of_the_pool_without_picker(steering(&[1, 2]).past_the_picker("picker-gone-outsider", "beta", 0), Holds::No)]
    #[case::outsider_lost_records(steering(&[1, 2]).without_marker("beta"), Holds::Unproven)]
    fn client_cannot_steer_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(fake.verdict(), holds);
    }

    #[rstest]
    #[case::reported(Some(0), Holds::Yes)]
    #[case::another(Some(1), Holds::No)]
    #[case::untold(None, Holds::No)]
    fn served_reported_is_judged(#[case] served: Option<usize>, #[case] holds: Holds) {
        let fake = alpha("pool/served-reported").picked("post", "alpha", 0);
        let fake = fake.with_pick(|pick| pick.served = served.map(|n| endpoint("alpha", n)));
        assert_eq!(fake.verdict(), holds);
    }

    fn ports() -> Fake {
        alpha("pool/port-ignored").picked("no-port", "alpha", 0).picked("same-port", "alpha", 0)
    }

    #[rstest]
    #[case::ignored(ports().picked("other-port", "alpha", 2), Holds::Yes)]
    #[case::used(ports().refused("other-port", 503), Holds::No)]
    #[case::not_asked(ports().past_the_picker("other-port", "alpha", 2), Holds::No)]
    fn port_ignored_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(fake.verdict(), holds);
    }

    fn matched() -> Fake {
        alpha("pool/asked-once").picked("first", "alpha", 0).picked("second", "alpha", 1)
    }

    #[rstest]
    #[case::once(matched().picked("third", "alpha", 2), Holds::Yes)]
    #[case::twice(matched().picked("third", "alpha", 2).also_asked("alpha", &[0]), Holds::No)]
    #[case::never(matched().past_the_picker("third", "alpha", 2), Holds::No)]
    #[case::refused(matched().refused("third", 503), Holds::No)]
    #[case::not_sent(matched(), Holds::Unproven)]
    fn asked_once_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(fake.verdict(), holds);
    }

    #[rstest]
    #[case::measured(true, Holds::Yes)]
    #[case::the_plain_route_asks_as_well(false, Holds::No)]
    fn picker_latency_is_judged(#[case] plain: bool, #[case] holds: Holds) {
        let fake = alpha("pool/picker-latency").picked("through-the-picker", "alpha", 0);
        let fake = fake.past_the_picker("past-the-picker", "alpha", 0);
        let fake = if plain { fake } else { fake.also_asked("alpha", &[0]) };
        assert_eq!(fake.verdict(), holds);
    }
}
