//! Guide 000, step by step: KServe InferenceService behind agentgateway, as printed where that works, and each of its
//! defects as a check of its own.
//!
//! KServe attaches its routes to one Gateway of the cluster: here that is the shared one. The Gateway that the guide makes
//! for it is made as printed in the stage's namespace, and only looked at.

use std::path::PathBuf;

use anyhow::Result;
use rstest::rstest;
use serde_json::{Value, json};
use suites::{
    Call, Model, ObjectRef, Stage, Until,
    budget::{self, Budget, Limited},
    chat, check, condition, object, parents_say, proof,
};
use verdict::{
    history::{Admission, Exchange, History},
    judge::Judgement,
};

/// The guide's model, and its InferenceService.
const MODEL: &str = "mock-llm";
/// The guide's Gateway.
const GATEWAY: &str = "kserve-ingress-gateway";
/// The headers that the guide's transformation sets.
const HEADERS: [&str; 2] = ["x-requested-model", "x-actual-model"];

/// The guide's manifests, with the names of a stage where the guide's own would be shared with others.
pub mod printed {
    use super::*;

    /// Step 4.2 but for its image, which nothing pulls here, under a name.
    pub fn inference_service(stage: &Stage, name: &str) -> Value {
        let container = json!({
            "name": "kserve-container", "image": "igc.invalid/never-run",
            "args": ["--model", MODEL, "--port", "8080", "--mode", "echo"],
            "ports": [{"containerPort": 8080, "protocol": "TCP"}],
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "500m", "memory": "256Mi"}},
        });
        json!({
            "apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService",
            "metadata": {"name": name, "namespace": stage.namespace()},
            "spec": {"predictor": {"containers": [container]}},
        })
    }

    /// Step 5.1: the model's Service as an AI provider, asked on this path.
    pub fn backend(stage: &Stage, path: &str) -> Value {
        let host = format!("{MODEL}-predictor.{}.svc.cluster.local", stage.namespace());
        json!({
            "apiVersion": "agentgateway.dev/v1alpha1", "kind": "AgentgatewayBackend",
            "metadata": {"name": "mock-llm-backend", "namespace": stage.namespace()},
            "spec": {"ai": {"provider": {"openai": {"model": MODEL}, "host": host, "port": 80, "path": path}}},
        })
    }

    /// Step 5.2: the second route, on the hostname of KServe's own.
    pub fn second_route(stage: &Stage, hostname: &str) -> Value {
        let gateway = stage.shared_gateway();
        let backend = json!({
            "name": "mock-llm-backend", "namespace": stage.namespace(),
            "group": "agentgateway.dev", "kind": "AgentgatewayBackend",
        });
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": "mock-llm-ai", "namespace": stage.namespace()},
            "spec": {
                "parentRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": gateway.name, "namespace": gateway.namespace}],
                "hostnames": [hostname],
                "rules": [{
                    "matches": [{"path": {"type": "PathPrefix", "value": "/v1/chat/completions"}}],
                    "backendRefs": [backend],
                }],
            },
        })
    }

    /// Step 7.1: so many tokens a minute on a route, with what else `traffic` says.
    pub fn token_policy(stage: &Stage, route: &str, tokens: u64, more: Value) -> Value {
        let mut traffic = json!({"rateLimit": {"local": [{"tokens": tokens, "unit": "Minutes"}]}});
        if let (Some(traffic), Value::Object(more)) = (traffic.as_object_mut(), more) {
            traffic.extend(more);
        }
        policy(stage, "llm-token-budget", route, traffic)
    }

    /// Step 4b.3: headers of the reply out of request and response.
    pub fn transformation(stage: &Stage) -> Value {
        let header =
            |name: &str, from: &str| json!({"name": name, "value": format!("string(json({from}.body).model)")});
        let set = [header(HEADERS[0], "request"), header(HEADERS[1], "response")];
        policy(stage, "model-echo-headers", MODEL, json!({"transformation": {"response": {"set": set}}}))
    }

    fn policy(stage: &Stage, name: &str, route: &str, traffic: Value) -> Value {
        json!({
            "apiVersion": "agentgateway.dev/v1alpha1", "kind": "AgentgatewayPolicy",
            "metadata": {"name": name, "namespace": stage.namespace()},
            "spec": {
                "targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": route}],
                "traffic": traffic,
            },
        })
    }

    /// The guide's Gateway.
    pub fn gateway(stage: &Stage) -> Value {
        let listener =
            json!({"name": "http", "protocol": "HTTP", "port": 80, "allowedRoutes": {"namespaces": {"from": "All"}}});
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
            "metadata": {"name": GATEWAY, "namespace": stage.namespace()},
            "spec": {
                "gatewayClassName": "agentgateway", "listeners": [listener],
                "infrastructure": {"labels": {"serving.kserve.io/gateway": GATEWAY}},
            },
        })
    }
}

