//! Guide 000, step by step: KServe InferenceService behind agentgateway, as printed where that works, and each of its
//! defects as a check of its own.
//!
//! KServe attaches its routes to one Gateway of the cluster: here that is the shared one. The Gateway that the guide makes
//! for it is made as printed in the stage's namespace, and only looked at.

pub mod budget;

use anyhow::Result;
use serde_json::{Value, json};
use suites::{
    CHECK, Call, Check, Judge, Live, Model, ObjectRef, Stage, WaitCondition, ancestors_say, by_kserve, chat, check,
    condition, parents_say,
};
use verdict::{
    capability,
    change::{Change, Direction, Rule},
    history::{Exchange, History},
    observation::Observer,
};

const MODEL: &str = "mock-llm";
const GATEWAY: &str = "kserve-ingress-gateway";
const HEADERS: [&str; 2] = ["x-requested-model", "x-actual-model"];

/// What the policy of step 5.3 and KServe's own route change.
fn changes() -> Vec<Change> {
    [by_kserve(), HEADERS.map(|name| Change::header(Direction::Reply, name, Rule::Add, MODEL)).to_vec()].concat()
}

const GUIDE: Check =
    Check { capability: Some(capability::GUIDE_000), model: None, gateways: &["agentgateway"], changes, ..CHECK };
const STATUS: Check = Check { live: Live::NotJudged, ..GUIDE };

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

/// Offers a policy and keeps it as it then stands, called `policy`.
pub async fn apply_policy(stage: &mut Stage, manifest: Value) -> Result<()> {
    let name = manifest["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    stage.offer("policy", &manifest).await?;
    let policy = stage.object("agentgateway.dev/v1alpha1", "AgentgatewayPolicy", &name);
    stage.see("policy", &policy, ancestors_say("Attached"), 60).await?;
    let gateway = stage.shared_gateway();
    stage.fact("gateway", json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": gateway.name, "namespace": gateway.namespace}));
    Ok(())
}

/// Steps 4 and 5: the model, the second route and its backend, live: a request that names another model is refused on
/// KServe's route, and on the second route the backend's own name replaces that.
pub async fn second_route_live(stage: &mut Stage, model: &Model, path: &str) -> Result<()> {
    let (backend, route) = (printed::backend(stage, path)?, printed::second_route(stage, &model.host)?);
    stage.offer("backend", &backend).await?;
    stage.offer("route", &route).await?;
    let backend = stage.object("agentgateway.dev/v1alpha1", "AgentgatewayBackend", "mock-llm-backend");
    stage.see("backend", &backend, condition("Accepted"), 60).await?;
    stage.see("route", &stage.http_route("mock-llm-ai"), parents_say("ResolvedRefs"), 60).await?;
    stage.settle(|| chat("a-name-of-the-client").host(&model.host), MODEL).await
}

/// The policy is Accepted and Attached, and its first ancestor, which the guide's command shows, is the Gateway.
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
        ..STATUS
    }
);

/// What `kubectl wait deployment --all -n cert-manager` waits for.
const CERT_MANAGER: [&str; 3] = ["cert-manager", "cert-manager-cainjector", "cert-manager-webhook"];

async fn drive_cert_manager(stage: &mut Stage) -> Result<()> {
    for name in CERT_MANAGER {
        let deployment = ObjectRef::new("apps/v1", "Deployment", "cert-manager", name);
        stage.see(name, &deployment, condition("Available"), 120).await?;
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
        ..STATUS
    }
);

async fn gateway_of_the_guide(stage: &mut Stage) -> Result<()> {
    let class = ObjectRef::global("gateway.networking.k8s.io/v1", "GatewayClass", "agentgateway");
    stage.see("class", &class, condition("Accepted"), 30).await?;
    let [manifest] = stage.printed("guide-000/gateway")?;
    stage.offer("gateway", &manifest).await?;
    let gateway = stage.object("gateway.networking.k8s.io/v1", "Gateway", GATEWAY);
    stage.see("gateway", &gateway, WaitCondition::GatewayProgrammed, 60).await?;
    stage.see("service", &stage.object("v1", "Service", GATEWAY), WaitCondition::Exists, 30).await?;
    stage
        .see("proxy", &stage.object("apps/v1", "Deployment", GATEWAY), WaitCondition::DeploymentAvailable, 120)
        .await?;
    stage.look("printed-service", &stage.object("v1", "Service", "agentgateway-proxy")).await
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
        observe: observe_ports,
        ..STATUS
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
        observe: observe_names,
        ..STATUS
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
        ..STATUS
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
        ..STATUS
    }
);

const PREDICTOR: &str = "mock-llm-predictor";

