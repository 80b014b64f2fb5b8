//! Guide 000, step by step: KServe InferenceService behind agentgateway, as printed where that works, and each of its
//! defects as a check of its own.
//!
//! KServe attaches its routes to one Gateway of the cluster: here that is the shared one. The Gateway that the guide makes
//! for it is made as printed in the stage's namespace, and only looked at.

use anyhow::Result;
use serde_json::{Value, json};
use suites::{
    CHECK, Call, Check, Judge, Live, Model, ObjectRef, Stage, Until,
    budget::{self, Budget, Limited},
    chat, check, condition, judge, object, parents_say,
};
use verdict::{
    capability,
    history::{Exchange, History},
    observation::Observer,
};

const MODEL: &str = "mock-llm";
const GATEWAY: &str = "kserve-ingress-gateway";
const HEADERS: [&str; 2] = ["x-requested-model", "x-actual-model"];

const GUIDE: Check =
    Check { capability: Some(capability::GUIDE_000), model: None, gateways: &["agentgateway"], ..CHECK };

/// The guide's manifests, with the names of a stage where the guide's own would be shared with others.
pub mod printed {
    use super::*;

    /// Step 4.2 under a name; nothing pulls its image here.
    pub fn inference_service(stage: &Stage, name: &str) -> Result<Value> {
        let [mut service] = stage.printed("guide-000/inference-service")?;
        service["metadata"]["name"] = json!(name);
        service["spec"]["predictor"]["containers"][0]["image"] = json!("igc.invalid/never-run");
        Ok(service)
    }

    /// Step 5.1: the model's Service as an AI provider, asked on this path.
    pub fn backend(stage: &Stage, path: &str) -> Result<Value> {
        let [mut backend] = stage.printed("guide-000/backend")?;
        let provider = &mut backend["spec"]["ai"]["provider"];
        provider["host"] = json!(format!("{MODEL}-predictor.{}.svc.cluster.local", stage.namespace()));
        provider["path"] = json!(path);
        Ok(backend)
    }

    /// Step 5.2: the second route, on the hostname of KServe's own.
    pub fn second_route(stage: &Stage, hostname: &str) -> Result<Value> {
        let [mut route] = stage.printed("guide-000/route")?;
        let gateway = stage.shared_gateway();
        let spec = &mut route["spec"];
        spec["parentRefs"][0]["name"] = json!(gateway.name);
        spec["parentRefs"][0]["namespace"] = json!(gateway.namespace);
        spec["hostnames"] = json!([hostname]);
        spec["rules"][0]["backendRefs"][0]["namespace"] = json!(stage.namespace());
        Ok(route)
    }

    /// Step 7.1: so many tokens a minute on a route, with what else `traffic` says.
    pub fn token_policy(stage: &Stage, route: &str, tokens: u64, more: Value) -> Result<Value> {
        let [mut policy] = stage.printed("guide-000/token-budget")?;
        policy["spec"]["targetRefs"][0]["name"] = json!(route);
        let traffic = &mut policy["spec"]["traffic"];
        traffic["rateLimit"]["local"][0]["tokens"] = json!(tokens);
        if let (Some(traffic), Value::Object(more)) = (traffic.as_object_mut(), more) {
            traffic.extend(more);
        }
        Ok(policy)
    }
}

/// Until every Gateway that a policy applies to says this condition, true or false.
pub fn ancestors_say(kind: &str) -> Until {
    let wanted = kind.to_owned();
    Until::holds(&format!("{kind} said by every ancestor"), move |policy| {
        let ancestors = policy["status"]["ancestors"].as_array().cloned().unwrap_or_default();
        let says = |ancestor: &Value| judge::condition(&ancestor["conditions"], &wanted).is_some();
        Ok(!ancestors.is_empty() && ancestors.iter().all(says))
    })
}

