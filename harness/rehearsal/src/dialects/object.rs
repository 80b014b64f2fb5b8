//! The object room: how Kubernetes objects are read and written here, as JSON values.

use std::{collections::BTreeSet, time::Duration};

use apiserver::Kind;
use serde_json::{Map, Value, json};

use crate::clock::UnixMillis;

/// Namespace (empty for cluster-wide kinds) and name.
pub type Name = (String, String);

/// What [`Value::pointer`] finds, for pointers in which nothing is escaped: it makes no copy of each of their parts, and
/// controllers look at thousands.
fn at<'a>(object: &'a Value, pointer: &str) -> Option<&'a Value> {
    debug_assert!(!pointer.contains('~'), "{pointer}");
    pointer.split('/').skip(1).try_fold(object, |value, part| match value {
        Value::Object(fields) => fields.get(part),
        Value::Array(elements) => elements.get(part.parse::<usize>().ok()?),
        _ => None,
    })
}

/// A text at a JSON pointer; empty where there is none.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    at(object, pointer).and_then(Value::as_str).unwrap_or("")
}

/// A text at a JSON pointer, or another where there is none.
pub fn text_or<'a>(object: &'a Value, pointer: &str, other: &'a str) -> &'a str {
    at(object, pointer).and_then(Value::as_str).filter(|t| !t.is_empty()).unwrap_or(other)
}

pub fn list<'a>(object: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> + Clone + use<'a> {
    at(object, pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default().iter()
}

pub fn number(object: &Value, pointer: &str) -> Option<u64> {
    at(object, pointer).and_then(Value::as_u64)
}

pub fn port(object: &Value, pointer: &str) -> Option<u16> {
    number(object, pointer).and_then(|n| u16::try_from(n).ok())
}

pub fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

pub fn namespace(object: &Value) -> &str {
    text(object, "/metadata/namespace")
}

pub fn key(object: &Value) -> Name {
    (namespace(object).to_owned(), name(object).to_owned())
}

/// `metadata.generation`, 1 where the server keeps none.
pub fn generation(object: &Value) -> u64 {
    number(object, "/metadata/generation").unwrap_or(1)
}

pub fn is_going(object: &Value) -> bool {
    at(object, "/metadata/deletionTimestamp").is_some_and(|t| !t.is_null())
}

pub fn annotation<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object.get("metadata")?.get("annotations")?.get(name)?.as_str()
}

pub fn kind(object: &Value) -> Kind {
    let group = text(object, "/apiVersion").split_once('/').map_or("", |(group, _)| group);
    Kind::new(group, text(object, "/kind"))
}

/// Whether labels hold a `matchLabels` selector; an empty selector holds nothing here.
pub fn selected(labels: Option<&Value>, selector: Option<&Value>) -> bool {
    let Some(wanted) = selector.and_then(Value::as_object).filter(|s| !s.is_empty()) else { return false };
    wanted.iter().all(|(name, value)| labels.and_then(|l| l.get(name)) == Some(value))
}

/// An owner reference to the controller of a child.
pub fn owned_by(owner: &Value, blocks: bool) -> Value {
    let mut reference = json!({
        "apiVersion": owner["apiVersion"],
        "controller": true,
        "kind": owner["kind"],
        "name": name(owner),
        "uid": text(owner, "/metadata/uid"),
    });
    if blocks {
        reference["blockOwnerDeletion"] = json!(true);
    }
    reference
}

/// The uid of an object's controller.
pub fn controller(object: &Value) -> Option<&str> {
    list(object, "/metadata/ownerReferences").find(|r| r["controller"] == json!(true)).map(|r| text(r, "/uid"))
}

/// A condition without a time.
pub fn condition(kind: &str, status: bool, reason: &str, message: &str) -> Value {
    json!({"type": kind, "status": if status { "True" } else { "False" }, "reason": reason, "message": message})
}

/// A condition of an object's generation, without a time.
pub fn observed(object: &Value, kind: &str, status: bool, reason: &str, message: &str) -> Value {
    let mut condition = condition(kind, status, reason, message);
    condition["observedGeneration"] = json!(generation(object));
    condition
}

/// The condition of a type in the list at a pointer.
pub fn condition_of<'a>(object: &'a Value, pointer: &str, kind: &str) -> Option<&'a Value> {
    list(object, pointer).find(|c| text(c, "/type") == kind)
}

pub fn condition_status<'a>(object: &'a Value, kind: &str) -> Option<&'a str> {
    condition_of(object, "/status/conditions", kind).map(|c| text(c, "/status"))
}

/// A Deployment of one container, as charts install controllers.
pub fn installed(namespace: &str, name: &str, labels: Value, container: Value) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels}, "spec": {"containers": [container]}}},
    })
}

