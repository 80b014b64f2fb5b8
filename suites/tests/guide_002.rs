//! Guide 002, step by step: KServe InferenceService behind Envoy AI Gateway, as printed where that still works and as
//! corrected where it does not. Its TLS and API key steps are not here yet.

use anyhow::{Context, Result};
use serde_json::json;
use suites::{
    CHECK, Call, Check, Judge, Live, Stage, Until,
    budget::{self, Budget, Limited},
    chat, check, condition, object, parents_say,
};
use verdict::{capability, plan::Level};

const MODEL: &str = "llama3-1b";

const GUIDE: Check =
    Check { capability: Some(capability::GUIDE_002), model: None, gateways: &["envoy-ai-gateway"], ..CHECK };
const LIMIT: Check = Check { capability: Some(capability::TOKEN_LIMIT), observe: budget::observe, ..GUIDE };

check!(
    guide_002 / inference_service,
    drive_inference_service,
    judge_inference_service,
    Check {
        sentence: "the InferenceService of the guide becomes Ready and its Service answers on port 80",
        source: "guide 002, \"Create an InferenceService\"",
        how: "Applies an InferenceService with the guide's name; reads its condition Ready and the port of the Service that KServe makes.",
        kills: &["service-has-the-containers-port"],
        live: Live::NotJudged,
        ..GUIDE
    }
);

async fn drive_inference_service(stage: &mut Stage) -> Result<()> {
    stage.apply_model(MODEL).await?;
    let service = object("serving.kserve.io/v1beta1", "InferenceService", stage.namespace(), MODEL);
    stage.see("inference-service", &service, condition("Ready"), 180).await?;
    stage.see("service", &object("v1", "Service", stage.namespace(), "llama3-1b-predictor"), Until::Exists, 10).await?;
    Ok(())
}

fn judge_inference_service(judge: &mut Judge<'_>) {
    judge.is_true("ready", judge.object("inference-service"), "Ready");
    let port = &judge.object("service")["spec"]["ports"][0]["port"];
    let statement = judge.clause("service-port").expected("Service llama3-1b-predictor with port 80");
    statement.got(format!("port {port}")).holds(*port == 80);
}

check!(
    guide_002 / service_backend_as_printed,
    drive_service_backend_as_printed,
    judge_service_backend_as_printed,
    Check {
        sentence: "the AIServiceBackend as printed (a Service, with timeouts) is refused with words that say why; guide says it works, correct is an Envoy Gateway Backend",
        source: "guide 002, \"Create AIServiceBackend\"; envoyproxy/ai-gateway#902",
        how: "Offers the manifest as printed and once more without its timeouts, both as a dry run; looks for the two reasons in what the API server says.",
        kills: &["takes-unknown-fields", "skips-rules"],
        live: Live::NotJudged,
        ..GUIDE
    }
);

async fn drive_service_backend_as_printed(stage: &mut Stage) -> Result<()> {
    let [mut backend] = stage.printed("guide-002/ai-backend")?;
    stage.offer_dry("as-printed", &backend).await?;
    backend["spec"].as_object_mut().context("the printed backend has no spec")?.remove("timeouts");
    stage.offer_dry("without-timeouts", &backend).await
}

fn judge_service_backend_as_printed(judge: &mut Judge<'_>) {
    judge.not_accepted("as-printed", "as-printed", &["unknown field", "spec.timeouts"]);
    let no_service = "BackendRef must be a Backend resource of Envoy Gateway";
    judge.not_accepted("without-timeouts", "without-timeouts", &[no_service]);
}

check!(
    guide_002 / service_backend_corrected,
    drive_service_backend_corrected,
    judge_service_backend_corrected,
    Check {
        sentence: "the AIServiceBackend as corrected is accepted and says so",
        source: "guide 002, \"Create AIServiceBackend\", corrected",
        how: "Routes the model through an Envoy Gateway Backend, and reads the condition Accepted of the AIServiceBackend.",
        kills: &["never-accepts-ai-objects"],
        live: Live::NotJudged,
        ..GUIDE
    }
);

