//! Transformations: headers that a route or a policy changes, and bodies that nobody does.

use std::path::PathBuf;

use anyhow::Result;
use rstest::rstest;
use serde_json::{Value, json};
use suites::{
    Call, Model, ObjectRef, Stage, Until, chat, check, proof, replies,
    stream::{self, InStep},
};
use verdict::{
    history::{Admission, Exchange, History},
    judge::Judgement,
    observation::Observer,
};

/// Header with a value that is written in the configuration.
const FIXED: &str = "x-igc-fixed";
/// That value.
const VALUE: &str = "as configured";
/// Header with the model that the request's body names.
const REQUESTED: &str = "x-requested-model";
/// Header with the model that the reply's body names.
const ACTUAL: &str = "x-actual-model";
/// Header whose expression cannot be compiled.
const BROKEN: &str = "x-igc-broken";

/// What an intent calls the sources of a header's value, with the header that has it here.
const SOURCES: [(&str, &str); 3] = [("fixed", FIXED), ("request-model", REQUESTED), ("response-model", ACTUAL)];

/// The sources that a gateway declares.
fn sources(declared: &Value) -> impl Iterator<Item = (&'static str, &'static str)> + '_ {
    let sources = declared.as_array().map(Vec::as_slice).unwrap_or_default();
    SOURCES.into_iter().filter(|(source, _)| sources.iter().any(|s| s == source))
}

/// Routes the stage's own hostname to the model, with a header from every source that the gateway declares.
async fn transform(stage: &mut Stage, model: &Model) -> Result<()> {
    let host = stage.hostname().to_owned();
    transform_hosts(stage, model, &[&host]).await?;
    stage.settle_header(|| chat(&host, "alpha"), FIXED).await
}

async fn transform_hosts(stage: &mut Stage, model: &Model, hosts: &[&str]) -> Result<()> {
    let declared = stage.declared("sources");
    let headers: Vec<Value> =
        sources(&declared).map(|(source, name)| json!({"name": name, "source": source, "value": VALUE})).collect();
    stage.intent("transform", json!({"service": model.service, "hostnames": hosts, "headers": headers})).await
}

/// Routes a hostname to the model and changes nothing.
async fn plain(stage: &mut Stage, model: &Model, name: &str, host: &str) -> Result<()> {
    let everything = json!({"path": {"type": "PathPrefix", "value": "/"}});
    let rules = json!([{"match": everything, "service": model.service, "port": 80}]);
    stage.intent("http-route", json!({"name": name, "hostname": host, "rules": rules})).await?;
    stage.settle(|| chat(host, "alpha"), "alpha").await
}

fn observe(history: &History) -> Value {
    Observer::new(history).with_values_of(&[FIXED, REQUESTED, ACTUAL, BROKEN]).all()
}

/// Every header that the gateway declares is on the replies: the fixed one, and the others with these models.
fn judge_headers(judgement: &mut Judgement, history: &History, label: &str, requested: &[&str], actual: &[&str]) {
    let declared = history.declared.get("sources").cloned().unwrap_or_default();
    if sources(&declared).next().is_none() {
        judgement.unproven(label, "a declaration of sources", "the gateway's folder declares none");
    }
    for (source, name) in sources(&declared) {
        let wanted = match source {
            "fixed" => &[VALUE],
            "request-model" => requested,
            _ => actual,
        };
        proof::reply_has(judgement, history, label, name, wanted);
    }
}

#[rstest]
#[tokio::test]
async fn request_header(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("transformation/request-header", "-", &folder).run(drive_request_header, judge_request_header).await;
}

/// What the route does to the headers of one direction.
fn modifier() -> Value {
    let header = |name: &str| json!([{"name": name, "value": "by-route"}]);
    json!({"set": header("x-igc-set"), "add": header("x-igc-add"), "remove": ["x-igc-remove"]})
}

/// Routes the stage's own hostname to the model, with headers modified in both directions.
async fn modified(stage: &mut Stage) -> Result<String> {
    let alpha = stage.model("alpha").await?;
    let host = stage.hostname().to_owned();
    let context = json!({"service": alpha.service, "request": modifier(), "response": modifier()});
    stage.intent("modify-headers", context).await?;
    stage.settle_header(|| chat(&host, "alpha"), "x-igc-set").await?;
    Ok(host)
}

async fn drive_request_header(stage: &mut Stage) -> Result<()> {
    let host = modified(stage).await?;
    stage.begin().await?;
    stage.send("bare", chat(&host, "alpha")).await;
    let mut call = chat(&host, "alpha");
    for name in ["x-igc-set", "x-igc-add", "x-igc-remove", "x-igc-other"] {
        call = call.header(name, "by-client");
    }
    stage.send("given", call).await;
    let call = chat(&host, "alpha").header("connection", "keep-alive, x-igc-hop").header("x-igc-hop", "by-client");
    stage
        .send("of-the-connection", call.header("keep-alive", "timeout=5").header("proxy-connection", "keep-alive"))
        .await;
    stage.end().await
}

