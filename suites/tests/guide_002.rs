//! Guide 002, step by step: KServe InferenceService behind Envoy AI Gateway, as printed where that still works and as
//! corrected where it does not. Its TLS and API key steps are not here yet.

use anyhow::{Context, Result};
use serde_json::json;
use suites::{
    CHECK, Check, Judge, Live, Stage, Target, WaitCondition,
    budget::{self, Limited},
    chat, check, condition, parents_say,
};
use verdict::{capability, plan::Level};

use crate::guide_001::{judge_spent, printed_request, spend};

const MODEL: &str = "llama3-1b";

const GUIDE: Check =
    Check { capability: Some(capability::GUIDE_002), model: None, gateways: &["envoy-ai-gateway"], ..CHECK };
const STATUS: Check = Check { live: Live::NotJudged, ..GUIDE };
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
        ..STATUS
    }
);

async fn drive_inference_service(stage: &mut Stage) -> Result<()> {
    stage.see_model(MODEL).await?;
    stage.see("service", &stage.object("v1", "Service", "llama3-1b-predictor"), WaitCondition::Exists, 10).await
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
        ..STATUS
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
    |judge| judge.is_true("backend", judge.object("backend"), "Accepted"), // it is written without a generation
    Check {
        sentence: "the AIServiceBackend as corrected is accepted and says so",
        source: "guide 002, \"Create AIServiceBackend\", corrected",
        how: "Routes the model through an Envoy Gateway Backend, and reads the condition Accepted of the AIServiceBackend.",
        kills: &["never-accepts-ai-objects"],
        ..STATUS
    }
);

async fn drive_service_backend_corrected(stage: &mut Stage) -> Result<()> {
    let model = stage.model(MODEL).await?;
    stage.route_models(&[&model]).await?;
    let name = format!("{}-{MODEL}", stage.route());
    let backend = stage.object("aigateway.envoyproxy.io/v1beta1", "AIServiceBackend", &name);
    stage.see("backend", &backend, condition("Accepted"), 60).await
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
    stage.routed_model("alpha").await?;
    stage.send("without-grant", chat("alpha")).await?;
    let [grant] = stage.printed("guide-002/reference-grant")?;
    stage.offer("grant", &grant).await?;
    stage.send("with-grant", chat("alpha")).await
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

async fn gateway_with_class(stage: &mut Stage) -> Result<()> {
    let [mut gateway] = stage.printed("guide-002/gateway")?;
    gateway["spec"]["gatewayClassName"] = json!(class(stage));
    stage.offer("gateway", &gateway).await?;
    let reference = stage.object("gateway.networking.k8s.io/v1", "Gateway", "envoy-ai-gateway-basic");
    stage.see("without-class", &reference, WaitCondition::Exists, 10).await?;
    let class = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": {"name": class(stage)},
        "spec": {"controllerName": "gateway.envoyproxy.io/gatewayclass-controller"},
    });
    stage.offer_for_this_stage("class", &class).await?;
    stage.see("with-class", &reference, condition("Accepted"), 60).await
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
        ..STATUS
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
    |judge| judge.not_accepted("as-printed", "as-printed", &["unknown field", "spec.schema", "spec.targetRefs"]),
    Check {
        sentence: "the AIGatewayRoute as printed (schema, targetRefs) is refused with words that name both fields; guide says it works",
        source: "guide 002, \"Create AIGatewayRoute with LLM Request Costs\"",
        how: "Offers the manifest as printed, as a dry run; looks for both fields in what the API server says.",
        kills: &["takes-unknown-fields"],
        ..STATUS
    }
);

async fn drive_route_as_printed(stage: &mut Stage) -> Result<()> {
    let [route] = stage.printed("guide-002/route")?;
    stage.offer_dry("as-printed", &route).await
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
        ..STATUS
    }
);

async fn drive_route_corrected(stage: &mut Stage) -> Result<()> {
    let model = stage.model(MODEL).await?;
    stage.route_models(&[&model]).await?;
    let route = stage.object("aigateway.envoyproxy.io/v1beta1", "AIGatewayRoute", stage.route());
    stage.see("ai-route", &route, condition("Accepted"), 60).await?;
    let generated = stage.http_route(stage.route());
    stage.see("http-route", &generated, parents_say("ResolvedRefs"), 60).await
}

fn judge_route_corrected(judge: &mut Judge<'_>) {
    judge.is_true("ai-route", judge.object("ai-route"), "Accepted");
    let route = judge.object("http-route");
    judge.accepted_and_resolved(["http-route-Accepted", "http-route-ResolvedRefs"], route);
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
        ..STATUS
    }
);

