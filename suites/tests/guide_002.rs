//! Guide 002, step by step: KServe InferenceService behind Envoy AI Gateway, as printed where that still works and as
//! corrected where it does not. Its TLS and API key steps are not here yet.

use std::path::PathBuf;

use anyhow::Result;
use rstest::rstest;
use serde_json::{Value, json};
use suites::{
    Call, Stage, Until,
    budget::{self, Budget, Limited},
    chat, check, condition, object, parents_say, proof,
};
use verdict::{
    history::{Admission, History},
    judge::Judgement,
};

use crate::guide_001::printed_request;

/// The guide's model.
const MODEL: &str = "llama3-1b";

#[rstest]
#[tokio::test]
async fn inference_service(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("guide-002/inference-service", "-", &folder).run(drive_inference_service, judge_inference_service).await;
}

async fn drive_inference_service(stage: &mut Stage) -> Result<()> {
    stage.apply_model(MODEL).await?;
    let service = object("serving.kserve.io/v1beta1", "InferenceService", stage.namespace(), MODEL);
    stage.see("inference-service", &service, condition("Ready"), 180).await?;
    stage.see("service", &object("v1", "Service", stage.namespace(), "llama3-1b-predictor"), Until::Exists, 10).await?;
    Ok(())
}

fn judge_inference_service(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    let service = history.objects.get("inference-service").cloned().unwrap_or_default();
    let ready = proof::condition_status(&service["status"]["conditions"], "Ready");
    judgement.that("ready", ready == Some("True"), "condition Ready is True", format!("{ready:?}"), []);
    let port = history.objects.get("service").map(|s| s["spec"]["ports"][0]["port"].clone()).unwrap_or_default();
    judgement.that("service-port", port == 80, "Service llama3-1b-predictor with port 80", format!("port {port}"), []);
    judgement
}

/// Offers a manifest as the guide prints it, as a server-side dry run: nothing is stored.
async fn offer(stage: &mut Stage, name: &str, manifest: Value) -> Result<()> {
    stage.offer_dry(name, &manifest).await
}

/// The manifest was refused, and the message has each of these words.
fn refused(judgement: &mut Judgement, history: &History, name: &str, words: &[&str]) {
    let expected = format!("refused with a message that says {}", words.join(" and "));
    match history.admissions.get(name) {
        Some(Admission::Refused { message, .. }) => {
            let all = words.iter().all(|w| message.contains(w));
            judgement.that(name, all, expected, message.clone(), [])
        }
        Some(Admission::Accepted { .. }) => judgement.that(name, false, expected, "accepted", []),
        None => judgement.unproven(name, expected, "it was not offered"),
    };
}

/// The manifest was accepted.
fn accepted(judgement: &mut Judgement, history: &History, name: &str) {
    match history.admissions.get(name) {
        Some(Admission::Accepted { .. }) => judgement.that(name, true, "accepted", "accepted", []),
        Some(Admission::Refused { message, .. }) => judgement.that(name, false, "accepted", message.clone(), []),
        None => judgement.unproven(name, "accepted", "it was not offered"),
    };
}

fn service_backend(namespace: &str, timeouts: bool) -> Value {
    let backend =
        json!({"name": "llama3-1b-predictor", "namespace": "kserve-test", "kind": "Service", "group": "", "port": 80});
    let mut spec = json!({"schema": {"name": "OpenAI"}, "backendRef": backend});
    if timeouts {
        spec["timeouts"] = json!({"request": "60s"});
    }
    json!({
        "apiVersion": "aigateway.envoyproxy.io/v1alpha1", "kind": "AIServiceBackend",
        "metadata": {"name": "envoy-ai-gateway-openai-kserve", "namespace": namespace}, "spec": spec,
    })
}

#[rstest]
#[tokio::test]
async fn service_backend_as_printed(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("guide-002/service-backend-as-printed", "-", &folder)
        .run(drive_service_backend_as_printed, judge_service_backend_as_printed)
        .await;
}

async fn drive_service_backend_as_printed(stage: &mut Stage) -> Result<()> {
    let namespace = stage.namespace().to_owned();
    offer(stage, "as-printed", service_backend(&namespace, true)).await?;
    offer(stage, "without-timeouts", service_backend(&namespace, false)).await
}