async fn drive_inference_service(stage: &mut Stage) -> Result<()> {
    stage.see_model(MODEL).await?;
    for name in [MODEL, PREDICTOR] {
        stage.see(name, &stage.http_route(name), parents_say("ResolvedRefs"), 60).await?;
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
        judge.accepted_and_resolved([accepted, resolved], route);
    }
}

fn transformed(exchange: &Exchange) -> [Option<&str>; 2] {
    HEADERS.map(|name| exchange.response()?.header(name))
}

/// Every answer of the label is 200 and has both headers, with this value, or neither.
fn judge_headers(judge: &mut Judge<'_>, label: &str, [status, headers]: [&'static str; 2], wanted: Option<&str>) {
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
    stage.send("before", call()).await?;
    let [policy] = stage.printed("guide-000/transformation")?;
    apply_policy(stage, policy).await?;
    stage.settle_when(call, |exchange| transformed(exchange) == [Some(MODEL); 2]).await?;
    Ok(model)
}

async fn drive_transformation(stage: &mut Stage) -> Result<()> {
    let model = transformation_live(stage).await?;
    stage.send("after", chat(MODEL).host(&model.host)).await
}

fn judge_transformation(judge: &mut Judge<'_>) {
    attached(judge);
    judge_headers(judge, "before", ["before-status", "before-headers"], None);
    judge_headers(judge, "after", ["after-status", "after-headers"], Some(MODEL));
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
    stage.send("chat", chat(MODEL).host(&model.host)).await?;
    stage.send("other-path", Call::get("/v1/models").host(&model.host)).await
}

pub fn judge_second_route_status(judge: &mut Judge<'_>) {
    let (backend, route) = (judge.object("backend"), judge.object("route"));
    judge.accepted("backend-is-taken", "backend");
    judge.accepted("route-is-taken", "route");
    judge.condition("backend-Accepted", backend, "Accepted", "True");
    judge.accepted_and_resolved(["route-Accepted", "route-ResolvedRefs"], route);
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
    stage.send("on-the-second-route", chat(MODEL).host(&model.host)).await?;
    let completion = Call::post("/v1/completions").host(&model.host).json(&json!({"model": MODEL, "prompt": "Hello"}));
    stage.send("on-kserves-route", completion).await
}

fn judge_transformation_lost(judge: &mut Judge<'_>) {
    attached(judge);
    let clauses = ["on-the-second-route-status", "on-the-second-route-headers"];
    judge_headers(judge, "on-the-second-route", clauses, None);
    let clauses = ["on-kserves-route-status", "on-kserves-route-headers"];
    judge_headers(judge, "on-kserves-route", clauses, Some(MODEL));
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
    stage.send("with-host", chat(MODEL).host(&model.host)).await
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
    stage.send("step-6", chat(MODEL).host(&address)).await?;
    stage.send_in_turn(LOOP, &[("step-7", chat(MODEL).host(&address))]).await
}

fn judge_request_without_host(judge: &mut Judge<'_>) {
    judge.unserved(["step-6-status", "step-6-reaches-nothing"], "step-6", 404..=404);
    judge.body("step-6-says", "step-6", "route not found");
    let sent = judge.labelled("step-7").len();
    if sent < LOOP {
        return judge.clause("step-7").expected(format!("{LOOP} requests")).unproven(format!("{sent} were sent"));
    }
    judge.unserved(["step-7-status", "step-7-reaches-nothing"], "step-7", 404..=404);
    judge.body("step-7-says", "step-7", "route not found");
}

mod judges {
    use rstest::rstest;
    use suites::fake::{
        Fake, Holds, No, Unproven, Yes, accepted, conditions, object_saying, parents_saying, policy_saying, refusal,
        usage,
    };
    use verdict::history::Admission;

    use super::*;

    fn deployment(available: &str) -> Value {
        object_saying(&[("Available", available, "")])
    }

    fn cert_manager(available: &[&str]) -> Fake {
        let said = CERT_MANAGER.iter().zip(available);
        said.fold(Fake::of("guide-000/cert-manager"), |fake, (name, said)| fake.object(name, deployment(said)))
    }

    /// A Gateway of generation 2 with its class, Service and proxy.
    fn standing(programmed: &str, observed: u64, label: &str, proxy: &str) -> Fake {
        let said = |all: &[(&str, &str, &str)]| json!({"metadata": {"generation": 2}, "status": {"conditions": conditions(observed, all)}});
        let labelled = json!({"labels": {"serving.kserve.io/gateway": label}});
        let mut deployment = deployment(proxy);
        deployment["metadata"] = labelled.clone();
        Fake::of("guide-000/gateway")
            .admission("gateway", accepted())
            .object("class", object_saying(&[("Accepted", "True", "")]))
            .object("gateway", said(&[("Accepted", "True", ""), ("Programmed", programmed, "")]))
            .object("service", json!({"metadata": labelled, "spec": {"ports": [{"port": 80}]}}))
            .object("proxy", deployment)
    }

