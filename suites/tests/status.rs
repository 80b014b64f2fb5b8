//! Status: what Gateway and HTTPRoute say of themselves, held against what traffic says.

use std::path::PathBuf;

use anyhow::Result;
use rstest::rstest;
use serde_json::{Value, json};
use suites::{PoolOf, Stage, Until, chat, check, object, parents_say, picked, proof};
use verdict::{history::History, judge::Judgement};

#[rstest]
#[tokio::test]
async fn gateway(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("status/gateway", "-", &folder).run(drive_gateway, judge_gateway).await;
}

async fn drive_gateway(stage: &mut Stage) -> Result<()> {
    let shared = stage.shared_gateway();
    stage.see("gateway", &shared, Until::GatewayProgrammed, 60).await?;
    let marker = stage.marker();
    stage.settle(|| chat(&marker.hostname, &marker.model), &marker.model).await?;
    stage.begin().await?;
    stage.send("marker", chat(&marker.hostname, &marker.model)).await;
    stage.end().await
}

fn judge_gateway(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    let gateway = history.objects.get("gateway").cloned().unwrap_or_default();
    for condition in ["Accepted", "Programmed"] {
        proof::condition(
            &mut judgement,
            &format!("gateway-{condition}"),
            &gateway,
            &gateway["status"]["conditions"],
            condition,
            "True",
        );
    }
    let listener = &gateway["status"]["listeners"][0];
    match history.declared.get("listener-conditions").and_then(Value::as_array) {
        Some(declared) => {
            for condition in declared.iter().filter_map(Value::as_str) {
                proof::condition(
                    &mut judgement,
                    &format!("listener-{condition}"),
                    &gateway,
                    &listener["conditions"],
                    condition,
                    "True",
                );
            }
        }
        None => {
            _ = judgement.unproven("listener", "declared listener conditions", "the gateway's folder declares none")
        }
    }
    let addresses = gateway["status"]["addresses"].as_array().map_or(0, Vec::len);
    judgement.that("has-an-address", addresses > 0, "at least one address", format!("{addresses} addresses"), []);
    proof::status(&mut judgement, history, "marker", Some(200));
    judgement
}

#[rstest]
#[tokio::test]
async fn route(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("status/route", "-", &folder).run(drive_route, judge_route).await;
}

async fn drive_route(stage: &mut Stage) -> Result<()> {
    let alpha = stage.model("alpha").await?;
    let (good, bad) = (stage.hostname().to_owned(), format!("bad-{}", stage.hostname()));
    let rule = |service: &str| json!([{"match": {"path": {"type": "PathPrefix", "value": "/"}}, "service": service, "port": 80}]);
    stage.intent("http-route", json!({"name": "good", "rules": rule(&alpha.service)})).await?;
    stage.intent("http-route", json!({"name": "bad", "hostname": bad, "rules": rule("nobody")})).await?;
    let parents = parents_say("ResolvedRefs");
    stage
        .see(
            "good",
            &object("gateway.networking.k8s.io/v1", "HTTPRoute", stage.namespace(), "good"),
            parents.clone(),
            60,
        )
        .await?;
    stage
        .see("bad", &object("gateway.networking.k8s.io/v1", "HTTPRoute", stage.namespace(), "bad"), parents, 60)
        .await?;
    stage.settle(|| chat(&good, "alpha"), "alpha").await?;
    stage.settle_status(|| chat(&bad, "alpha"), |status| status != 404).await?;
    stage.begin().await?;
    stage.send("good", chat(&good, "alpha")).await;
    stage.send("bad", chat(&bad, "alpha")).await;
    stage.end().await
}

