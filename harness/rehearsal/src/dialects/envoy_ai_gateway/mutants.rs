//! How Envoy AI Gateway alone is wrong, and how it is wrong in its own way.

use serde_json::json;

use super::kinds;
use crate::{
    dialects::{Snapshot, StatusOf, Translation},
    mutants::{Mutants, mutants, translation::each_condition},
};

mutants! {
    NEVER_ACCEPTS_AI_OBJECTS "never-accepts-ai-objects" "an AI route and its backends that are right say Accepted"
        ["backend", "ai-route", "route"];
}

pub(super) fn mutate(wrong: &Mutants, snapshot: &Snapshot, translation: &mut Translation) {
    for StatusOf { kind, status, .. } in &mut translation.statuses {
        if [kinds::AI_SERVICE_BACKEND, kinds::AI_GATEWAY_ROUTE].contains(kind) {
            each_condition(status, |condition| {
                if condition["type"] == "Accepted" && wrong.is(NEVER_ACCEPTS_AI_OBJECTS) {
                    condition["status"] = json!("False");
                }
            });
        }
    }
    for service in wrong.services_named_otherwise(snapshot, &mut translation.children) {
        service["metadata"]["name"] = json!("eg-envoy-ai-gateway");
    }
}
