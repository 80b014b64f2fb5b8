//! HTTPRoutes as Envoy Gateway reads them: entries for the data plane, and the status of each parent.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};

use super::{CONTROLLER, ai_routes::AiRoutes, kinds, policies::Policies, pools};
use crate::{
    dataplane::{
        local_reply::LocalReply,
        routing::{Backend, Filter, Rule, Target},
    },
    dialects::{
        Snapshot, StatusOf,
        attachments::{Attachments, Unresolved},
        gateway_api::{self, Attached, Refusal},
        object::{self, list, observed, text, text_or},
    },
};

/// Envoy's own limit where a route says nothing (docs/facts/envoy-ai-gateway.md E12).
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);

pub(super) fn translate(
    snapshot: &Snapshot,
    route: &Value,
    ai: &AiRoutes,
    policies: &Policies,
    attachments: &mut Attachments,
) {
    let (rules, unresolved) = rules(snapshot, route, ai);
    let mut parents = Vec::new();
    for parent_ref in list(route, "/spec/parentRefs") {
        let Some(gateway) = gateway_api::parent_of(snapshot, CONTROLLER, route, parent_ref) else { continue };
        let attached = gateway_api::attach(snapshot, route, parent_ref, gateway);
        parents.push(parent_status(route, parent_ref, &attached, unresolved.as_ref()));
        let Ok(listeners) = attached else { continue };
        let extraction = ai.extraction(route, &object::key(gateway));
        attachments.attach(route, gateway, listeners, &rules, |rule, name, listener| {
            rule.extraction.clone_from(&extraction);
            policies.apply(rule, route, name, gateway, listener);
        });
    }
    let names_ours = !parents.is_empty();
    if names_ours || route.pointer("/status/parents").is_none_or(|p| p.as_array().is_some_and(|p| !p.is_empty())) {
        attachments.statuses.push(StatusOf::new(kinds::HTTP_ROUTE, route, json!({"parents": parents})));
    }
}

/// The status of one parent, in the words of recordings `isvc-objects.yaml` and `status-negative-cases.txt`.
fn parent_status(
    route: &Value,
    parent_ref: &Value,
    attached: &Result<Vec<Attached>, Refusal>,
    unresolved: Option<&Unresolved>,
) -> Value {
    let accepted = match attached {
        Ok(_) => observed(route, "Accepted", true, "Accepted", "Route is accepted"),
        Err(refusal) => {
            let message = match refusal {
                Refusal::NoSuchListener { .. } => "No listeners match this parent ref",
                Refusal::NotAllowed { .. } => "No listeners included by this parent ref allowed this attachment.",
                Refusal::NoCommonHostname { .. } => {
                    "There were no hostname intersections between the HTTPRoute and this parent ref's Listener(s)."
                }
            };
            observed(route, "Accepted", false, refusal.reason(), message)
        }
    };
    let all_resolved = "Resolved all the Object references for the Route";
    let resolved = match unresolved {
        None => observed(route, "ResolvedRefs", true, "ResolvedRefs", all_resolved),
        Some(Unresolved { reason, message }) => observed(route, "ResolvedRefs", false, reason, message),
    };
    json!({"conditions": [accepted, resolved], "controllerName": CONTROLLER, "parentRef": parent_ref})
}

