//! KServe's LLMInferenceService: workload, endpoint picker, pools of both API groups and HTTPRoute, and how they stand.
//!
//! Names, order and reasons from docs/facts/kserve.md (K4).

use std::sync::OnceLock;

use apiserver::Kind;
use regex::{Captures, Regex};
use serde_json::{Map, Value, json};

use super::{
    Context, apply, gateways,
    kserve::{Ingress, NAMESPACE},
    settle, write_status,
};
use crate::{
    dialects::{
        Snapshot,
        gateway_api::GROUP,
        object::{self, annotation, condition, condition_of, list, name, namespace, text, text_or},
        pools,
    },
    kinds,
};

const FINALIZER: &str = "serving.kserve.io/llmisvc-finalizer";
/// On a managed route that has moved on to the v1 group of pools; from then on nothing else is written.
const MIGRATED: &str = "serving.kserve.io/inference-pool-migrated";
/// The group that managed routes begin with, although it is the older one.
const OLD_GROUP: &str = "inference.networking.x-k8s.io";
const RBAC: &str = "rbac.authorization.k8s.io/v1";
const MODEL_PORT: u16 = 8000;
const PICKER_PORT: u16 = 9002;

/// What the charts of LLMInferenceService install: the controller, and presets that every service is combined with.
pub(crate) fn installation() -> Vec<Value> {
    let manager = "llmisvc-controller-manager";
    let container = json!({"name": "manager", "image": "docker.io/kserve/llmisvc-controller:v0.17.0"});
    let controller = object::installed(NAMESPACE, manager, json!({"control-plane": manager}), container);
    let preset = |name: &str, spec: Value| {
        json!({"apiVersion": "serving.kserve.io/v1alpha2", "kind": "LLMInferenceServiceConfig",
            "metadata": {"name": format!("kserve-config-llm-{name}"), "namespace": NAMESPACE}, "spec": spec})
    };
    let model = json!({
        "name": "main",
        "image": "ghcr.io/llm-d/llm-d-cuda:v0.4.0",
        "command": ["vllm", "serve", "/mnt/models"],
        "args": ["--served-model-name", "{{ .Spec.Model.Name }}", "--port", "8000"],
        "ports": [{"containerPort": MODEL_PORT, "protocol": "TCP"}],
    });
    let picker = json!({
        "name": "main",
        "image": "ghcr.io/llm-d/llm-d-inference-scheduler:v0.4.0",
        "args": ["--pool-name", "{{ ChildName .ObjectMeta.Name `-inference-pool` }}",
                 "--pool-namespace", "{{ .ObjectMeta.Namespace }}"],
        "ports": [{"name": "grpc", "containerPort": PICKER_PORT}, {"name": "grpc-health", "containerPort": 9003}],
    });
    let pool = json!({
        "targetPorts": [{"number": MODEL_PORT}],
        "endpointPickerRef": {"kind": "Service", "name": "{{ ChildName .ObjectMeta.Name `-epp-service` }}",
            "port": {"number": PICKER_PORT}, "failureMode": "FailOpen"},
    });
    let scheduler = json!({"pool": {"spec": pool}, "template": {"containers": [picker]}});
    vec![
        controller,
        preset("template", json!({"template": {"containers": [model]}})),
        preset("scheduler", json!({"router": {"scheduler": scheduler}})),
    ]
}

pub(super) fn reconcile(context: &Context, snapshot: &Snapshot) {
    for service in snapshot.all(&kinds::LLM_INFERENCE_SERVICE).filter(|s| object::is_going(s)) {
        // It belongs to no namespace, so that nothing takes it along.
        settle("a binding's end", context.store.delete(&CLUSTER_ROLE_BINDING, "", &binding(service)));
    }
    gateways::release(context, snapshot, &kinds::LLM_INFERENCE_SERVICE, FINALIZER, |_| false);
    for object in snapshot.all(&kinds::LLM_INFERENCE_SERVICE).filter(|s| !object::is_going(s)) {
        gateways::hold(context, &kinds::LLM_INFERENCE_SERVICE, object, FINALIZER);
        let status = match combined(snapshot, object) {
            Ok(spec) => Service { context, snapshot, object, spec }.reconcile(),
            Err(problem) => {
                // What was there before is left as it is, and so is what was said of it.
                let mut status = object.get("status").cloned().unwrap_or_else(|| json!({}));
                let others = list(&status, "/conditions").filter(|c| text(c, "/type") != "PresetsCombined").cloned();
                let failed = condition("PresetsCombined", false, "CombineBaseError", &problem);
                status["conditions"] = others.chain([failed]).collect();
                status
            }
        };
        write_status(context, &kinds::LLM_INFERENCE_SERVICE, object, status);
    }
}

