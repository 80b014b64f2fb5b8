//! The Gateway API room: what all dialects read alike: listeners, parentRefs, hostnames, matches and filters.

use std::sync::Arc;

use apiserver::Kind;
use http::Method;
use serde_json::Value;

use super::{
    Snapshot,
    object::{self, list, text, text_or},
};
use crate::{
    dataplane::routing::{Filter, HeaderEdit, HostPattern, Match, PathMatch, PathRewrite, ValueMatch},
    kinds,
};

pub const GROUP: &str = "gateway.networking.k8s.io";

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    NoSuchListener {
        section: Option<String>,
    },
    NotAllowed {
        /// Hostname of the last listener that was asked.
        hostname: String,
    },
    NoCommonHostname {
        hostname: String,
    },
}

impl Refusal {
    /// Of the condition `Accepted`, in the words of the Gateway API.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoSuchListener { .. } => "NoMatchingParent",
            Self::NotAllowed { .. } => "NotAllowedByListeners",
            Self::NoCommonHostname { .. } => "NoMatchingListenerHostname",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetRef<'a> {
    pub kind: &'a str,
    pub name: &'a str,
    pub section: Option<&'a str>,
}

pub fn targets(policy: &Value) -> impl Iterator<Item = TargetRef<'_>> {
    list(policy, "/spec/targetRefs").chain(policy.pointer("/spec/targetRef")).map(|t| TargetRef {
        kind: text(t, "/kind"),
        name: text(t, "/name"),
        section: t.get("sectionName").and_then(Value::as_str),
    })
}

/// Whether a policy is on an object or a section of it, in its own namespace.
pub fn is_on(policy: &Value, kind: &str, target: &Value, section: Option<&str>) -> bool {
    object::namespace(policy) == object::namespace(target)
        && targets(policy).any(|t| t == TargetRef { kind, name: object::name(target), section })
}

/// The policies of a kind, oldest first.
pub fn policies(snapshot: &Snapshot, kind: &Kind) -> Vec<Arc<Value>> {
    let mut all: Vec<_> = snapshot.all(kind).filter(|p| !object::is_going(p)).map(Arc::clone).collect();
    all.sort_by_key(|p| (text(p, "/metadata/creationTimestamp").to_owned(), object::key(p)));
    all
}

/// A listener that a route attaches to: its place in the Gateway, and the hostnames that both have.
pub type Attached = (usize, Vec<HostPattern>);

pub fn gateways<'a>(snapshot: &'a Snapshot, controller: &str) -> impl Iterator<Item = &'a Arc<Value>> {
    snapshot.all(&kinds::GATEWAY).filter(move |gateway| {
        snapshot
            .get(&kinds::GATEWAY_CLASS, "", text(gateway, "/spec/gatewayClassName"))
            .is_some_and(|class| text(class, "/spec/controllerName") == controller)
            && !object::is_going(gateway)
    })
}

/// The Gateway that a parentRef of a route names, where a controller owns its class.
pub fn parent_of<'a>(
    snapshot: &'a Snapshot,
    controller: &str,
    route: &Value,
    parent_ref: &Value,
) -> Option<&'a Arc<Value>> {
    parent(snapshot, route, parent_ref)
        .filter(|gateway| gateways(snapshot, controller).any(|ours| object::key(ours) == object::key(gateway)))
}

/// The Gateway that a parentRef of a route names, whatever its class.
pub fn parent<'a>(snapshot: &'a Snapshot, route: &Value, parent_ref: &Value) -> Option<&'a Arc<Value>> {
    if text_or(parent_ref, "/kind", "Gateway") != "Gateway" || text_or(parent_ref, "/group", GROUP) != GROUP {
        return None;
    }
    let namespace = text_or(parent_ref, "/namespace", object::namespace(route));
    snapshot.get(&kinds::GATEWAY, namespace, text(parent_ref, "/name"))
}

pub fn attach(
    snapshot: &Snapshot,
    route: &Value,
    parent_ref: &Value,
    gateway: &Value,
) -> Result<Vec<Attached>, Refusal> {
    let section = parent_ref.get("sectionName").and_then(Value::as_str);
    let port = parent_ref.get("port").and_then(Value::as_u64);
    let named: Vec<_> = list(gateway, "/spec/listeners")
        .enumerate()
        .filter(|(_, l)| section.is_none_or(|s| text(l, "/name") == s))
        .filter(|(_, l)| port.is_none_or(|p| l["port"].as_u64() == Some(p)))
        .collect();
    if named.is_empty() {
        return Err(Refusal::NoSuchListener { section: section.map(str::to_owned) });
    }
    let hostnames = hostnames(route);
    let (mut attached, mut refusal) = (Vec::new(), None);
    for (at, listener) in named {
        let hostname = text(listener, "/hostname").to_owned();
        let own = HostPattern::parse(Some(&hostname));
        let common: Vec<_> = hostnames.iter().filter_map(|h| own.intersect(h)).collect();
        if common.is_empty() {
            refusal.get_or_insert(Refusal::NoCommonHostname { hostname });
        } else if allows(snapshot, listener, gateway, route) {
            attached.push((at, common));
        } else {
            refusal = Some(Refusal::NotAllowed { hostname });
        }
    }
    match refusal {
        Some(refusal) if attached.is_empty() => Err(refusal),
        _ => Ok(attached),
    }
}