    fn service_ports(ports: Value) -> Fake {
        Fake::of("guide-000/service-ports").object("service", json!({"spec": {"ports": ports}}))
    }

    fn services() -> Fake {
        let service = json!({"kind": "Service"});
        Fake::of("guide-000/service-name").object("service", service).object("printed-service", Value::Null)
    }

    const DOWN: &str =
        "failed calling webhook \"inferenceservice.kserve-webhook-server.validator\": no endpoints available";
    const DENIED: &str =
        "admission webhook \"inferenceservice.kserve-webhook-server.validator\" denied the request: no";

    fn kserve_webhook(good: Option<Admission>, bad: Option<Admission>) -> Fake {
        Fake::of("guide-000/kserve-webhook").admission("as-printed", good).admission("bad-name", bad)
    }

    fn route(hostname: &str, resolved: &str) -> Value {
        let mut route = parents_saying(&[("Accepted", "True", ""), ("ResolvedRefs", resolved, "")]);
        route["spec"] = json!({"hostnames": [hostname]});
        route
    }

    fn served(ready: &str) -> Fake {
        Fake::of("guide-000/inference-service")
            .object("inference-service", object_saying(&[("Ready", ready, "")]))
            .object(MODEL, route("mock-llm-ns.example.com", "True"))
            .object("mock-llm-predictor", route("mock-llm-predictor-ns.example.com", "True"))
    }

    pub(super) fn a_policy(ancestor: &str, attached: &str) -> Value {
        policy_saying(ancestor, &[("Accepted", "True", "Valid"), ("Attached", attached, "Attached")])
    }

    pub(super) fn with_policy(check: &str, policy: Value) -> Fake {
        Fake::of(check).admission("policy", accepted()).object("policy", policy).fact("gateway", json!({"name": "igc"}))
    }

    const BOTH: &[(&str, &str)] = &[("x-requested-model", MODEL), ("x-actual-model", MODEL)];

    fn answers(check: &str, first: (&str, &[(&str, &str)]), second: (&str, &[(&str, &str)])) -> Fake {
        with_policy(check, a_policy("igc", "True"))
            .answer(first.0, 200, first.1, "{}")
            .answer(second.0, 200, second.1, "{}")
    }

    fn transformation(before: &[(&str, &str)], after: &[(&str, &str)]) -> Fake {
        answers("guide-000/transformation", ("before", before), ("after", after))
    }

    fn transformation_lost(second: &[(&str, &str)], first: &[(&str, &str)]) -> Fake {
        answers("guide-000/transformation-lost", ("on-the-second-route", second), ("on-kserves-route", first))
    }

    const OF_KSERVE: &[(&str, &str)] = &[("KServe-Isvc-Name", MODEL)];

    fn routed(on_chat: &[(&str, &str)], on_other: &[(&str, &str)]) -> Fake {
        Fake::of("guide-000/second-route")
            .admission("backend", accepted())
            .admission("route", accepted())
            .object("backend", object_saying(&[("Accepted", "True", "Accepted")]))
            .object("route", route("mock-llm-ns.example.com", "True"))
            .model(MODEL)
            .answered("chat", 200, MODEL)
            .with_model_headers(on_chat)
            .answered("other-path", 200, MODEL)
            .with_model_headers(on_other)
    }

    fn reply(tokens: [u64; 3], content: &str) -> Fake {
        let choice = json!({"finish_reason": "stop", "message": {"role": "assistant", "content": content}});
        let body = json!({"model": MODEL, "object": "chat.completion", "choices": [choice], "usage": usage(tokens)});
        Fake::of("guide-000/chat-completion").answer("with-host", 200, &[], &body.to_string())
    }

    fn without_host(times: usize, status: u16, body: &str) -> Fake {
        let fake = Fake::of("guide-000/request-without-host").model(MODEL);
        let fake = fake.refused_with("step-6", 404, "text/plain", "route not found");
        (0..times).fold(fake, |fake, _| fake.refused_with("step-7", status, "text/plain", body))
    }