pub fn namespace_named(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

pub fn listener_ports(gateway: &Value) -> Vec<u16> {
    let ports: BTreeSet<u16> = list(gateway, "/spec/listeners").filter_map(|l| port(l, "/port")).collect();
    ports.into_iter().collect()
}

/// A moment as Kubernetes writes it, in whole seconds.
pub fn timestamp(now: UnixMillis) -> String {
    let seconds = i64::try_from(now / 1000).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds)
        .map_or_else(|_| "9999-12-31T23:59:59Z".to_owned(), |t| t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// The Unix seconds of a Kubernetes time; 0 where it is none.
pub fn unix_seconds(timestamp: &str) -> u64 {
    timestamp.parse::<jiff::Timestamp>().ok().and_then(|t| u64::try_from(t.as_second()).ok()).unwrap_or(0)
}

/// Sets `lastTransitionTime` of every condition in `new`: the time of the same condition in `old` while its status is
/// the same, else now. Lists of conditions are compared by type, other lists by place.
pub fn stamp_conditions(new: &mut Value, old: Option<&Value>, now: UnixMillis) {
    match new {
        Value::Object(fields) => {
            for (name, value) in fields {
                let old = old.and_then(|o| o.get(name));
                match value {
                    Value::Array(conditions) if name == "conditions" => {
                        for condition in conditions {
                            stamp_condition(condition, old, now);
                        }
                    }
                    value => stamp_conditions(value, old, now),
                }
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter_mut().enumerate() {
                stamp_conditions(item, old.and_then(|o| o.get(at)), now);
            }
        }
        _ => {}
    }
}

fn stamp_condition(condition: &mut Value, old: Option<&Value>, now: UnixMillis) {
    let before = old
        .and_then(Value::as_array)
        .and_then(|all| all.iter().find(|c| c["type"] == condition["type"]))
        .filter(|c| c["status"] == condition["status"])
        .and_then(|c| c.get("lastTransitionTime").cloned());
    condition["lastTransitionTime"] = before.unwrap_or_else(|| json!(timestamp(now)));
}

/// Bytes of a Kubernetes quantity like `50Mi`; `None` where it is none.
pub fn bytes(quantity: &Value) -> Option<usize> {
    let text = match quantity {
        Value::Number(number) => return number.as_u64().and_then(|n| usize::try_from(n).ok()),
        Value::String(text) => text,
        _ => return None,
    };
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "" => 1,
        "k" => 1000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return None,
    };
    number.parse::<usize>().ok()?.checked_mul(factor)
}

/// A Gateway API duration like `60s`, `1m30s` or `500ms`; `None` where it is none.
pub fn duration(text: &str) -> Option<Duration> {
    text.parse::<jiff::SignedDuration>().ok().and_then(|duration| duration.try_into().ok())
}

/// Whether an object has all that a child wants; the server may have filled in more.
pub fn covers(existing: &Value, wanted: &Value) -> bool {
    match (existing, wanted) {
        (Value::Object(existing), Value::Object(wanted)) => {
            wanted.iter().all(|(name, wanted)| existing.get(name).is_some_and(|e| covers(e, wanted)))
        }
        (Value::Array(existing), Value::Array(wanted)) => {
            existing.len() == wanted.len() && existing.iter().zip(wanted).all(|(e, w)| covers(e, w))
        }
        (existing, wanted) => existing == wanted,
    }
}

pub fn texts(map: Option<&Value>) -> Map<String, Value> {
    map.and_then(Value::as_object).cloned().unwrap_or_default()
}

/// Takes over the node ports that an overlay of a Service writes; ports merge by their number.
pub fn overlay_node_ports<'a>(ports: &mut [Value], overlay: impl IntoIterator<Item = &'a Value>) {
    for over in overlay {
        for own in ports.iter_mut().filter(|own| own["port"] == over["port"]) {
            if let Some(number) = over.get("nodePort") {
                own["nodePort"] = number.clone();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(json!("50Mi"), Some(52_428_800))]
    #[case(json!("32768"), Some(32_768))]
    #[case(json!(10), Some(10))]
    #[case(json!("5M"), Some(5_000_000))]
    #[case(json!("5X"), None)]
    #[case(json!("Mi"), None)]
    fn quantities(#[case] quantity: Value, #[case] expected: Option<usize>) {
        assert_eq!(bytes(&quantity), expected);
    }

    #[rstest]
    #[case("60s", Some(60_000))]
    #[case("1m30s", Some(90_000))]
    #[case("500ms", Some(500))]
    #[case("0s", Some(0))]
    #[case("", None)]
    #[case("60", None)]
    #[case("s", None)]
    fn durations(#[case] text: &str, #[case] millis: Option<u128>) {
        assert_eq!(duration(text).map(|d| d.as_millis()), millis);
    }

    #[test]
    fn a_conditions_time_changes_with_its_status_alone() {
        let mut old = json!({"parents": [{"conditions": [condition("Accepted", true, "A", "one")]}]});
        stamp_conditions(&mut old, None, 1_000);
        let mut same = json!({"parents": [{"conditions": [condition("Accepted", true, "B", "two")]}]});
        stamp_conditions(&mut same, Some(&old), 9_000);
        assert_eq!(same["parents"][0]["conditions"][0]["lastTransitionTime"], "1970-01-01T00:00:01Z");
        let mut other = json!({"parents": [{"conditions": [condition("Accepted", false, "B", "two")]}]});
        stamp_conditions(&mut other, Some(&old), 9_000);
        assert_eq!(other["parents"][0]["conditions"][0]["lastTransitionTime"], "1970-01-01T00:00:09Z");
        assert_eq!(unix_seconds("1970-01-01T00:00:09Z"), 9);
    }

    #[test]
    fn selectors_hold_what_they_name() {
        let labels = json!({"app": "a", "other": "b"});
        assert!(selected(Some(&labels), Some(&json!({"app": "a"}))));
        assert!(!selected(Some(&labels), Some(&json!({"app": "b"}))));
        assert!(!selected(Some(&labels), Some(&json!({}))), "an empty selector of a Service selects nothing");
        assert!(!selected(None, Some(&json!({"app": "a"}))));
    }

    #[test]
    fn a_child_is_covered_by_what_the_server_made_of_it() {
        let wanted = json!({"spec": {"ports": [{"port": 80}]}});
        assert!(covers(&json!({"spec": {"ports": [{"port": 80, "nodePort": 3}], "x": 1}, "status": {}}), &wanted));
        assert!(!covers(&json!({"spec": {"ports": [{"port": 81}]}}), &wanted));
        assert!(!covers(&json!({"spec": {"ports": [{"port": 80}, {"port": 81}]}}), &wanted));
    }
}