/// Offers a policy and keeps it as it then stands, called `policy`.
pub async fn apply_policy(stage: &mut Stage, manifest: Value) -> Result<()> {
    let name = manifest["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    stage.offer("policy", &manifest).await?;
    let policy = object("agentgateway.dev/v1alpha1", "AgentgatewayPolicy", stage.namespace(), &name);
    stage.see("policy", &policy, ancestors_say("Attached"), 60).await?;
    let gateway = stage.shared_gateway();
    stage.fact("gateway", json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": gateway.name, "namespace": gateway.namespace}));
    Ok(())
}

/// Steps 4 and 5: the model, the second route and its backend, live. A request that names another model shows that: on
/// KServe's route the model refuses it, on the second route the backend's own name replaces it.
pub async fn second_route_live(stage: &mut Stage, model: &Model, path: &str) -> Result<()> {
    let (backend, route) = (printed::backend(stage, path)?, printed::second_route(stage, &model.host)?);
    stage.offer("backend", &backend).await?;
    stage.offer("route", &route).await?;
    let backend = object("agentgateway.dev/v1alpha1", "AgentgatewayBackend", stage.namespace(), "mock-llm-backend");
    stage.see("backend", &backend, condition("Accepted"), 60).await?;
    let route = object("gateway.networking.k8s.io/v1", "HTTPRoute", stage.namespace(), "mock-llm-ai");
    stage.see("route", &route, parents_say("ResolvedRefs"), 60).await?;
    stage.settle(|| chat("a-name-of-the-client").host(&model.host), MODEL).await
}

/// The policy says Accepted and Attached for its generation, and the first ancestor, which the guide's command shows, is the
/// Gateway.
pub fn attached(judge: &mut Judge<'_>) {
    let policy = judge.object("policy");
    judge.accepted("policy-is-taken", "policy");
    let (gateway, first) = (judge.history().facts.get("gateway"), &policy["status"]["ancestors"][0]["ancestorRef"]);
    let statement = judge.clause("ancestor");
    match gateway {
        Some(gateway) => {
            statement.expected(format!("first ancestor {gateway}")).got(first.to_string()).holds(first == gateway);
        }
        None => statement.expected("the policy and its Gateway").unproven("it was not looked at"),
    }
    judge.condition("policy-Accepted", policy, "Accepted", "True");
    judge.condition("policy-Attached", policy, "Attached", "True");
}

check!(
    guide_000 / cert_manager,
    drive_cert_manager,
    judge_cert_manager,
    Check {
        sentence: "every Deployment of cert-manager becomes Available",
        source: "guide 000, step 1",
        how: "Waits for the three Deployments in the namespace cert-manager and reads their conditions.",
        kills: &["never-available"],
        about: &["cert-manager"],
        live: Live::NotJudged,
        ..GUIDE
    }
);

/// What `kubectl wait deployment --all -n cert-manager` waits for.
const CERT_MANAGER: [&str; 3] = ["cert-manager", "cert-manager-cainjector", "cert-manager-webhook"];

async fn drive_cert_manager(stage: &mut Stage) -> Result<()> {
    for name in CERT_MANAGER {
        stage.see(name, &object("apps/v1", "Deployment", "cert-manager", name), condition("Available"), 120).await?;
    }
    Ok(())
}

fn judge_cert_manager(judge: &mut Judge<'_>) {
    for name in CERT_MANAGER {
        judge.is_true(name, judge.object(name), "Available");
    }
}

check!(
    guide_000 / gateway,
    gateway_of_the_guide,
    judge_gateway,
    Check {
        sentence: "the Gateway as printed is Accepted and Programmed, and its Service and proxy are named like it and carry its label",
        source: "guide 000, step 2",
        how: "Applies the Gateway in the stage's namespace; looks at the conditions of it and its class, and at the Service and the \
              Deployment of its name.",
        kills: &["forgets-infrastructure-labels"],
        live: Live::NotJudged,
        ..GUIDE
    }
);

/// Step 2: the Gateway as printed, and what it makes.
async fn gateway_of_the_guide(stage: &mut Stage) -> Result<()> {
    let class = ObjectRef::global("gateway.networking.k8s.io/v1", "GatewayClass", "agentgateway");
    stage.see("class", &class, condition("Accepted"), 30).await?;
    let [manifest] = stage.printed("guide-000/gateway")?;
    stage.offer("gateway", &manifest).await?;
    let namespace = stage.namespace().to_owned();
    let gateway = object("gateway.networking.k8s.io/v1", "Gateway", &namespace, GATEWAY);
    stage.see("gateway", &gateway, Until::GatewayProgrammed, 60).await?;
    stage.see("service", &object("v1", "Service", &namespace, GATEWAY), Until::Exists, 30).await?;
    stage.see("proxy", &object("apps/v1", "Deployment", &namespace, GATEWAY), Until::DeploymentAvailable, 120).await?;
    stage.look("printed-service", &object("v1", "Service", &namespace, "agentgateway-proxy")).await
}

fn judge_gateway(judge: &mut Judge<'_>) {
    let (gateway, proxy) = (judge.object("gateway"), judge.object("proxy"));
    judge.accepted("gateway-is-taken", "gateway");
    judge.condition("class-Accepted", judge.object("class"), "Accepted", "True");
    judge.condition("gateway-Accepted", gateway, "Accepted", "True");
    judge.condition("gateway-Programmed", gateway, "Programmed", "True");
    for (clause, made) in [("service", judge.object("service")), ("proxy", proxy)] {
        let label = &made["metadata"]["labels"]["serving.kserve.io/gateway"];
        let statement = judge.clause(clause).expected(format!("named like the Gateway, with its label {GATEWAY}"));
        statement.got(format!("label {label}")).holds(label == GATEWAY);
    }
    judge.is_true("proxy-available", proxy, "Available");
}

check!(
    guide_000 / service_ports,
    gateway_of_the_guide,
    judge_service_ports,
    Check {
        sentence: "guide prints ports 80 and 443; correct is 80 alone, because the Gateway has one listener",
        source: "guide 000, step 2.3, example output",
        how: "Applies the guide's Gateway and reads the ports of its Service.",
        kills: &["opens-port-443"],
        live: Live::NotJudged,
        observe: observe_ports,
        ..GUIDE
    }
);

fn ports(service: &Value) -> Vec<u64> {
    service["spec"]["ports"].as_array().into_iter().flatten().filter_map(|port| port["port"].as_u64()).collect()
}

fn observe_ports(history: &History) -> Value {
    json!({"ports": history.objects.get("service").map(ports).unwrap_or_default()})
}

fn judge_service_ports(judge: &mut Judge<'_>) {
    let ports = ports(judge.object("service"));
    let statement = judge.clause("ports").expected("port 80 alone, though the guide prints 80 and 443");
    statement.got(format!("{ports:?}")).holds(ports == [80]);
}

check!(
    guide_000 / service_name,
    gateway_of_the_guide,
    judge_service_name,
    Check {
        sentence: "guide asks for the Service agentgateway-proxy; correct is kserve-ingress-gateway, because Services are named like \
                   their Gateway",
        source: "guide 000, steps 4b.1, 6.1 and 7.3; agentgateway/website#798",
        how: "Applies the guide's Gateway and looks for Services of both names beside it.",
        kills: &["names-services-otherwise"],
        live: Live::NotJudged,
        observe: observe_names,
        ..GUIDE
    }
);

fn observe_names(history: &History) -> Value {
    let there = |name: &str| history.objects.get(name).is_some_and(|o| !o.is_null());
    json!({"agentgateway-proxy": there("printed-service"), GATEWAY: there("service")})
}

fn judge_service_name(judge: &mut Judge<'_>) {
    let objects = &judge.history().objects;
    let words = |there: bool| if there { "it is there" } else { "absent" };
    let there = objects.contains_key("service");
    judge.clause(GATEWAY).expected("the Service is named like the Gateway").got(words(there)).holds(there);
    let statement = judge.clause("agentgateway-proxy").expected("no such Service, though the guide asks for it");
    match objects.get("printed-service") {
        Some(printed) => statement.got(words(!printed.is_null())).holds(printed.is_null()),
        None => statement.unproven("nobody looked"),
    }
}

check!(
    guide_000 / kserve_webhook,
    drive_kserve_webhook,
    judge_kserve_webhook,
    Check {
        sentence: "KServe's webhook answers, takes the InferenceService as printed, and refuses one with a name that only it refuses",
        source: "guide 000, steps 3 and 4.2; KServe v0.17 InferenceService validation",
        how: "Offers the InferenceService as printed, and one whose name begins with a digit, without storing them; looks at what the \
              API server says.",
        kills: &["skips-webhooks"],
        live: Live::NotJudged,
        ..GUIDE
    }
);

async fn drive_kserve_webhook(stage: &mut Stage) -> Result<()> {
    let good = printed::inference_service(stage, MODEL)?;
    stage.offer_dry("as-printed", &good).await?;
    let bad = printed::inference_service(stage, "0-mock-llm")?; // Kubernetes would take this name, KServe's webhook does not
    stage.offer_dry("bad-name", &bad).await
}

fn judge_kserve_webhook(judge: &mut Judge<'_>) {
    judge.accepted("as-printed-is-taken", "as-printed");
    judge.not_accepted("webhook-answers", "bad-name", &["inferenceservice.kserve-webhook-server.validator", "denied"]);
}

check!(
    guide_000 / inference_service,
    drive_inference_service,
    judge_inference_service,
    Check {
        sentence: "the InferenceService becomes Ready, with both routes on the Gateway under the hostnames that the guide says",
        source: "guide 000, steps 4.3 and 4b.1",
        how: "Applies the InferenceService with a model of the run; looks at its condition Ready and at the hostnames and conditions \
              of the routes that KServe makes.",
        kills: &["forgets-predictor-route"],
        live: Live::NotJudged,
        ..GUIDE
    }
);

const PREDICTOR: &str = "mock-llm-predictor";

async fn drive_inference_service(stage: &mut Stage) -> Result<()> {
    stage.apply_model(MODEL).await?;
    let namespace = stage.namespace().to_owned();
    let service = object("serving.kserve.io/v1beta1", "InferenceService", &namespace, MODEL);
    stage.see("inference-service", &service, condition("Ready"), 180).await?;
    for name in [MODEL, PREDICTOR] {
        let route = object("gateway.networking.k8s.io/v1", "HTTPRoute", &namespace, name);
        stage.see(name, &route, parents_say("ResolvedRefs"), 60).await?;
    }
    Ok(())
}

fn judge_inference_service(judge: &mut Judge<'_>) {
    judge.is_true("ready", judge.object("inference-service"), "Ready");
    for (name, hostname, accepted, resolved) in [
        (MODEL, "mock-llm-hostname", "mock-llm-Accepted", "mock-llm-ResolvedRefs"),
        (PREDICTOR, "mock-llm-predictor-hostname", "mock-llm-predictor-Accepted", "mock-llm-predictor-ResolvedRefs"),
    ] {
        let route = judge.object(name);
        let (wanted, got) = (format!("{name}-{}.example.com", judge.history().namespace), &route["spec"]["hostnames"]);
        let holds = *got == json!([wanted]);
        judge.clause(hostname).expected(wanted).got(got.to_string()).holds(holds);
        judge.condition(accepted, route, "Accepted", "True");
        judge.condition(resolved, route, "ResolvedRefs", "True");
    }
}

fn transformed(exchange: &Exchange) -> [Option<&str>; 2] {
    HEADERS.map(|name| exchange.response()?.header(name))
}

/// Every answer of the label is 200 and has both headers, with this value, or neither.
fn judge_headers(
    judge: &mut Judge<'_>,
    label: &str,
    status: &'static str,
    headers: &'static str,
    wanted: Option<&str>,
) {
    judge.status(status, label, 200);
    let [requested, actual] = HEADERS;
    let expected = wanted.map_or(format!("neither {requested} nor {actual}"), |w| format!("both headers say {w}"));
    judge.every(headers, label, &expected, |exchange| {
        let got = transformed(exchange);
        (got != [wanted, wanted]).then(|| format!("{got:?}"))
    });
}

fn observe_headers(history: &History) -> Value {
    Observer::new(history).with_values_of(&HEADERS).all()
}

check!(
    guide_000 / transformation,
    drive_transformation,
    judge_transformation,
    Check {
        sentence: "without the transformation policy a reply has no header of its own, with it both say the model",
        source: "guide 000, steps 4b.2 to 4b.4",
        how: "Sends a chat over KServe's route before the policy and after it; looks at the policy's status and at both headers of \
              the replies.",
        kills: &["accepted-without-effect"],
        observe: observe_headers,
        ..GUIDE
    }
);

/// Steps 4 and 4b: the model behind KServe's route, without and with the transformation, which is live at the end.
async fn transformation_live(stage: &mut Stage) -> Result<Model> {
    let model = stage.model(MODEL).await?;
    let call = || chat(MODEL).host(&model.host);
    stage.settle(call, MODEL).await?;
    stage.send("before", call()).await;
    let [policy] = stage.printed("guide-000/transformation")?;
    apply_policy(stage, policy).await?;
    stage.settle_when(call, |exchange| transformed(exchange) == [Some(MODEL); 2]).await?;
    Ok(model)
}

async fn drive_transformation(stage: &mut Stage) -> Result<()> {
    let model = transformation_live(stage).await?;
    stage.send("after", chat(MODEL).host(&model.host)).await;
    Ok(())
}

fn judge_transformation(judge: &mut Judge<'_>) {
    attached(judge);
    judge_headers(judge, "before", "before-status", "before-headers", None);
    judge_headers(judge, "after", "after-status", "after-headers", Some(MODEL));
}

check!(
    guide_000 / second_route,
    drive_second_route,
    judge_second_route,
    Check {
        sentence: "the AgentgatewayBackend is Accepted, and the second route wins for /v1/chat/completions and for nothing else",
        source: "guide 000, step 5",
        how: "Sends a chat and a request on another path to KServe's hostname; KServe's route sets a header that the model records, \
              the second route does not.",
        model: Some("echo"),
        kills: &["regex-always-wins"],
        ..GUIDE
    }
);

async fn drive_second_route(stage: &mut Stage) -> Result<()> {
    let model = stage.model(MODEL).await?;
    second_route_live(stage, &model, "/v1/chat/completions").await?;
    stage.send("chat", chat(MODEL).host(&model.host)).await;
    stage.send("other-path", Call::get("/v1/models").host(&model.host)).await;
    Ok(())
}

pub fn judge_second_route_status(judge: &mut Judge<'_>) {
    let (backend, route) = (judge.object("backend"), judge.object("route"));
    judge.accepted("backend-is-taken", "backend");
    judge.accepted("route-is-taken", "route");
    judge.condition("backend-Accepted", backend, "Accepted", "True");
    judge.condition("route-Accepted", route, "Accepted", "True");
    judge.condition("route-ResolvedRefs", route, "ResolvedRefs", "True");
}

fn judge_second_route(judge: &mut Judge<'_>) {
    let history = judge.history();
    judge_second_route_status(judge);
    judge.answered_by("chat-answered-by-mock-llm", "chat", MODEL);
    judge.answered_by("other-path-answered-by-mock-llm", "other-path", MODEL);
    // KServe's route sets this header, the second one does not.
    judge.model_got("other-path-kserve-isvc-name", "other-path", "KServe-Isvc-Name", &[MODEL]);
    if judge.labelled("chat").into_iter().any(|chat| !history.reached(chat).is_empty()) {
        judge.model_got("second-route-wins", "chat", "KServe-Isvc-Name", &[]);
    } else {
        judge.clause("second-route-wins").expected("a record of the chat").unproven("there is none");
    }
}

check!(
    guide_000 / transformation_lost,
    drive_transformation_lost,
    judge_transformation_lost,
    Check {
        sentence: "guide keeps the transformation on KServe's route; on the path of the second route its headers are gone, because a \
                   policy belongs to a route",
        source: "guide 000, steps 4b and 5",
        how: "With the transformation live on KServe's route, adds the second route and sends a request over each; looks at the \
              headers of both replies.",
        kills: &["transformation-on-all-routes"],
        observe: observe_headers,
        ..GUIDE
    }
);

async fn drive_transformation_lost(stage: &mut Stage) -> Result<()> {
    let model = transformation_live(stage).await?;
    second_route_live(stage, &model, "/v1/chat/completions").await?;
    stage.send("on-the-second-route", chat(MODEL).host(&model.host)).await;
    let completion = Call::post("/v1/completions").host(&model.host).json(&json!({"model": MODEL, "prompt": "Hello"}));
    stage.send("on-kserves-route", completion).await;
    Ok(())
}

fn judge_transformation_lost(judge: &mut Judge<'_>) {
    attached(judge);
    let (status, headers) = ("on-the-second-route-status", "on-the-second-route-headers");
    judge_headers(judge, "on-the-second-route", status, headers, None);
    let (status, headers) = ("on-kserves-route-status", "on-kserves-route-headers");
    judge_headers(judge, "on-kserves-route", status, headers, Some(MODEL));
}

check!(
    guide_000 / chat_completion,
    drive_chat_completion,
    judge_chat_completion,
    Check {
        sentence: "the test request, with a Host header, is answered as printed, with 6 tokens of prompt and 1 of completion",
        source: "guide 000, step 6.2",
        how: "Sends the guide's chat over the second route; compares what the guide prints with the fields of the reply.",
        kills: &["drops-usage-of-replies"],
        ..GUIDE
    }
);

async fn drive_chat_completion(stage: &mut Stage) -> Result<()> {
    let model = stage.model(MODEL).await?;
    second_route_live(stage, &model, "/v1/chat/completions").await?;
    stage.send("with-host", chat(MODEL).host(&model.host)).await;
    Ok(())
}

fn judge_chat_completion(judge: &mut Judge<'_>) {
    judge.status("with-host-status", "with-host", 200);
    for (clause, pointer, wanted) in [
        ("model", "/model", json!(MODEL)),
        ("object", "/object", json!("chat.completion")),
        ("prompt-tokens", "/usage/prompt_tokens", json!(6)),
        ("completion-tokens", "/usage/completion_tokens", json!(1)),
        ("total-tokens", "/usage/total_tokens", json!(7)),
        ("reply", "/choices/0/message", json!({"role": "assistant", "content": "Hello"})),
        ("finish-reason", "/choices/0/finish_reason", json!("stop")),
    ] {
        judge.every(clause, "with-host", &wanted.to_string(), |exchange| {
            let body = exchange.response().and_then(|r| r.json()).unwrap_or_default();
            let got = body.pointer(pointer).unwrap_or(&Value::Null);
            (*got != wanted).then(|| got.to_string())
        });
    }
}

check!(
    guide_000 / request_without_host,
    drive_request_without_host,
    judge_request_without_host,
    Check {
        sentence: "guide sends no Host and prints 200s and 429s; correct is 404 for each, because the routes have a hostname",
        source: "guide 000, steps 6.2 and 7.4",
        how: "Sends the test request and the loop with the Gateway's address as Host, as curl does; looks at status and body of the \
              answers and at the model's records.",
        model: Some("echo"),
        kills: &["ignores-host"],
        ..GUIDE
    }
);

const LOOP: usize = 30;

async fn drive_request_without_host(stage: &mut Stage) -> Result<()> {
    let model = stage.model(MODEL).await?;
    second_route_live(stage, &model, "/v1/chat/completions").await?;
    let address = stage.address().to_owned(); // what curl sends as Host where it is told none
    stage.send("step-6", chat(MODEL).host(&address)).await;
    for _ in 0..LOOP {
        stage.send("step-7", chat(MODEL).host(&address)).await;
    }
    Ok(())
}

fn judge_request_without_host(judge: &mut Judge<'_>) {
    judge.status("step-6-status", "step-6", 404);
    judge.body("step-6-says", "step-6", "route not found");
    judge.reached_nothing("step-6-reaches-nothing", "step-6");
    let sent = judge.labelled("step-7").len();
    if sent < LOOP {
        let statement = judge.clause("step-7").expected(format!("{LOOP} requests"));
        return statement.unproven(format!("{sent} were sent"));
    }
    judge.status("step-7-status", "step-7", 404);
    judge.body("step-7-says", "step-7", "route not found");
    judge.reached_nothing("step-7-reaches-nothing", "step-7");
}

check!(
    guide_000 / token_policy,
    drive_token_policy,
    judge_token_policy,
    Check {
        sentence: "the token policy is Accepted and Attached, and the Gateway is the first ancestor of its status",
        source: "guide 000, step 7.2",
        how: "Applies the policy to the second route and reads its status, as the guide's command does.",
        kills: &["status-of-another-ancestor"],
        live: Live::NotJudged,
        ..GUIDE
    }
);

async fn drive_token_policy(stage: &mut Stage) -> Result<()> {
    let model = stage.model(MODEL).await?;
    second_route_live(stage, &model, "/v1/chat/completions").await?;
    let policy = printed::token_policy(stage, "mock-llm-ai", 70, json!({}))?;
    apply_policy(stage, policy).await
}

fn judge_token_policy(judge: &mut Judge<'_>) {
    attached(judge);
}

/// Steps 4, 5 and 7: `tokens` a minute on the second route, spent and live.
pub async fn budget_live(stage: &mut Stage, model: &Model, path: &str, tokens: u64) -> Result<Limited> {
    second_route_live(stage, model, path).await?;
    let policy = printed::token_policy(stage, "mock-llm-ai", tokens, json!({}))?;
    apply_policy(stage, policy).await?;
    let limited = Limited { host: model.host.clone(), model: MODEL.to_owned(), pods: MODEL.to_owned() };
    budget::settle_on(stage, &limited).await?;
    Ok(limited)
}

check!(
    guide_000 / token_budget,
    drive_token_budget,
    judge_token_budget,
    Check {
        sentence: "of 30 requests in one window 10 are answered with 200 and the rest with 429",
        source: "guide 000, step 7.4",
        how: "Sends the guide's loop over the second route in the first seconds of a minute; looks at the statuses in order and at \
              the model's records of what was admitted.",
        capability: Some(capability::TOKEN_LIMIT),
        kills: &["off-by-one-limit"],
        observe: budget::observe,
        ..GUIDE
    }
);

async fn drive_token_budget(stage: &mut Stage) -> Result<()> {
    let model = stage.model(MODEL).await?;
    let limited = budget_live(stage, &model, "/v1/chat/completions", 70).await?;
    run_loop(stage, &limited).await
}

/// Step 7.4: the guide's loop, in one window.
pub async fn run_loop(stage: &mut Stage, limited: &Limited) -> Result<()> {
    budget::in_one_window_of(stage, limited, 60, &["loop"], async |stage, _| {
        for _ in 0..LOOP {
            budget::charged(stage).await;
            stage.send("loop", chat(MODEL).host(&limited.host)).await;
        }
        Ok(())
    })
    .await
}

/// The loop's answers are so many 200s and then 429s, in one window, by the declared rule and as the guide prints.
pub fn judge_loop(judge: &mut Judge<'_>, tokens: u64, admitted: usize) {
    if let Some(budget) = Budget::of_window(judge, "loop", tokens, 60) {
        budget.judge_one_window(judge);
        budget.judge_admitted(judge);
        budget.judge_spent(judge);
    }
    let statuses: Vec<Option<u16>> = judge.labelled("loop").into_iter().map(Exchange::status).collect();
    let statement = judge.clause("as-printed").expected(format!("{admitted} times 200, then 429"));
    if statuses.len() < LOOP {
        return statement.unproven(format!("{} of {LOOP} answers", statuses.len()));
    }
    let times = |wanted: u16| statuses.iter().filter(|status| **status == Some(wanted)).count();
    let (replies, refusals) = statuses.split_at(admitted);
    let as_printed = replies.iter().all(|s| *s == Some(200)) && refusals.iter().all(|s| *s == Some(429));
    statement.got(format!("{} times 200, {} times 429", times(200), times(429))).holds(as_printed);
}

fn judge_token_budget(judge: &mut Judge<'_>) {
    judge_loop(judge, 70, 10);
}

check!(
    guide_000 / total_tokens,
    drive_total_tokens,
    judge_total_tokens,
    Check {
        sentence: "guide says that usage.total_tokens is counted; correct is prompt_tokens + completion_tokens, whatever the total says",
        source: "guide 000, step 7; agentgateway v1.3.1 crates/agentgateway/src/llm/mod.rs",
        how: "Under a limit of 14 tokens sends four chats whose replies say 6 + 1 tokens and a total of 70; two have to be admitted.",
        capability: Some(capability::TOKEN_LIMIT),
        kills: &["charges-other-field"],
        observe: budget::observe,
        ..GUIDE
    }
);

async fn drive_total_tokens(stage: &mut Stage) -> Result<()> {
    let model = stage.model(MODEL).await?;
    let limited = budget_live(stage, &model, "/v1/chat/completions", 14).await?;
    budget::in_one_window_of(stage, &limited, 60, &["total-of-70"], async |stage, _| {
        for _ in 0..4 {
            budget::charged(stage).await;
            let call = chat(MODEL).host(&limited.host);
            stage.send("total-of-70", call.header("x-igc-usage", "prompt=6,completion=1,total=70")).await;
        }
        Ok(())
    })
    .await
}

fn judge_total_tokens(judge: &mut Judge<'_>) {
    let Some(budget) = Budget::of_window(judge, "total-of-70", 14, 60) else { return };
    budget.judge_one_window(judge);
    let sent = judge.labelled("total-of-70");
    let says_70 = |e: &&Exchange| e.response().and_then(|r| r.json()).is_some_and(|b| b["usage"]["total_tokens"] == 70);
    let (replies, rest) = sent.split_at(sent.iter().take_while(|e| e.status() == Some(200)).count());
    let statement = judge.clause("counted").expected(
        "14 tokens admit 2 replies of 6 + 1, though their total_tokens is 70 and the guide says that it is counted",
    );
    if sent.len() < 4 || !replies.iter().all(says_70) {
        return statement.unproven(format!("{} of {} replies, whose total is not 70", replies.len(), sent.len()));
    }
    let refused = rest.iter().all(|e| e.status() == Some(budget.declared.status));
    let then = if refused { "refusals" } else { "something else" };
    let got = format!("{} admitted, then {then}", replies.len());
    statement.got(got).shown_by(sent.iter().copied()).holds(replies.len() == 2 && refused);
}

pub mod judges {
    use rstest::rstest;
    use suites::fake::{CONTROLLER, Fake, conditions, shared_token_limit};
    use verdict::{history::Admission, judge::Holds};

    use super::*;

    fn fine() -> Option<Admission> {
        Some(Admission::Accepted { warnings: vec![] })
    }

    fn refusal(message: &str) -> Option<Admission> {
        Some(Admission::Refused { code: 403, reason: "Forbidden".into(), message: message.into() })
    }

    fn deployment(available: &str) -> Value {
        json!({"status": {"conditions": [{"type": "Available", "status": available}]}})
    }

    #[rstest]
    #[case::all(&["True", "True", "True"], Holds::Yes)]
    #[case::one_is_not(&["True", "False", "True"], Holds::No)]
    #[case::one_is_missing(&["True", "True"], Holds::No)]
    fn cert_manager_is_judged(#[case] available: &[&str], #[case] holds: Holds) {
        let fake =
            CERT_MANAGER.iter().zip(available).fold(Fake::of("guide-000/cert-manager"), |fake, (name, available)| {
                fake.object(name, deployment(available))
            });
        assert_eq!(fake.verdict(), holds);
    }

    /// A Gateway of generation 2 with its class, Service and proxy.
    fn standing(programmed: &str, observed: u64, label: &str, proxy: &str) -> Fake {
        let said = |all: &[(&str, &str, &str)]| json!({"metadata": {"generation": 2}, "status": {"conditions": conditions(observed, all)}});
        let labelled = json!({"labels": {"serving.kserve.io/gateway": label}});
        let mut deployment = deployment(proxy);
        deployment["metadata"] = labelled.clone();
        Fake::of("guide-000/gateway")
            .admission("gateway", fine())
            .object("class", json!({"metadata": {"generation": 1}, "status": {"conditions": conditions(1, &[("Accepted", "True", "")])}}))
            .object("gateway", said(&[("Accepted", "True", ""), ("Programmed", programmed, "")]))
            .object("service", json!({"metadata": labelled, "spec": {"ports": [{"port": 80}]}}))
            .object("proxy", deployment)
    }

    #[rstest]
    #[case::good(standing("True", 2, GATEWAY, "True"), Holds::Yes)]
    #[case::not_programmed(standing("False", 2, GATEWAY, "True"), Holds::No)]
    #[case::stale(standing("True", 1, GATEWAY, "True"), Holds::No)]
    #[case::without_the_label(standing("True", 2, "", "True"), Holds::No)]
    #[case::proxy_never_up(standing("True", 2, GATEWAY, "False"), Holds::No)]
    #[case::no_service(standing("True", 2, GATEWAY, "True").without_object("service"), Holds::No)]
    #[case::refused(standing("True", 2, GATEWAY, "True").admission("gateway", refusal("no")), Holds::No)]
    fn gateway_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(fake.verdict(), holds);
    }

    #[rstest]
    #[case::one(json!([{"port": 80}]), Holds::Yes)]
    #[case::as_printed(json!([{"port": 80}, {"port": 443}]), Holds::No)]
    #[case::none(Value::Null, Holds::No)]
    fn service_ports_are_judged(#[case] ports: Value, #[case] holds: Holds) {
        let fake = Fake::of("guide-000/service-ports").object("service", json!({"spec": {"ports": ports}}));
        assert_eq!(fake.verdict(), holds);
    }

    /// The guide's Gateway has a Service of its name, and there is none of the name that the guide asks for.
    fn services() -> Fake {
        let service = json!({"kind": "Service"});
        Fake::of("guide-000/service-name").object("service", service).object("printed-service", Value::Null)
    }

    #[rstest]
    #[case::as_it_is(services(), Holds::Yes)]
    #[case::as_printed(services().object("printed-service", json!({"kind": "Service"})), Holds::No)]
    #[case::no_service_at_all(services().without_object("service"), Holds::No)]
    #[case::nobody_looked(services().without_object("printed-service"), Holds::Unproven)]
    fn service_name_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(fake.verdict(), holds);
    }

    const DENIED: &str =
        "admission webhook \"inferenceservice.kserve-webhook-server.validator\" denied the request: no";

    #[rstest]
    #[case::answers(fine(), refusal(DENIED), Holds::Yes)]
    #[case::not_asked(fine(), fine(), Holds::No)]
    #[case::down(
        fine(),
        refusal("failed calling webhook \"inferenceservice.kserve-webhook-server.validator\": no endpoints available"),
        Holds::No
    )]
    #[case::printed_is_refused(refusal(DENIED), refusal(DENIED), Holds::No)]
    #[case::not_offered(fine(), None, Holds::Unproven)]
    fn kserve_webhook_is_judged(#[case] good: Option<Admission>, #[case] bad: Option<Admission>, #[case] holds: Holds) {
        let fake = Fake::of("guide-000/kserve-webhook").admission("as-printed", good).admission("bad-name", bad);
        assert_eq!(fake.verdict(), holds);
    }

    fn route(hostname: &str, resolved: &str) -> Value {
        let said = conditions(1, &[("Accepted", "True", ""), ("ResolvedRefs", resolved, "")]);
        json!({"metadata": {"generation": 1}, "spec": {"hostnames": [hostname]}, "status": {"parents": [{"controllerName": CONTROLLER, "conditions": said}]}})
    }

    fn served(ready: &str) -> Fake {
        Fake::of("guide-000/inference-service")
            .object("inference-service", json!({"status": {"conditions": [{"type": "Ready", "status": ready}]}}))
            .object(MODEL, route("mock-llm-ns.example.com", "True"))
            .object("mock-llm-predictor", route("mock-llm-predictor-ns.example.com", "True"))
    }

    #[rstest]
    #[case::good(served("True"), Holds::Yes)]
    #[case::not_ready(served("False"), Holds::No)]
    #[case::other_hostname(served("True").object(MODEL, route("mock-llm.example.com", "True")), Holds::No)]
    #[case::unresolved(served("True").object(MODEL, route("mock-llm-ns.example.com", "False")), Holds::No)]
    #[case::one_route(served("True").without_object("mock-llm-predictor"), Holds::No)]
    fn inference_service_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(fake.verdict(), holds);
    }

    fn a_policy(ancestor: &str, attached: &str) -> Value {
        let said = conditions(1, &[("Accepted", "True", "Valid"), ("Attached", attached, "Attached")]);
        json!({"metadata": {"generation": 1}, "status": {"ancestors": [{"ancestorRef": {"name": ancestor}, "controllerName": CONTROLLER, "conditions": said}]}})
    }

    fn with_policy(check: &str, policy: Value) -> Fake {
        Fake::of(check).admission("policy", fine()).object("policy", policy).fact("gateway", json!({"name": "igc"}))
    }

    #[rstest]
    #[case::attached(with_policy("guide-000/token-policy", a_policy("igc", "True")), Holds::Yes)]
    #[case::pending(with_policy("guide-000/token-policy", a_policy("igc", "False")), Holds::No)]
    #[case::summary_first(with_policy("guide-000/token-policy", a_policy("StatusSummary", "True")), Holds::No)]
    #[case::no_status(with_policy("guide-000/token-policy", json!({})), Holds::No)]
    #[case::refused(with_policy("guide-000/token-policy", a_policy("igc", "True")).admission("policy", refusal("no")), Holds::No)]
    #[case::nothing(Fake::of("guide-000/token-policy"), Holds::No)]
    fn token_policy_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(fake.verdict(), holds);
    }

    const BOTH: &[(&str, &str)] = &[("x-requested-model", MODEL), ("x-actual-model", MODEL)];

    fn answers(check: &str, first: (&str, &[(&str, &str)]), second: (&str, &[(&str, &str)])) -> Fake {
        with_policy(check, a_policy("igc", "True"))
            .answer(first.0, 200, first.1, "{}")
            .answer(second.0, 200, second.1, "{}")
    }

    #[rstest]
    #[case::good(&[], BOTH, Holds::Yes)]
    #[case::there_before(BOTH, BOTH, Holds::No)]
    #[case::never_there(&[], &[], Holds::No)]
    #[case::one_of_two(&[], &BOTH[..1], Holds::No)]
    #[case::other_value(&[], &[("x-requested-model", "x"), ("x-actual-model", MODEL)], Holds::No)]
    fn transformation_is_judged(#[case] before: &[(&str, &str)], #[case] after: &[(&str, &str)], #[case] holds: Holds) {
        let fake = answers("guide-000/transformation", ("before", before), ("after", after));
        assert_eq!(fake.verdict(), holds);
        assert_eq!(fake.unsettled().verdict(), Holds::No);
    }

    #[rstest]
    #[case::lost_there_alone(&[], BOTH, Holds::Yes)]
    #[case::kept(BOTH, BOTH, Holds::No)]
    #[case::lost_everywhere(&[], &[], Holds::No)]
    fn transformation_lost_is_judged(
        #[case] second: &[(&str, &str)],
        #[case] first: &[(&str, &str)],
        #[case] holds: Holds,
    ) {
        let fake =
            answers("guide-000/transformation-lost", ("on-the-second-route", second), ("on-kserves-route", first));
        assert_eq!(fake.verdict(), holds);
    }

    const OF_KSERVE: &[(&str, &str)] = &[("KServe-Isvc-Name", MODEL)];

    fn routed(on_chat: &[(&str, &str)], on_other: &[(&str, &str)]) -> Fake {
        let backend = json!({"metadata": {"generation": 1}, "status": {"conditions": conditions(1, &[("Accepted", "True", "Accepted")])}});
        Fake::of("guide-000/second-route")
            .admission("backend", fine())
            .admission("route", fine())
            .object("backend", backend)
            .object("route", route("mock-llm-ns.example.com", "True"))
            .model(MODEL)
            .answered("chat", 200, MODEL)
            .with_model_headers(on_chat)
            .answered("other-path", 200, MODEL)
            .with_model_headers(on_other)
    }

    #[rstest]
    #[case::wins(routed(&[], OF_KSERVE), Holds::Yes)]
    #[case::loses(routed(OF_KSERVE, OF_KSERVE), Holds::No)]
    #[case::takes_everything(routed(&[], &[]), Holds::No)]
    #[case::not_accepted(routed(&[], OF_KSERVE).object("backend", json!({})), Holds::No)]
    #[case::no_records(routed(&[], OF_KSERVE).without_marker(MODEL), Holds::Yes)]
    #[case::nothing_sent(Fake::of("guide-000/second-route"), Holds::No)]
    fn second_route_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(fake.verdict(), holds);
    }

    fn reply(usage: [u64; 3], content: &str) -> Fake {
        let usage = json!({"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": usage[2]});
        let choice = json!({"finish_reason": "stop", "message": {"role": "assistant", "content": content}});
        let body = json!({"model": MODEL, "object": "chat.completion", "choices": [choice], "usage": usage});
        Fake::of("guide-000/chat-completion").answer("with-host", 200, &[], &body.to_string())
    }

    #[rstest]
    #[case::as_printed(reply([6, 1, 7], "Hello"), Holds::Yes)]
    #[case::other_usage(reply([6, 1, 8], "Hello"), Holds::No)]
    #[case::other_reply(reply([6, 1, 7], "Bye"), Holds::No)]
    #[case::refused(Fake::of("guide-000/chat-completion").refused("with-host", 404), Holds::No)]
    #[case::nothing(Fake::of("guide-000/chat-completion"), Holds::Unproven)]
    fn chat_completion_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(fake.verdict(), holds);
    }

    fn without_host(times: usize, status: u16, body: &str) -> Fake {
        let fake = Fake::of("guide-000/request-without-host").model(MODEL);
        let fake = fake.refused_with("step-6", 404, "text/plain", "route not found");
        (0..times).fold(fake, |fake, _| fake.refused_with("step-7", status, "text/plain", body))
    }

    #[rstest]
    #[case::not_found(without_host(30, 404, "route not found"), Holds::Yes)]
    #[case::other_words(without_host(30, 404, "no such model"), Holds::No)]
    #[case::too_few(without_host(29, 404, "route not found"), Holds::Unproven)]
    #[case::served(without_host(30, 404, "route not found").answered("step-7", 200, MODEL), Holds::No)]
    #[case::reached(without_host(30, 404, "route not found").also_reached(MODEL), Holds::No)]
    fn request_without_host_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(fake.verdict(), holds);
    }

    /// A budget that all share, marked in refusals alone: so many recorded replies, then refusals.
    pub fn looped(tokens: u64, admitted: usize, refused: usize) -> Fake {
        let fake = Fake::of("guide-000/token-budget").declares(shared_token_limit()).model(MODEL);
        let fake = (0..admitted).fold(fake, |fake, _| fake.unmarked("loop", 200).also_reached(MODEL));
        (0..refused).fold(fake, |fake, _| fake.limited("loop", tokens, 0, 50))
    }

    #[rstest]
    #[case::as_printed(looped(70, 10, 20), Holds::Yes)]
    #[case::one_more(looped(70, 11, 19), Holds::No)]
    #[case::one_less(looped(70, 9, 21), Holds::No)]
    #[case::never_refused(looped(70, 30, 0), Holds::No)]
    #[case::cut_short(looped(70, 10, 5), Holds::Unproven)]
    #[case::records_not_whole(looped(70, 10, 20).without_marker(MODEL), Holds::Unproven)]
    #[case::one_was_never_at_the_model(looped(70, 9, 0).unmarked("loop", 200).limited("loop", 70, 0, 50), Holds::No)]
    fn token_budget_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(fake.verdict(), holds);
    }

    fn totals(admitted: usize, total: u64) -> Fake {
        let fake = Fake::of("guide-000/total-tokens").declares(shared_token_limit());
        let body = json!({"usage": {"prompt_tokens": 6, "completion_tokens": 1, "total_tokens": total}}).to_string();
        let fake = (0..admitted).fold(fake, |fake, _| fake.answer("total-of-70", 200, &[], &body));
        (admitted..4).fold(fake, |fake, _| fake.limited("total-of-70", 14, 0, 50))
    }

    #[rstest]
    #[case::the_sum(totals(2, 70), Holds::Yes)]
    #[case::the_total(totals(1, 70), Holds::No)]
    #[case::nothing(totals(4, 70), Holds::No)]
    #[case::the_model_said_otherwise(totals(2, 7), Holds::Unproven)]
    #[case::not_sent(Fake::of("guide-000/total-tokens"), Holds::Unproven)]
    fn total_tokens_are_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(fake.verdict(), holds);
    }
}
