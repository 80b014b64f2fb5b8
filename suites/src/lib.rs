//! What the suites are written with: checks that drive a stage and judge its history, the proofs that judges share,
//! budgets of tokens, and made-up histories for the tables that show each judge able to say no.

pub mod budget;
mod check;
mod clock;
pub mod fake;
mod open;
pub mod proof;
mod stage;

use serde_json::json;

pub use self::{
    check::{Check, check},
    stage::{Marker, Model, Stage},
};
pub use cluster::api::{ObjectRef, Until};
pub use wire::Call;

/// A chat completion that says "Hello" to a model: 6 tokens of prompt and 1 of reply in the simulators.
pub fn chat(host: &str, model: &str) -> Call {
    let messages = json!([{"role": "user", "content": "Hello"}]);
    Call::post("/v1/chat/completions").host(host).json(&json!({"model": model, "messages": messages}))
}

/// A reference to a namespaced object.
pub fn object(api_version: &str, kind: &str, namespace: &str, name: &str) -> ObjectRef {
    ObjectRef::new(api_version, kind, namespace, name)
}

/// Until a condition of the object is True.
pub fn condition(kind: &str) -> Until {
    Until::ConditionTrue(kind.to_owned())
}

/// Until every parent's status has this condition, true or false.
pub fn parents_say(kind: &str) -> Until {
    let wanted = kind.to_owned();
    Until::holds(&format!("{kind} said by every parent"), move |route| {
        let parents = route["status"]["parents"].as_array().cloned().unwrap_or_default();
        let says = |parent: &serde_json::Value| proof::condition_status(&parent["conditions"], &wanted).is_some();
        Ok(!parents.is_empty() && parents.iter().all(says))
    })
}
