//! BackendTrafficPolicy and ClientTrafficPolicy: budgets, buffer limits, and what their statuses say.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};

use super::{CONTROLLER, gateway_ref, kinds};
use crate::{
    dataplane::{
        limits::WindowLimit,
        routing::{GlobalLimit, Rule, Selector},
    },
    dialects::{
        Name, Snapshot, StatusOf, Translation,
        attachments::Attachments,
        gateway_api::{self, TargetRef, targets},
        object::{self, list, observed, text, text_or},
    },
};

pub(super) struct Policies {
    backend: Vec<Arc<Value>>,
    client: Vec<Arc<Value>>,
}

impl Policies {
    /// Reads them, oldest first: the older of two on one target wins.
    pub(super) fn read(snapshot: &Snapshot) -> Self {
        let of = |kind| gateway_api::policies(snapshot, kind);
        Self { backend: of(&kinds::BACKEND_TRAFFIC_POLICY), client: of(&kinds::CLIENT_TRAFFIC_POLICY) }
    }

    /// The policy of a list that targets an object and, most specific first, a section of it.
    fn on<'a>(policies: &'a [Arc<Value>], kind: &str, object: &Value, section: &str) -> Option<&'a Arc<Value>> {
        let of = |section| policies.iter().find(|p| gateway_api::is_on(p, kind, object, section));
        Some(section).filter(|s| !s.is_empty()).and_then(|s| of(Some(s))).or_else(|| of(None))
    }

    /// Puts on a rule what policies say: a route's policy replaces the Gateway's (docs/facts/envoy-ai-gateway.md E6).
    pub(super) fn apply(&self, rule: &mut Rule, route: &Value, rule_name: &str, gateway: &Value, listener: usize) {
        let section = gateway.pointer(&format!("/spec/listeners/{listener}/name")).and_then(Value::as_str);
        let section = section.unwrap_or("");
        let budget = Self::on(&self.backend, "HTTPRoute", route, rule_name)
            .or_else(|| Self::on(&self.backend, "Gateway", gateway, section));
        if let Some(policy) = budget {
            rule.global_limits = limits(policy);
            if let Some(timeout) = object::duration(text(policy, "/spec/timeout/http/requestTimeout")) {
                rule.timeout = Some(timeout);
            }
        }
        let client = Self::on(&self.client, "Gateway", gateway, section);
        if let Some(bound) = client.and_then(|p| p.pointer("/spec/connection/bufferLimit")).and_then(object::bytes) {
            rule.buffer_limit = Some(bound);
        }
    }

    pub(super) fn statuses(&self, snapshot: &Snapshot, attachments: &Attachments, translation: &mut Translation) {
        let ours: Vec<Name> = gateway_api::gateways(snapshot, CONTROLLER).map(|g| object::key(g)).collect();
        let key =
            |policy: &Value, target: TargetRef<'_>| (object::namespace(policy).to_owned(), target.name.to_owned());
        let (mut taken, mut overridden) = (Vec::new(), BTreeMap::<&Name, Vec<String>>::new());
        for policy in &self.backend {
            for target in targets(policy).filter(|t| t.kind == "HTTPRoute") {
                let route = key(policy, target);
                for gateway in attachments.parents.get(&route).into_iter().flatten() {
                    overridden.entry(gateway).or_default().push(format!("{}/{}", route.0, route.1));
                }
            }
        }
        let all = self.backend.iter().map(|p| (kinds::BACKEND_TRAFFIC_POLICY, p));
        for (kind, policy) in all.chain(self.client.iter().map(|p| (kinds::CLIENT_TRAFFIC_POLICY, p))) {
            let mut ancestors = Vec::new();
            for target in targets(policy) {
                let gateways = match target.kind {
                    "Gateway" => vec![key(policy, target)],
                    _ => attachments.parents.get(&key(policy, target)).cloned().unwrap_or_default(),
                };
                let claim = (kind.clone(), object::namespace(policy), target);
                let accepted = if taken.contains(&claim) {
                    let TargetRef { kind: of, name, .. } = target;
                    let message =
                        format!("Unable to target {of} {name}, another {} has already attached to it.", kind.kind);
                    observed(policy, "Accepted", false, "Conflicted", &message)
                } else {
                    observed(policy, "Accepted", true, "Accepted", "Policy has been accepted.")
                };
                taken.push(claim);
                for gateway in gateways.into_iter().filter(|g| ours.contains(g)) {
                    let mut conditions = vec![accepted.clone()];
                    if let Some(routes) = overridden.get(&gateway)
                        && target.kind == "Gateway"
                        && kind == kinds::BACKEND_TRAFFIC_POLICY
                    {
                        let message = format!(
                            "This policy is being overridden by other backendTrafficPolicies for these routes: [{}]",
                            routes.join(" ")
                        );
                        conditions.push(observed(policy, "Overridden", true, "Overridden", &message));
                    }
                    let ancestor = gateway_ref(&gateway);
                    ancestors
                        .push(json!({"ancestorRef": ancestor, "conditions": conditions, "controllerName": CONTROLLER}));
                }
            }
            if !ancestors.is_empty() || policy.pointer("/status/ancestors").is_some() {
                translation.statuses.push(StatusOf::new(kind, policy, json!({"ancestors": ancestors})));
            }
        }
    }
}

fn limits(policy: &Value) -> Vec<GlobalLimit> {
    list(policy, "/spec/rateLimit/global/rules")
        .enumerate()
        .filter_map(|(at, rule)| {
            let seconds = match text(rule, "/limit/unit") {
                "Second" => 1,
                "Minute" => 60,
                "Hour" => 3_600,
                "Day" => 86_400,
                "Week" => 604_800,
                "Month" => 2_592_000,
                "Year" => 31_536_000,
                _ => return None,
            };
            let request_hits = match text_or(rule, "/cost/request/from", "Number") {
                "Number" => object::number(rule, "/cost/request/number").unwrap_or(1),
                _ => 0,
            };
            let response = rule.pointer("/cost/response/metadata");
            Some(GlobalLimit {
                name: format!("{}/{}/rule/{at}", object::namespace(policy), object::name(policy)),
                shared: rule.get("shared").and_then(Value::as_bool).unwrap_or(false),
                selectors: list(rule, "/clientSelectors").flat_map(|s| list(s, "/headers")).map(selector).collect(),
                limit: WindowLimit { hits: object::number(rule, "/limit/requests")?, seconds },
                request_hits,
                response_key: response
                    .filter(|m| text(m, "/namespace") == METADATA_NAMESPACE)
                    .map(|m| text(m, "/key").to_owned()),
            })
        })
        .collect()
}

/// Where Envoy AI Gateway puts the numbers of a reply (docs/facts/envoy-ai-gateway.md E4).
const METADATA_NAMESPACE: &str = "io.envoy.ai_gateway";

fn selector(header: &Value) -> Selector {
    let name = text(header, "/name").to_ascii_lowercase();
    match text_or(header, "/type", "Exact") {
        "Distinct" => Selector::Distinct { name },
        _ => Selector::Match {
            name,
            value: gateway_api::value_match(header),
            invert: header.get("invert").and_then(Value::as_bool).unwrap_or(false),
        },
    }
}
