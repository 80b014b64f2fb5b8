//! Guide 001, step by step: KServe LLMInferenceService behind Envoy AI Gateway, as printed where that still works and as
//! corrected where it does not. The guide's own picker does not start any more, and its model needs GPUs: ours stand in their
//! place where records are the proof, else the simulator and the Inference Extension's picker.

use anyhow::Result;
use serde_json::{Value, json};
use suites::{
    CHECK, Call, Check, Judge, Live, LlmService, Pool, PoolOf, Stage, WaitCondition,
    budget::{self, Budget, Limited},
    by_upstream_picker, chat, check, condition,
    picked::{self, PREFIXES},
};
use verdict::{
    capability,
    history::Exchange,
    plan::{Level, PlaceName},
};

const SERVICE: &str = "qwen-instruct";
const MODEL: &str = "Qwen/Qwen2.5-0.5B-Instruct";
const TOKENS: u64 = 1000;
/// Seconds of its window, and of a shorter one.
const HOUR: u64 = 3600;
const MINUTE: u64 = 60;

const GUIDE: Check = Check {
    capability: Some(capability::GUIDE_001),
    gateways: &["envoy-ai-gateway"],
    changes: by_upstream_picker,
    ..CHECK
};
const STATUS: Check = Check { live: Live::NotJudged, ..GUIDE };
const LIMIT: Check = Check { capability: Some(capability::TOKEN_LIMIT_PER_USER), observe: budget::observe, ..GUIDE };

check!(
    guide_001 / older_versions,
    drive_older_versions,
    judge_older_versions,
    Check {
        sentence: "LLMInferenceServiceConfig and LLMInferenceService of the guide, in the older version of their API, are accepted",
        source: "guide 001, \"Create LLMInferenceServiceConfig\" and \"Create LLMInferenceService\"",
        how: "Offers both manifests as printed to the API server as a dry run.",
        model: None,
        kills: &["refuses-older-versions"],
        ..STATUS
    }
);

async fn drive_older_versions(stage: &mut Stage) -> Result<()> {
    let [template] = stage.printed("guide-001/llm-service-config")?;
    stage.offer_dry("template", &template).await?;
    let [service] = stage.printed("guide-001/llm-service")?;
    stage.offer_dry("service", &service).await
}

fn judge_older_versions(judge: &mut Judge<'_>) {
    judge.accepted("template", "template");
    judge.accepted("service", "service");
}

check!(
    guide_001 / route_as_printed,
    drive_route_as_printed,
    judge_route_as_printed,
    Check {
        sentence: "the AIGatewayRoute as printed is refused with words that say why; guide says a pool of inference.networking.x-k8s.io, correct is inference.networking.k8s.io",
        source: "guide 001, \"Create AIGatewayRoute with LLM Request Costs\"",
        how: "Offers the manifest as printed to the API server as a dry run, and reads the refusal.",
        model: None,
        kills: &["skips-rules"],
        ..STATUS
    }
);

async fn drive_route_as_printed(stage: &mut Stage) -> Result<()> {
    let [route] = stage.printed("guide-001/route")?;
    stage.offer_dry("as-printed", &route).await
}

fn judge_route_as_printed(judge: &mut Judge<'_>) {
    let words = "only InferencePool from inference.networking.k8s.io group is supported";
    judge.not_accepted("as-printed", "as-printed", &[words]);
}

/// The guide's service with four models, which is Ready, and its model's name leading to the pool that it has made.
async fn served(stage: &mut Stage) -> Result<Pool> {
    let service = LlmService { version: "v1alpha1", model: MODEL.into(), replicas: 4, ..LlmService::new(SERVICE) };
    let pool = stage.llm_service(service).await?;
    let models = json!([{"model": MODEL, "pool": format!("{SERVICE}-inference-pool")}]);
    stage.intent("model-pool-route", json!({"models": models})).await?;
    Ok(pool)
}

