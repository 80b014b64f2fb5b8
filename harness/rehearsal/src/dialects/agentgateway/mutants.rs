//! How agentgateway alone is wrong, and how it is wrong in its own way.

use serde_json::{Value, json};

use super::kinds;
use crate::{
    dataplane::{
        local_reply::LocalReply,
        routing::{Filter, Rule},
    },
    dialects::{Snapshot, StatusOf, Translation},
    mutants::{
        Mutants, mutants,
        translation::{each_condition, each_rule},
    },
};

mutants! {
    ACCEPTS_BAD_EXPRESSION_SILENTLY "accepts-bad-expression-silently" "an expression that cannot be compiled is spoken of"
        ["said"];
    BAD_EXPRESSION_AS_500 "bad-expression-as-500" "traffic does not fail for an expression that no status speaks of"
        ["traffic"];
    ANOTHER_ANCESTOR "status-of-another-ancestor" "a policy says of which Gateway it speaks" ["ancestor"];
    IGNORES_PROVIDER_PATH "ignores-provider-path" "a provider is asked on its path" ["with-the-extra-route-*"];
}

pub(super) fn mutate(wrong: &Mutants, snapshot: &Snapshot, translation: &mut Translation) {
    for StatusOf { kind, status, .. } in &mut translation.statuses {
        if *kind == kinds::AGENTGATEWAY_POLICY {
            policy_status(wrong, status);
        }
    }
    if wrong.could_be(&[BAD_EXPRESSION_AS_500, IGNORES_PROVIDER_PATH]) {
        each_rule(translation, |rule| change_rule(wrong, rule));
    }
    let more = wrong.services_named_otherwise(snapshot, &mut translation.children).map(|service| {
        let mut another = service.clone();
        another["metadata"]["name"] = json!("agentgateway-proxy");
        another
    });
    let more: Vec<Value> = more.collect();
    translation.children.extend(more);
}

fn policy_status(wrong: &Mutants, status: &mut Value) {
    each_condition(status, |condition| {
        if condition["reason"] == "PartiallyValid"
            && (wrong.is(ACCEPTS_BAD_EXPRESSION_SILENTLY) || wrong.is(BAD_EXPRESSION_AS_500))
        {
            condition["reason"] = json!("Valid");
            condition["message"] = json!("Policy accepted");
        }
    });
    if status["ancestors"][0].is_object() && wrong.is(ANOTHER_ANCESTOR) {
        status["ancestors"][0]["ancestorRef"]["name"] = json!("another");
    }
}

fn change_rule(wrong: &Mutants, rule: &mut Rule) {
    if rule.transformation.as_ref().is_some_and(|t| !t.is_valid()) && wrong.is(BAD_EXPRESSION_AS_500) {
        rule.filters.insert(0, Filter::Direct(LocalReply::empty(500)));
    }
    for provider in rule.backends.iter_mut().filter_map(|backend| backend.provider.as_mut()) {
        if provider.path.is_some() && wrong.is(IGNORES_PROVIDER_PATH) {
            provider.path = None;
        }
    }
}
