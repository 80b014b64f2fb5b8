//! KServe's InferenceService in Standard mode: Deployment, Service, then HTTPRoutes, then Ready.
//!
//! Shapes as recorded in `envoy-ai-gateway/isvc-objects.yaml` (KServe v0.17.0); order and reasons from
//! docs/facts/kserve.md (K1, K2).

use serde_json::{Value, json};

use super::{Context, apply, gateways, settle, write_status};
use crate::{
    dialects::{
        Snapshot,
        gateway_api::GROUP,
        object::{self, annotation, condition, condition_of, list, name, namespace, text, text_or},
    },
    kinds,
    mutants::mutant,
};

pub(crate) const NAMESPACE: &str = "kserve";
pub(crate) const CONFIG: &str = "inferenceservice-config";
const MODE: &str = "serving.kserve.io/deploymentMode";
const FINALIZER: &str = "inferenceservice.finalizers";

pub(super) struct Ingress {
    domain: String,
    /// Namespace and name of the Gateway.
    pub(super) gateway: (String, String),
    timeouts: bool,
}

impl Ingress {
    /// `None` where KServe does not use the Gateway API.
    pub(super) fn read(snapshot: &Snapshot) -> Option<Self> {
        let config = snapshot.get(&kinds::CONFIG_MAP, NAMESPACE, CONFIG)?;
        let ingress: Value = serde_json::from_str(text(config, "/data/ingress")).ok()?;
        if ingress["enableGatewayApi"] != json!(true) {
            return None;
        }
        let (namespace, name) = text(&ingress, "/kserveIngressGateway").split_once('/')?;
        Some(Self {
            domain: text_or(&ingress, "/ingressDomain", "example.com").to_owned(),
            gateway: (namespace.to_owned(), name.to_owned()),
            timeouts: ingress["disableHTTPRouteTimeout"] != json!(true),
        })
    }
}

pub(super) fn reconcile(context: &Context, snapshot: &Snapshot) {
    let ingress = Ingress::read(snapshot);
    gateways::release(context, snapshot, &kinds::INFERENCE_SERVICE, FINALIZER, |_| false);
    for service in snapshot.all(&kinds::INFERENCE_SERVICE).filter(|s| !object::is_going(s)) {
        if is_standard(service) {
            inference_service(context, snapshot, service, ingress.as_ref());
        }
    }
}

/// Whether it is deployed without Knative; nothing written is Standard, as the installation's default says.
fn is_standard(service: &Value) -> bool {
    annotation(service, MODE).is_none_or(|mode| matches!(mode, "Standard" | "RawDeployment"))
}

