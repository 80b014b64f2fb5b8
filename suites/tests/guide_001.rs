//! Guide 001, step by step: KServe LLMInferenceService behind Envoy AI Gateway, as printed where that still works and as
//! corrected where it does not. The guide's own picker does not start any more, and its model needs GPUs: ours stand in their
//! place where records are the proof, else the simulator and the Inference Extension's picker.

use std::path::PathBuf;

use anyhow::Result;
use rstest::rstest;
use serde_json::{Value, json};
use suites::{
    Call, LlmService, Pool, PoolOf, Stage, Until,
    budget::{self, Budget, Limited},
    chat, check, condition, object, picked, proof,
};
use verdict::{
    history::{Admission, Exchange, History},
    judge::Judgement,
};

/// The guide's service.
const SERVICE: &str = "qwen-instruct";
/// The name of its model.
const MODEL: &str = "Qwen/Qwen2.5-0.5B-Instruct";
/// Its tokens an hour.
const TOKENS: u64 = 1000;
/// Seconds of its window, and of a shorter one.
const HOUR: u64 = 3600;
const MINUTE: u64 = 60;

fn of<'h>(history: &'h History, name: &str) -> &'h Value {
    history.objects.get(name).unwrap_or(&Value::Null)
}

/// The template of the guide with its indentation, without the fields that this is not about.
fn printed_template(namespace: &str) -> Value {
    let probe = json!({"failureThreshold": 3, "grpc": {"port": 9003, "service": "envoy.service.ext_proc.v3.ExternalProcessor"}, "periodSeconds": 10});
    let tls = "{{ ChildName .ObjectMeta.Name `-kserve-self-signed-certs` }}";
    json!({
        "apiVersion": "serving.kserve.io/v1alpha1", "kind": "LLMInferenceServiceConfig",
        "metadata": {"name": "custom-config-llm-template", "namespace": namespace},
        "spec": {
            "template": {
                "containers": [{
                    "name": "main", "image": "ghcr.io/llm-d/llm-d-dev:v0.2.2", "imagePullPolicy": "IfNotPresent",
                    "ports": [{"containerPort": 8000, "protocol": "TCP"}],
                    "command": ["vllm", "serve", "/mnt/models"],
                    "args": ["--served-model-name", "{{ .Spec.Model.Name }}", "--port", "8000", "--disable-log-requests"],
                    "env": [{"name": "HOME", "value": "/home"}],
                    "volumeMounts": [{"mountPath": "/home", "name": "home"}, {"mountPath": "/etc/ssl/certs", "name": "tls-certs", "readOnly": true}],
                }],
                "terminationGracePeriodSeconds": 30,
                "volumes": [{"emptyDir": {}, "name": "home"}, {"name": "tls-certs", "secret": {"secretName": tls}}],
            },
            "router": {"scheduler": {
                "pool": {"spec": {
                    "extensionRef": {"failureMode": "FailOpen", "kind": "Service", "name": "{{ ChildName .ObjectMeta.Name `-epp-service` }}"},
                    "selector": {}, "targetPortNumber": 8000,
                }},
                "template": {
                    "containers": [{
                        "name": "main", "image": "ghcr.io/llm-d/llm-d-inference-scheduler:v0.2.0", "imagePullPolicy": "IfNotPresent",
                        "ports": [{"containerPort": 9002, "name": "grpc", "protocol": "TCP"}, {"containerPort": 9003, "name": "grpc-health", "protocol": "TCP"}],
                        "livenessProbe": probe, "readinessProbe": probe,
                        "args": ["--poolName", "{{ ChildName .ObjectMeta.Name `-inference-pool` }}", "--poolNamespace", "{{ .ObjectMeta.Namespace }}",
                            "--grpcPort", "9002", "--grpcHealthPort", "9003", "--secureServing", "--certPath", "/etc/ssl/certs"],
                        "volumeMounts": [{"mountPath": "/etc/ssl/certs", "name": "tls-certs", "readOnly": true}],
                    }],
                    "volumes": [{"name": "tls-certs", "secret": {"secretName": tls}}],
                    "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "terminationGracePeriodSeconds": 30,
                },
            }},
        },
    })
}