fn judge_request_header(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    for label in ["bare", "given", "of-the-connection"] {
        proof::answered_by(&mut judgement, history, label, "alpha");
        proof::model_got(&mut judgement, history, label, "x-igc-set", &["by-route"]);
        proof::model_got(&mut judgement, history, label, "x-igc-remove", &[]);
    }
    proof::model_got(&mut judgement, history, "bare", "x-igc-add", &["by-route"]);
    proof::model_got(&mut judgement, history, "given", "x-igc-add", &["by-client", "by-route"]);
    proof::model_got(&mut judgement, history, "given", "x-igc-other", &["by-client"]);
    for name in ["x-igc-hop", "keep-alive", "proxy-connection"] {
        proof::model_got(&mut judgement, history, "of-the-connection", name, &[]);
    }
    judgement
}

#[rstest]
#[tokio::test]
async fn response_header(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("transformation/response-header", "-", &folder).run(drive_response_header, judge_response_header).await;
}

async fn drive_response_header(stage: &mut Stage) -> Result<()> {
    let host = modified(stage).await?;
    stage.begin().await?;
    stage.send("bare", chat(&host, "alpha")).await;
    let mut call = chat(&host, "alpha");
    for name in ["x-igc-set", "x-igc-add", "x-igc-remove", "x-igc-other"] {
        call = call.header("x-igc-header", format!("{name}: by-model"));
    }
    stage.send("given", call).await;
    stage.send("of-the-connection", chat(&host, "alpha").header("x-igc-header", "keep-alive: timeout=5")).await;
    stage.end().await
}

fn judge_response_header(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    for label in ["bare", "given", "of-the-connection"] {
        proof::answered_by(&mut judgement, history, label, "alpha");
        proof::reply_has(&mut judgement, history, label, "x-igc-set", &["by-route"]);
        proof::reply_has(&mut judgement, history, label, "x-igc-remove", &[]);
    }
    proof::reply_has(&mut judgement, history, "bare", "x-igc-add", &["by-route"]);
    proof::reply_has(&mut judgement, history, "given", "x-igc-add", &["by-model", "by-route"]);
    proof::reply_has(&mut judgement, history, "given", "x-igc-other", &["by-model"]);
    proof::reply_has(&mut judgement, history, "of-the-connection", "keep-alive", &[]);
    judgement
}

#[rstest]
#[tokio::test]
async fn response_header_from_request(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("transformation/response-header-from-request", "-", &folder)
        .observing(observe)
        .run(drive_from_request, judge_from_request)
        .await;
}

async fn drive_from_request(stage: &mut Stage) -> Result<()> {
    let alpha = stage.model("alpha").await?;
    transform(stage, &alpha).await?;
    let host = stage.hostname().to_owned();
    let elsewhere = br#"{"model":"somebody"}"#;
    stage.begin().await?;
    stage.send("asks-for-alpha", chat(&host, "alpha")).await;
    stage.send("alpha-says-somebody", replies(chat(&host, "alpha"), elsewhere, "application/json")).await;
    stage
        .send("alpha-sends-the-header", chat(&host, "alpha").header("x-igc-header", format!("{REQUESTED}: nobody")))
        .await;
    stage.send("asks-for-nobody", chat(&host, "nobody")).await;
    stage.send("asks-for-nothing", Call::get("/v1/models").host(&host)).await;
    stage.end().await
}

fn judge_from_request(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    for label in ["asks-for-alpha", "alpha-says-somebody", "alpha-sends-the-header"] {
        proof::answered_by(&mut judgement, history, label, "alpha");
        proof::reply_has(&mut judgement, history, label, REQUESTED, &["alpha"]);
    }
    proof::reply_has(&mut judgement, history, "asks-for-nobody", REQUESTED, &["nobody"]);
    proof::reply_has(&mut judgement, history, "asks-for-nothing", REQUESTED, &[]);
    judgement
}

#[rstest]
#[tokio::test]
async fn response_header_from_response(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("transformation/response-header-from-response", "-", &folder)
        .observing(observe)
        .run(drive_from_response, judge_from_response)
        .await;
}

