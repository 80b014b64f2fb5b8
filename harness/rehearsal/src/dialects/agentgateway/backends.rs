//! What backendRefs lead to: Services, AgentgatewayBackends and InferencePools, and how the latter two stand.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::{
    CONTROLLER,
    routes::{Routed, Unresolved},
};
use crate::{
    api::kinds,
    dataplane::routing::{Backend, HeaderEdit, IncludeUsage, Provider, Target},
    dialects::{
        Snapshot, StatusOf, Translation, gateway_api,
        object::{self, list, observed, text, text_or},
    },
};

/// A backend that changes nothing.
pub(super) fn plain(target: Target) -> Backend {
    Backend { weight: 1, target, host_rewrite: None, request: HeaderEdit::default(), provider: None }
}

/// Where a backendRef leads (words of recording `20-status-gateway-route.txt`).
pub(super) fn backend(snapshot: &Snapshot, route: &Value, backend_ref: &Value) -> Result<Backend, Unresolved> {
    let (group, kind) = (text(backend_ref, "/group"), text_or(backend_ref, "/kind", "Service"));
    let home = text_or(backend_ref, "/namespace", object::namespace(route));
    let name = text(backend_ref, "/name");
    let unresolved = |reason, message| Err(Unresolved { reason, message });
    if !matches!(
        (group, kind),
        ("", "Service")
            | ("agentgateway.dev", "AgentgatewayBackend")
            | ("inference.networking.k8s.io", "InferencePool")
    ) {
        return unresolved("InvalidKind", format!("referencing unsupported backendRef: group {group:?} kind {kind:?}"));
    }
    let from = (gateway_api::GROUP, "HTTPRoute", object::namespace(route));
    if !gateway_api::is_granted(snapshot, from, (group, kind, home, name)) {
        return unresolved(
            "RefNotPermitted",
            format!(
                "backendRef {home}/{name} not accessible to a HTTPRoute in namespace {:?} (missing a ReferenceGrant?)",
                object::namespace(route)
            ),
        );
    }
    match kind {
        "Service" if snapshot.get(&kinds::SERVICE, home, name).is_some() => {
            // Whether the Service has that port is not asked (seen on a real cluster: ResolvedRefs=True).
            let port = object::port(backend_ref, "/port").unwrap_or(0);
            Ok(plain(Target::Service { namespace: home.to_owned(), name: name.to_owned(), port }))
        }
        "Service" => unresolved("BackendNotFound", format!("backend({name}.{home}.svc.cluster.local) not found")),
        "AgentgatewayBackend" => match snapshot.get(&kinds::AGENTGATEWAY_BACKEND, home, name) {
            Some(backend) => Ok(of_backend(snapshot, backend)),
            None => unresolved("BackendNotFound", format!("Backend not found: {home}/{name}")),
        },
        // A pool needs its endpoint picker, which is not rehearsed yet.
        _ => match snapshot.get(&kinds::INFERENCE_POOL, home, name) {
            Some(_) => Ok(plain(Target::Broken)),
            None => unresolved("BackendNotFound", format!("backendRef {home}/{name} not found")),
        },
    }
}

/// An AgentgatewayBackend of type `ai` (the first provider of a group) or `static`.
fn of_backend(snapshot: &Snapshot, backend: &Value) -> Backend {
    if translation_error(snapshot, backend).is_some() {
        return plain(Target::Broken);
    }
    if let Some(host) = backend.pointer("/spec/static") {
        return plain(target(host).unwrap_or(Target::Broken));
    }
    let provider = backend.pointer("/spec/ai/provider").or_else(|| backend.pointer("/spec/ai/groups/0/providers/0"));
    let Some(provider) = provider else { return plain(Target::Broken) };
    let model = ["openai", "custom", "anthropic", "gemini"]
        .iter()
        .find_map(|kind| provider.pointer(&format!("/{kind}/model")))
        .and_then(Value::as_str);
    let to_service = provider.pointer("/custom/backendRef").filter(|r| text_or(r, "/kind", "Service") == "Service");
    let target = match to_service {
        Some(service) => object::port(service, "/port").map(|port| Target::Service {
            namespace: text_or(service, "/namespace", object::namespace(backend)).to_owned(),
            name: text(service, "/name").to_owned(),
            port,
        }),
        None => target(provider).or_else(|| target(&provider["custom"])),
    };
    // Without a host it is the vendor's, which no world can reach.
    let target = target.unwrap_or_else(|| Target::Host { host: "api.openai.com".to_owned(), port: 443 });
    let host_rewrite = match &target {
        Target::Host { host, .. } if host.parse::<IpAddr>().is_err() => Some(host.clone()),
        _ => None,
    };
    let provider = Provider {
        model: model.map(str::to_owned),
        path: provider.get("path").and_then(Value::as_str).map(str::to_owned),
        prefix: provider.get("pathPrefix").and_then(Value::as_str).map(str::to_owned),
        parses_chat: true,
        rewrites_reply: true,
        wraps_errors: false,
        include_usage: IncludeUsage::WhereAbsent,
    };
    Backend { host_rewrite, provider: Some(provider), ..plain(target) }
}