fn printed_service(namespace: &str) -> Value {
    let gpu = json!({"limits": {"cpu": "2", "memory": "16Gi", "nvidia.com/gpu": "1"}, "requests": {"cpu": "1", "memory": "8Gi", "nvidia.com/gpu": "1"}});
    json!({
        "apiVersion": "serving.kserve.io/v1alpha1", "kind": "LLMInferenceService",
        "metadata": {"name": SERVICE, "namespace": namespace},
        "spec": {
            "model": {"uri": "hf://Qwen/Qwen2.5-0.5B-Instruct", "name": MODEL},
            "replicas": 4,
            "router": {"scheduler": {}, "route": {}, "gateway": {}},
            "baseRefs": [{"name": "custom-config-llm-template"}],
            "template": {"containers": [{"name": "main", "resources": gpu}]},
        },
    })
}

fn printed_route(namespace: &str) -> Value {
    let cost = |key: &str, kind: &str| json!({"metadataKey": key, "type": kind});
    json!({
        "apiVersion": "aigateway.envoyproxy.io/v1alpha1", "kind": "AIGatewayRoute",
        "metadata": {"name": "envoy-ai-gateway", "namespace": namespace},
        "spec": {
            "parentRefs": [{"name": "ai-gateway", "kind": "Gateway", "group": "gateway.networking.k8s.io"}],
            "rules": [{
                "matches": [{"headers": [{"type": "Exact", "name": "x-ai-eg-model", "value": MODEL}]}],
                "backendRefs": [{"group": "inference.networking.x-k8s.io", "kind": "InferencePool", "name": "qwen-instruct-inference-pool"}],
                "timeouts": {"request": "60s"},
            }],
            "llmRequestCosts": [cost("llm_input_token", "InputToken"), cost("llm_output_token", "OutputToken"), cost("llm_total_token", "TotalToken")],
        },
    })
}

#[rstest]
#[tokio::test]
async fn older_versions(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("guide-001/older-versions", "-", &folder).run(drive_older_versions, judge_older_versions).await;
}

async fn drive_older_versions(stage: &mut Stage) -> Result<()> {
    let namespace = stage.namespace().to_owned();
    stage.offer_dry("template", &printed_template(&namespace)).await?;
    stage.offer_dry("service", &printed_service(&namespace)).await
}

fn judge_older_versions(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    for name in ["template", "service"] {
        match history.admissions.get(name) {
            Some(Admission::Accepted { .. }) => judgement.that(name, true, "accepted", "accepted", []),
            Some(Admission::Refused { message, .. }) => judgement.that(name, false, "accepted", message.clone(), []),
            None => judgement.unproven(name, "accepted", "it was not offered"),
        };
    }
    judgement
}

#[rstest]
#[tokio::test]
async fn route_as_printed(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("guide-001/route-as-printed", "-", &folder).run(drive_route_as_printed, judge_route_as_printed).await;
}

async fn drive_route_as_printed(stage: &mut Stage) -> Result<()> {
    let manifest = printed_route(stage.namespace());
    stage.offer_dry("as-printed", &manifest).await
}

fn judge_route_as_printed(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    let words = "only InferencePool from inference.networking.k8s.io group is supported";
    let expected = format!("refused: {words}");
    match history.admissions.get("as-printed") {
        Some(Admission::Refused { message, .. }) => {
            judgement.that("as-printed", message.contains(words), expected, message.clone(), [])
        }
        Some(Admission::Accepted { .. }) => judgement.that("as-printed", false, expected, "accepted", []),
        None => judgement.unproven("as-printed", expected, "it was not offered"),
    };
    judgement
}

/// The guide's service with four models, which is Ready, and its model's name leading to the pool that it has made.
async fn served(stage: &mut Stage) -> Result<Pool> {
    let pool = stage.llm_service(LlmService::new(SERVICE).version("v1alpha1").model(MODEL).replicas(4)).await?;
    let models = json!([{"model": MODEL, "pool": format!("{SERVICE}-inference-pool")}]);
    stage.intent("model-pool-route", json!({"models": models})).await?;
    Ok(pool)
}

