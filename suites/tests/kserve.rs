//! KServe's own side: what an InferenceService makes, and where it says that it can be reached.

mod llmisvc;

use std::path::PathBuf;

use anyhow::Result;
use rstest::rstest;
use serde_json::{Value, json};
use suites::{Stage, Until, chat, check, condition, object, proof};
use verdict::{history::History, judge::Judgement};

#[rstest]
#[tokio::test]
async fn children(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("kserve/children", "-", &folder).run(drive_children, judge_children).await;
}

/// What an InferenceService called alpha makes: the drive's name for it, version, kind, name.
const CHILDREN: &[(&str, &str, &str, &str)] = &[
    ("deployment", "apps/v1", "Deployment", "alpha-predictor"),
    ("service", "v1", "Service", "alpha-predictor"),
    ("route", "gateway.networking.k8s.io/v1", "HTTPRoute", "alpha"),
    ("predictor-route", "gateway.networking.k8s.io/v1", "HTTPRoute", "alpha-predictor"),
];

async fn drive_children(stage: &mut Stage) -> Result<()> {
    stage.apply_model("alpha").await?;
    let service = object("serving.kserve.io/v1beta1", "InferenceService", stage.namespace(), "alpha");
    stage.see("inference-service", &service, condition("Ready"), 180).await?;
    for (called, version, kind, name) in CHILDREN {
        stage.see(called, &object(version, kind, stage.namespace(), name), Until::Exists, 30).await?;
    }
    Ok(())
}

fn judge_children(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    let parent = history.objects.get("inference-service").cloned().unwrap_or_default();
    let ready = proof::condition_status(&parent["status"]["conditions"], "Ready");
    judgement.that("ready", ready == Some("True"), "condition Ready is True", format!("{ready:?}"), []);
    for (called, _, kind, name) in CHILDREN {
        let Some(child) = history.objects.get(*called) else {
            judgement.that(called, false, format!("{kind} {name}"), "absent", []);
            continue;
        };
        let owner = &child["metadata"]["ownerReferences"][0];
        let owned =
            owner["kind"] == "InferenceService" && owner["name"] == "alpha" && owner["controller"] == json!(true);
        judgement.that(
            called,
            owned,
            format!("{kind} {name}, owned by InferenceService alpha"),
            format!("owner {owner}"),
            [],
        );
    }
    let object = |name: &str| history.objects.get(name).cloned().unwrap_or_default();
    let port = &object("service")["spec"]["ports"][0]["port"];
    judgement.that("service-port", port == 80, "port 80", format!("port {port}"), []);
    let domain = history.declared.get("domain").and_then(Value::as_str).unwrap_or_default();
    for (called, host) in [("route", "alpha"), ("predictor-route", "alpha-predictor")] {
        let route = object(called);
        let wanted = format!("{host}-{}.{domain}", history.namespace);
        let got = &route["spec"]["hostnames"];
        judgement.that(&format!("{called}-hostname"), *got == json!([wanted]), wanted, got.to_string(), []);
        let rule = &route["spec"]["rules"][0];
        let path = &rule["matches"][0]["path"];
        judgement.that(
            &format!("{called}-matches-every-path"),
            path["type"] == "RegularExpression" && path["value"] == "^/.*$",
            "RegularExpression ^/.*$",
            path.to_string(),
            [],
        );
        let set = &rule["filters"][0]["requestHeaderModifier"]["set"];
        let value =
            |name: &str| set.as_array().and_then(|s| s.iter().find(|h| h["name"] == name)).map(|h| h["value"].clone());
        let named = value("KServe-Isvc-Name") == Some(json!("alpha"))
            && value("KServe-Isvc-Namespace") == Some(json!(history.namespace));
        judgement.that(
            &format!("{called}-sets-headers"),
            named,
            "KServe-Isvc-Name and -Namespace set",
            set.to_string(),
            [],
        );
        let timeout = &rule["timeouts"]["request"];
        judgement.that(&format!("{called}-timeout"), timeout == "60s", "request timeout 60s", timeout.to_string(), []);
    }
    judgement
}

#[rstest]
#[tokio::test]
async fn url(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("kserve/url", "-", &folder).run(drive_url, judge_url).await;
}