check!(
    guide_001 / llm_service,
    drive_llm_service,
    judge_llm_service,
    Check {
        sentence: "the LLMInferenceService of the guide, with another model and another picker, becomes Ready with four models, and the route to its pool is accepted",
        source: "guide 001, \"Create LLMInferenceService\"",
        how: "Applies the service and a route to its pool, and reads their conditions, how many models there are, and the picker that \
              the pool names.",
        model: None,
        kills: &["never-accepts-ai-objects"],
        ..STATUS
    }
);

async fn drive_llm_service(stage: &mut Stage) -> Result<()> {
    let pool = served(stage).await?;
    stage.fact("pods", json!(pool.endpoints.len()));
    let service = stage.object("serving.kserve.io/v1alpha1", "LLMInferenceService", SERVICE);
    stage.see("service", &service, condition("Ready"), 60).await?;
    let pool = stage.inference_pool("qwen-instruct-inference-pool");
    stage.see("pool", &pool, WaitCondition::Exists, 10).await?;
    let route = stage.object("aigateway.envoyproxy.io/v1beta1", "AIGatewayRoute", stage.route());
    stage.see("route", &route, condition("Accepted"), 60).await
}

fn judge_llm_service(judge: &mut Judge<'_>) {
    judge.is_true("service", judge.object("service"), "Ready");
    judge.is_true("route", judge.object("route"), "Accepted");
    let pods = judge.history().facts.get("pods").unwrap_or(&Value::Null);
    judge.clause("replicas").expected("four models").got(format!("{pods} models")).holds(*pods == 4);
    let picker = &judge.object("pool")["spec"]["endpointPickerRef"];
    let statement = judge.clause("picker").expected("qwen-instruct-epp-service, failing open").got(picker.to_string());
    statement.holds(picker["name"] == "qwen-instruct-epp-service" && picker["failureMode"] == "FailOpen");
}

/// The request of the tests of guides 001 and 002, word for word.
pub fn printed_request(model: &str) -> Call {
    let message = |role: &str, content: &str| json!({"role": role, "content": content});
    let messages = [message("system", "You are a poet."), message("user", "Write a poem about clouds.")];
    let body = json!({"model": model, "messages": messages});
    Call::post("/v1/chat/completions").header("x-user-id", "user123").json(&body)
}

check!(
    guide_001 / chat_completion,
    drive_chat_completion,
    judge_chat_completion,
    Check {
        sentence: "the request of the guide is answered by the endpoint that the picker of the service chose",
        source: "guide 001, \"Testing the Gateway\"",
        how: "Sends the test request as printed and a streamed chat ten times each; looks at the records of picker and models, and at \
              model and usage of a reply.",
        observe: picked::observe,
        kills: &["skips-picker", "ignores-choice"],
        counts_every_answer: true,
        ..GUIDE
    }
);

async fn drive_chat_completion(stage: &mut Stage) -> Result<()> {
    served(stage).await?;
    stage.settle(|| chat(MODEL), SERVICE).await?;
    let calls = [("as-printed", printed_request(MODEL)), ("streamed", chat(MODEL).stream())];
    stage.send_in_turn(10, &calls).await
}

fn judge_chat_completion(judge: &mut Judge<'_>) {
    picked::as_picked(judge, "as-printed-as-picked", "as-printed", SERVICE);
    picked::as_picked(judge, "streamed-as-picked", "streamed", SERVICE);
    if let Some(exchange) = judge.labelled("as-printed").first().copied() {
        let body = exchange.response().and_then(|r| r.json()).unwrap_or_default();
        let model = &body["model"];
        judge.clause("model").expected(MODEL).got(model.to_string()).shown_by([exchange]).holds(model == MODEL);
        judge.usage_adds_up(exchange, &body);
    }
}

/// How often a prompt of each of four long beginnings comes.
const ROUNDS: usize = 5;

/// A prompt of many blocks (of 64 bytes), the last of them its own.
fn prompt(prefix: &str, round: usize) -> String {
    let shared: String = (0..50).map(|n| format!("{prefix} {n} of a long story ")).collect();
    format!("{shared}and question {round}")
}