#[rstest]
#[tokio::test]
async fn llm_service(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("guide-001/llm-service", "-", &folder).run(drive_llm_service, judge_llm_service).await;
}

async fn drive_llm_service(stage: &mut Stage) -> Result<()> {
    let pool = served(stage).await?;
    stage.fact("pods", json!(pool.endpoints.len()));
    let namespace = stage.namespace().to_owned();
    let service = object("serving.kserve.io/v1alpha1", "LLMInferenceService", &namespace, SERVICE);
    stage.see("service", &service, condition("Ready"), 60).await?;
    let pool = object("inference.networking.k8s.io/v1", "InferencePool", &namespace, "qwen-instruct-inference-pool");
    stage.see("pool", &pool, Until::Exists, 10).await?;
    let route = object("aigateway.envoyproxy.io/v1beta1", "AIGatewayRoute", &namespace, stage.route());
    stage.see("route", &route, condition("Accepted"), 60).await.map(drop)
}

fn judge_llm_service(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    for (name, kind) in [("service", "Ready"), ("route", "Accepted")] {
        let status = proof::condition_status(&of(history, name)["status"]["conditions"], kind).unwrap_or("absent");
        judgement.that(name, status == "True", format!("{kind}=True"), format!("{kind}={status}"), []);
    }
    let pods = history.facts.get("pods").cloned().unwrap_or_default();
    judgement.that("replicas", pods == 4, "four models", format!("{pods} models"), []);
    let picker = &of(history, "pool")["spec"]["endpointPickerRef"];
    let expected = "qwen-instruct-epp-service, failing open";
    let as_expected = picker["name"] == "qwen-instruct-epp-service" && picker["failureMode"] == "FailOpen";
    judgement.that("picker", as_expected, expected, picker.to_string(), []);
    judgement
}

/// The request of the test of this guide and of guide 002, word for word.
pub(crate) fn printed_request(host: &str, model: &str) -> Call {
    let message = |role: &str, content: &str| json!({"role": role, "content": content});
    let messages = [message("system", "You are a poet."), message("user", "Write a poem about clouds.")];
    Call::post("/v1/chat/completions")
        .host(host)
        .header("x-user-id", "user123")
        .json(&json!({"model": model, "messages": messages}))
}

#[rstest]
#[tokio::test]
async fn chat_completion(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("guide-001/chat-completion", "-", &folder)
        .observing(picked::observe)
        .run(drive_chat_completion, judge_chat_completion)
        .await;
}

async fn drive_chat_completion(stage: &mut Stage) -> Result<()> {
    served(stage).await?;
    let host = stage.hostname().to_owned();
    stage.settle(|| chat(&host, MODEL), SERVICE).await?;
    stage.begin().await?;
    for _ in 0..10 {
        stage.send("as-printed", printed_request(&host, MODEL)).await;
        stage.send("streamed", chat(&host, MODEL).stream()).await;
    }
    stage.end().await
}

fn judge_chat_completion(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    for label in ["as-printed", "streamed"] {
        picked::as_picked(&mut judgement, history, label, SERVICE);
    }
    for exchange in history.labelled("as-printed").take(1) {
        let body = exchange.response().and_then(|r| r.json()).unwrap_or_default();
        judgement.that("model", body["model"] == MODEL, MODEL, body["model"].to_string(), [exchange]);
        proof::usage_adds_up(&mut judgement, exchange, &body);
    }
    judgement
}

/// Four long prompts that have nothing in common, and how often each comes.
const PREFIXES: [&str; 4] = ["prefix-1", "prefix-2", "prefix-3", "prefix-4"];
const ROUNDS: usize = 5;

/// A prompt of many blocks (of 64 bytes), the last of them its own.
fn prompt(prefix: &str, round: usize) -> String {
    let shared: String = (0..50).map(|n| format!("{prefix} {n} of a long story ")).collect();
    format!("{shared}and question {round}")
}