const CLUSTER_ROLE_BINDING: Kind = Kind::of("rbac.authorization.k8s.io", "ClusterRoleBinding");

fn binding(service: &Value) -> String {
    format!("{}-{}-epp-auth-rb", namespace(service), name(service))
}

/// What presets, baseRefs and the service itself say together: the later over the earlier, templates filled in.
fn combined(snapshot: &Snapshot, service: &Value) -> Result<Value, String> {
    let mut spec = json!({});
    let own = |pointer: &str| service.pointer(&format!("/spec{pointer}")).is_some();
    let presets = [("template", true), ("scheduler", own("/router/scheduler") && !own("/router/scheduler/pool/ref"))];
    let presets = presets.iter().filter(|(_, wanted)| *wanted).map(|(name, _)| format!("kserve-config-llm-{name}"));
    let named = list(service, "/spec/baseRefs").map(|r| text(r, "/name").to_owned());
    for base in presets.chain(named) {
        let found = [namespace(service), NAMESPACE]
            .iter()
            .find_map(|home| snapshot.get(&kinds::LLM_INFERENCE_SERVICE_CONFIG, home, &base));
        let Some(found) = found else {
            return Err(format!(
                "failed to get LLMInferenceServiceConfig {base:?} from namespaces [{:?} {NAMESPACE:?}]",
                namespace(service)
            ));
        };
        lay_over(&mut spec, &found["spec"]);
    }
    lay_over(&mut spec, &service["spec"]);
    fill(&mut spec, service);
    Ok(spec)
}

/// Lays one object over another: fields by name, lists of named things by their names, other lists whole.
fn lay_over(below: &mut Value, above: &Value) {
    match (below, above) {
        (Value::Object(below), Value::Object(above)) => {
            for (field, above) in above {
                lay_over(below.entry(field.clone()).or_insert(Value::Null), above);
            }
        }
        (Value::Array(below), Value::Array(above)) if above.iter().all(|item| item.get("name").is_some()) => {
            for item in above {
                match below.iter_mut().find(|b| b["name"] == item["name"]) {
                    Some(below) => lay_over(below, item),
                    None => below.push(item.clone()),
                }
            }
        }
        (below, above) => *below = above.clone(),
    }
}

/// Fills in what presets say of the service that they are combined with. What is not known stays as it is written.
fn fill(value: &mut Value, service: &Value) {
    static PLACEHOLDER: OnceLock<Option<Regex>> = OnceLock::new();
    let Some(placeholder) = PLACEHOLDER.get_or_init(|| Regex::new(r"\{\{-?\s*(.*?)\s*-?\}\}").ok()) else { return };
    let known = |said: &Captures<'_>| {
        let words: Vec<&str> = said[1].split_whitespace().collect();
        match words[..] {
            [".Spec.Model.Name"] => text_or(service, "/spec/model/name", name(service)).to_owned(),
            [".ObjectMeta.Name"] => name(service).to_owned(),
            [".ObjectMeta.Namespace"] => namespace(service).to_owned(),
            ["ChildName", ".ObjectMeta.Name", suffix] => format!("{}{}", name(service), suffix.trim_matches('`')),
            _ => said[0].to_owned(),
        }
    };
    match value {
        Value::String(text) => *text = placeholder.replace_all(text, known).into_owned(),
        Value::Array(items) => items.iter_mut().for_each(|item| fill(item, service)),
        Value::Object(fields) => fields.values_mut().for_each(|field| fill(field, service)),
        _ => {}
    }
}