/// Until every Gateway that a policy applies to says this condition, true or false.
pub fn ancestors_say(kind: &str) -> Until {
    let wanted = kind.to_owned();
    Until::holds(&format!("{kind} said by every ancestor"), move |policy| {
        let ancestors = policy["status"]["ancestors"].as_array().cloned().unwrap_or_default();
        let says = |ancestor: &Value| proof::condition_status(&ancestor["conditions"], &wanted).is_some();
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
    let (backend, route) = (printed::backend(stage, path), printed::second_route(stage, &model.host));
    stage.offer("backend", &backend).await?;
    stage.offer("route", &route).await?;
    let backend = object("agentgateway.dev/v1alpha1", "AgentgatewayBackend", stage.namespace(), "mock-llm-backend");
    stage.see("backend", &backend, condition("Accepted"), 60).await?;
    let route = object("gateway.networking.k8s.io/v1", "HTTPRoute", stage.namespace(), "mock-llm-ai");
    stage.see("route", &route, parents_say("ResolvedRefs"), 60).await?;
    stage.settle(|| chat(&model.host, "a-name-of-the-client"), MODEL).await
}

/// The manifest was accepted.
pub fn accepted(judgement: &mut Judgement, history: &History, name: &str) {
    let clause = format!("{name}-is-taken");
    match history.admissions.get(name) {
        Some(Admission::Accepted { .. }) => judgement.that(&clause, true, "accepted", "accepted", []),
        Some(Admission::Refused { message, .. }) => judgement.that(&clause, false, "accepted", message.clone(), []),
        None => judgement.unproven(&clause, "accepted", "it was not offered"),
    };
}

/// The policy says Accepted and Attached for its generation, of the Gateway and as the first that the guide's command shows.
pub fn attached(judgement: &mut Judgement, history: &History) {
    accepted(judgement, history, "policy");
    let policy = history.objects.get("policy").cloned().unwrap_or_default();
    let first = &policy["status"]["ancestors"][0];
    match history.facts.get("gateway") {
        Some(gateway) => {
            let got = &first["ancestorRef"];
            judgement.that("ancestor", got == gateway, format!("first ancestor {gateway}"), got.to_string(), []);
        }
        None => _ = judgement.unproven("ancestor", "the policy and its Gateway", "it was not looked at"),
    }
    for kind in ["Accepted", "Attached"] {
        proof::condition(judgement, &format!("policy-{kind}"), &policy, &first["conditions"], kind, "True");
    }
}

#[rstest]
#[tokio::test]
async fn cert_manager(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("guide-000/cert-manager", "-", &folder).run(drive_cert_manager, judge_cert_manager).await;
}

/// What `kubectl wait deployment --all -n cert-manager` waits for.
const CERT_MANAGER: [&str; 3] = ["cert-manager", "cert-manager-cainjector", "cert-manager-webhook"];

async fn drive_cert_manager(stage: &mut Stage) -> Result<()> {
    for name in CERT_MANAGER {
        stage.see(name, &object("apps/v1", "Deployment", "cert-manager", name), condition("Available"), 120).await?;
    }
    Ok(())
}

fn judge_cert_manager(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    for name in CERT_MANAGER {
        let conditions = history.objects.get(name).map(|o| o["status"]["conditions"].clone()).unwrap_or_default();
        let available = proof::condition_status(&conditions, "Available").unwrap_or("absent");
        judgement.that(name, available == "True", "Available is True", available, []);
    }
    judgement
}

/// Step 2: the Gateway as printed, and what it makes.
async fn gateway_of_the_guide(stage: &mut Stage) -> Result<()> {
    let class = ObjectRef::global("gateway.networking.k8s.io/v1", "GatewayClass", "agentgateway");
    stage.see("class", &class, condition("Accepted"), 30).await?;
    let manifest = printed::gateway(stage);
    stage.offer("gateway", &manifest).await?;
    let namespace = stage.namespace().to_owned();
    let gateway = object("gateway.networking.k8s.io/v1", "Gateway", &namespace, GATEWAY);
    stage.see("gateway", &gateway, Until::GatewayProgrammed, 60).await?;
    stage.see("service", &object("v1", "Service", &namespace, GATEWAY), Until::Exists, 30).await?;
    stage.see("proxy", &object("apps/v1", "Deployment", &namespace, GATEWAY), Until::DeploymentAvailable, 120).await?;
    stage.look("printed-service", &object("v1", "Service", &namespace, "agentgateway-proxy")).await
}

#[rstest]
#[tokio::test]
async fn gateway(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("guide-000/gateway", "-", &folder).run(gateway_of_the_guide, judge_gateway).await;
}

fn judge_gateway(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    accepted(&mut judgement, history, "gateway");
    let seen = |name: &str| history.objects.get(name).cloned().unwrap_or_default();
    let (class, gateway) = (seen("class"), seen("gateway"));
    proof::condition(&mut judgement, "class-Accepted", &class, &class["status"]["conditions"], "Accepted", "True");
    for kind in ["Accepted", "Programmed"] {
        let conditions = &gateway["status"]["conditions"];
        proof::condition(&mut judgement, &format!("gateway-{kind}"), &gateway, conditions, kind, "True");
    }
    for name in ["service", "proxy"] {
        let labels = &seen(name)["metadata"]["labels"];
        let label = &labels["serving.kserve.io/gateway"];
        let expected = format!("named like the Gateway, with its label {GATEWAY}");
        judgement.that(name, label == GATEWAY, expected, format!("label {label}"), []);
    }
    let available =
        proof::condition_status(&seen("proxy")["status"]["conditions"], "Available").unwrap_or("absent").to_owned();
    judgement.that("proxy-available", available == "True", "its Deployment is Available", available, []);
    judgement
}

#[rstest]
#[tokio::test]
async fn service_ports(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("guide-000/service-ports", "-", &folder)
        .observing(observe_ports)
        .run(gateway_of_the_guide, judge_service_ports)
        .await;
}

fn ports(history: &History) -> Vec<u64> {
    let service = history.objects.get("service").cloned().unwrap_or_default();
    let ports = service["spec"]["ports"].as_array().cloned().unwrap_or_default();
    ports.iter().filter_map(|p| p["port"].as_u64()).collect()
}

fn observe_ports(history: &History) -> Value {
    json!({"ports": ports(history)})
}

fn judge_service_ports(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    let ports = ports(history);
    judgement.that(
        "ports",
        ports == [80],
        "port 80 alone, though the guide prints 80 and 443",
        format!("{ports:?}"),
        [],
    );
    judgement
}

#[rstest]
#[tokio::test]
async fn service_name(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("guide-000/service-name", "-", &folder)
        .observing(observe_names)
        .run(gateway_of_the_guide, judge_service_name)
        .await;
}

fn observe_names(history: &History) -> Value {
    let there = |name: &str| history.objects.get(name).is_some_and(|o| !o.is_null());
    json!({"agentgateway-proxy": there("printed-service"), GATEWAY: there("service")})
}

fn judge_service_name(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    let there = history.objects.contains_key("service");
    judgement.that(GATEWAY, there, "the Service is named like the Gateway", if there { "it is" } else { "absent" }, []);
    match history.objects.get("printed-service") {
        Some(printed) => {
            let got = if printed.is_null() { "absent" } else { "it is there" };
            judgement.that(
                "agentgateway-proxy",
                printed.is_null(),
                "no Service agentgateway-proxy, though the guide asks for it",
                got,
                [],
            )
        }
        None => judgement.unproven("agentgateway-proxy", "a look for it", "nobody looked"),
    };
    judgement
}

#[rstest]
#[tokio::test]
async fn kserve_webhook(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("guide-000/kserve-webhook", "-", &folder).run(drive_kserve_webhook, judge_kserve_webhook).await;
}

async fn drive_kserve_webhook(stage: &mut Stage) -> Result<()> {
    let good = printed::inference_service(stage, MODEL);
    stage.offer_dry("as-printed", &good).await?;
    let bad = printed::inference_service(stage, "0-mock-llm"); // Kubernetes would take this name, KServe's webhook does not
    stage.offer_dry("bad-name", &bad).await
}

fn judge_kserve_webhook(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    accepted(&mut judgement, history, "as-printed");
    let expected = "refused by inferenceservice.kserve-webhook-server.validator";
    match history.admissions.get("bad-name") {
        Some(Admission::Refused { message, .. }) => {
            let by_kserve =
                message.contains("inferenceservice.kserve-webhook-server.validator") && message.contains("denied");
            judgement.that("webhook-answers", by_kserve, expected, message.clone(), [])
        }
        Some(Admission::Accepted { .. }) => judgement.that("webhook-answers", false, expected, "accepted", []),
        None => judgement.unproven("webhook-answers", expected, "it was not offered"),
    };
    judgement
}

#[rstest]
#[tokio::test]
async fn inference_service(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("guide-000/inference-service", "-", &folder).run(drive_inference_service, judge_inference_service).await;
}

async fn drive_inference_service(stage: &mut Stage) -> Result<()> {
    stage.apply_model(MODEL).await?;
    let namespace = stage.namespace().to_owned();
    let service = object("serving.kserve.io/v1beta1", "InferenceService", &namespace, MODEL);
    stage.see("inference-service", &service, condition("Ready"), 180).await?;
    for name in [MODEL, "mock-llm-predictor"] {
        let route = object("gateway.networking.k8s.io/v1", "HTTPRoute", &namespace, name);
        stage.see(name, &route, parents_say("ResolvedRefs"), 60).await?;
    }
    Ok(())
}

fn judge_inference_service(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    let service = history.objects.get("inference-service").cloned().unwrap_or_default();
    let ready = proof::condition_status(&service["status"]["conditions"], "Ready").unwrap_or("absent");
    judgement.that("ready", ready == "True", "Ready within 180 s", ready, []);
    for name in [MODEL, "mock-llm-predictor"] {
        let route = history.objects.get(name).cloned().unwrap_or_default();
        let hostname = format!("{name}-{}.example.com", history.namespace);
        let got = &route["spec"]["hostnames"];
        judgement.that(&format!("{name}-hostname"), *got == json!([hostname]), hostname, got.to_string(), []);
        let conditions = &route["status"]["parents"][0]["conditions"];
        for kind in ["Accepted", "ResolvedRefs"] {
            proof::condition(&mut judgement, &format!("{name}-{kind}"), &route, conditions, kind, "True");
        }
    }
    judgement
}

/// The values of the transformation's headers.
fn transformed(exchange: &Exchange) -> [Option<String>; 2] {
    HEADERS.map(|name| exchange.response().and_then(|r| r.header(name)).map(str::to_owned))
}

/// Whether both headers say the model.
fn is_transformed(exchange: &Exchange) -> bool {
    transformed(exchange).iter().all(|value| value.as_deref() == Some(MODEL))
}

/// Every answer of the label is 200 and has both headers, or neither.
fn judge_headers(judgement: &mut Judgement, history: &History, label: &str, wanted: Option<&str>) {
    proof::status(judgement, history, label, Some(200));
    let expected =
        wanted.map_or(format!("neither {} nor {}", HEADERS[0], HEADERS[1]), |w| format!("both headers say {w}"));
    let Some(exchange) = history.labelled(label).next() else {
        judgement.unproven(&format!("{label}-headers"), expected, "no answer");
        return;
    };
    let got = transformed(exchange);
    let holds = got.iter().all(|value| value.as_deref() == wanted);
    judgement.that(&format!("{label}-headers"), holds, expected, format!("{got:?}"), [exchange]);
}

fn observe_headers(history: &History) -> Value {
    verdict::observation::Observer::new(history).with_values_of(&HEADERS).all()
}

#[rstest]
#[tokio::test]
async fn transformation(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("guide-000/transformation", "-", &folder)
        .observing(observe_headers)
        .run(drive_transformation, judge_transformation)
        .await;
}

/// Steps 4 and 4b: the model behind KServe's route, without and with the transformation, which is live at the end.
async fn transformation_live(stage: &mut Stage) -> Result<Model> {
    let model = stage.model(MODEL).await?;
    stage.settle(|| chat(&model.host, MODEL), MODEL).await?;
    stage.send("before", chat(&model.host, MODEL)).await;
    let policy = printed::transformation(stage);
    apply_policy(stage, policy).await?;
    stage.settle_when(|| chat(&model.host, MODEL), is_transformed).await?;
    Ok(model)
}

async fn drive_transformation(stage: &mut Stage) -> Result<()> {
    let model = transformation_live(stage).await?;
    stage.send("after", chat(&model.host, MODEL)).await;
    Ok(())
}

fn judge_transformation(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    attached(&mut judgement, history);
    judge_headers(&mut judgement, history, "before", None);
    judge_headers(&mut judgement, history, "after", Some(MODEL));
    judgement
}

#[rstest]
#[tokio::test]
async fn second_route(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("guide-000/second-route", "-", &folder).run(drive_second_route, judge_second_route).await;
}

async fn drive_second_route(stage: &mut Stage) -> Result<()> {
    let model = stage.model(MODEL).await?;
    second_route_live(stage, &model, "/v1/chat/completions").await?;
    stage.begin().await?;
    stage.send("chat", chat(&model.host, MODEL)).await;
    stage.send("other-path", Call::get("/v1/models").host(&model.host)).await;
    stage.end().await
}

/// Backend and route are Accepted, and the route's references resolved.
pub fn judge_second_route_status(judgement: &mut Judgement, history: &History) {
    let seen = |name: &str| history.objects.get(name).cloned().unwrap_or_default();
    let (backend, route) = (seen("backend"), seen("route"));
    for name in ["backend", "route"] {
        accepted(judgement, history, name);
    }
    proof::condition(judgement, "backend-Accepted", &backend, &backend["status"]["conditions"], "Accepted", "True");
    for kind in ["Accepted", "ResolvedRefs"] {
        let conditions = &route["status"]["parents"][0]["conditions"];
        proof::condition(judgement, &format!("route-{kind}"), &route, conditions, kind, "True");
    }
}

fn judge_second_route(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    judge_second_route_status(&mut judgement, history);
    proof::answered_by(&mut judgement, history, "chat", MODEL);
    proof::answered_by(&mut judgement, history, "other-path", MODEL);
    // KServe's route sets this header, the second one does not.
    proof::model_got_header(&mut judgement, history, "other-path", "KServe-Isvc-Name", MODEL);
    let records: Vec<_> = history.labelled("chat").flat_map(|e| history.reached(e)).collect();
    let of_kserve = |name: &str| name.eq_ignore_ascii_case("KServe-Isvc-Name");
    let over_kserve = records.iter().filter(|(_, r)| r.headers.iter().any(|(n, _)| of_kserve(n))).count();
    let got = format!("{over_kserve} of {} records have KServe's header", records.len());
    match records.is_empty() {
        true => judgement.unproven("second-route-wins", "a record of the chat", got),
        false => judgement.that("second-route-wins", over_kserve == 0, "the chat comes over the second route", got, []),
    };
    judgement
}

#[rstest]
#[tokio::test]
async fn transformation_lost(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("guide-000/transformation-lost", "-", &folder)
        .observing(observe_headers)
        .run(drive_transformation_lost, judge_transformation_lost)
        .await;
}

async fn drive_transformation_lost(stage: &mut Stage) -> Result<()> {
    let model = transformation_live(stage).await?;
    second_route_live(stage, &model, "/v1/chat/completions").await?;
    stage.send("on-the-second-route", chat(&model.host, MODEL)).await;
    let completion = Call::post("/v1/completions").host(&model.host).json(&json!({"model": MODEL, "prompt": "Hello"}));
    stage.send("on-kserves-route", completion).await;
    Ok(())
}

fn judge_transformation_lost(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    attached(&mut judgement, history);
    judge_headers(&mut judgement, history, "on-the-second-route", None);
    judge_headers(&mut judgement, history, "on-kserves-route", Some(MODEL));
    judgement
}

#[rstest]
#[tokio::test]
async fn chat_completion(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("guide-000/chat-completion", "-", &folder).run(drive_chat_completion, judge_chat_completion).await;
}

async fn drive_chat_completion(stage: &mut Stage) -> Result<()> {
    let model = stage.model(MODEL).await?;
    second_route_live(stage, &model, "/v1/chat/completions").await?;
    stage.send("with-host", chat(&model.host, MODEL)).await;
    Ok(())
}

fn judge_chat_completion(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    proof::status(&mut judgement, history, "with-host", Some(200));
    let Some(exchange) = history.labelled("with-host").next() else { return judgement };
    let body = exchange.response().and_then(|r| r.json()).unwrap_or_default();
    let choice = &body["choices"][0];
    for (name, got, wanted) in [
        ("model", &body["model"], json!(MODEL)),
        ("object", &body["object"], json!("chat.completion")),
        ("prompt-tokens", &body["usage"]["prompt_tokens"], json!(6)),
        ("completion-tokens", &body["usage"]["completion_tokens"], json!(1)),
        ("total-tokens", &body["usage"]["total_tokens"], json!(7)),
        ("reply", &choice["message"], json!({"role": "assistant", "content": "Hello"})),
        ("finish-reason", &choice["finish_reason"], json!("stop")),
    ] {
        judgement.that(name, *got == wanted, wanted.to_string(), got.to_string(), [exchange]);
    }
    judgement
}

#[rstest]
#[tokio::test]
async fn request_without_host(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("guide-000/request-without-host", "-", &folder)
        .run(drive_request_without_host, judge_request_without_host)
        .await;
}

/// Requests of the guide's loop.
const LOOP: usize = 30;

async fn drive_request_without_host(stage: &mut Stage) -> Result<()> {
    let model = stage.model(MODEL).await?;
    second_route_live(stage, &model, "/v1/chat/completions").await?;
    let address = stage.address().to_owned(); // what curl sends as Host where it is told none
    stage.begin().await?;
    stage.send("step-6", chat(&address, MODEL)).await;
    for _ in 0..LOOP {
        stage.send("step-7", chat(&address, MODEL)).await;
    }
    stage.end().await
}

fn judge_request_without_host(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    for (label, times) in [("step-6", 1), ("step-7", LOOP)] {
        let sent: Vec<&Exchange> = history.labelled(label).collect();
        if sent.len() < times {
            judgement.unproven(label, format!("{times} requests"), format!("{} were sent", sent.len()));
            continue;
        }
        proof::status(&mut judgement, history, label, Some(404));
        let said = |e: &&Exchange| e.response().and_then(|r| r.body.text.as_deref()) == Some("route not found");
        let right = sent.iter().filter(|e| said(e)).count();
        let expected = "'route not found', though the guide prints 200s and 429s";
        judgement.that(
            &format!("{label}-says"),
            right == sent.len(),
            expected,
            format!("{right} of {}", sent.len()),
            sent.into_iter().take(3),
        );
        proof::reached_nothing(&mut judgement, history, label);
    }
    judgement
}

#[rstest]
#[tokio::test]
async fn token_policy(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("guide-000/token-policy", "-", &folder).run(drive_token_policy, judge_token_policy).await;
}

async fn drive_token_policy(stage: &mut Stage) -> Result<()> {
    let model = stage.model(MODEL).await?;
    second_route_live(stage, &model, "/v1/chat/completions").await?;
    let policy = printed::token_policy(stage, "mock-llm-ai", 70, json!({}));
    apply_policy(stage, policy).await
}

fn judge_token_policy(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    attached(&mut judgement, history);
    judgement
}

/// Steps 4, 5 and 7: `tokens` a minute on the second route, spent and live.
pub async fn budget_live(stage: &mut Stage, model: &Model, path: &str, tokens: u64) -> Result<Limited> {
    second_route_live(stage, model, path).await?;
    let policy = printed::token_policy(stage, "mock-llm-ai", tokens, json!({}));
    apply_policy(stage, policy).await?;
    let limited = Limited { host: model.host.clone(), model: MODEL.to_owned(), pods: MODEL.to_owned() };
    budget::settle_on(stage, &limited).await?;
    Ok(limited)
}

#[rstest]
#[tokio::test]
async fn token_budget(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("guide-000/token-budget", "-", &folder)
        .observing(budget::observe)
        .run(drive_token_budget, judge_token_budget)
        .await;
}

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
            stage.send("loop", chat(&limited.host, MODEL)).await;
        }
        Ok(())
    })
    .await
}

