//! Tables: what `kubectl get` shows.

use serde_json::{Value, json};

use super::jsonpath;
use crate::resource::{Resource, Version};
use crate::{kind::kinds, meta};

struct Column<'a> {
    name: &'a str,
    kind: &'a str,
    priority: i64,
    cell: Cell<'a>,
}

enum Cell<'a> {
    Path(&'a str),
    Made(fn(&Value) -> String),
    Name,
    Age,
}

/// A table of objects. Later events of a watch come without headings.
pub(crate) fn table(
    resource: &Resource,
    version: &Version,
    objects: &[&Value],
    resource_version: &str,
    now: jiff::Timestamp,
    headings: bool,
) -> Value {
    let columns = columns(resource, version);
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let cells: Vec<Value> = columns.iter().map(|c| cell(c, object, now)).collect();
            let partial = json!({
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": object["metadata"],
            });
            json!({"cells": cells, "object": partial})
        })
        .collect();
    let definitions: Vec<Value> = columns
        .iter()
        .map(|c| {
            let format = if matches!(c.cell, Cell::Name) { "name" } else { "" };
            json!({"name": c.name, "type": c.kind, "format": format,
                "description": c.name, "priority": c.priority})
        })
        .collect();
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": resource_version},
        "columnDefinitions": if headings { json!(definitions) } else { Value::Null },
        "rows": rows,
    })
}

fn columns<'a>(resource: &'a Resource, version: &'a Version) -> Vec<Column<'a>> {
    let of = |name, priority, cell| Column { name, kind: "string", priority, cell };
    if resource.kind == kinds::EVENT {
        return of_events();
    }
    let (made, last) = made(resource);
    let mut columns = vec![of("Name", 0, Cell::Name)];
    columns.extend(made.iter().map(|(name, make)| of(*name, 0, Cell::Made(*make))));
    columns.extend(version.columns.iter().map(|c| Column {
        name: &c.name,
        kind: &c.kind,
        priority: c.priority,
        cell: Cell::Path(&c.path),
    }));
    if version.columns.is_empty() && resource.kind != kinds::CUSTOM_RESOURCE_DEFINITION {
        columns.push(of("Age", 0, Cell::Age));
    }
    columns.extend(last.iter().map(|(name, make)| {
        let priority = i64::from(*name != "Version"); // all but that are for wide tables
        of(*name, priority, Cell::Made(*make))
    }));
    columns
}

/// Events have columns of their own, and their names last.
fn of_events() -> Vec<Column<'static>> {
    let of = |name, kind, priority, cell| Column { name, kind, priority, cell };
    let object: fn(&Value) -> String =
        |o| format!("{}/{}", text(o, "/involvedObject/kind").to_lowercase(), text(o, "/involvedObject/name"));
    vec![
        of("Last Seen", "date", 0, Cell::Path(".lastTimestamp")),
        of("Type", "string", 0, Cell::Path(".type")),
        of("Reason", "string", 0, Cell::Path(".reason")),
        of("Object", "string", 0, Cell::Made(object)),
        of("Source", "string", 1, Cell::Path(".source.component")),
        of("Message", "string", 0, Cell::Path(".message")),
        of("First Seen", "date", 1, Cell::Path(".firstTimestamp")),
        of("Count", "integer", 1, Cell::Path(".count")),
        of("Name", "string", 1, Cell::Name),
    ]
}

type Made = &'static [(&'static str, fn(&Value) -> String)];

/// Columns of built-in kinds that no path can say: those before the age, and those after it.
fn made(resource: &Resource) -> (Made, Made) {
    const OF_TEMPLATES: Made = &[
        ("Containers", |o| joined(list(o, "/spec/template/spec/containers").map(|c| text(c, "/name")))),
        ("Images", |o| joined(list(o, "/spec/template/spec/containers").map(|c| text(c, "/image")))),
        ("Selector", |o| pairs(o, "/spec/selector/matchLabels")),
    ];
    match (resource.kind.group.as_ref(), resource.kind.kind.as_ref()) {
        ("", "Pod") => (
            &[
                ("Ready", pod_ready),
                ("Status", |o| text(o, "/status/phase")),
                ("Restarts", |o| {
                    list(o, "/status/containerStatuses")
                        .map(|c| c["restartCount"].as_i64().unwrap_or(0))
                        .sum::<i64>()
                        .to_string()
                }),
            ],
            &[
                ("IP", |o| or_none(text(o, "/status/podIP"))),
                ("Node", |o| or_none(text(o, "/spec/nodeName"))),
                ("Nominated Node", |o| or_none(text(o, "/status/nominatedNodeName"))),
                ("Readiness Gates", |_| or_none(String::new())),
            ],
        ),
        ("", "Service") => (
            &[
                ("Type", |o| text(o, "/spec/type")),
                ("Cluster-IP", |o| text(o, "/spec/clusterIP")),
                ("External-IP", external),
                ("Port(s)", ports),
            ],
            &[("Selector", |o| pairs(o, "/spec/selector"))],
        ),
        ("", "Node") => (
            &[("Status", node_status), ("Roles", node_roles)],
            &[("Version", |o| text(o, "/status/nodeInfo/kubeletVersion")), ("Internal-IP", node_address)],
        ),
        ("", "Namespace") => (&[("Status", |o| text(o, "/status/phase"))], &[]),
        ("", "ConfigMap") => (&[("Data", data)], &[]),
        ("", "Secret") => (&[("Type", |o| text(o, "/type")), ("Data", data)], &[]),
        ("apps", "Deployment") => (
            &[
                ("Ready", |o| format!("{}/{}", number(o, "/status/readyReplicas"), number(o, "/spec/replicas"))),
                ("Up-to-date", |o| number(o, "/status/updatedReplicas").to_string()),
                ("Available", |o| number(o, "/status/availableReplicas").to_string()),
            ],
            OF_TEMPLATES,
        ),
        ("apps", "ReplicaSet") => (
            &[
                ("Desired", |o| number(o, "/spec/replicas").to_string()),
                ("Current", |o| number(o, "/status/replicas").to_string()),
                ("Ready", |o| number(o, "/status/readyReplicas").to_string()),
            ],
            OF_TEMPLATES,
        ),
        ("apiextensions.k8s.io", _) => (&[("Created At", |o| text(o, "/metadata/creationTimestamp"))], &[]),
        _ => (&[], &[]),
    }
}

