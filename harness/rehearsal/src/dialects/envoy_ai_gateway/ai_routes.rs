//! AIGatewayRoute and AIServiceBackend: what the AI controller generates, says, and tells the data plane.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Map, Value, json};

use super::{EnvoyAiGateway, kinds};
use crate::{
    dataplane::{
        routing::{ExistingHeader, Extraction, HeaderEdit, HostPattern, IncludeUsage, Provider},
        usage::Cost,
    },
    dialects::{
        Name, Snapshot, StatusOf, Translation, gateway_api,
        object::{self, condition, list, name, namespace, text, text_or},
        pools,
    },
};

pub(super) const MODEL_HEADER: &str = "x-ai-eg-model";
pub(super) const GENERATED: &str = "gateway.envoyproxy.io/ai-gateway-generated";
/// Holds an AIGatewayRoute until its children are gone.
pub(super) const FINALIZER: &str = "aigateway.envoyproxy.io/finalizer";

/// Bodies of requests to these paths are read (docs/facts/envoy-ai-gateway.md E3; `/v1/models` is answered apart).
const PATHS: &[&str] = &[
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/responses/input_tokens",
    "/v1/audio/speech",
    "/v1/images/generations",
    "/cohere/v2/rerank",
    "/anthropic/v1/messages",
    "/anthropic/v1/messages/count_tokens",
    "/tokenize",
];

pub(super) fn translate(snapshot: &Snapshot, translation: &mut Translation) {
    for backend in snapshot.all(&kinds::AI_SERVICE_BACKEND).filter(|b| !object::is_going(b)) {
        // Whether the Backend exists is not asked (recording status-negative-cases.txt, case 4).
        let status = reconciled("AIServiceBackend reconciled successfully");
        translation.statuses.push(StatusOf::new(kinds::AI_SERVICE_BACKEND, backend, status));
        translation.finalizers.push((kinds::AI_SERVICE_BACKEND, object::key(backend), FINALIZER));
    }
    for route in snapshot.all(&kinds::AI_GATEWAY_ROUTE).filter(|r| !object::is_going(r)) {
        translation.finalizers.push((kinds::AI_GATEWAY_ROUTE, object::key(route), FINALIZER));
        let outcome = generate(snapshot, route, &mut translation.children)
            .and_then(|()| missing_gateway(snapshot, route).map_or(Ok(()), Err));
        let status = match outcome {
            Ok(()) => reconciled("AI Gateway Route reconciled successfully"),
            Err(message) => json!({"conditions": [condition("NotAccepted", false, "ReconciliationFailed", &message)]}),
        };
        translation.statuses.push(StatusOf::new(kinds::AI_GATEWAY_ROUTE, route, status));
    }
    for backend in snapshot.all(&kinds::BACKEND) {
        let accepted = object::observed(backend, "Accepted", true, "Accepted", "The Backend was accepted");
        translation.statuses.push(StatusOf::new(kinds::BACKEND, backend, json!({"conditions": [accepted]})));
    }
}

/// At most one condition, without observedGeneration (docs/facts/envoy-ai-gateway.md E2).
fn reconciled(message: &str) -> Value {
    json!({"conditions": [condition("Accepted", true, "ReconciliationSucceeded", message)]})
}

fn missing_gateway(snapshot: &Snapshot, route: &Value) -> Option<String> {
    list(route, "/spec/parentRefs").find(|r| gateway_api::parent(snapshot, route, r).is_none()).map(|parent_ref| {
        let (home, name) = (text_or(parent_ref, "/namespace", namespace(route)), text(parent_ref, "/name"));
        format!(
            "failed to sync gw pods: gateway {home}/{name} not found: \
             Gateway.gateway.networking.k8s.io \"{name}\" not found"
        )
    })
}

/// The AIServiceBackend of a backendRef; `None` for an InferencePool.
fn service_backend<'a>(
    snapshot: &'a Snapshot,
    route: &Value,
    backend_ref: &Value,
) -> Result<Option<&'a Arc<Value>>, String> {
    if text(backend_ref, "/kind") == "InferencePool" {
        return Ok(None);
    }
    let (home, name) = (text_or(backend_ref, "/namespace", namespace(route)), text(backend_ref, "/name"));
    let from = ("aigateway.envoyproxy.io", "AIGatewayRoute", namespace(route));
    if !gateway_api::is_granted(snapshot, from, ("aigateway.envoyproxy.io", "AIServiceBackend", home, name)) {
        return Err(format!(
            "cross-namespace reference from AIGatewayRoute {}/{} to AIServiceBackend {home}/{name} is not permitted",
            namespace(route),
            object::name(route)
        ));
    }
    snapshot.get(&kinds::AI_SERVICE_BACKEND, home, name).map(Some).ok_or_else(|| {
        format!("failed to get AIServiceBackend {name}.{home}: AIServiceBackend {name}.{home} not found")
    })
}

