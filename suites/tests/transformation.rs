//! Transformations: headers that a route or a policy changes, and bodies that nobody does.

mod modifiers;

use anyhow::Result;
use serde_json::{Value, json};
use suites::{
    CHECK, Call, Check, Judge, Live, Model, ObjectRef, Stage, chat, chat_with, check, replies, says_how_it_stands,
    stream::{self, InStep},
};
use verdict::{
    capability::{self, HeaderSource, Transformation},
    change::{Change, Direction, Rule},
    history::{Admission, Exchange, History},
    observation::Observer,
    plan::Level,
};

/// Header with a value that is written in the configuration.
const FIXED: &str = "x-igc-fixed";
const VALUE: &str = "as configured";
const REQUESTED: &str = "x-requested-model";
const ACTUAL: &str = "x-actual-model";
const BROKEN: &str = "x-igc-broken";

/// Where a header's value comes from, and the header that has it here.
const SOURCES: [(HeaderSource, &str); 3] =
    [(HeaderSource::Fixed, FIXED), (HeaderSource::RequestModel, REQUESTED), (HeaderSource::ResponseModel, ACTUAL)];

/// The headers that transformed routes give to replies.
fn given() -> Vec<Change> {
    vec![
        Change::header(Direction::Reply, FIXED, Rule::Add, VALUE),
        Change::header(Direction::Reply, REQUESTED, Rule::Set, "alpha|beta|somebody|nobody"),
        Change::header(Direction::Reply, ACTUAL, Rule::Set, "alpha|beta|somebody|nobody"),
    ]
}

const TRANSFORMATION: Check = Check { capability: Some(capability::TRANSFORMATION), changes: given, observe, ..CHECK };
const EXPRESSION: Check = Check { capability: Some(capability::EXPRESSION), ..TRANSFORMATION };

/// Routes the stage's own hostname to the model, with a header from every source that the gateway declares.
async fn transform(stage: &mut Stage, model: &Model) -> Result<()> {
    let host = stage.hostname().to_owned();
    transform_hosts(stage, model, &[&host]).await?;
    stage.settle_header(|| chat("alpha"), FIXED).await
}

async fn transformed(stage: &mut Stage) -> Result<Model> {
    let alpha = stage.model("alpha").await?;
    transform(stage, &alpha).await?;
    Ok(alpha)
}

async fn transform_hosts(stage: &mut Stage, model: &Model, hosts: &[&str]) -> Result<()> {
    let declared = stage.declared::<Transformation>()?;
    let sources = SOURCES.into_iter().filter(|(source, _)| declared.sources.contains(source));
    let headers: Vec<Value> =
        sources.map(|(source, name)| json!({"name": name, "source": source, "value": VALUE})).collect();
    stage.intent("transform", json!({"service": model.service, "hostnames": hosts, "headers": headers})).await
}

async fn plain(stage: &mut Stage, model: &Model, name: &str, host: &str) -> Result<()> {
    stage.plain_route(name, Some(host), &model.service).await?;
    stage.settle(|| chat("alpha").host(host), "alpha").await
}

fn observe(history: &History) -> Value {
    Observer::new(history).with_values_of(&[FIXED, REQUESTED, ACTUAL, BROKEN]).all()
}