check!(
    guide_001 / prefix_affinity,
    drive_prefix_affinity,
    judge_prefix_affinity,
    Check {
        level: Level::Should,
        sentence: "prompts of many blocks that begin alike go to one endpoint, by the records of the picker, and others spread",
        source: "guide 001, \"prefix-aware routing\"",
        how: "Sends five prompts of each of four long beginnings in turn; the picker's records have to name one endpoint for all of a \
              beginning, and not the same for all four.",
        observe: picked::observe,
        kills: &["cuts-the-body-that-the-picker-sees"],
        ..GUIDE
    }
);

async fn drive_prefix_affinity(stage: &mut Stage) -> Result<()> {
    served(stage).await?;
    stage.settle(|| chat(MODEL), SERVICE).await?;
    for round in 0..ROUNDS {
        for (prefix, ..) in PREFIXES {
            let messages = json!([{"role": "user", "content": prompt(prefix, round)}]);
            let body = json!({"model": MODEL, "max_tokens": 5, "messages": messages});
            stage.send(prefix, Call::post("/v1/chat/completions").json(&body)).await?;
        }
    }
    Ok(())
}

fn judge_prefix_affinity(judge: &mut Judge<'_>) {
    for (prefix, as_picked, _) in PREFIXES {
        picked::as_picked(judge, as_picked, prefix, SERVICE);
    }
    let history = judge.history();
    judge_places(judge, |exchange| picked::pick_of(history, exchange, SERVICE)?.chosen.first().cloned());
}

fn judge_places(judge: &mut Judge<'_>, place: impl Fn(&Exchange) -> Option<String>) {
    let mut used = Vec::new();
    for (prefix, _, sticks) in PREFIXES {
        let places: Vec<Option<String>> = judge.labelled(prefix).into_iter().map(&place).collect();
        used.extend(picked::sticks(judge, sticks, &places));
    }
    let (statement, spread) = picked::spreads(judge, &used);
    statement.holds_if_known((used.len() == PREFIXES.len()).then_some(spread));
}

check!(
    guide_001 / real_parts,
    drive_prefix_affinity,
    judge_real_parts,
    Check {
        level: Level::Should,
        sentence: "with the simulator and the Inference Extension's picker, prompts that begin alike are answered by one pod",
        source: "guide 001, \"prefix-aware routing\"; GIE, prefix-cache-scorer",
        how: "Sends five prompts of each of four long beginnings in turn. Simulator and picker keep no records: the header in which the \
              simulator names its pod has to be the same for all of a beginning, and not for all four, as only a picker that is \
              asked and followed brings that about.",
        model: None,
        observe: picked::observe,
        kills: &["cuts-the-body-that-the-picker-sees"],
        ..GUIDE
    }
);

fn answering_pod(exchange: &Exchange) -> Option<String> {
    exchange.response().filter(|r| r.status == 200)?.header("x-inference-pod").map(str::to_owned)
}

fn judge_real_parts(judge: &mut Judge<'_>) {
    judge.status("prefix-1-status", "prefix-1", 200);
    judge.status("prefix-2-status", "prefix-2", 200);
    judge.status("prefix-3-status", "prefix-3", 200);
    judge.status("prefix-4-status", "prefix-4", 200);
    judge_places(judge, answering_pod);
}

async fn limited(stage: &mut Stage, unit: &str) -> Result<Limited> {
    stage.pool(PoolOf { model: MODEL.into(), ..PoolOf::new(SERVICE) }).await?;
    stage.intent("model-pool-route", json!({"models": [{"model": MODEL, "pool": SERVICE}]})).await?;
    stage.intent("limit-tokens", json!({"limits": [{"tokens": TOKENS, "unit": unit, "model": MODEL}]})).await?;
    let limited = Limited { host: stage.hostname().to_owned(), model: MODEL.to_owned(), pods: SERVICE.to_owned() };
    budget::settle_on(stage, &limited).await?;
    Ok(limited)
}