async fn drive_service_backend_corrected(stage: &mut Stage) -> Result<()> {
    let model = stage.model(MODEL).await?;
    stage.route_models(&[&model]).await?;
    let name = format!("{}-{MODEL}", stage.route());
    let backend = object("aigateway.envoyproxy.io/v1beta1", "AIServiceBackend", stage.namespace(), &name);
    stage.see("backend", &backend, condition("Accepted"), 60).await?;
    Ok(())
}

fn judge_service_backend_corrected(judge: &mut Judge<'_>) {
    judge.is_true("backend", judge.object("backend"), "Accepted"); // it is written without a generation
}

check!(
    guide_002 / reference_grant,
    drive_reference_grant,
    judge_reference_grant,
    Check {
        sentence: "the ReferenceGrant is admitted and changes nothing for the corrected backend, which works without it",
        source: "guide 002, \"Create ReferenceGrant\"",
        how: "Sends a chat over the corrected route before and after the guide's ReferenceGrant is applied; the model's records show both.",
        model: Some("echo"),
        kills: &["takes-a-grant-for-a-ban"],
        ..GUIDE
    }
);

async fn drive_reference_grant(stage: &mut Stage) -> Result<()> {
    let model = stage.model("alpha").await?;
    stage.route_models(&[&model]).await?;
    stage.settle(|| chat("alpha"), "alpha").await?;
    stage.send("without-grant", chat("alpha")).await;
    let [grant] = stage.printed("guide-002/reference-grant")?;
    stage.offer("grant", &grant).await?;
    stage.send("with-grant", chat("alpha")).await;
    Ok(())
}

fn judge_reference_grant(judge: &mut Judge<'_>) {
    judge.accepted("grant", "grant");
    judge.answered_by("without-grant-answered-by-alpha", "without-grant", "alpha");
    judge.answered_by("with-grant-answered-by-alpha", "with-grant", "alpha");
}

/// The class that the guide's Gateway names, made unique so that two runs of this check do not meet.
fn class(stage: &Stage) -> String {
    format!("envoy-ai-gateway-basic-{}", stage.namespace())
}

