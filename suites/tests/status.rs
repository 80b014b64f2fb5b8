//! Status: what Gateway and HTTPRoute say of themselves, held against what traffic says.

use anyhow::Result;
use serde_json::{Value, json};
use suites::{
    CHECK, Check, Judge, Live, PoolOf, Stage, WaitCondition, chat, check, every_path, judge::pool_parents, parents_say,
};
use verdict::capability::{self, GatewayStatus, ListenerCondition, RouteStatus};

check!(
    status / gateway,
    drive_gateway,
    judge_gateway,
    Check {
        sentence: "the Gateway and its listener say Accepted and Programmed for the generation that is there, and its address answers",
        source: "Gateway API v1, GatewayStatus",
        how: "Reads the Gateway that the run shares and asks its marker route; looks at the conditions of the Gateway and of each of \
              its listeners, at its addresses and at the answer.",
        capability: Some(capability::GATEWAY_STATUS),
        kills: &["programmed-never", "stale-observed-generation"],
        ..CHECK
    }
);

async fn drive_gateway(stage: &mut Stage) -> Result<()> {
    let shared = stage.shared_gateway();
    stage.see("gateway", &shared, WaitCondition::GatewayProgrammed, 60).await?;
    let marker = stage.marker();
    let call = || chat(&marker.model).host(&marker.hostname);
    stage.settle(call, &marker.model).await?;
    stage.send("marker", call()).await
}

fn judge_gateway(judge: &mut Judge<'_>) {
    let gateway = judge.object("gateway");
    judge.condition("gateway-Accepted", gateway, "Accepted", "True");
    judge.condition("gateway-Programmed", gateway, "Programmed", "True");
    if let Some(GatewayStatus { listener_conditions }) = judge.declared() {
        let conditions = listener_conditions_of(gateway);
        for declared in listener_conditions {
            let (clause, kind) = match declared {
                ListenerCondition::Accepted => ("listener-Accepted", "Accepted"),
                ListenerCondition::Programmed => ("listener-Programmed", "Programmed"),
                ListenerCondition::ResolvedRefs => ("listener-ResolvedRefs", "ResolvedRefs"),
            };
            judge.condition_in(clause, gateway, &conditions, kind, "True");
        }
    }
    let addresses = gateway["status"]["addresses"].as_array().map_or(0, Vec::len);
    let statement = judge.clause("has-an-address").expected("at least one address");
    statement.got(format!("{addresses} addresses")).holds(addresses > 0);
    judge.status("marker-status", "marker", 200);
}

/// For each listener that the Gateway is to have the conditions that its status has under that name.
fn listener_conditions_of(gateway: &Value) -> Vec<&Value> {
    let all = |part: &'static str| gateway[part]["listeners"].as_array().map(Vec::as_slice).unwrap_or_default();
    let said = |wanted: &Value| all("status").iter().find(|listener| listener["name"] == wanted["name"]);
    all("spec").iter().map(|wanted| said(wanted).map_or(&Value::Null, |listener| &listener["conditions"])).collect()
}

check!(
    status / route,
    drive_route,
    judge_route,
    Check {
        sentence: "a good route is Accepted with its references resolved and serves; one with a missing backend says so and answers 5xx",
        source: "Gateway API v1, RouteParentStatus",
        how: "Makes a route to a model and one to a Service that does not exist; looks at the conditions of both, and sends a chat to \
              each.",
        capability: Some(capability::ROUTE_STATUS),
        kills: &["resolves-missing-backends"],
        ..CHECK
    }
);

async fn drive_route(stage: &mut Stage) -> Result<()> {
    let alpha = stage.model("alpha").await?;
    let bad = format!("bad-{}", stage.hostname());
    stage.plain_route("good", None, &alpha.service).await?;
    stage.plain_route("bad", Some(&bad), "nobody").await?;
    for name in ["good", "bad"] {
        stage.see(name, &stage.http_route(name), parents_say("ResolvedRefs"), 60).await?;
    }
    stage.settle(|| chat("alpha"), "alpha").await?;
    stage.settle_status(|| chat("alpha").host(&bad), |status| status != 404).await?;
    stage.send("good", chat("alpha")).await?;
    stage.send("bad", chat("alpha").host(&bad)).await
}

fn judge_route(judge: &mut Judge<'_>) {
    let (good, bad) = (judge.object("good"), judge.object("bad"));
    judge.accepted_and_resolved(["good-Accepted", "good-ResolvedRefs"], good);
    judge.condition("bad-Accepted", bad, "Accepted", "True");
    judge.condition("bad-ResolvedRefs", bad, "ResolvedRefs", "False");
    judge.answered_by("good-answered-by-alpha", "good", "alpha");
    if let Some(RouteStatus { missing_backend }) = judge.declared() {
        judge.reason("bad-reason", judge.condition_of(bad, "ResolvedRefs"), &missing_backend.reason);
        judge.status("bad-status", "bad", missing_backend.status);
    }
    judge.reached_nothing("bad-reaches-nothing", "bad");
}