async fn drive_service_name(stage: &mut Stage) -> Result<()> {
    gateway_with_class(stage).await?;
    let labels = format!(
        "gateway.envoyproxy.io/owning-gateway-namespace={},gateway.envoyproxy.io/owning-gateway-name=envoy-ai-gateway-basic",
        stage.namespace()
    );
    let service = Target::labelled("v1", "Service", Some("envoy-gateway-system"), &labels);
    stage.see("service", service, WaitCondition::Exists, 60).await
}

fn judge_service_name(judge: &mut Judge<'_>) {
    let name = judge.object("service")["metadata"]["name"].as_str().unwrap_or_default();
    let wanted = format!("envoy-{}-", judge.history().namespace);
    let statement = judge.clause("found-by-labels").expected("a Service with the labels of the guide's command");
    statement.got(format!("'{name}'")).holds(!name.is_empty());
    let statement = judge.clause("name").expected(format!("{wanted}..., not eg-envoy-ai-gateway"));
    statement.got(name).holds(name.starts_with(&wanted));
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
    stage.routed_model(MODEL).await?;
    stage.send("as-printed", printed_request(MODEL)).await
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

/// Spends the guide's hour of 1000 tokens; the answers are labelled `spend`.
async fn spend_the_hour(stage: &mut Stage) -> Result<()> {
    let model = stage.model(MODEL).await?;
    stage.route_models(&[&model]).await?;
    stage.intent("limit-tokens", json!({"limits": [{"tokens": 1000, "unit": "Hour", "model": MODEL}]})).await?;
    budget::settle(stage, MODEL).await?;
    let limited = Limited::of(stage, MODEL);
    budget::in_one_window_of(stage, &limited, 3600, &["spend"], async |stage, user| spend(stage, MODEL, user).await)
        .await
}

check!(
    guide_002 / token_limit,
    spend_the_hour,
    |judge| judge_spent(judge, 3600),
    Check {
        sentence: "1000 tokens per hour, user and model are admitted, then requests are refused with 429",
        source: "guide 002, \"Configure Rate Limiting\"",
        how: "Sends ten requests of 199 tokens each as one user inside one hour, and counts the replies before the first refusal.",
        kills: &["charges-requests"],
        ..LIMIT
    }
);

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
    use serde_json::Value;
    use suites::fake::{Fake, Holds, No, Unproven, Yes, accepted, object_saying, parents_saying, refusal, usage};
    use verdict::history::Admission;

    use super::*;
    use crate::guide_001::judges::hour;

    const TIMEOUTS: &str = "unknown field \"spec.timeouts\"";
    const NO_SERVICE: &str = "BackendRef must be a Backend resource of Envoy Gateway. See";
    const SCHEMA: &str = "strict decoding error: unknown field \"spec.schema\"";
    const TARGETS: &str = "unknown field \"spec.targetRefs\"";

    fn as_printed(printed: Option<Admission>, without: Option<Admission>) -> Fake {
        Fake::of("guide-002/service-backend-as-printed")
            .admission("as-printed", printed)
            .admission("without-timeouts", without)
    }

    fn route_as_printed(printed: Option<Admission>) -> Fake {
        Fake::of("guide-002/route-as-printed").admission("as-printed", printed)
    }

    fn saying(status: &str) -> Value {
        object_saying(&[("Accepted", status, "")])
    }

    fn backend(accepted: &str) -> Fake {
        Fake::of("guide-002/service-backend-corrected").object("backend", saying(accepted))
    }

    fn routes(accepted: &str, resolved: &str) -> Fake {
        let generated = parents_saying(&[("Accepted", "True", ""), ("ResolvedRefs", resolved, "")]);
        Fake::of("guide-002/route-corrected").object("ai-route", saying(accepted)).object("http-route", generated)
    }

    fn gateway_class(before: &str, after: &str, admission: Option<Admission>) -> Fake {
        let fake = Fake::of("guide-002/gateway-class").admission("gateway", admission);
        fake.object("without-class", saying(before)).object("with-class", saying(after))
    }

    fn service_name(name: &str) -> Fake {
        Fake::of("guide-002/service-name").object("service", json!({"metadata": {"name": name}}))
    }

    fn inference_service(ready: &str, port: u64) -> Fake {
        Fake::of("guide-002/inference-service")
            .object("inference-service", object_saying(&[("Ready", ready, "")]))
            .object("service", json!({"spec": {"ports": [{"port": port}]}}))
    }

    fn reference_grant(grant: Option<Admission>, with: &str) -> Fake {
        let fake = Fake::of("guide-002/reference-grant").model("alpha").model("beta").admission("grant", grant);
        fake.answered("without-grant", 200, "alpha").answered("with-grant", 200, with)
    }

    fn reply(model: &str, tokens: [u64; 3], pod: &str) -> Fake {
        let choices = json!([{"message": {"content": "a poem"}}]);
        let body = json!({"model": model, "object": "chat.completion", "choices": choices, "usage": usage(tokens)});
        Fake::of("guide-002/chat-completion").answer("as-printed", 200, &[("x-inference-pod", pod)], &body.to_string())
    }

    const HEADER: &str = "guide-002/ratelimited-header";

    #[rstest]
    #[case::service_backend_as_printed_both(as_printed(refusal(TIMEOUTS), refusal(NO_SERVICE)), Yes)]
    #[case::service_backend_as_printed_accepted(as_printed(refusal(TIMEOUTS), accepted()), No)]
    #[case::service_backend_as_printed_other_words(as_printed(refusal("webhook is down"), refusal(NO_SERVICE)), No)]
    #[case::service_backend_as_printed_not_offered(as_printed(refusal(TIMEOUTS), None), Unproven)]
    #[case::route_as_printed_both_fields(route_as_printed(refusal(&format!("{SCHEMA}, {TARGETS}"))), Yes)]
    #[case::route_as_printed_one_field(route_as_printed(refusal(SCHEMA)), No)]
    #[case::route_as_printed_accepted(route_as_printed(accepted()), No)]
    #[case::route_as_printed_not_offered(route_as_printed(None), Unproven)]
    #[case::service_backend_corrected_said(backend("True"), Yes)]
    #[case::service_backend_corrected_denied(backend("False"), No)]
    #[case::route_corrected_said(routes("True", "True"), Yes)]
    #[case::route_corrected_denied(routes("False", "False"), No)]
    #[case::gateway_class_as_it_should(gateway_class("Unknown", "True", accepted()), Yes)]
    #[case::gateway_class_accepted_without_class(gateway_class("True", "True", accepted()), No)]
    #[case::gateway_class_never_accepted(gateway_class("Unknown", "Unknown", accepted()), No)]
    #[case::gateway_class_refused(gateway_class("Unknown", "True", refusal("no")), No)]
    #[case::service_name_real(service_name("envoy-ns-envoy-ai-gateway-basic-1234abcd"), Yes)]
    #[case::service_name_printed(service_name("eg-envoy-ai-gateway"), No)]
    #[case::service_name_none(service_name(""), No)]
    #[case::inference_service_ready(inference_service("True", 80), Yes)]
    #[case::inference_service_not_ready(inference_service("False", 80), No)]
    #[case::inference_service_port(inference_service("True", 8080), No)]
    #[case::reference_grant_accepted(reference_grant(accepted(), "alpha"), Yes)]
    #[case::reference_grant_refused(reference_grant(refusal("no"), "alpha"), No)]
    #[case::reference_grant_elsewhere(reference_grant(accepted(), "beta"), No)]
    #[case::chat_completion_good(reply("llama3-1b", [9, 5, 14], "llama3-1b-predictor-x"), Yes)]
    #[case::chat_completion_sum(reply("llama3-1b", [9, 5, 15], "llama3-1b-predictor-x"), No)]
    #[case::chat_completion_other_model(reply("other", [9, 5, 14], "llama3-1b-predictor-x"), No)]
    #[case::chat_completion_other_pod(reply("llama3-1b", [9, 5, 14], "somebody-x"), No)]
    #[case::chat_completion_no_reply(Fake::of("guide-002/chat-completion"), Unproven)]
    #[case::chat_completion_refused(Fake::of("guide-002/chat-completion").refused("as-printed", 404), No)]
    #[case::token_limit_as_declared(hour("guide-002/token-limit", 6, 4), Yes)]
    #[case::token_limit_too_few(hour("guide-002/token-limit", 5, 5), No)]
    #[case::token_limit_never_refused(hour("guide-002/token-limit", 10, 0), No)]
    #[case::ratelimited_header_absent(hour(HEADER, 1, 1), Yes)]
    #[case::ratelimited_header_present(hour(HEADER, 1, 0).answer("spend", 429, &[("x-envoy-ratelimited", "true")], ""), No)]
    #[case::ratelimited_header_nothing_refused(hour(HEADER, 1, 0), Unproven)]
    fn judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(fake.verdict(), holds);
    }
}