fn inference_service(context: &Context, snapshot: &Snapshot, service: &Value, ingress: Option<&Ingress>) {
    let (home, isvc) = (namespace(service), name(service));
    gateways::hold(context, &kinds::INFERENCE_SERVICE, service, FINALIZER);
    if annotation(service, MODE) != Some("Standard") {
        let marked = context.store.change(&kinds::INFERENCE_SERVICE, home, isvc, |service| {
            service["metadata"]["annotations"][MODE] = json!("Standard");
        });
        settle("an InferenceService's mode", marked);
    }
    let predictor = format!("{isvc}-predictor");
    let existing = context.fresh(snapshot, &kinds::DEPLOYMENT, home, &predictor);
    let mut own = cluster_service(service, &predictor);
    if let Some(own) = &mut own
        && context.mutants.is(mutant::SERVICE_PORT_OF_THE_CONTAINER)
    {
        own["spec"]["ports"][0]["port"] = own["spec"]["ports"][0]["targetPort"].clone();
    }
    for child in deployment(service, &predictor, existing.as_deref()).into_iter().chain(own) {
        apply(context, snapshot, child);
    }
    let deployment = context.fresh(snapshot, &kinds::DEPLOYMENT, home, &predictor);
    let available = deployment.as_ref().is_some_and(|d| object::condition_status(d, "Available") == Some("True"));
    let is_local = service["metadata"]["labels"]["networking.kserve.io/visibility"] == json!("cluster-local");
    let exposed = ingress.filter(|_| !is_local);
    let both = [predictor.as_str(), isvc];
    let routes = || if context.mutants.is(mutant::FORGETS_PREDICTOR_ROUTE) { &both[1..] } else { &both[..] };
    if let Some(ingress) = exposed.filter(|_| available) {
        for route in routes() {
            apply(context, snapshot, route_of(service, route, &predictor, ingress));
        }
    }
    let ingress_problem = match (available, exposed) {
        (false, _) => Some(("Predictor Deployment NotReady".to_owned(), "Predictor ingress not created".to_owned())),
        (true, None) => None,
        (true, Some(_)) => routes()
            .iter()
            .find_map(|route| route_problem(context.fresh(snapshot, &kinds::HTTP_ROUTE, home, route).as_deref())),
    };
    let conditions = conditions(deployment.as_deref(), available, ingress_problem);
    let is_ready = conditions[2]["status"] == json!("True");
    let mut status = json!({
        "conditions": conditions,
        "deploymentMode": "Standard",
        "observedGeneration": object::generation(service),
        "modelStatus": {"states": {"activeModelState": "", "targetModelState": "Pending"},
                        "transitionStatus": "InProgress"},
    });
    if available {
        let copies = deployment.as_deref().and_then(|d| object::number(d, "/status/replicas")).unwrap_or(1);
        status["modelStatus"] = json!({
            "copies": {"failedCopies": 0, "totalCopies": copies},
            "states": {"activeModelState": "Loaded", "targetModelState": "Loaded"},
            "transitionStatus": "UpToDate",
        });
    }
    if is_ready {
        status["address"] = json!({"url": format!("http://{predictor}.{home}.svc.cluster.local")});
        if let Some(Ingress { domain, .. }) = exposed {
            let host = if context.mutants.is(mutant::URL_OF_ANOTHER_SERVICE) { "another" } else { isvc };
            status["url"] = json!(format!("http://{host}-{home}.{domain}"));
            status["components"] = json!({"predictor": {"url": format!("http://{predictor}-{home}.{domain}")}});
        } else {
            status["url"] = status["address"]["url"].clone();
        }
    }
    write_status(context, &kinds::INFERENCE_SERVICE, service, status);
}

/// The four conditions, in the order of their names.
fn conditions(deployment: Option<&Value>, available: bool, ingress_problem: Option<(String, String)>) -> [Value; 4] {
    let bare = |kind: &str| json!({"type": kind, "status": "True"});
    let source = if available { "Progressing" } else { "Available" };
    let predictor_ready = match deployment.and_then(|d| condition_of(d, "/status/conditions", source)) {
        Some(said) => condition("PredictorReady", available, text(said, "/reason"), text(said, "/message")),
        None => json!({"type": "PredictorReady", "status": "False"}),
    };
    let ingress_ready = match ingress_problem {
        None => bare("IngressReady"),
        Some((reason, message)) => condition("IngressReady", false, &reason, &message),
    };
    let ready = [&ingress_ready, &predictor_ready]
        .into_iter()
        .find(|c| c["status"] != json!("True"))
        .map_or_else(|| bare("Ready"), |c| condition("Ready", false, text(c, "/reason"), text(c, "/message")));
    [ingress_ready, predictor_ready, ready, json!({"type": "Stopped", "status": "False", "severity": "Info"})]
}

/// What keeps the ingress from being ready: reason and message.
fn route_problem(route: Option<&Value>) -> Option<(String, String)> {
    let problem = |reason: &str, message: &str| Some((reason.to_owned(), message.to_owned()));
    let Some(route) = route else {
        return problem("Predictor ingress not created", "Predictor ingress not created");
    };
    let mut parents = list(route, "/status/parents").peekable();
    if parents.peek().is_none() {
        return problem("ParentStatusNotAvailable", "HttpRouteNotReady");
    }
    // Any condition that is False, of any type (docs/facts/kserve.md K2).
    let bad = parents.flat_map(|p| list(p, "/conditions")).find(|c| text(c, "/status") == "False")?;
    problem(text(bad, "/reason"), text(bad, "/message"))
}

fn metadata(service: &Value, child: &str) -> Value {
    json!({
        "name": child,
        "namespace": namespace(service),
        "annotations": {MODE: "Standard"},
        "ownerReferences": [object::owned_by(service, true)],
    })
}