fn judge_service_backend_as_printed(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    refused(&mut judgement, history, "as-printed", &["unknown field", "spec.timeouts"]);
    refused(&mut judgement, history, "without-timeouts", &["BackendRef must be a Backend resource of Envoy Gateway"]);
    judgement
}

#[rstest]
#[tokio::test]
async fn service_backend_corrected(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("guide-002/service-backend-corrected", "-", &folder)
        .run(drive_service_backend_corrected, judge_service_backend_corrected)
        .await;
}

async fn drive_service_backend_corrected(stage: &mut Stage) -> Result<()> {
    let model = stage.model(MODEL).await?;
    stage.route_models(&[&model]).await?;
    let backend = object(
        "aigateway.envoyproxy.io/v1beta1",
        "AIServiceBackend",
        stage.namespace(),
        &format!("{}-{MODEL}", stage.route()),
    );
    stage.see("backend", &backend, condition("Accepted"), 60).await?;
    Ok(())
}

fn judge_service_backend_corrected(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    says_accepted(&mut judgement, history, "backend");
    judgement
}

/// An object of the AI Gateway says `Accepted`, which it writes without a generation.
fn says_accepted(judgement: &mut Judgement, history: &History, name: &str) {
    let conditions = history.objects.get(name).map(|o| o["status"]["conditions"].clone()).unwrap_or_default();
    let status = proof::condition_status(&conditions, "Accepted");
    judgement.that(name, status == Some("True"), "condition Accepted is True", format!("conditions {conditions}"), []);
}

#[rstest]
#[tokio::test]
async fn reference_grant(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("guide-002/reference-grant", "-", &folder).run(drive_reference_grant, judge_reference_grant).await;
}

async fn drive_reference_grant(stage: &mut Stage) -> Result<()> {
    let model = stage.model("alpha").await?;
    stage.route_models(&[&model]).await?;
    let host = stage.hostname().to_owned();
    stage.settle(|| chat(&host, "alpha"), "alpha").await?;
    stage.begin().await?;
    stage.send("without-grant", chat(&host, "alpha")).await;
    let grant = json!({
        "apiVersion": "gateway.networking.k8s.io/v1beta1", "kind": "ReferenceGrant",
        "metadata": {"name": "envoy-gateway-ref-grant", "namespace": stage.namespace()},
        "spec": {"from": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "default"}], "to": [{"group": "", "kind": "Service"}]},
    });
    stage.offer("grant", &grant).await?;
    stage.send("with-grant", chat(&host, "alpha")).await;
    stage.end().await
}

fn judge_reference_grant(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    accepted(&mut judgement, history, "grant");
    proof::answered_by(&mut judgement, history, "without-grant", "alpha");
    proof::answered_by(&mut judgement, history, "with-grant", "alpha");
    judgement
}

/// The class that the guide's Gateway names, made unique so that two runs of this check do not meet.
fn class(stage: &Stage) -> String {
    format!("envoy-ai-gateway-basic-{}", stage.namespace())
}

fn printed_gateway(stage: &Stage) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": "envoy-ai-gateway-basic", "namespace": stage.namespace()},
        "spec": {"gatewayClassName": class(stage), "listeners": [{"name": "http", "protocol": "HTTP", "port": 80}]},
    })
}

/// The guide's Gateway, first without and then with the class that it names.
async fn gateway_with_class(stage: &mut Stage) -> Result<()> {
    let gateway = printed_gateway(stage);
    stage.offer("gateway", &gateway).await?;
    let reference = object("gateway.networking.k8s.io/v1", "Gateway", stage.namespace(), "envoy-ai-gateway-basic");
    stage.see("without-class", &reference, Until::Exists, 10).await?;
    let class = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": {"name": class(stage)},
        "spec": {"controllerName": "gateway.envoyproxy.io/gatewayclass-controller"},
    });
    stage.offer_for_this_stage("class", &class).await?;
    stage.see("with-class", &reference, condition("Accepted"), 60).await?;
    Ok(())
}

#[rstest]
#[tokio::test]
async fn gateway_class(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("guide-002/gateway-class", "-", &folder).run(gateway_with_class, judge_gateway_class).await;
}