/// A prompt of 97 words: 102 tokens of prompt and 97 of reply.
pub fn long_request(model: &str, user: &str) -> Call {
    let words = vec!["cloud"; 97].join(" ");
    let body = json!({"model": model, "messages": [{"role": "user", "content": words}]});
    Call::post("/v1/chat/completions").header("x-user-id", user).json(&body)
}

pub async fn spend(stage: &mut Stage, model: &str, user: &str) -> Result<()> {
    for _ in 0..10 {
        budget::charged(stage).await;
        stage.send("spend", long_request(model, user)).await?;
    }
    Ok(())
}

check!(
    guide_001 / token_limit,
    drive_token_limit,
    judge_token_limit,
    Check {
        sentence: "1000 tokens an hour for each user and model are admitted by the declared rule, and another user has a budget of its own",
        source: "guide 001, \"Configure Rate Limiting\"",
        how: "Sends ten long chats of one user, which cost more than its budget, and one of another user in the same window; counts \
              what was admitted.",
        kills: &["charges-per-gateway"],
        ..LIMIT
    }
);

async fn drive_token_limit(stage: &mut Stage) -> Result<()> {
    let limited = limited(stage, "Hour").await?;
    budget::in_one_window_of(stage, &limited, HOUR, &["spend", "another-user"], async |stage, user| {
        spend(stage, MODEL, user).await?;
        stage.send("another-user", long_request(MODEL, &format!("{user}-other"))).await
    })
    .await
}

fn judge_token_limit(judge: &mut Judge<'_>) {
    judge_spent(judge, HOUR);
    budget::judge_all(judge, "another-user", "another-user", 200);
}

/// The 1000 tokens were spent by the declared rule, in a window of so many seconds.
pub fn judge_spent(judge: &mut Judge<'_>, window: u64) {
    let Some(budget) = Budget::of_window(judge, "spend", TOKENS, window) else { return };
    budget.judge_admitted(judge);
    budget.judge_spent(judge);
}

const NOBODY_WAITS: &str = "nobody waits for an hour; guide-001/refill-after-a-minute has a shorter window";

check!(
    guide_001 / refill_after_an_hour,
    |stage| drive_refill(stage, "Hour", HOUR),
    |judge| judge_refill(judge, HOUR),
    Check {
        sentence: "a user's 1000 tokens are spent until the hour ends, and whole again after it",
        source: "guide 001, \"Configure Rate Limiting\"",
        how: "Spends a user's budget, sends a chat in the last seconds of the window and another after its end.",
        not_on: &[(PlaceName::Kind, NOBODY_WAITS), (PlaceName::Context, NOBODY_WAITS)],
        kills: &["window-slides", "refills-early", "never-refills"],
        ..LIMIT
    }
);

check!(
    guide_001 / refill_after_a_minute,
    |stage| drive_refill(stage, "Minute", MINUTE),
    |judge| judge_refill(judge, MINUTE),
    Check {
        sentence: "the guide's 1000 tokens with a window of a minute are spent until it ends, and whole again after it",
        source: "guide 001, \"lower the limit temporarily\"",
        how: "Spends a user's budget of a minute, sends a chat in the last seconds of the window and another after its end; for places \
              where nobody waits for an hour.",
        kills: &["window-slides", "refills-early", "never-refills"],
        ..LIMIT
    }
);

async fn drive_refill(stage: &mut Stage, unit: &str, seconds: u64) -> Result<()> {
    let limited = limited(stage, unit).await?;
    let labels = ["spend", "late-in-the-window", "next-window"];
    budget::in_one_window_of(stage, &limited, seconds, &labels, async |stage, user| {
        spend(stage, MODEL, user).await?;
        stage.until_window_end(-5.0).await?;
        stage.send("late-in-the-window", long_request(MODEL, user)).await?;
        stage.until_window_end(1.0).await?;
        stage.send("next-window", long_request(MODEL, user)).await
    })
    .await
}