/// Reason and message of what is not as it should be.
type Problem = (String, String);

/// Conditions by their type, with what is wrong where they are False.
#[derive(Debug, Default)]
struct Conditions(Vec<(&'static str, Option<Problem>)>);

impl Conditions {
    fn push(&mut self, kind: &'static str, problem: Option<Problem>) {
        self.0.push((kind, problem));
    }

    fn problem(&self, kinds: &[&str]) -> Option<Problem> {
        self.0.iter().filter(|(kind, _)| kinds.contains(kind)).find_map(|(_, problem)| problem.clone())
    }

    /// With those that follow from the others, in the order of their types.
    fn written(mut self) -> Vec<Value> {
        let router = ["SchedulerWorkloadReady", "GatewaysReady", "HTTPRoutesReady", "InferencePoolReady"];
        self.push("WorkloadsReady", self.problem(&["MainWorkloadReady"]));
        self.push("RouterReady", self.problem(&router));
        self.push("Ready", self.problem(&["WorkloadsReady", "RouterReady"]));
        self.0.sort_by_key(|(kind, _)| *kind);
        let written = self.0.iter().map(|(kind, problem)| match problem {
            None => json!({"type": kind, "status": "True"}),
            Some((reason, message)) => condition(kind, false, reason, message),
        });
        written.collect()
    }
}

struct Service<'a> {
    context: &'a Context,
    snapshot: &'a Snapshot,
    object: &'a Value,
    spec: Value,
}

impl Service<'_> {
    fn child(&self, suffix: &str) -> String {
        format!("{}{suffix}", name(self.object))
    }

    fn home(&self) -> &str {
        namespace(self.object)
    }

    fn has(&self, pointer: &str) -> bool {
        self.spec.pointer(pointer).is_some_and(|v| !v.is_null())
    }

    fn labels(&self, component: &str) -> Map<String, Value> {
        let labels = [
            ("app.kubernetes.io/component", component),
            ("app.kubernetes.io/name", name(self.object)),
            ("app.kubernetes.io/part-of", "llminferenceservice"),
        ];
        labels.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect()
    }

    fn apply(&self, api_version: &str, kind: &str, suffix: &str, labels: &Map<String, Value>, content: Value) {
        apply(self.context, self.snapshot, self.made(api_version, kind, suffix, labels, content));
    }

    fn made(&self, api_version: &str, kind: &str, suffix: &str, labels: &Map<String, Value>, content: Value) -> Value {
        let mut object = json!({"apiVersion": api_version, "kind": kind, "metadata": {
            "name": self.child(suffix), "namespace": self.home(), "labels": labels,
            "ownerReferences": [object::owned_by(self.object, true)]}});
        if let (Some(object), Value::Object(content)) = (object.as_object_mut(), content) {
            object.extend(content);
        }
        object
    }

    fn unavailable(&self, suffix: &str) -> Option<Problem> {
        let deployment = self.context.fresh(self.snapshot, &kinds::DEPLOYMENT, self.home(), &self.child(suffix));
        match deployment.as_ref().and_then(|d| condition_of(d, "/status/conditions", "Available")) {
            Some(said) if text(said, "/status") == "True" => None,
            Some(said) => Some((text(said, "/reason").to_owned(), text(said, "/message").to_owned())),
            None => Some(("MinimumReplicasUnavailable".to_owned(), "the Deployment has no status".to_owned())),
        }
    }

    /// Brings the children to what they should be; returns the status.
    fn reconcile(&self) -> Value {
        let mut conditions = Conditions::default();
        conditions.push("PresetsCombined", None);
        self.workload();
        conditions.push("MainWorkloadReady", self.unavailable("-kserve"));
        if self.has("/router/scheduler") {
            self.scheduler();
            conditions.push("SchedulerWorkloadReady", self.unavailable("-kserve-router-scheduler"));
        }
        if self.has("/router/gateway/refs") {
            conditions.push("GatewaysReady", self.gateways());
        }
        if self.has("/router/route") {
            if !self.has("/router/route/http/refs") {
                self.route();
            }
            conditions.push("HTTPRoutesReady", self.routes());
        }
        if self.has("/router/scheduler") {
            conditions.push("InferencePoolReady", self.pool_status());
        }
        self.status(conditions)
    }

    fn workload(&self) {
        let mut labels = self.labels("llminferenceservice-workload");
        let selector = Value::Object(labels.clone());
        labels.insert("kserve.io/component".to_owned(), json!("workload"));
        labels.insert("llm-d.ai/role".to_owned(), json!("both"));
        let existing = self.context.fresh(self.snapshot, &kinds::DEPLOYMENT, self.home(), &self.child("-kserve"));
        let written = object::number(&self.spec, "/replicas");
        let replicas = written.or_else(|| object::number(existing.as_deref()?, "/spec/replicas")).unwrap_or(1);
        let template = json!({"metadata": {"labels": labels}, "spec": self.spec["template"]});
        let spec = json!({"replicas": replicas, "selector": {"matchLabels": selector}, "template": template});
        self.apply("apps/v1", "Deployment", "-kserve", &labels, json!({"spec": spec}));
        // Its port says https although the models speak plain HTTP (kserve/kserve#5531, until v0.19).
        let port = json!({"name": "https", "appProtocol": "https", "port": MODEL_PORT, "targetPort": MODEL_PORT,
            "protocol": "TCP"});
        let spec = json!({"type": "ClusterIP", "selector": selector, "ports": [port]});
        self.apply("v1", "Service", "-kserve-workload-svc", &labels, json!({"spec": spec}));
    }

    fn scheduler(&self) {
        let labels = self.labels("llminferenceservice-router-scheduler");
        let account = self.child("-epp-sa");
        self.apply("v1", "ServiceAccount", "-epp-sa", &labels, json!({}));
        let verbs = ["get", "list", "watch"];
        let read =
            |groups: &[&str], resource: &str| json!({"apiGroups": groups, "resources": [resource], "verbs": verbs});
        let rules = [read(&[""], "pods"), read(&[pools::GROUP, OLD_GROUP], "inferencepools")];
        self.apply(RBAC, "Role", "-epp-role", &labels, json!({"rules": rules}));
        let subjects = json!([{"kind": "ServiceAccount", "name": account, "namespace": self.home()}]);
        let role =
            |kind: &str, name: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name});
        let bound = json!({"subjects": subjects, "roleRef": role("Role", &self.child("-epp-role"))});
        self.apply(RBAC, "RoleBinding", "-epp-rb", &labels, bound);
        let of_the_cluster = json!({
            "apiVersion": RBAC, "kind": "ClusterRoleBinding",
            "metadata": {"name": binding(self.object), "labels": labels},
            "subjects": subjects, "roleRef": role("ClusterRole", "system:auth-delegator"),
        });
        apply(self.context, self.snapshot, of_the_cluster);
        let mut pod = self.spec["router"]["scheduler"]["template"].clone();
        pod["serviceAccountName"] = json!(account);
        let replicas = object::number(&self.spec, "/router/scheduler/replicas").unwrap_or(1);
        let spec = json!({"replicas": replicas, "strategy": {"type": "Recreate"}, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod}});
        self.apply("apps/v1", "Deployment", "-kserve-router-scheduler", &labels, json!({"spec": spec}));
        let port = |name: &str, port: u16| json!({"name": name, "port": port, "targetPort": port, "protocol": "TCP"});
        let ports = [port("grpc", PICKER_PORT), port("grpc-health", 9003), port("metrics", 9090), port("zmq", 5557)];
        let spec = json!({"type": "ClusterIP", "selector": labels, "ports": ports});
        self.apply("v1", "Service", "-epp-service", &labels, json!({"spec": spec}));
        if !self.has("/router/scheduler/pool/ref") {
            self.pools(&labels);
        }
    }

    /// The pool as written in either shape, said in both.
    fn pools(&self, labels: &Map<String, Value>) {
        let written = &self.spec["router"]["scheduler"]["pool"]["spec"];
        let chosen = [written.pointer("/selector/matchLabels"), written.get("selector")]
            .into_iter()
            .flatten()
            .find(|s| s.as_object().is_some_and(|s| !s.is_empty() && s.values().all(Value::is_string)));
        let own = json!({"app.kubernetes.io/name": name(self.object), "kserve.io/component": "workload"});
        let selector = chosen.unwrap_or(&own);
        let port = object::port(written, "/targetPorts/0/number").or(object::port(written, "/targetPortNumber"));
        let port = port.unwrap_or(MODEL_PORT);
        let reference = written.get("endpointPickerRef").or(written.get("extensionRef"));
        let reference = reference.cloned().unwrap_or_default();
        let picker = text_or(&reference, "/name", &self.child("-epp-service")).to_owned();
        let at = object::port(&reference, "/port/number").or(object::port(&reference, "/portNumber"));
        let at = at.unwrap_or(PICKER_PORT);
        let mode = text_or(&reference, "/failureMode", "FailOpen");
        let apply = |version: &str, spec| {
            self.apply(version, "InferencePool", "-inference-pool", labels, json!({"spec": spec}));
        };
        let picker_ref = json!({"name": picker, "port": {"number": at}, "failureMode": mode});
        apply(
            "inference.networking.k8s.io/v1",
            json!({"selector": {"matchLabels": selector}, "targetPorts": [{"number": port}], "endpointPickerRef": picker_ref}),
        );
        let extension_ref = json!({"name": picker, "portNumber": at, "failureMode": mode});
        apply(
            "inference.networking.x-k8s.io/v1alpha2",
            json!({"selector": selector, "targetPortNumber": port, "extensionRef": extension_ref}),
        );
    }

    /// The Gateways that routes attach to: those named, else the one that KServe is configured with.
    fn parents(&self) -> Vec<Value> {
        let parent =
            |home: &str, name: &str| json!({"group": GROUP, "kind": "Gateway", "namespace": home, "name": name});
        let named: Vec<Value> = list(&self.spec, "/router/gateway/refs")
            .map(|r| parent(text_or(r, "/namespace", self.home()), text(r, "/name")))
            .collect();
        if !named.is_empty() {
            return named;
        }
        Ingress::read(self.snapshot).map(|ingress| parent(&ingress.gateway.0, &ingress.gateway.1)).into_iter().collect()
    }

    /// The managed route: the two chat paths to the pool, everything else to the Service, prefixes cut off, no time limits.
    fn route(&self) {
        let base = format!("/{}/{}", self.home(), name(self.object));
        let rule = |path: &str, to: &str, backend: Value| {
            json!({
                "matches": [{"path": {"type": "PathPrefix", "value": path}}],
                "filters": [{"type": "URLRewrite",
                    "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": to}}}],
                "backendRefs": [backend],
                "timeouts": {"request": "0s", "backendRequest": "0s"},
            })
        };
        let service = json!({"group": "", "kind": "Service", "name": self.child("-kserve-workload-svc"),
            "port": MODEL_PORT, "weight": 1});
        let (group, moved) = self.pool_group();
        let pool = if self.has("/router/scheduler") {
            let name = self.pool_name();
            json!({"group": group, "kind": "InferencePool", "name": name, "port": MODEL_PORT, "weight": 1})
        } else {
            service.clone()
        };
        let chat = |path: &str| rule(&format!("{base}{path}"), path, pool.clone());
        let rules = [chat("/v1/completions"), chat("/v1/chat/completions"), rule(&base, "/", service)];
        let labels = self.labels("llminferenceservice-router");
        let content = json!({"spec": {"parentRefs": self.parents(), "rules": rules}});
        let mut route = self.made("gateway.networking.k8s.io/v1", "HTTPRoute", "-kserve-route", &labels, content);
        if moved && self.has("/router/scheduler") {
            route["metadata"]["annotations"] = json!({MIGRATED: "v1"});
        }
        apply(self.context, self.snapshot, route);
    }

    /// The group that the managed route refers to its pool by, and whether that is written down. It begins with the older
    /// one, and moves on where the first parent says `InvalidKind` of it, for good; whoever says anything else stays.
    fn pool_group(&self) -> (&'static str, bool) {
        if self.has("/router/scheduler/pool/ref") {
            return (pools::GROUP, false);
        }
        let route = self.snapshot.get(&kinds::HTTP_ROUTE, self.home(), &self.child("-kserve-route"));
        let current = route.and_then(|r| r.pointer("/spec/rules/0/backendRefs/0/group")).and_then(Value::as_str);
        let resolved = route.and_then(|r| condition_of(r, "/status/parents/0/conditions", "ResolvedRefs"));
        let unknown_kind = resolved.map(|c| text(c, "/status") == "False" && text(c, "/reason") == "InvalidKind");
        let locked = route.is_some_and(|r| annotation(r, MIGRATED) == Some("v1"));
        let moves = match current {
            Some(OLD_GROUP) => unknown_kind == Some(true),
            Some(pools::GROUP) => unknown_kind == Some(false),
            _ => false,
        };
        if locked || moves { (pools::GROUP, true) } else { (OLD_GROUP, false) }
    }

    fn gateways(&self) -> Option<Problem> {
        self.parents().iter().find_map(|parent| {
            let (home, name) = (text(parent, "/namespace"), text(parent, "/name"));
            match self.snapshot.get(&kinds::GATEWAY, home, name) {
                None => Some(("RefsInvalid".to_owned(), format!("Gateway {home}/{name} not found"))),
                Some(gateway) if object::condition_status(gateway, "Programmed") == Some("True") => None,
                Some(_) => Some(("GatewaysNotReady".to_owned(), format!("Gateway {home}/{name} is not Programmed"))),
            }
        })
    }

    /// Every parent that says Accepted must say True of it and of ResolvedRefs, for the generation that is there.
    fn routes(&self) -> Option<Problem> {
        let named: Vec<String> =
            list(&self.spec, "/router/route/http/refs").map(|r| text(r, "/name").to_owned()).collect();
        let routes = if named.is_empty() { vec![self.child("-kserve-route")] } else { named };
        routes.iter().find_map(|name| {
            let not_ready = |what: String| Some(("HTTPRoutesNotReady".to_owned(), format!("HTTPRoute {name} {what}")));
            let Some(route) = self.context.fresh(self.snapshot, &kinds::HTTP_ROUTE, self.home(), name) else {
                return Some(("RefsInvalid".to_owned(), format!("HTTPRoute {}/{name} not found", self.home())));
            };
            let mut parents = list(&route, "/status/parents").peekable();
            if parents.peek().is_none() {
                return not_ready("has no parent that says anything".to_owned());
            }
            let generation = object::generation(&route);
            parents.find_map(|parent| {
                ["Accepted", "ResolvedRefs"].iter().find_map(|kind| {
                    let said = condition_of(parent, "/conditions", kind);
                    let holds = said.is_some_and(|c| {
                        text(c, "/status") == "True" && object::number(c, "/observedGeneration") == Some(generation)
                    });
                    let why = said.map_or("nothing", |c| text(c, "/reason"));
                    if holds { None } else { not_ready(format!("says {why} of {kind}")) }
                })
            })
        })
    }

    /// Some parent must speak of the pool, and all that do must have accepted it: a gateway that writes no status keeps the
    /// service waiting.
    fn pool_status(&self) -> Option<Problem> {
        let (home, name) = (self.home(), self.pool_name());
        let accepts =
            |parent| condition_of(parent, "/conditions", "Accepted").is_some_and(|c| text(c, "/status") == "True");
        let accepted = self.snapshot.get(&kinds::INFERENCE_POOL, home, &name).is_some_and(|pool| {
            let mut parents = list(pool, "/status/parents").peekable();
            parents.peek().is_some() && parents.all(accepts)
        });
        let message = format!("Inference Pool {home}/{name} exists but no Gateway controller has accepted it yet");
        (!accepted).then(|| ("WaitingForGateway".to_owned(), message))
    }

    fn pool_name(&self) -> String {
        text_or(&self.spec, "/router/scheduler/pool/ref/name", &self.child("-inference-pool")).to_owned()
    }

    /// Addresses of the Gateways below which the managed route serves. Private ones are internal, and `url` names none
    /// of them.
    fn status(&self, conditions: Conditions) -> Value {
        let mut status = json!({
            "conditions": conditions.written(),
            "observedGeneration": object::generation(self.object),
        });
        if !self.has("/router/route") || self.has("/router/route/http/refs") {
            return status;
        }
        let mut addresses = Vec::new();
        for parent in self.parents() {
            let gateway = self.snapshot.get(&kinds::GATEWAY, text(&parent, "/namespace"), text(&parent, "/name"));
            let Some(gateway) = gateway else { continue };
            let port = list(gateway, "/spec/listeners").find_map(|l| object::port(l, "/port")).unwrap_or(80);
            for address in list(gateway, "/status/addresses").map(|a| text(a, "/value")) {
                let authority = if port == 80 { address.to_owned() } else { format!("{address}:{port}") };
                let url = format!("http://{authority}/{}/{}", self.home(), name(self.object));
                let kind = if is_private(address) { "gateway-internal" } else { "gateway-external" };
                addresses.push(json!({"name": kind, "url": url}));
            }
        }
        if let Some(external) = addresses.iter().find(|a| a["name"] == "gateway-external") {
            status["url"] = external["url"].clone();
        }
        if !addresses.is_empty() {
            status["addresses"] = json!(addresses);
        }
        status
    }
}

