//! AgentgatewayPolicy: what applies where, which of two counts, and what the status claims.

use std::{collections::BTreeSet, sync::Arc};

use serde_json::{Value, json};

use super::{Agentgateway, CONTROLLER, kinds};
use crate::{
    dataplane::{
        limits::BucketLimit,
        routing::{Filter, LocalLimit, Rule, Unit},
        transform::{Expression, Side, Transformation},
    },
    dialects::{
        Name, Snapshot, StatusOf, Translation,
        attachments::Attachments,
        gateway_api::{self, GROUP},
        object::{self, list, observed, text},
    },
};

pub(super) struct Policies {
    all: Vec<Arc<Value>>,
    enforced: usize,
}

impl Policies {
    pub(super) fn read(dialect: &Agentgateway, snapshot: &Snapshot) -> Self {
        let all = gateway_api::policies(snapshot, &kinds::AGENTGATEWAY_POLICY);
        Self { all, enforced: dialect.enforced_local_limits() }
    }

    fn on<'a>(&'a self, kind: &'a str, target: &'a Value, section: Option<&'a str>) -> impl Iterator<Item = &'a Value> {
        self.all.iter().map(|p| &**p).filter(move |p| gateway_api::is_on(p, kind, target, section))
    }

    /// Puts on a rule what policies say. Fields are taken whole from the most specific policy that has them:
    /// rule, route, listener, Gateway (docs/facts/agentgateway.md A3). Of two on one target the older counts.
    pub(super) fn apply(&self, rule: &mut Rule, route: &Value, rule_name: &str, gateway: &Value, listener: usize) {
        let listener = gateway.pointer(&format!("/spec/listeners/{listener}/name")).and_then(Value::as_str);
        let mut levels: Vec<(&Value, &Value)> = Vec::new();
        if !rule_name.is_empty() {
            levels.extend(self.on("HTTPRoute", route, Some(rule_name)).map(|p| (p, route)));
        }
        levels.extend(self.on("HTTPRoute", route, None).map(|p| (p, route)));
        levels.extend(self.on("Gateway", gateway, listener).map(|p| (p, gateway)));
        levels.extend(self.on("Gateway", gateway, None).map(|p| (p, gateway)));
        let field = |pointer: &str| {
            let pointer = format!("/spec/traffic{pointer}");
            levels.iter().find_map(|(policy, target)| Some((*policy, *target, policy.pointer(&pointer)?)))
        };
        if let Some((policy, target, written)) = field("/rateLimit") {
            rule.local_limits = local_limits(policy, target, written);
            rule.unenforced_limits = rule.local_limits.split_off(self.enforced.min(rule.local_limits.len()));
        }
        if let Some((_, _, written)) = field("/transformation") {
            rule.transformation = Some(Arc::new(transformation(written)));
        }
        if let Some((_, _, written)) = field("/timeouts/request") {
            rule.timeout = object::duration(written.as_str().unwrap_or(""));
        }
        if let Some((_, _, written)) = field("/headerModifiers/request") {
            rule.filters.insert(0, Filter::Request(gateway_api::header_edit(written)));
        }
        if let Some((_, _, written)) = field("/headerModifiers/response") {
            rule.filters.insert(0, Filter::Response(gateway_api::header_edit(written)));
        }
    }

    /// Says how each policy stands (recording `21-status-policy.txt`). It claims to be attached wherever the target is
    /// there, whether it has an effect or not.
    pub(super) fn statuses(&self, snapshot: &Snapshot, attachments: &Attachments, translation: &mut Translation) {
        for policy in &self.all {
            let home = object::namespace(policy);
            let (mut gateways, mut pending) = (BTreeSet::<Name>::new(), Vec::new());
            for target in gateway_api::targets(policy) {
                let key = (home.to_owned(), target.name.to_owned());
                let kind = match target.kind {
                    "Gateway" => kinds::GATEWAY,
                    _ => kinds::HTTP_ROUTE,
                };
                let shown = format!("{} {home}/{}", target.kind, target.name);
                if snapshot.get(&kind, home, target.name).is_none() {
                    pending.push(format!("{shown} not found"));
                } else if target.kind == "Gateway" {
                    gateways.insert(key);
                } else {
                    match attachments.parents.get(&key) {
                        Some(parents) => gateways.extend(parents.iter().cloned()),
                        None => pending.push(format!("{shown} is not attached to any Gateway")),
                    }
                }
            }
            let problems = problems(snapshot, policy);
            let accepted = match problems.as_slice() {
                [] => observed(policy, "Accepted", true, "Valid", "Policy accepted"),
                some => observed(policy, "Accepted", true, "PartiallyValid", &some.join("; ")),
            };
            let ancestor = |reference: Value, attached: Value| {
                let mut conditions = vec![accepted.clone()];
                if problems.is_empty() {
                    conditions.push(attached);
                }
                json!({"ancestorRef": reference, "conditions": conditions, "controllerName": CONTROLLER})
            };
            let mut ancestors: Vec<Value> = gateways
                .iter()
                .map(|(namespace, name)| {
                    let reference = json!({"group": GROUP, "kind": "Gateway", "name": name, "namespace": namespace});
                    ancestor(reference, observed(policy, "Attached", true, "Attached", "Attached to all targets"))
                })
                .collect();
            if !pending.is_empty() {
                let message = format!("Policy is not attached: {}", pending.join(", "));
                let reference = json!({"group": "agentgateway.dev", "kind": "Gateway", "name": "StatusSummary"});
                ancestors.push(ancestor(reference, observed(policy, "Attached", false, "Pending", &message)));
            }
            ancestors.sort_by_key(|a| a["ancestorRef"].to_string());
            let status = json!({"ancestors": ancestors});
            translation.statuses.push(StatusOf::new(kinds::AGENTGATEWAY_POLICY, policy, status));
        }
    }
}