/// Prompts of each prefix in turn.
async fn long_prompts(stage: &mut Stage) {
    let host = stage.hostname().to_owned();
    for round in 0..ROUNDS {
        for prefix in PREFIXES {
            let messages = json!([{"role": "user", "content": prompt(prefix, round)}]);
            let body = json!({"model": MODEL, "max_tokens": 5, "messages": messages});
            stage.send(prefix, Call::post("/v1/chat/completions").host(&host).json(&body)).await;
        }
    }
}

#[rstest]
#[tokio::test]
async fn prefix_affinity(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("guide-001/prefix-affinity", "-", &folder)
        .observing(picked::observe)
        .run(drive_prefix_affinity, judge_prefix_affinity)
        .await;
}

async fn drive_prefix_affinity(stage: &mut Stage) -> Result<()> {
    served(stage).await?;
    let host = stage.hostname().to_owned();
    stage.settle(|| chat(&host, MODEL), SERVICE).await?;
    stage.begin().await?;
    long_prompts(stage).await;
    stage.end().await
}

/// Every prefix stays where it first went, and not all of them went to one place.
fn judge_stays(judgement: &mut Judgement, history: &History, place: impl Fn(&Exchange) -> Option<String>) {
    let mut used = Vec::new();
    for prefix in PREFIXES {
        let clause = format!("{prefix}-sticks");
        let expected = "one endpoint for all prompts that begin alike";
        let places: Vec<Option<String>> = history.labelled(prefix).map(&place).collect();
        match places.split_first() {
            Some((Some(first), rest)) if rest.len() + 1 == ROUNDS => {
                let strays = rest.iter().filter(|p| p.as_ref() != Some(first)).count();
                judgement.that(&clause, strays == 0, expected, format!("{strays} of {} strayed", rest.len()), []);
                used.push(first.clone());
            }
            _ => _ = judgement.unproven(&clause, expected, format!("places {places:?}")),
        }
    }
    let known = used.len();
    used.sort();
    used.dedup();
    let (expected, got) =
        ("prompts with nothing in common spread over endpoints", format!("{} endpoints used", used.len()));
    if known < PREFIXES.len() {
        judgement.unproven("spreads", expected, got);
    } else {
        judgement.that("spreads", used.len() > 1, expected, got, []);
    }
}

fn judge_prefix_affinity(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    for prefix in PREFIXES {
        picked::as_picked(&mut judgement, history, prefix, SERVICE);
    }
    judge_stays(&mut judgement, history, |exchange| {
        picked::pick_of(history, exchange, SERVICE)?.chosen.first().cloned()
    });
    judgement
}

#[rstest]
#[tokio::test]
async fn real_parts(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("guide-001/real-parts", "-", &folder)
        .observing(picked::observe)
        .run(drive_prefix_affinity, judge_real_parts)
        .await;
}

/// The pod that answered with a 200, by the header of the simulators.
fn answering_pod(exchange: &Exchange) -> Option<String> {
    exchange.response().filter(|r| r.status == 200)?.header("x-inference-pod").map(str::to_owned)
}

/// Neither the simulator nor the upstream picker keeps records: that prompts stay where only the picker can have sent them
/// shows that it was asked and followed.
fn judge_real_parts(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    for prefix in PREFIXES {
        proof::status(&mut judgement, history, prefix, Some(200));
    }
    judge_stays(&mut judgement, history, answering_pod);
    judgement
}

/// The guide's limit on a pool of the guide's model, live.
async fn limited(stage: &mut Stage, unit: &str) -> Result<Limited> {
    stage.pool(PoolOf::new(SERVICE).serving(MODEL)).await?;
    stage.intent("model-pool-route", json!({"models": [{"model": MODEL, "pool": SERVICE}]})).await?;
    stage.intent("limit-tokens", json!({"limits": [{"tokens": TOKENS, "unit": unit, "model": MODEL}]})).await?;
    let limited = Limited { host: stage.hostname().to_owned(), model: MODEL.to_owned(), pods: SERVICE.to_owned() };
    budget::settle_on(stage, &limited).await?;
    Ok(limited)
}