fn judge_gateway_class(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    accepted(&mut judgement, history, "gateway");
    let status = |name: &str| {
        let conditions = history.objects.get(name).map(|o| o["status"]["conditions"].clone()).unwrap_or_default();
        proof::condition_status(&conditions, "Accepted").unwrap_or("absent").to_owned()
    };
    match history.objects.contains_key("without-class") {
        true => judgement.that(
            "without-class",
            status("without-class") != "True",
            "Accepted is not True",
            status("without-class"),
            [],
        ),
        false => judgement.unproven("without-class", "the Gateway before its class", "it was not read"),
    };
    judgement.that("with-class", status("with-class") == "True", "Accepted is True", status("with-class"), []);
    judgement
}

fn printed_route(namespace: &str) -> Value {
    let cost = |key: &str, kind: &str| json!({"metadataKey": key, "type": kind});
    json!({
        "apiVersion": "aigateway.envoyproxy.io/v1alpha1", "kind": "AIGatewayRoute",
        "metadata": {"name": "envoy-ai-gateway", "namespace": namespace},
        "spec": {
            "schema": {"name": "OpenAI"},
            "targetRefs": [{"name": "envoy-ai-gateway-basic", "kind": "Gateway", "group": "gateway.networking.k8s.io"}],
            "rules": [{
                "matches": [{"headers": [{"type": "Exact", "name": "x-ai-eg-model", "value": MODEL}]}],
                "backendRefs": [{"name": "envoy-ai-gateway-openai-kserve", "weight": 100}],
            }],
            "llmRequestCosts": [cost("llm_input_token", "InputToken"), cost("llm_output_token", "OutputToken"), cost("llm_total_token", "TotalToken")],
        },
    })
}

#[rstest]
#[tokio::test]
async fn route_as_printed(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("guide-002/route-as-printed", "-", &folder).run(drive_route_as_printed, judge_route_as_printed).await;
}

async fn drive_route_as_printed(stage: &mut Stage) -> Result<()> {
    let manifest = printed_route(stage.namespace());
    offer(stage, "as-printed", manifest).await
}

fn judge_route_as_printed(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    refused(&mut judgement, history, "as-printed", &["unknown field", "spec.schema", "spec.targetRefs"]);
    judgement
}

#[rstest]
#[tokio::test]
async fn route_corrected(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("guide-002/route-corrected", "-", &folder).run(drive_route_corrected, judge_route_corrected).await;
}

async fn drive_route_corrected(stage: &mut Stage) -> Result<()> {
    let model = stage.model(MODEL).await?;
    stage.route_models(&[&model]).await?;
    let route = object("aigateway.envoyproxy.io/v1beta1", "AIGatewayRoute", stage.namespace(), stage.route());
    stage.see("ai-route", &route, condition("Accepted"), 60).await?;
    let generated = object("gateway.networking.k8s.io/v1", "HTTPRoute", stage.namespace(), stage.route());
    stage.see("http-route", &generated, parents_say("ResolvedRefs"), 60).await?;
    Ok(())
}

fn judge_route_corrected(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    says_accepted(&mut judgement, history, "ai-route");
    let route = history.objects.get("http-route").cloned().unwrap_or_default();
    for condition in ["Accepted", "ResolvedRefs"] {
        proof::condition(
            &mut judgement,
            &format!("http-route-{condition}"),
            &route,
            &route["status"]["parents"][0]["conditions"],
            condition,
            "True",
        );
    }
    judgement
}

#[rstest]
#[tokio::test]
async fn service_name(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("guide-002/service-name", "-", &folder).run(drive_service_name, judge_service_name).await;
}

async fn drive_service_name(stage: &mut Stage) -> Result<()> {
    gateway_with_class(stage).await?;
    let labels = format!(
        "gateway.envoyproxy.io/owning-gateway-namespace={},gateway.envoyproxy.io/owning-gateway-name=envoy-ai-gateway-basic",
        stage.namespace()
    );
    stage.see_labelled("service", "v1", "Service", "envoy-gateway-system", &labels, 60).await
}