/// The rules of a route, each beside what was written, and the first reference that does not resolve.
fn rules<'a>(snapshot: &Snapshot, route: &'a Value, ai: &AiRoutes) -> (Vec<(&'a Value, Rule)>, Option<Unresolved>) {
    let mut unresolved = None;
    let rules = list(route, "/spec/rules")
        .enumerate()
        .map(|(at, written)| {
            let mut backends = Vec::new();
            for (nth, backend_ref) in list(written, "/backendRefs").enumerate() {
                let targets =
                    targets(snapshot, ai, route, backend_ref).unwrap_or_else(|Unresolved { reason, message }| {
                        let message = format!("Failed to process route rule {at} backendRef {nth}: {message}.");
                        unresolved.get_or_insert(Unresolved { reason, message });
                        vec![Target::Broken]
                    });
                let (provider, request) = ai.provider(route, at, nth).unzip();
                for target in targets {
                    let host_rewrite = match &target {
                        Target::Host { host, .. } if rewrites_host(snapshot, route, written) => Some(host.clone()),
                        _ => None,
                    };
                    let (provider, request) = (provider.clone(), request.clone().unwrap_or_default());
                    let weight = gateway_api::weight(backend_ref);
                    backends.push(Backend { weight, target, host_rewrite, request, provider });
                }
            }
            let rule = Rule {
                filters: filters(snapshot, route, written),
                backends,
                timeout: object::duration(text(written, "/timeouts/request")).or(Some(DEFAULT_TIMEOUT)),
                costs: ai.costs(route),
                ..Rule::default()
            };
            (written, rule)
        })
        .collect();
    (rules, unresolved)
}

fn targets(snapshot: &Snapshot, ai: &AiRoutes, route: &Value, backend_ref: &Value) -> Result<Vec<Target>, Unresolved> {
    let (group, kind) = (text(backend_ref, "/group"), text_or(backend_ref, "/kind", "Service"));
    let home = text_or(backend_ref, "/namespace", object::namespace(route));
    let name = text(backend_ref, "/name");
    let from = (gateway_api::GROUP, "HTTPRoute", object::namespace(route));
    let unresolved = |reason, message| Err(Unresolved { reason, message });
    if !matches!(group, "" | "gateway.envoyproxy.io" | "multicluster.x-k8s.io" | "inference.networking.k8s.io") {
        return unresolved(
            "InvalidKind",
            "Group is invalid, only the core API group (specified by omitting the group field or setting it to an \
             empty string), multicluster.x-k8s.io and gateway.envoyproxy.io are supported"
                .to_owned(),
        );
    }
    if !gateway_api::is_granted(snapshot, from, (group, kind, home, name)) {
        return unresolved(
            "RefNotPermitted",
            format!("backend ref to {kind} {home}/{name} not permitted by any ReferenceGrant"),
        );
    }
    match (group, kind) {
        ("", "Service") => {
            let Some(service) = snapshot.get(&kinds::SERVICE, home, name) else {
                return unresolved("BackendNotFound", format!("service {home}/{name} not found"));
            };
            let Some(port) = object::port(backend_ref, "/port") else {
                return unresolved(
                    "PortNotSpecified",
                    format!(
                        "a valid port number corresponding to a port on the Service must be specified for {home}/{name}"
                    ),
                );
            };
            if !list(service, "/spec/ports").any(|p| object::port(p, "/port") == Some(port)) {
                return unresolved("PortNotFound", format!("TCP Port {port} not found on Service {home}/{name}"));
            }
            Ok(vec![Target::Service { namespace: home.to_owned(), name: name.to_owned(), port }])
        }
        ("gateway.envoyproxy.io", "Backend") => {
            let Some(backend) = snapshot.get(&kinds::BACKEND, home, name) else {
                return unresolved("BackendNotFound", format!("Backend {home}/{name} not found"));
            };
            let targets = list(backend, "/spec/endpoints")
                .filter_map(|endpoint| {
                    let fqdn = endpoint.get("fqdn").map(|fqdn| (fqdn, "/hostname"));
                    let (written, host) = fqdn.or(endpoint.get("ip").map(|ip| (ip, "/address")))?;
                    Some(Target::Host { host: text(written, host).to_owned(), port: object::port(written, "/port")? })
                })
                .collect();
            Ok(targets)
        }
        ("inference.networking.k8s.io", "InferencePool") => {
            match snapshot.get(&kinds::INFERENCE_POOL, home, name) {
                Some(pool) if ai.is_wired() => Ok(vec![pools::target(pool)]),
                Some(_) => Ok(vec![Target::Broken]), // the extension server is not wired: Envoy gets no cluster for the pool
                None => unresolved("BackendNotFound", format!("custom backend InferencePool {home}/{name} not found")),
            }
        }
        _ => unresolved(
            "InvalidKind",
            format!("Kind {kind} is invalid, only Service, ServiceImport and Backend are supported"),
        ),
    }
}

fn extensions<'a>(snapshot: &'a Snapshot, route: &Value, rule: &Value) -> Vec<&'a Arc<Value>> {
    list(rule, "/filters")
        .filter(|f| text(f, "/type") == "ExtensionRef" && text(f, "/extensionRef/kind") == "HTTPRouteFilter")
        .filter_map(|f| {
            snapshot.get(&kinds::HTTP_ROUTE_FILTER, object::namespace(route), text(f, "/extensionRef/name"))
        })
        .collect()
}

fn rewrites_host(snapshot: &Snapshot, route: &Value, rule: &Value) -> bool {
    extensions(snapshot, route, rule).iter().any(|f| text(f, "/spec/urlRewrite/hostname/type") == "Backend")
}

fn filters(snapshot: &Snapshot, route: &Value, rule: &Value) -> Vec<Filter> {
    let direct = extensions(snapshot, route, rule).into_iter().filter_map(|f| {
        let response = f.pointer("/spec/directResponse")?;
        let status = object::port(response, "/statusCode").unwrap_or(200);
        let body = text(response, "/body/inline");
        Some(Filter::Direct(match response.get("contentType").and_then(Value::as_str) {
            Some(content_type) => LocalReply::typed(status, content_type, body),
            None => LocalReply::text(status, body),
        }))
    });
    list(rule, "/filters").filter_map(gateway_api::filter).chain(direct).collect()
}