/// A prompt of 97 words: 102 tokens of prompt and 97 of reply.
fn long_request(host: &str, user: &str) -> Call {
    let words = vec!["cloud"; 97].join(" ");
    let body = json!({"model": MODEL, "messages": [{"role": "user", "content": words}]});
    Call::post("/v1/chat/completions").host(host).header("x-user-id", user).json(&body)
}

/// Spends the budget of a user, the answers labelled `spend`.
async fn spend(stage: &mut Stage, user: &str) {
    let host = stage.hostname().to_owned();
    for _ in 0..10 {
        budget::charged(stage).await;
        stage.send("spend", long_request(&host, user)).await;
    }
}

#[rstest]
#[tokio::test]
async fn token_limit(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("guide-001/token-limit", "-", &folder)
        .observing(budget::observe)
        .run(drive_token_limit, judge_token_limit)
        .await;
}

async fn drive_token_limit(stage: &mut Stage) -> Result<()> {
    let limited = limited(stage, "Hour").await?;
    budget::in_one_window_of(stage, &limited, HOUR, &["spend", "another-user"], async |stage, user| {
        spend(stage, user).await;
        let other = format!("{user}-other");
        stage.send("another-user", long_request(&limited.host, &other)).await;
        Ok(())
    })
    .await
}

fn judge_token_limit(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    judge_spent(&mut judgement, history, HOUR);
    budget::judge_all(&mut judgement, history, "another-user", 200);
    judgement
}

fn judge_spent(judgement: &mut Judgement, history: &History, window: u64) {
    let budget = Budget::of_window(history, "spend", TOKENS, window);
    budget.judge_one_window(judgement);
    budget.judge_admitted(judgement);
    budget.judge_spent(judgement);
}

#[rstest]
#[tokio::test]
async fn refill_after_an_hour(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    let drive = async |stage: &mut Stage| drive_refill(stage, "Hour", HOUR).await;
    let judge = |history: &History| judge_refill(history, HOUR);
    check("guide-001/refill-after-an-hour", "-", &folder).observing(budget::observe).run(drive, judge).await;
}

/// The guide's limit with a shorter window, for places where nobody waits for an hour.
#[rstest]
#[tokio::test]
async fn refill_after_a_minute(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    let drive = async |stage: &mut Stage| drive_refill(stage, "Minute", MINUTE).await;
    let judge = |history: &History| judge_refill(history, MINUTE);
    check("guide-001/refill-after-a-minute", "-", &folder).observing(budget::observe).run(drive, judge).await;
}

async fn drive_refill(stage: &mut Stage, unit: &str, seconds: u64) -> Result<()> {
    let limited = limited(stage, unit).await?;
    let labels = ["spend", "late-in-the-window", "next-window"];
    budget::in_one_window_of(stage, &limited, seconds, &labels, async |stage, user| {
        spend(stage, user).await;
        stage.until_window(budget::reset(stage), -5.0).await;
        stage.send("late-in-the-window", long_request(&limited.host, user)).await;
        stage.until_window(budget::reset(stage), 1.0).await;
        stage.send("next-window", long_request(&limited.host, user)).await;
        Ok(())
    })
    .await
}

fn judge_refill(history: &History, seconds: u64) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    judge_spent(&mut judgement, history, seconds);
    budget::judge_all(&mut judgement, history, "late-in-the-window", budget::refusal(history));
    budget::judge_all(&mut judgement, history, "next-window", 200);
    judgement
}

mod judges {
    use rstest::rstest;
    use suites::fake::{Fake, conditions, verdict_of};
    use verdict::judge::Holds;

    use super::*;

    fn refusal(message: &str) -> Option<Admission> {
        Some(Admission::Refused { code: 422, reason: "Invalid".into(), message: message.into() })
    }