fn is_private(address: &str) -> bool {
    match address.parse() {
        Ok(std::net::IpAddr::V4(address)) => address.is_private() || address.is_loopback() || address.is_link_local(),
        Ok(std::net::IpAddr::V6(address)) => address.is_loopback() || address.is_unique_local(),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn what_is_above_wins_and_containers_are_told_apart_by_name() {
        let mut spec = json!({"replicas": 1, "template": {"containers": [
            {"name": "main", "image": "a", "args": ["x", "y"]}, {"name": "other"}]}});
        lay_over(&mut spec, &json!({"template": {"containers": [{"name": "main", "args": ["z"]}, {"name": "third"}]}}));
        assert_eq!(
            spec,
            json!({"replicas": 1, "template": {"containers": [
                {"name": "main", "image": "a", "args": ["z"]}, {"name": "other"}, {"name": "third"}]}})
        );
    }

    #[rstest]
    #[case("{{ .Spec.Model.Name }}", "org/model")]
    #[case("{{ChildName .ObjectMeta.Name `-epp-service`}}", "svc-epp-service")]
    #[case("at {{ .ObjectMeta.Namespace }}/{{ .ObjectMeta.Name }}", "at ns/svc")]
    #[case("{{ .GlobalConfig.Unheard }}", "{{ .GlobalConfig.Unheard }}")]
    #[case("plain", "plain")]
    fn presets_speak_of_their_service(#[case] written: &str, #[case] filled: &str) {
        let service = json!({"metadata": {"name": "svc", "namespace": "ns"}, "spec": {"model": {"name": "org/model"}}});
        let mut value = json!({"list": [written]});
        fill(&mut value, &service);
        assert_eq!(value["list"][0], filled);
    }

    #[rstest]
    #[case("10.0.0.1", true)]
    #[case("172.18.0.2", true)]
    #[case("127.0.0.1", true)]
    #[case("203.0.113.9", false)]
    #[case("gw.example.com", false)]
    fn private_addresses(#[case] address: &str, #[case] private: bool) {
        assert_eq!(is_private(address), private);
    }

    #[test]
    fn readiness_is_that_of_workloads_and_router() {
        let waiting = Some(("WaitingForGateway".to_owned(), "m".to_owned()));
        let conditions = Conditions(vec![("MainWorkloadReady", None), ("InferencePoolReady", waiting)]).written();
        let of = |kind: &str| conditions.iter().find(|c| c["type"] == kind).cloned().unwrap_or_default();
        assert_eq!((&of("WorkloadsReady")["status"], &of("RouterReady")["status"]), (&json!("True"), &json!("False")));
        assert_eq!(of("Ready")["reason"], "WaitingForGateway");
    }
}