fn target(written: &Value) -> Option<Target> {
    let host = written.get("host").and_then(Value::as_str)?;
    Some(Target::Host { host: host.to_owned(), port: object::port(written, "/port")? })
}

/// Why a backend cannot be translated.
fn translation_error(snapshot: &Snapshot, backend: &Value) -> Option<String> {
    let secret = text(backend, "/spec/policies/auth/secretRef/name");
    let home = object::namespace(backend);
    (!secret.is_empty() && snapshot.get(&kinds::SECRET, home, secret).is_none())
        .then(|| format!("failed to translate backend: secret {home}/{secret} not found"))
}

/// How AgentgatewayBackends and InferencePools stand (recording `22-status-backend-pool.txt`).
pub(super) fn statuses(snapshot: &Snapshot, routed: &Routed, translation: &mut Translation) {
    for backend in snapshot.all(&kinds::AGENTGATEWAY_BACKEND).filter(|b| !object::is_going(b)) {
        let generation = object::generation(backend);
        let condition = match translation_error(snapshot, backend) {
            None => observed(generation, "Accepted", true, "Accepted", "Backend successfully accepted"),
            Some(error) => observed(generation, "Accepted", false, "TranslationError", &error),
        };
        let status = json!({"conditions": [condition]});
        translation.statuses.push(StatusOf { kind: kinds::AGENTGATEWAY_BACKEND, name: object::key(backend), status });
    }
    for pool in snapshot.all(&kinds::INFERENCE_POOL).filter(|p| !object::is_going(p)) {
        let mut gateways = routed.pools.get(&object::key(pool)).cloned().unwrap_or_default();
        gateways.sort();
        gateways.dedup();
        let parents: Vec<_> = gateways
            .iter()
            .map(|(namespace, name)| {
                json!({
                    "conditions": pool_conditions(snapshot, pool),
                    "controllerName": CONTROLLER,
                    "parentRef": {"group": gateway_api::GROUP, "kind": "Gateway", "name": name, "namespace": namespace},
                })
            })
            .collect();
        if !parents.is_empty() || pool.pointer("/status/parents").is_some() {
            let status = if parents.is_empty() { json!({}) } else { json!({"parents": parents}) };
            translation.statuses.push(StatusOf { kind: kinds::INFERENCE_POOL, name: object::key(pool), status });
        }
    }
}

fn pool_conditions(snapshot: &Snapshot, pool: &Value) -> [Value; 2] {
    let generation = object::generation(pool);
    let message = format!("InferencePool has been accepted by controller {CONTROLLER}");
    let accepted = observed(generation, "Accepted", true, "Accepted", &message);
    let resolved = match picker_error(snapshot, pool) {
        None => {
            let message = "All InferencePool references have been resolved";
            observed(generation, "ResolvedRefs", true, "ResolvedRefs", message)
        }
        Some(error) => observed(generation, "ResolvedRefs", false, "InvalidExtensionRef", &format!("error: {error}")),
    };
    [accepted, resolved]
}

/// What is wrong with the endpoint picker that a pool names.
fn picker_error(snapshot: &Snapshot, pool: &Value) -> Option<String> {
    let picker = pool.pointer("/spec/endpointPickerRef")?;
    let (home, name) = (object::namespace(pool), text(picker, "/name"));
    let (group, kind) = (text(picker, "/group"), text_or(picker, "/kind", "Service"));
    let wrong: Vec<String> = [
        (!group.is_empty()).then(|| format!("endpointPickerRef.group must be empty, got {group:?}")),
        (kind != "Service").then(|| format!("endpointPickerRef.kind must be \"Service\", got {kind:?}")),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !wrong.is_empty() {
        return Some(wrong.join("; "));
    }
    let Some(service) = snapshot.get(&kinds::SERVICE, home, name) else {
        return Some(format!("endpointPickerRef Service {home}/{name} not found"));
    };
    let port = object::port(picker, "/port/number")?;
    (!list(service, "/spec/ports").any(|p| object::port(p, "/port") == Some(port)))
        .then(|| format!("endpointPickerRef.port {port} must reference a TCP Service port on {home}/{name}"))
}