fn judge_refill(judge: &mut Judge<'_>, window: u64) {
    judge_spent(judge, window);
    budget::judge_all_refused(judge, "late-in-the-window", "late-in-the-window");
    budget::judge_all(judge, "next-window", "next-window", 200);
}

pub mod judges {
    use rstest::rstest;
    use suites::fake::{Fake, Holds, No, Unproven, Yes, accepted, object_saying, refusal, token_limit, usage};
    use verdict::history::Admission;

    use super::*;

    fn older_versions(template: Option<Admission>, service: Option<Admission>) -> Fake {
        Fake::of("guide-001/older-versions").admission("template", template).admission("service", service)
    }

    const OTHER_GROUP: &str =
        "Invalid value: \"object\": only InferencePool from inference.networking.k8s.io group is supported";

    fn route_as_printed(printed: Option<Admission>) -> Fake {
        Fake::of("guide-001/route-as-printed").admission("as-printed", printed)
    }

    fn service(ready: &str, accepted: &str, pods: u64, mode: &str) -> Fake {
        let said = |kind: &str, status: &str| object_saying(&[(kind, status, "")]);
        let picker = json!({"name": "qwen-instruct-epp-service", "failureMode": mode});
        Fake::of("guide-001/llm-service")
            .object("service", said("Ready", ready))
            .object("route", said("Accepted", accepted))
            .object("pool", json!({"spec": {"endpointPickerRef": picker}}))
            .fact("pods", json!(pods))
    }

    fn replied(model: &str, tokens: [u64; 3]) -> Fake {
        let body = json!({"model": model, "usage": usage(tokens)}).to_string();
        Fake::of("guide-001/chat-completion")
            .pool(SERVICE, 4)
            .picked("streamed", SERVICE, 1)
            .picked("as-printed", SERVICE, 2)
            .with_response(|response| response.body = verdict::history::Body::of(body.as_bytes()))
    }

    fn prefixes(places: [[usize; 2]; 4]) -> Fake {
        let fake = Fake::of("guide-001/prefix-affinity").pool(SERVICE, 4);
        PREFIXES.iter().zip(places).fold(fake, |fake, ((prefix, ..), [first, last])| {
            fake.times(ROUNDS - 1, |fake, _| fake.picked(prefix, SERVICE, first)).picked(prefix, SERVICE, last)
        })
    }

    /// The pods that answered the prompts of each prefix, the last time another one where told.
    fn answered(strays: bool) -> Fake {
        let pods = ["a", "b", "a", "c"];
        let fake = Fake::of("guide-001/real-parts");
        PREFIXES.iter().zip(pods).fold(fake, |fake, ((prefix, ..), pod)| {
            let by = |fake: Fake, pod: &str| fake.answer(prefix, 200, &[("x-inference-pod", pod)], "{}");
            let fake = fake.times(ROUNDS - 1, |fake, _| by(fake, pod));
            by(fake, if strays { "z" } else { pod })
        })
    }

    /// The spending of 1000 tokens an hour by replies of 199, and refusals.
    pub fn hour(check: &str, admitted: u64, refused: u64) -> Fake {
        let fake = (0..admitted).fold(Fake::of(check).declares(token_limit()), |fake, i| {
            fake.admitted_for("spend", TOKENS, TOKENS.saturating_sub(199 * i), 3000, 199)
        });
        (0..refused).fold(fake, |fake, _| fake.limited("spend", TOKENS, 0, 3000))
    }

    fn refill(late: u16, next: u16) -> Fake {
        let said = |fake: Fake, label: &str, status: u16| match status {
            200 => fake.admitted(label, TOKENS, TOKENS, 5),
            _ => fake.limited(label, TOKENS, 0, 5),
        };
        let fake = said(hour("guide-001/refill-after-an-hour", 6, 4), "late-in-the-window", late);
        said(fake, "next-window", next)
    }