/// The loop's answers are so many 200s and then 429s, in one window, by the declared rule and as the guide prints.
pub fn judge_loop(judgement: &mut Judgement, history: &History, tokens: u64, admitted: usize) {
    proof::live(judgement, history);
    let budget = Budget::of_window(history, "loop", tokens, 60);
    budget.judge_one_window(judgement);
    budget.judge_admitted(judgement);
    budget.judge_spent(judgement);
    let statuses: Vec<Option<u16>> = history.labelled("loop").map(Exchange::status).collect();
    if statuses.len() < LOOP {
        judgement.unproven("as-printed", format!("{LOOP} answers"), format!("{} answers", statuses.len()));
        return;
    }
    let as_printed =
        statuses.iter().enumerate().all(|(at, status)| *status == Some(if at < admitted { 200 } else { 429 }));
    let (ok, refused) =
        (statuses.iter().filter(|s| **s == Some(200)).count(), statuses.iter().filter(|s| **s == Some(429)).count());
    judgement.that(
        "as-printed",
        as_printed,
        format!("{admitted} times 200, then 429"),
        format!("{ok} times 200, {refused} times 429"),
        [],
    );
}

fn judge_token_budget(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    judge_loop(&mut judgement, history, 70, 10);
    judgement
}

#[rstest]
#[tokio::test]
async fn total_tokens(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("guide-000/total-tokens", "-", &folder)
        .observing(budget::observe)
        .run(drive_total_tokens, judge_total_tokens)
        .await;
}

