//! What the world around a store decides for it.

use serde_json::Value;

use super::kind::Kind;

/// What the world around a store decides for it. As they are written here, the hooks are those of a cluster on the machine's
/// clock, without webhooks and without faults.
pub trait Hooks: Send + Sync + 'static {
    /// The name of the program: the field manager of what is written in this process, and a part of the server's version.
    fn name(&self) -> &'static str {
        "apiserver"
    }

    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::now()
    }

    /// Asks the validating webhooks about an object that is to be created.
    fn validate(&self, _kind: &Kind, _object: &Value) -> Result<(), Denial> {
        Ok(())
    }

    /// Whether the server has this fault. It is asked last of all that decides: where the answer is true, the fault acts.
    fn has(&self, _fault: Fault) -> bool {
        false
    }
}

#[derive(Clone, Copy, Debug)]
pub struct NoHooks;

impl Hooks for NoHooks {}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The name of the webhook, `inferenceservice.kserve-webhook-server.validator`.
    pub webhook: &'static str,
    pub message: String,
}

/// A way in which the server can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It refuses objects in served versions other than the one that they are kept in.
    RefusesOlderVersions,
    /// It drops unknown fields where it was asked to refuse them.
    TakesUnknownFields,
    /// It takes objects that schema and rules forbid.
    SkipsRules,
    /// It takes objects that webhooks deny.
    SkipsWebhooks,
}