    #[rstest]
    #[case::older_versions_both(older_versions(accepted(), accepted()), Yes)]
    #[case::older_versions_one(older_versions(accepted(), refusal("no matches for kind")), No)]
    #[case::older_versions_not_offered(older_versions(accepted(), None), Unproven)]
    #[case::route_as_printed_in_words(route_as_printed(refusal(OTHER_GROUP)), Yes)]
    #[case::route_as_printed_other_words(route_as_printed(refusal("webhook is down")), No)]
    #[case::route_as_printed_accepted(route_as_printed(accepted()), No)]
    #[case::route_as_printed_not_offered(route_as_printed(None), Unproven)]
    #[case::llm_service_good(service("True", "True", 4, "FailOpen"), Yes)]
    #[case::llm_service_not_ready(service("False", "True", 4, "FailOpen"), No)]
    #[case::llm_service_route(service("True", "False", 4, "FailOpen"), No)]
    #[case::llm_service_too_few(service("True", "True", 3, "FailOpen"), No)]
    #[case::llm_service_mode(service("True", "True", 4, "FailClose"), No)]
    #[case::chat_completion_good(replied(MODEL, [24, 5, 29]), Yes)]
    #[case::chat_completion_other_model(replied("other", [24, 5, 29]), No)]
    #[case::chat_completion_sum(replied(MODEL, [24, 5, 30]), No)]
    #[case::chat_completion_bypassed(replied(MODEL, [24, 5, 29]).past_the_picker("streamed", SERVICE, 1), No)]
    #[case::chat_completion_no_records(replied(MODEL, [24, 5, 29]).without_picker_records(SERVICE), Unproven)]
    #[case::prefix_affinity_sticks(prefixes([[0, 0], [1, 1], [2, 2], [0, 0]]), Yes)]
    #[case::prefix_affinity_strays(prefixes([[0, 0], [1, 3], [2, 2], [0, 0]]), No)]
    #[case::prefix_affinity_all_at_one(prefixes([[0, 0]; 4]), No)]
    #[case::prefix_affinity_past_the_picker(prefixes([[0, 0], [1, 1], [2, 2], [3, 3]]).past_the_picker("prefix-1", SERVICE, 0), No)]
    #[case::prefix_affinity_no_records(prefixes([[0, 0], [1, 1], [2, 2], [3, 3]]).without_picker_records(SERVICE), Unproven)]
    #[case::real_parts_sticks(answered(false), Yes)]
    #[case::real_parts_strays(answered(true), No)]
    #[case::real_parts_refused(answered(false).refused("prefix-2", 500), No)]
    #[case::real_parts_unnamed(Fake::of("guide-001/real-parts").answer("prefix-1", 200, &[], "{}"), Unproven)]
    #[case::real_parts_all_at_one(PREFIXES.iter().fold(Fake::of("guide-001/real-parts"), |fake, (prefix, ..)| {
        fake.times(ROUNDS, |fake, _| fake.answer(prefix, 200, &[("x-inference-pod", "a")], "{}"))
    }), No)]
    #[case::token_limit_as_declared(hour("guide-001/token-limit", 6, 4).admitted("another-user", TOKENS, TOKENS, 3000), Yes)]
    #[case::token_limit_too_few(hour("guide-001/token-limit", 5, 5).admitted("another-user", TOKENS, TOKENS, 3000), No)]
    #[case::token_limit_never_refused(hour("guide-001/token-limit", 10, 0).admitted("another-user", TOKENS, TOKENS, 3000), No)]
    #[case::token_limit_one_budget_for_all(hour("guide-001/token-limit", 6, 4).limited("another-user", TOKENS, 0, 3000), No)]
    #[case::refill_as_declared(refill(429, 200), Yes)]
    #[case::refill_early(refill(200, 200), No)]
    #[case::refill_never(refill(429, 429), No)]
    fn judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(fake.verdict(), holds);
    }
}