fn judge_route(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    let route = |name: &str| history.objects.get(name).cloned().unwrap_or_default();
    let (good, bad) = (route("good"), route("bad"));
    for (name, route) in [("good", &good), ("bad", &bad)] {
        let conditions = &route["status"]["parents"][0]["conditions"];
        proof::condition(&mut judgement, &format!("{name}-Accepted"), route, conditions, "Accepted", "True");
        let wanted = if name == "good" { "True" } else { "False" };
        proof::condition(&mut judgement, &format!("{name}-ResolvedRefs"), route, conditions, "ResolvedRefs", wanted);
    }
    let declared = history.declared.get("missing-backend").cloned().unwrap_or_default();
    let reason = proof::reason(&bad["status"]["parents"][0]["conditions"], "ResolvedRefs");
    match declared["reason"].as_str() {
        Some(wanted) => {
            _ = judgement.that("bad-reason", reason == Some(wanted), wanted, reason.unwrap_or("no reason"), [])
        }
        None => _ = judgement.unproven("bad-reason", "a declared reason", "the gateway's folder declares none"),
    }
    proof::answered_by(&mut judgement, history, "good", "alpha");
    proof::status(&mut judgement, history, "bad", declared["status"].as_u64());
    proof::reached_nothing(&mut judgement, history, "bad");
    judgement
}

#[rstest]
#[tokio::test]
async fn pool_parents_apart(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("status/pool-parents-apart", "-", &folder).run(drive_pool_parents_apart, judge_pool_parents_apart).await;
}

/// A pool that routes on two Gateways lead to, of which one is then gone.
async fn drive_pool_parents_apart(stage: &mut Stage) -> Result<()> {
    let pool = stage.pool(PoolOf::new("alpha")).await?;
    let (shared, home) = (stage.shared_gateway(), stage.namespace().to_owned());
    let of = |name: &str, namespace: &str| json!({"name": name, "namespace": namespace});
    let (first, second) = (of(&shared.name, shared.namespace.as_deref().unwrap_or_default()), of("second", &home));
    let class = stage.see("shared-gateway", &shared, Until::Exists, 10).await?["spec"]["gatewayClassName"].clone();
    let listeners = json!([{"name": "http", "protocol": "HTTP", "port": 80}]);
    let gateway = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": second,
        "spec": {"gatewayClassName": class, "listeners": listeners},
    });
    stage.offer("second-gateway", &gateway).await?;
    let rules = json!([{"match": {"path": {"type": "PathPrefix", "value": "/"}}, "pool": pool.name}]);
    for (name, gateway) in [("first", &first), ("second", &second)] {
        stage.intent("pool-route", json!({"name": name, "gateway": gateway, "rules": rules})).await?;
    }
    let pool = object("inference.networking.k8s.io/v1", "InferencePool", &home, &pool.name);
    let entries = |wanted: [usize; 2]| {
        let gateways = [first.clone(), second.clone()];
        Until::holds(&format!("{wanted:?} entries of the two Gateways"), move |pool: &Value| {
            Ok([0, 1].map(|n| picked::entries_of(pool, &gateways[n]).len()) == wanted)
        })
    };
    stage.see("both", &pool, entries([1, 1]), 60).await?;
    let route = object("gateway.networking.k8s.io/v1", "HTTPRoute", &home, "second");
    stage.delete(&route).await?;
    stage.see("one", &pool, entries([1, 0]), 60).await?;
    stage.fact("gateways", json!([first, second]));
    Ok(())
}

fn judge_pool_parents_apart(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    let gateways = history.facts.get("gateways").cloned().unwrap_or_default();
    for (seen, wanted) in [("both", [1, 1]), ("one", [1, 0])] {
        let Some(pool) = history.objects.get(seen) else {
            judgement.unproven(seen, "the pool's status", "it was not read");
            continue;
        };
        for (called, number) in [("first", 0), ("second", 1)] {
            let entries = picked::entries_of(pool, &gateways[number]);
            let clause = format!("{seen}-{called}");
            let expected = format!("{} entries of the {called} Gateway", wanted[number]);
            judgement.that(
                &clause,
                entries.len() == wanted[number],
                expected,
                format!("{} entries", entries.len()),
                [],
            );
            if let (1, [entry]) = (wanted[number], &entries[..]) {
                let conditions = &entry["conditions"];
                proof::condition(&mut judgement, &format!("{clause}-Accepted"), pool, conditions, "Accepted", "True");
            }
        }
    }
    judgement
}

mod judges {
    use rstest::rstest;
    use suites::fake::{Fake, conditions, verdict_of};
    use verdict::judge::Holds;

    use super::*;