    #[rstest]
    #[case::cert_manager_all(cert_manager(&["True", "True", "True"]), Yes)]
    #[case::cert_manager_one_is_not(cert_manager(&["True", "False", "True"]), No)]
    #[case::cert_manager_one_is_missing(cert_manager(&["True", "True"]), No)]
    #[case::gateway_good(standing("True", 2, GATEWAY, "True"), Yes)]
    #[case::gateway_not_programmed(standing("False", 2, GATEWAY, "True"), No)]
    #[case::gateway_stale(standing("True", 1, GATEWAY, "True"), No)]
    #[case::gateway_without_the_label(standing("True", 2, "", "True"), No)]
    #[case::gateway_proxy_never_up(standing("True", 2, GATEWAY, "False"), No)]
    #[case::gateway_no_service(standing("True", 2, GATEWAY, "True").without_object("service"), No)]
    #[case::gateway_refused(standing("True", 2, GATEWAY, "True").admission("gateway", refusal("no")), No)]
    #[case::service_ports_one(service_ports(json!([{"port": 80}])), Yes)]
    #[case::service_ports_as_printed(service_ports(json!([{"port": 80}, {"port": 443}])), No)]
    #[case::service_ports_none(service_ports(Value::Null), No)]
    #[case::service_name_as_it_is(services(), Yes)]
    #[case::service_name_as_printed(services().object("printed-service", json!({"kind": "Service"})), No)]
    #[case::service_name_no_service_at_all(services().without_object("service"), No)]
    #[case::service_name_nobody_looked(services().without_object("printed-service"), Unproven)]
    #[case::kserve_webhook_answers(kserve_webhook(accepted(), refusal(DENIED)), Yes)]
    #[case::kserve_webhook_not_asked(kserve_webhook(accepted(), accepted()), No)]
    #[case::kserve_webhook_down(kserve_webhook(accepted(), refusal(DOWN)), No)]
    #[case::kserve_webhook_printed_is_refused(kserve_webhook(refusal(DENIED), refusal(DENIED)), No)]
    #[case::kserve_webhook_not_offered(kserve_webhook(accepted(), None), Unproven)]
    #[case::inference_service_good(served("True"), Yes)]
    #[case::inference_service_not_ready(served("False"), No)]
    #[case::inference_service_other_hostname(served("True").object(MODEL, route("mock-llm.example.com", "True")), No)]
    #[case::inference_service_unresolved(served("True").object(MODEL, route("mock-llm-ns.example.com", "False")), No)]
    #[case::inference_service_one_route(served("True").without_object("mock-llm-predictor"), No)]
    #[case::transformation_good(transformation(&[], BOTH), Yes)]
    #[case::transformation_never_live(transformation(&[], BOTH).unsettled(), No)]
    #[case::transformation_there_before(transformation(BOTH, BOTH), No)]
    #[case::transformation_never_there(transformation(&[], &[]), No)]
    #[case::transformation_one_of_two(transformation(&[], &BOTH[..1]), No)]
    #[case::transformation_other_value(transformation(&[], &[("x-requested-model", "x"), ("x-actual-model", MODEL)]), No)]
    #[case::transformation_lost_lost_there_alone(transformation_lost(&[], BOTH), Yes)]
    #[case::transformation_lost_kept(transformation_lost(BOTH, BOTH), No)]
    #[case::transformation_lost_lost_everywhere(transformation_lost(&[], &[]), No)]
    #[case::second_route_wins(routed(&[], OF_KSERVE), Yes)]
    #[case::second_route_loses(routed(OF_KSERVE, OF_KSERVE), No)]
    #[case::second_route_takes_everything(routed(&[], &[]), No)]
    #[case::second_route_not_accepted(routed(&[], OF_KSERVE).object("backend", json!({})), No)]
    #[case::second_route_no_records(routed(&[], OF_KSERVE).without_marker(MODEL), Yes)]
    #[case::second_route_nothing_sent(Fake::of("guide-000/second-route"), No)]
    #[case::chat_completion_as_printed(reply([6, 1, 7], "Hello"), Yes)]
    #[case::chat_completion_other_usage(reply([6, 1, 8], "Hello"), No)]
    #[case::chat_completion_other_reply(reply([6, 1, 7], "Bye"), No)]
    #[case::chat_completion_refused(Fake::of("guide-000/chat-completion").refused("with-host", 404), No)]
    #[case::chat_completion_nothing(Fake::of("guide-000/chat-completion"), Unproven)]
    #[case::request_without_host_not_found(without_host(30, 404, "route not found"), Yes)]
    #[case::request_without_host_other_words(without_host(30, 404, "no such model"), No)]
    #[case::request_without_host_too_few(without_host(29, 404, "route not found"), Unproven)]
    #[case::request_without_host_served(without_host(30, 404, "route not found").answered("step-7", 200, MODEL), No)]
    #[case::request_without_host_reached(without_host(30, 404, "route not found").also_reached(MODEL), No)]
    fn judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(fake.verdict(), holds);
    }
}