fn judge_service_name(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    let name = history.objects.get("service").and_then(|s| s["metadata"]["name"].as_str()).unwrap_or_default();
    let wanted = format!("envoy-{}-", history.namespace);
    judgement.that(
        "found-by-labels",
        !name.is_empty(),
        "a Service with the labels of the guide's command",
        format!("'{name}'"),
        [],
    );
    judgement.that(
        "name",
        name.starts_with(&wanted) && !name.starts_with("eg-"),
        format!("{wanted}..., not eg-envoy-ai-gateway"),
        name,
        [],
    );
    judgement
}

#[rstest]
#[tokio::test]
async fn chat_completion(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("guide-002/chat-completion", "-", &folder).run(drive_chat_completion, judge_chat_completion).await;
}

async fn drive_chat_completion(stage: &mut Stage) -> Result<()> {
    let model = stage.model(MODEL).await?;
    stage.route_models(&[&model]).await?;
    let host = stage.hostname().to_owned();
    stage.settle(|| chat(&host, MODEL), MODEL).await?;
    stage.send("as-printed", printed_request(&host, MODEL)).await;
    Ok(())
}

fn judge_chat_completion(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    proof::status(&mut judgement, history, "as-printed", Some(200));
    let Some(exchange) = history.labelled("as-printed").next() else { return judgement };
    let body = exchange.response().and_then(|r| r.json()).unwrap_or_default();
    judgement.that("model", body["model"] == MODEL, MODEL, body["model"].to_string(), [exchange]);
    judgement.that(
        "object",
        body["object"] == "chat.completion",
        "chat.completion",
        body["object"].to_string(),
        [exchange],
    );
    let reply = body["choices"][0]["message"]["content"].as_str().unwrap_or_default();
    judgement.that("reply", !reply.is_empty(), "a reply of the assistant", format!("'{reply}'"), [exchange]);
    proof::usage_adds_up(&mut judgement, exchange, &body);
    let pod = exchange.response().and_then(|r| r.header("x-inference-pod")).unwrap_or_default().to_owned();
    judgement.that(
        "served-by",
        pod.starts_with("llama3-1b-predictor-"),
        "a pod of the InferenceService",
        format!("'{pod}'"),
        [exchange],
    );
    judgement
}

/// A prompt of 97 words: 102 tokens of prompt and 97 of reply.
fn long_request(host: &str, user: &str) -> Call {
    let words = vec!["cloud"; 97].join(" ");
    Call::post("/v1/chat/completions")
        .host(host)
        .header("x-user-id", user)
        .json(&json!({"model": MODEL, "messages": [{"role": "user", "content": words}]}))
}

/// Spends the guide's hour of 1000 tokens; the answers are labelled `spend`.
async fn spend_the_hour(stage: &mut Stage) -> Result<()> {
    let model = stage.model(MODEL).await?;
    stage.route_models(&[&model]).await?;
    stage.intent("limit-tokens", json!({"limits": [{"tokens": 1000, "unit": "Hour", "model": MODEL}]})).await?;
    budget::settle(stage, MODEL).await?;
    let host = stage.hostname().to_owned();
    let limited = Limited { host: host.clone(), model: MODEL.to_owned(), pods: MODEL.to_owned() };
    budget::in_one_window_of(stage, &limited, 3600, &["spend"], async |stage, user| {
        for _ in 0..10 {
            budget::charged(stage).await;
            stage.send("spend", long_request(&host, user)).await;
        }
        Ok(())
    })
    .await
}

#[rstest]
#[tokio::test]
async fn token_limit(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("guide-002/token-limit", "-", &folder)
        .observing(budget::observe)
        .run(spend_the_hour, judge_token_limit)
        .await;
}

fn judge_token_limit(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    let budget = Budget::of_window(history, "spend", 1000, 3600);
    budget.judge_one_window(&mut judgement);
    budget.judge_admitted(&mut judgement);
    budget.judge_spent(&mut judgement);
    judgement
}

#[rstest]
#[tokio::test]
async fn ratelimited_header(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("guide-002/ratelimited-header", "-", &folder)
        .observing(budget::observe)
        .run(spend_the_hour, judge_ratelimited_header)
        .await;
}

fn judge_ratelimited_header(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    match history.labelled("spend").find(|e| e.status() == Some(429)) {
        Some(refusal) => {
            let header = refusal.response().and_then(|r| r.header("x-envoy-ratelimited"));
            judgement.that(
                "x-envoy-ratelimited",
                header.is_none(),
                "absent, though the guide prints true",
                format!("{header:?}"),
                [refusal],
            )
        }
        None => judgement.unproven("x-envoy-ratelimited", "a refusal to look at", "nothing was refused"),
    };
    judgement
}