async fn drive_total_tokens(stage: &mut Stage) -> Result<()> {
    let model = stage.model(MODEL).await?;
    let limited = budget_live(stage, &model, "/v1/chat/completions", 14).await?;
    budget::in_one_window_of(stage, &limited, 60, &["total-of-70"], async |stage, _| {
        for _ in 0..4 {
            budget::charged(stage).await;
            let reply = chat(&limited.host, MODEL).header("x-igc-usage", "prompt=6,completion=1,total=70");
            stage.send("total-of-70", reply).await;
        }
        Ok(())
    })
    .await
}

fn judge_total_tokens(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    let budget = Budget::of_window(history, "total-of-70", 14, 60);
    budget.judge_one_window(&mut judgement);
    let sent: Vec<&Exchange> = history.labelled("total-of-70").collect();
    let says_70 = |e: &&Exchange| e.response().and_then(|r| r.json()).is_some_and(|b| b["usage"]["total_tokens"] == 70);
    let admitted = sent.iter().take_while(|e| e.status() == Some(200)).count();
    if sent.len() < 4 || !sent.iter().take(admitted).all(says_70) {
        judgement.unproven(
            "counted",
            "replies whose total is not the sum",
            format!("{admitted} of {} replies", sent.len()),
        );
        return judgement;
    }
    let refused = sent.iter().skip(admitted).all(|e| e.status() == Some(budget::refusal(history)));
    judgement.that(
        "counted",
        admitted == 2 && refused,
        "14 tokens admit 2 replies of 6 + 1, though their total_tokens is 70 and the guide says that it is counted",
        format!("{admitted} admitted, {}", if refused { "then refusals" } else { "then something else" }),
        sent,
    );
    judgement
}

