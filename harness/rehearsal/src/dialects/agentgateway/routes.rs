//! HTTPRoutes as agentgateway reads them: entries for the data plane, and the status of each parent.

use serde_json::{Value, json};

use super::{CONTROLLER, backends, kinds, policies::Policies, pools::Pools};
use crate::{
    dataplane::routing::{Backend, Rule, Target},
    dialects::{
        Snapshot, StatusOf,
        attachments::{Attachments, Unresolved},
        gateway_api::{self, Attached, Refusal},
        object::{self, list, observed, text},
    },
};

pub(super) fn translate(
    snapshot: &Snapshot,
    route: &Value,
    policies: &Policies,
    pools: &Pools<'_>,
    attachments: &mut Attachments,
) {
    let (rules, unresolved) = rules(snapshot, route, pools);
    let mut parents = Vec::new();
    for parent_ref in list(route, "/spec/parentRefs") {
        let Some(gateway) = gateway_api::parent_of(snapshot, CONTROLLER, route, parent_ref) else { continue };
        let attached = gateway_api::attach(snapshot, route, parent_ref, gateway);
        parents.push(parent_status(route, parent_ref, gateway, &attached, unresolved.as_ref()));
        let Ok(listeners) = attached else { continue };
        attachments.attach(route, gateway, listeners, &rules, |rule, name, listener| {
            policies.apply(rule, route, name, gateway, listener);
        });
    }
    attachments.statuses.push(StatusOf::new(kinds::HTTP_ROUTE, route, json!({"parents": parents})));
}

/// The status of one parent, in the words of recording `20-status-gateway-route.txt`.
fn parent_status(
    route: &Value,
    parent_ref: &Value,
    gateway: &Value,
    attached: &Result<Vec<Attached>, Refusal>,
    unresolved: Option<&Unresolved>,
) -> Value {
    let accepted = match attached {
        Ok(_) => observed(route, "Accepted", true, "Accepted", ""),
        Err(refusal) => {
            let message = match refusal {
                Refusal::NoSuchListener { section } => {
                    format!("sectionName {:?} not found", section.as_deref().unwrap_or(""))
                }
                Refusal::NotAllowed { hostname } => format!(
                    "hostnames matched parent hostname {hostname:?}, but namespace {:?} is not allowed by the parent",
                    object::namespace(route)
                ),
                Refusal::NoCommonHostname { hostname } => format!("no hostnames matched parent hostname {hostname:?}"),
            };
            observed(route, "Accepted", false, refusal.reason(), &message)
        }
    };
    let resolved = match unresolved {
        None => observed(route, "ResolvedRefs", true, "ResolvedRefs", ""),
        Some(Unresolved { reason, message }) => observed(route, "ResolvedRefs", false, reason, message),
    };
    let mut parent = json!({
        "group": gateway_api::GROUP, "kind": "Gateway",
        "name": object::name(gateway), "namespace": object::namespace(gateway),
    });
    for field in ["sectionName", "port"] {
        if let Some(value) = parent_ref.get(field) {
            parent[field] = value.clone();
        }
    }
    json!({"conditions": [accepted, resolved], "controllerName": CONTROLLER, "parentRef": parent})
}

/// The rules of a route, each beside what was written, and the first reference that does not resolve.
fn rules<'a>(snapshot: &Snapshot, route: &'a Value, pools: &Pools<'_>) -> (Vec<(&'a Value, Rule)>, Option<Unresolved>) {
    let mut unresolved = None;
    let rules = list(route, "/spec/rules")
        .map(|written| {
            let backends = list(written, "/backendRefs").map(|backend_ref| {
                let backend = backends::backend(snapshot, pools, route, backend_ref).unwrap_or_else(|reason| {
                    unresolved.get_or_insert(reason);
                    let service = object::text_or(backend_ref, "/kind", "Service") == "Service";
                    Backend::plain(if service { Target::NoService } else { Target::Broken })
                });
                Backend { weight: gateway_api::weight(backend_ref), ..backend }
            });
            let rule = Rule {
                backends: backends.collect(),
                filters: list(written, "/filters").filter_map(gateway_api::filter).collect(),
                timeout: object::duration(text(written, "/timeouts/request")),
                ..Rule::default()
            };
            (written, rule)
        })
        .collect();
    (rules, unresolved)
}