    fn a_gateway(accepted: &str, programmed: &str, observed: u64, addresses: Value) -> Value {
        let said =
            conditions(observed, &[("Accepted", accepted, "Accepted"), ("Programmed", programmed, "Programmed")]);
        json!({"metadata": {"generation": 2}, "status": {"addresses": addresses, "conditions": said, "listeners": [{"conditions": said}]}})
    }

    fn seen(gateway: Value) -> Fake {
        let fake = Fake::of("status/gateway").declares("listener-conditions", json!(["Accepted", "Programmed"]));
        fake.object("gateway", gateway).answer("marker", 200, &[], "")
    }

    #[rstest]
    #[case::good(seen(a_gateway("True", "True", 2, json!([{"value": "a"}]))), Holds::Yes)]
    #[case::not_programmed(seen(a_gateway("True", "False", 2, json!([{"value": "a"}]))), Holds::No)]
    #[case::stale(seen(a_gateway("True", "True", 1, json!([{"value": "a"}]))), Holds::No)]
    #[case::no_address(seen(a_gateway("True", "True", 2, json!([]))), Holds::No)]
    #[case::no_object(Fake::of("status/gateway").declares("listener-conditions", json!([])).answer("marker", 200, &[], ""), Holds::No)]
    #[case::address_is_dead(Fake::of("status/gateway").declares("listener-conditions", json!([])).object("gateway", a_gateway("True", "True", 2, json!([{"value": "a"}]))).cut("marker"), Holds::No)]
    fn gateway_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_gateway, &fake), holds);
    }

    fn a_route(resolved: &str, reason: &str) -> Value {
        let said = conditions(1, &[("Accepted", "True", "Accepted"), ("ResolvedRefs", resolved, reason)]);
        json!({"metadata": {"generation": 1}, "status": {"parents": [{"conditions": said}]}})
    }

    fn routes(good: Value, bad: Value) -> Fake {
        let fake = Fake::of("status/route")
            .declares("missing-backend", json!({"reason": "BackendNotFound", "status": 500}))
            .model("alpha");
        fake.object("good", good).object("bad", bad)
    }

    fn served(fake: Fake) -> Fake {
        fake.answered("good", 200, "alpha").refused("bad", 500)
    }

    #[rstest]
    #[case::good(served(routes(a_route("True", "ResolvedRefs"), a_route("False", "BackendNotFound"))), Holds::Yes)]
    #[case::claims_resolved(
        served(routes(a_route("True", "ResolvedRefs"), a_route("True", "ResolvedRefs"))),
        Holds::No
    )]
    #[case::good_is_not(
        served(routes(a_route("False", "BackendNotFound"), a_route("False", "BackendNotFound"))),
        Holds::No
    )]
    #[case::other_reason(served(routes(a_route("True", "ResolvedRefs"), a_route("False", "Oops"))), Holds::No)]
    #[case::bad_served(routes(a_route("True", "ResolvedRefs"), a_route("False", "BackendNotFound")).answered("good", 200, "alpha").answered("bad", 200, "alpha"), Holds::No)]
    #[case::no_traffic(routes(a_route("True", "ResolvedRefs"), a_route("False", "BackendNotFound")), Holds::Unproven)]
    fn route_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_route, &fake), holds);
    }

    /// A pool that these Gateways have accepted.
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
    #[case::apart(parents(&["first", "second"], &["first"]), Holds::Yes)]
    #[case::one_overwrites_the_other(parents(&["second"], &["first"]), Holds::No)]
    #[case::left_behind(parents(&["first", "second"], &["first", "second"]), Holds::No)]
    #[case::both_cleared(parents(&["first", "second"], &[]), Holds::No)]
    #[case::twice(parents(&["first", "first", "second"], &["first"]), Holds::No)]
    #[case::not_accepted(parents(&["first", "second"], &["first"]).object("both", json!({"metadata": {"generation": 2}, "status": led_to(&["first", "second"])["status"]})), Holds::No)]
    #[case::not_read(parents(&["first", "second"], &["first"]).without_object("one"), Holds::Unproven)]
    fn pool_parents_apart_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_pool_parents_apart, &fake), holds);
    }
}