pub mod judges {
    use rstest::rstest;
    use suites::fake::{Fake, conditions, verdict_of};
    use verdict::judge::Holds;

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
        assert_eq!(verdict_of(judge_cert_manager, &fake), holds);
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
            .object("printed-service", Value::Null)
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
        assert_eq!(verdict_of(judge_gateway, &fake), holds);
    }

    #[rstest]
    #[case::one(json!([{"port": 80}]), Holds::Yes)]
    #[case::as_printed(json!([{"port": 80}, {"port": 443}]), Holds::No)]
    #[case::none(Value::Null, Holds::No)]
    fn service_ports_are_judged(#[case] ports: Value, #[case] holds: Holds) {
        let fake = Fake::of("guide-000/service-ports").object("service", json!({"spec": {"ports": ports}}));
        assert_eq!(verdict_of(judge_service_ports, &fake), holds);
    }

    #[rstest]
    #[case::as_it_is(standing("True", 2, GATEWAY, "True"), Holds::Yes)]
    #[case::as_printed(standing("True", 2, GATEWAY, "True").object("printed-service", json!({"kind": "Service"})), Holds::No)]
    #[case::no_service_at_all(standing("True", 2, GATEWAY, "True").without_object("service"), Holds::No)]
    #[case::nobody_looked(standing("True", 2, GATEWAY, "True").without_object("printed-service"), Holds::Unproven)]
    fn service_name_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_service_name, &fake), holds);
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
        assert_eq!(verdict_of(judge_kserve_webhook, &fake), holds);
    }

    fn route(hostname: &str, resolved: &str) -> Value {
        let said = conditions(1, &[("Accepted", "True", ""), ("ResolvedRefs", resolved, "")]);
        json!({"metadata": {"generation": 1}, "spec": {"hostnames": [hostname]}, "status": {"parents": [{"conditions": said}]}})
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
        assert_eq!(verdict_of(judge_inference_service, &fake), holds);
    }

    fn a_policy(ancestor: &str, attached: &str) -> Value {
        let said = conditions(1, &[("Accepted", "True", "Valid"), ("Attached", attached, "Attached")]);
        json!({"metadata": {"generation": 1}, "status": {"ancestors": [{"ancestorRef": {"name": ancestor}, "conditions": said}]}})
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
        assert_eq!(verdict_of(judge_token_policy, &fake), holds);
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
        assert_eq!(verdict_of(judge_transformation, &fake), holds);
        assert_eq!(verdict_of(judge_transformation, &fake.unsettled()), Holds::No);
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
        assert_eq!(verdict_of(judge_transformation_lost, &fake), holds);
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
        assert_eq!(verdict_of(judge_second_route, &fake), holds);
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
        assert_eq!(verdict_of(judge_chat_completion, &fake), holds);
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
        assert_eq!(verdict_of(judge_request_without_host, &fake), holds);
    }

    /// A budget that all share, marked in refusals alone: so many recorded replies, then refusals.
    pub fn looped(tokens: u64, admitted: usize, refused: usize) -> Fake {
        let fake = Fake::of("guide-000/token-budget")
            .declares("block-when", json!("spent >= limit"))
            .declares("marks", json!("refusals"))
            .declares("mark", json!("x-ratelimit-limit"))
            .declares("status", json!(429))
            .model(MODEL);
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
        assert_eq!(verdict_of(judge_token_budget, &fake), holds);
    }

    fn totals(admitted: usize, total: u64) -> Fake {
        let fake = Fake::of("guide-000/total-tokens").declares("marks", json!("refusals"));
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
        assert_eq!(verdict_of(judge_total_tokens, &fake), holds);
    }
}