fn problems(snapshot: &Snapshot, policy: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    for side in ["request", "response"] {
        for changes in ["set", "add"] {
            for header in list(policy, &format!("/spec/traffic/transformation/{side}/{changes}")) {
                let expression = text(header, "/value");
                if !Expression::new(expression).is_valid() {
                    problems.push(format!("header value is not a valid CEL expression: {expression}"));
                }
            }
        }
    }
    for expression in list(policy, "/spec/traffic/authorization/policy/matchExpressions").filter_map(Value::as_str) {
        if !Expression::new(expression).is_valid() {
            problems.push(format!("authorization matchExpression is not a valid CEL expression: {expression}"));
        }
    }
    if let Some(service) = policy.pointer("/spec/traffic/rateLimit/global/backendRef") {
        let (home, name) = (object::namespace(policy), text(service, "/name"));
        if snapshot.get(&kinds::SERVICE, home, name).is_none() {
            problems.push(format!("failed to build global rate limit: unable to find the Service {home}/{name}"));
        }
    }
    problems
}

/// The buckets of a policy on a target. A bucket is new, and full, when policy, target or limit is
/// (seen on a real cluster, "what refills a used-up bucket").
fn local_limits(policy: &Value, target: &Value, written: &Value) -> Vec<LocalLimit> {
    list(written, "/local")
        .enumerate()
        .filter_map(|(at, entry)| {
            let (unit, amount) = match (object::number(entry, "/tokens"), object::number(entry, "/requests")) {
                (Some(tokens), _) => (Unit::Tokens, tokens),
                (None, requests) => (Unit::Requests, requests?),
            };
            let interval_ms = match text(entry, "/unit") {
                "Seconds" => 1_000,
                "Minutes" => 60_000,
                "Hours" => 3_600_000,
                _ => return None,
            };
            let burst = object::number(entry, "/burst").unwrap_or(0);
            let limit = BucketLimit { capacity: amount + burst, per_fill: amount, interval_ms };
            let uid = |object: &Value| text(object, "/metadata/uid").to_owned();
            let bucket = format!("{} {} {at} {unit:?} {limit:?}", uid(policy), uid(target));
            Some(LocalLimit { bucket, unit, limit })
        })
        .collect()
}

fn transformation(written: &Value) -> Transformation {
    let side = |name: &str| {
        let pairs = |changes: &str| {
            list(written, &format!("/{name}/{changes}"))
                .map(|p| (text(p, "/name").to_ascii_lowercase(), Expression::new(text(p, "/value"))))
                .collect()
        };
        Side {
            set: pairs("set"),
            add: pairs("add"),
            remove: list(written, &format!("/{name}/remove")).filter_map(Value::as_str).map(str::to_owned).collect(),
            body: written.pointer(&format!("/{name}/body")).and_then(Value::as_str).map(Expression::new),
        }
    };
    Transformation { request: side("request"), response: side("response") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn limits(written: Value) -> Vec<(Unit, u64, u64, u64)> {
        let object = json!({"metadata": {"uid": "u"}});
        local_limits(&object, &object, &written)
            .iter()
            .map(|l| (l.unit, l.limit.capacity, l.limit.per_fill, l.limit.interval_ms))
            .collect()
    }

    #[rstest]
    #[case(json!([{"tokens": 70, "unit": "Minutes"}]), &[(Unit::Tokens, 70, 70, 60_000)])]
    #[case(json!([{"requests": 5, "burst": 3, "unit": "Seconds"}]), &[(Unit::Requests, 8, 5, 1_000)])]
    #[case(json!([{"requests": 5, "unit": "Hours"}, {"tokens": 7, "unit": "Hours"}]),
        &[(Unit::Requests, 5, 5, 3_600_000), (Unit::Tokens, 7, 7, 3_600_000)])]
    #[case(json!([{"tokens": 7, "unit": "Days"}]), &[])]
    fn entries_are_buckets(#[case] local: Value, #[case] expected: &[(Unit, u64, u64, u64)]) {
        assert_eq!(limits(json!({"local": local})), expected);
    }
}