fn labelled_metadata(service: &Value, predictor: &str) -> Value {
    let mut labels = object::texts(service.pointer("/metadata/labels"));
    labels.insert("app".to_owned(), json!(format!("isvc.{predictor}")));
    labels.insert("component".to_owned(), json!("predictor"));
    labels.insert("serving.kserve.io/inferenceservice".to_owned(), json!(name(service)));
    let mut metadata = metadata(service, predictor);
    metadata["labels"] = json!(labels);
    metadata
}

/// The containers of a predictor; `model:` becomes the runtime that the guides use.
fn containers(service: &Value) -> Option<Vec<Value>> {
    let mut containers: Vec<Value> = list(service, "/spec/predictor/containers").cloned().collect();
    if let Some(model) = service.pointer("/spec/predictor/model").filter(|_| containers.is_empty()) {
        let mut arguments = vec![json!(format!("--model_name={}", name(service)))];
        arguments.extend(list(model, "/args").cloned());
        let mut container = json!({"name": "kserve-container", "image": "kserve/huggingfaceserver",
            "args": arguments, "ports": [{"containerPort": 8080, "protocol": "TCP"}]});
        for field in ["resources", "env"] {
            if let Some(value) = model.get(field) {
                container[field] = value.clone();
            }
        }
        containers.push(container);
    }
    let first = containers.first_mut()?;
    let port = object::port(first, "/ports/0/containerPort").unwrap_or(8080);
    if first.get("readinessProbe").is_none() {
        first["readinessProbe"] = json!({"failureThreshold": 3, "periodSeconds": 10, "successThreshold": 1,
            "tcpSocket": {"port": port}, "timeoutSeconds": 1});
    }
    if first.get("resources").is_none() {
        let amount = json!({"cpu": "1", "memory": "2Gi"});
        first["resources"] = json!({"requests": amount, "limits": amount});
    }
    let mut environment: Vec<Value> = list(first, "/env").cloned().collect();
    environment.push(json!({"name": "INFERENCE_SERVICE_NAME", "value": name(service)}));
    first["env"] = json!(environment);
    Some(containers)
}

fn deployment(service: &Value, predictor: &str, existing: Option<&Value>) -> Option<Value> {
    // Where no size is written, a Deployment that was scaled by hand stays so (its autoscaler owns the field).
    let written = object::number(service, "/spec/predictor/minReplicas");
    let replicas = written.or_else(|| object::number(existing?, "/spec/replicas")).unwrap_or(1);
    let metadata = labelled_metadata(service, predictor);
    let labels = metadata["labels"].clone();
    Some(json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "progressDeadlineSeconds": 600,
            "replicas": replicas,
            "revisionHistoryLimit": 10,
            "selector": {"matchLabels": {"app": format!("isvc.{predictor}")}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "template": {
                "metadata": {"name": predictor, "namespace": namespace(service), "labels": labels,
                             "annotations": {MODE: "Standard"}},
                "spec": {"containers": containers(service)?},
            },
        },
    }))
}

fn cluster_service(service: &Value, predictor: &str) -> Option<Value> {
    let port = containers(service)?.first().and_then(|c| object::port(c, "/ports/0/containerPort")).unwrap_or(8080);
    Some(json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": labelled_metadata(service, predictor),
        "spec": {"type": "ClusterIP", "selector": {"app": format!("isvc.{predictor}")},
                 "ports": [{"port": 80, "protocol": "TCP", "targetPort": port}]},
    }))
}

fn route_of(service: &Value, route: &str, predictor: &str, ingress: &Ingress) -> Value {
    let home = namespace(service);
    let mut rule = json!({
        "backendRefs": [{"group": "", "kind": "Service", "name": predictor, "namespace": home, "port": 80, "weight": 1}],
        "filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [
            {"name": "KServe-Isvc-Name", "value": name(service)},
            {"name": "KServe-Isvc-Namespace", "value": home},
        ]}}],
        "matches": [{"path": {"type": "RegularExpression", "value": "^/.*$"}}],
    });
    if ingress.timeouts {
        let seconds = object::number(service, "/spec/predictor/timeout").unwrap_or(60);
        rule["timeouts"] = json!({"request": format!("{seconds}s")});
    }
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": metadata(service, route),
        "spec": {
            "hostnames": [format!("{route}-{home}.{}", ingress.domain)],
            "parentRefs": [{"group": GROUP, "kind": "Gateway", "name": ingress.gateway.1, "namespace": ingress.gateway.0}],
            "rules": [rule],
        },
    })
}
