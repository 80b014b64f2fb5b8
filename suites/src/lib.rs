//! What the suites are written with: checks that drive a stage and judge its history, the questions that judges share,
//! budgets of tokens, and made-up histories for the tables that show each judge able to say no.

pub mod budget;
mod check;
mod clock;
pub mod fake;
pub mod judge;
mod open;
pub mod picked;
pub mod registry;
pub mod replay;
mod run;
mod stage;
pub mod stream;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use verdict::change::{Change, Direction, Form, Rule};

pub use self::{
    check::{CHECK, Check, Drive, Live},
    judge::Judge,
    registry::requirements,
    stage::{LlmService, Marker, Model, Pool, PoolOf, Stage},
};
pub use cluster::api::{ObjectRef, Target, WaitCondition};
#[doc(hidden)]
pub use inventory;
pub use wire::{Abandon, Call};

/// A chat completion that says "Hello" to a model: 6 tokens of prompt and 1 of reply in the simulators. Like every call
/// without a host it goes to the stage's own hostname.
pub fn chat(model: &str) -> Call {
    chat_with(model, json!({}))
}

/// The same with more fields in its body.
pub fn chat_with(model: &str, fields: Value) -> Call {
    let mut body = json!({"model": model, "messages": [{"role": "user", "content": "Hello"}]});
    if let (Some(body), Value::Object(fields)) = (body.as_object_mut(), fields) {
        body.extend(fields);
    }
    Call::post("/v1/chat/completions").json(&body)
}

pub fn chat_to(path: &str, model: &str) -> Call {
    Call::post(path).json(&json!({"model": model, "messages": [{"role": "user", "content": "Hello"}]}))
}

/// The call, scripted: our own model replies with these bytes, whatever is asked of it.
pub fn replies(call: Call, bytes: &[u8], content_type: &str) -> Call {
    call.header("x-igc-reply", STANDARD.encode(bytes)).header("x-igc-content-type", content_type)
}

/// Headers that the routes of KServe set on requests to an InferenceService (KServe v0.17, HTTPRoute reconciler).
pub fn by_kserve() -> Vec<Change> {
    vec![
        Change::header(Direction::Request, "kserve-isvc-name", Rule::Set, "[a-z0-9-]+"),
        Change::header(Direction::Request, "kserve-isvc-namespace", Rule::Set, "igc-[a-z0-9-]+"),
    ]
}

/// What the Inference Extension's own picker has the gateway change (docs/facts/envoy-ai-gateway.md E15): it sets every
/// header anew, so that of several lines of one name the last is left, and writes the body of a request anew, with numbers as
/// floats, so that integers above 2^53 are rounded.
pub fn by_upstream_picker() -> Vec<Change> {
    vec![
        Change::header(Direction::Request, "x-igc-c-lines", Rule::Set, "a asked .*"),
        Change::header(Direction::Reply, "x-igc-c-lines", Rule::Set, "a said .*"),
        Change::body(Direction::Request, Form::Json),
        Change::field(Direction::Request, "/seed", "-?[0-9]{16,}"),
        Change::header(
            Direction::Request,
            "traceparent",
            Rule::Set,
            "[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}",
        ),
        Change::header(Direction::Reply, "x-went-into-resp-headers", Rule::Set, "true"),
    ]
}

/// The match of a rule that takes everything.
pub fn every_path() -> Value {
    json!({"path": {"type": "PathPrefix", "value": "/"}})
}

pub fn condition(kind: &str) -> WaitCondition {
    WaitCondition::ConditionTrue(kind.to_owned())
}

/// Until every parent in an object's status has this condition, true or false.
pub fn parents_say(kind: &str) -> WaitCondition {
    every_entry_says("parent", kind)
}

/// Until every ancestor in a policy's status has this condition, true or false.
pub fn ancestors_say(kind: &str) -> WaitCondition {
    every_entry_says("ancestor", kind)
}

fn every_entry_says(entry: &str, kind: &str) -> WaitCondition {
    let (list, wanted) = (format!("{entry}s"), kind.to_owned());
    WaitCondition::holds(&format!("{kind} said by every {entry}"), move |object| {
        let mut entries = object["status"][&list].as_array().into_iter().flatten().peekable();
        let says = |entry: &Value| judge::condition(&entry["conditions"], &wanted).is_some();
        entries.peek().is_some() && entries.all(says)
    })
}

/// Until a controller has said of an object how it stands.
pub fn says_how_it_stands() -> WaitCondition {
    WaitCondition::holds("conditions in the status", |object| {
        let status = &object["status"];
        let entries =
            ["parents", "ancestors"].into_iter().flat_map(|list| status[list].as_array().into_iter().flatten());
        entries.chain([status]).any(|said| said["conditions"].as_array().is_some_and(|all| !all.is_empty()))
    })
}
