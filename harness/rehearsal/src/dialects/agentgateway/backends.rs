//! What backendRefs lead to: Services, AgentgatewayBackends and InferencePools, and how AgentgatewayBackends stand.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::{kinds, pools::Pools};
use crate::{
    dataplane::routing::{Backend, IncludeUsage, Provider, Target},
    dialects::{
        Snapshot, StatusOf, Translation,
        attachments::Unresolved,
        gateway_api,
        object::{self, observed, text, text_or},
        pools,
    },
};

/// Where a backendRef leads (words of recording `20-status-gateway-route.txt`).
pub(super) fn backend(
    snapshot: &Snapshot,
    pools: &Pools<'_>,
    route: &Value,
    backend_ref: &Value,
) -> Result<Backend, Unresolved> {
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
            Ok(Backend::plain(Target::Service { namespace: home.to_owned(), name: name.to_owned(), port }))
        }
        "Service" => unresolved("BackendNotFound", format!("backend({name}.{home}.svc.cluster.local) not found")),
        "AgentgatewayBackend" => match snapshot.get(&kinds::AGENTGATEWAY_BACKEND, home, name) {
            Some(backend) => Ok(of_backend(snapshot, pools, backend)),
            None => unresolved("BackendNotFound", format!("Backend not found: {home}/{name}")),
        },
        _ => match pools.of_route(home, name) {
            Some(target) => Ok(Backend::plain(target)),
            None => unresolved("BackendNotFound", format!("backendRef {home}/{name} not found")),
        },
    }
}

/// An AgentgatewayBackend of type `ai` (the first provider of a group) or `static`.
fn of_backend(snapshot: &Snapshot, pools: &Pools<'_>, backend: &Value) -> Backend {
    if translation_error(snapshot, backend).is_some() {
        return Backend::plain(Target::Broken);
    }
    if let Some(host) = backend.pointer("/spec/static") {
        return Backend::plain(target(host).unwrap_or(Target::Broken));
    }
    let provider = backend.pointer("/spec/ai/provider").or_else(|| backend.pointer("/spec/ai/groups/0/providers/0"));
    let Some(provider) = provider else { return Backend::plain(Target::Broken) };
    let model = ["openai", "custom", "anthropic", "gemini"]
        .iter()
        .find_map(|kind| provider.pointer(&format!("/{kind}/model")))
        .and_then(Value::as_str);
    let target = match provider.pointer("/custom/backendRef") {
        Some(reference) => match pools::named(backend, reference) {
            Some((home, name)) => Some(pools.of_backend(&home, &name).unwrap_or(Target::Broken)),
            None => object::port(reference, "/port").map(|port| Target::Service {
                namespace: text_or(reference, "/namespace", object::namespace(backend)).to_owned(),
                name: text(reference, "/name").to_owned(),
                port,
            }),
        },
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
    Backend { host_rewrite, provider: Some(provider), ..Backend::plain(target) }
}

fn target(written: &Value) -> Option<Target> {
    let host = written.get("host").and_then(Value::as_str)?;
    Some(Target::Host { host: host.to_owned(), port: object::port(written, "/port")? })
}

fn translation_error(snapshot: &Snapshot, backend: &Value) -> Option<String> {
    let secret = text(backend, "/spec/policies/auth/secretRef/name");
    let home = object::namespace(backend);
    (!secret.is_empty() && snapshot.get(&kinds::SECRET, home, secret).is_none())
        .then(|| format!("failed to translate backend: secret {home}/{secret} not found"))
}

/// How AgentgatewayBackends stand (recording `22-status-backend-pool.txt`).
pub(super) fn statuses(snapshot: &Snapshot, translation: &mut Translation) {
    for backend in snapshot.all(&kinds::AGENTGATEWAY_BACKEND).filter(|b| !object::is_going(b)) {
        let condition = match translation_error(snapshot, backend) {
            None => observed(backend, "Accepted", true, "Accepted", "Backend successfully accepted"),
            Some(error) => observed(backend, "Accepted", false, "TranslationError", &error),
        };
        let status = json!({"conditions": [condition]});
        translation.statuses.push(StatusOf::new(kinds::AGENTGATEWAY_BACKEND, backend, status));
    }
}