/// The hostnames of a route; none written is one that covers every host.
pub fn hostnames(route: &Value) -> Vec<HostPattern> {
    let named: Vec<_> =
        list(route, "/spec/hostnames").filter_map(Value::as_str).map(|h| HostPattern::parse(Some(h))).collect();
    if named.is_empty() { vec![HostPattern::Any] } else { named }
}

/// Whether a listener allows routes of a route's namespace (default: the Gateway's own).
fn allows(snapshot: &Snapshot, listener: &Value, gateway: &Value, route: &Value) -> bool {
    match text_or(listener, "/allowedRoutes/namespaces/from", "Same") {
        "All" => true,
        "Selector" => {
            let labels = snapshot.get(&kinds::NAMESPACE, "", object::namespace(route));
            let selector = listener.pointer("/allowedRoutes/namespaces/selector/matchLabels");
            object::selected(labels.and_then(|n| n.pointer("/metadata/labels")), selector)
        }
        _ => object::namespace(gateway) == object::namespace(route),
    }
}

/// Whether a reference across namespaces is granted (same namespace: always).
pub fn is_granted(snapshot: &Snapshot, from: (&str, &str, &str), to: (&str, &str, &str, &str)) -> bool {
    let (from_group, from_kind, from_namespace) = from;
    let (to_group, to_kind, to_namespace, to_name) = to;
    from_namespace == to_namespace
        || snapshot.all(&kinds::REFERENCE_GRANT).filter(|g| object::namespace(g) == to_namespace).any(|grant| {
            list(grant, "/spec/from").any(|f| {
                text(f, "/group") == from_group
                    && text(f, "/kind") == from_kind
                    && text(f, "/namespace") == from_namespace
            }) && list(grant, "/spec/to").any(|t| {
                text(t, "/group") == to_group
                    && text(t, "/kind") == to_kind
                    && t.get("name").and_then(Value::as_str).is_none_or(|n| n == to_name)
            })
        })
}

pub fn weight(backend_ref: &Value) -> u32 {
    object::number(backend_ref, "/weight").and_then(|w| u32::try_from(w).ok()).unwrap_or(1)
}

/// The matches of a rule; none written is one that covers every path.
pub fn matches(rule: &Value) -> Vec<Match> {
    let written: Vec<_> = list(rule, "/matches").map(one_match).collect();
    if written.is_empty() { vec![Match::default()] } else { written }
}

fn one_match(written: &Value) -> Match {
    let value = text_or(written, "/path/value", "/");
    let path = match text_or(written, "/path/type", "PathPrefix") {
        "Exact" => PathMatch::Exact(value.to_owned()),
        "RegularExpression" => PathMatch::regex(value),
        _ => PathMatch::Prefix(value.to_owned()),
    };
    let values = |pointer, lower: bool| {
        list(written, pointer)
            .map(|m| {
                let name = text(m, "/name");
                (if lower { name.to_ascii_lowercase() } else { name.to_owned() }, value_match(m))
            })
            .collect()
    };
    Match {
        path,
        headers: values("/headers", true),
        query: values("/queryParams", false),
        method: written.get("method").and_then(Value::as_str).and_then(|m| Method::from_bytes(m.as_bytes()).ok()),
    }
}

/// `{type, value}` of a header or query match.
pub fn value_match(written: &Value) -> ValueMatch {
    match text_or(written, "/type", "Exact") {
        "RegularExpression" => ValueMatch::regex(text(written, "/value")),
        _ => ValueMatch::Exact(text(written, "/value").to_owned()),
    }
}

/// `{set, add, remove}` of a header modifier.
pub fn header_edit(written: &Value) -> HeaderEdit {
    let pairs =
        |pointer| list(written, pointer).map(|p| (text(p, "/name").to_owned(), text(p, "/value").to_owned())).collect();
    HeaderEdit {
        set: pairs("/set"),
        add: pairs("/add"),
        remove: list(written, "/remove").filter_map(Value::as_str).map(str::to_owned).collect(),
    }
}