fn joined(values: impl Iterator<Item = String>) -> String {
    or_none(values.collect::<Vec<_>>().join(","))
}

fn or_none(text: String) -> String {
    if text.is_empty() { "<none>".into() } else { text }
}

fn pairs(object: &Value, pointer: &str) -> String {
    let labels = object.pointer(pointer).and_then(Value::as_object);
    joined(labels.into_iter().flatten().map(|(name, value)| format!("{name}={}", jsonpath::shown(value))))
}

fn node_status(node: &Value) -> String {
    let ready = list(node, "/status/conditions").any(|c| c["type"] == "Ready" && c["status"] == "True");
    if ready { "Ready".into() } else { "NotReady".into() }
}

fn node_address(node: &Value) -> String {
    let addresses = list(node, "/status/addresses").filter(|a| a["type"] == "InternalIP");
    joined(addresses.map(|address| text(address, "/address")))
}

fn node_roles(node: &Value) -> String {
    let labels = node.pointer("/metadata/labels").and_then(Value::as_object);
    let roles = labels.into_iter().flatten().filter_map(|(name, _)| name.strip_prefix("node-role.kubernetes.io/"));
    joined(roles.map(str::to_owned))
}

fn text(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or("").to_owned()
}

fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

fn list<'a>(object: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    object.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

fn pod_ready(pod: &Value) -> String {
    let ready = list(pod, "/status/containerStatuses").filter(|c| c["ready"] == Value::Bool(true)).count();
    format!("{ready}/{}", list(pod, "/spec/containers").count())
}

fn external(service: &Value) -> String {
    let addresses: Vec<String> = list(service, "/status/loadBalancer/ingress")
        .map(|i| jsonpath::shown(if i["ip"].is_null() { &i["hostname"] } else { &i["ip"] }))
        .collect();
    match (addresses.is_empty(), text(service, "/spec/type").as_str()) {
        (false, _) => addresses.join(","),
        (true, "LoadBalancer") => "<pending>".into(),
        _ => "<none>".into(),
    }
}

fn ports(service: &Value) -> String {
    joined(list(service, "/spec/ports").map(|p| {
        let outside = p["nodePort"].as_i64().map(|n| format!(":{n}")).unwrap_or_default();
        format!("{}{outside}/{}", p["port"], p["protocol"].as_str().unwrap_or("TCP"))
    }))
}

fn data(object: &Value) -> String {
    object["data"].as_object().map_or(0, serde_json::Map::len).to_string()
}

fn cell(column: &Column<'_>, object: &Value, now: jiff::Timestamp) -> Value {
    match &column.cell {
        Cell::Name => json!(meta::name(object)),
        Cell::Age => json!(age(&object["metadata"]["creationTimestamp"], now)),
        Cell::Made(make) => json!(make(object)),
        Cell::Path(path) => {
            let found = jsonpath::find(object, path);
            match (found.as_slice(), column.kind) {
                ([], _) => Value::Null,
                ([one, ..], "date") => json!(age(one, now)),
                ([one, ..], "integer" | "number" | "boolean") => (*one).clone(),
                (many, _) => {
                    let values: Vec<String> = many.iter().map(|v| jsonpath::shown(v)).collect();
                    json!(values.join(" "))
                }
            }
        }
    }
}

/// How long ago a time was, as kubectl says it.
fn age(time: &Value, now: jiff::Timestamp) -> String {
    let Some(time) = time.as_str().and_then(|t| t.parse::<jiff::Timestamp>().ok()) else {
        return "<unknown>".into();
    };
    let seconds = (now.as_second() - time.as_second()).max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let pair = |big: i64, unit: &str, small: i64, below: &str| {
        if small == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{small}{below}") }
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => pair(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => pair(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => pair(days, "d", hours % 24, "h"),
        _ => format!("{days}d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(0, "0s")]
    #[case(119, "119s")]
    #[case(125, "2m5s")]
    #[case(180, "3m")]
    #[case(3_600, "60m")]
    #[case(10_900, "3h1m")]
    #[case(90_000, "25h")]
    #[case(176_400, "2d1h")]
    #[case(864_000, "10d")]
    fn ages_are_said_as_kubectl_says_them(#[case] seconds: i64, #[case] said: &str) {
        let now = jiff::Timestamp::from_second(1_800_000_000).unwrap();
        let then = jiff::Timestamp::from_second(1_800_000_000 - seconds).unwrap();
        assert_eq!(age(&json!(then.to_string()), now), said);
    }
}