check!(
    status / pool_parents_apart,
    drive_pool_parents_apart,
    judge_pool_parents_apart,
    Check {
        sentence: "a pool that two Gateways lead to has an entry for each of them, and loses the one whose last route goes and no other",
        source: "GIE conformance, InferencePoolResolvedRefsCondition",
        how: "Routes to one pool on the shared Gateway and on a second one, then deletes the second route; looks at the entries of the \
              pool's status for each Gateway, before and after.",
        capability: Some(capability::POOL),
        kills: &["status-never-cleared"],
        live: Live::NotJudged,
        ..CHECK
    }
);

async fn drive_pool_parents_apart(stage: &mut Stage) -> Result<()> {
    let pool = stage.pool(PoolOf::new("alpha")).await?;
    let (shared, home) = (stage.shared_gateway(), stage.namespace().to_owned());
    let of = |name: &str, namespace: &str| json!({"name": name, "namespace": namespace});
    let (first, second) = (of(&shared.name, shared.namespace.as_deref().unwrap_or_default()), of("second", &home));
    stage.see("shared-gateway", &shared, WaitCondition::Exists, 10).await?;
    let class = &stage.seen("shared-gateway")["spec"]["gatewayClassName"];
    let listeners = json!([{"name": "http", "protocol": "HTTP", "port": 80}]);
    let gateway = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": second,
        "spec": {"gatewayClassName": class, "listeners": listeners},
    });
    stage.offer("second-gateway", &gateway).await?;
    let rules = json!([{"match": every_path(), "pool": pool.name}]);
    for (name, gateway) in [("first", &first), ("second", &second)] {
        stage.intent("pool-route", json!({"name": name, "gateway": gateway, "rules": rules})).await?;
    }
    let pool = stage.inference_pool(&pool.name);
    let entries = |wanted: [usize; 2]| {
        let gateways = [first.clone(), second.clone()];
        WaitCondition::holds(&format!("{wanted:?} entries of the two Gateways"), move |pool: &Value| {
            [0, 1].map(|n| pool_parents(pool, &gateways[n]).len()) == wanted
        })
    };
    stage.see("both", &pool, entries([1, 1]), 60).await?;
    stage.delete(&stage.http_route("second")).await?;
    stage.see("one", &pool, entries([1, 0]), 60).await?;
    stage.fact("gateways", json!([first, second]));
    Ok(())
}

fn judge_pool_parents_apart(judge: &mut Judge<'_>) {
    let gateways = judge.history().facts.get("gateways").unwrap_or(&Value::Null);
    // For each Gateway the clause about its entries in the pool's status, and the one about the only entry, if it is to have one.
    let both = [("both-first", Some("both-first-Accepted")), ("both-second", Some("both-second-Accepted"))];
    let one = [("one-first", Some("one-first-Accepted")), ("one-second", None)];
    for (seen, entries_of) in [("both", both), ("one", one)] {
        let Some(pool) = judge.history().objects.get(seen) else {
            judge.clause(seen).expected("the pool's status").unproven("it was not read");
            continue;
        };
        for ((clause, accepted), gateway) in entries_of.into_iter().zip([&gateways[0], &gateways[1]]) {
            let (entries, wanted) = (pool_parents(pool, gateway), usize::from(accepted.is_some()));
            let statement = judge.clause(clause).expected(format!("{wanted} entries of Gateway {}", gateway["name"]));
            statement.got(format!("{} entries", entries.len())).holds(entries.len() == wanted);
            if let (Some(accepted), [entry]) = (accepted, &entries[..]) {
                judge.condition_in(accepted, pool, &[&entry["conditions"]], "Accepted", "True");
            }
        }
    }
}

mod judges {
    use rstest::rstest;
    use suites::fake::{Fake, Holds, No, Unproven, Yes, conditions, parents_saying};
    use verdict::capability::MissingBackend;

    use super::*;

    fn a_gateway(accepted: &str, programmed: &str, observed: u64, addresses: Value) -> Value {
        let said =
            conditions(observed, &[("Accepted", accepted, "Accepted"), ("Programmed", programmed, "Programmed")]);
        json!({
            "metadata": {"generation": 2}, "spec": {"listeners": [{"name": "http"}]},
            "status": {"addresses": addresses, "conditions": said, "listeners": [{"name": "http", "conditions": said}]},
        })
    }

    fn declared(listener_conditions: &[ListenerCondition]) -> Fake {
        Fake::of("status/gateway").declares(GatewayStatus { listener_conditions: listener_conditions.to_vec() })
    }