async fn drive_url(stage: &mut Stage) -> Result<()> {
    let alpha = stage.model("alpha").await?;
    let service = object("serving.kserve.io/v1beta1", "InferenceService", stage.namespace(), "alpha");
    let seen = stage.see("inference-service", &service, condition("Ready"), 60).await?;
    let said =
        seen["status"]["url"].as_str().and_then(|u| u.strip_prefix("http://")).unwrap_or("no-url.invalid").to_owned();
    stage.settle(|| chat(&alpha.host, "alpha"), "alpha").await?;
    stage.begin().await?;
    stage.send("host-of-the-url", chat(&said, "alpha")).await;
    stage.end().await
}

fn judge_url(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    let status = history.objects.get("inference-service").map(|o| o["status"].clone()).unwrap_or_default();
    let domain = history.declared.get("domain").and_then(Value::as_str).unwrap_or_default();
    let wanted = format!("http://alpha-{}.{domain}", history.namespace);
    judgement.that("url", status["url"] == wanted.as_str(), wanted, status["url"].to_string(), []);
    let inside = format!("http://alpha-predictor.{}.svc.cluster.local", history.namespace);
    judgement.that(
        "address",
        status["address"]["url"] == inside.as_str(),
        inside,
        status["address"]["url"].to_string(),
        [],
    );
    proof::answered_by(&mut judgement, history, "host-of-the-url", "alpha");
    judgement
}

mod judges {
    use rstest::rstest;
    use suites::fake::{Fake, conditions, verdict_of};
    use verdict::judge::Holds;

    use super::*;

    fn owned() -> Value {
        json!({"ownerReferences": [{"kind": "InferenceService", "name": "alpha", "controller": true}]})
    }

    fn a_route(host: &str) -> Value {
        let set =
            json!([{"name": "KServe-Isvc-Name", "value": "alpha"}, {"name": "KServe-Isvc-Namespace", "value": "ns"}]);
        json!({"metadata": owned(), "spec": {"hostnames": [host], "rules": [{
            "matches": [{"path": {"type": "RegularExpression", "value": "^/.*$"}}],
            "filters": [{"requestHeaderModifier": {"set": set}}], "timeouts": {"request": "60s"}}]}})
    }

    fn family() -> Fake {
        Fake::of("kserve/children")
            .declares("domain", json!("example.com"))
            .object("inference-service", json!({"status": {"conditions": conditions(1, &[("Ready", "True", "")])}}))
            .object("deployment", json!({"metadata": owned()}))
            .object("service", json!({"metadata": owned(), "spec": {"ports": [{"port": 80}]}}))
            .object("route", a_route("alpha-ns.example.com"))
            .object("predictor-route", a_route("alpha-predictor-ns.example.com"))
    }

    #[rstest]
    #[case::whole(family(), Holds::Yes)]
    #[case::nothing(Fake::of("kserve/children"), Holds::No)]
    #[case::no_predictor_route(family().without_object("predictor-route"), Holds::No)]
    #[case::not_ready(family().object("inference-service", json!({"status": {"conditions": conditions(1, &[("Ready", "False", "")])}})), Holds::No)]
    #[case::other_port(family().object("service", json!({"metadata": owned(), "spec": {"ports": [{"port": 8080}]}})), Holds::No)]
    #[case::not_owned(family().object("deployment", json!({"metadata": {}})), Holds::No)]
    #[case::other_host(family().object("route", a_route("alpha.example.com")), Holds::No)]
    fn children_are_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_children, &fake), holds);
    }

    fn says(url: &str) -> Fake {
        Fake::of("kserve/url").declares("domain", json!("example.com")).model("alpha").object(
            "inference-service",
            json!({"status": {"url": url, "address": {"url": "http://alpha-predictor.ns.svc.cluster.local"}}}),
        )
    }

    #[rstest]
    #[case::good(says("http://alpha-ns.example.com").answered("host-of-the-url", 200, "alpha"), Holds::Yes)]
    #[case::other_url(says("http://beta-ns.example.com").answered("host-of-the-url", 200, "alpha"), Holds::No)]
    #[case::does_not_answer(says("http://alpha-ns.example.com").refused("host-of-the-url", 404), Holds::No)]
    #[case::was_not_asked(says("http://alpha-ns.example.com"), Holds::Unproven)]
    fn url_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_url, &fake), holds);
    }
}