async fn drive_from_response(stage: &mut Stage) -> Result<()> {
    let alpha = stage.model("alpha").await?;
    transform(stage, &alpha).await?;
    let host = stage.hostname().to_owned();
    stage.begin().await?;
    for (label, body, content_type) in [
        ("says-somebody", r#"{"model":"somebody"}"#, "application/json"),
        ("names-no-model", r#"{"error":{"code":404}}"#, "application/json"),
        ("is-no-json", "alpha", "text/plain"),
    ] {
        stage.send(label, replies(chat(&host, "alpha"), body.as_bytes(), content_type)).await;
    }
    stage.send("says-alpha", chat(&host, "alpha").header("x-igc-header", format!("{ACTUAL}: nobody"))).await;
    stage.end().await
}

fn judge_from_response(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    for (label, wanted) in
        [("says-somebody", &["somebody"][..]), ("says-alpha", &["alpha"]), ("names-no-model", &[]), ("is-no-json", &[])]
    {
        proof::answered_by(&mut judgement, history, label, "alpha");
        proof::reply_has(&mut judgement, history, label, ACTUAL, wanted);
    }
    judgement
}

#[rstest]
#[tokio::test]
async fn absent_without_policy(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("transformation/absent-without-policy", "-", &folder)
        .observing(observe)
        .run(drive_absent_without_policy, judge_absent_without_policy)
        .await;
}

async fn drive_absent_without_policy(stage: &mut Stage) -> Result<()> {
    let alpha = stage.model("alpha").await?;
    let host = stage.hostname().to_owned();
    let neighbour = format!("neighbour.{host}");
    let route = stage.route();
    plain(stage, &alpha, "neighbour", &neighbour).await?;
    plain(stage, &alpha, route, &host).await?;
    stage.begin().await?;
    stage.send("before", chat(&host, "alpha")).await;
    transform(stage, &alpha).await?;
    for _ in 0..3 {
        stage.send("transformed", chat(&host, "alpha")).await;
        stage.send("neighbour", chat(&neighbour, "alpha")).await;
    }
    stage.end().await
}

fn judge_absent_without_policy(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    for label in ["before", "neighbour"] {
        proof::answered_by(&mut judgement, history, label, "alpha");
        for (_, name) in SOURCES {
            proof::reply_has(&mut judgement, history, label, name, &[]);
        }
    }
    proof::answered_by(&mut judgement, history, "transformed", "alpha");
    judge_headers(&mut judgement, history, "transformed", &["alpha"], &["alpha"]);
    judgement
}

#[rstest]
#[tokio::test]
async fn body_untouched(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("transformation/body-untouched", "-", &folder).run(drive_body_untouched, judge_body_untouched).await;
}

/// JSON as few would write it: order, spaces, escapes, a number that no float holds, a name twice, an empty line at the end.
const ODD: &str =
    "{ \"z\": 1.0e+00,\t\"model\" : \"\\u0061lpha\",\n\"a\":12345678901234567890,\"a\":[ ],\"\u{fc}\":\"\\/\" }\n\n";

/// The bodies that are sent, by label.
const BODIES: [&str; 3] = ["odd", "long", "not-text"];

async fn drive_body_untouched(stage: &mut Stage) -> Result<()> {
    let alpha = stage.model("alpha").await?;
    let host = stage.hostname().to_owned();
    let plain_host = format!("plain.{host}");
    plain(stage, &alpha, "plain", &plain_host).await?;
    transform(stage, &alpha).await?;
    let post = |host: &str| Call::post("/v1/chat/completions").host(host);
    let long =
        json!({"model": "alpha", "messages": [{"role": "user", "content": "Hello"}], "user": "u".repeat(100_000)});
    stage.begin().await?;
    for (route, host) in [("plain", plain_host), ("transformed", host)] {
        let odd = post(&host).body(ODD, "application/json");
        stage.send(&format!("{route}-odd"), replies(odd, ODD.as_bytes(), "application/json")).await;
        let long = post(&host).body(long.to_string(), "application/json").header("x-igc-padding", "100000");
        stage.send(&format!("{route}-long"), long).await;
        let bytes: Vec<u8> = (0..=255).cycle().take(1000).collect();
        let not_text = post(&host).body(bytes.clone(), "application/octet-stream");
        stage.send(&format!("{route}-not-text"), replies(not_text, &bytes, "application/octet-stream")).await;
    }
    stage.end().await
}

fn judge_body_untouched(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    for route in ["plain", "transformed"] {
        for body in BODIES {
            let label = format!("{route}-{body}");
            proof::answered_by(&mut judgement, history, &label, "alpha");
            proof::request_untouched(&mut judgement, history, &label);
            proof::reply_untouched(&mut judgement, history, &label);
        }
    }
    judgement
}

#[rstest]
#[tokio::test]
async fn bad_expression(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("transformation/bad-expression", "-", &folder)
        .observing(observe)
        .run(drive_bad_expression, judge_bad_expression)
        .await;
}

/// Until a controller has said of an object how it stands.
fn says_how_it_stands() -> Until {
    Until::holds("conditions in the status", |object| Ok(!conditions(&object["status"]).is_empty()))
}

/// All conditions in a status, wherever they stand.
fn conditions(status: &Value) -> Vec<&Value> {
    match status {
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(name, value)| match value {
                Value::Array(all) if name == "conditions" => all.iter().collect(),
                other => conditions(other),
            })
            .collect(),
        Value::Array(items) => items.iter().flat_map(conditions).collect(),
        _ => vec![],
    }
}

async fn drive_bad_expression(stage: &mut Stage) -> Result<()> {
    let alpha = stage.model("alpha").await?;
    let host = stage.hostname().to_owned();
    let headers = json!([{"name": BROKEN, "source": "nonsense", "value": null}]);
    let context = json!({"service": alpha.service, "hostnames": [host], "headers": headers});
    let manifests = stage.manifests("transform", context)?;
    for manifest in &manifests {
        stage.offer(manifest["kind"].as_str().unwrap_or_default(), manifest).await?;
    }
    if let Some(Ok(policy)) = manifests.last().map(ObjectRef::of) {
        stage.see("policy", &policy, says_how_it_stands(), 60).await?;
    }
    stage.settle_status(|| chat(&host, "alpha"), |status| status != 404).await?;
    stage.begin().await?;
    for _ in 0..5 {
        stage.send("traffic", chat(&host, "alpha")).await;
    }
    stage.end().await
}

fn judge_bad_expression(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    let refused = history.admissions.values().find_map(|admission| match admission {
        Admission::Refused { message, .. } => Some(message.clone()),
        Admission::Accepted { .. } => None,
    });
    let policy = history.objects.get("policy").cloned().unwrap_or_default();
    let complaint = conditions(&policy["status"]).into_iter().find_map(|condition| {
        let text = |field: &str| condition[field].as_str().unwrap_or_default();
        let complains = text("status") == "False" || text("message").to_lowercase().contains("expression");
        complains.then(|| format!("{}={} ({}: {})", text("type"), text("status"), text("reason"), text("message")))
    });
    let said = refused.or(complaint);
    if history.admissions.is_empty() {
        judgement.unproven("said", "a policy that was offered", "there is none");
    } else {
        let got = said.clone().unwrap_or_else(|| "accepted, and every condition is fine".into());
        judgement.that("said", said.is_some(), "refused, or a condition that names the expression", got, []);
    }
    let traffic: Vec<&Exchange> = history.labelled("traffic").collect();
    if traffic.is_empty() {
        judgement.unproven("traffic", "requests called traffic", "none was sent");
    }
    let fails = |e: &&&Exchange| e.status().is_none_or(|status| status >= 500);
    let failed: Vec<&Exchange> = traffic.iter().filter(fails).copied().collect();
    let got = failed
        .first()
        .map_or("none fails".to_owned(), |e| format!("{} of {}: {}", failed.len(), traffic.len(), e.outcome_words()));
    let holds = failed.is_empty() || said.is_some();
    judgement.that("traffic", holds, "no failure that no condition speaks of", got, failed.iter().copied().take(3));
    if failed.is_empty() {
        proof::answered_by(&mut judgement, history, "traffic", "alpha");
    }
    proof::reply_has(&mut judgement, history, "traffic", BROKEN, &[]);
    judgement
}

#[rstest]
#[tokio::test]
async fn on_stream(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("transformation/on-stream", "-", &folder)
        .observing(|history| {
            let mut observed = stream::observe(history);
            observed["exchanges"] = observe(history)["exchanges"].clone();
            observed
        })
        .run(drive_on_stream, judge_on_stream)
        .await;
}

async fn drive_on_stream(stage: &mut Stage) -> Result<()> {
    let alpha = stage.model("alpha").await?;
    transform(stage, &alpha).await?;
    let host = stage.hostname().to_owned();
    stage.begin().await?;
    InStep::new("stream", chat(&host, "alpha"), &alpha, 6).send(stage).await?;
    stage.end().await
}

fn judge_on_stream(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    proof::answered_by(&mut judgement, history, "stream", "alpha");
    stream::judge_first(&mut judgement, history, "stream");
    proof::reply_untouched(&mut judgement, history, "stream");
    let absent = history.declared.get("absent-on-streams").cloned().unwrap_or_default();
    let model = |source: &str| -> &[&str] { if sources(&absent).any(|(s, _)| s == source) { &[] } else { &["alpha"] } };
    judge_headers(&mut judgement, history, "stream", model("request-model"), model("response-model"));
    judgement
}

#[rstest]
#[tokio::test]
async fn gzip(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("transformation/gzip", "-", &folder).observing(observe).run(drive_gzip, judge_gzip).await;
}

/// The reply of which a compressed form is sent.
const PLAIN: &str = r#"{"model":"somebody","choices":[]}"#;

async fn drive_gzip(stage: &mut Stage) -> Result<()> {
    let alpha = stage.model("alpha").await?;
    transform(stage, &alpha).await?;
    let host = stage.hostname().to_owned();
    stage.begin().await?;
    let call = chat(&host, "alpha").header("accept-encoding", "gzip").header("x-igc-gzip", "1");
    stage.send("compressed", replies(call, PLAIN.as_bytes(), "application/json")).await;
    stage.end().await
}

fn judge_gzip(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    proof::answered_by(&mut judgement, history, "compressed", "alpha");
    for exchange in history.labelled("compressed") {
        let Some(response) = exchange.response() else { continue };
        match response.header("content-encoding") {
            // Compressed as the model did it: whoever compresses anew has to tell us how to read it.
            Some(_) => proof::reply_untouched(&mut judgement, history, "compressed"),
            None => {
                let got = response.body.text.clone().unwrap_or_else(|| "bytes that are no text".into());
                judgement.that("compressed-reads", got == PLAIN, "the reply, uncompressed", got, [exchange]);
            }
        }
    }
    judge_headers(&mut judgement, history, "compressed", &["alpha"], &["somebody"]);
    judgement
}

#[rstest]
#[case::request("request")]
#[case::reply("reply")]
#[tokio::test]
async fn large_body(#[case] case: &'static str, #[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("transformation/large-body", case, &folder).observing(observe).run(drive_large_body, judge_large_body).await;
}

async fn drive_large_body(stage: &mut Stage) -> Result<()> {
    const LARGE: usize = 3_000_000;
    let alpha = stage.model("alpha").await?;
    transform(stage, &alpha).await?;
    let host = stage.hostname().to_owned();
    let mut body = json!({"model": "alpha", "messages": [{"role": "user", "content": "Hello"}]});
    let mut call = Call::post("/v1/chat/completions").host(&host);
    if stage.case() == "request" {
        body["user"] = json!("u".repeat(LARGE));
    } else {
        call = call.header("x-igc-padding", LARGE.to_string());
    }
    stage.begin().await?;
    stage.send("large", call.json(&body)).await;
    stage.end().await
}

fn judge_large_body(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    proof::answered_by(&mut judgement, history, "large", "alpha");
    proof::request_untouched(&mut judgement, history, "large");
    proof::reply_untouched(&mut judgement, history, "large");
    judge_headers(&mut judgement, history, "large", &["alpha"], &["alpha"]);
    judgement
}

#[rstest]
#[tokio::test]
async fn survives_route_update(#[files("../manifests/gateways/*/gateway.yaml")] folder: PathBuf) {
    check("transformation/survives-route-update", "-", &folder)
        .observing(observe)
        .run(drive_survives_route_update, judge_survives_route_update)
        .await;
}

async fn drive_survives_route_update(stage: &mut Stage) -> Result<()> {
    let alpha = stage.model("alpha").await?;
    transform(stage, &alpha).await?;
    let host = stage.hostname().to_owned();
    let added = format!("added.{host}");
    stage.begin().await?;
    stage.send("before", chat(&host, "alpha")).await;
    transform_hosts(stage, &alpha, &[&host, &added]).await?;
    for _ in 0..5 {
        stage.send("meanwhile", chat(&host, "alpha")).await;
    }
    stage.settle(|| chat(&added, "alpha"), "alpha").await?; // the change is live
    for _ in 0..5 {
        stage.send("after", chat(&host, "alpha")).await;
        stage.send("added", chat(&added, "alpha")).await;
    }
    stage.end().await
}

fn judge_survives_route_update(history: &History) -> Judgement {
    let mut judgement = Judgement::new();
    proof::live(&mut judgement, history);
    for label in ["before", "meanwhile", "after", "added"] {
        proof::answered_by(&mut judgement, history, label, "alpha");
        judge_headers(&mut judgement, history, label, &["alpha"], &["alpha"]);
    }
    judgement
}

mod judges {
    use rstest::rstest;
    use suites::{
        fake::{Fake, verdict_of},
        stream::Step::{self, *},
    };
    use verdict::{
        history::{Body, Ended, Outcome, Sent},
        judge::{Holds, Judge},
    };

    use super::*;

    type Headers = [(&'static str, &'static str)];

    /// A 200 of alpha with these headers, which the model got with those.
    fn exchanged(fake: Fake, label: &str, reply: &Headers, at_model: &Headers) -> Fake {
        fake.answer(label, 200, reply, "{}").also_reached("alpha").with_model_headers(at_model)
    }

    const SET: (&str, &str) = ("x-igc-set", "by-route");
    const ADDED: (&str, &str) = ("x-igc-add", "by-route");

    /// The three requests, the last two as the model got them.
    fn requests(given: &Headers, of_the_connection: &Headers) -> Fake {
        let fake = exchanged(Fake::of("transformation/request-header").model("alpha"), "bare", &[], &[SET, ADDED]);
        let fake = exchanged(fake, "given", &[], given);
        exchanged(fake, "of-the-connection", &[], of_the_connection)
    }

    const GIVEN: [(&str, &str); 3] =
        [("X-Igc-Set", "by-route"), ("x-igc-add", "by-client,by-route"), ("x-igc-other", "by-client")];

    #[rstest]
    #[case::as_it_should(requests(&GIVEN, &[SET]), Holds::Yes)]
    #[case::added_on_a_line_of_its_own(requests(&[SET, ("x-igc-add", "by-client"), ADDED, GIVEN[2]], &[SET]), Holds::Yes)]
    #[case::set_appends(requests(&[("x-igc-set", "by-client"), GIVEN[0], GIVEN[1], GIVEN[2]], &[SET]), Holds::No)]
    #[case::add_replaces(requests(&[SET, ADDED, GIVEN[2]], &[SET]), Holds::No)]
    #[case::not_removed(requests(&[GIVEN[0], GIVEN[1], GIVEN[2], ("x-igc-remove", "by-client")], &[SET]), Holds::No)]
    #[case::another_one_removed(requests(&GIVEN[..2], &[SET]), Holds::No)]
    #[case::nominated_header_leaks(requests(&GIVEN, &[SET, ("x-igc-hop", "by-client")]), Holds::No)]
    #[case::keep_alive_leaks(requests(&GIVEN, &[SET, ("Keep-Alive", "timeout=5")]), Holds::No)]
    #[case::proxy_connection_leaks(requests(&GIVEN, &[SET, ("proxy-connection", "keep-alive")]), Holds::No)]
    #[case::nothing_happened(Fake::of("transformation/request-header").model("alpha"), Holds::Unproven)]
    fn request_header_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_request_header, &fake), holds);
    }

    fn responses(given: &Headers, of_the_connection: &Headers) -> Fake {
        let fake = exchanged(Fake::of("transformation/response-header").model("alpha"), "bare", &[SET, ADDED], &[]);
        let fake = exchanged(fake, "given", given, &[]);
        exchanged(fake, "of-the-connection", of_the_connection, &[])
    }

    const REPLY: [(&str, &str); 3] = [SET, ("x-igc-add", "by-model, by-route"), ("x-igc-other", "by-model")];

    #[rstest]
    #[case::as_it_should(responses(&REPLY, &[SET]), Holds::Yes)]
    #[case::not_at_all(responses(&[("x-igc-set", "by-model"), ("x-igc-add", "by-model"), REPLY[2]], &[]), Holds::No)]
    #[case::not_removed(responses(&[REPLY[0], REPLY[1], REPLY[2], ("x-igc-remove", "by-model")], &[SET]), Holds::No)]
    #[case::another_one_removed(responses(&REPLY[..2], &[SET]), Holds::No)]
    #[case::keep_alive_leaks(responses(&REPLY, &[SET, ("keep-alive", "timeout=5")]), Holds::No)]
    #[case::from_nobody(responses(&REPLY, &[SET]).answer("bare", 200, &[SET, ADDED], "{}"), Holds::No)]
    fn response_header_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_response_header, &fake), holds);
    }

    /// Answers with a header, in the order of the labels; no value is no header.
    fn said(check: &str, name: &'static str, said: &[(&str, Option<&'static str>)]) -> Fake {
        let mut fake = Fake::of(check).model("alpha");
        for (label, value) in said {
            let headers: Vec<(&str, &str)> = value.iter().map(|value| (name, *value)).collect();
            fake = fake.answer(label, 200, &headers, "{}").also_reached("alpha");
        }
        fake
    }

    fn requested(
        alpha: Option<&'static str>,
        scripted: Option<&'static str>,
        nobody: Option<&'static str>,
        nothing: Option<&'static str>,
    ) -> Fake {
        let check = "transformation/response-header-from-request";
        said(
            check,
            REQUESTED,
            &[
                ("asks-for-alpha", alpha),
                ("alpha-says-somebody", scripted),
                ("alpha-sends-the-header", Some("alpha")),
                ("asks-for-nobody", nobody),
                ("asks-for-nothing", nothing),
            ],
        )
    }

    #[rstest]
    #[case::of_the_request(requested(Some("alpha"), Some("alpha"), Some("nobody"), None), Holds::Yes)]
    #[case::of_the_reply(requested(Some("alpha"), Some("somebody"), Some("nobody"), None), Holds::No)]
    #[case::absent(requested(None, None, None, None), Holds::No)]
    #[case::of_the_request_before(requested(Some("alpha"), Some("alpha"), Some("alpha"), None), Holds::No)]
    #[case::kept_where_nothing_is_asked(
        requested(Some("alpha"), Some("alpha"), Some("nobody"), Some("nobody")),
        Holds::No
    )]
    #[case::never_live(requested(Some("alpha"), Some("alpha"), Some("nobody"), None).unsettled(), Holds::No)]
    #[case::nothing_happened(Fake::of("transformation/response-header-from-request").model("alpha"), Holds::Unproven)]
    fn response_header_from_request_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_from_request, &fake), holds);
    }

    fn named(somebody: Option<&'static str>, no_model: Option<&'static str>, alpha: Option<&'static str>) -> Fake {
        let check = "transformation/response-header-from-response";
        said(
            check,
            ACTUAL,
            &[("says-somebody", somebody), ("names-no-model", no_model), ("is-no-json", None), ("says-alpha", alpha)],
        )
    }

    #[rstest]
    #[case::of_the_reply(named(Some("somebody"), None, Some("alpha")), Holds::Yes)]
    #[case::of_the_request(named(Some("alpha"), None, Some("alpha")), Holds::No)]
    #[case::absent(named(None, None, None), Holds::No)]
    #[case::made_up(named(Some("somebody"), Some("alpha"), Some("alpha")), Holds::No)]
    #[case::of_the_upstream(named(Some("somebody"), None, Some("nobody")), Holds::No)]
    #[case::empty(named(Some("somebody"), Some(""), Some("alpha")), Holds::No)]
    fn response_header_from_response_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_from_response, &fake), holds);
    }

    const ALL: [(&str, &str); 3] = [(FIXED, VALUE), (REQUESTED, "alpha"), (ACTUAL, "alpha")];

    fn declares(check: &str, sources: &[&str]) -> Fake {
        Fake::of(check).declares("sources", json!(sources)).model("alpha")
    }

    fn everything(check: &str) -> Fake {
        declares(check, &["fixed", "request-model", "response-model"])
    }

    fn neighbours(fake: Fake, before: &Headers, transformed: &Headers, neighbour: &Headers) -> Fake {
        let fake = exchanged(fake, "before", before, &[]);
        exchanged(exchanged(fake, "transformed", transformed, &[]), "neighbour", neighbour, &[])
    }

    const ABSENT: &str = "transformation/absent-without-policy";

    #[rstest]
    #[case::only_there(neighbours(everything(ABSENT), &[], &ALL, &[]), Holds::Yes)]
    #[case::as_far_as_declared(neighbours(declares(ABSENT, &["fixed"]), &[], &ALL[..1], &[]), Holds::Yes)]
    #[case::less_than_declared(neighbours(everything(ABSENT), &[], &ALL[..1], &[]), Holds::No)]
    #[case::on_the_neighbour(neighbours(everything(ABSENT), &[], &ALL, &ALL[..1]), Holds::No)]
    #[case::before_it_was_said(neighbours(everything(ABSENT), &ALL, &ALL, &[]), Holds::No)]
    #[case::nowhere(neighbours(everything(ABSENT), &[], &[], &[]), Holds::No)]
    #[case::undeclared(neighbours(declares(ABSENT, &[]), &[], &ALL, &[]), Holds::Unproven)]
    fn absent_without_policy_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_absent_without_policy, &fake), holds);
    }

    fn digest(bytes: &[u8]) -> Sent {
        let body = Body::of(bytes);
        Sent { bytes: body.bytes, sha256: body.sha256 }
    }

    /// All bodies pass, on both routes, but for the last: the model got `request`, the client got `reply`.
    fn bodies(request: &'static [u8], reply: &str) -> Fake {
        let mut fake = Fake::of("transformation/body-untouched").model("alpha");
        for label in
            ["plain-odd", "plain-long", "plain-not-text", "transformed-odd", "transformed-long", "transformed-not-text"]
        {
            let last = label == "transformed-not-text";
            let (request, reply) = if last { (request, reply) } else { (&b"abc"[..], "abc") };
            fake = fake.answer(label, 200, &[], reply).also_reached("alpha");
            fake = fake.with_exchange(|exchange| exchange.request.body = Body::of(b"abc")).with_record(|record| {
                record.body = Body::of(request);
                record.sent = Some(digest(b"abc"));
            });
        }
        fake
    }

    #[rstest]
    #[case::equal(bodies(b"abc", "abc"), Holds::Yes)]
    #[case::request_changed(bodies(b"abd", "abc"), Holds::No)]
    #[case::request_cut(bodies(b"ab", "abc"), Holds::No)]
    #[case::reply_changed(bodies(b"abc", "abd"), Holds::No)]
    #[case::reply_cut(bodies(b"abc", "ab"), Holds::No)]
    #[case::reply_broken_off(bodies(b"abc", "abc").with_response(|r| r.ended = Ended::Truncated), Holds::No)]
    #[case::model_did_not_say(bodies(b"abc", "abc").with_record(|record| record.sent = None), Holds::Unproven)]
    #[case::nothing_happened(Fake::of("transformation/body-untouched").model("alpha"), Holds::Unproven)]
    fn body_untouched_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_body_untouched, &fake), holds);
    }

    fn offered(refused: bool, condition: Option<(&str, &str)>, status: u16) -> Fake {
        let fake = Fake::of("transformation/bad-expression")
            .model("alpha")
            .admission("Route", Some(Admission::Accepted { warnings: vec![] }));
        let message = "compile error".to_owned();
        let refusal = Admission::Refused { code: 422, reason: "Invalid".into(), message };
        let fake =
            fake.admission("Policy", Some(if refused { refusal } else { Admission::Accepted { warnings: vec![] } }));
        let said = condition
            .map(|(status, message)| json!({"type": "Accepted", "status": status, "reason": "R", "message": message}));
        let fake = fake
            .object("policy", json!({"status": {"ancestors": [{"conditions": said.into_iter().collect::<Vec<_>>()}]}}));
        if status == 200 { fake.answered("traffic", 200, "alpha") } else { fake.refused("traffic", status) }
    }

    const NAMED: Option<(&str, &str)> = Some(("True", "header value is not a valid CEL expression: x("));
    const FINE: Option<(&str, &str)> = Some(("True", "Policy accepted"));

    #[rstest]
    #[case::refused(offered(true, None, 200), Holds::Yes)]
    #[case::named_in_the_status(offered(false, NAMED, 200), Holds::Yes)]
    #[case::not_accepted(offered(false, Some(("False", "no")), 200), Holds::Yes)]
    #[case::said_and_failing(offered(false, Some(("False", "no")), 500), Holds::Yes)]
    #[case::accepted_silently(offered(false, FINE, 200), Holds::No)]
    #[case::nothing_said(offered(false, None, 200), Holds::No)]
    #[case::silent_and_failing(offered(false, FINE, 500), Holds::No)]
    #[case::no_route(offered(true, None, 404), Holds::No)]
    #[case::a_header_of_nothing(offered(true, None, 200).with_response(|r| r.headers.push((BROKEN.into(), String::new()))), Holds::No)]
    #[case::nothing_happened(Fake::of("transformation/bad-expression").model("alpha"), Holds::Unproven)]
    fn bad_expression_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_bad_expression, &fake), holds);
    }

    const STREAM: &str = "transformation/on-stream";
    const FLOWS: [Step; 4] = [Opened(2), Arrived(2), Opened(4), Arrived(4)];
    const HELD: [Step; 4] = [Opened(2), HeldBack(40), Opened(4), Arrived(4)];

    fn streamed(fake: Fake, headers: &Headers, steps: &[Step]) -> Fake {
        let fake = exchanged(fake, "stream", headers, &[]).fact("steps-stream", json!(steps));
        fake.with_record(|record| record.sent = Some(digest(b"{}")))
    }

    #[rstest]
    #[case::flows(streamed(everything(STREAM), &ALL, &FLOWS), Holds::Yes)]
    #[case::absent_as_declared(streamed(everything(STREAM).declares("absent-on-streams", json!(["response-model"])), &ALL[..2], &FLOWS), Holds::Yes)]
    #[case::absent(streamed(everything(STREAM), &ALL[..2], &FLOWS), Holds::No)]
    #[case::there_though_declared_absent(streamed(everything(STREAM).declares("absent-on-streams", json!(["response-model"])), &ALL, &FLOWS), Holds::No)]
    #[case::buffered(streamed(everything(STREAM), &ALL, &HELD), Holds::No)]
    #[case::changed(streamed(everything(STREAM), &ALL, &FLOWS).with_response(|r| r.body = Body::of(b"")), Holds::No)]
    #[case::nothing_is_known(streamed(everything(STREAM), &ALL, &[]), Holds::Unproven)]
    fn on_stream_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_on_stream, &fake), holds);
    }

    fn packed(headers: &Headers, body: &str) -> Fake {
        let fake = everything("transformation/gzip").answer("compressed", 200, headers, body).also_reached("alpha");
        fake.with_record(|record| record.sent = Some(digest(b"packed")))
    }

    const READ: [(&str, &str); 4] =
        [(FIXED, VALUE), (REQUESTED, "alpha"), (ACTUAL, "somebody"), ("content-encoding", "gzip")];

    #[rstest]
    #[case::passed_on(packed(&READ, "packed"), Holds::Yes)]
    #[case::unpacked(packed(&READ[..3], PLAIN), Holds::Yes)]
    #[case::unpacked_but_says_packed(packed(&READ, PLAIN), Holds::No)]
    #[case::packed_but_does_not_say(packed(&READ[..3], "packed"), Holds::No)]
    #[case::header_lost(packed(&[READ[0], READ[1], READ[3]], "packed"), Holds::No)]
    #[case::refused(everything("transformation/gzip").refused("compressed", 502), Holds::No)]
    fn gzip_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_gzip, &fake), holds);
    }

    fn large(headers: &Headers, request: &'static [u8], reply: &str) -> Fake {
        let fake = everything("transformation/large-body").case("request").answer("large", 200, headers, reply);
        let fake = fake.also_reached("alpha").with_exchange(|exchange| exchange.request.body = Body::of(b"large"));
        fake.with_record(|record| {
            record.body = Body::of(request);
            record.sent = Some(digest(b"large"));
        })
    }

    #[rstest]
    #[case::whole(large(&ALL, b"large", "large"), Holds::Yes)]
    #[case::request_cut(large(&ALL, b"lar", "large"), Holds::No)]
    #[case::reply_cut(large(&ALL, b"large", "lar"), Holds::No)]
    #[case::header_lost(large(&ALL[..2], b"large", "large"), Holds::No)]
    #[case::refused(everything("transformation/large-body").refused("large", 413), Holds::No)]
    fn large_body_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_large_body, &fake), holds);
    }

    fn updated(after: &Headers, added: &Headers) -> Fake {
        let fake = everything("transformation/survives-route-update");
        [("before", &ALL[..]), ("meanwhile", &ALL), ("after", after), ("added", added)]
            .into_iter()
            .fold(fake, |fake, (label, headers)| exchanged(fake, label, headers, &[]))
    }

    #[rstest]
    #[case::goes_on(updated(&ALL, &ALL), Holds::Yes)]
    #[case::lost(updated(&[], &[]), Holds::No)]
    #[case::not_on_what_is_new(updated(&ALL, &[]), Holds::No)]
    #[case::a_blip(updated(&ALL, &ALL).cut("meanwhile"), Holds::No)]
    #[case::lost_once(exchanged(updated(&ALL, &ALL), "meanwhile", &[], &[]), Holds::No)]
    fn survives_route_update_is_judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(verdict_of(judge_survives_route_update, &fake), holds);
    }

    /// A reply that never came is no proof of anything.
    #[rstest]
    #[case(judge_request_header as Judge, "bare")]
    #[case(judge_from_request as Judge, "asks-for-alpha")]
    #[case(judge_gzip as Judge, "compressed")]
    #[case(judge_large_body as Judge, "large")]
    fn a_cut_connection_is_a_failure(#[case] judge: Judge, #[case] label: &str) {
        let fake = everything("transformation/any").cut(label);
        assert!(matches!(fake.0.exchanges[0].outcome, Outcome::Failed { .. }));
        assert_eq!(verdict_of(judge, &fake), Holds::No);
    }
}