    fn seen(gateway: Value) -> Fake {
        let fake = declared(&[ListenerCondition::Accepted, ListenerCondition::Programmed]);
        fake.object("gateway", gateway).answer("marker", 200, &[], "")
    }

    /// A good Gateway but for the conditions of its listener, after another that it does not have any more.
    fn with_listener(name: &str, programmed: &str, left_over: &str) -> Fake {
        let mut gateway = a_gateway("True", "True", 2, json!([{"value": "a"}]));
        let listener = |name: &str, programmed: &str| json!({"name": name, "conditions": conditions(2, &[("Accepted", "True", ""), ("Programmed", programmed, "")])});
        gateway["status"]["listeners"] = json!([listener("left-over", left_over), listener(name, programmed)]);
        seen(gateway)
    }

    fn a_route(resolved: &str, reason: &str) -> Value {
        parents_saying(&[("Accepted", "True", "Accepted"), ("ResolvedRefs", resolved, reason)])
    }

    fn routes(good: Value, bad: Value) -> Fake {
        let missing_backend = MissingBackend { reason: "BackendNotFound".into(), status: 500 };
        let fake = Fake::of("status/route").declares(RouteStatus { missing_backend }).model("alpha");
        fake.object("good", good).object("bad", bad)
    }

    fn served(fake: Fake) -> Fake {
        fake.answered("good", 200, "alpha").refused("bad", 500)
    }

    fn led_to(by: &[&str]) -> Value {
        let said = conditions(1, &[("Accepted", "True", "Accepted")]);
        let entry = |name: &&str| json!({"parentRef": {"name": name, "namespace": "gws"}, "conditions": said});
        json!({"metadata": {"generation": 1}, "status": {"parents": by.iter().map(entry).collect::<Vec<_>>()}})
    }

    fn parents(both: &[&str], one: &[&str]) -> Fake {
        let gateways = ["first", "second"].map(|name| json!({"name": name, "namespace": "gws"}));
        let fake = Fake::of("status/pool-parents-apart").fact("gateways", json!(gateways));
        fake.object("both", led_to(both)).object("one", led_to(one))
    }

    #[rstest]
    #[case::gateway_good(seen(a_gateway("True", "True", 2, json!([{"value": "a"}]))), Yes)]
    #[case::gateway_not_programmed(seen(a_gateway("True", "False", 2, json!([{"value": "a"}]))), No)]
    #[case::gateway_stale(seen(a_gateway("True", "True", 1, json!([{"value": "a"}]))), No)]
    #[case::gateway_no_address(seen(a_gateway("True", "True", 2, json!([]))), No)]
    #[case::gateway_no_object(declared(&[]).answer("marker", 200, &[], ""), No)]
    #[case::gateway_address_is_dead(declared(&[]).object("gateway", a_gateway("True", "True", 2, json!([{"value": "a"}]))).cut("marker"), No)]
    #[case::gateway_listener_by_name(with_listener("http", "True", "False"), Yes)]
    #[case::gateway_listener_is_not(with_listener("http", "False", "True"), No)]
    #[case::gateway_another_listener_alone(with_listener("other", "True", "True"), No)]
    #[case::route_good(served(routes(a_route("True", "ResolvedRefs"), a_route("False", "BackendNotFound"))), Yes)]
    #[case::route_claims_resolved(served(routes(a_route("True", "ResolvedRefs"), a_route("True", "ResolvedRefs"))), No)]
    #[case::route_neither(served(routes(a_route("False", "BackendNotFound"), a_route("False", "BackendNotFound"))), No)]
    #[case::route_other_reason(served(routes(a_route("True", "ResolvedRefs"), a_route("False", "Oops"))), No)]
    #[case::route_bad_served(routes(a_route("True", "ResolvedRefs"), a_route("False", "BackendNotFound")).answered("good", 200, "alpha").answered("bad", 200, "alpha"), No)]
    #[case::route_no_traffic(routes(a_route("True", "ResolvedRefs"), a_route("False", "BackendNotFound")), Unproven)]
    #[case::pool_parents_apart_apart(parents(&["first", "second"], &["first"]), Yes)]
    #[case::pool_parents_apart_one_overwrites_the_other(parents(&["second"], &["first"]), No)]
    #[case::pool_parents_apart_left_behind(parents(&["first", "second"], &["first", "second"]), No)]
    #[case::pool_parents_apart_both_cleared(parents(&["first", "second"], &[]), No)]
    #[case::pool_parents_apart_twice(parents(&["first", "first", "second"], &["first"]), No)]
    #[case::pool_parents_apart_not_accepted(parents(&["first", "second"], &["first"]).object("both", json!({"metadata": {"generation": 2}, "status": led_to(&["first", "second"])["status"]})), No)]
    #[case::pool_parents_apart_not_read(parents(&["first", "second"], &["first"]).without_object("one"), Unproven)]
    fn judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(fake.verdict(), holds);
    }
}