/// A core filter of a rule; `None` for those that are a dialect's own or are not rehearsed.
pub fn filter(written: &Value) -> Option<Filter> {
    match text(written, "/type") {
        "RequestHeaderModifier" => Some(Filter::Request(header_edit(&written["requestHeaderModifier"]))),
        "ResponseHeaderModifier" => Some(Filter::Response(header_edit(&written["responseHeaderModifier"]))),
        "URLRewrite" => {
            let rewrite = &written["urlRewrite"];
            let path = match text(rewrite, "/path/type") {
                "ReplaceFullPath" => Some(PathRewrite::Full(text(rewrite, "/path/replaceFullPath").to_owned())),
                "ReplacePrefixMatch" => Some(PathRewrite::Prefix(text(rewrite, "/path/replacePrefixMatch").to_owned())),
                _ => None,
            };
            Some(Filter::Rewrite { host: rewrite.get("hostname").and_then(Value::as_str).map(str::to_owned), path })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn world() -> Snapshot {
        let mut snapshot = Snapshot::default();
        let namespace =
            |name: &str, team: &str| Arc::new(json!({"metadata": {"name": name, "labels": {"team": team}}}));
        snapshot.extend(&kinds::NAMESPACE, [namespace("gw", "g"), namespace("a", "yes"), namespace("b", "no")]);
        snapshot
    }

    fn gateway() -> Value {
        json!({"metadata": {"name": "g", "namespace": "gw"}, "spec": {"listeners": [
            {"name": "all", "port": 80, "allowedRoutes": {"namespaces": {"from": "All"}}},
            {"name": "same", "port": 81},
            {"name": "host", "port": 82, "hostname": "*.only.example", "allowedRoutes": {"namespaces": {"from": "All"}}},
            {"name": "team", "port": 83, "allowedRoutes": {"namespaces": {"from": "Selector",
                "selector": {"matchLabels": {"team": "yes"}}}}},
        ]}})
    }

    #[rstest]
    #[case(json!({"sectionName": "all"}), "a", &["m.test"], Ok(vec![0]))]
    #[case(json!({"port": 82}), "a", &["m.only.example"], Ok(vec![2]))]
    #[case(json!({"sectionName": "same"}), "gw", &[], Ok(vec![1]))]
    #[case(json!({"sectionName": "same"}), "a", &[], Err(Refusal::NotAllowed { hostname: String::new() }))]
    #[case(json!({"sectionName": "host"}), "a", &["m.test"],
        Err(Refusal::NoCommonHostname { hostname: "*.only.example".to_owned() }))]
    #[case(json!({"sectionName": "nope"}), "a", &[], Err(Refusal::NoSuchListener { section: Some("nope".to_owned()) }))]
    #[case(json!({"sectionName": "team"}), "a", &[], Ok(vec![3]))]
    #[case(json!({"sectionName": "team"}), "b", &[], Err(Refusal::NotAllowed { hostname: String::new() }))]
    #[case(json!({}), "a", &["m.test"], Ok(vec![0, 3]))]
    fn routes_attach(
        #[case] parent_ref: Value,
        #[case] namespace: &str,
        #[case] hostnames: &[&str],
        #[case] expected: Result<Vec<usize>, Refusal>,
    ) {
        let route = json!({"metadata": {"name": "r", "namespace": namespace}, "spec": {"hostnames": hostnames}});
        let attached = attach(&world(), &route, &parent_ref, &gateway());
        assert_eq!(attached.map(|all| all.into_iter().map(|(at, _)| at).collect::<Vec<_>>()), expected);
    }

    #[test]
    fn references_across_namespaces_need_a_grant() {
        let mut snapshot = world();
        let (from, to) = ((GROUP, "HTTPRoute", "a"), ("", "Service", "b", "svc"));
        assert!(!is_granted(&snapshot, from, to));
        assert!(is_granted(&snapshot, from, ("", "Service", "a", "svc")));
        let grant = json!({"metadata": {"name": "g", "namespace": "b"}, "spec": {
            "from": [{"group": GROUP, "kind": "HTTPRoute", "namespace": "a"}], "to": [{"group": "", "kind": "Service"}]}});
        snapshot.extend(&kinds::REFERENCE_GRANT, [Arc::new(grant)]);
        assert!(is_granted(&snapshot, from, to));
        assert!(!is_granted(&snapshot, (GROUP, "HTTPRoute", "b2"), to));
    }

    #[test]
    fn a_rule_without_matches_covers_every_path() {
        assert_eq!(matches(&json!({})).len(), 1);
        let read = matches(&json!({"matches": [{"path": {"type": "RegularExpression", "value": "^/.*$"},
            "headers": [{"name": "X-M", "value": "v"}], "method": "POST"}]}));
        assert!(read[0].path.covers("/x") && read[0].headers[0].0 == "x-m" && read[0].method == Some(Method::POST));
    }
}