    fn fine() -> Option<Admission> {
        Some(Admission::Accepted { warnings: vec![] })
    }

    #[rstest]
    #[case::both(fine(), fine(), Holds::Yes)]
    #[case::one(fine(), refusal("no matches for kind"), Holds::No)]
    #[case::not_offered(fine(), None, Holds::Unproven)]
    fn older_versions_is_judged(
        #[case] template: Option<Admission>,
        #[case] service: Option<Admission>,
        #[case] holds: Holds,
    ) {
        let fake = Fake::of("guide-001/older-versions").admission("template", template).admission("service", service);
        assert_eq!(verdict_of(judge_older_versions, &fake), holds);
    }

    #[rstest]
    #[case::in_words(
        refusal("Invalid value: \"object\": only InferencePool from inference.networking.k8s.io group is supported"),
        Holds::Yes
    )]
    #[case::other_words(refusal("webhook is down"), Holds::No)]
    #[case::accepted(fine(), Holds::No)]
    #[case::not_offered(None, Holds::Unproven)]
    fn route_as_printed_is_judged(#[case] printed: Option<Admission>, #[case] holds: Holds) {
        let fake = Fake::of("guide-001/route-as-printed").admission("as-printed", printed);
        assert_eq!(verdict_of(judge_route_as_printed, &fake), holds);
    }

    fn service(ready: &str, accepted: &str, pods: u64, mode: &str) -> Fake {
        let said = |kind: &str, status: &str| json!({"status": {"conditions": conditions(1, &[(kind, status, "")])}});
        let picker = json!({"name": "qwen-instruct-epp-service", "failureMode": mode});
        Fake::of("guide-001/llm-service")
            .object("service", said("Ready", ready))
            .object("route", said("Accepted", accepted))
            .object("pool", json!({"spec": {"endpointPickerRef": picker}}))
            .fact("pods", json!(pods))
    }

    #[rstest]
    #[case::good(service("True", "True", 4, "FailOpen"), Holds::Yes)]
    #[case::not_ready(service("False", "True", 4, "FailOpen"), Holds::No)]
    #[case::route(service("True", "False", 4, "FailOpen"), Holds::No)]
    #[case::too_few(service("True", "True", 3, "FailOpen"), Holds::No)]
    #[case::mode(service("True", "True", 4, "FailClose"), Holds::No)]
    fn llm_service_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_llm_service, &fake), holds);
    }

    fn replied(model: &str, usage: [u64; 3]) -> Fake {
        let usage = json!({"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": usage[2]});
        let body = json!({"model": model, "usage": usage}).to_string();
        Fake::of("guide-001/chat-completion")
            .pool(SERVICE, 4)
            .picked("streamed", SERVICE, 1)
            .picked("as-printed", SERVICE, 2)
            .with_response(|response| response.body = verdict::history::Body::of(body.as_bytes()))
    }

    #[rstest]
    #[case::good(replied(MODEL, [24, 5, 29]), Holds::Yes)]
    #[case::other_model(replied("other", [24, 5, 29]), Holds::No)]
    #[case::sum(replied(MODEL, [24, 5, 30]), Holds::No)]
    #[case::bypassed(replied(MODEL, [24, 5, 29]).past_the_picker("streamed", SERVICE, 1), Holds::No)]
    #[case::no_records(replied(MODEL, [24, 5, 29]).without_picker_records(SERVICE), Holds::Unproven)]
    fn chat_completion_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_chat_completion, &fake), holds);
    }

    /// Where the prompts of each prefix went: the first ones, and the last.
    fn prefixes(places: [[usize; 2]; 4]) -> Fake {
        let fake = Fake::of("guide-001/prefix-affinity").pool(SERVICE, 4);
        PREFIXES.iter().zip(places).fold(fake, |fake, (prefix, [first, last])| {
            let fake = fake.times(ROUNDS - 1, |fake, _| fake.picked(prefix, SERVICE, first));
            fake.picked(prefix, SERVICE, last)
        })
    }

    #[rstest]
    #[case::sticks(prefixes([[0, 0], [1, 1], [2, 2], [0, 0]]), Holds::Yes)]
    #[case::strays(prefixes([[0, 0], [1, 3], [2, 2], [0, 0]]), Holds::No)]
    #[case::all_at_one(prefixes([[0, 0]; 4]), Holds::No)]
    #[case::past_the_picker(prefixes([[0, 0], [1, 1], [2, 2], [3, 3]]).past_the_picker("prefix-1", SERVICE, 0), Holds::No)]
    #[case::no_records(prefixes([[0, 0], [1, 1], [2, 2], [3, 3]]).without_picker_records(SERVICE), Holds::Unproven)]
    fn prefix_affinity_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_prefix_affinity, &fake), holds);
    }

    /// The pods that answered the prompts of each prefix, the last time another one where told.
    fn answered(strays: bool) -> Fake {
        let pods = ["a", "b", "a", "c"];
        let fake = Fake::of("guide-001/real-parts");
        PREFIXES.iter().zip(pods).fold(fake, |fake, (prefix, pod)| {
            let by = |fake: Fake, pod: &str| fake.answer(prefix, 200, &[("x-inference-pod", pod)], "{}");
            let fake = fake.times(ROUNDS - 1, |fake, _| by(fake, pod));
            by(fake, if strays { "z" } else { pod })
        })
    }

    #[rstest]
    #[case::sticks(answered(false), Holds::Yes)]
    #[case::strays(answered(true), Holds::No)]
    #[case::refused(answered(false).refused("prefix-2", 500), Holds::No)]
    #[case::unnamed(Fake::of("guide-001/real-parts").answer("prefix-1", 200, &[], "{}"), Holds::Unproven)]
    #[case::all_at_one(PREFIXES.iter().fold(Fake::of("guide-001/real-parts"), |fake, prefix| {
        fake.times(ROUNDS, |fake, _| fake.answer(prefix, 200, &[("x-inference-pod", "a")], "{}"))
    }), Holds::No)]
    fn real_parts_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_real_parts, &fake), holds);
    }

    fn hour(check: &str, admitted: u64, refused: u64) -> Fake {
        let fake = Fake::of(check)
            .declares("block-when", json!("spent > limit"))
            .declares("mark", json!("x-ratelimit-limit"))
            .declares("status", json!(429));
        let fake = (0..admitted)
            .fold(fake, |fake, i| fake.admitted_for("spend", TOKENS, TOKENS.saturating_sub(199 * i), 3000, 199));
        (0..refused).fold(fake, |fake, _| fake.limited("spend", TOKENS, 0, 3000))
    }

    #[rstest]
    #[case::as_declared(hour("guide-001/token-limit", 6, 4).admitted("another-user", TOKENS, TOKENS, 3000), Holds::Yes)]
    #[case::too_few(hour("guide-001/token-limit", 5, 5).admitted("another-user", TOKENS, TOKENS, 3000), Holds::No)]
    #[case::never_refused(hour("guide-001/token-limit", 10, 0).admitted("another-user", TOKENS, TOKENS, 3000), Holds::No)]
    #[case::one_budget_for_all(hour("guide-001/token-limit", 6, 4).limited("another-user", TOKENS, 0, 3000), Holds::No)]
    fn token_limit_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_token_limit, &fake), holds);
    }

    #[rstest]
    #[case::as_declared(429, 200, Holds::Yes)]
    #[case::early(200, 200, Holds::No)]
    #[case::never(429, 429, Holds::No)]
    fn refill_is_judged(#[case] late: u16, #[case] next: u16, #[case] holds: Holds) {
        let said = |fake: Fake, label: &str, status: u16| match status {
            200 => fake.admitted(label, TOKENS, TOKENS, 5),
            _ => fake.limited(label, TOKENS, 0, 5),
        };
        let fake = said(hour("guide-001/refill-after-an-hour", 6, 4), "late-in-the-window", late);
        assert_eq!(verdict_of(|history| judge_refill(history, HOUR), &said(fake, "next-window", next)), holds);
    }
}