/// The guide's Gateway, first without and then with the class that it names.
async fn gateway_with_class(stage: &mut Stage) -> Result<()> {
    let [mut gateway] = stage.printed("guide-002/gateway")?;
    gateway["spec"]["gatewayClassName"] = json!(class(stage));
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

check!(
    guide_002 / gateway_class,
    gateway_with_class,
    judge_gateway_class,
    Check {
        sentence: "the Gateway as printed waits for a GatewayClass that the guide never creates, and is Accepted once it is there",
        source: "guide 002, \"Create Gateway for the AI Gateway\"",
        how: "Applies the Gateway as printed, and then the class that it names; reads the Gateway's condition Accepted before and after.",
        kills: &["accepts-gateways-of-no-class"],
        live: Live::NotJudged,
        ..GUIDE
    }
);

fn judge_gateway_class(judge: &mut Judge<'_>) {
    judge.accepted("gateway", "gateway");
    let before = judge.history().objects.get("without-class");
    let accepted = before.and_then(|gateway| judge.condition_of(gateway, "Accepted"));
    let status = accepted.and_then(|c| c["status"].as_str()).unwrap_or("absent");
    let statement = judge.clause("without-class").expected("Accepted is not True of the Gateway before its class");
    match before {
        Some(_) => statement.got(status).holds(status != "True"),
        None => statement.unproven("it was not read"),
    }
    judge.is_true("with-class", judge.object("with-class"), "Accepted");
}

check!(
    guide_002 / route_as_printed,
    drive_route_as_printed,
    judge_route_as_printed,
    Check {
        sentence: "the AIGatewayRoute as printed (schema, targetRefs) is refused with words that name both fields; guide says it works",
        source: "guide 002, \"Create AIGatewayRoute with LLM Request Costs\"",
        how: "Offers the manifest as printed, as a dry run; looks for both fields in what the API server says.",
        kills: &["takes-unknown-fields"],
        live: Live::NotJudged,
        ..GUIDE
    }
);

async fn drive_route_as_printed(stage: &mut Stage) -> Result<()> {
    let [route] = stage.printed("guide-002/route")?;
    stage.offer_dry("as-printed", &route).await
}

fn judge_route_as_printed(judge: &mut Judge<'_>) {
    judge.not_accepted("as-printed", "as-printed", &["unknown field", "spec.schema", "spec.targetRefs"]);
}

check!(
    guide_002 / route_corrected,
    drive_route_corrected,
    judge_route_corrected,
    Check {
        sentence: "the AIGatewayRoute as corrected is accepted and makes an HTTPRoute that is Accepted with its references resolved",
        source: "guide 002, \"Create AIGatewayRoute with LLM Request Costs\", corrected",
        how: "Routes the model; reads the conditions of the AIGatewayRoute and of the HTTPRoute that is made of it.",
        kills: &["never-accepts-ai-objects"],
        live: Live::NotJudged,
        ..GUIDE
    }
);

async fn drive_route_corrected(stage: &mut Stage) -> Result<()> {
    let model = stage.model(MODEL).await?;
    stage.route_models(&[&model]).await?;
    let route = object("aigateway.envoyproxy.io/v1beta1", "AIGatewayRoute", stage.namespace(), stage.route());
    stage.see("ai-route", &route, condition("Accepted"), 60).await?;
    let generated = object("gateway.networking.k8s.io/v1", "HTTPRoute", stage.namespace(), stage.route());
    stage.see("http-route", &generated, parents_say("ResolvedRefs"), 60).await?;
    Ok(())
}

fn judge_route_corrected(judge: &mut Judge<'_>) {
    judge.is_true("ai-route", judge.object("ai-route"), "Accepted");
    let route = judge.object("http-route");
    judge.condition("http-route-Accepted", route, "Accepted", "True");
    judge.condition("http-route-ResolvedRefs", route, "ResolvedRefs", "True");
}

check!(
    guide_002 / service_name,
    drive_service_name,
    judge_service_name,
    Check {
        sentence: "the Gateway's Service is found by the labels that the guide uses, but is not called eg-... as printed",
        source: "guide 002, \"Configure $GATEWAY_URL\"",
        how: "Applies the guide's Gateway with its class, and looks up the Service by the labels of the guide's command.",
        kills: &["names-services-otherwise"],
        live: Live::NotJudged,
        ..GUIDE
    }
);

async fn drive_service_name(stage: &mut Stage) -> Result<()> {
    gateway_with_class(stage).await?;
    let labels = format!(
        "gateway.envoyproxy.io/owning-gateway-namespace={},gateway.envoyproxy.io/owning-gateway-name=envoy-ai-gateway-basic",
        stage.namespace()
    );
    stage.see_labelled("service", "v1", "Service", "envoy-gateway-system", &labels, 60).await
}

fn judge_service_name(judge: &mut Judge<'_>) {
    let name = judge.object("service")["metadata"]["name"].as_str().unwrap_or_default();
    let wanted = format!("envoy-{}-", judge.history().namespace);
    let statement = judge.clause("found-by-labels").expected("a Service with the labels of the guide's command");
    statement.got(format!("'{name}'")).holds(!name.is_empty());
    let statement = judge.clause("name").expected(format!("{wanted}..., not eg-envoy-ai-gateway"));
    statement.got(name).holds(name.starts_with(&wanted));
}

fn printed_request() -> Call {
    let message = |role: &str, content: &str| json!({"role": role, "content": content});
    let messages = [message("system", "You are a poet."), message("user", "Write a poem about clouds.")];
    let body = json!({"model": MODEL, "messages": messages});
    Call::post("/v1/chat/completions").header("x-user-id", "user123").json(&body)
}

check!(
    guide_002 / chat_completion,
    drive_chat_completion,
    judge_chat_completion,
    Check {
        sentence: "the test request as printed is answered by the InferenceService with usage that adds up",
        source: "guide 002, \"Testing the Gateway\"",
        how: "Sends the guide's test request over the corrected route, and looks at each part of the reply and at the pod that gave it.",
        kills: &["drops-usage-of-replies"],
        ..GUIDE
    }
);

async fn drive_chat_completion(stage: &mut Stage) -> Result<()> {
    let model = stage.model(MODEL).await?;
    stage.route_models(&[&model]).await?;
    stage.settle(|| chat(MODEL), MODEL).await?;
    stage.send("as-printed", printed_request()).await;
    Ok(())
}

fn judge_chat_completion(judge: &mut Judge<'_>) {
    judge.status("as-printed-status", "as-printed", 200);
    let Some(exchange) = judge.labelled("as-printed").first().copied() else { return };
    let body = exchange.response().and_then(|r| r.json()).unwrap_or_default();
    let mut says = |clause, expected: &str, got: String, holds| {
        judge.clause(clause).expected(expected).got(got).shown_by([exchange]).holds(holds);
    };
    says("model", MODEL, body["model"].to_string(), body["model"] == MODEL);
    says("object", "chat.completion", body["object"].to_string(), body["object"] == "chat.completion");
    let reply = body["choices"][0]["message"]["content"].as_str().unwrap_or_default();
    says("reply", "a reply of the assistant", format!("'{reply}'"), !reply.is_empty());
    judge.usage_adds_up(exchange, &body);
    let pod = exchange.response().and_then(|r| r.header("x-inference-pod")).unwrap_or_default();
    let statement = judge.clause("served-by").expected("a pod of the InferenceService").got(format!("'{pod}'"));
    statement.shown_by([exchange]).holds(pod.starts_with("llama3-1b-predictor-"));
}

/// A prompt of 97 words: 102 tokens of prompt and 97 of reply.
fn long_request(user: &str) -> Call {
    let words = vec!["cloud"; 97].join(" ");
    Call::post("/v1/chat/completions")
        .header("x-user-id", user)
        .json(&json!({"model": MODEL, "messages": [{"role": "user", "content": words}]}))
}

/// Spends the guide's hour of 1000 tokens; the answers are labelled `spend`.
async fn spend_the_hour(stage: &mut Stage) -> Result<()> {
    let model = stage.model(MODEL).await?;
    stage.route_models(&[&model]).await?;
    stage.intent("limit-tokens", json!({"limits": [{"tokens": 1000, "unit": "Hour", "model": MODEL}]})).await?;
    budget::settle(stage, MODEL).await?;
    let limited = Limited::of(stage, MODEL);
    budget::in_one_window_of(stage, &limited, 3600, &["spend"], async |stage, user| {
        for _ in 0..10 {
            budget::charged(stage).await;
            stage.send("spend", long_request(user)).await;
        }
        Ok(())
    })
    .await
}

check!(
    guide_002 / token_limit,
    spend_the_hour,
    judge_token_limit,
    Check {
        sentence: "1000 tokens per hour, user and model are admitted, then requests are refused with 429",
        source: "guide 002, \"Configure Rate Limiting\"",
        how: "Sends ten requests of 199 tokens each as one user inside one hour, and counts the replies before the first refusal.",
        kills: &["charges-requests"],
        ..LIMIT
    }
);

fn judge_token_limit(judge: &mut Judge<'_>) {
    let Some(budget) = Budget::of_window(judge, "spend", 1000, 3600) else { return };
    budget.judge_one_window(judge);
    budget.judge_admitted(judge);
    budget.judge_spent(judge);
}

check!(
    guide_002 / ratelimited_header,
    spend_the_hour,
    judge_ratelimited_header,
    Check {
        level: Level::Info,
        sentence: "the 429 as printed carries x-envoy-ratelimited; today it does not by default",
        source: "guide 002, \"Testing the Gateway\", expected output; envoyproxy/gateway#7110",
        how: "Spends the guide's hour of 1000 tokens, and looks for the header in the first refusal.",
        live: Live::NotJudged,
        ..LIMIT
    }
);

fn judge_ratelimited_header(judge: &mut Judge<'_>) {
    let refusal = judge.labelled("spend").into_iter().find(|e| e.status() == Some(429));
    let statement = judge.clause("x-envoy-ratelimited").expected("absent, though the guide prints true");
    match refusal.and_then(|e| e.response().map(|response| (e, response))) {
        Some((exchange, response)) => {
            let header = response.header("x-envoy-ratelimited");
            statement.got(format!("{header:?}")).shown_by([exchange]).holds(header.is_none());
        }
        None => statement.unproven("nothing was refused"),
    }
}

mod judges {
    use rstest::rstest;
    use suites::fake::{CONTROLLER, Fake, conditions, token_limit};
    use verdict::{history::Admission, judge::Holds};

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
        assert_eq!(fake.verdict(), holds);
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
        assert_eq!(Fake::of("guide-002/route-as-printed").admission("as-printed", printed).verdict(), holds);
    }

    #[rstest]
    #[case::said("True", Holds::Yes)]
    #[case::denied("False", Holds::No)]
    fn accepted_objects_are_judged(#[case] status: &str, #[case] holds: Holds) {
        let said = json!({"status": {"conditions": [{"type": "Accepted", "status": status}]}});
        let parents = conditions(1, &[("Accepted", "True", ""), ("ResolvedRefs", status, "")]);
        let backend = Fake::of("guide-002/service-backend-corrected").object("backend", said.clone());
        assert_eq!(backend.verdict(), holds);
        let parents = json!([{"controllerName": CONTROLLER, "conditions": parents}]);
        let route = json!({"metadata": {"generation": 1}, "status": {"parents": parents}});
        let route = Fake::of("guide-002/route-corrected").object("ai-route", said).object("http-route", route);
        assert_eq!(route.verdict(), holds);
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
        assert_eq!(fake.verdict(), holds);
    }

    #[rstest]
    #[case::real("envoy-ns-envoy-ai-gateway-basic-1234abcd", Holds::Yes)]
    #[case::printed("eg-envoy-ai-gateway", Holds::No)]
    #[case::none("", Holds::No)]
    fn service_name_is_judged(#[case] name: &str, #[case] holds: Holds) {
        let fake = Fake::of("guide-002/service-name").object("service", json!({"metadata": {"name": name}}));
        assert_eq!(fake.verdict(), holds);
    }

    #[rstest]
    #[case::ready("True", 80, Holds::Yes)]
    #[case::not_ready("False", 80, Holds::No)]
    #[case::port("True", 8080, Holds::No)]
    fn inference_service_is_judged(#[case] ready: &str, #[case] port: u64, #[case] holds: Holds) {
        let fake = Fake::of("guide-002/inference-service")
            .object("inference-service", json!({"status": {"conditions": conditions(1, &[("Ready", ready, "")])}}))
            .object("service", json!({"spec": {"ports": [{"port": port}]}}));
        assert_eq!(fake.verdict(), holds);
    }

    #[rstest]
    #[case::accepted(Some(fine()), "alpha", Holds::Yes)]
    #[case::refused(Some(refusal("no")), "alpha", Holds::No)]
    #[case::elsewhere(Some(fine()), "beta", Holds::No)]
    fn reference_grant_is_judged(#[case] grant: Option<Admission>, #[case] with: &str, #[case] holds: Holds) {
        let fake = Fake::of("guide-002/reference-grant").model("alpha").model("beta").admission("grant", grant);
        assert_eq!(fake.answered("without-grant", 200, "alpha").answered("with-grant", 200, with).verdict(), holds);
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
        assert_eq!(fake.verdict(), holds);
    }

    fn hour(check: &str, admitted: u64, refused: u64) -> Fake {
        let mut fake = Fake::of(check).declares(token_limit());
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
        assert_eq!(hour("guide-002/token-limit", admitted, refused).verdict(), holds);
    }

    fn header(admitted: u64, refused: u64) -> Fake {
        hour("guide-002/ratelimited-header", admitted, refused)
    }

    #[rstest]
    #[case::absent(header(1, 1), Holds::Yes)]
    #[case::present(header(1, 0).answer("spend", 429, &[("x-envoy-ratelimited", "true")], ""), Holds::No)]
    #[case::nothing_refused(header(1, 0), Holds::Unproven)]
    fn ratelimited_header_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(fake.verdict(), holds);
    }
}