mod judges {
    use rstest::rstest;
    use suites::fake::{Fake, conditions, verdict_of};
    use verdict::judge::Holds;

    use super::*;

    fn refusal(message: &str) -> Admission {
        Admission::Refused { code: 400, reason: "BadRequest".into(), message: message.into() }
    }

    fn fine() -> Admission {
        Admission::Accepted { warnings: vec![] }
    }

    #[rstest]
    #[case::both(
        Some(refusal("unknown field \"spec.timeouts\"")),
        Some(refusal("BackendRef must be a Backend resource of Envoy Gateway. See")),
        Holds::Yes
    )]
    #[case::accepted(Some(refusal("unknown field \"spec.timeouts\"")), Some(fine()), Holds::No)]
    #[case::other_words(
        Some(refusal("webhook is down")),
        Some(refusal("BackendRef must be a Backend resource of Envoy Gateway")),
        Holds::No
    )]
    #[case::not_offered(Some(refusal("unknown field \"spec.timeouts\"")), None, Holds::Unproven)]
    fn service_backend_as_printed_is_judged(
        #[case] printed: Option<Admission>,
        #[case] without: Option<Admission>,
        #[case] holds: Holds,
    ) {
        let fake = Fake::of("guide-002/service-backend-as-printed")
            .admission("as-printed", printed)
            .admission("without-timeouts", without);
        assert_eq!(verdict_of(judge_service_backend_as_printed, &fake), holds);
    }

    #[rstest]
    #[case::both_fields(
        Some(refusal("strict decoding error: unknown field \"spec.schema\", unknown field \"spec.targetRefs\"")),
        Holds::Yes
    )]
    #[case::one_field(Some(refusal("strict decoding error: unknown field \"spec.schema\"")), Holds::No)]
    #[case::accepted(Some(fine()), Holds::No)]
    #[case::not_offered(None, Holds::Unproven)]
    fn route_as_printed_is_judged(#[case] printed: Option<Admission>, #[case] holds: Holds) {
        assert_eq!(
            verdict_of(
                judge_route_as_printed,
                &Fake::of("guide-002/route-as-printed").admission("as-printed", printed)
            ),
            holds
        );
    }

    #[rstest]
    #[case::said("True", Holds::Yes)]
    #[case::denied("False", Holds::No)]
    fn accepted_objects_are_judged(#[case] status: &str, #[case] holds: Holds) {
        let said = json!({"status": {"conditions": [{"type": "Accepted", "status": status}]}});
        let parents = conditions(1, &[("Accepted", "True", ""), ("ResolvedRefs", status, "")]);
        let fake = Fake::of("guide-002/route-corrected").object("backend", said.clone()).object("ai-route", said);
        let fake = fake.object(
            "http-route",
            json!({"metadata": {"generation": 1}, "status": {"parents": [{"conditions": parents}]}}),
        );
        assert_eq!(verdict_of(judge_service_backend_corrected, &fake), holds);
        assert_eq!(verdict_of(judge_route_corrected, &fake), holds);
    }

    #[rstest]
    #[case::as_it_should("Unknown", "True", Some(fine()), Holds::Yes)]
    #[case::accepted_without_class("True", "True", Some(fine()), Holds::No)]
    #[case::never_accepted("Unknown", "Unknown", Some(fine()), Holds::No)]
    #[case::refused("Unknown", "True", Some(refusal("no")), Holds::No)]
    fn gateway_class_is_judged(
        #[case] before: &str,
        #[case] after: &str,
        #[case] admission: Option<Admission>,
        #[case] holds: Holds,
    ) {
        let object = |status: &str| json!({"status": {"conditions": [{"type": "Accepted", "status": status}]}});
        let fake = Fake::of("guide-002/gateway-class").admission("gateway", admission);
        let fake = fake.object("without-class", object(before)).object("with-class", object(after));
        assert_eq!(verdict_of(judge_gateway_class, &fake), holds);
    }

    #[rstest]
    #[case::real("envoy-ns-envoy-ai-gateway-basic-1234abcd", Holds::Yes)]
    #[case::printed("eg-envoy-ai-gateway", Holds::No)]
    #[case::none("", Holds::No)]
    fn service_name_is_judged(#[case] name: &str, #[case] holds: Holds) {
        let fake = Fake::of("guide-002/service-name").object("service", json!({"metadata": {"name": name}}));
        assert_eq!(verdict_of(judge_service_name, &fake), holds);
    }

    #[rstest]
    #[case::ready("True", 80, Holds::Yes)]
    #[case::not_ready("False", 80, Holds::No)]
    #[case::port("True", 8080, Holds::No)]
    fn inference_service_is_judged(#[case] ready: &str, #[case] port: u64, #[case] holds: Holds) {
        let fake = Fake::of("guide-002/inference-service")
            .object("inference-service", json!({"status": {"conditions": conditions(1, &[("Ready", ready, "")])}}))
            .object("service", json!({"spec": {"ports": [{"port": port}]}}));
        assert_eq!(verdict_of(judge_inference_service, &fake), holds);
    }

    #[rstest]
    #[case::accepted(Some(fine()), "alpha", Holds::Yes)]
    #[case::refused(Some(refusal("no")), "alpha", Holds::No)]
    #[case::elsewhere(Some(fine()), "beta", Holds::No)]
    fn reference_grant_is_judged(#[case] grant: Option<Admission>, #[case] with: &str, #[case] holds: Holds) {
        let fake = Fake::of("guide-002/reference-grant").model("alpha").model("beta").admission("grant", grant);
        assert_eq!(
            verdict_of(
                judge_reference_grant,
                &fake.answered("without-grant", 200, "alpha").answered("with-grant", 200, with)
            ),
            holds
        );
    }

    fn reply(model: &str, usage: [u64; 3], pod: &str) -> Fake {
        let usage = json!({"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": usage[2]});
        let body = json!({"model": model, "object": "chat.completion", "choices": [{"message": {"content": "a poem"}}], "usage": usage});
        Fake::of("guide-002/chat-completion").answer("as-printed", 200, &[("x-inference-pod", pod)], &body.to_string())
    }

    #[rstest]
    #[case::good(reply("llama3-1b", [9, 5, 14], "llama3-1b-predictor-x"), Holds::Yes)]
    #[case::sum(reply("llama3-1b", [9, 5, 15], "llama3-1b-predictor-x"), Holds::No)]
    #[case::other_model(reply("other", [9, 5, 14], "llama3-1b-predictor-x"), Holds::No)]
    #[case::other_pod(reply("llama3-1b", [9, 5, 14], "somebody-x"), Holds::No)]
    #[case::no_reply(Fake::of("guide-002/chat-completion"), Holds::Unproven)]
    #[case::refused(Fake::of("guide-002/chat-completion").refused("as-printed", 404), Holds::No)]
    fn chat_completion_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_chat_completion, &fake), holds);
    }

    fn hour(admitted: u64, refused: u64) -> Fake {
        let mut fake = Fake::of("guide-002/token-limit")
            .declares("block-when", json!("spent > limit"))
            .declares("mark", json!("x-ratelimit-limit"))
            .declares("status", json!(429));
        for i in 0..admitted {
            fake = fake.admitted_for("spend", 1000, 1000u64.saturating_sub(199 * i), 3000, 199);
        }
        for _ in 0..refused {
            fake = fake.limited("spend", 1000, 0, 3000);
        }
        fake
    }

    #[rstest]
    #[case::as_declared(6, 4, Holds::Yes)]
    #[case::too_few(5, 5, Holds::No)]
    #[case::never_refused(10, 0, Holds::No)]
    fn token_limit_is_judged(#[case] admitted: u64, #[case] refused: u64, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_token_limit, &hour(admitted, refused)), holds);
    }

    #[rstest]
    #[case::absent(hour(1, 1), Holds::Yes)]
    #[case::present(hour(1, 0).answer("spend", 429, &[("x-envoy-ratelimited", "true")], ""), Holds::No)]
    #[case::nothing_refused(hour(1, 0), Holds::Unproven)]
    fn ratelimited_header_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_ratelimited_header, &fake), holds);
    }
}