/// Every declared header is on the replies, with the models of request and reply; clauses in the order of [`SOURCES`].
fn judge_headers(judge: &mut Judge<'_>, label: &'static str, clauses: [&'static str; 3], models: [&[&str]; 2]) {
    let Some(Transformation { sources, .. }) = judge.declared() else { return };
    if sources.is_empty() {
        let statement = judge.clause(label).expected("sources of a header's value");
        return statement.unproven("the gateway's folder declares none");
    }
    for ((source, header), clause) in SOURCES.into_iter().zip(clauses) {
        let wanted = match source {
            HeaderSource::Fixed => &[VALUE],
            HeaderSource::RequestModel => models[0],
            HeaderSource::ResponseModel => models[1],
        };
        if sources.contains(&source) {
            judge.reply_has(clause, label, header, wanted);
        }
    }
}

check!(
    transformation / response_header_from_request,
    drive_from_request,
    judge_from_request,
    Check {
        sentence: "a header of the reply says which model the request's body named, and nothing where it named none",
        source: "guide 000, step 4b, x-requested-model",
        how: "Sends chats for a model, also where its reply names another or has the header already, for a model that does not exist, \
              and a request without a body; looks at the header of the replies.",
        kills: &["reads-the-other-body", "keeps-header-of-upstream"],
        ..EXPRESSION
    }
);

async fn drive_from_request(stage: &mut Stage) -> Result<()> {
    transformed(stage).await?;
    let elsewhere = br#"{"model":"somebody"}"#;
    stage.send("asks-for-alpha", chat("alpha")).await?;
    stage.send("alpha-says-somebody", replies(chat("alpha"), elsewhere, "application/json")).await?;
    let with_the_header = chat("alpha").header("x-igc-header", format!("{REQUESTED}: nobody"));
    stage.send("alpha-sends-the-header", with_the_header).await?;
    stage.send("asks-for-nobody", chat("nobody")).await?;
    stage.send("asks-for-nothing", Call::get("/v1/models")).await
}

fn judge_from_request(judge: &mut Judge<'_>) {
    judge.answered_by("asks-for-alpha-answered-by-alpha", "asks-for-alpha", "alpha");
    judge.reply_has("asks-for-alpha-x-requested-model", "asks-for-alpha", REQUESTED, &["alpha"]);
    judge.answered_by("alpha-says-somebody-answered-by-alpha", "alpha-says-somebody", "alpha");
    judge.reply_has("alpha-says-somebody-x-requested-model", "alpha-says-somebody", REQUESTED, &["alpha"]);
    judge.answered_by("alpha-sends-the-header-answered-by-alpha", "alpha-sends-the-header", "alpha");
    judge.reply_has("alpha-sends-the-header-x-requested-model", "alpha-sends-the-header", REQUESTED, &["alpha"]);
    judge.reply_has("asks-for-nobody-x-requested-model", "asks-for-nobody", REQUESTED, &["nobody"]);
    judge.reply_has("asks-for-nothing-x-requested-model", "asks-for-nothing", REQUESTED, &[]);
}

check!(
    transformation / response_header_from_response,
    drive_from_response,
    judge_from_response,
    Check {
        sentence: "a header of the reply says which model the reply's body names, and nothing where it names none",
        source: "guide 000, step 4b, x-actual-model",
        how: "The model's replies name another model, none, are no JSON, or have the header already; looks at the header that the \
              client gets.",
        kills: &["reads-the-other-body", "keeps-header-of-upstream"],
        ..EXPRESSION
    }
);

async fn drive_from_response(stage: &mut Stage) -> Result<()> {
    transformed(stage).await?;
    for (label, body, content_type) in [
        ("says-somebody", r#"{"model":"somebody"}"#, "application/json"),
        ("names-no-model", r#"{"error":{"code":404}}"#, "application/json"),
        ("is-no-json", "alpha", "text/plain"),
    ] {
        stage.send(label, replies(chat("alpha"), body.as_bytes(), content_type)).await?;
    }
    stage.send("says-alpha", chat("alpha").header("x-igc-header", format!("{ACTUAL}: nobody"))).await
}

fn judge_from_response(judge: &mut Judge<'_>) {
    judge.answered_by("says-somebody-answered-by-alpha", "says-somebody", "alpha");
    judge.reply_has("says-somebody-x-actual-model", "says-somebody", ACTUAL, &["somebody"]);
    judge.answered_by("says-alpha-answered-by-alpha", "says-alpha", "alpha");
    judge.reply_has("says-alpha-x-actual-model", "says-alpha", ACTUAL, &["alpha"]);
    judge.answered_by("names-no-model-answered-by-alpha", "names-no-model", "alpha");
    judge.reply_has("names-no-model-x-actual-model", "names-no-model", ACTUAL, &[]);
    judge.answered_by("is-no-json-answered-by-alpha", "is-no-json", "alpha");
    judge.reply_has("is-no-json-x-actual-model", "is-no-json", ACTUAL, &[]);
}

check!(
    transformation / absent_without_policy,
    drive_absent_without_policy,
    judge_absent_without_policy,
    Check {
        sentence: "replies are transformed on the route that says so, and nowhere else",
        source: "guide 000, step 4b, before the policy; the gateway's declaration of its sources",
        how: "Sends chats on a route before and after it is transformed, and on its neighbour; looks at the headers of the replies.",
        kills: &["transformation-on-all-routes"],
        ..TRANSFORMATION
    }
);

async fn drive_absent_without_policy(stage: &mut Stage) -> Result<()> {
    let alpha = stage.model("alpha").await?;
    let host = stage.hostname().to_owned();
    let neighbour = format!("neighbour.{host}");
    let route = stage.route();
    plain(stage, &alpha, "neighbour", &neighbour).await?;
    plain(stage, &alpha, route, &host).await?;
    stage.send("before", chat("alpha")).await?;
    transform(stage, &alpha).await?;
    let calls = [("transformed", chat("alpha")), ("neighbour", chat("alpha").host(&neighbour))];
    stage.send_in_turn(3, &calls).await
}

fn judge_absent_without_policy(judge: &mut Judge<'_>) {
    judge.answered_by("before-answered-by-alpha", "before", "alpha");
    judge.reply_has("before-x-igc-fixed", "before", FIXED, &[]);
    judge.reply_has("before-x-requested-model", "before", REQUESTED, &[]);
    judge.reply_has("before-x-actual-model", "before", ACTUAL, &[]);
    judge.answered_by("neighbour-answered-by-alpha", "neighbour", "alpha");
    judge.reply_has("neighbour-x-igc-fixed", "neighbour", FIXED, &[]);
    judge.reply_has("neighbour-x-requested-model", "neighbour", REQUESTED, &[]);
    judge.reply_has("neighbour-x-actual-model", "neighbour", ACTUAL, &[]);
    judge.answered_by("transformed-answered-by-alpha", "transformed", "alpha");
    let clauses = ["transformed-x-igc-fixed", "transformed-x-requested-model", "transformed-x-actual-model"];
    judge_headers(judge, "transformed", clauses, [&["alpha"], &["alpha"]]);
}

check!(
    transformation / body_untouched,
    drive_body_untouched,
    judge_body_untouched,
    Check {
        sentence: "bodies pass byte by byte, in both directions, with and without a transformation of headers",
        source: "RFC 9110, section 7.7 (message transformations)",
        how: "Sends oddly written JSON, a body of 100 kB and one that is no text over a plain and a transformed route, and has the \
              like sent back; compares digests of what was sent and what arrived on both sides.",
        capability: Some(capability::TRANSFORMATION),
        kills: &["truncates-bodies-over-64-kib", "reserialises-json"],
        changes: given,
        ..CHECK
    }
);

/// JSON as few would write it: order, spaces, escapes, a number that no float holds, a name twice, an empty line at the end.
const ODD: &str =
    "{ \"z\": 1.0e+00,\t\"model\" : \"\\u0061lpha\",\n\"a\":12345678901234567890,\"a\":[ ],\"\u{fc}\":\"\\/\" }\n\n";

async fn drive_body_untouched(stage: &mut Stage) -> Result<()> {
    let alpha = stage.model("alpha").await?;
    let host = stage.hostname().to_owned();
    let plain_host = format!("plain.{host}");
    plain(stage, &alpha, "plain", &plain_host).await?;
    transform(stage, &alpha).await?;
    let bytes: Vec<u8> = (0..=255).cycle().take(1000).collect();
    for (route, host) in [("plain", plain_host), ("transformed", host)] {
        let post = || Call::post("/v1/chat/completions").host(&host);
        let odd = post().body(ODD, "application/json");
        stage.send(&format!("{route}-odd"), replies(odd, ODD.as_bytes(), "application/json")).await?;
        let long = chat_with("alpha", json!({"user": "u".repeat(100_000)})).host(&host);
        stage.send(&format!("{route}-long"), long.header("x-igc-padding", "100000")).await?;
        let not_text = post().body(bytes.clone(), "application/octet-stream");
        stage.send(&format!("{route}-not-text"), replies(not_text, &bytes, "application/octet-stream")).await?;
    }
    Ok(())
}

fn judge_body_untouched(judge: &mut Judge<'_>) {
    #[rustfmt::skip]
    let bodies = [
        ("plain-odd", "plain-odd-answered-by-alpha", "plain-odd-request-untouched", "plain-odd-reply-untouched"),
        ("plain-long", "plain-long-answered-by-alpha", "plain-long-request-untouched", "plain-long-reply-untouched"),
        ("plain-not-text", "plain-not-text-answered-by-alpha", "plain-not-text-request-untouched", "plain-not-text-reply-untouched"),
        ("transformed-odd", "transformed-odd-answered-by-alpha", "transformed-odd-request-untouched", "transformed-odd-reply-untouched"),
        ("transformed-long", "transformed-long-answered-by-alpha", "transformed-long-request-untouched", "transformed-long-reply-untouched"),
        ("transformed-not-text", "transformed-not-text-answered-by-alpha", "transformed-not-text-request-untouched", "transformed-not-text-reply-untouched"),
    ];
    for (label, answered, request, reply) in bodies {
        judge.answered_by(answered, label, "alpha");
        judge.request_untouched(request, label);
        judge.reply_untouched(reply, label);
    }
}

check!(
    transformation / bad_expression,
    drive_bad_expression,
    judge_bad_expression,
    Check {
        level: Level::Should,
        sentence: "an expression that cannot be compiled is refused or named in the status, and traffic does not fail without that",
        source: "Gateway API, GEP-713 (policy status); the gateway's declaration",
        how: "Applies a policy with an expression that lacks a bracket and sends chats; looks at what the API server and the policy's \
              conditions say, and at the replies.",
        kills: &["accepts-bad-expression-silently", "bad-expression-as-500"],
        live: Live::NotJudged,
        ..EXPRESSION
    }
);

async fn drive_bad_expression(stage: &mut Stage) -> Result<()> {
    let alpha = stage.model("alpha").await?;
    let headers = json!([{"name": BROKEN, "source": "nonsense", "value": null}]);
    let context = json!({"service": alpha.service, "hostnames": [stage.hostname()], "headers": headers});
    let manifests = stage.manifests("transform", context)?;
    for manifest in &manifests {
        stage.offer(manifest["kind"].as_str().unwrap_or_default(), manifest).await?;
    }
    if let Some(Ok(policy)) = manifests.last().map(ObjectRef::of) {
        stage.see("policy", &policy, says_how_it_stands(), 60).await?;
    }
    stage.settle_status(|| chat("alpha"), |status| status != 404).await?;
    stage.send_in_turn(5, &[("traffic", chat("alpha"))]).await
}

fn refusal(history: &History) -> Option<String> {
    history.admissions.values().find_map(|admission| match admission {
        Admission::Refused { message, .. } => Some(message.clone()),
        Admission::Accepted { .. } => None,
    })
}

/// What a condition has against the object: it is False, or speaks of an expression.
fn complaint(condition: &Value) -> Option<String> {
    let text = |field: &str| condition[field].as_str().unwrap_or_default();
    let complains = text("status") == "False" || text("message").to_lowercase().contains("expression");
    complains.then(|| format!("{}={} ({}: {})", text("type"), text("status"), text("reason"), text("message")))
}

fn judge_bad_expression(judge: &mut Judge<'_>) {
    let history = judge.history();
    let mut conditions = judge.conditions_of(judge.object("policy")).into_iter().filter_map(Value::as_array).flatten();
    let said = refusal(history).or_else(|| conditions.find_map(complaint));
    let is_said = said.is_some();
    let statement = judge.clause("said").expected("refused, or a condition that names the expression");
    if history.admissions.is_empty() {
        statement.unproven("nothing was offered");
    } else {
        statement.got(said.unwrap_or("accepted, and every condition is fine".into())).holds(is_said);
    }

    // Traffic may fail where it is said why; where none fails it is served as if there were no such policy.
    let fails = |exchange: &Exchange| exchange.status().is_none_or(|status| status >= 500);
    judge.every("traffic", "traffic", "no failure that no condition speaks of", |exchange| {
        (fails(exchange) && !is_said).then(|| exchange.outcome_words())
    });
    if !judge.labelled("traffic").into_iter().any(fails) {
        judge.answered_by("traffic-answered-by-alpha", "traffic", "alpha");
    }
    judge.reply_has("traffic-x-igc-broken", "traffic", BROKEN, &[]);
}

check!(
    transformation / on_stream,
    drive_on_stream,
    judge_on_stream,
    Check {
        sentence: "with a transformation the first token of a stream still arrives before the last is sent, and headers are there as declared",
        source: "agentgateway/agentgateway#3612",
        how: "Asks a transformed route for a stream in step with its client; looks at the order of tokens, at the bytes and at the \
              headers of the reply.",
        capability: Some(capability::TRANSFORMATION),
        kills: &["buffers-streams-for-transformation"],
        observe: observe_stream,
        changes: given,
        ..CHECK
    }
);

fn observe_stream(history: &History) -> Value {
    let mut observed = stream::observe(history);
    observed["exchanges"] = observe(history)["exchanges"].clone();
    observed
}

async fn drive_on_stream(stage: &mut Stage) -> Result<()> {
    let alpha = transformed(stage).await?;
    InStep::new("stream", chat("alpha"), &alpha, 6).send(stage).await
}

fn judge_on_stream(judge: &mut Judge<'_>) {
    judge.answered_by("stream-answered-by-alpha", "stream", "alpha");
    stream::judge_first(judge, "stream-in-step", "stream");
    judge.reply_untouched("stream-reply-untouched", "stream");
    let Some(Transformation { absent_on_streams, .. }) = judge.declared() else { return };
    let model = |source| -> &[&str] { if absent_on_streams.contains(&source) { &[] } else { &["alpha"] } };
    let (requested, actual) = (model(HeaderSource::RequestModel), model(HeaderSource::ResponseModel));
    let clauses = ["stream-x-igc-fixed", "stream-x-requested-model", "stream-x-actual-model"];
    judge_headers(judge, "stream", clauses, [requested, actual]);
}

check!(
    transformation / gzip,
    drive_gzip,
    judge_gzip,
    Check {
        level: Level::Should,
        sentence: "a compressed reply is transformed like any other, and still reads",
        source: "agentgateway/agentgateway#1580",
        how: "The model replies with gzip; the client has to get those bytes, or the text uncompressed, with the declared headers.",
        kills: &["cannot-read-compressed"],
        ..TRANSFORMATION
    }
);

/// The reply of which a compressed form is sent.
const PLAIN: &str = r#"{"model":"somebody","choices":[]}"#;

async fn drive_gzip(stage: &mut Stage) -> Result<()> {
    transformed(stage).await?;
    let call = chat("alpha").header("accept-encoding", "gzip").header("x-igc-gzip", "1");
    stage.send("compressed", replies(call, PLAIN.as_bytes(), "application/json")).await
}

fn judge_gzip(judge: &mut Judge<'_>) {
    judge.answered_by("compressed-answered-by-alpha", "compressed", "alpha");
    let is_encoded = |e: &Exchange| e.response().is_some_and(|r| r.header("content-encoding").is_some());
    if judge.labelled("compressed").into_iter().any(is_encoded) {
        // Compressed as the model did it: whoever compresses anew has to tell us how to read it.
        judge.reply_untouched("compressed-reply-untouched", "compressed");
    } else {
        judge.body("compressed-reads", "compressed", PLAIN);
    }
    let clauses = ["compressed-x-igc-fixed", "compressed-x-requested-model", "compressed-x-actual-model"];
    judge_headers(judge, "compressed", clauses, [&["alpha"], &["somebody"]]);
}

check!(
    transformation / large_body(request, reply),
    drive_large_body,
    judge_large_body,
    Check {
        level: Level::Should,
        sentence: "bodies of 3 MB pass whole, and their headers are transformed like any other",
        source: "the gateways' limits on bodies that are read (agentgateway reads 2 MiB)",
        how: "Sends a request, or has a reply sent, of 3 MB over a transformed route; compares digests on both sides and looks at the \
              headers of the reply.",
        kills: &["truncates-bodies-over-64-kib", "loses-headers-of-large-bodies"],
        ..TRANSFORMATION
    }
);

async fn drive_large_body(stage: &mut Stage) -> Result<()> {
    const LARGE: usize = 3_000_000;
    transformed(stage).await?;
    let call = match stage.case() {
        "request" => chat_with("alpha", json!({"user": "u".repeat(LARGE)})),
        _ => chat("alpha").header("x-igc-padding", LARGE.to_string()),
    };
    stage.send("large", call).await
}

fn judge_large_body(judge: &mut Judge<'_>) {
    judge.answered_by("large-answered-by-alpha", "large", "alpha");
    judge.request_untouched("large-request-untouched", "large");
    judge.reply_untouched("large-reply-untouched", "large");
    let clauses = ["large-x-igc-fixed", "large-x-requested-model", "large-x-actual-model"];
    judge_headers(judge, "large", clauses, [&["alpha"], &["alpha"]]);
}

check!(
    transformation / survives_route_update,
    drive_survives_route_update,
    judge_survives_route_update,
    Check {
        sentence: "a transformation goes on while its route is changed, and after it",
        source: "Gateway API, GEP-713 (policies attach to the object)",
        how: "Adds a hostname to a transformed route and sends chats before, right after and when the change is live, also to the new \
              hostname; looks at the headers of all replies.",
        kills: &["transformation-lost-after-update"],
        ..TRANSFORMATION
    }
);

async fn drive_survives_route_update(stage: &mut Stage) -> Result<()> {
    let alpha = transformed(stage).await?;
    let host = stage.hostname().to_owned();
    let added = format!("added.{host}");
    stage.send("before", chat("alpha")).await?;
    transform_hosts(stage, &alpha, &[&host, &added]).await?;
    stage.send_in_turn(5, &[("meanwhile", chat("alpha"))]).await?;
    stage.settle(|| chat("alpha").host(&added), "alpha").await?; // the change is live
    stage.send_in_turn(5, &[("after", chat("alpha")), ("added", chat("alpha").host(&added))]).await
}

fn judge_survives_route_update(judge: &mut Judge<'_>) {
    #[rustfmt::skip]
    let sent = [
        ("before", "before-answered-by-alpha", ["before-x-igc-fixed", "before-x-requested-model", "before-x-actual-model"]),
        ("meanwhile", "meanwhile-answered-by-alpha", ["meanwhile-x-igc-fixed", "meanwhile-x-requested-model", "meanwhile-x-actual-model"]),
        ("after", "after-answered-by-alpha", ["after-x-igc-fixed", "after-x-requested-model", "after-x-actual-model"]),
        ("added", "added-answered-by-alpha", ["added-x-igc-fixed", "added-x-requested-model", "added-x-actual-model"]),
    ];
    for (label, answered, headers) in sent {
        judge.answered_by(answered, label, "alpha");
        judge_headers(judge, label, headers, [&["alpha"], &["alpha"]]);
    }
}

mod judges {
    use rstest::rstest;
    use suites::{
        fake::{self, CONTROLLER, Fake, Holds, No, Unproven, Yes, accepted},
        stream::Step::{self, *},
    };
    use verdict::history::{Body, Ended, Sent};

    use super::*;

    pub(super) type Headers = [(&'static str, &'static str)];
    type HeaderValue = Option<&'static str>;

    /// A 200 of alpha with these headers, which the model got with those.
    pub(super) fn exchanged(fake: Fake, label: &str, reply: &Headers, at_model: &Headers) -> Fake {
        fake.answer(label, 200, reply, "{}").also_reached("alpha").with_model_headers(at_model)
    }

    /// Answers with a header, in the order of the labels; no value is no header.
    fn said(check: &str, name: &'static str, said: &[(&str, HeaderValue)]) -> Fake {
        let mut fake = Fake::of(check).model("alpha");
        for (label, value) in said {
            let headers: Vec<(&str, &str)> = value.iter().map(|value| (name, *value)).collect();
            fake = fake.answer(label, 200, &headers, "{}").also_reached("alpha");
        }
        fake
    }

    fn requested(alpha: HeaderValue, scripted: HeaderValue, nobody: HeaderValue, nothing: HeaderValue) -> Fake {
        let values = [
            ("asks-for-alpha", alpha),
            ("alpha-says-somebody", scripted),
            ("alpha-sends-the-header", Some("alpha")),
            ("asks-for-nobody", nobody),
            ("asks-for-nothing", nothing),
        ];
        said("transformation/response-header-from-request", REQUESTED, &values)
    }

    fn named(somebody: HeaderValue, no_model: HeaderValue, alpha: HeaderValue) -> Fake {
        let values =
            [("says-somebody", somebody), ("names-no-model", no_model), ("is-no-json", None), ("says-alpha", alpha)];
        said("transformation/response-header-from-response", ACTUAL, &values)
    }

    const ALL: [(&str, &str); 3] = [(FIXED, VALUE), (REQUESTED, "alpha"), (ACTUAL, "alpha")];

    fn declares(check: &str, sources: &[HeaderSource], absent_on_streams: &[HeaderSource]) -> Fake {
        let declared = Transformation { sources: sources.to_vec(), absent_on_streams: absent_on_streams.to_vec() };
        Fake::of(check).declares(declared).model("alpha")
    }

    fn everything(check: &str) -> Fake {
        declares(check, &SOURCES.map(|(source, _)| source), &[])
    }

    fn neighbours(fake: Fake, before: &Headers, transformed: &Headers, neighbour: &Headers) -> Fake {
        let fake = exchanged(fake, "before", before, &[]);
        exchanged(exchanged(fake, "transformed", transformed, &[]), "neighbour", neighbour, &[])
    }

    const ABSENT: &str = "transformation/absent-without-policy";

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
                record.sent = Some(Sent::of(b"abc"));
            });
        }
        fake
    }

    fn policy(controller: &str, said: Option<(&str, &str)>) -> Value {
        let condition =
            |(status, message)| json!({"type": "Accepted", "status": status, "reason": "R", "message": message});
        let conditions: Vec<Value> = said.into_iter().map(condition).collect();
        json!({"status": {"ancestors": [{"controllerName": controller, "conditions": conditions}]}})
    }

    fn offered(refused: bool, said: Option<(&str, &str)>, status: u16) -> Fake {
        let fake = Fake::of("transformation/bad-expression")
            .model("alpha")
            .admission("Route", accepted())
            .admission("Policy", if refused { fake::refusal("compile error") } else { accepted() })
            .object("policy", policy(CONTROLLER, said));
        if status == 200 { fake.answered("traffic", 200, "alpha") } else { fake.refused("traffic", status) }
    }

    const NAMED: Option<(&str, &str)> = Some(("True", "header value is not a valid CEL expression: x("));
    const FINE: Option<(&str, &str)> = Some(("True", "Policy accepted"));

    const STREAM: &str = "transformation/on-stream";
    const FLOWS: [Step; 4] = [Opened(2), Arrived(2), Opened(4), Arrived(4)];
    const HELD: [Step; 4] = [Opened(2), HeldBack(40), Opened(4), Arrived(4)];

    /// The model of a reply gives no header to a stream.
    fn all_but_the_reply() -> Fake {
        declares(STREAM, &SOURCES.map(|(source, _)| source), &[HeaderSource::ResponseModel])
    }

    fn streamed(fake: Fake, headers: &Headers, steps: &[Step]) -> Fake {
        let fake = exchanged(fake, "stream", headers, &[]).fact("steps-stream", json!(steps));
        fake.with_record(|record| record.sent = Some(Sent::of(b"{}")))
    }

    fn packed(headers: &Headers, body: &str) -> Fake {
        let fake = everything("transformation/gzip").answer("compressed", 200, headers, body).also_reached("alpha");
        fake.with_record(|record| record.sent = Some(Sent::of(b"packed")))
    }

    const READ: [(&str, &str); 4] =
        [(FIXED, VALUE), (REQUESTED, "alpha"), (ACTUAL, "somebody"), ("content-encoding", "gzip")];

    fn large(headers: &Headers, request: &'static [u8], reply: &str) -> Fake {
        let fake = everything("transformation/large-body").case("request").answer("large", 200, headers, reply);
        let fake = fake.also_reached("alpha").with_exchange(|exchange| exchange.request.body = Body::of(b"large"));
        fake.with_record(|record| {
            record.body = Body::of(request);
            record.sent = Some(Sent::of(b"large"));
        })
    }

    fn updated(after: &Headers, added: &Headers) -> Fake {
        let fake = everything("transformation/survives-route-update");
        [("before", &ALL[..]), ("meanwhile", &ALL), ("after", after), ("added", added)]
            .into_iter()
            .fold(fake, |fake, (label, headers)| exchanged(fake, label, headers, &[]))
    }

    #[rstest]
    #[case::from_request_cut(everything("transformation/response-header-from-request").cut("asks-for-alpha"), No)]
    #[case::gzip_cut(everything("transformation/gzip").cut("compressed"), No)]
    #[case::large_body_cut(everything("transformation/large-body").cut("large"), No)]
    #[case::from_request_of_the_request(requested(Some("alpha"), Some("alpha"), Some("nobody"), None), Yes)]
    #[case::from_request_of_the_reply(requested(Some("alpha"), Some("somebody"), Some("nobody"), None), No)]
    #[case::from_request_absent(requested(None, None, None, None), No)]
    #[case::from_request_of_the_request_before(requested(Some("alpha"), Some("alpha"), Some("alpha"), None), No)]
    #[case::from_request_kept_unasked(requested(Some("alpha"), Some("alpha"), Some("nobody"), Some("nobody")), No)]
    #[case::from_request_never_live(requested(Some("alpha"), Some("alpha"), Some("nobody"), None).unsettled(), No)]
    #[case::from_request_nothing_happened(Fake::of("transformation/response-header-from-request").model("alpha"), Unproven)]
    #[case::from_response_of_the_reply(named(Some("somebody"), None, Some("alpha")), Yes)]
    #[case::from_response_of_the_request(named(Some("alpha"), None, Some("alpha")), No)]
    #[case::from_response_absent(named(None, None, None), No)]
    #[case::from_response_made_up(named(Some("somebody"), Some("alpha"), Some("alpha")), No)]
    #[case::from_response_of_the_upstream(named(Some("somebody"), None, Some("nobody")), No)]
    #[case::from_response_empty(named(Some("somebody"), Some(""), Some("alpha")), No)]
    #[case::absent_without_policy_only_there(neighbours(everything(ABSENT), &[], &ALL, &[]), Yes)]
    #[case::absent_without_policy_as_far_as_declared(neighbours(declares(ABSENT, &[HeaderSource::Fixed], &[]), &[], &ALL[..1], &[]), Yes)]
    #[case::absent_without_policy_less_than_declared(neighbours(everything(ABSENT), &[], &ALL[..1], &[]), No)]
    #[case::absent_without_policy_on_the_neighbour(neighbours(everything(ABSENT), &[], &ALL, &ALL[..1]), No)]
    #[case::absent_without_policy_before_it_was_said(neighbours(everything(ABSENT), &ALL, &ALL, &[]), No)]
    #[case::absent_without_policy_nowhere(neighbours(everything(ABSENT), &[], &[], &[]), No)]
    #[case::absent_without_policy_undeclared(neighbours(declares(ABSENT, &[], &[]), &[], &ALL, &[]), Unproven)]
    #[case::body_untouched_equal(bodies(b"abc", "abc"), Yes)]
    #[case::body_untouched_request_changed(bodies(b"abd", "abc"), No)]
    #[case::body_untouched_request_cut(bodies(b"ab", "abc"), No)]
    #[case::body_untouched_reply_changed(bodies(b"abc", "abd"), No)]
    #[case::body_untouched_reply_cut(bodies(b"abc", "ab"), No)]
    #[case::body_untouched_reply_broken_off(bodies(b"abc", "abc").with_response(|r| r.ended = Ended::Truncated), No)]
    #[case::body_untouched_model_did_not_say(bodies(b"abc", "abc").with_record(|record| record.sent = None), Unproven)]
    #[case::body_untouched_nothing_happened(Fake::of("transformation/body-untouched").model("alpha"), Unproven)]
    #[case::bad_expression_refused(offered(true, None, 200), Yes)]
    #[case::bad_expression_named_in_the_status(offered(false, NAMED, 200), Yes)]
    #[case::bad_expression_not_accepted(offered(false, Some(("False", "no")), 200), Yes)]
    #[case::bad_expression_said_and_failing(offered(false, Some(("False", "no")), 500), Yes)]
    #[case::bad_expression_accepted_silently(offered(false, FINE, 200), No)]
    #[case::bad_expression_named_by_another_controller(offered(false, FINE, 200).object("policy", policy("another/controller", NAMED)), No)]
    #[case::bad_expression_nothing_said(offered(false, None, 200), No)]
    #[case::bad_expression_silent_and_failing(offered(false, FINE, 500), No)]
    #[case::bad_expression_no_route(offered(true, None, 404), No)]
    #[case::bad_expression_a_header_of_nothing(offered(true, None, 200).with_response(|r| r.headers.push((BROKEN.into(), String::new()))), No)]
    #[case::bad_expression_nothing_happened(Fake::of("transformation/bad-expression").model("alpha"), Unproven)]
    #[case::on_stream_flows(streamed(everything(STREAM), &ALL, &FLOWS), Yes)]
    #[case::on_stream_absent_as_declared(streamed(all_but_the_reply(), &ALL[..2], &FLOWS), Yes)]
    #[case::on_stream_absent(streamed(everything(STREAM), &ALL[..2], &FLOWS), No)]
    #[case::on_stream_there_though_declared_absent(streamed(all_but_the_reply(), &ALL, &FLOWS), No)]
    #[case::on_stream_buffered(streamed(everything(STREAM), &ALL, &HELD), No)]
    #[case::on_stream_changed(streamed(everything(STREAM), &ALL, &FLOWS).with_response(|r| r.body = Body::of(b"")), No)]
    #[case::on_stream_nothing_is_known(streamed(everything(STREAM), &ALL, &[]), Unproven)]
    #[case::gzip_passed_on(packed(&READ, "packed"), Yes)]
    #[case::gzip_unpacked(packed(&READ[..3], PLAIN), Yes)]
    #[case::gzip_unpacked_but_says_packed(packed(&READ, PLAIN), No)]
    #[case::gzip_packed_but_does_not_say(packed(&READ[..3], "packed"), No)]
    #[case::gzip_header_lost(packed(&[READ[0], READ[1], READ[3]], "packed"), No)]
    #[case::gzip_refused(everything("transformation/gzip").refused("compressed", 502), No)]
    #[case::large_body_whole(large(&ALL, b"large", "large"), Yes)]
    #[case::large_body_request_cut(large(&ALL, b"lar", "large"), No)]
    #[case::large_body_reply_cut(large(&ALL, b"large", "lar"), No)]
    #[case::large_body_header_lost(large(&ALL[..2], b"large", "large"), No)]
    #[case::large_body_refused(everything("transformation/large-body").refused("large", 413), No)]
    #[case::survives_route_update_goes_on(updated(&ALL, &ALL), Yes)]
    #[case::survives_route_update_lost(updated(&[], &[]), No)]
    #[case::survives_route_update_not_on_what_is_new(updated(&ALL, &[]), No)]
    #[case::survives_route_update_a_blip(updated(&ALL, &ALL).cut("meanwhile"), No)]
    #[case::survives_route_update_lost_once(exchanged(updated(&ALL, &ALL), "meanwhile", &[], &[]), No)]
    fn judged(#[case] fake: Fake, #[case] holds: Holds) {
        assert_eq!(fake.verdict(), holds);
    }
}