/// The HTTPRoute and its two filters, in the shapes of recording `hook-not-wired.txt`.
fn generate(snapshot: &Snapshot, route: &Value, children: &mut Vec<Value>) -> Result<(), String> {
    let owner = object::owned_by(route, true);
    let (mut rules, mut priorities) = (Vec::new(), Vec::new());
    for (at, rule) in list(route, "/spec/rules").enumerate() {
        let mut backends = Vec::new();
        for backend_ref in list(rule, "/backendRefs") {
            let found = service_backend(snapshot, route, backend_ref)
                .map_err(|e| format!("failed to construct a new HTTPRoute: {e}"))?;
            let weight = object::number(backend_ref, "/weight").unwrap_or(1);
            let mut reference = match found {
                Some(backend) => {
                    let to = &backend["spec"]["backendRef"];
                    let priority = object::number(backend_ref, "/priority").unwrap_or(0);
                    priorities.push(format!("{at}:{}:{priority}", text(to, "/name")));
                    json!({"group": text_or(to, "/group", "gateway.envoyproxy.io"),
                           "kind": text_or(to, "/kind", "Backend"), "name": text(to, "/name")})
                }
                None => json!({"group": text(backend_ref, "/group"), "kind": "InferencePool",
                               "name": text(backend_ref, "/name")}),
            };
            reference["weight"] = json!(weight);
            if let Some(home) = backend_ref.get("namespace").and_then(Value::as_str).filter(|n| *n != namespace(route))
            {
                reference["namespace"] = json!(home);
            }
            backends.push(reference);
        }
        let matches: Vec<_> = list(rule, "/matches")
            .map(|m| json!({"headers": m["headers"], "path": {"type": "PathPrefix", "value": "/"}}))
            .collect();
        let mut timeouts = rule.get("timeouts").cloned().unwrap_or_else(|| json!({}));
        if timeouts.get("request").is_none() {
            timeouts["request"] = json!("60s");
        }
        let mut made = json!({
            "backendRefs": backends,
            "filters": [extension_filter(&host_rewrite(name(route)))],
            "timeouts": timeouts,
        });
        if !matches.is_empty() {
            made["matches"] = json!(matches);
        }
        if let Some(name) = rule.get("name") {
            made["name"] = name.clone();
        }
        rules.push(made);
    }
    rules.push(json!({
        "filters": [extension_filter(&not_found_response(name(route)))],
        "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
        "name": "route-not-found",
    }));
    let mut annotations = object::texts(route.pointer("/metadata/annotations"));
    annotations.insert(GENERATED.to_owned(), json!("true"));
    if !priorities.is_empty() {
        annotations.insert("gateway.envoyproxy.io/backend-ref-priority".to_owned(), json!(priorities.join(",")));
    }
    let mut spec = json!({"parentRefs": parent_refs(route), "rules": rules});
    if let Some(hostnames) = route.pointer("/spec/hostnames") {
        spec["hostnames"] = hostnames.clone();
    }
    let child = |kind: &str, api_version: &str, name: &str, annotations: Map<String, Value>, spec: Value| {
        let mut metadata = json!({"name": name, "namespace": namespace(route), "ownerReferences": [owner.clone()]});
        if !annotations.is_empty() {
            metadata["annotations"] = Value::Object(annotations);
        }
        json!({"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec})
    };
    let filter =
        |name: &str, spec: Value| child("HTTPRouteFilter", "gateway.envoyproxy.io/v1alpha1", name, Map::new(), spec);
    children.push(child("HTTPRoute", "gateway.networking.k8s.io/v1", name(route), annotations, spec));
    children.push(filter(&host_rewrite(name(route)), json!({"urlRewrite": {"hostname": {"type": "Backend"}}})));
    children.push(filter(
        &not_found_response(name(route)),
        json!({"directResponse": {
            "body": {"inline": NO_ROUTE, "type": "Inline"}, "contentType": "text/plain", "statusCode": 404}}),
    ));
    Ok(())
}

const NO_ROUTE: &str = "No matching route found. It is likely because the model specified in your request is not \
                        configured in the Gateway.";

fn host_rewrite(route: &str) -> String {
    format!("ai-eg-host-rewrite-{route}")
}

fn not_found_response(route: &str) -> String {
    format!("ai-eg-route-not-found-response-{route}")
}

fn extension_filter(name: &str) -> Value {
    json!({"type": "ExtensionRef",
           "extensionRef": {"group": "gateway.envoyproxy.io", "kind": "HTTPRouteFilter", "name": name}})
}

fn parent_refs(route: &Value) -> Vec<Value> {
    list(route, "/spec/parentRefs")
        .map(|written| {
            let mut parent_ref = written.clone();
            for (field, value) in [("group", gateway_api::GROUP), ("kind", "Gateway")] {
                if parent_ref.get(field).is_none() {
                    parent_ref[field] = json!(value);
                }
            }
            parent_ref
        })
        .collect()
}

pub(super) struct AiRoutes {
    wired: bool,
    routes: BTreeMap<Name, AiRoute>,
    models: BTreeMap<Name, Vec<(HostPattern, String, String, u64)>>,
    existing: ExistingHeader,
}

struct AiRoute {
    rules: Vec<Vec<(Provider, HeaderEdit)>>,
    costs: Vec<(String, Cost)>,
}

impl AiRoutes {
    pub(super) fn read(dialect: &EnvoyAiGateway, snapshot: &Snapshot) -> Self {
        let mut all = Self {
            wired: dialect.extension == super::ExtensionHook::Wired,
            routes: BTreeMap::new(),
            models: BTreeMap::new(),
            existing: dialect.existing_model_header(),
        };
        for route in snapshot.all(&kinds::AI_GATEWAY_ROUTE).filter(|r| !object::is_going(r)) {
            for parent_ref in list(route, "/spec/parentRefs") {
                let home = text_or(parent_ref, "/namespace", namespace(route)).to_owned();
                let gateway = (home, text(parent_ref, "/name").to_owned());
                all.models.entry(gateway).or_default().extend(models(route));
            }
            let costs: Vec<_> = list(route, "/spec/llmRequestCosts")
                .filter_map(|c| Some((text(c, "/metadataKey").to_owned(), cost(text(c, "/type"))?)))
                .collect();
            let has_costs = route.pointer("/spec/llmRequestCosts/0").is_some();
            let include_usage = if has_costs { IncludeUsage::Always } else { IncludeUsage::Never };
            let provider = |backend_ref| {
                let provider = Provider { wraps_errors: true, include_usage, ..Provider::default() };
                if pools::named(route, backend_ref).is_some() {
                    // A pool's model name and edits are ignored (docs/facts/envoy-ai-gateway.md E9).
                    return (provider, HeaderEdit::default());
                }
                let backend = service_backend(snapshot, route, backend_ref).ok().flatten();
                let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
                let model = text(backend_ref.get("modelNameOverride"));
                let prefix = text(backend.and_then(|b| b.pointer("/spec/schema/prefix")));
                (Provider { model, prefix, ..provider }, headers(backend.map(|b| &**b), backend_ref))
            };
            let rules = list(route, "/spec/rules").map(|rule| list(rule, "/backendRefs").map(provider).collect());
            let rules = rules.collect();
            all.routes.insert(object::key(route), AiRoute { rules, costs });
        }
        all
    }

    pub(super) fn is_wired(&self) -> bool {
        self.wired
    }

    fn of(&self, route: &Value) -> Option<&AiRoute> {
        let generated = object::annotation(route, GENERATED) == Some("true");
        self.routes.get(&object::key(route)).filter(|_| generated && self.wired)
    }

    /// How the model is found on a route's entries on a Gateway; `None` for plain routes.
    pub(super) fn extraction(&self, route: &Value, gateway: &Name) -> Option<Arc<Extraction>> {
        self.of(route)?;
        Some(Arc::new(Extraction {
            header: MODEL_HEADER,
            existing: self.existing,
            id_header: "x-ai-eg-internal-req-id",
            path_header: "x-ai-eg-original-path",
            destination_header: "x-gateway-destination-endpoint",
            paths: PATHS,
            models: self.models.get(gateway).cloned().unwrap_or_default(),
        }))
    }

    pub(super) fn provider(&self, route: &Value, rule: usize, backend: usize) -> Option<(Provider, HeaderEdit)> {
        self.of(route)?.rules.get(rule)?.get(backend).cloned()
    }

    pub(super) fn costs(&self, route: &Value) -> Vec<(String, Cost)> {
        self.of(route).map(|r| r.costs.clone()).unwrap_or_default()
    }
}

/// The models that a route declares, as `/v1/models` lists them.
fn models(route: &Value) -> Vec<(HostPattern, String, String, u64)> {
    let hosts = gateway_api::hostnames(route);
    let mut models = Vec::new();
    for rule in list(route, "/spec/rules") {
        let owner = text_or(rule, "/modelsOwnedBy", "Envoy AI Gateway");
        let created = text_or(rule, "/modelsCreatedAt", text(route, "/metadata/creationTimestamp"));
        let names = list(rule, "/matches")
            .flat_map(|m| list(m, "/headers"))
            .filter(|h| text(h, "/name").eq_ignore_ascii_case(MODEL_HEADER) && text_or(h, "/type", "Exact") == "Exact");
        for header in names {
            for host in &hosts {
                let model = text(header, "/value").to_owned();
                models.push((host.clone(), model, owner.to_owned(), object::unix_seconds(created)));
            }
        }
    }
    models
}

/// A cost by its type; CEL is not rehearsed.
fn cost(kind: &str) -> Option<Cost> {
    match kind {
        "InputToken" => Some(Cost::Input),
        "OutputToken" => Some(Cost::Output),
        "TotalToken" => Some(Cost::Total),
        "CachedInputToken" => Some(Cost::CachedInput),
        "ReasoningToken" => Some(Cost::Reasoning),
        _ => None,
    }
}

/// Header edits of a backend, those of the route's reference over those of the AIServiceBackend.
fn headers(backend: Option<&Value>, backend_ref: &Value) -> HeaderEdit {
    let mut edit = HeaderEdit::default();
    let mutations = [backend.and_then(|b| b.pointer("/spec/headerMutation")), backend_ref.get("headerMutation")];
    for mutation in mutations.into_iter().flatten() {
        let more = gateway_api::header_edit(mutation);
        edit.set.extend(more.set);
        edit.remove.extend(more.remove);
    }
    edit
}
